package main

import (
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/abdul-abdi/lumina/builder/buildertest"
)

// outside prints what a guest sees of how connections end, of what cannot be
// reached, and of names.
const outside = `use strict; use Socket qw(:all); use IO::Socket::INET; $| = 1;
sub tcp { my $s; socket($s, AF_INET, SOCK_STREAM, 0); connect($s, pack_sockaddr_in($_[1], inet_aton($_[0]))) or return "$!"; my ($all, $b) = ("", "");
  while (1) { my $n = sysread($s, $b, 4096); return "$all, then $!" unless defined $n; return "$all, then an end" unless $n; $all .= $b } }
print "reset: ", tcp("198.51.100.10", 81), "\n";
print "end: ", tcp("198.51.100.10", 82), "\n";
print "refused: ", tcp("198.51.100.10", 83), "\n";
print "no host: ", tcp("203.0.113.1", 80), "\n";
print "no network: ", tcp("192.0.2.1", 80), "\n";
print "not the host's: ", tcp("127.0.0.1", 80), "\n";
socket(my $u, AF_INET, SOCK_DGRAM, 0); connect($u, pack_sockaddr_in(83, inet_aton("198.51.100.10"))); send($u, "x", 0);
print "datagram: ", (defined recv($u, my $b, 9, 0) ? "answered" : "$!"), "\n";
my $c = IO::Socket::INET->new("198.51.100.10:84"); print $c "half"; $c->flush; setsockopt($c, SOL_SOCKET, SO_LINGER, pack("ii", 1, 0)); close $c;
for my $name ("wiki", "wiki.", "wiki.corp.test", "long.example.test") { my ($first) = qx(getent ahostsv4 $name); print "$name: ", ($first // "none") =~ s/\s+/ /gr =~ s/ $//r, "\n" }
sub ask { my ($name, $type) = @_; my $q = pack("n6", 7, 256, 1, 0, 0, 0) . join("", map { pack("C/a", $_) } split /\./, $name) . pack("Cnn", 0, $type, 1);
  my $s = IO::Socket::INET->new("10.0.2.2:53") or return "$!"; print $s pack("n/a", $q); $s->flush; read($s, my $n, 2); read($s, my $r, unpack("n", $n)); my @h = unpack("n6", $r); return ($h[1] & 15) . " $h[3] " . length $r }
print "TXT: ", ask("long.example.test", 16), "\n", "CAA: ", ask("example.test", 257), "\n", "no IPv4: ", ask("six.example.test", 1), "\n", "none: ", ask("none.example.test", 1), "\n", "elsewhere: ", ask("elsewhere.org", 1), "\n";
`

const outsideSays = `reset: half, then Connection reset by peer
end: whole, then an end
refused: Connection refused
no host: No route to host
no network: Network is unreachable
not the host's: Connection refused
datagram: Connection refused
wiki: 198.51.100.20 STREAM wiki.corp.test
wiki.: none
wiki.corp.test: 198.51.100.20 STREAM wiki.corp.test
long.example.test: none
TXT: 0 1 6322
CAA: 0 1 64
no IPv4: 0 0 75
none: 3 0 76
elsewhere: 5 0 31
`

// startNamed is a resolver of the internet's, at the address of example.test, which
// the host is made to use.
func (w *world) startNamed(t *testing.T) {
	t.Helper()
	dir, err := os.MkdirTemp("", "lumina-named-")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	long := strings.Repeat(`"`+strings.Repeat("x", 250)+`" `, 25)
	for name, text := range map[string]string{
		"named.conf": fmt.Sprintf(`options { directory %q; listen-on { 198.51.100.10; }; listen-on-v6 { none; }; recursion no; dnssec-validation no; minimal-responses yes;
pid-file none; session-keyfile none; lock-file none; };
controls { }; logging { category default { null; }; };
zone "example.test" { type primary; file "example"; }; zone "corp.test" { type primary; file "corp"; };
`, dir),
		"example": "$TTL 300\n@ SOA ns h 1 1 1 1 300\n@ NS ns\nns A 198.51.100.10\n@ A 198.51.100.10\n@ CAA 0 issue \"ca.example.test\"\nsix AAAA 2001:db8::6\nlong TXT " + long + "\n",
		"corp":    "$TTL 300\n@ SOA ns h 1 1 1 1 300\n@ NS ns\nns A 198.51.100.10\nwiki A 198.51.100.20\n",
	} {
		write(t, filepath.Join(dir, name), text)
	}
	cmd := exec.Command("ip", "netns", "exec", w.internet, "/usr/sbin/named", "-f", "-4", "-n", "1", "-c", filepath.Join(dir, "named.conf"))
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = cmd.Process.Kill(); _ = cmd.Wait() })
	write(t, filepath.Join("/etc/netns", w.host, "resolv.conf"), "nameserver 198.51.100.10\nsearch corp.test\n")
}

// A guest of a real kernel and a real C library sees ends, failures and names as it
// would see them on its host.
func TestNetworkAsItIs(t *testing.T) {
	w := newWorld(t)
	w.startNamed(t)
	buildertest.Run(t, "ip", "-n", w.host, "route", "add", "unreachable", "203.0.113.0/24")
	buildertest.Run(t, "ip", "-n", w.host, "route", "add", "throw", "192.0.2.0/24")
	upload := make(chan error, 1)
	for port, do := range map[string]func(*net.TCPConn){
		"81": func(c *net.TCPConn) {
			_, _ = io.WriteString(c, "half")
			time.Sleep(50 * time.Millisecond) // until it has arrived: a reset overtakes
			_ = c.SetLinger(0)
		},
		"82": func(c *net.TCPConn) { _, _ = io.WriteString(c, "whole") },
		"84": func(c *net.TCPConn) { _, err := io.ReadAll(c); upload <- err },
	} {
		l := w.listen(t, w.internet, "198.51.100.10:"+port)
		t.Cleanup(func() { l.Close() })
		go func() {
			for {
				c, err := l.Accept()
				if err != nil {
					return
				}
				do(c.(*net.TCPConn))
				c.Close()
			}
		}()
	}
	r := w.lumina(t, "run", "--image", "debian", "--timeout", "120s", "--", "perl", "-e", outside).succeeded(t)
	if r.Stdout != outsideSays {
		t.Errorf("the guest says\n%s\nwant\n%s", r.Stdout, outsideSays)
	}
	select {
	case err := <-upload:
		if !errors.Is(err, syscall.ECONNRESET) {
			t.Errorf("an upload that the guest cut off: the server read %v", err)
		}
	case <-time.After(10 * time.Second):
		t.Error("an upload that the guest cut off goes on")
	}
	nothingLeft(t)
}
