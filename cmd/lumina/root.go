package main

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"slices"
	"strings"
	"syscall"
	"time"

	"github.com/spf13/cobra"
	"golang.org/x/sys/unix"

	"github.com/abdul-abdi/lumina/builder"
	"github.com/abdul-abdi/lumina/initramfs"
	kernelconfig "github.com/abdul-abdi/lumina/kernel-config"
	"github.com/abdul-abdi/lumina/runtime"
	"github.com/abdul-abdi/lumina/runtime/app"
	"github.com/abdul-abdi/lumina/runtime/desktop"
	"github.com/abdul-abdi/lumina/runtime/printable"
	"github.com/abdul-abdi/lumina/runtime/session"
	"github.com/abdul-abdi/lumina/runtime/vm"
)

// Exit codes of the contract, beside the command's own and 128+n for signal n.
const (
	exitTimeout = 124
	exitFailure = 125
	exitUsage   = 2
)

// environment is what the CLI takes from its process, so that it can be called
// in another one's.
type environment struct {
	program        string // as it was called
	args           []string
	stdin          *os.File
	stdout, stderr *os.File
	json           *bool // whatever the output is, see registerJSON; nil: not said
	raw            bool  // stdout gets what a guest or a file has, and no JSON
	getenv         func(string) string
	lookupEnv      func(string) (string, bool)
	// ctx ends with the first signal that no command in a VM takes; nil: never. It is the
	// context of commands, and here for what is read before a command starts.
	ctx context.Context
	// signals are those that ask the program to end, for the command in a VM to take
	// while it runs; nil for none.
	signals <-chan syscall.Signal
	// driver makes what runs VMs, for the commands that start some.
	driver func() (vm.Driver, error)
	// session starts a session, template the making of a template. Both are processes
	// that outlive this one.
	session  func(context.Context, session.Options) (*session.Session, error)
	template func(runtime.VMOptions) error
	// progress is called with the progress of a build's steps; nil draws bars instead.
	progress func(builder.Progress)
}

// openRuntime opens the state directory, with the driver.
func (env *environment) openRuntime() (*runtime.Runtime, error) {
	driver, err := env.driver()
	if err != nil {
		return nil, err
	}
	return runtime.Open(runtime.Options{Home: env.getenv("LUMINA_HOME"), Driver: driver})
}

// desktopDriver is the driver as one that runs desktops.
func (env *environment) desktopDriver() (vm.DesktopDriver, error) {
	driver, err := env.driver()
	if err != nil {
		return nil, err
	}
	return desktop.Driver(driver)
}

// interrupted is the cause of a context that a signal ended.
type interrupted struct{ signal syscall.Signal }

func (i interrupted) Error() string {
	if i.signal == syscall.SIGINT {
		return "interrupted"
	}
	return "interrupted by " + unix.SignalName(i.signal)
}

// exitCode ends the program with a code and no further word.
type exitCode int

func (e exitCode) Error() string { return fmt.Sprintf("exit code %d", int(e)) }

// usageError is bad usage: exit code 2.
type usageError struct{ err error }

func (u usageError) Error() string { return u.err.Error() }
func (u usageError) Unwrap() error { return u.err }

// execute runs one command line and returns the exit code.
func execute(ctx context.Context, env *environment) int {
	start := time.Now()
	root := newRootCommand(env)
	root.SetArgs(env.args)
	root.SetIn(env.stdin)
	root.SetOut(env.stdout)
	root.SetErr(env.stderr)
	err := root.ExecuteContext(ctx)
	if err == nil {
		return 0
	}
	var code exitCode
	if errors.As(err, &code) {
		return int(code)
	}
	if cause := context.Cause(ctx); ctx.Err() != nil {
		err = cause
	}
	err = env.advise(err)
	for _, one := range separate(err) {
		fmt.Fprintf(env.stderr, "lumina: %s\n", printable.Lines(one.Error()))
	}
	if isNotBuilt(err) {
		fmt.Fprintf(env.stderr, "lumina: \"go install\" cannot build these parts; on Debian this does: %s\n", wholeBuild)
	}
	// Who reads JSON finds the failure of any command there. Bad usage is its author's, and
	// a signal has the exit code for all that there is to say.
	var signalled interrupted
	told := errors.As(err, &signalled) || codeOf(err) == exitUsage
	if f, formatErr := outputFormat(env); formatErr == nil && f != formatText && !told && !env.raw {
		_ = (&report{env: env, format: f, start: start}).failure(err).print(env.stdout)
	}
	return codeOf(err)
}

// separate are the errors of several arguments, each of which gets its own line.
func separate(err error) []error {
	if joined, ok := err.(interface{ Unwrap() []error }); ok && strings.Contains(err.Error(), "\n") {
		return joined.Unwrap()
	}
	return []error{err}
}

// advise adds what to do about a state directory that cannot grow, or be written to, to an
// error that only names a file of it.
func (env *environment) advise(err error) error {
	var p *fs.PathError
	home, homeErr := runtime.Home(env.getenv("LUMINA_HOME"))
	if homeErr != nil || !errors.As(err, &p) || p.Path != home && !strings.HasPrefix(p.Path, home+"/") {
		return err
	}
	switch {
	case errors.Is(err, syscall.EROFS), errors.Is(err, fs.ErrPermission), p.Op == "mkdir" && p.Path == home:
		return fmt.Errorf("%w; the state directory is %s, and LUMINA_HOME names another", err, home)
	case !errors.Is(err, syscall.ENOSPC):
		return err
	}
	return fmt.Errorf("%w; the disk with %s is full: lumina images df shows what images take, lumina clean removes what nothing needs", err, home)
}

// wholeBuild makes a program with everything in it.
const wholeBuild = "git clone https://github.com/abdul-abdi/lumina && cd lumina && ./setup.sh && make kernel install"

// isNotBuilt reports whether a part is missing that make embeds and go install does
// not: the guest, a kernel, or the app's page.
func isNotBuilt(err error) bool {
	var kernel *kernelconfig.ErrNotBuilt
	return errors.Is(err, initramfs.ErrNotBuilt) || errors.Is(err, app.ErrNotBuilt) || errors.As(err, &kernel)
}

func codeOf(err error) int {
	var signalled interrupted
	var usage usageError
	var failed *runtime.Error
	var killed runtime.Killed
	switch {
	case errors.As(err, &killed):
		return 128 + int(killed.Signal)
	case errors.As(err, &signalled):
		return 128 + int(signalled.signal)
	case errors.As(err, &usage):
		return exitUsage
	case errors.As(err, &failed) && failed.Kind == runtime.Timeout:
		return exitTimeout
	}
	return exitFailure
}

// subcommand is made only when it is called, or all are listed: an exec would pay
// for the flags of all.
type subcommand struct {
	name string
	make func(*environment) *cobra.Command
}

func subcommands() []subcommand {
	return []subcommand{
		{"run", newRunCommand},
		{"pool", newPoolCommand},
		{"session", newSessionCommand},
		{"exec", newExecCommand},
		{"cp", newCpCommand},
		{"ps", newPsCommand},
		{"logs", newLogsCommand},
		{"kill", newKillCommand},
		{"images", newImagesCommand},
		{"recipe", newRecipeCommand},
		{"pull", newPullCommand},
		{"release", newReleaseCommand},
		{"volume", newVolumeCommand},
		{"network", newNetworkCommand},
		{"desktop", newDesktopCommand},
		{"app", newAppCommand},
		{superviseCommand, newSuperviseCommand},
		{superviseDesktopCommand, newSuperviseDesktopCommand},
		{templateCommand, newTemplateCommand},
		{"clean", newCleanCommand},
		{"doctor", newDoctorCommand},
		{"bench", newBenchCommand},
		{"version", newVersionCommand},
	}
}

func newRootCommand(env *environment) *cobra.Command {
	root := newGroup("lumina", "subprocess.run() for virtual machines")
	root.Long = root.Short + `

Exit codes:
  124    timeout
  125    any other error of lumina
  2      bad usage, on the command line or in a file that you wrote (Dockerfile,
         recipe, network, environment); nothing was started
  128+n  signal n ended the command
All other codes, and 0, are the command's own.`
	root.SilenceErrors, root.SilenceUsage = true, true
	printsVersion := root.Flags().BoolP("version", "v", false, "print the version")
	help := root.RunE
	root.RunE = func(c *cobra.Command, args []string) error {
		if *printsVersion {
			return printVersion(env)
		}
		return help(c, args)
	}
	root.PersistentPreRun = func(c *cobra.Command, _ []string) { env.checkOwners(c) }
	env.registerJSON(root.PersistentFlags(), nil)
	root.SetFlagErrorFunc(flagError)
	root.SetHelpCommand(newHelpCommand())
	all := append(subcommands(), manual()...)
	if i := slices.IndexFunc(all, func(c subcommand) bool { return len(env.args) > 0 && c.name == env.args[0] }); i >= 0 {
		all = all[i : i+1]
	}
	for _, c := range all {
		root.AddCommand(c.make(env))
	}
	if len(all) > 1 {
		initCompletion(root)
	}
	return root
}

// checkOwners warns if other users can write to the state directory, as gpg does for its
// own. It is only a warning: containers and shared disks often have such directories and no
// other users. Processes that a command starts do not repeat it, and doctor has its own check.
func (env *environment) checkOwners(c *cobra.Command) {
	for c.HasParent() && c.Parent().HasParent() {
		c = c.Parent()
	}
	switch c.Name() {
	case c.Root().Name(), "doctor", "version", "help", "completion", "recipe":
		return
	}
	if c.Hidden {
		return
	}
	home, err := runtime.Home(env.getenv("LUMINA_HOME"))
	if err != nil {
		return // the command reports this, if it needs one
	}
	if err := runtime.CheckOwners(home); err != nil {
		env.note("%v", err)
	}
}

// usageArgs makes a wrong number of arguments bad usage.
func usageArgs(check cobra.PositionalArgs) cobra.PositionalArgs {
	return func(c *cobra.Command, args []string) error {
		if err := check(c, args); err != nil {
			// cobra's message may have several lines of suggestions.
			first, _, _ := strings.Cut(err.Error(), "\n")
			if strings.HasPrefix(first, "unknown command") { // which it says of any argument where there are none
				first = fmt.Sprintf("unexpected argument %q", args[0])
			}
			if strings.Contains(first, " arg(s)") { // it counts
				_, form, _ := strings.Cut(c.Use, " ")
				first = fmt.Sprintf("%s given; write %s %s", countOf(len(args)), c.CommandPath(), form)
			}
			return usageError{fmt.Errorf("%s; see %s --help", first, c.CommandPath())}
		}
		return nil
	}
}

func countOf(arguments int) string {
	switch arguments {
	case 0:
		return "no argument is"
	case 1:
		return "one argument is"
	}
	return fmt.Sprintf("%d arguments are", arguments)
}
