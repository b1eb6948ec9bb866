package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"math"
	"os"
	"path"
	"regexp"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/spf13/cobra"
	"golang.org/x/term"

	"github.com/abdul-abdi/lumina/runtime"
	"github.com/abdul-abdi/lumina/runtime/forward"
	"github.com/abdul-abdi/lumina/runtime/image"
	"github.com/abdul-abdi/lumina/runtime/supervise"
)

// commandFlags are the flags of every command that runs a process in a VM.
type commandFlags struct {
	env, envFiles []string
	dir           string
	user          string
	timeout       timeSpan
}

func (f *commandFlags) register(c *cobra.Command) {
	flags := c.Flags()
	f.registerEnv(c)
	flags.StringVarP(&f.dir, "workdir", "w", "", "working directory, absolute (default: the image's)")
	flags.StringVarP(&f.user, "user", "u", "", "user to run as, NAME or UID[:GID] (default: the image's)")
	flags.Var(&f.timeout, "timeout", "end the command after this time, such as 30 (seconds), 90s or 1h; 0 for never (default $LUMINA_TIMEOUT or never)")
}

func (f *commandFlags) registerEnv(c *cobra.Command) {
	c.Flags().StringArrayVarP(&f.env, "env", "e", nil, "set an environment variable, NAME=VALUE; NAME alone takes this process's value (repeatable)")
	c.Flags().StringArrayVar(&f.envFiles, "env-file", nil, "set the variables in this file, one a line (repeatable)")
}

// settings are all of a command but what it is.
func (f *commandFlags) settings(c *cobra.Command, env *environment) (runtime.Command, error) {
	cmd := runtime.Command{Dir: f.dir, User: f.user}
	var err error
	if cmd.Env, err = variables(env, f.env, f.envFiles); err != nil {
		return cmd, usageError{err}
	}
	if c.Flags().Changed("workdir") && !path.IsAbs(f.dir) {
		return cmd, usageError{fmt.Errorf("--workdir %q: want an absolute path in the VM", f.dir)}
	}
	if c.Flags().Changed("user") && strings.TrimSpace(f.user) == "" {
		return cmd, usageError{fmt.Errorf("--user %q: want NAME or UID[:GID]", f.user)}
	}
	user, group, _ := strings.Cut(f.user, ":")
	for _, id := range []string{user, group} {
		if n, err := strconv.Atoi(id); (err == nil || errors.Is(err, strconv.ErrRange)) && (n < 0 || n > math.MaxInt32) {
			return cmd, usageError{fmt.Errorf("--user %q: a number is from 0 to %d", f.user, math.MaxInt32)}
		}
	}
	cmd.Timeout, err = timeoutOf(env, f.timeout, c.Flags().Changed("timeout"))
	return cmd, err
}

// command is the process that the flags and arguments ask for: one argument
// before any "--" is a string for the shell, what follows "--" a program. dash
// is how many arguments come before "--", negative when there is none.
func (f *commandFlags) command(c *cobra.Command, env *environment, args []string, dash int) (runtime.Command, error) {
	cmd, err := f.settings(c, env)
	if err != nil {
		return cmd, err
	}
	switch {
	case len(args) == 0:
		return cmd, usageError{fmt.Errorf("no command given; see %s --help", c.CommandPath())}
	case dash == 0 && args[0] == "", dash != 0 && strings.TrimSpace(args[0]) == "":
		return cmd, usageError{fmt.Errorf("the command is empty; see %s --help", c.CommandPath())}
	case dash == 0:
		cmd.Args = args
	case c.Flags().Lookup("image") != nil && len(args) > 1 && isImage(env, args[0]):
		return cmd, usageError{fmt.Errorf("the image is a flag here: write --image %s, then the command as one string, or -- PROG ARG…", args[0])}
	case dash > 0 || len(args) > 1:
		return cmd, usageError{errors.New("a command is one string for the shell, or a program after --: quote it, or write -- PROG ARG…")}
	default:
		cmd.Shell = args[0]
	}
	return cmd, nil
}

// imageCommandFlags are those of commands whose image may say what to run.
type imageCommandFlags struct {
	commandFlags
	entrypoint string
}

func (f *imageCommandFlags) register(c *cobra.Command) {
	f.commandFlags.register(c)
	c.Flags().StringVar(&f.entrypoint, "entrypoint", "", "run this program in place of the image's ENTRYPOINT and CMD, with what follows -- as its arguments; '' for none")
}

// command is also that of the image, when there are no arguments.
func (f *imageCommandFlags) command(c *cobra.Command, env *environment, args []string, dash int) (runtime.Command, error) {
	given := c.Flags().Changed("entrypoint")
	if len(args) > 0 && (!given || f.entrypoint == "") {
		return f.commandFlags.command(c, env, args, dash)
	}
	cmd, err := f.settings(c, env)
	cmd.Args = args
	if given {
		cmd.Entrypoint = &f.entrypoint
	}
	if given && f.entrypoint == "" {
		err = errors.Join(err, usageError{fmt.Errorf("--entrypoint '' leaves no command: give one; see %s --help", c.CommandPath())})
	}
	return cmd, err
}

// terminalFlags are docker's -i and -t.
type terminalFlags struct{ pty bool }

func (f *terminalFlags) register(c *cobra.Command) {
	flags := c.Flags()
	flags.BoolVarP(&f.pty, "pty", "t", false, "run the command in a terminal, connected to this one")
	flags.BoolP("interactive", "i", false, "pass standard input to the command: always on; accepted for compatibility")
}

// check says whether there is a terminal to give.
func (f *terminalFlags) check(env *environment) error {
	if f.pty && !term.IsTerminal(int(env.stdin.Fd())) {
		return usageError{errors.New("--pty (-t) needs a terminal as standard input; leave it out in scripts")}
	}
	return nil
}

// stdin is what the command reads: a terminal stays with its owner, and the null
// device is the guest's own, without a stream to it.
func stdin(env *environment) io.Reader {
	if term.IsTerminal(int(env.stdin.Fd())) || isNull(env.stdin) {
		return nil
	}
	return env.stdin
}

func isNull(f *os.File) bool {
	null, nullErr := os.Stat(os.DevNull)
	info, err := f.Stat()
	return nullErr == nil && err == nil && os.SameFile(null, info)
}

func newRunCommand(env *environment) *cobra.Command {
	var vm vmFlags
	var flags imageCommandFlags
	var terminal terminalFlags
	var copies, downloads, forwards []string
	var name string
	c := &cobra.Command{
		Use:   "run [flags] [COMMAND] | run [flags] -- PROG [ARG…]",
		Short: "Run one command in a fresh VM",
		Long: `Run one command in a fresh VM.

COMMAND is one string for the VM's shell. After --, a program and its arguments run
without a shell. Without a command, the image's ENTRYPOINT and CMD run, as with
docker; a command replaces both. With --entrypoint PROG, what follows are its arguments.

--image is a local image (lumina images list), or a reference as for images create
--from: debian:12, ghcr.io/owner/name@sha256:…, oci:DIR[:TAG], docker-archive:FILE.
The image is made once and kept under a name derived from the reference; if it comes
from files, it is made again when they change. A local image of that name wins.

--copy and --download follow the rules of lumina cp. --timeout covers the command and
its copies together. A failed download adds "transfer_error" to the result and changes
nothing else in it; the exit code is the command's, or 125 if that is 0 (124 after a
timeout).`,
		Example: `  lumina run 'uname -a; id'
  lumina run --image debian:12 'cat /etc/os-release'
  lumina run -it -v ./src:/src -w /src --image golang:1.26 -- go test ./...
  echo 6*7 | lumina run --image python -- python3 -c 'print(eval(input()))'`,
		RunE: func(c *cobra.Command, args []string) error {
			command, err := flags.command(c, env, args, c.ArgsLenAtDash())
			if err != nil {
				return err
			}
			options, err := vm.options(env)
			if err != nil {
				return err
			}
			run := runtime.RunOptions{VM: options, Command: command}
			if run.Copies, err = parsePairs("--copy", "LOCAL:REMOTE", copies); err != nil {
				return err
			}
			if run.Downloads, err = parsePairs("--download", "REMOTE:LOCAL", downloads); err != nil {
				return err
			}
			if run.Forwards, err = forward.ParseAll(forwards); err != nil {
				return usageError{err}
			}
			run.Forwarded = func(rules []forward.Rule) {
				for i, r := range rules {
					if run.Forwards[i].Host == 0 { // who asked for any does not know which
						env.note("127.0.0.1:%d leads to the VM's port %d/%s", r.Host, r.Guest, r.Protocol)
					}
				}
			}
			if err := checkDockers(c, name); err != nil {
				return err
			}
			if err := terminal.check(env); err != nil {
				return err
			}
			if err := run.Check(); err != nil {
				return usageError{err}
			}
			run.MaxSize = int64(vm.maxSize)
			return runOnce(c.Context(), env, &vm, run, terminal.pty)
		},
	}
	c.Flags().SortFlags = false
	c.Flags().SetNormalizeFunc(dockerNames)
	vm.register(c, env)
	flags.register(c)
	terminal.register(c)
	env.registerJSON(c.Flags(), c)
	c.Flags().StringArrayVar(&copies, "copy", nil, "copy a file or directory in before the command, LOCAL:REMOTE (repeatable)")
	c.Flags().StringArrayVar(&downloads, "download", nil, "copy a file or directory out after the command, REMOTE:LOCAL (repeatable)")
	c.Flags().Lookup("max-size").Usage = "refuse images, and end downloads, that take more space than this (default half of the free space)"
	c.Flags().StringArrayVarP(&forwards, "forward", "p", nil, "make a port of the VM reachable on 127.0.0.1 while the command runs, [HOSTPORT:]GUESTPORT[/udp] (repeatable)")
	c.Flags().Bool("rm", true, "leave nothing of the VM: always on; accepted for compatibility")
	c.Flags().StringVar(&name, "name", "", "no effect, accepted for compatibility: runs are not listed")
	return c
}

// isImage says whether an argument is likely an image's: the command of an image is one
// string.
func isImage(env *environment, arg string) bool {
	if strings.Contains(arg, ":") {
		return checkImage(arg) == nil
	}
	store, err := imageStore(env)
	if err != nil || image.CheckName(arg) != nil {
		return false
	}
	h, err := store.Open(arg)
	if err == nil {
		h.Close()
	}
	return err == nil
}

// checkDockers checks the flags of docker's that are taken though they change
// nothing here.
func checkDockers(c *cobra.Command, name string) error {
	if keep, err := c.Flags().GetBool("rm"); err == nil && !keep {
		return usageError{errors.New("--rm=false: run never keeps its VM; use lumina session start")}
	}
	if c.Flags().Changed("name") && !containerName().MatchString(name) {
		return usageError{fmt.Errorf("--name %q: want letters, digits, '.', '_' and '-', at least two, beginning with a letter or digit", name)}
	}
	return nil
}

// containerName is what docker takes.
var containerName = sync.OnceValue(func() *regexp.Regexp { return regexp.MustCompile(`^[a-zA-Z0-9][a-zA-Z0-9_.-]+$`) })

// parsePairs splits FROM:TO. Either may have colons of its own: a source of this
// host is what is there, and else the last colon is the one that splits.
func parsePairs(flag, form string, values []string) ([]runtime.Copy, error) {
	var pairs []runtime.Copy
	for _, v := range values {
		i := strings.LastIndexByte(v, ':')
		for at := i; flag == "--copy" && at > 0; at = strings.LastIndexByte(v[:at], ':') {
			if _, err := os.Stat(v[:at]); err == nil && at < len(v)-1 {
				i = at
				break
			}
		}
		if i <= 0 || i == len(v)-1 {
			return nil, usageError{fmt.Errorf("%s %q is not %s", flag, v, form)}
		}
		pair := runtime.Copy{From: v[:i], To: v[i+1:]}
		guest := pair.From
		if flag == "--copy" {
			guest = pair.To
		}
		if hasTilde(guest) {
			return nil, usageError{fmt.Errorf("%s %w", flag, errTilde(v, "", guest))}
		}
		pairs = append(pairs, pair)
	}
	return pairs, nil
}

func runOnce(ctx context.Context, env *environment, vm *vmFlags, options runtime.RunOptions, pty bool) error {
	report, err := newReport(env)
	if err != nil {
		return err
	}
	r, err := env.openRuntime()
	if err != nil {
		return err
	}
	if err := vm.obtain(ctx, env, r.Home(), &options.VM); err != nil {
		return report.fail(err)
	}
	stdout, stderr := report.writers()
	options.Command.Stdio = runtime.Stdio{Stdin: stdin(env), Stdout: stdout, Stderr: stderr}
	options.Command.Signals = env.signals
	restore := func() error { return nil }
	if pty {
		restore = joinTerminal(ctx, env, &options.Command)
		report.format = formatText
	}
	supervise.LeaveCPUs()
	result, err := r.Run(ctx, options)
	if restoreErr := restore(); err == nil {
		err = restoreErr
	}
	if errors.Is(err, runtime.ErrNoCommand) {
		return usageError{err}
	}
	if env.getenv("LUMINA_BOOT_TRACE") == "1" {
		printTrace(env.stderr, result.Trace)
	}
	makeTemplateLater(env, options.VM, result.Trace.Cold)
	for _, name := range result.NotCopied {
		env.note("%s was not copied: it is a socket, FIFO or device, or a file system of the kernel such as /proc", name)
	}
	report.network, report.transfer, report.hostError, report.boot = result.Network, result.TransferError, result.HostError, result.Boot
	return report.finish(result.ExitCode, env.nameUsers(err))
}

// printTrace prints where the boot's time went, in milliseconds.
func printTrace(w io.Writer, t runtime.Trace) {
	if t.Cold != (runtime.Cold{}) {
		fmt.Fprintf(w, "boot: cold, since %v\n", t.Cold)
	} else {
		fmt.Fprintln(w, "boot: from a template")
	}
	var last time.Duration
	for _, m := range t.Marks {
		fmt.Fprintf(w, "boot %8.1f ms  +%7.1f  %s\n", ms(m.At), ms(m.At-last), m.Name)
		last = m.At
	}
}

func ms(d time.Duration) float64 { return float64(d.Microseconds()) / 1000 }
