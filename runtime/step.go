package runtime

import (
	"context"
	"fmt"
	"io"

	"github.com/abdul-abdi/lumina/runtime/client"
	"github.com/abdul-abdi/lumina/runtime/image"
)

// RunStep runs a command in a VM of the image in a directory, and writes what it
// changed there as the tar archive of a container image's layer. The command's
// output goes to out.
func (r *Runtime) RunStep(ctx context.Context, dir string, options VMOptions, command string, out, changes io.Writer) error {
	img, err := image.OpenDir(dir)
	if err != nil {
		return err
	}
	options.NoTemplate = true // there is one VM of this image
	// What systemd writes as it starts is not the command's.
	options.Init = image.InitLumina
	v, _, err := r.start(ctx, img, options, nil)
	if err != nil {
		return err
	}
	defer v.Close()
	exit, err := v.Exec(ctx, Command{Shell: command, Stdio: Stdio{Stdout: out, Stderr: out}})
	if err != nil {
		return err
	}
	if exit.Code != 0 {
		return fmt.Errorf("the command ended with exit code %d", exit.Code)
	}
	conn, err := v.Dial(ctx)
	if err != nil {
		return err
	}
	if err := client.Changes(ctx, conn, changes); err != nil {
		return fmt.Errorf("reading what the command changed: %w", err)
	}
	return nil
}
