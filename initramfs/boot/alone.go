//go:build linux

package boot

import (
	"crypto/rand"
	"encoding/hex"
	"os"
	"strings"
	"sync"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"github.com/abdul-abdi/lumina/initramfs/protocol"
)

// Alone says whether no host configures this guest: it is an exported disk.
func (s *System) Alone() bool { return s.cmdline[protocol.ParamHost] == protocol.HostNone }

// ConfigureAlone does what Configure does, without a host: what has a name keeps
// it from boot to boot.
func (s *System) ConfigureAlone() error {
	if s.beside() {
		return nil // PID 1 did it before there was an agent
	}
	return s.marks.run([]task{
		action{"entering the root", s.enterRoot},
		action{"writing the guest's names", s.nameAlone},
		action{"bringing up the network", func() error { return s.configureNetwork(nil) }},
	})
}

func (s *System) nameAlone() error {
	name := "lumina"
	if b, err := os.ReadFile("/etc/hostname"); err == nil && len(strings.TrimSpace(string(b))) > 0 {
		name = strings.TrimSpace(string(b))
	}
	if err := unix.Sethostname([]byte(name)); err != nil {
		return err
	}
	if id, err := os.ReadFile("/etc/machine-id"); err == nil && len(strings.TrimSpace(string(id))) == 32 {
		return nil // not the first boot
	}
	var id [16]byte
	if _, err := rand.Read(id[:]); err != nil {
		return err
	}
	if s.HasOwnInit() {
		// How names are resolved is the image's own affair, too.
		return s.names.write(&protocol.Configure{Hostname: name, MachineID: hex.EncodeToString(id[:])}, resolvFile)
	}
	return s.names.write(&protocol.Configure{Hostname: name, MachineID: hex.EncodeToString(id[:])})
}

// Run is what only PID 1 does, beside serving: it gets the network up and keeps a
// shell on each console, when the image has one: on the screen and on the serial
// line, whichever somebody looks at.
func (s *System) Run(start func(string, []string, *syscall.ProcAttr) (int, <-chan syscall.WaitStatus, error)) {
	if s.beside() {
		return
	}
	go s.networkAlone()
	var all sync.WaitGroup
	for _, console := range consoles() {
		all.Go(func() { keepShell(console, start) })
	}
	all.Wait()
}

// consoles are the terminals of the kernel's consoles.
func consoles() []string {
	b, err := os.ReadFile("/sys/class/tty/console/active")
	if err != nil {
		return []string{"/dev/console"}
	}
	var names []string
	for _, name := range strings.Fields(string(b)) {
		if name == "tty0" { // the screen that is seen; the shell's is the first
			name = "tty1"
		}
		names = append(names, "/dev/"+name)
	}
	return names
}

// keepShell has a shell on a terminal, one after the other, until one ends at once.
func keepShell(terminal string, start func(string, []string, *syscall.ProcAttr) (int, <-chan syscall.WaitStatus, error)) {
	for {
		f, err := os.OpenFile(terminal, os.O_RDWR|unix.O_NOCTTY, 0)
		if err != nil {
			return
		}
		began := time.Now()
		fd := f.Fd()
		_, ended, err := start("/bin/sh", []string{"-sh"}, &syscall.ProcAttr{
			Dir: "/", Files: []uintptr{fd, fd, fd}, Sys: &syscall.SysProcAttr{Setsid: true, Setctty: true},
			Env: []string{"HOME=/root", "TERM=linux", "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"},
		})
		f.Close()
		if err != nil {
			return
		}
		<-ended
		if time.Since(began) < time.Second {
			return // nobody is there
		}
	}
}
