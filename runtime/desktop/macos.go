package desktop

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	goruntime "runtime"
	"slices"
	"time"

	"github.com/abdul-abdi/lumina/runtime/flock"
	"github.com/abdul-abdi/lumina/runtime/statefile"
	"github.com/abdul-abdi/lumina/runtime/vm"
)

// MacRequest is a desktop of macOS that is to be made.
type MacRequest struct {
	// Manifest has its name and what else is wished.
	Manifest
	// Image is the name of a restore image (IPSW); "" for the newest one of Apple's.
	Image string
	// Progress is called with what is done; it may be nil.
	Progress func(step string, done, total int64)
}

// The steps of MacRequest.Progress.
const (
	StepFetch   = "fetch"
	StepInstall = "install"
)

// MacCache is the directory of a state directory that keeps Apple's restore images.
func MacCache(home string) string { return filepath.Join(home, "cache", "macos") }

// PruneMacCache removes the restore images that were not used for longer than age,
// and what half came of others, and returns how many bytes were freed. What is
// being fetched stays.
func PruneMacCache(home string, age time.Duration) (freed int64, err error) {
	files, err := os.ReadDir(MacCache(home))
	if errors.Is(err, os.ErrNotExist) {
		return 0, nil
	}
	if err != nil {
		return 0, fmt.Errorf("pruning the restore images: %w", err)
	}
	for _, f := range files {
		n, err := pruneFile(filepath.Join(MacCache(home), f.Name()), time.Now().Add(-age))
		if err != nil {
			return freed, fmt.Errorf("pruning the restore images: %w", err)
		}
		freed += n
	}
	return freed, nil
}

func pruneFile(name string, before time.Time) (freed int64, err error) {
	f, err := statefile.Open(name)
	if errors.Is(err, os.ErrNotExist) || errors.Is(err, statefile.ErrDamaged) {
		return 0, nil // complete, and renamed, meanwhile; or none of ours
	}
	if err != nil {
		return 0, err
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil || !info.Mode().IsRegular() || info.ModTime().After(before) {
		return 0, err
	}
	if busy, err := flock.TryExclusive(f); busy || err != nil {
		return 0, err
	}
	if !flock.Names(name, f) {
		return 0, nil // complete, and renamed, meanwhile
	}
	return info.Size(), os.Remove(name)
}

// CanMacOS says why this system cannot run macOS in VMs, if so.
func CanMacOS() error { return canMacOS(goruntime.GOOS, goruntime.GOARCH) }

func canMacOS(goos, goarch string) error {
	if goos == "darwin" && goarch == "arm64" {
		return nil
	}
	return fmt.Errorf("%w: macOS runs in VMs of a Mac with Apple silicon only, and this is %s/%s", vm.ErrUnsupported, goos, goarch)
}

func macDriver(driver vm.DesktopDriver) (vm.MacDriver, error) {
	mac, ok := driver.(vm.MacDriver)
	if !ok {
		return nil, fmt.Errorf("%w: it does not run macOS; only the driver of a Mac with Apple silicon does", vm.ErrUnsupported)
	}
	return mac, nil
}

// InstallMacOS makes a desktop and installs macOS on it. One whose installation
// ended half-way is removed.
func (s *Store) InstallMacOS(ctx context.Context, driver vm.DesktopDriver, r MacRequest) (*Manifest, error) {
	return s.installMacOS(ctx, driver, r, &fetcher{client: http.DefaultClient, pause: time.Second})
}

func (s *Store) installMacOS(ctx context.Context, driver vm.DesktopDriver, r MacRequest, f *fetcher) (*Manifest, error) {
	mac, err := macDriver(driver)
	if err != nil {
		return nil, err
	}
	if r.Progress == nil {
		r.Progress = func(string, int64, int64) {}
	}
	// Before anything large is fetched.
	if err := CheckName(r.Name); err != nil {
		return nil, err
	}
	all, err := s.List()
	if err != nil {
		return nil, err
	}
	if slices.ContainsFunc(all, func(m *Manifest) bool { return m.Name == r.Name }) {
		return nil, fmt.Errorf("creating desktop %q: %w", r.Name, ErrExists)
	}
	if err := s.fetchMacOS(ctx, mac, &r, f); err != nil {
		return nil, err
	}
	system, err := mac.ReadMacOS(r.Image)
	if err != nil {
		return nil, err
	}
	if err := r.suit(system); err != nil {
		return nil, err
	}
	m, err := s.Create(ctx, driver, r.Manifest, "")
	if err != nil {
		return nil, err
	}
	if err := s.install(ctx, mac, m, r); err != nil {
		return nil, errors.Join(fmt.Errorf("desktop %q: %w", m.Name, err), s.Remove(m.ID))
	}
	return m, nil
}

// fetchMacOS gets Apple's restore image, when the request has none.
func (s *Store) fetchMacOS(ctx context.Context, mac vm.MacDriver, r *MacRequest, f *fetcher) error {
	if r.Image != "" {
		return nil
	}
	address, err := mac.LatestMacOS()
	if err != nil {
		return err
	}
	f.progress = func(done, total int64) { r.Progress(StepFetch, done, total) }
	r.Image, err = f.fetch(ctx, address, MacCache(filepath.Dir(s.dir)))
	return err
}

// suit fills in what the restore image says, and looks whether it has enough.
func (r *MacRequest) suit(system *vm.MacOS) error {
	set(&r.Memory, max(DefaultMemory, system.Memory))
	set(&r.CPUs, max(DefaultCPUs, system.CPUs))
	if r.Memory < system.Memory || r.CPUs < system.CPUs {
		return fmt.Errorf("macOS %s needs %d cpus and %d bytes of memory; asked for are %d and %d",
			system.Version, system.CPUs, system.Memory, r.CPUs, r.Memory)
	}
	r.Family, r.Variant, r.Architecture = MacOS, "macOS "+system.Version, "arm64"
	r.HardwareModel, r.Installing = system.HardwareModel, true
	return nil
}

// install installs macOS on a desktop, which nothing else uses meanwhile.
func (s *Store) install(ctx context.Context, mac vm.MacDriver, m *Manifest, r MacRequest) error {
	lock, err := s.hold(m)
	if err != nil {
		return err
	}
	defer lock.Close()
	p, err := m.open(s.path(m.ID))
	if err != nil {
		return err
	}
	defer p.files.close()
	if p.network != nil {
		defer p.network.Close()
	}
	const whole = 1000 // of a fraction that is reported as a number
	err = mac.InstallMacOS(ctx, p.spec, r.Image, func(part float64) { r.Progress(StepInstall, int64(part*whole), whole) })
	if err != nil {
		return err
	}
	m.Installing = false
	return m.write(s.path(m.ID))
}
