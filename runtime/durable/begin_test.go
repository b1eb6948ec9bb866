package durable

import (
	"bytes"
	"os"
	"path/filepath"
	"testing"
)

// What is on its way to the disk can still be read, written over and synced.
func TestBegin(t *testing.T) {
	name := filepath.Join(t.TempDir(), "f")
	f, err := Create(name, 0o600)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	want := bytes.Repeat([]byte("content "), 1<<16)
	for at := 0; at < len(want); at += 1 << 16 {
		if _, err := f.WriteAt(want[at:at+1<<16], int64(at)); err != nil {
			t.Fatal(err)
		}
		Begin(f, int64(at), 1<<16)
	}
	copy(want[1<<15:], "other")
	if _, err := f.WriteAt([]byte("other"), 1<<15); err != nil {
		t.Fatal(err)
	}
	Begin(f, 1<<40, 1<<20) // nothing is there
	if err := Sync(name); err != nil {
		t.Error(err)
	}
	if got, err := os.ReadFile(name); err != nil || !bytes.Equal(got, want) {
		t.Errorf("the file holds other bytes, %v", err)
	}
}
