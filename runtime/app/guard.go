package app

import (
	"crypto/rand"
	"crypto/subtle"
	"net/http"
	"strings"
	"sync"
	"time"
)

// guard decides who is answered. Another site in the same browser does not know the
// token, cannot read what has it (no other origin may), and cannot get round that
// with a name of its own for 127.0.0.1 (DNS rebinding), for Host and Origin must be
// this server's.
type guard struct {
	host, token string

	mu      sync.Mutex
	tickets map[string]time.Time // until when each is good
}

func (g *guard) base() string { return "/" + g.token + "/" }

// ticket makes an address that can be used once.
func (g *guard) ticket(span time.Duration) string {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.tickets == nil {
		g.tickets = map[string]time.Time{}
	}
	t := rand.Text()
	g.tickets[t] = time.Now().Add(span)
	return t
}

// redeem takes a ticket.
func (g *guard) redeem(given string) bool {
	g.mu.Lock()
	defer g.mu.Unlock()
	for t, until := range g.tickets {
		if subtle.ConstantTimeCompare([]byte(t), []byte(given)) == 1 {
			delete(g.tickets, t)
			return time.Now().Before(until)
		}
	}
	return false
}

// admits says whether a request is let in, which then has a path without the token.
// Everybody else gets the same nothing.
func (g *guard) admits(w http.ResponseWriter, r *http.Request) bool {
	secure(w.Header())
	first, rest, _ := strings.Cut(strings.TrimPrefix(r.URL.Path, "/"), "/")
	if !g.ours(r) {
		http.NotFound(w, r)
		return false
	}
	if first == "go" && r.Method == http.MethodGet && g.redeem(rest) {
		http.Redirect(w, r, g.base(), http.StatusSeeOther)
		return false
	}
	if subtle.ConstantTimeCompare([]byte(first), []byte(g.token)) != 1 {
		http.NotFound(w, r)
		return false
	}
	// A slash that is written as %2f stays in its part of the path.
	raw, _ := strings.CutPrefix(r.URL.RawPath, "/"+first)
	r.URL.Path, r.URL.RawPath = "/"+rest, raw
	return true
}

// ours says whether a request is for this server, and from its page or from no page.
func (g *guard) ours(r *http.Request) bool {
	origin, site := r.Header.Get("Origin"), r.Header.Get("Sec-Fetch-Site")
	return r.Host == g.host && (origin == "" || origin == "http://"+g.host) &&
		(site == "" || site == "same-origin" || site == "none")
}

// secure sets what the browser is to keep the page from, and others from the page.
func secure(head http.Header) {
	head.Set("Content-Security-Policy", "default-src 'none'; script-src 'self'; connect-src 'self'; img-src 'self' data: blob:; "+
		"media-src 'self' blob:; style-src 'self' 'unsafe-inline'; font-src 'self'; worker-src 'self'; frame-ancestors 'none'; base-uri 'none'; form-action 'none'")
	head.Set("Referrer-Policy", "no-referrer")
	head.Set("X-Content-Type-Options", "nosniff")
	head.Set("Cross-Origin-Resource-Policy", "same-origin")
	head.Set("Cross-Origin-Opener-Policy", "same-origin")
	head.Set("Permissions-Policy", "camera=(), microphone=(), geolocation=()")
	head.Set("Cache-Control", "no-store")
}
