// Package session keeps VMs that outlive the process that asked for them. A
// session is a supervisor process that owns its VM and a unix socket in the
// state directory; there is no daemon. A supervisor that dies takes its VM
// with it.
//
// A session's directory is sessions/SID/ with
//
//	lock          held by the supervisor as long as it lives
//	session.json  Info; written when it starts, and when the VM has answered
//	socket        see protocol.go
//	end.json      Crash, once the VM has ended and nobody asked for it
//
// Of one that its TTL ended a record stays for a while, see expired.go.
//
// What is not locked has ended. It stays, so that everybody can be told how, until
// it is stopped or cleaned.
package session

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/abdul-abdi/lumina/initramfs/protocol"
	"github.com/abdul-abdi/lumina/runtime"
	"github.com/abdul-abdi/lumina/runtime/client"
	"github.com/abdul-abdi/lumina/runtime/forward"
	"github.com/abdul-abdi/lumina/runtime/image"
	"github.com/abdul-abdi/lumina/runtime/network"
)

// Info describes a session.
type Info struct {
	SID     string            `json:"sid"`
	Name    string            `json:"name,omitempty"`
	Labels  map[string]string `json:"labels,omitempty"`
	Image   string            `json:"image"`
	Volumes []string          `json:"volumes,omitempty"` // that have names
	PID     int               `json:"pid"`               // of the supervisor
	Started time.Time         `json:"started"`
	CPUs    int               `json:"cpus"`
	Memory  int64             `json:"memory"` // bytes
	Config  image.Config      `json:"config"`
	Network bool              `json:"network"` // whether it has one of its own
	// Protocol is the version of protocol.go that the supervisor speaks.
	Protocol int `json:"protocol"`
	// Ready: the VM has answered.
	Ready bool `json:"ready"`
	// Cold says why the VM booted rather than being restored.
	Cold runtime.Cold `json:"cold"`
}

// Session is a running session.
type Session struct {
	runtime.Guest
	Info Info
	dir  string
}

// ErrNotFound is wrapped when no session has an identifier or a name.
var ErrNotFound = errors.New("no such session")

// Open opens a running session. id is its SID, its name, a unique beginning of the SID
// of at least four characters, or the JSON object that the command line prints of it.
func Open(home, id string) (*Session, error) {
	dir, err := find(home, id)
	if err != nil {
		return nil, err
	}
	info, err := readInfo(dir)
	switch {
	case hasCrashed(dir):
		return nil, ended(dir)
	case errors.Is(err, fs.ErrNotExist):
		// Stopped just now; or its description was removed.
		if !alive(dir) {
			return nil, ended(dir)
		}
		fallthrough
	case err != nil:
		// Its supervisor knows, if there is one.
		reply, askErr := control(context.Background(), dir, controlRequest{Op: opInfo})
		if askErr != nil {
			return nil, fmt.Errorf("opening session %q: %w", id, errors.Join(err, askErr))
		}
		if info = reply.Info; info == nil {
			return nil, fmt.Errorf("opening session %q: %w", id, err)
		}
	}
	s := &Session{Info: *info, dir: dir}
	s.Guest = runtime.NewGuest(info.Config, s.dialAgent, s.explain)
	return s, nil
}

// find returns the directory of a session. One that lives goes before those of its
// name that have ended, of which the newest is meant.
func find(home, id string) (string, error) {
	id, rest, err := splitID(id)
	if err != nil {
		return "", err
	}
	none := func() error {
		if end := expired(home, id); end != nil && rest == "" {
			return fmt.Errorf("session %q: %w any more: %s", id, ErrNotFound, end)
		}
		return fmt.Errorf("session %q: %w; see lumina session list", id+rest, ErrNotFound)
	}
	if rest != "" || id == "" {
		return "", none()
	}
	if isSID(id) {
		dir := filepath.Join(sessionsDir(home), id)
		if info, err := os.Lstat(dir); err == nil && info.IsDir() {
			return dir, nil
		}
		return "", none()
	}
	if !isName(id) {
		return "", none()
	}
	sids, err := list(home)
	if err != nil {
		return "", err
	}
	if dir := named(home, sids, id); dir != "" {
		return dir, nil
	}
	if len(id) < 4 { // too little to mean one by
		return "", none()
	}
	sids = slices.DeleteFunc(sids, func(sid string) bool { return !strings.HasPrefix(sid, id) })
	switch len(sids) {
	case 0:
		return "", none()
	case 1:
		return filepath.Join(sessionsDir(home), sids[0]), nil
	}
	return "", fmt.Errorf("session %q: %w", id, errAmbiguous)
}

// named returns the directory of the session of a name; "" for none.
func named(home string, sids []string, name string) string {
	newest, at := "", time.Time{}
	for _, sid := range sids {
		dir := filepath.Join(sessionsDir(home), sid)
		info, err := readInfo(dir)
		if err != nil || info.Name != name {
			continue
		}
		if alive(dir) {
			return dir
		}
		if newest == "" || info.Started.After(at) {
			newest, at = dir, info.Started
		}
	}
	return newest
}

// State is what a session is doing.
type State string

// The states of sessions.
const (
	Starting    State = "starting" // its VM has not answered yet
	Running     State = "running"
	Crashed     State = "crashed"     // its VM has ended, or its supervisor, and nobody asked for it
	Unreachable State = "unreachable" // its supervisor does not answer
)

var states = []State{Starting, Running, Crashed, Unreachable}

// Status is what is known of a session: by its supervisor, or by what that left.
type Status struct {
	SID         string            `json:"sid"`
	Name        string            `json:"name,omitempty"`
	Labels      map[string]string `json:"labels,omitempty"`
	Image       string            `json:"image,omitempty"`
	State       State             `json:"status"`
	Uptime      int64             `json:"uptime_seconds"`
	ActiveExecs int               `json:"active_execs"`
	Forwards    []forward.Rule    `json:"forwards,omitempty"`
	// HostError is what went wrong on the host, as that its disk is full.
	HostError string `json:"host_error,omitempty"`
	// Crash is how it ended.
	Crash *Crash `json:"-"`
	// Err is why it is not reached.
	Err error `json:"-"`
}

// Crash is how a session ended that was not stopped.
type Crash struct {
	Message string    `json:"message"`
	Console string    `json:"console"` // the end of what the guest printed
	At      time.Time `json:"at"`
}

// hasCrashed says whether a session's VM has ended without being asked to. Its
// supervisor may still run, to tell its clients.
func hasCrashed(dir string) bool {
	_, err := os.Lstat(filepath.Join(dir, endFile))
	return err == nil
}

// crashOf is how a session ended whose supervisor has.
func crashOf(dir string) *Crash {
	c := new(Crash)
	switch err := readJSON(dir, endFile, c); {
	case err == nil:
		return c
	case errors.Is(err, fs.ErrNotExist):
		return &Crash{Message: "its supervisor was killed"}
	default:
		return &Crash{Message: "it ended, and how is not known: " + err.Error()}
	}
}

// ended is the error of a session whose supervisor has ended.
func ended(dir string) error {
	sid := filepath.Base(dir)
	if !holdsSession(dir) {
		if end := expired(filepath.Dir(filepath.Dir(dir)), sid); end != nil {
			return fmt.Errorf("session %q: %w any more: %s", sid, ErrNotFound, end)
		}
		return fmt.Errorf("session %q: %w: its supervisor has ended", sid, ErrNotFound)
	}
	return crashOf(dir).error(sid)
}

// error is what a command on the session fails with from then on.
func (c *Crash) error(sid string) error {
	return &runtime.Error{Kind: runtime.ConnectionFailed, Console: c.Console,
		Err: fmt.Errorf("session %s has crashed: %s; lumina session stop removes what is left of it", sid, c.Message)}
}

// statusTimeout bounds the question to one supervisor.
const statusTimeout = 2 * time.Second

// maxAsked is how many supervisors are asked at once.
const maxAsked = 16

// List returns what is known of all sessions, the oldest first. It changes nothing.
func List(ctx context.Context, home string) ([]*Status, error) {
	sids, err := list(home)
	if err != nil {
		return nil, err
	}
	all, started := make([]*Status, len(sids)), map[string]time.Time{}
	slots := make(chan struct{}, maxAsked)
	var asking sync.WaitGroup
	for i, sid := range sids {
		dir := filepath.Join(sessionsDir(home), sid)
		info, err := readInfo(dir)
		started[sid] = info.Started
		slots <- struct{}{}
		asking.Go(func() {
			all[i] = look(ctx, dir, info, err)
			<-slots
		})
	}
	asking.Wait()
	all = slices.DeleteFunc(all, func(s *Status) bool { return s == nil })
	slices.SortStableFunc(all, func(a, b *Status) int { return started[a.SID].Compare(started[b.SID]) })
	return all, nil
}

// look finds out how a session is; nil for one that has gone meanwhile. info is what
// could be read of it.
func look(ctx context.Context, dir string, info *Info, readErr error) *Status {
	s := &Status{SID: filepath.Base(dir), Name: info.Name, Labels: info.Labels, Image: info.Image}
	if !alive(dir) || hasCrashed(dir) {
		if !holdsSession(dir) {
			return nil
		}
		s.State, s.Crash = Crashed, crashOf(dir)
		return s
	}
	if readErr == nil && !info.Ready && info.Protocol == protocolVersion {
		s.State = Starting
		return s
	}
	ctx, cancel := context.WithTimeout(ctx, statusTimeout)
	defer cancel()
	reply, err := control(ctx, dir, controlRequest{Op: opStatus})
	switch {
	case hasCrashed(dir): // meanwhile
		s.State, s.Crash = Crashed, crashOf(dir)
		return s
	case err == nil && reply.Status != nil:
		reply.Status.State = Running // also of versions that do not say so
		return reply.Status
	case errors.Is(err, ErrNotFound) && !holdsSession(dir):
		return nil
	}
	s.State, s.Err = Unreachable, errors.Join(err, readErr)
	return s
}

// Names returns what sessions can be named by: their identifiers and their names.
func Names(home string) ([]string, error) {
	sids, err := list(home)
	all := slices.Clone(sids)
	for _, sid := range sids {
		if info, err := readInfo(filepath.Join(sessionsDir(home), sid)); err == nil && isName(info.Name) {
			all = append(all, info.Name)
		}
	}
	return all, err
}

// Status asks the supervisor.
func (s *Session) Status(ctx context.Context) (*Status, error) {
	reply, err := s.ask(ctx, controlRequest{Op: opStatus})
	if err != nil {
		return nil, err
	}
	return reply.Status, nil
}

// Network reports what the guest has done with its network; nil when it has
// none.
func (s *Session) Network(ctx context.Context) (*network.Report, error) {
	reply, err := s.ask(ctx, controlRequest{Op: opNetwork})
	if err != nil {
		return nil, err
	}
	return reply.Network, nil
}

// Forward changes which ports are forwarded, all as asked for or nothing, and
// returns those that then are. Of those to remove, the guest's port may be 0.
func (s *Session) Forward(ctx context.Context, add, remove []forward.Rule) ([]forward.Rule, error) {
	reply, err := s.ask(ctx, controlRequest{Op: opForward, Add: add, Remove: remove})
	if err != nil {
		return nil, err
	}
	return reply.Forwards, nil
}

// ask is control of this session, with a deadline.
func (s *Session) ask(ctx context.Context, req controlRequest) (*controlReply, error) {
	ctx, cancel := context.WithTimeoutCause(ctx, controlTimeout, s.silent("supervisor", controlTimeout))
	defer cancel()
	return control(ctx, s.dir, req)
}

// Wait waits for the session's end. It returns nil for one that was stopped.
func (s *Session) Wait(ctx context.Context) error {
	reply, err := control(ctx, s.dir, controlRequest{Op: opWait})
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
	echo, err := client.Echo(conn)
	if err != nil {
		conn.Close()
		return nil, fmt.Errorf("opening an echo: %w", err)
	}
	return echo, nil
}

func (s *Session) dialAgent(ctx context.Context) (net.Conn, error) { return s.dial(ctx, kindAgent) }

// dial connects to what the supervisor carries to the guest.
func (s *Session) dial(ctx context.Context, kind byte, files ...*os.File) (net.Conn, error) {
	if s.Info.Protocol != protocolVersion {
		return nil, fmt.Errorf("session %s was started by another version of lumina: stop it and start a new one", s.Info.SID)
	}
	conn, err := dialSocket(ctx, s.dir, kind, files...)
	if err != nil {
		return nil, err
	}
	return s.watch(conn), nil
}

// explain tells a VM that ended from a supervisor that did: the supervisor of
// a VM that ended stays until its clients know.
func (s *Session) explain(err error) error {
	if errors.Is(err, ErrSilent) {
		return &runtime.Error{Kind: runtime.SessionDisconnected, Err: err}
	}
	if errors.Is(err, protocol.ErrMalformed) {
		return &runtime.Error{Kind: runtime.SessionDisconnected, Err: fmt.Errorf("the agent of session %s does not keep to its protocol: %w", s.Info.SID, err)}
	}
	ctx, cancel := context.WithTimeout(context.Background(), 2*explainTimeout)
	defer cancel()
	reply, askErr := control(ctx, s.dir, controlRequest{Op: opWhy})
	if askErr != nil {
		// It has ended between the two, or is about to.
		if c := new(Crash); readJSON(s.dir, endFile, c) == nil {
			reply, askErr = &controlReply{Crash: c}, nil
		}
	}
	if askErr != nil || reply.Crash == nil {
		return &runtime.Error{Kind: runtime.SessionDisconnected,
			Err: fmt.Errorf("the connection to session %s was lost: %w", s.Info.SID, err)}
	}
	return &runtime.Error{Kind: runtime.VMCrashed, Err: errors.New(reply.Crash.Message), Console: reply.Crash.Console}
}
