package app

import (
	"errors"
	"net/http"
	"syscall"

	"github.com/abdul-abdi/lumina/runtime"
	"github.com/abdul-abdi/lumina/runtime/forward"
	"github.com/abdul-abdi/lumina/runtime/image"
	"github.com/abdul-abdi/lumina/runtime/network"
	"github.com/abdul-abdi/lumina/runtime/session"
)

func (s *server) sessionRoutes() {
	s.mux.HandleFunc("POST /api/sessions", answer(s.startSession))
	s.mux.HandleFunc("GET /api/sessions/{sid}", answer(s.inspectSession))
	s.mux.HandleFunc("DELETE /api/sessions/{sid}", answer(func(r *http.Request, _ none) (any, error) {
		_, err := session.Stop(s.ctx, s.Home, r.PathValue("sid"), r.URL.Query().Has("force"))
		return nil, err
	}))
	s.mux.HandleFunc("POST /api/sessions/{sid}/forwards", answer(s.changeForwards))
	s.mux.HandleFunc("POST /api/sessions/{sid}/kill", answer(s.killProcess))
	s.mux.HandleFunc("PUT /api/sessions/{sid}/files", s.upload)
	s.mux.HandleFunc("GET /api/sessions/{sid}/files", s.download)
}

// startSession starts a session of an image that is here.
func (s *server) startSession(_ *http.Request, in struct {
	Image    string       `json:"image"`
	Name     string       `json:"name,omitempty"`
	CPUs     int          `json:"cpus,omitempty"`
	Memory   int64        `json:"memory_bytes,omitempty"`
	Network  network.Mode `json:"network,omitempty"`
	Forwards []string     `json:"forwards,omitempty"`
}) (any, error) {
	o := session.Options{Home: s.Home, Name: in.Name, VM: runtime.VMOptions{Image: in.Image, CPUs: in.CPUs, Memory: in.Memory, Network: in.Network, DiskReserve: s.DiskReserve}}
	if o.VM.Network == "" {
		o.VM.Network = network.ModeNAT
	}
	var err error
	if o.Forwards, err = forward.ParseAll(in.Forwards); err != nil {
		return nil, bad{err}
	}
	if in.Name != "" {
		err = session.CheckName(in.Name)
	}
	if err = errors.Join(err, image.CheckName(in.Image), o.VM.CheckSize(), o.VM.Network.Check()); err != nil {
		return nil, bad{err}
	}
	// Another process would say that in words only.
	h, err := s.images.Open(in.Image)
	if err != nil {
		return nil, err
	}
	h.Close()
	// It is started for good, whether or not the page stays.
	started, err := s.StartSession(s.ctx, o)
	if err != nil {
		return nil, err
	}
	return map[string]string{"sid": started.Info.SID}, nil
}

// Inside is what is only known by asking a session.
type Inside struct {
	Processes []runtime.Process `json:"processes"`
	Network   *network.Report   `json:"network"` // null without a network
	Forwards  []forward.Rule    `json:"forwards"`
	Ports     []string          `json:"ports,omitempty"` // that the image says it serves
}

func (s *server) inspectSession(r *http.Request, _ none) (any, error) {
	open, err := session.Open(s.Home, r.PathValue("sid"))
	if err != nil {
		return nil, err
	}
	in := Inside{Processes: []runtime.Process{}, Forwards: []forward.Rule{}, Ports: open.Info.Config.ExposedPorts}
	all, err := open.Processes(r.Context())
	if err != nil {
		return nil, err
	}
	in.Processes = append(in.Processes, all...)
	if in.Network, err = open.Network(r.Context()); err != nil {
		return nil, err
	}
	st, err := open.Status(r.Context())
	if err != nil {
		return nil, err
	}
	in.Forwards = append(in.Forwards, st.Forwards...)
	return in, nil
}

// changeForwards opens and closes ports of this host that lead to the session's.
func (s *server) changeForwards(r *http.Request, in struct {
	Add    []string       `json:"add,omitempty"` // [HOST:]GUEST[/udp]
	Remove []forward.Rule `json:"remove,omitempty"`
}) (any, error) {
	add, err := forward.ParseAll(in.Add)
	if err != nil {
		return nil, bad{err}
	}
	open, err := session.Open(s.Home, r.PathValue("sid"))
	if err != nil {
		return nil, err
	}
	rules, err := open.Forward(r.Context(), add, in.Remove)
	s.library.touch(topicSessions) // no file tells
	var lost *runtime.Error
	if err != nil && !errors.As(err, &lost) {
		err = conflict{err} // a port that is taken, or is not forwarded
	}
	if rules == nil {
		rules = []forward.Rule{}
	}
	return rules, err
}

// killProcess sends a signal to a process of lumina's in the guest.
func (s *server) killProcess(r *http.Request, in struct {
	ID     string `json:"id"`
	Signal int    `json:"signal"`
}) (any, error) {
	open, err := session.Open(s.Home, r.PathValue("sid"))
	if err != nil {
		return nil, err
	}
	if in.Signal < 1 || in.Signal > 64 {
		return nil, bad{errors.New("no such signal")}
	}
	return nil, open.Kill(r.Context(), in.ID, syscall.Signal(in.Signal))
}
