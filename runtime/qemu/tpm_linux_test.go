package qemu

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/abdul-abdi/lumina/runtime/confine"
	"github.com/abdul-abdi/lumina/runtime/socketpair"
)

// A TPM has no rights, environment or file but its state.
func TestTPM(t *testing.T) {
	t.Setenv("SECRET", "of the caller")
	state := file(t, 0)
	here, there, err := socketpair.New(syscall.SOCK_STREAM)
	if err != nil {
		t.Fatal(err)
	}
	defer here.Close()
	tpm, err := startTPM(state, there)
	there.Close()
	if err != nil && testing.Short() {
		t.Skip("with -short: ", err)
	}
	if err != nil {
		t.Fatal(err)
	}
	defer tpm.kill()
	// CMD_GET_CAPABILITY, to which it answers once it runs (swtpm_ioctls(3)).
	if _, err := here.Write([]byte{0, 0, 0, 1}); err != nil {
		t.Fatal(err)
	}
	if err := here.SetDeadline(time.Now().Add(time.Minute)); err != nil {
		t.Fatal(err)
	}
	if n, err := here.Read(make([]byte, 16)); n < 8 || err != nil {
		t.Fatalf("it answers with %d bytes, %v: %s", n, err, tpm.stderr)
	}
	proc := fmt.Sprintf("/proc/%d", tpm.cmd.Process.Pid)
	status, err := os.ReadFile(proc + "/status")
	if err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{"CapEff:\t0000000000000000\n", "NoNewPrivs:\t1\n", "Seccomp:\t2\n"} {
		if !strings.Contains(string(status), want) {
			t.Errorf("it has not %q:\n%s", want, status)
		}
	}
	if os.Geteuid() == 0 {
		var uid int
		_, rest, _ := strings.Cut(string(status), "\nUid:")
		if _, err := fmt.Sscan(rest, &uid); err != nil || uid < confine.FirstUser {
			t.Errorf("it is user %d, %v", uid, err)
		}
	}
	if environ, err := os.ReadFile(proc + "/environ"); err == nil && len(environ) > 0 {
		t.Errorf("its environment is %q", environ)
	}
	links, _ := filepath.Glob(proc + "/fd/*")
	for _, l := range links {
		to, err := os.Readlink(l)
		if err == nil && strings.HasPrefix(to, "/") && to != state.Name() && !strings.HasPrefix(to, "/dev/") {
			t.Errorf("it has %s open", to)
		}
	}
	tpm.kill()
	if _, err := os.Stat(proc); err == nil {
		t.Error("it is there once it was killed")
	}
}
