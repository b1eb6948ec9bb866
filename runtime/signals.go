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

// relay passes signals on to the command, once begin is closed; nil: at once. When one of
// them asks it to end, the next such one, or the end of StopGrace, cancels. It ends with ctx.
func relay(ctx context.Context, signals <-chan syscall.Signal, begin <-chan struct{}, cancel context.CancelCauseFunc) <-chan syscall.Signal {
	// A guest that takes nothing holds up nothing here.
	passed := make(chan syscall.Signal, 16)
	go func() {
		if begin != nil {
			select {
			case <-begin:
			case <-ctx.Done():
				return
			}
		}
		var last syscall.Signal // that asked it to end
		var grace <-chan time.Time
		for {
			select {
			case signal := <-signals:
				if asksToEnd(signal) {
					if grace != nil {
						cancel(Killed{signal})
						return
					}
					last, grace = signal, time.After(StopGrace)
				}
				select {
				case passed <- signal:
				default:
				}
			case <-grace:
				cancel(Killed{last})
				return
			case <-ctx.Done():
				return
			}
		}
	}()
	return passed
}

func asksToEnd(s syscall.Signal) bool {
	return s == syscall.SIGINT || s == syscall.SIGTERM || s == syscall.SIGHUP || s == syscall.SIGQUIT
}
