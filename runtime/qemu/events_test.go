package qemu

import (
	"context"
	"encoding/json"
	"errors"
	"io"
	"os"
	"os/exec"
	"runtime"
	"slices"
	"strings"
	"syscall"
	"testing"

	"github.com/abdul-abdi/lumina/runtime/socketpair"
	"github.com/abdul-abdi/lumina/runtime/vm"
)

// A machine that QEMU stops, for whatever reason, is ended and told.
func TestStoppedMachineEnds(t *testing.T) {
	if testing.Short() {
		t.Skip("with -short: it runs QEMU")
	}
	d := New(Options{})
	fw, err := findFirmware(runtime.GOARCH, false)
	if err != nil {
		t.Fatal(err)
	}
	variables, err := os.CreateTemp(t.TempDir(), "")
	if err != nil {
		t.Fatal(err)
	}
	defer variables.Close()
	if err := d.WriteVariables(runtime.GOARCH, false, variables); err != nil {
		t.Fatal(err)
	}
	m, err := d.startDesktop(t.Context(), vm.DesktopSpec{Arch: runtime.GOARCH, CPUs: 1, Memory: 256 << 20, Variables: variables}, fw, TCG)
	if err != nil {
		t.Fatal(err)
	}
	environ, err := os.ReadFile("/proc/" + m.pid(t) + "/environ")
	if err != nil || len(environ) > 0 {
		t.Errorf("QEMU's environment: %q, %v", environ, err)
	}
	// As KVM prints it before it stops a machine.
	_, _ = m.stderr.Write([]byte("qemu: warning: an old CPU\nKVM internal error. Suberror: 1\nRAX=0000000000000000\n"))
	_ = m.command(nil, "stop", nil) // its answer may not come any more
	<-m.Done()
	if err := m.Err(); err == nil || err.Error() != "QEMU stopped the machine: KVM internal error. Suberror: 1" {
		t.Errorf("Err() = %v", err)
	}
}

// A machine that has stopped before QEMU could tell it to anybody is ended, too: a
// guest on KVM needs no time to get lost. One that runs is not.
func TestMachineThatHasStopped(t *testing.T) {
	for status, want := range map[string]string{"internal-error": "QEMU stopped the machine", "running": "", "inmigrate": ""} {
		here, there, err := socketpair.New(syscall.SOCK_STREAM)
		if err != nil {
			t.Fatal(err)
		}
		ctx, cancel := context.WithCancel(t.Context())
		p := newProcess(&command{control: here}, 0)
		p.ctx, p.cancel = ctx, cancel
		go func() {
			defer there.Close()
			commands := json.NewDecoder(there)
			for _, answer := range []string{`{"QMP": {}}`, `{"return": {}, "id": 1}`, `{"return": {"status": "` + status + `", "running": false}, "id": 2}`} {
				if !strings.Contains(answer, "QMP") && commands.Decode(&struct{}{}) != nil {
					return
				}
				_, _ = there.WriteString(answer + "\n")
			}
		}()
		p.listen()
		if p.notes.stop != want || (ctx.Err() != nil) != (want != "") {
			t.Errorf("%s: %q, ended: %v; want %q", status, p.notes.stop, ctx.Err(), want)
		}
		cancel()
		here.Close()
	}
}

// pid is the process of a desktop's QEMU: this test's only child.
func (d *desktop) pid(t *testing.T) string {
	t.Helper()
	var pids []string
	tasks, err := os.ReadDir("/proc/self/task")
	if err != nil {
		t.Fatal(err)
	}
	for _, task := range tasks {
		b, _ := os.ReadFile("/proc/self/task/" + task.Name() + "/children")
		pids = append(pids, strings.Fields(string(b))...)
	}
	if len(pids) != 1 {
		t.Fatalf("child processes: %v, want one", pids)
	}
	return pids[0]
}

// A kernel that has halted says so, in as many parts as it likes; and what only
// looks like it is none.
func TestHaltWatch(t *testing.T) {
	long := strings.Repeat("x", 1000) + "\n"
	for _, tt := range []struct {
		name, output string
		want         []string
	}{
		{"halt", "[    1.5] reboot: System halted\r\n", []string{"reboot: System halted"}},
		{"no power to switch off", long + "[    1.5] reboot: Power off not available: System halted instead\n", []string{"reboot: Power off not available"}},
		{"panic", long + "[ 2.1] ---[ end Kernel panic - not syncing: x ]---\n" + long, []string{"---[ end Kernel panic - not syncing"}},
		{"restart", "[ 2.1] reboot: Restarting system\n", nil},
		{"a program's", "reboot: System halted\n", nil},
	} {
		for _, size := range []int{1, 7, 64, 65, 100, 4096} {
			var told []string
			w := &haltWatch{Writer: io.Discard, halted: func(line string) { told = append(told, line) }}
			for part := range slices.Chunk([]byte(tt.output), size) {
				if n, err := w.Write(part); n != len(part) || err != nil {
					t.Fatalf("Write() = %d, %v", n, err)
				}
			}
			if got := slices.Compact(told); !slices.Equal(got, tt.want) {
				t.Errorf("%s in parts of %d: %q, want %q", tt.name, size, got, tt.want)
			}
		}
	}
}

// A lack of memory that QEMU tells of is known as one.
func TestNoMemory(t *testing.T) {
	p := &process{stderr: &head{}}
	_, _ = p.stderr.Write([]byte("qemu-system-x86_64: cannot set up guest memory 'pc.ram': Cannot allocate memory\n"))
	if err := p.over(exec.Command("false").Run()); !errors.Is(err, syscall.ENOMEM) {
		t.Errorf("%v", err)
	}
}

// Who reads that QEMU was killed is told what does that.
func TestDied(t *testing.T) {
	for script, want := range map[string]string{
		"kill -9 $$":  "QEMU ended: signal: killed: the kernel does that when there is no memory left, the host's or a control group's; else somebody did",
		"kill -11 $$": "QEMU ended: signal: segmentation fault: it gave up, or has a defect\nno threads",
		"exit 3":      "QEMU ended: exit status 3",
	} {
		p := &process{stderr: &head{}}
		if err := p.over(nil); err != nil {
			t.Errorf("one that ended by itself: %v", err)
		}
		if strings.Contains(want, "no threads") {
			_, _ = p.stderr.Write([]byte("no threads\n"))
		}
		err := p.over(exec.Command("/bin/sh", "-c", "ulimit -c 0; "+script).Run())
		if err == nil || err.Error() != want {
			t.Errorf("%s: %v, want %s", script, err, want)
		}
		if errors.Is(err, syscall.ENOMEM) != (script == "kill -9 $$") {
			t.Errorf("%s: a lack of memory: %v", script, errors.Is(err, syscall.ENOMEM))
		}
	}
}
