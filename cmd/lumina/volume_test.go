package main

import (
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/abdul-abdi/lumina/builder/buildertest"
)

func TestNamedVolume(t *testing.T) {
	lumina(t, "volume", "create", "data", "--size", "1GB").succeeded(t)
	t.Cleanup(func() {
		lumina(t, "volume", "remove", "data").succeeded(t)
		nothingLeft(t)
	})
	if r := lumina(t, "volume", "create", "data"); r.code != 125 || !strings.Contains(r.stderr, "already exists") {
		t.Errorf("creating it twice: exit code %d, %q", r.code, r.stderr)
	}
	run(t, "--volume", "data:/data", "echo kept > /data/file; df -BM --output=size /data | tail -1").succeeded(t)
	if r := run(t, "--volume", "data:/elsewhere/deep", "cat /elsewhere/deep/file").succeeded(t); r.Stdout != "kept\n" {
		t.Errorf("the volume holds %q", r.Stdout)
	}
	if r := run(t, "--volume", "data:/data:ro", "cat /data/file; touch /data/new || mount -o remount,rw /data"); r.code == 0 || r.Stdout != "kept\n" {
		t.Errorf("read-only: exit code %d, %s", r.code, r.stdout)
	}
	// One writer at a time; what a crash interrupts is mended by the journal.
	sid := lumina(t, "session", "start", "--image", "debian", "--name", "db", "--volume", "data:/data").succeeded(t).SID
	if r := run(t, "--volume", "data:/data", "true"); r.code != 125 || !strings.Contains(r.Message, `volume "data": in use by process `) || !strings.Contains(r.Message, ": session db; lumina session stop db ends it") {
		t.Errorf("a second VM: exit code %d, %s", r.code, r.stdout)
	}
	for _, args := range [][]string{{"volume", "remove", "data"}, {"images", "remove", "debian"}, {"session", "start", "--image", "debian", "-v", "data:/x"}} {
		if r := lumina(t, args...); r.code != 125 || !strings.Contains(r.stdout, ": session db; lumina session stop db ends it") {
			t.Errorf("%q of one in use: exit code %d, %s", args, r.code, r.stdout)
		}
	}
	lumina(t, "exec", sid, "for i in $(seq 200); do echo $i > /data/$i; done; sync; echo unsynced > /data/last").succeeded(t)
	if err := syscall.Kill(childOf(t, sessionPID(t, sid)), syscall.SIGKILL); err != nil {
		t.Fatal(err)
	}
	// How it ended is told until it is stopped.
	lumina(t, "session", "stop", sid).succeeded(t)
	nothingLeft(t)
	if r := run(t, "--volume", "data:/data", "ls /data | grep -c '^[0-9]'; cat /data/200 /data/file").succeeded(t); r.Stdout != "200\n200\nkept\n" {
		t.Errorf("after a crash: %q", r.Stdout)
	}
	buildertest.Run(t, "e2fsck", "-fn", filepath.Join(home, "volumes/data.img"))
	var rows []struct {
		Name string
		Used int64 `json:"used_bytes"`
	}
	if err := json.Unmarshal([]byte(lumina(t, "volume", "list").succeeded(t).stdout), &rows); err != nil || len(rows) != 1 || rows[0].Used > 100<<20 {
		t.Errorf("volume list = %v, %v", rows, err)
	}
	// One that is not there is made.
	if r := run(t, "-v", "fresh:/x", "df -BG --output=size /x | tail -1").succeeded(t); strings.TrimSpace(r.Stdout) != "10G" {
		t.Errorf("a volume that was made: %q", r.Stdout)
	}
	lumina(t, "volume", "rm", "fresh").succeeded(t)
}

// An empty volume begins with what the image has in its place; what it has then is the
// user's. What is inside of another is mounted after it.
func TestVolumeBeginsWithTheImagesContent(t *testing.T) {
	names := []string{"local", "etc", "inner"}
	for _, name := range names {
		lumina(t, "volume", "create", name, "--size", "1GB").succeeded(t)
	}
	t.Cleanup(func() {
		for _, name := range names {
			lumina(t, "volume", "remove", name).succeeded(t)
		}
		nothingLeft(t)
	})
	shared := t.TempDir()
	if err := os.Chmod(shared, 0o700); err != nil {
		t.Fatal(err)
	}
	// What it prints is the image's without volumes, and the volumes' with them.
	const show = `cd /etc/apt; find . -type d -printf '%p %m %U:%G %T@\n' -o -printf '%p %y %m %U:%G %s %l %T@\n' | sort
		stat -c '%n %U:%G %a' /var/local`
	plain := run(t, show).succeeded(t)
	volumes := []string{"-v", "inner:/var/local/inner/deep", "-v", "local:/var/local", "-v", "etc:/etc", "-v", shared + ":/usr/share/perl5"}
	filled := run(t, append(volumes, show+`; ls -A /usr/share/perl5 /var/local; touch /var/local/mine /var/local/inner/deep/mine; rm -r /etc/apt; grep -c "$HOSTNAME" /etc/hosts`)...).succeeded(t)
	if want := plain.Stdout + "/usr/share/perl5:\n\n/var/local:\ninner\n1\n"; filled.Stdout != want {
		t.Errorf("the volumes have\n%s\nwant\n%s", filled.Stdout, want)
	}
	again := run(t, append(volumes, `ls -A /var/local /var/local/inner/deep; ls /etc/apt; grep -c "$HOSTNAME" /etc/hosts /etc/hostname; stat -c '%U:%G %a' /var/local`)...)
	if want := "/var/local:\ninner\nmine\n\n/var/local/inner/deep:\nmine\n/etc/hosts:1\n/etc/hostname:1\nroot:staff 2775\n"; again.Stdout != want {
		t.Errorf("the second time they have\n%s\nwant\n%s", again.stdout, want)
	}
	for name, tt := range map[string]struct {
		args, message string
		code          int
	}{
		"over a file":        {"local:/etc/passwd", "/etc/passwd: the image's file of that name, or a parent of it, is not a directory", 125},
		"below a file":       {"local:/etc/passwd/x", "is not a directory", 125},
		"the kernel's files": {"local:/proc/", "/proc", 2},
	} {
		r := run(t, "-v", tt.args, "true")
		if r.code != tt.code || !strings.Contains(r.Message+r.stderr, tt.message) {
			t.Errorf("%s: exit code %d, %s", name, r.code, r.stdout)
		}
	}
}

// A VM takes as many volumes and directories as its machine has room for, and
// none of them takes the clock's interrupt before there is no other.
func TestManyVolumes(t *testing.T) {
	var flags []string
	for _, name := range []string{"a", "b"} {
		lumina(t, "volume", "create", name, "--size", "64MB").succeeded(t)
		t.Cleanup(func() { lumina(t, "volume", "remove", name).succeeded(t) })
		flags = append(flags, "--volume", name+":/mnt/"+name)
	}
	dir := func(name string) string {
		dir := t.TempDir()
		if err := os.WriteFile(filepath.Join(dir, name), nil, 0o644); err != nil {
			t.Fatal(err)
		}
		return dir
	}
	flags = append(flags, "--volume", dir("c")+":/mnt/c")
	r := run(t, append(flags, "ls /mnt /mnt/c; grep -c ' /mnt/' /proc/mounts; test -e /dev/rtc0 && echo clock")...).succeeded(t)
	if want := "/mnt:\na\nb\nc\n\n/mnt/c:\nc\n3\nclock\n"; r.Stdout != want {
		t.Errorf("three: %q, want %q", r.Stdout, want)
	}
	flags = append(flags, "--volume", dir("d")+":/mnt/d")
	if r := run(t, append(flags, "ls /mnt/c /mnt/d")...).succeeded(t); r.Stdout != "/mnt/c:\nc\n\n/mnt/d:\nd\n" {
		t.Errorf("four: %q", r.Stdout)
	}
	// Directories take no devices.
	for _, name := range []string{"c", "d", "e", "f"} {
		lumina(t, "volume", "create", name, "--size", "64MB").succeeded(t)
		t.Cleanup(func() { lumina(t, "volume", "remove", name).succeeded(t) })
		flags = append(flags, "--volume", name+":/disk/"+name)
	}
	if r := run(t, append(flags, "true")...); r.code != 125 || !strings.Contains(r.Message, "10 devices are too many, 8 are possible") {
		t.Errorf("six disks: exit code %d, %s", r.code, r.stdout)
	}
	nothingLeft(t)
}

// script is what programs expect of a directory, and what must not get through. The
// numbers are those of mmap(2), msync(2) and mknod(2).
const script = `cd /share; fail() { echo "$*"; exit 1; }
	perl -e 'open my $f, "+>", "mapped" or die; syswrite $f, "a" x 4096; my $p = syscall(9, 0, 4096, 3, 1, fileno $f, 0); $p > 0 or die "mmap: $!";
		open my $z, "<", "/dev/zero"; syscall(0, fileno $z, $p, 10) == 10 or die "read: $!"; syscall(26, $p, 4096, 4) == 0 or die "msync: $!";
		sysseek $f, 0, 0; sysread $f, my $b, 11; $b eq "\0" x 10 . "a" or die "mapped memory is not in the file"' || fail mmap
	echo old > x; exec 3< x; echo new > y; mv y x; [ "$(cat <&3) $(cat x)" = "old new" ] || fail rename over an open file
	(flock -n 9 || exit 1; (flock -n 8 && exit 1; exit 0) 8> lock) 9> lock || fail flock
	exec 4> gone; rm gone; echo still >&4 || fail write after unlink
	echo > program; chmod 751 program; [ $(stat -c %a program) = 751 ] || fail chmod
	mkdir sticky; chmod 1777 sticky || fail sticky
	touch tool group; cp /bin/true t; ! chmod 4755 tool 2>/dev/null || fail setuid; ! chmod g+s group 2>/dev/null || fail setgid
	! install -m 6755 /bin/true suid 2>/dev/null || fail install; ! perl -e 'umask 0; my $n = "opened"; exit(syscall(2, $n, 65, 04755) < 0)' || fail open
	! perl -e 'my $n = "device"; exit(syscall(133, $n, 0020666, 0x103) != 0)' || fail device
	! find . -perm /6000 | grep . || fail a special mode; grep -q ' /share fuse.lumina rw,nosuid,nodev' /proc/mounts || fail options
	rm -rf mapped x lock t suid opened; echo right`

// A directory of the host is shared only when asked for, and byte by byte.
func TestSharedDirectory(t *testing.T) {
	dir := t.TempDir()
	if err := os.WriteFile(filepath.Join(dir, "in"), []byte("from the host\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink("/etc/hostname", filepath.Join(dir, "link")); err != nil {
		t.Fatal(err)
	}
	r := run(t, "--cpus", "1", "--volume", dir+":/share", `cat /share/in; mkdir -p /share/d
		head -c 20000000 /dev/urandom > /share/d/big; sha256sum < /share/d/big; cat /share/link; ln -s / /share/out; ls /share/../share | sort | tr '\n' ' '`).succeeded(t)
	lines := strings.Split(r.Stdout, "\n")
	if lines[0] != "from the host" || !strings.HasPrefix(lines[2], "lumina-") || lines[3] != "d in link out " {
		t.Errorf("in the guest: %q", r.Stdout)
	}
	if sum := buildertest.Run(t, "sha256sum", filepath.Join(dir, "d/big")); strings.Fields(sum)[0] != strings.Fields(lines[1])[0] {
		t.Errorf("the file is %q here, %q in the guest", sum, lines[1])
	}
	r = run(t, "--volume", dir+":/share:ro", "cat /share/in; echo x > /share/new")
	if r.Stdout != "from the host\n" || r.code == 0 {
		t.Errorf("read-only: exit code %d, %s", r.code, r.stdout)
	}
	if _, err := os.Stat(filepath.Join(dir, "new")); err == nil {
		t.Error("a read-only share was written to")
	}
	if r := run(t, "--cpus", "1", "--volume", dir+":/share", script); r.Stdout != "right\n" {
		t.Errorf("as a bind mount: %s", r.stdout)
	}
	// What the guest left is as it was asked for, and nobody's but this user's.
	for name, want := range map[string]os.FileMode{"program": 0o751, "tool": 0o644, "group": 0o644, "sticky": 0o777 | os.ModeSticky | os.ModeDir} {
		info, err := os.Stat(filepath.Join(dir, name))
		if err != nil || info.Mode() != want || int(info.Sys().(*syscall.Stat_t).Uid) != os.Geteuid() {
			t.Errorf("%s: %v, %v, want %v of this user's", name, info, err, want)
		}
	}
	if _, err := os.Stat(filepath.Join(dir, "device")); err == nil {
		t.Error("the guest made a device")
	}
	// What root shares of another user's stays that user's.
	if theirs := t.TempDir(); os.Geteuid() == 0 {
		if err := os.Chown(theirs, 12345, 12345); err != nil {
			t.Fatal(err)
		}
		run(t, "--cpus", "1", "--volume", theirs+":/share", "echo x > /share/new; mkdir /share/d").succeeded(t)
		for _, name := range []string{"new", "d"} {
			if info, err := os.Stat(filepath.Join(theirs, name)); err != nil || info.Sys().(*syscall.Stat_t).Uid != 12345 {
				t.Errorf("%s is %v, %v", name, info, err)
			}
		}
	}
	if r := run(t, "--volume", dir+"/none:/share", "true"); r.code != 2 || !strings.Contains(r.stderr, "no such file") {
		t.Errorf("a directory that is not there: exit code %d, %s", r.code, r.stdout)
	}
}
