package session

import (
	"context"
	"errors"
	"fmt"
	"net"
	"path/filepath"
	"syscall"
	"time"

	"github.com/abdul-abdi/lumina/runtime/supervise"
	"github.com/abdul-abdi/lumina/runtime/volume"
)

// Stop ends a session, and returns its SID when its VM and directory are gone. What
// runs in it is killed; volumes are brought to disk first. With force, supervisor and
// VM are killed: what volumes have not written is lost. Of a session that has crashed
// it removes what is left.
func Stop(ctx context.Context, home, id string, force bool) (sid string, err error) {
	dir, err := find(home, id)
	if err != nil {
		if sid, rest, splitErr := splitID(id); splitErr == nil && rest == "" && isSID(sid) {
			return sid, err
		}
		return "", err
	}
	return filepath.Base(dir), stopDir(ctx, dir, force)
}

// Stop is the function of that name, for a session that is open.
func (s *Session) Stop(ctx context.Context) error { return stopDir(ctx, s.dir, false) }

// killTimeout bounds how long the kernel may take to end a process that was killed.
const killTimeout = 10 * time.Second

// stopDir stops a session. If its VM has just crashed, it also removes the record of
// the crash.
func stopDir(ctx context.Context, dir string, force bool) error {
	err := stopLive(ctx, dir, force)
	if err == nil && !alive(dir) && holdsSession(dir) {
		return removeDir(dir)
	}
	return err
}

func stopLive(ctx context.Context, dir string, force bool) error {
	if !alive(dir) {
		if !holdsSession(dir) {
			return fmt.Errorf("session %q: %w", filepath.Base(dir), ErrNotFound)
		}
		return removeDir(dir)
	}
	if force {
		return kill(ctx, dir, syscall.SIGKILL)
	}
	s := &Session{Info: Info{SID: filepath.Base(dir)}, dir: dir}
	// A supervisor that answers is left the time that it needs.
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	t := time.AfterFunc(firstLook, func() { s.watchSupervisor(ctx, cancel) })
	defer t.Stop()
	_, err := control(ctx, dir, controlRequest{Op: opStop})
	switch gone := err != nil && (errors.Is(err, ErrNotFound) || hasCrashed(dir)); {
	case gone && alive(dir):
		// It has no socket yet, or none any more.
		return kill(ctx, dir, syscall.SIGTERM)
	case gone && holdsSession(dir):
		return removeDir(dir)
	}
	return err
}

// watchSupervisor cancels when a supervisor does not answer.
func (s *Session) watchSupervisor(ctx context.Context, cancel context.CancelCauseFunc) {
	for ending := 0; ctx.Err() == nil; {
		ask, done := context.WithTimeoutCause(ctx, pingTimeout, s.silent("supervisor", pingTimeout))
		_, err := control(ask, s.dir, controlRequest{Op: opPing})
		done()
		if err != nil && (errors.Is(err, ErrNotFound) || hasCrashed(s.dir)) && alive(s.dir) {
			// It has closed its socket, and needs at most stopTimeout from then on.
			if ending++; time.Duration(ending)*firstLook > stopTimeout {
				err = s.silent("supervisor", stopTimeout)
			}
		}
		if errors.Is(err, ErrSilent) {
			cancel(err)
			return
		}
		select {
		case <-ctx.Done():
		case <-time.After(firstLook):
		}
	}
}

// kill sends a signal to the supervisor, waits for its end and removes what it has
// left.
func kill(ctx context.Context, dir string, signal syscall.Signal) error {
	sid := filepath.Base(dir)
	info, _ := readInfo(dir) // what could be read of it
	pid, err := supervisorOf(ctx, dir)
	if err == nil {
		err = supervise.Signal(pid, filepath.Join(dir, lockFile), signal)
	}
	// One that is just ending has let go of its lock, but is not gone yet.
	if err != nil && alive(dir) {
		return fmt.Errorf("ending the supervisor of session %s: %w", sid, err)
	}
	ctx, cancel := context.WithTimeoutCause(ctx, killTimeout, fmt.Errorf("process %d, the supervisor of session %s, has not ended %v after it was killed", pid, sid, killTimeout))
	defer cancel()
	if err := waitEnd(ctx, dir); err != nil {
		return err
	}
	// The VM of one that was killed ends a moment later, and has its volumes until then.
	store := volume.NewStore(filepath.Join(filepath.Dir(filepath.Dir(dir)), "volumes"))
	for _, name := range info.Volumes {
		if err := store.Wait(ctx, name); err != nil {
			return err
		}
	}
	return removeDir(dir)
}

// supervisorOf returns the process of a session's supervisor. Who listens at its
// socket is known to the kernel; session.json says it of one that does not yet.
func supervisorOf(ctx context.Context, dir string) (int, error) {
	ctx, cancel := context.WithTimeout(ctx, pingTimeout)
	defer cancel()
	if conn, err := supervise.DialPlain(ctx, dir); err == nil {
		defer conn.Close()
		pid, err := supervise.Peer(conn.(*net.UnixConn))
		if err == nil && pid <= 1 {
			err = errors.New("it runs in a PID namespace that this process does not see")
		}
		return pid, err
	}
	info, err := readInfo(dir)
	if err == nil && info.PID <= 1 {
		err = errors.New("session.json names none")
	}
	return info.PID, err
}
