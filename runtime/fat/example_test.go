package fat_test

import (
	"fmt"
	"io"
	"os"
	"strings"

	"github.com/abdul-abdi/lumina/runtime/fat"
)

// A volume with one file is written and read.
func Example() {
	f, err := os.CreateTemp("", "lumina-")
	if err != nil {
		fmt.Println(err)
		return
	}
	defer os.Remove(f.Name())
	defer f.Close()

	open := func() (io.ReadCloser, error) { return io.NopCloser(strings.NewReader("hello")), nil }
	volume, err := fat.LayOut([]fat.File{{Dir: "EFI/BOOT", Name: "HELLO.TXT", Size: 5, Open: open}}, 1)
	if err != nil {
		fmt.Println(err)
		return
	}
	err = volume.Write(f, func(w io.WriterAt, at int64, file fat.File) error {
		r, err := file.Open()
		if err != nil {
			return err
		}
		defer r.Close()
		_, err = io.Copy(io.NewOffsetWriter(w, at), r)
		return err
	})
	if err != nil {
		fmt.Println(err)
		return
	}

	reader, err := fat.NewReader(f, volume.Size)
	if err != nil {
		fmt.Println(err)
		return
	}
	file, err := reader.Open("EFI", "BOOT", "HELLO.TXT")
	if err != nil {
		fmt.Println(err)
		return
	}
	content, err := io.ReadAll(io.NewSectionReader(file, 0, 5))
	fmt.Println(string(content), err)
	// Output: hello <nil>
}
