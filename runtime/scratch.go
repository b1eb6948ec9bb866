package runtime

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"time"

	"github.com/abdul-abdi/lumina/initramfs/protocol"
	"github.com/abdul-abdi/lumina/runtime/ext4"
	"github.com/abdul-abdi/lumina/runtime/vm"
)

// scratchPrefix begins the names of scratch disks, where they have one.
const scratchPrefix = "scratch-"

// makeScratch makes a VM's own disk: a sparse file without a name, so that
// nothing is left of it however this process ends.
func (r *Runtime) makeScratch(size int64) (*os.File, error) {
	f, err := r.unnamed()
	if err != nil {
		return nil, err
	}
	err = formatScratch(f, size)
	if err == nil {
		err = ext4.Reserve(f, size)
	}
	if err != nil {
		r.release(f)
		return nil, err
	}
	return f, nil
}

func formatScratch(f *os.File, size int64) error {
	if err := ext4.Format(f, size, ext4.Options{Label: protocol.DiskScratch}); err != nil {
		return fmt.Errorf("making a scratch disk of %d bytes: %w", size, err)
	}
	return nil
}

// release closes a file of unnamed's, and takes its name if it has one.
func (r *Runtime) release(f *os.File) {
	f.Close()
	if r.namesDisks() {
		os.Remove(f.Name())
	}
}

func (r *Runtime) namesDisks() bool {
	d, ok := r.Driver.(vm.NamedDisks)
	return ok && d.NamesDisks()
}

// unnamed makes a file without a name, or with one that release takes, where the
// driver needs it.
func (r *Runtime) unnamed() (*os.File, error) {
	dir := filepath.Join(r.home, "runs")
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, fmt.Errorf("making the scratch disk: %w", err)
	}
	f, err := os.CreateTemp(dir, scratchPrefix+"*")
	if err != nil {
		return nil, fmt.Errorf("making the scratch disk: %w", err)
	}
	if r.namesDisks() {
		return f, nil
	}
	if err := os.Remove(f.Name()); err != nil {
		f.Close()
		return nil, fmt.Errorf("making the scratch disk: %w", err)
	}
	return f, nil
}

// abandoned is how old a scratch disk that has a name must be to be nobody's: a start
// takes minutes at most.
const abandoned = time.Hour

// cleanScratch removes the scratch disks that processes left which were killed while
// they started a VM.
func (r *Runtime) cleanScratch(now time.Time) error {
	names, err := filepath.Glob(filepath.Join(r.home, "runs", scratchPrefix+"*"))
	if err != nil {
		return err
	}
	for _, name := range names {
		info, err := os.Lstat(name)
		if err == nil && info.Mode().IsRegular() && now.Sub(info.ModTime()) > abandoned {
			err = os.Remove(name)
		}
		if err != nil && !errors.Is(err, os.ErrNotExist) {
			return fmt.Errorf("removing what was left of a start: %w", err)
		}
	}
	return nil
}
