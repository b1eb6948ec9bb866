package tracepoint

import (
	"errors"
	"io/fs"
	"os"
	"os/exec"
	"runtime"
	"testing"

	"golang.org/x/sys/unix"
)

// What a process does that is started later is counted, and what its children do.
func TestCounter(t *testing.T) {
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	faults, err := Open(PageFaults, "")
	if errors.Is(err, unix.EACCES) || errors.Is(err, unix.EPERM) || errors.Is(err, unix.ENOSYS) {
		t.Skipf("this user may not count: %v", err)
	}
	if err != nil {
		t.Fatal(err)
	}
	defer faults.Close()
	count := func() uint64 {
		t.Helper()
		n, err := faults.Read()
		if err != nil {
			t.Fatal(err)
		}
		return n
	}
	before := count()
	if err := exec.Command("sh", "-c", "(:)").Run(); err != nil {
		t.Fatal(err)
	}
	once := count() - before
	before = count()
	if err := exec.Command("sh", "-c", "for i in 1 2 3 4 5 6 7 8 9; do (:); done").Run(); err != nil {
		t.Fatal(err)
	}
	if nine := count() - before; once == 0 || nine < 3*once/2 {
		t.Errorf("%d page faults of a shell with a child, %d with nine children", once, nine)
	}
}

func TestNoSuchTracepoint(t *testing.T) {
	if _, err := os.ReadDir(dir); err != nil {
		if _, got := Open("kvm:none", ""); !errors.Is(got, fs.ErrNotExist) && !errors.Is(got, fs.ErrPermission) {
			t.Errorf("Open() = %v where %v", got, err)
		}
		return
	}
	if _, err := Open("kvm:none", ""); !errors.Is(err, ErrNone) {
		t.Errorf("Open() = %v", err)
	}
}
