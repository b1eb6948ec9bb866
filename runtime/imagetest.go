package runtime

import (
	"bytes"
	"context"
	"fmt"
	"regexp"

	"github.com/abdul-abdi/lumina/runtime/client"
	"github.com/abdul-abdi/lumina/runtime/image"
	"github.com/abdul-abdi/lumina/runtime/network"
)

// ImageTest is a command with what it should do.
type ImageTest struct {
	Command string
	User    string
	Exit    int
	// Stdout is a regular expression that the output must match.
	Stdout string
}

// TestImage boots an image, which it takes over, until its agent answers, and runs
// tests, if there are any, in that VM.
func (r *Runtime) TestImage(ctx context.Context, img *image.Handle, tests ...ImageTest) error {
	v, _, err := r.start(ctx, img, VMOptions{CPUs: 1, Network: network.ModeNone, NoTemplate: true}, nil)
	if err != nil {
		return err
	}
	defer v.Close()
	for i, t := range tests {
		if err := v.test(ctx, t); err != nil {
			return fmt.Errorf("test %d of %d (%s): %w", i+1, len(tests), t.Command, err)
		}
	}
	return nil
}

func (v *VM) test(ctx context.Context, t ImageTest) error {
	want, err := regexp.Compile(t.Stdout)
	if err != nil {
		return err
	}
	var stdout, stderr bytes.Buffer
	exit, err := v.Exec(ctx, Command{Shell: t.Command, User: t.User, Stdio: client.Stdio{Stdout: &stdout, Stderr: &stderr}})
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
