package runtime

import (
	"bytes"
	"context"
	"fmt"
	"regexp"

	"github.com/abdul-abdi/lumina/runtime/image"
	"github.com/abdul-abdi/lumina/runtime/network"
	"github.com/abdul-abdi/lumina/runtime/vm"
)

// ImageTest is a command with what it should do.
type ImageTest struct {
	Command string
	User    string
	Exit    int
	// Stdout is a regular expression that the output must match.
	Stdout string
}

// TestError is the error of a test that failed, of an image that did boot.
type TestError struct{ Err error }

func (e *TestError) Error() string { return e.Err.Error() }
func (e *TestError) Unwrap() error { return e.Err }

// TestImage boots an image, which it takes over, until its agent answers, and runs
// tests, if there are any, in that VM. The root of the image may still be being
// written: it is read when whole is closed.
func (r *Runtime) TestImage(ctx context.Context, img *image.Handle, whole <-chan struct{}, tests ...ImageTest) error {
	options := VMOptions{CPUs: 1, Network: network.ModeNone, NoTemplate: true, whole: whole}
	_, late := r.Driver.(vm.LateReader)
	if isClosed(whole) || !late || img.Init == image.InitSystemd { // which mounts it by itself
		options.whole = nil
		select {
		case <-whole:
		case <-ctx.Done():
			img.Close()
			return context.Cause(ctx)
		}
	}
	v, _, err := r.start(ctx, img, options, nil)
	if err != nil {
		return err
	}
	defer v.Close()
	for i, t := range tests {
		if err := v.test(ctx, t); err != nil {
			return &TestError{fmt.Errorf("test %d of %d (%s): %w", i+1, len(tests), t.Command, err)}
		}
	}
	return nil
}

// awaitRoot waits, beside the boot of the guest's kernel, until its root is written;
// nil: it is.
func (v *VM) awaitRoot(ctx context.Context, whole <-chan struct{}) error {
	if whole == nil {
		return nil
	}
	select {
	case <-whole:
		return nil
	case <-v.machine.Done():
		return v.ended(ConnectionFailed, v.machine.Err())
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}

func isClosed(c <-chan struct{}) bool {
	select {
	case <-c:
		return true
	default:
		return false
	}
}

func (v *VM) test(ctx context.Context, t ImageTest) error {
	want, err := regexp.Compile(t.Stdout)
	if err != nil {
		return err
	}
	var stdout, stderr bytes.Buffer
	exit, err := v.Exec(ctx, Command{Shell: t.Command, User: t.User, Stdio: Stdio{Stdout: &stdout, Stderr: &stderr}})
	switch {
	case err != nil:
		return err
	case exit.Code != t.Exit:
		return fmt.Errorf("exit code %d, want %d; it printed %.300q and %.300q", exit.Code, t.Exit, stdout.String(), stderr.String())
	case !want.Match(stdout.Bytes()):
		return fmt.Errorf("it printed %.300q, want a match of %q", stdout.String(), t.Stdout)
	}
	return nil
}
