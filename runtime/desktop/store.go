// Package desktop keeps whole systems with a screen: VMs with EFI firmware,
// disk and variables of their own, installed from their vendors' media.
//
// A desktop is a bundle, a directory desktop-vms/UUID/ with
//
//	manifest.json  see Manifest
//	disk.img       raw and sparse
//	efi.vars       the firmware's variables; of a Mac, in its place:
//	auxiliary.img  its auxiliary storage
//	boot.json      how its last boot went, see Boot
//	serial.log     the end of what its guest wrote to its serial port since then
//	tpm.state      of its TPM, if it has one
//	screen.png     a small picture of what was on its screen last
//	lock           held by the process that runs it, and names it
//	socket         of that process, see supervisor.go
package desktop

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"time"

	"github.com/abdul-abdi/lumina/runtime/driver"
	"github.com/abdul-abdi/lumina/runtime/durable"
	"github.com/abdul-abdi/lumina/runtime/flock"
	"github.com/abdul-abdi/lumina/runtime/name"
	"github.com/abdul-abdi/lumina/runtime/printable"
	"github.com/abdul-abdi/lumina/runtime/vm"
)

const (
	manifestFile  = "manifest.json"
	diskFile      = "disk.img"
	variablesFile = "efi.vars"
	auxiliaryFile = "auxiliary.img"
	tpmFile       = "tpm.state"
	lockFile      = "lock"
	// unfinished is how directories of desktops begin that are being made.
	unfinished = ".new-"
)

var (
	// ErrNotFound is wrapped when there is no desktop of a name.
	ErrNotFound = errors.New("no such desktop")
	// ErrRunning is wrapped when a desktop is running and must not.
	ErrRunning = errors.New("it is running already")
	// ErrNotRunning is wrapped when a desktop is not running and must.
	ErrNotRunning = errors.New("it is not running")
	// ErrExists is wrapped when there is a desktop of the name already.
	ErrExists = errors.New("already exists")
	// ErrName is wrapped when no desktop can be called so.
	ErrName = errors.New("it is not a name")
)

// CheckName returns an error when no desktop can be called so. A name is for people:
// directories have identifiers.
func CheckName(s string) error {
	if s == "" || len(s) > name.MaxLength || strings.TrimSpace(s) != s || strings.ContainsAny(s, `/\`) || strings.HasPrefix(s, "-") || printable.Line(s) != s {
		return fmt.Errorf("desktop name %q: %w: want one line of at most %d bytes, without slashes, that begins with neither '-' nor a space", s, ErrName, name.MaxLength)
	}
	return nil
}

// Store is a directory of desktops.
type Store struct {
	dir string
}

// NewStore makes a store in a state directory.
func NewStore(home string) *Store {
	return &Store{filepath.Join(home, "desktop-vms")}
}

// Create makes a desktop and returns its manifest. Of m it takes what is set;
// driver's firmware is the desktop's, and its disk is a copy of disk, the name of
// a qcow2 or raw image, or empty for "". It appears at once, and whole.
func (s *Store) Create(ctx context.Context, driver vm.DesktopDriver, m Manifest, disk string) (*Manifest, error) {
	if err := CheckName(m.Name); err != nil {
		return nil, err
	}
	m.Memory, m.DiskSize = vm.RoundUp(m.Memory), vm.RoundUp(m.DiskSize)
	err := s.make(&m, func(dir string) error {
		if err := m.makeDisk(ctx, filepath.Join(dir, diskFile), disk); err != nil {
			return err
		}
		m.fill(dir, m.Created)
		return m.makeFirmware(driver, dir)
	})
	if err != nil {
		return nil, fmt.Errorf("creating desktop %q: %w", m.Name, err)
	}
	return &m, nil
}

// make makes the directory of a desktop, which fill fills. It appears at once, and
// whole. What was set aside for longer than its time goes, to make room.
func (s *Store) make(m *Manifest, fill func(dir string) error) error {
	lock, err := s.lock()
	if err != nil {
		return err
	}
	defer lock.Close()
	all, err := s.List()
	if err != nil {
		return err
	}
	if slices.ContainsFunc(all, func(o *Manifest) bool { return o.Name == m.Name }) {
		return ErrExists
	}
	if err := s.PurgeExpired(); err != nil {
		return err
	}
	m.ID, m.Created = name.UUID(), time.Now().UTC()
	dir := filepath.Join(s.dir, unfinished+m.ID)
	if err := os.Mkdir(dir, 0o700); err != nil {
		return err
	}
	defer os.RemoveAll(dir)
	if err := fill(dir); err != nil {
		return err
	}
	if err := m.write(dir); err != nil {
		return err
	}
	return durable.Move(dir, s.path(m.ID))
}

// makeDisk makes a disk of the manifest's size, or of that of what it is copied of.
func (m *Manifest) makeDisk(ctx context.Context, name, from string) error {
	if from == "" {
		set(&m.DiskSize, DefaultDiskSize)
		return makeFile(name, func(f *os.File) error { return f.Truncate(m.DiskSize) })
	}
	f, err := os.OpenFile(from, os.O_RDONLY|syscall.O_NONBLOCK, 0) // a FIFO is not waited for
	if err != nil {
		return fmt.Errorf("the disk to copy: %w", err)
	}
	defer f.Close()
	image, err := openDisk(f)
	if err != nil {
		return fmt.Errorf("disk %q: %w", from, err)
	}
	set(&m.DiskSize, vm.RoundUp(image.Size()))
	if m.DiskSize < image.Size() {
		return fmt.Errorf("disk %q has %d MB and does not fit into a disk of %d MB", from, (image.Size()+999_999)/1_000_000, m.DiskSize/1_000_000)
	}
	if raw, ok := image.(*rawDisk); ok && clone(name, raw.File) {
		return enlarge(name, m.DiskSize)
	}
	return makeFile(name, func(to *os.File) error {
		if err := copyDisk(ctx, to, image); err != nil {
			return fmt.Errorf("copying disk %q: %w", from, err)
		}
		return to.Truncate(m.DiskSize)
	})
}

// enlarge gives a clone, whose rights are its source's, its size and its own.
func enlarge(name string, size int64) error {
	if err := os.Chmod(name, 0o600); err != nil {
		return err
	}
	f, err := os.OpenFile(name, lockFlags|os.O_RDWR, 0)
	if err != nil {
		return err
	}
	defer f.Close()
	return errors.Join(f.Truncate(size), f.Sync())
}

// makeFirmware makes what the firmware keeps, and the machine's identifier.
func (m *Manifest) makeFirmware(driver vm.DesktopDriver, dir string) error {
	write := func(f *os.File) error { return driver.WriteVariables(m.Architecture, m.SecureBoot, f) }
	if m.Family == MacOS {
		mac, err := macDriver(driver)
		if err != nil {
			return err
		}
		write = func(f *os.File) error { return mac.WriteAuxiliary(m.HardwareModel, f) }
	}
	if err := m.identify(driver); err != nil {
		return err
	}
	return makeFile(filepath.Join(dir, m.firmwareFile()), write)
}

// identify makes the machine's identifier.
func (m *Manifest) identify(driver vm.DesktopDriver) (err error) {
	d, ok := driver.(vm.Identifies)
	if !ok {
		return nil
	}
	firmware := vm.FirmwareEFI
	if m.Family == MacOS {
		firmware = vm.FirmwareMac
	}
	m.Identifier, err = d.NewIdentifier(firmware)
	return err
}

func (m *Manifest) firmwareFile() string {
	if m.Family == MacOS {
		return auxiliaryFile
	}
	return variablesFile
}

func makeFile(name string, fill func(*os.File) error) error {
	f, err := os.OpenFile(name, os.O_RDWR|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return err
	}
	defer f.Close()
	return errors.Join(fill(f), f.Sync())
}

func (s *Store) path(id string) string { return filepath.Join(s.dir, id) }

// lockTimeout is how long one waits for another that is being made: most take a moment,
// a copy of a large disk takes longer.
const lockTimeout = 10 * time.Second

// lock makes names unique: it is held while a desktop is created. What those
// left who died doing so is removed.
func (s *Store) lock() (*os.File, error) {
	if err := durable.MkdirAll(s.dir, 0o700); err != nil {
		return nil, err
	}
	f, err := os.OpenFile(filepath.Join(s.dir, ".lock"), lockFlags|os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return nil, err
	}
	ctx, cancel := context.WithTimeoutCause(context.Background(), lockTimeout, errors.New("another one is being created"))
	defer cancel()
	if err := flock.Exclusive(ctx, f); err != nil {
		return nil, err
	}
	left, _ := filepath.Glob(filepath.Join(s.dir, unfinished+"*")) // fails for bad patterns only
	for _, dir := range left {
		if err := os.RemoveAll(dir); err != nil {
			f.Close()
			return nil, err
		}
	}
	return f, nil
}

// List returns all desktops that can be read, the oldest first. [Store.Damaged] has the
// others.
func (s *Store) List() ([]*Manifest, error) {
	all, _, err := s.scan()
	return all, err
}

// scan reads all desktops.
func (s *Store) scan() (all []*Manifest, damaged []*DamagedError, err error) {
	entries, err := os.ReadDir(s.dir)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil, nil
	}
	if err != nil {
		return nil, nil, fmt.Errorf("listing desktops: %w", err)
	}
	for _, e := range entries {
		if !e.IsDir() || strings.HasPrefix(e.Name(), ".") {
			continue
		}
		m, err := s.read(e.Name())
		var d *DamagedError
		switch {
		case err == nil:
			all = append(all, m)
		case errors.As(err, &d):
			damaged = append(damaged, d)
		}
	}
	slices.SortFunc(all, func(a, b *Manifest) int { return a.Created.Compare(b.Created) })
	return all, damaged, nil
}

// Find returns the desktop of a name, of an identifier or a unique beginning of one
// of at least four characters, or whose directory is at a path, which has a slash. Of one
// that cannot be read the error is a *DamagedError.
func (s *Store) Find(id string) (*Manifest, error) {
	if strings.Contains(id, "/") {
		return s.at(id)
	}
	all, damaged, err := s.scan()
	if err != nil {
		return nil, err
	}
	var found []*Manifest
	for _, m := range all {
		if m.Name == id {
			return m, nil
		}
		if isBeginning(id, m.ID) {
			found = append(found, m)
		}
	}
	var unread []*DamagedError
	for _, d := range damaged {
		if d.ID == id {
			return nil, d
		}
		if isBeginning(id, d.ID) {
			unread = append(unread, d)
		}
	}
	switch n := len(found) + len(unread); {
	case n == 0:
		return nil, fmt.Errorf("desktop %q: %w; see lumina desktop ls", id, ErrNotFound)
	case n > 1:
		return nil, fmt.Errorf("desktop %q: %d identifiers begin with it; give more characters", id, n)
	case len(found) == 1:
		return found[0], nil
	}
	return nil, unread[0]
}

// isBeginning reports whether what a user typed is the beginning of an identifier. Less
// than four characters are none: a desktop that has another name must not be removed
// because its identifier begins with an 'a'.
func isBeginning(typed, id string) bool {
	return len(typed) >= 4 && strings.HasPrefix(id, typed)
}

// at returns the desktop whose directory is at a path.
func (s *Store) at(dir string) (*Manifest, error) {
	given, err := os.Stat(dir)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("desktop %q: %w", dir, ErrNotFound)
	}
	if err != nil {
		return nil, err
	}
	id := filepath.Base(filepath.Clean(dir))
	if info, err := os.Stat(s.path(id)); err != nil || !os.SameFile(given, info) {
		return nil, fmt.Errorf("desktop %q: %w: it is not in %s", dir, ErrNotFound, s.dir)
	}
	return s.read(id)
}

// Path is a desktop's directory.
func (s *Store) Path(m *Manifest) string { return s.path(m.ID) }

// lockFlags: a lock that is a link is not followed, one that is a FIFO not waited for.
const lockFlags = syscall.O_NOFOLLOW | syscall.O_NONBLOCK

// hold takes the lock of a desktop, for the process that runs or removes it.
func (s *Store) hold(m *Manifest) (*os.File, error) {
	f, err := os.OpenFile(filepath.Join(s.path(m.ID), lockFile), lockFlags|os.O_RDWR|os.O_CREATE, 0o600)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("desktop %q: %w", m.Name, ErrNotFound)
	}
	if err != nil {
		return nil, err
	}
	busy, err := flock.TryExclusive(f)
	if err == nil && busy {
		// One that runs it says so there; who only looks has the lock for a moment.
		if n, _ := f.ReadAt(make([]byte, 1), 0); n > 0 {
			f.Close()
			return nil, fmt.Errorf("desktop %q: %w", m.Name, ErrRunning)
		}
		ctx, cancel := context.WithTimeoutCause(context.Background(), lookTime, fmt.Errorf("desktop %q: %w", m.Name, ErrRunning))
		defer cancel()
		if err := flock.Exclusive(ctx, f); err != nil {
			return nil, err
		}
	}
	if err == nil {
		err = f.Truncate(0) // what names a supervisor that has ended
	}
	if err != nil {
		f.Close()
		return nil, fmt.Errorf("desktop %q: %w", m.Name, err)
	}
	return f, nil
}

// lookTime is longer than anybody has a desktop's lock who only looks.
const lookTime = time.Second

// Running says whether a process runs a desktop.
func (s *Store) Running(m *Manifest) bool {
	f, err := os.OpenFile(filepath.Join(s.path(m.ID), lockFile), lockFlags|os.O_RDONLY, 0)
	if err != nil {
		return false // never booted, or gone
	}
	defer f.Close()
	busy, err := flock.TryShared(f)
	return err == nil && busy
}

// Remove removes a desktop that is not running, and all it holds; one that is damaged, too.
func (s *Store) Remove(id string) error {
	m, err := s.Find(id)
	if d := new(DamagedError); errors.As(err, &d) {
		return s.removeDamaged(d)
	}
	if err != nil {
		return err
	}
	lock, err := s.hold(m)
	if err != nil {
		return err
	}
	defer lock.Close()
	if err := s.removeDir(s.path(m.ID), m.ID); err != nil {
		return fmt.Errorf("removing desktop %q: %w", m.Name, err)
	}
	return nil
}

// Driver is d as one that runs desktops; this system's own when d is nil.
func Driver(d vm.Driver) (_ vm.DesktopDriver, err error) {
	if d == nil {
		if d, err = driver.New(driver.Options{}); err != nil {
			return nil, err
		}
	}
	desktops, ok := d.(vm.DesktopDriver)
	if !ok {
		return nil, fmt.Errorf("desktops: %w", vm.ErrUnsupported)
	}
	return desktops, nil
}
