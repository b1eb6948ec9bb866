// Package qemu runs virtual machines with QEMU: its microvm machine on amd64
// and virt on arm64, booting the kernel directly. One machine is one child
// process, which dies with this one.
package qemu

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync/atomic"

	"github.com/abdul-abdi/lumina/initramfs/mux"
	"github.com/abdul-abdi/lumina/initramfs/protocol"
	"github.com/abdul-abdi/lumina/runtime/vm"
)

// Name is the driver's name in [vm.Register].
const Name = "qemu"

// consoleTail is the default of [vm.Spec.ConsoleTail], in bytes.
const consoleTail = 16 << 10

func init() { vm.Register(Name, func() (vm.Driver, error) { return New(), nil }) }

// Driver starts machines.
type Driver struct {
	cacheDir string
}

// New makes a driver. It remembers what it finds out about the host in the
// user's cache directory.
func New() *Driver {
	dir, err := os.UserCacheDir()
	if err != nil {
		dir = os.TempDir()
	}
	return &Driver{cacheDir: filepath.Join(dir, "lumina")}
}

var _ vm.Driver = (*Driver)(nil)

// ErrNotInstalled is wrapped when QEMU is not on this host.
var ErrNotInstalled = errors.New("QEMU is not installed")

// Start is part of [vm.Driver].
func (d *Driver) Start(ctx context.Context, spec vm.Spec) (vm.Machine, error) {
	verdict, err := Probe(ctx, spec, d.cacheDir)
	if err != nil {
		return nil, err
	}
	p, err := start(ctx, spec, verdict)
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

var _ vm.Installed = (*Driver)(nil)

// Installation is part of [vm.Installed].
func (*Driver) Installation() []string {
	var files []string
	for _, m := range machines {
		if program, err := exec.LookPath(m.binary); err == nil {
			files = append(files, installation(program)...)
		}
	}
	return files
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
func start(ctx context.Context, spec vm.Spec, v Verdict) (*process, error) {
	line, agent, err := newCommand(machines[spec.Arch], v, spec, nil)
	if err != nil {
		return nil, err
	}
	p := newProcess(agent, spec.ConsoleTail)
	if err := p.launch(ctx, spec.Arch, line); err != nil {
		return nil, err
	}
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

// newProcess makes a process that is not started. It takes over port.
func newProcess(port net.Conn, consoleSize int) *process {
	if consoleSize == 0 {
		consoleSize = consoleTail
	}
	p := &process{
		port:    port,
		done:    make(chan struct{}),
		greeted: make(chan struct{}),
		console: vm.NewTail(consoleSize),
		stderr:  vm.NewTail(4 << 10),
	}
	p.output = p.console
	return p
}

// launch starts QEMU.
func (p *process) launch(ctx context.Context, arch string, line *command) error {
	defer line.close()
	path, err := find(arch)
	if err != nil {
		p.port.Close()
		return err
	}
	if err := context.Cause(ctx); err != nil {
		p.port.Close()
		return err
	}
	p.ctx = ctx
	ctx, p.cancel = context.WithCancel(ctx)
	cmd := exec.CommandContext(ctx, path, line.args...)
	cmd.ExtraFiles = line.files
	cmd.Stdout, cmd.Stderr = p.output, p.stderr
	if err := p.start(cmd, line); err != nil {
		p.cancel()
		p.port.Close()
		return fmt.Errorf("starting %s: %w", path, err)
	}
	return nil
}

var packageOf = map[string]string{"amd64": "qemu-system-x86", "arm64": "qemu-system-arm"}

// process is one running QEMU.
type process struct {
	port    net.Conn // our end of the agent's serial port, or of a desktop's monitor
	agent   *mux.Session
	output  io.Writer // gets the console's: console, and who else is to
	console *vm.Tail
	stderr  *vm.Tail
	ctx     context.Context // of the start
	cancel  context.CancelFunc
	killed  atomic.Bool
	greeted chan struct{} // closed when the guest's agent has greeted
	done    chan struct{}
	err     error // set before done is closed
}

var _ vm.Machine = (*process)(nil)

// wait runs until QEMU has ended.
func (p *process) wait(cmd *exec.Cmd) {
	err := cmd.Wait()
	wished := p.killed.Load() || p.ctx.Err() != nil // not cancel: it may have ended before
	p.cancel()
	p.port.Close()
	p.err = vm.ErrEnded
	if err != nil && !wished {
		message := strings.TrimSpace(p.stderr.String())
		p.err = ended{errors.Join(err, textError(message))}
	}
	close(p.done)
}

// ended is the end of a QEMU that nobody wished for.
type ended struct{ why error }

func (e ended) Error() string   { return fmt.Sprintf("QEMU ended: %v", e.why) }
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

func (p *process) Console() string {
	return strings.ToValidUTF8(string(bytes.ReplaceAll([]byte(p.console.String()), []byte("\r"), nil)), "\uFFFD")
}

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
