package main

import (
	"context"
	"errors"

	"github.com/spf13/cobra"

	"github.com/abdul-abdi/lumina/runtime"
	"github.com/abdul-abdi/lumina/runtime/session"
)

func newSessionStopCommand(env *environment) *cobra.Command {
	var force bool
	c := &cobra.Command{
		Use:     "stop SID…",
		Aliases: []string{"remove", "rm"},
		Short:   "End sessions and their VMs",
		Long: "End sessions and their VMs. Running commands are killed, and volumes are synced first. What a crashed session left is removed.\n" +
			"SID is the identifier, a unique beginning of it (at least four characters), the session's name, or the JSON object that session start printed.",
		Args: usageArgs(cobra.MinimumNArgs(1)),
		RunE: func(c *cobra.Command, args []string) error {
			for _, id := range args {
				if err := namesSession(id); err != nil {
					return err
				}
			}
			home, err := runtime.Home(env.getenv("LUMINA_HOME"))
			if err != nil {
				return err
			}
			f, err := outputFormat(env)
			if err != nil {
				return err
			}
			var errs []error
			for _, id := range args {
				errs = append(errs, stopSession(c.Context(), env, f, home, id, force))
			}
			return errors.Join(errs...)
		},
		ValidArgsFunction: completeSIDs(env),
	}
	c.Flags().BoolVarP(&force, "force", "f", false, "kill the VM and its supervisor at once, even if they do not answer; volumes lose unwritten data")
	return c
}

// stopSession stops one session, and says so in a line.
func stopSession(ctx context.Context, env *environment, f format, home, id string, force bool) error {
	sid, err := session.Stop(ctx, home, id, force)
	// One that was there and is not has been stopped already: the wish is
	// fulfilled.
	gone := errors.Is(err, session.ErrNotFound) && sid != ""
	if err != nil && !gone {
		return err
	}
	if f == formatText {
		word := "stopped"
		if gone {
			word = "not running"
		}
		return printLine(env.stdout, "%s", word)
	}
	return printJSON(env.stdout, map[string]any{"sid": sid, "stopped": true, "confirmed": !gone})
}
