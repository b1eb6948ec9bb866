package image

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

// On a file system with reflinks, two images of one base have its blocks once, and
// the file system says so, too.
func TestBaseIsSharedOnXFS(t *testing.T) {
	if testing.Short() {
		t.Skip("with -short: it mounts a file system")
	}
	run := func(name string, args ...string) {
		t.Helper()
		if out, err := exec.Command(name, args...).CombinedOutput(); err != nil {
			t.Fatalf("%s %v: %v\n%s", name, args, err, out)
		}
	}
	disk, dir := filepath.Join(t.TempDir(), "disk"), t.TempDir()
	run("truncate", "-s", "400M", disk)
	run("mkfs.xfs", "-q", disk)
	run("mount", "-o", "loop", disk, dir)
	defer run("umount", dir)

	s := NewStore(filepath.Join(dir, "images"))
	base := strings.Repeat("what the lowest layer has, 32 b\n", 8<<20/32)
	changed := base[:1<<20] + "x" + base[1<<20+1:]
	files := map[string]string{Kernel: "a kernel", Initramfs: "init", Rootfs: base}
	installShared(t, s, "base", described(files, "sha256:1"))
	files[Rootfs] = changed + "and more"
	installShared(t, s, "more", described(files, "sha256:1", "sha256:2"))
	files[Rootfs] = "x" + base // nothing is where it was
	installShared(t, s, "stranger", described(files, "sha256:3"))
	u, err := s.Usage()
	// All but the piece with the byte that differs, and two kernels.
	if want := int64(len(base)-shareUnit) + 2*8; err != nil || u.Shared != want {
		t.Errorf("Usage() = %+v, %v, want %d shared", u, err, want)
	}
	if b, err := os.ReadFile(filepath.Join(s.dir, "more", Rootfs)); err != nil || string(b) != changed+"and more" {
		t.Errorf("the root changed, %v", err)
	}
	h, err := s.Open("base")
	if err != nil {
		t.Fatal(err)
	}
	defer h.Close()
	if err := h.Verify(t.Context()); err != nil {
		t.Error(err)
	}
}
