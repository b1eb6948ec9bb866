package qemu

import (
	"fmt"
	"os/exec"
	"syscall"

	"github.com/abdul-abdi/lumina/runtime/socketpair"
	"github.com/abdul-abdi/lumina/runtime/vm"
)

// swtpm is the program that is a machine's TPM.
const swtpm = "swtpm"

var _ vm.TPMDriver = (*Driver)(nil)

// CheckTPM is part of [vm.TPMDriver].
func (*Driver) CheckTPM(arch string) error {
	if _, ok := desktopMachines[arch]; !ok {
		return fmt.Errorf("architecture %q: %w", arch, vm.ErrUnsupported)
	}
	_, err := findTPM()
	return err
}

func findTPM() (string, error) {
	path, err := exec.LookPath(swtpm)
	if err != nil {
		return "", fmt.Errorf("a TPM needs the program %s, which is not in PATH; on Debian: apt-get install %s", swtpm, swtpm)
	}
	return path, nil
}

// addTPM gives a machine a TPM 2.0. Over the socket QEMU controls the program that is
// the TPM, and gives it another one for what the guest says.
func (c *command) addTPM(m desktopMachine) error {
	here, there, err := socketpair.New(syscall.SOCK_STREAM)
	if err != nil {
		return fmt.Errorf("making the TPM's socket: %w", err)
	}
	defer here.Close()
	file, err := here.File()
	if err != nil {
		there.Close()
		return fmt.Errorf("making the TPM's socket: %w", err)
	}
	c.tpm, c.own = there, append(c.own, there, file)
	c.add("-chardev", fmt.Sprintf("socket,id=tpm,fd=%d", c.inherit(file)),
		"-tpmdev", "emulator,id=tpm0,chardev=tpm", "-device", m.tpm+",tpmdev=tpm0")
	return nil
}

// tpm is the running program of a machine's TPM.
type tpm struct {
	cmd    *exec.Cmd
	stderr *head
	done   chan struct{}
}

// kill ends it. The state is in its file after each command of the guest's.
func (t *tpm) kill() {
	_ = t.cmd.Process.Kill() // it may have ended with QEMU
	<-t.done
}

// explain adds what the TPM says to the error of a machine that did not start.
func (t *tpm) explain(err error) error {
	if t == nil || err == nil {
		return err
	}
	t.kill()
	if line := firstLine(t.stderr.String()); line != "" {
		return fmt.Errorf("%w; its TPM says: %.200q", err, line)
	}
	return err
}
