package main

import (
	"context"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/abdul-abdi/lumina/runtime"
	"github.com/abdul-abdi/lumina/runtime/forward"
	"github.com/abdul-abdi/lumina/runtime/session"
)

func newSessionListCommand(env *environment) *cobra.Command {
	var o listOptions
	c := &cobra.Command{
		Use:     "list",
		Aliases: []string{"ls"},
		Short:   "List sessions",
		Args:    usageArgs(cobra.NoArgs),
		RunE:    func(c *cobra.Command, _ []string) error { return printSessions(c.Context(), env, o) },
	}
	o.register(c)
	return c
}

// listOptions are the flags of what lists sessions.
type listOptions struct {
	filters []string
	quiet   bool
}

func (o *listOptions) register(c *cobra.Command) {
	c.Flags().StringArrayVarP(&o.filters, "filter", "f", nil, "list only sessions that have this: name=PATTERN, label=KEY[=VALUE], image=NAME, status=starting, running, crashed or unreachable (repeatable)")
	c.Flags().BoolVarP(&o.quiet, "quiet", "q", false, "print only the identifiers, one a line")
	c.Flags().BoolP("all", "a", true, "list crashed sessions too: always on; accepted for compatibility")
}

// sessionRow is one line of ps. Error is why a session cannot be used: unreachable
// or vm_crashed.
type sessionRow struct {
	*session.Status
	Error   string `json:"error,omitempty"`
	Message string `json:"message,omitempty"`
	Console string `json:"console,omitempty"` // its last line
}

func sessionRows(ctx context.Context, home string, filter session.Filter) ([]sessionRow, error) {
	all, err := session.List(ctx, home)
	if err != nil {
		return nil, err
	}
	rows := []sessionRow{}
	for _, s := range all {
		if !filter.Match(s) {
			continue
		}
		row := sessionRow{Status: s}
		switch s.State {
		case session.Crashed:
			row.Error, row.Message, row.Console = string(runtime.VMCrashed), s.Crash.Message, lastLine(s.Crash.Console)
		case session.Unreachable:
			row.Error = "unreachable"
			if s.Err != nil {
				row.Message = s.Err.Error()
			}
		}
		rows = append(rows, row)
	}
	return rows, nil
}

func lastLine(s string) string {
	s = strings.TrimSpace(s)
	return strings.TrimSpace(s[strings.LastIndexByte(s, '\n')+1:])
}

func printSessions(ctx context.Context, env *environment, o listOptions) error {
	filter, err := session.ParseFilter(o.filters)
	if err != nil {
		return usageError{err}
	}
	f, err := outputFormat(env)
	if err != nil {
		return err
	}
	home, err := runtime.Home(env.getenv("LUMINA_HOME"))
	if err != nil {
		return err
	}
	rows, err := sessionRows(ctx, home, filter)
	if err != nil {
		return err
	}
	if o.quiet {
		for _, r := range rows {
			if err := printLine(env.stdout, "%s", r.SID); err != nil {
				return err
			}
		}
		return nil
	}
	if f != formatText {
		return printJSON(env.stdout, rows)
	}
	w := newTable(env.stdout, "SID", "NAME", "IMAGE", "STATUS", "UPTIME", "ACTIVE", "FORWARDS", "")
	for _, r := range rows {
		uptime, active := any(""), any("")
		if r.State == session.Running {
			uptime, active = time.Duration(r.Uptime)*time.Second, r.ActiveExecs
		}
		w.row(r.SID, r.Name, r.Image, r.State, uptime, active, formatForwards(r.Forwards), formatTrouble(r))
	}
	return w.print()
}

// formatTrouble is what is wrong with a session.
func formatTrouble(r sessionRow) string {
	var all []string
	for _, s := range []string{r.HostError, r.Message, r.Console} {
		if s != "" {
			all = append(all, s)
		}
	}
	return strings.Join(all, "; ")
}

func formatForwards(rules []forward.Rule) string {
	var all []string
	for _, r := range rules {
		all = append(all, r.String())
	}
	return strings.Join(all, ",")
}
