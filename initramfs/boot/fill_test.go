//go:build linux

package boot

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"testing"

	"golang.org/x/sys/unix"
)

// listing tells all that find(1) and getfattr(1) tell of a tree.
func listing(t *testing.T, dir string) string {
	t.Helper()
	script := `find . -printf '%p %y %m %U:%G %n %s %l %T@ ' \( -type f -exec md5sum {} + \) -o -printf '\n' | sort`
	cmd := exec.Command("sh", "-c", script)
	cmd.Dir = dir
	out, err := cmd.CombinedOutput()
	if err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	return string(out)
}

func TestFillVolume(t *testing.T) {
	if os.Getuid() != 0 {
		t.Skip("needs to give files away")
	}
	image, volume := filepath.Join(t.TempDir(), "image"), filepath.Join(t.TempDir(), "volume")
	build := `mkdir -p image/sub/deep image/closed && cd image
echo data >file; head -c 300000 /dev/urandom >big; ln file hard; ln file sub/hard; ln -s /etc/passwd link; ln -s nowhere sub/broken
mkfifo -m 622 fifo; mknod -m 666 null c 1 3; echo '#!' >suid; chown 0:33 suid; chmod 4750 suid
: >'name with blanks'; touch -d 2001-02-03 sub/deep file; chown -h 70000:80000 link sub big; chmod 000 closed; chmod 1770 .; chown 999:998 .`
	if out, err := exec.Command("sh", "-c", "cd "+filepath.Dir(image)+" && "+build).CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	if err := os.MkdirAll(volume+"/lost+found", 0o700); err != nil {
		t.Fatal(err)
	}
	fill := func() error {
		d, err := os.Open(image)
		if err != nil {
			t.Fatal(err)
		}
		defer d.Close()
		return fillVolume(d, volume)
	}
	if err := fill(); err != nil {
		t.Fatal(err)
	}
	want, got := listing(t, image), listing(t, volume)
	if got != want {
		t.Errorf("the volume has\n%s\nwant\n%s", got, want)
	}
	// What is the user's stays as it is.
	if err := os.Remove(volume + "/file"); err != nil {
		t.Fatal(err)
	}
	before := listing(t, volume)
	if err := fill(); err != nil || listing(t, volume) != before {
		t.Errorf("a volume with content was changed: %v", err)
	}
	// A copy that was cut off begins anew.
	if err := os.WriteFile(volume+"/half", nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := unix.Setxattr(volume, filling, []byte("y"), 0); err != nil {
		t.Fatal(err)
	}
	if err := fill(); err != nil || listing(t, volume) != want {
		t.Errorf("after a copy that was cut off: %v\n%s", err, listing(t, volume))
	}
	if _, err := unix.Getxattr(volume, filling, nil); err != unix.ENODATA {
		t.Errorf("the mark of the copy stays: %v", err)
	}
}

func TestFillVolumeKeepsLostAndFoundWithContent(t *testing.T) {
	image, volume := t.TempDir(), t.TempDir()
	for _, name := range []string{image + "/new", volume + "/lost+found/#12"} {
		if err := os.MkdirAll(name, 0o700); err != nil {
			t.Fatal(err)
		}
	}
	d, err := os.Open(image)
	if err != nil {
		t.Fatal(err)
	}
	defer d.Close()
	if err := fillVolume(d, volume); err != nil {
		t.Fatal(err)
	}
	if entries, err := os.ReadDir(volume); err != nil || fmt.Sprint(entries) != "[d lost+found/]" {
		t.Errorf("%v, %v", entries, err)
	}
}
