package main

import (
	"errors"
	"fmt"
	"path/filepath"

	"github.com/spf13/cobra"

	"github.com/abdul-abdi/lumina/runtime/desktop"
)

func newDesktopRmCommand(env *environment) *cobra.Command {
	var now, undo bool
	c := &cobra.Command{
		Use:     "remove NAME…",
		Aliases: []string{"rm"},
		Short:   "Remove desktops that are not running, with all their data",
		Long: fmt.Sprintf("Remove desktops that are not running, with all their data. For %.0f seconds, lumina desktop restore NAME brings one back; "+
			"after that, its space is freed when the next desktop is created or removed, or by lumina clean. With --now the space is free at once.", desktop.UndoTime.Seconds()),
		Args: usageArgs(cobra.MinimumNArgs(1)),
		RunE: func(c *cobra.Command, args []string) error {
			if now && undo {
				return usageError{errors.New("--now and --undo exclude each other")}
			}
			store, err := desktopStore(env)
			if err != nil {
				return err
			}
			if undo {
				for _, name := range args {
					if err := restoreDesktop(c.Context(), env, store, name, ""); err != nil {
						return err
					}
				}
				return nil
			}
			errs := []error{store.PurgeExpired()}
			for _, name := range args {
				if now {
					errs = append(errs, store.Remove(name))
					continue
				}
				m, err := store.SetAside(name)
				if damaged := new(desktop.DamagedError); errors.As(err, &damaged) && filepath.Base(name) == damaged.ID {
					// It cannot be restored: it takes all of its identifier.
					if err = store.Remove(name); err == nil {
						env.note("%s is removed and cannot be restored: it was damaged", damaged.ID)
					}
					errs = append(errs, err)
					continue
				}
				if errs = append(errs, err); err == nil {
					env.note("%s is removed; lumina desktop restore %s brings it back", m.Name, m.ID[:8])
				}
			}
			return errors.Join(errs...)
		},
		ValidArgsFunction: completeDesktops(env),
	}
	c.Flags().BoolVar(&now, "now", false, "remove it for good at once")
	c.Flags().BoolVar(&undo, "undo", false, "bring removed desktops back, as lumina desktop restore does")
	return c
}
