package main

import (
	"os"
	"testing"
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
