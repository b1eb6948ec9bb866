package main

import (
	"bufio"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// VMs of one file find each other by name, and nobody else.
func TestNetworkRun(t *testing.T) {
	needsProgram(t)
	t.Cleanup(func() { nothingLeft(t) })
	port := freePort(t)
	file := filepath.Join(t.TempDir(), "network.yaml")
	write(t, file, fmt.Sprintf(`sessions:
  - {name: db, image: debian, memory: 512MB}
  - {name: web, image: debian, cpus: 1, forwards: ["%d:80"]}
  - {name: third, image: debian}
`, port))
	start := func() (sids map[string]string, wait func() (code int, last string), interrupt func()) {
		t.Helper()
		cmd := command("network", "run", file)
		stdout, err := cmd.StdoutPipe()
		if err != nil {
			t.Fatal(err)
		}
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = cmd.Process.Kill() })
		lines := bufio.NewScanner(stdout)
		if !lines.Scan() {
			t.Fatal("it said nothing")
		}
		var up struct{ Sessions []struct{ Name, SID string } }
		if err := json.Unmarshal(lines.Bytes(), &up); err != nil || len(up.Sessions) != 3 {
			t.Fatalf("%s: %v", lines.Text(), err)
		}
		sids = map[string]string{}
		for _, s := range up.Sessions {
			sids[s.Name] = s.SID
		}
		return sids, func() (int, string) {
			last := ""
			for lines.Scan() {
				last = lines.Text()
			}
			return waitCode(t, cmd), last
		}, func() { _ = cmd.Process.Signal(os.Interrupt) }
	}

	sids, wait, interrupt := start()
	serve := `use IO::Socket::INET; my $l = IO::Socket::INET->new(Listen=>5, LocalPort=>5432, ReuseAddr=>1) or die; $| = 1; print "up\n"; while (my $c = $l->accept) { print $c "db to " . $c->peerhost . "\n"; close $c }`
	id := lumina(t, "exec", "--detach", sids["db"], "--", "perl", "-e", serve).succeeded(t).ID
	logs := command("logs", "-f", sids["db"], id)
	logs.Env = append(logs.Env, "LUMINA_FORMAT=text")
	started(t, "up", logs)
	ask := `use IO::Socket::INET; for (@ARGV) { my $s = IO::Socket::INET->new(PeerAddr=>$_, Timeout=>3); print $s ? <$s> : "no $_\n" }`
	r := lumina(t, "exec", sids["web"], "--", "perl", "-e", ask, "db:5432", "third:5432", "10.0.2.2:80", "127.0.0.1:5432", "198.51.100.1:80").succeeded(t)
	if want := "db to 10.0.3.2\nno third:5432\nno 10.0.2.2:80\nno 127.0.0.1:5432\nno 198.51.100.1:80\n"; r.Stdout != want {
		t.Errorf("web reached %q, want %q", r.Stdout, want)
	}
	if r := lumina(t, "exec", "third", "hostname; cat /sys/class/net/eth0/address").succeeded(t); !strings.HasPrefix(r.Stdout, "third\n") {
		t.Errorf("third says %q", r.Stdout)
	}
	interrupt()
	if code, last := wait(); code != 130 {
		t.Errorf("interrupted: exit code %d, %s", code, last)
	}
	nothingLeft(t)

	sids, wait, _ = start()
	_ = command("exec", sids["third"], "echo c > /proc/sysrq-trigger").Run()
	if code, last := wait(); code != 125 || !strings.Contains(last, `"error":"vm_crashed"`) || !strings.Contains(last, "(third)") {
		t.Errorf("a member crashed: exit code %d, %s", code, last)
	}
	nothingLeft(t)

	for name, text := range map[string]string{
		"no sessions":    "sessions: []",
		"unknown field":  "sessions: [{name: a, imgae: debian}]",
		"two of a name":  "sessions: [{name: a}, {name: a}]",
		"no host name":   "sessions: [{name: A_b}]",
		"a bad forward":  "sessions: [{name: a, forwards: ['x']}]",
		"a bad size":     "sessions: [{name: a, memory: lots}]",
		"not even close": "[",
	} {
		write(t, file, text)
		if r := lumina(t, "network", "run", file); r.code != 2 || !strings.Contains(r.stderr, "network.yaml") {
			t.Errorf("%s: exit code %d, %s", name, r.code, r.stderr)
		}
	}
}
