package uncompress_test

import (
	"bytes"
	"compress/gzip"
	"fmt"
	"io"

	"github.com/abdul-abdi/lumina/builder/uncompress"
)

// The first bytes of a stream tell how it is compressed.
func ExampleReader() {
	var b bytes.Buffer
	z := gzip.NewWriter(&b)
	fmt.Fprint(z, "hello")
	if err := z.Close(); err != nil {
		fmt.Println(err)
		return
	}

	fmt.Println(uncompress.Is(b.Bytes()))
	r, err := uncompress.Reader(&b)
	if err != nil {
		fmt.Println(err)
		return
	}
	defer r.Close()
	content, err := io.ReadAll(r)
	fmt.Println(string(content), err)
	// Output:
	// true
	// hello <nil>
}
