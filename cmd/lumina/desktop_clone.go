package main

import (
	"github.com/spf13/cobra"

	"github.com/abdul-abdi/lumina/runtime/desktop"
)

func newDesktopCloneCommand(env *environment) *cobra.Command {
	return &cobra.Command{
		Use:   "clone NAME NEW",
		Short: "Copy a desktop that is not running",
		Long: "Copy a desktop that is not running. On XFS, Btrfs and APFS the clone is instant and shares unchanged blocks with the original; " +
			"on other file systems the data is copied.\n" +
			"The clone has its own identifier and network address. Its disk is the same, including host name and SSH keys.",
		Args: usageArgs(cobra.ExactArgs(2)),
		RunE: func(c *cobra.Command, args []string) error {
			if err := desktop.CheckName(args[1]); err != nil {
				return usageError{err}
			}
			store, err := desktopStore(env)
			if err != nil {
				return err
			}
			driver, err := env.desktopDriver()
			if err != nil {
				return err
			}
			m, err := store.Clone(c.Context(), driver, args[0], args[1])
			if err != nil {
				return err
			}
			return printDesktops(c.Context(), env, store, []*desktop.Manifest{m})
		},
		ValidArgsFunction: completeDesktops(env),
	}
}
