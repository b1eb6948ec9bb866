package network

import (
	"encoding/binary"
	"net/netip"
	"strings"

	"github.com/abdul-abdi/lumina/runtime/network/resolver"
)

// Of DNS messages (RFC 1035, 4.1). They are read no further than the rules need to:
// what is passed on is passed on as it is.
const (
	flagResponse  = 0x80 // in the third byte of a message
	flagTruncated = 0x02
	flagDesired   = 0x01 // recursion
	flagAvailable = 0x80 // in the fourth
	flagAuthentic = 0x20
	flagUnchecked = 0x10

	rcodeSuccess        = 0
	rcodeFormat         = 1
	rcodeServerFailure  = 2
	rcodeNotImplemented = 4
	rcodeRefused        = 5

	classINET = 1

	typeA      = 1
	typeAAAA   = 28
	typeOPT    = 41
	typeSVCB   = 64
	typeHTTPS  = 65
	typeIXFR   = 251
	typeAXFR   = 252
	recordSize = 10 // bytes, without its name and its data

	smallest = 512 // bytes that every client takes
)

// query is a message with one question.
type query struct {
	message     []byte
	name        string // in lower case, without the last dot
	kind, class uint16
	end         int // of the question; 0: there is none
	edns        bool
	size        int    // bytes that the client takes
	flags       uint32 // of EDNS, as they come
}

// parseQuery reads a query as resolvers do; code says what is wrong with it.
func parseQuery(message []byte) (q *query, code byte) {
	q = &query{message: message}
	if opcode := message[2] >> 3 & 0xf; opcode != 0 {
		return q, rcodeNotImplemented
	}
	count := func(i int) int { return int(binary.BigEndian.Uint16(message[i:])) }
	if count(4) != 1 {
		return q, rcodeFormat
	}
	name, end, ok := parseName(message, resolver.HeaderSize)
	if !ok || end+4 > len(message) || message[end-1] != 0 {
		return q, rcodeFormat // a question's name is written in full
	}
	q.name, q.kind, q.class, q.end = name, binary.BigEndian.Uint16(message[end:]), binary.BigEndian.Uint16(message[end+2:]), end+4
	if count(6) != 0 || count(8) != 0 || count(10) > 1 {
		return q, rcodeFormat
	}
	if count(10) == 1 {
		more, ok := parseRecords(message)
		if !ok {
			return q, rcodeFormat
		}
		if r := more[0]; r.kind == typeOPT {
			q.edns, q.size = true, int(r.class)
			q.flags = binary.BigEndian.Uint32(message[r.data-6:])
		}
	}
	if q.kind == typeAXFR || q.kind == typeIXFR {
		return q, rcodeRefused // zones are not the host's resolver's to give
	}
	return q, rcodeSuccess
}

// room is how long a datagram the client takes.
func (q *query) room() int { return min(max(q.size, smallest), maxMessage) }

// refusal is a reply without records.
func (q *query) refusal(code byte) []byte {
	end := max(q.end, resolver.HeaderSize)
	reply := append([]byte(nil), q.message[:end]...)
	reply[2] = flagResponse | reply[2]&(0x78|flagDesired)
	reply[3] = flagAvailable | reply[3]&flagUnchecked | code
	clear(reply[4:resolver.HeaderSize])
	if q.end > 0 {
		reply[5] = 1
	}
	if q.edns {
		reply[11] = 1
		const dnssec = 0x8000
		reply = append(reply, 0, 0, typeOPT)
		reply = binary.BigEndian.AppendUint16(reply, maxMessage)
		reply = binary.BigEndian.AppendUint32(reply, q.flags&dnssec)
		reply = append(reply, 0, 0)
	}
	return reply
}

// parseName reads the name at an offset, and returns where it ends there. A dot or
// backslash within a label is written as \. or \\.
func parseName(message []byte, at int) (name string, end int, ok bool) {
	var b strings.Builder
	hops := 0
	for i := at; i < len(message); {
		size := int(message[i])
		switch {
		case size == 0:
			if end == 0 {
				end = i + 1
			}
			return strings.ToLower(b.String()), end, b.Len() <= 4*255
		case size >= 0xc0:
			if i+2 > len(message) {
				return "", 0, false
			}
			if end == 0 {
				end = i + 2
			}
			to := int(binary.BigEndian.Uint16(message[i:]) & 0x3fff)
			if hops++; hops > 127 || to >= i || to < resolver.HeaderSize {
				return "", 0, false // names lead back
			}
			i = to
		case size > 63, i+1+size > len(message):
			return "", 0, false
		default:
			if b.Len() > 0 {
				b.WriteByte('.')
			}
			for _, c := range message[i+1 : i+1+size] {
				if c == '.' || c == '\\' {
					b.WriteByte('\\')
				}
				b.WriteByte(c)
			}
			if i += 1 + size; b.Len() > 4*255 {
				return "", 0, false
			}
		}
	}
	return "", 0, false
}

type section int

const (
	sectionAnswer section = iota
	sectionAuthority
	sectionAdditional
)

// record is a resource record of a message.
type record struct {
	section          section
	kind, class      uint16
	start, data, end int // offsets: of its name, its data, and what follows
}

// parseRecords finds the records of a message.
func parseRecords(message []byte) ([]record, bool) {
	count := func(i int) int { return int(binary.BigEndian.Uint16(message[i:])) }
	if len(message) < resolver.HeaderSize {
		return nil, false
	}
	at := resolver.HeaderSize
	for range count(4) {
		_, end, ok := parseName(message, at)
		if !ok || end+4 > len(message) {
			return nil, false
		}
		at = end + 4
	}
	var list []record
	for s := sectionAnswer; s <= sectionAdditional; s++ {
		for range count(6 + 2*int(s)) {
			_, end, ok := parseName(message, at)
			if !ok || end+recordSize > len(message) {
				return nil, false
			}
			r := record{section: s, start: at, data: end + recordSize,
				kind: binary.BigEndian.Uint16(message[end:]), class: binary.BigEndian.Uint16(message[end+2:])}
			if r.end = r.data + int(binary.BigEndian.Uint16(message[end+8:])); r.end > len(message) {
				return nil, false
			}
			list, at = append(list, r), r.end
		}
	}
	return list, true
}

// addresses are those that a record gives to its name.
func (r record) addresses(message []byte) (list []netip.Addr) {
	data := message[r.data:r.end]
	add := func(b []byte) {
		if a, ok := netip.AddrFromSlice(b); ok {
			list = append(list, a)
		}
	}
	switch {
	case r.class != classINET:
	case r.kind == typeA && len(data) == 4, r.kind == typeAAAA && len(data) == 16:
		add(data)
	case r.kind == typeSVCB, r.kind == typeHTTPS: // RFC 9460, 2.2: a priority, a name, parameters
		const hint4, hint6 = 4, 6
		if len(data) < 3 {
			return nil
		}
		_, at, ok := parseName(message, r.data+2)
		for ok && at+4 <= r.end {
			key, size := binary.BigEndian.Uint16(message[at:]), int(binary.BigEndian.Uint16(message[at+2:]))
			at += 4
			if at+size > r.end {
				return list
			}
			width := map[uint16]int{hint4: 4, hint6: 16}[key]
			for b := message[at : at+size]; width > 0 && len(b) >= width; b = b[width:] {
				add(b[:width])
			}
			at += size
		}
	}
	return list
}

// shortened says where in the data of types names may be shortened by pointers (RFC
// 3597, 4): so many bytes, and so many names.
var shortened = map[uint16]struct{ before, names int }{
	2: {0, 1}, 3: {0, 1}, 4: {0, 1}, 5: {0, 1}, 7: {0, 1}, 8: {0, 1}, 9: {0, 1}, 12: {0, 1}, 39: {0, 1}, // NS, MD, MF, CNAME, MB, MG, MR, PTR, DNAME
	6: {0, 2}, 14: {0, 2}, 17: {0, 2}, // SOA, MINFO, RP
	15: {2, 1}, 18: {2, 1}, 21: {2, 1}, 36: {2, 1}, 33: {6, 1}, // MX, AFSDB, RT, KX, SRV
}

// rewrite makes a message of one whose records are kept only in part: their names are
// written in full, since what pointers led to may be gone.
func rewrite(message []byte, kept []record) []byte {
	_, end, ok := parseName(message, resolver.HeaderSize)
	if !ok || binary.BigEndian.Uint16(message[4:]) != 1 {
		return nil
	}
	out := append([]byte(nil), message[:end+4]...)
	out[3] &^= flagAuthentic
	clear(out[6:resolver.HeaderSize])
	for _, r := range kept {
		if out, ok = appendName(out, message, r.start); !ok {
			return nil
		}
		out = append(out, message[r.data-recordSize:r.data]...)
		size := len(out)
		at := r.data
		if n, ok := shortened[r.kind]; ok {
			if at+n.before > r.end {
				return nil
			}
			out, at = append(out, message[at:at+n.before]...), at+n.before
			for range n.names {
				_, end, ok := parseName(message, at)
				if !ok || end > r.end {
					return nil
				}
				out, _ = appendName(out, message, at)
				at = end
			}
		}
		out = append(out, message[at:r.end]...)
		if len(out) > maxMessage {
			return nil
		}
		binary.BigEndian.PutUint16(out[size-2:], uint16(len(out)-size))
		count := out[6+2*int(r.section):]
		binary.BigEndian.PutUint16(count, binary.BigEndian.Uint16(count)+1)
	}
	return out
}

// appendName appends the name at an offset, in full.
func appendName(out, message []byte, at int) ([]byte, bool) {
	if _, _, ok := parseName(message, at); !ok {
		return out, false
	}
	for i := at; ; {
		size := int(message[i])
		switch {
		case size == 0:
			return append(out, 0), true
		case size >= 0xc0:
			i = int(binary.BigEndian.Uint16(message[i:]) & 0x3fff)
		default:
			out = append(out, message[i:i+1+size]...)
			i += 1 + size
		}
	}
}
