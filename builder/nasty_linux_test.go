package builder

import (
	"archive/tar"
	"crypto/sha256"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"sort"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/sys/unix"

	"github.com/abdul-abdi/lumina/builder/buildertest"
)

// fileCapability is security.capability with cap_net_raw, as setcap writes it:
// struct vfs_cap_data of linux/capability.h, revision 2, effective.
const fileCapability = "\x01\x00\x00\x02\x00\x20\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00"

// nastyLayers holds what real images have and what they should not.
func nastyLayers(t testing.TB) [][]byte {
	stamp := time.Unix(1234567890, 123456789)
	long := strings.Repeat("n", 255)
	sparse := strings.Repeat("\x00", 1<<20) + "middle" + strings.Repeat("\x00", 3<<20-6) + "end"
	var bottom []tar.Header
	add := func(h ...tar.Header) { bottom = append(bottom, h...) }
	add(
		dir(".", 0o755),
		dir("etc", 0o755), file("etc/passwd", "root"), file("etc/gone", "x"), file("etc/kept", "x"),
		with(file("etc/setuid", "x"), func(h *tar.Header) { h.Mode = 0o4755 }),
		with(dir("tmp", 0o1777), func(h *tar.Header) { h.ModTime = stamp }),
		with(file("stamped", "x"), func(h *tar.Header) { h.ModTime, h.Format = stamp, tar.FormatPAX }),
		with(file("before-the-epoch", "x"), func(h *tar.Header) { h.ModTime, h.Format = time.Unix(-86400, 0), tar.FormatPAX }),
		with(file("big-owner", "x"), func(h *tar.Header) { h.Uid, h.Gid = 200000, 300000 }),
		xattr(file("capable", "x"), "security.capability", fileCapability),
		xattr(xattr(file("attributed", "content"), "user.one", "1"), "user.two", strings.Repeat("2", 500)),
		xattr(file("much-attributed", strings.Repeat("c", 5000)), "user.large", strings.Repeat("v", 3800)),
		xattr(dir("attributed-dir", 0o700), "user.dir", "d"),
		xattr(symlink("attributed-link", "x"), "trusted.link", "l"),
		file(long, "long name"), file("deep/"+strings.Repeat("d/", 100)+"file", "implicit parents"),
		file("empty", ""), file("sparse", sparse), file("sparse-all", strings.Repeat("\x00", 1<<20+17)),
		file("sparse-end", strings.Repeat("\x00", 1<<20)+"e"), file("sparse-start", "s"+strings.Repeat("\x00", 1<<20)),
		file("large", strings.Repeat("0123456789abcdef", 40000)+"tail"),
		file("not utf-8 \xff\xfe", "x"), file("new\nline", "x"), file(" blank ", "x"), file(".hidden", "x"), file("-dash", "x"), file("!bang", "x"),
		symlink("loop-a", "loop-b"), symlink("loop-b", "loop-a"), symlink("dangling", "/nowhere"),
		symlink("long-link", strings.Repeat("t/", 2000)), symlink("absolute", "/etc"),
		dir("usr", 0o755), dir("usr/bin", 0o755), symlink("bin", "usr/bin"), file("usr/bin/tool", "1"),
		with(tar.Header{Name: "dev/null", Typeflag: tar.TypeChar, Mode: 0o666, Devmajor: 1, Devminor: 3}, func(*tar.Header) {}),
		tar.Header{Name: "dev/big", Typeflag: tar.TypeBlock, Mode: 0o600, Devmajor: 259, Devminor: 70000},
		tar.Header{Name: "fifo", Typeflag: tar.TypeFifo, Mode: 0o640},
		file("hard/a", "one inode"), link("hard/b", "hard/a"), link("hard/c", "hard/b"), link("hard/symlink", "loop-a"),
		file("lower/first", "first"), file("lower/second", "second"),
		dir("opaque", 0o755), file("opaque/old", "x"), file("opaque/sub/old", "x"),
		dir("pruned", 0o755), file("pruned/a", "x"), dir("pruned/d", 0o755), file("pruned/d/e", "x"),
		file("becomes-dir", "file"), dir("becomes-file", 0o755), file("becomes-file/child", "x"),
		symlink("becomes-dir-too", "usr"), file("back-and-forth", "1"),
		// The lowest layer has nothing to white out.
		file("own", "x"), file(".wh.own", ""), dir("own-dir", 0o755), file("own-dir/x", "x"), file("own-dir/.wh..wh..opq", ""),
		file("twice", "first"), file("twice", "second"),
		file("hard/../taken-back", "x"), file("./etc/./../dotted", "x"), link("taken-back-too", "hard/../taken-back"),
	)
	for n := range 5000 {
		add(file(fmt.Sprintf("many/entry-%04d", n), strings.Repeat("x", n%300)))
	}
	for n := range 40 {
		// Sizes around the limits of what is inline.
		add(file(fmt.Sprintf("sizes/%d", 3990+n), strings.Repeat("i", 3990+n)), file(fmt.Sprintf("sizes/%d", 8150+n), strings.Repeat("j", 8150+n)))
	}
	seconds := int64(1e9)
	stamped := func(entries ...tar.Header) []byte {
		for n := range entries {
			if seconds++; entries[n].ModTime.IsZero() {
				entries[n].ModTime = time.Unix(seconds, 0) // every entry's own
			}
		}
		return layer(t, entries...)
	}
	return [][]byte{
		stamped(bottom...),
		stamped(
			dir("etc", 0o711), file("etc/.wh.gone", ""),
			link("hard/across", "hard/a"), link("lower/kept", "lower/first"), file("lower/.wh.first", ""),
			file("lower/second", "replaced"),
			file("opaque/.wh..wh..opq", ""), file("opaque/new", "new"), file("opaque/sub/new", "new"),
			file("pruned/d/new", "kept"), file(".wh.pruned", ""),
			dir("becomes-dir", 0o750), file("becomes-dir/child", "x"), file("becomes-file", "file"),
			dir("becomes-dir-too", 0o755), file("becomes-dir-too/child", "x"),
			dir("back-and-forth", 0o755), file("back-and-forth/x", "2"),
			file("bin/added", "through the link"), file("absolute/added", "through an absolute link"),
			file(".wh.recreated", ""), file("recreated", "after its whiteout"),
			file("made", "before its whiteout"), file(".wh.made", ""),
			file(".wh.never-was", ""), file("large", "small now"),
		),
		stamped(
			file("back-and-forth", "3"), file("usr/bin/.wh.tool", ""), file("hard/.wh.a", ""),
			file("many/.wh.entry-0007", ""), file("fills-the-gap", strings.Repeat("g", 300000)),
			with(file("etc/passwd", "root\nme"), func(h *tar.Header) { h.Uid, h.Gid, h.Mode = 1, 2, 0o600 }),
		),
	}
}

// tree describes every entry of a directory tree in a line.
func tree(t testing.TB, root string) []string {
	t.Helper()
	names := map[uint64][]string{} // of each inode with several
	type found struct {
		path string
		st   unix.Stat_t
	}
	var all []found
	err := filepath.WalkDir(root, func(path string, _ fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		var st unix.Stat_t
		if err := unix.Lstat(path, &st); err != nil {
			return err
		}
		rel := strings.TrimPrefix(strings.TrimPrefix(path, root), "/")
		all = append(all, found{rel, st})
		if st.Nlink > 1 && st.Mode&unix.S_IFMT != unix.S_IFDIR {
			names[st.Ino] = append(names[st.Ino], rel)
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	var lines []string
	for _, f := range all {
		path := filepath.Join(root, f.path)
		line := fmt.Sprintf("%q mode %o owner %d:%d", f.path, f.st.Mode, f.st.Uid, f.st.Gid)
		switch f.st.Mode & unix.S_IFMT {
		case unix.S_IFREG:
			b, err := os.ReadFile(path)
			if err != nil {
				t.Fatal(err)
			}
			line += fmt.Sprintf(" size %d sha256 %.8x", f.st.Size, sha256.Sum256(b))
		case unix.S_IFLNK:
			target, err := os.Readlink(path)
			if err != nil {
				t.Fatal(err)
			}
			line += fmt.Sprintf(" -> %.80q %d", target, len(target))
		case unix.S_IFCHR, unix.S_IFBLK:
			line += fmt.Sprintf(" device %d:%d", unix.Major(f.st.Rdev), unix.Minor(f.st.Rdev))
		}
		isDir := f.st.Mode&unix.S_IFMT == unix.S_IFDIR
		if f.path != "" && !(isDir && implicit[strings.SplitN(f.path, "/", 2)[0]]) {
			line += fmt.Sprintf(" mtime %d.%09d", f.st.Mtim.Sec, f.st.Mtim.Nsec)
		}
		if group := names[f.st.Ino]; len(group) > 1 {
			line += fmt.Sprintf(" links %d %q", f.st.Nlink, group)
		}
		lines = append(lines, line+xattrsOf(t, path))
	}
	sort.Strings(lines)
	return lines
}

// implicit are trees with directories that no layer has an entry of: their
// times are whatever the tool makes of that.
var implicit = map[string]bool{"deep": true, "dev": true, "hard": true, "lower": true, "many": true, "sizes": true, "opaque": true,
	// The whiteout of a directory that the same layer writes below: umoci makes it anew.
	"pruned": true}

func xattrsOf(t testing.TB, path string) string {
	t.Helper()
	buf := make([]byte, 64<<10)
	n, err := unix.Llistxattr(path, buf)
	if err != nil {
		t.Fatal(err)
	}
	names := strings.Split(strings.TrimSuffix(string(buf[:n]), "\x00"), "\x00")
	sort.Strings(names)
	var s string
	for _, name := range names {
		if name == "" {
			continue
		}
		n, err := unix.Lgetxattr(path, name, buf)
		if err != nil {
			t.Fatal(err)
		}
		s += fmt.Sprintf(" %s=%.40q…%d", name, buf[:n], n)
	}
	return s
}

// The kernel reads our image; umoci unpacks the same layers. Every entry must
// be the same in type, mode, owner, size, content, time, attributes, links and
// device number.
func TestNastyImageIsWhatUmociUnpacks(t *testing.T) {
	layout := writeLayout(t, "amd64", nastyLayers(t)...)
	root := create(t, options(t, "oci:"+layout))
	buildertest.Run(t, "fsck.erofs", root)

	mount := t.TempDir()
	buildertest.Run(t, "mount", "-t", "erofs", "-o", "ro,loop", root, mount)
	t.Cleanup(func() { buildertest.Run(t, "umount", mount) })
	bundle := filepath.Join(t.TempDir(), "bundle")
	buildertest.Run(t, "umoci", "unpack", "--image", layout+":latest", bundle)

	want, got := tree(t, filepath.Join(bundle, "rootfs")), tree(t, mount)
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("the trees differ (-umoci +lumina):\n%s", diff)
	}
	if len(got) < 5000 {
		t.Errorf("only %d entries were compared", len(got))
	}
	var st syscall.Stat_t
	if err := syscall.Stat(root, &st); err != nil {
		t.Fatal(err)
	}
	// 3 MiB of zeros in files are no blocks, in the image or on the host.
	if st.Size > 12<<20 {
		t.Errorf("the image has %d bytes: holes were written", st.Size)
	}
	if again := digest(t, create(t, options(t, "oci:"+layout))); again != digest(t, root) {
		t.Error("a second build has other bytes")
	}
}

// The same for a real system.
func TestDebianIsWhatUmociUnpacks(t *testing.T) {
	layout := buildertest.DebianFor(t, "amd64")
	root := create(t, options(t, "oci:"+layout+":latest"))
	mount := t.TempDir()
	buildertest.Run(t, "mount", "-t", "erofs", "-o", "ro,loop", root, mount)
	t.Cleanup(func() { buildertest.Run(t, "umount", mount) })
	bundle := filepath.Join(t.TempDir(), "bundle")
	buildertest.Run(t, "umoci", "unpack", "--image", layout+":latest", bundle)
	if diff := cmp.Diff(tree(t, filepath.Join(bundle, "rootfs")), tree(t, mount)); diff != "" {
		t.Errorf("the trees differ (-umoci +lumina):\n%s", diff)
	}
}
