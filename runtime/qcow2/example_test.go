package qcow2_test

import (
	"context"
	"fmt"
	"os"

	"github.com/abdul-abdi/lumina/runtime/qcow2"
)

// A disk of 1 GiB with data in one place takes little more than one cluster in its file.
func Example() {
	f, err := os.CreateTemp("", "lumina-")
	if err != nil {
		fmt.Println(err)
		return
	}
	defer os.Remove(f.Name())
	defer f.Close()

	w := qcow2.NewWriter(f, 1<<30)
	if _, err := w.WriteCluster([]byte("hello"), 512<<20); err != nil {
		fmt.Println(err)
		return
	}
	if err := w.Finish(); err != nil {
		fmt.Println(err)
		return
	}

	info, err := f.Stat()
	if err != nil {
		fmt.Println(err)
		return
	}
	disk, err := qcow2.Open(f, info.Size())
	if err != nil {
		fmt.Println(err)
		return
	}
	from, _, err := disk.Data(context.Background(), 0)
	fmt.Println(disk.Size()>>20, "MiB; data at", from>>20, "MiB", err)
	content := make([]byte, 5)
	_, err = disk.ReadAt(content, from)
	fmt.Println(string(content), err, info.Size() < 1<<20)
	// Output:
	// 1024 MiB; data at 512 MiB <nil>
	// hello <nil> true
}
