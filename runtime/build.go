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

// LayerMount is something that the guest's root has until the layer's end, and that is
// no part of the layer: a staged tree, a disk, or a file system in memory.
type LayerMount struct {
	Path     string
	ReadOnly bool
	Staged   string // the file or directory "data" of this tree, see Stage
	Disk     int    // which of the VM's disks, from 1; 0: none
	Size     int64  // of a file system in memory, in bytes
	// Of a disk's directory, when it is made.
	Mode     uint32
	UID, GID uint32
}

// Unpack writes a tar archive into the guest's root.
func (b *BuildVM) Unpack(ctx context.Context, archive io.Reader) error {
	return b.unpack(ctx, &protocol.Unpack{}, archive)
}

// Stage writes a tar archive into a tree that the guest's processes do not see until a
// layer mounts it. With memory, it is kept off the disk.
func (b *BuildVM) Stage(ctx context.Context, name string, memory bool, archive io.Reader) error {
	return b.unpack(ctx, &protocol.Unpack{Staged: name, Memory: memory}, archive)
}

func (b *BuildVM) unpack(ctx context.Context, u *protocol.Unpack, archive io.Reader) error {
	return b.call(ctx, func(conn net.Conn) error { return client.Unpack(ctx, conn, u, archive) })
}

// NextLayer ends every process of the guest and begins a layer. dir is made if it is
// missing.
func (b *BuildVM) NextLayer(ctx context.Context, dir string, mounts []LayerMount) error {
	l := &protocol.Layer{Dir: dir}
	for _, m := range mounts {
		p := protocol.LayerMount{Path: m.Path, ReadOnly: m.ReadOnly, Staged: m.Staged, Size: m.Size, Mode: m.Mode, UID: m.UID, GID: m.GID}
		if m.Disk > 0 {
			p.Disk = protocol.BuildDisk(m.Disk - 1)
		}
		l.Mounts = append(l.Mounts, p)
	}
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
