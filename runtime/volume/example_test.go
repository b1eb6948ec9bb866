package volume_test

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"

	"github.com/abdul-abdi/lumina/runtime/volume"
)

// A volume is made, and has an ext4 file system; it takes room as it fills.
func ExampleStore_Create() {
	dir, err := os.MkdirTemp("", "lumina-")
	if err != nil {
		fmt.Println(err)
		return
	}
	defer os.RemoveAll(dir)
	s := volume.NewStore(filepath.Join(dir, "volumes"))
	fmt.Println(s.Create("data", 1<<30), errors.Is(s.Create("data", 1<<30), volume.ErrExists))
	info, err := s.Inspect("data")
	fmt.Println(info.Name, info.Size, info.Used < info.Size, info.InUse, err)
	// Output:
	// <nil> true
	// data 1073741824 true false <nil>
}
