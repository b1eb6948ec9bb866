package share

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/sys/unix"

	"github.com/abdul-abdi/lumina/runtime/confine"
)

// A read-only directory is so for a guest that does not mount it so.
func TestReadOnly(t *testing.T) {
	dir := t.TempDir()
	if err := os.WriteFile(dir+"/file", []byte("kept"), 0o600); err != nil {
		t.Fatal(err)
	}
	c := mount(t, dir, Options{ReadOnly: true})
	id := c.lookup(rootID, "file")
	h := c.open(id, unix.O_RDONLY)
	if got := c.read(h, 0, 10); got != "kept" {
		t.Errorf("read %q", got)
	}
	for flags := range []uint32{unix.O_WRONLY, unix.O_RDWR, unix.O_RDONLY | unix.O_TRUNC} {
		if flags != 0 {
			c.fails(unix.EROFS, opOpen, id, words(uint32(flags), 0))
		}
	}
	c.fails(unix.EROFS, opOpen, id, words(unix.O_TRUNC, 0))
	for op := range changes {
		c.fails(unix.EROFS, op, id, make([]byte, 200))
	}
	content(t, dir+"/file", "kept")
}

// The kernel's own files are not served, also where they are mounted below.
func TestKernelFiles(t *testing.T) {
	if _, err := Open("/proc", Options{}); err == nil {
		t.Error("/proc is served")
	}
	c := mount(t, "/", Options{})
	proc := c.lookup(rootID, "proc")
	c.fails(unix.EACCES, opLookup, proc, message("self"))
	c.fails(unix.EACCES, opOpendir, proc, words(0, 0))
	c.fails(unix.EACCES, opStatfs, proc, nil)
}

// Whatever a guest calls a file, it is one in the directory.
func TestNames(t *testing.T) {
	outside := t.TempDir()
	dir := filepath.Join(outside, "shared")
	if err := errors.Join(os.Mkdir(dir, 0o755), os.WriteFile(outside+"/secret", []byte("secret"), 0o600), os.Symlink("..", dir+"/up")); err != nil {
		t.Fatal(err)
	}
	c := mount(t, dir, Options{})
	for _, name := range []string{"", ".", "..", "../secret", "up/secret", "/etc/passwd", strings.Repeat("x", 256), "a/"} {
		for op, body := range map[opcode][]byte{
			opLookup: message(name), opUnlink: message(name), opRmdir: message(name), opMkdir: message(words(0o755, 0), name),
			opMknod: message(words(unix.S_IFREG|0o600, 0, 0, 0), name), opSymlink: message(name, "x"),
			opCreate: message(words(unix.O_RDWR|unix.O_CREAT, unix.S_IFREG|0o600, 0, 0), name),
			opRename: message(longs(rootID), name, "b"), opRename2: message(longs(rootID), words(0, 0), "up", name), opLink: message(longs(rootID), name),
		} {
			c.fails(unix.EINVAL, op, rootID, body)
		}
	}
	up := c.lookup(rootID, "up")
	c.fails(unix.ENOTDIR, opLookup, up, message("secret"))
	c.fails(unix.ELOOP, opOpen, up, words(0, 0))
	c.fails(unix.ESTALE, opGetattr, 12345, make([]byte, 16))
	c.fails(unix.ENOSYS, 9999, rootID, nil)
	c.fails(unix.EINVAL, opLookup, rootID, []byte("no end"))
	// Also not by a directory that has become a link.
	if err := os.Mkdir(dir+"/d", 0o755); err != nil {
		t.Fatal(err)
	}
	d := c.lookup(rootID, "d")
	if err := errors.Join(os.Remove(dir+"/d"), os.Symlink("..", dir+"/d")); err != nil {
		t.Fatal(err)
	}
	c.fails(unix.ESTALE, opLookup, d, message("secret"))
}

// Root's server works as the directory's owner, with none of root's rights.
func TestOwner(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("only root's server is another user")
	}
	dir := t.TempDir()
	if err := errors.Join(os.Chown(dir, 12345, 23456), os.WriteFile(dir+"/roots", []byte("x"), 0o600)); err != nil {
		t.Fatal(err)
	}
	c := mount(t, dir, Options{})
	c.create(rootID, "file", unix.O_RDWR|unix.O_CREAT, unix.S_IFREG|0o600)
	var st unix.Stat_t
	if err := unix.Stat(dir+"/file", &st); err != nil || st.Uid != 12345 || st.Gid != 23456 {
		t.Errorf("a new file is %d:%d's, %v", st.Uid, st.Gid, err)
	}
	c.fails(unix.EACCES, opOpen, c.lookup(rootID, "roots"), words(0, 0))
	c.fails(unix.EPERM, opSetattr, c.lookup(rootID, "roots"), setattr(setUID, 0, 0, 0, 7, 0, 0, 0))
}

// What the server's threads may do the kernel says, too: whatever a message made the
// server try, it would be refused.
func TestThreadsAreConfined(t *testing.T) {
	if confine.Landlock() == 0 {
		t.Fatal("this kernel has no Landlock, and the tests need one that has")
	}
	outside := t.TempDir()
	dir := filepath.Join(outside, "shared")
	if err := errors.Join(os.Mkdir(dir, 0o755), os.WriteFile(dir+"/file", nil, 0o644), os.WriteFile(outside+"/secret", nil, 0o644)); err != nil {
		t.Fatal(err)
	}
	s, _ := serve(t, dir, Options{})
	var got []string
	try := func(what string, err error) { got = append(got, fmt.Sprint(what, ": ", err)) }
	ended := make(chan struct{})
	err := confine.Start(s.policy, func(uintptr) error {
		open := func(path string, flags int) error {
			fd, err := unix.Open(path, flags, 0o600)
			if err == nil {
				unix.Close(fd)
			}
			return err
		}
		try("a file of the directory's", open(dir+"/file", unix.O_RDWR))
		try("one outside", open(outside+"/secret", unix.O_RDONLY))
		try("a new one outside", open(outside+"/new", unix.O_WRONLY|unix.O_CREAT))
		try("removing one", unix.Unlink(outside+"/secret"))
		try("setuid", unix.Chmod(dir+"/file", 0o4755))
		try("a device", unix.Mknod(dir+"/null", unix.S_IFCHR|0o666, 0x103))
		_, err := unix.Socket(unix.AF_INET, unix.SOCK_STREAM, 0)
		try("a network", err)
		return nil
	}, func() { close(ended) })
	<-ended
	want := []string{"a file of the directory's: <nil>", "one outside: permission denied", "a new one outside: permission denied", "removing one: permission denied",
		"setuid: operation not permitted", "a device: operation not permitted", "a network: permission denied"}
	if diff := cmp.Diff(want, got); err != nil || diff != "" {
		t.Errorf("%v\n%s", err, diff)
	}
}

func ownersOf(attr []byte) string {
	return fmt.Sprintf("%d:%d", binary.LittleEndian.Uint32(attr[68:]), binary.LittleEndian.Uint32(attr[72:]))
}

// The guest gives files to its users, and its users make some; on the host all are one
// user's.
func TestOwners(t *testing.T) {
	dir := t.TempDir()
	user := 12345
	if os.Geteuid() != 0 {
		user = os.Geteuid()
	} else if err := os.Chown(dir, user, user); err != nil {
		t.Fatal(err)
	}
	c := mount(t, dir, Options{})
	is := func(name, want string) {
		t.Helper()
		b := c.ok(opLookup, rootID, message(name))
		if got := ownersOf(attrOf(b)); got != want {
			t.Errorf("%s is %s's when it is looked up, want %s", name, got, want)
		}
		if got := ownersOf(c.attr(number(b))); got != want {
			t.Errorf("%s is %s's, want %s", name, got, want)
		}
		var st unix.Stat_t
		if err := unix.Lstat(dir+"/"+name, &st); err != nil || int(st.Uid) != user {
			t.Errorf("on the host %s is %d's: %v", name, st.Uid, err)
		}
	}
	own := fmt.Sprintf("%d:%d", user, user)
	plain, h := c.create(rootID, "plain", unix.O_RDWR|unix.O_CREAT, unix.S_IFREG|0o444)
	is("plain", own)
	chown := func(valid, uid, gid uint32) string {
		return ownersOf(c.ok(opSetattr, plain, setattr(valid, 0, 0, 0, uid, gid, 0, 0))[16:])
	}
	if got := chown(setUID, 7, 0); got != fmt.Sprintf("7:%d", user) {
		t.Errorf("given away it is %s's", got)
	}
	chown(setUID|setGID, 0, 0)
	is("plain", "0:0")
	if info, err := os.Stat(dir + "/plain"); err != nil || info.Mode() != 0o444 {
		t.Errorf("its mode is %v, %v", info.Mode(), err)
	}
	if got := ownersOf(c.ok(opGetattr, plain, message(words(attrOfHandle, 0), longs(h)))[16:]); got != "0:0" {
		t.Errorf("open it is %s's", got)
	}
	// The guest's programs have no other way to it.
	c.fails(unix.EOPNOTSUPP, opGetxattr, plain, message(words(100, 0), ownerName))
	c.fails(unix.EOPNOTSUPP, opSetxattr, plain, message(words(3, 0), ownerName, []byte("1:1")))
	c.fails(unix.EOPNOTSUPP, opRemovexattr, plain, message(ownerName))
	if b := c.ok(opListxattr, plain, words(100, 0)); len(b) != 0 {
		t.Errorf("attributes %q", b)
	}
	chown(setUID|setGID, uint32(user), uint32(user))
	is("plain", own)
	if n, err := unix.Listxattr(dir+"/plain", make([]byte, 100)); n != 0 || err != nil {
		t.Errorf("given back it has attributes of %d bytes, %v", n, err)
	}
	c.user = 33
	c.create(rootID, "file", unix.O_RDWR|unix.O_CREAT, unix.S_IFREG|0o400)
	c.ok(opMkdir, rootID, message(words(0o755, 0), "dir"))
	c.ok(opMknod, rootID, message(words(unix.S_IFIFO|0o600, 0, 0, 0), "fifo"))
	c.ok(opSymlink, rootID, message("link", "x"))
	for _, name := range []string{"file", "dir", "fifo", "link"} {
		is(name, "33:33")
	}
	// What is damaged is as if it was not there.
	for _, value := range []string{"1", "1:2:3", "-1:2", "99999999999:1", "1:2\n", strings.Repeat("1", 100)} {
		if err := unix.Setxattr(dir+"/dir", ownerName, []byte(value), 0); err != nil {
			t.Fatal(err)
		}
		is("dir", own)
	}
}

// A guest that asks without end, and takes no answers, holds a bounded number of
// requests; one that opens without end gets an error.
func TestFlood(t *testing.T) {
	dir := t.TempDir()
	s, c := serve(t, dir, Options{})
	s.handles.maximum = 10
	id, _ := c.create(rootID, "f", unix.O_RDWR|unix.O_CREAT, unix.S_IFREG|0o600)
	for range 9 {
		c.open(id, unix.O_RDONLY)
	}
	c.fails(unix.ENFILE, opOpen, id, words(0, 0))
	c.fails(unix.ENFILE, opCreate, rootID, message(words(unix.O_RDWR|unix.O_CREAT, unix.S_IFREG|0o600, 0, 0), "g"))
	s.nodes.maximum = len(s.nodes.byID)
	if err := os.WriteFile(dir+"/new", nil, 0o600); err != nil {
		t.Fatal(err)
	}
	c.fails(unix.ENFILE, opLookup, rootID, message("new"))
	_ = c.conn.SetWriteDeadline(time.Now().Add(2 * time.Second))
	b := bytes.Repeat(append(append(words(requestSize+16, uint32(opGetattr)), longs(2, rootID)...), make([]byte, 32)...), 1000)
	sent := 0
	for {
		n, err := c.conn.Write(b)
		if sent += n; err != nil {
			break
		}
		if sent > 64<<20 {
			t.Fatal("64 MiB of requests were taken and no answer was")
		}
	}
	c.conn.Close()
	<-c.served
	if s.workers > maxWorkers {
		t.Errorf("%d workers", s.workers)
	}
}

// What is not a message ends the service.
func TestNoMessage(t *testing.T) {
	for _, length := range []uint32{0, 39, maxMessage + 1, 0xffffffff} {
		c := mount(t, t.TempDir(), Options{})
		if _, err := c.conn.Write(append(words(length), make([]byte, 100)...)); err != nil {
			t.Fatal(err)
		}
		if err := <-c.served; err == nil || !strings.Contains(err.Error(), "not a message of FUSE") {
			t.Errorf("%d bytes: %v", length, err)
		}
	}
}
