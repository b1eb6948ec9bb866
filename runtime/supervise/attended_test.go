package supervise

import (
	"context"
	"errors"
	"io"
	"testing"
	"testing/synctest"
)

// Who is killed before the report has come to it takes the start with it; who ends
// afterwards does not.
func TestAttended(t *testing.T) {
	for _, told := range []bool{false, true} {
		synctest.Test(t, func(t *testing.T) {
			child, starter := io.Pipe()
			ctx := attended(t.Context(), child)
			synctest.Wait()
			if ctx.Err() != nil {
				t.Errorf("it ended while its starter waits: %v", context.Cause(ctx))
			}
			if told {
				_, _ = starter.Write([]byte{'.'})
			}
			starter.Close()
			synctest.Wait()
			if gone := errors.Is(context.Cause(ctx), errAlone); gone == told {
				t.Errorf("told %v: it ends with %v", told, context.Cause(ctx))
			}
		})
	}
}
