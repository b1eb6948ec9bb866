package erofs_test

import (
	"fmt"
	"os"
	"strings"

	"github.com/abdul-abdi/lumina/builder/erofs"
)

// An image with one file in its root directory.
func ExampleWriter() {
	f, err := os.CreateTemp("", "lumina-")
	if err != nil {
		fmt.Println(err)
		return
	}
	defer os.Remove(f.Name())
	defer f.Close()

	w := erofs.NewWriter(f)
	hello := &erofs.Inode{Mode: erofs.TypeRegular | 0o644, Links: 1}
	if err := w.AddFile(hello, strings.NewReader("hello\n"), 6); err != nil {
		fmt.Println(err)
		return
	}
	root := &erofs.Inode{Mode: erofs.TypeDir | 0o755, Entries: map[string]*erofs.Inode{"hello": hello}}
	if err := w.Close(root, [16]byte{1}); err != nil {
		fmt.Println(err)
		return
	}
	magic := make([]byte, 4)
	_, err = f.ReadAt(magic, 1024) // the superblock
	fmt.Printf("%x %v\n", magic, err)
	// Output: e2e1f5e0 <nil>
}
