package builder

import (
	"archive/tar"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"time"

	goerofs "github.com/erofs/go-erofs"

	"github.com/abdul-abdi/lumina/builder/erofs"
	"github.com/abdul-abdi/lumina/builder/flatten"
)

// writeRootTar writes a root file system as a layer's tar archive.
func writeRootTar(ctx context.Context, root io.ReaderAt, w io.Writer) error {
	fsys, err := goerofs.Open(root)
	if err != nil {
		return fmt.Errorf("reading the root file system: %w", err)
	}
	t := tar.NewWriter(w)
	links, places := map[int64]string{}, erofs.Places{}
	err = fs.WalkDir(fsys, ".", func(name string, d fs.DirEntry, err error) error {
		if err == nil {
			err = context.Cause(ctx)
		}
		if err != nil {
			return err
		}
		return addToTar(t, fsys, name, d, links, places)
	})
	if err != nil {
		return fmt.Errorf("reading the root file system: %w", err)
	}
	return t.Close()
}

func addToTar(t *tar.Writer, fsys fs.FS, name string, d fs.DirEntry, links map[int64]string, places erofs.Places) error {
	info, err := d.Info()
	if err != nil {
		return err
	}
	st, ok := info.Sys().(*goerofs.Stat)
	if !ok {
		return errors.New("its attributes are not known")
	}
	if d.IsDir() {
		if err := places.Check(name, info); err != nil {
			return err
		}
	}
	link := ""
	if info.Mode()&fs.ModeSymlink != 0 {
		if link, err = fs.ReadLink(fsys, name); err != nil {
			return err
		}
	}
	h, err := tar.FileInfoHeader(fileInfo{info, st.Mode}, link)
	if err != nil {
		return err
	}
	h.Name, h.Uid, h.Gid, h.Uname, h.Gname, h.Format = name, int(st.UID), int(st.GID), "", "", tar.FormatPAX
	h.ModTime, h.AccessTime, h.ChangeTime = time.Unix(int64(st.Mtime), int64(st.MtimeNs)), time.Time{}, time.Time{}
	if h.Typeflag == tar.TypeDir {
		h.Name += "/"
	}
	if h.Typeflag == tar.TypeChar || h.Typeflag == tar.TypeBlock {
		// The encoding of the kernel's new_encode_dev.
		h.Devmajor, h.Devminor = int64(st.Rdev>>8&0xfff), int64(st.Rdev&0xff|st.Rdev>>12&0xfff00)
	}
	setXattrs(h, st.Xattrs)
	if st.Nlink > 1 && h.Typeflag == tar.TypeReg {
		if first, ok := links[st.Ino]; ok {
			h.Typeflag, h.Linkname, h.Size = tar.TypeLink, first, 0
			return t.WriteHeader(h)
		}
		links[st.Ino] = name
	}
	if err := t.WriteHeader(h); err != nil || h.Typeflag != tar.TypeReg {
		return err
	}
	f, err := fsys.Open(name)
	if err != nil {
		return err
	}
	defer f.Close()
	_, err = io.Copy(t, f)
	return err
}

// fileInfo has the mode of the attributes: go-erofs v0.3.1 gives that of its own
// as the file system has it, in which [fs.FileMode] sees no setuid, setgid and
// sticky bits.
type fileInfo struct {
	fs.FileInfo
	mode fs.FileMode
}

func (i fileInfo) Mode() fs.FileMode { return i.mode }

// setXattrs gives a header an inode's extended attributes.
func setXattrs(h *tar.Header, xattrs map[string]string) {
	for name, value := range flatten.Xattrs(xattrs) {
		if h.PAXRecords == nil {
			h.PAXRecords = map[string]string{}
		}
		h.PAXRecords["SCHILY.xattr."+name] = value
	}
}
