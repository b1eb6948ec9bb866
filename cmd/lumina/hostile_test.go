package main

import (
	"fmt"
	"os"
	"regexp"
	"slices"
	"strconv"
	"testing"
	"time"
)

// stealAgent is Perl that takes the agent's end of the transport and writes what
// it likes to it: root in a guest may.
const stealAgent = `my $p = syscall(434, 1, 0); my $port;
for my $f (glob "/proc/1/fd/*") { if ((readlink($f) // "") =~ /vport/) { my ($n) = $f =~ /(\d+)$/; $port = syscall(438, $p, $n + 0, 0) } }
open my $o, ">&=", $port or die "no port: $!"; `

// A guest may ruin itself. Its host and its neighbours do not notice.
func TestHostileGuests(t *testing.T) {
	neighbour := startTestSession(t)
	for _, tt := range []struct {
		name   string
		attack []string
		// What the exec ends with: an exit code of its own, or an error.
		codes []int
		kind  string
		// The session is still good for something.
		survives bool
	}{
		{"memory", []string{"--", "perl", "-e", `push @a, "x" x (1 << 20) while 1`}, []int{137}, "", true},
		{"memory of many", []string{"for i in 1 2 3 4 5 6; do perl -e 'push @a, \"x\" x (1 << 20) while 1' & done; wait"}, []int{0, 137}, "", true},
		{"disk", []string{"head -c 3G /dev/zero > /fill; code=$?; rm /fill; exit $code"}, []int{1}, "", true},
		{"processes", []string{"--timeout", "5s", "--", "perl", "-e", "fork while 1"}, []int{124}, "timeout", false},
		{"files", []string{"--", "perl", "-e", `my $n = 0; while (open my $f, ">", "/f" . $n++) { push @f, $f } exit 7`}, []int{7}, "", true},
		{"entropy", []string{"head -c 64M /dev/urandom > /dev/null; timeout 2 cat /dev/random > /dev/null; exit 0"}, []int{0}, "", true},
		{"output", []string{"head -c 200M /dev/zero | tr '\\0' x"}, []int{0}, "", true},
		{"serial port", []string{"--timeout", "5s", "cat /dev/zero > /dev/ttyS0"}, []int{124}, "timeout", true},
		{"transport, zeros", []string{"--timeout", "60s", "--", "perl", "-e", stealAgent + `while (1) { syswrite $o, "\0" x 65536 }`}, []int{125}, "", false},
		{"transport, noise", []string{"--timeout", "60s", "--", "perl", "-e", stealAgent + `open my $r, "<", "/dev/urandom"; while (1) { sysread $r, my $b, 65536; syswrite $o, $b }`}, []int{125}, "", false},
	} {
		t.Run(tt.name, func(t *testing.T) {
			r := lumina(t, "session", "start", "--image", "debian", "--disk-size", "1GB", "--network", "none").succeeded(t)
			defer func() {
				lumina(t, "session", "stop", r.SID)
				lumina(t, "clean").succeeded(t)
			}()
			supervisor := sessionPID(t, r.SID)
			qemu := childOf(t, supervisor)
			usage := make(chan []int, 1)
			over := make(chan struct{})
			go func() { usage <- watch(over, supervisor, qemu) }()
			start := time.Now()
			got := lumina(t, append([]string{"exec", r.SID}, tt.attack...)...)
			took := time.Since(start)
			// While the guest is down, or down again.
			lumina(t, "exec", neighbour, "echo fine").succeeded(t)
			close(over)
			held := <-usage
			t.Logf("%v: exit code %d %s; the supervisor held %d MB at most, QEMU %d MB", took.Round(time.Millisecond), got.code, got.Error, held[0], held[1])
			if held[0] > 64 || held[1] > 1024+256 {
				t.Errorf("the supervisor held %d MB, QEMU with its guest of 1024 MB %d", held[0], held[1])
			}
			if !slices.Contains(tt.codes, got.code) || tt.kind != "" && got.Error != tt.kind {
				t.Errorf("exit code %d, %.300s, stderr %.300s; want %v %s", got.code, got.stdout, got.stderr, tt.codes, tt.kind)
			}
			if tt.survives {
				lumina(t, "exec", r.SID, "true").succeeded(t)
			}
		})
	}
	lumina(t, "exec", neighbour, "echo fine").succeeded(t)
}

var statusLine = regexp.MustCompile(`VmHWM:\s+(\d+) kB`)

// watch returns how many MB each process held at most.
func watch(over <-chan struct{}, pids ...int) []int {
	peaks := make([]int, len(pids))
	for {
		for i, pid := range pids {
			b, _ := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid)) // it may have ended
			if m := statusLine.FindSubmatch(b); m != nil {
				kilobytes, _ := strconv.Atoi(string(m[1]))
				peaks[i] = kilobytes >> 10
			}
		}
		select {
		case <-over:
			return peaks
		case <-time.After(100 * time.Millisecond):
		}
	}
}
