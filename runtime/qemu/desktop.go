package qemu

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"image"
	"io"
	"net"
	"os"
	goruntime "runtime"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/abdul-abdi/lumina/runtime/socketpair"
	"github.com/abdul-abdi/lumina/runtime/vm"
)

var _ vm.DesktopDriver = (*Driver)(nil)

// desktopMachine is what QEMU needs to know of an architecture's desktops.
type desktopMachine struct {
	name    string // of the machine type, with its options
	version string // a name that the firmwares' descriptors mean by it
	screen  string
	console string // of a kernel that is booted directly
	tpm     string
	idle    string // of the CPU under emulation, so that one which waits for work uses no time
}

var desktopMachines = map[string]desktopMachine{
	// The firmware's picture is memory of virtio-vga: a guest without a driver
	// has a screen, too. With MWAIT its second CPU waits for the system in a loop that
	// QEMU runs at full speed, beside a kernel that ends ("IO-APIC + timer doesn't work!")
	// when it misses its timer's ticks for 60 ms.
	"amd64": {"q35,vmport=off,pcspk-audiodev=sound", "pc-q35-7.2", "virtio-vga", "console=ttyS0", "tpm-crb", ",monitor=off"},
	"arm64": {"virt,gic-version=max", "virt-7.2", "virtio-gpu-pci", "console=ttyAMA0", "tpm-tis-device", ""},
}

// StartDesktop is part of [vm.DesktopDriver].
func (d *Driver) StartDesktop(ctx context.Context, spec vm.DesktopSpec) (vm.Desktop, error) {
	verdict, err := d.probe(ctx, spec.Arch, desktopGuest, func(ctx context.Context, a Accelerator) error {
		return d.tryDesktop(ctx, spec.Arch, a)
	})
	if err != nil {
		return nil, err
	}
	fw, err := findFirmware(spec.Arch, spec.SecureBoot)
	if err != nil {
		return nil, err
	}
	m, err := d.startDesktop(ctx, spec, fw, verdict.Accelerator)
	if err != nil {
		return nil, err
	}
	return m, nil
}

// tryDesktop starts a machine with nothing to boot, until its firmware says so
// on the serial port.
func (d *Driver) tryDesktop(ctx context.Context, arch string, a Accelerator) error {
	fw, err := findFirmware(arch, false)
	if err != nil {
		return err
	}
	variables, err := os.CreateTemp("", "lumina-")
	if err != nil {
		return err
	}
	defer variables.Close()
	if err := errors.Join(os.Remove(variables.Name()), d.WriteVariables(arch, false, variables)); err != nil {
		return err
	}
	spoke := &signal{c: make(chan struct{})}
	m, err := d.startDesktop(ctx, vm.DesktopSpec{Arch: arch, CPUs: 1, Memory: 256 << 20, Variables: variables, Serial: spoke}, fw, a)
	if err != nil {
		return err
	}
	defer func() {
		m.Kill()
		<-m.Done()
	}()
	select {
	case <-spoke.c:
		return nil
	case <-m.Done():
		return errors.Join(m.Err(), context.Cause(ctx))
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}

// signal closes its channel when something is written to it.
type signal struct {
	once sync.Once
	c    chan struct{}
}

func (s *signal) Write(p []byte) (int, error) {
	s.once.Do(func() { close(s.c) })
	return len(p), nil
}

// desktop is one running QEMU with a screen.
type desktop struct {
	*process
	mu     sync.Mutex // one command at a time
	qmp    *monitor
	agent  *agentPort
	serial *serialInput
	tpm    *tpm // nil for none
}

var (
	_ vm.Desktop     = (*desktop)(nil)
	_ vm.Screen      = (*desktop)(nil)
	_ vm.Input       = (*desktop)(nil)
	_ vm.Viewer      = (*desktop)(nil)
	_ vm.Resetter    = (*desktop)(nil)
	_ vm.Dialer      = (*desktop)(nil)
	_ vm.Meter       = (*desktop)(nil)
	_ vm.SerialInput = (*desktop)(nil)
)

func (d *Driver) startDesktop(ctx context.Context, spec vm.DesktopSpec, fw firmware, a Accelerator) (_ *desktop, err error) {
	line, err := newDesktopCommand(spec, fw, a)
	if err != nil {
		return nil, err
	}
	p := newProcess(line, 0)
	if spec.Serial != nil {
		p.output = io.MultiWriter(p.console, spec.Serial)
	}
	serial, err := line.addSerialInput()
	if err != nil {
		line.discard()
		return nil, err
	}
	m := &desktop{process: p, serial: serial}
	m.agent = newAgentPort(line.agent, m.changeAgent)
	p.ports = m.agent.opened
	if spec.TPM != nil {
		if m.tpm, err = startTPM(spec.TPM, line.tpm); err != nil {
			line.discard()
			serial.close()
			return nil, err
		}
	}
	if err := p.launch(ctx, spec.Arch, line, d.controlGroup()); err != nil {
		m.agent.close()
		serial.close()
		return nil, m.tpm.explain(err)
	}
	go func() {
		<-p.done
		m.agent.close()
		serial.close()
		if m.tpm != nil {
			m.tpm.kill()
		}
	}()
	if m.qmp, err = openMonitor(p.control); err != nil {
		return nil, m.tpm.explain(p.silent(err))
	}
	m.qmp.patience = commandPatience
	p.follow(m.qmp)
	p.checkState(m.qmp)
	return m, nil
}

// commandPatience bounds how long QEMU may take to answer. It is busy at times, and does
// not answer at all when somebody has stopped it.
const commandPatience = 30 * time.Second

// translations bounds, in MiB, what QEMU keeps of a desktop's translated code. Each process
// of a guest has its libraries elsewhere, and so translations of its own, which stay with
// the page that they are of: QEMU's 1 GiB of them is memory beside the guest's own, and
// every write to such a page, as a firmware does after a reset, goes through its thousands.
const translations = ",tb-size=128"

// newDesktopCommand lays out QEMU's command line.
func newDesktopCommand(spec vm.DesktopSpec, fw firmware, a Accelerator) (*command, error) {
	if spec.CPUs < 1 || spec.Memory < 64<<20 {
		return nil, fmt.Errorf("%d cpus and %d bytes of memory: at least 1 and 64 MiB are needed", spec.CPUs, spec.Memory)
	}
	m := desktopMachines[spec.Arch]
	c := &command{memory: spec.Memory, cpus: spec.CPUs, firmware: fw.code, window: spec.Window, kvm: a == KVM,
		disks: map[string]string{"variables": "the firmware's variables", "disk": "the desktop's disk", "iso": "the installation ISO", "drivers": "the second ISO"}}
	if err := c.addMonitor(); err != nil {
		return nil, err
	}
	if fw.smm {
		// Only the firmware, in that mode, may write its variables.
		m.name += ",smm=on"
		c.add("-global", "driver=cfi.pflash01,property=secure,value=on", "-global", "ICH9-LPC.disable_s3=1")
	}
	c.add("-M", m.name+",pflash0=code,pflash1=variables", "-m", strconv.FormatInt(spec.Memory>>10, 10)+"k", "-smp", strconv.Itoa(spec.CPUs),
		"-nodefaults", "-no-user-config", "-display", display(spec.Window),
		// Viewers are handed over one by one, by add_client: nothing listens. They hear
		// what the guest plays, this host's own loudspeakers do not.
		"-audiodev", "none,id=sound", "-vnc", "none,audiodev=sound",
		"-sandbox", sandbox(spec.Window),
		"-chardev", "stdio,id=console,signal=off", "-serial", "chardev:console",
		"-blockdev", "driver=file,node-name=code,read-only=on,filename="+strings.ReplaceAll(fw.code, ",", ",,"),
		"-device", m.screen, "-device", "virtio-rng-pci",
		"-device", "qemu-xhci", "-device", "usb-kbd", "-device", "usb-tablet")
	accelerator := a.args(machines[spec.Arch], false)
	if a == TCG {
		accelerator[1] += translations
		accelerator[3] += m.idle
	}
	c.add(accelerator...)
	if spec.ID != "" {
		c.add("-uuid", spec.ID, "-name", spec.Name)
	}
	c.addFile("variables", spec.Variables, false, "")
	c.addStorage(spec)
	if n := spec.Network; n != nil {
		device := "virtio-net-pci"
		if spec.Common {
			device = "e1000e"
		}
		// No option ROM: the firmware would wait for a server to boot from.
		c.add("-netdev", fmt.Sprintf("dgram,id=net0,local.type=fd,local.str=%d", c.inherit(n.Socket)),
			"-device", device+",netdev=net0,romfile=,mac="+n.MAC.String())
	}
	// After all that an older lumina gave a machine: a guest's devices are called by
	// their slots, its NIC above all.
	// Windows has a driver for it once it is given one.
	err := c.addAgent()
	c.addClipboard()
	c.add("-device", "ich9-intel-hda", "-device", "hda-output,audiodev=sound")
	if err == nil && spec.TPM != nil {
		err = c.addTPM(m)
	}
	if err != nil {
		c.discard()
		return nil, err
	}
	if b := spec.Direct; b != nil {
		c.add("-no-reboot", "-kernel", devFD(c.inherit(b.Kernel)), "-initrd", devFD(c.inherit(b.Initrd)),
			"-append", strings.TrimSpace(b.CommandLine+" "+m.console))
		c.reads = append(c.reads, b.Kernel, b.Initrd)
	}
	if spec.Common {
		c.add("-rtc", "base=localtime") // of Windows
	}
	return c, nil
}

// addStorage adds disk and ISO. An empty disk does not boot, and the firmware
// goes on to the ISO; an installed one does, and the ISO can stay.
func (c *command) addStorage(spec vm.DesktopSpec) {
	first, second := ",bootindex=1", ",bootindex=2"
	if spec.Direct != nil {
		first, second = "", "" // the kernel is
	}
	if spec.Disk != nil {
		c.addFile("disk", spec.Disk, false, "")
		device := "virtio-blk-pci" + reportErrors
		if spec.Common {
			device = "nvme,serial=disk" // which always reports
		}
		c.add("-device", device+",drive=disk"+first)
	}
	if spec.ISO != nil {
		// On USB for every guest: all of them, and both firmwares, have drivers
		// for it, and under emulation it is faster than AHCI. OVMF reads 48 MB
		// in 19 s, not in more than 30 s.
		c.addFile("iso", spec.ISO, true, "")
		c.add("-device", "usb-bot,id=bot", "-device", "scsi-cd,bus=bot.0,drive=iso"+reportErrors+second)
	}
	if spec.Drivers != nil {
		c.addFile("drivers", spec.Drivers, true, "")
		c.add("-device", "usb-bot,id=bot1", "-device", "scsi-cd,bus=bot1.0,drive=drivers"+reportErrors)
	}
}

func display(window bool) string {
	switch {
	case !window:
		return "none"
	case goruntime.GOOS == "darwin":
		return "cocoa"
	}
	return "gtk"
}

// sandbox is QEMU's own. A window's toolkit sets priorities, and starts what it
// needs of the user's session.
func sandbox(window bool) string {
	if window {
		return "on,obsolete=deny,elevateprivileges=deny"
	}
	return "on,obsolete=deny,elevateprivileges=deny,spawn=deny,resourcecontrol=deny"
}

func (d *desktop) command(file *os.File, name string, arguments any) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.qmp.command(file, name, arguments)
}

// Reset is part of [vm.Resetter].
func (d *desktop) Reset() error { return d.command(nil, "system_reset", nil) }

func (d *desktop) PowerButton() error { return d.command(nil, "system_powerdown", nil) }

// keyCodes are QEMU's names of keys (qapi/ui.json, QKeyCode) that differ from ours.
var keyCodes = map[vm.Key]string{
	"enter": "ret", "space": "spc", "pageup": "pgup", "pagedown": "pgdn", "capslock": "caps_lock",
	"super": "meta_l", "print": "print", "altgr": "alt_r",
	"-": "minus", "=": "equal", "[": "bracket_left", "]": "bracket_right", "\\": "backslash", ";": "semicolon",
	"'": "apostrophe", "`": "grave_accent", ",": "comma", ".": "dot", "/": "slash",
}

// inputEvent is one of QEMU's (qapi/ui.json, InputEvent).
type inputEvent struct {
	Type string `json:"type"`
	Data any    `json:"data"`
}

func (d *desktop) send(events ...inputEvent) error {
	return d.command(nil, "input-send-event", map[string]any{"events": events})
}

// Key is part of [vm.Input].
func (d *desktop) Key(k vm.Key, down bool) error {
	code, ok := keyCodes[k]
	if !ok {
		code = string(k)
	}
	return d.send(inputEvent{"key", map[string]any{"down": down, "key": map[string]string{"type": "qcode", "data": code}}})
}

// maxAxis is the end of the tablet's axes.
const maxAxis = 0x7FFF

// Point is part of [vm.Input].
func (d *desktop) Point(x, y int, button vm.Button, down bool) error {
	var screen image.Point
	err := d.dump(func(r *bufio.Reader) (err error) {
		screen, err = readSize(r)
		return err
	})
	if err != nil {
		return fmt.Errorf("finding out the size of the screen: %w", err)
	}
	if x < 0 || y < 0 || x >= screen.X || y >= screen.Y {
		return fmt.Errorf("%d,%d is not on the screen of %dx%d", x, y, screen.X, screen.Y)
	}
	axis := func(name string, at, size int) inputEvent {
		return inputEvent{"abs", map[string]any{"axis": name, "value": (2*at + 1) * maxAxis / (2 * size)}}
	}
	return d.send(axis("x", x, screen.X), axis("y", y, screen.Y),
		inputEvent{"btn", map[string]any{"button": button, "down": down}})
}

// Viewer is part of [vm.Viewer].
func (d *desktop) Viewer() (net.Conn, error) {
	here, there, err := socketpair.New(syscall.SOCK_STREAM)
	if err != nil {
		return nil, fmt.Errorf("making the viewer's socket: %w", err)
	}
	defer there.Close()
	d.mu.Lock()
	defer d.mu.Unlock()
	err = d.qmp.command(there, "getfd", map[string]string{"fdname": "viewer"})
	if err == nil {
		err = d.qmp.command(nil, "add_client", map[string]any{"protocol": "vnc", "fdname": "viewer", "skipauth": true})
	}
	if err != nil {
		here.Close()
		return nil, err
	}
	return here, nil
}
