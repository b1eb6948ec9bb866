// Package app serves Lumina's app: a page for a browser on this host, and the API
// below it. It keeps nothing of its own: everything is done by the packages that the
// command line uses, in the same state directory, and what it starts goes on when it
// ends. See docs/app.md for the API.
//
// A client of the app controls the user's virtual machines. The app therefore listens on
// 127.0.0.1 only, and answers only requests with its token, a part of every URL; see
// guard.go.
//
// The page is TypeScript in page/src. make build bundles it, with noVNC and xterm.js
// in the versions and with the digests of page/package-lock.json, and it is embedded
// from page/out. A program that was built without it has no page: see [ErrNotBuilt].
package app

import (
	"context"
	"crypto/rand"
	"embed"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"net/http"
	"sync"
	"time"

	"github.com/abdul-abdi/lumina/runtime/desktop"
	"github.com/abdul-abdi/lumina/runtime/image"
	"github.com/abdul-abdi/lumina/runtime/session"
	"github.com/abdul-abdi/lumina/runtime/vm"
)

//go:embed all:page/out
var files embed.FS

// ErrNotBuilt is returned by Serve when this program was built without the page.
var ErrNotBuilt = errors.New("this build of lumina has no app; run make build")

// Options says what the app is of.
type Options struct {
	Home string // the state directory
	// Driver runs desktops; nil on a host that has none, and NoDriver says why.
	Driver   vm.DesktopDriver
	NoDriver error
	// StartDesktop and StartSession start processes that go on without this one.
	StartDesktop func(context.Context, desktop.Options) (*desktop.Client, error)
	StartSession func(context.Context, session.Options) (*session.Session, error)
	// Dirs are searched for ISOs and disks that are at hand.
	Dirs []string
	Port int // 0: one that is free
	// Caller is one more user of this host who may use the app: with sudo, who called it.
	Caller int
	// Linger is how long the app goes on after its last page was closed.
	Linger  time.Duration
	Version string
	// DiskReserve is what of the host's disk is kept free; 0: the default.
	DiskReserve int64
	// Pull makes an image of what a reference names, or with release of that which the
	// latest release has by this ID, and returns its name in the store.
	Pull func(ctx context.Context, ref string, release bool, progress Progress) (string, error)
	// Releases lists the images of the latest release.
	Releases func(ctx context.Context) ([]Release, error)
}

// Release is an image that can be pulled by its ID.
type Release struct {
	ID          string `json:"id"`
	Description string `json:"description"`
	Version     string `json:"version"`
	Size        int64  `json:"size_bytes"`
	Download    int64  `json:"download_bytes"`
}

// Progress is called with the progress of a step of a job; total is 0 if it is unknown.
type Progress func(step string, done, total int64)

// server is the app while it is served.
type server struct {
	Options
	ctx      context.Context
	desktops *desktop.Store
	images   *image.Store
	library  *library
	jobs     *jobs
	shells   *terminals
	guard    *guard
	mux      *router
	page     fs.FS
	began    time.Time
	streams  sync.WaitGroup // connections that were taken over, and jobs
	quit     chan struct{}  // closed when a page asks for the end
	quitOnce sync.Once
}

// Addresses are how to reach the app.
type Addresses struct {
	// Page is the page's, for a person to copy.
	Page string
	// Once leads there, too, for a minute and one time: other users of this host see
	// the arguments of a browser that is started with it.
	Once string
}

// Serve serves the app until ctx ends, a page asks for its end, or no page has been
// open for a while after the first one was.
func Serve(ctx context.Context, o Options, ready func(Addresses) error) error {
	page, err := builtPage()
	if err != nil {
		return err
	}
	return serve(ctx, o, page, ready)
}

func builtPage() (fs.FS, error) {
	page, err := fs.Sub(files, "page/out")
	if err != nil {
		return nil, err
	}
	if _, err := fs.Stat(page, "index.html"); err != nil {
		return nil, ErrNotBuilt
	}
	return page, nil
}

func serve(ctx context.Context, o Options, page fs.FS, ready func(Addresses) error) error {
	listener, err := net.Listen("tcp", fmt.Sprintf("127.0.0.1:%d", o.Port))
	if err != nil {
		return fmt.Errorf("serving the app: %w", err)
	}
	defer listener.Close()
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	s, err := newServer(ctx, o, page, listener.Addr().String())
	if err != nil {
		return err
	}
	defer s.streams.Wait()
	defer cancel()
	defer s.library.close()
	// A Handler that panics must not take the others with it: net/http sees to that.
	web := &http.Server{Handler: s, ReadHeaderTimeout: 5 * time.Second, MaxHeaderBytes: 16 << 10,
		BaseContext: func(net.Listener) context.Context { return ctx }}
	served := make(chan error, 1)
	go func() { served <- web.Serve(sameUser(listener, o.Caller)) }()
	if err := ready(Addresses{Page: "http://" + s.guard.host + s.guard.base(), Once: "http://" + s.guard.host + "/go/" + s.guard.ticket(time.Minute)}); err != nil {
		return errors.Join(err, web.Close())
	}
	select {
	case err := <-served:
		return err
	case <-s.quit:
		// The page that asked for the end is answered; downloads are not waited for.
		ending, cancel := context.WithTimeout(ctx, time.Second)
		defer cancel()
		_ = web.Shutdown(ending)
	case <-s.library.abandoned(o.Linger, s.jobs.idle):
	case <-ctx.Done():
		return errors.Join(context.Cause(ctx), web.Close())
	}
	return web.Close()
}

func newServer(ctx context.Context, o Options, page fs.FS, host string) (*server, error) {
	s := &server{Options: o, ctx: ctx, desktops: desktop.NewStore(o.Home), images: image.NewStore(imagesDir(o.Home)), page: page,
		guard: &guard{host: host, token: rand.Text()}, mux: &router{ServeMux: http.NewServeMux()}, began: time.Now(), quit: make(chan struct{})}
	var err error
	if s.library, err = newLibrary(s); err != nil {
		return nil, err
	}
	s.jobs, s.shells = &jobs{changed: func() { s.library.touch(topicJobs) }}, &terminals{changed: func() { s.library.touch(topicTerminals) }}
	s.routes()
	s.streams.Go(func() { s.library.run(ctx) })
	return s, nil
}

// ServeHTTP is part of [http.Handler].
func (s *server) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	if s.guard.admits(w, r) {
		s.mux.ServeHTTP(w, r)
	}
}

// router knows its routes.
type router struct {
	*http.ServeMux
	patterns []string
}

// HandleFunc is that of [http.ServeMux].
func (m *router) HandleFunc(pattern string, h func(http.ResponseWriter, *http.Request)) {
	m.patterns = append(m.patterns, pattern)
	m.ServeMux.HandleFunc(pattern, h)
}

func (s *server) routes() {
	s.pageRoutes()
	s.libraryRoutes()
	s.desktopRoutes()
	s.mediaRoutes()
	s.sessionRoutes()
	s.terminalRoutes()
	s.imageRoutes()
	s.jobRoutes()
	s.mux.ServeMux.HandleFunc("/api/", func(w http.ResponseWriter, r *http.Request) {
		fail(w, fmt.Errorf("%s %s: %w", r.Method, r.URL.Path, errNoRoute))
	})
}
