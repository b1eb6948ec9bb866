package main

import (
	"bytes"
	"fmt"
	"image/png"
	"strconv"
	"strings"

	"github.com/spf13/cobra"

	"github.com/abdul-abdi/lumina/runtime/desktop"
	"github.com/abdul-abdi/lumina/runtime/outfile"
	"github.com/abdul-abdi/lumina/runtime/vm"
)

func newDesktopScreenshotCommand(env *environment) *cobra.Command {
	return &cobra.Command{
		Use:   "screenshot NAME FILE",
		Short: "Write a screenshot of a desktop to a PNG file, or to standard output (-)",
		Long:  "Write a screenshot of a desktop to a PNG file, or to standard output (-). Missing parent directories are created.",
		Args:  usageArgs(cobra.ExactArgs(2)),
		RunE: func(c *cobra.Command, args []string) error {
			env.raw = args[1] == "-" || outfile.IsOutput(env.stdout, args[1])
			if !env.raw {
				if _, err := outfile.Check(args[1]); err != nil {
					return usageError{err}
				}
			}
			d, err := openDesktop(env, args[0])
			if err != nil {
				return err
			}
			shot, err := d.Screenshot(c.Context())
			if err != nil {
				return err
			}
			if env.raw {
				_, err = env.stdout.Write(shot)
				return err
			}
			if err := outfile.Write(args[1], shot, 0o600); err != nil {
				return err
			}
			size, err := png.DecodeConfig(bytes.NewReader(shot))
			if err != nil {
				return fmt.Errorf("reading the screenshot: %w", err)
			}
			f, err := outputFormat(env)
			if err != nil || f == formatText {
				return err
			}
			return printJSON(env.stdout, map[string]any{"file": args[1], "width": size.Width, "height": size.Height})
		},
		ValidArgsFunction: completeDesktops(env),
	}
}

func newDesktopTypeCommand(env *environment) *cobra.Command {
	var serial bool
	c := &cobra.Command{
		Use:   "type NAME TEXT…",
		Short: "Type text on a US keyboard",
		Args:  usageArgs(cobra.MinimumNArgs(2)),
		RunE: func(c *cobra.Command, args []string) error {
			text := strings.Join(args[1:], " ")
			if !serial {
				if err := desktop.CheckText(text); err != nil {
					return usageError{err}
				}
			}
			d, err := openDesktop(env, args[0])
			if err != nil {
				return err
			}
			if serial {
				return d.TypeSerial(c.Context(), []byte(strings.ReplaceAll(text, "\n", "\r")))
			}
			return d.Type(c.Context(), text)
		},
		ValidArgsFunction: completeDesktops(env),
	}
	c.Flags().BoolVar(&serial, "serial", false, "into the serial port; any characters")
	return c
}

func newDesktopKeyCommand(env *environment) *cobra.Command {
	return &cobra.Command{
		Use:     "key NAME KEY…",
		Short:   "Press keys one after the other; keys joined by + together",
		Example: "  lumina desktop key debian ctrl+alt+f2 enter",
		Args:    usageArgs(cobra.MinimumNArgs(2)),
		RunE: func(c *cobra.Command, args []string) error {
			var all [][]vm.Key
			for _, arg := range args[1:] {
				keys, err := desktop.ParseKeys(arg)
				if err != nil {
					return usageError{err}
				}
				all = append(all, keys)
			}
			d, err := openDesktop(env, args[0])
			if err != nil {
				return err
			}
			return d.Press(c.Context(), all...)
		},
		ValidArgsFunction: completeDesktops(env),
	}
}

func newDesktopClickCommand(env *environment) *cobra.Command {
	var click desktop.Click
	var button string
	c := &cobra.Command{
		Use:   "click NAME X Y",
		Short: "Click at a pixel of the screen",
		Args:  usageArgs(cobra.ExactArgs(3)),
		RunE: func(c *cobra.Command, args []string) error {
			for i, at := range []*int{&click.X, &click.Y} {
				n, err := strconv.Atoi(args[1+i])
				if err != nil || n < 0 {
					return usageError{fmt.Errorf("%q is not a pixel", args[1+i])}
				}
				*at = n
			}
			switch click.Button = vm.Button(button); click.Button {
			case vm.ButtonLeft, vm.ButtonMiddle, vm.ButtonRight:
			default:
				return usageError{fmt.Errorf("--button %q: want left, middle or right", button)}
			}
			d, err := openDesktop(env, args[0])
			if err != nil {
				return err
			}
			return d.Click(c.Context(), click)
		},
		ValidArgsFunction: completeDesktops(env),
	}
	c.Flags().StringVar(&button, "button", string(vm.ButtonLeft), "left, middle or right")
	c.Flags().BoolVar(&click.Twice, "double", false, "click twice")
	return c
}
