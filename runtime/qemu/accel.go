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

	"github.com/abdul-abdi/lumina/runtime/durable"
	"github.com/abdul-abdi/lumina/runtime/statefile"
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

// ParseAccelerator parses the name of an accelerator; "" means that none was chosen.
func ParseAccelerator(s string) (Accelerator, error) {
	switch a := Accelerator(s); a {
	case "", KVM, HVF, TCG:
		return a, nil
	}
	return "", fmt.Errorf("accelerator %q: want %s, %s or %s", s, KVM, HVF, TCG)
}

// args chooses the CPU. It has nested virtualization only if asked for, because that
// exposes much more of KVM to the guest.
func (a Accelerator) args(m machine, nested bool) []string {
	cpu := "host"
	if a == TCG {
		cpu = m.tcgCPU
	}
	if !nested {
		cpu += m.notNested
	}
	return []string{"-accel", string(a), "-cpu", cpu}
}

// kvm is Linux's hardware accelerator.
const kvm = "/dev/kvm"

// probeTimeout is how long a hardware accelerator gets to bring a guest's init
// up. With one that works it takes a fraction of a second, but where the host is a
// guest itself, or busy. One that cannot go on is seen at once.
const probeTimeout = 30 * time.Second

// doubt is how long a verdict is kept that comes of a probe which took too long.
const doubt = time.Hour

// maxVerdict bounds the file of a verdict, in bytes.
const maxVerdict = 64 << 10

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
	// Until is when a verdict ends that may be wrong; zero for never.
	Until time.Time `json:"until,omitzero"`
}

// Probe finds out which accelerator to use, by booting spec's kernel: some
// hosts have the device and cannot run a stock guest. The verdict is kept
// until QEMU, the kernel of the host or the guest's changes.
func (d *Driver) Probe(ctx context.Context, spec vm.Spec) (Verdict, error) {
	return d.probe(ctx, spec.Arch, guestOf(spec), func(ctx context.Context, a Accelerator) error { return d.try(ctx, spec, a) })
}

// guestOf is what a verdict depends on of a guest.
func guestOf(spec vm.Spec) any {
	if info, err := spec.Kernel.Stat(); err == nil {
		return info.Size()
	}
	return int64(0)
}

// stands says whether a verdict that was kept is to be believed. One that ends later
// than it can comes of a clock that has been set back since.
func (v *Verdict) stands(now time.Time) bool {
	left := v.Until.Sub(now)
	return v.Accelerator != "" && (v.Until.IsZero() || left > 0 && left <= doubt)
}

// probe finds out which accelerator to use for a guest, which try boots.
func (d *Driver) probe(ctx context.Context, arch string, guest any, try func(context.Context, Accelerator) error) (Verdict, error) {
	path := d.verdictPath(arch, guest)
	var v Verdict
	if b, err := statefile.Read(path, maxVerdict); d.cacheDir != "" && err == nil && json.Unmarshal(b, &v) == nil && v.stands(time.Now()) {
		return v, nil
	}
	v, err := d.judge(ctx, arch, probeTimeout, try)
	if err != nil {
		return Verdict{}, err
	}
	v.TSC = measureTSC()
	if d.cacheDir == "" {
		return v, nil
	}
	b, err := json.Marshal(v)
	if err != nil {
		return Verdict{}, fmt.Errorf("keeping the verdict on %s: %w", v.Accelerator, err)
	}
	// It is kept for speed only: in a home directory that is read-only or full, each
	// start probes anew, and runs.
	if os.MkdirAll(d.cacheDir, 0o700) == nil {
		_ = durable.Replace(path, b, 0o600)
	}
	return v, nil
}

// judge tries the accelerator that this host may have, for a limited time.
func (d *Driver) judge(ctx context.Context, arch string, limit time.Duration, try func(context.Context, Accelerator) error) (Verdict, error) {
	if forced := d.options.Accelerator; forced != "" {
		return Verdict{Accelerator: forced, Reason: "it was asked for"}, nil
	}
	want, err := hardware(arch)
	if want == TCG {
		return Verdict{Accelerator: TCG, Reason: err.Error()}, nil
	}
	slow := fmt.Errorf("its guest was not up after %v", limit)
	attempt, cancel := context.WithTimeoutCause(ctx, limit, slow)
	defer cancel()
	if err = try(attempt, want); errors.Is(err, vm.ErrEarlyReset) {
		err = try(attempt, want) // once in some hundred starts where the host is a guest itself
	}
	if ctx.Err() != nil {
		return Verdict{}, context.Cause(ctx)
	}
	if err != nil {
		v := Verdict{Accelerator: TCG, Reason: fmt.Sprintf("%s does not run a guest: %v", want, err)}
		if errors.Is(err, slow) {
			v.Until = time.Now().Add(doubt)
		}
		return v, nil
	}
	return Verdict{Accelerator: want}, nil
}

func (d *Driver) verdictPath(arch string, guest any) string {
	return filepath.Join(d.cacheDir, "accelerator-"+d.fingerprint(arch, guest)+".json")
}

// desktopGuest is what the verdict on desktops' machines depends on.
const desktopGuest = "desktop"

// forget has the next probe try anew.
func (d *Driver) forget(spec vm.Spec) {
	for _, guest := range []any{guestOf(spec), desktopGuest} {
		_ = os.Remove(d.verdictPath(spec.Arch, guest)) // it may not be there
	}
}

// fingerprint names what a verdict depends on.
func (d *Driver) fingerprint(arch string, guest any) string {
	h := sha256.New()
	fmt.Fprintln(h, "verdict 5", arch, guest, d.options.Accelerator)
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
func (d *Driver) try(ctx context.Context, spec vm.Spec, a Accelerator) error {
	spec.Disks, spec.Network, spec.CPUs, spec.Memory = nil, nil, 1, 256<<20
	p, err := d.start(ctx, spec, Verdict{Accelerator: a})
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
