package qcow2

import (
	"bytes"
	"io"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"testing"
)

// image writes a disk that has these clusters.
func image(t testing.TB, size int64, clusters map[int64][]byte) *os.File {
	t.Helper()
	f, err := os.Create(filepath.Join(t.TempDir(), "d.qcow2"))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { f.Close() })
	w := NewWriter(f, size)
	for n, b := range clusters {
		if _, err := w.WriteCluster(b, n*ClusterSize); err != nil {
			t.Fatal(err)
		}
	}
	if err := w.Finish(); err != nil {
		t.Fatal(err)
	}
	return f
}

func open(t testing.TB, f *os.File) *Reader {
	t.Helper()
	info, err := f.Stat()
	if err != nil {
		t.Fatal(err)
	}
	r, err := Open(f, info.Size())
	if err != nil {
		t.Fatal(err)
	}
	return r
}

// What was written is read: data in its place, zeros elsewhere, and nothing else is said to
// be there.
func TestRoundTrip(t *testing.T) {
	const size = 3*perTable*ClusterSize + 5*ClusterSize/2 // four tables, and half a cluster
	noise := make([]byte, ClusterSize)
	_, _ = rand.NewChaCha8([32]byte{1}).Read(noise)
	want := map[int64][]byte{
		0: noise, 1: noise[:100], 7: noise[5000:], perTable - 1: noise[:ClusterSize/2], perTable: noise,
		3 * perTable: noise[:512], size / ClusterSize: noise[:ClusterSize/2],
	}
	r := open(t, image(t, size, want))
	if r.Size() != size {
		t.Errorf("the disk has %d bytes, want %d", r.Size(), size)
	}
	got := make([]byte, ClusterSize)
	seen := 0
	for at := int64(0); ; {
		from, to, err := r.Data(t.Context(), at)
		if err == io.EOF {
			break
		}
		if err != nil {
			t.Fatal(err)
		}
		b, there := want[from/ClusterSize]
		if !there || from%ClusterSize != 0 || to > from+ClusterSize {
			t.Fatalf("data from %d to %d", from, to)
		}
		whole := append(bytes.Clone(b), make([]byte, to-from-int64(len(b)))...)
		if _, err := r.ReadAt(got[:to-from], from); err != nil || !bytes.Equal(got[:to-from], whole) {
			t.Errorf("cluster %d differs, %v", from/ClusterSize, err)
		}
		seen++
		at = to
	}
	if seen != len(want) {
		t.Errorf("%d clusters have data, want %d", seen, len(want))
	}
	// Across a hole, and into one that has no table.
	for _, at := range []int64{2*ClusterSize - 50, 2*perTable*ClusterSize - 50} {
		if _, err := r.ReadAt(got[:100], at); err != nil || !bytes.Equal(got[:100], make([]byte, 100)) {
			t.Errorf("at %d: %x, %v", at, got[:100], err)
		}
	}
	if _, err := NewWriter(nil, 100).WriteCluster(noise[:101], 0); err == nil {
		t.Error("more is written than the disk has")
	}
}

// Whatever an image says, it is read within bounds.
func FuzzOpen(f *testing.F) {
	add := func(name string) {
		b, err := os.ReadFile(name)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(b)
	}
	small := image(f, 4*ClusterSize, map[int64][]byte{1: []byte("data"), 3: []byte("end")})
	add(small.Name())
	// QEMU's own tool, where it is installed, writes what the Writer does not.
	if _, err := exec.LookPath("qemu-img"); err == nil {
		for _, options := range [][]string{{"-o", "cluster_size=512"}, {"-c", "-o", "cluster_size=4096"}} {
			name := filepath.Join(f.TempDir(), "d.qcow2")
			args := append(append([]string{"convert", "-f", "qcow2", "-O", "qcow2"}, options...), small.Name(), name)
			if out, err := exec.Command("qemu-img", args...).CombinedOutput(); err != nil {
				f.Fatalf("%v\n%s", err, out)
			}
			add(name)
		}
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		q, err := Open(bytes.NewReader(b), int64(len(b)))
		if err != nil {
			return
		}
		buf := make([]byte, 4096)
		at := int64(0)
		for range 1000 {
			from, to, err := q.Data(t.Context(), at)
			if err != nil {
				return
			}
			if from < at || to <= from || to > q.Size() {
				t.Fatalf("data after %d is from %d to %d of %d", at, from, to, q.Size())
			}
			_, _ = q.ReadAt(buf[:min(4096, to-from)], from)
			at = to
		}
	})
}
