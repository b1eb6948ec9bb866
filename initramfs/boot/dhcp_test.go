//go:build linux

package boot

import (
	"testing"
)

// Whatever is on the network may answer.
func FuzzDHCP(f *testing.F) {
	to := make([]byte, dhcpOptions)
	answer := make([]byte, dhcpOptions, dhcpOptions+8)
	answer[0] = 2
	f.Add(append(answer, 53, 1, 2, 1, 4, 255, 255, 255, 0, 255))
	f.Add(append(answer, 53, 200))
	f.Fuzz(func(t *testing.T, b []byte) { parseDHCP(b, to) })
}
