package main

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/abdul-abdi/lumina/initramfs"
	kernelconfig "github.com/abdul-abdi/lumina/kernel-config"
	"github.com/abdul-abdi/lumina/runtime/app"
)

// A command that is called is found by the name that it is listed with.
func TestSubcommands(t *testing.T) {
	for _, c := range subcommands() {
		env := &environment{args: []string{c.name, "--help"}, getenv: os.Getenv}
		root := newRootCommand(env)
		if got, _, err := root.Find(env.args); err != nil || got.Name() != c.name {
			t.Errorf("%s: found %v, %v", c.name, got, err)
		}
		if n := len(root.Commands()); n != 1 {
			t.Errorf("%s: %d commands were made", c.name, n)
		}
	}
	for _, args := range [][]string{nil, {"--help"}, {"help", "run"}, {"runn"}} {
		if n := len(newRootCommand(&environment{args: args, getenv: os.Getenv}).Commands()); n != len(subcommands())+1 { // and completion
			t.Errorf("%q: %d commands of %d", args, n, len(subcommands())+1)
		}
	}
}

// What go install leaves out is named together with what builds all of it.
func TestIsNotBuilt(t *testing.T) {
	for err, want := range map[error]bool{
		fmt.Errorf("starting: %w", initramfs.ErrNotBuilt):                            true,
		fmt.Errorf("starting: %w", &kernelconfig.ErrNotBuilt{Architecture: "arm64"}): true,
		app.ErrNotBuilt:         true,
		errors.New("disk full"): false,
	} {
		if got := isNotBuilt(err); got != want {
			t.Errorf("%v: %v", err, got)
		}
	}
}

// An error that only names a file of the state directory says what to do.
func TestAdvise(t *testing.T) {
	env := &environment{getenv: func(name string) string { return map[string]string{"LUMINA_HOME": "/state"}[name] }}
	for _, tt := range []struct {
		op, path string
		errno    syscall.Errno
		want     string // "": nothing is added
	}{
		{"write", "/state/volumes/.new", syscall.ENOSPC, "the disk with /state is full"},
		{"mkdir", "/state", syscall.EROFS, "LUMINA_HOME names another"},
		{"mkdir", "/state/cache", syscall.EROFS, "LUMINA_HOME names another"},
		{"open", "/state/images/a.lock", syscall.EACCES, "LUMINA_HOME names another"},
		{"mkdir", "/state", syscall.ENOENT, "LUMINA_HOME names another"}, // as below /proc
		{"mkdir", "/state", syscall.ENOTDIR, "LUMINA_HOME names another"},
		{"open", "/state/images/a", syscall.ENOENT, ""},
		{"open", "/states/a", syscall.EROFS, ""},
		{"write", "/elsewhere", syscall.ENOSPC, ""},
	} {
		err := fmt.Errorf("making it: %w", &fs.PathError{Op: tt.op, Path: tt.path, Err: tt.errno})
		got := env.advise(err)
		if tt.want == "" && got.Error() != err.Error() || !strings.Contains(got.Error(), tt.want) || !errors.Is(got, tt.errno) {
			t.Errorf("advise(%v) = %v, want %q", err, got, tt.want)
		}
	}
}

// A host without a home directory is told of it once.
func TestNoHome(t *testing.T) {
	t.Setenv("HOME", "")
	said, err := os.Create(filepath.Join(t.TempDir(), "stderr"))
	if err != nil {
		t.Fatal(err)
	}
	defer said.Close()
	env := &environment{args: []string{"images", "list"}, stdin: said, stdout: said, stderr: said, raw: true, getenv: func(string) string { return "" }}
	code := execute(t.Context(), env)
	text, err := os.ReadFile(said.Name())
	if code != exitFailure || err != nil || strings.Count(string(text), "\n") != 1 || !strings.Contains(string(text), "set LUMINA_HOME") {
		t.Errorf("exit code %d, %q, %v", code, text, err)
	}
}
