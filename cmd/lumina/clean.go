package main

import (
	"cmp"
	"fmt"
	"path/filepath"
	"time"

	"github.com/spf13/cobra"

	"github.com/abdul-abdi/lumina/builder"
	"github.com/abdul-abdi/lumina/builder/oci"
	"github.com/abdul-abdi/lumina/release"
	"github.com/abdul-abdi/lumina/runtime/desktop"
	"github.com/abdul-abdi/lumina/runtime/session"
)

func newCleanCommand(env *environment) *cobra.Command {
	var templates bool
	var age timeSpan
	var size byteSize
	c := &cobra.Command{
		Use:   "clean",
		Short: "Remove what crashed processes left behind",
		Args:  usageArgs(cobra.NoArgs),
		RunE: func(c *cobra.Command, _ []string) error {
			r, err := env.openRuntime()
			if err != nil {
				return err
			}
			// What cannot be cleaned keeps nothing else from it.
			var failed error
			tell := func(err error) {
				if failed != nil && err != nil {
					env.note("%v", err)
				}
				failed = cmp.Or(failed, err)
			}
			sessions, err := session.Clean(r.Home())
			tell(err)
			if sessions > 0 {
				env.note("removed what was left of %s", plural(sessions, "session"))
			}
			_, err = oci.CleanCache(filepath.Join(r.Home(), "cache"))
			tell(err)
			for _, dir := range []string{pullCache(r.Home()), publishCache(r.Home())} {
				tell(release.CleanCache(dir))
			}
			left, err := r.Clean(c.Context())
			tell(err)
			if left.Count > 0 {
				env.note("%s removed, %s", plural(left.Count, "unfinished image"), formatSize(left.Bytes))
			}
			freed, err := desktop.NewStore(r.Home()).Purge(time.Now())
			tell(err)
			if freed > 0 {
				env.note("%s of removed desktops freed; they cannot be restored", formatSize(freed))
			}
			damaged, err := desktop.NewStore(r.Home()).CleanDamaged()
			tell(err)
			for _, d := range damaged {
				env.note("%v", d)
			}
			if failed != nil {
				return failed
			}
			if templates {
				if err := r.Templates.Clean(true); err != nil {
					return err
				}
			}
			if age == 0 && size == 0 {
				return nil
			}
			freed, err = builder.Prune(c.Context(), builder.PruneOptions{
				Store: r.Images, CacheDir: filepath.Join(r.Home(), "cache"), Age: time.Duration(age), Size: int64(size)})
			if err != nil {
				return err
			}
			env.note("%s of layers removed", formatSize(freed))
			if age == 0 {
				return nil
			}
			if freed, err = desktop.PruneMacCache(r.Home(), time.Duration(age)); freed > 0 {
				env.note("%s of restore images removed", formatSize(freed))
			}
			return err
		},
	}
	c.Flags().Var(&age, "cache-age", "also remove unused layers and macOS restore images that were not needed for this long, such as 720h")
	c.Flags().Var(&size, "cache-size", "also remove unused layers, oldest first, until the cache has this size, such as 5GB")
	c.Flags().BoolVar(&templates, "templates", false, "also remove the templates that starts are restored from")
	return c
}

// plural is "1 session", "2 sessions".
func plural(n int, what string) string {
	if n != 1 {
		what += "s"
	}
	return fmt.Sprintf("%d %s", n, what)
}
