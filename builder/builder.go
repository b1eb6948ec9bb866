// Package builder makes Lumina images from container images: it fetches the
// layers, flattens them into a root file system in one streaming pass, and
// installs the result at once or not at all. It needs no root and no other
// program.
package builder

import (
	"cmp"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"time"

	v1 "github.com/google/go-containerregistry/pkg/v1"

	"github.com/abdul-abdi/lumina/builder/cosign"
	"github.com/abdul-abdi/lumina/builder/erofs"
	"github.com/abdul-abdi/lumina/builder/oci"
	"github.com/abdul-abdi/lumina/builder/recipe"
	"github.com/abdul-abdi/lumina/builder/uncompress"
	"github.com/abdul-abdi/lumina/runtime/durable"
	"github.com/abdul-abdi/lumina/runtime/image"
)

// Kernel is what an image boots.
type Kernel struct {
	Version     string
	CommandLine string
	Fragment    string // options on top of Lumina's own
	// Default is a kernel that was not asked for: one that a base of the store was
	// given by its recipe is taken in its place.
	Default bool
	Open    func() (io.ReadCloser, error)
}

// Options says what to make.
type Options struct {
	Name      string
	Reference string
	// Architecture in Go's name; this host's when empty.
	Architecture string
	Store        *image.Store
	// Replace lets it take the place of an image of that name; else that is
	// image.ErrExists.
	Replace   bool
	CacheDir  string
	Kernel    func(arch string) (Kernel, error)
	Initramfs func(arch string) ([]byte, error)
	// Verify tries the image before it is installed; nil: it is not tried.
	Verify Verifier
	// Progress is called with the progress of each step; it may be nil. It is called from
	// several goroutines.
	Progress func(Progress)
	Rosetta  bool
	// MaxSize bounds what the image takes, and what is fetched for it, in bytes;
	// 0: half of what is free.
	MaxSize int64
	// Trust is whose signature an image of a registry must have, to be pulled or to
	// be taken as it is here; nil: it need not be signed.
	Trust    *cosign.PublicKey
	verified verified
	// Steps are commands for the image's shell, run by RunStep one after the
	// other; each makes one more layer. What a step made before is taken from
	// the cache, unless NoCache.
	Steps   []string
	RunStep StepRunner
	NoCache bool
	// Files are one layer, below the steps'.
	Files []recipe.File
	// Copies are layers above that of Files.
	Copies []Copied
	// Packages are those of a root that is made from packages.
	Packages []string
	// Configure changes what the source says of the image; nil: nothing.
	Configure func(*image.Image)
	// CacheFrom are where the layers of Make's steps are looked for that this host
	// has not; Used gets all that were used, unless it is nil.
	CacheFrom []*LayerCache
	Used      *UsedLayers
	// Make makes the root in a way of its own, in place of Reference; nil: it is
	// made from that.
	Make Maker
}

// Copied is a layer that needs no VM to be made.
type Copied struct {
	CreatedBy string
	// Write writes it as a tar archive. below is the root that it comes upon.
	Write func(ctx context.Context, below *erofs.Inode, w io.Writer) error
}

// Progress is how far a step is.
type Progress struct {
	Step        string // "fetch", "unpack", "cached", "verify"
	Item        string // what of: a digest
	Done, Total int64  // bytes; Total is 0 where unknown
}

// Create makes an image and installs it.
func Create(ctx context.Context, o Options) (*image.Image, error) {
	if err := image.CheckName(o.Name); err != nil {
		return nil, err
	}
	install := o.Store.Install
	if !o.Replace {
		if install = o.Store.Add; o.Store.Has(o.Name) { // before a long download
			return nil, fmt.Errorf("image %q %w", o.Name, image.ErrExists)
		}
	}
	if o.Architecture == "" {
		o.Architecture = runtime.GOARCH
	}
	if o.Progress == nil {
		o.Progress = func(Progress) {}
	}
	// What fails soonest comes first: a missing kernel before a long download.
	kernel, err := o.Kernel(o.Architecture)
	if err != nil {
		return nil, err
	}
	if o.MaxSize, err = o.Store.MaxSize(o.MaxSize); err != nil {
		return nil, err
	}
	initramfs, err := o.Initramfs(o.Architecture)
	if err != nil {
		return nil, err
	}
	source, err := openSource(ctx, o)
	if err != nil {
		return nil, err
	}
	defer source.Close()
	if base, ok := source.(localImage); ok && kernel.Default && base.Kernel.Fragment != "" {
		kernel = base.kernel()
	}
	if len(o.Steps)+len(o.Files)+len(o.Copies) > 0 || o.Configure != nil {
		source = stepped{source, o}
	}
	var made *image.Image
	err = install(ctx, o.Name, func(dir string) error {
		written := initramfs
		initramfs = nil // it is not needed for longer, and large
		if made, err = build(ctx, dir, o, source, kernel, written); err != nil {
			return err
		}
		return o.verified.write(dir)
	})
	if err != nil {
		if ctx.Err() != nil {
			err = context.Cause(ctx)
		}
		err = errors.Join(err, forgetBroken(ctx, o, err))
		return nil, fmt.Errorf("creating image %q: %w", o.Name, err)
	}
	return made, nil
}

func build(ctx context.Context, dir string, o Options, source source, kernel Kernel, initramfs []byte) (made *image.Image, err error) {
	if err := durable.WriteNew(filepath.Join(dir, image.Initramfs), initramfs, image.FileMode); err != nil {
		return nil, fmt.Errorf("writing the initramfs: %w", err)
	}
	img := &image.Image{
		Schema:       image.Schema,
		Architecture: o.Architecture,
		Created:      time.Now().UTC().Truncate(time.Second),
		Kernel:       image.KernelInfo{Version: kernel.Version, CommandLine: kernel.CommandLine, Fragment: kernel.Fragment},
		Files:        map[string]image.File{image.Initramfs: {Size: int64(len(initramfs)), SHA256: fmt.Sprintf("%x", sha256.Sum256(initramfs))}},
		Rosetta:      o.Rosetta,
	}
	ctx, cancel := context.WithCancelCause(ctx)
	// The kernel is written when it is needed first: by a VM, or beside the digest of the
	// root, for which one CPU is enough. One that was given may be none: it is looked at
	// before a long download.
	addKernel := sync.OnceValues(func() (image.File, error) {
		if err := context.Cause(ctx); err != nil {
			return image.File{}, err
		}
		return writeKernel(filepath.Join(dir, image.Kernel), kernel, o.Architecture)
	})
	defer func() { _, _ = addKernel() }() // it writes to dir
	trial := &trial{verify: o.Verify, dir: dir, cancel: cancel, whole: make(chan struct{})}
	defer func() { trial.end(err) }()
	switch {
	case bootsVMs(source):
		if img.Files[image.Kernel], err = addKernel(); err != nil {
			return nil, err
		}
	case !kernel.Default:
		go func() { _, _ = addKernel() }()
	}
	// A VM starts while the root is written, and waits for that.
	begun := func() { trial.beginEarly(ctx, img, o.MaxSize, addKernel) }
	if err := source.writeRoot(ctx, filepath.Join(dir, image.Rootfs), img, begun, o.Progress); err != nil {
		return nil, cmp.Or(context.Cause(ctx), err)
	}
	if err := trial.settle(ctx, o, img, addKernel); err != nil {
		return nil, err
	}
	return img, img.Write(dir)
}

// bootsVMs says whether the root of a source is made by VMs.
func bootsVMs(s source) bool {
	switch s.(type) {
	case stepped, *made:
		return true
	}
	return false
}

// source is what a root file system comes from.
type source interface {
	// writeRoot describes the source in img and writes its root. It may call begun when
	// all but the root is known, whose file is there.
	writeRoot(ctx context.Context, path string, img *image.Image, begun func(), progress func(Progress)) error
	// layers describes the source in img and returns its layers, which the
	// cache keeps from then on.
	layers(ctx context.Context, img *image.Image) ([]oci.Layer, error)
	Close() error
}

// openSource finds what a reference names: an image of the store, if there is
// one of that name, else a container image.
func openSource(ctx context.Context, o Options) (source, error) {
	if o.Make != nil {
		return &made{o: o}, nil
	}
	if strings.HasPrefix(o.Reference, debianPrefix) {
		return newDebianRoot(o)
	}
	if image.CheckName(o.Reference) == nil {
		h, err := o.Store.Open(o.Reference)
		if err == nil {
			if h.Architecture != o.Architecture {
				h.Close()
				return nil, fmt.Errorf("image %q is for %s, %s was asked for", o.Reference, h.Architecture, o.Architecture)
			}
			return localImage{h, o.CacheDir, o.MaxSize}, nil
		}
		if !errors.Is(err, image.ErrNotFound) {
			return nil, err
		}
	}
	img, err := oci.Open(ctx, o.Reference, oci.Options{
		Platform: v1.Platform{OS: "linux", Architecture: o.Architecture},
		CacheDir: o.CacheDir, MaxSize: o.MaxSize, Digest: o.verified.digest,
		Progress: func(digest string, done, total int64) {
			o.Progress(Progress{Step: "fetch", Item: digest, Done: done, Total: total})
		},
	})
	if err != nil && image.CheckName(o.Reference) == nil {
		return nil, fmt.Errorf("image %q: %w (lumina images list): %w", o.Reference, image.ErrNotFound, err)
	}
	if err != nil {
		return nil, err
	}
	return containerImage{Image: img, o: o}, nil
}

// localImage is an image of the store: its root is taken as it is.
type localImage struct {
	*image.Handle
	cacheDir string
	maxSize  int64 // bytes of a layer that is made of its root
}

func (l localImage) kernel() Kernel {
	k := l.Kernel
	return Kernel{Version: k.Version, CommandLine: k.CommandLine, Fragment: k.Fragment,
		Open: func() (io.ReadCloser, error) { return l.Open(image.Kernel) }}
}

// ownLayers are those that the root was made of on this machine. A prebuilt image has
// none: who made it could name layers of others that are in the cache here, and what is
// made of it would have them in place of its root.
func (l localImage) ownLayers() []image.Layer {
	if l.Prebuilt() {
		return nil
	}
	return l.Layers
}

// layers are those of the image if the cache has them all, else one of all that
// is in its root.
func (l localImage) layers(ctx context.Context, img *image.Image) ([]oci.Layer, error) {
	img.Config, img.Init, img.History, img.Layers, img.Source, img.Container = l.Config, l.Init, l.History, l.ownLayers(), l.Source, l.Container
	var layers []oci.Layer
	for _, known := range img.Layers {
		layer, err := layerOf(known)
		if err == nil {
			layer, err = oci.CachedLayer(ctx, l.cacheDir, layer)
		}
		if err != nil {
			layers = nil
			break
		}
		layers = append(layers, layer)
	}
	if layers != nil {
		return layers, nil
	}
	all, err := l.allInOne(ctx)
	if err != nil {
		return nil, err
	}
	img.Layers = []image.Layer{describeLayer(all)}
	img.History = []image.History{{Created: l.Created, CreatedBy: "lumina images create", Comment: "all of " + l.Source.Reference}}
	return []oci.Layer{all}, nil
}

// allInOne is a layer of all that is in the root. It is made once for each root.
func (l localImage) allInOne(ctx context.Context) (oci.Layer, error) {
	want := l.Files[image.Rootfs]
	kept := layerCache{l.cacheDir}
	key := fmt.Sprintf("%x", sha256.Sum256([]byte("all of root 1 "+want.SHA256)))
	if layer, err := kept.get(ctx, key); err == nil {
		return layer, nil
	}
	if have, err := image.Digest(ctx, l.Path(image.Rootfs)); err != nil {
		return oci.Layer{}, err
	} else if have != want {
		return oci.Layer{}, fmt.Errorf("%w: its %s was modified after the image was made", image.ErrInvalid, image.Rootfs)
	}
	root, err := l.Open(image.Rootfs)
	if err != nil {
		return oci.Layer{}, err
	}
	defer root.Close()
	layer, err := oci.AddLayer(l.cacheDir, func(w io.Writer) error { return writeRootTar(ctx, root, oci.Limit(w, l.maxSize)) })
	if err != nil {
		return layer, err
	}
	return layer, kept.put(key, layer)
}

func (l localImage) writeRoot(ctx context.Context, path string, img *image.Image, _ func(), _ func(Progress)) error {
	from, err := l.Open(image.Rootfs)
	if err != nil {
		return err
	}
	defer from.Close()
	to, err := durable.Create(path, image.FileMode)
	if err != nil {
		return fmt.Errorf("writing the root file system: %w", err)
	}
	defer to.Close()
	defer context.AfterFunc(ctx, func() { from.Close() })()
	if _, err := io.Copy(to, from); err != nil {
		return fmt.Errorf("writing the root file system: %w", err)
	}
	img.Config, img.Init, img.History, img.Layers, img.Container = l.Config, l.Init, l.History, l.ownLayers(), l.Container
	img.Source = l.Source
	img.Files[image.Rootfs] = l.Files[image.Rootfs] // to compare the copy with
	return nil
}

// containerImage is flattened.
type containerImage struct {
	*oci.Image
	o Options
}

func (c containerImage) layers(ctx context.Context, img *image.Image) ([]oci.Layer, error) {
	if err := c.describe(img); err != nil {
		return nil, err
	}
	var layers []oci.Layer
	for i, l := range c.Layers {
		if l.Digest != (v1.Hash{}) {
			var err error
			if l, err = oci.KeepLayer(ctx, c.o.CacheDir, l); err != nil {
				return nil, err
			}
		} else {
			kept, err := oci.AddLayer(c.o.CacheDir, func(w io.Writer) error { return copyLayer(ctx, l, oci.Limit(w, c.o.MaxSize)) })
			if err != nil {
				return nil, err
			}
			l = kept
			img.Layers[i] = describeLayer(l)
		}
		layers = append(layers, l)
	}
	return layers, nil
}

// copyLayer writes a layer uncompressed.
func copyLayer(ctx context.Context, l oci.Layer, w io.Writer) error {
	r, err := l.Open(ctx)
	if err != nil {
		return err
	}
	defer r.Close()
	plain, err := uncompress.Reader(r)
	if err != nil {
		return unexpected(err)
	}
	defer plain.Close()
	_, err = io.Copy(w, plain)
	return err
}

func (c containerImage) describe(img *image.Image) error {
	for _, l := range c.Layers {
		img.Layers = append(img.Layers, describeLayer(l))
	}
	img.Source = image.Source{Reference: c.Reference, Digest: c.Digest}
	img.Source.Reference = img.Source.Public() // the image may be given away
	return describeContainer(img, c.RawConfig, c.Config, c.Annotations)
}

func (c containerImage) writeRoot(ctx context.Context, path string, img *image.Image, begun func(), progress func(Progress)) error {
	if err := c.describe(img); err != nil {
		return err
	}
	return writeLayers(ctx, path, c.Layers, c.o.MaxSize, begun, progress)
}

// ErrTooLarge is wrapped when an image has more than Options.MaxSize.
var ErrTooLarge = oci.ErrTooLarge

// writeLayers makes a root file system of layers, the lowest first, of at most
// limit bytes. Holes are not counted. It calls begun, unless that is nil, when the file
// is there.
func writeLayers(ctx context.Context, path string, layers []oci.Layer, limit int64, begun func(), progress func(Progress)) error {
	root, err := newRoot(path, limit)
	if err != nil {
		return err
	}
	defer root.Close()
	if begun != nil {
		begun()
	}
	if err := root.Apply(ctx, progress, layers...); err != nil {
		return err
	}
	return root.Finish()
}

func hashString(h v1.Hash) string {
	if h == (v1.Hash{}) {
		return ""
	}
	return h.String()
}
