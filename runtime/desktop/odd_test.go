package desktop

import (
	"errors"
	"os"
	"path/filepath"
	"syscall"
	"testing"
)

// What is in the place of a desktop's files, a FIFO or a link, is not waited for, and
// what a link leads to stays as it is.
func TestOddFilesOfADesktop(t *testing.T) {
	for kind, put := range map[string]func(path, outside string) error{
		"FIFO": func(path, _ string) error { return syscall.Mkfifo(path, 0o600) },
		"link": func(path, outside string) error { return os.Symlink(outside, path) },
	} {
		for _, file := range []string{lockFile, diskFile, serialFile} {
			t.Run(kind+" "+file, func(t *testing.T) {
				s := NewStore(t.TempDir())
				m := create(t, s, "a")
				outside := filepath.Join(t.TempDir(), "outside")
				if err := os.WriteFile(outside, []byte("content"), 0o600); err != nil {
					t.Fatal(err)
				}
				path := filepath.Join(s.path(m.ID), file)
				if err := os.RemoveAll(path); err != nil {
					t.Fatal(err)
				}
				if err := put(path, outside); err != nil {
					t.Fatal(err)
				}
				if s.Running(m) {
					t.Error("Running() = true")
				}
				if file != serialFile {
					if _, err := s.Clone(t.Context(), firmware{}, "a", "b"); err == nil {
						t.Error("Clone() = nil")
					}
				}
				if p, err := m.open(s.path(m.ID)); file == diskFile && err == nil {
					p.files.close()
					t.Error("open() = nil")
				} else if err == nil {
					p.files.close()
				}
				r := newRecord(s.path(m.ID))
				_, err := r.Write([]byte("login: "))
				r.end(nil)
				if b, readErr := os.ReadFile(outside); string(b) != "content" || errors.Join(err, readErr) != nil {
					t.Errorf("outside there is %q, %v, %v", b, err, readErr)
				}
			})
		}
	}
}
