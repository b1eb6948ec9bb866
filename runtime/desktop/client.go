package desktop

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"path/filepath"
	"slices"
	"time"

	"github.com/abdul-abdi/lumina/runtime"
	"github.com/abdul-abdi/lumina/runtime/image"
	"github.com/abdul-abdi/lumina/runtime/supervise"
	"github.com/abdul-abdi/lumina/runtime/vm"
)

// Client drives a desktop that some process runs.
type Client struct {
	Manifest *Manifest
	dir      string
}

// Open finds a running desktop by its name or identifier.
func Open(home, id string) (*Client, error) {
	store := NewStore(home)
	m, err := store.Find(id)
	if err != nil {
		return nil, err
	}
	return &Client{m, store.path(m.ID)}, nil
}

func (c *Client) dial(ctx context.Context, kind byte) (net.Conn, error) {
	conn, err := supervise.Dial(ctx, c.dir, kind)
	if errors.Is(err, supervise.ErrGone) {
		err = ErrNotRunning
	}
	if err != nil {
		return nil, fmt.Errorf("desktop %q: %w", c.Manifest.Name, err)
	}
	return conn, nil
}

// ErrSilent is wrapped when a desktop's process is there and does not answer: somebody
// has stopped it, or it hangs.
var ErrSilent = errors.New("its process does not answer")

// A process that has not done within firstLook what it was asked for is asked how it is,
// again and again: one that is well answers that within pingTimeout, whatever it is busy
// with. askTimeout bounds the whole: a guest that is to end has stopTimeout.
const (
	firstLook   = 3 * time.Second
	pingTimeout = 5 * time.Second
	askTimeout  = 2 * time.Minute
)

func (c *Client) silent(after time.Duration) error {
	return fmt.Errorf("desktop %q: %w for %v; lumina desktop stop --force %s ends it", c.Manifest.Name, ErrSilent, after, c.Manifest.Name)
}

// ask asks for something, and gives up when the process does not answer.
func (c *Client) ask(ctx context.Context, req request) (*reply, error) {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	look := time.AfterFunc(firstLook, func() {
		for ctx.Err() == nil {
			ask, done := context.WithTimeoutCause(ctx, pingTimeout, c.silent(firstLook+pingTimeout))
			_, err := c.askOnce(ask, request{Ping: true})
			done()
			if errors.Is(err, ErrSilent) {
				cancel(err)
				return
			}
			select {
			case <-ctx.Done():
			case <-time.After(firstLook):
			}
		}
	})
	defer look.Stop()
	whole, done := context.WithTimeoutCause(ctx, askTimeout, c.silent(askTimeout))
	defer done()
	return c.askOnce(whole, req)
}

// askOnce asks for something until ctx ends.
func (c *Client) askOnce(ctx context.Context, req request) (*reply, error) {
	conn, err := c.dial(ctx, kindControl)
	if err != nil {
		return nil, err
	}
	defer conn.Close()
	defer context.AfterFunc(ctx, func() { conn.Close() })()
	r := new(reply)
	err = json.NewEncoder(conn).Encode(req)
	if err == nil {
		err = json.NewDecoder(io.LimitReader(conn, maxReply)).Decode(r)
	}
	switch {
	case ctx.Err() != nil:
		return nil, context.Cause(ctx)
	case err != nil && (req.Stop || req.Kill):
		return r, nil // it ended before it answered
	case supervise.Unread(err):
		return nil, fmt.Errorf("desktop %q: %w", c.Manifest.Name, ErrNotRunning)
	case err != nil:
		return nil, fmt.Errorf("asking desktop %q: %w", c.Manifest.Name, err)
	case r.Error != "":
		return nil, fmt.Errorf("desktop %q: %s", c.Manifest.Name, r.Error)
	}
	return r, nil
}

// Status asks how it is.
func (c *Client) Status(ctx context.Context) (*Status, error) {
	r, err := c.ask(ctx, request{Status: true})
	if err != nil {
		return nil, err
	}
	return r.Status, nil
}

// Screenshot returns the screen as a PNG.
func (c *Client) Screenshot(ctx context.Context) ([]byte, error) {
	r, err := c.ask(ctx, request{Screenshot: true})
	if err != nil {
		return nil, err
	}
	return r.Screenshot, nil
}

// Press presses and releases keys, one chord after the other.
func (c *Client) Press(ctx context.Context, chords ...[]vm.Key) error {
	_, err := c.ask(ctx, request{Chords: chords})
	return err
}

// PressNamed presses keys by their names, such as "ctrl+alt+delete", see [ParseKeys].
func (c *Client) PressNamed(ctx context.Context, chord string) error {
	keys, err := ParseKeys(chord)
	if err != nil {
		return err
	}
	return c.Press(ctx, keys)
}

// maxText bounds a text to type, in characters.
const maxText = 10000

// typedAtOnce is how many characters are typed between two looks at whether somebody has
// given up.
const typedAtOnce = 40

// Type types a text on a US keyboard, some 20 characters a second: all of it, or
// nothing and an [Untypable].
func (c *Client) Type(ctx context.Context, text string) error {
	all, err := chords(text)
	if err != nil {
		return err
	}
	for part := range slices.Chunk(all, typedAtOnce) {
		if _, err := c.ask(ctx, request{Chords: part}); err != nil {
			return err
		}
	}
	return nil
}

// maxSerialInput is how many bytes are typed into a serial port between two looks at whether
// somebody has given up.
const maxSerialInput = 4 << 10

// TypeSerial types a text into the guest's serial port, as a terminal that is connected to
// it does: Enter is a carriage return there.
func (c *Client) TypeSerial(ctx context.Context, text []byte) error {
	for part := range slices.Chunk(text, maxSerialInput) {
		if _, err := c.ask(ctx, request{Serial: part}); err != nil {
			return err
		}
	}
	return nil
}

// Click clicks at a pixel of the screen.
func (c *Client) Click(ctx context.Context, click Click) error {
	_, err := c.ask(ctx, request{Click: &click})
	return err
}

// Stop presses the power button and, if the guest does nothing about it for a
// while, ends the machine. With force it ends it at once, and kills a process that does
// not answer. It returns when all has ended.
func (c *Client) Stop(ctx context.Context, force bool) error {
	if !force {
		_, err := c.ask(ctx, request{Stop: true})
		return err
	}
	ask, done := context.WithTimeout(ctx, killTimeout)
	_, err := c.askOnce(ask, request{Kill: true})
	done()
	if err == nil || ctx.Err() != nil {
		return err
	}
	return c.kill(ctx)
}

// Reset presses the reset button: the machine restarts at once.
func (c *Client) Reset(ctx context.Context) error {
	_, err := c.ask(ctx, request{Reset: true})
	return err
}

// Restart stops a desktop, as Stop does, and boots it again, in a process of its own, as
// it was booted before. Of one that does not run it is [Start] with o.
func (c *Client) Restart(ctx context.Context, program string, args []string, o Options, force bool) (*Client, error) {
	status, err := c.Status(ctx)
	switch {
	case err == nil:
		o.ISO, o.Capture, o.Window, o.SerialFile, o.Timeout = status.Booted.ISO, status.Booted.Capture, status.Booted.Window, status.Booted.SerialFile, status.Booted.Timeout
		err = c.Stop(ctx, force)
	case force && errors.Is(err, ErrSilent):
		err = c.Stop(ctx, force)
	}
	if err != nil && !errors.Is(err, ErrNotRunning) {
		return nil, err
	}
	o.ID = c.Manifest.ID
	return Start(ctx, program, args, o)
}

// CheckViewer says why Viewer cannot show the screen, if so: a stream has no place
// for that.
func (c *Client) CheckViewer(ctx context.Context) error {
	_, err := c.ask(ctx, request{Viewer: true})
	return err
}

// Viewer opens a stream of the RFB protocol.
func (c *Client) Viewer(ctx context.Context) (net.Conn, error) { return c.dial(ctx, kindViewer) }

// Guest is its guest, of a desktop whose system is of an image of lumina's: the agent
// answers there.
func (c *Client) Guest() runtime.Guest {
	return runtime.NewGuest(image.Config{}, c.dialAgent, func(err error) error {
		return &runtime.Error{Kind: runtime.SessionDisconnected, Err: fmt.Errorf("desktop %q: the connection to its guest was lost: %w", c.Manifest.Name, err)}
	})
}

// dialAgent opens a stream to the agent. The supervisor says first whether there is one.
func (c *Client) dialAgent(ctx context.Context) (net.Conn, error) {
	ctx, cancel := context.WithTimeoutCause(ctx, agentTimeout+pingTimeout, c.silent(agentTimeout+pingTimeout))
	defer cancel()
	if _, err := c.askOnce(ctx, request{Agent: true}); err != nil {
		return nil, err
	}
	return c.dial(ctx, kindAgent)
}

// outcome is what a supervisor tells its parent.
type outcome struct {
	Error string `json:"error,omitempty"`
}

// Start boots a desktop in a process of its own, which runs program with args
// and is expected to call Main.
func Start(ctx context.Context, program string, args []string, o Options) (*Client, error) {
	policy, err := supervise.Policy(program, o.Home, o.Driver)
	if err != nil {
		return nil, fmt.Errorf("booting desktop %q: %w", o.ID, err)
	}
	// The ISO may be anywhere; a screenshot is on its way a temporary file.
	policy.Read, policy.Write = append(policy.Read, "/"), append(policy.Write, os.TempDir())
	if o.SerialFile != "" {
		policy.Write = append(policy.Write, filepath.Dir(o.SerialFile))
	}
	var out outcome
	if err := supervise.Start(ctx, program, args, policy, o, &out); err != nil {
		return nil, fmt.Errorf("booting desktop %q: %w", o.ID, err)
	}
	if out.Error != "" {
		return nil, errors.New(out.Error)
	}
	return Open(o.Home, o.ID)
}

// Main is the process that Start makes; driver runs its desktop, and is this system's
// own when nil.
func Main(ctx context.Context, stdin io.Reader, driver vm.Driver) error {
	var o Options
	ctx, report, err := supervise.Main(ctx, stdin, &o)
	if err != nil {
		return err
	}
	o.Driver = driver
	err = Supervise(ctx, o, func(err error) {
		var out outcome
		if err != nil {
			out.Error = err.Error()
		}
		report(out)
	})
	var ended *runtime.Error
	if errors.As(err, &ended) && ended.Kind == runtime.Timeout {
		return nil // as it was told
	}
	return err
}
