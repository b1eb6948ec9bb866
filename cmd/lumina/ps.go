package main

import (
	"context"
	"errors"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/abdul-abdi/lumina/runtime/network"
	"github.com/abdul-abdi/lumina/runtime/session"
)

func newPsCommand(env *environment) *cobra.Command {
	var denied bool
	var o listOptions
	c := &cobra.Command{
		Use:   "ps [SID] | ps --denied SID",
		Short: "List sessions, processes of a session, or its denied connections",
		Args:  usageArgs(cobra.MaximumNArgs(1)),
		RunE: func(c *cobra.Command, args []string) error {
			if len(args) == 0 {
				if denied {
					return usageError{errors.New("--denied needs a session")}
				}
				return printSessions(c.Context(), env, o)
			}
			if len(o.filters) > 0 || o.quiet {
				return usageError{errors.New("--filter and --quiet apply to the list of sessions: leave out SID, or these flags")}
			}
			s, err := openSession(env, args[0])
			if err != nil {
				return err
			}
			if denied {
				return printDenied(c.Context(), env, s)
			}
			return printProcesses(c.Context(), env, s)
		},
		ValidArgsFunction: completeSIDs(env),
	}
	o.register(c)
	c.Flags().BoolVar(&denied, "denied", false, "list the connections that the session's network denied")
	return c
}

func printDenied(ctx context.Context, env *environment, s *session.Session) error {
	report, err := newReport(env)
	if err != nil {
		return err
	}
	traffic, err := s.Network(ctx)
	if err != nil {
		return report.fail(err)
	}
	if traffic == nil {
		traffic = &network.Report{}
	}
	if report.format != formatText {
		if traffic.Denied == nil {
			traffic.Denied = []network.Denied{}
		}
		return printJSON(env.stdout, traffic)
	}
	w := newTable(env.stdout, "PROTOCOL", "DESTINATION", "NAME", "COUNT", "REASON")
	for _, d := range traffic.Denied {
		w.row(d.Protocol, d.Destination, d.Name, d.Count, d.Reason)
	}
	return w.print()
}

// processRow is one line of ps SID.
type processRow struct {
	ID         string   `json:"id"`
	PID        int      `json:"pid"`
	State      string   `json:"state"` // running or exited
	ExitCode   *int     `json:"exit_code,omitempty"`
	Detached   bool     `json:"detached"`
	AgeSeconds int64    `json:"age_seconds"`
	Command    []string `json:"command"`
}

func printProcesses(ctx context.Context, env *environment, s *session.Session) error {
	report, err := newReport(env)
	if err != nil {
		return err
	}
	processes, err := s.Processes(ctx)
	if err != nil {
		return report.fail(err)
	}
	rows := []processRow{}
	for _, p := range processes {
		row := processRow{ID: p.ID, PID: p.PID, State: "running", Detached: p.Detached, AgeSeconds: int64(p.Age.Seconds()), Command: p.Args}
		if p.Exit != nil {
			row.State, row.ExitCode = "exited", &p.Exit.Code
		}
		rows = append(rows, row)
	}
	if report.format != formatText {
		return printJSON(env.stdout, rows)
	}
	w := newTable(env.stdout, "ID", "PID", "STATE", "AGE", "COMMAND")
	for _, r := range rows {
		state := r.State
		if r.ExitCode != nil {
			state += " " + strconv.Itoa(*r.ExitCode)
		}
		w.row(r.ID, r.PID, state, time.Duration(r.AgeSeconds)*time.Second, strings.Join(r.Command, " "))
	}
	return w.print()
}
