// Caseless uses the stores and copies files on a disk that does not tell cases apart, and
// says how it went.
//
//	caseless DIRECTORY
package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"

	"github.com/abdul-abdi/lumina/initramfs/protocol"
	"github.com/abdul-abdi/lumina/initramfs/transfer"
	"github.com/abdul-abdi/lumina/runtime/image"
	"github.com/abdul-abdi/lumina/runtime/volume"
)

var ctx = context.Background()

func main() {
	dir := os.Args[1]
	images(image.NewStore(filepath.Join(dir, "images")))
	volumes(filepath.Join(dir, "volumes"))
	copies(dir)
}

func say(what string, err error) { fmt.Printf("%s: %v\n", what, err) }

func images(s *image.Store) {
	fill := func(dir string) error {
		img := &image.Image{Schema: image.Schema, Architecture: "amd64", Files: map[string]image.File{}}
		for _, name := range []string{image.Kernel, image.Initramfs, image.Rootfs} {
			path := filepath.Join(dir, name)
			if err := os.WriteFile(path, []byte(name), image.FileMode); err != nil {
				return err
			}
			var err error
			if img.Files[name], err = image.Digest(ctx, path); err != nil {
				return err
			}
		}
		return img.Write(dir)
	}
	say("image debian", s.Install(ctx, "debian", fill))
	say("image debian again", s.Install(ctx, "debian", fill))
	say("image Debian", s.Install(ctx, "Debian", fill))
	say("another Debian", s.Add(ctx, "Debian", fill))
	_, err := s.Open("DEBIAN")
	say("opening DEBIAN", err)
	say("removing Debian", s.Remove("Debian"))
	fmt.Println("has", s.Has("debian"), s.Has("Debian"))
	h, err := s.Open("debian")
	say("opening debian", err)
	if err == nil {
		h.Close()
	}
	fmt.Println(s.List())
}

func volumes(dir string) {
	s := volume.NewStore(dir)
	err := os.MkdirAll(dir, 0o700)
	if err == nil {
		err = os.WriteFile(filepath.Join(dir, "data.img"), make([]byte, 4096), 0o600) // of a disk with hard links
	}
	say("volume data", err)
	say("volume Data", s.Create("Data", 16<<20))
	_, err = s.Open("DATA")
	say("opening DATA", err)
	say("removing Data", s.Remove("Data"))
	d, err := s.Open("data")
	say("opening data", err)
	if err == nil {
		d.Close()
	}
	fmt.Println(s.List())
}

// copies has names that differ by case only copied into a new directory, and into one that
// has files already.
func copies(dir string) {
	for _, files := range [][]string{{"A", "a"}, {"D/x", "d/y"}} {
		name := files[0][:1]
		source, err := os.MkdirTemp("", name)
		for _, f := range files {
			path := filepath.Join(source, f)
			err = errors.Join(err, os.MkdirAll(filepath.Dir(path), 0o755), os.WriteFile(path, []byte(f), 0o644))
		}
		if err != nil {
			say(name, err)
			continue
		}
		for _, to := range []string{"new-" + name, "old-" + name} {
			destination := filepath.Join(dir, to)
			if to[:3] == "old" {
				err = errors.Join(os.Mkdir(destination, 0o755), os.Mkdir(filepath.Join(destination, "D"), 0o755), os.WriteFile(filepath.Join(destination, "A"), nil, 0o644))
			}
			say(to, errors.Join(err, copyTo(source, destination)))
			b, err := os.ReadFile(filepath.Join(destination, files[0]))
			fmt.Printf("%s has %q, %v\n", files[0], b, err)
		}
	}
}

func copyTo(source, destination string) error {
	r, w := io.Pipe()
	go func() {
		_, err := transfer.Send(ctx, w, source, transfer.SendOptions{})
		w.CloseWithError(err)
	}()
	_, err := transfer.Receive(ctx, protocol.NewReader(r), destination, transfer.Options{Name: filepath.Base(source), Content: true})
	r.Close()
	return err
}
