package main

import (
	"path/filepath"

	"github.com/spf13/cobra"

	"github.com/abdul-abdi/lumina/builder/oci"
	"github.com/abdul-abdi/lumina/release"
	"github.com/abdul-abdi/lumina/runtime"
	"github.com/abdul-abdi/lumina/runtime/session"
)

func newCleanCommand(env *environment) *cobra.Command {
	var templates bool
	c := &cobra.Command{
		Use:   "clean",
		Short: "Remove what crashed processes left behind",
		Args:  usageArgs(cobra.NoArgs),
		RunE: func(c *cobra.Command, _ []string) error {
			r, err := runtime.Open(runtime.Options{Home: env.getenv("LUMINA_HOME")})
			if err != nil {
				return err
			}
			if err := session.Clean(r.Home()); err != nil {
				return err
			}
			if _, err := oci.CleanCache(filepath.Join(r.Home(), "cache")); err != nil {
				return err
			}
			for _, dir := range []string{pullCache(r.Home()), publishCache(r.Home())} {
				if err := release.CleanCache(dir); err != nil {
					return err
				}
			}
			if err := r.Clean(c.Context()); err != nil || !templates {
				return err
			}
			return r.Templates.Clean(true)
		},
	}
	c.Flags().BoolVar(&templates, "templates", false, "also remove the frozen VMs that starts go on from")
	return c
}
