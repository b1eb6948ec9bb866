// Package redirects says where a server may send this host: to other servers, but to no
// service of the host itself and to no metadata of a cloud's.
package redirects

import (
	"cmp"
	"context"
	"fmt"
	"net"
	"net/http"
	"net/netip"
	"net/url"
	"slices"
	"sync"
	"syscall"
	"time"
)

// connectTimeout is what Go's own transport gives a connection.
const connectTimeout = 30 * time.Second

// Confine has a transport connect for one server, whose address a user gave: to the
// server, and to where its redirects may lead. The server itself may be on this host or
// its link; then it is the address of the first connection that stays allowed, because
// the server's name can lead elsewhere later. A proxy looks after what it connects to
// by itself; what goes past it (this host's loopback, NO_PROXY, another scheme) is
// looked after here.
func Confine(t *http.Transport, server *url.URL) {
	c := &confined{host: server.Hostname(), ports: []string{server.Port()}}
	if choose := t.Proxy; choose != nil {
		proxy, err := choose(&http.Request{URL: server})
		c.proxied = err != nil || proxy != nil
		t.Proxy = func(req *http.Request) (*url.URL, error) { return c.throughProxy(req, choose) }
	}
	if server.Port() == "" {
		if c.ports = []string{"443"}; server.Scheme == "http" {
			c.ports = append(c.ports, "80")
		}
	}
	c.loopback = c.host == "localhost"
	if a, err := netip.ParseAddr(c.host); err == nil {
		c.literal, c.loopback = true, a.IsLoopback()
	}
	t.DialContext = c.dial
}

type confined struct {
	host     string // of the server
	ports    []string
	literal  bool // host is an address
	loopback bool // it is this host, by its name
	proxied  bool // a proxy connects to it

	mu      sync.Mutex
	at      netip.Addr      // of the server, as of the first connection
	proxies map[string]bool // addresses of the proxies in use
}

// throughProxy is the proxy of a request, which may be on this host. A redirect leads to
// none.
func (c *confined) throughProxy(req *http.Request, choose func(*http.Request) (*url.URL, error)) (*url.URL, error) {
	proxy, err := choose(req)
	if err != nil {
		return nil, err
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if proxy != nil {
		if c.proxies == nil {
			c.proxies = map[string]bool{}
		}
		c.proxies[hostPort(proxy)] = true
		return proxy, nil
	}
	if to := hostPort(req.URL); c.proxies[to] {
		return nil, fmt.Errorf("%s sends us to %s, which is our proxy", c.host, to)
	}
	return nil, nil
}

// hostPort is what a transport connects to for a URL.
func hostPort(u *url.URL) string {
	port := u.Port()
	if port == "" {
		port = map[string]string{"https": "443", "socks5": "1080", "socks5h": "1080"}[u.Scheme]
	}
	return net.JoinHostPort(u.Hostname(), cmp.Or(port, "80"))
}

func (c *confined) dial(ctx context.Context, network, address string) (net.Conn, error) {
	host, port, err := net.SplitHostPort(address)
	if err != nil {
		return nil, err
	}
	c.mu.Lock()
	at, toProxy := c.at, c.proxies[address]
	c.mu.Unlock()
	if toProxy {
		d := net.Dialer{Timeout: connectTimeout}
		return d.DialContext(ctx, network, address)
	}
	own := host == c.host && slices.Contains(c.ports, port) && !c.proxied
	first := own && !at.IsValid()
	d := net.Dialer{Timeout: connectTimeout, ControlContext: func(_ context.Context, _, to string, _ syscall.RawConn) error {
		a, err := netip.ParseAddrPort(to)
		if err != nil {
			return err
		}
		ip := plain(a.Addr())
		if ip == at && (own || c.literal) || first && (c.literal || !isLinkOrMetadata(ip)) {
			return nil
		}
		refused := isLinkOrMetadata(ip)
		if !refused && !(c.loopback && ip.IsLoopback()) {
			if refused, err = isHere(ip); err != nil {
				return err
			}
		}
		if refused {
			return fmt.Errorf("%s sends us to %s, which is an address of this host or its link", c.host, ip)
		}
		return nil
	}}
	conn, err := d.DialContext(ctx, network, address)
	if err == nil && first {
		if to, ok := conn.RemoteAddr().(*net.TCPAddr); ok {
			c.mu.Lock()
			if !c.at.IsValid() {
				c.at = plain(to.AddrPort().Addr())
			}
			c.mu.Unlock()
		}
	}
	return conn, err
}

func plain(a netip.Addr) netip.Addr { return a.Unmap().WithZone("") }

// metadata are the addresses of clouds that do not have it on the link.
var metadata = []netip.Addr{netip.MustParseAddr("100.100.100.200"), netip.MustParseAddr("168.63.129.16"), netip.MustParseAddr("fd00:ec2::254")}

func isLinkOrMetadata(ip netip.Addr) bool {
	return ip.IsLinkLocalUnicast() || ip.IsMulticast() || slices.Contains(metadata, ip)
}

// isHere says whether an address is of this host.
func isHere(ip netip.Addr) (bool, error) {
	if ip.IsUnspecified() || ip.IsLoopback() {
		return true, nil
	}
	own, err := net.InterfaceAddrs()
	if err != nil {
		return false, fmt.Errorf("finding this host's addresses: %w", err)
	}
	return slices.ContainsFunc(own, func(a net.Addr) bool {
		n, ok := a.(*net.IPNet)
		if !ok {
			return false
		}
		have, ok := netip.AddrFromSlice(n.IP)
		return ok && plain(have) == ip
	}), nil
}
