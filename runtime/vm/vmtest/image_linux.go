package vmtest

import (
	"bytes"
	"context"
	"os"
	"path/filepath"

	"github.com/abdul-abdi/lumina/runtime/image"
)

// InstallImage puts an image for machines of a [Fake] into a state directory. No
// kernel boots it.
func InstallImage(ctx context.Context, home, name string, config image.Config) error {
	return image.NewStore(filepath.Join(home, "images")).Install(ctx, name, func(dir string) error {
		img := &image.Image{Schema: image.Schema, Architecture: "amd64", Config: config, Files: map[string]image.File{}}
		for _, name := range []string{image.Kernel, image.Initramfs, image.Rootfs} {
			if err := os.WriteFile(filepath.Join(dir, name), bytes.Repeat([]byte("x"), 4096), image.FileMode); err != nil {
				return err
			}
			f, err := image.Digest(ctx, filepath.Join(dir, name))
			if err != nil {
				return err
			}
			img.Files[name] = f
		}
		return img.Write(dir)
	})
}
