//go:build linux

// Init is PID 1 of every guest, and its agent.
package main

import (
	"fmt"
	"os"
	"os/signal"
	"syscall"

	"github.com/abdul-abdi/lumina/initramfs/agent"
	"github.com/abdul-abdi/lumina/initramfs/boot"
	"github.com/abdul-abdi/lumina/initramfs/transport"
)

func main() {
	if boot.IsBeside() {
		system, err := boot.Beside()
		if err == nil {
			err = serve(system)
		}
		fmt.Fprintf(os.Stderr, "lumina-agent: %v\n", err)
		os.Exit(1)
	}
	if os.Getpid() != 1 {
		fmt.Fprintln(os.Stderr, "lumina-init: this is the init of Lumina's virtual machines; it runs as PID 1 only")
		os.Exit(2)
	}
	// Whatever a process of the guest sends, PID 1 lives on: the Go runtime
	// would end it, and with it the kernel, on several of these.
	ignored := make(chan os.Signal, 1)
	signal.Notify(ignored)
	signal.Reset(syscall.SIGCHLD, syscall.SIGURG)
	go func() {
		for range ignored {
		}
	}()
	system, err := boot.Start()
	switch {
	case err != nil:
	case system.HasOwnInit():
		err = system.StartInit()
	default:
		err = serve(system)
	}
	// The console is what the host shows of a boot that failed.
	fmt.Fprintf(os.Stderr, "lumina-init: %v\n", err)
	system.PowerOff()
}

func serve(system *boot.System) error {
	if system.Alone() {
		if err := system.ConfigureAlone(); err != nil {
			return err
		}
		return serveAlone(system)
	}
	server := agent.NewServer(system, agent.NewReaper())
	server.Rehearses = system.Rehearses()
	if system.Transport() == "vsock" {
		return transport.ServeVsock(server.Serve)
	}
	port, err := transport.OpenPort()
	if err != nil {
		return err
	}
	system.Mark("opening the port")
	l, err := port.Accept()
	if err != nil {
		return err
	}
	system.Mark("greeting the host")
	return server.Serve(l)
}

// serveAlone serves the hosts that come, if any, of a guest that does without.
func serveAlone(system *boot.System) error {
	reaper := agent.NewReaper()
	server := agent.NewServer(system, reaper)
	server.Configured()
	go system.Run(reaper.Start)
	go func() { _ = transport.ServeVsock(server.Serve) }() // the machine may have none
	for {
		port, err := transport.OpenPort()
		if err != nil {
			return err
		}
		if l, err := port.AcceptLater(); err == nil {
			_ = server.Serve(l) // until the host goes
			l.Close()
		}
		port.Close()
	}
}
