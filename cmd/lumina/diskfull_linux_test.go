package main

import (
	"crypto/rand"
	"errors"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/abdul-abdi/lumina/builder/buildertest"
	"github.com/abdul-abdi/lumina/runtime"
)

// smallHome makes a state directory on a disk of its own, with the tests' images.
func smallHome(t *testing.T, size string) (string, func(args ...string) *exec.Cmd) {
	t.Helper()
	small := t.TempDir()
	buildertest.Run(t, "mount", "-t", "tmpfs", "-o", "size="+size+",mode=0700", "lumina", small)
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

// When the host's disk is full, its guests get the error, lose nothing else, and go on
// when there is room again.
func TestFullHostDisk(t *testing.T) {
	small, command := smallHome(t, "260m")
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
	const full = `"host_error":"the host's disk is full`
	r := finish(t, command("exec", hog, "dd if=/dev/zero of=/fill bs=1M count=300 conv=fsync 2>&1; exit 0"))
	if r.code != 0 || !strings.Contains(r.Stdout, "No space left on device") || !strings.Contains(r.stdout, full) {
		t.Errorf("the guest that fills the disk: exit code %d, %s", r.code, r.stdout)
	}
	if r := finish(t, command("ps")); !strings.Contains(r.stdout, full) {
		t.Errorf("ps: %s", r.stdout)
	}
	if free, err := runtime.FreeSpace(small); err != nil || free < 32<<20 {
		t.Errorf("the guest has left %d bytes of the host's disk, %v", free, err)
	}
	// Something else takes the rest: what a guest writes then the host can put nowhere.
	rest := filepath.Join(small, "rest")
	if f, err := os.Create(rest); err == nil {
		_, err = io.Copy(f, rand.Reader)
		if f.Close(); !errors.Is(err, syscall.ENOSPC) {
			t.Fatal(err)
		}
	}
	write := "dd if=/dev/urandom of=/data/new bs=1M count=8 conv=fsync 2>/dev/null || exit 4; wc -c < /data/new"
	if r := finish(t, command("exec", neighbour, write)); r.code != 4 || !strings.Contains(r.stdout, full) {
		t.Errorf("its neighbour, while there is no room: exit code %d, %s", r.code, r.stdout)
	}
	// Far more than what is kept for each file system: files and directories of all sizes.
	const tree = "mkdir -p /t; i=0; while [ $i -lt 150 ]; do i=$((i+1)); mkdir -p /t/$i/b && head -c 100000 /dev/zero > /t/$i/b/f; done 2>/dev/null; sync; "
	const broken = "dmesg | grep -i 'ext4-fs error\\|aborting\\|remounting\\|i/o error' && exit 5; mkdir -p /t/d && ls -R /t >/dev/null || exit 6"
	for _, sid := range []string{neighbour, hog} {
		if r := finish(t, command("exec", sid, tree+"exit 0")); r.code != 0 {
			t.Errorf("writing much while there is no room: exit code %d, %s", r.code, r.stdout)
		}
	}
	// Nothing is started into a full disk, and the error says what to do.
	for _, args := range [][]string{{"run", "--image", "debian", "true"}, {"session", "start", "--image", "debian"}, {templateCommand, templateOptions}} {
		if r := finish(t, command(args...)); r.code != 125 || !strings.Contains(r.stdout+r.stderr, "LUMINA_DISK_RESERVE") {
			t.Errorf("%v: exit code %d, %s %s", args, r.code, r.stdout, r.stderr)
		}
	}
	if err := os.Remove(rest); err != nil {
		t.Fatal(err)
	}
	// What a guest removes, the host has again.
	again := "rm -rf /fill /t; until dd if=/dev/zero of=/fill bs=1M count=40 conv=fsync 2>/dev/null; do sleep 0.1; done; rm /fill; " + broken
	if r := finish(t, command("exec", "--timeout", "60s", hog, again)); r.code != 0 {
		t.Errorf("the guest that filled the disk, when it has removed that: exit code %d, %s", r.code, r.stdout)
	}
	finish(t, command("session", "stop", hog)).succeeded(t)
	for _, write := range []string{"until dd if=/dev/urandom of=/new bs=1M count=8 conv=fsync 2>/dev/null; do sleep 0.1; done", "until " + strings.ReplaceAll(write, "exit 4", "false") + "; do sleep 0.1; done; " + broken} {
		if r := finish(t, command("exec", "--timeout", "60s", neighbour, write)); r.code != 0 {
			t.Errorf("its neighbour, when there is room: exit code %d, %s", r.code, r.stdout)
		}
	}
	finish(t, command("session", "stop", neighbour)).succeeded(t)
	buildertest.Run(t, "e2fsck", "-fn", filepath.Join(small, "volumes/data.img"))
	if err := os.WriteFile(rest, make([]byte, 60<<20), 0o600); err != nil {
		t.Fatal(err)
	}
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
		t.Errorf("with a reserve that is not a size: exit code %d, %s", r.code, r.stderr)
	}
}
