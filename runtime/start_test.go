package runtime

import (
	"context"
	"errors"
	"strings"
	"testing"
	"time"
)

// A busy host's user says how long a boot may take; the error names what to set.
func TestBootTimeout(t *testing.T) {
	limited, cancel := (&start{options: VMOptions{BootTimeout: 24 * time.Hour}}).limit(t.Context())
	defer cancel()
	if end, ok := limited.Deadline(); !ok || time.Until(end) < 23*time.Hour {
		t.Errorf("with a timeout of a day it ends at %v, %v", end, ok)
	}
	limited, cancel = (&start{options: VMOptions{BootTimeout: 1}}).limit(t.Context())
	defer cancel()
	<-limited.Done()
	if err := context.Cause(limited); !errors.Is(err, errNoAnswer) || !strings.Contains(err.Error(), "LUMINA_BOOT_TIMEOUT") {
		t.Errorf("it ends with %v", err)
	}
}
