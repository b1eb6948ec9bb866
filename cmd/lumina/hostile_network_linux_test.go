package main

import (
	"net/netip"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// destinations records where packets go on a host's interfaces, until the returned
// function is called: address and protocol, and the port of the host's own resolver.
func (w *world) destinations(t *testing.T) func() []string {
	t.Helper()
	var fd int
	inNamespace(t, w.host, func() (err error) {
		const ip = unix.ETH_P_ALL>>8 | unix.ETH_P_ALL&0xff<<8 // big endian
		fd, err = unix.Socket(unix.AF_PACKET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, ip)
		return err
	})
	if err := unix.SetsockoptTimeval(fd, unix.SOL_SOCKET, unix.SO_RCVTIMEO, &unix.Timeval{Usec: 100_000}); err != nil {
		t.Fatal(err)
	}
	var found []string
	over := make(chan struct{})
	var reading sync.WaitGroup
	reading.Go(func() {
		b := make([]byte, 64)
		for {
			n, from, err := unix.Recvfrom(fd, b, 0)
			select {
			case <-over:
				return
			default:
			}
			if err != nil || n < 24 {
				continue
			}
			link := from.(*unix.SockaddrLinklayer)
			to, isV4 := "", link.Protocol == unix.ETH_P_IP>>8|unix.ETH_P_IP&0xff<<8
			switch {
			case isV4 && b[9] == unix.IPPROTO_UDP && b[22] == 0 && b[23] == 53:
				continue // the host's resolver is asked
			case isV4 && b[9] == unix.IPPROTO_ICMP && b[20] == 3:
				continue // and is not there, and what the internet's machines say of closed ports
			case isV4 && link.Pkttype == unix.PACKET_OUTGOING:
				to = netip.AddrFrom4([4]byte(b[16:20])).String()
			}
			if to != "" && !slices.Contains(found, to) {
				found = append(found, to)
			}
		}
	})
	return func() []string {
		close(over)
		reading.Wait()
		unix.Close(fd)
		return found
	}
}

// Whatever a guest's kernel puts on the card, in whoever's name, reaches nobody that an
// honest one does not: not the host by any of its addresses, not a LAN, not the metadata.
// What it floods costs the host little, and its neighbours nothing.
func TestHostileNetwork(t *testing.T) {
	hostileImages(t, "")
	w := newWorld(t)
	targets := []string{"198.51.100.11", // the first is reachable
		"127.0.0.1", "127.1.2.3", "0.0.0.0", "255.255.255.255", "10.0.2.2", "10.0.2.3", "10.0.2.255", "198.51.100.1", "10.77.0.1", "169.254.169.254",
		"169.254.1.1", "224.0.0.1", "240.0.0.1", "::1", "::ffff:127.0.0.1", "::127.0.0.1", "2001:db8::1", "2001:db8::10", "fe80::1", "ff02::1", "64:ff9b::7f00:1", "::"}
	neighbour := w.lumina(t, "session", "start", "--image", "debian").succeeded(t).SID
	defer w.lumina(t, "session", "stop", neighbour)
	for _, tt := range []struct {
		network string
		reached []string
	}{{"nat", []string{"198.51.100.11"}}, {"allow=example.test", nil}} {
		t.Run(tt.network, func(t *testing.T) {
			sid := w.lumina(t, "session", "start", "--image", "hostile", "--network", tt.network).succeeded(t).SID
			defer w.lumina(t, "session", "stop", "--force", sid)
			usage, over := make(chan []int, 1), make(chan struct{})
			go func() { usage <- watch(over, sessionPID(t, sid)) }()
			reached := w.destinations(t)
			begun := time.Now()
			w.lumina(t, append([]string{"exec", sid, "--", "nic"}, targets...)...).succeeded(t)
			t.Logf("%v", time.Since(begun).Round(time.Millisecond))
			w.lumina(t, "exec", sid, "true").succeeded(t)
			got := reached()
			close(over)
			held := (<-usage)[0]
			t.Logf("the supervisor held %d MB at most", held)
			if held > 192 {
				t.Errorf("the supervisor held %d MB", held)
			}
			if !slices.Equal(got, tt.reached) {
				t.Errorf("packets went to %v, want %v", got, tt.reached)
			}
			// The names that it has asked for, and what it was denied.
			for _, format := range []string{"json", "text"} {
				cmd := command("ps", "--denied", sid)
				cmd.Env = append(cmd.Env, "LUMINA_FORMAT="+format)
				if r := finish(t, cmd).succeeded(t); strings.ContainsAny(r.stdout+r.stderr, "\x1b\x07\r\u202e") || len(r.stdout) > 1<<20 {
					t.Errorf("ps --denied, %s: %d bytes, %.300q", format, len(r.stdout), r.stdout)
				}
			}
			r := w.lumina(t, "exec", neighbour, "--", "perl", "-e", escape, "198.51.100.11").succeeded(t)
			if r.Stdout != "198.51.100.11\n" {
				t.Errorf("the neighbour reaches %q, %s", r.Stdout, r.Stderr)
			}
		})
	}
}
