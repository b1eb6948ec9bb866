package main

import (
	"github.com/spf13/cobra"
)

func newDesktopOpenCommand(env *environment) *cobra.Command {
	return &cobra.Command{
		Use:   "open NAME",
		Short: "Show a desktop's screen in the app and print the app's address, until Ctrl-C",
		Args:  usageArgs(cobra.ExactArgs(1)),
		RunE: func(c *cobra.Command, args []string) error {
			d, err := openDesktop(env, args[0])
			if err != nil {
				return err
			}
			if err := d.CheckViewer(c.Context()); err != nil {
				return err
			}
			return serveApp(c.Context(), env, 0, true, "#/desktop/"+d.Manifest.ID)
		},
		ValidArgsFunction: completeDesktops(env),
	}
}
