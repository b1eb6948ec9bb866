package network

import (
	"context"
	"errors"
	"net"
	"testing"
	"time"
)

// What this process does in a guest's name reaches what a guest reaches.
func TestDialAsAGuest(t *testing.T) {
	own := "192.0.2.1"
	addresses, err := net.InterfaceAddrs()
	if err != nil {
		t.Fatal(err)
	}
	for _, a := range addresses {
		if ip, ok := a.(*net.IPNet); ok && ip.IP.To4() != nil && !ip.IP.IsLoopback() {
			own = ip.IP.String()
		}
	}
	server, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer server.Close()
	_, port, err := net.SplitHostPort(server.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	for _, tt := range []struct {
		mode    Mode
		address string
		refused bool
	}{
		{ModeNAT, "127.0.0.1:" + port, true},
		{ModeNAT, "localhost:" + port, true},
		{ModeNAT, "127.1:" + port, true},
		{ModeNAT, "0.0.0.0:" + port, true},
		{ModeNAT, "[::1]:" + port, true},
		{ModeNAT, "[::ffff:127.0.0.1]:" + port, true},
		{ModeNAT, "169.254.169.254:80", true},
		{ModeNAT, "100.100.100.200:80", true},
		{ModeNAT, "10.1.2.3:80", true},
		{ModeNAT, "192.168.1.1:80", true},
		{ModeNAT, own + ":" + port, own != "192.0.2.1"},
		{ModeNAT, "192.0.2.7:80", false},
		{ModeNone, "192.0.2.7:80", true},
		{"allow=127.0.0.1", "127.0.0.1:" + port, true},
		{"allow=localhost", "localhost:" + port, true},
		{"allow=192.0.2.8", "192.0.2.7:80", true},
		{"allow=192.0.2.7:443", "192.0.2.7:80", true},
		{"allow=192.0.2.7", "192.0.2.7:80", false},
		{"lots", "192.0.2.7:80", true},
	} {
		ctx, cancel := context.WithTimeout(t.Context(), 100*time.Millisecond)
		conn, err := tt.mode.Dial(ctx, "tcp", tt.address)
		cancel()
		if conn != nil {
			conn.Close()
		}
		// Nobody answers at those that are allowed; a name may not be one to the resolver.
		var unresolved *net.DNSError
		var unfit *net.AddrError
		known := errors.Is(err, errRefused) || errors.As(err, &unresolved) || errors.As(err, &unfit) || tt.mode == "lots" && err != nil
		if known != tt.refused || tt.refused && conn != nil {
			t.Errorf("%s %s: %v, %v; refused: want %v", tt.mode, tt.address, conn, err, tt.refused)
		}
	}
}
