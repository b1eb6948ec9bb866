package main

import (
	"fmt"
	"strconv"
	"strings"
	"syscall"

	"github.com/spf13/cobra"
	"golang.org/x/sys/unix"

	"github.com/abdul-abdi/lumina/runtime"
)

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
	return 0, fmt.Errorf("%q is not a signal: want a name such as TERM, or a number from 1 to 64", s)
}
