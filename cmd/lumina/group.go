package main

import (
	"fmt"
	"strings"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"
)

// newGroup is a command that holds others and does nothing by itself: without one
// of them it prints its help, as docker's do.
func newGroup(use, short string, commands ...*cobra.Command) *cobra.Command {
	c := &cobra.Command{
		Use:                   use,
		Short:                 short,
		DisableFlagsInUseLine: true,
		Args:                  noVerb,
		RunE:                  func(c *cobra.Command, _ []string) error { return c.Help() },
	}
	c.AddCommand(commands...)
	return c
}

// noVerb are the arguments of a group: there are none, since cobra takes those that
// are one of its commands.
func noVerb(c *cobra.Command, args []string) error {
	if len(args) == 0 {
		return nil
	}
	return unknownVerb(c, args[0])
}

func unknownVerb(c *cobra.Command, verb string) error {
	hint := ""
	if like := similar(c, verb); len(like) > 0 {
		hint = " (did you mean " + strings.Join(like, " or ") + "?)"
	}
	return usageError{fmt.Errorf("unknown command %q for %q%s; see %s --help", verb, c.CommandPath(), hint, c.CommandPath())}
}

// similar are the commands of c that are called much as verb is.
func similar(c *cobra.Command, verb string) []string {
	all := &cobra.Command{SuggestionsMinimumDistance: 2}
	for _, sub := range c.Commands() {
		for _, name := range append([]string{sub.Name()}, sub.Aliases...) {
			all.AddCommand(&cobra.Command{Use: name, SuggestFor: sub.SuggestFor, Hidden: sub.Hidden, Run: func(*cobra.Command, []string) {}})
		}
	}
	return all.SuggestionsFor(verb)
}

// flagError is what is wrong with a command line's flags; of a command that does
// not exist they do not matter.
func flagError(c *cobra.Command, err error) error {
	if before := c.Flags().Args(); c.HasSubCommands() && len(before) > 0 {
		return unknownVerb(c, before[0])
	}
	return usageError{fmt.Errorf("%w%s; see %s --help", err, dockerHint(c, err), c.CommandPath())}
}

// dockerHint is what to write in place of a flag of docker's that is none here.
func dockerHint(c *cobra.Command, err error) string {
	text := err.Error()
	if (c.Name() == "run" || c.Name() == "exec") && strings.HasPrefix(text, "unknown ") && len(c.Flags().Args()) > commandAt(c) {
		return "; a command with flags of its own is one string, or PROG ARG… behind --"
	}
	for _, hint := range []struct{ flag, command, instead string }{
		{"'d' in ", "run", "lumina session start keeps a VM, and --run runs the image's command in it"},
		{"--detach", "run", "lumina session start keeps a VM, and --run runs the image's command in it"},
		{"'d' in ", "start", "it is always so; --run runs the image's command"},
		{"--detach", "start", "it is always so; --run runs the image's command"},
		{"--mount", "", "write --volume"},
		{"--privileged", "", "a VM's root may do everything in it"},
	} {
		if strings.HasPrefix(text, "unknown ") && strings.Contains(text, hint.flag) && (hint.command == "" || c.Name() == hint.command) {
			return " (" + hint.instead + ")"
		}
	}
	return ""
}

// commandAt is where among the arguments the command of a VM begins.
func commandAt(c *cobra.Command) int {
	if c.Name() == "exec" {
		return 1
	}
	return 0
}

// newHelpCommand is cobra's help, for which a command that does not exist is bad
// usage.
func newHelpCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "help [COMMAND]",
		Short: "Print the help of a command",
		RunE: func(c *cobra.Command, args []string) error {
			found, rest, err := c.Root().Find(args)
			if err != nil || len(rest) > 0 && found.HasSubCommands() {
				return unknownVerb(found, append(rest, args...)[0])
			}
			found.InitDefaultHelpFlag()
			return found.Help()
		},
	}
}

// initCompletion adds cobra's command that makes scripts for shells, for which a
// shell that it does not know is bad usage, too.
func initCompletion(root *cobra.Command) {
	root.InitDefaultCompletionCmd()
	if c, _, err := root.Find([]string{"completion"}); err == nil && c != root {
		c.Args, c.RunE = noVerb, func(c *cobra.Command, _ []string) error { return c.Help() }
	}
}

// dockerNames are docker's long names of flags that have others here.
func dockerNames(_ *pflag.FlagSet, name string) pflag.NormalizedName {
	switch name {
	case "publish":
		name = "forward"
	case "tty":
		name = "pty"
	}
	return pflag.NormalizedName(name)
}
