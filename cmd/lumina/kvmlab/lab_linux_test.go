package kvmlab

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"runtime"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/abdul-abdi/lumina/builder/buildertest"
	"github.com/abdul-abdi/lumina/initramfs/protocol"
)

const root = "../../.."

// labEnv asks for the tests: "short" for some of them, if the kernel of their host is
// built, "whole" for all of them, and the kernel is built; "stock-amd64" for all of them
// on Debian's own kernel, and "stock-arm64" for some of them on that of arm64. make test, make
// test-kvm and make test-kvm-stock set it.
const labEnv = "LUMINA_KVMLAB"

// The tests that run in the lab: of the program's own, the ones that need nothing
// but it, an image and the programs of kvm-host.
var (
	short = []string{"TestKVM"}
	whole = []string{"TestKVM", "TestWhoMayUseKVM", "TestRun", "TestRunErrors", "TestOutputIsByteExact", "TestCopyInAndDownload", "TestSession", "TestForward",
		"TestNamedVolume", "TestSharedDirectory", "TestPool", "TestRestoredVMHasItsOwnDisk", "TestDamagedTemplatesAreNotUsed", "TestTemplateThatCannotBeMade",
		"TestTemplateIsMadeOnce", "TestSignalsLeaveNothing", "TestDeathsAtRest", "TestDeathsDuringExec", "TestEscapes", "TestNetworkRun"}
)

// perHost is how many tests one host runs: an emulated CPU with SVM, under load, lasts for
// 5 to 30 minutes before its kernel loses its stack, and what had passed by then counts.
const perHost = 5

// startAttempts is how often the host of the tests is booted until it answers.
const startAttempts = 5

// Limits of a whole lab, with its making.
const (
	shortLimit = 6 * time.Minute
	wholeLimit = 90 * time.Minute
	// silence is how long a host may say nothing: its emulated CPUs may spin for good.
	silence = 6 * time.Minute
)

// TestLab has lumina's tests run on KVM.
func TestLab(t *testing.T) {
	mode := os.Getenv(labEnv)
	tests, limit := whole, wholeLimit
	switch mode {
	case "short":
		tests, limit = short, shortLimit
	case "stock-arm64":
		tests = short
	case "whole", "stock-amd64":
	default:
		t.Skip("it boots VMs in a VM, for minutes: make test-kvm")
	}
	if runtime.GOARCH != "amd64" {
		t.Skip("the lab runs on amd64")
	}
	if mode == "short" && !kernelIsBuilt(t) {
		t.Skip("there is no kernel with KVM: make kernel-full, which takes long; make test-kvm makes it, too")
	}
	if own := os.Getenv("LUMINA_KVMLAB_RUN"); own != "" {
		tests = strings.Split(own, ",")
	}
	var l host
	switch mode {
	case "stock-amd64":
		l = newStock(t, "amd64")
	case "stock-arm64":
		l = newStock(t, "arm64")
	default:
		l = newLab(t)
	}
	// Only now: what is made once is not counted.
	ctx, cancel := context.WithTimeoutCause(t.Context(), limit, fmt.Errorf("the lab took longer than %v", limit))
	defer cancel()
	for group := range slices.Chunk(tests, perHost) {
		if err := onHosts(ctx, t, l, group); err != nil {
			t.Error(err)
		}
	}
}

// onHosts has a host run tests, and another one those that failed: only where the
// emulated CPU is to blame, and once.
func onHosts(ctx context.Context, t *testing.T, l host, tests []string) error {
	for attempt := 1; ; attempt++ {
		failed, err := test(ctx, t, l, tests)
		if err == nil {
			return nil
		}
		if attempt == 2 || ctx.Err() != nil || !errors.Is(err, errHost) {
			return fmt.Errorf("attempt %d: %w", attempt, errors.Join(err, context.Cause(ctx)))
		}
		if len(failed) > 0 {
			tests = failed
		}
		t.Logf("ONCE MORE, on another host: %s: %v", strings.Join(tests, ", "), err)
	}
}

// host is what runs the tests.
type host interface {
	// run boots it, has it run a script with these arguments in /tmp/lab, which has
	// what fill has made, and returns the script's exit code. It wraps errHost.
	run(ctx context.Context, t *testing.T, limit time.Duration, script string, args []string, out io.Writer) (code int, err error)
}

// fill makes what a host of an architecture needs for the tests in a new directory,
// and this host's own program beside it.
func fill(t *testing.T, arch string) (dir, program string) {
	t.Helper()
	temporary := t.TempDir()
	dir, program = filepath.Join(temporary, "lab"), filepath.Join(temporary, "lumina")
	command(t, nil, "make", "-s", "-C", root, "guest")
	static := []string{"CGO_ENABLED=0"}
	command(t, static, "go", "build", "-o", program, root+"/cmd/lumina")
	static = append(static, "GOARCH="+arch)
	command(t, static, "go", "test", "-c", "-o", filepath.Join(dir, "lumina.test"), root+"/cmd/lumina")
	command(t, static, "go", "build", "-o", filepath.Join(dir, "lumina"), root+"/cmd/lumina")
	layout, err := buildertest.Debian(arch)
	if err != nil {
		t.Fatal(err)
	}
	own := filepath.Join(temporary, "home")
	command(t, []string{"LUMINA_HOME=" + own}, program, "images", "create", "debian", "--from", "oci:"+layout+":latest", "--platform", "linux/"+arch, "--no-verify")
	command(t, nil, "cp", "-r", filepath.Join(own, "images", "debian"), dir)
	return dir, program
}

// lab is a directory for the host of the tests, and what it is booted with.
type lab struct {
	program string // lumina
	home    string // has the image of the host; kept
	image   string
	dir     string // what the host gets
}

func newLab(t *testing.T) *lab {
	t.Helper()
	l := &lab{home: filepath.Join(buildertest.Cache(), "kvm-host")}
	l.dir, l.program = fill(t, "amd64")
	l.image = "kvm-host-" + digest(t)
	if _, err := os.Stat(filepath.Join(l.home, "images", l.image)); err != nil {
		t.Logf("making the image of the host")
		command(t, []string{"LUMINA_HOME=" + l.home}, l.program, "images", "create", l.image, "--recipe", filepath.Join(root, "recipes", "kvm-host.yaml"), "--timeout", "90m")
	}
	return l
}

// digest names what the host's image is made of. Its agent may be older than the
// program, as long as they speak the same protocol.
func digest(t *testing.T) string {
	t.Helper()
	h := sha256.New()
	fmt.Fprintln(h, protocol.Version)
	for _, pattern := range []string{"recipes/kvm-host.yaml", "kernel-config/*.config", "kernel-config/version", "kernel-config/build.sh"} {
		files, err := filepath.Glob(filepath.Join(root, pattern))
		if err != nil || len(files) == 0 {
			t.Fatalf("%s: %v, %v", pattern, files, err)
		}
		for _, f := range files {
			b, err := os.ReadFile(f)
			if err != nil {
				t.Fatal(err)
			}
			h.Write(b)
		}
	}
	return fmt.Sprintf("%.6x", h.Sum(nil))
}

// kernelIsBuilt says whether build.sh has the host's kernel in its cache. It is asked
// for the name it would have there, and then told to do nothing more.
func kernelIsBuilt(t *testing.T) bool {
	t.Helper()
	config := filepath.Join(root, "kernel-config")
	script, err := os.ReadFile(filepath.Join(config, "build.sh"))
	if err != nil {
		t.Fatal(err)
	}
	asks, _, found := strings.Cut(string(script), "\nif published;")
	if !found {
		t.Fatal("build.sh has changed: this test knows no more where its cache is")
	}
	dir := t.TempDir()
	command(t, nil, "sh", "-c", `cp -r "$0"/*.config "$0"/version "$0"/patches "$1"`, config, dir)
	// What makes the digest reads the whole script.
	command(t, nil, "cp", filepath.Join(config, "build.sh"), dir)
	asks = strings.Replace(asks, `here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)`, "here="+dir, 1)
	out := command(t, []string{"LUMINA_KERNEL_FRAGMENT=" + filepath.Join(dir, "full.config")}, "bash", "-c", asks+"\n"+`echo "$cache/$digest"`, "build.sh", "amd64")
	_, err = os.Stat(strings.TrimSpace(out))
	return err == nil
}

// command runs a program that has to succeed, and returns its output.
func command(t *testing.T, env []string, name string, args ...string) string {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), name, args...)
	var stdout, stderr bytes.Buffer
	cmd.Stdout, cmd.Stderr = &stdout, &stderr
	cmd.Env = append(os.Environ(), env...)
	if err := cmd.Run(); err != nil {
		t.Fatalf("%s %s: %v\n%s%s", name, strings.Join(args, " "), err, &stdout, &stderr)
	}
	return stdout.String()
}

// lumina is a call of the program for the host of the tests. That is emulated also
// where this host has KVM: what it has of virtualization is known then.
func (l *lab) lumina(ctx context.Context, args ...string) *exec.Cmd {
	cmd := exec.CommandContext(ctx, l.program, args...)
	cmd.Env = append(os.Environ(), "LUMINA_HOME="+l.home, "LUMINA_ACCEL=tcg", "LUMINA_TEMPLATE=0", "LUMINA_FORMAT=json")
	cmd.WaitDelay = 10 * time.Second
	return cmd
}

// start boots a host, and returns its session. It costs seconds, and fails where a busy
// machine leaves it less than that in a minute: it is tried again.
func (l *lab) start(ctx context.Context, t *testing.T) (sid string, err error) {
	for attempt := 1; ; attempt++ {
		out, err := l.lumina(ctx, "session", "start", "--image", l.image, "--nested", "--cpus", "2", "--memory", "3GB", "--disk-size", "8GB", "--network", "none",
			"--volume", l.dir+":/lab:ro").Output()
		var session struct{ SID string }
		if err == nil {
			err = json.Unmarshal(out, &session)
		}
		if err == nil {
			return session.SID, nil
		}
		err = fmt.Errorf("the host of the tests did not start: %w: %s", err, out)
		if attempt == startAttempts || ctx.Err() != nil {
			return "", err
		}
		t.Log(err)
	}
}

// run is part of [host].
func (l *lab) run(ctx context.Context, t *testing.T, limit time.Duration, script string, args []string, out io.Writer) (code int, err error) {
	sid, err := l.start(ctx, t)
	if err != nil {
		return 0, fmt.Errorf("%w: %w", errHost, err)
	}
	// Also when ctx has ended.
	defer func() {
		if err := l.lumina(context.WithoutCancel(ctx), "session", "stop", "--force", sid).Run(); err != nil {
			t.Errorf("stopping the host: %v", err)
		}
	}()
	// The root's own overlay cannot have another on it, nor are the tests' files to go over 9P.
	const prepare = "mkdir -p /dev/shm /tmp/lab && mount -t tmpfs tmpfs /dev/shm && cp -r /lab/. /tmp/lab && mount -t tracefs tracefs /sys/kernel/tracing || exit 9\n"
	cmd := l.lumina(ctx, append([]string{"exec", sid, "-e", "HOME=/root", "--timeout", limit.String(), "--", "sh", "-c", prepare + script, "sh"}, args...)...)
	cmd.Env = append(cmd.Env, "LUMINA_FORMAT=text")
	cmd.Stdout, cmd.Stderr = out, out
	if err := cmd.Run(); cmd.ProcessState == nil || cmd.ProcessState.ExitCode() > 2 || cmd.ProcessState.ExitCode() < 0 {
		return 0, fmt.Errorf("%w: %w", errHost, err)
	}
	return cmd.ProcessState.ExitCode(), nil
}

// test boots a host and has it run tests, of which none may be skipped. With an error
// come those that did not pass.
func test(ctx context.Context, t *testing.T, l host, tests []string) (failed []string, err error) {
	deadline, _ := ctx.Deadline()
	limit := time.Until(deadline).Round(time.Second)
	// In the end it says how many QEMUs there were, and what reset guests: see unmeant.
	const script = `dmesg -n 1; touch /etc/hosts /etc/resolv.conf; chgrp kvm /dev/kvm && chmod 660 /dev/kvm && cd /tmp/lab || exit 9
trace=/sys/kernel/tracing
echo 'filename ~ "*/qemu-system-*"' >$trace/events/sched/sched_process_exec/filter && echo 1 >$trace/events/sched/sched_process_exec/enable
[ "$(uname -m)" != x86_64 ] || { echo 'exit_reason == 0x7f' >$trace/events/kvm/kvm_exit/filter && echo 1 >$trace/events/kvm/kvm_exit/enable; }
"$@"
code=$?
echo "QEMUs: $(grep -c sched_process_exec: $trace/trace); guests that reset their machine:"
sed -n 's/.*kvm_exit: .*\(rip 0x[0-9a-f]*\) .*\(intr_info 0x[0-9a-f]*\) .*/reset at \1, \2/p' $trace/trace | sort | uniq -c
exit $code`
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	quiet := time.AfterFunc(silence, func() { cancel(fmt.Errorf("it said nothing for %v", silence)) })
	defer quiet.Stop()
	var text bytes.Buffer
	out := io.MultiWriter(&text, progress{t}, heard{quiet})
	// The template of a guest on an emulated arm64 took longer than a minute.
	code, err := l.run(ctx, t, limit, script, []string{"env", "LUMINA_TEST_LAB=/tmp/lab", "LUMINA_TEST_KVM=1", "LUMINA_BOOT_TIMEOUT=5m",
		"./lumina.test", "-test.v", "-test.run", "^(" + strings.Join(tests, "|") + ")$", "-test.timeout", limit.String()}, out)
	passed := map[string]bool{}
	for _, found := range regexp.MustCompile(`(?m)^--- PASS: (\w+) `).FindAllStringSubmatch(text.String(), -1) {
		passed[found[1]] = true
	}
	failed = slices.DeleteFunc(slices.Clone(tests), func(name string) bool { return passed[name] })
	switch {
	case err != nil:
		return failed, fmt.Errorf("%w (%d tests had passed)", errors.Join(err, context.Cause(ctx)), len(passed))
	case code == 0 && len(failed) == 0:
		t.Logf("%d tests passed on KVM", len(passed))
		return nil, nil
	case code == 0:
		return failed, fmt.Errorf("tests did not run on KVM: %s", strings.Join(failed, ", "))
	case len(failed) == 0 || len(unmeant(text.String())) > 0:
		err = errHost
	}
	return failed, errors.Join(fmt.Errorf("tests failed on KVM, exit code %d: %s", code, strings.Join(failed, ", ")), err)
}

// errHost is wrapped when it is not the tests that failed but their host.
var errHost = errors.New("the host of the tests failed")

// meant is what SVM says of the reset that a kernel means: an exception of its own, #BP,
// while it has no table of handlers.
const meant = "0x80000403"

// unmeant are the resets of guests that no kernel meant, which is what KVM on an emulated
// CPU has once in some hundred starts. The console has no word of such a one: where it
// was, and with which exception (the last two digits), is all that is known.
func unmeant(text string) []string {
	all := regexp.MustCompile(`(?m)^ *\d+ reset at rip 0x[0-9a-f]+, intr_info 0x[0-9a-f]+$`).FindAllString(text, -1)
	return slices.DeleteFunc(all, func(line string) bool { return strings.HasSuffix(line, meant) })
}

func TestUnmeantResets(t *testing.T) {
	const text = "--- PASS: TestRun (1.00s)\n      3 reset at rip 0xffffffff8103419d, intr_info 0x80000403\n" +
		"      1 reset at rip 0xffffffff81000123, intr_info 0x80000b0e\nPASS\n"
	if got := unmeant(text); len(got) != 1 || !strings.Contains(got[0], "81000123") {
		t.Errorf("%q", got)
	}
}

// pretended is a host that says what it is told to, one after the other.
type pretended struct {
	runs []func(ctx context.Context, out io.Writer) (int, error)
	args [][]string
}

func (p *pretended) run(ctx context.Context, _ *testing.T, _ time.Duration, _ string, args []string, out io.Writer) (int, error) {
	p.args = append(p.args, args)
	return p.runs[len(p.args)-1](ctx, out)
}

// A lab that fails says so, ends in time, and is repeated for its host's sake only.
func TestAttempts(t *testing.T) {
	type run = func(context.Context, io.Writer) (int, error)
	says := func(code int, text string) run {
		return func(_ context.Context, out io.Writer) (int, error) {
			_, err := io.WriteString(out, text)
			return code, err
		}
	}
	const reset = "1 reset at rip 0xffffffff81000123, intr_info 0x80000b0e\n"
	const one, other = "--- PASS: TestOne (1.00s)\n", "--- PASS: TestOther (1.00s)\n"
	gone := func(context.Context, io.Writer) (int, error) { return 0, fmt.Errorf("%w: it is gone", errHost) }
	dies := func(ctx context.Context, out io.Writer) (int, error) {
		_, _ = says(0, one)(ctx, out)
		return gone(ctx, out)
	}
	hangs := func(ctx context.Context, _ io.Writer) (int, error) {
		<-ctx.Done()
		return 0, fmt.Errorf("%w: %w", errHost, ctx.Err())
	}
	for _, tt := range []struct {
		name string
		runs []run
		last string // the tests of the last run
		want string // of the error
	}{
		{"all pass", []run{says(0, one+other)}, "TestOne|TestOther", ""},
		{"one fails", []run{says(1, one)}, "TestOne|TestOther", "attempt 1: tests failed on KVM, exit code 1: TestOther"},
		{"one does not run", []run{says(0, one)}, "TestOne|TestOther", "attempt 1: tests did not run on KVM: TestOther"},
		{"one fails, and a guest was reset", []run{says(1, one+reset), says(0, other)}, "TestOther", ""},
		{"all pass, and a guest was reset", []run{says(0, one+other+reset)}, "TestOne|TestOther", ""},
		{"the host ends", []run{gone, says(0, one+other)}, "TestOne|TestOther", ""},
		{"the host ends late", []run{dies, says(0, other)}, "TestOther", ""},
		{"the host ends twice", []run{gone, gone}, "TestOne|TestOther", "attempt 2: the host of the tests failed: it is gone"},
		{"the host hangs", []run{hangs}, "TestOne|TestOther", "the limit"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			limit := time.Minute
			if tt.want == "the limit" {
				limit = time.Millisecond
			}
			ctx, cancel := context.WithTimeoutCause(t.Context(), limit, errors.New("the limit"))
			defer cancel()
			p := &pretended{runs: tt.runs}
			err := onHosts(ctx, t, p, []string{"TestOne", "TestOther"})
			if (err == nil) != (tt.want == "") || err != nil && !strings.Contains(err.Error(), tt.want) {
				t.Errorf("the error is %v, want %q", err, tt.want)
			}
			if len(p.args) != len(tt.runs) {
				t.Fatalf("%d runs, want %d", len(p.args), len(tt.runs))
			}
			if last := p.args[len(p.args)-1]; !slices.Contains(last, "^("+tt.last+")$") {
				t.Errorf("the last run was %q, want %s", last, tt.last)
			}
		})
	}
}

// progress logs what comes by lines.
type progress struct{ t *testing.T }

func (p progress) Write(b []byte) (int, error) {
	for line := range strings.Lines(string(b)) {
		p.t.Log(strings.TrimRight(line, "\n"))
	}
	return len(b), nil
}

// heard puts off the end of a host that says nothing.
type heard struct{ quiet *time.Timer }

func (h heard) Write(b []byte) (int, error) {
	h.quiet.Reset(silence)
	return len(b), nil
}
