package resolver

import (
	"bufio"
	"net/netip"
	"os"
	"slices"
	"strconv"
	"strings"
	"time"
)

// What is read of the files, at most.
const (
	maxFile    = 4 << 20 // bytes
	maxServers = 8
	maxSearch  = 32
)

// config is what the files said when they were read.
type config struct {
	servers  []netip.AddrPort
	search   []string
	attempts int
	stream   bool // TCP always
	hosts    map[string][]netip.Addr
}

// file is what a file looked like when it was read.
type file struct {
	size    int64
	changed time.Time
}

func look(path string) file {
	info, err := os.Stat(path)
	if err != nil {
		return file{size: -1}
	}
	return file{info.Size(), info.ModTime()}
}

// parseResolv reads a resolv.conf(5). Where it names no server, it is the host's
// own address that is asked.
func parseResolv(text string, port uint16) *config {
	c := &config{attempts: 2}
	for line := range strings.Lines(text) {
		if line = strings.TrimSpace(line); line == "" || line[0] == '#' || line[0] == ';' {
			continue
		}
		fields := strings.Fields(line)
		switch fields = fields[:min(len(fields), maxSearch+1)]; fields[0] {
		case "nameserver":
			if len(fields) < 2 || len(c.servers) == maxServers {
				continue
			}
			if a, err := netip.ParseAddr(fields[1]); err == nil {
				c.servers = append(c.servers, netip.AddrPortFrom(a, port))
			}
		case "search", "domain":
			c.search = nil // the last one counts
			for _, domain := range fields[1:] {
				domain = strings.ToLower(strings.TrimSuffix(domain, "."))
				if plain(domain) {
					c.search = append(c.search, domain)
				}
			}
		case "options":
			for _, o := range fields[1:] {
				if n, ok := strings.CutPrefix(o, "attempts:"); ok {
					if n, err := strconv.Atoi(n); err == nil {
						c.attempts = max(1, min(n, 5))
					}
				}
				c.stream = c.stream || o == "use-vc"
			}
		}
	}
	if len(c.servers) == 0 {
		c.servers = []netip.AddrPort{netip.AddrPortFrom(netip.AddrFrom4([4]byte{127, 0, 0, 1}), port)}
	}
	return c
}

// plain says whether a domain has nothing in it that another file could take for
// something else.
func plain(domain string) bool {
	return domain != "" && len(domain) < 254 && !strings.ContainsFunc(domain, func(c rune) bool {
		return !('a' <= c && c <= 'z' || '0' <= c && c <= '9' || c == '-' || c == '_' || c == '.')
	})
}

// parseHosts reads a hosts(5).
func parseHosts(text string) map[string][]netip.Addr {
	hosts := map[string][]netip.Addr{}
	for line := range strings.Lines(text) {
		line, _, _ = strings.Cut(line, "#")
		fields := strings.Fields(line)
		if len(fields) < 2 {
			continue
		}
		a, err := netip.ParseAddr(fields[0])
		if err != nil {
			continue
		}
		a = a.WithZone("").Unmap()
		for _, name := range fields[1:] {
			name = strings.ToLower(strings.TrimSuffix(name, "."))
			if !slices.Contains(hosts[name], a) {
				hosts[name] = append(hosts[name], a)
			}
		}
	}
	return hosts
}

func readFile(path string) string {
	f, err := os.Open(path)
	if err != nil {
		return ""
	}
	defer f.Close()
	var b strings.Builder
	s := bufio.NewScanner(f)
	for s.Scan() && b.Len() < maxFile {
		b.WriteString(s.Text() + "\n")
	}
	return b.String()
}

// current is the configuration of now: changes are seen within a second.
func (r *Resolver) current() *config {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.config != nil && time.Since(r.looked) < time.Second {
		return r.config
	}
	r.looked = time.Now()
	resolv, hosts := look(r.resolvPath), look(r.hostsPath)
	if r.config == nil || resolv != r.resolv || hosts != r.hosts {
		r.config = parseResolv(readFile(r.resolvPath), r.port)
		r.config.hosts = parseHosts(readFile(r.hostsPath))
		r.resolv, r.hosts = resolv, hosts
		r.preferred = 0
	}
	return r.config
}
