package qemu

// Accelerator is how QEMU runs the guest's instructions.
type Accelerator string

// The accelerators.
const (
	KVM Accelerator = "kvm" // Linux
	HVF Accelerator = "hvf" // macOS
	TCG Accelerator = "tcg" // software emulation, everywhere
)

func (a Accelerator) args(m machine) []string {
	cpu := "host"
	if a == TCG {
		cpu = m.tcgCPU
	}
	return []string{"-accel", string(a), "-cpu", cpu}
}
