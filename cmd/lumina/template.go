package main

import (
	"context"
	"encoding/json"
	"os"
	"os/exec"
	"strings"
	"syscall"

	"github.com/spf13/cobra"

	"github.com/abdul-abdi/lumina/runtime"
	"github.com/abdul-abdi/lumina/runtime/supervise"
)

// templateCommand is the hidden command that makes a template in the
// background.
const templateCommand = "__template"

// makeTemplateLater has the template made which a cold boot did without. The result
// of that boot does not wait for it, and does not fail with it.
func makeTemplateLater(env *environment, options runtime.VMOptions, cold runtime.Cold) {
	if !cold.WantsTemplate() {
		return
	}
	if err := env.template(options); err != nil {
		env.note("making a template: %v", err)
	}
}

// templateProcess starts a process that makes a template.
func templateProcess(options runtime.VMOptions) error {
	program, err := os.Executable()
	if err != nil {
		return err
	}
	input, err := json.Marshal(options)
	if err != nil {
		return err
	}
	cmd := exec.Command(program, templateCommand, string(input))
	cmd.Dir, cmd.Env = "/", supervise.Environment()
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
	return cmd.Start()
}

func newTemplateCommand(env *environment) *cobra.Command {
	return &cobra.Command{
		Use:    templateCommand + " OPTIONS",
		Hidden: true,
		Args:   usageArgs(cobra.ExactArgs(1)),
		RunE: func(c *cobra.Command, args []string) error {
			var options runtime.VMOptions
			if err := json.NewDecoder(strings.NewReader(args[0])).Decode(&options); err != nil {
				return usageError{err}
			}
			return makeTemplate(c.Context(), env, options)
		},
	}
}

func makeTemplate(ctx context.Context, env *environment, options runtime.VMOptions) error {
	r, err := env.openRuntime()
	if err != nil {
		return err
	}
	return r.MakeTemplate(ctx, options)
}
