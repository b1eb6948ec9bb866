package app

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/abdul-abdi/lumina/runtime"
	"github.com/abdul-abdi/lumina/runtime/desktop"
	"github.com/abdul-abdi/lumina/runtime/name"
	"github.com/abdul-abdi/lumina/runtime/printable"
)

func (s *server) mediaRoutes() {
	s.mux.HandleFunc("GET /api/media", answer(func(r *http.Request, _ none) (any, error) { return s.atHand(r.Context()), nil }))
	s.mux.HandleFunc("GET /api/files", answer(func(r *http.Request, _ none) (any, error) { return listFiles(r.URL.Query().Get("dir")) }))
	s.mux.HandleFunc("POST /api/media/check", answer(func(r *http.Request, in struct {
		File string `json:"file"`
		Arch string `json:"arch"`
	}) (any, error) {
		if in.Arch == "" {
			in.Arch = s.library.host.Arch
		}
		if err := checkArch(in.Arch); err != nil {
			return nil, err
		}
		return checkFile(r.Context(), in.File, in.Arch), nil
	}))
	s.mux.HandleFunc("POST /api/media/find", answer(s.findDropped))
	s.mux.HandleFunc("PUT /api/media/{name}", s.takeDropped)
}

// Kinds of media.
const (
	kindISO  = "iso"
	kindDisk = "disk"
)

// Medium is a file that a desktop can be made of, or why none can.
type Medium struct {
	File    string    `json:"file"`
	Name    string    `json:"name"`
	Kind    string    `json:"kind"` // "iso" or "disk"
	Size    int64     `json:"size_bytes"`
	Changed time.Time `json:"changed"`
	// System is the catalogue's, of a file that is called as one of its ISOs.
	System string `json:"system,omitempty"`
	// Suggested is a name for its desktop.
	Suggested string `json:"suggested"`
	// Arch is for what it boots; "" when it boots nothing.
	Arch string `json:"arch,omitempty"`
	// Reason is why it does not boot on the architecture that was asked about.
	Reason string `json:"reason,omitempty"`
}

// checkFile looks whether a desktop of an architecture can be made of a file. The
// digest is looked at later: it needs all of the file.
func checkFile(ctx context.Context, file, arch string) Medium {
	m := Medium{File: file, Name: filepath.Base(file), Suggested: suggested(file)}
	if !filepath.IsAbs(file) {
		m.Reason = fmt.Sprintf("file %q: want the whole path, which begins with a slash", file)
		return m
	}
	info, err := os.Stat(file)
	if errors.Is(err, fs.ErrNotExist) {
		err = fmt.Errorf("there is no file %q", file)
	}
	if err != nil {
		m.Reason = err.Error()
		return m
	}
	m.Size, m.Changed = info.Size(), info.ModTime()
	look, err := desktop.Look(ctx, file, arch)
	m.Kind, m.System, m.Arch = kindISO, look.OS.ID, look.Architecture
	if look.Disk {
		m.Kind = kindDisk
	}
	if err != nil {
		m.Reason = err.Error()
	}
	return m
}

// suggested makes a name for a desktop of that of a file: debian of
// debian-12.5.0-amd64-netinst.iso.
func suggested(file string) string {
	base := filepath.Base(file)
	base = strings.TrimSuffix(base, filepath.Ext(base))
	words := strings.FieldsFunc(base, func(r rune) bool { return r == '-' || r == '_' || r == ' ' })
	var kept []string
	for _, w := range words {
		if strings.ContainsAny(w, "0123456789") {
			break
		}
		kept = append(kept, w)
	}
	if len(kept) == 0 {
		kept = words
	}
	s := strings.ToLower(strings.Join(kept, "-"))
	if desktop.CheckName(s) != nil {
		return "desktop"
	}
	return s
}

// isMedium says whether a file is called as those are that desktops are made of.
func isMedium(file string) bool {
	return slices.Contains([]string{".iso", ".qcow2", ".raw", ".img"}, strings.ToLower(filepath.Ext(file)))
}

// maxAtHand bounds the files that are offered.
const maxAtHand = 24

// atHand are the files that desktops can be made of where people keep them, the newest
// first. It does not look into directories below.
func (s *server) atHand(ctx context.Context) []Medium {
	all, seen := []Medium{}, map[string]bool{}
	for _, dir := range append(slices.Clone(s.Dirs), desktop.ISOCache(s.Home)) {
		entries, _ := os.ReadDir(dir)
		for _, e := range entries {
			file := filepath.Join(dir, e.Name())
			real, err := filepath.EvalSymlinks(file)
			if err != nil || seen[real] || !isMedium(file) {
				continue
			}
			if info, err := os.Stat(real); err != nil || !info.Mode().IsRegular() {
				continue // a directory of such a name is nothing to boot
			}
			seen[real] = true
			all = append(all, checkFile(ctx, file, s.library.host.Arch))
		}
	}
	slices.SortFunc(all, func(a, b Medium) int { return b.Changed.Compare(a.Changed) })
	// What does not boot here is behind what does.
	slices.SortStableFunc(all, func(a, b Medium) int {
		return len(a.Reason[:min(1, len(a.Reason))]) - len(b.Reason[:min(1, len(b.Reason))])
	})
	return all[:min(len(all), maxAtHand)]
}

// Listing is what is in a directory of this host.
type Listing struct {
	Dir    string  `json:"dir"`
	Parent string  `json:"parent,omitempty"`
	Files  []Entry `json:"files"`
	More   bool    `json:"more,omitempty"` // than are listed
}

// Entry is a directory, or a file that a desktop can be made of.
type Entry struct {
	Name string `json:"name"`
	Dir  bool   `json:"dir,omitempty"`
	Size int64  `json:"size_bytes,omitempty"`
}

// maxListed bounds a listing.
const maxListed = 1000

func listFiles(dir string) (*Listing, error) {
	if dir == "" {
		home, err := os.UserHomeDir()
		if err != nil {
			home = "/"
		}
		dir = home
	}
	dir = filepath.Clean(dir)
	if !filepath.IsAbs(dir) {
		return nil, bad{fmt.Errorf("directory %q: want a whole path", dir)}
	}
	entries, err := os.ReadDir(dir)
	if err != nil {
		return nil, err
	}
	l := &Listing{Dir: dir, Files: []Entry{}}
	if parent := filepath.Dir(dir); parent != dir {
		l.Parent = parent
	}
	for _, e := range entries {
		info, err := os.Stat(filepath.Join(dir, e.Name()))
		if err != nil || strings.HasPrefix(e.Name(), ".") || !info.IsDir() && !(info.Mode().IsRegular() && isMedium(e.Name())) {
			continue
		}
		if len(l.Files) == maxListed {
			l.More = true
			break
		}
		entry := Entry{Name: e.Name(), Dir: info.IsDir()}
		if !entry.Dir {
			entry.Size = info.Size()
		}
		l.Files = append(l.Files, entry)
	}
	slices.SortStableFunc(l.Files, func(a, b Entry) int {
		if a.Dir != b.Dir {
			if a.Dir {
				return -1
			}
			return 1
		}
		return strings.Compare(strings.ToLower(a.Name), strings.ToLower(b.Name))
	})
	return l, nil
}

// headSize is how much of a dropped file its page tells the digest of, in bytes.
const headSize = 1 << 20

// findDropped finds a file that was dropped on the page, of which a browser tells no
// path, among those at hand: it need not be copied then.
func (s *server) findDropped(r *http.Request, in struct {
	Name string `json:"name"`
	Size int64  `json:"size_bytes"`
	Head string `json:"head_sha256"` // of its first MiB
}) (any, error) {
	for _, m := range s.atHand(r.Context()) {
		if m.Name == in.Name && m.Size == in.Size && head(m.File) == in.Head {
			return m, nil
		}
	}
	return Medium{Name: in.Name}, nil
}

func head(file string) string {
	f, err := os.Open(file)
	if err != nil {
		return ""
	}
	defer f.Close()
	h := sha256.New()
	if _, err := io.Copy(h, io.LimitReader(f, headSize)); err != nil {
		return ""
	}
	return hex.EncodeToString(h.Sum(nil))
}

// takeDropped keeps a file that was dropped on the page where fetched ISOs are.
func (s *server) takeDropped(w http.ResponseWriter, r *http.Request) {
	m, err := s.keepDropped(r)
	if err != nil {
		fail(w, err)
		return
	}
	send(w, http.StatusOK, m)
}

func (s *server) keepDropped(r *http.Request) (m Medium, err error) {
	base := r.PathValue("name")
	if !isMedium(base) || base != filepath.Base(base) || strings.HasPrefix(base, ".") || printable.Line(base) != base || len(base) > name.MaxLength {
		return m, bad{fmt.Errorf("file %q: want an .iso, .qcow2, .raw or .img file", printable.Line(base))}
	}
	if r.ContentLength < 0 {
		return m, bad{errors.New("the length of the file is not known")}
	}
	if err := runtime.CheckSpace(s.Home, max(s.DiskReserve, 0)+r.ContentLength); err != nil {
		return m, err
	}
	dir := desktop.ISOCache(s.Home)
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return m, err
	}
	part, err := os.CreateTemp(dir, ".dropped-*")
	if err != nil {
		return m, err
	}
	defer os.Remove(part.Name())
	defer part.Close()
	n, err := io.Copy(part, r.Body)
	if err == nil && n != r.ContentLength {
		err = io.ErrUnexpectedEOF
	}
	if err = errors.Join(err, part.Close()); err != nil {
		return m, fmt.Errorf("receiving %q: %w", base, err)
	}
	to := filepath.Join(dir, base)
	for i := 2; ; i++ {
		// Another file of the name stays.
		err := os.Link(part.Name(), to)
		if err == nil {
			break
		}
		if !errors.Is(err, os.ErrExist) || i > 100 {
			return m, err
		}
		ext := filepath.Ext(base)
		to = filepath.Join(dir, fmt.Sprintf("%s-%d%s", strings.TrimSuffix(base, ext), i, ext))
	}
	m = checkFile(r.Context(), to, s.library.host.Arch)
	if m.Arch == "" {
		// One of drivers need not boot; anything else that boots nothing is of no use.
		if _, err := desktop.ExamineDrivers(to); m.Kind == kindDisk || err != nil {
			return Medium{}, errors.Join(bad{errors.New(m.Reason)}, os.Remove(to))
		}
	}
	return m, nil
}
