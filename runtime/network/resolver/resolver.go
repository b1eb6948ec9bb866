// Package resolver passes DNS messages (RFC 1035) on to the resolvers that the host
// uses, as they are, and brings back their replies, as they are. On macOS, too, these
// are those of /etc/resolv.conf: the system keeps the first resolver's there.
package resolver

import (
	"context"
	"crypto/rand"
	"encoding/binary"
	"errors"
	"io"
	"net"
	"net/netip"
	"strings"
	"sync"
	"time"
)

const (
	// patience is after how long without a reply the next server is asked, too, and
	// then the first again: a datagram gets lost, a server is down.
	patience = time.Second
	// fallback is how long another server than the first is asked first, after it
	// was the one that answered.
	fallback = 30 * time.Second
	// maxMessage is the longest message, in bytes.
	maxMessage = 64<<10 - 1
	// HeaderSize is that of a message, in bytes.
	HeaderSize = 12
)

// Resolver knows the host's resolvers. Files that change are read again.
type Resolver struct {
	resolvPath, hostsPath string
	port                  uint16

	mu            sync.Mutex
	config        *config
	looked        time.Time
	resolv, hosts file
	preferred     int // the server that is asked first
	preferredAt   time.Time
}

// New makes the host's.
func New() *Resolver { return With("/etc/resolv.conf", "/etc/hosts", 53) }

// With makes one of other files, whose servers listen on a port.
func With(resolv, hosts string, port uint16) *Resolver {
	return &Resolver{resolvPath: resolv, hostsPath: hosts, port: port}
}

// Search is the list of domains in which the host looks for names without a dot.
func (r *Resolver) Search() []string { return r.current().search }

// Hosts is what the host's own list says of a name; false when it is not in it.
func (r *Resolver) Hosts(name string) ([]netip.Addr, bool) {
	list, ok := r.current().hosts[strings.ToLower(name)]
	return list, ok
}

// Exchange asks the host's resolvers a query with one question, which ends at
// questionEnd, by TCP if stream. The reply has the query's ID. Where one says that it
// cannot say, others are asked; where none can, the first one's word is the reply.
func (r *Resolver) Exchange(ctx context.Context, query []byte, questionEnd int, stream bool) ([]byte, error) {
	c := r.current()
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	type result struct {
		server int
		reply  []byte
		err    error
	}
	first := r.first(len(c.servers))
	tries := len(c.servers) * c.attempts
	results := make(chan result, tries)
	failed := make([]bool, len(c.servers)) // for good
	started := 0
	start := func() bool {
		for ; started < tries; started++ {
			if server := (first + started) % len(c.servers); !failed[server] {
				started++
				go func() {
					reply, err := exchange(ctx, c.servers[server], query, questionEnd, stream || c.stream)
					results <- result{server, reply, err}
				}()
				return true
			}
		}
		return false
	}
	start()
	waiting := 1
	timer := time.NewTimer(patience)
	defer timer.Stop()
	var refusal []byte
	var failure error
	for {
		select {
		case <-timer.C:
			if start() {
				waiting++
				timer.Reset(patience)
			}
		case got := <-results:
			waiting--
			if got.err == nil && !isFailure(got.reply) {
				r.prefer(got.server)
				return got.reply, nil
			}
			failed[got.server] = true
			if got.err != nil {
				failure = errors.Join(failure, got.err)
			} else if refusal == nil || got.server == first {
				refusal = got.reply
			}
			if start() {
				waiting++
				timer.Reset(patience)
			}
			if waiting == 0 {
				if refusal != nil {
					return refusal, nil
				}
				return nil, failure
			}
		case <-ctx.Done():
			if refusal != nil {
				return refusal, nil
			}
			return nil, context.Cause(ctx)
		}
	}
}

func (r *Resolver) first(servers int) int {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.preferred >= servers || time.Since(r.preferredAt) > fallback {
		r.preferred = 0
	}
	return r.preferred
}

func (r *Resolver) prefer(server int) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.preferred != server {
		r.preferred, r.preferredAt = server, time.Now()
	}
}

// isFailure says whether a server could not answer: SERVFAIL, NOTIMP or REFUSED.
func isFailure(reply []byte) bool {
	code := reply[3] & 0xf
	return code == 2 || code == 4 || code == 5
}

var buffers = sync.Pool{New: func() any { b := make([]byte, maxMessage); return &b }}

// exchange asks one server once, from a port and with an ID that nobody else can
// know.
func exchange(ctx context.Context, server netip.AddrPort, query []byte, questionEnd int, stream bool) ([]byte, error) {
	network := "udp"
	if stream {
		network = "tcp"
	}
	conn, err := new(net.Dialer).DialContext(ctx, network, server.String())
	if err != nil {
		return nil, err
	}
	defer conn.Close()
	defer context.AfterFunc(ctx, func() { _ = conn.SetDeadline(time.Unix(1, 0)) })()
	// Room for the size that a stream has before a message.
	asked := append(binary.BigEndian.AppendUint16(nil, uint16(len(query))), query...)
	_, _ = rand.Read(asked[2:4])
	sent := asked[2:]
	if stream {
		sent = asked
	}
	if _, err := conn.Write(sent); err != nil {
		return nil, err
	}
	asked = asked[2:]
	buf := buffers.Get().(*[]byte)
	defer buffers.Put(buf)
	for {
		n, err := readMessage(conn, *buf, stream)
		if err != nil {
			return nil, err
		}
		if answers((*buf)[:n], asked, questionEnd) {
			reply := append([]byte(nil), (*buf)[:n]...)
			copy(reply, query[:2])
			return reply, nil
		}
		if stream {
			return nil, errors.New("the resolver's reply is to another question")
		}
	}
}

func readMessage(conn net.Conn, buf []byte, stream bool) (int, error) {
	if !stream {
		return conn.Read(buf)
	}
	if _, err := io.ReadFull(conn, buf[:2]); err != nil {
		return 0, err
	}
	return io.ReadFull(conn, buf[:binary.BigEndian.Uint16(buf)])
}

// answers says whether a message is the reply to a query. A server that could not
// read the question may leave it out.
func answers(reply, query []byte, questionEnd int) bool {
	const response, opcode = 0x80, 0x78
	if len(reply) < HeaderSize || reply[0] != query[0] || reply[1] != query[1] ||
		reply[2]&response == 0 || reply[2]&opcode != query[2]&opcode {
		return false
	}
	switch binary.BigEndian.Uint16(reply[4:]) {
	case 0:
		return reply[3]&0xf != 0 && reply[3]&0xf != 3 && binary.BigEndian.Uint16(reply[6:]) == 0
	case 1:
		// The letters' case is the guest's to check.
		return len(reply) >= questionEnd &&
			strings.EqualFold(ascii(reply[HeaderSize:questionEnd-4]), ascii(query[HeaderSize:questionEnd-4])) &&
			string(reply[questionEnd-4:questionEnd]) == string(query[questionEnd-4:questionEnd])
	}
	return false
}

// ascii makes one character of each byte.
func ascii(b []byte) string {
	runes := make([]rune, len(b))
	for i, c := range b {
		if runes[i] = rune(c); c >= 0x80 {
			runes[i] = 0xe000 + rune(c) // which has no other case
		}
	}
	return string(runes)
}
