package transfer

import (
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"sync"
	"testing"

	"golang.org/x/sys/unix"
)

// Who can write to a directory, such as a guest that it is shared with, leads nobody
// who copies it out of it: not by putting links in the place of directories, and back.
func TestSendStaysInside(t *testing.T) {
	outside, inside := t.TempDir(), t.TempDir()
	const secret = "SECRET-OUTSIDE"
	if err := os.WriteFile(filepath.Join(outside, "key"), []byte(secret), 0o600); err != nil {
		t.Fatal(err)
	}
	// A pair each: a directory with the name that is looked for, and a link to where
	// that has the secret.
	const pairs = 200
	pair := func(n int) (dir, link string) {
		return filepath.Join(inside, fmt.Sprintf("d%d", n)), filepath.Join(inside, fmt.Sprintf("e%d", n))
	}
	for n := range pairs {
		dir, link := pair(n)
		for _, err := range []error{os.Mkdir(dir, 0o700), os.WriteFile(filepath.Join(dir, "key"), []byte("inside"), 0o600), os.Symlink(outside, link)} {
			if err != nil {
				t.Fatal(err)
			}
		}
	}
	end := make(chan struct{})
	var swapping sync.WaitGroup
	swapping.Go(func() {
		for n := 0; ; n = (n + 1) % pairs {
			select {
			case <-end:
				return
			default:
			}
			dir, link := pair(n)
			if err := unix.Renameat2(unix.AT_FDCWD, dir, unix.AT_FDCWD, link, unix.RENAME_EXCHANGE); err != nil {
				t.Error(err)
				return
			}
		}
	})
	changed, sent := int64(0), 0
	for range 50 {
		var stream bytes.Buffer
		copied, err := Send(t.Context(), &stream, inside, SendOptions{})
		if err != nil {
			t.Error(err)
		}
		sent += bytes.Count(stream.Bytes(), []byte("inside"))
		changed += copied.Failed
		if bytes.Contains(stream.Bytes(), []byte(secret)) {
			t.Error("a file of outside was sent")
			break
		}
	}
	close(end)
	swapping.Wait()
	if sent == 0 {
		t.Error("nothing was sent")
	}
	t.Logf("%d files sent, %d changed under the copy", sent, changed)
}

// A directory deeper than the receiver takes is left out, and counted.
func TestSendDeepTree(t *testing.T) {
	root := t.TempDir()
	at, err := os.OpenRoot(root)
	if err != nil {
		t.Fatal(err)
	}
	for range maxDepth + 2 {
		if err := at.Mkdir("d", 0o700); err != nil {
			t.Fatal(err)
		}
		below, err := at.OpenRoot("d")
		at.Close()
		if err != nil {
			t.Fatal(err)
		}
		at = below
	}
	at.Close()
	var stream bytes.Buffer
	copied, err := Send(t.Context(), &stream, root, SendOptions{})
	if err != nil || copied.Files != maxDepth+1 || copied.Failed != 1 {
		t.Errorf("%+v, %v", copied, err)
	}
}
