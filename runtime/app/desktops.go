package app

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"github.com/abdul-abdi/lumina/runtime"
	"github.com/abdul-abdi/lumina/runtime/desktop"
	"github.com/abdul-abdi/lumina/runtime/network"
	"github.com/abdul-abdi/lumina/runtime/printable"
	"github.com/abdul-abdi/lumina/runtime/vm"
)

func (s *server) desktopRoutes() {
	s.mux.HandleFunc("GET /api/systems", answer(func(*http.Request, none) (any, error) { return desktop.Catalog() }))
	s.mux.HandleFunc("GET /api/hardware", answer(s.hardware))
	s.mux.HandleFunc("POST /api/desktops", answer(s.createDesktop))
	s.mux.HandleFunc("POST /api/desktops/{id}/boot", answer(s.bootDesktop))
	s.mux.HandleFunc("POST /api/desktops/{id}/stop", answer(s.stopDesktop))
	s.mux.HandleFunc("POST /api/desktops/{id}/keys", answer(s.pressKeys))
	s.mux.HandleFunc("POST /api/desktops/{id}/type", answer(s.typeText))
	s.changeRoutes()
	s.mux.HandleFunc("GET /api/desktops/{id}/picture", s.picture)
	s.mux.HandleFunc("GET /api/desktops/{id}/screen", s.screen)
	s.mux.HandleFunc("GET /api/desktops/{id}/sound", s.sound)
	s.mux.HandleFunc("GET /api/desktops/{id}/serial", s.serial)
	s.mux.HandleFunc("GET /api/desktops/{id}/diagnostics", s.diagnostics)
}

// Wish is a desktop that is to be made.
type Wish struct {
	Name     string       `json:"name"`
	System   string       `json:"system,omitempty"` // of the catalogue
	File     string       `json:"file,omitempty"`   // an ISO or a disk of this host
	Arch     string       `json:"arch,omitempty"`
	SHA256   string       `json:"sha256,omitempty"`
	CPUs     int          `json:"cpus"`
	Memory   int64        `json:"memory_bytes"`
	DiskSize int64        `json:"disk_bytes"`
	Network  network.Mode `json:"network"`
	Drivers  string       `json:"drivers,omitempty"` // an ISO
	// Secure and TPM are for Secure Boot and a TPM 2.0; without them, as the system asks.
	Secure *bool `json:"secure_boot,omitempty"`
	TPM    *bool `json:"tpm,omitempty"`
	Force  bool  `json:"force,omitempty"`
}

// request is what a wish asks for, as far as that is known before anything is fetched.
func (w *Wish) request(host Host) (*desktop.Request, error) {
	r := &desktop.Request{Manifest: desktop.Manifest{Name: w.Name, Architecture: w.Arch, CPUs: w.CPUs, Memory: w.Memory, DiskSize: w.DiskSize, Network: w.Network,
		Drivers: w.Drivers}, WithTPM: w.TPM, WithSecureBoot: w.Secure, SHA256: w.SHA256, Force: w.Force}
	if err := desktop.CheckName(w.Name); err != nil {
		return nil, bad{err}
	}
	if r.Architecture == "" {
		r.Architecture = host.Arch
	}
	if w.System != "" {
		os, err := desktop.FindOS(w.System, r.Architecture)
		if err != nil {
			return nil, bad{err}
		}
		r.OS, r.Architecture = os, os.Architecture
	}
	if err := checkArch(r.Architecture); err != nil {
		return nil, err
	}
	if r.CPUs < 0 || r.Memory < 0 || r.DiskSize < 0 {
		return nil, bad{errors.New("sizes are not below 0")}
	}
	if r.DiskSize > 0 {
		if err := desktop.CheckDiskSize(r.DiskSize); err != nil {
			return nil, bad{err}
		}
	}
	if r.CPUs == 0 {
		r.CPUs = desktop.DefaultCPUs
	}
	if r.Network == "" {
		r.Network = network.ModeNAT
	}
	if err := errors.Join((runtime.VMOptions{CPUs: r.CPUs, Memory: r.Memory}).CheckSize(), r.Network.Check()); err != nil {
		return nil, bad{err}
	}
	return r, nil
}

// createDesktop makes a desktop and boots it, as a job: the download of its ISO may
// take an hour, and the check of its digest a minute.
func (s *server) createDesktop(r *http.Request, w Wish) (any, error) {
	request, err := w.request(s.library.host)
	if err != nil {
		return nil, err
	}
	if s.NoDriver != nil {
		return nil, s.NoDriver
	}
	if w.File == "" && !request.OS.Fetchable() {
		return nil, bad{fmt.Errorf("%s: want a file, its ISO: %s has it", w.Name, request.OS.URL)}
	}
	if w.File != "" {
		// What is certainly wrong is an error at once.
		check := checkFile(r.Context(), w.File, request.Architecture)
		if check.Reason != "" && !w.Force {
			return nil, bad{errors.New(check.Reason)}
		}
		if check.Kind == kindDisk {
			request.Disk = w.File
		} else {
			request.ISO = w.File
		}
	}
	if err := s.checkParts(&w, request.Architecture); err != nil {
		return nil, bad{err}
	}
	if _, err := s.desktops.Find(w.Name); err == nil {
		return nil, fmt.Errorf("desktop %q: %w", w.Name, desktop.ErrExists)
	}
	return s.jobs.start(s.ctx, &s.streams, "create", w.Name, func(ctx context.Context, progress Progress) (string, error) {
		return s.create(ctx, request, progress)
	}), nil
}

// checkParts says what a desktop cannot have beside its file.
func (s *server) checkParts(w *Wish, arch string) error {
	if w.Drivers != "" {
		if !filepath.IsAbs(w.Drivers) {
			return fmt.Errorf("second ISO %q: want the whole path, which begins with a slash", w.Drivers)
		}
		if _, err := desktop.ExamineDrivers(w.Drivers); err != nil {
			return err
		}
	}
	h := s.lacks(arch)
	if w.TPM != nil && *w.TPM && h.TPM != "" {
		return errors.New(h.TPM)
	}
	if w.Secure != nil && *w.Secure && h.SecureBoot != "" {
		return errors.New(h.SecureBoot)
	}
	return nil
}

func (s *server) create(ctx context.Context, r *desktop.Request, progress Progress) (id string, err error) {
	fetched := r.ISO == "" && r.Disk == ""
	if fetched {
		progress("download", 0, 0)
		if r.ISO, err = r.OS.Fetch(ctx, s.Home, func(done, total int64) { progress("download", done, total) }); err != nil {
			return "", err
		}
	}
	progress("check", 0, 0)
	if err := r.Examine(ctx); err != nil {
		if fetched && ctx.Err() == nil {
			os.Remove(r.ISO) // another file, or no ISO at all: the next try must not find it
		}
		return "", err
	}
	if err := runtime.CheckSpace(s.Home, s.DiskReserve); err != nil {
		return "", err
	}
	if err := r.Secure(s.Driver); err != nil {
		return "", err
	}
	progress("create", 0, 0)
	m, err := s.desktops.Create(ctx, s.Driver, r.Manifest, r.Disk)
	if err != nil {
		return "", err
	}
	progress("boot", 0, 0)
	// A failure from here on is shown on the desktop's own page.
	_, _ = s.StartDesktop(ctx, desktop.Options{Home: s.Home, ID: m.ID})
	return m.ID, nil
}

// bootDesktop boots a desktop, with another ISO than its own or none if so wished.
func (s *server) bootDesktop(r *http.Request, in struct {
	ISO string `json:"iso,omitempty"`
}) (any, error) {
	m, err := s.desktops.Find(r.PathValue("id"))
	if err != nil {
		return nil, err
	}
	if err := runtime.CheckSpace(s.Home, s.DiskReserve); err != nil {
		return nil, err
	}
	// It goes on booting when the page that asked for it is closed.
	_, err = s.StartDesktop(s.ctx, desktop.Options{Home: s.Home, ID: m.ID, ISO: in.ISO})
	return nil, err
}

func (s *server) client(r *http.Request) (*desktop.Client, error) {
	return desktop.Open(s.Home, r.PathValue("id"))
}

// stopDesktop presses the power button, or with force ends it at once. It answers when
// the desktop has ended.
func (s *server) stopDesktop(r *http.Request, in struct {
	Force bool `json:"force"`
}) (any, error) {
	c, err := s.client(r)
	if err != nil {
		return nil, err
	}
	err = c.Stop(r.Context(), in.Force)
	if errors.Is(err, desktop.ErrNotRunning) {
		err = nil
	}
	return nil, err
}

// pressKeys presses chords such as ctrl+alt+delete, one after the other.
func (s *server) pressKeys(r *http.Request, in struct {
	Keys []string `json:"keys"`
}) (any, error) {
	var all [][]vm.Key
	for _, k := range in.Keys {
		keys, err := desktop.ParseKeys(k)
		if err != nil {
			return nil, bad{err}
		}
		all = append(all, keys)
	}
	c, err := s.client(r)
	if err != nil || len(all) == 0 {
		return nil, err
	}
	return nil, c.Press(r.Context(), all...)
}

// typeText types a text, as on a US keyboard.
func (s *server) typeText(r *http.Request, in struct {
	Text string `json:"text"`
}) (any, error) {
	if err := desktop.CheckText(in.Text); err != nil {
		return nil, bad{err}
	}
	c, err := s.client(r)
	if err != nil {
		return nil, err
	}
	return nil, c.Type(r.Context(), in.Text)
}

// picture is what is on the screen: of a desktop that runs, as it is now.
func (s *server) picture(w http.ResponseWriter, r *http.Request) {
	c, err := s.client(r)
	if err != nil {
		fail(w, err)
		return
	}
	ctx, cancel := context.WithTimeout(r.Context(), pictureTimeout)
	defer cancel()
	shot, err := c.Screenshot(ctx)
	if err != nil {
		shot, err = os.ReadFile(s.desktops.PictureFile(c.Manifest))
	}
	if err != nil {
		fail(w, err)
		return
	}
	w.Header().Set("Content-Type", "image/png")
	_, _ = w.Write(shot)
}

// pictureTimeout bounds how long a desktop may take for its picture.
const pictureTimeout = 10 * time.Second

// diagnostics is a text that says how a desktop's last boot went, to be sent to
// somebody who may know why.
func (s *server) diagnostics(w http.ResponseWriter, r *http.Request) {
	m, err := s.desktops.Find(r.PathValue("id"))
	if err != nil {
		fail(w, err)
		return
	}
	var b strings.Builder
	h := s.library.host
	fmt.Fprintf(&b, "lumina %s on %s/%s, %d CPUs, %d MB\n", h.Version, h.OS, h.Arch, h.CPUs, h.Memory>>20)
	fmt.Fprintf(&b, "desktop %q: %s for %s, %d CPUs, %d MB of memory, a disk of %d MB, network %s\n", m.Name, m.Variant, m.Architecture, m.CPUs, m.Memory>>20, m.DiskSize>>20, m.Network)
	if m.ISO != "" {
		fmt.Fprintf(&b, "ISO: %s\n", printable.Line(m.ISO))
	}
	boot, err := s.desktops.LastBoot(m)
	switch {
	case err != nil:
		fmt.Fprintf(&b, "its last boot: %v\n", err)
	case boot == nil:
		fmt.Fprintln(&b, "it was never booted")
	default:
		fmt.Fprintf(&b, "booted %s\n", boot.Began.Format(time.RFC3339))
		for _, p := range boot.Phases {
			fmt.Fprintf(&b, "  %8s ms  %s\n", strconv.FormatInt(p.At, 10), p.Name)
		}
		if boot.Error != "" {
			fmt.Fprintf(&b, "ended: %s\n", printable.Lines(boot.Error))
		}
	}
	fmt.Fprintf(&b, "\nThe end of its serial port's output:\n%s\n", printable.Lines(string(tail(s.desktops.SerialFile(m), diagnosticsTail))))
	w.Header().Set("Content-Type", "text/plain; charset=utf-8")
	_, _ = w.Write([]byte(b.String()))
}

// diagnosticsTail is how much of the serial port's output is included, in bytes.
const diagnosticsTail = 16 << 10

// tail is the end of a file.
func tail(name string, size int64) []byte {
	f, err := os.Open(name)
	if err != nil {
		return nil
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		return nil
	}
	b := make([]byte, min(size, info.Size()))
	n, _ := f.ReadAt(b, info.Size()-int64(len(b)))
	return b[:n]
}
