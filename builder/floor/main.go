// Floor does the least that making an image of a layer takes, with the library that
// lumina does it with: it uncompresses the layer, hashes what is stored and what that
// holds, and writes it. compare.sh sets what images create takes beside it.
package main

import (
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"os"

	"github.com/klauspost/compress/gzip"
)

func main() {
	if len(os.Args) != 3 {
		fmt.Fprintln(os.Stderr, "usage: floor LAYER.tar.gz FILE")
		os.Exit(2)
	}
	if err := floor(os.Args[1], os.Args[2]); err != nil {
		fmt.Fprintln(os.Stderr, "floor:", err)
		os.Exit(1)
	}
}

func floor(layer, to string) error {
	in, err := os.Open(layer)
	if err != nil {
		return err
	}
	defer in.Close()
	z, err := gzip.NewReader(io.TeeReader(in, sha256.New()))
	if err != nil {
		return err
	}
	out, err := os.Create(to)
	if err != nil {
		return err
	}
	_, err = io.CopyBuffer(io.MultiWriter(out, sha256.New()), z, make([]byte, 1<<20))
	return errors.Join(err, out.Close())
}
