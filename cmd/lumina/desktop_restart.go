package main

import (
	"fmt"
	"os"

	"github.com/spf13/cobra"

	"github.com/abdul-abdi/lumina/runtime"
	"github.com/abdul-abdi/lumina/runtime/desktop"
)

func newDesktopRestartCommand(env *environment) *cobra.Command {
	var force bool
	c := &cobra.Command{
		Use:   "restart NAME",
		Short: "Stop a desktop as lumina desktop stop does, and boot it again",
		Long: "Stop a desktop as lumina desktop stop does, and boot it again in the background with the same options. " +
			"A desktop that is not running is booted without a window. Changes made with lumina desktop set take effect.",
		Args: usageArgs(cobra.ExactArgs(1)),
		RunE: func(c *cobra.Command, args []string) error {
			d, err := openDesktop(env, args[0])
			if err != nil {
				return err
			}
			program, err := os.Executable()
			if err != nil {
				return fmt.Errorf("finding the lumina program: %w", err)
			}
			home, err := runtime.Home(env.getenv("LUMINA_HOME"))
			if err != nil {
				return err
			}
			o := desktop.Options{Home: home, ID: d.Manifest.ID}
			if o.Driver, err = env.driver(); err != nil {
				return err
			}
			if _, err := d.Restart(c.Context(), program, []string{superviseDesktopCommand}, o, force); err != nil {
				return err
			}
			return printBooted(env, o)
		},
		ValidArgsFunction: completeDesktops(env),
	}
	c.Flags().BoolVar(&force, "force", false, "end it at once, even if its process does not answer")
	return c
}
