package builder

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"os"
	"path/filepath"
	"strings"

	v1 "github.com/google/go-containerregistry/pkg/v1"

	"github.com/abdul-abdi/lumina/builder/erofs"
	"github.com/abdul-abdi/lumina/builder/oci"
	"github.com/abdul-abdi/lumina/runtime/durable"
	"github.com/abdul-abdi/lumina/runtime/image"
	"github.com/abdul-abdi/lumina/runtime/statefile"
)

// Step is a command that changes an image: what it changes is one more layer.
type Step struct {
	Number, Total int // from 1
	Command       string
	// Dir is the image that the command runs in a VM of.
	Dir string
}

// StepRunner runs a step and writes what it changed as a layer's tar archive.
type StepRunner func(ctx context.Context, s Step, changes io.Writer) error

// stepped is a source with steps on top.
type stepped struct {
	source
	o Options
}

func (s stepped) writeRoot(ctx context.Context, path string, img *image.Image, begun func(), progress func(Progress)) error {
	layers, err := s.allLayers(ctx, filepath.Dir(path), img, progress)
	if err != nil {
		return err
	}
	return writeLayers(ctx, path, layers, s.o.MaxSize, begun, progress)
}

// allLayers are those of the source and of the steps, whose VMs have their images
// below dir. Then img is described.
func (s stepped) allLayers(ctx context.Context, dir string, img *image.Image, progress func(Progress)) ([]oci.Layer, error) {
	if m, ok := s.source.(*made); ok {
		m.dir = dir
	}
	layers, err := s.layers(ctx, img)
	if err != nil {
		return nil, err
	}
	if s.o.Configure != nil {
		// The steps run where and as whom the base says: the image's own user
		// may not do much, and its directory not be there yet.
		base := img.Config
		s.o.Configure(img)
		last := img.Config
		defer func() { img.Config.User, img.Config.WorkingDir = last.User, last.WorkingDir }()
		img.Config.User, img.Config.WorkingDir = base.User, base.WorkingDir
	}
	copies := s.o.Copies
	if len(s.o.Files) > 0 {
		files := Copied{CreatedBy: "files of the recipe", Write: func(_ context.Context, below *erofs.Inode, w io.Writer) error {
			return writeFiles(s.o.Files, below, w)
		}}
		copies = append([]Copied{files}, copies...)
	}
	if len(copies) > 0 {
		below := newTree()
		if err := below.Apply(ctx, progress, layers...); err != nil {
			return nil, err
		}
		for _, c := range copies {
			layer, err := oci.AddLayer(s.o.CacheDir, func(w io.Writer) error { return c.Write(ctx, below.Tree(), w) })
			if err == nil {
				err = below.Apply(ctx, progress, layer)
			}
			if err != nil {
				return nil, fmt.Errorf("%s: %w", c.CreatedBy, err)
			}
			layers = append(layers, layer)
			img.Layers = append(img.Layers, describeLayer(layer))
			img.History = append(img.History, image.History{Created: img.Created, CreatedBy: c.CreatedBy, Comment: "lumina"})
		}
	}
	for n, command := range s.o.Steps {
		step := Step{Number: n + 1, Total: len(s.o.Steps), Command: command}
		layer, err := s.step(ctx, dir, step, img, layers, progress)
		if err != nil {
			return nil, fmt.Errorf("step %d of %d (%s): %w", step.Number, step.Total, shorten(command), err)
		}
		layers = append(layers, layer)
		img.Layers = append(img.Layers, describeLayer(layer))
		img.History = append(img.History, image.History{Created: img.Created, CreatedBy: "/bin/sh -c " + command, Comment: "lumina"})
	}
	return layers, nil
}

func shorten(command string) string {
	line, _, more := strings.Cut(command, "\n")
	if len(line) > 60 {
		line, more = line[:60], true
	}
	if more {
		line += "…"
	}
	return line
}

// step makes the layer of a step, or takes it from the cache.
func (s stepped) step(ctx context.Context, dir string, step Step, img *image.Image, layers []oci.Layer, progress func(Progress)) (oci.Layer, error) {
	key, err := stepKey(img, layers, step.Command)
	if err != nil {
		return oci.Layer{}, err
	}
	cache := layerCache{s.o.CacheDir}
	if !s.o.NoCache {
		if l, err := cache.get(ctx, key); err == nil {
			progress(Progress{Step: "cached", Item: step.Command})
			return l, nil
		}
	}
	step.Dir = filepath.Join(dir, "step")
	if err := assemble(ctx, dir, step.Dir, img, layers, s.o.MaxSize, progress); err != nil {
		return oci.Layer{}, err
	}
	defer os.RemoveAll(step.Dir)
	layer, err := oci.AddLayer(s.o.CacheDir, func(w io.Writer) error { return s.o.RunStep(ctx, step, oci.Limit(w, s.o.MaxSize)) })
	if err != nil {
		return oci.Layer{}, err
	}
	return layer, cache.put(key, layer)
}

// assemble makes the image of some layers in a directory below that of the
// image that is being made.
func assemble(ctx context.Context, from, dir string, img *image.Image, layers []oci.Layer, limit int64, progress func(Progress)) error {
	if err := os.Mkdir(dir, 0o700); err != nil {
		return err
	}
	part := *img
	part.Files = maps.Clone(img.Files)
	err := writeLayers(ctx, filepath.Join(dir, image.Rootfs), layers, limit, nil, progress)
	for _, name := range []string{image.Kernel, image.Initramfs} {
		err = errors.Join(err, os.Link(filepath.Join(from, name), filepath.Join(dir, name)))
	}
	if err == nil {
		part.Files[image.Rootfs], err = image.Digest(ctx, filepath.Join(dir, image.Rootfs))
	}
	if err == nil {
		err = part.Write(dir)
	}
	if err != nil {
		return errors.Join(err, os.RemoveAll(dir))
	}
	return nil
}

// stepKey names what a step's result depends on.
func stepKey(img *image.Image, layers []oci.Layer, command string) (string, error) {
	h := sha256.New()
	var diffs []string
	for _, l := range layers {
		diffs = append(diffs, l.DiffID.String())
	}
	diffs = append(diffs, img.Files[image.Kernel].SHA256, img.Files[image.Initramfs].SHA256)
	err := json.NewEncoder(h).Encode([]any{"step 1", img.Architecture, diffs, img.Config, command})
	return hex.EncodeToString(h.Sum(nil)), err
}

// layerCache remembers which layer was made from what, beside the cache of
// layers in its directory.
type layerCache struct{ dir string }

func (c layerCache) path(key string) string {
	return filepath.Join(c.dir, "steps", key+".json")
}

// maxStep bounds what is remembered of a step, in bytes.
const maxStep = 1 << 20

func (c layerCache) get(ctx context.Context, key string) (oci.Layer, error) {
	b, err := statefile.Read(c.path(key), maxStep)
	if err != nil {
		return oci.Layer{}, err
	}
	var l image.Layer
	if err := json.Unmarshal(b, &l); err != nil {
		return oci.Layer{}, err
	}
	layer, err := layerOf(l)
	if err != nil {
		return oci.Layer{}, err
	}
	if layer, err = oci.CachedLayer(ctx, c.dir, layer); err != nil {
		return oci.Layer{}, err
	}
	return layer, nil
}

func (c layerCache) put(key string, l oci.Layer) error {
	path := c.path(key)
	if err := durable.MkdirAll(filepath.Dir(path), 0o700); err != nil {
		return err
	}
	b, err := json.Marshal(describeLayer(l))
	if err != nil {
		return err
	}
	return durable.Replace(path, b, 0o600)
}

func describeLayer(l oci.Layer) image.Layer {
	return image.Layer{MediaType: l.MediaType, Digest: hashString(l.Digest), DiffID: l.DiffID.String(), Size: l.Size, Annotations: l.Annotations}
}

func layerOf(l image.Layer) (oci.Layer, error) {
	diffID, err := v1.NewHash(l.DiffID)
	if err != nil {
		return oci.Layer{}, fmt.Errorf("layer %q: %w", l.DiffID, err)
	}
	layer := oci.Layer{MediaType: l.MediaType, DiffID: diffID, Size: l.Size, Annotations: l.Annotations}
	if l.Digest != "" {
		if layer.Digest, err = v1.NewHash(l.Digest); err != nil {
			return oci.Layer{}, fmt.Errorf("layer %q: %w", l.Digest, err)
		}
	}
	return layer, nil
}
