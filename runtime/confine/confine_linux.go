package confine

import (
	"cmp"
	"errors"
	"fmt"
	"os"
	"runtime"
	"syscall"
	"unsafe"

	"golang.org/x/sys/unix"
)

// Start calls start in a thread that is confined by p, and then wait, which
// keeps the thread until the process that start made has ended. It returns what
// confining or start failed with.
//
// The process is to be made with clone, the flags of clone(2): an ordinary user's gets
// its namespaces so. Where this host does not let it, start is called again, with none.
func Start(p Policy, start func(clone uintptr) error, wait func()) error {
	in := func(clone uintptr) error {
		started := make(chan error)
		go inThread(func() { run(p, clone, start, wait, started) })
		return <-started
	}
	if os.Geteuid() != 0 && !p.KeepPrivileges && !p.Thread {
		err := in(unix.CLONE_NEWUSER | p.namespaces())
		if !errors.Is(err, errNone) {
			return err
		}
	}
	return in(0)
}

// Narrow leaves this process, all of its threads, the files of p and nothing else of
// what it may open; what it has open it keeps, and so do the processes that it has
// started. Of the directories of entries it may list what is in them, and make, rename
// and remove directories there. A kernel without Landlock and a program that was built
// with cgo have none of it: [errors.ErrUnsupported]. It takes no new privileges from
// then on, nor does what it starts.
func Narrow(p Policy, entries ...string) error {
	attr, _ := handled(Landlock(), true)
	attr.Scoped = 0
	rules, err := p.rulesetOf(attr, unsafe.Offsetof(attr.Handled_access_net))
	if err != nil || rules < 0 {
		return errors.Join(err, errors.ErrUnsupported)
	}
	defer unix.Close(rules)
	for _, dir := range entries {
		f, err := unix.Open(dir, unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
		if err != nil {
			return &os.PathError{Op: "open", Path: dir, Err: err}
		}
		err = allow(rules, f, 0, unix.LANDLOCK_ACCESS_FS_READ_DIR|unix.LANDLOCK_ACCESS_FS_MAKE_DIR|unix.LANDLOCK_ACCESS_FS_REMOVE_DIR)
		unix.Close(f)
		if err != nil {
			return err
		}
	}
	// Each of these interrupts all threads. What Start made has given up new privileges.
	if given, err := unix.PrctlRetInt(unix.PR_GET_NO_NEW_PRIVS, 0, 0, 0, 0); err != nil || given == 0 {
		if _, _, errno := syscall.AllThreadsSyscall6(unix.SYS_PRCTL, unix.PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0, 0); errno != 0 {
			return errno // ENOTSUP, which is errors.ErrUnsupported, with cgo
		}
	}
	if _, _, errno := syscall.AllThreadsSyscall(unix.SYS_LANDLOCK_RESTRICT_SELF, uintptr(rules), 0, 0); errno != 0 {
		return fmt.Errorf("restricting the process by Landlock: %w", errno)
	}
	return nil
}

// errNone is what a process of an ordinary user's failed with that could have no
// namespaces.
var errNone = errors.New("no namespaces")

// withoutNamespaces tells whether err can be for lack of the right to make some, or of
// a kernel that has them.
func withoutNamespaces(err error) bool {
	for _, errno := range []unix.Errno{unix.EPERM, unix.EACCES, unix.ENOSPC, unix.EUSERS, unix.EINVAL, unix.ENOSYS} {
		if errors.Is(err, errno) {
			return true
		}
	}
	return false
}

// inThread calls do in a thread that ends with it, and is not the first one: that
// stands for the whole process, and stays as it is.
func inThread(do func()) {
	runtime.LockOSThread() // and never unlocked: the thread ends with the goroutine
	if unix.Gettid() != unix.Getpid() {
		do()
		return
	}
	again := make(chan struct{})
	go func() {
		defer close(again)
		runtime.LockOSThread()
		do()
	}()
	<-again
	runtime.UnlockOSThread()
}

func run(p Policy, clone uintptr, start func(clone uintptr) error, wait func(), started chan<- error) {
	user, free, err := p.user()
	defer free()
	if err == nil {
		err = p.confineThread(user, clone)
	}
	if err != nil {
		err = fmt.Errorf("confining the process: %w", err)
	} else {
		err = start(clone)
		if clone != 0 && withoutNamespaces(err) {
			err = fmt.Errorf("%w: %w", errNone, err)
		}
	}
	started <- err
	if err == nil {
		wait()
	}
}

// user is the one that the process gets in place of root, KeepUser for none. free
// is called when the process has ended.
//
// Who has the abstract socket of a number has the number: the kernel takes it back
// however this process ends.
func (p *Policy) user() (user int, free func(), err error) {
	if p.User != OwnUser || p.KeepPrivileges || os.Geteuid() != 0 {
		return p.User, func() {}, nil
	}
	s, err := unix.Socket(unix.AF_UNIX, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return 0, func() {}, err
	}
	for n := range Users {
		err = unix.Bind(s, &unix.SockaddrUnix{Name: fmt.Sprintf("@lumina-user-%d", FirstUser+n)})
		if !errors.Is(err, unix.EADDRINUSE) {
			return FirstUser + n, func() { unix.Close(s) }, err
		}
	}
	unix.Close(s)
	return 0, func() {}, fmt.Errorf("all %d users are in use", Users)
}

func (p *Policy) confineThread(user int, clone uintptr) error {
	rules, err := p.ruleset()
	if err != nil {
		return fmt.Errorf("laying out Landlock's rules: %w", err)
	}
	if rules >= 0 {
		defer unix.Close(rules)
	}
	if p.Thread {
		// The system call: its wrapper is for the whole process.
		if _, _, errno := unix.RawSyscall(unix.SYS_UNSHARE, unix.CLONE_FS, 0, 0); errno != 0 {
			return fmt.Errorf("leaving the process's umask: %w", errno)
		}
		unix.Umask(0)
	}
	first := clone != 0
	if os.Geteuid() == 0 && !p.KeepPrivileges {
		if !p.Thread {
			first = p.separate()
		}
		if err := p.dropRoot(user); err != nil {
			return err
		}
	}
	if err := unix.Prctl(unix.PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0); err != nil {
		return fmt.Errorf("giving up new privileges: %w", err)
	}
	if rules >= 0 {
		if _, _, errno := unix.RawSyscall(unix.SYS_LANDLOCK_RESTRICT_SELF, uintptr(rules), 0, 0); errno != 0 {
			return fmt.Errorf("restricting the thread by Landlock: %w", errno)
		}
	}
	if p.KeepPrivileges {
		return nil
	}
	return newProgram(p.Network, clone, first).install()
}

// namespaces are those that a process gets: a network with no interface that is up,
// and no abstract sockets; no System V or POSIX queues; its own view of what is mounted,
// its own name of the host, and no process but itself.
func (p *Policy) namespaces() uintptr {
	flags := uintptr(unix.CLONE_NEWNS | unix.CLONE_NEWIPC | unix.CLONE_NEWUTS | unix.CLONE_NEWPID)
	if !p.Network {
		flags |= unix.CLONE_NEWNET
	}
	return flags
}

// separate gives a process of root's its namespaces, in which it will be the first
// process. Where root may not make them, as in a container, the rest has to do.
//
// One of an ordinary user's is made in them: they belong to a namespace of users, in
// which it is nobody. No number of a user means anything there, so that it cannot have
// a capability, nor make another such namespace (user_namespaces(7)).
func (p *Policy) separate() (first bool) {
	if unix.Unshare(int(p.namespaces())) != nil {
		return false
	}
	// What the host unmounts is unmounted there, too, or it would stay in use.
	_ = unix.Mount("", "/", "", unix.MS_REC|unix.MS_SLAVE, "")
	return true
}

// Namespaces says whether the processes that this one confines get namespaces of
// their own. It makes some, to see.
func Namespaces() bool {
	var p Policy
	if os.Geteuid() != 0 {
		const none = "/proc/self/no such program"
		_, err := syscall.ForkExec(none, []string{none}, &syscall.ProcAttr{Sys: &syscall.SysProcAttr{Cloneflags: unix.CLONE_NEWUSER | p.namespaces()}})
		return errors.Is(err, unix.ENOENT) // all was made but the program
	}
	made := make(chan bool)
	go inThread(func() { made <- unix.Unshare(int(p.namespaces())) == nil })
	return <-made
}

// dropRoot leaves the thread without capabilities, also for what it runs, and
// with another user where that can be had: a container need not have it.
func (p *Policy) dropRoot(user int) error {
	for c := uintptr(0); ; c++ {
		err := unix.Prctl(unix.PR_CAPBSET_DROP, c, 0, 0, 0)
		if errors.Is(err, unix.EINVAL) || errors.Is(err, unix.EPERM) {
			// The last one is behind us, or this root may not: a program that it
			// runs gets none of those that it has given up either way.
			break
		}
		if err != nil {
			return fmt.Errorf("dropping capabilities: %w", err)
		}
	}
	// The system calls themselves: their wrappers change all threads.
	groups := make([]uint32, 0, len(p.Groups)+1)
	for _, g := range p.Groups {
		groups = append(groups, uint32(g))
	}
	_, _, errno := unix.RawSyscall(unix.SYS_SETGROUPS, uintptr(len(groups)), uintptr(unsafe.Pointer(unsafe.SliceData(groups))), 0)
	if id, group := uintptr(user), uintptr(cmp.Or(p.Group, user)); user != KeepUser {
		if errno == 0 {
			_, _, errno = unix.RawSyscall(unix.SYS_SETRESGID, group, group, group)
		}
		if errno == 0 {
			_, _, errno = unix.RawSyscall(unix.SYS_SETRESUID, id, id, id)
		}
	}
	if errno != 0 && errno != unix.EINVAL && errno != unix.EPERM {
		return fmt.Errorf("changing to the user %d: %w", user, errno)
	}
	header := unix.CapUserHeader{Version: unix.LINUX_CAPABILITY_VERSION_3}
	var none [2]unix.CapUserData
	if err := unix.Capset(&header, &none[0]); err != nil {
		return fmt.Errorf("dropping capabilities: %w", err)
	}
	return nil
}

// What Landlock's rules are about, by the version of its interface that brought
// each (include/uapi/linux/landlock.h, Documentation/userspace-api/landlock.rst).
const (
	readFile  = unix.LANDLOCK_ACCESS_FS_READ_FILE | unix.LANDLOCK_ACCESS_FS_EXECUTE
	writeFile = readFile | unix.LANDLOCK_ACCESS_FS_WRITE_FILE | unix.LANDLOCK_ACCESS_FS_TRUNCATE | unix.LANDLOCK_ACCESS_FS_IOCTL_DEV
	readDir   = readFile | unix.LANDLOCK_ACCESS_FS_READ_DIR
	version1  = unix.LANDLOCK_ACCESS_FS_MAKE_SYM<<1 - 1
	everyFile = version1 | unix.LANDLOCK_ACCESS_FS_REFER | unix.LANDLOCK_ACCESS_FS_TRUNCATE | unix.LANDLOCK_ACCESS_FS_IOCTL_DEV
)

// Landlock is the version of Landlock's interface in this kernel; 0: it has none.
func Landlock() int {
	v, _, errno := unix.Syscall(unix.SYS_LANDLOCK_CREATE_RULESET, 0, 0, unix.LANDLOCK_CREATE_RULESET_VERSION)
	if errno != 0 {
		return 0
	}
	return int(v)
}

// handled is what a kernel can take away, and the size of its description.
func handled(version int, network bool) (attr unix.LandlockRulesetAttr, size uintptr) {
	attr.Handled_access_fs = version1
	size = unsafe.Offsetof(attr.Handled_access_net)
	for _, added := range []struct {
		version int
		access  uint64
	}{
		{2, unix.LANDLOCK_ACCESS_FS_REFER},
		{3, unix.LANDLOCK_ACCESS_FS_TRUNCATE},
		{5, unix.LANDLOCK_ACCESS_FS_IOCTL_DEV},
	} {
		if version >= added.version {
			attr.Handled_access_fs |= added.access
		}
	}
	if version >= 4 {
		size = unsafe.Offsetof(attr.Scoped)
		if !network {
			attr.Handled_access_net = unix.LANDLOCK_ACCESS_NET_BIND_TCP | unix.LANDLOCK_ACCESS_NET_CONNECT_TCP
		}
	}
	if version >= 6 {
		size = unsafe.Offsetof(attr.Quiet_access_fs)
		attr.Scoped = unix.LANDLOCK_SCOPE_SIGNAL
		if !network {
			attr.Scoped |= unix.LANDLOCK_SCOPE_ABSTRACT_UNIX_SOCKET
		}
	}
	return attr, size
}

// ruleset makes Landlock's; -1 where the kernel has no Landlock.
func (p *Policy) ruleset() (fd int, err error) {
	attr, size := handled(Landlock(), p.Network)
	return p.rulesetOf(attr, size)
}

func (p *Policy) rulesetOf(attr unix.LandlockRulesetAttr, size uintptr) (fd int, err error) {
	if Landlock() == 0 {
		return -1, nil
	}
	r, _, errno := unix.Syscall(unix.SYS_LANDLOCK_CREATE_RULESET, uintptr(unsafe.Pointer(&attr)), size, 0)
	if errno != 0 {
		return -1, errno
	}
	fd = int(r)
	defer func() {
		if err != nil {
			unix.Close(fd)
		}
	}()
	for _, group := range []struct {
		paths         []string
		onFile, onDir uint64
	}{{p.Read, readFile, readDir}, {p.Write, writeFile, everyFile}} {
		for _, path := range group.paths {
			f, err := unix.Open(path, unix.O_PATH|unix.O_CLOEXEC, 0)
			if errors.Is(err, unix.ENOENT) || errors.Is(err, unix.EACCES) {
				continue
			}
			if err != nil {
				return -1, &os.PathError{Op: "open", Path: path, Err: err}
			}
			err = allow(fd, f, group.onFile&attr.Handled_access_fs, group.onDir&attr.Handled_access_fs)
			unix.Close(f)
			if err != nil {
				return -1, fmt.Errorf("path %q: %w", path, err)
			}
		}
	}
	return fd, nil
}

// allow adds a rule for a file or a directory with all below it.
func allow(ruleset, f int, onFile, onDir uint64) error {
	var st unix.Stat_t
	if err := unix.Fstat(f, &st); err != nil {
		return err
	}
	rule := unix.LandlockPathBeneathAttr{Allowed_access: onFile, Parent_fd: int32(f)}
	if st.Mode&unix.S_IFMT == unix.S_IFDIR {
		rule.Allowed_access = onDir
	}
	_, _, errno := unix.Syscall6(unix.SYS_LANDLOCK_ADD_RULE, uintptr(ruleset), unix.LANDLOCK_RULE_PATH_BENEATH, uintptr(unsafe.Pointer(&rule)), 0, 0, 0)
	switch errno {
	case 0, unix.EBADFD: // the latter: it is on no file system, and Landlock leaves it alone
		return nil
	}
	return errno
}
