//go:build !linux

package qemu

import (
	"os"
	"os/exec"
	"syscall"

	"github.com/abdul-abdi/lumina/runtime/vm"
)

// start starts QEMU in a process group of its own, so that a terminal's Ctrl-C
// does not reach it. Only Linux can tie its life to ours.
func (p *process) start(command func() *exec.Cmd, line *command, _ string) error {
	cmd := command()
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	if err := cmd.Start(); err != nil {
		return err
	}
	line.arm()
	go p.wait(cmd, nil)
	return nil
}

func checkConfinement(string) vm.Check {
	return vm.Check{Name: "confinement", Status: vm.CheckWarn, Detail: "QEMU has the rights of its user: only Linux can confine it further"}
}

func giveMemory(*os.File) error { return nil }

func letRead(*os.File) error { return nil }
