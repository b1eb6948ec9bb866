package transfer

import (
	"bytes"
	"errors"
	"io"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"syscall"
	"testing"

	"github.com/abdul-abdi/lumina/initramfs/protocol"
)

// A file that cannot be read does not keep the others back, and is told.
func TestUnreadableFiles(t *testing.T) {
	base, target := t.TempDir(), t.TempDir()
	if err := os.Chmod(filepath.Dir(base), 0o755); err != nil {
		t.Fatal(err)
	}
	build(t, base, "tree/a=x", "tree/no=secret", "tree/none/x=y", "tree/z=y")
	for _, name := range []string{"no", "none"} {
		if err := os.Chmod(base+"/tree/"+name, 0); err != nil {
			t.Fatal(err)
		}
	}
	defer os.Chmod(base+"/tree/none", 0o700) //nolint:errcheck // root can remove it, anyway
	var sent bytes.Buffer
	asNobody(func() {
		if copied, err := Send(t.Context(), &sent, base+"/tree", SendOptions{}); err != nil || copied.Failed != 2 {
			t.Errorf("Send() = %+v, %v", copied, err)
		}
	})
	copied, err := Receive(t.Context(), protocol.NewReader(&sent), target+"/got", Options{Name: "tree"})
	if err != nil || copied.Failed != 2 || strings.Join(copied.FailedNames, ", ") != "no: permission denied, none: permission denied" {
		t.Errorf("Receive() = %+v, %v", copied, err)
	}
	if info, err := os.Stat(target + "/got/none"); err != nil || info.Mode().Perm() != 0 {
		t.Errorf("the directory is %v, %v", info, err)
	}
	if err := os.Chmod(target+"/got/none", 0o700); err != nil { // for whoever is not root to look into it
		t.Fatal(err)
	}
	if got := listed(t, target); got != "got/a=x got/none/ got/z=y" {
		t.Errorf("there is %q", got)
	}
	// The source itself is an error, also when only its first read fails.
	asNobody(func() {
		for _, source := range []string{base + "/tree/no", base + "/tree/none"} {
			if _, err := Send(t.Context(), io.Discard, source, SendOptions{}); !errors.Is(err, os.ErrPermission) {
				t.Errorf("%s: %v", source, err)
			}
		}
	})
	if _, err := copyOver(t, "/proc/self/mem", target+"/mem", Options{}); err == nil {
		t.Error("the memory of a process could be copied from 0 on")
	}
	if _, err := os.Lstat(target + "/mem"); err == nil {
		t.Error("a file that could not be read was made")
	}
}

// Whoever is not root gets the directory, too, which the mode that it is given does not
// let him search.
func TestDirectoryThatNobodyMaySearch(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("only root can send one; TestUnreadableFiles has a user's")
	}
	base, target := t.TempDir(), t.TempDir()
	build(t, base, "tree/closed/x=y", "tree/z=y")
	if err := os.Chmod(base+"/tree/closed", 0o600); err != nil {
		t.Fatal(err)
	}
	defer os.Chmod(target+"/got/closed", 0o700) //nolint:errcheck // whoever made it can remove it then
	if err := errors.Join(os.Chmod(target, 0o777), os.Chmod(filepath.Dir(target), 0o755)); err != nil {
		t.Fatal(err)
	}
	var sent bytes.Buffer
	if _, err := Send(t.Context(), &sent, base+"/tree", SendOptions{}); err != nil {
		t.Fatal(err)
	}
	asNobody(func() {
		if copied, err := Receive(t.Context(), protocol.NewReader(&sent), target+"/got", Options{Name: "tree"}); err != nil {
			t.Errorf("Receive() = %+v, %v", copied, err)
		}
	})
	info, err := os.Stat(target + "/got/closed")
	if err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("the directory is %v, %v", info, err)
	}
}

// asNobody takes root's rights to files from this thread for a while.
func asNobody(do func()) {
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	_ = syscall.Setfsuid(65534)
	defer syscall.Setfsuid(os.Geteuid()) //nolint:errcheck // it has no error
	do()
}

// A file of the kernel's is written itself: beside it nothing can be made.
func TestKernelFiles(t *testing.T) {
	const comm = "/proc/thread-self/comm"
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	old, err := os.ReadFile(comm)
	if err != nil {
		t.Fatal(err)
	}
	defer os.WriteFile(comm, old, 0) //nolint:errcheck // it is this thread's name
	source := t.TempDir() + "/name"
	if err := os.WriteFile(source, []byte("written"), 0o600); err != nil {
		t.Fatal(err)
	}
	for _, trusted := range []bool{false, true} {
		if err := os.WriteFile(comm, []byte("before"), 0); err != nil {
			t.Fatal(err)
		}
		if _, err := copyOver(t, source, comm, Options{Trusted: trusted}); err != nil {
			t.Error(err)
		}
		if got, err := os.ReadFile(comm); string(got) != "written\n" {
			t.Errorf("trusted %v: the name is %q, %v", trusted, got, err)
		}
	}
}

// What the kernel has in /proc and /sys is copied as far as it is there now: a read of one
// file waits for more, another has no end.
func TestKernelTrees(t *testing.T) {
	target := t.TempDir()
	t.Cleanup(func() { // the kernel's directories are nobody's to write to
		_ = filepath.WalkDir(target, func(path string, d os.DirEntry, _ error) error {
			if d.IsDir() {
				return os.Chmod(path, 0o700)
			}
			return nil
		})
	})
	// cp -r would copy what has no end, and wait.
	copied, err := copyOver(t, "/proc/self", target+"/self", Options{})
	if err != nil || !strings.Contains(strings.Join(copied.FailedNames, ", "), "pagemap: it has more than 16 MiB") {
		t.Errorf("/proc/self: %+v, %v", copied, err)
	}
	for _, name := range []string{"status", "maps", "task"} {
		if _, err := os.Stat(target + "/self/" + name); err != nil {
			t.Error(err)
		}
	}
	if _, err := os.Lstat(target + "/self/pagemap"); err == nil {
		t.Error("a part of pagemap is there as if it were all")
	}
	if _, err := copyOver(t, "/proc/self/pagemap", target+"/pagemap", Options{}); err == nil || !strings.Contains(err.Error(), "it has more than 16 MiB") {
		t.Errorf("/proc/self/pagemap: %v", err)
	}
	if f, err := os.OpenFile("/proc/kmsg", os.O_RDONLY|syscall.O_NONBLOCK, 0); err == nil {
		f.Close()
		if _, err := copyOver(t, "/proc/kmsg", target+"/kmsg", Options{}); err != nil {
			t.Errorf("/proc/kmsg: %v", err)
		}
	}
	// The size that they state is none: of this, it is a page.
	if _, err := copyOver(t, "/sys/kernel/mm", target+"/mm", Options{}); err != nil {
		t.Errorf("/sys/kernel/mm: %v", err)
	}
	want, err := os.ReadFile("/sys/kernel/mm/transparent_hugepage/enabled")
	if got, _ := os.ReadFile(target + "/mm/transparent_hugepage/enabled"); err == nil && !bytes.Equal(got, want) {
		t.Errorf("it is %q, want %q", got, want)
	}
}
