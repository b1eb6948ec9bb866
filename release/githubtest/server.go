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
	"slices"
	"strconv"
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
