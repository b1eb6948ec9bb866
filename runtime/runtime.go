// Package runtime boots images into virtual machines and runs commands in them.
//
//	r, err := runtime.Open(runtime.Options{})
//	result, err := r.Run(ctx, runtime.RunOptions{
//		VM:      runtime.VMOptions{Image: "debian"},
//		Command: runtime.Command{Shell: "uname -a"},
//	})
//
// A VM ends with the process that started it; there is no daemon.
package runtime

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"time"

	"github.com/abdul-abdi/lumina/runtime/driver"
	"github.com/abdul-abdi/lumina/runtime/image"
	"github.com/abdul-abdi/lumina/runtime/template"
	"github.com/abdul-abdi/lumina/runtime/vm"
	"github.com/abdul-abdi/lumina/runtime/volume"
)

// Options configures a Runtime. Zero values mean the defaults.
type Options struct {
	// Home is the state directory; ~/.lumina when empty.
	Home string
	// Driver runs the VMs; this system's own when nil.
	Driver vm.Driver
}

// Runtime is a state directory and the driver that runs its images.
type Runtime struct {
	Images *image.Store
	Driver vm.Driver
	// Templates are the snapshots that starts are restored from.
	Templates *template.Store
	Volumes   *volume.Store
	home      string
	freeSpace func(dir string) (int64, error) // FreeSpace, but for tests
}

// Home finds the state directory: home, else ~/.lumina.
func Home(home string) (string, error) {
	if home == "" {
		user, err := os.UserHomeDir()
		if err != nil {
			return "", fmt.Errorf("finding the state directory: %w; set LUMINA_HOME", err)
		}
		home = filepath.Join(user, ".lumina")
	}
	home, err := filepath.Abs(home)
	if err != nil {
		return "", fmt.Errorf("finding the state directory: %w", err)
	}
	return home, nil
}

// Open opens the state directory, which need not exist yet.
func Open(options Options) (*Runtime, error) {
	home, err := Home(options.Home)
	if err != nil {
		return nil, err
	}
	if err := checkHome(home); err != nil {
		return nil, fmt.Errorf("state directory %s: %w; LUMINA_HOME names another", home, err)
	}
	if options.Driver == nil {
		if options.Driver, err = driver.New(driver.Options{}); err != nil {
			return nil, err
		}
	}
	return &Runtime{
		Images:    image.NewStore(filepath.Join(home, "images")),
		Driver:    options.Driver,
		Templates: template.NewStore(filepath.Join(home, "cache", "templates")),
		Volumes:   volume.NewStore(filepath.Join(home, "volumes")),
		home:      home,
		freeSpace: FreeSpace,
	}, nil
}

// checkHome refuses what can be no state directory, before an operation fails in it that
// says nothing of it.
func checkHome(home string) error {
	info, err := os.Stat(home)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		if _, err := os.Lstat(home); err == nil {
			return errors.New("a link that leads nowhere")
		}
		return nil // it is made when something is to be kept
	case err != nil:
		var failed *fs.PathError
		if errors.As(err, &failed) {
			err = failed.Err
		}
		return err
	case !info.IsDir():
		return errors.New("not a directory")
	}
	return nil
}

// Home is the state directory.
func (r *Runtime) Home() string { return r.home }

// Clean removes what processes left that were killed: half-made images and
// scratch disks.
func (r *Runtime) Clean(ctx context.Context) (image.Left, error) {
	if d, ok := r.Driver.(vm.Cleaner); ok {
		d.Clean()
	}
	left, err := r.Images.Clean()
	// What cannot be cleaned keeps nothing else from it.
	err = cmp.Or(err, r.Volumes.Clean())
	err = cmp.Or(err, r.Templates.Clean(false))
	err = cmp.Or(err, r.cleanScratch(time.Now()))
	err = cmp.Or(err, context.Cause(ctx))
	return left, err
}
