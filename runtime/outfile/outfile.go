// Package outfile writes the files that users name for a result: a screenshot, a
// page, a disk. It follows the rules of lumina cp: a link is followed, a device or
// FIFO is written to, missing parents are made, what is there keeps its mode, and a
// regular file has its name only when it is whole. A directory is refused before
// there is any work to lose.
package outfile

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"github.com/abdul-abdi/lumina/initramfs/transfer"
	"github.com/abdul-abdi/lumina/runtime/durable"
)

// Target is a file that can be written.
type Target struct {
	// Path is where it is, or will be: where a link leads.
	Path string
	// Regular says that it is a regular file, or none yet.
	Regular bool
	// Exists says that something is there.
	Exists bool
	// Mode is the mode of what is there.
	Mode fs.FileMode
}

// Check says where a path leads, or why no file can be written there. It changes
// nothing.
func Check(path string) (Target, error) {
	switch {
	case path == "":
		return Target{}, errors.New("the name of the file to write is empty")
	case strings.HasSuffix(path, "/"):
		return Target{}, fmt.Errorf("%q is a directory; name a file in it", path)
	}
	if err := transfer.CheckDestination(path); err != nil {
		return Target{}, fmt.Errorf("cannot write %q: %w", path, err)
	}
	info, err := os.Stat(path)
	if errors.Is(err, fs.ErrNotExist) {
		return Target{Path: path, Regular: true}, nil
	}
	if err != nil {
		return Target{}, err
	}
	if info.IsDir() {
		return Target{}, fmt.Errorf("%q is a directory; name a file in it", path)
	}
	t := Target{Path: path, Regular: info.Mode().IsRegular(), Exists: true, Mode: info.Mode().Perm()}
	if real, err := filepath.EvalSymlinks(path); err == nil { // one of /proc leads to what has no name
		t.Path = real
	}
	return t, nil
}

// IsOutput says whether a path is that of a file that is open, such as the
// standard output by the name of /dev/stdout.
func IsOutput(f *os.File, path string) bool {
	own, err := f.Stat()
	if err != nil {
		return false
	}
	info, err := os.Stat(path)
	return err == nil && os.SameFile(own, info)
}

// Write writes a file as a whole. mode is that of a new one.
func Write(path string, content []byte, mode fs.FileMode) error {
	t, err := Check(path)
	if err != nil {
		return err
	}
	if IsOutput(os.Stdout, path) {
		_, err := os.Stdout.Write(content)
		return err
	}
	if !t.Regular {
		f, err := os.OpenFile(t.Path, os.O_WRONLY, 0)
		if err != nil {
			return err
		}
		_, err = f.Write(content)
		return errors.Join(err, f.Close())
	}
	if t.Exists {
		mode = t.Mode
	}
	made, err := MakeParents(t.Path)
	if err != nil {
		return err
	}
	err = durable.Replace(t.Path, content, mode)
	if err != nil {
		made.Remove()
	}
	return err
}

// Parents are directories that were made for a file.
type Parents []string

// MakeParents makes the missing parents of a file.
func MakeParents(path string) (Parents, error) {
	var missing Parents
	for d := filepath.Dir(path); d != filepath.Dir(d); d = filepath.Dir(d) {
		if _, err := os.Lstat(d); !errors.Is(err, fs.ErrNotExist) {
			break
		}
		missing = append(missing, d)
	}
	return missing, os.MkdirAll(filepath.Dir(path), 0o755)
}

// Remove removes them where nothing came into them.
func (p Parents) Remove() {
	for _, d := range p {
		_ = os.Remove(d)
	}
}
