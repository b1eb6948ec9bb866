package qemu

import (
	"fmt"
	"os"
	"strconv"
	"strings"

	"github.com/abdul-abdi/lumina/initramfs/protocol"
	"github.com/abdul-abdi/lumina/runtime/vm"
)

// machine is what QEMU needs to know of an architecture.
type machine struct {
	binary  string
	args    []string
	tcgCPU  string // the model that boots fastest under emulation and has what programs expect
	console string // kernel command line: console, and how the machine ends
	// tcgKernel is added to the kernel's command line under emulation.
	tcgKernel string
}

var machines = map[string]machine{
	"amd64": {
		binary: "qemu-system-x86_64",
		// Under emulation the kernel needs the legacy timer and interrupt
		// controller to calibrate its clock. Without ACPI there is no power
		// button to press: the guest ends by a reset.
		args:    []string{"-M", "microvm,acpi=off,pit=on,pic=on,rtc=on,isa-serial=on,x-option-roms=off,auto-kernel-cmdline=on"},
		tcgCPU:  "max",
		console: "console=ttyS0 lumina.off=reset",
		// QEMU's translations are kept by virtual address: with programs at
		// random ones, each exec translates its libraries anew. Measured,
		// /bin/sh -c true: 33 ms with, 7 ms without.
		tcgKernel: "norandmaps",
	},
	"arm64": {
		binary:  "qemu-system-aarch64",
		args:    []string{"-M", "virt"},
		tcgCPU:  "cortex-a57",
		console: "console=ttyAMA0",
	},
}

// command is a QEMU command line with the files that it inherits.
type command struct {
	args  []string
	files []*os.File // become descriptors 3, 4, …
}

func (c *command) add(args ...string) { c.args = append(c.args, args...) }

// inherit passes f to QEMU and returns its descriptor there. QEMU gets
// descriptors, not paths: what it runs cannot be exchanged under it, and
// nothing needs a name in the file system.
func (c *command) inherit(f *os.File) int {
	c.files = append(c.files, f)
	return 2 + len(c.files)
}

// commandLine lays out QEMU's command line. agent is QEMU's end of the serial
// port's socket.
func commandLine(m machine, accel Accelerator, spec vm.Spec, agent *os.File) (*command, error) {
	if spec.CPUs < 1 || spec.Memory < 32<<20 {
		return nil, fmt.Errorf("%d cpus and %d bytes of memory: at least 1 and 32 MiB are needed", spec.CPUs, spec.Memory)
	}
	c := &command{}
	c.add(m.args...)
	c.add("-nodefaults", "-no-user-config", "-no-reboot", "-display", "none",
		// QEMU itself is confined: no new processes, no privileges.
		"-sandbox", "on,obsolete=deny,elevateprivileges=deny,spawn=deny,resourcecontrol=deny",
		"-m", strconv.FormatInt(spec.Memory>>10, 10)+"k",
		"-smp", strconv.Itoa(spec.CPUs),
		"-chardev", "stdio,id=console,signal=off", "-serial", "chardev:console")
	c.add(accel.args(m)...)
	kernel := []string{spec.CommandLine, m.console, "lumina.transport=serial"}
	if accel == TCG {
		kernel = append(kernel, m.tcgKernel)
	}
	c.add("-kernel", devFD(c.inherit(spec.Kernel)), "-initrd", devFD(c.inherit(spec.Initramfs)), "-append", strings.Join(kernel, " "))
	c.add("-device", "virtio-serial-device",
		"-chardev", fmt.Sprintf("socket,id=agent,fd=%d", c.inherit(agent)),
		"-device", "virtserialport,chardev=agent,name="+protocol.PortName)
	for i, d := range spec.Disks {
		c.addDisk(i, d)
	}
	if n := spec.Network; n != nil {
		c.add("-netdev", "user,id=net0", "-device", "virtio-net-device,netdev=net0,mac="+n.MAC.String())
	}
	return c, nil
}

func (c *command) addDisk(i int, d vm.Disk) {
	fd, set, node := c.inherit(d.File), i+1, fmt.Sprintf("disk%d", i)
	c.add("-add-fd", fmt.Sprintf("fd=%d,set=%d", fd, set))
	blockdev := fmt.Sprintf("driver=file,node-name=%s,filename=/dev/fdset/%d,locking=off", node, set)
	if d.ReadOnly {
		blockdev += ",read-only=on"
	}
	if d.Ephemeral {
		blockdev += ",cache.no-flush=on"
	}
	c.add("-blockdev", blockdev, "-device", fmt.Sprintf("virtio-blk-device,drive=%s,serial=%s", node, d.Serial))
}

func devFD(fd int) string { return fmt.Sprintf("/dev/fd/%d", fd) }
