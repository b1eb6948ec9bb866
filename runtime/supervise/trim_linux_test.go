package supervise

import (
	"fmt"
	"os"
	"strings"
	"testing"
)

// The pages of the program that only its start needed are gone; the others come again.
func TestTrim(t *testing.T) {
	before := fileMemory(t)
	trim()
	if after := fileMemory(t); after >= before {
		t.Errorf("%d kB of files are in memory, were %d", after, before)
	}
}

// fileMemory is how much of files this process has in memory, in kB.
func fileMemory(t *testing.T) (size int) {
	t.Helper()
	status, err := os.ReadFile("/proc/self/status")
	if err != nil {
		t.Fatal(err)
	}
	for line := range strings.Lines(string(status)) {
		if n, _ := fmt.Sscanf(line, "RssFile: %d kB", &size); n == 1 {
			return size
		}
	}
	t.Fatalf("no RssFile in %s", status)
	return 0
}
