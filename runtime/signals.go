package runtime

import (
	"context"
	"fmt"
	"syscall"
	"time"
)

// StopGrace is how long a command may go on after a signal of [Command.Signals], to end in
// its own way.
const StopGrace = 10 * time.Second

// Killed is the error of a command that had a signal of [Command.Signals] and was killed
// since it went on.
type Killed struct{ Signal syscall.Signal }

func (k Killed) Error() string {
	return fmt.Sprintf("the command went on after a signal (%v) and was killed", k.Signal)
}

// relay passes the first signal on to the command, once begin is closed; nil: at once. The
// next one, or the end of StopGrace, cancels. It ends with ctx.
func relay(ctx context.Context, signals <-chan syscall.Signal, begin <-chan struct{}, cancel context.CancelCauseFunc) <-chan syscall.Signal {
	// A guest that takes nothing holds up nothing here.
	passed := make(chan syscall.Signal, 1)
	go func() {
		if begin != nil {
			select {
			case <-begin:
			case <-ctx.Done():
				return
			}
		}
		var signal syscall.Signal
		select {
		case signal = <-signals:
			passed <- signal
		case <-ctx.Done():
			return
		}
		grace := time.NewTimer(StopGrace)
		defer grace.Stop()
		select {
		case signal = <-signals:
		case <-grace.C:
		case <-ctx.Done():
			return
		}
		cancel(Killed{signal})
	}()
	return passed
}
