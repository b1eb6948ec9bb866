package files

import (
	"errors"
	"io"
	"io/fs"
	"os"
	"slices"
	"strings"
	"sync"
	"time"

	goerofs "github.com/erofs/go-erofs"

	"github.com/abdul-abdi/lumina/builder/erofs"
)

// Image is the root file system of an image.
type Image struct {
	f    *os.File
	fsys fs.FS

	mu     sync.Mutex
	places erofs.Places
}

// OpenImage opens an image's root.
func OpenImage(path string) (*Image, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	fsys, err := goerofs.Open(f)
	if err != nil {
		f.Close()
		return nil, err
	}
	return &Image{f: f, fsys: fsys, places: erofs.Places{}}, nil
}

// Close closes the file.
func (i *Image) Close() error { return i.f.Close() }

// Stat describes a file.
func (i *Image) Stat(name string) (Info, error) {
	info, err := fs.Lstat(i.fsys, name)
	if err != nil {
		return Info{}, err
	}
	st, ok := info.Sys().(*goerofs.Stat)
	if !ok {
		return Info{}, errors.New("its attributes are not known")
	}
	d := Info{UID: int(st.UID), GID: int(st.GID), Size: st.Size, Mode: uint32(st.Mode.Perm()),
		ModTime: time.Unix(int64(st.Mtime), int64(st.MtimeNs)), Xattrs: st.Xattrs}
	for bit, mode := range map[uint32]fs.FileMode{0o4000: fs.ModeSetuid, 0o2000: fs.ModeSetgid, 0o1000: fs.ModeSticky} {
		if st.Mode&mode != 0 {
			d.Mode |= bit
		}
	}
	switch t := info.Mode().Type(); {
	case t == 0:
		d.Mode |= TypeRegular
		if st.Nlink > 1 {
			d.ID = ID{Inode: uint64(st.Ino)}
		}
	case t&fs.ModeDir != 0:
		d.Mode |= TypeDir
		d.Size = 0
	case t&fs.ModeSymlink != 0:
		d.Mode |= TypeSymlink
		d.Size = 0
		if d.Target, err = fs.ReadLink(i.fsys, name); err != nil {
			return Info{}, err
		}
	case t&fs.ModeNamedPipe != 0:
		d.Mode |= TypeFIFO
	case t&fs.ModeDevice != 0:
		d.Mode |= TypeBlock
		if t&fs.ModeCharDevice != 0 {
			d.Mode = d.Mode&^TypeMask | TypeChar
		}
		// The encoding of the kernel's new_encode_dev.
		d.Major, d.Minor = int64(st.Rdev>>8&0xfff), int64(st.Rdev&0xff|st.Rdev>>12&0xfff00)
		d.Size = 0
	default:
		return Info{}, &fs.PathError{Op: "reading", Path: name, Err: errors.New("it has a type that cannot be copied")}
	}
	return d, nil
}

// Names are those in a directory.
func (i *Image) Names(dir string) ([]string, error) {
	info, err := fs.Stat(i.fsys, dir)
	if err != nil {
		return nil, err
	}
	i.mu.Lock()
	err = i.places.Check(dir, info)
	i.mu.Unlock()
	if err != nil {
		return nil, err
	}
	entries, err := fs.ReadDir(i.fsys, dir)
	if err != nil {
		return nil, err
	}
	var names []string
	for _, e := range entries {
		names = append(names, e.Name())
	}
	slices.Sort(names)
	return names, nil
}

// Open opens a regular file.
func (i *Image) Open(name string) (io.ReadCloser, error) { return i.fsys.Open(name) }

// Text is a tree of files that are given as they are, in one directory.
type Text map[string]string

// Stat describes a file.
func (t Text) Stat(name string) (Info, error) {
	if name == "." {
		return Info{Mode: TypeDir | 0o755}, nil
	}
	text, ok := t[name]
	if !ok {
		return Info{}, &fs.PathError{Op: "reading", Path: name, Err: fs.ErrNotExist}
	}
	return Info{Mode: TypeRegular | 0o644, Size: int64(len(text)), ModTime: time.Unix(0, 0)}, nil
}

// Names are all.
func (t Text) Names(string) ([]string, error) {
	var names []string
	for name := range t {
		names = append(names, name)
	}
	slices.Sort(names)
	return names, nil
}

// Open opens a file.
func (t Text) Open(name string) (io.ReadCloser, error) {
	return io.NopCloser(strings.NewReader(t[name])), nil
}

// File is a tree of one file of the host's, that was fetched.
type File struct {
	Name    string
	Path    string
	Mode    uint32
	ModTime time.Time
}

// Stat describes the file.
func (f File) Stat(name string) (Info, error) {
	if name == "." {
		return Info{Mode: TypeDir | 0o755}, nil
	}
	if name != f.Name {
		return Info{}, &fs.PathError{Op: "reading", Path: name, Err: fs.ErrNotExist}
	}
	info, err := os.Stat(f.Path)
	if err != nil {
		return Info{}, err
	}
	return Info{Mode: TypeRegular | f.Mode, Size: info.Size(), ModTime: f.ModTime}, nil
}

// Names is the file's.
func (f File) Names(string) ([]string, error) { return []string{f.Name}, nil }

// Open opens it.
func (f File) Open(string) (io.ReadCloser, error) { return os.Open(f.Path) }
