package main

import (
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// A QEMU is in a control group of its own where groups can be made, and leaves
// none. What the groups then hold back is the kernel's affair, see package cgroup.
func TestControlGroups(t *testing.T) {
	dir := ""
	for _, mount := range []string{"/sys/fs/cgroup", "/sys/fs/cgroup/unified"} {
		var st unix.Statfs_t
		if unix.Statfs(mount, &st) == nil && st.Type == unix.CGROUP2_SUPER_MAGIC && unix.Access(mount, unix.W_OK) == nil {
			dir = filepath.Join(mount, "lumina-test-"+strconv.Itoa(os.Getpid()))
		}
	}
	if dir == "" {
		t.Skip("this host has no control groups of version 2, or they are not this user's")
	}
	if err := os.Mkdir(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := os.Remove(dir); err != nil {
			t.Error(err) // a group is left in it
		}
	})
	t.Setenv("LUMINA_CGROUP", dir)
	sid := lumina(t, "session", "start", "--image", "debian", "--network", "none").succeeded(t).SID
	groups, _ := filepath.Glob(filepath.Join(dir, "lumina-*"))
	if len(groups) != 1 {
		t.Fatalf("groups: %v, want one", groups)
	}
	if got, want := strings.TrimSpace(string(readFile(t, filepath.Join(groups[0], "cgroup.procs")))), strconv.Itoa(childOf(t, sessionPID(t, sid))); got != want {
		t.Errorf("it has process %s, want %s", got, want)
	}
	lumina(t, "session", "stop", sid).succeeded(t)
	if left, _ := filepath.Glob(filepath.Join(dir, "lumina-*")); len(left) != 0 {
		t.Errorf("left: %v", left)
	}
	// A run does not wait for the end of its QEMU.
	run(t, "true").succeeded(t)
	nothingLeft(t)
	// A process that has ended holds its group until its parent has heard of it.
	for deadline := time.Now().Add(10 * time.Second); ; {
		lumina(t, "clean").succeeded(t)
		if left, _ := filepath.Glob(filepath.Join(dir, "lumina-*")); len(left) == 0 || time.Now().After(deadline) {
			break
		}
	}
	t.Setenv("LUMINA_CGROUP", dir+"/none")
	if r := run(t, "true"); r.code != 125 || !strings.Contains(r.Message, "control group") {
		t.Errorf("a directory that is not there: exit code %d, %s", r.code, r.stdout)
	}
}
