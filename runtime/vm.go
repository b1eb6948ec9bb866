package runtime

import (
	"cmp"
	"context"
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"
	"net"
	"os"
	"path"
	"path/filepath"
	"slices"
	"time"

	"github.com/abdul-abdi/lumina/initramfs/protocol"
	"github.com/abdul-abdi/lumina/runtime/agent"
	"github.com/abdul-abdi/lumina/runtime/ext4"
	"github.com/abdul-abdi/lumina/runtime/forward"
	"github.com/abdul-abdi/lumina/runtime/image"
	"github.com/abdul-abdi/lumina/runtime/network"
	"github.com/abdul-abdi/lumina/runtime/vm"
	"github.com/abdul-abdi/lumina/runtime/volume"
)

// Defaults of VMOptions.
const (
	DefaultCPUs     = 2
	DefaultMemory   = 1 << 30  // bytes
	DefaultDiskSize = 16 << 30 // bytes
)

// Limits of VMOptions.
const (
	MaxCPUs   = 64
	MinMemory = 64 << 20 // bytes; with less the kernel does not start
)

// bootTimeout bounds a boot that neither succeeds nor ends. A crashed boot is
// seen at once; this is for one that hangs.
const bootTimeout = 60 * time.Second

// systemdTimeout bounds a boot with systemd, whose agent answers when systemd is
// up, or after 90 s without.
const systemdTimeout = 3 * time.Minute

// volumesTimeout bounds a boot with volumes: a new one may take gigabytes of the image's.
const volumesTimeout = 5 * time.Minute

// crashGrace is how long a VM whose agent has gone gets to end by itself, so
// that its end can be told.
const crashGrace = 2 * time.Second

// VMOptions says which VM to start. Zero values mean the defaults.
type VMOptions struct {
	Image    string // a name in the image store
	CPUs     int
	Memory   int64 // bytes
	DiskSize int64 // bytes of the scratch disk
	Network  NetworkMode
	// AllowLAN lets the network reach private addresses, too.
	AllowLAN bool
	// Member, if set, makes the VM one of a network of VMs in place of Network.
	Member  *Member
	Volumes []Volume
	// Init is who is PID 1, of image.InitLumina and image.InitSystemd; the
	// image says when it is empty.
	Init string
	// NoTemplate boots even if there is a frozen VM to go on from.
	NoTemplate bool
	// Nested lets the guest run virtual machines in its turn.
	Nested bool
	// DiskReserve is what has to be free on the disk of the state directory, in
	// bytes; NoDiskReserve for nothing.
	DiskReserve int64
	// disks are those of a build; the VM closes them.
	disks []*os.File
}

// CheckSize says whether a VM of that size can be had on this host.
func (o VMOptions) CheckSize() error {
	if o.CPUs < 0 || o.CPUs > MaxCPUs {
		return fmt.Errorf("%d cpus: want 1 to %d", o.CPUs, MaxCPUs)
	}
	if o.Memory != 0 && o.Memory < MinMemory {
		return fmt.Errorf("memory of %d bytes: want at least 64 MB", o.Memory)
	}
	if host, err := hostMemory(); err == nil && o.Memory > host {
		return fmt.Errorf("memory of %.1f GB: this host has %.1f", gigabytes(o.Memory), gigabytes(host))
	}
	if o.DiskSize != 0 && (o.DiskSize < ext4.MinSize || o.DiskSize > ext4.MaxSize) {
		return fmt.Errorf("disk of %d bytes: want 16 MB to 16 TB", o.DiskSize)
	}
	return nil
}

func gigabytes(bytes int64) float64 { return float64(bytes) / (1 << 30) }

// withDefaults fills in what an image and the runtime say.
func (o VMOptions) withDefaults(img *image.Image) VMOptions {
	if o.DiskSize == 0 {
		o.DiskSize = img.DiskSize
	}
	o.Init = cmp.Or(o.Init, img.Init, image.InitLumina)
	if o.CPUs == 0 {
		o.CPUs = DefaultCPUs
	}
	if o.Memory == 0 {
		o.Memory = DefaultMemory
	}
	if o.DiskSize == 0 {
		o.DiskSize = DefaultDiskSize
	}
	// Whole units are what every driver takes.
	o.Memory = roundUp(o.Memory, vm.MemoryUnit)
	o.DiskSize = roundUp(o.DiskSize, vm.MemoryUnit)
	if o.Network == "" {
		o.Network = NetworkNAT
	}
	return o
}

func roundUp(n, unit int64) int64 { return (n + unit - 1) / unit * unit }

// Volume is something of the host's that the VM has at Path: the volume of a
// name, or a directory.
type Volume struct {
	Name     string // in the volume store; one that is not there is made, or
	Dir      string // on the host, absolute
	Path     string // in the guest, absolute
	ReadOnly bool
}

// VM is a running virtual machine whose agent answers.
type VM struct {
	Guest
	machine vm.Machine
	network *network.Network // nil for none
	image   *image.Handle
	options VMOptions
	trace   Trace
	// ready is closed when the agent has answered. begin, unless nil, is called
	// before that, once the guest can be dialled; what it returns is called when
	// the VM has ended instead.
	ready chan struct{}
	begin func(*VM) (over func())
}

// Start boots a VM and returns when its agent has answered. The VM ends with
// ctx, or with Close.
func (r *Runtime) Start(ctx context.Context, options VMOptions) (*VM, error) {
	return r.startBegin(ctx, options, nil, nil)
}

// startBegin is Start with a VM's begin, of an image that check, unless nil, has
// no objection to. A guest that was thawed and does not
// answer is followed by one that boots: begin is then called again.
func (r *Runtime) startBegin(ctx context.Context, options VMOptions, check func(image.Config) error, begin func(*VM) func()) (*VM, error) {
	img, err := r.Images.Open(options.Image)
	if err != nil {
		return nil, &Error{Kind: ConnectionFailed, Err: err}
	}
	if check != nil {
		if err := check(img.Config); err != nil {
			img.Close()
			return nil, &Error{Kind: ConnectionFailed, Err: err}
		}
	}
	v, err := r.start(ctx, img, options, begin)
	if err != nil && ctx.Err() != nil {
		return nil, context.Cause(ctx) // and not what that broke
	}
	if err != nil {
		return nil, kindOf(ConnectionFailed, fmt.Errorf("starting a VM of image %q: %w", options.Image, err))
	}
	return v, nil
}

// start starts a VM of an image that is open. The VM takes the image over; it is
// closed when the start fails.
func (r *Runtime) start(ctx context.Context, img *image.Handle, options VMOptions, begin func(*VM) func()) (_ *VM, err error) {
	defer func() {
		if err != nil {
			img.Close()
		}
	}()
	options = options.withDefaults(img.Image)
	if err := CheckSpace(r.home, options.DiskReserve); err != nil {
		return nil, err
	}
	v := &VM{image: img, options: options, trace: Trace{start: time.Now()}, ready: make(chan struct{}), begin: begin}
	v.Guest = NewGuest(img.Config, v.dial, func(err error) error { return v.ended(VMCrashed, err) })
	p, err := r.plan(img, options)
	if err != nil {
		return nil, err
	}
	defer p.close()
	thawed, reason := r.thaw(ctx, v, p)
	v.trace.Cold = reason
	if thawed {
		v.network, p.network = p.network, nil
		return v, nil
	}
	if err := context.Cause(ctx); err != nil {
		return nil, err
	}
	scratch, err := r.makeScratch(options.DiskSize)
	if err != nil {
		return nil, err
	}
	defer r.release(scratch)
	v.trace.mark("prepared")
	spec, err := p.with(scratch)
	if err != nil {
		return nil, err
	}
	if v.machine, err = r.Driver.Start(ctx, spec); err != nil {
		return nil, err
	}
	v.trace.mark("started")
	if err := v.configure(ctx, p.configure); err != nil {
		return nil, err
	}
	v.network, p.network = p.network, nil
	return v, nil
}

// plan is a VM that is about to start: all of it but the scratch disk.
type plan struct {
	spec      vm.Spec // without the root's and the scratch disk
	root      *os.File
	network   *network.Network // nil for none, and when a VM has taken it over
	wire      *os.File         // to the switch of a member; the driver has its own
	configure *protocol.Configure
}

func (r *Runtime) plan(img *image.Handle, options VMOptions) (*plan, error) {
	files, err := openFiles(img, image.Kernel, image.Initramfs, image.Rootfs)
	if err != nil {
		closeFiles(options.disks)
		return nil, err
	}
	p := &plan{root: files[2], spec: vm.Spec{
		Arch:        img.Architecture,
		Kernel:      files[0],
		Initramfs:   files[1],
		CommandLine: img.Kernel.CommandLine,
		CPUs:        options.CPUs,
		Memory:      options.Memory,
		Nested:      options.Nested,
	}}
	for n, f := range options.disks {
		p.spec.Disks = append(p.spec.Disks, vm.Disk{File: f, Serial: protocol.BuildDisk(n)})
	}
	if options.Init == image.InitSystemd {
		// The interface keeps the name by which it was configured.
		p.spec.CommandLine += " lumina.init=systemd net.ifnames=0"
	}
	if p.configure, err = newConfigure(); err != nil {
		p.close()
		return nil, err
	}
	if err := r.addVolumes(p, options.Volumes); err != nil {
		p.close()
		return nil, err
	}
	if err := p.addNetwork(options); err != nil {
		p.close()
		return nil, err
	}
	return p, nil
}

// addVolumes opens volumes: each for this VM alone, as long as it runs.
func (r *Runtime) addVolumes(p *plan, volumes []Volume) error {
	if err := CheckVolumes(volumes); err != nil {
		return err
	}
	for i, v := range volumes {
		m := protocol.Mount{Path: v.Path, ReadOnly: v.ReadOnly}
		if v.Dir != "" {
			info, err := os.Stat(v.Dir)
			if err != nil {
				return fmt.Errorf("sharing a directory: %w", err)
			}
			if !info.IsDir() {
				return fmt.Errorf("sharing %s: it is not a directory", v.Dir)
			}
			m.Share = fmt.Sprintf("share%d", i)
			p.spec.Shares = append(p.spec.Shares, vm.Share{Dir: v.Dir, Tag: m.Share, ReadOnly: v.ReadOnly})
		} else {
			f, err := r.openVolume(v.Name)
			if err != nil {
				return err
			}
			m.Disk = fmt.Sprintf("%s%d", protocol.DiskVolume, i)
			p.spec.Disks = append(p.spec.Disks, vm.Disk{File: f, Serial: m.Disk, ReadOnly: v.ReadOnly})
		}
		p.configure.Mounts = append(p.configure.Mounts, m)
	}
	return nil
}

// CheckVolumes says whether a VM can have volumes at their paths.
func CheckVolumes(volumes []Volume) error {
	seen := map[string]bool{}
	for _, v := range volumes {
		if err := checkMountPoint(v.Path, seen); err != nil {
			return fmt.Errorf("volume at %q: %w", v.Path, err)
		}
	}
	return nil
}

// checkMountPoint says whether a volume can be at a path, which is then one of those seen.
func checkMountPoint(p string, seen map[string]bool) error {
	if !path.IsAbs(p) {
		return errors.New("the path in the VM is not absolute")
	}
	p = path.Clean(p)
	switch p {
	case "/", "/dev", "/proc", "/sys":
		return fmt.Errorf("the VM needs its own %s", p)
	}
	if seen[p] {
		return errors.New("there is another one at this path")
	}
	seen[p] = true
	return nil
}

// openVolume opens a volume, and makes it first where there is none.
func (r *Runtime) openVolume(name string) (*os.File, error) {
	f, err := r.Volumes.Open(name)
	if !errors.Is(err, volume.ErrNotFound) {
		return f, err
	}
	if err := r.Volumes.Create(name, volume.DefaultSize); err != nil && !errors.Is(err, volume.ErrExists) {
		return nil, err // another may have made it meanwhile
	}
	return r.Volumes.Open(name)
}

func (p *plan) close() {
	closeFiles([]*os.File{p.spec.Kernel, p.spec.Initramfs, p.root})
	if p.network != nil {
		p.network.Close()
	}
	if p.wire != nil {
		p.wire.Close()
	}
	for _, d := range p.spec.Disks {
		d.File.Close()
	}
}

// with is the whole machine, checked.
func (p *plan) with(scratch *os.File) (vm.Spec, error) {
	spec := p.spec
	spec.Disks = append([]vm.Disk{
		{File: p.root, Serial: protocol.DiskRoot, ReadOnly: true},
		{File: scratch, Serial: protocol.DiskScratch, Ephemeral: true},
	}, p.spec.Disks...)
	return spec, spec.Check()
}

func (v *VM) dial(ctx context.Context) (net.Conn, error) { return v.machine.Dial(ctx) }

// end kills the machine and waits for its end.
func (v *VM) end() {
	v.machine.Kill()
	<-v.machine.Done()
}

// configure waits for the agent. It ends when the agent has answered, the VM
// has ended, ctx has, or it takes too long; in all but the first case the VM has
// ended.
func (v *VM) configure(ctx context.Context, c *protocol.Configure) error {
	limit := bootTimeout
	if v.options.Init == image.InitSystemd {
		limit = systemdTimeout
	}
	if slices.ContainsFunc(v.options.Volumes, func(v Volume) bool { return v.Name != "" }) {
		limit = volumesTimeout
	}
	ctx, cancel := context.WithTimeoutCause(ctx, limit, fmt.Errorf("its agent did not answer within %v", limit))
	defer cancel()
	conn, err := v.machine.Dial(ctx)
	if err != nil {
		v.end()
		return err
	}
	over := func() {}
	if v.begin != nil {
		over = v.begin(v)
	}
	reply, err := agent.Configure(ctx, conn, c)
	if err != nil {
		err = v.ended(ConnectionFailed, err)
		v.end()
		over()
		return err
	}
	close(v.ready)
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

// DialPort connects to a port of the guest's loopback, see [forward.Guest].
func (v *VM) DialPort(ctx context.Context, protocol string, port uint16) (net.Conn, error) {
	stream, err := v.machine.Dial(ctx)
	if err != nil {
		return nil, err
	}
	if protocol == forward.UDP {
		return agent.Datagrams(ctx, stream, port)
	}
	return agent.Dial(ctx, stream, port)
}

var _ forward.Guest = (*VM)(nil)

// finish ends a VM whose work is done: at once, unless something outlives it.
// It does not wait for the memory of a killed one to be freed.
func (v *VM) finish(ctx context.Context) error {
	if len(v.options.Volumes) == 0 {
		v.machine.Kill()
		return v.free()
	}
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), shutdownTimeout)
	defer cancel()
	return v.Shutdown(ctx)
}

// shutdownTimeout bounds the orderly end of a VM with volumes.
const shutdownTimeout = 30 * time.Second

// Close ends the VM at once and waits for its end. What it wrote is lost.
func (v *VM) Close() error {
	v.end()
	return v.free()
}

// free gives back what the machine does not need any more.
func (v *VM) free() error {
	err := v.image.Close()
	if v.network != nil {
		err = errors.Join(err, v.network.Close())
	}
	return err
}

func openFiles(img *image.Handle, names ...string) ([]*os.File, error) {
	var files []*os.File
	for _, name := range names {
		f, err := img.Open(name)
		if err != nil {
			closeFiles(files)
			return nil, err
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
	f, err := r.unnamed()
	if err != nil {
		return nil, err
	}
	err = formatScratch(f, size)
	if err == nil {
		err = ext4.Reserve(f, size)
	}
	if err != nil {
		r.release(f)
		return nil, err
	}
	return f, nil
}

func formatScratch(f *os.File, size int64) error {
	if err := ext4.Format(f, size, ext4.Options{Label: protocol.DiskScratch}); err != nil {
		return fmt.Errorf("making a scratch disk of %d bytes: %w", size, err)
	}
	return nil
}

// release closes a file of unnamed's, and takes its name if it has one.
func (r *Runtime) release(f *os.File) {
	f.Close()
	if r.namesDisks() {
		os.Remove(f.Name())
	}
}

func (r *Runtime) namesDisks() bool {
	d, ok := r.Driver.(vm.NamedDisks)
	return ok && d.NamesDisks()
}

// unnamed makes a file without a name, or with one that release takes, where the
// driver needs it.
func (r *Runtime) unnamed() (*os.File, error) {
	dir := filepath.Join(r.home, "runs")
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, fmt.Errorf("making the scratch disk: %w", err)
	}
	f, err := os.CreateTemp(dir, "scratch-*")
	if err != nil {
		return nil, fmt.Errorf("making the scratch disk: %w", err)
	}
	if r.namesDisks() {
		return f, nil
	}
	if err := os.Remove(f.Name()); err != nil {
		f.Close()
		return nil, fmt.Errorf("making the scratch disk: %w", err)
	}
	return f, nil
}

func newConfigure() (*protocol.Configure, error) {
	b := make([]byte, 16+64)
	if _, err := rand.Read(b); err != nil {
		return nil, err
	}
	id := hex.EncodeToString(b[:16])
	return &protocol.Configure{Hostname: "lumina-" + id[:8], MachineID: id, Seed: b[16:]}, nil
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
	report := v.Report()
	err := v.machine.Err()
	switch abnormal := err != nil && err != vm.ErrEnded; {
	case abnormal && report != "":
		return err.Error() + "; " + report
	case abnormal:
		return err.Error()
	case report != "":
		return "the VM ended unexpectedly: " + report
	}
	return "the VM ended unexpectedly"
}

// Report says in one line what the host noticed that the guest does not tell, as
// that a disk of the host's is full; "" when there is nothing to say.
func (v *VM) Report() string {
	if r, ok := v.machine.(vm.Reporter); ok {
		return r.Report()
	}
	return ""
}
