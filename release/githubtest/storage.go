package githubtest

import (
	"bytes"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"time"
)

func (s *Server) upload(w http.ResponseWriter, r *http.Request) {
	if !s.authorized(w, r) {
		return
	}
	name := rename(r.URL.Query().Get("name"))
	s.mu.Lock()
	found := s.find(r, func(f *release) bool { return strconv.FormatInt(f.id, 10) == r.PathValue("id") })
	switch {
	case found == nil:
		s.mu.Unlock()
		notFound(w)
		return
	case name == "" || r.ContentLength < 0 || r.Header.Get("Content-Type") == "":
		s.mu.Unlock()
		writeError(w, http.StatusBadRequest, "Bad Request")
		return
	case r.ContentLength >= s.MaxAsset:
		s.mu.Unlock()
		writeError(w, http.StatusUnprocessableEntity, "size must be less than or equal to 2 GB")
		return
	case found.asset(name) != nil:
		s.mu.Unlock()
		validationFailed(w, "ReleaseAsset", "name")
		return
	}
	s.lastID++
	a := &asset{id: s.lastID, name: name}
	found.assets = append(found.assets, a) // a "starter" until all of it is there
	s.mu.Unlock()
	data, err := io.ReadAll(r.Body)
	if err != nil {
		cut()
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	a.data, a.uploaded = data, true
	writeJSON(w, http.StatusCreated, s.assetJSON(found, a))
}

// rename does to names what GitHub does.
func rename(name string) string {
	return strings.Trim(strings.Map(func(c rune) rune {
		if c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z' || c >= '0' && c <= '9' || strings.ContainsRune("._-+@", c) {
			return c
		}
		return '.'
	}, name), ".")
}

// latestPage leads to the latest release's page, or to that of all releases.
func (s *Server) latestPage(w http.ResponseWriter, r *http.Request) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.Private {
		http.NotFound(w, r)
		return
	}
	to := fmt.Sprintf("%s/%s/%s/releases", s.URL, r.PathValue("owner"), r.PathValue("repo"))
	if found := s.find(r, func(f *release) bool { return !f.draft }); found != nil {
		to += "/tag/" + url.PathEscape(found.tag)
	}
	http.Redirect(w, r, to, http.StatusFound)
}

func (s *Server) downloadPage(w http.ResponseWriter, r *http.Request) {
	s.mu.Lock()
	defer s.mu.Unlock()
	tag := r.PathValue("tag")
	found := s.find(r, func(f *release) bool { return !f.draft && (tag == "" || f.tag == tag) })
	if found == nil || s.Private {
		http.NotFound(w, r)
		return
	}
	a := found.asset(r.PathValue("name"))
	if a == nil {
		http.NotFound(w, r)
		return
	}
	s.redirect(w, r, found, a)
}

// redirect sends to the storage, with an address that stands for itself.
func (s *Server) redirect(w http.ResponseWriter, r *http.Request, found *release, a *asset) {
	u := fmt.Sprintf("%s/%s/%s/%d/%s?sig=%d", s.storage.URL, found.owner, found.repo, a.id, url.PathEscape(a.name), a.id*7919)
	http.Redirect(w, r, u, http.StatusFound)
}

func (s *Server) serveStorage(w http.ResponseWriter, r *http.Request) {
	f := s.note(r, true)
	if f.fails(w, r) {
		return
	}
	// Real storage refuses a request with two kinds of authorization.
	if r.Header.Get("Authorization") != "" {
		http.Error(w, "only one auth mechanism allowed", http.StatusBadRequest)
		return
	}
	parts := strings.Split(strings.TrimPrefix(r.URL.Path, "/"), "/")
	var data []byte
	s.mu.Lock()
	for _, release := range s.releases {
		for _, a := range release.assets {
			if len(parts) == 4 && strconv.FormatInt(a.id, 10) == parts[2] && r.URL.Query().Get("sig") == strconv.FormatInt(a.id*7919, 10) {
				data = bytes.Clone(a.data)
			}
		}
	}
	s.mu.Unlock()
	if data == nil {
		http.NotFound(w, r)
		return
	}
	if f.Change != nil {
		data = f.Change(data)
	}
	if f.NoRange {
		r.Header.Del("Range")
	}
	var out http.ResponseWriter = w
	if f.CutAfter > 0 {
		out = &cutWriter{ResponseWriter: w, left: f.CutAfter}
	}
	w.Header().Set("Content-Type", "application/octet-stream")
	http.ServeContent(out, r, "", time.Time{}, bytes.NewReader(data))
}

// cutWriter ends the connection after some bytes, which do arrive.
type cutWriter struct {
	http.ResponseWriter
	left int64
}

func (c *cutWriter) Write(p []byte) (int, error) {
	if int64(len(p)) < c.left {
		c.left -= int64(len(p))
		return c.ResponseWriter.Write(p)
	}
	_, _ = c.ResponseWriter.Write(p[:c.left])
	_ = http.NewResponseController(c.ResponseWriter).Flush()
	cut()
	return 0, nil
}

func (c *cutWriter) Unwrap() http.ResponseWriter { return c.ResponseWriter }
