package desktop

import (
	"context"
	"fmt"
	"net"
	"time"

	"github.com/abdul-abdi/lumina/runtime/pace"
	"github.com/abdul-abdi/lumina/runtime/vm"
)

// keyTime is how long a key or button is held, and how long it rests. A USB
// keyboard has room for 16 events and drops the rest; the guest fetches them
// every 10 ms or so, and nothing says when it has.
const keyTime = 25 * time.Millisecond

// ability is what the desktop's machine can do beside running; an error where its
// driver cannot.
func ability[T any](s *supervisor) (T, error) {
	can, ok := s.machine.(T)
	if !ok {
		return can, fmt.Errorf("%w: desktop %q has its screen in its window only; boot it without --headless, or use its network (ssh, VNC, Screen Sharing)", vm.ErrUnsupported, s.m.Name)
	}
	return can, nil
}

// viewer opens a stream to the server that shows the screen to clients.
func (s *supervisor) viewer() (net.Conn, error) {
	v, err := ability[vm.Viewer](s)
	if err != nil {
		return nil, err
	}
	return v.Viewer()
}

func (s *supervisor) press(ctx context.Context, chords [][]vm.Key) error {
	in, err := ability[vm.Input](s)
	if err != nil {
		return err
	}
	s.keyboard.Lock()
	defer s.keyboard.Unlock()
	for _, keys := range chords {
		for _, k := range keys {
			if err := in.Key(k, true); err != nil {
				return err
			}
		}
		if err := pace.Wait(ctx, keyTime); err != nil {
			return err
		}
		for i := range keys {
			if err := in.Key(keys[len(keys)-1-i], false); err != nil {
				return err
			}
		}
		if err := pace.Wait(ctx, keyTime); err != nil {
			return err
		}
	}
	return nil
}

func (s *supervisor) click(ctx context.Context, c Click) error {
	in, err := ability[vm.Input](s)
	if err != nil {
		return err
	}
	s.keyboard.Lock()
	defer s.keyboard.Unlock()
	times := 1
	if c.Twice {
		times = 2
	}
	for range times {
		for _, down := range []bool{true, false} {
			if err := in.Point(c.X, c.Y, c.Button, down); err != nil {
				return err
			}
			if err := pace.Wait(ctx, keyTime); err != nil {
				return err
			}
		}
	}
	return nil
}
