package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"golang.org/x/term"

	"github.com/abdul-abdi/lumina/runtime"
	"github.com/abdul-abdi/lumina/runtime/agent"
	"github.com/abdul-abdi/lumina/runtime/supervise"
)

// commandFlags are the flags of every command that runs a process in a VM.
type commandFlags struct {
	env     []string
	dir     string
	user    string
	timeout time.Duration
}

func (f *commandFlags) register(c *cobra.Command) {
	flags := c.Flags()
	flags.StringArrayVarP(&f.env, "env", "e", nil, "set an environment variable, NAME=value (repeatable)")
	flags.StringVar(&f.dir, "workdir", "", "working directory (default: the image's)")
	flags.StringVar(&f.user, "user", "", "user to run as, NAME or UID[:GID] (default: the image's)")
	flags.DurationVar(&f.timeout, "timeout", 0, "end the command after this time, such as 60s (default $LUMINA_TIMEOUT or none)")
}

// command is the process that the flags and arguments ask for: one argument
// before any "--" is a string for the shell, what follows "--" a program. dash
// is how many arguments come before "--", negative when there is none.
func (f *commandFlags) command(c *cobra.Command, env *environment, args []string, dash int) (runtime.Command, error) {
	timeout, err := timeoutOf(env, f.timeout)
	if err != nil {
		return runtime.Command{}, err
	}
	cmd := runtime.Command{Env: f.env, Dir: f.dir, User: f.user, Timeout: timeout}
	switch {
	case len(args) == 0:
		return cmd, usageError{fmt.Errorf("no command given; see %s --help", c.CommandPath())}
	case dash == 0:
		cmd.Args = args
	case dash > 0 || len(args) > 1:
		return cmd, usageError{errors.New("a command is one string for the shell, or a program after --: quote it, or write -- PROG ARG…")}
	default:
		cmd.Shell = args[0]
	}
	return cmd, nil
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
	var flags commandFlags
	var copies, downloads []string
	var most byteSize
	c := &cobra.Command{
		Use:   "run [flags] COMMAND | run [flags] -- PROG [ARG…]",
		Short: "Run one command in a fresh VM",
		Long: `Run one command in a fresh VM.

--copy and --download copy as lumina cp does; see there. --timeout is for the
command and its copies together. A download that fails costs nothing of the result:
that says "transfer_error", and the exit code is the command's, or 125 when that
is 0 (124 when the time was over).`,
		Example: `  lumina run 'uname -a; id'
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
			if err := run.Check(); err != nil {
				return usageError{err}
			}
			run.MaxSize = int64(most)
			return runOnce(c.Context(), env, run)
		},
	}
	c.Flags().SortFlags = false
	vm.register(c, env)
	flags.register(c)
	c.Flags().StringArrayVar(&copies, "copy", nil, "copy a file or directory in before the command, LOCAL:REMOTE (repeatable)")
	c.Flags().StringArrayVar(&downloads, "download", nil, "copy a file or directory out after the command, REMOTE:LOCAL (repeatable)")
	c.Flags().Var(&most, "max-size", "end a download that writes more (default half of what is free there)")
	return c
}

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
		pairs = append(pairs, runtime.Copy{From: v[:i], To: v[i+1:]})
	}
	return pairs, nil
}

func runOnce(ctx context.Context, env *environment, options runtime.RunOptions) error {
	report, err := newReport(env)
	if err != nil {
		return err
	}
	r, err := runtime.Open(runtime.Options{Home: env.getenv("LUMINA_HOME")})
	if err != nil {
		return err
	}
	if err := pullDefault(ctx, env, r.Home(), options.VM.Image); err != nil {
		return report.finish(0, 0, err)
	}
	stdout, stderr := report.writers()
	options.Command.Stdio = agent.Stdio{Stdin: stdin(env), Stdout: stdout, Stderr: stderr}
	options.Command.Signals = env.signals
	supervise.LeaveProcessors()
	result, err := r.Run(ctx, options)
	if env.getenv("LUMINA_BOOT_TRACE") == "1" {
		printTrace(env.stderr, result.Trace)
	}
	makeTemplateLater(env, options.VM, result.Trace)
	for _, name := range result.NotCopied {
		env.note("%s is a socket, FIFO or device and was not copied", name)
	}
	report.network, report.transfer, report.hostError = result.Network, result.TransferError, result.HostError
	return report.finish(result.ExitCode, result.Duration, err)
}

// printTrace prints where the boot's time went, in milliseconds.
func printTrace(w io.Writer, t runtime.Trace) {
	if t.Cold != "" {
		fmt.Fprintf(w, "boot: cold, since %s\n", t.Cold)
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
