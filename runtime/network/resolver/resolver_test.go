package resolver_test

import (
	"context"
	"encoding/binary"
	"fmt"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/abdul-abdi/lumina/runtime/network/resolver"
	"github.com/abdul-abdi/lumina/runtime/polltest"
)

// query asks for the addresses of a.test.
var query = []byte("\x12\x34\x01\x00\x00\x01\x00\x00\x00\x00\x00\x00\x01a\x04test\x00\x00\x01\x00\x01")

// serve answers queries at an address of the loopback, on a port that all servers
// have, until the test ends.
func serve(t *testing.T, at netip.AddrPort, answer func(query []byte) [][]byte) netip.AddrPort {
	t.Helper()
	c, err := net.ListenUDP("udp4", net.UDPAddrFromAddrPort(at))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	go func() {
		b := make([]byte, 4096)
		for {
			n, from, err := c.ReadFromUDPAddrPort(b)
			if err != nil {
				return
			}
			for _, reply := range answer(slices.Clone(b[:n])) {
				_, _ = c.WriteToUDPAddrPort(reply, from)
			}
		}
	}()
	return c.LocalAddr().(*net.UDPAddr).AddrPort()
}

// reply is one to a query, with a code and something to tell it by.
func reply(query []byte, code, mark byte) []byte {
	b := slices.Clone(query)
	b[2] |= 0x80
	b[3] = code
	return append(b, mark)
}

func with(t *testing.T, port uint16, servers int) (*resolver.Resolver, string) {
	t.Helper()
	text := "search a.test b.test\nsearch C.test. bad/one\n"
	for i := range servers {
		text += fmt.Sprintf("nameserver 127.0.0.%d\n", i+1)
	}
	path := filepath.Join(t.TempDir(), "resolv.conf")
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	return resolver.With(path, "/nonexistent", port), path
}

func TestExchange(t *testing.T) {
	says := func(code, mark byte) func([]byte) [][]byte {
		return func(q []byte) [][]byte { return [][]byte{reply(q, code, mark)} }
	}
	for _, tt := range []struct {
		name    string
		servers []func([]byte) [][]byte // nil: nobody listens
		mark    byte                    // 0: an error
		code    byte
	}{
		{"the first", []func([]byte) [][]byte{says(0, 1), says(0, 2)}, 1, 0},
		{"no such name is an answer", []func([]byte) [][]byte{says(3, 1), says(0, 2)}, 1, 3},
		{"nobody is there", []func([]byte) [][]byte{nil, says(0, 2)}, 2, 0},
		{"silence", []func([]byte) [][]byte{func([]byte) [][]byte { return nil }, says(0, 2)}, 2, 0},
		{"it cannot say", []func([]byte) [][]byte{says(2, 1), says(5, 2), says(0, 3)}, 3, 0},
		{"none can say", []func([]byte) [][]byte{says(2, 1), says(5, 2)}, 1, 2},
		{"nobody at all", []func([]byte) [][]byte{nil, nil}, 0, 0},
		{"others' replies are not taken", []func([]byte) [][]byte{func(q []byte) [][]byte {
			other, longer, notOne := reply(q, 0, 7), reply(q, 0, 8), slices.Clone(q)
			other[0] ^= 1
			longer[13] = 'b'
			return [][]byte{other, longer, notOne, {1}, reply(q, 0, 1)}
		}}, 1, 0},
		{"the case of letters is the guest's to check", []func([]byte) [][]byte{func(q []byte) [][]byte {
			r := reply(q, 0, 1)
			r[13] = 'A'
			return [][]byte{r}
		}}, 1, 0},
	} {
		t.Run(tt.name, func(t *testing.T) {
			at := serve(t, netip.MustParseAddrPort("127.0.0.9:0"), func([]byte) [][]byte { return nil }) // a free port
			for i, s := range tt.servers {
				if s != nil {
					serve(t, netip.AddrPortFrom(netip.AddrFrom4([4]byte{127, 0, 0, byte(i + 1)}), at.Port()), s)
				}
			}
			r, _ := with(t, at.Port(), len(tt.servers))
			ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
			defer cancel()
			got, err := r.Exchange(ctx, query, len(query), false)
			switch {
			case tt.mark == 0 && err == nil:
				t.Errorf("%x, want an error", got)
			case tt.mark != 0 && (err != nil || got[len(got)-1] != tt.mark || got[3]&0xf != tt.code || got[0] != 0x12 || got[1] != 0x34):
				t.Errorf("%x, %v, want mark %d, code %d", got, err, tt.mark, tt.code)
			}
		})
	}
}

// Each question has an ID and a port of its own; a datagram that is lost is sent
// again; a server that was silent is not asked first for a while; and a file that
// changes is read again.
func TestExchangeAgain(t *testing.T) {
	var mu sync.Mutex
	ids := map[uint16]bool{}
	lost := atomic.Int32{}
	at := serve(t, netip.MustParseAddrPort("127.0.0.1:0"), func(q []byte) [][]byte {
		mu.Lock()
		defer mu.Unlock()
		ids[binary.BigEndian.Uint16(q)] = true
		if lost.Add(1) == 1 {
			return nil
		}
		return [][]byte{reply(q, 0, 1)}
	})
	r, path := with(t, at.Port(), 1)
	for range 20 {
		if _, err := r.Exchange(t.Context(), query, len(query), false); err != nil {
			t.Fatal(err)
		}
	}
	mu.Lock()
	if len(ids) < 20 {
		t.Errorf("%d IDs of 21 questions", len(ids))
	}
	mu.Unlock()
	asked := atomic.Int32{}
	serve(t, netip.AddrPortFrom(netip.MustParseAddr("127.0.0.3"), at.Port()), func(q []byte) [][]byte { asked.Add(1); return nil })
	serve(t, netip.AddrPortFrom(netip.MustParseAddr("127.0.0.4"), at.Port()), func(q []byte) [][]byte { return [][]byte{reply(q, 0, 4)} })
	if err := os.WriteFile(path, []byte("nameserver 127.0.0.3\nnameserver 127.0.0.4\noptions attempts:1"), 0o600); err != nil {
		t.Fatal(err)
	}
	polltest.True(t, "the file is read again, which has no search list any more", func() bool { return r.Search() == nil })
	for range 5 {
		if got, err := r.Exchange(t.Context(), query, len(query), false); err != nil || got[len(got)-1] != 4 {
			t.Errorf("%x, %v", got, err)
		}
	}
	if n := asked.Load(); n != 1 {
		t.Errorf("the silent server was asked %d times", n)
	}
}

func TestSearch(t *testing.T) {
	if r, _ := with(t, 53, 1); !slices.Equal(r.Search(), []string{"c.test"}) {
		t.Errorf("%q", r.Search())
	}
}
