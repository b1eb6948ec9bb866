package transfer_test

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"path/filepath"

	"github.com/abdul-abdi/lumina/initramfs/protocol"
	"github.com/abdul-abdi/lumina/initramfs/transfer"
)

// A directory is sent and received under a new name, as by cp -r.
func Example() {
	dir, err := os.MkdirTemp("", "lumina-")
	if err != nil {
		fmt.Println(err)
		return
	}
	defer os.RemoveAll(dir)
	from, to := filepath.Join(dir, "from"), filepath.Join(dir, "to")
	if err := os.Mkdir(from, 0o755); err != nil {
		fmt.Println(err)
		return
	}
	if err := os.WriteFile(filepath.Join(from, "file"), []byte("hello"), 0o644); err != nil {
		fmt.Println(err)
		return
	}

	ctx := context.Background()
	var stream bytes.Buffer // in use: a stream between host and guest
	if _, err := transfer.Send(ctx, &stream, from, transfer.SendOptions{}); err != nil {
		fmt.Println(err)
		return
	}
	if _, err := transfer.Receive(ctx, protocol.NewReader(&stream), to, transfer.Options{Name: "from"}); err != nil {
		fmt.Println(err)
		return
	}
	content, err := os.ReadFile(filepath.Join(to, "file"))
	fmt.Println(string(content), err)
	// Output: hello <nil>
}
