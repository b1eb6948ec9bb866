package dockerfile

import (
	"archive/tar"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"io"
	"path"
	"strings"

	"github.com/abdul-abdi/lumina/builder/dockerfile/files"
	"github.com/abdul-abdi/lumina/builder/uncompress"
)

// xattrRecord is how a tar archive names an extended attribute.
const xattrRecord = "SCHILY.xattr."

// writeLayer writes entries as a layer's tar archive.
func writeLayer(ctx context.Context, entries []*entry, own *owner, mode chmod, w io.Writer) error {
	t := tar.NewWriter(w)
	for _, e := range entries {
		if err := context.Cause(ctx); err != nil {
			return err
		}
		var err error
		if e.archive != nil {
			err = unpackInto(ctx, t, e, own, mode)
		} else {
			err = writeEntry(ctx, t, e)
		}
		if err != nil {
			return err
		}
	}
	return t.Close()
}

func writeEntry(ctx context.Context, t *tar.Writer, e *entry) error {
	h := &tar.Header{
		Name: e.name, Mode: int64(e.info.Mode & 0o7777), Uid: e.info.UID, Gid: e.info.GID,
		ModTime: e.info.ModTime, Format: tar.FormatPAX,
	}
	for k, v := range e.info.Xattrs {
		if h.PAXRecords == nil {
			h.PAXRecords = map[string]string{}
		}
		h.PAXRecords[xattrRecord+k] = v
	}
	switch e.info.Type() {
	case files.TypeDir:
		h.Typeflag, h.Name = tar.TypeDir, e.name+"/"
	case files.TypeSymlink:
		h.Typeflag, h.Linkname, h.Mode = tar.TypeSymlink, e.info.Target, 0o777
	case files.TypeFIFO:
		h.Typeflag = tar.TypeFifo
	case files.TypeChar:
		h.Typeflag, h.Devmajor, h.Devminor = tar.TypeChar, e.info.Major, e.info.Minor
	case files.TypeBlock:
		h.Typeflag, h.Devmajor, h.Devminor = tar.TypeBlock, e.info.Major, e.info.Minor
	default:
		if e.link != "" {
			h.Typeflag, h.Linkname, h.PAXRecords = tar.TypeLink, e.link, nil
			return t.WriteHeader(h)
		}
		h.Typeflag, h.Size = tar.TypeReg, e.info.Size
		if err := t.WriteHeader(h); err != nil {
			return fmt.Errorf("%s: %w", e.name, err)
		}
		sum := sha256.New()
		if err := readFile(ctx, e.from, io.MultiWriter(t, sum)); err != nil {
			return err
		}
		if hex.EncodeToString(sum.Sum(nil)) != e.from.sum {
			return fmt.Errorf("reading %s: %w", e.from.source, errChanged)
		}
		return nil
	}
	if err := t.WriteHeader(h); err != nil {
		return fmt.Errorf("%s: %w", e.name, err)
	}
	return nil
}

// isArchive says whether a file is a tar archive, compressed or not, as ADD has
// it: its name does not matter, its content does.
func isArchive(t files.Tree, name string) (bool, error) {
	f, err := t.Open(name)
	if err != nil {
		return false, err
	}
	defer f.Close()
	r, err := uncompress.Reader(f)
	if err != nil {
		return false, nil // it only began like one
	}
	defer r.Close()
	h, err := tar.NewReader(r).Next()
	return err == nil && h != nil, nil
}

// unpackInto writes an archive's entries below the entry's name.
func unpackInto(ctx context.Context, t *tar.Writer, e *entry, own *owner, mode chmod) error {
	f, err := e.archive.tree.Open(e.archive.source)
	if err != nil {
		return err
	}
	defer f.Close()
	defer context.AfterFunc(ctx, func() { f.Close() })()
	sum := sha256.New()
	stored := io.TeeReader(f, sum)
	r, err := uncompress.Reader(stored)
	if err != nil {
		return fmt.Errorf("unpacking %s: %w", e.archive.source, err)
	}
	defer r.Close()
	for archive := tar.NewReader(r); ; {
		h, err := archive.Next()
		if err == io.EOF {
			break
		}
		if err == nil {
			err = copyEntry(t, h, archive, e.name, own, mode)
		}
		if cause := context.Cause(ctx); cause != nil {
			return cause
		}
		if err != nil {
			return fmt.Errorf("unpacking %s: %w", e.archive.source, err)
		}
	}
	if _, err := io.Copy(io.Discard, stored); err != nil {
		return err
	}
	if hex.EncodeToString(sum.Sum(nil)) != e.archive.sum {
		return fmt.Errorf("unpacking %s: %w", e.archive.source, errChanged)
	}
	return nil
}

// copyEntry writes an entry of an archive below dir.
func copyEntry(t *tar.Writer, h *tar.Header, r io.Reader, dir string, own *owner, mode chmod) error {
	if h.Typeflag == tar.TypeXGlobalHeader {
		return nil
	}
	name, err := below(dir, h.Name)
	if err != nil {
		return err
	}
	if name == dir && h.Typeflag == tar.TypeDir {
		return nil // the destination stays as it is
	}
	n := *h
	n.Name, n.Format, n.Uname, n.Gname = name, tar.FormatPAX, "", ""
	n.PAXRecords = nil
	for k, v := range h.PAXRecords {
		if strings.HasPrefix(k, xattrRecord) {
			if n.PAXRecords == nil {
				n.PAXRecords = map[string]string{}
			}
			n.PAXRecords[k] = v
		}
	}
	switch h.Typeflag {
	case tar.TypeDir:
		n.Name += "/"
	case tar.TypeLink:
		if n.Linkname, err = below(dir, h.Linkname); err != nil {
			return err
		}
	case tar.TypeReg, '\x00', tar.TypeGNUSparse:
		n.Typeflag = tar.TypeReg
	}
	if own != nil {
		n.Uid, n.Gid = own.uid, own.gid
	}
	if h.Typeflag != tar.TypeSymlink && h.Typeflag != tar.TypeLink {
		n.Mode = int64(mode(uint32(h.Mode)&0o7777) & 0o7777)
	}
	if err := t.WriteHeader(&n); err != nil {
		return err
	}
	if n.Typeflag == tar.TypeReg {
		_, err = io.Copy(t, r)
	}
	return err
}

func below(dir, name string) (string, error) {
	for part := range strings.SplitSeq(name, "/") {
		if part == ".." {
			return "", fmt.Errorf("entry %.128q leads out of the destination", name)
		}
	}
	return path.Join(dir, name), nil
}
