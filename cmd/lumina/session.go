package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"time"

	"github.com/spf13/cobra"

	"github.com/abdul-abdi/lumina/runtime"
	"github.com/abdul-abdi/lumina/runtime/forward"
	"github.com/abdul-abdi/lumina/runtime/session"
)

func newSessionCommand(env *environment) *cobra.Command {
	c := &cobra.Command{Use: "session", Short: "Keep a VM and run many commands in it"}
	c.AddCommand(newSessionStartCommand(env), newSessionStopCommand(env), newSessionListCommand(env))
	return c
}

func newSessionStartCommand(env *environment) *cobra.Command {
	var vm vmFlags
	var forwards []string
	var ttl time.Duration
	c := &cobra.Command{
		Use:   "start",
		Short: "Boot a VM that stays, and print its session identifier",
		Args:  usageArgs(cobra.NoArgs),
		RunE: func(c *cobra.Command, _ []string) error {
			home, err := runtime.Home(env.getenv("LUMINA_HOME"))
			if err != nil {
				return err
			}
			o := session.Options{Home: home, TTL: ttl}
			if o.VM, err = vm.options(env); err != nil {
				return err
			}
			if o.Forwards, err = forward.ParseAll(forwards); err != nil {
				return usageError{err}
			}
			return startSession(c.Context(), env, o)
		},
	}
	c.Flags().SortFlags = false
	vm.register(c, env)
	c.Flags().StringArrayVarP(&forwards, "forward", "p", nil, "make a port of the VM reachable on 127.0.0.1, [HOSTPORT:]GUESTPORT[/udp] (repeatable)")
	c.Flags().DurationVar(&ttl, "ttl", 0, "end the session when it was not used for this long, such as 30m")
	return c
}

func startSession(ctx context.Context, env *environment, o session.Options) error {
	report, err := newReport(env)
	if err != nil {
		return err
	}
	if err := pullDefault(ctx, env, o.Home, o.VM.Image); err != nil {
		return report.fail(err)
	}
	program, err := os.Executable()
	if err != nil {
		return fmt.Errorf("finding the lumina program: %w", err)
	}
	s, err := session.Start(ctx, program, []string{superviseCommand}, o)
	if err != nil {
		return report.fail(err)
	}
	makeTemplateLater(env, o.VM, runtime.Trace{Cold: s.Info.Cold})
	if report.format == formatText {
		_, err = fmt.Fprintln(env.stdout, s.Info.SID)
		return err
	}
	return printJSON(env.stdout, map[string]string{"sid": s.Info.SID})
}

// superviseCommand is the hidden command that a session's process runs.
const superviseCommand = "__supervise"

func newSuperviseCommand(env *environment) *cobra.Command {
	return &cobra.Command{
		Use:    superviseCommand,
		Hidden: true,
		Args:   usageArgs(cobra.NoArgs),
		RunE: func(c *cobra.Command, _ []string) error {
			return session.Main(c.Context(), env.stdin)
		},
	}
}

func newSessionStopCommand(env *environment) *cobra.Command {
	return &cobra.Command{
		Use:   "stop SID",
		Short: "End a session and its VM",
		Args:  usageArgs(cobra.ExactArgs(1)),
		RunE: func(c *cobra.Command, args []string) error {
			home, err := runtime.Home(env.getenv("LUMINA_HOME"))
			if err != nil {
				return err
			}
			sid, confirmed := args[0], true
			s, err := session.Open(home, sid)
			switch {
			case errors.Is(err, session.ErrNotFound):
				confirmed = false // stopped already: the wish is fulfilled
			case err != nil:
				return err
			default:
				sid = s.Info.SID // of which a beginning may have been given
				err := s.Stop(c.Context())
				if confirmed = err == nil; !confirmed && !errors.Is(err, session.ErrNotFound) {
					return err
				}
			}
			f, err := outputFormat(env)
			if err != nil {
				return err
			}
			if f == formatText {
				word := "stopped"
				if !confirmed {
					word = "not running"
				}
				_, err = fmt.Fprintln(env.stdout, word)
				return err
			}
			return printJSON(env.stdout, map[string]any{"sid": sid, "stopped": true, "confirmed": confirmed})
		},
		ValidArgsFunction: completeSIDs(env),
	}
}

func newSessionListCommand(env *environment) *cobra.Command {
	return &cobra.Command{
		Use:   "list",
		Short: "List sessions",
		Args:  usageArgs(cobra.NoArgs),
		RunE:  func(c *cobra.Command, _ []string) error { return printSessions(c.Context(), env) },
	}
}

// sessionRow is one line of ps: a status, or why there is none.
type sessionRow struct {
	*session.Status
	SID   string `json:"sid"`
	Error string `json:"error,omitempty"`
}

// statusTimeout bounds the question to one supervisor.
const statusTimeout = 2 * time.Second

func sessionRows(ctx context.Context, home string) ([]sessionRow, error) {
	sids, err := session.List(home)
	if err != nil {
		return nil, err
	}
	rows := []sessionRow{}
	for _, sid := range sids {
		row := sessionRow{SID: sid}
		ask, cancel := context.WithTimeout(ctx, statusTimeout)
		s, err := session.Open(home, sid)
		if err == nil {
			row.Status, err = s.Status(ask)
		}
		cancel()
		if err != nil {
			row.Error = "unreachable"
		}
		rows = append(rows, row)
	}
	return rows, nil
}

func printSessions(ctx context.Context, env *environment) error {
	f, err := outputFormat(env)
	if err != nil {
		return err
	}
	home, err := runtime.Home(env.getenv("LUMINA_HOME"))
	if err != nil {
		return err
	}
	rows, err := sessionRows(ctx, home)
	if err != nil {
		return err
	}
	if f != formatText {
		return printJSON(env.stdout, rows)
	}
	w := newTable(env.stdout, "SID", "IMAGE", "UPTIME", "ACTIVE", "")
	for _, r := range rows {
		if r.Error != "" {
			w.row(r.SID, r.Error, "", "", "")
			continue
		}
		w.row(r.SID, r.Image, time.Duration(r.Uptime)*time.Second, r.ActiveExecs, r.HostError)
	}
	return w.print()
}

// completeSIDs completes a first argument with the SIDs of sessions.
func completeSIDs(env *environment) cobra.CompletionFunc {
	return func(_ *cobra.Command, args []string, _ string) ([]string, cobra.ShellCompDirective) {
		home, err := runtime.Home(env.getenv("LUMINA_HOME"))
		if err != nil || len(args) > 0 {
			return nil, cobra.ShellCompDirectiveNoFileComp
		}
		entries, _ := os.ReadDir(filepath.Join(home, "sessions"))
		var sids []string
		for _, e := range entries {
			sids = append(sids, e.Name())
		}
		return sids, cobra.ShellCompDirectiveNoFileComp
	}
}
