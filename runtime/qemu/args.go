package qemu

import (
	"fmt"
	"net"
	"os"
	"strconv"
	"strings"
	"syscall"

	"github.com/abdul-abdi/lumina/initramfs/protocol"
	"github.com/abdul-abdi/lumina/runtime/socketpair"
	"github.com/abdul-abdi/lumina/runtime/vm"
)

// machine is what QEMU needs to know of an architecture.
type machine struct {
	binary string
	name   string // of the machine type, with its options
	// kvmName is the same with KVM, which has a clock and timers of its own; name
	// where it is empty. kvmAccel is how KVM runs it.
	kvmName, kvmAccel string
	// notNested is added to a model to switch off nested virtualization.
	notNested string
	tcgCPU    string // the model that boots fastest under emulation and has what programs expect
	console   string // kernel command line: console, and how the machine ends
	// kernel is added to the kernel's command line, and one of the others: under
	// emulation, with KVM.
	kernel, tcgKernel, kvmKernel string
	// slots are where its virtio devices go, in this order; nil where QEMU finds
	// enough of them by itself.
	slots []int
}

var machines = map[string]machine{
	"amd64": {
		binary: "qemu-system-x86_64",
		// Under emulation the kernel needs the legacy timer and interrupt
		// controller to calibrate its clock. Without ACPI there is no power
		// button to press: the guest ends by a reset.
		name: "microvm,acpi=off,pit=on,pic=on,rtc=on,isa-serial=on,x-option-roms=off,auto-kernel-cmdline=on",
		//
		// With KVM none of these is there, and interrupts are KVM's own: by default
		// QEMU would have the microvm's I/O APIC itself. Exits to QEMU of a kernel
		// that boots: 1386, all of this 257; see bench exits. The driver of the clock
		// would wait for a second for one that is not there.
		//
		// A CPU that has nothing to do looks for work for a moment before it halts,
		// which the kernel does by itself only where a CPU is promised to be its own.
		// Halts of an exec: 138 to 80, see docs/architecture.md.
		kvmName:   "microvm,acpi=off,pit=off,pic=off,rtc=off,isa-serial=on,x-option-roms=off,auto-kernel-cmdline=on",
		kvmAccel:  "kvm,kernel-irqchip=on",
		kvmKernel: "initcall_blacklist=cmos_init,i8042_init cpuidle_haltpoll.force=1",
		// There is neither ACPI nor PCI nor a keyboard's controller to look for. Nor
		// is a complaint of that worth 300 writes to the serial port: init has errors
		// printed again. Panics are in any case.
		kernel: "acpi=off pci=off loglevel=3 " + protocol.ParamLogLevel.Is("4"),
		// Without the features that make the kernel copy memory byte by byte: QEMU
		// emulates rep movsb as a loop of bytes. Writing a file: 224 MB/s, not 148.
		tcgCPU:    "max,erms=off,fsrm=off",
		notNested: ",svm=off,vmx=off",
		console:   "console=ttyS0 " + protocol.ParamOff.Is(protocol.OffReset),
		// QEMU's translations are kept by virtual address: with programs at
		// random ones, each exec translates its libraries anew. Measured,
		// /bin/sh -c true: 33 ms with, 7 ms without.
		//
		// What the machine would measure, and must not: 100 ms and more of each
		// boot. QEMU's local APIC counts in nanoseconds, and its timer works.
		tcgKernel: "norandmaps lapic_timer_khz=1000000 no_timer_check initcall_blacklist=i8042_init",
		// The fourth has the interrupt of the real-time clock, which is not shared:
		// either that or the device fails. It is the last one to be given out.
		slots: []int{7, 6, 5, 4, 2, 1, 0, 3},
	},
	"arm64": {
		binary:  "qemu-system-aarch64",
		name:    "virt",
		tcgCPU:  "cortex-a57",
		console: "console=ttyAMA0",
	},
}

// command is a QEMU command line with the files that it inherits.
type command struct {
	args  []string
	files []*os.File // become descriptors 3, 4, …
	own   []*os.File // of these, the ones to close when QEMU has them
	// Of these, what QEMU opens again by name: to read, and to write.
	reads, writes []*os.File
	// What else it is confined by.
	firmware string // a file that it opens; "" for none
	kvm      bool   // it opens the device
	memory   int64  // bytes
	cpus     int
	largest  int64 // of the files that it writes, in bytes
	window   bool
	slots    []int // the machine's that are free
	// Our ends of the agent's serial port and of the monitor.
	port    net.Conn
	control *net.UnixConn
	owner   *os.File          // QEMU waits for what arm writes there
	monitor string            // and that is
	agent   *net.UnixConn     // of a desktop's port for an agent; nil for none
	stdin   *os.File          // what its standard input is; nil for nothing
	tpm     *os.File          // swtpm's end of the TPM's socket; nil for none
	disks   map[string]string // names for people, by QEMU's
}

// writable notes that QEMU writes to a disk.
func (c *command) writable(f *os.File) {
	if info, err := f.Stat(); err == nil {
		c.largest = max(c.largest, info.Size())
	}
}

func (c *command) close() {
	for _, f := range c.own {
		f.Close()
	}
	if c.owner != nil {
		c.owner.Close()
	}
}

// discard closes all that was made for a command that is not started.
func (c *command) discard() {
	c.close()
	for _, conn := range []*net.UnixConn{c.control, c.agent} {
		if conn != nil {
			conn.Close()
		}
	}
	if c.port != nil {
		c.port.Close()
	}
}

// addMonitor gives QEMU a control socket. No guest can reach it.
func (c *command) addMonitor() error {
	here, there, err := socketpair.New(syscall.SOCK_STREAM)
	if err != nil {
		return fmt.Errorf("making the control socket: %w", err)
	}
	c.control, c.own = here, append(c.own, there)
	fd := c.inherit(there)
	read, write, err := os.Pipe()
	if err != nil {
		return fmt.Errorf("making QEMU's pipe: %w", err)
	}
	c.own, c.owner, c.monitor = append(c.own, read), write, fmt.Sprintf("[chardev \"qmp\"]\n backend = \"socket\"\n fd = \"%d\"\n", fd)
	if err := letRead(read); err != nil {
		return fmt.Errorf("making QEMU's pipe: %w", err)
	}
	c.add("-readconfig", devFD(c.inherit(read)), "-mon", "chardev=qmp,mode=control")
	return nil
}

// arm tells a QEMU that runs what its monitor is. Without that it ends: a process that
// has a namespace of processes to itself does not see whether its parent died before
// the kernel was asked to end the one with the other. That is done when it runs.
func (c *command) arm() {
	_, _ = c.owner.WriteString(c.monitor) // if it fails, QEMU has ended
	c.owner.Close()
}

func (c *command) add(args ...string) { c.args = append(c.args, args...) }

// inherit passes f to QEMU and returns its descriptor there. QEMU gets
// descriptors, not paths: what it runs cannot be exchanged under it, and
// nothing needs a name in the file system.
func (c *command) inherit(f *os.File) int {
	c.files = append(c.files, f)
	return 2 + len(c.files)
}

// newCommand lays out QEMU's command line. mem is nil for memory that is in no
// file.
func newCommand(m machine, v Verdict, spec vm.Spec, mem *memory) (*command, error) {
	if v.Accelerator == KVM && m.kvmName != "" {
		m.name = m.kvmName
	}
	if spec.Rosetta {
		return nil, fmt.Errorf("%w: Rosetta exists only on Macs with Apple silicon; make the image again without --rosetta", vm.ErrUnsupported)
	}
	if len(spec.Shares) > 0 {
		return nil, fmt.Errorf("%w: QEMU has no device for directories here", vm.ErrUnsupported)
	}
	devices := 1 + len(spec.Disks)
	if spec.Network != nil {
		devices++
	}
	if m.slots != nil && devices > len(m.slots) {
		return nil, fmt.Errorf("%d devices are too many, %d are possible: give the VM fewer volumes", devices, len(m.slots))
	}
	port, there, err := socketpair.New(syscall.SOCK_STREAM)
	if err != nil {
		return nil, fmt.Errorf("making the agent's socket: %w", err)
	}
	c := &command{own: []*os.File{there}, port: port, memory: spec.Memory, cpus: spec.CPUs, slots: m.slots, disks: map[string]string{},
		kvm: v.Accelerator == KVM}
	if err := c.addMonitor(); err != nil {
		port.Close()
		c.close()
		return nil, err
	}
	if spec.Nested && spec.Arch == "arm64" {
		m.name += ",virtualization=on"
	}
	c.addMachine(m, spec, mem)
	c.add("-nodefaults", "-no-user-config", "-no-reboot", "-display", "none",
		// QEMU itself is confined: no new processes, no privileges.
		"-sandbox", sandbox(false),
		"-smp", strconv.Itoa(spec.CPUs),
		"-chardev", "stdio,id=console,signal=off", "-serial", "chardev:console")
	accelerator := v.Accelerator.args(m, spec.Nested)
	if v.Accelerator == KVM && m.kvmAccel != "" {
		accelerator[1] = m.kvmAccel
	}
	c.add(accelerator...)
	kernel := append(strings.Fields(spec.CommandLine), strings.Fields(m.console+" "+m.kernel)...)
	kernel = append(kernel, protocol.ParamTransport.Is(protocol.TransportSerial))
	switch v.Accelerator {
	case KVM:
		kernel = append(kernel, strings.Fields(m.kvmKernel)...)
	case TCG:
		kernel = append(kernel, strings.Fields(m.tcgKernel)...)
		if v.TSC > 0 && spec.Arch == "amd64" {
			// The loops per tick of a delay are the TSC's too; each CPU
			// would count them for 80 ms. A tick is 1/100 s, see kernel-config.
			kernel = append(kernel, fmt.Sprintf("tsc_early_khz=%d tsc=reliable lpj=%d", v.TSC, v.TSC*1000/100))
		}
	}
	if mem == nil || mem.state == nil {
		// A restored guest has its kernel in memory.
		c.add("-kernel", devFD(c.inherit(spec.Kernel)), "-initrd", devFD(c.inherit(spec.Initramfs)), "-append", strings.Join(kernel, " "))
		c.reads = append(c.reads, spec.Kernel, spec.Initramfs)
	}
	// Port 0 is for consoles; each possible port costs the guest two queues.
	c.addVirtio("virtio-serial-device,max_ports=2")
	c.add("-chardev", fmt.Sprintf("socket,id=agent,fd=%d", c.inherit(there)),
		"-device", "virtserialport,chardev=agent,name="+protocol.PortName)
	for i, d := range spec.Disks {
		c.addDisk(i, d)
	}
	if n := spec.Network; n != nil {
		c.add("-netdev", fmt.Sprintf("dgram,id=net0,local.type=fd,local.str=%d", c.inherit(n.Socket)))
		// Without its control queue: a guest would wait for QEMU's answer to each
		// filter that it sets, and the other end sends it nothing but its own.
		c.addVirtio("virtio-net-device,ctrl_vq=off,ctrl_rx=off,ctrl_rx_extra=off,ctrl_vlan=off,ctrl_mac_addr=off," +
			"ctrl_guest_offloads=off,guest_announce=off,netdev=net0,mac=" + n.MAC.String())
	}
	return c, nil
}

// addVirtio adds a virtio device, in the next of the machine's slots.
func (c *command) addVirtio(device string) {
	if len(c.slots) > 0 {
		device += fmt.Sprintf(",bus=virtio-mmio-bus.%d", c.slots[0])
		c.slots = c.slots[1:]
	}
	c.add("-device", device)
}

func (c *command) addMachine(m machine, spec vm.Spec, mem *memory) {
	size := strconv.FormatInt(spec.Memory>>10, 10) + "k"
	c.add("-m", size)
	if mem == nil {
		c.add("-M", m.name)
		return
	}
	share := "off"
	if mem.shared {
		share = "on"
	}
	c.add("-M", m.name+",memory-backend=ram", "-object", fmt.Sprintf(
		"memory-backend-file,id=ram,size=%s,mem-path=%s,share=%s", size, devFD(c.inherit(mem.file)), share))
	c.writes = append(c.writes, mem.file) // QEMU 7.2 opens it so, also not to share it
	if mem.state != nil {
		// QEMU must not announce the guest's address to a network that does not know it.
		c.add("-incoming", "defer", "-global", "migration.announce-rounds=0")
	}
}

func (c *command) addDisk(i int, d vm.Disk) {
	node, options := fmt.Sprintf("disk%d", i), ""
	if !d.ReadOnly {
		options = ",discard=unmap" // what the guest gives back the host has again
	}
	if d.Ephemeral {
		options += ",cache.no-flush=on"
	}
	c.addFile(node, d.File, d.ReadOnly, options)
	if d.Lock != nil {
		c.inherit(d.Lock) // it is locked for as long as QEMU lives
	}
	c.disks[node] = diskName(d.Serial)
	c.addVirtio(fmt.Sprintf("virtio-blk-device,drive=%s,serial=%s%s", node, d.Serial, reportErrors))
}

// reportErrors has the guest get the errors of a disk. QEMU would stop the machine
// when the host's disk is full, and wait for somebody to let it go on.
const reportErrors = ",werror=report,rerror=report"

// addFile makes a file, which QEMU inherits, a block device's content.
func (c *command) addFile(node string, f *os.File, readOnly bool, options string) {
	set := c.inherit(f)
	if readOnly {
		options += ",read-only=on"
	} else {
		c.writable(f)
	}
	c.add("-add-fd", fmt.Sprintf("fd=%d,set=%d", set, set),
		"-blockdev", fmt.Sprintf("driver=file,node-name=%s,filename=/dev/fdset/%d,locking=off%s", node, set, options))
}

func devFD(fd int) string { return fmt.Sprintf("/dev/fd/%d", fd) }
