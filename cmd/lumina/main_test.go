package main

import (
	"bytes"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"

	"github.com/abdul-abdi/lumina/builder/buildertest"
	"github.com/abdul-abdi/lumina/runtime/polltest"
)

// These tests drive the program as its users do, against real VMs. What they
// share is made once: the program, and a state directory with an image of a
// real Debian, made with it. With -short there is neither, and these tests are
// skipped.
var (
	program string
	home    string
)

func TestMain(m *testing.M) {
	code, err := testMain(m)
	if err != nil {
		fmt.Fprintf(os.Stderr, "preparing the tests: %v\n", err)
		code = 1
	}
	os.Exit(code)
}

func testMain(m *testing.M) (int, error) {
	if flag.Parse(); testing.Short() {
		return m.Run(), nil
	}
	dir, err := os.MkdirTemp("", "lumina-")
	if err != nil {
		return 1, err
	}
	defer os.RemoveAll(dir)
	program, home = filepath.Join(dir, "lumina"), filepath.Join(dir, "home")
	if lab := os.Getenv(labEnv); lab != "" {
		if err := takeProgram(lab); err != nil {
			return 1, err
		}
		return m.Run(), nil
	}
	// What is tested is what the sources say, the guest's among them.
	if out, err := exec.Command("make", "-C", "../..", "guest", "app").CombinedOutput(); err != nil {
		return 1, fmt.Errorf("building the guest and the page: %w\n%s", err, out)
	}
	build := exec.Command("go", "build", "-o", program, ".")
	build.Env = append(os.Environ(), "CGO_ENABLED=0") // as it is released
	if out, err := build.CombinedOutput(); err != nil {
		return 1, fmt.Errorf("building the program: %w\n%s", err, out)
	}
	layout, err := buildertest.Debian("amd64")
	if err != nil {
		return 1, err
	}
	create := command("images", "create", "debian", "--from", "oci:"+layout+":latest")
	if out, err := create.CombinedOutput(); err != nil {
		return 1, fmt.Errorf("making the image: %w\n%s", err, out)
	}
	return m.Run(), nil
}

// labEnv names a directory with what these tests make otherwise: the program, and the
// image debian. It is for hosts without Go and Debian's tools, see kvmlab.
const labEnv = "LUMINA_TEST_LAB"

// takeProgram takes program and image from a directory.
func takeProgram(dir string) error {
	b, err := os.ReadFile(filepath.Join(dir, "lumina"))
	if err == nil {
		err = os.WriteFile(program, b, 0o755)
	}
	if err == nil {
		err = os.CopyFS(filepath.Join(home, "images", "debian"), os.DirFS(filepath.Join(dir, "debian")))
	}
	return err
}

// needsProgram skips a test that drives the program where there is none.
func needsProgram(t testing.TB) {
	t.Helper()
	if testing.Short() {
		t.Skip("with -short: it drives the program, and boots VMs")
	}
}

func command(args ...string) *exec.Cmd {
	cmd := exec.Command(program, args...)
	// Every VM is booted for real, but where templates are what is tested.
	cmd.Env = append(os.Environ(), "LUMINA_HOME="+home, "LUMINA_TEMPLATE=0")
	return cmd
}

// result is how a call of the program ended.
type result struct {
	stdout, stderr string
	code           int
	// The envelope, when stdout is one.
	Stdout        string  `json:"stdout"`
	Stderr        string  `json:"stderr"`
	StdoutBytes   []byte  `json:"stdout_bytes"`
	ExitCode      *int    `json:"exit_code"`
	Error         string  `json:"error"`
	Message       string  `json:"message"`
	PartialStdout *string `json:"partial_stdout"`
	PartialStderr *string `json:"partial_stderr"`
	DurationMS    *int64  `json:"duration_ms"`
	BootMS        *int64  `json:"boot_ms"`
	SID           string  `json:"sid"`
	ID            string  `json:"id"`
}

func finish(t testing.TB, cmd *exec.Cmd) result {
	t.Helper()
	needsProgram(t)
	var stdout, stderr bytes.Buffer
	cmd.Stdout, cmd.Stderr = &stdout, &stderr
	err := cmd.Run()
	var exit *exec.ExitError
	if err != nil && !errors.As(err, &exit) {
		t.Fatal(err)
	}
	r := result{stdout: stdout.String(), stderr: stderr.String(), code: cmd.ProcessState.ExitCode()}
	_ = json.Unmarshal(stdout.Bytes(), &r)
	return r
}

// lumina calls the program.
func lumina(t testing.TB, args ...string) result {
	t.Helper()
	return finish(t, command(args...))
}

// run calls lumina run on the Debian image.
func run(t testing.TB, args ...string) result {
	t.Helper()
	return lumina(t, append([]string{"run", "--image", "debian"}, args...)...)
}

// succeeded fails the test when the call did not end with the command's exit
// code 0.
func (r result) succeeded(t testing.TB) result {
	t.Helper()
	if r.code != 0 || r.Error != "" {
		t.Fatalf("exit code %d, stdout %.600s, stderr %.600s", r.code, r.stdout, r.stderr)
	}
	return r
}

// processes lists the VMs and supervisors of this test's state directory, by
// their command lines or open files.
func processes(t testing.TB) []string {
	t.Helper()
	var found []string
	paths, err := filepath.Glob("/proc/[0-9]*")
	if err != nil {
		t.Fatal(err)
	}
	for _, p := range paths {
		line, err := os.ReadFile(p + "/cmdline")
		if err != nil || !bytes.Contains(line, []byte("qemu-system-")) && !bytes.Contains(line, []byte("swtpm")) && !bytes.Contains(line, []byte(program)) {
			continue
		}
		if ours(p) {
			found = append(found, filepath.Base(p)+" "+strings.ReplaceAll(string(line), "\x00", " "))
		}
	}
	return found
}

// ours tells whether a process runs the program of this test, or has files of its
// state directory open, as QEMU has its disks.
func ours(proc string) bool {
	if line, err := os.ReadFile(proc + "/cmdline"); err == nil && bytes.Contains(line, []byte(program)) {
		return true
	}
	files, _ := filepath.Glob(proc + "/fd/*")
	return slices.ContainsFunc(files, func(f string) bool {
		to, err := os.Readlink(f)
		return err == nil && strings.HasPrefix(to, home+"/")
	})
}

// leftovers lists what is in the state directory beside images and caches.
func leftovers(t testing.TB) []string {
	t.Helper()
	var found []string
	for _, dir := range []string{"sessions", "runs"} {
		entries, err := os.ReadDir(filepath.Join(home, dir))
		if err != nil && !errors.Is(err, os.ErrNotExist) {
			t.Fatal(err)
		}
		for _, e := range entries {
			if strings.HasPrefix(e.Name(), ".ended-") { // how a session ended
				continue
			}
			found = append(found, dir+"/"+e.Name())
		}
	}
	images, _ := filepath.Glob(filepath.Join(home, "images", ".tmp-*"))
	return append(found, images...)
}

// nothingLeft waits for processes that are being killed to end, and fails when
// something stays.
func nothingLeft(t testing.TB) {
	t.Helper()
	if testing.Short() {
		return // nothing was started
	}
	polltest.Until(t, func() error {
		if left := append(processes(t), leftovers(t)...); len(left) > 0 {
			return fmt.Errorf("left behind:\n%s", strings.Join(left, "\n"))
		}
		return nil
	})
}

// started runs a command until it prints marker.
func started(t testing.TB, marker string, cmd *exec.Cmd) {
	t.Helper()
	needsProgram(t)
	stdout, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = cmd.Process.Kill()
		_ = cmd.Wait()
	})
	var seen strings.Builder
	buf := make([]byte, 4096)
	for !strings.Contains(seen.String(), marker) {
		n, err := stdout.Read(buf)
		seen.Write(buf[:n])
		if err != nil {
			t.Fatalf("the command ended before it printed %q: %q", marker, seen.String())
		}
	}
	go func() { _, _ = io.Copy(io.Discard, stdout) }()
}

// waitCode waits for a started command and returns its exit code, or -signal.
func waitCode(t testing.TB, cmd *exec.Cmd) int {
	t.Helper()
	_ = cmd.Wait()
	if status := cmd.ProcessState.Sys().(syscall.WaitStatus); status.Signaled() {
		return -int(status.Signal())
	}
	return cmd.ProcessState.ExitCode()
}
