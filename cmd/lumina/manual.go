//go:build manual

package main

import (
	"fmt"
	"os"
	"path/filepath"
	"time"

	"github.com/spf13/cobra"
	"github.com/spf13/cobra/doc"
)

// manual is the command that writes the man pages and the completion scripts of all
// others. Only make man builds it: what formats pages is not in the program.
func manual() []subcommand {
	return []subcommand{{"manual", func(env *environment) *cobra.Command {
		return &cobra.Command{
			Use:    "manual DIR",
			Hidden: true,
			Args:   usageArgs(cobra.ExactArgs(1)),
			RunE: func(c *cobra.Command, args []string) error {
				// A root of its own: the caller's has this command only.
				return writeManual(newRootCommand(&environment{program: "lumina", getenv: env.getenv, lookupEnv: env.lookupEnv}), args[0])
			},
		}
	}}}
}

// writeManual writes DIR/man1/*.1 and DIR/completions/{lumina,_lumina,lumina.fish}.
func writeManual(root *cobra.Command, dir string) error {
	pages, completions := filepath.Join(dir, "man1"), filepath.Join(dir, "completions")
	for _, d := range []string{pages, completions} {
		if err := os.MkdirAll(d, 0o755); err != nil {
			return err
		}
	}
	// The same pages every time; a date would be that of the build.
	epoch := time.Unix(0, 0).UTC()
	header := &doc.GenManHeader{Section: "1", Date: &epoch, Source: "lumina " + version, Manual: "Lumina"}
	root.DisableAutoGenTag = true
	if err := doc.GenManTree(root, header, pages); err != nil {
		return fmt.Errorf("writing man pages: %w", err)
	}
	for name, write := range map[string]func(string) error{
		"lumina":      func(f string) error { return root.GenBashCompletionFileV2(f, true) },
		"_lumina":     root.GenZshCompletionFile,
		"lumina.fish": func(f string) error { return root.GenFishCompletionFile(f, true) },
	} {
		if err := write(filepath.Join(completions, name)); err != nil {
			return fmt.Errorf("writing completion: %w", err)
		}
	}
	return nil
}
