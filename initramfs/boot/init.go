//go:build linux

package boot

import (
	"errors"
	"fmt"
	"net"
	"os"
	"slices"
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

// HasOwnInit says whether the image's init is PID 1, once the root is there.
func (s *System) HasOwnInit() bool { return s.cmdline[protocol.ParamInit] != "" }

// StartInit makes the image's init PID 1, with the agent beside it, once the
// agent has configured the guest as the host wants. It returns only when that
// failed.
func (s *System) StartInit() error {
	if err := s.prepareInit(); err != nil {
		return err
	}
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
	configured, agent, err := os.Pipe()
	if err != nil {
		return err
	}
	if _, err := syscall.ForkExec("/proc/self/exe", []string{besideName}, &syscall.ProcAttr{
		Dir: "/", Files: []uintptr{null.Fd(), 1, 2, agent.Fd()}, Sys: &syscall.SysProcAttr{Setsid: true},
	}); err != nil {
		return fmt.Errorf("starting the agent: %w", err)
	}
	agent.Close()
	env := []string{"TERM=linux"}
	if !s.Alone() {
		if _, err := configured.Read(make([]byte, 1)); err != nil {
			return errors.New("starting systemd: the agent has ended")
		}
		env = append(env, "NOTIFY_SOCKET="+notifySocket)
	}
	return fmt.Errorf("starting %s: %w", program, syscall.Exec(program, []string{"/sbin/init"}, env))
}

func (s *System) prepareInit() error {
	if s.Alone() {
		return s.ConfigureAlone()
	}
	return s.marks.run([]task{
		action{"entering the root", s.enterRoot},
		mount{"run", "/run", "tmpfs", unix.MS_NOSUID | unix.MS_NODEV, "mode=0755,size=20%"}, // which systemd keeps
		action{"telling systemd how to power off", s.setPowerOff},
	})
}

// setPowerOff makes systemd end a machine that has no power management as
// PowerOff does.
func (s *System) setPowerOff() error {
	if s.cmdline[protocol.ParamOff] != protocol.OffReset {
		return nil
	}
	for _, unit := range []string{"systemd-poweroff.service", "systemd-halt.service"} {
		dir := "/run/systemd/system/" + unit + ".d"
		if err := os.MkdirAll(dir, 0o755); err != nil {
			return err
		}
		if err := os.WriteFile(dir+"/lumina.conf", []byte("[Unit]\nSuccessAction=reboot-force\n"), 0o644); err != nil {
			return err
		}
	}
	return nil
}

// notifySocket is where systemd tells that it is up (sd_notify(3)).
const notifySocket = "@lumina-agent"

// initPatience is how long a host waits for systemd to be up before it goes on
// without: as long as systemd itself waits for a unit (DefaultTimeoutStartSec).
const initPatience = 90 * time.Second

// awaitInit lets PID 1 start systemd, and waits until that is up.
func (s *System) awaitInit() error {
	l, err := net.ListenUnixgram("unixgram", &net.UnixAddr{Name: notifySocket, Net: "unixgram"})
	if err != nil {
		return err
	}
	defer l.Close()
	if _, err := s.configured.Write([]byte{0}); err != nil {
		return err
	}
	if err := errors.Join(s.configured.Close(), l.SetReadDeadline(time.Now().Add(initPatience))); err != nil {
		return err
	}
	message := make([]byte, 4096)
	for {
		n, err := l.Read(message)
		if errors.Is(err, os.ErrDeadlineExceeded) {
			return nil
		}
		if err != nil {
			return err
		}
		if slices.Contains(strings.Split(string(message[:n]), "\n"), "READY=1") {
			return nil
		}
	}
}

// IsBeside says whether this process is the agent beside another init.
func IsBeside() bool { return os.Args[0] == besideName }

// Beside is the guest as the agent sees it that is not PID 1.
func Beside() (*System, error) {
	// The orphans of what it starts come to it.
	if err := unix.Prctl(unix.PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0); err != nil {
		return nil, err
	}
	s := &System{entered: true, configured: os.NewFile(3, "configured")}
	unix.CloseOnExec(3)
	return s, s.readCommandLine()
}

// beside says whether another init is PID 1, as the agent sees it.
func (s *System) beside() bool { return s.configured != nil }
