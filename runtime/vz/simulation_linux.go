package vz

import (
	"bufio"
	"bytes"
	"crypto/rand"
	"crypto/sha256"
	"encoding/binary"
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
	"sync/atomic"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"github.com/abdul-abdi/lumina/initramfs/protocol"
)

// Simulated is the driver over a simulation of the framework, for tests on Linux:
// there is no other. log is told what goes wrong below it; cacheDir is the driver's.
func Simulated(log func(format string, args ...any), cacheDir string) *Driver {
	return &Driver{framework: &simulation{log: log}, cacheDir: cacheDir}
}

// simulation is a framework that runs a real guest, by QEMU, as the real one
// would, and fights back where the real one does. Its vsock is carried by the
// guest's serial port: this host may have none.
type simulation struct {
	log func(format string, args ...any)
	// hold is how long disks stay locked after a machine has stopped.
	hold time.Duration
	// lateLock: locked disks are found at the start, which tells a machine's end, and
	// not when the machine is made.
	lateLock bool
	// noRestore: this host saves machines and restores none.
	noRestore bool
	// unsigned: the program lacks its entitlement.
	unsigned bool
	// activities are those that have begun and not ended.
	activities atomic.Int64
	// deaf machines do nothing when they are asked to stop.
	deaf atomic.Bool
	// arm64: a Mac with Apple silicon; else one with an Intel processor.
	arm64 bool
	// translator is the directory of what stands in for Rosetta; "" for none.
	translator string
}

func (*simulation) limits() (cpus int, memory int64) { return 8, 16 << 30 }

func (s *simulation) signature() (string, error) {
	if s.unsigned {
		return "Executable=/usr/local/bin/lumina\nSignature=adhoc\n", nil
	}
	return signedText, nil
}

func (*simulation) quarantine() (string, error) { return "", nil }

func (s *simulation) activity() (end func()) {
	s.activities.Add(1)
	return func() { s.activities.Add(-1) }
}

func (s *simulation) rosetta() error {
	if s.translator == "" {
		return errNoRosetta
	}
	return nil
}

func (*simulation) release() (string, error) { return "15.5", nil }
func (*simulation) build() (string, error)   { return "24F74 Mac16,1", nil }

// path is the name that a file has now, or had last.
func (*simulation) path(f *os.File) (string, error) {
	return os.Readlink(fmt.Sprintf("/proc/self/fd/%d", f.Fd()))
}

func (s *simulation) arch() string {
	if s.arm64 {
		return "arm64"
	}
	return "amd64"
}

func (*simulation) newMacIdentifier() ([]byte, error) { return nil, errNoMac }

// newVariables refuses a file that is there, as the framework does.
func (*simulation) newVariables(path string) error {
	f, err := os.OpenFile(path, os.O_CREATE|os.O_EXCL|os.O_WRONLY, 0o600)
	if err != nil {
		return err
	}
	_, err = f.WriteString("variables")
	return errors.Join(err, f.Close())
}

func (*simulation) newDesktop(*desktopConfiguration) (desktopMachine, error) {
	return nil, errors.New("the simulation has no screen")
}

func (*simulation) newIdentifier() ([]byte, error) {
	id := make([]byte, 32)
	_, err := rand.Read(id)
	return id, err
}

// newMachine refuses what the framework refuses, and locks writable disks.
func (s *simulation) newMachine(c *configuration) (virtualMachine, error) {
	if err := s.validate(c.cpus, c.memory); err != nil {
		return nil, err
	}
	kernel, err := os.ReadFile(c.kernel)
	if err != nil {
		return nil, err
	}
	// Of whatever is not a bzImage, or no Image.
	if s.arm64 && (len(kernel) < 64 || string(kernel[56:60]) != "ARM\x64") || !s.arm64 && (len(kernel) < 0x206 || string(kernel[0x202:0x206]) != "HdrS") {
		return nil, errors.New("internal error")
	}
	m := newSimulated(s, c)
	if err := m.lockDisks(); err != nil && !s.lateLock {
		return nil, err
	}
	return m, nil
}

// validate refuses what the framework refuses of every machine.
func (s *simulation) validate(cpus int, memory int64) error {
	const invalid = "invalid virtual machine configuration"
	mostCPUs, mostMemory := s.limits()
	switch {
	case s.unsigned:
		return errors.New(invalid + ": the process doesn't have the entitlement")
	case cpus < 1 || cpus > mostCPUs:
		return errors.New(invalid + ": the number of CPUs")
	case memory%(1<<20) != 0 || memory > mostMemory:
		return errors.New(invalid + ": the memory")
	}
	return nil
}

func newSimulated(s *simulation, c *configuration) *simulated {
	return &simulated{s: s, c: c, changes: make(chan state, 16), accepts: make(chan net.Conn, 16), stopped: make(chan struct{})}
}

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

// lockDisks locks all disks or none.
func (m *simulated) lockDisks() error {
	m.locking.Lock()
	defer m.locking.Unlock()
	for _, d := range m.c.disks {
		if err := m.lock(d); err != nil {
			m.closeLocks()
			return fmt.Errorf("disk %q: %w", d.serial, err)
		}
	}
	return nil
}

// locked is whether the disks are the machine's at its start. A machine whose start
// fails tells so.
func (m *simulated) locked() error {
	m.locking.Lock()
	held := len(m.locks) > 0 || len(m.c.disks) == 0
	m.locking.Unlock()
	if held {
		return nil
	}
	err := m.lockDisks()
	if err != nil {
		m.changes <- stateOther
		m.changes <- stateStopped
	}
	return err
}

func (m *simulated) lock(d disk) error {
	flag, how := os.O_RDWR, unix.LOCK_EX
	if d.readOnly {
		flag, how = os.O_RDONLY, unix.LOCK_SH
	}
	f, err := os.OpenFile(d.path, flag, 0)
	if err != nil {
		return err
	}
	m.locks = append(m.locks, f)
	info, err := f.Stat()
	if err != nil {
		return err
	}
	if info.Size()%512 != 0 {
		return fmt.Errorf("%d bytes are no multiple of 512", info.Size())
	}
	if err := unix.Flock(int(f.Fd()), how|unix.LOCK_NB); err != nil {
		return fmt.Errorf("%w: %w", errLocked, err)
	}
	return nil
}

func (m *simulated) unlock() {
	m.locking.Lock()
	defer m.locking.Unlock()
	m.closeLocks()
}

func (m *simulated) closeLocks() {
	for _, f := range m.locks {
		f.Close()
	}
	m.locks = nil
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

// agentUp greets the agent that comes up next, and then makes the connection that
// it would make.
func (m *simulated) agentUp() {
	m.mu.Lock()
	waits := m.greeted
	m.greeted = true
	m.mu.Unlock()
	if waits {
		return // the guest reset before it read that hello, and finds it now
	}
	_ = protocol.SendHello(m.port)
	err := protocol.ReceiveHello(m.port)
	m.mu.Lock()
	m.greeted = false
	m.mu.Unlock()
	if err != nil {
		return
	}
	m.accepts <- m.connection(0)
}

// connection is one of the guest's vsock: a hello each, then its serial port's mux.
// The guest takes all of its connections for one: the streams of a later one get
// numbers above from.
func (m *simulated) connection(from uint32) net.Conn {
	here, file, err := pair()
	if err != nil {
		return nil
	}
	there, err := net.FileConn(file)
	file.Close()
	if err != nil {
		return nil
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.relayed != nil {
		m.relayed.Close()
	}
	m.relayed = there
	over := make(chan struct{})
	m.over = over
	go func() {
		defer close(over)
		defer there.Close()
		if protocol.ReceiveHello(there) == nil && protocol.SendHello(there) == nil {
			go func() { _ = renumber(m.port, there, from) }()
			_ = renumber(there, m.port, -from)
		}
	}()
	return here
}

// renumber copies frames of the mux, see PROTOCOL.md, and adds to their streams'
// numbers.
func renumber(to io.Writer, from io.Reader, add uint32) error {
	in := bufio.NewReader(from)
	for {
		frame := make([]byte, 8)
		if _, err := io.ReadFull(in, frame); err != nil {
			return err
		}
		binary.BigEndian.PutUint32(frame, binary.BigEndian.Uint32(frame)+add)
		if frame[4]&flagData != 0 {
			n := int(frame[5])<<16 | int(frame[6])<<8 | int(frame[7])
			frame = append(frame, make([]byte, n)...)
			if _, err := io.ReadFull(in, frame[8:]); err != nil {
				return err
			}
		}
		if _, err := to.Write(frame); err != nil {
			return err
		}
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

func (m *simulated) listen(uint32) (listener, error) { return simulatedListener{m}, nil }

type simulatedListener struct{ m *simulated }

func (l simulatedListener) accept() (net.Conn, error) { return <-l.m.accepts, nil }

// close is never answered once the machine has stopped.
func (l simulatedListener) close() { <-make(chan struct{}) }

// connect is never answered once the machine has stopped.
func (m *simulated) connect(uint32) (net.Conn, error) {
	select {
	case <-m.stopped:
		<-make(chan struct{})
	default:
	}
	return m.connection(1 << 16), nil
}

// signedText is what codesign(1) says of a program that make build has signed.
const signedText = "Executable=/usr/local/bin/lumina\nSignature=adhoc\n<dict><key>com.apple.security.network.server</key><false/>" +
	"<key>com.apple.security.virtualization</key><true/></dict>"
