package main

import (
	"fmt"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"github.com/abdul-abdi/lumina/runtime"
	"github.com/abdul-abdi/lumina/runtime/forward"
)

func newSessionForwardCommand(env *environment) *cobra.Command {
	var removed []string
	c := &cobra.Command{
		Use:   "forward SID [FORWARD…]",
		Short: "Add, remove and list forwarded ports of a running session",
		Long: "Make ports of a running session's VM reachable on 127.0.0.1, as session start --forward does: " + forward.Form + ", each port also as a range.\n" +
			"Without HOSTPORT, a free port is used. If one change is not possible, none is made.",
		Example: "  lumina session forward web 8080:80 5353:53/udp\n  lumina session forward web --remove 8080",
		Args:    usageArgs(cobra.MinimumNArgs(1)),
		RunE: func(c *cobra.Command, args []string) error {
			add, err := forward.ParseAll(args[1:])
			if err != nil && slices.Contains([]string{"add", "rm", "remove", "ls", "list"}, args[0]) {
				return usageError{fmt.Errorf("%q is no command here: lumina session forward SID lists, SID FORWARD… adds, and SID --remove FORWARD removes", args[0])}
			}
			if err != nil {
				return usageError{err}
			}
			remove, err := parseRemoved(removed)
			if err != nil {
				return usageError{err}
			}
			s, err := openSession(env, args[0])
			if err != nil {
				return err
			}
			report, err := newReport(env)
			if err != nil {
				return err
			}
			rules, err := s.Forward(c.Context(), add, remove)
			if err != nil {
				return report.fail(&runtime.Error{Kind: runtime.ConnectionFailed, Err: err})
			}
			if report.format != formatText {
				if rules == nil {
					rules = []forward.Rule{}
				}
				return printJSON(env.stdout, map[string]any{"sid": s.Info.SID, "forwards": rules})
			}
			t := newTable(env.stdout, "HOST", "GUEST")
			for _, r := range rules {
				t.row(fmt.Sprintf("127.0.0.1:%d", r.Host), fmt.Sprintf("%d/%s", r.Guest, r.Protocol))
			}
			return t.print()
		},
		ValidArgsFunction: completeSIDs(env),
	}
	c.Flags().StringArrayVar(&removed, "remove", nil, "remove this forward, HOSTPORT[/udp] or as it was given, and end its connections (repeatable)")
	return c
}

// parseRemoved reads forwards that are to end: HOSTPORT alone is the host's port.
func parseRemoved(all []string) ([]forward.Rule, error) {
	var rules []forward.Rule
	for _, s := range all {
		some, err := forward.Parse(s)
		if err != nil {
			return nil, err
		}
		for _, r := range some {
			if r.Host == 0 && !strings.Contains(s, ":") {
				r.Host, r.Guest = r.Guest, 0
			}
			rules = append(rules, r)
		}
	}
	return rules, nil
}
