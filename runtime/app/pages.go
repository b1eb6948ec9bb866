package app

import (
	"bytes"
	"context"
	"encoding/json"
	"io/fs"
	"net/http"
	"time"
)

func (s *server) pageRoutes() {
	s.mux.HandleFunc("GET /{$}", s.index)
	s.mux.Handle("GET /assets/", http.StripPrefix("/assets/", http.FileServerFS(s.page)))
	s.mux.HandleFunc("POST /api/quit", answer(func(*http.Request, none) (any, error) {
		s.quitOnce.Do(func() { close(s.quit) })
		return nil, nil
	}))
}

// index sends the page with the state in it: what it shows first needs no further
// question.
func (s *server) index(w http.ResponseWriter, r *http.Request) {
	page, err := fs.ReadFile(s.page, "index.html")
	if err != nil {
		fail(w, err)
		return
	}
	now := s.library.state()
	var media []Medium
	if len(now.Desktops) == 0 { // an empty library offers them
		media = s.soonAtHand(r.Context())
	}
	// encoding/json escapes what would end the element.
	state, err := json.Marshal(struct {
		State
		Media []Medium `json:"media,omitempty"`
	}{now, media})
	if err != nil {
		fail(w, err)
		return
	}
	w.Header().Set("Content-Type", "text/html; charset=utf-8")
	_, _ = w.Write(bytes.Replace(page, []byte("{{state}}"), state, 1))
}

// soonAtHand are the files at hand, if they are found before anybody notices the wait;
// else the page asks for them.
func (s *server) soonAtHand(ctx context.Context) []Medium {
	ctx, cancel := context.WithTimeout(ctx, 30*time.Millisecond)
	defer cancel()
	found := make(chan []Medium, 1)
	go func() { found <- s.atHand(ctx) }()
	select {
	case media := <-found:
		if ctx.Err() == nil {
			return media
		}
	case <-ctx.Done():
	}
	return nil
}
