package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	goruntime "runtime"
	"strings"
	"syscall"

	"github.com/spf13/cobra"

	"github.com/abdul-abdi/lumina/runtime"
	"github.com/abdul-abdi/lumina/runtime/desktop"
	"github.com/abdul-abdi/lumina/runtime/outfile"
)

func newDesktopBootCommand(env *environment) *cobra.Command {
	var o desktop.Options
	var headless, detach bool
	c := &cobra.Command{
		Use:   "boot NAME|PATH",
		Short: "Start a desktop",
		Long: "Start a desktop, and wait until its guest powers off. Ctrl-C presses its power button; a second one ends it at once.\n" +
			"If this host has a screen, the desktop gets a window. lumina desktop open shows it in a browser.",
		Args: usageArgs(cobra.ExactArgs(1)),
		RunE: func(c *cobra.Command, args []string) error {
			var err error
			if o.Home, err = runtime.Home(env.getenv("LUMINA_HOME")); err != nil {
				return err
			}
			if o.Driver, err = env.driver(); err != nil {
				return err
			}
			reserve, err := diskReserve(env)
			if err != nil {
				return err
			}
			if err := runtime.CheckSpace(o.Home, reserve); err != nil {
				return err
			}
			if o.ID = args[0]; strings.Contains(o.ID, "/") { // its directory
				if o.ID, err = filepath.Abs(o.ID); err != nil {
					return err
				}
			}
			if !headless && !o.Capture {
				if o.Window, err = hasScreen(env); err != nil {
					return err
				}
			}
			if err := serialFile(env, &o, detach); err != nil {
				return err
			}
			for _, file := range []*string{&o.SerialFile, &o.ISO} {
				if *file == "" || file == &o.ISO && *file == desktop.NoISO {
					continue
				}
				if *file, err = filepath.Abs(*file); err != nil {
					return err
				}
			}
			if o.ISO != "" && o.ISO != desktop.NoISO {
				if _, err := os.Stat(o.ISO); err != nil {
					return usageError{fmt.Errorf("--iso: %w", err)}
				}
			}
			switch {
			case o.Capture && detach:
				return usageError{errors.New("--capture-serial prints the console, and so cannot be combined with --detach")}
			case o.Capture:
				o.Serial, env.raw = env.stdout, true
				return desktop.Supervise(c.Context(), o, func(error) {})
			case detach:
				return detachDesktop(c.Context(), env, o)
			}
			return desktop.Supervise(c.Context(), o, func(err error) {
				if err == nil {
					err = printBooted(env, o)
				}
				if err == nil && !headless && !o.Window {
					env.note("this host has no screen; lumina desktop open %s shows the desktop in a browser", o.ID)
				}
			})
		},
		ValidArgsFunction: completeDesktops(env),
	}
	c.Flags().SortFlags = false
	c.Flags().BoolVar(&headless, "headless", false, "open no window")
	c.Flags().BoolVarP(&detach, "detach", "d", false, "return once it runs; lumina desktop stop ends it")
	c.Flags().StringVar(&o.ISO, "iso", "", "use this ISO instead of the desktop's; none for no ISO")
	c.Flags().StringVar(&o.SerialFile, "serial", "", "write the output of its serial port to this file; missing parent directories are created")
	c.Flags().Var((*timeSpan)(&o.Timeout), "timeout", "end it after this time, such as 10m")
	c.Flags().BoolVar(&o.Capture, "capture-serial", false, "boot the ISO's Linux directly, without its boot loader, with its console on standard output")
	return c
}

// serialFile finds where the serial port's output goes, before the desktop boots.
func serialFile(env *environment, o *desktop.Options, detach bool) error {
	if o.SerialFile == "" {
		return nil
	}
	if outfile.IsOutput(env.stdout, o.SerialFile) {
		if detach {
			return usageError{fmt.Errorf("--serial %s is this command's output, which ends before the desktop does; name another file", o.SerialFile)}
		}
		o.SerialFile, o.Serial = "", env.stdout
		env.raw = true
		return nil
	}
	to, err := outfile.Check(o.SerialFile)
	if err != nil {
		return usageError{fmt.Errorf("--serial: %w", err)}
	}
	o.SerialFile = to.Path
	_, err = outfile.MakeParents(to.Path)
	return err
}

// hasScreen says whether a window can be opened. On a Mac, a desktop without a
// window has to be asked for: nothing else shows its screen.
func hasScreen(env *environment) (bool, error) {
	if goruntime.GOOS == "darwin" {
		return true, checkMacScreen(env.getenv, "/dev/console")
	}
	return env.getenv("DISPLAY") != "" || env.getenv("WAYLAND_DISPLAY") != "", nil
}

// checkMacScreen says why no window can be opened on a Mac, if so: a login by ssh
// has none, unless the same user is logged in at the screen, who then owns console.
func checkMacScreen(getenv func(string) string, console string) error {
	if getenv("SSH_CONNECTION") == "" && getenv("SSH_TTY") == "" {
		return nil
	}
	var st syscall.Stat_t
	if err := syscall.Stat(console, &st); err == nil && int(st.Uid) == os.Getuid() {
		return nil
	}
	return usageError{errors.New("no window can be opened: this is a login by ssh, and you are not logged in at this Mac's screen; log in there, or boot the desktop with --headless and reach it over its network (ssh, VNC, Screen Sharing)")}
}

// superviseDesktopCommand is the hidden command that a desktop's process runs.
const superviseDesktopCommand = "__supervise-desktop"

func newSuperviseDesktopCommand(env *environment) *cobra.Command {
	return newSupervisorCommand(env, superviseDesktopCommand, desktop.Main)
}

func detachDesktop(ctx context.Context, env *environment, o desktop.Options) error {
	program, err := os.Executable()
	if err != nil {
		return fmt.Errorf("finding the lumina program: %w", err)
	}
	if _, err := desktop.Start(ctx, program, []string{superviseDesktopCommand}, o); err != nil {
		return err
	}
	return printBooted(env, o)
}

// printBooted says that a desktop runs.
func printBooted(env *environment, o desktop.Options) error {
	f, err := outputFormat(env)
	if err != nil {
		return err
	}
	m, err := desktop.NewStore(o.Home).Find(o.ID)
	if err != nil {
		return err
	}
	if f == formatText {
		_, err = fmt.Fprintf(env.stdout, "%s is running\n", m.Name)
		return err
	}
	return printJSON(env.stdout, map[string]any{"id": m.ID, "name": m.Name, "running": true})
}

func newDesktopStopCommand(env *environment) *cobra.Command {
	var force bool
	c := &cobra.Command{
		Use:   "stop NAME",
		Short: "Stop a desktop with its power button, or by force if that fails",
		Long: "Press a desktop's power button. If the guest does not power off within 10 seconds, its VM is ended. macOS asks the logged-in user whether to shut down, " +
			"and gets 30 seconds; to be sure that nothing is lost, shut it down from inside or over ssh.",
		Args: usageArgs(cobra.ExactArgs(1)),
		RunE: func(c *cobra.Command, args []string) error {
			d, err := openDesktop(env, args[0])
			if err != nil {
				return err
			}
			err = d.Stop(c.Context(), force)
			if errors.Is(err, desktop.ErrNotRunning) {
				return nil // the wish is fulfilled
			}
			return err
		},
		ValidArgsFunction: completeDesktops(env),
	}
	c.Flags().BoolVar(&force, "force", false, "end it at once")
	return c
}
