package flock

import (
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"testing"

	"golang.org/x/sys/unix"
)

// holderEnv has the test's program lock a file, until its standard input ends.
const holderEnv = "LUMINA_TEST_HOLDS"

func TestMain(m *testing.M) {
	name := os.Getenv(holderEnv)
	if name == "" {
		os.Exit(m.Run())
	}
	f, err := os.Open(name)
	if err == nil {
		err = Shared(f)
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	fmt.Println("locked")
	_, _ = io.Copy(io.Discard, os.Stdin)
}

// Who holds a lock is told on every file system, on those too of which stat(2) and
// /proc/locks do not say the same: an overlay of two file systems is one.
func TestHolders(t *testing.T) {
	for name, dir := range map[string]func(*testing.T) string{
		"a directory": func(t *testing.T) string { return t.TempDir() },
		"an overlay":  overlay,
	} {
		t.Run(name, func(t *testing.T) {
			f := open(t, filepath.Join(dir(t), "lock"))
			if pids := Holders(f); pids != nil {
				t.Errorf("nobody has a lock, but %v", pids)
			}
			cmd := exec.Command(os.Args[0])
			cmd.Env = append(os.Environ(), holderEnv+"="+f.Name())
			cmd.Stderr = os.Stderr
			stdin, err := cmd.StdinPipe()
			if err != nil {
				t.Fatal(err)
			}
			stdout, err := cmd.StdoutPipe()
			if err != nil {
				t.Fatal(err)
			}
			if err := cmd.Start(); err != nil {
				t.Fatal(err)
			}
			defer func() {
				stdin.Close()
				_ = cmd.Wait()
			}()
			if _, err := stdout.Read(make([]byte, 1)); err != nil {
				t.Fatal(err)
			}
			if pids := Holders(f); !slices.Equal(pids, []int{cmd.Process.Pid}) {
				t.Errorf("the holders are %v, want %d", pids, cmd.Process.Pid)
			}
		})
	}
}

// overlay mounts an overlay whose layers are in file systems of their own.
func overlay(t *testing.T) string {
	t.Helper()
	if os.Getuid() != 0 {
		t.Skip("mounting needs root")
	}
	dir := t.TempDir()
	mount := func(source, target, kind, options string) {
		t.Helper()
		if err := os.MkdirAll(target, 0o755); err != nil {
			t.Fatal(err)
		}
		if err := unix.Mount(source, target, kind, 0, options); err != nil {
			t.Skipf("mounting %s: %v", kind, err)
		}
		t.Cleanup(func() {
			if err := unix.Unmount(target, 0); err != nil {
				t.Error(err)
			}
		})
	}
	lower, upper, merged := filepath.Join(dir, "lower"), filepath.Join(dir, "upper"), filepath.Join(dir, "merged")
	mount("tmpfs", lower, "tmpfs", "")
	mount("tmpfs", upper, "tmpfs", "")
	for _, name := range []string{"files", "work"} {
		if err := os.Mkdir(filepath.Join(upper, name), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	mount("overlay", merged, "overlay", "xino=off,lowerdir="+lower+",upperdir="+upper+"/files,workdir="+upper+"/work")
	return merged
}
