package main

import (
	"github.com/spf13/cobra"
)

func newCatalogCommand(env *environment) *cobra.Command {
	var flags fromFlags
	c := &cobra.Command{
		Use:   "catalog",
		Short: "List the images in a release",
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
			w := newTable(env.stdout, "ID", "ARCH", "VERSION", "DOWNLOAD", "SIZE", "DESCRIPTION")
			for _, img := range catalog.Images {
				w.row(img.ID, img.Architecture, img.Version, formatSize(img.DownloadSize), formatSize(img.Size), img.Description)
			}
			return w.print()
		},
	}
	c.Flags().SortFlags = false
	flags.register(c)
	return c
}
