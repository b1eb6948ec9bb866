package files

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"

	"github.com/moby/patternmatcher"
	"github.com/moby/patternmatcher/ignorefile"
	"golang.org/x/sys/unix"
)

// Host is a directory of the host, without what its ignore file says. Owners and
// extended attributes are the host's own business: everything is root's. But what a
// program may do (setcap(8)) goes with it.
type Host struct {
	root    *os.Root
	matcher *patternmatcher.PatternMatcher // nil: nothing is ignored
	// except are the directories that patterns with "!" begin with.
	except []string

	mu    sync.Mutex
	known map[string]dirMatch // directories whose names were listed
}

// dirMatch is what is known of a directory.
type dirMatch struct {
	ignored bool
	info    patternmatcher.MatchInfo
}

// OpenHost opens a directory. ignore are the lines of its ignore file.
func OpenHost(dir string, ignore []string) (*Host, error) {
	root, err := os.OpenRoot(dir)
	if err != nil {
		return nil, err
	}
	h := &Host{root: root, known: map[string]dirMatch{}}
	if len(ignore) == 0 {
		return h, nil
	}
	if h.matcher, err = patternmatcher.New(ignore); err != nil {
		root.Close()
		return nil, err
	}
	for _, p := range h.matcher.Patterns() {
		if p.Exclusion() {
			h.except = append(h.except, p.String())
		}
	}
	return h, nil
}

// ReadIgnore reads the ignore file of a build: that of its Dockerfile,
// NAME.dockerignore, else the context's. There may be none; dockerfile is empty
// for one that is not a file.
func ReadIgnore(context, dockerfile string) (lines []string, err error) {
	names := []string{filepath.Join(context, ".dockerignore")}
	if dockerfile != "" {
		names = append([]string{dockerfile + ".dockerignore"}, names...)
	}
	for _, name := range names {
		if err := Inside(context, name); err != nil {
			return nil, err
		}
		lines, err := readIgnore(name)
		if !errors.Is(err, fs.ErrNotExist) {
			return lines, err
		}
	}
	return nil, nil
}

// Inside refuses a file of the context that is a link out of it: who made the context
// does not say what else of this host is read. A file that is named elsewhere is the
// caller's choice.
func Inside(context, name string) error {
	from, err := filepath.Abs(context)
	if err != nil {
		return err
	}
	to, err := filepath.Abs(name)
	if err != nil {
		return err
	}
	rel, err := filepath.Rel(from, to)
	if err != nil || !filepath.IsLocal(rel) {
		return nil
	}
	root, err := os.OpenRoot(context)
	if err != nil {
		return nil // the error is reported where it is opened
	}
	defer root.Close()
	if _, err := root.Stat(rel); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("%s leads out of the context: %w", rel, err)
	}
	return nil
}

// maxIgnore bounds an ignore file, in bytes.
const maxIgnore = 4 << 20

func readIgnore(name string) ([]string, error) {
	// Do not wait for a FIFO without a writer, or read a file without an end. A file that
	// is too long is an error: a part of it would let through what the rest ignores.
	f, err := os.OpenFile(name, os.O_RDONLY|syscall.O_NONBLOCK, 0)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	var lines []string
	info, err := f.Stat()
	switch {
	case err != nil:
	case !info.Mode().IsRegular():
		err = errors.New("it is not a file")
	case info.Size() > maxIgnore:
		err = fmt.Errorf("it is longer than %d bytes", maxIgnore)
	default:
		lines, err = ignorefile.ReadAll(io.LimitReader(f, maxIgnore))
	}
	if err == nil {
		_, err = patternmatcher.New(lines)
	}
	if err != nil {
		return nil, fmt.Errorf("%s: %w", name, err)
	}
	return lines, nil
}

// Close closes the directory.
func (h *Host) Close() error { return h.root.Close() }

// match says whether a name is ignored by itself, whatever it holds.
func (h *Host) match(name string) (dirMatch, error) {
	if h.matcher == nil || name == "." {
		return dirMatch{}, nil
	}
	h.mu.Lock()
	m, ok := h.known[name]
	h.mu.Unlock()
	if ok {
		return m, nil
	}
	parent, err := h.match(path.Dir(name))
	if err != nil {
		return dirMatch{}, err
	}
	m.ignored, m.info, err = h.matcher.MatchesUsingParentResults(name, parent.info)
	return m, err
}

// mayHold says whether something below an ignored directory may be excepted.
func (h *Host) mayHold(dir string) bool {
	for _, e := range h.except {
		pattern, below := strings.Split(e, "/"), strings.Split(dir, "/")
		fits := true
		for i := 0; i < len(below) && i < len(pattern); i++ {
			if pattern[i] == "**" {
				break
			}
			if ok, err := path.Match(pattern[i], below[i]); err != nil || !ok {
				fits = false
				break
			}
		}
		if fits {
			return true
		}
	}
	return false
}

// Stat describes a file that is not ignored.
func (h *Host) Stat(name string) (Info, error) {
	m, err := h.match(name)
	if err != nil {
		return Info{}, err
	}
	if m.ignored && !h.mayHold(name) {
		return Info{}, &fs.PathError{Op: "reading", Path: name, Err: errIgnored}
	}
	info, err := h.root.Lstat(name)
	if err != nil {
		return Info{}, err
	}
	if m.ignored {
		if !info.IsDir() {
			return Info{}, &fs.PathError{Op: "reading", Path: name, Err: errIgnored}
		}
		// It is there for what is excepted in it.
		if names, err := h.Names(name); err != nil || len(names) == 0 {
			return Info{}, errors.Join(err, &fs.PathError{Op: "reading", Path: name, Err: errIgnored})
		}
	}
	return h.describe(name, info)
}

// ignoredError is that of a name which an ignore file hides.
type ignoredError struct{}

func (ignoredError) Error() string        { return "the ignore file excludes it" }
func (ignoredError) Is(target error) bool { return target == fs.ErrNotExist }

var errIgnored = ignoredError{}

func (h *Host) describe(name string, info fs.FileInfo) (Info, error) {
	i := Info{Mode: uint32(info.Mode().Perm()), Size: info.Size(), ModTime: info.ModTime()}
	for _, bit := range []struct {
		mode fs.FileMode
		bit  uint32
	}{{fs.ModeSetuid, 0o4000}, {fs.ModeSetgid, 0o2000}, {fs.ModeSticky, 0o1000}} {
		if info.Mode()&bit.mode != 0 {
			i.Mode |= bit.bit
		}
	}
	switch info.Mode().Type() {
	case 0:
		i.Mode |= TypeRegular
		if st, ok := info.Sys().(*syscall.Stat_t); ok && st.Nlink > 1 {
			i.ID = ID{uint64(st.Dev), uint64(st.Ino)}
		}
		if info.Mode()&0o111 != 0 {
			i.Xattrs = h.capabilities(name)
		}
	case fs.ModeDir:
		i.Mode |= TypeDir
		i.Size = 0
	case fs.ModeSymlink:
		i.Mode |= TypeSymlink
		i.Size = 0
		var err error
		if i.Target, err = h.root.Readlink(name); err != nil {
			return Info{}, err
		}
	case fs.ModeNamedPipe:
		i.Mode |= TypeFIFO
	default:
		return Info{}, fmt.Errorf("%s: a %s of the context cannot be copied", name, kindOf(info.Mode()))
	}
	return i, nil
}

// capability is the extended attribute that has a program's capabilities.
const capability = "security.capability"

// capabilities are those of a program; nil for none. One that cannot be opened fails
// when it is read.
func (h *Host) capabilities(name string) map[string]string {
	f, err := h.root.OpenFile(name, os.O_RDONLY|syscall.O_NONBLOCK|syscall.O_NOFOLLOW, 0)
	if err != nil {
		return nil
	}
	defer f.Close()
	b := make([]byte, 64) // struct vfs_ns_cap_data has 24
	n, err := unix.Fgetxattr(int(f.Fd()), capability, b)
	if err != nil || n == 0 {
		return nil
	}
	return map[string]string{capability: string(b[:n])}
}

func kindOf(m fs.FileMode) string {
	if m&fs.ModeSocket != 0 {
		return "socket"
	}
	return "device"
}

// Names are those in a directory, but for what is ignored and for sockets.
func (h *Host) Names(dir string) ([]string, error) {
	d, err := h.root.Open(dir)
	if err != nil {
		return nil, err
	}
	entries, err := d.ReadDir(-1)
	d.Close()
	if err != nil {
		return nil, err
	}
	m, err := h.match(dir)
	if err != nil {
		return nil, err
	}
	h.remember(dir, m)
	var names []string
	for _, e := range entries {
		if e.Type()&fs.ModeSocket != 0 {
			continue
		}
		name := path.Join(dir, e.Name())
		m, err := h.match(name)
		if err != nil {
			return nil, err
		}
		if m.ignored {
			if !e.IsDir() || !h.mayHold(name) {
				continue
			}
			if below, err := h.Names(name); err != nil {
				return nil, err
			} else if len(below) == 0 {
				continue
			}
		}
		names = append(names, e.Name())
	}
	slices.Sort(names)
	return names, nil
}

// remember keeps what is known of a directory: its files' names are matched
// with that.
func (h *Host) remember(dir string, m dirMatch) {
	if h.matcher != nil {
		h.mu.Lock()
		h.known[dir] = m
		h.mu.Unlock()
	}
}

// Open opens a regular file.
func (h *Host) Open(name string) (io.ReadCloser, error) {
	// Not a FIFO that came in the meantime, which could block.
	f, err := h.root.OpenFile(name, os.O_RDONLY|syscall.O_NONBLOCK|syscall.O_NOFOLLOW, 0)
	if err != nil {
		return nil, err
	}
	return f, nil
}
