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
	return newGroup("session", "Keep a VM and run many commands in it",
		newSessionStartCommand(env), newSessionStopCommand(env), newSessionListCommand(env))
}

func newSessionStartCommand(env *environment) *cobra.Command {
	var vm vmFlags
	var forwards []string
	var ttl timeSpan
	var image imageRun
	c := &cobra.Command{
		Use:   "start",
		Short: "Boot a VM that stays, and print its session identifier",
		Long: `Boot a VM that stays, and print its session identifier.

--image is what run takes. --run starts the image's ENTRYPOINT and CMD, detached:
its id is printed, too; see lumina logs and lumina ps SID.`,
		Example: `  lumina session start --image postgres:17 --run -e POSTGRES_PASSWORD --forward 5432:5432`,
		Args:    usageArgs(cobra.NoArgs),
		RunE: func(c *cobra.Command, _ []string) error {
			home, err := runtime.Home(env.getenv("LUMINA_HOME"))
			if err != nil {
				return err
			}
			o := session.Options{Home: home, TTL: time.Duration(ttl)}
			if o.VM, err = vm.options(env); err != nil {
				return err
			}
			if o.Forwards, err = forward.ParseAll(forwards); err != nil {
				return usageError{err}
			}
			command, err := image.command(c, env)
			if err != nil {
				return err
			}
			return startSession(c.Context(), env, &vm, o, command)
		},
	}
	c.Flags().SortFlags = false
	c.Flags().SetNormalizeFunc(dockerNames)
	vm.register(c, env)
	c.Flags().StringArrayVarP(&forwards, "forward", "p", nil, "make a port of the VM reachable on 127.0.0.1, [HOSTPORT:]GUESTPORT[/udp] (repeatable)")
	c.Flags().Var(&ttl, "ttl", "end the session when it was not used for this long, such as 30m")
	image.register(c)
	return c
}

// imageRun are the flags of a session that starts its image's command.
type imageRun struct {
	commandFlags
	run bool
}

func (f *imageRun) register(c *cobra.Command) {
	c.Flags().BoolVar(&f.run, "run", false, "start the image's ENTRYPOINT and CMD in it")
	f.registerEnv(c)
}

// command is nil without --run.
func (f *imageRun) command(c *cobra.Command, env *environment) (*runtime.Command, error) {
	command, err := f.settings(c, env)
	switch {
	case err != nil:
		return nil, err
	case f.run:
		command.Timeout = 0 // which LUMINA_TIMEOUT gives those that are waited for
		return &command, nil
	case len(f.env)+len(f.envFiles) > 0:
		return nil, usageError{errors.New("--env and --env-file are for what --run starts; exec has its own")}
	}
	return nil, nil
}

// startSession starts a session, and a command in it, unless that is nil.
func startSession(ctx context.Context, env *environment, vm *vmFlags, o session.Options, command *runtime.Command) error {
	report, err := newReport(env)
	if err != nil {
		return err
	}
	if err := vm.obtain(ctx, env, o.Home, &o.VM); err != nil {
		return report.fail(err)
	}
	if command != nil {
		images, err := imageStore(env)
		if err != nil {
			return err
		}
		if err := checkCommand(images, runtime.RunOptions{VM: o.VM, Command: *command}); err != nil {
			return report.fail(err)
		}
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
	row := map[string]string{"sid": s.Info.SID}
	if command != nil {
		if row["id"], err = s.Detach(ctx, *command); err != nil {
			return report.fail(errors.Join(err, s.Stop(context.WithoutCancel(ctx))))
		}
	}
	if report.format == formatText {
		_, err = fmt.Fprintln(env.stdout, s.Info.SID)
		return err
	}
	return printJSON(env.stdout, row)
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
		Use:     "stop SID",
		Aliases: []string{"remove", "rm"},
		Short:   "End a session and its VM",
		Args:    usageArgs(cobra.ExactArgs(1)),
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
		Use:     "list",
		Aliases: []string{"ls"},
		Short:   "List sessions",
		Args:    usageArgs(cobra.NoArgs),
		RunE:    func(c *cobra.Command, _ []string) error { return printSessions(c.Context(), env) },
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
