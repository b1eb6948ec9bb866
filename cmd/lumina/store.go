package main

import (
	"errors"

	"github.com/spf13/cobra"

	"github.com/abdul-abdi/lumina/runtime"
	"github.com/abdul-abdi/lumina/runtime/image"
	"github.com/abdul-abdi/lumina/runtime/session"
	"github.com/abdul-abdi/lumina/runtime/volume"
)

// store is what keeps things by name: images, volumes.
type store interface {
	List() ([]string, error)
	Remove(name string) error
}

// newRemoveCommand is the remove command of a kind of things.
func newRemoveCommand[S store](env *environment, short string, open func(*environment) (S, error)) *cobra.Command {
	var force bool
	c := &cobra.Command{
		Use:        "remove NAME…",
		Aliases:    []string{"rm"},
		SuggestFor: []string{"delete", "del"},
		Short:      short,
		Args:       usageArgs(cobra.MinimumNArgs(1)),
		RunE: func(_ *cobra.Command, args []string) error {
			s, err := open(env)
			if err != nil {
				return err
			}
			var errs []error
			for _, name := range args {
				err := s.Remove(name)
				if force && (errors.Is(err, image.ErrNotFound) || errors.Is(err, volume.ErrNotFound)) {
					continue
				}
				errs = append(errs, env.nameUsers(err))
			}
			return errors.Join(errs...)
		},
		ValidArgsFunction: completeNames(env, open),
	}
	c.Flags().BoolVarP(&force, "force", "f", false, "no error for a name that nothing has")
	return c
}

// nameUsers says of an image or a volume that is in use which sessions have it.
func (env *environment) nameUsers(err error) error {
	home, homeErr := runtime.Home(env.getenv("LUMINA_HOME"))
	if homeErr != nil {
		return err
	}
	return session.NameUsers(home, err)
}

// newInspectCommand is the inspect command of a kind of things: it prints what
// describe returns.
func newInspectCommand[S store](env *environment, short string, open func(*environment) (S, error), describe func(S, string) (any, error)) *cobra.Command {
	return &cobra.Command{
		Use:   "inspect NAME",
		Short: short,
		Args:  usageArgs(cobra.ExactArgs(1)),
		RunE: func(_ *cobra.Command, args []string) error {
			s, err := open(env)
			if err != nil {
				return err
			}
			v, err := describe(s, args[0])
			if err != nil {
				return err
			}
			return printJSON(env.stdout, v)
		},
		ValidArgsFunction: completeNames(env, open),
	}
}

// registerQuiet gives a command that lists things docker's flag for their names alone.
func registerQuiet(c *cobra.Command, quiet *bool) {
	c.Flags().BoolVarP(quiet, "quiet", "q", false, "print only the names, one a line")
}

func printNames(env *environment, names []string) error {
	for _, name := range names {
		if err := printLine(env.stdout, "%s", name); err != nil {
			return err
		}
	}
	return nil
}

// completeNames completes arguments with the names of things.
func completeNames[S store](env *environment, open func(*environment) (S, error)) cobra.CompletionFunc {
	return func(*cobra.Command, []string, string) ([]string, cobra.ShellCompDirective) {
		s, err := open(env)
		if err != nil {
			return nil, cobra.ShellCompDirectiveNoFileComp
		}
		names, _ := s.List()
		return names, cobra.ShellCompDirectiveNoFileComp
	}
}
