package desktop

import (
	"bytes"
	"context"
	"os"
	"path/filepath"
	"testing"
)

// Sizes that no driver takes are rounded up: of a new desktop, of what a disk is
// copied of, and of what an older lumina made. What a disk has stays.
func TestSizes(t *testing.T) {
	s := NewStore(t.TempDir())
	raw := filepath.Join(t.TempDir(), "raw")
	content := bytes.Repeat([]byte("lumina"), 100_000)
	content[510], content[511] = 0x55, 0xAA
	if err := os.WriteFile(raw, content, 0o400); err != nil {
		t.Fatal(err)
	}
	for name, disk := range map[string]string{"empty": "", "copied": raw} {
		m := Manifest{Name: name, Architecture: "amd64", Memory: 1<<30 + 1, Network: "none"}
		if disk == "" {
			m.DiskSize = 1395864371 // 1.3GB
		}
		made, err := s.Create(context.Background(), firmware{}, m, disk)
		if err != nil {
			t.Fatal(err)
		}
		path := filepath.Join(s.Path(made), diskFile)
		info, err := os.Stat(path)
		if err != nil || info.Size() != made.DiskSize || info.Size()%(1<<20) != 0 || info.Size() < m.DiskSize || info.Mode() != 0o600 {
			t.Errorf("%s: the disk is %v, of %d bytes, %v", name, info, made.DiskSize, err)
		}
		if made.Memory != 1<<30+1<<20 {
			t.Errorf("%s: %d bytes of memory", name, made.Memory)
		}
		if disk != "" {
			if got, err := os.ReadFile(path); err != nil || !bytes.HasPrefix(got, content) {
				t.Errorf("%s: the content is another, %v", name, err)
			}
		}
		// As an older one left it.
		if err := os.Truncate(path, 600_001); err != nil {
			t.Fatal(err)
		}
		made.Memory++
		p, err := made.open(s.Path(made))
		if err != nil {
			t.Fatal(err)
		}
		defer p.files.close()
		if info, err := p.spec.Disk.Stat(); err != nil || info.Size() != 1<<20 || p.spec.Memory%(1<<20) != 0 {
			t.Errorf("%s: it boots with a disk of %d bytes, %d bytes of memory, %v", name, info.Size(), p.spec.Memory, err)
		}
	}
}

// A clone of a file has its content, where the file system makes one.
func TestClone(t *testing.T) {
	dir := t.TempDir()
	if err := os.WriteFile(filepath.Join(dir, "from"), []byte("content"), 0o600); err != nil {
		t.Fatal(err)
	}
	from, err := os.Open(filepath.Join(dir, "from"))
	if err != nil {
		t.Fatal(err)
	}
	defer from.Close()
	to := filepath.Join(dir, "to")
	if !clone(to, from) {
		if _, err := os.Stat(to); err == nil {
			t.Error("a failed clone left a file")
		}
		t.Log("this file system does not clone")
		return
	}
	if got, err := os.ReadFile(to); err != nil || string(got) != "content" {
		t.Errorf("%q, %v", got, err)
	}
}
