//go:build linux

package boot

import (
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"
	"os"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"github.com/abdul-abdi/lumina/initramfs/protocol"
)

// besideName is the agent's name beside another init. systemd spares processes
// with an @ when it ends the rest ("systemd and storage daemons for the root
// file system", by its authors).
const besideName = "@lumina-agent"

// Alone says whether no host configures this guest: it is an exported disk.
func (s *System) Alone() bool { return s.cmdline["host"] == "none" }

// HasOwnInit says whether the image's init is PID 1, once the root is there.
func (s *System) HasOwnInit() bool { return s.cmdline["init"] != "" }

// ConfigureAlone does what Configure does, without a host: what has a name keeps
// it from boot to boot.
func (s *System) ConfigureAlone() error {
	return s.marks.run([]step{
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

// StartInit makes the image's init PID 1, with the agent beside it. It returns
// only when that failed.
func (s *System) StartInit() error {
	var program string
	for _, p := range []string{"/usr/lib/systemd/systemd", "/lib/systemd/systemd"} {
		if _, err := os.Stat(p); err == nil {
			program = p
			break
		}
	}
	if program == "" {
		return errors.New("starting systemd: the image has none")
	}
	null, err := os.OpenFile("/dev/null", os.O_RDWR, 0)
	if err != nil {
		return err
	}
	if _, err := syscall.ForkExec("/proc/self/exe", []string{besideName}, &syscall.ProcAttr{
		Dir: "/", Files: []uintptr{null.Fd(), 1, 2}, Sys: &syscall.SysProcAttr{Setsid: true},
	}); err != nil {
		return fmt.Errorf("starting the agent: %w", err)
	}
	return fmt.Errorf("starting %s: %w", program, syscall.Exec(program, []string{"/sbin/init"}, []string{"TERM=linux"}))
}

// IsBeside says whether this process is the agent beside another init.
func IsBeside() bool { return os.Args[0] == besideName }

// Beside is the guest as the agent sees it that is not PID 1.
func Beside() *System {
	// The orphans of what it starts come to it.
	_ = unix.Prctl(unix.PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)
	return &System{entered: true, beside: true}
}

// Run is what only PID 1 does, beside serving: it gets the network up and keeps a
// shell on the console, when the image has one.
func (s *System) Run(start func(string, []string, *syscall.ProcAttr) (int, <-chan syscall.WaitStatus, error)) {
	if s.beside {
		return
	}
	go s.networkAlone()
	for {
		console, err := os.OpenFile("/dev/console", os.O_RDWR, 0)
		if err != nil {
			return
		}
		began := time.Now()
		fd := console.Fd()
		_, ended, err := start("/bin/sh", []string{"-sh"}, &syscall.ProcAttr{
			Dir: "/", Files: []uintptr{fd, fd, fd}, Sys: &syscall.SysProcAttr{Setsid: true, Setctty: true},
			Env: []string{"HOME=/root", "TERM=linux", "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"},
		})
		console.Close()
		if err != nil {
			return
		}
		<-ended
		if time.Since(began) < time.Second {
			return // nobody is there
		}
	}
}
