package app

import (
	"context"
	"errors"
	"net/http"
	"strings"

	"github.com/abdul-abdi/lumina/runtime/image"
)

func (s *server) imageRoutes() {
	s.mux.HandleFunc("GET /api/releases", answer(func(r *http.Request, _ none) (any, error) {
		all, err := s.Releases(r.Context())
		if err != nil {
			return nil, conflict{err} // no key is trusted, or nothing answers
		}
		if all == nil {
			all = []Release{}
		}
		return all, nil
	}))
	s.mux.HandleFunc("POST /api/images/pull", answer(func(_ *http.Request, in struct {
		Reference string `json:"reference"`
		Release   bool   `json:"release"`
	}) (any, error) {
		ref := strings.TrimSpace(in.Reference)
		if ref == "" || strings.ContainsAny(ref, " \t\n") {
			return nil, bad{errors.New("want the reference of an image, such as debian:12")}
		}
		return s.jobs.start(s.ctx, &s.streams, "pull", ref, func(ctx context.Context, progress Progress) (string, error) {
			return s.Pull(ctx, ref, in.Release, progress)
		}), nil
	}))
	s.mux.HandleFunc("DELETE /api/images/{name}", answer(func(r *http.Request, _ none) (any, error) {
		if err := image.CheckName(r.PathValue("name")); err != nil {
			return nil, bad{err}
		}
		return nil, s.images.Remove(r.PathValue("name"))
	}))
}
