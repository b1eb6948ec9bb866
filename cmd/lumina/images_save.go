package main

import (
	"errors"
	"fmt"
	"path/filepath"

	"github.com/spf13/cobra"

	"github.com/abdul-abdi/lumina/builder"
	"github.com/abdul-abdi/lumina/builder/oci"
)

func newImagesSaveCommand(env *environment) *cobra.Command {
	return &cobra.Command{
		Use:   "save NAME DESTINATION",
		Short: "Write an image as container image files, for any container tool",
		Long: `Write an image as container image files, for any container tool: an OCI
layout, oci:DIR[:TAG], beside what is there under other tags; an archive of one,
oci-archive:FILE[:TAG]; or what docker load reads, docker-archive:FILE[:NAME:TAG].
An existing file is replaced by an archive. Paths cannot contain a colon.`,
		Example: `  lumina images save app oci-archive:app.tar
  lumina images save app docker-archive:app.tar:team/app:v1`,
		Args: usageArgs(cobra.ExactArgs(2)),
		RunE: func(c *cobra.Command, args []string) error {
			to, err := oci.ParseDestination(args[1])
			if err != nil {
				return usageError{err}
			}
			r, err := env.openRuntime()
			if err != nil {
				return err
			}
			name, err := localName(r.Images, args[0])
			if err != nil {
				return err
			}
			digest, err := builder.Save(c.Context(), to, builder.PushOptions{Name: name, Store: r.Images, CacheDir: filepath.Join(r.Home(), "cache")})
			if err != nil {
				return err
			}
			f, err := outputFormat(env)
			if err != nil {
				return err
			}
			if f == formatText {
				_, err = fmt.Fprintf(env.stdout, "%s: %s\n", args[1], digest)
				return err
			}
			return printJSON(env.stdout, map[string]string{"name": args[0], "destination": args[1], "digest": digest})
		},
		ValidArgsFunction: completeNames(env, imageStore),
	}
}

func newImagesLoadCommand(env *environment) *cobra.Command {
	var flags createFlags
	c := &cobra.Command{
		Use:   "load NAME SOURCE",
		Short: "Make an image from the output of images save, docker save or another tool",
		Long: `Make an image from the output of images save, docker save or another tool:
oci:DIR[:TAG], oci-archive:FILE[:TAG] or docker-archive:FILE[:TAG]. It is images
create NAME --from SOURCE.`,
		Args: usageArgs(cobra.ExactArgs(2)),
		RunE: func(c *cobra.Command, args []string) error {
			if _, err := oci.ParseDestination(args[1]); err != nil {
				return usageError{errors.New("SOURCE: " + err.Error())}
			}
			if err := checkSource(args[1]); err != nil {
				return usageError{fmt.Errorf("SOURCE: %w", err)}
			}
			return flags.create(c.Context(), env, args[0], args[1], nil)
		},
	}
	c.Flags().SortFlags = false
	flags.register(c)
	return c
}
