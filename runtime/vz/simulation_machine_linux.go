package vz

import (
	"bufio"
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"strings"
	"sync"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"github.com/abdul-abdi/lumina/initramfs/protocol"
)

// newSimulated makes a machine that has not started.
func newSimulated(s *simulation, c *configuration) *simulated {
	return &simulated{s: s, c: c, changes: make(chan state, 16), accepts: make(chan net.Conn, 16), stopped: make(chan struct{})}
}

// simulated is one machine of the simulation: a QEMU process.
type simulated struct {
	s       *simulation
	c       *configuration
	locking sync.Mutex // guards locks: a start that nobody waits for takes them while the machine ends
	locks   []*os.File
	changes chan state
	accepts chan net.Conn
	stopped chan struct{}

	mu      sync.Mutex
	port    net.Conn      // the guest's serial port
	relayed net.Conn      // to the driver, over the port
	over    chan struct{} // closed when nobody reads the port for relayed
	settled *time.Timer   // runs since the guest's last reset
	greeted bool          // a hello waits for an agent that is not up yet
	cmd     *exec.Cmd
	monitor *json.Encoder
	replies chan map[string]any
}

// arguments lay the machine out for QEMU: PCI devices, a virtio console, and no
// -no-reboot, so that a guest which resets starts again.
func (m *simulated) arguments() []string {
	line := strings.Replace(m.c.commandLine, protocol.ParamTransport.Is(protocol.TransportVsock), protocol.ParamTransport.Is(protocol.TransportSerial), 1) +
		" no_timer_check" // on a busy host the emulated timer is late, which the kernel takes for a broken one
	hardware := []string{"-M", "q35", "-cpu", "max,erms=off,fsrm=off"}
	if m.s.arm64 {
		hardware = []string{"-M", "virt,gic-version=3", "-cpu", "cortex-a57"}
	}
	args := append(hardware, "-accel", "tcg,thread=multi", "-smp", fmt.Sprint(m.c.cpus), "-m", fmt.Sprint(m.c.memory>>20),
		"-nodefaults", "-no-user-config", "-display", "none", "-kernel", m.c.kernel, "-initrd", m.c.initramfs, "-append", line,
		"-device", "virtio-serial-pci", "-chardev", "stdio,id=console,signal=off", "-device", "virtconsole,chardev=console",
		"-chardev", "socket,id=agent,fd=3", "-device", "virtserialport,chardev=agent,name="+protocol.PortName,
		"-chardev", "socket,id=qmp,fd=4", "-mon", "chardev=qmp,mode=control",
	)
	for i, d := range m.c.disks {
		args = append(args, "-blockdev", fmt.Sprintf("driver=file,node-name=disk%d,filename=%s,locking=off,read-only=%s", i, strings.ReplaceAll(d.path, ",", ",,"), onOff(d.readOnly)),
			"-device", fmt.Sprintf("virtio-blk-pci,drive=disk%d,serial=%s", i, d.serial))
	}
	for i, s := range m.c.shares {
		args = append(args, "-fsdev", fmt.Sprintf("local,id=share%d,path=%s,security_model=mapped-xattr,readonly=%s", i, s.dir, onOff(s.readOnly)),
			"-device", fmt.Sprintf("virtio-9p-pci,fsdev=share%d,mount_tag=%s", i, s.tag))
	}
	if m.c.rosetta {
		args = append(args, "-fsdev", "local,id=rosetta,security_model=mapped-xattr,readonly=on,path="+m.s.translator,
			"-device", "virtio-9p-pci,fsdev=rosetta,mount_tag="+rosettaTag)
	}
	if m.c.entropy {
		args = append(args, "-device", "virtio-rng-pci")
	}
	if m.c.nic != nil {
		args = append(args, "-netdev", "dgram,id=net0,local.type=fd,local.str=5", "-device", "virtio-net-pci,netdev=net0,mac="+m.c.nic.mac.String())
	}
	return args
}

func onOff(b bool) string {
	if b {
		return "on"
	}
	return "off"
}

func pair() (ours net.Conn, theirs *os.File, err error) {
	fds, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return nil, nil, err
	}
	f := os.NewFile(uintptr(fds[0]), "ours")
	defer f.Close()
	ours, err = net.FileConn(f)
	return ours, os.NewFile(uintptr(fds[1]), "theirs"), err
}

func (m *simulated) launch(more ...string) error {
	port, guest, err := pair()
	if err != nil {
		return err
	}
	defer guest.Close()
	monitor, qmp, err := pair()
	if err != nil {
		return err
	}
	defer qmp.Close()
	qemu := "qemu-system-x86_64"
	if m.s.arm64 {
		qemu = "qemu-system-aarch64"
	}
	cmd := exec.Command(qemu, append(m.arguments(), more...)...)
	cmd.ExtraFiles = []*os.File{guest, qmp}
	if m.c.nic != nil {
		cmd.ExtraFiles = append(cmd.ExtraFiles, m.c.nic.socket)
	}
	// Files, not writers: the framework reads and writes the descriptors itself.
	cmd.Stdin, cmd.Stdout = m.c.console.in, m.c.console.out
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	if err := cmd.Start(); err != nil {
		return err
	}
	m.mu.Lock()
	m.cmd, m.port, m.monitor, m.replies = cmd, port, json.NewEncoder(monitor), make(chan map[string]any, 16)
	m.mu.Unlock()
	go m.events(monitor)
	go func() {
		err := cmd.Wait()
		port.Close()
		monitor.Close()
		close(m.stopped)
		if err != nil && stderr.Len() > 0 {
			m.s.log("simulation: %v: %s", err, stderr.String())
		}
		m.changes <- stateStopped
		time.Sleep(m.s.hold)
		m.unlock()
	}()
	return m.command("qmp_capabilities", nil)
}

// events hears QEMU's monitor: a guest that resets has lost its vsock
// connections, and connects again when its agent is up.
func (m *simulated) events(r io.Reader) {
	for d := json.NewDecoder(bufio.NewReader(r)); ; {
		var message map[string]any
		if err := d.Decode(&message); err != nil {
			close(m.replies)
			return
		}
		switch {
		case message["event"] == "RESET":
			if data, _ := message["data"].(map[string]any); data["guest"] == true {
				m.guestReset()
			}
		case message["return"] != nil || message["error"] != nil:
			m.replies <- message
		}
	}
}

func (m *simulated) command(name string, arguments map[string]any) error {
	_, err := m.ask(name, arguments)
	return err
}

func (m *simulated) ask(name string, arguments map[string]any) (any, error) {
	call := map[string]any{"execute": name}
	if arguments != nil {
		call["arguments"] = arguments
	}
	if err := m.monitor.Encode(call); err != nil {
		return nil, err
	}
	reply, ok := <-m.replies
	if !ok {
		return nil, errors.New("the machine has ended")
	}
	if reply["error"] != nil {
		return nil, fmt.Errorf("%s: %v", name, reply["error"])
	}
	return reply["return"], nil
}

// resetSettles is how long after a reset the firmware may reset once more; what is
// written to the port until then is lost.
const resetSettles = time.Second

// guestReset breaks the guest's connection, and awaits its agent anew.
func (m *simulated) guestReset() {
	m.mu.Lock()
	relayed, over := m.relayed, m.over
	m.relayed = nil
	if m.settled == nil {
		m.settled = time.AfterFunc(resetSettles, m.agentUp)
	} else {
		m.settled.Reset(resetSettles)
	}
	m.mu.Unlock()
	if relayed != nil {
		relayed.Close()
		_ = m.port.SetReadDeadline(time.Now())
		<-over
		_ = m.port.SetReadDeadline(time.Time{})
	}
}

func (m *simulated) start() error {
	if err := m.locked(); err != nil {
		return err
	}
	if err := m.launch(); err != nil {
		return err
	}
	m.changes <- stateOther
	go m.agentUp()
	return nil
}

// flagData is the mux's flag of a frame that has a payload.
const flagData = 2

func (m *simulated) stop() error {
	if !m.s.deaf.Load() {
		_ = m.cmd.Process.Kill()
		<-m.stopped
	}
	return nil
}

func (m *simulated) pause() error  { return m.command("stop", nil) }
func (m *simulated) resume() error { return m.command("cont", nil) }

func (m *simulated) supportsSave() error {
	if m.c.entropy {
		return errors.New("a machine with an entropy device is not restored")
	}
	return nil
}

// shape is what a machine that is restored has in common with the saved one.
func (m *simulated) shape() string {
	c := m.c
	id := []any{c.commandLine, c.cpus, c.memory, c.identifier, c.shares, c.entropy}
	for _, d := range c.disks {
		id = append(id, d.serial, d.readOnly, d.sync)
	}
	if c.nic != nil {
		id = append(id, c.nic.mac, c.nic.mtu)
	}
	sum := sha256.Sum256([]byte(fmt.Sprintln(id...)))
	return hex.EncodeToString(sum[:])
}

func (m *simulated) save(path string) error {
	if _, err := os.Stat(path); err == nil {
		return errors.New("there is such a file already")
	}
	if err := m.command("migrate", map[string]any{"uri": fmt.Sprintf("exec:(printf %s; cat) >'%s'", m.shape(), path)}); err != nil {
		return err
	}
	return m.until("query-migrate", "completed", "failed")
}

// until asks QEMU again and again for a status.
func (m *simulated) until(question, want, unwanted string) error {
	for {
		reply, err := m.ask(question, nil)
		if err != nil {
			return err
		}
		status, _ := reply.(map[string]any)
		switch status["status"] {
		case want:
			return nil
		case unwanted:
			return fmt.Errorf("%s: %v", question, reply)
		}
		time.Sleep(10 * time.Millisecond)
	}
}

func (m *simulated) restore(path string) error {
	if m.s.noRestore {
		return errors.New("this host restores no machines")
	}
	f, err := os.Open(path)
	if err != nil {
		return err
	}
	defer f.Close()
	shape := make([]byte, len(m.shape()))
	if _, err := io.ReadFull(f, shape); err != nil || string(shape) != m.shape() {
		return fmt.Errorf("the file is of another configuration: %w", err)
	}
	if err := m.locked(); err != nil {
		return err
	}
	if err := m.launch("-S", "-incoming", fmt.Sprintf("exec:tail -c +%d '%s'", len(shape)+1, path)); err != nil {
		return err
	}
	if err := m.until("query-status", "paused", "internal-error"); err != nil {
		return err
	}
	m.changes <- stateOther
	return nil
}

func (m *simulated) states() <-chan state { return m.changes }
