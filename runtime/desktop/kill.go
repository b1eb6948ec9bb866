package desktop

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/abdul-abdi/lumina/runtime/flock"
	"github.com/abdul-abdi/lumina/runtime/supervise"
)

// killTimeout bounds how long a process may take to end its machine that was told to,
// and the kernel to end a process that was killed.
const killTimeout = 5 * time.Second

// names writes into a desktop's lock which process has it.
func names(lock *os.File) error {
	_, err := fmt.Fprintf(io.NewOffsetWriter(lock, 0), "%-20d", os.Getpid()) // over one that was longer
	return err
}

// kill kills the process that runs a desktop, and the machine with it: the kernel sees
// to that.
func (c *Client) kill(ctx context.Context) error {
	lock, err := os.OpenFile(filepath.Join(c.dir, lockFile), lockFlags|os.O_RDONLY, 0)
	if errors.Is(err, os.ErrNotExist) {
		return fmt.Errorf("desktop %q: %w", c.Manifest.Name, ErrNotRunning) // never was
	}
	if err != nil {
		return err
	}
	defer lock.Close()
	busy, err := flock.TryShared(lock)
	if err == nil && !busy {
		err = fmt.Errorf("desktop %q: %w", c.Manifest.Name, ErrNotRunning)
	}
	if err != nil {
		return err
	}
	pid, err := c.supervisorPID(ctx, lock)
	if err == nil && pid <= 1 {
		err = errors.New("it runs in a PID namespace that this process does not see")
	}
	if err != nil {
		return fmt.Errorf("finding the process of desktop %q: %w", c.Manifest.Name, err)
	}
	if err := supervise.Signal(pid, lock.Name(), syscall.SIGKILL); err != nil {
		return fmt.Errorf("killing process %d of desktop %q: %w", pid, c.Manifest.Name, err)
	}
	again, err := os.OpenFile(filepath.Join(c.dir, lockFile), lockFlags|os.O_RDONLY, 0)
	if err != nil {
		return err
	}
	ctx, cancel := context.WithTimeoutCause(ctx, killTimeout, fmt.Errorf("process %d of desktop %q has not ended %v after it was killed", pid, c.Manifest.Name, killTimeout))
	defer cancel()
	if err := flock.Exclusive(ctx, again); err != nil {
		return err // which has closed the file
	}
	return again.Close()
}

// supervisorPID is the process that runs the desktop. Who listens at its socket is known
// to the kernel; the lock names one that does not listen yet.
func (c *Client) supervisorPID(ctx context.Context, lock io.ReaderAt) (int, error) {
	ctx, cancel := context.WithTimeout(ctx, killTimeout)
	defer cancel()
	if conn, err := supervise.DialPlain(ctx, c.dir); err == nil {
		defer conn.Close()
		return supervise.Peer(conn.(*net.UnixConn))
	}
	b := make([]byte, 20)
	n, err := lock.ReadAt(b, 0)
	if err != nil && !errors.Is(err, io.EOF) {
		return 0, err
	}
	pid, err := strconv.Atoi(strings.TrimSpace(string(b[:n])))
	if err != nil {
		return 0, errors.New("another command is working on it; it ends by itself")
	}
	return pid, nil
}
