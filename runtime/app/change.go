package app

import (
	"context"
	"errors"
	"net/http"

	"github.com/abdul-abdi/lumina/runtime/desktop"
	"github.com/abdul-abdi/lumina/runtime/network"
)

func (s *server) changeRoutes() {
	s.mux.HandleFunc("POST /api/desktops/{id}/change", answer(s.changeDesktop))
	s.mux.HandleFunc("POST /api/desktops/{id}/clone", answer(s.cloneDesktop))
	s.mux.HandleFunc("POST /api/desktops/{id}/reset", answer(func(r *http.Request, _ none) (any, error) {
		c, err := s.client(r)
		if err != nil {
			return nil, err
		}
		return nil, c.Reset(r.Context())
	}))
	s.mux.HandleFunc("DELETE /api/desktops/{id}", answer(func(r *http.Request, _ none) (any, error) {
		m, err := s.desktops.Find(r.PathValue("id"))
		if d := new(desktop.DamagedError); errors.As(err, &d) && d.ID == r.PathValue("id") {
			return nil, s.desktops.Remove(d.ID) // it could not be restored
		}
		if err != nil {
			return nil, err
		}
		_, err = s.desktops.SetAside(m.ID)
		return nil, err
	}))
	s.mux.HandleFunc("POST /api/desktops/{id}/restore", answer(func(r *http.Request, _ none) (any, error) {
		_, err := s.desktops.Restore(r.PathValue("id"), "")
		return nil, err
	}))
}

// Difference is what is to be different about a desktop; what is missing stays.
type Difference struct {
	Name     *string       `json:"name,omitempty"`
	CPUs     *int          `json:"cpus,omitempty"`
	Memory   *int64        `json:"memory_bytes,omitempty"`
	DiskSize *int64        `json:"disk_bytes,omitempty"`
	ISO      *string       `json:"iso,omitempty"` // "none" takes it out
	Drivers  *string       `json:"drivers,omitempty"`
	Network  *network.Mode `json:"network,omitempty"`
}

// changeDesktop changes a desktop that is not running.
func (s *server) changeDesktop(r *http.Request, d Difference) (any, error) {
	m, err := s.desktops.Find(r.PathValue("id"))
	if err != nil {
		return nil, err
	}
	// The error names the desktop, so pass its name.
	_, err = s.desktops.Change(r.Context(), m.Name, desktop.Change{Name: d.Name, CPUs: d.CPUs, Memory: d.Memory, DiskSize: d.DiskSize, ISO: d.ISO, Drivers: d.Drivers, Network: d.Network})
	if errors.Is(err, desktop.ErrChange) {
		err = bad{err}
	}
	return nil, err
}

// cloneDesktop makes a copy of a desktop, as a job: where the file system cannot share
// blocks, all of the disk is copied.
func (s *server) cloneDesktop(r *http.Request, in struct {
	Name string `json:"name"`
}) (any, error) {
	m, err := s.desktops.Find(r.PathValue("id"))
	if err != nil {
		return nil, err
	}
	if err := desktop.CheckName(in.Name); err != nil {
		return nil, bad{err}
	}
	return s.jobs.start(s.ctx, &s.streams, "clone", in.Name, func(ctx context.Context, progress Progress) (string, error) {
		progress("copy", 0, 0)
		made, err := s.desktops.Clone(ctx, s.Driver, m.ID, in.Name)
		if err != nil {
			return "", err
		}
		return made.ID, nil
	}), nil
}
