package desktop

import (
	"bytes"
	"context"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/abdul-abdi/lumina/runtime/flock"
	"github.com/abdul-abdi/lumina/runtime/network"
	"github.com/abdul-abdi/lumina/runtime/vm"
)

// mac is a driver of a Mac that installs a system of one word.
type mac struct {
	firmware
	system  vm.MacOS
	err     error
	address string
	image   string // what was installed
	spec    vm.DesktopSpec
	during  func() // while it installs
}

func (m *mac) NewIdentifier(f vm.Firmware) ([]byte, error) {
	return map[vm.Firmware][]byte{vm.FirmwareEFI: []byte("generic"), vm.FirmwareMac: []byte("a Mac's")}[f], nil
}

func (m *mac) LatestMacOS() (string, error) { return m.address, nil }

func (m *mac) ReadMacOS(image string) (*vm.MacOS, error) {
	b, err := os.ReadFile(image)
	m.image = string(b)
	return &m.system, err
}

func (m *mac) WriteAuxiliary(model []byte, to *os.File) error {
	_, err := to.WriteString("auxiliary of " + string(model))
	return err
}

func (m *mac) InstallMacOS(_ context.Context, spec vm.DesktopSpec, _ string, progress func(float64)) error {
	m.spec = spec
	if m.during != nil {
		m.during()
	}
	progress(0.5)
	_, err := spec.Disk.WriteAt([]byte("macOS"), 0)
	return errors.Join(err, m.err)
}

// macRequest is for a desktop from an image that is there.
func macRequest(t *testing.T) MacRequest {
	t.Helper()
	image := filepath.Join(t.TempDir(), "restore.ipsw")
	if err := os.WriteFile(image, []byte("restore image"), 0o600); err != nil {
		t.Fatal(err)
	}
	return MacRequest{Manifest: Manifest{Name: "mac", DiskSize: 1 << 20, Network: network.ModeNone}, Image: image}
}

func TestInstallMacOS(t *testing.T) {
	s := NewStore(t.TempDir())
	d := &mac{system: vm.MacOS{Version: "15.1 (24B83)", HardwareModel: []byte("model"), CPUs: 4, Memory: 8 << 30}}
	d.during = func() {
		m, err := s.Find("mac")
		if err != nil || !m.Installing || !s.Running(m) {
			t.Errorf("while it is installed, its manifest is %+v, %v", m, err)
		}
		if err := s.Remove("mac"); !errors.Is(err, ErrRunning) {
			t.Errorf("removed while it is installed: %v", err)
		}
	}
	var steps []string
	r := macRequest(t)
	r.Progress = func(step string, done, total int64) {
		if done == total/2 {
			steps = append(steps, step)
		}
	}
	if _, err := s.InstallMacOS(context.Background(), d, r); err != nil {
		t.Fatal(err)
	}
	m, err := s.Find("mac") // as it is read again
	if err != nil {
		t.Fatal(err)
	}
	if m.Family != MacOS || m.Variant != "macOS 15.1 (24B83)" || m.Architecture != "arm64" || m.CPUs != 4 || m.Memory != 8<<30 ||
		string(m.HardwareModel) != "model" || string(m.Identifier) != "a Mac's" || m.Installing {
		t.Errorf("its manifest is %+v", m)
	}
	for file, want := range map[string]string{auxiliaryFile: "auxiliary of model", diskFile: "macOS"} {
		if b, err := os.ReadFile(filepath.Join(s.path(m.ID), file)); err != nil || !bytes.HasPrefix(b, []byte(want)) {
			t.Errorf("%s has %.20q, %v; want %q", file, b, err, want)
		}
	}
	if _, err := os.Stat(filepath.Join(s.path(m.ID), variablesFile)); err == nil {
		t.Error("a Mac has variables of EFI's")
	}
	if string(d.spec.HardwareModel) != "model" || string(d.spec.Identifier) != "a Mac's" || d.spec.ID != m.ID || d.image != "restore image" {
		t.Errorf("installed was %q on %+v", d.image, d.spec)
	}
	if len(steps) != 1 || steps[0] != StepInstall {
		t.Errorf("progress told %q", steps)
	}
	if _, err := s.InstallMacOS(context.Background(), d, r); !errors.Is(err, ErrExists) {
		t.Errorf("a second one of the name: %v", err)
	}
}

// Without an image of one's own, the newest one of Apple's is fetched, and kept for
// the next desktop.
func TestInstallFetchedMacOS(t *testing.T) {
	m := newMirror(t)
	m.answers = []int{100_000} // and then the connection breaks
	s := NewStore(t.TempDir())
	d := &mac{address: m.URL + "/UniversalMac_15.1_Restore.ipsw"}
	fetched := int64(0)
	for _, name := range []string{"first", "second"} {
		r := MacRequest{Manifest: Manifest{Name: name, DiskSize: 1 << 20, Network: network.ModeNone}}
		r.Progress = func(step string, done, _ int64) {
			if step == StepFetch {
				fetched = done
			}
		}
		if _, err := s.installMacOS(context.Background(), d, r, &fetcher{client: m.Client()}); err != nil {
			t.Fatal(err)
		}
		if d.image != string(m.content) || fetched != int64(len(m.content)) {
			t.Errorf("%s: installed were %d bytes, fetched %d, of %d", name, len(d.image), fetched, len(m.content))
		}
	}
	if len(m.ranges) != 2 {
		t.Errorf("the server was asked %d times", len(m.ranges))
	}
}

// A restore image goes when it was not used for long, and when nobody fetches it.
func TestPruneMacCache(t *testing.T) {
	home := t.TempDir()
	if freed, err := PruneMacCache(home, time.Hour); freed != 0 || err != nil {
		t.Errorf("without a cache: %d, %v", freed, err)
	}
	if err := os.MkdirAll(MacCache(home), 0o700); err != nil {
		t.Fatal(err)
	}
	old := time.Now().Add(-2 * time.Hour)
	for name, at := range map[string]time.Time{"new.ipsw": time.Now(), "old.ipsw": old, "left.ipsw.part": old, "fetched.ipsw.part": old} {
		file := filepath.Join(MacCache(home), name)
		if err := errors.Join(os.WriteFile(file, []byte("ten bytes."), 0o600), os.Chtimes(file, at, at)); err != nil {
			t.Fatal(err)
		}
	}
	fetched, err := os.Open(filepath.Join(MacCache(home), "fetched.ipsw.part"))
	if err != nil {
		t.Fatal(err)
	}
	defer fetched.Close()
	if err := flock.Shared(fetched); err != nil {
		t.Fatal(err)
	}
	if freed, err := PruneMacCache(home, time.Hour); freed != 20 || err != nil {
		t.Errorf("PruneMacCache = %d, %v; want 20", freed, err)
	}
	left, err := filepath.Glob(filepath.Join(MacCache(home), "*"))
	if err != nil || len(left) != 2 || filepath.Base(left[0]) != "fetched.ipsw.part" || filepath.Base(left[1]) != "new.ipsw" {
		t.Errorf("left are %q, %v", left, err)
	}
}

func TestInstallMacOSFails(t *testing.T) {
	broken := errors.New("the installer's error")
	for _, tt := range []struct {
		name, want string
		driver     vm.DesktopDriver
		change     func(*MacRequest)
	}{
		{"a driver without macOS", "does not run macOS", firmware{}, nil},
		{"a name", "desktop name", &mac{}, func(r *MacRequest) { r.Name = "a/Mac" }},
		{"no such image", "no such file", &mac{}, func(r *MacRequest) { r.Image += "x" }},
		{"too little memory", "needs 2 cpus and 4294967296 bytes", &mac{system: vm.MacOS{CPUs: 2, Memory: 4 << 30}}, func(r *MacRequest) { r.Memory = 2 << 30 }},
		{"the installer", "the installer's error", &mac{err: broken}, nil},
	} {
		t.Run(tt.name, func(t *testing.T) {
			s := NewStore(t.TempDir())
			r := macRequest(t)
			if tt.change != nil {
				tt.change(&r)
			}
			if _, err := s.InstallMacOS(context.Background(), tt.driver, r); err == nil || !strings.Contains(err.Error(), tt.want) {
				t.Errorf("%v, want %q", err, tt.want)
			}
			if left, _ := filepath.Glob(filepath.Join(s.dir, "[^.]*")); len(left) > 0 {
				t.Errorf("it left %q", left)
			}
		})
	}
}

// An installation that was killed leaves a desktop that says so.
func TestHalfInstalled(t *testing.T) {
	home := t.TempDir()
	s := NewStore(home)
	if _, err := s.Create(context.Background(), &mac{}, Manifest{Name: "half", Family: MacOS, Installing: true}, ""); err != nil {
		t.Fatal(err)
	}
	err := Supervise(context.Background(), Options{Home: home, ID: "half"}, func(error) {})
	if err == nil || !strings.Contains(err.Error(), "did not finish; remove it with lumina desktop rm half") {
		t.Errorf("booting it: %v", err)
	}
	if err := s.Remove("half"); err != nil {
		t.Error(err)
	}
}

func TestCanMacOS(t *testing.T) {
	if err := canMacOS("darwin", "arm64"); err != nil {
		t.Error(err)
	}
	for _, host := range [][2]string{{"darwin", "amd64"}, {"linux", "arm64"}} {
		err := canMacOS(host[0], host[1])
		if !errors.Is(err, vm.ErrUnsupported) || !strings.Contains(err.Error(), "this is "+host[0]+"/"+host[1]) {
			t.Errorf("%v: %v", host, err)
		}
	}
}

// Machines of a driver that makes identifiers keep theirs.
func TestIdentifier(t *testing.T) {
	s := NewStore(t.TempDir())
	if _, err := s.Create(context.Background(), &mac{}, Manifest{Name: "efi", Architecture: "arm64"}, ""); err != nil {
		t.Fatal(err)
	}
	if m, err := s.Find("efi"); err != nil || string(m.Identifier) != "generic" || m.HardwareModel != nil {
		t.Errorf("%+v, %v", m, err)
	}
}
