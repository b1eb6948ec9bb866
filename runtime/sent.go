package runtime

import (
	"context"
	"io"
)

// sentCommand is a command that was sent along with the guest's configuration. It
// begins when the guest is configured. Until then the guest prepares it, so that no
// round trip comes between the two.
type sentCommand struct {
	done chan struct{}
	exit Exit
	err  error
}

// send sends a command, unless nil, to a guest that has not answered yet. Its time
// runs, and its input is read, from when the guest has.
func (v *VM) send(ctx context.Context, command *Command) *sentCommand {
	if command == nil {
		return nil
	}
	s, c := &sentCommand{done: make(chan struct{})}, *command
	if c.Stdin != nil {
		c.Stdin = &heldReader{r: c.Stdin, begin: v.ready, never: s.done}
	}
	go func() {
		defer close(s.done)
		s.exit, s.err = v.execFrom(ctx, c, v.ready)
	}()
	return s
}

// wait waits for the command's end. It also ends with its VM, begun or not.
func (s *sentCommand) wait() (Exit, error) {
	if s == nil {
		return Exit{}, nil
	}
	<-s.done
	return s.exit, s.err
}

// heldReader blocks until begin is closed. If never is closed first, it is at its
// end.
type heldReader struct {
	r            io.Reader
	begin, never <-chan struct{}
}

func (h *heldReader) Read(p []byte) (int, error) {
	select {
	case <-h.begin:
		return h.r.Read(p)
	case <-h.never:
		return 0, io.EOF
	}
}
