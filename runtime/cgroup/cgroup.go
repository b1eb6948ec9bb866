// Package cgroup bounds what processes take of the host, all of their threads and
// children together, where the system has delegated a part of its control groups
// (version 2) to this user. It is Linux's; elsewhere there is nothing to find.
package cgroup

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync/atomic"
	"syscall"
)

// Limits are what a group may take. Where the system does not control one of them,
// it is not limited.
type Limits struct {
	Memory    int64 // bytes
	CPUs      int
	Processes int // and threads
}

// Group is a control group with processes in it.
type Group struct{ dir string }

const (
	root   = "/sys/fs/cgroup"
	prefix = "lumina-"
)

var made atomic.Int64

// Delegated is the directory in which this process can make groups: the nearest above
// its own that is this user's; "" where there is none.
func Delegated() string {
	b, err := os.ReadFile("/proc/self/cgroup")
	if err != nil {
		return ""
	}
	return find(root, string(b), os.Geteuid() == 0)
}

// find looks for the directory in a mount, from what /proc/self/cgroup says.
func find(mount, self string, superuser bool) string {
	// A line of the first version's has a controller, or a name.
	_, own, ok := strings.Cut("\n"+self, "\n0::")
	own, _, _ = strings.Cut(own, "\n")
	if !ok || !filepath.IsAbs(own) || own != filepath.Clean(own) {
		return ""
	}
	for dir := filepath.Join(mount, own); strings.HasPrefix(dir+"/", mount+"/"); dir = filepath.Dir(dir) {
		controllers, err := os.ReadFile(filepath.Join(dir, "cgroup.subtree_control"))
		if err != nil || !strings.Contains(string(controllers), "memory") {
			continue
		}
		// Root can write everywhere; that does not make it root's.
		if writable(dir) && writable(filepath.Join(dir, "cgroup.procs")) && (!superuser || delegated(mount, dir)) {
			return dir
		}
	}
	return ""
}

// New makes a group with limits below dir.
func New(dir string, l Limits) (*Group, error) {
	Clean(dir)
	g := &Group{dir: filepath.Join(dir, fmt.Sprintf("%s%d-%d", prefix, os.Getpid(), made.Add(1)))}
	if err := os.Mkdir(g.dir, 0o755); err != nil {
		return nil, fmt.Errorf("making a control group: %w", err)
	}
	for _, limit := range []struct{ file, value string }{
		{"memory.max", strconv.FormatInt(l.Memory, 10)},
		{"memory.oom.group", "1"},
		{"cpu.max", fmt.Sprintf("%d 100000", l.CPUs*100000)},
		{"pids.max", strconv.Itoa(l.Processes)},
	} {
		err := write(filepath.Join(g.dir, limit.file), limit.value)
		if err != nil && !errors.Is(err, os.ErrNotExist) {
			return nil, errors.Join(fmt.Errorf("limiting a control group: %w", err), g.Remove())
		}
	}
	return g, nil
}

// write writes to a file that is there: the kernel makes those of a group.
func write(path, value string) error {
	f, err := os.OpenFile(path, os.O_WRONLY, 0)
	if err != nil {
		return err
	}
	_, err = f.WriteString(value)
	return errors.Join(err, f.Close())
}

// Add puts a process into the group.
func (g *Group) Add(pid int) error {
	if err := write(filepath.Join(g.dir, "cgroup.procs"), strconv.Itoa(pid)); err != nil {
		return fmt.Errorf("putting a process into its control group: %w", err)
	}
	return nil
}

// Remove removes the group, whose processes have ended.
func (g *Group) Remove() error {
	if err := os.Remove(g.dir); err != nil && !errors.Is(err, os.ErrNotExist) {
		return fmt.Errorf("removing a control group: %w", err)
	}
	return nil
}

// Clean removes the groups in dir of processes that were killed, or did not wait for
// the end of theirs.
func Clean(dir string) {
	groups, _ := filepath.Glob(filepath.Join(dir, prefix+"*")) // fails for bad patterns only
	for _, g := range groups {
		owner, _, _ := strings.Cut(strings.TrimPrefix(filepath.Base(g), prefix), "-")
		pid, err := strconv.Atoi(owner)
		if err == nil && pid > 0 && errors.Is(syscall.Kill(pid, 0), syscall.ESRCH) {
			_ = os.Remove(g) // one with processes in it stays
		}
	}
}
