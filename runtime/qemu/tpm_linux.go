package qemu

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"syscall"

	"golang.org/x/sys/unix"

	"github.com/abdul-abdi/lumina/runtime/confine"
)

// What a TPM gets of the host, in bytes, whatever its guest makes it do. Its state has
// some 20 KB.
const (
	maxTPMState  = 4 << 20
	maxTPMMemory = 1 << 30
)

// startTPM starts the TPM of a machine, confined as QEMU is: as a user of its own, with
// no environment, and with no file but its state. It ends when QEMU has had it and ends,
// when it is killed, and with this process.
func startTPM(state, socket *os.File) (*tpm, error) {
	path, err := findTPM()
	if err != nil {
		return nil, err
	}
	if err := giveMemory(state); err != nil {
		return nil, fmt.Errorf("giving the TPM its state: %w", err)
	}
	t := &tpm{stderr: &head{}, done: make(chan struct{})}
	command := func() *exec.Cmd {
		cmd := exec.Command(path, "socket", "--tpm2", "--ctrl", "type=unixio,clientfd=3", "--tpmstate", "backend-uri=file:///dev/fd/4",
			"--terminate", "--seccomp", "action=kill")
		cmd.ExtraFiles = []*os.File{socket, state}
		cmd.Stdout, cmd.Stderr = t.stderr, t.stderr
		cmd.Env = []string{}
		return cmd
	}
	policy := confine.Policy{
		Read: append(installation(path), "/usr", "/lib", "/lib64",
			"/opt", "/nix/store", "/gnu/store", "/home/linuxbrew", "/etc/ld.so.cache", "/dev/urandom"),
		Write:  []string{"/dev/null", confine.Opened(state)},
		User:   tpmUser(state),
		Groups: []int{confine.Group},
	}
	err = confine.Start(policy, func(clone uintptr) error {
		t.cmd = command()
		t.cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL, Setpgid: true, Cloneflags: clone}
		if err := t.cmd.Start(); err != nil {
			return err
		}
		for what, most := range map[int]uint64{unix.RLIMIT_CORE: 0, unix.RLIMIT_FSIZE: maxTPMState, unix.RLIMIT_AS: maxTPMMemory} {
			if err := unix.Prlimit(t.cmd.Process.Pid, what, &unix.Rlimit{Cur: most, Max: most}, nil); err != nil {
				return errors.Join(fmt.Errorf("limiting its resources: %w", err), t.cmd.Process.Kill(), t.cmd.Wait())
			}
		}
		return nil
	}, func() {
		_ = t.cmd.Wait()
		close(t.done)
	})
	if err != nil {
		return nil, fmt.Errorf("starting %s: %w", path, err)
	}
	return t, nil
}

// tpmUser is who a TPM of root's is: a user of its own where that one can open the
// state, else root without any capability.
func tpmUser(state *os.File) int {
	var st unix.Stat_t
	if unix.Fstat(int(state.Fd()), &st) == nil && int(st.Gid) == confine.Group && st.Mode&0o060 == 0o060 {
		return confine.OwnUser
	}
	return confine.KeepUser
}
