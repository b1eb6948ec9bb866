package image_test

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"time"

	"github.com/abdul-abdi/lumina/runtime/image"
)

// An image is installed whole or not at all; what reads it needs no other program.
func ExampleStore_Install() {
	ctx := context.Background()
	dir, err := os.MkdirTemp("", "lumina-")
	if err != nil {
		fmt.Println(err)
		return
	}
	defer os.RemoveAll(dir)
	s := image.NewStore(filepath.Join(dir, "images"))
	err = s.Install(ctx, "tiny", func(dir string) error {
		img := &image.Image{Schema: image.Schema, Architecture: "amd64", Created: time.Now(), Files: map[string]image.File{}}
		for _, name := range []string{image.Kernel, image.Initramfs, image.Rootfs} {
			path := filepath.Join(dir, name)
			if err := os.WriteFile(path, []byte(name), 0o600); err != nil {
				return err
			}
			if img.Files[name], err = image.Digest(ctx, path); err != nil {
				return err
			}
		}
		return img.Write(dir)
	})
	fmt.Println(err)
	names, err := s.List()
	fmt.Println(names, err)
	// Output:
	// <nil>
	// [tiny] <nil>
}
