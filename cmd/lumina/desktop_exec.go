package main

import (
	"fmt"

	"github.com/spf13/cobra"

	"github.com/abdul-abdi/lumina/runtime"
)

func newDesktopExecCommand(env *environment) *cobra.Command {
	var flags commandFlags
	var terminal terminalFlags
	c := &cobra.Command{
		Use:   "exec [flags] NAME COMMAND | exec [flags] NAME -- PROG [ARG…]",
		Short: "Run a command in a desktop made from a lumina image",
		Long: "Run a command in a running desktop whose disk was made by lumina images export. Such systems have lumina's agent, which answers once they are up; other systems do not. " +
			"The command runs as root, in a fresh shell.",
		RunE: func(c *cobra.Command, args []string) error {
			if len(args) == 0 || c.ArgsLenAtDash() == 0 {
				return usageError{fmt.Errorf("no desktop given; see %s --help", c.CommandPath())}
			}
			command, err := flags.command(c, env, args[1:], c.ArgsLenAtDash()-1)
			if err != nil {
				return err
			}
			if err := terminal.check(env); err != nil {
				return err
			}
			report, err := newReport(env)
			if err != nil {
				return err
			}
			d, err := openDesktop(env, args[0])
			if err != nil {
				return report.fail(&runtime.Error{Kind: runtime.ConnectionFailed, Err: err})
			}
			guest := d.Guest()
			if terminal.pty {
				return execTerminal(c.Context(), env, &guest, command)
			}
			stdout, stderr := report.writers()
			command.Stdio = runtime.Stdio{Stdin: stdin(env), Stdout: stdout, Stderr: stderr}
			command.Signals = env.signals
			exit, err := guest.Exec(c.Context(), command)
			return report.finish(exit.Code, err)
		},
		ValidArgsFunction: completeDesktops(env),
	}
	c.Flags().SortFlags = false
	c.Flags().SetNormalizeFunc(dockerNames)
	flags.register(c)
	terminal.register(c)
	env.registerJSON(c.Flags(), c)
	return c
}
