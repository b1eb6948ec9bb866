package runtime

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"time"

	"github.com/abdul-abdi/lumina/initramfs/protocol"
	"github.com/abdul-abdi/lumina/runtime/agent"
	"github.com/abdul-abdi/lumina/runtime/ext4"
	"github.com/abdul-abdi/lumina/runtime/image"
	"github.com/abdul-abdi/lumina/runtime/vm"
)

// Defaults of VMOptions.
const (
	DefaultCPUs     = 2
	DefaultMemory   = 1 << 30  // bytes
	DefaultDiskSize = 16 << 30 // bytes
)

// bootTimeout bounds a boot that neither succeeds nor ends. A crashed boot is
// seen at once; this is for one that hangs.
const bootTimeout = 60 * time.Second

// crashGrace is how long a VM whose agent has gone gets to end by itself, so
// that its end can be told.
const crashGrace = 2 * time.Second

// NetworkMode is what the guest can reach.
type NetworkMode string

// The network modes.
const (
	NetworkNAT  NetworkMode = "nat"  // outbound connections
	NetworkNone NetworkMode = "none" // nothing
)

// VMOptions says which VM to start. Zero values mean the defaults.
type VMOptions struct {
	Image    string // a name in the image store
	CPUs     int
	Memory   int64 // bytes
	DiskSize int64 // bytes of the scratch disk
	Network  NetworkMode
}

func (o VMOptions) withDefaults() VMOptions {
	if o.CPUs == 0 {
		o.CPUs = DefaultCPUs
	}
	if o.Memory == 0 {
		o.Memory = DefaultMemory
	}
	if o.DiskSize == 0 {
		o.DiskSize = DefaultDiskSize
	}
	if o.Network == "" {
		o.Network = NetworkNAT
	}
	return o
}

// VM is a running virtual machine whose agent answers.
type VM struct {
	Guest
	machine vm.Machine
	image   *image.Handle
	options VMOptions
	trace   Trace
}

// Start boots a VM and returns when its agent has answered. The VM ends with
// ctx, or with Close.
func (r *Runtime) Start(ctx context.Context, options VMOptions) (*VM, error) {
	img, err := r.Images.Open(options.Image)
	if err != nil {
		return nil, &Error{Kind: ConnectionFailed, Err: err}
	}
	v, err := r.StartImage(ctx, img, options)
	if err != nil {
		return nil, kindOf(ConnectionFailed, fmt.Errorf("starting a VM of image %q: %w", options.Image, err))
	}
	return v, nil
}

// StartImage boots an image that is open already. The VM takes it over; it is
// closed when the start fails.
func (r *Runtime) StartImage(ctx context.Context, img *image.Handle, options VMOptions) (*VM, error) {
	v, err := r.start(ctx, img, options.withDefaults())
	if err != nil {
		img.Close()
		return nil, err
	}
	return v, nil
}

func (r *Runtime) start(ctx context.Context, img *image.Handle, options VMOptions) (*VM, error) {
	v := &VM{image: img, options: options, trace: Trace{start: time.Now()}}
	spec := vm.Spec{
		Arch:        img.Architecture,
		CommandLine: img.Kernel.CommandLine,
		CPUs:        options.CPUs,
		Memory:      options.Memory,
	}
	files, err := openFiles(img, image.Kernel, image.Initramfs, image.Rootfs)
	if err != nil {
		return nil, err
	}
	defer closeFiles(files)
	spec.Kernel, spec.Initramfs = files[0], files[1]
	scratch, err := r.makeScratch(options.DiskSize)
	if err != nil {
		return nil, err
	}
	defer scratch.Close()
	spec.Disks = []vm.Disk{
		{File: files[2], Serial: protocol.DiskRoot, ReadOnly: true},
		{File: scratch, Serial: protocol.DiskScratch, Ephemeral: true},
	}
	configure, err := newConfigure()
	if err != nil {
		return nil, err
	}
	if options.Network == NetworkNAT {
		spec.Network = &vm.Network{MAC: newMAC()}
		configure.Network = &protocol.Network{Address: "10.0.2.15/24", Gateway: "10.0.2.2", DNS: []string{"10.0.2.3"}}
	}
	v.trace.mark("prepared")
	if v.machine, err = r.Driver.Start(ctx, spec); err != nil {
		return nil, err
	}
	v.trace.mark("started")
	v.Guest = NewGuest(img.Config, v.machine.Dial, func(err error) error { return v.ended(VMCrashed, err) })
	if err := v.configure(ctx, configure); err != nil {
		v.Close()
		return nil, err
	}
	return v, nil
}

// configure waits for the agent. It ends when the agent has answered, the VM
// has ended, ctx has, or it takes too long.
func (v *VM) configure(ctx context.Context, c *protocol.Configure) error {
	ctx, cancel := context.WithTimeoutCause(ctx, bootTimeout, fmt.Errorf("its agent did not answer within %v", bootTimeout))
	defer cancel()
	conn, err := v.machine.Dial(ctx)
	if err != nil {
		return err
	}
	reply, err := agent.Configure(ctx, conn, c)
	if err != nil {
		return v.ended(ConnectionFailed, err)
	}
	v.trace.booted(reply.Marks)
	return nil
}

// ended explains an error of the connection to the agent: the VM's end, if it
// has ended, tells more than the broken connection.
func (v *VM) ended(kind ErrorKind, err error) error {
	var refused *protocol.Error
	if errors.As(err, &refused) {
		return &Error{Kind: ConnectionFailed, Err: err, Console: v.machine.Console()}
	}
	grace := time.NewTimer(crashGrace)
	defer grace.Stop()
	select {
	case <-v.machine.Done():
		err = errors.New(v.EndMessage())
	case <-grace.C:
		err = fmt.Errorf("the agent stopped answering: %w", err)
	}
	return &Error{Kind: kind, Err: err, Console: v.machine.Console()}
}

// Image is the image that the VM runs.
func (v *VM) Image() *image.Image { return v.image.Image }

// Trace says where the time of the boot went.
func (v *VM) Trace() Trace { return v.trace }

// Done is closed when the VM has ended.
func (v *VM) Done() <-chan struct{} { return v.machine.Done() }

// Dial opens a stream to the agent, for package agent.
func (v *VM) Dial(ctx context.Context) (net.Conn, error) { return v.machine.Dial(ctx) }

// Close ends the VM at once and waits for its end. What it wrote is lost.
func (v *VM) Close() error {
	v.machine.Kill()
	<-v.machine.Done()
	return v.image.Close()
}

func openFiles(img *image.Handle, names ...string) ([]*os.File, error) {
	var files []*os.File
	for _, name := range names {
		f, err := os.Open(img.Path(name))
		if err != nil {
			closeFiles(files)
			return nil, fmt.Errorf("opening the image's %s: %w", name, err)
		}
		files = append(files, f)
	}
	return files, nil
}

func closeFiles(files []*os.File) {
	for _, f := range files {
		f.Close()
	}
}

// makeScratch makes a VM's own disk: a sparse file without a name, so that
// nothing is left of it however this process ends.
func (r *Runtime) makeScratch(size int64) (*os.File, error) {
	dir := filepath.Join(r.home, "runs")
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, fmt.Errorf("making the scratch disk: %w", err)
	}
	f, err := os.CreateTemp(dir, "scratch-*")
	if err != nil {
		return nil, fmt.Errorf("making the scratch disk: %w", err)
	}
	err = errors.Join(os.Remove(f.Name()), ext4.Format(f, size, ext4.Options{Label: protocol.DiskScratch}))
	if err != nil {
		f.Close()
		return nil, fmt.Errorf("making a scratch disk of %d bytes: %w", size, err)
	}
	return f, nil
}

func newConfigure() (*protocol.Configure, error) {
	b := make([]byte, 16+64)
	if _, err := rand.Read(b); err != nil {
		return nil, err
	}
	id := hex.EncodeToString(b[:16])
	return &protocol.Configure{Hostname: "lumina-" + id[:8], MachineID: id, Seed: b[16:], Time: time.Now()}, nil
}

// newMAC makes a random, locally administered, unicast address.
func newMAC() net.HardwareAddr {
	mac := make(net.HardwareAddr, 6)
	_, _ = rand.Read(mac) // never fails, see crypto/rand
	mac[0] = mac[0]&^1 | 2
	return mac
}

// Shutdown ends the VM in order: everything it wrote to its volumes is on disk
// when it returns. When ctx ends first, the VM is killed.
func (v *VM) Shutdown(ctx context.Context) error {
	conn, err := v.machine.Dial(ctx)
	if err == nil {
		err = agent.Shutdown(ctx, conn)
	}
	if err == nil {
		select {
		case <-v.machine.Done():
		case <-ctx.Done():
			err = context.Cause(ctx)
		}
	}
	return errors.Join(err, v.Close())
}

// Options are what the VM was started with, defaults filled in.
func (v *VM) Options() VMOptions { return v.options }

// Console is the end of what the guest's kernel and init printed.
func (v *VM) Console() string { return v.machine.Console() }

// EndMessage says how a VM ended that nobody stopped.
func (v *VM) EndMessage() string {
	if err := v.machine.Err(); err != nil {
		return err.Error()
	}
	return "the VM ended unexpectedly"
}
