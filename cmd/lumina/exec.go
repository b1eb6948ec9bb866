package main

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/spf13/cobra"
	"golang.org/x/sys/unix"

	"github.com/abdul-abdi/lumina/runtime"
	"github.com/abdul-abdi/lumina/runtime/client"
	"github.com/abdul-abdi/lumina/runtime/network"
	"github.com/abdul-abdi/lumina/runtime/session"
)

func newExecCommand(env *environment) *cobra.Command {
	var flags commandFlags
	var terminal terminalFlags
	var detach bool
	c := &cobra.Command{
		Use:   "exec [flags] SID COMMAND | exec [flags] SID -- PROG [ARG…]",
		Short: "Run a command in a session's VM",
		Example: `  lumina exec web 'uname -a'
  lumina exec -it web bash
  tar c . | lumina exec web 'tar x -C /srv'
  lumina exec --detach web 'python3 -m http.server 80'`,
		RunE: func(c *cobra.Command, args []string) error {
			if len(args) == 0 || c.ArgsLenAtDash() == 0 {
				return usageError{fmt.Errorf("no session given; see %s --help", c.CommandPath())}
			}
			command, err := flags.command(c, env, args[1:], c.ArgsLenAtDash()-1)
			if err != nil {
				return err
			}
			if terminal.pty && detach {
				return usageError{errors.New("--pty and --detach exclude each other")}
			}
			if err := terminal.check(env); err != nil {
				return err
			}
			s, err := openSession(env, args[0])
			if err != nil {
				return err
			}
			switch {
			case detach:
				return execDetached(c.Context(), env, s, command)
			case terminal.pty:
				return execTerminal(c.Context(), env, &s.Guest, command)
			}
			return execOnce(c.Context(), env, s, command)
		},
		ValidArgsFunction: completeSIDs(env),
	}
	c.Flags().SortFlags = false
	c.Flags().SetNormalizeFunc(dockerNames)
	flags.register(c)
	terminal.register(c)
	env.registerJSON(c.Flags(), c)
	c.Flags().BoolVarP(&detach, "detach", "d", false, "let the command outlive this one, and print its id; see logs, kill and ps")
	return c
}

// openSession opens a session; that there is none is the contract's
// connection_failed, in the format of the result.
func openSession(env *environment, id string) (*session.Session, error) {
	if err := namesSession(id); err != nil {
		return nil, err
	}
	home, err := runtime.Home(env.getenv("LUMINA_HOME"))
	if err != nil {
		return nil, err
	}
	s, err := session.Open(home, id)
	if err == nil {
		return s, nil
	}
	report, reportErr := newReport(env)
	if reportErr != nil {
		return nil, reportErr
	}
	return nil, report.fail(&runtime.Error{Kind: runtime.ConnectionFailed, Err: err})
}

// namesSession says that an empty argument is bad usage: it is what "$SID" is after
// a session start that failed.
func namesSession(id string) error {
	if strings.TrimSpace(id) == "" {
		return usageError{errors.New("the session is empty: did the session start that should print it fail?")}
	}
	return nil
}

func execOnce(ctx context.Context, env *environment, s *session.Session, command runtime.Command) error {
	report, err := newReport(env)
	if err != nil {
		return err
	}
	stdout, stderr := report.writers()
	command.Stdio = client.Stdio{Stdin: stdin(env), Stdout: stdout, Stderr: stderr}
	command.Signals = env.signals
	guest, meanwhile, err := s.Counted()
	if err != nil {
		return report.fail(&runtime.Error{Kind: runtime.ConnectionFailed, Err: err})
	}
	exit, err := guest.Exec(ctx, command)
	// A session that has ended knows nothing, and one that does not answer is not asked.
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	if errors.Is(err, session.ErrSilent) {
		cancel()
	}
	if m, meanwhileErr := meanwhile(ctx); meanwhileErr == nil {
		report.network, report.hostError = m.Network, m.HostError
	}
	if exit.Code != 0 && report.hostError == "" {
		// It may have failed for what went wrong on the host before.
		report.hostError = hostError(ctx, s)
	}
	return report.finish(exit.Code, err)
}

// hostErrorTimeout bounds a question on the way to the exit.
const hostErrorTimeout = 2 * time.Second

// hostError asks a session for what went wrong on its host; "" for nothing.
func hostError(ctx context.Context, s *session.Session) string {
	ctx, cancel := context.WithTimeout(ctx, hostErrorTimeout)
	defer cancel()
	status, err := s.Status(ctx)
	if err != nil || status == nil {
		return ""
	}
	return status.HostError
}

func execDetached(ctx context.Context, env *environment, s *session.Session, command runtime.Command) error {
	report, err := newReport(env)
	if err != nil {
		return err
	}
	id, err := s.Detach(ctx, command)
	if err != nil {
		return report.fail(err)
	}
	if report.format == formatText {
		_, err = fmt.Fprintln(env.stdout, id)
		return err
	}
	return printJSON(env.stdout, map[string]string{"id": id})
}

// execTerminal runs a command with this terminal, which it must be.
func execTerminal(ctx context.Context, env *environment, guest *runtime.Guest, command runtime.Command) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	command.Signals = env.signals
	restore := joinTerminal(ctx, env, &command)
	exit, err := guest.Exec(ctx, command)
	// Before anything is printed, and whatever happened.
	if restoreErr := restore(); err == nil {
		err = restoreErr
	}
	if err == nil && exit.Code != 0 {
		err = exitCode(exit.Code)
	}
	return err
}

func newPsCommand(env *environment) *cobra.Command {
	var denied bool
	var o listOptions
	c := &cobra.Command{
		Use:   "ps [SID] | ps --denied SID",
		Short: "List sessions, the processes of one, or the connections it was denied",
		Args:  usageArgs(cobra.MaximumNArgs(1)),
		RunE: func(c *cobra.Command, args []string) error {
			if len(args) == 0 {
				if denied {
					return usageError{errors.New("--denied needs a session")}
				}
				return printSessions(c.Context(), env, o)
			}
			if len(o.filters) > 0 || o.quiet {
				return usageError{errors.New("--filter and --quiet are for the list of sessions: not with one")}
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
	c.Flags().BoolVar(&denied, "denied", false, "list what the session's network denied it")
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
	c.Flags().BoolVarP(&follow, "follow", "f", false, "go on until the command ends")
	return c
}

func newKillCommand(env *environment) *cobra.Command {
	var name string
	c := &cobra.Command{
		Use:     "kill SID ID",
		Short:   "Send a signal to a command and its process group",
		Example: "  lumina kill --signal INT web 2",
		Args:    usageArgs(cobra.ExactArgs(2)),
		RunE: func(c *cobra.Command, args []string) error {
			number, err := parseSignal(name)
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
			if err := s.Kill(c.Context(), args[1], number); err != nil {
				return report.fail(&runtime.Error{Kind: runtime.ConnectionFailed, Err: err})
			}
			if report.format == formatText {
				return nil
			}
			return printJSON(env.stdout, map[string]any{"id": args[1], "signal": int(number)})
		},
		ValidArgsFunction: completeSIDs(env),
	}
	c.Flags().StringVarP(&name, "signal", "s", "TERM", "signal to send, a name or a number")
	return c
}

func parseSignal(s string) (syscall.Signal, error) {
	if n, err := strconv.Atoi(s); err == nil && n > 0 && n <= 64 {
		return syscall.Signal(n), nil
	}
	name := strings.ToUpper(s)
	if !strings.HasPrefix(name, "SIG") {
		name = "SIG" + name
	}
	if n := unix.SignalNum(name); n != 0 {
		return n, nil
	}
	return 0, fmt.Errorf("%q is no signal", s)
}
