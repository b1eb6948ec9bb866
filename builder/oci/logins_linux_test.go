package oci

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/google/go-containerregistry/pkg/name"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"golang.org/x/sys/unix"
)

// A file of logins may be a FIFO whose writer writes nothing: an interrupt ends the wait
// of whatever looks into it.
func TestInterruptEndsTheWaitForALogin(t *testing.T) {
	repo, err := name.NewRepository("127.0.0.1:1/a")
	if err != nil {
		t.Fatal(err)
	}
	docker := func(t *testing.T) string {
		dir := t.TempDir()
		t.Setenv("DOCKER_CONFIG", dir)
		return filepath.Join(dir, "config.json")
	}
	podman := func(t *testing.T) string {
		t.Setenv("HOME", t.TempDir())
		t.Setenv("DOCKER_CONFIG", "")
		file := filepath.Join(t.TempDir(), "auth.json")
		t.Setenv("REGISTRY_AUTH_FILE", file)
		return file
	}
	for _, c := range []struct {
		name string
		file func(*testing.T) string
		do   func(context.Context) error
	}{
		{"copy", docker, func(ctx context.Context) error {
			_, err := Copy(ctx, "127.0.0.1:1/a:b", "oci:"+t.TempDir(), CopyOptions{})
			return err
		}},
		{"pull", docker, func(ctx context.Context) error { _, err := dial(ctx, repo); return err }},
		{"pull with podman's", podman, func(ctx context.Context) error { _, err := dial(ctx, repo); return err }},
		{"push", docker, func(ctx context.Context) error {
			_, err := Attach(ctx, "127.0.0.1:1/a:b", v1.Descriptor{}, Attachment{Type: "text/plain"})
			return err
		}},
	} {
		t.Run(c.name, func(t *testing.T) {
			fifo := c.file(t)
			if err := unix.Mkfifo(fifo, 0o600); err != nil {
				t.Fatal(err)
			}
			interrupt := errors.New("interrupted")
			ctx, cancel := context.WithCancelCause(t.Context())
			opened, done := make(chan *os.File, 1), make(chan error, 1)
			go func() {
				f, err := os.OpenFile(fifo, os.O_WRONLY, 0) // waits until it is read
				if err != nil {
					t.Error(err)
				}
				opened <- f
				cancel(interrupt)
			}()
			go func() { done <- c.do(ctx) }()
			limit := time.After(time.Minute)
			select {
			case f := <-opened:
				defer f.Close() // what waits in vain ends, too
			case err := <-done:
				t.Fatalf("%v before the file was read", err)
			case <-limit:
				t.Fatal("the file was not read")
			}
			select {
			case err := <-done:
				if !errors.Is(err, interrupt) && !errors.Is(err, context.Canceled) {
					t.Errorf("%v, want %v", err, interrupt)
				}
			case <-limit:
				t.Error("still waits for the login")
			}
		})
	}
}
