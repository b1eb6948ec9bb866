package builder_test

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"os"
	"path/filepath"

	"github.com/google/go-containerregistry/pkg/v1/empty"
	"github.com/google/go-containerregistry/pkg/v1/layout"

	"github.com/abdul-abdi/lumina/builder"
	"github.com/abdul-abdi/lumina/runtime/image"
)

// A container image of an OCI layout becomes an image of the store.
func ExampleCreate() {
	dir, err := os.MkdirTemp("", "lumina-")
	if err != nil {
		fmt.Println(err)
		return
	}
	defer os.RemoveAll(dir)
	oci := filepath.Join(dir, "oci")
	at, err := layout.Write(oci, empty.Index)
	if err == nil {
		err = at.AppendImage(empty.Image) // a layout of one image without layers
	}
	if err != nil {
		fmt.Println(err)
		return
	}
	store := image.NewStore(filepath.Join(dir, "images"))
	_, err = builder.Create(context.Background(), builder.Options{
		Name: "tiny", Reference: "oci:" + oci, Architecture: "arm64",
		Store: store, CacheDir: filepath.Join(dir, "cache"),
		// A program gives what it boots: kernelconfig.Open and initramfs.Read have Lumina's.
		Kernel: func(string) (builder.Kernel, error) {
			head := append(make([]byte, 56), "ARM\x64\x00\x00\x00\x00"...)
			return builder.Kernel{Version: "6.12", Open: func() (io.ReadCloser, error) { return io.NopCloser(bytes.NewReader(head)), nil }}, nil
		},
		Initramfs: func(string) ([]byte, error) { return []byte("070701"), nil },
	})
	fmt.Println(err)
	names, err := store.List()
	fmt.Println(names, err)
	// Output:
	// <nil>
	// [tiny] <nil>
}
