package confine

import (
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"
)

// sh runs a script in a process that is confined by p.
func sh(t *testing.T, p Policy, script string, files ...*os.File) string {
	t.Helper()
	p.Read = append(p.Read, "/usr", "/bin", "/lib", "/lib64", "/etc/ld.so.cache")
	p.Write = append(p.Write, "/dev/null")
	var cmd *exec.Cmd
	var out strings.Builder
	ended := make(chan error, 1)
	if err := Start(p, func(clone uintptr) error {
		cmd = exec.Command("/bin/bash", "-c", script)
		cmd.ExtraFiles = files
		cmd.Stdout, cmd.Stderr = &out, &out
		cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL, Cloneflags: clone}
		return cmd.Start()
	}, func() { ended <- cmd.Wait() }); err != nil {
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
	keep := Policy{} // its user stays: what is refused is refused by Landlock
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
		{"a file that it may open again", Policy{Read: []string{Opened(open)}}, "cat /dev/fd/3", "secret"},
		{"but not write to", Policy{Read: []string{Opened(open)}}, "echo > /dev/fd/3", "refused\n"},
		{"a share", Policy{Write: []string{shared}}, "mkdir " + shared + "/a && echo b > " + shared + "/a/c && cat " + shared + "/a/c", "b\n"},
		{"a share to read", Policy{Read: []string{shared}}, "touch " + shared + "/d", "refused\n"},
		{"what is not there", Policy{User: OwnUser, Read: []string{"/no/such/path"}}, "echo fine", "fine\n"},
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

// Root's process is nobody's, another one for each at a time, and has no capability
// in either case.
func TestPrivileges(t *testing.T) {
	if got := sh(t, Policy{Read: []string{"/proc"}}, "grep NoNewPrivs /proc/self/status"); got != "NoNewPrivs:\t1\n" {
		t.Errorf("privileges: %q", got)
	}
	if os.Geteuid() != 0 {
		t.Log("not root: there is nothing to drop")
		return
	}
	const script = "id -u; id -G; grep -E '^(Cap(Prm|Eff|Bnd|Amb)|NoNewPrivs)' /proc/self/status"
	none := "CapPrm:\t0000000000000000\nCapEff:\t0000000000000000\nCapBnd:\t0000000000000000\nCapAmb:\t0000000000000000\nNoNewPrivs:\t1\n"
	proc := []string{"/proc"}
	if got, want := sh(t, Policy{Read: proc, User: 1234, Groups: []int{4242}}, script), "1234\n1234 4242\n"+none; got != want {
		t.Errorf("with another user:\n%swant\n%s", got, want)
	}
	if got, want := sh(t, Policy{Read: proc}, script), "0\n0\n"+none; got != want {
		t.Errorf("with its user:\n%swant\n%s", got, want)
	}
	seen := map[string]bool{}
	own := Policy{Read: append(proc, "/usr", "/bin", "/lib", "/lib64", "/etc/ld.so.cache"), Write: []string{"/dev/null"}, User: OwnUser}
	for range 3 {
		cmd := exec.Command("/bin/sh", "-c", "id -u; read end")
		stdin, err := cmd.StdinPipe()
		if err != nil {
			t.Fatal(err)
		}
		stdout, err := cmd.StdoutPipe()
		if err != nil {
			t.Fatal(err)
		}
		ended := make(chan struct{})
		if err := Start(own, func(uintptr) error { return cmd.Start() }, func() { _ = cmd.Wait(); close(ended) }); err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { stdin.Close(); <-ended })
		var user string
		if _, err := fmt.Fscan(stdout, &user); err != nil {
			t.Fatal(err)
		}
		if n, err := strconv.Atoi(user); err != nil || n < FirstUser || n >= FirstUser+Users || seen[user] {
			t.Errorf("user %q, after %v", user, seen)
		}
		seen[user] = true
	}
}

// groupFile names a file that a user may open by a group of its, as /dev/kvm.
const groupFile = "LUMINA_TEST_GROUP_FILE"

// What is tested as root holds for an ordinary user, too.
func TestAsAUser(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Log("the other tests are run by a user")
		return
	}
	cmd := exec.Command("/proc/self/exe", "-test.v", "-test.run", "^(TestFileSystem|TestNetwork|TestPrivileges|TestNamespaces|TestWithoutNamespaces|TestSystemCalls)$")
	dir := t.TempDir()
	file := filepath.Join(dir, "device")
	if err := errors.Join(os.WriteFile(file, []byte("open"), 0), os.Chown(file, 0, 4242), os.Chmod(file, 0o060), os.Chmod(dir, 0o755), os.Chmod(filepath.Dir(dir), 0o755)); err != nil {
		t.Fatal(err)
	}
	cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: 65533, Gid: 65533, Groups: []uint32{4242}}}
	cmd.Dir, cmd.Env = "/", []string{"PATH=" + os.Getenv("PATH"), "TMPDIR=/tmp", groupFile + "=" + file}
	out, err := cmd.CombinedOutput()
	if err != nil || strings.Count(string(out), "--- PASS: Test") < 6 {
		t.Errorf("as a user: %v\n%s", err, out)
	}
	if !strings.Contains(string(out), "--- PASS: TestNamespaces/of_a_user") {
		t.Logf("this host lets its users make no namespaces:\n%s", out)
	}
}

// A process sees no network of the host's, no process but itself, and no socket that
// has a name in that network only: those a host's desktop and containers listen at. It
// is nobody, and opens what the groups of its user may.
func TestNamespaces(t *testing.T) {
	if !Namespaces() {
		t.Log("there are none to be had: see lumina doctor")
		return
	}
	l, err := net.Listen("unix", fmt.Sprintf("@lumina-test-%d", os.Getpid()))
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	for _, tt := range []struct {
		policy Policy
		own    string // of the kinds of namespaces
	}{{Policy{}, "mnt ipc uts pid net"}, {Policy{Network: true}, "mnt ipc uts pid"}, {Policy{KeepPrivileges: true}, ""}} {
		tt.policy.Read = []string{"/proc"}
		got := sh(t, tt.policy, `for n in mnt ipc uts pid net; do readlink /proc/self/ns/$n; done`)
		var own []string
		for i, theirs := range strings.Fields(got) {
			kind := strings.Fields("mnt ipc uts pid net")[i]
			if ours, err := os.Readlink("/proc/self/ns/" + kind); err != nil || ours != theirs {
				own = append(own, kind)
			}
		}
		if strings.Join(own, " ") != tt.own {
			t.Errorf("%+v: its own are %v, want %s", tt.policy, own, tt.own)
		}
	}
	connect := perl(fmt.Sprintf(`use Socket; socket(my $s, AF_UNIX, SOCK_STREAM, 0) or die; print connect($s, pack("Sa*", AF_UNIX, "\0lumina-test-%d")) ? "connected" : "refused"`, os.Getpid()))
	if got := sh(t, Policy{}, connect); got != "refused" {
		t.Errorf("an abstract socket of the host's: %s", got)
	}
	if got := sh(t, Policy{}, "echo $$"); got != "1\n" {
		t.Errorf("it is process %s", got)
	}
	if os.Geteuid() == 0 {
		return
	}
	t.Run("of a user", func(t *testing.T) {
		proc := Policy{Read: []string{"/proc"}}
		if got, want := sh(t, proc, "id -u; cat /proc/self/uid_map /proc/self/gid_map; grep -E '^Cap(Inh|Prm|Eff)' /proc/self/status"),
			"65534\nCapInh:\t0000000000000000\nCapPrm:\t0000000000000000\nCapEff:\t0000000000000000\n"; got != want {
			t.Errorf("it is\n%s, want\n%s", got, want)
		}
		// The very flags that it was made with, and those with which it would be somebody.
		flags := unix.CLONE_NEWUSER | new(Policy).namespaces()
		if got := sh(t, Policy{}, perl(fmt.Sprintf(`print join " ", map { syscall(56, $_ | 17, 0, 0, 0, 0) } %d, 0x10000000, 0x20000000, 0x40000000`, flags))); runtime.GOARCH == "amd64" && got != "-1 -1 -1 -1" {
			t.Errorf("namespaces of its own making: %s", got)
		}
		if file := os.Getenv(groupFile); file != "" {
			if got := sh(t, Policy{Write: []string{file}}, "cat "+file); got != "open" {
				t.Errorf("a file of its group's: %s", got)
			}
		}
	})
}

// Where a user may make no namespaces, its process has none, and none of the rights
// that making them takes.
func TestWithoutNamespaces(t *testing.T) {
	if os.Geteuid() == 0 {
		return
	}
	var tried []uintptr
	if err := Start(Policy{}, func(clone uintptr) error {
		tried = append(tried, clone)
		if clone != 0 {
			return &os.PathError{Op: "fork/exec", Path: "qemu", Err: unix.ENOSPC}
		}
		if _, _, errno := unix.RawSyscall(unix.SYS_KILL, 1, 0, 0); errno != unix.EPERM {
			return errno
		}
		return nil
	}, func() {}); err != nil || len(tried) != 2 || tried[0] == 0 {
		t.Errorf("started with %x: %v", tried, err)
	}
	none := errors.New("another")
	if err := Start(Policy{}, func(uintptr) error { return none }, func() {}); !errors.Is(err, none) {
		t.Errorf("Start() = %v", err)
	}
}

// What a process may open it may not make dangerous for whoever runs it, nor may
// it ask the kernel for what only administrators and debuggers need.
func TestSystemCalls(t *testing.T) {
	shared := t.TempDir()
	in := func(script string) string {
		t.Helper()
		return sh(t, Policy{Write: []string{shared}, Read: []string{"/proc"}}, "cd "+shared+" && { "+script+"; } 2>&1 || true")
	}
	for _, tt := range []struct{ name, script, want string }{
		{"an ordinary mode", "touch a && chmod 751 a && stat -c %a a", "751\n"},
		{"the sticky bit", "mkdir d && chmod 1777 d && stat -c %a d", "1777\n"},
		{"a FIFO", "mkfifo f && stat -c %F f", "fifo\n"},
		{"setuid", "touch b; chmod 4755 b 2>/dev/null || stat -c %a b", "644\n"},
		{"setgid", "touch c; chmod g+s c 2>/dev/null || stat -c %a c", "644\n"},
		// chmod(2), fchmod(2), fchmodat(2), creat(2), open(2), openat(2), mknod(2), mkdir(2)
		{"setuid by each call", "touch e; exec 3<e; " + perl(`umask 0; print join " ", map { syscall(@$_) } [90, "e", 04755], [91, 3, 02755], [268, -100, "e", 06755], [85, "g", 04755], [2, "g", 65, 04755], [257, -100, "g", 65, 04755], [133, "g", 0104755, 0], [83, "h", 04755]`), "-1 -1 -1 -1 -1 -1 -1 -1"},
		{"and nothing is there", "stat -c %a e; ls g h 2>/dev/null", "644\n"},
		{"a device", perl(`my $n = "i"; print syscall(133, $n, 0020666, 0x103), " ", $!{EPERM} ? "refused" : $!`), "-1 refused"},
		{"a debugger", perl(`print syscall(101, 0, 0, 0, 0), " ", $!{EPERM} ? "refused" : $!`), "-1 refused"},
		{"a namespace", perl(`print syscall(272, 0x10000000), " ", $!{EPERM} ? "refused" : $!; print syscall(56, 0x10000011, 0, 0, 0, 0)`), "-1 refused-1"},
		{"what is checked by no rule", perl(`for my $n (425, 435, 437, 0x40000027) { my $r = syscall($n, 0, 0, 0, 0); print $r, $!{ENOSYS} ? " absent " : " $! " }`), "-1 absent -1 absent -1 absent -1 absent "},
		{"other processes", "kill -0 2 2>/dev/null || echo refused; " + perl(`print join " ", map { syscall(@$_, 0, 0, 0) } [64, 7], [29, 7], [68, 7], [62, $$], [200, $$]`), "refused\n-1 -1 -1 -1 -1"},
		{"networks", perl(`print join " ", map { syscall(41, $_, 2, 0) } 2, 10, 16, 17, 40`), "-1 -1 -1 -1 -1"},
		{"a local socket", perl(`print syscall(41, 1, 1, 0) > 0 ? "made" : $!`), "made"},
	} {
		if runtime.GOARCH != "amd64" && strings.Contains(tt.script, "syscall") {
			continue // its numbers
		}
		if got := in(tt.script); got != tt.want {
			t.Errorf("%s: %q, want %q", tt.name, got, tt.want)
		}
	}
}

func perl(script string) string { return "perl -e '" + script + "'" }
