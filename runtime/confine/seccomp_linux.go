package confine

import (
	"fmt"
	"runtime"
	"unsafe"

	"golang.org/x/sys/unix"
)

// A process that is confined makes none of these calls, whatever it runs: those
// that only an administrator's tools need, or debuggers, those that make
// namespaces, those that reach other processes by names of the whole system's, or
// send them signals (a program's threads have tgkill(2)).
var never = []uint32{
	unix.SYS_ACCT, unix.SYS_ADD_KEY, unix.SYS_ADJTIMEX, unix.SYS_BPF, unix.SYS_CHROOT, unix.SYS_CLOCK_ADJTIME, unix.SYS_CLOCK_SETTIME,
	unix.SYS_DELETE_MODULE, unix.SYS_FINIT_MODULE, unix.SYS_FSCONFIG, unix.SYS_FSMOUNT, unix.SYS_FSOPEN, unix.SYS_FSPICK, unix.SYS_INIT_MODULE,
	unix.SYS_KCMP, unix.SYS_KEXEC_FILE_LOAD, unix.SYS_KEXEC_LOAD, unix.SYS_KEYCTL, unix.SYS_MOUNT, unix.SYS_MOUNT_SETATTR, unix.SYS_MOVE_MOUNT,
	unix.SYS_OPEN_BY_HANDLE_AT, unix.SYS_OPEN_TREE, unix.SYS_PERF_EVENT_OPEN, unix.SYS_PIDFD_GETFD, unix.SYS_PIVOT_ROOT,
	unix.SYS_PROCESS_VM_READV, unix.SYS_PROCESS_VM_WRITEV, unix.SYS_PTRACE, unix.SYS_QUOTACTL, unix.SYS_QUOTACTL_FD, unix.SYS_REBOOT,
	unix.SYS_REQUEST_KEY, unix.SYS_SETDOMAINNAME, unix.SYS_SETHOSTNAME, unix.SYS_SETNS, unix.SYS_SETTIMEOFDAY, unix.SYS_SWAPOFF, unix.SYS_SWAPON,
	unix.SYS_SYSLOG, unix.SYS_UMOUNT2, unix.SYS_UNSHARE, unix.SYS_USERFAULTFD, unix.SYS_VHANGUP,
	unix.SYS_MQ_OPEN, unix.SYS_MQ_UNLINK, unix.SYS_MSGGET, unix.SYS_SEMGET, unix.SYS_SHMAT, unix.SYS_SHMGET,
	unix.SYS_KILL, unix.SYS_PIDFD_OPEN, unix.SYS_PIDFD_SEND_SIGNAL, unix.SYS_RT_SIGQUEUEINFO, unix.SYS_RT_TGSIGQUEUEINFO, unix.SYS_TKILL,
}

// absent are calls that this kernel is made not to have: their arguments are in
// memory, where they cannot be checked, and who finds them missing makes the older
// call.
var absent = []uint32{unix.SYS_CLONE3, unix.SYS_OPENAT2, unix.SYS_IO_URING_SETUP, unix.SYS_IO_URING_ENTER, unix.SYS_IO_URING_REGISTER}

// special are the bits of a mode that give a program the rights of its file's
// owner or group.
const special = unix.S_ISUID | unix.S_ISGID

// device is in the modes of both kinds of devices, and of no other file that
// mknod(2) makes.
const device = unix.S_IFCHR

// namespaces are the flags of clone(2) that make one.
const namespaces = unix.CLONE_NEWNS | unix.CLONE_NEWCGROUP | unix.CLONE_NEWUTS | unix.CLONE_NEWIPC | unix.CLONE_NEWUSER | unix.CLONE_NEWPID | unix.CLONE_NEWNET

// bits refuses a call when an argument has one of these bits.
type bits struct {
	call uint32
	arg  int
	bits uint32
}

// A file that a guest makes in a shared directory is a file of the host: it must not
// give other rights to a host user who runs it (setuid, setgid).
var refused = append([]bits{
	{unix.SYS_FCHMOD, 1, special},
	{unix.SYS_FCHMODAT, 2, special},
	{unix.SYS_FCHMODAT2, 2, special},
	{unix.SYS_MKDIRAT, 2, special},
	{unix.SYS_MKNODAT, 2, special | device},
}, refusedHere...)

// opens are the calls that make a file when their flags say so, with the numbers
// of the arguments that are flags and mode.
var opens = append([]open{{unix.SYS_OPENAT, 2, 3}}, opensHere...)

type open struct {
	call        uint32
	flags, mode int
}

// program is a filter in the making. The offsets are those of seccomp_data
// (include/uapi/linux/seccomp.h); both architectures are little-endian.
type program []unix.SockFilter

func (p *program) add(code uint16, k uint32, yes, no uint8) {
	*p = append(*p, unix.SockFilter{Code: code, K: k, Jt: yes, Jf: no})
}

func (p *program) load(offset uint32) { p.add(unix.BPF_LD|unix.BPF_W|unix.BPF_ABS, offset, 0, 0) }

func (p *program) loadArgument(n int) { p.load(16 + 8*uint32(n)) }

func (p *program) jumpEqual(k uint32, yes, no uint8) {
	p.add(unix.BPF_JMP|unix.BPF_JEQ|unix.BPF_K, k, yes, no)
}

func (p *program) jumpBits(k uint32, yes, no uint8) {
	p.add(unix.BPF_JMP|unix.BPF_JSET|unix.BPF_K, k, yes, no)
}

func (p *program) fail(errno unix.Errno) {
	p.add(unix.BPF_RET|unix.BPF_K, unix.SECCOMP_RET_ERRNO|uint32(errno), 0, 0)
}

func (p *program) allow() { p.add(unix.BPF_RET|unix.BPF_K, unix.SECCOMP_RET_ALLOW, 0, 0) }

// newProgram is the filter of a process that makes network connections, or none. It may
// be made with clone's namespaces, which it cannot make again: see separate. First: it is
// the first process of a namespace, and may kill that one, itself, which the kernel
// ignores: whoever is made to end with its parent tries that when it sees none.
func newProgram(network bool, clone uintptr, first bool) program {
	var p program
	p.load(4) // the architecture
	p.jumpEqual(auditArch, 1, 0)
	p.fail(unix.ENOSYS) // those of 32 bits have other numbers
	p.load(0)           // the call
	p.limit()
	if first {
		p.jumpEqual(unix.SYS_KILL, 0, 4)
		p.loadArgument(0)
		p.jumpEqual(1, 1, 0)
		p.fail(unix.EPERM)
		p.allow()
	}
	p.jumpEqual(unix.SYS_CLONE, 0, 6)
	p.loadArgument(0)
	p.add(unix.BPF_ALU|unix.BPF_AND|unix.BPF_K, namespaces, 0, 0)
	p.jumpEqual(0, 2, 0)
	p.jumpEqual(uint32(clone), 1, 0)
	p.fail(unix.EPERM)
	p.allow()
	for _, call := range never {
		p.jumpEqual(call, 0, 1)
		p.fail(unix.EPERM)
	}
	for _, call := range absent {
		p.jumpEqual(call, 0, 1)
		p.fail(unix.ENOSYS)
	}
	for _, r := range refused {
		p.jumpEqual(r.call, 0, 4)
		p.loadArgument(r.arg)
		p.jumpBits(r.bits, 0, 1)
		p.fail(unix.EPERM)
		p.allow()
	}
	for _, o := range opens {
		p.jumpEqual(o.call, 0, 6)
		p.loadArgument(o.flags)
		p.jumpBits(unix.O_CREAT|unix.O_TMPFILE&^unix.O_DIRECTORY, 0, 3)
		p.loadArgument(o.mode)
		p.jumpBits(special, 0, 1)
		p.fail(unix.EPERM)
		p.allow()
	}
	if !network {
		p.jumpEqual(unix.SYS_SOCKET, 0, 4)
		p.loadArgument(0)
		p.jumpEqual(unix.AF_UNIX, 1, 0)
		p.fail(unix.EACCES)
		p.allow()
	}
	p.allow()
	return p
}

// install takes from this thread, and from what it starts, what the filter refuses.
func (p program) install() error {
	program := unix.SockFprog{Len: uint16(len(p)), Filter: &p[0]}
	_, _, errno := unix.RawSyscall(unix.SYS_SECCOMP, unix.SECCOMP_SET_MODE_FILTER, 0, uintptr(unsafe.Pointer(&program)))
	runtime.KeepAlive(p)
	if errno != 0 {
		return fmt.Errorf("filtering system calls: %w", errno)
	}
	return nil
}
