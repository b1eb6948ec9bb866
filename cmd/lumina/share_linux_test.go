package main

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/abdul-abdi/lumina/builder/buildertest"
	"github.com/abdul-abdi/lumina/runtime/polltest"
)

// programs has the host's own programs, which are of the same Debian, work in a shared
// directory as they would in a bind mount. They come by a second one.
const programs = `set -e; cd /share; fail() { echo "$*"; exit 1; }
	export PATH=$PATH:/host/bin LD_LIBRARY_PATH=/host/lib/x86_64-linux-gnu GIT_EXEC_PATH=/host/lib/git-core GIT_TEMPLATE_DIR= HOME=/tmp PYTHONHOME=/host
	# sqlite in WAL mode, whose index is mapped memory, from two processes at a time
	sqlite3 db 'pragma journal_mode=wal; create table t(n)' >/dev/null
	insert() { for i in 1 2 3; do sqlite3 -cmd '.timeout 60000' db "begin immediate; insert into t values($1); insert into t values($1); commit"; done; }
	insert 1 & insert 10 & wait %1 && wait %2
	[ "$(sqlite3 db 'select count(*), sum(n) from t; pragma integrity_check; pragma journal_mode' | tr '\n' ' ')" = "12|66 ok wal " ] || fail sqlite
	# git
	git init -q repo; cd repo; git config user.email a@b.test; git config user.name n
	for i in 1 2 3 4 5 6 7 8; do echo $i > $i; done; git add .; git commit -qm one; git gc -q; git clone -q . ../clone; cd ..
	[ -z "$(git -C clone status --short)" ] && [ "$(git -C clone log --format=%s)" = one ] || fail git
	# a process maps what another writes to, and both write
	python3.11 - <<-EOF || fail mapped memory
	import mmap, os
	f = open("mapped", "w+b"); f.truncate(8192); m = mmap.mmap(f.fileno(), 8192)
	if os.fork() == 0:
	    g = open("mapped", "r+b"); n = mmap.mmap(g.fileno(), 8192); n[5000:5005] = b"child"; os._exit(0)
	os.wait(); assert m[5000:5005] == b"child"
	m[0:6] = b"parent"; f.seek(0); assert f.read(6) == b"parent"; os.pwrite(f.fileno(), b"written", 100); assert m[100:107] == b"written"
	m.flush()
	# what has lost its name
	g = open("gone", "w+b"); os.unlink("gone"); g.write(b"0123456789"); g.flush(); g.truncate(4); g.seek(0)
	assert g.read() == b"0123" and os.fstat(g.fileno()).st_size == 4 and os.fstat(g.fileno()).st_nlink == 0
	# holes, attributes, O_DIRECT, O_APPEND, O_TMPFILE, copy_file_range
	h = open("holes", "w+b"); h.truncate(1 << 20); os.pwrite(h.fileno(), b"x", 1 << 19)
	assert os.lseek(h.fileno(), 0, os.SEEK_DATA) >= 1 << 18 and os.stat("holes").st_blocks < 256
	os.setxattr("holes", "user.a", b"b"); assert os.listxattr("holes") == ["user.a"]
	try: os.setxattr("holes", "trusted.a", b"b"); assert False
	except OSError: pass
	d = os.open("direct", os.O_RDWR | os.O_CREAT | os.O_DIRECT); buf = mmap.mmap(-1, 4096); buf[0:3] = b"abc"
	assert os.write(d, buf) == 4096 and os.pread(os.open("direct", os.O_RDONLY), 3, 0) == b"abc"
	a = os.open("direct", os.O_WRONLY | os.O_APPEND); os.write(a, b"end"); assert os.stat("direct").st_size == 4099
	t = os.open(".", os.O_TMPFILE | os.O_RDWR); os.write(t, b"t"); os.link("/proc/self/fd/%d" % t, "named", src_dir_fd=0)
	assert os.copy_file_range(h.fileno(), t, 10, 0, 1) == 10
	os.utime("holes", (1, 2)); assert os.stat("holes").st_mtime == 2
	EOF
	# FIFOs, and whole trees
	mkfifo fifo; (echo through > fifo &); [ "$(cat fifo)" = through ] || fail fifo
	mkdir -p tree/a/b; echo x > tree/a/b/f; ln tree/a/b/f tree/hard; ln -s a/b/f tree/link; chmod 640 tree/a/b/f
	cp -a tree copy; tar cf tree.tar tree; mkdir out; tar xf tree.tar -C out; diff -r tree copy && diff -r tree out/tree || fail trees
	[ "$(stat -c '%h %a' copy/hard out/tree/hard | sort -u)" = "2 640" ] || fail links
	touch tree/given; chown -h 33:44 tree/given tree/link; cp -a tree again; [ "$(stat -c %u:%g again/given again/link | sort -u)" = 33:44 ] || fail chown
	printf 'a: b\n\tcp b a\n' > Makefile; echo > b; touch -d '1 hour ago' b; cp b a; touch b; echo right`

// Programs work in a shared directory, what they leave is whole on the host, and what the
// host does is seen in the guest.
func TestProgramsInSharedDirectory(t *testing.T) {
	dir := t.TempDir()
	sid := lumina(t, "session", "start", "--image", "debian", "--network", "none", "-v", dir+":/share", "-v", "/usr:/host:ro").succeeded(t).SID
	defer func() {
		lumina(t, "session", "stop", sid).succeeded(t)
		nothingLeft(t)
	}()
	if r := lumina(t, "exec", sid, programs); r.Stdout != "right\n" {
		t.Fatalf("%s", r.stdout)
	}
	at := func(name string) string { return filepath.Join(dir, name) }
	if got := buildertest.Run(t, "sqlite3", at("db"), "pragma integrity_check; select count(*) from t"); got != "ok\n12\n" {
		t.Errorf("the database holds %q", got)
	}
	for _, repo := range []string{"repo", "clone"} {
		buildertest.Run(t, "git", "-c", "safe.directory=*", "-C", at(repo), "fsck", "--strict")
	}
	b, err := os.ReadFile(at("mapped"))
	if err != nil || len(b) != 8192 || string(b[:6]) != "parent" || string(b[5000:5005]) != "child" {
		t.Errorf("what was mapped: %d bytes, %v", len(b), err)
	}
	if info, err := os.Lstat(at("fifo")); err != nil || info.Mode().Type() != os.ModeNamedPipe {
		t.Errorf("fifo: %v, %v", info, err)
	}
	if _, err := os.Stat(at("gone")); err == nil {
		t.Error("a file that was removed is there")
	}
	// A file that is open in the guest changes, is renamed and is replaced here.
	write := func(name, text string) {
		if err := os.WriteFile(at(name), []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	write("file", "before\n")
	lumina(t, "exec", "--detach", sid, "cd /share; exec 3< file; cat <&3 > reading; mv reading seen; while [ ! -e next ]; do sleep .05; done; read l <&3; echo \"$l $(cat file)\" >> seen; mv seen done").succeeded(t)
	waitFor := func(name string) {
		polltest.Until(t, func() error {
			_, err := os.Stat(at(name))
			return err
		})
	}
	waitFor("seen")
	write("file", "before\nafter\n")
	if err := os.Rename(at("file"), at("old")); err != nil {
		t.Fatal(err)
	}
	write("file", "replaced")
	write("next", "")
	waitFor("done")
	if b, _ := os.ReadFile(at("done")); string(b) != "before\nafter replaced\n" {
		t.Errorf("the guest saw %q", b)
	}
	if err := os.Chmod(dir, 0o777); err != nil {
		t.Fatal(err)
	}
	// Another user of the guest's has files of its own, and none of root's.
	if r := lumina(t, "exec", "--user", "33", sid, "cd /share; umask 077; echo x > mine; echo y >> mine; mkdir d; stat -c %u mine d; chmod 700 repo || echo x > db || echo fine").succeeded(t); r.Stdout != "33\n33\nfine\n" {
		t.Errorf("another user: %s", r.stdout)
	}
	for _, name := range []string{"done", "again/given"} {
		var st syscall.Stat_t
		if err := syscall.Stat(at(name), &st); err != nil || int(st.Uid) != os.Geteuid() {
			t.Errorf("%s, which the guest made, is %d's, %v", name, st.Uid, err)
		}
	}
	if r := lumina(t, "exec", sid, "echo x > /host/bin/x"); r.code == 0 || !strings.Contains(r.Stderr, "Read-only") {
		t.Errorf("read-only: %s", r.stdout)
	}
	// The kernel's own files are no directory to share.
	if r := run(t, "-v", "/proc:/x", "true"); r.code != 2 || !strings.Contains(r.stderr, "a file system of the kernel") {
		t.Errorf("/proc: exit code %d, %s", r.code, fmt.Sprint(r.stdout, r.stderr))
	}
}
