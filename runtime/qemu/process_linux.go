package qemu

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"slices"
	"strings"
	"syscall"

	"golang.org/x/sys/unix"

	"github.com/abdul-abdi/lumina/runtime/cgroup"
	"github.com/abdul-abdi/lumina/runtime/confine"
	"github.com/abdul-abdi/lumina/runtime/vm"
)

// start starts QEMU, confined, so that the kernel kills it when this process
// ends, however it ends. The kernel ties that to the thread that forked: it is
// kept until QEMU has ended.
func (p *process) start(command func() *exec.Cmd, line *command, groups string) error {
	cmd := command()
	group, err := newGroup(line, groups)
	if err != nil {
		return err
	}
	err = confine.Start(policy(cmd.Path, line), func(clone uintptr) error {
		cmd = command()
		cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL, Setpgid: true, Cloneflags: clone}
		if err := cmd.Start(); err != nil {
			return err
		}
		line.arm()
		p.pid.Store(int64(cmd.Process.Pid))
		if err := limit(cmd.Process.Pid, line); err != nil {
			p.Kill() // by another thread: this one may not
			return errors.Join(err, cmd.Wait())
		}
		return nil
	}, func() { p.wait(cmd, group) })
	if group == nil {
		return err
	}
	if err != nil {
		return errors.Join(err, group.Remove())
	}
	// The thread that has made QEMU may not write there.
	if err := group.Add(cmd.Process.Pid); err != nil && !errors.Is(err, unix.ESRCH) {
		return errors.Join(err, cmd.Process.Kill())
	}
	return nil
}

// resident is how much memory QEMU gets beside the guest's: its own, and under
// emulation that of the translated code.
func resident(line *command) int64 {
	if line.kvm {
		return 512 << 20
	}
	return 1536 << 20
}

// newGroup makes the control group of a QEMU in dir; nil where none can be had. It gets
// the CPUs of its guest, and one for what it does itself.
func newGroup(line *command, dir string) (*cgroup.Group, error) {
	if dir == "" || line.window {
		return nil, nil
	}
	return cgroup.New(dir, cgroup.Limits{Memory: line.memory + resident(line), CPUs: line.cpus + 1, Processes: maxThreads + line.cpus})
}

// policy is what QEMU may do beside using the files that it inherits.
func policy(program string, line *command) confine.Policy {
	if line.window {
		// Its toolkit needs what the user's session has.
		return confine.Policy{Write: []string{"/"}, KeepPrivileges: true, Network: true}
	}
	p := confine.Policy{
		Read: append(installation(program), "/usr", "/lib", "/lib64",
			"/opt", "/nix/store", "/gnu/store", "/home/linuxbrew", "/etc/ld.so.cache", "/sys/devices/system", "/dev/urandom"),
		Write: []string{"/dev/null"},
	}
	p.User, p.Groups = identity(line)
	if line.kvm {
		p.Write = append(p.Write, kvm)
	}
	for _, f := range line.reads {
		p.Read = append(p.Read, confine.Opened(f))
	}
	for _, f := range line.writes {
		p.Write = append(p.Write, confine.Opened(f))
	}
	if line.firmware != "" {
		p.Read = append(p.Read, line.firmware)
	}
	return p
}

// identity is who a QEMU of root's is: a user of its own. Where that user could not
// open all that QEMU opens by name, it is root, without any capability.
func identity(line *command) (user int, groups []int) {
	groups = []int{confine.Group}
	var device unix.Stat_t
	if line.kvm && unix.Stat(kvm, &device) == nil && device.Gid != 0 {
		groups = append(groups, int(device.Gid)) // root's own would be too much
	}
	opens := func(st *unix.Stat_t, bits uint32) bool {
		if slices.Contains(groups, int(st.Gid)) {
			return st.Mode&(bits<<3) == bits<<3
		}
		return st.Mode&bits == bits
	}
	all := func(files []*os.File, bits uint32) bool {
		return !slices.ContainsFunc(files, func(f *os.File) bool {
			var st unix.Stat_t
			return unix.Fstat(int(f.Fd()), &st) != nil || !opens(&st, bits)
		})
	}
	if line.kvm && !opens(&device, 0o6) || !all(line.reads, 0o4) || !all(line.writes, 0o6) {
		return confine.KeepUser, groups
	}
	return confine.OwnUser, groups
}

// giveMemory lets every QEMU that root starts open a file again, whichever user it runs as.
func giveMemory(f *os.File) error {
	if os.Geteuid() != 0 {
		return nil
	}
	err := f.Chown(-1, confine.Group)
	if err == nil {
		err = f.Chmod(0o660)
	}
	if errors.Is(err, unix.EINVAL) || errors.Is(err, unix.EPERM) {
		return nil // this root has no further groups, and QEMU stays root's
	}
	return err
}

// checkConfinement says what holds QEMU beside its own sandbox.
func checkConfinement(groups string) vm.Check {
	on := []string{"QEMU's seccomp sandbox, and one around it", "limits on memory and files"}
	if os.Geteuid() == 0 {
		on = append(on, "no capabilities", "a user of its own for each VM")
	}
	if confine.Namespaces() {
		on = append(on, "a network, mounts, queues, processes and a host name of its own (namespaces)")
	} else {
		on = append(on, "no namespaces, which this host does not let "+who()+" make (user.max_user_namespaces, kernel.unprivileged_userns_clone, kernel.apparmor_restrict_unprivileged_userns)")
	}
	check := vm.Check{Name: "confinement", Status: vm.CheckOK}
	if v := confine.Landlock(); v > 0 {
		on = append(on, fmt.Sprintf("Landlock %d", v))
	} else {
		check.Status, check.Remedy = vm.CheckWarn, "use a kernel with Landlock (5.13 or newer, in the list of lsm=): a QEMU that a guest has taken over can read what its user can"
	}
	if groups != "" {
		on = append(on, "control groups below "+groups)
	}
	check.Detail = strings.Join(on, ", ")
	return check
}

func who() string {
	if os.Geteuid() == 0 {
		return "this root"
	}
	return "its users"
}

// overhead is how much address space QEMU gets beside the guest's memory. Most
// of it is for translated code (1 GiB) and the stacks of threads.
const overhead = 4 << 30

// maxThreads is how many threads QEMU gets beside one for each of the guest's
// CPUs; it does what waits for disks in up to 64.
const maxThreads = 256

// maxFiles is how many files QEMU gets.
const maxFiles = 1 << 10

// limit bounds what QEMU takes of the host, whatever a guest makes it do.
func limit(pid int, line *command) error {
	limits := map[int]uint64{unix.RLIMIT_CORE: 0} // it would hold the guest's memory
	if !line.window {
		limits[unix.RLIMIT_AS] = uint64(line.memory) + overhead
	}
	// What it writes are disks and, for a template, the memory.
	limits[unix.RLIMIT_FSIZE] = uint64(max(line.memory, line.largest))
	if !line.window {
		limits[unix.RLIMIT_NOFILE] = maxFiles
	}
	if unix.Geteuid() >= confine.FirstUser {
		limits[unix.RLIMIT_NPROC] = uint64(maxThreads + line.cpus) // of this user, who has this VM only
	}
	for what, most := range limits {
		var now unix.Rlimit
		err := unix.Prlimit(pid, what, nil, &now)
		if most = min(most, now.Max); err == nil {
			err = unix.Prlimit(pid, what, &unix.Rlimit{Cur: most, Max: most}, nil)
		}
		if err != nil {
			return fmt.Errorf("limiting QEMU's resources: %w", err)
		}
	}
	return nil
}

// letRead lets QEMU, whichever user it runs as, open a pipe that it inherits.
func letRead(pipe *os.File) error { return pipe.Chmod(0o644) }
