package desktop

import (
	"context"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"sync"
	"syscall"
	"time"
)

// Figures is what a desktop takes of the host.
type Figures struct {
	// Running: a process runs it. Silent: that process does not answer.
	Running, Silent bool
	// Disk is how many bytes of the host's disk it takes.
	Disk int64
	// Status is nil of one that does not run or whose process is silent.
	Status *Status
}

// figuresTimeout bounds how long one desktop's process may take to answer.
const figuresTimeout = 2 * time.Second

// Figures finds out what desktops take, all of them at once. The process of one that
// does not answer delays the others by at most two seconds.
func (s *Store) Figures(ctx context.Context, all ...*Manifest) []Figures {
	figures := make([]Figures, len(all))
	var wg sync.WaitGroup
	for i, m := range all {
		wg.Go(func() { figures[i] = s.figures(ctx, m) })
	}
	wg.Wait()
	return figures
}

func (s *Store) figures(ctx context.Context, m *Manifest) Figures {
	f := Figures{Running: s.Running(m)}
	f.Disk, _ = allocated(s.path(m.ID))
	if !f.Running {
		return f
	}
	ctx, cancel := context.WithTimeout(ctx, figuresTimeout)
	defer cancel()
	c := Client{Manifest: m, dir: s.path(m.ID)}
	r, err := c.askOnce(ctx, request{Status: true})
	switch {
	case err == nil:
		f.Status = r.Status
	case errors.Is(err, ErrNotRunning):
		f.Running = s.Running(m) // it has ended meanwhile, or does not listen yet
	default:
		f.Silent = ctx.Err() != nil
	}
	return f
}

// allocated is how many bytes of the disk the files below a directory take.
func allocated(dir string) (size int64, err error) {
	err = filepath.WalkDir(dir, func(_ string, e fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		info, err := e.Info()
		if errors.Is(err, os.ErrNotExist) {
			return nil
		}
		if err != nil {
			return err
		}
		if st, ok := info.Sys().(*syscall.Stat_t); ok {
			size += st.Blocks * 512
		}
		return nil
	})
	return size, err
}
