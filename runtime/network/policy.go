package network

import (
	"cmp"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"
)

// Policy says what a guest may reach. The zero value lets nothing through.
//
// Whatever it says, a guest never reaches an address of its host, the host's
// loopback, a link-local address (the cloud's metadata among them), or one that
// is not a unicast address of the network.
type Policy struct {
	any   bool // everything that is not forbidden
	lan   bool // private addresses, too
	rules []rule
}

// rule allows one destination.
type rule struct {
	prefix netip.Prefix // or
	name   string       // a host name in lower case; ".example.test" for all below it
	port   uint16       // 0: all
}

// NAT is the policy that allows every address of the internet.
func NAT(allowLAN bool) Policy { return Policy{any: true, lan: allowLAN} }

// maxRules bounds a policy.
const maxRules = 1000

// Allow parses a comma-separated list of host names, "*." and a host name for
// all below it, IP addresses and CIDRs, each with ":PORT" or without.
func Allow(list string, allowLAN bool) (Policy, error) {
	p := Policy{lan: allowLAN}
	for _, entry := range strings.Split(list, ",") {
		r, err := parseRule(strings.TrimSpace(entry))
		if err != nil {
			return Policy{}, fmt.Errorf("allowing %q: %w", entry, err)
		}
		p.rules = append(p.rules, r)
	}
	if len(p.rules) > maxRules {
		return Policy{}, fmt.Errorf("allowing %d destinations: at most %d", len(p.rules), maxRules)
	}
	return p, nil
}

func parseRule(s string) (rule, error) {
	if s == "" {
		return rule{}, errors.New("it is empty; want HOST, *.HOST, ADDRESS or CIDR, with :PORT or without")
	}
	if _, rest, ok := strings.Cut(s, "://"); ok {
		host, _, _ := strings.Cut(rest, "/")
		return rule{}, fmt.Errorf("it is a URL, where HOST or HOST:PORT is wanted; write %q", cmp.Or(host, "HOST"))
	}
	host, r := s, rule{}
	if h, port, ok := strings.Cut(s, ":"); ok {
		n, err := strconv.ParseUint(port, 10, 16)
		if err != nil || n == 0 {
			return rule{}, fmt.Errorf("%q is not a port", port)
		}
		host, r.port = h, uint16(n)
	}
	if prefix, err := netip.ParsePrefix(host); err == nil {
		r.prefix = prefix.Masked()
	} else if a, err := netip.ParseAddr(host); err == nil {
		r.prefix = netip.PrefixFrom(a, a.BitLen())
	} else {
		name, below := strings.CutPrefix(host, "*.")
		if name = canonicalName(name); !validName(name) {
			return rule{}, fmt.Errorf("%q is neither a host name nor an address", host)
		}
		if r.name = name; below {
			r.name = "." + name
		}
	}
	if r.prefix.IsValid() && !r.prefix.Addr().Is4() {
		return rule{}, fmt.Errorf("%s is not IPv4, and a guest has no IPv6", host)
	}
	return r, nil
}

func canonicalName(name string) string {
	return strings.ToLower(strings.TrimSuffix(name, "."))
}

func validName(name string) bool {
	if name == "" || len(name) > 253 {
		return false
	}
	for _, label := range strings.Split(name, ".") {
		if label == "" || len(label) > 63 {
			return false
		}
		for _, c := range []byte(label) {
			if !('a' <= c && c <= 'z' || '0' <= c && c <= '9' || c == '-' || c == '_') {
				return false
			}
		}
	}
	// 1.2.3.4 and 0x7f.1 are addresses to some.
	last := name[strings.LastIndexByte(name, '.')+1:]
	return !('0' <= last[0] && last[0] <= '9')
}

// allowsName says whether a rule lets a name through: on one port, or, with
// port 0, on any.
func (p *Policy) allowsName(name string, port uint16) bool {
	if p.any {
		return true
	}
	if name = canonicalName(name); !validName(name) {
		return false // a suffix of what is not a name says nothing
	}
	return slices.ContainsFunc(p.rules, func(r rule) bool {
		return (port == 0 || r.port == 0 || r.port == port) && r.covers(name)
	})
}

// webPorts are those of HTTP and TLS, of which much is said on one address: there,
// a name is what is allowed. On any other port that an entry names it is the address
// that the name resolves to.
var webPorts = []uint16{80, 443, 591, 8000, 8008, 8080, 8081, 8088, 8443, 8888}

// plainPorts are those of protocols that some servers find in what is a TLS hello or an
// HTTP request to others: a guest can write their commands into both. They are open to a
// name only where an entry has the port.
var plainPorts = []uint16{7, 9, 13, 19, 20, 21, 22, 23, 25, 37, 42, 43, 53, 69, 77, 79, 87, 95, 101, 102, 103, 104, 109, 110, 111, 113, 115, 117, 119, 123, 135,
	137, 139, 143, 161, 179, 389, 427, 512, 513, 514, 515, 526, 530, 531, 532, 540, 548, 554, 556, 587, 601, 1719, 1720, 1723, 2049, 2525, 3306, 3659, 4045, 4190,
	5060, 5432, 6000, 6379, 6566, 6665, 6666, 6667, 6668, 6669, 11211}

// opens says whether a rule opens a port of whatever address a name resolves to.
func (p *Policy) opens(name string, port uint16) bool {
	if p.any || slices.Contains(webPorts, port) {
		return p.any
	}
	return slices.ContainsFunc(p.rules, func(r rule) bool { return r.port == port && r.covers(name) })
}

// covers says whether a rule is about a canonical name.
func (r rule) covers(name string) bool {
	return r.name != "" && (r.name == name || r.name[0] == '.' && len(name) > len(r.name) && strings.HasSuffix(name, r.name))
}

// allowsAddress says whether an address may be reached whatever its name.
func (p *Policy) allowsAddress(a netip.AddrPort) bool {
	return p.any || slices.ContainsFunc(p.rules, func(r rule) bool {
		return r.prefix.IsValid() && r.prefix.Contains(a.Addr()) && (r.port == 0 || r.port == a.Port())
	})
}

// names says whether the policy knows destinations by name.
func (p *Policy) names() bool {
	return slices.ContainsFunc(p.rules, func(r rule) bool { return r.name != "" })
}

// forbidden are the addresses that no policy opens; private those that need to
// be asked for. The first are the special-purpose registry's (RFC 6890), but for
// the documentation networks: where those are used, they are the internet.
var (
	forbidden = prefixes("0.0.0.0/8", "127.0.0.0/8", "169.254.0.0/16", "192.0.0.0/24", "192.88.99.0/24", "224.0.0.0/4", "240.0.0.0/4",
		"100.100.100.200/32", "168.63.129.16/32") // metadata of clouds that do not have it in 169.254.0.0/16
	private = prefixes("10.0.0.0/8", "100.64.0.0/10", "172.16.0.0/12", "192.168.0.0/16", "198.18.0.0/15")
)

func prefixes(list ...string) []netip.Prefix {
	var all []netip.Prefix
	for _, s := range list {
		all = append(all, netip.MustParsePrefix(s))
	}
	return all
}

// refuses says why an address is never reached under this policy; "" when it is
// up to the rules, and to the host's own addresses.
func (p *Policy) refuses(a netip.Addr) string {
	in := func(list []netip.Prefix) bool {
		return slices.ContainsFunc(list, func(x netip.Prefix) bool { return x.Contains(a) })
	}
	switch {
	case !a.Is4():
		return "a guest has no IPv6"
	case in(forbidden):
		return "the address is the host's own, link-local or not of one machine"
	case in(private) && !p.lan:
		return "the address is private"
	}
	return ""
}

// hostAddresses are the addresses of the host and the broadcast addresses of its
// networks. They change: what is known is good for a second.
type hostAddresses struct {
	mu   sync.Mutex
	at   time.Time
	list map[netip.Addr]bool
}

func (h *hostAddresses) has(a netip.Addr) (bool, error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if time.Since(h.at) < time.Second {
		return h.list[a], nil
	}
	own, err := net.InterfaceAddrs()
	if err != nil {
		return false, err
	}
	h.list, h.at = map[netip.Addr]bool{}, time.Now()
	for _, n := range own {
		if ip, ok := n.(*net.IPNet); ok {
			if a, ok := netip.AddrFromSlice(ip.IP); ok {
				h.list[a.Unmap()] = true
			}
			h.list[broadcast(ip)] = true
		}
	}
	return h.list[a], nil
}

// broadcast is a network's last address; invalid where there is none.
func broadcast(n *net.IPNet) netip.Addr {
	ip := n.IP.To4()
	ones, bits := n.Mask.Size()
	if ip == nil || bits != 32 || ones > 30 {
		return netip.Addr{}
	}
	last := make(net.IP, 4)
	for i := range last {
		last[i] = ip[i] | ^n.Mask[i]
	}
	a, _ := netip.AddrFromSlice(last)
	return a
}
