// Package githubtest is a server that has the shape of GitHub's releases, over
// real HTTP: the REST API as a GitHub Enterprise server has it (/api/v3,
// /api/uploads), the pages' download addresses, and a storage server of its own
// that they redirect to. It follows GitHub's published description of the API
// (rest/releases, rest/using-the-rest-api/rate-limits); tests make it fail with
// faults.
package githubtest

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"
)

// Token is the one that the server takes.
const Token = "githubtest-token"

// Fault is what goes wrong with a request in place of an answer. The zero value
// lets it be.
type Fault struct {
	Status int         // answer with it
	Header http.Header // of that answer, and of others
	Body   string
	// CutAfter ends the connection after this many bytes of the answer's body,
	// or, in an upload, of the request's; when not 0.
	CutAfter int64
	// Lost does what was asked and ends the connection in place of the answer.
	Lost bool
	// Change changes the bytes that are downloaded.
	Change func(b []byte) []byte
	// NoRange ignores the request's range.
	NoRange bool
	// Hang sends nothing until the client goes away.
	Hang bool
}

// Request is a request that the server has had.
type Request struct {
	Method, Path, Range string
	Storage, Authorized bool
}

// Server is a GitHub of any owner and repository.
type Server struct {
	// URL is the server's address, as LUMINA_GITHUB_URL takes it.
	URL string
	// MaxAsset is the size from which on assets are refused; 2 GiB at first.
	MaxAsset int64
	// NoDigest hides assets' digests, as older servers do.
	NoDigest bool
	// PageSize bounds pages of lists; 100 at first.
	PageSize int
	// Private shows releases to who has the token only.
	Private bool

	faultMu sync.Mutex
	fault   func(r Request) Fault

	mu       sync.Mutex
	requests []Request
	releases []*release
	lastID   int64
	storage  *httptest.Server
}

type release struct {
	id          int64
	owner, repo string
	tag, name   string
	body        string
	draft       bool
	assets      []*asset
}

type asset struct {
	id       int64
	name     string
	uploaded bool
	data     []byte
}

// New starts a server, which ends with the test.
func New(t testing.TB) *Server {
	s := &Server{MaxAsset: 2 << 30, PageSize: 100}
	s.storage = httptest.NewServer(http.HandlerFunc(s.serveStorage))
	t.Cleanup(s.storage.Close)
	api := httptest.NewUnstartedServer(s.handler())
	s.URL = "http://" + api.Listener.Addr().String() // before the first request
	api.Start()
	t.Cleanup(api.Close)
	return s
}

// SetFault sets what is asked for each request's fault; nil for none. It is
// called by one request at a time.
func (s *Server) SetFault(f func(r Request) Fault) {
	s.faultMu.Lock()
	defer s.faultMu.Unlock()
	s.fault = f
}

// Requests returns the requests since the last call.
func (s *Server) Requests() []Request {
	s.mu.Lock()
	defer s.mu.Unlock()
	r := s.requests
	s.requests = nil
	return r
}

// Asset returns the bytes of an asset of a published release, or of a draft.
func (s *Server) Asset(tag, name string) []byte {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, r := range s.releases {
		if r.tag == tag {
			if a := r.asset(name); a != nil {
				return bytes.Clone(a.data)
			}
		}
	}
	return nil
}

// Assets lists the assets of a release.
func (s *Server) Assets(tag string) []string {
	s.mu.Lock()
	defer s.mu.Unlock()
	var names []string
	for _, r := range s.releases {
		if r.tag == tag {
			for _, a := range r.assets {
				names = append(names, a.name)
			}
		}
	}
	slices.Sort(names)
	return names
}

// IsDraft says whether there is a draft of a tag.
func (s *Server) IsDraft(tag string) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return slices.ContainsFunc(s.releases, func(r *release) bool { return r.tag == tag && r.draft })
}

// SetAsset changes the bytes of an asset, as somebody would who can write to
// the release.
func (s *Server) SetAsset(tag, name string, data []byte) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, r := range s.releases {
		if a := r.asset(name); r.tag == tag && a != nil {
			a.data = data
		}
	}
}

func (r *release) asset(name string) *asset {
	for _, a := range r.assets {
		if a.name == name {
			return a
		}
	}
	return nil
}

func (s *Server) handler() http.Handler {
	mux := http.NewServeMux()
	api := "/api/v3/repos/{owner}/{repo}/releases"
	mux.HandleFunc("GET "+api, s.listReleases)
	mux.HandleFunc("POST "+api, s.createRelease)
	mux.HandleFunc("GET "+api+"/latest", s.latestRelease)
	mux.HandleFunc("GET "+api+"/{id}", s.releaseByID)
	mux.HandleFunc("PATCH "+api+"/{id}", s.editRelease)
	// tags/TAG, assets/ID and ID/assets: net/http finds them ambiguous.
	mux.HandleFunc("GET "+api+"/{first}/{second}", func(w http.ResponseWriter, r *http.Request) {
		first, second := r.PathValue("first"), r.PathValue("second")
		switch {
		case first == "tags":
			r.SetPathValue("tag", second)
			s.releaseByTag(w, r)
		case first == "assets":
			r.SetPathValue("asset", second)
			s.getAsset(w, r)
		case second == "assets":
			r.SetPathValue("id", first)
			s.listAssets(w, r)
		default:
			notFound(w)
		}
	})
	mux.HandleFunc("DELETE "+api+"/assets/{asset}", s.deleteAsset)
	mux.HandleFunc("POST /api/uploads/repos/{owner}/{repo}/releases/{id}/assets", s.upload)
	mux.HandleFunc("GET /{owner}/{repo}/releases/download/{tag}/{name}", s.downloadPage)
	mux.HandleFunc("GET /{owner}/{repo}/releases/latest/download/{name}", s.downloadPage)
	mux.HandleFunc("GET /{owner}/{repo}/releases/latest", s.latestPage)
	mux.HandleFunc("/", func(w http.ResponseWriter, _ *http.Request) { notFound(w) })
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		f := s.note(r, false)
		if f.fails(w, r) {
			return
		}
		if f.CutAfter > 0 && r.Method == http.MethodPost {
			r.Body = &cutReader{ReadCloser: r.Body, left: f.CutAfter}
		}
		if f.Lost {
			mux.ServeHTTP(httptest.NewRecorder(), r)
			cut()
		}
		mux.ServeHTTP(w, r)
	})
}

// note notes a request and returns its fault.
func (s *Server) note(r *http.Request, storage bool) Fault {
	request := Request{Method: r.Method, Path: r.URL.Path, Range: r.Header.Get("Range"), Storage: storage, Authorized: r.Header.Get("Authorization") != ""}
	s.mu.Lock()
	s.requests = append(s.requests, request)
	s.mu.Unlock()
	s.faultMu.Lock()
	defer s.faultMu.Unlock()
	if s.fault == nil {
		return Fault{}
	}
	return s.fault(request)
}

// fails answers a request that fails at once.
func (f Fault) fails(w http.ResponseWriter, r *http.Request) bool {
	if f.Hang {
		<-r.Context().Done()
		cut()
	}
	for name, values := range f.Header {
		w.Header()[name] = values
	}
	if f.Status == 0 {
		return false
	}
	w.WriteHeader(f.Status)
	fmt.Fprint(w, f.Body)
	return true
}

// cut ends a connection without another byte.
func cut() { panic(http.ErrAbortHandler) }

type cutReader struct {
	io.ReadCloser
	left int64
}

func (c *cutReader) Read(p []byte) (int, error) {
	if c.left <= 0 {
		return 0, io.ErrUnexpectedEOF
	}
	n, err := c.ReadCloser.Read(p[:min(int64(len(p)), c.left)])
	c.left -= int64(n)
	return n, err
}

func (s *Server) authorized(w http.ResponseWriter, r *http.Request) bool {
	if r.Header.Get("Authorization") == "Bearer "+Token {
		return true
	}
	if r.Header.Get("Authorization") != "" {
		writeError(w, http.StatusUnauthorized, "Bad credentials")
		return false
	}
	notFound(w) // GitHub does not tell what it hides
	return false
}

// readable says whether the request may see what is public.
func (s *Server) readable(w http.ResponseWriter, r *http.Request) bool {
	if s.Private || r.Header.Get("Authorization") != "" {
		return s.authorized(w, r)
	}
	return true
}

func writeError(w http.ResponseWriter, status int, message string) {
	writeJSON(w, status, map[string]string{"message": message, "documentation_url": "https://docs.github.com/rest"})
}

func notFound(w http.ResponseWriter) { writeError(w, http.StatusNotFound, "Not Found") }

func writeJSON(w http.ResponseWriter, status int, v any) {
	w.Header().Set("Content-Type", "application/json; charset=utf-8")
	w.Header().Set("X-RateLimit-Limit", "5000")
	w.Header().Set("X-RateLimit-Remaining", "4999")
	w.Header().Set("X-RateLimit-Reset", strconv.FormatInt(time.Now().Add(time.Hour).Unix(), 10))
	w.WriteHeader(status)
	_ = json.NewEncoder(w).Encode(v)
}

// releaseJSON is a release as the API shows it; s.mu is held.
func (s *Server) releaseJSON(r *release) map[string]any {
	base := fmt.Sprintf("%s/api/v3/repos/%s/%s/releases/%d", s.URL, r.owner, r.repo, r.id)
	assets := []any{}
	for _, a := range r.assets {
		assets = append(assets, s.assetJSON(r, a))
	}
	return map[string]any{
		"id": r.id, "url": base, "assets_url": base + "/assets",
		"upload_url": fmt.Sprintf("%s/api/uploads/repos/%s/%s/releases/%d/assets{?name,label}", s.URL, r.owner, r.repo, r.id),
		"html_url":   fmt.Sprintf("%s/%s/%s/releases/tag/%s", s.URL, r.owner, r.repo, r.tag),
		"tag_name":   r.tag, "target_commitish": "main", "name": r.name, "body": r.body, "draft": r.draft, "prerelease": false,
		"created_at": "2026-01-02T03:04:05Z", "assets": assets,
	}
}

func (s *Server) assetJSON(r *release, a *asset) map[string]any {
	state := "starter"
	if a.uploaded {
		state = "uploaded"
	}
	v := map[string]any{
		"id": a.id, "name": a.name, "state": state, "size": len(a.data), "content_type": "application/octet-stream",
		"url":                  fmt.Sprintf("%s/api/v3/repos/%s/%s/releases/assets/%d", s.URL, r.owner, r.repo, a.id),
		"browser_download_url": fmt.Sprintf("%s/%s/%s/releases/download/%s/%s", s.URL, r.owner, r.repo, r.tag, a.name),
		"created_at":           "2026-01-02T03:04:05Z", "updated_at": "2026-01-02T03:04:05Z", "digest": nil,
	}
	if a.uploaded && !s.NoDigest {
		sum := sha256.Sum256(a.data)
		v["digest"] = "sha256:" + hex.EncodeToString(sum[:])
	}
	return v
}

// page cuts a list as the request asks and links to the next page.
func page[T any](s *Server, w http.ResponseWriter, r *http.Request, all []T) []T {
	size, err := strconv.Atoi(r.URL.Query().Get("per_page"))
	if err != nil || size < 1 {
		size = 30
	}
	size = min(size, s.PageSize)
	number, err := strconv.Atoi(r.URL.Query().Get("page"))
	if err != nil || number < 1 {
		number = 1
	}
	from, to := min((number-1)*size, len(all)), min(number*size, len(all))
	if to < len(all) {
		next := *r.URL
		q := next.Query()
		q.Set("page", strconv.Itoa(number+1))
		next.RawQuery = q.Encode()
		w.Header().Set("Link", fmt.Sprintf("<%s%s>; rel=\"next\"", s.URL, next.String()))
	}
	return all[from:to]
}

// find finds a release of the request's repository; s.mu is held.
func (s *Server) find(r *http.Request, want func(*release) bool) *release {
	for _, found := range slices.Backward(s.releases) { // the latest first
		if found.owner == r.PathValue("owner") && found.repo == r.PathValue("repo") && want(found) {
			return found
		}
	}
	return nil
}

func (s *Server) listReleases(w http.ResponseWriter, r *http.Request) {
	if !s.readable(w, r) {
		return
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	list := []any{}
	for _, found := range slices.Backward(s.releases) {
		if found.owner == r.PathValue("owner") && found.repo == r.PathValue("repo") && (!found.draft || r.Header.Get("Authorization") != "") {
			list = append(list, s.releaseJSON(found))
		}
	}
	writeJSON(w, http.StatusOK, page(s, w, r, list))
}

func (s *Server) showRelease(w http.ResponseWriter, r *http.Request, want func(*release) bool) {
	if !s.readable(w, r) {
		return
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if found := s.find(r, want); found != nil {
		writeJSON(w, http.StatusOK, s.releaseJSON(found))
		return
	}
	notFound(w)
}

func (s *Server) latestRelease(w http.ResponseWriter, r *http.Request) {
	s.showRelease(w, r, func(f *release) bool { return !f.draft })
}

func (s *Server) releaseByTag(w http.ResponseWriter, r *http.Request) {
	s.showRelease(w, r, func(f *release) bool { return !f.draft && f.tag == r.PathValue("tag") })
}

func (s *Server) releaseByID(w http.ResponseWriter, r *http.Request) {
	s.showRelease(w, r, func(f *release) bool { return strconv.FormatInt(f.id, 10) == r.PathValue("id") })
}

type releaseBody struct {
	Tag   string `json:"tag_name"`
	Name  string `json:"name"`
	Body  string `json:"body"`
	Draft *bool  `json:"draft"`
}

func (s *Server) createRelease(w http.ResponseWriter, r *http.Request) {
	if !s.authorized(w, r) {
		return
	}
	var in releaseBody
	if err := json.NewDecoder(r.Body).Decode(&in); err != nil || in.Tag == "" {
		writeError(w, http.StatusUnprocessableEntity, "Validation Failed")
		return
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	draft := in.Draft != nil && *in.Draft
	if !draft && s.find(r, func(f *release) bool { return !f.draft && f.tag == in.Tag }) != nil {
		validationFailed(w, "Release", "tag_name")
		return
	}
	s.lastID++
	made := &release{id: s.lastID, owner: r.PathValue("owner"), repo: r.PathValue("repo"), tag: in.Tag, name: in.Name, body: in.Body, draft: draft}
	s.releases = append(s.releases, made)
	writeJSON(w, http.StatusCreated, s.releaseJSON(made))
}

func validationFailed(w http.ResponseWriter, resource, field string) {
	writeJSON(w, http.StatusUnprocessableEntity, map[string]any{"message": "Validation Failed",
		"errors": []any{map[string]string{"resource": resource, "code": "already_exists", "field": field}}})
}

func (s *Server) editRelease(w http.ResponseWriter, r *http.Request) {
	if !s.authorized(w, r) {
		return
	}
	var in releaseBody
	if err := json.NewDecoder(r.Body).Decode(&in); err != nil {
		writeError(w, http.StatusBadRequest, "Problems parsing JSON")
		return
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	found := s.find(r, func(f *release) bool { return strconv.FormatInt(f.id, 10) == r.PathValue("id") })
	if found == nil {
		notFound(w)
		return
	}
	if in.Draft != nil {
		found.draft = *in.Draft
	}
	writeJSON(w, http.StatusOK, s.releaseJSON(found))
}

func (s *Server) listAssets(w http.ResponseWriter, r *http.Request) {
	if !s.readable(w, r) {
		return
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	found := s.find(r, func(f *release) bool { return strconv.FormatInt(f.id, 10) == r.PathValue("id") })
	if found == nil || found.draft && r.Header.Get("Authorization") == "" {
		notFound(w)
		return
	}
	list := []any{}
	for _, a := range found.assets {
		list = append(list, s.assetJSON(found, a))
	}
	writeJSON(w, http.StatusOK, page(s, w, r, list))
}

// findAsset finds an asset of the request's repository; s.mu is held.
func (s *Server) findAsset(r *http.Request, id string) (found *release, a *asset) {
	found = s.find(r, func(f *release) bool {
		for _, x := range f.assets {
			if strconv.FormatInt(x.id, 10) == id {
				a = x
				return true
			}
		}
		return false
	})
	return found, a
}

func (s *Server) getAsset(w http.ResponseWriter, r *http.Request) {
	if !s.readable(w, r) {
		return
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	found, a := s.findAsset(r, r.PathValue("asset"))
	switch {
	case a == nil || found.draft && r.Header.Get("Authorization") == "":
		notFound(w)
	case r.Header.Get("Accept") == "application/octet-stream":
		s.redirect(w, r, found, a)
	default:
		writeJSON(w, http.StatusOK, s.assetJSON(found, a))
	}
}

func (s *Server) deleteAsset(w http.ResponseWriter, r *http.Request) {
	if !s.authorized(w, r) {
		return
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	found, a := s.findAsset(r, r.PathValue("asset"))
	if a == nil {
		notFound(w)
		return
	}
	found.assets = slices.DeleteFunc(found.assets, func(x *asset) bool { return x == a })
	w.WriteHeader(http.StatusNoContent)
}

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
