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
	"time"

	"github.com/abdul-abdi/lumina/runtime"
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

// askTimeout bounds how long a supervisor may take to answer: a guest that is to end
// has stopTimeout, a text of the longest is typed within a minute and a half.
const askTimeout = 2 * time.Minute

func (c *Client) ask(ctx context.Context, req request) (*reply, error) {
	ctx, cancel := context.WithTimeoutCause(ctx, askTimeout, fmt.Errorf("desktop %q: its supervisor has not answered for %v", c.Manifest.Name, askTimeout))
	defer cancel()
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

// maxText bounds a text to type, in characters.
const maxText = 10000

// Type types a text on an American keyboard.
func (c *Client) Type(ctx context.Context, text string) error {
	all, err := chords(text)
	if err != nil || len(all) == 0 {
		return err
	}
	if len(all) > maxText {
		return fmt.Errorf("a text of %d characters: at most %d are typed at once", len(all), maxText)
	}
	_, err = c.ask(ctx, request{Chords: all})
	return err
}

// Click clicks at a pixel of the screen.
func (c *Client) Click(ctx context.Context, click Click) error {
	_, err := c.ask(ctx, request{Click: &click})
	return err
}

// Stop presses the power button and, if the guest does nothing about it for a
// while, ends the machine; at once when force is true. It returns when it has
// ended.
func (c *Client) Stop(ctx context.Context, force bool) error {
	_, err := c.ask(ctx, request{Stop: !force, Kill: force})
	return err
}

// CheckViewer says why Viewer cannot show the screen, if so: a stream has no place
// for that.
func (c *Client) CheckViewer(ctx context.Context) error {
	_, err := c.ask(ctx, request{Viewer: true})
	return err
}

// Viewer opens a stream of the RFB protocol.
func (c *Client) Viewer(ctx context.Context) (net.Conn, error) { return c.dial(ctx, kindViewer) }

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
	report, err := supervise.Main(stdin, &o)
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
