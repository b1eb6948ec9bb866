package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"time"

	"github.com/spf13/cobra"

	"github.com/abdul-abdi/lumina/runtime"
	"github.com/abdul-abdi/lumina/runtime/forward"
	"github.com/abdul-abdi/lumina/runtime/session"
	"github.com/abdul-abdi/lumina/runtime/vm"
)

func newSessionCommand(env *environment) *cobra.Command {
	return newGroup("session", "Keep a VM running, and run many commands in it",
		newSessionStartCommand(env), newSessionStopCommand(env), newSessionListCommand(env), newSessionForwardCommand(env))
}

func newSessionStartCommand(env *environment) *cobra.Command {
	var vm vmFlags
	var forwards, labels []string
	var name string
	var ttl timeSpan
	var image imageRun
	c := &cobra.Command{
		Use:   "start",
		Short: "Boot a VM that keeps running, and print its session identifier",
		Long: `Boot a VM that keeps running, and print its session identifier.

--image is what run takes. --run starts the image's ENTRYPOINT and CMD, detached:
its id is printed, too; see lumina logs and lumina ps SID.`,
		Example: `  lumina session start --image postgres:17 --run -e POSTGRES_PASSWORD --forward 5432:5432`,
		Args: func(c *cobra.Command, args []string) error {
			if len(args) == 0 {
				return nil
			}
			return usageError{fmt.Errorf("unexpected argument %q: the image is --image IMAGE, the session's name --name NAME, and commands follow with lumina exec; see %s --help", args[0], c.CommandPath())}
		},
		RunE: func(c *cobra.Command, _ []string) error {
			home, err := runtime.Home(env.getenv("LUMINA_HOME"))
			if err != nil {
				return err
			}
			o := session.Options{Home: home, Name: name, TTL: time.Duration(ttl)}
			if o.Labels, err = session.ParseLabels(labels); err != nil {
				return usageError{err}
			}
			if err := session.CheckName(name); name != "" && err != nil {
				return usageError{err}
			}
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
	c.Flags().Bool("rm", true, "leave nothing of a stopped session: always on; accepted for compatibility")
	c.Flags().StringVar(&name, "name", "", "a unique name to use instead of the identifier")
	c.Flags().StringArrayVar(&labels, "label", nil, "KEY=VALUE, to choose sessions by, see ps --filter (repeatable)")
	vm.register(c, env)
	c.Flags().StringArrayVarP(&forwards, "forward", "p", nil, "make a port of the VM reachable on 127.0.0.1, [HOSTPORT:]GUESTPORT[/udp] (repeatable)")
	c.Flags().Var(&ttl, "ttl", "end the session when no command or copy has run in it for this long, such as 30m; connections to forwards do not count")
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
	s, err := env.supervised(ctx, o)
	if err != nil {
		return report.fail(err)
	}
	makeTemplateLater(env, o.VM, s.Info.Cold)
	row := map[string]string{"sid": s.Info.SID}
	if o.Name != "" {
		row["name"] = o.Name
	}
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

// supervised starts a session.
func (env *environment) supervised(ctx context.Context, o session.Options) (_ *session.Session, err error) {
	if o.Driver, err = env.driver(); err != nil {
		return nil, err
	}
	return env.session(ctx, o)
}

// sessionProcess starts a session whose process is this program.
func sessionProcess(ctx context.Context, o session.Options) (*session.Session, error) {
	program, err := os.Executable()
	if err != nil {
		return nil, fmt.Errorf("finding the lumina program: %w", err)
	}
	return session.Start(ctx, program, []string{superviseCommand}, o)
}

// superviseCommand is the hidden command that a session's process runs.
const superviseCommand = "__supervise"

func newSuperviseCommand(env *environment) *cobra.Command {
	return newSupervisorCommand(env, superviseCommand, session.Main)
}

// newSupervisorCommand is the command of a process that owns a VM: what it runs comes
// from its standard input.
func newSupervisorCommand(env *environment, use string, run func(context.Context, io.Reader, vm.Driver) error) *cobra.Command {
	return &cobra.Command{
		Use:    use,
		Hidden: true,
		Args:   usageArgs(cobra.NoArgs),
		RunE: func(c *cobra.Command, _ []string) error {
			driver, err := env.driver()
			if err != nil {
				return err
			}
			return run(c.Context(), env.stdin, driver)
		},
	}
}

// completeSIDs completes a first argument with the SIDs of sessions.
func completeSIDs(env *environment) cobra.CompletionFunc {
	return func(_ *cobra.Command, args []string, _ string) ([]string, cobra.ShellCompDirective) {
		home, err := runtime.Home(env.getenv("LUMINA_HOME"))
		if err != nil || len(args) > 0 {
			return nil, cobra.ShellCompDirectiveNoFileComp
		}
		all, _ := session.Names(home)
		return all, cobra.ShellCompDirectiveNoFileComp
	}
}
