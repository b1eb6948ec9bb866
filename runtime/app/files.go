package app

import (
	"archive/zip"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"mime"
	"net/http"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strings"
	"unicode"
	"unicode/utf8"

	"github.com/abdul-abdi/lumina/runtime"
	"github.com/abdul-abdi/lumina/runtime/session"
)

// guestPath is the path in the guest that a request is about.
func guestPath(r *http.Request) (string, error) {
	p := r.URL.Query().Get("path")
	if !path.IsAbs(p) || strings.ContainsRune(p, 0) {
		return "", bad{fmt.Errorf("path %q in the guest: want a whole one, which begins with a slash", p)}
	}
	return p, nil
}

// spool makes a directory for a file that is being transferred, below the state
// directory, whose disk has the space.
func (s *server) spool() (dir string, remove func(), err error) {
	parent := filepath.Join(s.Home, "cache", "app")
	if err := os.MkdirAll(parent, 0o700); err != nil {
		return "", nil, err
	}
	if dir, err = os.MkdirTemp(parent, "copy-"); err != nil {
		return "", nil, err
	}
	return dir, func() { os.RemoveAll(dir) }, nil
}

// upload writes the body of a request to a file of a session.
func (s *server) upload(w http.ResponseWriter, r *http.Request) {
	if err := s.copyIn(r); err != nil {
		fail(w, err)
		return
	}
	w.WriteHeader(http.StatusNoContent)
}

func (s *server) copyIn(r *http.Request) error {
	to, err := guestPath(r)
	if err != nil {
		return err
	}
	if strings.HasSuffix(to, "/") {
		return bad{errors.New("want the path of a file, with its name")}
	}
	open, err := session.Open(s.Home, r.PathValue("sid"))
	if err != nil {
		return err
	}
	if err := runtime.CheckSpace(s.Home, max(s.DiskReserve, 0)+max(r.ContentLength, 1)); err != nil {
		return err
	}
	dir, remove, err := s.spool()
	if err != nil {
		return err
	}
	defer remove()
	f, err := os.OpenFile(filepath.Join(dir, "file"), os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o644)
	if err != nil {
		return err
	}
	n, err := io.Copy(f, r.Body)
	if err == nil && r.ContentLength >= 0 && n != r.ContentLength {
		err = io.ErrUnexpectedEOF
	}
	if err = errors.Join(err, f.Close()); err != nil {
		return fmt.Errorf("receiving %q: %w", path.Base(to), err)
	}
	_, err = open.CopyIn(r.Context(), f.Name(), to, runtime.CopyOptions{})
	return err
}

// download sends a file of a session, or a directory as a zip archive.
func (s *server) download(w http.ResponseWriter, r *http.Request) {
	if err := s.copyOut(w, r); err != nil {
		fail(w, err)
	}
}

func (s *server) copyOut(w http.ResponseWriter, r *http.Request) error {
	from, err := guestPath(r)
	if err != nil {
		return err
	}
	open, err := session.Open(s.Home, r.PathValue("sid"))
	if err != nil {
		return err
	}
	dir, remove, err := s.spool()
	if err != nil {
		return err
	}
	defer remove()
	local := filepath.Join(dir, "copy")
	if _, err := open.CopyOut(r.Context(), from, local, runtime.CopyOptions{}); err != nil {
		return err
	}
	// A link of the guest's leads nowhere on this host.
	info, err := os.Lstat(local)
	if err != nil {
		return err
	}
	base := path.Base(from)
	if base == "/" {
		base = "root"
	}
	head := w.Header()
	head.Set("Content-Type", "application/octet-stream")
	switch {
	case info.Mode().IsRegular():
		f, err := os.Open(local)
		if err != nil {
			return err
		}
		defer f.Close()
		head.Set("Content-Disposition", mime.FormatMediaType("attachment", map[string]string{"filename": portable(base)}))
		http.ServeContent(w, r, "", info.ModTime(), f)
		return nil
	case info.IsDir():
		names, err := packable(r.Context(), local, maxPacked)
		if err != nil {
			return fmt.Errorf("%q: %w", from, err)
		}
		head.Set("Content-Disposition", mime.FormatMediaType("attachment", map[string]string{"filename": portable(base) + ".zip"}))
		_ = pack(r.Context(), w, local, names) // it has begun: a browser notices that it breaks off
		return nil
	}
	return bad{fmt.Errorf("%q is neither a file nor a directory", from)}
}

// portable is a guest's path without what another system takes for more than names: the
// separators and drives of Windows, its devices, dots and blanks at an end, which it
// leaves out, control characters, and what is no text.
func portable(name string) string {
	parts := strings.Split(name, "/")
	for i, part := range parts {
		part = strings.Map(func(r rune) rune {
			if strings.ContainsRune(`\\:*?"<>|`, r) || r == utf8.RuneError || !unicode.IsGraphic(r) {
				return '_'
			}
			return r
		}, part)
		if kept := strings.TrimRight(part, ". "); kept != part {
			part = kept + strings.Repeat("_", len(part)-len(kept))
		}
		if stem, _, _ := strings.Cut(part, "."); isDevice(strings.TrimRight(stem, " ")) {
			part = "_" + part
		}
		parts[i] = part
	}
	return strings.Join(parts, "/")
}

// isDevice says whether Windows has a device of a name, which it then has in each
// directory and with each extension.
func isDevice(stem string) bool {
	stem = strings.ToUpper(stem)
	if slices.Contains([]string{"CON", "PRN", "AUX", "NUL", "CONIN$", "CONOUT$"}, stem) {
		return true
	}
	port, number := strings.CutPrefix(stem, "COM")
	if !number {
		port, number = strings.CutPrefix(stem, "LPT")
	}
	return number && strings.Contains("0123456789¹²³", port) && utf8.RuneCountInString(port) == 1
}

// maxPacked is how many files a zip archive may have: what it says of them at its end is
// kept in memory until then.
const maxPacked = 1 << 18

// maxPackedNames is how long their names may be together, in bytes: they are kept three
// times.
const maxPackedNames = 32 << 20

// packable are the files below a directory, as their names there. Links and devices are
// left out.
func packable(ctx context.Context, dir string, most int) ([]string, error) {
	var names []string
	size := 0
	err := filepath.WalkDir(dir, func(name string, d fs.DirEntry, err error) error {
		if err != nil || ctx.Err() != nil {
			return errors.Join(err, ctx.Err())
		}
		if !d.Type().IsRegular() {
			return nil
		}
		if len(names) == most {
			return bad{fmt.Errorf("it has more than %d files: copy it with lumina cp", most)}
		}
		rel, err := filepath.Rel(dir, name)
		if err == nil && len(portable(filepath.ToSlash(rel))) > maxPackedName {
			err = bad{fmt.Errorf("a name in it is longer than %d bytes: copy it with lumina cp", maxPackedName)}
		}
		if size += len(rel); err == nil && size > maxPackedNames {
			err = bad{fmt.Errorf("the names in it are longer than %d MB together: copy it with lumina cp", maxPackedNames>>20)}
		}
		names = append(names, rel)
		return err
	})
	return names, err
}

// maxPackedName is how long a name in a zip archive may be, in bytes; one that a number is
// added to has room for that.
const maxPackedName = 60_000

// pack writes files below a directory as a zip archive, each under a name of its own.
func pack(ctx context.Context, w io.Writer, dir string, names []string) error {
	z := zip.NewWriter(w)
	entries := entryNames{map[string]bool{}, map[string]int{}}
	for _, name := range names {
		if err := ctx.Err(); err != nil {
			return err
		}
		entry := entries.of(name)
		if err := packFile(z, entry, filepath.Join(dir, name)); err != nil {
			return err
		}
	}
	return z.Close()
}

// entryNames gives each file a name of its own in an archive, also for systems to which
// capital letters make no difference.
type entryNames struct {
	used map[string]bool
	last map[string]int // the number that a name was given last: a guest can make all alike
}

func (e *entryNames) of(name string) string {
	plain := portable(filepath.ToSlash(name))
	entry, folded := plain, strings.ToLower(plain)
	for n := max(e.last[folded]+1, 2); e.used[strings.ToLower(entry)]; n++ {
		entry = fmt.Sprintf("%s_%d", plain, n)
		e.last[folded] = n
	}
	e.used[strings.ToLower(entry)] = true
	return entry
}

func packFile(z *zip.Writer, entry, name string) error {
	to, err := z.Create(entry)
	if err != nil {
		return err
	}
	f, err := os.Open(name)
	if err != nil {
		return err
	}
	defer f.Close()
	_, err = io.Copy(to, f)
	return err
}
