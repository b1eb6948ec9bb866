package tracepoint

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"unsafe"

	"golang.org/x/sys/unix"
)

// dir is where the kernel describes its tracepoints.
const dir = "/sys/kernel/tracing/events"

// Counter counts one event.
type Counter struct{ fd int }

// Open begins to count an event for the calling thread, and for every process that
// it starts from now on, with their descendants. Its goroutine is to be locked to
// the thread. event is a tracepoint, such as "kvm:kvm_exit", or one of the events
// above. filter says which of a tracepoint's are counted, in the form of
// /sys/kernel/tracing/events/*/*/filter; "" for all.
func Open(event, filter string) (*Counter, error) {
	attr := unix.PerfEventAttr{Bits: unix.PerfBitInherit}
	attr.Size = uint32(unsafe.Sizeof(attr))
	switch event {
	case PageFaults:
		attr.Type, attr.Config = unix.PERF_TYPE_SOFTWARE, unix.PERF_COUNT_SW_PAGE_FAULTS
	case ContextSwitches:
		attr.Type, attr.Config = unix.PERF_TYPE_SOFTWARE, unix.PERF_COUNT_SW_CONTEXT_SWITCHES
	default:
		id, err := number(event)
		if err != nil {
			return nil, fmt.Errorf("counting %s: %w", event, err)
		}
		attr.Type, attr.Config = unix.PERF_TYPE_TRACEPOINT, id
	}
	fd, err := unix.PerfEventOpen(&attr, 0, -1, -1, unix.PERF_FLAG_FD_CLOEXEC)
	if err != nil {
		return nil, fmt.Errorf("counting %s: %w", event, err)
	}
	if filter != "" {
		if err := setFilter(fd, filter); err != nil {
			unix.Close(fd)
			return nil, fmt.Errorf("counting %s where %s: %w", event, filter, err)
		}
	}
	return &Counter{fd}, nil
}

// number is that of a tracepoint.
func number(event string) (uint64, error) {
	group, name, _ := strings.Cut(event, ":")
	if _, err := os.ReadDir(dir); err != nil {
		if errors.Is(err, fs.ErrNotExist) {
			return 0, fmt.Errorf("%w; as root: mount -t tracefs tracefs %s", err, filepath.Dir(dir))
		}
		return 0, err
	}
	b, err := os.ReadFile(filepath.Join(dir, group, name, "id"))
	if errors.Is(err, fs.ErrNotExist) {
		return 0, ErrNone
	}
	if err != nil {
		return 0, err
	}
	return strconv.ParseUint(strings.TrimSpace(string(b)), 10, 64)
}

func setFilter(fd int, filter string) error {
	text, err := unix.BytePtrFromString(filter)
	if err != nil {
		return err
	}
	if _, _, errno := unix.Syscall(unix.SYS_IOCTL, uintptr(fd), unix.PERF_EVENT_IOC_SET_FILTER, uintptr(unsafe.Pointer(text))); errno != 0 {
		return errno
	}
	return nil
}

// Read returns how often the event has been since Open.
func (c *Counter) Read() (uint64, error) {
	var b [8]byte
	n, err := unix.Read(c.fd, b[:])
	if err == nil && n != len(b) {
		err = fmt.Errorf("%d bytes, want %d", n, len(b))
	}
	if err != nil {
		return 0, fmt.Errorf("reading a counter: %w", err)
	}
	return binary.NativeEndian.Uint64(b[:]), nil
}

// Close ends the counting.
func (c *Counter) Close() error { return unix.Close(c.fd) }

// Adopt makes this process the parent of descendants that lose theirs: what they did
// is in its own accounts once they have ended and [Bury] was called.
func Adopt() error { return unix.Prctl(unix.PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0) }

// Bury waits for the end of every child of this process.
func Bury() {
	for {
		if _, err := unix.Wait4(-1, nil, 0, nil); err != nil && !errors.Is(err, unix.EINTR) {
			return
		}
	}
}
