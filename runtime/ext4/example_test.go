package ext4_test

import (
	"fmt"
	"os"

	"github.com/abdul-abdi/lumina/runtime/ext4"
)

// An empty file system of 1 GiB takes little room on the host's disk.
func ExampleFormat() {
	f, err := os.CreateTemp("", "lumina-")
	if err != nil {
		fmt.Println(err)
		return
	}
	defer os.Remove(f.Name())
	defer f.Close()

	fmt.Println(ext4.Format(f, 1<<30, ext4.Options{Label: "data"}))
	info, err := f.Stat()
	if err != nil {
		fmt.Println(err)
		return
	}
	fmt.Println(info.Size()>>20, "MiB")
	fmt.Println(ext4.Format(f, 1, ext4.Options{}) != nil) // too small
	// Output:
	// <nil>
	// 1024 MiB
	// true
}
