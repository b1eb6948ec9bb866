package main

import (
	"errors"
	"fmt"
	"strings"
	"testing"

	"github.com/abdul-abdi/lumina/builder"
	"github.com/abdul-abdi/lumina/release"
)

// An image for which the disk has no room is said to be that: --max-size alone does not
// help one who gave no limit.
func TestTooLargeSaysWhoseLimitItIs(t *testing.T) {
	for _, kind := range []error{builder.ErrTooLarge, release.ErrTooLarge} {
		err := fmt.Errorf("%w of 5 bytes", kind)
		if got := orMaxSize(err, 0); !errors.Is(got, kind) || !strings.Contains(got.Error(), "half of the disk space that is free: free more, or") {
			t.Errorf("without a limit: %v", got)
		}
		if got := orMaxSize(err, 5); !errors.Is(got, kind) || !strings.HasSuffix(got.Error(), "of 5 bytes; --max-size sets another") {
			t.Errorf("with one: %v", got)
		}
	}
	if other := errors.New("other"); orMaxSize(other, 0) != other {
		t.Error("another error is changed")
	}
}
