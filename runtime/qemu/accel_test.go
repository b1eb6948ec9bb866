package qemu

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"testing"
	"time"

	"github.com/abdul-abdi/lumina/runtime/vm"
)

// A verdict that comes of a probe which took too long is not kept for ever, one
// that QEMU gave is; doctor's question is always a new probe.
func TestVerdictsThatMayBeWrong(t *testing.T) {
	if _, err := hardware(runtime.GOARCH); err != nil {
		t.Skipf("this host has no accelerator to judge: %v", err)
	}
	dir := t.TempDir()
	d := &Driver{cacheDir: dir}
	tries := 0
	verdict := func(err error) Verdict {
		t.Helper()
		v, probeErr := d.probe(t.Context(), runtime.GOARCH, int64(1), func(context.Context, Accelerator) error {
			tries++
			return err
		})
		if probeErr != nil {
			t.Fatal(probeErr)
		}
		return v
	}
	// Slow: as if the time had passed.
	v, err := d.judge(t.Context(), runtime.GOARCH, time.Millisecond, func(ctx context.Context, _ Accelerator) error {
		<-ctx.Done()
		return context.Cause(ctx)
	})
	if err != nil || v.Accelerator != TCG || v.Until.IsZero() || !strings.Contains(v.Reason, "not up after") {
		t.Errorf("a probe that takes too long: %+v, %v", v, err)
	}
	// Reset once: it is asked again. Twice: it is broken.
	for resets, want := range map[int]Accelerator{1: KVM, 2: TCG} {
		n := 0
		v, err := d.judge(t.Context(), runtime.GOARCH, time.Minute, func(context.Context, Accelerator) error {
			if n++; n <= resets {
				return vm.ErrEarlyReset
			}
			return nil
		})
		if err != nil || v.Accelerator == TCG != (want == TCG) || n != 2 {
			t.Errorf("%d resets: %+v, %v after %d probes", resets, v, err, n)
		}
	}
	broken := errors.New("KVM internal error")
	for range 2 {
		if v := verdict(broken); v.Accelerator != TCG || !v.Until.IsZero() {
			t.Errorf("a probe that fails: %+v", v)
		}
	}
	if tries != 1 {
		t.Errorf("%d probes, want one: its verdict is kept", tries)
	}
	spec := vm.Spec{Arch: runtime.GOARCH}
	d.forget(spec) // of a kernel that is none, size 0
	if verdict(broken); tries != 1 {
		t.Error("another kernel's verdict was forgotten")
	}
	kernel, err := os.CreateTemp(dir, "")
	if err != nil {
		t.Fatal(err)
	}
	defer kernel.Close()
	if err := kernel.Truncate(1); err != nil {
		t.Fatal(err)
	}
	spec.Kernel = kernel
	d.forget(spec)
	if verdict(broken); tries != 2 {
		t.Errorf("%d probes, want two: the verdict was forgotten", tries)
	}
}

// A verdict that cannot be kept holds all the same: a home directory may be read-only.
func TestVerdictsThatCannotBeKept(t *testing.T) {
	file := filepath.Join(t.TempDir(), "file")
	if err := os.WriteFile(file, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	d := &Driver{cacheDir: filepath.Join(file, "lumina")}
	d.options.Accelerator = TCG
	for range 2 {
		v, err := d.probe(t.Context(), runtime.GOARCH, int64(1), func(context.Context, Accelerator) error { return nil })
		if err != nil || v.Accelerator != TCG {
			t.Errorf("a probe whose verdict cannot be kept: %+v, %v", v, err)
		}
	}
}

// A verdict that may be wrong is not kept for longer because the clock was.
func TestVerdictsAndTheClock(t *testing.T) {
	now := time.Now()
	for _, tt := range []struct {
		v    Verdict
		want bool
	}{
		{Verdict{}, false}, {Verdict{Accelerator: KVM}, true}, {Verdict{Accelerator: TCG, Until: now.Add(doubt)}, true},
		{Verdict{Accelerator: TCG, Until: now.Add(-1)}, false}, {Verdict{Accelerator: TCG, Until: now.Add(100 * doubt)}, false},
	} {
		if got := tt.v.stands(now); got != tt.want {
			t.Errorf("%+v stands: %v", tt.v, got)
		}
	}
}

// Guests do not virtualize in their turn unless it is asked for.
func TestNested(t *testing.T) {
	for _, tt := range []struct {
		arch   string
		a      Accelerator
		nested bool
		want   string
	}{
		{"amd64", KVM, false, "-cpu host,svm=off,vmx=off"},
		{"amd64", KVM, true, "-cpu host"},
		{"amd64", TCG, false, "-cpu max,erms=off,fsrm=off,svm=off,vmx=off"},
		{"amd64", TCG, true, "-cpu max,erms=off,fsrm=off"},
		{"arm64", TCG, false, "-cpu cortex-a57"},
		{"arm64", KVM, false, "-cpu host"},
	} {
		if got := strings.Join(tt.a.args(machines[tt.arch], tt.nested)[2:], " "); got != tt.want {
			t.Errorf("%s %s nested=%v: %q, want %q", tt.arch, tt.a, tt.nested, got, tt.want)
		}
	}
}
