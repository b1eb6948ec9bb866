// Package qemu runs virtual machines with QEMU: its microvm machine on amd64
// and virt on arm64, booting the kernel directly. One machine is one child
// process, which dies with this one.
package qemu

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"sync/atomic"
	"time"

	"github.com/abdul-abdi/lumina/initramfs/mux"
	"github.com/abdul-abdi/lumina/initramfs/protocol"
	"github.com/abdul-abdi/lumina/runtime/cgroup"
	"github.com/abdul-abdi/lumina/runtime/vm"
)

// consoleTail is the default of [vm.Spec.ConsoleTail], in bytes.
const consoleTail = 16 << 10

// Options are what a user decides. Zero values mean that the driver finds out for
// itself.
type Options struct {
	// Accelerator is how guests are run; the one that this host has when empty.
	Accelerator Accelerator
	// ControlGroup is the directory in which each QEMU gets a control group; what was
	// delegated to this user when empty.
	ControlGroup string
}

// Driver starts machines.
type Driver struct {
	cacheDir string
	options  Options
}

// New makes a driver. It remembers what it finds out about the host in the
// user's cache directory.
func New(o Options) *Driver {
	return &Driver{cacheDir: vm.CacheDir(), options: o}
}

var _ vm.Driver = (*Driver)(nil)

// ErrNotInstalled is wrapped when QEMU is not on this host.
var ErrNotInstalled = errors.New("QEMU is not installed")

// Start is part of [vm.Driver].
func (d *Driver) Start(ctx context.Context, spec vm.Spec) (vm.Machine, error) {
	verdict, err := d.Probe(ctx, spec)
	if err != nil {
		return nil, err
	}
	p, err := d.start(ctx, spec, verdict)
	if err != nil {
		return nil, err
	}
	return p, nil
}

// find returns the path of the QEMU for an architecture.
func find(arch string) (string, error) {
	m, ok := machines[arch]
	if !ok {
		return "", fmt.Errorf("architecture %q: %w", arch, vm.ErrUnsupported)
	}
	path, err := exec.LookPath(m.binary)
	if err != nil {
		return "", fmt.Errorf("%w: %s is not in the PATH; on Debian: apt-get install %s", ErrNotInstalled, m.binary, packageOf[arch])
	}
	return path, nil
}

var (
	_ vm.Installed  = (*Driver)(nil)
	_ vm.Cleaner    = (*Driver)(nil)
	_ vm.LateReader = (*Driver)(nil)
)

// ReadsLate is part of [vm.LateReader].
func (d *Driver) ReadsLate() {}

// Installation is part of [vm.Installed].
func (d *Driver) Installation() (reads, writes []string) {
	for _, m := range machines {
		if program, err := exec.LookPath(m.binary); err == nil {
			reads = append(reads, installation(program)...)
		}
	}
	if dir := d.controlGroup(); dir != "" {
		writes = append(writes, dir)
	}
	return reads, writes
}

// Clean is part of [vm.Cleaner].
func (d *Driver) Clean() {
	if dir := d.controlGroup(); dir != "" {
		cgroup.Clean(dir)
	}
}

// controlGroup is the directory in which each QEMU gets a group; "" for none.
func (d *Driver) controlGroup() string {
	if d.options.ControlGroup != "" {
		return d.options.ControlGroup
	}
	return cgroup.Delegated()
}

// installation is a program with its libraries and firmware, wherever it was
// installed.
func installation(program string) []string {
	if real, err := filepath.EvalSymlinks(program); err == nil {
		program = real
	}
	prefix := filepath.Dir(filepath.Dir(program))
	return []string{program, filepath.Join(prefix, "lib"), filepath.Join(prefix, "share")}
}

// start boots a machine and greets its agent.
func (d *Driver) start(ctx context.Context, spec vm.Spec, v Verdict) (*process, error) {
	line, err := newCommand(machines[spec.Arch], v, spec, nil)
	if err != nil {
		return nil, err
	}
	p := newProcess(line, spec.ConsoleTail)
	if err := p.launch(ctx, spec.Arch, line, d.controlGroup()); err != nil {
		return nil, err
	}
	go p.listen()
	return p, p.greet()
}

// greet begins the conversation with the agent of a machine that boots.
func (p *process) greet() error {
	p.agent = mux.Client(&greeting{Conn: p.port, done: p.greeted})
	if err := protocol.SendHello(p.port); err != nil {
		p.cancel() // not Kill: if it ended by itself, how is the reason
		<-p.done
		return fmt.Errorf("greeting the guest: %w", errors.Join(err, p.err))
	}
	return nil
}

// newProcess makes a process that is not started. It takes over our ends of what
// connects it with us.
func newProcess(line *command, consoleSize int) *process {
	if consoleSize == 0 {
		consoleSize = consoleTail
	}
	p := &process{
		port:     line.port,
		control:  line.control,
		done:     make(chan struct{}),
		greeted:  make(chan struct{}),
		followed: make(chan struct{}),
		console:  vm.NewTail(consoleSize),
		stderr:   &head{},
		notes:    notes{disks: line.disks, migrated: make(chan string, 16)},
	}
	p.output = p.console
	if p.port != nil {
		p.output = &haltWatch{Writer: p.console, halted: p.halt}
	}
	return p
}

// listen follows QEMU's events.
func (p *process) listen() {
	m, err := openMonitor(p.control)
	if err != nil {
		close(p.followed) // it has ended
		return
	}
	p.follow(m)
	p.checkState(m)
}

// checkState ends a machine that has stopped already.
func (p *process) checkState(m *monitor) {
	if goesOn, err := m.goesOn(); err == nil && !goesOn {
		p.fail("QEMU stopped the machine")
	}
}

func (p *process) follow(m *monitor) {
	m.follow(p.event, func() { close(p.followed) })
}

// launch starts QEMU, in a control group below groups, if that is not empty.
func (p *process) launch(ctx context.Context, arch string, line *command, groups string) error {
	defer line.close()
	path, err := find(arch)
	if err != nil {
		p.hangUp()
		return err
	}
	if err := context.Cause(ctx); err != nil {
		p.hangUp()
		return err
	}
	p.ctx = ctx
	ctx, p.cancel = context.WithCancel(ctx)
	command := func() *exec.Cmd {
		cmd := exec.CommandContext(ctx, path, line.args...)
		cmd.ExtraFiles = line.files
		cmd.Stdout, cmd.Stderr = p.output, p.stderr
		if line.stdin != nil {
			cmd.Stdin = line.stdin
		}
		cmd.Env = environ(line.window)
		return cmd
	}
	if err := p.start(command, line, groups); err != nil {
		p.cancel()
		p.hangUp()
		return fmt.Errorf("starting %s: %w", path, err)
	}
	return nil
}

// environ is QEMU's environment: nothing of the caller's, which may hold secrets,
// but what a window's toolkit cannot do without.
func environ(window bool) []string {
	env := []string{}
	if !window {
		return env
	}
	for _, name := range []string{"DISPLAY", "WAYLAND_DISPLAY", "XAUTHORITY", "XDG_RUNTIME_DIR", "DBUS_SESSION_BUS_ADDRESS",
		"HOME", "PATH", "LANG", "LC_ALL", "LC_CTYPE", "XDG_DATA_DIRS", "XDG_CONFIG_HOME", "XDG_SESSION_TYPE", "GDK_BACKEND", "GDK_SCALE", "GTK_THEME", "XCURSOR_THEME", "XCURSOR_SIZE"} {
		if v, ok := os.LookupEnv(name); ok {
			env = append(env, name+"="+v)
		}
	}
	return env
}

// hangUp closes what connects us with QEMU.
func (p *process) hangUp() {
	if p.port != nil {
		p.port.Close()
	}
	if p.control != nil {
		p.control.Close()
	}
}

var packageOf = map[string]string{"amd64": "qemu-system-x86", "arm64": "qemu-system-arm"}

// process is one running QEMU.
type process struct {
	port     net.Conn      // our end of the agent's serial port; nil for a desktop
	control  *net.UnixConn // of the monitor
	agent    *mux.Session
	output   io.Writer // gets the console's: console, and who else is to
	console  *vm.Tail
	stderr   *head
	notes    notes
	ports    func(open bool) // called when the guest opens or closes the agent's; may be nil
	pid      atomic.Int64    // of QEMU, once it runs
	saving   atomic.Bool     // the machine is stopped for its state to be saved
	ctx      context.Context // of the start
	cancel   context.CancelFunc
	killed   atomic.Bool
	greeted  chan struct{} // closed when the guest's agent has greeted
	followed chan struct{} // closed when all that QEMU said on the monitor was read
	done     chan struct{}
	err      error // set before done is closed
}

var _ vm.Machine = (*process)(nil)

// lastWords bounds the wait for what QEMU said on its monitor before it ended.
const lastWords = time.Second

// wait runs until QEMU has ended.
func (p *process) wait(cmd *exec.Cmd, group *cgroup.Group) {
	err := cmd.Wait()
	wished := p.killed.Load() || p.ctx.Err() != nil // not cancel: it may have ended before
	p.cancel()
	p.err = vm.ErrEnded
	if !wished {
		t := time.NewTimer(lastWords)
		select {
		case <-p.followed:
		case <-t.C:
		}
		t.Stop()
		if err := p.over(err); err != nil {
			p.err = ended{err}
		}
	}
	p.hangUp()
	if group != nil {
		removed := make(chan struct{})
		go func() { // by another thread: this one may not
			defer close(removed)
			_ = group.Remove() // if it fails, the next start or lumina clean does it
		}()
		<-removed
	}
	close(p.done)
}

// ended is the end of a QEMU that was not asked to end.
type ended struct{ why error }

func (e ended) Error() string   { return e.why.Error() }
func (e ended) Unwrap() []error { return []error{vm.ErrEnded, e.why} }

func textError(s string) error {
	if s == "" {
		return nil
	}
	return errors.New(s)
}

func (p *process) Dial(ctx context.Context) (net.Conn, error) {
	if err := context.Cause(ctx); err != nil {
		return nil, err
	}
	conn, err := p.agent.Open()
	if err != nil {
		return nil, fmt.Errorf("%w: %w", vm.ErrEnded, err)
	}
	return conn, nil
}

func (p *process) Kill() {
	p.killed.Store(true)
	p.cancel()
}

func (p *process) Done() <-chan struct{} { return p.done }

func (p *process) Err() error {
	select {
	case <-p.done:
		return p.err
	default:
		return nil
	}
}

func (p *process) Console() string { return p.console.Text() }

// greeting takes the guest's hello off the connection before the mux reads.
type greeting struct {
	net.Conn
	done chan struct{} // closed then
	over bool
}

func (g *greeting) Read(p []byte) (int, error) {
	if !g.over {
		if err := protocol.ReceiveHello(g.Conn); err != nil {
			return 0, err
		}
		g.over = true
		close(g.done)
	}
	return g.Conn.Read(p)
}
