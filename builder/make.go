package builder

import (
	"context"
	"fmt"
	"io"
	"os"
	"path/filepath"

	v1 "github.com/google/go-containerregistry/pkg/v1"

	"github.com/abdul-abdi/lumina/builder/oci"
	"github.com/abdul-abdi/lumina/runtime/durable"
	"github.com/abdul-abdi/lumina/runtime/image"
)

// Maker makes the root of an image, and says in the place's image what it has.
type Maker func(ctx context.Context, p *Place) error

// Place is where an image is being made.
type Place struct {
	Dir      string // the image's: its kernel and its initramfs are in it
	Image    *image.Image
	Progress func(Progress)
	// LayersOnly says that the root is not to be written: more layers follow.
	LayersOnly bool
	// Begun is to be called when the image is described and the file of its root is
	// there: the trial of the image starts beside the writing of that.
	Begun  func()
	o      Options
	layers []oci.Layer
}

// Base is what an image is made from.
type Base struct {
	Config *v1.ConfigFile
	// Layers are in the cache, the lowest first.
	Layers []oci.Layer
	Source image.Source
	raw    []byte // Config as it was found
}

// Scratch is a base with nothing in it.
func Scratch(config *v1.ConfigFile) *Base {
	return &Base{Config: config, Source: image.Source{Reference: "scratch"}, raw: []byte("{}")}
}

// Base finds an image of the store or a container image. An empty platform is
// that of the image being made.
func (p *Place) Base(ctx context.Context, reference, arch string) (*Base, error) {
	o := p.o
	o.Reference, o.Make, o.Progress = reference, nil, p.Progress
	if arch != "" {
		o.Architecture = arch
	}
	source, err := openSource(ctx, o)
	if err != nil {
		return nil, err
	}
	defer source.Close()
	img := &image.Image{Architecture: o.Architecture, Created: p.Image.Created}
	layers, err := source.layers(ctx, img)
	if err != nil {
		return nil, err
	}
	config, err := configFile(img)
	if err != nil {
		return nil, err
	}
	raw, err := containerConfig(img)
	if err != nil {
		return nil, err
	}
	return &Base{Config: config, Layers: layers, Source: img.Source, raw: raw}, nil
}

// Assemble makes the image of some layers in a directory below that of the image
// that is being made, for a VM that the making needs. It may be of another
// architecture.
func (p *Place) Assemble(ctx context.Context, name, arch string, layers []oci.Layer) (dir string, err error) {
	part := *p.Image
	part.Config, part.Init, part.History, part.Layers, part.Container = image.Config{}, "", nil, nil, nil
	from := p.Dir
	if arch != part.Architecture {
		from = filepath.Join(p.Dir, name+"-"+arch)
		if err := os.Mkdir(from, 0o700); err != nil {
			return "", err
		}
		defer os.RemoveAll(from)
		part.Architecture, part.Files = arch, map[string]image.File{}
		if part.Kernel, err = p.o.writeBoot(ctx, from, arch, part.Files); err != nil {
			return "", err
		}
	}
	dir = filepath.Join(p.Dir, name)
	return dir, assemble(ctx, from, dir, &part, layers, p.o.MaxSize, p.Progress)
}

// writeBoot writes what an architecture boots.
func (o *Options) writeBoot(ctx context.Context, dir, arch string, written map[string]image.File) (info image.KernelInfo, err error) {
	kernel, err := o.Kernel(arch)
	if err != nil {
		return info, err
	}
	initramfs, err := o.Initramfs(arch)
	if err != nil {
		return info, err
	}
	if written[image.Kernel], err = writeKernel(filepath.Join(dir, image.Kernel), kernel, arch); err != nil {
		return info, err
	}
	if err := durable.WriteNew(filepath.Join(dir, image.Initramfs), initramfs, image.FileMode); err != nil {
		return info, fmt.Errorf("writing the initramfs: %w", err)
	}
	if written[image.Initramfs], err = image.Digest(ctx, filepath.Join(dir, image.Initramfs)); err != nil {
		return info, err
	}
	return image.KernelInfo{Version: kernel.Version, CommandLine: kernel.CommandLine, Fragment: kernel.Fragment}, nil
}

// NewRoot begins a root file system in a new file.
func (p *Place) NewRoot(path string) (*Root, error) { return newRoot(path, p.o.MaxSize) }

// Cached is the layer that was kept for a key.
func (p *Place) Cached(ctx context.Context, key string) (l oci.Layer, ok bool) {
	if p.o.NoCache {
		return l, false
	}
	l, err := layerCache{p.o.CacheDir}.get(ctx, key)
	if err == nil {
		p.o.Used.add(key, l)
		return l, true
	}
	return p.cachedElsewhere(ctx, key)
}

// Keep remembers what layer was made for a key.
func (p *Place) Keep(key string, l oci.Layer) error {
	p.o.Used.add(key, l)
	return layerCache{p.o.CacheDir}.put(key, l)
}

// AddLayer makes a layer of a tar archive, and keeps it in the cache.
func (p *Place) AddLayer(write func(io.Writer) error) (oci.Layer, error) {
	return oci.AddLayer(p.o.CacheDir, func(w io.Writer) error { return write(oci.Limit(w, p.o.MaxSize)) })
}

// MaxSize is how large the image may be, in bytes, and anything that it is made of.
func (p *Place) MaxSize() int64 { return p.o.MaxSize }

// Describe says in the image what it is made of: a base, with a configuration in
// place of the base's and these layers.
func (p *Place) Describe(base *Base, config *v1.ConfigFile, layers []oci.Layer) error {
	img := p.Image
	config.Created, config.Architecture, config.OS = v1.Time{Time: img.Created}, img.Architecture, "linux"
	config.RootFS = v1.RootFS{Type: "layers"}
	img.Layers = nil
	for _, l := range layers {
		config.RootFS.DiffIDs = append(config.RootFS.DiffIDs, l.DiffID)
		img.Layers = append(img.Layers, describeLayer(l))
	}
	raw, err := overConfig(base.raw, config)
	if err != nil {
		return err
	}
	img.Source, p.layers = base.Source, layers
	return describeContainer(img, raw, config, nil)
}

// made is a source that a Maker makes.
type made struct {
	o   Options
	dir string // of the image, for layers
}

func (m *made) writeRoot(ctx context.Context, path string, img *image.Image, begun func(), progress func(Progress)) error {
	return m.o.Make(ctx, &Place{Dir: filepath.Dir(path), Image: img, Progress: progress, Begun: begun, o: m.o})
}

func (m *made) layers(ctx context.Context, img *image.Image) ([]oci.Layer, error) {
	p := &Place{Dir: m.dir, Image: img, Progress: m.o.Progress, LayersOnly: true, Begun: func() {}, o: m.o}
	err := m.o.Make(ctx, p)
	return p.layers, err
}

func (m *made) Close() error { return nil }
