// Package releasetest makes small images for tests: real ones, but for a kernel
// that boots.
package releasetest

import (
	"bytes"
	"context"
	"math/rand/v2"
	"os"
	"path"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/abdul-abdi/lumina/builder/erofs"
	"github.com/abdul-abdi/lumina/runtime/image"
)

// Debian is the file system of an image that dpkg knows: what SBOMs are made of.
func Debian() map[string]string {
	return map[string]string{
		"usr/lib/os-release": "NAME=\"Debian GNU/Linux\"\nID=debian\n",
		"var/lib/dpkg/status": `Package: base-files
Status: install ok installed
Maintainer: Santiago Vila <sanvila@debian.org>
Architecture: amd64
Version: 12.4+deb12u5
Description: Debian base system miscellaneous files
 Homepage: not a field

Package: gone
Status: deinstall ok config-files
Architecture: amd64
Version: 1

Package: libstdc++6
Status: install ok installed
Source: gcc-12
Architecture: amd64
Version: 1:12.2.0-14~x
Homepage: https://gcc.gnu.org/
`,
	}
}

// Noise returns bytes that do not compress, the same for the same seed.
func Noise(n int, seed uint64) []byte {
	r := rand.New(rand.NewPCG(seed, 0))
	b := make([]byte, n)
	for i := range b {
		b[i] = byte(r.Uint32())
	}
	return b
}

// Install makes an image with these files in its root file system.
func Install(t testing.TB, store *image.Store, name, arch string, files map[string]string) {
	t.Helper()
	err := store.Install(t.Context(), name, func(dir string) error {
		rootfs, err := os.Create(filepath.Join(dir, image.Rootfs))
		if err != nil {
			return err
		}
		defer rootfs.Close()
		if err := writeRoot(rootfs, files); err != nil {
			return err
		}
		img := &image.Image{
			Schema: image.Schema, Architecture: arch, Created: time.Unix(1_700_000_000, 0).UTC(),
			Kernel: image.KernelInfo{Version: "6.12.1-test", CommandLine: "quiet"},
			Source: image.Source{Reference: "oci:/home/me/secret/test:v1", Digest: "sha256:" + strings.Repeat("0123456789abcdef", 4)},
			Layers: []image.Layer{{MediaType: "application/vnd.oci.image.layer.v1.tar", Digest: "sha256:" + strings.Repeat("fedcba9876543210", 4)}},
			Files:  map[string]image.File{},
		}
		for file, content := range map[string][]byte{image.Kernel: Noise(20_000, 1), image.Initramfs: Noise(5_000, 2)} {
			if err := os.WriteFile(filepath.Join(dir, file), content, 0o644); err != nil {
				return err
			}
		}
		for _, file := range []string{image.Kernel, image.Initramfs, image.Rootfs} {
			if img.Files[file], err = image.Digest(context.Background(), filepath.Join(dir, file)); err != nil {
				return err
			}
		}
		return img.Write(dir)
	})
	if err != nil {
		t.Fatal(err)
	}
}

func writeRoot(f *os.File, files map[string]string) error {
	w := erofs.NewWriter(f)
	root := &erofs.Inode{Mode: erofs.TypeDir | 0o755, Entries: map[string]*erofs.Inode{}}
	for name, content := range files {
		dir := root
		for _, part := range strings.Split(path.Dir(name), "/") {
			if part == "." {
				continue
			}
			next := dir.Entries[part]
			if next == nil {
				next = &erofs.Inode{Mode: erofs.TypeDir | 0o755, Entries: map[string]*erofs.Inode{}}
				dir.Entries[part] = next
			}
			dir = next
		}
		i := &erofs.Inode{Mode: erofs.TypeRegular | 0o644, Links: 1}
		if err := w.AddFile(i, bytes.NewReader([]byte(content)), int64(len(content))); err != nil {
			return err
		}
		dir.Entries[path.Base(name)] = i
	}
	return w.Close(root, [16]byte{1})
}
