package runtime

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"net"
	"path/filepath"

	"github.com/abdul-abdi/lumina/initramfs/protocol"
	"github.com/abdul-abdi/lumina/runtime/client"
	"github.com/abdul-abdi/lumina/runtime/image"
	"github.com/abdul-abdi/lumina/runtime/volume"
)

// BuildVM is a VM that runs the steps of a build, one after the other: what each
// changes is a layer of its own.
type BuildVM struct {
	*VM
	disks int
}

// StartBuild boots the image of a directory for a build. The guest can mount the
// disks in its layers; they are the VM's from then on, also on an error.
func (r *Runtime) StartBuild(ctx context.Context, dir string, options VMOptions, disks []*volume.Disk) (*BuildVM, error) {
	img, err := image.OpenDir(dir)
	if err != nil {
		closeDisks(disks)
		return nil, err
	}
	options.NoTemplate = true // there is one VM of this image
	options.Init = image.InitLumina
	options.disks = disks
	v, _, err := r.start(ctx, img, options, nil)
	if err != nil {
		return nil, fmt.Errorf("starting a VM for the build: %w", err)
	}
	return &BuildVM{v, len(disks)}, nil
}

// Unpack writes a tar archive into the guest.
func (b *BuildVM) Unpack(ctx context.Context, u *protocol.Unpack, archive io.Reader) error {
	return b.call(ctx, func(conn net.Conn) error { return client.Unpack(ctx, conn, u, archive) })
}

// NextLayer ends every process of the guest and begins a layer.
func (b *BuildVM) NextLayer(ctx context.Context, l *protocol.Layer) error {
	return b.call(ctx, func(conn net.Conn) error { return client.NextLayer(ctx, conn, l) })
}

// Changes ends every process of the guest and writes what the layer has, as the
// tar archive of a container image's layer.
func (b *BuildVM) Changes(ctx context.Context, w io.Writer) error {
	return b.call(ctx, func(conn net.Conn) error { return client.Changes(ctx, conn, w) })
}

// Finish ends the VM. What was written to its disks is kept.
func (b *BuildVM) Finish(ctx context.Context) error {
	if b.disks == 0 {
		return b.Close()
	}
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), shutdownTimeout)
	defer cancel()
	return b.Shutdown(ctx)
}

// cacheMountSize is the size of a cache mount's disk. Only what is written takes
// room.
const cacheMountSize = 64 << 30

// CacheMount opens the disk of a build's cache mount, and makes it when there is
// none. It waits until no other VM has it.
func (r *Runtime) CacheMount(ctx context.Context, id string) (*volume.Disk, error) {
	store := r.cacheMounts()
	sum := sha256.Sum256([]byte(id))
	name := "cache-" + hex.EncodeToString(sum[:16])
	for {
		d, err := store.Open(name)
		switch {
		case errors.Is(err, volume.ErrNotFound):
			if err := store.Create(name, cacheMountSize); err != nil && !errors.Is(err, volume.ErrExists) {
				return nil, err
			}
			continue
		case !errors.Is(err, volume.ErrInUse):
			return d, err
		}
		if err := store.Wait(ctx, name); err != nil {
			return nil, fmt.Errorf("another build has it: %w", err)
		}
	}
}

func (r *Runtime) cacheMounts() *volume.Store {
	return volume.NewStore(filepath.Join(r.home, "cache", "mounts"))
}

// CacheMounts describes the disks of builds' cache mounts.
func (r *Runtime) CacheMounts() ([]volume.Info, error) {
	return r.cacheMounts().InspectAll()
}

// PruneCacheMounts removes the disks that no build uses, and returns how many
// bytes of the host's disk that freed.
func (r *Runtime) PruneCacheMounts() (freed int64, err error) {
	list, err := r.CacheMounts()
	if err != nil {
		return 0, err
	}
	for _, m := range list {
		switch err := r.cacheMounts().Remove(m.Name); {
		case errors.Is(err, volume.ErrInUse), errors.Is(err, volume.ErrNotFound):
		case err != nil:
			return freed, err
		default:
			freed += m.Used
		}
	}
	return freed, nil
}
