package main

import (
	"github.com/spf13/cobra"
)

func newLogsCommand(env *environment) *cobra.Command {
	var follow bool
	c := &cobra.Command{
		Use:     "logs SID ID",
		Short:   "Print the output of a detached command",
		Example: "  lumina logs -f web 2",
		Args:    usageArgs(cobra.ExactArgs(2)),
		RunE: func(c *cobra.Command, args []string) error {
			s, err := openSession(env, args[0])
			if err != nil {
				return err
			}
			report, err := newReport(env)
			if err != nil {
				return err
			}
			if report.format == formatJSON && follow {
				report.format = formatNDJSON // one object would come at the end only
			}
			stdout, stderr := report.writers()
			if err := s.Logs(c.Context(), args[1], follow, stdout, stderr); err != nil {
				return report.fail(err)
			}
			return report.logs()
		},
		ValidArgsFunction: completeSIDs(env),
	}
	c.Flags().BoolVarP(&follow, "follow", "f", false, "keep printing until the command ends")
	return c
}
