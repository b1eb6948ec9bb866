//go:build linux

package boot

import (
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"syscall"

	"golang.org/x/sys/unix"

	"github.com/abdul-abdi/lumina/initramfs/agent"
	"github.com/abdul-abdi/lumina/initramfs/protocol"
)

// Mount points in the initramfs. All but the last stay below the root that the
// guest's processes see, where no path of theirs reaches.
const (
	lowerDir   = "/lower"   // the image's root, read-only
	scratchDir = "/scratch" // the VM's own disk
	isoDir     = "/iso"     // of an exported ISO
	rootDir    = "/root"    // the two joined
)

// System is the guest as its init runs it.
type System struct {
	cmdline commandLine
	marks   marks
	// mounted waits for the root file system, below rootDir, and says when
	// its parts were ready.
	mounted func() (marks, error)
	// network is what the interface has; nil before it is configured.
	network *protocol.Interface
	// interfaces is a socket to configure them by; 0 before the loopback is up.
	interfaces int
	random     int // /dev/urandom; 0 before it is open
	names      names
	mounts     []protocol.Mount
	shares     shares
	// upper is what the guest has changed of lower, its image.
	upper, lower *os.Root
	layers       layers
	room         room
	entered      bool // the root file system is the root directory
	// configured lets PID 1 go on, beside which this process is the agent; nil
	// for PID 1.
	configured *os.File
}

var _ agent.System = (*System)(nil)

// Start mounts what everything else needs and begins to put the root file
// system together. That needs nothing from the host: it goes on while the
// transport comes up.
func Start() (*System, error) {
	s := &System{}
	s.marks.add("init")
	if err := s.marks.run([]task{
		mount{"dev", "/dev", "devtmpfs", unix.MS_NOSUID, "mode=0755"},
		mount{"proc", "/proc", "proc", unix.MS_NOSUID | unix.MS_NODEV | unix.MS_NOEXEC, ""},
		mount{"sys", "/sys", "sysfs", unix.MS_NOSUID | unix.MS_NODEV | unix.MS_NOEXEC, ""},
		action{"raising the limit of open files", raiseFileLimit},
	}); err != nil {
		return nil, err
	}
	if err := s.readCommandLine(); err != nil {
		return nil, err
	}
	if word := s.cmdline[protocol.ParamBegins]; word != "" {
		fmt.Fprintln(os.Stderr, word) // the console
	}
	if err := setLogLevel(s.cmdline[protocol.ParamLogLevel]); err != nil {
		return nil, err
	}
	s.mounted = sync.OnceValues(func() (marks, error) { return mountRoot(s.cmdline) })
	// The kernel keeps nothing of a disk that nobody has open: what it read of it to
	// find partitions is not there any more when it is mounted later.
	if s.cmdline[protocol.ParamRoot] != protocol.RootLater {
		go func() { _, _ = s.mounted() }() // Configure gets the error
	}
	return s, nil
}

func (s *System) readCommandLine() error {
	line, err := os.ReadFile("/proc/cmdline")
	if err != nil {
		return fmt.Errorf("reading the kernel's command line: %w", err)
	}
	s.cmdline = parseCommandLine(string(line))
	return nil
}

// raiseFileLimit makes room for the pipes of thousands of processes at once.
// The processes inherit it; syscall's Setrlimit also stops the Go runtime from
// giving them the limit of before.
func raiseFileLimit() error {
	return syscall.Setrlimit(syscall.RLIMIT_NOFILE, &syscall.Rlimit{Cur: 65536, Max: 524288})
}

// setLogLevel has the console show what is worse than a level from now on: the host
// may have had it show less while the kernel started. "" leaves it.
func setLogLevel(level string) error {
	if level == "" {
		return nil
	}
	n, err := strconv.ParseUint(level, 10, 3)
	if err == nil {
		const setConsoleLevel = 8 // of syslog(2), which takes it as a length
		_, err = unix.Klogctl(setConsoleLevel, make([]byte, n))
	}
	if err != nil {
		return fmt.Errorf("%s: %w", protocol.ParamLogLevel.Is(level), err)
	}
	return nil
}

// findDisk finds a virtio-blk device by its serial number.
func findDisk(serial string) (string, error) {
	files, err := filepath.Glob("/sys/block/vd*/serial")
	if err != nil {
		return "", err
	}
	for _, f := range files {
		b, err := os.ReadFile(f)
		if err == nil && strings.TrimSpace(string(b)) == serial {
			return "/dev/" + filepath.Base(filepath.Dir(f)), nil
		}
	}
	return "", fmt.Errorf("finding disk %q: none of %d disks has that serial number", serial, len(files))
}

// commandLine holds the kernel's parameters that are NAME=VALUE.
type commandLine map[protocol.Parameter]string

func parseCommandLine(line string) commandLine {
	c := commandLine{}
	for _, word := range strings.Fields(line) {
		if name, value, ok := strings.Cut(word, "="); ok {
			c[protocol.Parameter(name)] = value
		}
	}
	return c
}

// Transport is how the driver reaches the agent: TransportVsock or TransportSerial of package protocol.
func (s *System) Transport() string {
	if t := s.cmdline[protocol.ParamTransport]; t != "" {
		return t
	}
	return protocol.TransportSerial
}

// Rehearses says whether a guest that a snapshot is taken of rehearses its first
// command, see [agent.Server].
func (s *System) Rehearses() bool { return s.cmdline[protocol.ParamRehearse] != protocol.RehearseOff }
