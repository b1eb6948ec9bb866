package main

import (
	"fmt"
	"io"
	goruntime "runtime"

	"github.com/spf13/cobra"

	"github.com/abdul-abdi/lumina/initramfs/protocol"
	"github.com/abdul-abdi/lumina/release/licences"
)

// version is set by the linker.
var version = "dev"

func newVersionCommand(env *environment) *cobra.Command {
	c := &cobra.Command{
		Use:   "version",
		Short: "Print the version",
		Args:  usageArgs(cobra.NoArgs),
	}
	all := c.Flags().Bool("notices", false, "print the licences of third-party software in this program")
	c.RunE = func(*cobra.Command, []string) error {
		if *all {
			text, err := licences.Notices()
			if err != nil {
				return err
			}
			_, err = io.WriteString(env.stdout, text)
			return err
		}
		return printVersion(env)
	}
	return c
}

func printVersion(env *environment) error {
	f, err := outputFormat(env)
	if err != nil {
		return err
	}
	if f == formatText {
		_, err = fmt.Fprintf(env.stdout, "lumina %s (protocol %d, %s/%s)\n", version, protocol.Version, goruntime.GOOS, goruntime.GOARCH)
		return err
	}
	return printJSON(env.stdout, map[string]any{
		"version": version, "protocol": protocol.Version, "os": goruntime.GOOS, "arch": goruntime.GOARCH,
	})
}
