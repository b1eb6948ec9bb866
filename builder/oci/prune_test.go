package oci

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	v1 "github.com/google/go-containerregistry/pkg/v1"
)

func TestPrune(t *testing.T) {
	name := func(i int) string { return fmt.Sprintf("%064d", i) }
	tests := []struct {
		name string
		age  time.Duration
		size int64
		left []int
	}{
		{"no limit", 0, 0, []int{1, 2, 3, 4}},
		{"age", 150 * time.Minute, 0, []int{1, 2, 4}}, // 4 is in use
		{"size", 0, 250, []int{1, 4}},
		{"size of what is in use", 0, 1, []int{4}},
		{"both", 90 * time.Minute, 1000, []int{1, 4}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			dir := t.TempDir()
			if err := os.MkdirAll(blobDir(dir), 0o700); err != nil {
				t.Fatal(err)
			}
			for i := 1; i <= 4; i++ { // the first is the newest
				file := filepath.Join(blobDir(dir), name(i))
				if err := os.WriteFile(file, make([]byte, 100), 0o600); err != nil {
					t.Fatal(err)
				}
				used := time.Now().Add(-time.Duration(i) * time.Hour)
				if err := os.Chtimes(file, used, used); err != nil {
					t.Fatal(err)
				}
			}
			freed, err := Prune(t.Context(), dir, tt.age, tt.size, func(digest string) bool { return digest == "sha256:"+name(4) })
			if err != nil || freed != int64(100*(4-len(tt.left))) {
				t.Errorf("freed %d, %v", freed, err)
			}
			entries, _ := os.ReadDir(blobDir(dir))
			var left []int
			for i := 1; i <= 4; i++ {
				for _, e := range entries {
					if e.Name() == name(i) {
						left = append(left, i)
					}
				}
			}
			if fmt.Sprint(left) != fmt.Sprint(tt.left) {
				t.Errorf("left %v, want %v", left, tt.left)
			}
		})
	}
}

// A FIFO in the place of a layer is not waited for: it is not a layer.
func TestLayerThatIsAFIFO(t *testing.T) {
	dir := t.TempDir()
	h := v1.Hash{Algorithm: "sha256", Hex: strings.Repeat("a", 64)}
	if err := os.MkdirAll(blobDir(dir), 0o700); err != nil {
		t.Fatal(err)
	}
	if err := syscall.Mkfifo(filepath.Join(blobDir(dir), h.Hex), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := CachedLayer(t.Context(), dir, Layer{Digest: h}); !errors.Is(err, ErrNotFound) {
		t.Errorf("CachedLayer() = %v, want ErrNotFound", err)
	}
}
