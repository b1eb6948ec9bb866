package main

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/abdul-abdi/lumina/builder/buildertest"
)

// smallHome makes a state directory on a disk of its own, with the tests' images.
func smallHome(t *testing.T, size string) (string, func(args ...string) *exec.Cmd) {
	t.Helper()
	small := t.TempDir()
	buildertest.Run(t, "mount", "-t", "tmpfs", "-o", "size="+size, "lumina", small)
	t.Cleanup(func() { buildertest.Run(t, "umount", small) })
	if err := os.Symlink(filepath.Join(home, "images"), filepath.Join(small, "images")); err != nil {
		t.Fatal(err)
	}
	return small, func(args ...string) *exec.Cmd {
		cmd := command(args...)
		cmd.Env = append(cmd.Env, "LUMINA_HOME="+small)
		return cmd
	}
}

// When the host's disk is full, its guests get the error, and go on when there is
// room again.
func TestFullHostDisk(t *testing.T) {
	small, command := smallHome(t, "150m")
	start := func(args ...string) string {
		t.Helper()
		args = append([]string{"session", "start", "--image", "debian", "--network", "none"}, args...)
		sid := finish(t, command(args...)).succeeded(t).SID
		t.Cleanup(func() { finish(t, command("session", "stop", sid)) })
		return sid
	}
	finish(t, command("volume", "create", "data", "--size", "1GB")).succeeded(t)
	neighbour, hog := start("--volume", "data:/data"), start()
	// Who does not look at the error is told all the same.
	const fill = "dd if=/dev/zero of=/fill bs=1M count=200 conv=fsync 2>&1; exit 0"
	r := finish(t, command("exec", hog, fill))
	if r.code != 0 || !strings.Contains(r.Stdout, "Input/output error") || !strings.Contains(r.stdout, `"host_error":"the host's disk is full: writing to the VM's own disk failed`) {
		t.Errorf("the guest that fills the disk: exit code %d, %s", r.code, r.stdout)
	}
	if r := finish(t, command("ps")); !strings.Contains(r.stdout, "the host's disk is full") {
		t.Errorf("ps: %s", r.stdout)
	}
	write := "dd if=/dev/urandom of=/data/new bs=1M count=8 conv=fsync 2>/dev/null || exit 4; wc -c < /data/new"
	r = finish(t, command("exec", neighbour, write))
	if r.code != 4 || !strings.Contains(r.stdout, "the host's disk is full: writing to") {
		t.Errorf("its neighbour, while there is no room: exit code %d, %s", r.code, r.stdout)
	}
	// What it says of its files on its own disk has room there (ext4.Reserve), also where
	// it had written none of it before.
	tree := "set -e; for i in 1 2 3 4 5 6 7 8; do mkdir -p /a$i/b /var/a$i; echo hi > /a$i/b/f; done; sync; dmesg | grep 'error.* vdb' || :"
	if r := finish(t, command("exec", neighbour, tree)).succeeded(t); r.Stdout != "" {
		t.Errorf("its neighbour's file system, while there is no room: %s", r.Stdout)
	}
	// Nothing is started into a full disk, and the error says what to do.
	for _, args := range [][]string{{"run", "--image", "debian", "true"}, {"session", "start", "--image", "debian"}, {templateCommand, templateOptions}} {
		if r := finish(t, command(args...)); r.code != 125 || !strings.Contains(r.stdout+r.stderr, "LUMINA_DISK_RESERVE") {
			t.Errorf("%v: exit code %d, %s %s", args, r.code, r.stdout, r.stderr)
		}
	}
	finish(t, command("session", "stop", hog)).succeeded(t)
	for _, write := range []string{"dd if=/dev/urandom of=/new bs=1M count=8 conv=fsync", "echo 3 > /proc/sys/vm/drop_caches; cat /a*/b/f && ls /var/a8", write} {
		if r := finish(t, command("exec", neighbour, write)); r.code != 0 {
			t.Errorf("its neighbour, when there is room: exit code %d, %s", r.code, r.stdout)
		}
	}
	finish(t, command("session", "stop", neighbour)).succeeded(t)
	buildertest.Run(t, "e2fsck", "-fn", filepath.Join(small, "volumes/data.img"))
	run := command("run", "--image", "debian", "true")
	run.Env = append(run.Env, "LUMINA_TEMPLATE=1", "LUMINA_BOOT_TRACE=1")
	if r := finish(t, run).succeeded(t); !strings.HasPrefix(r.stderr, "boot: cold, since there is no room for a template\n") {
		t.Errorf("with room for a VM only: %s", r.stderr)
	}
	run = command("run", "--image", "debian", "true")
	run.Env = append(run.Env, "LUMINA_DISK_RESERVE=1GB")
	if r := finish(t, run); r.code != 125 || !strings.Contains(r.Message, "1024 MB are kept") {
		t.Errorf("with a reserve of 1 GB: exit code %d, %s", r.code, r.stdout)
	}
	run = command("run", "--image", "debian", "true")
	run.Env = append(run.Env, "LUMINA_DISK_RESERVE=lots")
	if r := finish(t, run); r.code != 2 {
		t.Errorf("with a reserve that is no size: exit code %d, %s", r.code, r.stderr)
	}
}
