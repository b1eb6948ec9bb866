package share

import (
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// FuzzServe has a guest send any bytes: a list of operations with any bodies. Nothing
// outside of the directory changes or is sent, no file gets a special mode, no device
// is made, and the server ends with its connection, with nothing left open.
func FuzzServe(f *testing.F) {
	name := func(op opcode, node byte, parts ...any) []byte {
		b := message(parts...)
		return append([]byte{byte(op), node, byte(len(b))}, b...)
	}
	init := name(opInit, 0, words(7, 41, 1<<20, 0xffffffff))
	f.Add(append(init, name(opLookup, 1, "up")...))
	f.Add(append(init, name(opLookup, 1, "../secret")...))
	f.Add(append(init, name(opCreate, 1, words(0x8042, 0o100644, 0, 0), "file")...))
	f.Add(append(append(init, name(opCreate, 1, words(0x8042, 0o104755, 0, 0), "file")...), name(opLookup, 1, "file")...))
	f.Add(append(append(init, name(opMkdir, 1, words(0o2777, 0), "dir")...), name(opSymlink, 2, "link", "/etc/passwd")...))
	f.Add(append(append(init, name(opLookup, 1, "up")...), name(opOpen, 2, words(2, 0))...))
	f.Add(append(append(init, name(opLookup, 1, "fifo")...), name(opOpen, 2, words(0, 0))...))
	f.Add(append(append(init, name(opOpendir, 1, words(0, 0))...), name(opReaddirplus, 1, longs(1, 0), words(4096, 0), longs(0, 0))...))
	f.Add(append(init, name(opRename, 1, longs(1), "file", "up")...))
	f.Add(append(append(init, name(opLookup, 1, "hard")...), name(opWrite, 2, longs(1, 0), words(4, 0), longs(0, 0), []byte("evil"))...))
	f.Add(append(init, name(opMknod, 1, words(0o20666, 0x103, 0, 0), "null")...))
	f.Add(append(append(init, name(opLookup, 1, "dir")...), name(opSetattr, 2, setattr(0xffff, 1, 5, 0o4755, 0, 0, 1, 1))...))
	f.Add(append(append(init, name(opOpendir, 1, words(0, 0))...), name(opBatchForget, 1, words(2, 0), longs(1, 9, 2, 9))...))
	f.Fuzz(func(t *testing.T, script []byte) {
		outside := t.TempDir()
		dir := filepath.Join(outside, "shared")
		if err := errors.Join(os.Mkdir(dir, 0o777), os.WriteFile(outside+"/secret", []byte("SECRET-SECRET"), 0o644), os.Symlink("..", dir+"/up"),
			os.Symlink("../secret", dir+"/link"), os.Mkdir(dir+"/dir", 0o755), os.WriteFile(dir+"/hard", []byte("data"), 0o644), unix.Mkfifo(dir+"/fifo", 0o666)); err != nil {
			t.Fatal(err)
		}
		before := snapshot(t, outside)
		descriptors := count(t)
		for got := range play(t, dir, script) {
			if len(got) > maxMessage {
				t.Errorf("an answer of %d bytes", len(got))
			}
			for i := range got {
				if string(got[i:min(len(got), i+13)]) == "SECRET-SECRET" {
					t.Error("the guest has read what is outside")
				}
			}
		}
		if after := snapshot(t, outside); after != before {
			t.Errorf("outside of the directory was\n%s\nand is\n%s", before, after)
		}
		if n := count(t); n > descriptors {
			t.Errorf("%d descriptors are open, %d were", n, descriptors)
		}
		if err := filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
			if err != nil {
				return nil // what the guest has made unreadable
			}
			if info, err := d.Info(); err == nil && info.Mode()&(os.ModeSetuid|os.ModeSetgid|os.ModeDevice) != 0 {
				t.Errorf("%s is %v", path, info.Mode())
			}
			return nil
		}); err != nil {
			t.Error(err)
		}
	})
}

// play sends the operations of a script, and yields the answers.
func play(t *testing.T, dir string, script []byte) func(func([]byte) bool) {
	s, here, conn := open(t, dir, Options{})
	served := make(chan struct{})
	go func() {
		defer close(served)
		_ = s.Serve(conn)
		conn.Close()
		s.Close()
	}()
	go func() {
		for len(script) >= 3 {
			op, node, n := script[0], script[1], min(int(script[2]), len(script)-3)
			body := script[3:][:n]
			script = script[3+n:]
			b := words(uint32(requestSize+n), uint32(op))
			b = append(b, longs(2, uint64(node))...)
			b = append(b, words(0, 0, 1, 0)...)
			if _, err := here.Write(append(b, body...)); err != nil {
				return
			}
		}
		_ = here.CloseWrite()
	}()
	return func(yield func([]byte) bool) {
		defer here.Close()
		_ = here.SetReadDeadline(time.Now().Add(20 * time.Second))
		for {
			header := make([]byte, replySize)
			if _, err := io.ReadFull(here, header); err != nil {
				break
			}
			f := fields{rest: header}
			body := make([]byte, f.u32()-replySize)
			if _, err := io.ReadFull(here, body); err != nil {
				t.Error("an answer is cut off")
				break
			}
			if !yield(body) {
				break
			}
		}
		here.Close()
		select {
		case <-served:
		case <-time.After(20 * time.Second):
			t.Error("the server does not end")
		}
	}
}

// snapshot tells all there is in a directory, but for one that is shared.
func snapshot(t *testing.T, dir string) string {
	t.Helper()
	var all string
	entries, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range entries {
		info, err := e.Info()
		if err != nil {
			t.Fatal(err)
		}
		if e.Name() == "shared" {
			all += "shared\n"
			continue
		}
		b, err := os.ReadFile(filepath.Join(dir, e.Name()))
		if err != nil {
			t.Fatal(err)
		}
		sum := sha256.Sum256(b)
		st := info.Sys().(*syscall.Stat_t)
		all += fmt.Sprintln(e.Name(), info.Mode(), info.ModTime(), st.Ctim, st.Ino, st.Nlink, st.Uid, hex.EncodeToString(sum[:]))
	}
	return all
}

// count is how many descriptors this process has.
func count(t *testing.T) int {
	t.Helper()
	entries, err := os.ReadDir("/proc/self/fd")
	if err != nil {
		t.Fatal(err)
	}
	return len(entries)
}
