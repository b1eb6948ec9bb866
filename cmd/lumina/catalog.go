package main

import (
	"fmt"
	"text/tabwriter"

	"github.com/spf13/cobra"
)

func newCatalogCommand(env *environment) *cobra.Command {
	var flags fromFlags
	c := &cobra.Command{
		Use:   "catalog",
		Short: "List the images of a release, to pull",
		Args:  usageArgs(cobra.NoArgs),
		RunE: func(c *cobra.Command, _ []string) error {
			f, err := outputFormat(env)
			if err != nil {
				return err
			}
			from, err := flags.from(env)
			if err != nil {
				return err
			}
			catalog, err := from.Catalog(c.Context())
			if err != nil {
				return err
			}
			if f != formatText {
				return printJSON(env.stdout, catalog)
			}
			w := tabwriter.NewWriter(env.stdout, 0, 0, 2, ' ', 0)
			fmt.Fprintln(w, "ID\tARCH\tVERSION\tDOWNLOAD\tSIZE\tDESCRIPTION")
			for _, img := range catalog.Images {
				fmt.Fprintf(w, "%s\t%s\t%s\t%s\t%s\t%s\n", img.ID, img.Architecture, img.Version, formatSize(img.DownloadSize), formatSize(img.Size), img.Description)
			}
			return w.Flush()
		},
	}
	c.Flags().SortFlags = false
	flags.register(c)
	return c
}
