package flatten_test

import (
	"archive/tar"
	"bytes"
	"context"
	"fmt"
	"os"

	"github.com/abdul-abdi/lumina/builder/erofs"
	"github.com/abdul-abdi/lumina/builder/flatten"
)

// layer makes a layer of empty files.
func layer(names ...string) *bytes.Buffer {
	var b bytes.Buffer
	w := tar.NewWriter(&b)
	for _, name := range names {
		if err := w.WriteHeader(&tar.Header{Name: name, Mode: 0o644}); err != nil {
			panic(err)
		}
	}
	if err := w.Close(); err != nil {
		panic(err)
	}
	return &b
}

// The upper layer removes a file of the lower one and adds another.
func ExampleTree_Apply() {
	f, err := os.CreateTemp("", "lumina-")
	if err != nil {
		fmt.Println(err)
		return
	}
	defer os.Remove(f.Name())
	defer f.Close()

	tree := flatten.New(erofs.NewWriter(f))
	for _, l := range []*bytes.Buffer{layer("etc/old", "etc/passwd"), layer("etc/.wh.old", "etc/new")} {
		if err := tree.Apply(context.Background(), l); err != nil {
			fmt.Println(err)
			return
		}
	}
	for _, name := range []string{"etc/passwd", "etc/old", "etc/new"} {
		fmt.Println(name, tree.Root().Lookup(name) != nil)
	}
	// Output:
	// etc/passwd true
	// etc/old false
	// etc/new true
}
