package runtime

import (
	"errors"
	"fmt"
	"io"
	"path"
	"strings"
	"syscall"
	"time"

	"github.com/abdul-abdi/lumina/initramfs/protocol"
	"github.com/abdul-abdi/lumina/runtime/client"
	"github.com/abdul-abdi/lumina/runtime/image"
)

// Command is a process to run in a VM: Shell, or Entrypoint and Args, or what the
// image says when none is set.
type Command struct {
	// Shell is a command for /bin/sh -c; Args is a program and its
	// arguments, run without one.
	Shell string
	Args  []string
	// Entrypoint, unless nil, takes the place of the image's ENTRYPOINT and CMD:
	// Args are its arguments. "" is none, so that Args are a program again.
	Entrypoint *string
	// Env adds NAME=value to the image's environment.
	Env  []string
	Dir  string // the image's working directory when empty
	User string // the image's user when empty
	// Timeout ends the process; 0 for none.
	Timeout time.Duration
	// Terminal gives the process a terminal; its output goes to Stdout.
	Terminal *Terminal
	// Signals, unless nil, are read from when the command runs, and go to its process
	// group. After one that asks it to end (SIGINT, SIGTERM, SIGHUP, SIGQUIT) it is killed
	// by the next such one, or when StopGrace is over.
	Signals <-chan syscall.Signal
	Stdio
}

// Stdio is where a process's standard files lead. Nil outputs are discarded; a nil
// Stdin is empty.
type Stdio struct {
	Stdin          io.Reader
	Stdout, Stderr io.Writer
}

// TerminalSize is a terminal's size in characters.
type TerminalSize struct {
	Rows    uint16 `json:"rows"`
	Columns uint16 `json:"columns"`
}

// Terminal is the terminal of a process that has one.
type Terminal struct {
	Size  TerminalSize
	Sizes <-chan TerminalSize // its later sizes; may be nil
}

func (t *Terminal) client() *client.Terminal {
	if t == nil {
		return nil
	}
	return &client.Terminal{Size: protocol.TerminalSize(t.Size), Resized: func(over <-chan struct{}) (protocol.TerminalSize, bool) {
		select {
		case size, ok := <-t.Sizes:
			return protocol.TerminalSize(size), ok
		case <-over:
			return protocol.TerminalSize{}, false
		}
	}}
}

// defaultPath is the PATH of a process whose image sets none, as with other
// container tools.
const defaultPath = "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"

// ErrNoCommand is wrapped when neither the caller nor the image says what to run.
var ErrNoCommand = errors.New("no command given")

// Check says what is wrong with a command in VMs of an image, as far as that can
// be told without one.
func (c *Command) Check(config image.Config) error {
	_, err := c.request(config)
	return err
}

// program is what to run, and whether it is for the shell.
func (c *Command) program(config image.Config) (args []string, shell bool, err error) {
	switch {
	case c.Shell != "" && (len(c.Args) > 0 || c.Entrypoint != nil && *c.Entrypoint != ""):
		return nil, false, errors.New("a command is either for the shell or a program")
	case c.Shell != "":
		return []string{c.Shell}, true, nil
	case c.Entrypoint != nil && *c.Entrypoint != "":
		args = append([]string{*c.Entrypoint}, c.Args...)
	case c.Entrypoint != nil && len(c.Args) == 0:
		return nil, false, fmt.Errorf("%w: with an empty entrypoint the image's command does not count", ErrNoCommand)
	case c.Entrypoint != nil || len(c.Args) > 0:
		args = c.Args
	default:
		// As builders write it who reset one.
		if len(config.Entrypoint) != 1 || config.Entrypoint[0] != "" {
			args = append(args, config.Entrypoint...)
		}
		if args = append(args, config.Cmd...); len(args) == 0 {
			return nil, false, fmt.Errorf("%w, and the image has neither ENTRYPOINT nor CMD", ErrNoCommand)
		}
	}
	if args[0] == "" {
		return nil, false, errors.New("the name of the program is empty")
	}
	return args, false, nil
}

func (c *Command) request(config image.Config) (*protocol.Exec, error) {
	args, shell, err := c.program(config)
	if err != nil {
		return nil, err
	}
	for _, e := range c.Env {
		if name, _, ok := strings.Cut(e, "="); !ok || name == "" {
			return nil, fmt.Errorf("environment variable %q is not NAME=value", e)
		}
	}
	req := &protocol.Exec{Args: args, Shell: shell, Dir: c.Dir, User: c.User}
	if !path.IsAbs(req.Dir) {
		req.Dir = path.Join("/", config.WorkingDir, req.Dir)
	}
	if req.User == "" {
		req.User = config.User
	}
	req.Env = mergeEnv([]string{defaultPath}, config.Env, c.Env)
	return req, nil
}

// mergeEnv joins environments; later ones win.
func mergeEnv(lists ...[]string) []string {
	var merged []string
	index := map[string]int{}
	for _, list := range lists {
		for _, e := range list {
			name, _, _ := strings.Cut(e, "=")
			if i, ok := index[name]; ok {
				merged[i] = e
				continue
			}
			index[name] = len(merged)
			merged = append(merged, e)
		}
	}
	return merged
}
