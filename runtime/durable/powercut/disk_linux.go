package powercut

import (
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// Recorded is a mounted file system whose writes are recorded.
type Recorded struct {
	Dir     string // where it is mounted
	before  string // the disk before the first write
	log     string
	loop    string
	exports string
	daemon  *exec.Cmd
}

// Record makes and mounts an ext4 of a size. It skips the test where the machine
// has no loop devices or FUSE, or is not root's.
func Record(t testing.TB, size int64) *Recorded {
	t.Helper()
	for _, device := range []string{"/dev/fuse", "/dev/loop-control"} {
		if err := unix.Access(device, unix.W_OK); err != nil {
			t.Skipf("%s: %v", device, err)
		}
	}
	dir := t.TempDir()
	r := &Recorded{Dir: filepath.Join(dir, "mounted"), before: filepath.Join(dir, "before"), log: filepath.Join(dir, "log"), exports: filepath.Join(dir, "exported")}
	disk := filepath.Join(dir, "disk")
	for _, name := range []string{disk, r.log, r.exports} {
		if err := os.WriteFile(name, nil, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	if err := errors.Join(os.Truncate(disk, size), os.Mkdir(r.Dir, 0o700)); err != nil {
		t.Fatal(err)
	}
	run(t, "mkfs.ext4", "-q", "-F", "-E", "lazy_itable_init=0,lazy_journal_init=0", disk)
	run(t, "cp", "--sparse=always", disk, r.before)
	r.daemon = exec.Command("qemu-storage-daemon",
		"--blockdev", "driver=file,node-name=disk,filename="+disk, "--blockdev", "driver=file,node-name=log,filename="+r.log,
		"--blockdev", "driver=blklogwrites,node-name=recorded,file=disk,log=log,log-sector-size=512",
		"--export", "type=fuse,id=export,node-name=recorded,writable=on,mountpoint="+r.exports)
	if err := r.daemon.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = r.end() })
	for deadline := time.Now().Add(time.Minute); ; time.Sleep(10 * time.Millisecond) {
		if info, err := os.Stat(r.exports); err == nil && info.Size() == size {
			break
		}
		if time.Now().After(deadline) {
			t.Fatal("qemu-storage-daemon does not export the disk")
		}
	}
	r.loop = run(t, "losetup", "--find", "--show", r.exports)
	// A journal that is committed often: what is not in order shows.
	run(t, "mount", "-t", "ext4", "-o", "commit=1,nodiscard", r.loop, r.Dir)
	return r
}

// Size is how long the log is now: what was synced is in it.
func (r *Recorded) Size(t testing.TB) int64 {
	t.Helper()
	info, err := os.Stat(r.log)
	if err != nil {
		t.Fatal(err)
	}
	return info.Size()
}

// Stop unmounts the disk and returns its log, and the disk before it.
func (r *Recorded) Stop(t testing.TB) (*Log, *os.File) {
	t.Helper()
	if err := r.end(); err != nil {
		t.Fatal(err)
	}
	l, err := OpenLog(r.log)
	if err != nil {
		t.Fatal(err)
	}
	before, err := os.OpenFile(r.before, os.O_RDWR, 0)
	if err != nil {
		t.Fatal(err)
	}
	return l, before
}

// end takes all apart that there is.
func (r *Recorded) end() (err error) {
	if r.loop != "" {
		err = errors.Join(exec.Command("umount", r.Dir).Run(), exec.Command("losetup", "--detach", r.loop).Run())
		r.loop = ""
	}
	if r.daemon != nil {
		err = errors.Join(err, r.daemon.Process.Signal(unix.SIGTERM), r.daemon.Wait())
		r.daemon = nil
	}
	return err
}

// Mount mounts a disk after a power cut, which replays its journal, for look, and
// says when it is no clean file system then.
func Mount(disk, dir string, look func()) error {
	if out, err := exec.Command("mount", "-t", "ext4", "-o", "loop,nodiscard", disk, dir).CombinedOutput(); err != nil {
		return fmt.Errorf("mounting: %w: %s", err, out)
	}
	look()
	if out, err := exec.Command("umount", dir).CombinedOutput(); err != nil {
		return fmt.Errorf("unmounting: %w: %s", err, out)
	}
	if out, err := exec.Command("e2fsck", "-fn", disk).CombinedOutput(); err != nil {
		return fmt.Errorf("e2fsck: %w: %s", err, out)
	}
	return nil
}

func run(t testing.TB, name string, args ...string) string {
	t.Helper()
	out, err := exec.Command(name, args...).CombinedOutput()
	if err != nil {
		t.Fatalf("%s %s: %v\n%s", name, strings.Join(args, " "), err, out)
	}
	return strings.TrimSpace(string(out))
}

func copySparse(to, from *os.File) error {
	info, err := from.Stat()
	if err != nil {
		return err
	}
	if err := errors.Join(to.Truncate(0), to.Truncate(info.Size())); err != nil {
		return err
	}
	for at := int64(0); at < info.Size(); {
		start, err := from.Seek(at, unix.SEEK_DATA)
		if errors.Is(err, unix.ENXIO) {
			return nil
		}
		if err != nil {
			return err
		}
		end, err := from.Seek(start, unix.SEEK_HOLE)
		if err != nil {
			return err
		}
		if _, err := io.Copy(io.NewOffsetWriter(to, start), io.NewSectionReader(from, start, end-start)); err != nil {
			return err
		}
		at = end
	}
	return nil
}
