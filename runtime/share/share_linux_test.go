package share

import (
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// The fields of answers: of an entry and of attributes.
func attrOf(entry []byte) []byte     { return entry[40:] }
func modeOf(attr []byte) uint32      { return binary.LittleEndian.Uint32(attr[60:]) }
func sizeOf(attr []byte) uint64      { return number(attr[8:]) }
func linksOf(attr []byte) uint32     { return binary.LittleEndian.Uint32(attr[64:]) }
func handleOf(opened []byte) uint64  { return number(opened) }
func writtenOf(answer []byte) uint32 { return binary.LittleEndian.Uint32(answer) }

// create makes a file and returns its number and its handle.
func (c *client) create(dir uint64, name string, flags, mode uint32) (id, handle uint64) {
	c.t.Helper()
	b := c.ok(opCreate, dir, message(words(flags, mode, 0, 0), name))
	return number(b), number(b[entrySize:])
}

func (c *client) open(id uint64, flags uint32) uint64 {
	c.t.Helper()
	return handleOf(c.ok(opOpen, id, words(flags, 0)))
}

// write writes with a handle that was opened with flags.
func (c *client) write(handle, offset uint64, flags, how uint32, data string) {
	c.t.Helper()
	b := c.ok(opWrite, 0, message(longs(handle, offset), words(uint32(len(data)), how), longs(0), words(flags, 0), []byte(data)))
	if writtenOf(b) != uint32(len(data)) {
		c.t.Errorf("%d of %d bytes were written", writtenOf(b), len(data))
	}
}

func (c *client) read(handle, offset uint64, size uint32) string {
	c.t.Helper()
	return string(c.ok(opRead, 0, message(longs(handle, offset), words(size, 0), longs(0), words(0, 0))))
}

func (c *client) attr(id uint64) []byte {
	c.t.Helper()
	return c.ok(opGetattr, id, make([]byte, 16))[16:]
}

// setattr sets what valid says; a value for each field.
func setattr(valid uint32, handle, size uint64, mode, uid, gid uint32, atime, mtime int64) []byte {
	return message(words(valid, 0), longs(handle, size, 0, uint64(atime), uint64(mtime), 0), words(5, 6, 0, mode, 0, uid, gid, 0))
}

func content(t *testing.T, path, want string) {
	t.Helper()
	if b, err := os.ReadFile(path); err != nil || string(b) != want {
		t.Errorf("%s: %.80q, %v, want %.80q", filepath.Base(path), b, err, want)
	}
}

func TestFiles(t *testing.T) {
	dir := t.TempDir()
	c := mount(t, dir, Options{})
	id, h := c.create(rootID, "file", unix.O_RDWR|unix.O_CREAT, unix.S_IFREG|0o666)
	c.write(h, 0, 0, 0, "hello world")
	c.write(h, 6, 0, 0, "there")
	content(t, dir+"/file", "hello there")
	if got := c.read(h, 6, 100); got != "there" {
		t.Errorf("read %q", got)
	}
	if info, _ := os.Stat(dir + "/file"); info.Mode() != 0o666 {
		t.Errorf("its mode is %v: the mask of this process is not the guest's", info.Mode())
	}
	// What is appended lands at the end wherever that is, mapped memory at its place.
	if err := os.WriteFile(dir+"/file", []byte("the host's "), 0); err != nil {
		t.Fatal(err)
	}
	ah := c.open(id, unix.O_WRONLY|unix.O_APPEND)
	c.write(ah, 3, unix.O_APPEND, 0, "the guest's")
	c.write(ah, 0, unix.O_APPEND, writeFromCache, "THE")
	content(t, dir+"/file", "THE host's the guest's")
	// It is shortened by its handle, by its number, and when it is opened.
	c.ok(opSetattr, id, setattr(setSize|setHandle, h, 10, 0, 0, 0, 0, 0))
	c.ok(opSetattr, id, setattr(setSize, 0, 3, 0, 0, 0, 0, 0))
	content(t, dir+"/file", "THE")
	c.ok(opRelease, id, longs(c.open(id, unix.O_WRONLY|unix.O_TRUNC), 0, 0))
	content(t, dir+"/file", "")
	// Times and modes.
	b := c.ok(opSetattr, id, setattr(setAtime|setMtime|setMode, 0, 0, unix.S_IFREG|0o751, 0, 0, 1000, -2000))
	info, err := os.Stat(dir + "/file")
	if err != nil || !info.ModTime().Equal(time.Unix(-2000, 6)) || info.Mode() != 0o751 || modeOf(b[16:]) != unix.S_IFREG|0o751 {
		t.Errorf("its time is %v, its mode %v, as told %o: %v", info.ModTime(), info.Mode(), modeOf(b[16:]), err)
	}
	c.ok(opSetattr, id, setattr(setMtime|setMtimeNow, 0, 0, 0, 0, 0, 0, 0))
	if info, _ := os.Stat(dir + "/file"); time.Since(info.ModTime()) > time.Hour {
		t.Errorf("touched, its time is %v", info.ModTime())
	}
	// Holes, room, copies, syncs.
	c.ok(opFallocate, id, message(longs(h, 0, 1<<20), words(0, 0)))
	c.write(h, 0, 0, 0, strings.Repeat("x", 1<<20))
	c.ok(opFallocate, id, message(longs(h, 0, 512<<10), words(unix.FALLOC_FL_PUNCH_HOLE|unix.FALLOC_FL_KEEP_SIZE, 0)))
	if at := number(c.ok(opLseek, id, message(longs(h, 0), words(unix.SEEK_DATA, 0)))); at != 512<<10 {
		t.Errorf("data begins at %d", at)
	}
	_, copied := c.create(rootID, "copy", unix.O_RDWR|unix.O_CREAT|unix.O_EXCL, unix.S_IFREG|0o600)
	if n := writtenOf(c.ok(opCopyFileRange, id, longs(h, 1<<20-5, id, copied, 2, 100, 0))); n != 5 {
		t.Errorf("%d bytes were copied", n)
	}
	c.ok(opFsync, id, message(longs(copied), words(fsyncData, 0)))
	content(t, dir+"/copy", "\x00\x00xxxxx")
	c.fails(unix.EEXIST, opCreate, rootID, message(words(unix.O_RDWR|unix.O_CREAT|unix.O_EXCL, unix.S_IFREG|0o600, 0, 0), "copy"))
	if c.create(rootID, "copy", unix.O_RDWR|unix.O_CREAT, unix.S_IFREG|0o600); sizeOf(c.attr(c.lookup(rootID, "copy"))) != 7 {
		t.Error("a file that was there was not opened as it is")
	}
}

// What is open or known stays what it is when its name goes.
func TestUnlinked(t *testing.T) {
	dir := t.TempDir()
	c := mount(t, dir, Options{})
	id, h := c.create(rootID, "gone", unix.O_RDWR|unix.O_CREAT, unix.S_IFREG|0o600)
	c.ok(opUnlink, rootID, message("gone"))
	c.write(h, 0, 0, 0, "still here")
	c.ok(opSetattr, id, setattr(setSize|setHandle, h, 5, 0, 0, 0, 0, 0))
	if got := c.read(h, 0, 100); got != "still" {
		t.Errorf("read %q", got)
	}
	if a := c.attr(id); sizeOf(a) != 5 || linksOf(a) != 0 {
		t.Errorf("%d bytes, %d links", sizeOf(a), linksOf(a))
	}
	c.ok(opRelease, id, longs(h, 0, 0))
	c.fails(unix.EBADF, opRead, 0, message(longs(h, 0), words(1, 0), longs(0), words(0, 0)))
	// A file without a name gets one.
	b := c.ok(opTmpfile, rootID, message(words(unix.O_RDWR, unix.S_IFREG|0o640, 0, 0), "/"))
	tmp, th := number(b), number(b[entrySize:])
	c.write(th, 0, 0, 0, "named")
	c.ok(opLink, rootID, message(longs(tmp), "name"))
	content(t, dir+"/name", "named")
	// Renamed over, with a flag, and exchanged.
	if err := os.WriteFile(dir+"/other", []byte("other"), 0o600); err != nil {
		t.Fatal(err)
	}
	c.fails(unix.EEXIST, opRename2, rootID, message(longs(rootID), words(unix.RENAME_NOREPLACE, 0), "name", "other"))
	c.ok(opRename2, rootID, message(longs(rootID), words(unix.RENAME_EXCHANGE, 0), "name", "other"))
	content(t, dir+"/other", "named")
	c.ok(opRename, rootID, message(longs(rootID), "other", "name"))
	content(t, dir+"/name", "named")
	c.fails(unix.EINVAL, opRename2, rootID, message(longs(rootID), words(unix.RENAME_WHITEOUT, 0), "name", "other"))
}

// Every kind of file that a guest may make; the others it may not.
func TestKinds(t *testing.T) {
	dir := t.TempDir()
	c := mount(t, dir, Options{})
	mknod := func(mode uint32) []byte { return words(mode, 0x103, 0, 0) }
	fifo := number(c.ok(opMknod, rootID, message(mknod(unix.S_IFIFO|0o622), "fifo")))
	c.ok(opMknod, rootID, message(mknod(unix.S_IFSOCK|0o600), "socket"))
	c.ok(opMknod, rootID, message(mknod(unix.S_IFREG|0o600), "plain"))
	d := number(c.ok(opMkdir, rootID, message(words(0o1777, 0), "dir")))
	link := number(c.ok(opSymlink, rootID, message("link", "../../etc/passwd")))
	if got := string(c.ok(opReadlink, link, nil)); got != "../../etc/passwd" {
		t.Errorf("the link leads to %q", got)
	}
	for name, want := range map[string]os.FileMode{"fifo": os.ModeNamedPipe | 0o622, "socket": os.ModeSocket | 0o600, "plain": 0o600, "dir": os.ModeDir | os.ModeSticky | 0o777} {
		if info, err := os.Lstat(dir + "/" + name); err != nil || info.Mode() != want {
			t.Errorf("%s: %v, %v, want %v", name, info, err, want)
		}
	}
	// Neither is opened here: nobody may wait for the other end.
	c.fails(unix.ENXIO, opOpen, fifo, words(unix.O_RDONLY, 0))
	c.fails(unix.ENXIO, opOpen, c.lookup(rootID, "socket"), words(unix.O_RDWR, 0))
	c.fails(unix.ELOOP, opOpen, link, words(unix.O_RDONLY, 0))
	c.fails(unix.EINVAL, opSetattr, fifo, setattr(setSize, 0, 0, 0, 0, 0, 0, 0))
	c.fails(unix.ENOTDIR, opOpendir, fifo, words(0, 0))
	c.fails(unix.EISDIR, opOpen, d, words(0, 0))
	for _, mode := range []uint32{unix.S_IFCHR | 0o600, unix.S_IFBLK | 0o600, 0, unix.S_IFREG | 0o4755, unix.S_IFREG | 0o2755, unix.S_IFIFO | 0o4600} {
		c.fails(unix.EPERM, opMknod, rootID, message(mknod(mode), fmt.Sprintf("bad%o", mode)))
	}
	c.fails(unix.EPERM, opMkdir, rootID, message(words(0o2755, 0), "bad"))
	c.fails(unix.EPERM, opCreate, rootID, message(words(unix.O_RDWR|unix.O_CREAT, unix.S_IFREG|0o4755, 0, 0), "bad"))
	c.fails(unix.EPERM, opTmpfile, rootID, message(words(unix.O_RDWR, unix.S_IFREG|0o6755, 0, 0), "bad"))
	plain := c.lookup(rootID, "plain")
	for _, mode := range []uint32{0o4755, 0o2755, 0o6000} {
		c.fails(unix.EPERM, opSetattr, plain, setattr(setMode, 0, 0, mode, 0, 0, 0, 0))
	}
	if left, _ := filepath.Glob(dir + "/bad*"); len(left) > 0 {
		t.Errorf("there is %v", left)
	}
	// Of attributes only users' get through.
	set := func(name, value string) []byte { return message(words(uint32(len(value)), 0), name, []byte(value)) }
	c.ok(opSetxattr, plain, set("user.color", "blue"))
	for _, name := range []string{"security.capability", "trusted.overlay.opaque", "system.posix_acl_access", "user"} {
		c.fails(unix.EOPNOTSUPP, opSetxattr, plain, set(name, "x"))
		c.fails(unix.EOPNOTSUPP, opGetxattr, plain, message(words(100, 0), name))
		c.fails(unix.EOPNOTSUPP, opRemovexattr, plain, message(name))
	}
	if os.Geteuid() == 0 {
		if err := unix.Setxattr(dir+"/plain", "trusted.secret", []byte("x"), 0); err != nil {
			t.Log(err)
		}
	}
	if got := string(c.ok(opGetxattr, plain, message(words(100, 0), "user.color"))); got != "blue" {
		t.Errorf("user.color is %q", got)
	}
	if got := string(c.ok(opListxattr, plain, words(100, 0))); got != "user.color\x00" {
		t.Errorf("it has %q", got)
	}
	if n := binary.LittleEndian.Uint32(c.ok(opListxattr, plain, words(0, 0))); n != 11 {
		t.Errorf("they take %d bytes", n)
	}
	c.fails(unix.ERANGE, opGetxattr, plain, message(words(2, 0), "user.color"))
	c.ok(opRemovexattr, plain, message("user.color"))
	c.fails(unix.ENODATA, opGetxattr, plain, message(words(100, 0), "user.color"))
}

// Hard links are one file, with one number, whatever it is called.
func TestHardLinks(t *testing.T) {
	dir := t.TempDir()
	c := mount(t, dir, Options{})
	id, _ := c.create(rootID, "a", unix.O_RDWR|unix.O_CREAT, unix.S_IFREG|0o600)
	d := number(c.ok(opMkdir, rootID, message(words(0o755, 0), "d")))
	b := c.ok(opLink, d, message(longs(id), "b"))
	if number(b) != id || linksOf(attrOf(b)) != 2 || c.lookup(d, "b") != id {
		t.Errorf("the link is file %d with %d links, want %d with 2", number(b), linksOf(attrOf(b)), id)
	}
	c.fails(unix.EPERM, opLink, rootID, message(longs(d), "e"))
	link := number(c.ok(opSymlink, rootID, message("l", "a")))
	c.ok(opLink, rootID, message(longs(link), "l2"))
	if to, err := os.Readlink(dir + "/l2"); err != nil || to != "a" {
		t.Errorf("a link to a link: %q, %v", to, err)
	}
}

// A directory of 50,000 is read while every second entry is removed, by either call;
// each entry that stays comes once.
func TestLargeDirectory(t *testing.T) {
	const entries = 50_000
	dir := t.TempDir()
	for i := range entries {
		if err := syscall.Mknod(fmt.Sprintf("%s/%06d", dir, i), syscall.S_IFREG|0o600, 0); err != nil {
			t.Fatal(err)
		}
	}
	c := mount(t, dir, Options{})
	for _, op := range []opcode{opReaddir, opReaddirplus} {
		h := handleOf(c.ok(opOpendir, rootID, words(0, 0)))
		seen := map[string]int{}
		removed := map[string]bool{}
		for offset := uint64(0); ; {
			b := c.ok(op, rootID, message(longs(h, offset), words(4096, 0), longs(0), words(0, 0)))
			if len(b) == 0 {
				break
			}
			for len(b) > 0 {
				if op == opReaddirplus {
					if id := number(b); id != 0 {
						c.send(opForget, id, longs(1))
					}
					b = b[entrySize:]
				}
				n := int(binary.LittleEndian.Uint32(b[16:]))
				offset = number(b[8:])
				name := string(b[direntSize:][:n])
				b = b[direntSize+n+pad(n):]
				seen[name]++
				if number := strings.TrimLeft(name, "0"); name != "." && name != ".." && len(number) > 0 && number[len(number)-1]%2 == 1 && op == opReaddir {
					if err := os.Remove(filepath.Join(dir, name)); err != nil {
						t.Fatal(err)
					}
					removed[name] = true
				}
			}
		}
		c.send(opReleasedir, rootID, longs(h, 0, 0))
		if _, _, b := c.receive(); len(b) != 0 {
			t.Error("an answer to a release")
		}
		want := entries + 2
		if op == opReaddirplus {
			want = entries/2 + 2
		}
		if len(seen) != want {
			t.Errorf("operation %d: %d entries, want %d", op, len(seen), want)
		}
		for name, n := range seen {
			if n != 1 {
				t.Errorf("%s came %d times", name, n)
			}
		}
		if op == opReaddir && len(removed) != entries/2 {
			t.Errorf("%d were removed", len(removed))
		}
	}
}

// Many files are known with few descriptors; whatever the host moves meanwhile is
// looked up anew, or said to be gone.
func TestFewDescriptors(t *testing.T) {
	dir := t.TempDir()
	for _, d := range []string{"a/b/c", "other"} {
		if err := os.MkdirAll(filepath.Join(dir, d), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	s, c := serve(t, dir, Options{})
	s.nodes.maxFDs = 3
	a := c.lookup(rootID, "a")
	b := c.lookup(a, "b")
	deep := c.lookup(b, "c")
	for i := range 100 {
		name := fmt.Sprint(i)
		id, h := c.create(deep, name, unix.O_RDWR|unix.O_CREAT, unix.S_IFREG|0o600)
		c.write(h, 0, 0, 0, name)
		c.ok(opRelease, id, longs(h, 0, 0))
	}
	for i := range 100 {
		name := fmt.Sprint(i)
		h := c.open(c.lookup(deep, name), unix.O_RDONLY)
		if got := c.read(h, 0, 10); got != name {
			t.Errorf("file %s holds %q", name, got)
		}
		c.ok(opRelease, 0, longs(h, 0, 0))
	}
	if s.nodes.fds > 3 {
		t.Errorf("%d descriptors are open, want at most 3", s.nodes.fds)
	}
	// Renamed by the guest, by the host, and replaced.
	c.ok(opRename, a, message(longs(rootID), "b", "moved"))
	if sizeOf(c.attr(c.lookup(deep, "7"))) != 1 {
		t.Error("below a directory that the guest has renamed")
	}
	file := c.lookup(deep, "8")
	for i := range 9 { // until its descriptor is closed
		c.attr(c.lookup(deep, fmt.Sprint(20+i)))
	}
	if err := os.Rename(dir+"/moved/c/8", dir+"/moved/c/9"); err != nil {
		t.Fatal(err)
	}
	c.fails(unix.ESTALE, opGetattr, file, make([]byte, 16))
	if c.lookup(deep, "9") != file || sizeOf(c.attr(file)) != 1 {
		t.Error("a file that the host has renamed is not found under its new name")
	}
	if err := errors.Join(os.Remove(dir+"/moved/c/9"), os.Symlink("/etc/passwd", dir+"/moved/c/9")); err != nil {
		t.Fatal(err)
	}
	for i := range 9 {
		c.attr(c.lookup(deep, fmt.Sprint(20+i)))
	}
	if _, errno := c.call(opOpen, file, words(0, 0)); errno != unix.ESTALE && errno != unix.ELOOP {
		t.Errorf("a link in the place of a file was opened: %v", errno)
	}
	// All of it is forgotten, and nothing stays.
	forget := map[uint64]bool{}
	s.nodes.mu.Lock()
	for id := range s.nodes.byID {
		forget[id] = true
	}
	s.nodes.mu.Unlock()
	list := words(uint32(len(forget)), 0)
	for id := range forget {
		list = append(list, longs(id, 1<<40)...)
	}
	c.send(opBatchForget, 0, list)
	c.attr(rootID)
	s.nodes.mu.Lock()
	defer s.nodes.mu.Unlock()
	if len(s.nodes.byID) != 1 || len(s.nodes.byKey) != 1 || s.nodes.fds != 0 || s.nodes.idle.Len() != 0 || s.nodes.root.children != 0 {
		t.Errorf("left are %d nodes, %d descriptors, %d children", len(s.nodes.byID), s.nodes.fds, s.nodes.root.children)
	}
}
