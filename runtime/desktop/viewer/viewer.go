// Package viewer shows a desktop's screen on a page for a browser on this host.
//
// Whoever can reach the page has the desktop's keyboard. It listens on 127.0.0.1
// only, and answers nobody who does not know its token, a part of every URL.
// Another site in the same browser does not know it, cannot read it (no other
// origin may), and cannot get round that with a name of its own for 127.0.0.1
// (DNS rebinding), for Host and Origin must be this server's.
//
// The page is noVNC's client. make build fetches it, in the version and with the
// digest of novnc/package-lock.json, and it is embedded from out. A program that
// was built without it has no page: see [ErrNotBuilt].
package viewer

import (
	"context"
	"crypto/rand"
	"crypto/subtle"
	"embed"
	"errors"
	"fmt"
	"html/template"
	"io"
	"io/fs"
	"net"
	"net/http"
	"strings"
	"sync"
	"time"

	"github.com/coder/websocket"
)

//go:embed page.html page.js all:out
var files embed.FS

// ErrNotBuilt is returned by Serve when this program was built without noVNC.
var ErrNotBuilt = errors.New("this build of lumina has no noVNC, which shows the screen; run make build")

// novnc returns noVNC's files, or ErrNotBuilt.
func novnc(files fs.FS) (fs.FS, error) {
	sub, err := fs.Sub(files, "out/novnc")
	if err != nil {
		return nil, err
	}
	if _, err := fs.Stat(sub, "core/rfb.js"); err != nil {
		return nil, ErrNotBuilt
	}
	return sub, nil
}

// page is parsed when it is needed: every command of the program would pay for it.
var page = sync.OnceValue(func() *template.Template { return template.Must(template.ParseFS(files, "page.html")) })

// Dial opens a stream of the RFB protocol.
type Dial func(context.Context) (net.Conn, error)

// Serve shows a desktop until ctx ends. ready is given the page's URL.
func Serve(ctx context.Context, name string, dial Dial, ready func(url string) error) error {
	client, err := novnc(files)
	if err != nil {
		return err
	}
	return serve(ctx, name, client, dial, ready)
}

func serve(ctx context.Context, name string, client fs.FS, dial Dial, ready func(url string) error) error {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return fmt.Errorf("serving the page: %w", err)
	}
	defer l.Close()
	token := rand.Text()
	h := newHandler(ctx, l.Addr().String(), token, name, client, dial)
	defer h.streams.Wait()
	server := &http.Server{Handler: h, ReadHeaderTimeout: 5 * time.Second, MaxHeaderBytes: 16 << 10}
	served := make(chan error, 1)
	go func() { served <- server.Serve(l) }()
	if err := ready(fmt.Sprintf("http://%s/%s/", l.Addr(), token)); err != nil {
		return errors.Join(err, server.Close())
	}
	select {
	case err := <-served:
		return err
	case <-ctx.Done():
		return errors.Join(context.Cause(ctx), server.Close())
	}
}

// handler answers requests for one desktop.
type handler struct {
	ctx         context.Context
	host, token string
	mux         *http.ServeMux
	streams     sync.WaitGroup
}

func newHandler(ctx context.Context, host, token, name string, client fs.FS, dial Dial) *handler {
	h := &handler{ctx: ctx, host: host, token: token, mux: http.NewServeMux()}
	h.mux.HandleFunc("GET /{$}", func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "text/html; charset=utf-8")
		_ = page().Execute(w, name) // a browser that has gone
	})
	h.mux.Handle("GET /novnc/", http.StripPrefix("/novnc/", http.FileServerFS(client)))
	h.mux.HandleFunc("GET /page.js", func(w http.ResponseWriter, r *http.Request) {
		http.ServeFileFS(w, r, files, "page.js")
	})
	h.mux.HandleFunc("GET /screen", func(w http.ResponseWriter, r *http.Request) { h.screen(w, r, dial) })
	return h
}

// ServeHTTP is part of [http.Handler].
func (h *handler) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	token, rest, _ := strings.Cut(strings.TrimPrefix(r.URL.Path, "/"), "/")
	origin := r.Header.Get("Origin")
	if r.Host != h.host || origin != "" && origin != "http://"+h.host || subtle.ConstantTimeCompare([]byte(token), []byte(h.token)) != 1 {
		http.NotFound(w, r)
		return
	}
	head := w.Header()
	head.Set("Content-Security-Policy", "default-src 'none'; script-src 'self'; connect-src 'self'; img-src 'self' data: blob:; style-src 'unsafe-inline'; frame-ancestors 'none'; base-uri 'none'; form-action 'none'")
	head.Set("Referrer-Policy", "no-referrer")
	head.Set("X-Content-Type-Options", "nosniff")
	head.Set("Cross-Origin-Resource-Policy", "same-origin")
	head.Set("Cross-Origin-Opener-Policy", "same-origin")
	head.Set("Cache-Control", "no-store")
	r.URL.Path = "/" + rest
	h.mux.ServeHTTP(w, r)
}

// maxMessage bounds a browser's message: one key or pointer event, or what is
// pasted; in bytes.
const maxMessage = 1 << 20

// screen carries RFB between a browser and the desktop.
func (h *handler) screen(w http.ResponseWriter, r *http.Request, dial Dial) {
	h.streams.Add(1)
	defer h.streams.Done()
	// A browser always says from where its page is; who does not is none.
	if r.Header.Get("Origin") == "" {
		http.NotFound(w, r)
		return
	}
	ws, err := websocket.Accept(w, r, nil)
	if err != nil {
		return // Accept has answered
	}
	defer ws.CloseNow()
	ws.SetReadLimit(maxMessage)
	screen, err := dial(h.ctx)
	if err != nil {
		_ = ws.Close(websocket.StatusGoingAway, "the desktop has ended")
		return
	}
	defer screen.Close()
	browser := websocket.NetConn(h.ctx, ws, websocket.MessageBinary)
	go func() {
		_, _ = io.Copy(screen, browser)
		screen.Close()
	}()
	_, _ = io.Copy(browser, screen)
	_ = ws.Close(websocket.StatusNormalClosure, "")
}
