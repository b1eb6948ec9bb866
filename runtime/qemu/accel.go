package qemu

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"syscall"
	"time"

	"github.com/abdul-abdi/lumina/runtime/vm"
)

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

// kvm is Linux's hardware accelerator.
const kvm = "/dev/kvm"

// probeTimeout is how long a hardware accelerator gets to bring a guest's init
// up. With one that works it takes a fraction of a second.
const probeTimeout = 5 * time.Second

// hardware is the accelerator that this host may have for an architecture.
func hardware(arch string) (Accelerator, error) {
	switch {
	case arch != runtime.GOARCH:
		return TCG, fmt.Errorf("the guest is %s, this host %s", arch, runtime.GOARCH)
	case runtime.GOOS == "darwin":
		return HVF, nil
	case runtime.GOOS != "linux":
		return TCG, fmt.Errorf("QEMU has none for %s", runtime.GOOS)
	}
	f, err := os.OpenFile(kvm, os.O_RDWR, 0)
	if err != nil {
		return TCG, err
	}
	return KVM, f.Close()
}

// Verdict is whether this host's hardware accelerator runs guests.
type Verdict struct {
	Accelerator Accelerator `json:"accelerator"`
	// Reason says why it is emulation.
	Reason string `json:"reason,omitempty"`
	// TSC is the frequency of the host's time stamp counter, in kHz; 0 where
	// it has none. An emulated amd64 guest sees this counter, and has nothing
	// to measure it with that keeps time on a busy host.
	TSC int64 `json:"tsc_khz,omitempty"`
}

// Probe finds out which accelerator to use, by booting spec's kernel: some
// hosts have the device and cannot run a stock guest. The verdict is kept in
// cacheDir until QEMU, the kernel of the host or the guest's changes.
func Probe(ctx context.Context, spec vm.Spec, cacheDir string) (Verdict, error) {
	kernel := int64(0)
	if info, err := spec.Kernel.Stat(); err == nil {
		kernel = info.Size()
	}
	return probe(ctx, spec.Arch, kernel, cacheDir, func(ctx context.Context, a Accelerator) error { return try(ctx, spec, a) })
}

// probe finds out which accelerator to use for a guest, which try boots.
func probe(ctx context.Context, arch string, guest any, cacheDir string, try func(context.Context, Accelerator) error) (Verdict, error) {
	path := filepath.Join(cacheDir, "accelerator-"+fingerprint(arch, guest)+".json")
	var v Verdict
	if b, err := os.ReadFile(path); err == nil && json.Unmarshal(b, &v) == nil && v.Accelerator != "" {
		return v, nil
	}
	v, err := judge(ctx, arch, try)
	if err != nil {
		return Verdict{}, err
	}
	v.TSC = measureTSC()
	b, err := json.Marshal(v)
	if err == nil {
		err = os.MkdirAll(cacheDir, 0o700)
	}
	if err == nil {
		err = os.WriteFile(path, b, 0o600)
	}
	if err != nil {
		return Verdict{}, fmt.Errorf("keeping the verdict on %s: %w", v.Accelerator, err)
	}
	return v, nil
}

func judge(ctx context.Context, arch string, try func(context.Context, Accelerator) error) (Verdict, error) {
	if forced := os.Getenv("LUMINA_ACCEL"); forced != "" {
		return Verdict{Accelerator: Accelerator(forced), Reason: "LUMINA_ACCEL is set"}, nil
	}
	want, err := hardware(arch)
	if want == TCG {
		return Verdict{Accelerator: TCG, Reason: err.Error()}, nil
	}
	attempt, cancel := context.WithTimeoutCause(ctx, probeTimeout, fmt.Errorf("nothing happened for %v", probeTimeout))
	defer cancel()
	err = try(attempt, want)
	if ctx.Err() != nil {
		return Verdict{}, context.Cause(ctx)
	}
	if err != nil {
		return Verdict{Accelerator: TCG, Reason: fmt.Sprintf("%s does not run a guest: %v", want, err)}, nil
	}
	return Verdict{Accelerator: want}, nil
}

// fingerprint names what a verdict depends on.
func fingerprint(arch string, guest any) string {
	h := sha256.New()
	fmt.Fprintln(h, "verdict 3", arch, guest, os.Getenv("LUMINA_ACCEL"))
	for _, f := range []string{"/proc/sys/kernel/osrelease", "/proc/sys/kernel/random/boot_id"} {
		b, _ := os.ReadFile(f) // not there on other systems
		h.Write(b)
	}
	// Who may use the device can change at any time; that is what doctor advises.
	if info, err := os.Stat(kvm); err == nil {
		if st, ok := info.Sys().(*syscall.Stat_t); ok {
			fmt.Fprintln(h, info.Mode(), st.Uid, st.Gid, syscall.Access(kvm, 6)) // to read and write
		}
	}
	if path, err := find(arch); err == nil {
		if info, err := os.Stat(path); err == nil {
			fmt.Fprintln(h, path, info.Size(), info.ModTime().UnixNano())
		}
	}
	return hex.EncodeToString(h.Sum(nil)[:8])
}

// try boots a guest without disks until its agent greets.
func try(ctx context.Context, spec vm.Spec, a Accelerator) error {
	spec.Disks, spec.Network, spec.CPUs, spec.Memory = nil, nil, 1, 256<<20
	p, err := start(ctx, spec, Verdict{Accelerator: a})
	if err != nil {
		return err
	}
	defer func() {
		p.Kill()
		<-p.done
	}()
	select {
	case <-p.greeted:
		return nil
	case <-p.done:
		return errors.Join(p.err, context.Cause(ctx))
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}
