package runtime

import (
	"context"
	"io"

	"github.com/abdul-abdi/lumina/initramfs/protocol"
)

// early is a command that was sent along with the guest's configuration. It
// begins when the guest is configured; until then the guest gets it ready, and
// no round trip comes between the two.
type early struct {
	done chan struct{}
	exit protocol.Exit
	err  error
}

// execEarly sends a command to a guest that has not answered yet. Its time runs,
// and its input is read, from when the guest has.
func (v *VM) execEarly(ctx context.Context, c Command) *early {
	e := &early{done: make(chan struct{})}
	if c.Stdin != nil {
		c.Stdin = &lateReader{r: c.Stdin, begin: v.ready, never: e.done}
	}
	go func() {
		defer close(e.done)
		e.exit, e.err = v.execFrom(ctx, c, v.ready)
	}()
	return e
}

func (e *early) wait() (protocol.Exit, error) {
	<-e.done
	return e.exit, e.err
}

// over waits for the end of a command that never began, since its VM has ended.
func (e *early) over() { <-e.done }

// lateReader reads nothing before begin is closed, and nothing at all when
// never is closed before that.
type lateReader struct {
	r            io.Reader
	begin, never <-chan struct{}
}

func (l *lateReader) Read(p []byte) (int, error) {
	select {
	case <-l.begin:
		return l.r.Read(p)
	case <-l.never:
		return 0, io.EOF
	}
}
