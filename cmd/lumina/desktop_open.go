package main

import (
	"fmt"

	"github.com/spf13/cobra"

	"github.com/abdul-abdi/lumina/runtime/desktop/viewer"
)

func newDesktopOpenCommand(env *environment) *cobra.Command {
	return &cobra.Command{
		Use:   "open NAME",
		Short: "Show a desktop's screen on a page for a browser of this host, until Ctrl-C",
		Args:  usageArgs(cobra.ExactArgs(1)),
		RunE: func(c *cobra.Command, args []string) error {
			d, err := openDesktop(env, args[0])
			if err != nil {
				return err
			}
			if err := d.CheckViewer(c.Context()); err != nil {
				return err
			}
			f, err := outputFormat(env)
			if err != nil {
				return err
			}
			return viewer.Serve(c.Context(), d.Manifest.Name, d.Viewer, func(url string) error {
				if f == formatText {
					_, err := fmt.Fprintln(env.stdout, url)
					return err
				}
				return printJSON(env.stdout, map[string]string{"url": url})
			})
		},
		ValidArgsFunction: completeDesktops(env),
	}
}
