//go:build linux

package boot

import (
	"errors"
	"fmt"
	"math"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"unsafe"

	"golang.org/x/sys/unix"

	"github.com/abdul-abdi/lumina/initramfs/protocol"
)

// room is how much of the guest's disks it may still write, as the host has it. The
// disks are larger than what the host has for them: a file system that writes where
// there is no room loses more than files. So what it must not take is kept from it, as
// ext4 keeps some blocks for its own needs: who asks for more gets ENOSPC.
type room struct {
	mu      sync.Mutex
	disks   []writable
	pending int64 // bytes that were written, and are not on disk yet
	limited bool
	full    bool  // it had left no room since it was measured last
	writing bool  // what is pending
	begun   int64 // bytes that were free when the limit began
	least   int64 // and when the least were, since the last trim
}

// little is how much that is pending hides no room from other guests, in bytes.
const little = 1 << 20

// freed is how much the guest frees before the host is given it back, in bytes.
const freed = 4 << 20

// writable is a file system on a disk of the host's, in blocks.
type writable struct {
	path              string
	open              func() (*os.File, error) // its root directory
	kept              string                   // the file of sysfs that says how much is kept
	size, total, free int64                    // of a block, of all, and of what nobody has
}

// keptAtLeast is what ext4 keeps by itself (ext4_calculate_resv_clusters): 2 %, at most
// 4096 blocks.
func (w writable) keptAtLeast() int64 { return min(w.total/50, 4096) }

// full says whether a limit, and nothing else, has left no room in a file system.
func (w writable) full(st *unix.Statfs_t) bool {
	const few = 16
	return int64(st.Bavail) < few && int64(st.Bfree) > w.keptAtLeast()+few
}

// Measure is part of [agent.System].
func (s *System) Measure() (full bool, err error) {
	r := &s.room
	r.mu.Lock()
	defer r.mu.Unlock()
	r.disks, r.pending = nil, 0
	add := func(serial, path string, open func() (*os.File, error)) {
		device, findErr := findDisk(serial)
		var st unix.Statfs_t
		if findErr == nil {
			findErr = unix.Statfs(path, &st)
		}
		if findErr != nil {
			err = errors.Join(err, fmt.Errorf("%s: %w", path, findErr))
			return
		}
		w := writable{path, open, "/sys/fs/ext4/" + filepath.Base(device) + "/reserved_clusters", st.Bsize, int64(st.Blocks), int64(st.Bfree)}
		r.disks = append(r.disks, w)
		r.full = r.full || r.limited && w.full(&st)
	}
	add(protocol.DiskScratch, "/", func() (*os.File, error) {
		if s.upper == nil {
			return nil, errors.ErrUnsupported // it is below the root, as this process sees it
		}
		return s.upper.Open(".")
	})
	for _, m := range s.mounts {
		if m.Disk != "" && !m.ReadOnly {
			add(m.Disk, m.Path, func() (*os.File, error) { return os.Open(m.Path) })
		}
	}
	full, r.full = r.full, false
	var pendingErr error
	if r.pending, pendingErr = pendingBytes(); pendingErr != nil {
		r.disks = nil
	}
	return full, errors.Join(err, pendingErr)
}

// Limit is part of [agent.System].
func (s *System) Limit(left, least int64) error {
	r := &s.room
	r.mu.Lock()
	defer r.mu.Unlock()
	first := !r.limited
	r.limited = left >= 0
	var free int64
	for _, w := range r.disks {
		free += w.free * w.size
	}
	if first {
		r.begun, r.least = free, free
	}
	more := max(0, left-r.pending) / 2
	more = max(more, least-max(0, r.begun-free)) / max(1, int64(len(r.disks)))
	var err error
	for _, w := range r.disks {
		kept := w.keptAtLeast()
		if r.limited {
			// A larger limit hides that somebody has reached this one.
			var st unix.Statfs_t
			r.full = r.full || !first && unix.Statfs(w.path, &st) == nil && w.full(&st)
			kept = min(max(kept, w.free-more/w.size), w.total-1)
		}
		err = errors.Join(err, os.WriteFile(w.kept, strconv.AppendInt(nil, kept, 10), 0))
	}
	trim := r.limited && free > r.least+freed
	if trim || free < r.least {
		r.least = free
	}
	if r.limited && !r.writing && (first || trim || r.pending > max(little, left/8)) {
		r.writing = true
		go r.write(r.disks, trim)
	}
	return err
}

// write brings to disk what the file systems have promised room for, while there is
// some; the host then knows how much is left. With trim it gets back what was freed.
func (r *room) write(disks []writable, trim bool) {
	unix.Sync()
	for _, w := range disks {
		if trim {
			w.trim()
		}
	}
	r.mu.Lock()
	r.writing = false
	r.mu.Unlock()
}

// trimmed are the parts of a disk that are given back to the host, in bytes. The others
// are what the host has taken for the file system beforehand (Reserve of runtime/ext4).
var trimmed = [][2]uint64{{48 << 20, 128 << 20}, {144 << 20, math.MaxUint64}}

// fitrim is FITRIM of linux/fs.h, which package unix does not have.
const fitrim = 0xc0185879

// trim gives back to the host what no file has. A disk whose host takes nothing back
// stays as it is.
func (w writable) trim() {
	dir, err := w.open()
	if err != nil {
		return
	}
	defer dir.Close()
	for _, part := range trimmed {
		arg := struct{ start, length, least uint64 }{part[0], part[1] - part[0], 64 << 10} // struct fstrim_range
		_ = ioctl(dir.Fd(), fitrim, unsafe.Pointer(&arg))
	}
}

// pendingBytes is how much of files is in memory only.
func pendingBytes() (int64, error) {
	b, err := os.ReadFile("/proc/meminfo")
	if err != nil {
		return 0, err
	}
	var pending int64
	for line := range strings.Lines(string(b)) {
		name, value, _ := strings.Cut(line, ":")
		if name != "Dirty" && name != "Writeback" {
			continue
		}
		n, err := strconv.ParseInt(strings.TrimSuffix(strings.TrimSpace(value), " kB"), 10, 64)
		if err != nil {
			return 0, fmt.Errorf("/proc/meminfo: %w", err)
		}
		pending += n << 10
	}
	return pending, nil
}
