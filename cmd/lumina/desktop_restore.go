package main

import (
	"context"

	"github.com/spf13/cobra"

	"github.com/abdul-abdi/lumina/runtime/desktop"
)

func newDesktopRestoreCommand(env *environment) *cobra.Command {
	var name string
	c := &cobra.Command{
		Use:   "restore NAME",
		Short: "Bring back a desktop removed in the last minute",
		Args:  usageArgs(cobra.ExactArgs(1)),
		RunE: func(c *cobra.Command, args []string) error {
			store, err := desktopStore(env)
			if err != nil {
				return err
			}
			return restoreDesktop(c.Context(), env, store, args[0], name)
		},
	}
	c.Flags().StringVar(&name, "name", "", "its name from now on")
	return c
}

func restoreDesktop(ctx context.Context, env *environment, store *desktop.Store, id, name string) error {
	m, err := store.Restore(id, name)
	if err != nil {
		return desktopUsage(err)
	}
	return printDesktops(ctx, env, store, []*desktop.Manifest{m})
}
