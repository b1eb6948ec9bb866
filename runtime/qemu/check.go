package qemu

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"strings"

	"github.com/abdul-abdi/lumina/runtime/vm"
)

var _ vm.Checker = (*Driver)(nil)

// Check is part of [vm.Checker].
func (d *Driver) Check(ctx context.Context, spec vm.Spec) []vm.Check {
	path, err := find(spec.Arch)
	if err != nil {
		return []vm.Check{{Name: "qemu", Status: vm.CheckFail, Detail: err.Error(), Remedy: "install it"}}
	}
	probe := exec.CommandContext(ctx, path, "--version")
	probe.Env = environ(false)
	out, err := probe.Output()
	if err != nil {
		return []vm.Check{{Name: "qemu", Status: vm.CheckFail, Detail: fmt.Sprintf("%s does not run: %v", path, err)}}
	}
	version, _, _ := strings.Cut(string(out), "\n")
	qemu := vm.Check{Name: "qemu", Status: vm.CheckOK, Detail: version}
	if older(version) {
		qemu.Status, qemu.Remedy = vm.CheckFail, "install QEMU 7.2 or newer"
	}
	checks := []vm.Check{
		qemu,
		{Name: "transport", Status: vm.CheckOK, Detail: "virtio-serial"},
		checkConfinement(d.controlGroup()),
		checkTPM(),
	}
	if spec.Kernel == nil {
		return checks
	}
	d.forget(spec)
	verdict, err := d.Probe(ctx, spec)
	switch {
	case err != nil:
		checks = append(checks, vm.Check{Name: "accelerator", Status: vm.CheckFail, Detail: err.Error()})
	case verdict.Accelerator == TCG:
		remedy := "use a host whose KVM runs guests"
		switch {
		case !strings.Contains(strings.ToLower(verdict.Reason), "permission denied"):
		case os.Geteuid() == 0:
			remedy = "root has no access to " + kvm + " here: give it to this container, or chown root " + kvm
		default:
			remedy = "let this user have " + kvm + ", as root: usermod -aG kvm USER; then log in anew"
		}
		checks = append(checks, vm.Check{Name: "accelerator", Status: vm.CheckWarn,
			Detail: "software emulation, several times slower: " + strings.ReplaceAll(verdict.Reason, "\n", "; "), Remedy: remedy})
	default:
		checks = append(checks, vm.Check{Name: "accelerator", Status: vm.CheckOK, Detail: string(verdict.Accelerator)})
	}
	return checks
}

// checkTPM says whether desktops can have a TPM, which Windows 11 asks for.
func checkTPM() vm.Check {
	path, err := findTPM()
	if err != nil {
		return vm.Check{Name: "tpm", Status: vm.CheckWarn, Detail: "desktops can have no TPM, which Windows 11 asks for", Remedy: err.Error()}
	}
	return vm.Check{Name: "tpm", Status: vm.CheckOK, Detail: path}
}

// older says whether a version of QEMU lacks what is used of it: networks over
// datagram sockets came with 7.2.
func older(version string) bool {
	var major, minor int
	if _, err := fmt.Sscanf(version, "QEMU emulator version %d.%d", &major, &minor); err != nil {
		return false // a build that calls itself something else
	}
	return major < 7 || major == 7 && minor < 2
}
