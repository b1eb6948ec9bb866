package main

import (
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/abdul-abdi/lumina/builder/buildertest"
)

// world is a host with a network of its own, in which lumina runs, and the
// internet beside it. Each canary counts who reached it.
//
//	host: 127.0.0.1, ::1, 198.51.100.1, 2001:db8::1
//	internet: 198.51.100.10 (example.test), .11, 10.77.0.1 (a LAN's),
//	169.254.169.254 (metadata), 2001:db8::10
type world struct {
	host, internet string // network namespaces
	mu             sync.Mutex
	hits           map[string]int
}

func newWorld(t *testing.T) *world {
	t.Helper()
	needsProgram(t)
	w := &world{host: fmt.Sprintf("lumina-host-%d", os.Getpid()), internet: fmt.Sprintf("lumina-net-%d", os.Getpid()), hits: map[string]int{}}
	ip := func(args ...string) { t.Helper(); buildertest.Run(t, "ip", args...) }
	etc := filepath.Join("/etc/netns", w.host)
	if err := os.MkdirAll(etc, 0o755); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = exec.Command("ip", "netns", "delete", w.host).Run()
		_ = exec.Command("ip", "netns", "delete", w.internet).Run()
		os.RemoveAll(etc)
	})
	write(t, filepath.Join(etc, "hosts"), `127.0.0.1 localhost
198.51.100.10 example.test www.example.test
198.51.100.11 other.test
127.0.0.1 rebound.example.test
169.254.169.254 metadata.example.test
`)
	write(t, filepath.Join(etc, "resolv.conf"), "nameserver 127.0.0.1\n")
	ip("netns", "add", w.host)
	ip("netns", "add", w.internet)
	ip("-n", w.host, "link", "add", "inet", "type", "veth", "peer", "name", "host", "netns", w.internet)
	for _, ns := range []struct {
		name, device string
		addresses    []string
	}{
		{w.host, "inet", []string{"198.51.100.1/24", "2001:db8::1/64"}},
		{w.internet, "host", []string{"198.51.100.10/24", "198.51.100.11/24", "10.77.0.1/24", "169.254.169.254/32", "2001:db8::10/64"}},
	} {
		ip("-n", ns.name, "link", "set", "lo", "up")
		ip("-n", ns.name, "link", "set", ns.device, "up")
		for _, a := range ns.addresses {
			args := []string{"-n", ns.name, "address", "add", a, "dev", ns.device}
			if strings.Contains(a, "::") {
				args = append(args, "nodad")
			}
			ip(args...)
		}
	}
	ip("-n", w.host, "route", "add", "default", "via", "198.51.100.10")
	for _, c := range []struct{ ns, address string }{
		{w.host, "127.0.0.1:80"}, {w.host, "[::1]:80"}, {w.host, "198.51.100.1:80"}, {w.host, "[2001:db8::1]:80"},
		{w.internet, "198.51.100.10:80"}, {w.internet, "198.51.100.11:80"}, {w.internet, "10.77.0.1:80"},
		{w.internet, "169.254.169.254:80"}, {w.internet, "[2001:db8::10]:80"},
	} {
		w.serve(t, c.ns, c.address)
	}
	return w
}

// listen listens in a network namespace.
func (w *world) listen(t *testing.T, ns, address string) (l net.Listener) {
	t.Helper()
	inNamespace(t, ns, func() (err error) {
		l, err = net.Listen("tcp", address)
		return err
	})
	return l
}

// inNamespace calls do in a network namespace.
func inNamespace(t *testing.T, ns string, do func() error) {
	t.Helper()
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	here, err := os.Open("/proc/thread-self/ns/net")
	if err != nil {
		t.Fatal(err)
	}
	defer here.Close()
	there, err := os.Open(filepath.Join("/run/netns", ns))
	if err != nil {
		t.Fatal(err)
	}
	defer there.Close()
	if err := unix.Setns(int(there.Fd()), unix.CLONE_NEWNET); err != nil {
		t.Fatal(err)
	}
	defer func() {
		if err := unix.Setns(int(here.Fd()), unix.CLONE_NEWNET); err != nil {
			panic(err) // the thread is lost in another network
		}
	}()
	if err := do(); err != nil {
		t.Fatal(err)
	}
}

// capture counts the packets on every interface of the host, its loopback too,
// until the returned function is called. What its kernel says by itself to find
// neighbours does not count.
func (w *world) capture(t *testing.T) (packets func() int) {
	t.Helper()
	var fd int
	inNamespace(t, w.host, func() (err error) {
		const all = unix.ETH_P_ALL>>8 | unix.ETH_P_ALL&0xff<<8 // big endian
		fd, err = unix.Socket(unix.AF_PACKET, unix.SOCK_DGRAM|unix.SOCK_NONBLOCK|unix.SOCK_CLOEXEC, all)
		return err
	})
	f := os.NewFile(uintptr(fd), "packets")
	counted := make(chan int)
	go func() {
		n := 0
		raw, _ := f.SyscallConn()
		b := make([]byte, 64)
		for {
			var size int
			var from unix.Sockaddr
			var recvErr error
			if err := raw.Read(func(fd uintptr) bool {
				size, from, recvErr = unix.Recvfrom(int(fd), b, 0)
				return recvErr != unix.EAGAIN
			}); err != nil || recvErr != nil {
				counted <- n
				return
			}
			switch link := from.(*unix.SockaddrLinklayer); {
			case link.Protocol == unix.ETH_P_IP>>8|unix.ETH_P_IP&0xff<<8:
				n++
			case link.Protocol == unix.ETH_P_IPV6>>8|unix.ETH_P_IPV6&0xff<<8 && size > 6 && b[6] != unix.IPPROTO_ICMPV6 && b[6] != 0: // 0: MLD's options
				n++
			}
		}
	}()
	return func() int {
		_ = f.SetReadDeadline(time.Unix(1, 0))
		defer f.Close()
		return <-counted
	}
}

// internetSockets counts the sockets of a process that are not of this host only.
func internetSockets(t *testing.T, pid int) int {
	t.Helper()
	open := map[string]bool{}
	links, err := filepath.Glob(fmt.Sprintf("/proc/%d/fd/*", pid))
	if err != nil || len(links) == 0 {
		t.Fatalf("files of process %d: %v", pid, err)
	}
	for _, l := range links {
		if to, err := os.Readlink(l); err == nil && strings.HasPrefix(to, "socket:[") {
			open[strings.Trim(to, "socket:[]")] = true
		}
	}
	n := 0
	for table, inode := range map[string]int{"tcp": 9, "tcp6": 9, "udp": 9, "udp6": 9, "udplite": 9, "icmp": 9, "raw": 9, "raw6": 9, "packet": 8} {
		b, err := os.ReadFile(fmt.Sprintf("/proc/%d/net/%s", pid, table))
		if err != nil && !os.IsNotExist(err) {
			t.Fatal(err)
		}
		for line := range strings.Lines(string(b)) {
			if f := strings.Fields(line); len(f) > inode && open[f[inode]] {
				n++
			}
		}
	}
	return n
}

func (w *world) serve(t *testing.T, ns, address string) {
	t.Helper()
	s := httptest.NewUnstartedServer(http.HandlerFunc(func(rw http.ResponseWriter, _ *http.Request) {
		w.mu.Lock()
		w.hits[address]++
		w.mu.Unlock()
		_, _ = io.WriteString(rw, "canary")
	}))
	s.Listener.Close()
	s.Listener = w.listen(t, ns, address)
	s.Start()
	t.Cleanup(s.Close)
}

// reached forgets and returns which canaries were reached.
func (w *world) reached() map[string]int {
	w.mu.Lock()
	defer w.mu.Unlock()
	hits := w.hits
	w.hits = map[string]int{}
	return hits
}

// lumina calls the program on the world's host.
func (w *world) lumina(t testing.TB, args ...string) result {
	t.Helper()
	cmd := command(args...)
	cmd.Args = append([]string{"ip", "netns", "exec", w.host, program}, args...)
	cmd.Path, _ = exec.LookPath("ip")
	return finish(t, cmd)
}

// escape tries to get everywhere from inside: it prints what answered.
const escape = `use IO::Socket::INET; use Socket qw(:all);
sub try { my ($name, $s) = @_; return unless $s; $s->autoflush(1); print $s "GET / HTTP/1.1\r\nHost: $host\r\nConnection: close\r\n\r\n"; local $/; my $r = <$s>; print "$name\n" if $r =~ /canary/ }
for $host (@ARGV) { try($host, IO::Socket::INET->new(PeerAddr => $host, PeerPort => 80, Timeout => 5)) }
for my $a ("::1", "2001:db8::1", "2001:db8::10", "fe80::1", "::ffff:127.0.0.1", "64:ff9b::7f00:1") {
  socket(my $s, AF_INET6, SOCK_STREAM, 0) or next; $host = $a;
  if (connect($s, pack_sockaddr_in6(80, inet_pton(AF_INET6, $a)))) { syswrite $s, "GET / HTTP/1.0\r\n\r\n"; sysread $s, my $r, 1000; print "[$a]\n" if $r =~ /canary/ } }
my $v; socket($v, 40, SOCK_STREAM, 0) and connect($v, pack("SSLLx4", 40, 0, 80, 2)) and print "vsock\n";
`

var escapeTo = []string{"127.0.0.1", "127.0.0.2", "localhost", "0.0.0.0", "10.0.2.2", "10.0.2.3", "198.51.100.1", "10.77.0.1", "169.254.169.254",
	"169.254.1.1", "224.0.0.1", "255.255.255.255", "198.51.100.10", "198.51.100.11", "example.test", "other.test", "rebound.example.test", "metadata.example.test"}

func TestEscapes(t *testing.T) {
	w := newWorld(t)
	canary := filepath.Join(t.TempDir(), "canary")
	write(t, canary, "canary")
	for _, tt := range []struct {
		name    string
		flags   []string
		reached []string // what the guest says
		hits    []string // what was reached
	}{
		{"nat", nil,
			[]string{"198.51.100.10", "198.51.100.11", "example.test", "other.test"}, []string{"198.51.100.10:80", "198.51.100.11:80"}},
		{"nat and the LAN", []string{"--allow-lan"},
			[]string{"10.77.0.1", "198.51.100.10", "198.51.100.11", "example.test", "other.test"}, []string{"10.77.0.1:80", "198.51.100.10:80", "198.51.100.11:80"}},
		{"none", []string{"--network", "none"}, nil, nil},
		{"allow", []string{"--network", "allow=example.test,*.example.test"}, []string{"example.test"}, []string{"198.51.100.10:80"}},
		{"allow an address", []string{"--network", "allow=198.51.100.11:80,127.0.0.0/8,10.0.0.0/8,169.254.0.0/16"}, []string{"198.51.100.11"}, []string{"198.51.100.11:80"}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			args := append([]string{"run", "--image", "debian"}, tt.flags...)
			r := w.lumina(t, append(append(args, "--timeout", "60s", "--", "perl", "-e", escape), escapeTo...)...).succeeded(t)
			if got := strings.Fields(r.Stdout); strings.Join(got, " ") != strings.Join(tt.reached, " ") {
				t.Errorf("the guest reached %v, want %v; stderr %s", got, tt.reached, r.Stderr)
			}
			hits := w.reached()
			for _, h := range tt.hits {
				if hits[h] == 0 {
					t.Errorf("%s was not reached", h)
				}
				delete(hits, h)
			}
			if len(hits) > 0 {
				t.Errorf("reached: %v", hits)
			}
			if tt.name != "none" && !strings.Contains(r.stdout, `"network_denied":[`) {
				t.Errorf("nothing is said to be denied: %s", r.stdout)
			}
		})
	}
	t.Run("none is none", func(t *testing.T) {
		r := w.lumina(t, "run", "--image", "debian", "--network", "none", "ls /sys/class/net; cat /etc/resolv.conf; cat "+canary+"; getent hosts example.test").succeededWith(t, 2)
		if r.Stdout != "lo\n" {
			t.Errorf("stdout = %q", r.Stdout)
		}
		if strings.Contains(r.stdout, "network_") {
			t.Errorf("traffic without a network: %s", r.stdout)
		}
	})
	// What the escape suite does in a session, seen from the host.
	for _, tt := range []struct {
		network string
		silent  bool
	}{{"none", true}, {"nat", false}} {
		t.Run("capture of "+tt.network, func(t *testing.T) {
			packets := w.capture(t)
			r := w.lumina(t, "session", "start", "--image", "debian", "--network", tt.network).succeeded(t)
			defer w.lumina(t, "session", "stop", r.SID)
			// A connection that stays, where one can be made.
			w.lumina(t, "exec", "--detach", r.SID, "--", "perl", "-e", `use IO::Socket::INET; my $s = IO::Socket::INET->new("198.51.100.10:80"); print "up\n"; sleep 1000`).succeeded(t)
			w.lumina(t, append([]string{"exec", r.SID, "--", "perl", "-e", escape}, escapeTo...)...).succeeded(t)
			if r := w.lumina(t, "exec", r.SID, "cat /proc/net/if_inet6").succeeded(t); strings.Contains(r.Stdout, "eth0") {
				t.Errorf("the guest has given itself an address: %s", r.Stdout)
			}
			supervisor := sessionPID(t, r.SID)
			sockets := internetSockets(t, supervisor) + internetSockets(t, childOf(t, supervisor))
			n := packets()
			t.Logf("%d packets, %d sockets of the internet's", n, sockets)
			if (n == 0) != tt.silent || (sockets == 0) != tt.silent {
				t.Errorf("with --network %s: %d packets, %d sockets of the internet's", tt.network, n, sockets)
			}
		})
	}
	t.Run("a session says what it denied", func(t *testing.T) {
		r := w.lumina(t, "session", "start", "--image", "debian", "--network", "allow=example.test").succeeded(t)
		defer w.lumina(t, "session", "stop", r.SID)
		for _, tt := range []struct {
			to     string
			denied bool
		}{{"198.51.100.11", true}, {"example.test", false}} {
			exec := w.lumina(t, "exec", r.SID, "--", "perl", "-e", escape, tt.to).succeeded(t)
			if strings.Contains(exec.stdout, `"network_denied":[`) != tt.denied || !strings.Contains(exec.stdout, `"network_metrics":{"interfaces":{"eth0":{`) {
				t.Errorf("an exec that calls %s: %s", tt.to, exec.stdout)
			}
		}
		var report struct {
			Denied []struct {
				Protocol, Destination string
				Count                 int
			}
		}
		ps := w.lumina(t, "ps", "--denied", r.SID).succeeded(t)
		if err := json.Unmarshal([]byte(ps.stdout), &report); err != nil || len(report.Denied) != 1 || report.Denied[0].Destination != "198.51.100.11:80" {
			t.Errorf("ps --denied: %s, %v", ps.stdout, err)
		}
	})
	nothingLeft(t)
}

// succeededWith is succeeded for another exit code.
func (r result) succeededWith(t testing.TB, code int) result {
	t.Helper()
	if r.code != code || r.Error != "" {
		t.Fatalf("exit code %d, want %d; stdout %.600s, stderr %.600s", r.code, code, r.stdout, r.stderr)
	}
	return r
}

func TestNetworkFlags(t *testing.T) {
	for _, bad := range []string{"host", "allow=", "allow=a b", "allow=a.test:x", "NAT"} {
		if r := run(t, "--network", bad, "true"); r.code != 2 {
			t.Errorf("--network %q: exit code %d, %s", bad, r.code, r.stderr)
		}
	}
}
