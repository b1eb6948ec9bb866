package main

import (
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"os/user"
	"path/filepath"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/abdul-abdi/lumina/runtime/vm"
)

// kvmDevice is what these tests are about.
const kvmDevice = "/dev/kvm"

// needsKVM skips a test where lumina does not use KVM. Where it has to, which
// LUMINA_TEST_KVM=1 says, the test fails in place of that.
func needsKVM(t *testing.T) {
	t.Helper()
	needsProgram(t)
	check := accelerator(t, command("doctor"))
	if check.Detail == "kvm" {
		return
	}
	if os.Getenv("LUMINA_TEST_KVM") != "" {
		t.Fatalf("lumina does not use KVM here: %s (%s)", check.Detail, check.Remedy)
	}
	t.Skipf("it needs KVM: %s", check.Detail)
}

// accelerator is what doctor says of it.
func accelerator(t *testing.T, doctor *exec.Cmd) vm.Check {
	t.Helper()
	r := finish(t, doctor)
	var report struct{ Checks []vm.Check }
	if err := json.Unmarshal([]byte(r.stdout), &report); err != nil {
		t.Fatalf("doctor: %v in %s %s", err, r.stdout, r.stderr)
	}
	i := slices.IndexFunc(report.Checks, func(c vm.Check) bool { return c.Name == "accelerator" })
	if i < 0 {
		t.Fatalf("doctor says nothing of the accelerator: %s", r.stdout)
	}
	return report.Checks[i]
}

// TestKVM has what is different with KVM: the machine, its clock, how it is
// confined, templates, and how a guest ends. The parts share a template.
func TestKVM(t *testing.T) {
	needsKVM(t)
	t.Cleanup(func() { nothingLeft(t) })
	t.Run("a cold run, and its clock", func(t *testing.T) {
		r := run(t, "cat /sys/devices/system/clocksource/clocksource0/current_clocksource; exit 3")
		clock := map[string]string{"amd64": "kvm-clock\n", "arm64": "arch_sys_counter\n"}[runtime.GOARCH]
		if r.code != 3 || r.Stdout != clock {
			t.Errorf("exit code %d, %s %s", r.code, r.stdout, r.stderr)
		}
	})
	t.Run("restored VMs", func(t *testing.T) {
		makeTestTemplate(t)
		seen := map[string]bool{}
		for range 2 {
			r, trace := runRestored(t, "cat /proc/sys/kernel/random/boot_id; head -c16 /dev/urandom | od -An -tx1 | tr -d ' \n'; echo; hostname; date +%s; sleep 1; date +%s; nproc")
			lines := strings.Fields(r.Stdout)
			if trace != "boot: from a template" || r.code != 0 || len(lines) != 6 {
				t.Fatalf("%s: %s %s", trace, r.stdout, r.stderr)
			}
			from, _ := strconv.ParseInt(lines[3], 10, 64)
			to, _ := strconv.ParseInt(lines[4], 10, 64)
			if away := time.Since(time.Unix(to, 0)); away < -2*time.Second || away > time.Minute || to <= from || lines[5] != "2" {
				t.Errorf("its clock goes from %d to %d, which is %v ago, and it has %s CPUs", from, to, away, lines[5])
			}
			for _, line := range lines[:3] {
				if seen[line] {
					t.Errorf("two VMs have the same %s", line)
				}
				seen[line] = true
			}
		}
	})
	t.Run("a crash, and a timeout", func(t *testing.T) {
		if r := run(t, "echo part; echo c >/proc/sysrq-trigger; sleep 99"); r.code != 125 || r.Error != "vm_crashed" || !strings.Contains(r.Message, "sysrq triggered crash") {
			t.Errorf("a crash: exit code %d, %s", r.code, r.stdout)
		}
		if r, _ := runRestored(t, "--timeout", "20s", "echo part; sleep 99"); r.code != 124 || r.Error != "timeout" || r.PartialStdout == nil || *r.PartialStdout != "part\n" {
			t.Errorf("a timeout: exit code %d, %s", r.code, r.stdout)
		}
	})
	t.Run("networks", func(t *testing.T) {
		if r := run(t, "--network", "none", "ls /sys/class/net").succeeded(t); r.Stdout != "lo\n" {
			t.Errorf("without a network: %s", r.stdout)
		}
		if os.Getuid() != 0 {
			t.Skip("namespaces of networks need root")
		}
		w := newWorld(t)
		const get = "exec 3<>/dev/tcp/$0/80; printf 'GET / HTTP/1.0\r\nHost: '$0'\r\n\r\n' >&3; cat <&3"
		for _, tt := range []struct {
			network, host string
			reached       bool
		}{{"nat", "example.test", true}, {"allow=example.test", "other.test", false}} {
			r := w.lumina(t, "run", "--image", "debian", "--network", tt.network, "--", "bash", "-c", get, tt.host)
			if got := strings.Contains(r.Stdout, "canary"); got != tt.reached || strings.Contains(r.stdout, `"network_denied"`) == tt.reached {
				t.Errorf("--network %s and %s: %s %s", tt.network, tt.host, r.stdout, r.stderr)
			}
		}
	})
	t.Run("a session, and how its QEMU is confined", func(t *testing.T) {
		r := lumina(t, "session", "start", "--image", "debian").succeeded(t)
		defer func() { lumina(t, "session", "stop", r.SID).succeeded(t) }()
		qemu := theQEMU(t)
		if line := commandLine(t, qemu); !strings.Contains(line, "-accel kvm") || runtime.GOARCH == "amd64" && !strings.Contains(line, "svm=off,vmx=off") {
			t.Errorf("QEMU's arguments are %s", line)
		}
		status := processStatus(t, qemu)
		wantUser := "0"
		if os.Getuid() == 0 {
			if uid, _ := strconv.Atoi(status["Uid"]); uid < 1<<16 {
				t.Errorf("QEMU's user is %d, want one of its own", uid)
			}
			wantUser = status["Uid"]
		} else {
			wantUser = strconv.Itoa(os.Getuid())
		}
		if status["Uid"] != wantUser || status["CapEff"] != "0000000000000000" || status["NoNewPrivs"] != "1" || status["Seccomp"] != "2" {
			t.Errorf("QEMU's user, capabilities, privileges and filter are %s, %s, %s, %s", status["Uid"], status["CapEff"], status["NoNewPrivs"], status["Seccomp"])
		}
		if r := lumina(t, "exec", r.SID, "nproc; grep -c -w -E 'svm|vmx' /proc/cpuinfo; exit 7"); r.code != 7 || r.Stdout != "2\n0\n" {
			t.Errorf("exec: exit code %d, %s", r.code, r.stdout)
		}
	})
	t.Run("a guest that KVM cannot go on with is ended, and told", func(t *testing.T) {
		if runtime.GOARCH != "amd64" {
			t.Skip("its kernel is for amd64")
		}
		kernel := filepath.Join(t.TempDir(), "kernel")
		write(t, kernel, lostKernel())
		cmd := command("images", "create", "lost", "--from", "debian", "--kernel", kernel, "--timeout", "2m")
		cmd.Env = append(cmd.Env, "LUMINA_ACCEL=kvm") // the probe finds out, too, and emulation would run it for ever
		r := finish(t, cmd)
		if r.code != 125 || !strings.Contains(r.stderr, "QEMU stopped the machine: KVM internal error") {
			t.Errorf("exit code %d, %s", r.code, r.stderr)
		}
	})
}

// lostKernel is a kernel that goes on where there is no memory, which KVM cannot: it
// would have to emulate instructions that are not there.
func lostKernel() string {
	const base, headers = 0x200000, 64 + 2*56
	le := binary.LittleEndian
	note := le.AppendUint32(nil, 4) // of a name
	note = le.AppendUint32(note, 8)
	note = le.AppendUint32(note, 18) // PHYS32_ENTRY, see Xen's PVH
	note = append(note, "Xen\x00"...)
	note = le.AppendUint64(note, base+headers+24)
	code := []byte{0xb8, 0, 0, 0, 0xd0, 0xff, 0xe0} // mov $0xd0000000, %eax; jmp *%eax
	b := make([]byte, headers)
	copy(b, "\x7fELF\x02\x01\x01")
	le.PutUint16(b[16:], 2) // executable
	le.PutUint16(b[18:], 62)
	le.PutUint32(b[20:], 1)
	le.PutUint64(b[24:], base+headers+24)
	le.PutUint64(b[32:], 64) // program headers
	le.PutUint16(b[52:], 64)
	le.PutUint16(b[54:], 56)
	le.PutUint16(b[56:], 2)
	size := uint64(headers + len(note) + len(code))
	for i, s := range []struct {
		kind        uint32
		offset, len uint64
	}{{1, 0, size}, {4, headers, uint64(len(note))}} {
		p := b[64+56*i:]
		le.PutUint32(p, s.kind)
		le.PutUint32(p[4:], 7)
		le.PutUint64(p[8:], s.offset)
		le.PutUint64(p[16:], base+s.offset)
		le.PutUint64(p[24:], base+s.offset)
		le.PutUint64(p[32:], s.len)
		le.PutUint64(p[40:], s.len)
		le.PutUint64(p[48:], 4)
	}
	return string(append(append(b, note...), code...))
}

// theQEMU is the process id of the only VM of this test's.
func theQEMU(t *testing.T) int {
	t.Helper()
	var found []int
	for _, p := range processes(t) {
		if pid, line, _ := strings.Cut(p, " "); strings.Contains(line, "qemu-system-") {
			n, _ := strconv.Atoi(pid)
			found = append(found, n)
		}
	}
	if len(found) != 1 {
		t.Fatalf("%d VMs: %v", len(found), found)
	}
	return found[0]
}

func commandLine(t *testing.T, pid int) string {
	t.Helper()
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/cmdline", pid))
	if err != nil {
		t.Fatal(err)
	}
	return strings.ReplaceAll(string(b), "\x00", " ")
}

// processStatus has the first value of each line of a process's status.
func processStatus(t *testing.T, pid int) map[string]string {
	t.Helper()
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
	if err != nil {
		t.Fatal(err)
	}
	status := map[string]string{}
	for line := range strings.Lines(string(b)) {
		name, value, _ := strings.Cut(line, ":")
		if words := strings.Fields(value); len(words) > 0 {
			status[name] = words[0]
		}
	}
	return status
}

// person is somebody who calls lumina.
type person struct {
	name   string
	uid    int // 0 is root
	groups []int
	home   string
}

func (p *person) command(args ...string) *exec.Cmd {
	cmd := command(args...)
	cmd.Env = append(cmd.Env, "LUMINA_HOME="+filepath.Join(p.home, "lumina"), "HOME="+p.home, "LUMINA_ACCEL=", "LUMINA_BOOT_TRACE=1")
	if p.uid != 0 {
		groups := []uint32{}
		for _, g := range p.groups {
			groups = append(groups, uint32(g))
		}
		cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: uint32(p.uid), Gid: uint32(p.uid), Groups: groups}}
	}
	return cmd
}

// people are root, a user of the group kvm and one who is not, each with a state
// directory of his own with the image debian.
func people(t *testing.T) []*person {
	t.Helper()
	group, err := user.LookupGroup("kvm")
	if err != nil {
		t.Skip("there is no group kvm")
	}
	kvm, _ := strconv.Atoi(group.Gid)
	all := []*person{{name: "root"}, {name: "a user in the group kvm", uid: 3001, groups: []int{kvm}}, {name: "another user", uid: 3002}}
	dir := t.TempDir()
	for d := dir; d != "/" && d != os.TempDir(); d = filepath.Dir(d) {
		if err := os.Chmod(d, 0o755); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.Chmod(filepath.Dir(program), 0o755); err != nil { // all are to run it
		t.Fatal(err)
	}
	for _, p := range all {
		p.home = filepath.Join(dir, strconv.Itoa(p.uid))
		image := filepath.Join(p.home, "lumina", "images", "debian")
		if err := os.MkdirAll(filepath.Dir(image), 0o700); err != nil {
			t.Fatal(err)
		}
		if err := os.CopyFS(image, os.DirFS(filepath.Join(home, "images", "debian"))); err != nil {
			t.Fatal(err)
		}
		if err := filepath.WalkDir(p.home, func(path string, _ fs.DirEntry, err error) error {
			return errors.Join(err, os.Lchown(path, p.uid, p.uid))
		}); err != nil {
			t.Fatal(err)
		}
	}
	return all
}

// TestWhoMayUseKVM has doctor's word for each of three users and each of three
// states of the device, and runs as each who may use it. It changes the device of
// the host, so it is for hosts that are made for it.
func TestWhoMayUseKVM(t *testing.T) {
	if os.Getenv(labEnv) == "" {
		t.Skip("it changes /dev/kvm: see kvmlab")
	}
	needsKVM(t)
	all := people(t)
	kvm := all[1].groups[0]
	var before unix.Stat_t
	if err := unix.Stat(kvmDevice, &before); err != nil {
		t.Fatal(err)
	}
	set := func(mode uint32, gid int) {
		t.Helper()
		err := os.Remove(kvmDevice)
		if mode != 0 && (err == nil || errors.Is(err, fs.ErrNotExist)) {
			if err = unix.Mknod(kvmDevice, unix.S_IFCHR|0o600, int(before.Rdev)); err == nil {
				err = errors.Join(os.Chown(kvmDevice, 0, gid), os.Chmod(kvmDevice, os.FileMode(mode)))
			}
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	defer set(before.Mode&0o777, int(before.Gid))
	const join, give = "usermod -aG kvm", "use a host whose KVM"
	for _, device := range []struct {
		name   string
		mode   uint32
		gid    int
		detail [3]string // what doctor's word has in it, for each of all
		remedy [3]string
	}{
		{"0660, of the group kvm", 0o660, kvm, [3]string{"kvm", "kvm", "permission denied"}, [3]string{"", "", join}},
		{"0600, of root", 0o600, 0, [3]string{"kvm", "permission denied", "permission denied"}, [3]string{"", join, join}},
		{"absent", 0, 0, [3]string{"no such file", "no such file", "no such file"}, [3]string{give, give, give}},
	} {
		set(device.mode, device.gid)
		for i, p := range all {
			t.Run(p.name+", "+kvmDevice+" is "+device.name, func(t *testing.T) {
				check := accelerator(t, p.command("doctor"))
				if !strings.Contains(check.Detail, device.detail[i]) || !strings.Contains(check.Remedy, device.remedy[i]) || device.remedy[i] == "" && check.Remedy != "" {
					t.Errorf("doctor says %q, and advises %q; want %q and %q", check.Detail, check.Remedy, device.detail[i], device.remedy[i])
				}
				t.Logf("doctor: %s; %s", check.Detail, check.Remedy)
				if check.Detail != "kvm" {
					return // emulation in an emulated host takes minutes
				}
				p.usesKVM(t)
			})
		}
	}
}

// usesKVM makes a template under a narrow umask, runs from it, and has a session
// whose QEMU is looked at.
func (p *person) usesKVM(t *testing.T) {
	t.Helper()
	old := syscall.Umask(0o077)
	defer syscall.Umask(old)
	finish(t, p.command("clean", "--templates"))
	finish(t, p.command(templateCommand, templateOptions)).succeeded(t)
	cmd := p.command("run", "--image", "debian", "echo right")
	cmd.Env = append(cmd.Env, "LUMINA_TEMPLATE=1")
	r := finish(t, cmd)
	if first, _, _ := strings.Cut(r.stderr, "\n"); first != "boot: from a template" || r.Stdout != "right\n" {
		t.Errorf("run: %s: %s", first, r.stdout)
	}
	cmd = p.command("session", "start", "--image", "debian")
	cmd.Env = append(cmd.Env, "LUMINA_TEMPLATE=1")
	s := finish(t, cmd).succeeded(t)
	defer func() { finish(t, p.command("session", "stop", s.SID)).succeeded(t) }()
	status, line := p.qemuOf(t, s.SID)
	uid, _ := strconv.Atoi(status["Uid"])
	if p.uid != 0 && uid != p.uid || status["CapEff"] != "0000000000000000" || !strings.Contains(line, "-accel kvm") {
		t.Errorf("QEMU's user is %d, its capabilities are %s, its arguments %s", uid, status["CapEff"], line)
	}
	t.Logf("QEMU's user is %d", uid)
}

// qemuOf is the status and the command line of a session's QEMU. There may be others:
// run does not wait for the end of its own, which has no command line any more and on
// a busy host takes its time.
func (p *person) qemuOf(t *testing.T, sid string) (status map[string]string, line string) {
	t.Helper()
	b, err := os.ReadFile(filepath.Join(p.home, "lumina", "sessions", sid, "session.json"))
	var info struct{ PID int }
	if err == nil {
		err = json.Unmarshal(b, &info)
	}
	if err != nil {
		t.Fatal(err)
	}
	children, err := filepath.Glob(fmt.Sprintf("/proc/%d/task/*/children", info.PID))
	if err != nil {
		t.Fatal(err)
	}
	var vms []int
	for _, path := range children {
		b, _ := os.ReadFile(path) // the thread may have ended
		for _, word := range strings.Fields(string(b)) {
			pid, _ := strconv.Atoi(word)
			vms = append(vms, pid)
		}
	}
	if len(vms) != 1 {
		t.Fatalf("the supervisor %d has the children %v, want one QEMU", info.PID, vms)
	}
	return processStatus(t, vms[0]), commandLine(t, vms[0])
}
