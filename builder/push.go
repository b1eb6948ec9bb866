package builder

import (
	"context"
	"fmt"
	"maps"

	v1 "github.com/google/go-containerregistry/pkg/v1"

	"github.com/abdul-abdi/lumina/builder/oci"
	"github.com/abdul-abdi/lumina/runtime/image"
)

// PushOptions says what to push where.
type PushOptions struct {
	Name      string
	Reference string
	Store     *image.Store
	CacheDir  string
	// Progress is told how many bytes were sent; it may be nil.
	Progress func(done, total int64)
}

// Push sends an image to a registry as a container image, which every container
// tool can run. It returns the digest of its manifest. An image whose layers the
// cache does not have is sent as one layer.
func Push(ctx context.Context, o PushOptions) (string, error) {
	h, err := o.Store.Open(o.Name)
	if err != nil {
		return "", err
	}
	defer h.Close()
	img := *h.Image
	layers, err := localImage{h, o.CacheDir}.layers(ctx, &img)
	if err != nil {
		return "", fmt.Errorf("pushing image %q: %w", o.Name, err)
	}
	digest, err := oci.Push(ctx, o.Reference, configFile(&img), layers, o.Progress)
	if ctx.Err() != nil {
		return "", context.Cause(ctx)
	}
	return digest, err
}

func configFile(img *image.Image) v1.ConfigFile {
	labels := maps.Clone(img.Config.Labels)
	if labels == nil {
		labels = map[string]string{}
	}
	delete(labels, initLabel) // the base's
	if img.Init != "" {
		labels[initLabel] = img.Init
	}
	c := v1.ConfigFile{
		Architecture: img.Architecture, OS: "linux", Created: v1.Time{Time: img.Created},
		Config: v1.Config{
			Env: img.Config.Env, User: img.Config.User, WorkingDir: img.Config.WorkingDir, Entrypoint: img.Config.Entrypoint,
			Cmd: img.Config.Cmd, Labels: labels, StopSignal: img.Config.StopSignal,
		},
	}
	for _, port := range img.Config.ExposedPorts {
		if c.Config.ExposedPorts == nil {
			c.Config.ExposedPorts = map[string]struct{}{}
		}
		c.Config.ExposedPorts[port] = struct{}{}
	}
	for _, h := range img.History {
		c.History = append(c.History, v1.History{Created: v1.Time{Time: h.Created}, CreatedBy: h.CreatedBy, Comment: h.Comment, EmptyLayer: h.EmptyLayer})
	}
	return c
}
