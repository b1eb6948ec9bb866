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
	for _, flags := range []uint32{unix.O_WRONLY, unix.O_RDWR, unix.O_RDONLY | unix.O_TRUNC} {
		c.fails(unix.EROFS, opOpen, id, words(flags, 0))
	}
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
	if err := errors.Join(os.Mkdir(dir, 0o755), os.WriteFile(dir+"/file", nil, 0o644), os.WriteFile(dir+"/closed", nil, 0), os.WriteFile(outside+"/secret", nil, 0o644)); err != nil {
		t.Fatal(err)
	}
	denied, refused := "permission denied", "operation not permitted"
	for _, tt := range []struct {
		name  string
		o     Options
		write string // what the directory's file says to who would write
	}{{"read and written", Options{}, "<nil>"}, {"read only", Options{ReadOnly: true}, denied}} {
		t.Run(tt.name, func(t *testing.T) {
			s, _ := serve(t, dir, tt.o)
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
				try("a file of the directory's", open(dir+"/file", unix.O_RDONLY))
				try("to write", open(dir+"/file", unix.O_RDWR))
				try("a new one", open(dir+"/new", unix.O_WRONLY|unix.O_CREAT))
				try("one that is closed to its owner", open(dir+"/closed", unix.O_RDONLY)) // only a capability opens it, also to root
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
			want := []string{"a file of the directory's: <nil>", "to write: " + tt.write, "a new one: " + tt.write,
				"one that is closed to its owner: " + denied, "one outside: " + denied, "a new one outside: " + denied, "removing one: " + denied,
				"setuid: " + refused, "a device: " + refused, "a network: " + denied}
			if diff := cmp.Diff(want, got); err != nil || diff != "" {
				t.Errorf("%v\n%s", err, diff)
			}
		})
	}
}

// A program that has a bit of its own on the host loses it when the guest changes what it
// does, in whatever way; it keeps it by any name. No other call gives one.
func TestSetuidByOtherWays(t *testing.T) {
	dir := t.TempDir()
	if os.Geteuid() == 0 {
		if err := os.Chown(dir, 12345, 12345); err != nil {
			t.Fatal(err)
		}
	}
	program := func(name string) {
		t.Helper()
		err := os.WriteFile(dir+"/"+name, []byte("program"), 0o755)
		if err == nil && os.Geteuid() == 0 {
			err = os.Chown(dir+"/"+name, 12345, 12345)
		}
		// With the group's bit, too.
		if err = errors.Join(err, unix.Chmod(dir+"/"+name, 0o6755)); err != nil {
			t.Fatal(err)
		}
	}
	bits := func(name string) os.FileMode {
		t.Helper()
		info, err := os.Lstat(dir + "/" + name)
		if err != nil {
			t.Fatal(err)
		}
		return info.Mode() & (os.ModeSetuid | os.ModeSetgid)
	}
	c := mount(t, dir, Options{})
	_, evil := c.create(rootID, "evil", unix.O_RDWR|unix.O_CREAT, unix.S_IFREG|0o755)
	c.write(evil, 0, 0, 0, "evil")
	for name, change := range map[string]func(id uint64){
		"write":      func(id uint64) { c.write(c.open(id, unix.O_WRONLY), 0, 0, 0, "evil") },
		"append":     func(id uint64) { c.write(c.open(id, unix.O_WRONLY|unix.O_APPEND), 0, unix.O_APPEND, 0, "evil") },
		"from cache": func(id uint64) { c.write(c.open(id, unix.O_RDWR), 0, 0, writeFromCache, "evil") },
		"size":       func(id uint64) { c.ok(opSetattr, id, setattr(setSize, 0, 1, 0, 0, 0, 0, 0)) },
		"its size": func(id uint64) {
			c.ok(opSetattr, id, setattr(setSize|setHandle, c.open(id, unix.O_RDWR), 1, 0, 0, 0, 0, 0))
		},
		"opened": func(id uint64) { c.open(id, unix.O_WRONLY|unix.O_TRUNC) },
		"room":   func(id uint64) { c.ok(opFallocate, id, message(longs(c.open(id, unix.O_RDWR), 0, 1<<16), words(0, 0))) },
		"copied": func(id uint64) {
			c.ok(opCopyFileRange, id, longs(evil, 0, id, c.open(id, unix.O_RDWR), 0, 4, 0))
		},
	} {
		program(name)
		if change(c.lookup(rootID, name)); bits(name) != 0 {
			t.Errorf("%s: it is changed, and has %v", name, bits(name))
		}
	}
	// It is the host's own by another name, also in place of another file.
	program("own")
	own := c.lookup(rootID, "own")
	c.ok(opLink, rootID, message(longs(own), "second"))
	c.ok(opRename, rootID, message(longs(rootID), "own", "evil"))
	if b, err := os.ReadFile(dir + "/evil"); string(b) != "program" || bits("second") == 0 {
		t.Errorf("renamed over a file of the guest's it has %q, %v", b, err)
	}
	for _, mode := range []uint32{0o4755, 0o2755, 0o6755, unix.S_IFREG | 0o4755, unix.S_IFCHR | 0o4755} {
		c.fails(unix.EPERM, opSetattr, own, setattr(setMode, 0, 0, mode, 0, 0, 0, 0))
	}
	// To exchange it leaves the bits with what they were of.
	_, h := c.create(rootID, "plain", unix.O_RDWR|unix.O_CREAT, unix.S_IFREG|0o755)
	c.write(h, 0, 0, 0, "evil")
	c.ok(opRename2, rootID, message(longs(rootID), words(unix.RENAME_EXCHANGE, 0), "plain", "evil"))
	if b, _ := os.ReadFile(dir + "/evil"); string(b) != "evil" || bits("evil") != 0 {
		t.Errorf("exchanged: %q with %v", b, bits("evil"))
	}
	// A kind in the mode makes no device of a file, an attribute's name no other by what
	// is in it, and no flags are set.
	id, _ := c.create(rootID, "null", unix.O_RDWR|unix.O_CREAT, unix.S_IFCHR|0o666)
	if info, err := os.Lstat(dir + "/null"); err != nil || !info.Mode().IsRegular() {
		t.Errorf("a file of another kind: %v, %v", info, err)
	}
	for _, name := range []string{"security.capability", "security.capability\x00user.x", "SECURITY.capability", "system.posix_acl_access", "user.lumina.owner", "trusted.x", "security.selinux", "security.ima", ""} {
		c.fails(unix.EOPNOTSUPP, opSetxattr, id, message(words(4, 0), name, []byte("evil")))
	}
	c.ok(opSetxattr, id, message(words(20, 0), "user.x", []byte("security.capability\x00")))
	list := make([]byte, 1000)
	if n, err := unix.Listxattr(dir+"/null", list); err != nil || strings.Contains(string(list[:n]), "capability") {
		t.Errorf("it has the attributes %q, %v", list[:n], err)
	}
	for _, command := range []uint32{unix.FS_IOC_SETFLAGS, 0x40106614, 0x401c5820, unix.FICLONE} { // the second as ext4 on some has it, the third FS_IOC_FSSETXATTR
		c.fails(unix.ENOTTY, opIoctl, id, message(longs(h), words(0, command), longs(0), words(4, 0, 0x10)))
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
		if err := <-c.served; err == nil || !strings.Contains(err.Error(), "not a FUSE message") {
			t.Errorf("%d bytes: %v", length, err)
		}
	}
}
