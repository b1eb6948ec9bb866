package app

import (
	"context"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	goruntime "runtime"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/abdul-abdi/lumina/runtime"
	"github.com/abdul-abdi/lumina/runtime/desktop"
	"github.com/abdul-abdi/lumina/runtime/forward"
	"github.com/abdul-abdi/lumina/runtime/image"
	"github.com/abdul-abdi/lumina/runtime/network"
	"github.com/abdul-abdi/lumina/runtime/printable"
	"github.com/abdul-abdi/lumina/runtime/session"
	"github.com/abdul-abdi/lumina/runtime/watch"
)

func imagesDir(home string) string   { return filepath.Join(home, "images") }
func sessionsDir(home string) string { return filepath.Join(home, "sessions") }
func desktopsDir(home string) string { return filepath.Join(home, "desktop-vms") }

// State is all that the library shows.
type State struct {
	Host      Host       `json:"host"`
	Desktops  []Desktop  `json:"desktops"`
	Sessions  []Session  `json:"sessions"`
	Images    []Image    `json:"images"`
	Jobs      []Job      `json:"jobs"`
	Terminals []Terminal `json:"terminals"`
}

// Host is what this host is and has.
type Host struct {
	Version string `json:"version"`
	Home    string `json:"home"`
	OS      string `json:"os"`
	Arch    string `json:"arch"`
	CPUs    int    `json:"cpus"`
	Memory  int64  `json:"memory_bytes"`
	Free    int64  `json:"free_bytes"` // of the state directory's disk
	MaxCPUs int    `json:"max_cpus"`
	// Emulated is whether machines are emulated here, for want of KVM: slow.
	Emulated bool `json:"emulated,omitempty"`
	// NoDesktops is why it runs none.
	NoDesktops string `json:"no_desktops,omitempty"`
}

// Desktop is a desktop with what is known of it.
type Desktop struct {
	ID         string         `json:"id"`
	Name       string         `json:"name"`
	Family     desktop.Family `json:"family"`
	Variant    string         `json:"variant"`
	Arch       string         `json:"arch"`
	Memory     int64          `json:"memory_bytes"`
	CPUs       int            `json:"cpus"`
	DiskSize   int64          `json:"disk_bytes"`
	Used       int64          `json:"used_bytes"` // on the host's disk
	Network    network.Mode   `json:"network"`
	ISO        string         `json:"iso,omitempty"`
	Drivers    string         `json:"drivers,omitempty"`
	SecureBoot bool           `json:"secure_boot,omitempty"`
	TPM        bool           `json:"tpm,omitempty"`
	Created    time.Time      `json:"created"`
	LastBooted *time.Time     `json:"last_booted,omitempty"`
	Running    bool           `json:"running"`
	Boot       *desktop.Boot  `json:"boot,omitempty"`
	Path       string         `json:"path"`
	// Picture changes with the picture of the last screen; 0: there is none.
	Picture int64 `json:"picture,omitempty"`
	// Error is why it cannot be read; then its name is its identifier.
	Error string `json:"error,omitempty"`
}

// Session is a session with what is known of it.
type Session struct {
	SID      string            `json:"sid"`
	Name     string            `json:"name,omitempty"`
	Labels   map[string]string `json:"labels,omitempty"`
	Image    string            `json:"image"`
	State    session.State     `json:"state"`
	Started  time.Time         `json:"started"`
	CPUs     int               `json:"cpus"`
	Memory   int64             `json:"memory_bytes"`
	Network  bool              `json:"network"`
	Active   int               `json:"active_execs"`
	Forwards []forward.Rule    `json:"forwards"`
	// Message is what is wrong with it, and Console the end of what its guest printed.
	Message string `json:"message,omitempty"`
	Console string `json:"console,omitempty"`
}

// Image is an image with what is known of it.
type Image struct {
	Name        string    `json:"name"`
	Arch        string    `json:"arch"`
	Created     time.Time `json:"created"`
	Source      string    `json:"source"`
	Description string    `json:"description,omitempty"`
	Size        int64     `json:"size_bytes"`
	Command     []string  `json:"command,omitempty"`
	Ports       []string  `json:"ports,omitempty"`
	Error       string    `json:"error,omitempty"`
}

// topic is a part of the state, which is sent as a whole when it changes.
type topic string

const (
	topicDesktops  topic = "desktops"
	topicSessions  topic = "sessions"
	topicImages    topic = "images"
	topicJobs      topic = "jobs"
	topicTerminals topic = "terminals"
)

// settle is how long changes are gathered before they are looked at: an installation
// renames several files.
const settle = 20 * time.Millisecond

// library watches the state directory, and tells pages.
type library struct {
	s       *server
	watcher *watch.Watcher
	host    Host

	mu      sync.Mutex
	now     State
	dirty   map[topic]bool
	wake    chan struct{} // has one when something is dirty
	viewers map[*viewer]struct{}
	seen    bool          // whether there was a page
	left    chan struct{} // has one when the last page has gone
}

// viewer is a page that receives changes.
type viewer struct {
	news map[topic]bool // what it was not told yet
	wake chan struct{}  // has one when there are news
}

func newLibrary(s *server) (*library, error) {
	l := &library{s: s, dirty: map[topic]bool{}, wake: make(chan struct{}, 1), viewers: map[*viewer]struct{}{}, left: make(chan struct{}, 1)}
	for _, dir := range []string{desktopsDir(s.Home), sessionsDir(s.Home), imagesDir(s.Home)} {
		if err := os.MkdirAll(dir, 0o700); err != nil {
			return nil, err
		}
	}
	var err error
	if l.watcher, err = watch.New(); err != nil {
		return nil, err
	}
	l.host = Host{Version: s.Version, Home: s.Home, OS: goruntime.GOOS, Arch: goruntime.GOARCH, CPUs: goruntime.NumCPU(), MaxCPUs: runtime.MaxCPUs, Memory: hostMemory(), Emulated: emulated()}
	if s.NoDriver != nil {
		l.host.NoDesktops = s.NoDriver.Error()
	}
	return l, nil
}

// run keeps the state true until ctx ends.
func (l *library) run(ctx context.Context) {
	defer context.AfterFunc(ctx, func() { l.watcher.Close() })()
	go func() {
		for l.watcher.Next(l.changed) == nil {
		}
	}()
	for {
		select {
		case <-l.wake:
		case <-ctx.Done():
			return
		}
		select {
		case <-time.After(settle):
		case <-ctx.Done():
			return
		}
		l.refresh()
	}
}

func (l *library) close() { l.watcher.Close() }

// changed is called after a change in a directory.
func (l *library) changed(dir, name string) {
	switch {
	case name == "serial.log" || strings.HasSuffix(name, ".img"):
	case within(desktopsDir(l.s.Home), dir):
		l.touch(topicDesktops)
	case within(sessionsDir(l.s.Home), dir):
		l.touch(topicSessions)
	default:
		l.touch(topicImages)
	}
}

func within(root, dir string) bool { return dir == root || strings.HasPrefix(dir, root+"/") }

// touch has a topic looked at.
func (l *library) touch(t topic) {
	l.mu.Lock()
	l.dirty[t] = true
	l.mu.Unlock()
	select {
	case l.wake <- struct{}{}:
	default:
	}
}

// refresh looks at what is dirty, and tells the pages.
func (l *library) refresh() {
	l.mu.Lock()
	dirty := l.dirty
	l.dirty = map[topic]bool{}
	l.mu.Unlock()
	for t := range dirty {
		l.look(t)
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	for v := range l.viewers {
		for t := range dirty {
			v.news[t] = true
		}
		select {
		case v.wake <- struct{}{}:
		default:
		}
	}
}

// look reads a part of the state anew.
func (l *library) look(t topic) {
	var set func(*State)
	switch t {
	case topicDesktops:
		all := l.lookDesktops()
		set = func(s *State) { s.Desktops = all }
	case topicSessions:
		all := l.lookSessions()
		set = func(s *State) { s.Sessions = all }
	case topicImages:
		all := l.lookImages()
		set = func(s *State) { s.Images = all }
	case topicJobs:
		all := l.s.jobs.list()
		set = func(s *State) { s.Jobs = all }
	case topicTerminals:
		all := l.s.shells.list()
		set = func(s *State) { s.Terminals = all }
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	set(&l.now)
}

// state is all of it. While a page is open it is known; else it is read, since nothing
// is watched for nobody.
func (l *library) state() State {
	for _, t := range []topic{topicDesktops, topicSessions, topicImages, topicJobs, topicTerminals} {
		l.look(t)
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	l.now.Host = l.host
	l.now.Host.Free, _ = runtime.FreeSpace(l.s.Home)
	return l.now
}

func (l *library) lookDesktops() []Desktop {
	l.watch(desktopsDir(l.s.Home))
	all := []Desktop{}
	for _, m := range l.manifests() {
		dir := l.s.desktops.Path(m)
		l.watch(dir)
		d := Desktop{ID: m.ID, Name: m.Name, Family: m.Family, Variant: m.Variant, Arch: m.Architecture, Memory: m.Memory, CPUs: m.CPUs, DiskSize: m.DiskSize,
			Used: used(dir), Network: m.Network, ISO: m.ISO, Drivers: m.Drivers, SecureBoot: m.SecureBoot, TPM: m.TPM, Created: m.Created, LastBooted: m.LastBooted, Running: l.s.desktops.Running(m), Path: dir}
		if boot, err := l.s.desktops.LastBoot(m); err == nil {
			d.Boot = boot
		}
		if info, err := os.Stat(l.s.desktops.PictureFile(m)); err == nil {
			d.Picture = info.ModTime().UnixMilli()
		}
		all = append(all, d)
	}
	damaged, _ := l.s.desktops.Damaged() // fails as the list of the others does
	for _, e := range damaged {
		m := &desktop.Manifest{ID: e.ID}
		dir := l.s.desktops.Path(m)
		l.watch(dir)
		all = append(all, Desktop{ID: e.ID, Name: e.ID, Used: used(dir), Running: l.s.desktops.Running(m), Path: dir, Error: e.Err.Error()})
	}
	return all
}

// manifests are those of all desktops that can be read.
func (l *library) manifests() []*desktop.Manifest {
	all, err := l.s.desktops.List()
	if err != nil {
		return nil
	}
	return all
}

func (l *library) lookSessions() []Session {
	l.watch(sessionsDir(l.s.Home))
	all := []Session{}
	list, err := session.List(l.s.ctx, l.s.Home)
	if err != nil {
		return all
	}
	for _, st := range list {
		l.watch(filepath.Join(sessionsDir(l.s.Home), st.SID))
		one := Session{SID: st.SID, Name: st.Name, Labels: st.Labels, Image: st.Image, State: st.State, Active: st.ActiveExecs, Forwards: st.Forwards, Message: st.HostError}
		if one.Forwards == nil {
			one.Forwards = []forward.Rule{}
		}
		if open, err := session.Open(l.s.Home, st.SID); err == nil {
			one.Started, one.CPUs, one.Memory, one.Network = open.Info.Started, open.Info.CPUs, open.Info.Memory, open.Info.Network
		}
		switch {
		case st.Crash != nil:
			one.Message, one.Console = st.Crash.Message, printable.Lines(st.Crash.Console)
		case st.Err != nil:
			one.Message = st.Err.Error()
		}
		all = append(all, one)
	}
	return all
}

func (l *library) lookImages() []Image {
	l.watch(imagesDir(l.s.Home))
	all := []Image{}
	names, err := l.s.images.List()
	if err != nil {
		return all
	}
	for _, name := range names {
		h, err := l.s.images.Open(name)
		if err != nil {
			all = append(all, Image{Name: name, Error: err.Error()})
			continue
		}
		all = append(all, describe(h))
		h.Close()
	}
	return all
}

func describe(h *image.Handle) Image {
	img := Image{Name: h.Name, Arch: h.Architecture, Created: h.Created, Source: h.Source.Public(), Description: h.Description,
		Command: append(append([]string{}, h.Config.Entrypoint...), h.Config.Cmd...), Ports: h.Config.ExposedPorts}
	for _, f := range h.Files {
		img.Size += f.Size
	}
	return img
}

// watch also watches a directory, which may have gone meanwhile.
func (l *library) watch(dir string) {
	if err := l.watcher.Add(dir); err != nil && !errors.Is(err, fs.ErrNotExist) && !errors.Is(err, watch.ErrClosed) {
		return // it is seen when a page is loaded
	}
}

// used is what a directory's files take of the host's disk.
func used(dir string) (bytes int64) {
	entries, _ := os.ReadDir(dir)
	for _, e := range entries {
		info, err := e.Info()
		if err != nil {
			continue
		}
		if st, ok := info.Sys().(*syscall.Stat_t); ok {
			bytes += st.Blocks * 512
		}
	}
	return bytes
}
