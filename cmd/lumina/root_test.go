package main

import (
	"errors"
	"fmt"
	"os"
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
