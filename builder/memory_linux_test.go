package builder

import (
	"archive/tar"
	"bufio"
	"compress/gzip"
	"context"
	"crypto/sha256"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"runtime/debug"
	"slices"
	"strconv"
	"strings"
	"testing"
)

// maxPeak is what making an image may take, in bytes, however large it is.
const maxPeak = 100 << 20

// TestMain is also a process that makes one image and tells what it took.
func TestMain(m *testing.M) {
	home := os.Getenv("TEST_CREATE_IN")
	if home == "" {
		os.Exit(m.Run())
	}
	if _, err := Create(context.Background(), optionsIn(home, os.Getenv("TEST_CREATE_FROM"))); err != nil {
		fmt.Println(err)
		os.Exit(1)
	}
	b, err := os.ReadFile("/proc/self/status")
	if err != nil {
		fmt.Println(err)
		os.Exit(1)
	}
	for line := range strings.Lines(string(b)) {
		if kB, ok := strings.CutPrefix(line, "VmHWM:"); ok {
			fmt.Println(strings.Fields(kB)[0])
		}
	}
}

// peakMemory makes an image in a process of its own and returns the most memory
// that this took, in bytes: what the kernel counted, not Go.
func peakMemory(t testing.TB, reference string) int64 {
	t.Helper()
	cmd := exec.Command(os.Args[0])
	cmd.Env = append(os.Environ(), "TEST_CREATE_IN="+t.TempDir(), "TEST_CREATE_FROM="+reference)
	out, err := cmd.CombinedOutput()
	if err != nil {
		t.Fatalf("creating in another process: %v\n%s", err, out)
	}
	kB, err := strconv.ParseInt(strings.TrimSpace(string(out)), 10, 64)
	if err != nil {
		t.Fatal(err)
	}
	return kB << 10
}

// writeLargeLayout is writeLayout of a layer with one large file and many small
// ones, in directories of a hundred, which is never in memory.
func writeLargeLayout(t testing.TB, large int64, small int) string {
	t.Helper()
	blob := filepath.Join(t.TempDir(), "layer")
	f, err := os.Create(blob)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	stored, content := sha256.New(), sha256.New()
	buffered := bufio.NewWriterSize(io.MultiWriter(f, stored), 1<<20)
	z, err := gzip.NewWriterLevel(buffered, gzip.BestSpeed)
	if err != nil {
		t.Fatal(err)
	}
	w := tar.NewWriter(io.MultiWriter(z, content))
	add := func(name string, size int64, from io.Reader) {
		if err := w.WriteHeader(&tar.Header{Name: name, Typeflag: tar.TypeReg, Mode: 0o644, Size: size}); err != nil {
			t.Fatal(err)
		}
		if _, err := io.CopyN(w, from, size); err != nil {
			t.Fatal(err)
		}
	}
	r := rand.New(rand.NewPCG(1, 2))
	block := make([]byte, 8<<10) // repeated: no zeros, and quick to compress
	for k := range block {
		block[k] = byte(r.Uint32())
	}
	add("large", large, &repeat{block: block})
	for n := range small {
		add(fmt.Sprintf("usr/share/doc/package-%d/file-%d", n/100, n), int64(r.IntN(3000)), &repeat{block: block})
	}
	for _, c := range []io.Closer{w, z} {
		if err := c.Close(); err != nil {
			t.Fatal(err)
		}
	}
	if err := buffered.Flush(); err != nil {
		t.Fatal(err)
	}
	return layoutOf(t, blob, fmt.Sprintf("%x", stored.Sum(nil)), fmt.Sprintf("%x", content.Sum(nil)))
}

// layoutOf is a layout of a layer that is in a file already.
func layoutOf(t testing.TB, blob, digest, diffID string) string {
	t.Helper()
	info, err := os.Stat(blob)
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	blobs := filepath.Join(dir, "blobs/sha256")
	if err := os.MkdirAll(blobs, 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.Rename(blob, filepath.Join(blobs, digest)); err != nil {
		t.Fatal(err)
	}
	text := func(path, format string, args ...any) string {
		s := fmt.Sprintf(format, args...)
		sum := fmt.Sprintf("%x", sha256.Sum256([]byte(s)))
		if path == "" {
			path = filepath.Join(blobs, sum)
		}
		if err := os.WriteFile(path, []byte(s), 0o644); err != nil {
			t.Fatal(err)
		}
		return fmt.Sprintf(`"digest":"sha256:%s","size":%d`, sum, len(s))
	}
	config := text("", `{"architecture":"amd64","os":"linux","rootfs":{"type":"layers","diff_ids":["sha256:%s"]}}`, diffID)
	manifest := text("", `{"schemaVersion":2,"config":{%s},"layers":[{"mediaType":"application/vnd.oci.image.layer.v1.tar+gzip","digest":"sha256:%s","size":%d}]}`, config, digest, info.Size())
	text(filepath.Join(dir, "index.json"), `{"schemaVersion":2,"manifests":[{"mediaType":"application/vnd.oci.image.manifest.v1+json",%s}]}`, manifest)
	return dir
}

type repeat struct {
	block []byte
	at    int
}

func (r *repeat) Read(p []byte) (int, error) {
	n := copy(p, r.block[r.at:])
	r.at = (r.at + n) % len(r.block)
	return n, nil
}

// Memory is for the tree, not for what its files hold.
func TestPeakMemory(t *testing.T) {
	if hasRaceDetector(t) {
		runWithoutRaceDetector(t)
		return
	}
	large, small := int64(256<<20), 100_000
	if testing.Short() {
		large, small = 128<<20, 20_000
	}
	peak := peakMemory(t, "oci:"+writeLargeLayout(t, large, small))
	t.Logf("an image of %d MB and %d files took %d MB", large>>20, small, peak>>20)
	if peak > maxPeak {
		t.Errorf("an image of %d MB and %d files took %d MB, want at most %d", large>>20, small, peak>>20, int64(maxPeak>>20))
	}
}

func hasRaceDetector(t *testing.T) bool {
	info, ok := debug.ReadBuildInfo()
	if !ok {
		t.Fatal("the test does not know how it was built")
	}
	return slices.Contains(info.Settings, debug.BuildSetting{Key: "-race", Value: "true"})
}

// runWithoutRaceDetector runs this test as it is without the detector, whose
// own memory the kernel counts too.
func runWithoutRaceDetector(t *testing.T) {
	t.Helper()
	binary := filepath.Join(t.TempDir(), "builder.test")
	if out, err := exec.Command("go", "test", "-race=false", "-c", "-o", binary, ".").CombinedOutput(); err != nil {
		t.Fatalf("building the test without the race detector: %v\n%s", err, out)
	}
	out, err := exec.Command(binary, "-test.run=^"+t.Name()+"$", "-test.v").CombinedOutput()
	if err != nil || !strings.Contains(string(out), "--- PASS: "+t.Name()) {
		t.Fatalf("without the race detector: %v\n%s", err, out)
	}
	t.Logf("without the race detector:\n%s", out)
}
