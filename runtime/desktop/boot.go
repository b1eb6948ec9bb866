package desktop

import (
	"bytes"
	"encoding/json"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"time"

	"github.com/abdul-abdi/lumina/runtime/statefile"
)

const (
	bootFile   = "boot.json"
	serialFile = "serial.log"
)

// Boot is how a desktop's last boot went: what a person wants to know while its
// screen is dark, and when it has ended.
type Boot struct {
	Began  time.Time `json:"began"`
	Phases []Phase   `json:"phases"`
	// Ended is nil while it runs.
	Ended *time.Time `json:"ended,omitempty"`
	// Error is why it ended, if it was not asked to.
	Error string `json:"error,omitempty"`
}

// Phase is a moment of a boot.
type Phase struct {
	Name string `json:"name"`
	// At is how long the boot had taken by then, in milliseconds.
	At int64 `json:"at_ms"`
}

// The phases, in their order. Those from PhaseFirmware on are read off what the guest
// writes to its serial port: a guest that writes nothing there has none of them.
const (
	PhaseParts    = "parts"    // disk, ISO and network are opened
	PhaseMachine  = "machine"  // the machine runs
	PhaseFirmware = "firmware" // the firmware has spoken
	PhaseLoader   = "loader"   // the firmware has started a loader
	PhaseKernel   = "kernel"
	PhaseSystem   = "system" // the first program
	PhaseLogin    = "login"
)

// marks are what guests print when a phase begins.
var marks = []struct {
	phase string
	texts []string
}{
	{PhaseLoader, []string{"BdsDxe: starting Boot", "GNU GRUB", "Booting `", "Loading Linux", "ISOLINUX"}},
	{PhaseKernel, []string{"Linux version ", "EFI stub: ", "Decompressing Linux"}},
	{PhaseSystem, []string{"Run /init as init process", "Run /sbin/init as init process", "systemd[1]:"}},
	{PhaseLogin, []string{" login: "}},
}

// longestMark is how many bytes of the output a mark may be spread over.
const longestMark = 64

// The serial port's output is kept in a file of at most maxSerial bytes: when it is
// full, the last keptSerial of them stay.
const (
	maxSerial  = 1 << 20
	keptSerial = 256 << 10
)

// record keeps how a boot goes. What cannot be written is left out: the boot goes on.
type record struct {
	mu     sync.Mutex
	dir    string
	boot   Boot
	serial *os.File // nil where there is none
	size   int64
	last   []byte // the end of the output, which may begin a mark
}

func newRecord(dir string) *record {
	r := &record{dir: dir, boot: Boot{Began: time.Now().UTC(), Phases: []Phase{}}}
	// A new file: what has its name may be a link, which would lose what it leads to.
	serial := filepath.Join(dir, serialFile)
	_ = os.Remove(serial)
	r.serial, _ = os.OpenFile(serial, os.O_RDWR|os.O_CREATE|os.O_EXCL, 0o600)
	r.write()
	return r
}

// reached notes that a phase has begun; those after it are over, or were not seen.
func (r *record) reached(phase string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.note(phase)
}

func (r *record) note(phase string) {
	if slices.ContainsFunc(r.boot.Phases, func(p Phase) bool { return p.Name == phase }) {
		return
	}
	r.boot.Phases = append(r.boot.Phases, Phase{phase, time.Since(r.boot.Began).Milliseconds()})
	r.write()
}

// Write is given what the guest writes to its serial port.
func (r *record) Write(p []byte) (int, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.note(PhaseFirmware)
	text := append(r.last, p...)
	for _, m := range marks {
		if slices.ContainsFunc(m.texts, func(s string) bool { return bytes.Contains(text, []byte(s)) }) {
			r.note(m.phase)
		}
	}
	r.last = slices.Clone(text[max(0, len(text)-longestMark):])
	if r.serial == nil {
		return len(p), nil
	}
	if r.size+int64(len(p)) > maxSerial {
		r.shorten()
	}
	n, _ := r.serial.WriteAt(p[max(0, len(p)-keptSerial):], r.size)
	r.size += int64(n)
	return len(p), nil
}

// shorten forgets the beginning of the output.
func (r *record) shorten() {
	kept := make([]byte, min(keptSerial, r.size))
	n, _ := r.serial.ReadAt(kept, r.size-int64(len(kept)))
	kept = kept[:n]
	if i := bytes.IndexByte(kept, '\n'); i >= 0 {
		kept = kept[i+1:]
	}
	r.size = 0
	if r.serial.Truncate(0) != nil {
		return
	}
	n, _ = r.serial.WriteAt(kept, 0)
	r.size = int64(n)
}

// end notes how it ended.
func (r *record) end(err error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	now := time.Now().UTC()
	r.boot.Ended = &now
	if err != nil {
		r.boot.Error = err.Error()
	}
	r.write()
	if r.serial != nil {
		r.serial.Close()
		r.serial = nil
	}
}

func (r *record) write() {
	b, err := json.Marshal(r.boot)
	if err != nil {
		return
	}
	_ = statefile.Replace(filepath.Join(r.dir, bootFile), b)
}

// errKilled is how a boot ended of which nothing says so.
const errKilled = "its supervisor was killed"

// LastBoot is how a desktop's last boot went, or goes; nil for one that was never
// booted.
func (s *Store) LastBoot(m *Manifest) (*Boot, error) {
	b, err := statefile.Read(filepath.Join(s.path(m.ID), bootFile), maxManifest)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	boot := new(Boot)
	if err == nil {
		err = json.Unmarshal(b, boot)
	}
	if err != nil {
		return nil, err
	}
	if boot.Ended == nil && !s.Running(m) {
		boot.Error = errKilled
	}
	return boot, nil
}

// SerialFile is the file that keeps the end of what a desktop's guest wrote to its
// serial port since its last boot. It shrinks when it has grown too long.
func (s *Store) SerialFile(m *Manifest) string { return filepath.Join(s.path(m.ID), serialFile) }
