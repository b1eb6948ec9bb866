// Package forward makes ports of a guest's loopback reachable on this host's
// loopback, and nowhere else.
package forward

import (
	"errors"
	"fmt"
	"net/netip"
	"strconv"
	"strings"
)

// The protocols of a Rule.
const (
	TCP = "tcp"
	UDP = "udp"
)

// Rule is one port.
type Rule struct {
	Protocol string `json:"protocol"`
	Host     uint16 `json:"host"` // 0: one that is free
	Guest    uint16 `json:"guest"`
}

func (r Rule) String() string {
	s := fmt.Sprintf("%d:%d", r.Host, r.Guest)
	if r.Protocol == UDP {
		s += "/udp"
	}
	return s
}

// maxRange bounds a range of ports.
const maxRange = 256

// Form is what Parse reads, for messages.
const Form = "[127.0.0.1:][HOSTPORT:]GUESTPORT[/udp]"

// Parse reads rules as container tools write them: HOST:GUEST, where each may be a
// range of ports, GUEST alone for a free port of the host, /udp or /tcp behind it.
// An address of the host before it must be that of its loopback.
func Parse(s string) ([]Rule, error) {
	malformed := func(why string) error {
		return fmt.Errorf("forward %q: %s; want %s, such as 8080:80", s, why, Form)
	}
	ports, protocol, found := strings.Cut(s, "/")
	if !found {
		protocol = TCP
	}
	protocol = strings.ToLower(protocol)
	if protocol != TCP && protocol != UDP {
		return nil, malformed("the protocol is neither tcp nor udp")
	}
	host, guest := "", ports
	if i := strings.LastIndexByte(ports, ':'); i >= 0 {
		host, guest = ports[:i], ports[i+1:]
	}
	address := ""
	if i := strings.LastIndexByte(host, ':'); i >= 0 {
		address, host = strings.Trim(host[:i], "[]"), host[i+1:]
	}
	if a, err := netip.ParseAddr(address); address != "" && address != "localhost" && (err != nil || a != netip.AddrFrom4([4]byte{127, 0, 0, 1})) {
		return nil, malformed("forwards are bound to 127.0.0.1 only")
	}
	gFirst, gLast, err := parsePorts(guest)
	if err != nil {
		return nil, malformed(err.Error())
	}
	hFirst, hLast := 0, gLast-gFirst
	if host != "" {
		if hFirst, hLast, err = parsePorts(host); err != nil {
			return nil, malformed(err.Error())
		}
	}
	if hLast-hFirst != gLast-gFirst {
		return nil, malformed("the ranges have different lengths")
	}
	var rules []Rule
	for i := range gLast - gFirst + 1 {
		r := Rule{Protocol: protocol, Guest: uint16(gFirst + i)}
		if host != "" {
			r.Host = uint16(hFirst + i)
		}
		rules = append(rules, r)
	}
	return rules, nil
}

// parsePorts reads PORT or FIRST-LAST.
func parsePorts(s string) (first, last int, err error) {
	from, to, isRange := strings.Cut(s, "-")
	if !isRange {
		to = from
	}
	a, aErr := strconv.ParseUint(from, 10, 16)
	b, bErr := strconv.ParseUint(to, 10, 16)
	switch {
	case aErr != nil || bErr != nil || a == 0 || b == 0:
		return 0, 0, fmt.Errorf("%q is not a port", s)
	case b < a:
		return 0, 0, fmt.Errorf("%q ends before it begins", s)
	case b-a >= maxRange:
		return 0, 0, fmt.Errorf("%q has more than %d ports", s, maxRange)
	}
	return int(a), int(b), nil
}

// ParseAll reads several, and refuses ports of the host that are named twice.
func ParseAll(all []string) ([]Rule, error) {
	var rules []Rule
	taken := map[string]bool{}
	for _, s := range all {
		some, err := Parse(s)
		if err != nil {
			return nil, err
		}
		for _, r := range some {
			key := fmt.Sprint(r.Protocol, r.Host)
			if r.Host != 0 && taken[key] {
				return nil, fmt.Errorf("forward %q: port %d of this host is forwarded twice", s, r.Host)
			}
			taken[key] = true
		}
		rules = append(rules, some...)
	}
	if len(rules) > maxRules {
		return nil, errTooMany
	}
	return rules, nil
}

// maxRules bounds the ports of a Set.
const maxRules = 1024

var errTooMany = errors.New("more than 1024 ports are forwarded")
