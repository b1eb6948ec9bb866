package fat

import (
	"bytes"
	"errors"
	"io"
	"math/rand/v2"
	"os"
	"path/filepath"
	"testing"
)

// Every file that was written is read by its path, with small clusters and with large ones.
func TestRoundTrip(t *testing.T) {
	noise := make([]byte, 3*mib+777)
	_, _ = rand.NewChaCha8([32]byte{1}).Read(noise)
	for name, filler := range map[string]int64{"small clusters": 0, "large clusters": 300 * mib} {
		t.Run(name, func(t *testing.T) {
			content := map[string][]byte{"BOOTX64.EFI": noise, "CMDLINE": []byte("quiet\n"), "EMPTY": nil, "ONE.TXT": noise[:sector], "TWO.TXT": noise[:sector+1]}
			var files []File
			for _, f := range []struct{ dir, name string }{{"EFI/BOOT", "BOOTX64.EFI"}, {"LUMINA", "CMDLINE"}, {"LUMINA", "EMPTY"}, {"EFI", "ONE.TXT"}, {"EFI", "TWO.TXT"}} {
				files = append(files, File{Dir: f.dir, Name: f.name, Size: int64(len(content[f.name]))})
			}
			files = append(files, File{Dir: "LUMINA", Name: "FILLER", Size: filler}) // a hole
			v, err := LayOut(files, 7)
			if err != nil {
				t.Fatal(err)
			}
			f, err := os.Create(filepath.Join(t.TempDir(), "fat"))
			if err != nil {
				t.Fatal(err)
			}
			defer f.Close()
			if err := errors.Join(f.Truncate(v.Size), v.Write(f, func(w io.WriterAt, at int64, f File) error {
				_, err := w.WriteAt(content[f.Name], at)
				return err
			})); err != nil {
				t.Fatal(err)
			}
			r, err := NewReader(f, v.Size)
			if err != nil {
				t.Fatal(err)
			}
			for name, path := range map[string][]string{"BOOTX64.EFI": {"EFI", "BOOT", "BOOTX64.EFI"}, "CMDLINE": {"LUMINA", "CMDLINE"}, "EMPTY": {"LUMINA", "EMPTY"}, "ONE.TXT": {"EFI", "ONE.TXT"}, "TWO.TXT": {"EFI", "TWO.TXT"}} {
				file, err := r.Open(path...)
				if err != nil {
					t.Errorf("%s: %v", name, err)
					continue
				}
				got, err := io.ReadAll(io.NewSectionReader(file, 0, 4*mib))
				if err != nil || !bytes.Equal(got, content[name]) {
					t.Errorf("%s: %d bytes, want %d; %v", name, len(got), len(content[name]), err)
				}
			}
			for _, path := range [][]string{{"EFI"}, {"EFI", "NONE"}, {"LUMINA", "CMDLINE", "X"}} {
				if _, err := r.Open(path...); err == nil {
					t.Errorf("%q is opened", path)
				}
			}
		})
	}
}

func TestLayOutRefuses(t *testing.T) {
	for _, size := range []int64{-1, 4 << 30} {
		if _, err := LayOut([]File{{Dir: "A", Name: "X", Size: size}}, 7); err == nil {
			t.Errorf("a file of %d bytes has its place", size)
		}
	}
}
