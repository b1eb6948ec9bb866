package main

import (
	"github.com/spf13/cobra"
)

func newDesktopResetCommand(env *environment) *cobra.Command {
	return &cobra.Command{
		Use:   "reset NAME",
		Short: "Press a desktop's reset button: it restarts at once, and unwritten data is lost",
		Args:  usageArgs(cobra.ExactArgs(1)),
		RunE: func(c *cobra.Command, args []string) error {
			d, err := openDesktop(env, args[0])
			if err != nil {
				return err
			}
			return d.Reset(c.Context())
		},
		ValidArgsFunction: completeDesktops(env),
	}
}
