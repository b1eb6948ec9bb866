package main

import (
	"context"
	"errors"
	"path/filepath"
	"syscall"
	"testing"
)

// A signal ends a command that waits for a pipe that nobody writes to, whatever flag
// names it.
func TestSignalEndsWaitForPipe(t *testing.T) {
	pipe := filepath.Join(t.TempDir(), "pipe")
	if err := syscall.Mkfifo(pipe, 0o600); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancelCause(t.Context())
	cancel(interrupted{syscall.SIGTERM})
	env := &environment{ctx: ctx}
	for name, read := range map[string]func() error{
		"--env-file":   func() error { _, err := variables(env, nil, []string{pipe}); return err },
		"--recipe":     func() error { _, err := readRecipe(env, pipe); return err },
		"recipe check": func() error { return checkRecipe(env, pipe) },
		"network run":  func() error { _, err := readNetwork(env, pipe); return err },
		"--file": func() error {
			_, _, err := (&dockerfileFlags{file: pipe}).read(env)
			return err
		},
		"--secret": func() error {
			_, err := (&dockerfileFlags{secrets: []string{"id=a,src=" + pipe}}).readSecrets(env)
			return err
		},
	} {
		var signalled interrupted
		if err := read(); !errors.As(err, &signalled) || signalled.signal != syscall.SIGTERM {
			t.Errorf("%s: %v", name, err)
		}
	}
	if _, err := kernelOfFile(pipe, "amd64"); err == nil {
		t.Error("a pipe is not a kernel")
	}
}
