package network

import (
	"net/netip"
	"strings"
	"testing"
)

func TestAllow(t *testing.T) {
	tests := []struct {
		list    string
		wantErr string
	}{
		{"example.test", ""},
		{"Example.test.:443, *.b.test ,198.51.100.0/24:80,198.51.100.1", ""},
		{"", "it is empty"},
		{"a.test,,b.test", "it is empty"},
		{"a.test:0", `"0" is not a port`},
		{"a.test:99999", "is not a port"},
		{"a_b.test", ""},
		{"http://a.test/x", "it is a URL, where HOST or HOST:PORT is wanted; write \"a.test\""},
		{"https://", "write \"HOST\""},
		{"*", "neither a host name nor an address"},
		{"*.*.test", "neither"},
		{"a..test", "neither"},
		{"1.2.3", "neither"},
		{"[::1]:80", "is not a port"},
		{strings.Repeat("a", 64) + ".test", "neither"},
	}
	for _, tt := range tests {
		_, err := Allow(tt.list, false)
		if (err == nil) != (tt.wantErr == "") || err != nil && !strings.Contains(err.Error(), tt.wantErr) {
			t.Errorf("Allow(%q): %v, want %q", tt.list, err, tt.wantErr)
		}
	}
}

func TestRefuses(t *testing.T) {
	for _, tt := range []struct {
		address      string
		nat, withLAN bool // refused
	}{
		{"198.51.100.1", false, false},
		{"8.8.8.8", false, false},
		{"127.0.0.1", true, true},
		{"127.255.0.9", true, true},
		{"0.0.0.0", true, true},
		{"169.254.169.254", true, true},
		{"168.63.129.16", true, true},
		{"100.100.100.200", true, true},
		{"224.0.0.1", true, true},
		{"255.255.255.255", true, true},
		{"10.0.0.1", true, false},
		{"172.31.255.255", true, false},
		{"172.32.0.1", false, false},
		{"192.168.1.1", true, false},
		{"100.64.0.1", true, false},
		{"::1", true, true},
		{"fd00:ec2::254", true, true},
		{"::ffff:198.51.100.1", true, true},
		{"64:ff9b::7f00:1", true, true},
	} {
		for _, lan := range []bool{false, true} {
			p := NAT(lan)
			want := tt.nat
			if lan {
				want = tt.withLAN
			}
			if reason := p.refuses(netip.MustParseAddr(tt.address)); (reason != "") != want {
				t.Errorf("%s, private addresses allowed: %v: refused for %q, want refused: %v", tt.address, lan, reason, want)
			}
		}
	}
}

func FuzzAllow(f *testing.F) {
	f.Add("example.test:443,*.b.test,198.51.100.0/24:80")
	f.Fuzz(func(t *testing.T, list string) {
		p, err := Allow(list, false)
		if err != nil {
			return
		}
		for _, r := range p.rules {
			if (r.name == "") == !r.prefix.IsValid() {
				t.Errorf("rule %+v of %q", r, list)
			}
		}
	})
}

// What a rule says of names and of ports.
func TestRules(t *testing.T) {
	p, err := Allow("a.test,*.b.test:443,c.test:22,*.d.test:8080,e.test:993", false)
	if err != nil {
		t.Fatal(err)
	}
	for _, tt := range []struct {
		name          string
		port          uint16
		named, opened bool
	}{
		{"a.test", 80, true, false},
		{"A.Test.", 22, true, false}, // and refused, unless it is TLS or HTTP
		{"x.a.test", 80, false, false},
		{"x.b.test", 443, true, false},
		{"x.b.test", 80, false, false},
		{"b.test", 443, false, false},
		{".b.test", 443, false, false},
		{"c.test", 22, true, true},
		{"c.test", 80, false, false},
		{"x.d.test", 8080, true, false}, // a port of HTTP
		{"e.test", 993, true, true},
		{"evil.test:80:x.b.test", 443, false, false},
		{"evil.test\x00.b.test", 443, false, false},
		{"evil.test/.b.test", 443, false, false},
		{"\xff.b.test", 443, false, false},
		{"x..b.test", 443, false, false},
		{"", 443, false, false},
	} {
		if got := p.allowsName(tt.name, tt.port); got != tt.named {
			t.Errorf("%q on port %d: %v, want %v", tt.name, tt.port, got, tt.named)
		}
		if got := p.opens(canonicalName(tt.name), tt.port); got != tt.opened {
			t.Errorf("port %d of %q is open: %v, want %v", tt.port, tt.name, got, tt.opened)
		}
	}
}
