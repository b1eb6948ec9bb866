package app

import (
	"bytes"
	"encoding/json"
	"io/fs"
	"net/http"
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
	// encoding/json escapes what would end the element.
	state, err := json.Marshal(s.library.state())
	if err != nil {
		fail(w, err)
		return
	}
	w.Header().Set("Content-Type", "text/html; charset=utf-8")
	_, _ = w.Write(bytes.Replace(page, []byte("{{state}}"), state, 1))
}
