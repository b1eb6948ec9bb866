package app

import (
	"encoding/json"
	"fmt"
	"net/http"
	"time"
)

func (s *server) libraryRoutes() {
	s.mux.HandleFunc("GET /api/state", answer(func(*http.Request, none) (any, error) { return s.library.state(), nil }))
	s.mux.HandleFunc("GET /api/events", s.events)
	s.mux.HandleFunc("GET /api/usage", answer(func(r *http.Request, _ none) (any, error) { return s.usage(r.Context()), nil }))
}

// events tells a page of changes: first all of the state, then each part that has
// changed, as a whole. A page that comes again after its connection broke has missed
// nothing.
func (s *server) events(w http.ResponseWriter, r *http.Request) {
	v := s.library.join()
	defer s.library.leave(v)
	w.Header().Set("Content-Type", "text/event-stream")
	flush := http.NewResponseController(w).Flush
	tell := func(name string, v any) error {
		b, err := json.Marshal(v)
		if err == nil {
			_, err = fmt.Fprintf(w, "event: %s\ndata: %s\n\n", name, b)
		}
		return err
	}
	if tell("state", s.library.state()) != nil || flush() != nil {
		return
	}
	// A connection that nobody reads any more is found out.
	alive := time.NewTicker(30 * time.Second)
	defer alive.Stop()
	for {
		select {
		case <-r.Context().Done():
			return
		case <-s.quit:
			return
		case <-alive.C:
			if _, err := fmt.Fprint(w, ": alive\n\n"); err != nil || flush() != nil {
				return
			}
		case <-v.wake:
			for t, part := range s.library.news(v) {
				if tell(string(t), part) != nil {
					return
				}
			}
			if flush() != nil {
				return
			}
		}
	}
}

// join adds a page to those that receive events.
func (l *library) join() *viewer {
	l.mu.Lock()
	defer l.mu.Unlock()
	v := &viewer{news: map[topic]bool{}, wake: make(chan struct{}, 1)}
	l.viewers[v], l.seen = struct{}{}, true
	return v
}

func (l *library) leave(v *viewer) {
	l.mu.Lock()
	delete(l.viewers, v)
	last := len(l.viewers) == 0
	l.mu.Unlock()
	if last {
		select {
		case l.left <- struct{}{}:
		default:
		}
	}
}

// news are the parts of the state that a page was not told yet.
func (l *library) news(v *viewer) map[topic]any {
	l.mu.Lock()
	defer l.mu.Unlock()
	parts := map[topic]any{topicDesktops: l.now.Desktops, topicSessions: l.now.Sessions, topicImages: l.now.Images, topicJobs: l.now.Jobs, topicTerminals: l.now.Terminals}
	for t := range parts {
		if !v.news[t] {
			delete(parts, t)
		}
	}
	clear(v.news)
	return parts
}

// alone says whether there was a page, and is none.
func (l *library) alone() bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.seen && len(l.viewers) == 0
}

// abandoned is closed when no page was open for a while, after the first one was, and
// idle says that nothing is under way. A linger of 0 is never.
func (l *library) abandoned(linger time.Duration, idle func() bool) <-chan struct{} {
	over := make(chan struct{})
	if linger <= 0 {
		return over
	}
	go func() {
		for {
			select {
			case <-l.left:
			case <-l.s.ctx.Done():
				return
			}
			// A page that is loaded again, or whose tab was killed, is back by then.
			for l.alone() {
				select {
				case <-time.After(linger):
				case <-l.s.ctx.Done():
					return
				}
				if l.alone() && idle() {
					close(over)
					return
				}
			}
		}
	}()
	return over
}
