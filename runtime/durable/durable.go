// Package durable puts files and directories in their places so that a power
// cut at any moment leaves each of them whole, or absent, or as it was before:
// what a name leads to is on the disk before the name is.
package durable

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"syscall"
)

// Create makes a file that is not there yet, with exactly this mode: a umask
// takes nothing from it. What is written is on disk after [Sync] or [Move].
func Create(name string, mode fs.FileMode) (*os.File, error) {
	f, err := os.OpenFile(name, os.O_RDWR|os.O_CREATE|os.O_EXCL, mode)
	if err != nil {
		return nil, err
	}
	if err := f.Chmod(mode); err != nil {
		return nil, errors.Join(err, f.Close(), os.Remove(name))
	}
	return f, nil
}

// WriteNew makes a file of this content, as [Create] does.
func WriteNew(name string, content []byte, mode fs.FileMode) error {
	f, err := Create(name, mode)
	if err != nil {
		return err
	}
	_, err = f.Write(content)
	return errors.Join(err, f.Close())
}

// Replace gives a file this content and mode in one step: a reader finds either the
// old content or the new one, also after a power cut. To be sure of the new one after a
// power cut, call [Sync] for its directory.
func Replace(name string, content []byte, mode fs.FileMode) error {
	f, err := os.CreateTemp(filepath.Dir(name), "."+filepath.Base(name)+".new-*")
	if err != nil {
		return err
	}
	defer os.Remove(f.Name()) // when it did not get its own name
	_, err = f.Write(content)
	if err == nil {
		err = f.Chmod(mode)
	}
	if err == nil {
		err = f.Sync()
	}
	if err = errors.Join(err, f.Close()); err != nil {
		return err
	}
	return os.Rename(f.Name(), name)
}

// Move gives a file, or a directory with all that is in it, another name. All of
// it is on disk before it has the name, and the name is when Move returns. A file
// takes the place of a file, and a directory that of an empty one.
func Move(from, to string) error {
	return Place(from, to, os.Rename)
}

// Place is Move by another way than renaming, such as an exchange or a link.
func Place(from, to string, place func(from, to string) error) error {
	if err := SyncTree(from); err != nil {
		return err
	}
	if err := place(from, to); err != nil {
		return err
	}
	return Sync(filepath.Dir(to))
}

// SyncTree brings a file to disk, or a directory with all that is in it.
func SyncTree(name string) error {
	var dirs []string
	err := filepath.WalkDir(name, func(path string, d fs.DirEntry, err error) error {
		switch {
		case err != nil:
			return err
		case d.IsDir():
			dirs = append(dirs, path)
		case d.Type().IsRegular():
			return Sync(path)
		}
		return nil // a link, socket or FIFO is in its directory
	})
	for _, dir := range slices.Backward(dirs) {
		if err != nil {
			return err
		}
		err = Sync(dir)
	}
	return err
}

// Sync brings a file to disk, or the names in a directory.
func Sync(name string) error {
	f, err := os.Open(name)
	if err != nil {
		return err
	}
	defer f.Close()
	err = f.Sync()
	// Not every file system can do this to a directory; those order it by
	// themselves.
	if errors.Is(err, syscall.EINVAL) || errors.Is(err, syscall.ENOTSUP) {
		if info, statErr := f.Stat(); statErr == nil && info.IsDir() {
			return nil
		}
	}
	return err
}

// MkdirAll is [os.MkdirAll]; the names of the directories that it makes are on
// disk when it returns.
func MkdirAll(name string, mode fs.FileMode) error {
	if info, err := os.Stat(name); err == nil {
		if !info.IsDir() {
			return fmt.Errorf("%s is not a directory", name)
		}
		return nil
	}
	parent := filepath.Dir(name)
	if parent != name {
		if err := MkdirAll(parent, mode); err != nil {
			return err
		}
	}
	if err := os.Mkdir(name, mode); err != nil {
		if errors.Is(err, fs.ErrExist) {
			return nil // made by another process meanwhile
		}
		return err
	}
	if err := os.Chmod(name, mode); err != nil {
		return err
	}
	return Sync(parent)
}
