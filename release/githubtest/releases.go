package githubtest

import (
	"encoding/json"
	"fmt"
	"net/http"
	"slices"
	"strconv"
)

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
