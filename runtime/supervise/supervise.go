// Package supervise starts processes that own a VM and outlive the process that started
// them, and connects to them. Such a process has a directory of its own with a unix
// socket in it; there is no daemon.
package supervise

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"sync"
	"syscall"

	"github.com/abdul-abdi/lumina/runtime/accept"
	"github.com/abdul-abdi/lumina/runtime/confine"
	"github.com/abdul-abdi/lumina/runtime/vm"
)

// maxMessage bounds what parent and child tell each other, in bytes.
const maxMessage = 1 << 20

// reportDescriptor is the child's descriptor for its report; the files given to
// Start come after it.
const reportDescriptor = 3

// told is what the child is sent when its report has come.
const told = '.'

// FirstFile is the child's descriptor of the first of Start's files.
const FirstFile = reportDescriptor + 1

// ErrDied is returned when a child ended without a report.
var ErrDied = errors.New("supervisor died while it started")

// Start runs program with args, in a process that is detached from this one's
// terminal. The child is given input and calls Main; Start returns when it has
// reported. The child is confined by policy. A start that is given up takes the
// child with it, and so does a caller that is killed before it has the report.
func Start(ctx context.Context, program string, args []string, policy confine.Policy, input, report any, files ...*os.File) error {
	b, err := json.Marshal(input)
	if err != nil {
		return err
	}
	result, theirs, err := os.Pipe()
	if err != nil {
		return err
	}
	defer result.Close()
	// Open until the report is here: how the child learns that nobody waits any more.
	stdin, asks, err := os.Pipe()
	if err != nil {
		theirs.Close()
		return err
	}
	defer asks.Close()
	cmd := exec.Command(program, args...)
	cmd.Dir, cmd.Env = "/", Environment()
	cmd.Stdin = stdin
	cmd.ExtraFiles = append([]*os.File{theirs}, files...)
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
	// Reaped when it ends, if this process is still there.
	err = confine.Start(policy, func(uintptr) error { return cmd.Start() }, func() { _ = cmd.Wait() })
	theirs.Close()
	stdin.Close()
	if err != nil {
		return fmt.Errorf("starting the supervisor: %w", err)
	}
	defer context.AfterFunc(ctx, func() { _ = cmd.Process.Signal(syscall.SIGTERM) })()
	_, _ = asks.Write(b) // one that ends before it has read this does not report
	b, err = io.ReadAll(io.LimitReader(result, maxMessage))
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}
	if err != nil {
		return fmt.Errorf("waiting for the supervisor: %w", err)
	}
	if json.Unmarshal(b, report) != nil {
		return ErrDied
	}
	_, _ = asks.Write([]byte{told}) // one that reports a failure may have ended
	return nil
}

// Policy is what every supervisor may do: read the system, and change the state
// directory. It starts the hypervisor of driver, which may do less.
func Policy(program, home string, driver vm.Driver) (confine.Policy, error) {
	if err := os.MkdirAll(home, 0o700); err != nil {
		return confine.Policy{}, err
	}
	p := confine.Policy{
		Read:           append(system(), program),
		Write:          []string{home, "/dev/null", "/dev/kvm"},
		KeepPrivileges: true,
		Network:        true,
	}
	if cache := vm.CacheDir(); cache != "" { // what drivers know of this host
		if err := os.MkdirAll(cache, 0o700); err != nil {
			return confine.Policy{}, err
		}
		p.Write = append(p.Write, cache)
	}
	if d, ok := driver.(vm.Installed); ok {
		reads, writes := d.Installation()
		p.Read, p.Write = append(p.Read, reads...), append(p.Write, writes...)
	}
	// The parts of the state directory may be links to larger disks.
	parts, err := os.ReadDir(home)
	if err != nil {
		return confine.Policy{}, err
	}
	for _, part := range parts {
		if part.Type()&os.ModeSymlink != 0 {
			p.Write = append(p.Write, filepath.Join(home, part.Name()))
		}
	}
	return p, nil
}

// Settle leaves a supervisor whose machine runs less than Policy: of the state directory
// only dir, which is its own, in the directory of all such; and what p has, which is
// shared. A guest that takes over what carries its network, in this process, finds
// neither images nor templates nor other machines' files there.
func Settle(dir string, p confine.Policy, driver vm.Driver) error {
	p.Read = append(p.Read, system()...)
	p.Write = append(p.Write, dir, "/dev/null")
	if d, ok := driver.(vm.Installed); ok {
		_, writes := d.Installation()
		p.Write = append(p.Write, writes...)
	}
	err := confine.Narrow(p, filepath.Dir(dir))
	if errors.Is(err, errors.ErrUnsupported) {
		return nil // as without Landlock at all: see lumina doctor
	}
	return err
}

// system is what of this system a supervisor reads.
func system() []string {
	paths := []string{"/usr", "/bin", "/lib", "/lib64", "/opt", "/nix/store", "/gnu/store", "/home/linuxbrew",
		"/etc", "/proc", "/sys", "/run", "/dev/urandom"}
	// How names are resolved may be said elsewhere, as on WSL: a file that another
	// program replaces.
	if path, err := filepath.EvalSymlinks("/etc/resolv.conf"); err == nil && filepath.Dir(path) != "/" {
		paths = append(paths, filepath.Dir(path))
	}
	return paths
}

// errAlone is why a child ends whose Start was killed before it had the report.
var errAlone = errors.New("who started this has ended, and was not told of it")

// Main begins a process that Start has made: it reads the input and returns the
// function that reports, to be called once, when all is started. The context that it
// returns ends with ctx, and when nobody is there any more who takes the report.
func Main(ctx context.Context, stdin io.Reader, input any) (_ context.Context, report func(any), err error) {
	LeaveCPUs()
	result := os.NewFile(reportDescriptor, "result")
	if result == nil {
		return nil, nil, errors.New("supervisors are started by lumina only")
	}
	syscall.CloseOnExec(reportDescriptor)
	if err := json.NewDecoder(io.LimitReader(stdin, maxMessage)).Decode(input); err != nil {
		return nil, nil, fmt.Errorf("reading what to start: %w", err)
	}
	return attended(ctx, stdin), func(v any) {
		defer result.Close()
		_ = json.NewEncoder(result).Encode(v)
	}, nil
}

// attended is ctx that ends when starter does before it says that it was told.
func attended(ctx context.Context, starter io.Reader) context.Context {
	ctx, cancel := context.WithCancelCause(ctx)
	go func() {
		if _, err := io.ReadFull(starter, make([]byte, 1)); err != nil {
			cancel(errAlone)
		}
	}()
	return ctx
}

// LeaveCPUs has this process's goroutines take half of the host's CPUs,
// at least one. It is for a process that owns a VM and carries its bytes: the VM
// has more use for the others, and between goroutines of one CPU a frame is
// handed on without waking a thread.
func LeaveCPUs() { runtime.GOMAXPROCS(max(1, runtime.NumCPU()/2)) }

// maxSocketPath is the length that every system's sockaddr_un takes.
const maxSocketPath = 103

const socketName = "socket"

// openFiles is where some systems have a process's open files, by their numbers.
const openFiles = "/proc/self/fd"

// CheckDir says whether a directory can have a supervisor's socket, which is better
// known before a VM is started.
func CheckDir(dir string) error {
	_, hold, err := socketAddress(dir, openFiles)
	if hold != nil {
		hold.Close()
	}
	return err
}

// socketAddress names dir's socket shortly enough for the kernel. The returned
// file, if any, must stay open while the address is used.
func socketAddress(dir, openFiles string) (string, *os.File, error) {
	path := filepath.Join(dir, socketName)
	if len(path) <= maxSocketPath {
		return path, nil, nil
	}
	f, err := os.Open(dir)
	if err != nil {
		return "", nil, err
	}
	short := fmt.Sprintf("%s/%d/%s", openFiles, f.Fd(), socketName)
	if _, err := os.Stat(filepath.Dir(short)); err != nil {
		f.Close()
		return "", nil, fmt.Errorf("path of socket %q is longer than %d bytes; set LUMINA_HOME to a shorter one", path, maxSocketPath)
	}
	return short, f, nil
}

// Listen makes the socket of a directory that only this user can enter.
func Listen(dir string) (net.Listener, error) {
	address, hold, err := socketAddress(dir, openFiles)
	if err != nil {
		return nil, err
	}
	if hold != nil {
		defer hold.Close()
	}
	l, err := net.Listen("unix", address)
	if err != nil {
		return nil, fmt.Errorf("listening on the supervisor's socket: %w", err)
	}
	if err := os.Chmod(filepath.Join(dir, socketName), 0o600); err != nil {
		l.Close()
		return nil, err
	}
	return l, nil
}

// ErrGone is wrapped when nobody listens: the supervisor was killed, has ended,
// or has not started yet.
var ErrGone = errors.New("no supervisor answers")

// Unread says whether an error means that the supervisor was killed before it
// read what was asked: its socket outlives it by a moment.
func Unread(err error) bool {
	return errors.Is(err, syscall.ECONNRESET) || errors.Is(err, syscall.EPIPE)
}

// Dial connects to the socket of a directory. The connection begins with kind,
// and passes the files, which travel with what is written first: the supervisor
// wakes up once. The files have to stay open until then.
func Dial(ctx context.Context, dir string, kind byte, files ...*os.File) (net.Conn, error) {
	address, hold, err := socketAddress(dir, openFiles)
	if err != nil {
		return nil, err
	}
	if hold != nil {
		defer hold.Close()
	}
	var d net.Dialer
	conn, err := d.DialContext(ctx, "unix", address)
	if errors.Is(err, syscall.ECONNREFUSED) || errors.Is(err, os.ErrNotExist) {
		return nil, fmt.Errorf("%w: %w", ErrGone, err)
	}
	if err != nil {
		return nil, err
	}
	o := &opening{UnixConn: conn.(*net.UnixConn), kind: []byte{kind}}
	for _, f := range files {
		o.rights = append(o.rights, syscall.UnixRights(int(f.Fd()))...)
	}
	return o, nil
}

// DialPlain connects to the socket of a directory, and says nothing: who listens there
// can be asked of the kernel.
func DialPlain(ctx context.Context, dir string) (net.Conn, error) {
	conn, err := Dial(ctx, dir, 0)
	if err != nil {
		return nil, err
	}
	return conn.(*opening).UnixConn, nil
}

// spare is how many descriptors a supervisor keeps for those who ask for its end,
// whatever its guest and other clients have open.
const spare = 4

// Serve calls serve for each connection to the socket that Listen made, until it is
// closed. When descriptors are scarce, serve should serve only who may free some.
func Serve(l net.Listener, serve func(conn *net.UnixConn, scarce bool)) {
	accept.Reserved(l, spare, func(conn net.Conn, scarce bool) { serve(conn.(*net.UnixConn), scarce) })
}

// opening is a connection whose first byte has yet to be sent.
type opening struct {
	*net.UnixConn
	mu     sync.Mutex
	kind   []byte // nil once it was sent
	rights []byte // control messages that go with it
}

func (o *opening) Write(p []byte) (int, error) {
	if sent, n, err := o.begin(p); sent {
		return n, err
	}
	return o.UnixConn.Write(p)
}

// Read is also for a supervisor that speaks first.
func (o *opening) Read(p []byte) (int, error) {
	if _, _, err := o.begin(nil); err != nil {
		return 0, err
	}
	return o.UnixConn.Read(p)
}

// begin sends the first byte and p, once; concurrent callers wait for it.
func (o *opening) begin(p []byte) (sent bool, n int, err error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.kind == nil {
		return false, 0, nil
	}
	first := append(o.kind, p...)
	n = 0
	if len(o.rights) > 0 {
		n, _, err = o.UnixConn.WriteMsgUnix(first, o.rights, nil)
	}
	if err == nil && n < len(first) {
		var rest int
		rest, err = o.UnixConn.Write(first[n:])
		n += rest
	}
	n = max(0, n-len(o.kind))
	o.kind = nil
	return true, n, err
}

// Signal sends a signal to a supervisor, which has the lock open that it holds: not to
// another process that has got its number since it ended, or whose number somebody has
// written down in its place. A supervisor that has ended needs none.
func Signal(pid int, lock string, signal syscall.Signal) error {
	// The handle stays that of this process, even if its number is used again. Check
	// which process it is while the handle is open.
	p, err := os.FindProcess(pid)
	if err != nil {
		return err
	}
	defer func() { _ = p.Release() }()
	if err = hasOpen(pid, lock); err == nil {
		err = p.Signal(signal)
	}
	if errors.Is(err, os.ErrProcessDone) {
		return nil
	}
	return err
}
