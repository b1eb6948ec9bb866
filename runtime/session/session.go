// Package session keeps VMs that outlive the process that asked for them. A
// session is a supervisor process that owns its VM and a unix socket in the
// state directory; there is no daemon. A supervisor that dies takes its VM
// with it.
//
// A session's directory is sessions/SID/ with
//
//	lock          held by the supervisor as long as it lives
//	session.json  Info, written when the VM has answered
//	socket        see wire.go
package session

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/abdul-abdi/lumina/runtime"
	"github.com/abdul-abdi/lumina/runtime/agent"
	"github.com/abdul-abdi/lumina/runtime/image"
)

// maxInfo bounds session.json, in bytes.
const maxInfo = 4 << 20

// Info describes a session.
type Info struct {
	SID     string       `json:"sid"`
	Image   string       `json:"image"`
	PID     int          `json:"pid"` // of the supervisor
	Started time.Time    `json:"started"`
	CPUs    int          `json:"cpus"`
	Memory  int64        `json:"memory"` // bytes
	Config  image.Config `json:"config"`
	Network bool         `json:"network"` // whether it has one of its own
	// Wire is the version of wire.go that the supervisor speaks.
	Wire int `json:"wire"`
	// Cold says why the VM was booted rather than thawed; "" if it was thawed.
	Cold string `json:"cold,omitempty"`
}

// Session is a running session.
type Session struct {
	runtime.Guest
	Info Info
	dir  string
}

// ErrNotFound is wrapped when no running session has an identifier.
var ErrNotFound = errors.New("no such session")

func sessionsDir(home string) string { return filepath.Join(home, "sessions") }

// Open opens a running session. id is its SID or a unique beginning of it.
func Open(home, id string) (*Session, error) {
	dir, err := find(home, id)
	if err != nil {
		return nil, err
	}
	info, err := readInfo(dir)
	if errors.Is(err, os.ErrNotExist) {
		return nil, fmt.Errorf("session %q: %w: it has not started yet", id, ErrNotFound)
	}
	if err != nil {
		return nil, fmt.Errorf("opening session %q: %w", id, err)
	}
	s := &Session{Info: *info, dir: dir}
	s.Guest = runtime.NewGuest(info.Config, s.dialAgent, s.explain)
	return s, nil
}

// find returns the directory of a session, by the SID or a unique beginning.
func find(home, id string) (string, error) {
	if id == "" || strings.ContainsAny(id, `/\.`) {
		return "", fmt.Errorf("session %q: %w", id, ErrNotFound)
	}
	dir := filepath.Join(sessionsDir(home), id)
	if _, err := os.Stat(dir); err == nil {
		return dir, nil
	}
	sids, err := list(home)
	if err != nil {
		return "", err
	}
	sids = slices.DeleteFunc(sids, func(sid string) bool { return !strings.HasPrefix(sid, id) })
	switch len(sids) {
	case 0:
		return "", fmt.Errorf("session %q: %w; lumina session list shows those that run", id, ErrNotFound)
	case 1:
		return filepath.Join(sessionsDir(home), sids[0]), nil
	}
	return "", fmt.Errorf("session %q: %d sessions begin so; give more of it", id, len(sids))
}

// list returns the names of all session directories.
func list(home string) ([]string, error) {
	entries, err := os.ReadDir(sessionsDir(home))
	if errors.Is(err, os.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("listing sessions: %w", err)
	}
	var sids []string
	for _, e := range entries {
		if e.IsDir() {
			sids = append(sids, e.Name())
		}
	}
	return sids, nil
}

// List returns the SIDs of all sessions, the oldest first. What dead
// supervisors left behind is removed.
func List(home string) ([]string, error) {
	if err := Clean(home); err != nil {
		return nil, err
	}
	sids, err := list(home)
	if err != nil {
		return nil, err
	}
	started := map[string]time.Time{}
	for _, sid := range sids {
		if info, err := readInfo(filepath.Join(sessionsDir(home), sid)); err == nil {
			started[sid] = info.Started
		}
	}
	slices.SortFunc(sids, func(a, b string) int {
		return started[a].Compare(started[b])
	})
	return sids, nil
}

// Clean removes the directories of supervisors that have died.
func Clean(home string) error {
	sids, err := list(home)
	if err != nil {
		return err
	}
	for _, sid := range sids {
		if err := cleanDir(filepath.Join(sessionsDir(home), sid)); err != nil {
			return err
		}
	}
	return nil
}

// Stale is how many directories dead supervisors have left.
func Stale(home string) int {
	sids, _ := list(home)
	n := 0
	for _, sid := range sids {
		if lock, err := tryLock(filepath.Join(sessionsDir(home), sid)); err == nil && lock != nil {
			lock.Close()
			n++
		}
	}
	return n
}

// cleanDir removes a session's directory if its supervisor has died.
func cleanDir(dir string) error {
	lock, err := tryLock(dir)
	if err != nil || lock == nil {
		return nil // gone by now, or alive
	}
	defer lock.Close()
	if err := os.RemoveAll(dir); err != nil {
		return fmt.Errorf("removing what session %q left: %w", filepath.Base(dir), err)
	}
	return nil
}

func readInfo(dir string) (*Info, error) {
	f, err := os.Open(filepath.Join(dir, "session.json"))
	if err != nil {
		return nil, err
	}
	defer f.Close()
	b := make([]byte, 0, 8<<10)
	for len(b) < maxInfo {
		if len(b) == cap(b) {
			b = slices.Grow(b, len(b))
		}
		n, err := f.Read(b[len(b):cap(b)])
		b = b[:len(b)+n]
		if err != nil {
			break
		}
	}
	info := new(Info)
	if err := json.Unmarshal(b, info); err != nil {
		return nil, fmt.Errorf("reading session.json: %w", err)
	}
	return info, nil
}

// Status is what a supervisor says of its session.
type Status struct {
	SID         string `json:"sid"`
	Image       string `json:"image"`
	Uptime      int64  `json:"uptime_seconds"`
	ActiveExecs int    `json:"active_execs"`
	// HostError is what went wrong on the host, as that its disk is full.
	HostError string `json:"host_error,omitempty"`
}

// Status asks the supervisor.
func (s *Session) Status(ctx context.Context) (*Status, error) {
	reply, err := s.control(ctx, controlRequest{Op: opStatus})
	if err != nil {
		return nil, err
	}
	return reply.Status, nil
}

// Network reports what the guest has done with its network; nil when it has
// none.
func (s *Session) Network(ctx context.Context) (*runtime.NetworkReport, error) {
	reply, err := s.control(ctx, controlRequest{Op: opNetwork})
	if err != nil {
		return nil, err
	}
	return reply.Network, nil
}

// Stop ends the session and returns when its VM and directory are gone. What
// runs in it is killed; volumes are brought to disk first.
func (s *Session) Stop(ctx context.Context) error {
	_, err := s.control(ctx, controlRequest{Op: opStop})
	return err
}

// Wait waits for the session's end. It returns nil for one that was stopped.
func (s *Session) Wait(ctx context.Context) error {
	reply, err := s.control(ctx, controlRequest{Op: opWait})
	switch {
	case ctx.Err() != nil:
		return context.Cause(ctx)
	case err != nil:
		return &runtime.Error{Kind: runtime.SessionDisconnected, Err: err}
	case reply.Crash != nil:
		return &runtime.Error{Kind: runtime.VMCrashed, Err: errors.New(reply.Crash.Message), Console: reply.Crash.Console}
	}
	return nil
}

// Echo opens a stream that the guest's agent sends back: what a round trip costs
// at least.
func (s *Session) Echo(ctx context.Context) (net.Conn, error) {
	conn, err := s.dialAgent(ctx)
	if err != nil {
		return nil, err
	}
	echo, err := agent.Echo(conn)
	if err != nil {
		conn.Close()
		return nil, fmt.Errorf("opening an echo: %w", err)
	}
	return echo, nil
}

func (s *Session) dialAgent(ctx context.Context) (net.Conn, error) { return s.dial(ctx, kindAgent) }

// dial connects to what the supervisor carries to the guest.
func (s *Session) dial(ctx context.Context, kind byte, files ...*os.File) (net.Conn, error) {
	if s.Info.Wire != wireVersion {
		return nil, fmt.Errorf("session %s was started by another version of lumina: stop it, and start one anew", s.Info.SID)
	}
	return dialSocket(ctx, s.dir, kind, files...)
}

// explain tells a VM that ended from a supervisor that did: the supervisor of
// a VM that ended stays until its clients know.
func (s *Session) explain(err error) error {
	ctx, cancel := context.WithTimeout(context.Background(), explainTimeout)
	defer cancel()
	reply, askErr := s.control(ctx, controlRequest{Op: opWhy})
	if askErr != nil || reply.Crash == nil {
		return &runtime.Error{Kind: runtime.SessionDisconnected,
			Err: fmt.Errorf("session %s went away: %w", s.Info.SID, err)}
	}
	return &runtime.Error{Kind: runtime.VMCrashed, Err: errors.New(reply.Crash.Message), Console: reply.Crash.Console}
}
