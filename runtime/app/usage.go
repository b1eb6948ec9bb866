package app

import (
	"context"
	"time"

	"github.com/abdul-abdi/lumina/runtime/session"
)

// usageTimeout bounds the questions to all supervisors.
const usageTimeout = 2 * time.Second

// Usage is what running machines take of this host.
type Usage struct {
	At time.Time `json:"at"`
	// Machines are by the identifiers of desktops and sessions.
	Machines map[string]Load `json:"machines"`
}

// Load is what a machine takes, by its processes.
type Load struct {
	CPU    float64 `json:"cpu_seconds"` // since its start
	Memory int64   `json:"memory_bytes"`
	Disk   int64   `json:"used_bytes,omitempty"`
	Active int     `json:"active_execs,omitempty"`
}

func (s *server) usage(ctx context.Context) Usage {
	ctx, cancel := context.WithTimeout(ctx, usageTimeout)
	defer cancel()
	u := Usage{At: time.Now(), Machines: map[string]Load{}}
	desktops := s.library.manifests()
	for i, f := range s.desktops.Figures(ctx, desktops...) {
		if f.Status != nil {
			u.Machines[desktops[i].ID] = Load{CPU: f.Status.CPU.Seconds(), Memory: f.Status.Memory, Disk: f.Disk}
		}
	}
	all, err := session.List(ctx, s.Home)
	if err != nil {
		return u
	}
	for _, st := range all {
		if st.State != session.Running {
			continue
		}
		if open, err := session.Open(s.Home, st.SID); err == nil {
			load := processLoad(open.Info.PID)
			load.Active = st.ActiveExecs
			u.Machines[st.SID] = load
		}
	}
	return u
}
