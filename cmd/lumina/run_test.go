package main

import (
	"bytes"
	"crypto/sha256"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/abdul-abdi/lumina/builder/buildertest"
)

func TestRunTellsOfARealDebian(t *testing.T) {
	r := run(t, "cat /etc/os-release; id; df -h /; nproc; uname -a; echo $LUMINA_TEST").succeeded(t)
	for _, want := range []string{`PRETTY_NAME="Debian GNU/Linux 12 (bookworm)"`, "uid=0(root) gid=0(root)", " /\n2\n", "-lumina", "x86_64", "\nimage\n"} {
		if !strings.Contains(r.Stdout, want) {
			t.Errorf("stdout does not have %q:\n%s", want, r.Stdout)
		}
	}
	nothingLeft(t)
}

// One VM a row: these are about the whole of a run.
func TestRun(t *testing.T) {
	needsProgram(t)
	tests := []struct {
		name   string
		args   []string
		stdin  string
		code   int
		stdout string // a regular expression
		stderr string
	}{
		{"exit code", []string{"echo out; echo err >&2; exit 42"}, "", 42, "^out\n$", "^err\n$"},
		{"program without a shell", []string{"--", "printf", "%s|", "a b", "$HOME"}, "", 0, `^a b\|\$HOME\|$`, "^$"},
		{"killed by a signal", []string{"kill -9 $$"}, "", 137, "^$", "^$"},
		{"environment, directory, user", []string{"-e", "A=1 2", "-e", "LUMINA_TEST=mine", "--workdir", "/usr", "--user", "daemon", "echo $A $LUMINA_TEST $PWD $(id -un) $HOME"}, "", 0, "^1 2 mine /usr daemon /usr/sbin\n$", "^$"},
		{"numeric user", []string{"--user", "1234:5678", "id -u; id -g"}, "", 0, "^1234\n5678\n$", "^$"},
		{"standard input", []string{"wc -c; echo $?"}, strings.Repeat("x", 300000), 0, "^300000\n0\n$", "^$"},
		{"memory and cpus", []string{"--memory", "768MB", "--cpus", "1", "nproc; grep MemTotal /proc/meminfo"}, "", 0, `^1\nMemTotal: +7\d{5} kB\n$`, "^$"},
		{"disk size", []string{"--disk-size", "3GB", "df -BM --output=size / | tail -1"}, "", 0, `^ +(29|30)\d\dM\n$`, "^$"},
		{"more on disk than memory", []string{"--memory", "512MB", "--disk-size", "4GB", "head -c 1073741824 /dev/zero | tr '\\0' x > /big && sync && sha256sum < /big"}, "", 0,
			fmt.Sprintf("^%x", sumOf('x', 1<<30)), "^$"},
		{"init is beyond reach", []string{"for s in KILL TERM HUP INT QUIT SEGV ABRT USR1 STOP; do kill -$s 1; done; sleep 0.1; echo alive"}, "", 0, "^alive\n$", "^$"},
		{"orphans are reaped", []string{"for i in 1 2 3 4 5; do (sh -c 'sleep 0.05 &'); done; sleep 0.5; ps -eo stat 2>/dev/null | grep -c Z; grep -l 'State:.Z' /proc/[0-9]*/status"}, "", 1, "^0?\n?$", ""},
		{"no network", []string{"--network", "none", "ls /sys/class/net | grep -e eth -e enp; wc -l < /proc/net/route; cat /etc/resolv.conf"}, "", 0, "^1\n$", "^$"},
		{"network is up at once", []string{"cat /proc/net/route | awk '$2==\"00000000\"{print $1}'; cat /etc/resolv.conf"}, "", 0, "^eth0\nnameserver ", "^$"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			cmd := command(append([]string{"run", "--image", "debian"}, tt.args...)...)
			if tt.stdin != "" {
				cmd.Stdin = strings.NewReader(tt.stdin)
			}
			r := finish(t, cmd)
			if r.code != tt.code || r.ExitCode == nil || *r.ExitCode != tt.code {
				t.Errorf("exit code %d, %s, want %d", r.code, r.stdout, tt.code)
			}
			if !regexp.MustCompile(tt.stdout).MatchString(r.Stdout) {
				t.Errorf("stdout = %q, want %s", r.Stdout, tt.stdout)
			}
			if !regexp.MustCompile(tt.stderr).MatchString(r.Stderr) {
				t.Errorf("stderr = %q, want %s", r.Stderr, tt.stderr)
			}
		})
	}
	nothingLeft(t)
}

func sumOf(b byte, n int) []byte {
	h := sha256.New()
	block := bytes.Repeat([]byte{b}, 1<<20)
	for ; n > 0; n -= len(block) {
		h.Write(block)
	}
	return h.Sum(nil)
}

func TestOutputIsByteExact(t *testing.T) {
	r := run(t, `head -c 104857600 /dev/zero | tr '\0' a`).succeeded(t)
	if sum := sha256.Sum256([]byte(r.Stdout)); !bytes.Equal(sum[:], sumOf('a', 100<<20)) {
		t.Errorf("100 MiB came out as %d other bytes", len(r.Stdout))
	}
	r = run(t, `printf '\000\377\376ok\200'`).succeeded(t)
	if string(r.StdoutBytes) != "\x00\xff\xfeok\x80" || !strings.Contains(r.Stdout, "ok") {
		t.Errorf("binary output = %q, %q", r.StdoutBytes, r.Stdout)
	}
}

// reboot calls reboot(2) with a command, as poweroff -f and halt -f do.
func reboot(command string) string {
	return "perl -e 'syscall(169, 0xfee1dead, 672274793, " + command + ", 0)'"
}

// Every error of the contract: exit code, kind, partial output, and no trace.
func TestRunErrors(t *testing.T) {
	needsProgram(t)
	tests := []struct {
		name    string
		args    []string
		code    int
		kind    string
		message string
		partial string // in partial_stdout; "-" when there must be none
	}{
		{"timeout", []string{"--timeout", "2s", "echo part; echo err >&2; sleep 60"}, 124, "timeout", "longer than 2s", "part\n"},
		{"crash of the guest's kernel", []string{"echo part; sleep 0.1; echo c > /proc/sysrq-trigger; sleep 60"}, 125, "vm_crashed", "sysrq triggered crash", "part\n"},
		{"guest that restarts", []string{"echo part; sleep 0.1; echo b > /proc/sysrq-trigger; sleep 60"}, 125, "vm_crashed", "its guest restarted the machine", "part\n"},
		{"guest that powers off", []string{"echo part; sleep 0.1; " + reboot("0x4321fedc") + "; sleep 60"}, 125, "vm_crashed", "reboot: Power off not available", "part\n"},
		{"guest that halts", []string{"echo part; sleep 0.1; dmesg -n 1; " + reboot("0xcdef0123") + "; sleep 60"}, 125, "vm_crashed", "reboot: System halted", "part\n"},
		{"guest whose kernel panics and stays", []string{"echo part; sleep 0.1; echo 0 > /proc/sys/kernel/panic; echo c > /proc/sysrq-trigger; sleep 60"}, 125, "vm_crashed", "sysrq triggered crash", "part\n"},
		{"image that is not there", []string{"--image", "nope", "true"}, 125, "connection_failed", `image "nope": no such image (lumina images list), and it cannot be fetched`, "-"},
		{"program that is not there", []string{"--", "no-such-program"}, 125, "connection_failed", "no-such-program", "-"},
		{"directory that is none", []string{"--workdir", "/etc/passwd", "true"}, 125, "connection_failed", "/etc/passwd", "-"},
		{"user that is not there", []string{"--user", "nobody-such", "true"}, 125, "connection_failed", "nobody-such", "-"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			start := time.Now()
			r := run(t, tt.args...)
			if r.code != tt.code || r.Error != tt.kind || !strings.Contains(r.Message, tt.message) || r.ExitCode != nil {
				t.Errorf("exit code %d, %s; want %d, %s with %q", r.code, r.stdout, tt.code, tt.kind, tt.message)
			}
			switch {
			case tt.partial == "-" && (r.PartialStdout != nil || r.PartialStderr != nil):
				t.Errorf("partial output of a command that never ran: %s", r.stdout)
			case tt.partial != "-" && (r.PartialStdout == nil || *r.PartialStdout != tt.partial || r.PartialStderr == nil):
				t.Errorf("partials %s, want %q", r.stdout, tt.partial)
			}
			t.Logf("%v", time.Since(start))
		})
	}
	nothingLeft(t)
}

// Guests do not virtualize in their turn, unless it is asked for.
func TestNested(t *testing.T) {
	const script = "grep -c -w -E 'svm|vmx' /proc/cpuinfo"
	if r := run(t, "--cpus", "1", script); r.Stdout != "0\n" {
		t.Errorf("it virtualizes: %s", r.stdout)
	}
	if r := run(t, "--cpus", "1", "--nested", script); r.Stdout != "1\n" {
		t.Errorf("--nested: %s", r.stdout)
	}
}

// Each is told in one line, before a VM boots, and nothing is left.
func TestBadUsage(t *testing.T) {
	dir := t.TempDir()
	write(t, filepath.Join(dir, "env"), "A=1\nB C=2\n")
	write(t, filepath.Join(dir, "file"), "")
	digest := "@sha256:12"
	for _, tt := range []struct {
		want string
		args []string
	}{
		{"quote it", []string{"run", "a", "b"}}, {"--no-such-flag", []string{"run", "--no-such-flag", "true"}},
		{"the command is empty", []string{"run", ""}}, {"the command is empty", []string{"run", " \t"}}, {"the command is empty", []string{"run", "--", ""}},
		{"the command is empty", []string{"pool", "run", ""}}, {"the command is empty", []string{"exec", "x", ""}},
		{"neither NAME=VALUE nor NAME", []string{"run", "-e", "", "true"}}, {"neither NAME=VALUE nor NAME", []string{"run", "-e", "=x", "true"}},
		{"neither NAME=VALUE nor NAME", []string{"exec", "-e", "=x", "x", "true"}},
		{"no such file", []string{"run", "--env-file", dir + "/none", "true"}}, {`env:2: "B C" is not a variable's name`, []string{"run", "--env-file", dir + "/env", "true"}},
		{"want an absolute path", []string{"run", "-w", "src", "true"}}, {"want an absolute path", []string{"exec", "-w", "", "x", "true"}},
		{"a number is from 0 to 2147483647", []string{"run", "--user", "4294967294:1", "true"}},
		{"a number is from 0 to 2147483647", []string{"run", "--user", "1:-1", "true"}},
		{"want NAME or UID", []string{"run", "--user", "", "true"}},
		{"not a time", []string{"run", "--timeout", "soon", "true"}}, {"is negative", []string{"run", "--timeout", "-1s", "true"}}, {"not a time", []string{"run", "--timeout", "", "true"}},
		{"292 years", []string{"run", "--timeout", "99999999999999999999", "true"}}, {"not a time", []string{"run", "--timeout", "NaN", "true"}},
		{"is negative", []string{"session", "start", "--ttl", "-1h"}}, {"not a time", []string{"images", "create", "x", "--from", "y", "--timeout", "1d"}},
		{"not a time", []string{"clean", "--cache-age", "old"}}, {"not a time", []string{"desktop", "boot", "x", "--timeout", "x"}}, {"not a time", []string{"network", "run", "x", "--timeout", "x"}},
		{"not a size", []string{"run", "--memory", "much", "true"}}, {"not a size", []string{"run", "-m", "1gg", "true"}}, {"not a size", []string{"run", "-m", "0", "true"}}, {"not a size", []string{"run", "-m", "-1g", "true"}},
		{"at least 64 MB", []string{"run", "--memory", "63MB", "true"}}, {"this host has", []string{"run", "--memory", "1000TB", "true"}}, {"16 MB", []string{"run", "--disk-size", "1MB", "true"}},
		{"want nat", []string{"run", "--network", "host", "true"}}, {"it is empty", []string{"run", "--network", "allow=", "true"}},
		{"--copy", []string{"run", "--copy", "x", "true"}}, {"no such file", []string{"run", "--copy", "/no/such:/x", "true"}}, {"--download", []string{"run", "--download", "/x:", "true"}},
		{"want 1 to", []string{"run", "--cpus", "-1", "true"}}, {"want 1 to", []string{"run", "--cpus", "0", "true"}}, {"want 1 to", []string{"run", "--cpus", "1.5", "true"}},
		{"is not NAME:PATH", []string{"run", "-v", "x", "true"}}, {"is not NAME:PATH", []string{"run", "-v", "x:y", "true"}}, {"volume name", []string{"run", "-v", "X!:/y", "true"}},
		{"no such file", []string{"run", "-v", dir + "/none:/y", "true"}}, {"not a directory", []string{"run", "-v", dir + "/file:/y", "true"}}, {"needs its own /", []string{"run", "-v", dir + ":/", "true"}}, {"needs its own /proc", []string{"run", "-v", "x:/sys/../proc/", "true"}},
		{"another one", []string{"run", "-v", dir + ":/y", "-v", dir + ":/y/", "true"}},
		{"nothing to change", []string{"desktop", "set", "x"}}, {"want 1 to", []string{"desktop", "set", "x", "--cpus", "0"}}, {"at least 64 MB", []string{"desktop", "set", "x", "--memory", "1MB"}},
		{"want nat", []string{"desktop", "set", "x", "--network", "bridge"}}, {"without slashes", []string{"desktop", "rename", "x", "a/b"}}, {"without slashes", []string{"desktop", "clone", "x", " b"}},
		{"at most two ISOs", []string{"desktop", "create", "x", "--iso", "a", "--iso", "b", "--iso", "c"}}, {"no such file", []string{"desktop", "create", "x", "--iso", dir + "/none"}},
		{"not an ISO", []string{"desktop", "create", "x", "--disk", dir + "/file", "--drivers", dir + "/file"}}, {"16 MB", []string{"desktop", "create", "x", "--disk", dir + "/file", "--disk-size", "1KB"}}, {"no such file", []string{"desktop", "boot", "x", "--iso", dir + "/none"}},
		{`keyboard types "é"`, []string{"desktop", "type", "x", "é"}}, {"the command is empty", []string{"desktop", "exec", "x", ""}}, {"no desktop given", []string{"desktop", "exec"}},
		{"--now and --undo", []string{"desktop", "rm", "x", "--now", "--undo"}},
		{"init", []string{"run", "--init", "upstart", "true"}}, {"want missing, always or never", []string{"run", "--pull", "sometimes", "true"}},
		{"run never keeps its VM", []string{"run", "--rm=false", "true"}}, {"--name", []string{"run", "--name", "a/b", "true"}},
		{"leaves no command", []string{"run", "--image", "debian", "--entrypoint", ""}}, {"needs a terminal", []string{"run", "-it", "--image", "debian", "true"}}, {"needs a terminal", []string{"exec", "-t", "x", "true"}},
		{"session start", []string{"run", "-d", "true"}}, {"--run starts", []string{"session", "start", "-e", "A=1"}},
		{"write --image debian:12", []string{"run", "debian:12", "echo", "hi"}}, {"after --", []string{"run", "ls", "-la"}}, {"after --", []string{"exec", "x", "ls", "--color"}}, {"unknown shorthand flag: 'z' in -z; see", []string{"exec", "-z", "x", "ls"}},
		{"forward", []string{"run", "-p", "0:80", "true"}}, {"forward", []string{"run", "-p", "80:x", "true"}}, {"forwarded twice", []string{"run", "-p", "80:80", "--publish", "80:81", "true"}},
		{"at least 1", []string{"bench", "run", "--count", "0"}}, {"at least 1", []string{"bench", "create", "--from", "x", "--count", "-1"}}, {"at least 1", []string{"bench", "session", "--count", "x"}}, {"not a time", []string{"bench", "session", "--for", "x"}},
		{"init", []string{"images", "export", "debian", "-o", dir + "/x.raw", "--init", "foo"}}, {"a writable partition of 1 MB: want 16 MB", []string{"images", "export", "debian", "-o", dir + "/x.raw", "--disk-size", "1MB"}}, {"a writable partition of 1 bytes", []string{"images", "export", "debian", "-o", dir + "/x.raw", "--disk-size", "1"}},
		{"volume name", []string{"volume", "create", "X!"}}, {"16 MB", []string{"volume", "create", "x", "--size", "1k"}}, {"no such file", []string{"network", "run", dir + "/none"}},
		{"no such file", []string{"images", "create", "x", "--recipe", dir + "/none"}}, {"no such file", []string{"images", "create", "x", "--from", "debian", "--kernel", dir + "/none"}},
		{`unexpected argument "x"`, []string{"session", "list", "x"}}, {`unexpected argument "x"`, []string{"images", "ls", "x"}},
		{"at least 1", []string{"pool", "run", "--size", "0", "true"}},
		// References, wherever one is taken.
		{"oci:./img", []string{"run", "--image", "./img", "true"}}, {"oci:./img", []string{"pool", "run", "--image", "./img", "true"}}, {"oci:./img", []string{"session", "start", "--image", "./img"}},
		{"oci:./img", []string{"images", "create", "x", "--from", "./img"}}, {"oci:./img", []string{"images", "pull", "./img"}}, {"it is a path", []string{"images", "push", "debian", "./img"}},
		{"docker-archive:x.tar", []string{"run", "--image", "x.tar", "true"}}, {"docker-archive:", []string{"run", "--image", "file:///x.tar", "true"}}, {"without https://", []string{"run", "--image", "https://example.test/x", "true"}},
		{"dir: cannot be read", []string{"run", "--image", "dir:/x", "true"}}, {"Windows", []string{"run", "--image", `C:\x`, "true"}}, {"it is empty", []string{"run", "--image", "", "true"}},
		{"lower-case", []string{"run", "--image", "Debian", "true"}}, {"is not a digest", []string{"run", "--image", "debian" + digest, "true"}}, {"sent to a registry", []string{"images", "push", "debian", "oci:x"}},
		// Keys: before anything is sent, fetched or started.
		{"--sign: private key", []string{"images", "push", "debian", "localhost:1/x:1", "--sign", dir + "/none"}}, {"no PRIVATE KEY in PEM", []string{"images", "push", "debian", "localhost:1/x:1", "--sign", "/dev/null"}},
		{"no such file", []string{"images", "pull", "localhost:1/x:1", "--verify-key", dir + "/none"}}, {"no PUBLIC KEY in PEM", []string{"run", "--image", "localhost:1/x:1", "--verify-key", "/dev/null", "true"}},
		{"no such file", []string{"session", "start", "--verify-key", dir + "/none"}}, {"with --public-key", []string{"images", "pull", "python", "--verify-key", dir + "/none"}},
		{"want more than 0", []string{"run", "--boot-timeout", "0", "true"}}, {"not a time", []string{"session", "start", "--boot-timeout", "soon"}},
		{"--max-size", []string{"run", "--max-size", "x", "true"}}, {"--max-size", []string{"session", "start", "--max-size", "0"}},
		// Verbs.
		{"arg", []string{"images", "create"}}, {"is missing", []string{"images", "create", "x"}}, {"linux/amd64", []string{"images", "create", "x", "--from", "y", "--platform", "linux/mips"}},
		{"image name", []string{"images", "create", "X!", "--from", "debian"}}, {"image name", []string{"images", "pull", "debian:12", "X!"}}, {"the command is empty", []string{"images", "create", "x", "--from", "debian", "--run", " "}},
		{`unknown command "no-such-command"`, []string{"no-such-command"}}, {"did you mean rm?", []string{"images", "rmm", "x", "--force"}}, {"did you mean list", []string{"volume", "lst"}},
		{`unknown command "x" for "lumina session"`, []string{"session", "x"}}, {"unknown command", []string{"desktop", "x"}}, {"unknown command", []string{"network", "x"}}, {"unknown command", []string{"pool", "x"}}, {"unknown command", []string{"recipe", "x"}},
		{"unknown command", []string{"release", "x"}}, {"unknown command", []string{"bench", "x"}}, {"unknown command", []string{"completion", "tcsh"}}, {"unknown command", []string{"help", "x"}}, {"unknown command", []string{"help", "images", "x"}},
		{"arg", []string{"volume", "rm"}}, {"no session given", []string{"exec"}}, {"no command given", []string{"exec", "x"}}, {"SID:PATH", []string{"cp", "a", "b"}},
		{"no such file", []string{"cp", dir + "/none", "x:/"}}, {"not a directory", []string{"cp", dir + "/file/", "x:/"}}, {"not a directory", []string{"cp", "x:/a", dir + "/file/"}}, {"/proc/none", []string{"cp", "-rL", "/proc/none", "x:/"}},
		{"no such file", []string{"images", "create", "x", "--from", "oci:" + dir + "/none:tag"}}, {"no such file", []string{"images", "create", "x", "--from", "docker-archive:" + dir + "/none.tar"}},
		// As "$SID" is when session start has failed.
		{"the session's identifier is empty", []string{"exec", "", "true"}}, {"the session's identifier is empty", []string{"session", "stop", ""}}, {"the session's identifier is empty", []string{"ps", " "}}, {"SID:PATH", []string{"cp", dir + "/file", ":/x"}},
		{"--filter and --quiet", []string{"ps", "-q", "x"}}, {"is not a signal", []string{"kill", "-s", "x", "y", "z"}},
	} {
		r := lumina(t, tt.args...)
		if r.code != 2 || strings.Count(r.stderr, "\n") != 1 || !strings.HasPrefix(r.stderr, "lumina: ") || !strings.Contains(r.stderr, tt.want) || r.stdout != "" {
			t.Errorf("lumina %q: exit code %d, stdout %q, stderr %q, want 2 and one line with %q", tt.args, r.code, r.stdout, r.stderr, tt.want)
		}
	}
	for _, name := range []string{"LUMINA_TIMEOUT", "LUMINA_BOOT_TIMEOUT", "LUMINA_MEMORY", "LUMINA_CPUS", "LUMINA_DISK_SIZE", "LUMINA_NETWORK", "LUMINA_FORMAT", "LUMINA_OUTPUT"} {
		r := finish(t, with(command("run", "--image", "debian", "true"), name+"=-x"))
		if r.code != 2 || strings.Count(r.stderr, "\n") != 1 || !strings.Contains(r.stderr, "-x") {
			t.Errorf("%s=-x: exit code %d, %q", name, r.code, r.stderr)
		}
	}
	nothingLeft(t)
}

func TestCopyInAndDownload(t *testing.T) {
	dir := t.TempDir()
	if err := os.MkdirAll(filepath.Join(dir, "in/sub"), 0o755); err != nil {
		t.Fatal(err)
	}
	for name, content := range map[string]string{"in/a b\nc": "one", "in/sub/run.sh": "#!/bin/sh\necho from the script\n"} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(content), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	r := run(t, "--copy", dir+"/in:/work/in", "--download", "/work:"+dir+"/out", "/work/in/sub/run.sh > /work/result; exit 7")
	if r.code != 7 {
		t.Fatalf("exit code %d: %s %s", r.code, r.stdout, r.stderr)
	}
	for name, want := range map[string]string{"out/result": "from the script\n", "out/in/a b\nc": "one"} {
		if got, err := os.ReadFile(filepath.Join(dir, name)); err != nil || string(got) != want {
			t.Errorf("%q = %q, %v, want %q", name, got, err, want)
		}
	}
}

func TestNDJSON(t *testing.T) {
	cmd := command("run", "--image", "debian", "printf 'a\\303'; sleep 0.3; printf '\\274\\n'; echo err >&2; exit 3")
	cmd.Env = append(cmd.Env, "LUMINA_OUTPUT=ndjson")
	r := finish(t, cmd)
	streams := map[string]string{}
	var last map[string]any
	for _, line := range strings.Split(strings.TrimSpace(r.stdout), "\n") {
		last = nil
		if err := json.Unmarshal([]byte(line), &last); err != nil {
			t.Fatalf("line %q: %v", line, err)
		}
		if s, ok := last["stream"].(string); ok {
			streams[s] += last["data"].(string)
		}
	}
	if streams["stdout"] != "aü\n" || streams["stderr"] != "err\n" || last["exit_code"] != 3.0 || r.code != 3 {
		t.Errorf("streams %q, last %v, exit code %d", streams, last, r.code)
	}
}

func TestSignalsLeaveNothing(t *testing.T) {
	for _, tt := range []struct {
		signal syscall.Signal
		code   int
	}{{syscall.SIGINT, 130}, {syscall.SIGTERM, 143}, {syscall.SIGKILL, -9}} {
		t.Run(tt.signal.String(), func(t *testing.T) {
			cmd := command("run", "--image", "debian", "echo running; sleep 60")
			cmd.Env = append(cmd.Env, "LUMINA_FORMAT=text")
			started(t, "running", cmd)
			if len(processes(t)) < 2 {
				t.Errorf("no VM among the processes: %q", processes(t))
			}
			if err := cmd.Process.Signal(tt.signal); err != nil {
				t.Fatal(err)
			}
			if code := waitCode(t, cmd); code != tt.code {
				t.Errorf("exit code %d, want %d", code, tt.code)
			}
			nothingLeft(t)
		})
	}
}

// An image with no shell: programs run, a string names the remedy.
func TestImageWithoutAShell(t *testing.T) {
	dir := t.TempDir()
	source := `package main
import ("fmt"; "os")
func main() { fmt.Println("hello from", os.Args[1], os.Getpid() > 1) }`
	if err := os.WriteFile(dir+"/main.go", []byte(source), 0o644); err != nil {
		t.Fatal(err)
	}
	build := exec.Command("go", "build", "-o", dir+"/root/hello", dir+"/main.go")
	build.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := build.CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	buildertest.Run(t, "umoci", "init", "--layout", dir+"/layout")
	buildertest.Run(t, "umoci", "new", "--image", dir+"/layout:latest")
	buildertest.Run(t, "umoci", "insert", "--image", dir+"/layout:latest", dir+"/root/hello", "/hello")
	lumina(t, "images", "create", "scratch", "--from", "oci:"+dir+"/layout").succeeded(t)
	t.Cleanup(func() { lumina(t, "images", "remove", "scratch").succeeded(t) })
	r := lumina(t, "run", "--image", "scratch", "--", "/hello", "scratch").succeeded(t)
	if r.Stdout != "hello from scratch true\n" {
		t.Errorf("stdout = %q", r.Stdout)
	}
	r = lumina(t, "run", "--image", "scratch", "/hello")
	if r.code != 125 || !strings.Contains(r.Message, "-- PROG") {
		t.Errorf("a string without a shell: exit code %d, %s", r.code, r.stdout)
	}
}

func TestKernelThatIsNone(t *testing.T) {
	empty := filepath.Join(t.TempDir(), "kernel")
	if err := os.WriteFile(empty, nil, 0o644); err != nil {
		t.Fatal(err)
	}
	r := lumina(t, "images", "create", "broken", "--from", "debian", "--kernel", empty)
	if r.code != 125 || !strings.Contains(r.stderr, "is empty") {
		t.Errorf("exit code %d, stderr %q", r.code, r.stderr)
	}
	// One that looks like a kernel and is none: the trial boot finds out.
	fake := bytes.Repeat([]byte{0}, 1<<20)
	copy(fake, "\x7fELF\x02\x01\x01")
	fake[18] = 62
	if err := os.WriteFile(empty, fake, 0o644); err != nil {
		t.Fatal(err)
	}
	r = lumina(t, "images", "create", "broken", "--from", "debian", "--kernel", empty)
	if r.code != 125 || !strings.Contains(r.stderr, "does not boot") {
		t.Errorf("exit code %d, stderr %q", r.code, r.stderr)
	}
	if r := lumina(t, "images", "list"); strings.Contains(r.stdout, "broken") {
		t.Errorf("a broken image was installed: %s", r.stdout)
	}
	nothingLeft(t)
}

// The other architecture, for real: built here, booted under emulation.
func TestOtherArchitecture(t *testing.T) {
	layout := buildertest.DebianFor(t, "arm64")
	r := lumina(t, "images", "create", "debian-arm64", "--from", "oci:"+layout)
	if r.code != 125 || !strings.Contains(r.stderr, "--platform linux/arm64") {
		t.Errorf("an arm64 image for amd64: exit code %d, stderr %q", r.code, r.stderr)
	}
	lumina(t, "images", "create", "debian-arm64", "--from", "oci:"+layout, "--platform", "linux/arm64").succeeded(t)
	t.Cleanup(func() { lumina(t, "images", "remove", "debian-arm64").succeeded(t) })
	r = lumina(t, "run", "--image", "debian-arm64", "uname -m; cat /etc/debian_version; exit 5")
	if r.code != 5 || !strings.HasPrefix(r.Stdout, "aarch64\n12.") {
		t.Errorf("exit code %d, %s %s", r.code, r.stdout, r.stderr)
	}
	r = lumina(t, "run", "--image", "debian-arm64", "echo c > /proc/sysrq-trigger; sleep 60")
	if r.Error != "vm_crashed" || !strings.Contains(r.Message, "sysrq triggered crash") {
		t.Errorf("crash: %s", r.stdout)
	}
	nothingLeft(t)
}
