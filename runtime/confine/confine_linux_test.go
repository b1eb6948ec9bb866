package confine

import (
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

// sh runs a script in a process that is confined by p.
func sh(t *testing.T, p Policy, script string, files ...*os.File) string {
	t.Helper()
	p.Read = append(p.Read, "/usr", "/bin", "/lib", "/lib64", "/etc/ld.so.cache")
	p.Write = append(p.Write, "/dev/null")
	cmd := exec.Command("/bin/bash", "-c", script)
	cmd.ExtraFiles = files
	var out strings.Builder
	cmd.Stdout, cmd.Stderr = &out, &out
	ended := make(chan error, 1)
	if err := Start(p, cmd.Start, func() { ended <- cmd.Wait() }); err != nil {
		t.Fatal(err)
	}
	if err := <-ended; err != nil {
		t.Errorf("%s: %v", script, err)
	}
	return out.String()
}

func TestFileSystem(t *testing.T) {
	if Landlock() == 0 {
		t.Fatal("this kernel has no Landlock, and the tests need one that has")
	}
	secret := filepath.Join(t.TempDir(), "secret")
	if err := os.WriteFile(secret, []byte("secret"), 0o644); err != nil {
		t.Fatal(err)
	}
	open, err := os.Open(secret)
	if err != nil {
		t.Fatal(err)
	}
	defer open.Close()
	shared := t.TempDir()
	try := func(p Policy, script string) string {
		t.Helper()
		return sh(t, p, "{ "+script+"; } 2>/dev/null || echo refused", open)
	}
	keep := Policy{KeepUser: true} // what is refused is refused by Landlock
	for _, tt := range []struct {
		name   string
		policy Policy
		script string
		want   string
	}{
		{"a file", keep, "cat " + secret, "refused\n"},
		{"a user's file", keep, "cat /etc/passwd", "refused\n"},
		{"a directory", keep, "ls /", "refused\n"},
		{"a new file", keep, "echo > " + secret + ".new", "refused\n"},
		{"a file that is open", keep, "cat /dev/fd/3", "refused\n"},
		{"a file that it may open again", Policy{KeepUser: true, Read: []string{Opened(open)}}, "cat /dev/fd/3", "secret"},
		{"but not write to", Policy{KeepUser: true, Read: []string{Opened(open)}}, "echo > /dev/fd/3", "refused\n"},
		{"a share", Policy{KeepUser: true, Write: []string{shared}}, "mkdir " + shared + "/a && echo b > " + shared + "/a/c && cat " + shared + "/a/c", "b\n"},
		{"a share to read", Policy{KeepUser: true, Read: []string{shared}}, "touch " + shared + "/d", "refused\n"},
		{"what is not there", Policy{Read: []string{"/no/such/path"}}, "echo fine", "fine\n"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			if got := try(tt.policy, tt.script); got != tt.want {
				t.Errorf("%s: %q, want %q", tt.script, got, tt.want)
			}
		})
	}
	if _, err := os.ReadFile("/etc/passwd"); err != nil {
		t.Errorf("this process is confined, too: %v", err)
	}
}

func TestNetwork(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	_, port, _ := net.SplitHostPort(l.Addr().String())
	for _, tt := range []struct {
		network bool
		want    string
	}{{true, "connected\n"}, {false, "refused\n"}} {
		got := sh(t, Policy{Network: tt.network}, "{ : < /dev/tcp/127.0.0.1/"+port+"; } 2>/dev/null && echo connected || echo refused")
		if got != tt.want {
			t.Errorf("network %v: %q, want %q", tt.network, got, tt.want)
		}
	}
}

// Root's process is nobody's, and has no capability in either case.
func TestPrivileges(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Log("not root: there is nothing to drop")
	}
	const script = "id -u; id -G; grep -E '^(Cap(Prm|Eff|Bnd|Amb)|NoNewPrivs)' /proc/self/status"
	none := "CapPrm:\t0000000000000000\nCapEff:\t0000000000000000\nCapBnd:\t0000000000000000\nCapAmb:\t0000000000000000\nNoNewPrivs:\t1\n"
	if os.Geteuid() == 0 {
		if got, want := sh(t, Policy{Read: []string{"/proc"}, Groups: []int{4242}}, script), "1819635049\n1819635049 4242\n"+none; got != want {
			t.Errorf("with a user of its own:\n%swant\n%s", got, want)
		}
		if got, want := sh(t, Policy{Read: []string{"/proc"}, KeepUser: true}, script), "0\n0\n"+none; got != want {
			t.Errorf("with its user:\n%swant\n%s", got, want)
		}
	}
	if got := sh(t, Policy{Read: []string{"/proc"}}, "grep NoNewPrivs /proc/self/status"); got != "NoNewPrivs:\t1\n" {
		t.Errorf("privileges: %q", got)
	}
}
