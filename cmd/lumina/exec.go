package main

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/abdul-abdi/lumina/runtime"
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
			if len(args) == 2 && args[1] == "-" && c.ArgsLenAtDash() < 0 {
				return usageError{fmt.Errorf(`"-" is no command: a shell reads a script from standard input, lumina exec %s sh < SCRIPT`, args[0])}
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
	c.Flags().BoolVarP(&detach, "detach", "d", false, "run the command in the background and print its id; see logs, kill and ps")
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
		return usageError{errors.New("the session's identifier is empty: check that lumina session start succeeded")}
	}
	return nil
}

func execOnce(ctx context.Context, env *environment, s *session.Session, command runtime.Command) error {
	report, err := newReport(env)
	if err != nil {
		return err
	}
	stdout, stderr := report.writers()
	command.Stdio = runtime.Stdio{Stdin: stdin(env), Stdout: stdout, Stderr: stderr}
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
