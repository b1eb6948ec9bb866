package main

import (
	"github.com/spf13/cobra"

	"github.com/abdul-abdi/lumina/runtime/desktop"
)

func newDesktopRenameCommand(env *environment) *cobra.Command {
	return &cobra.Command{
		Use:   "rename NAME NEW",
		Short: "Rename a desktop that is not running",
		Args:  usageArgs(cobra.ExactArgs(2)),
		RunE: func(c *cobra.Command, args []string) error {
			return changeDesktop(c.Context(), env, args[0], desktop.Change{Name: &args[1]})
		},
		ValidArgsFunction: completeDesktops(env),
	}
}
