package qemu

import (
	"context"
	"errors"
	"flag"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/abdul-abdi/lumina/initramfs/protocol"
	"github.com/abdul-abdi/lumina/runtime/vm"
)

var update = flag.Bool("update", false, "write the command lines of testdata/args anew")

// golden compares QEMU's arguments with a file that has one a line.
func golden(t *testing.T, name string, args []string) {
	t.Helper()
	path := filepath.Join("testdata", "args", strings.ReplaceAll(name, " ", "-")+".txt")
	got := strings.Join(args, "\n") + "\n"
	if *update {
		if err := os.WriteFile(path, []byte(got), 0o644); err != nil {
			t.Fatal(err)
		}
		return
	}
	want, err := os.ReadFile(path)
	if err != nil {
		t.Fatalf("%v; write it with: go test ./runtime/qemu -run %s -update", err, t.Name())
	}
	if diff := cmp.Diff(strings.Split(string(want), "\n"), strings.Split(got, "\n")); diff != "" {
		t.Errorf("QEMU's arguments are not those of %s (-want +got); if they are to change, run this test with -update:\n%s", path, diff)
	}
}

// file is a file that a machine is made of.
func file(t *testing.T, size int64) *os.File {
	t.Helper()
	f, err := os.CreateTemp(t.TempDir(), "")
	if err == nil {
		err = f.Truncate(size)
	}
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { f.Close() })
	return f
}

// leastSpec is a VM as the runtime starts it.
func leastSpec(t *testing.T, arch string) vm.Spec {
	return vm.Spec{
		Arch: arch, CPUs: 2, Memory: 512 << 20, CommandLine: "quiet", Kernel: file(t, 1), Initramfs: file(t, 1),
		Disks: []vm.Disk{{File: file(t, 4096), Serial: protocol.DiskRoot, ReadOnly: true}, {File: file(t, 8192), Serial: protocol.DiskScratch, Ephemeral: true}},
	}
}

// What QEMU is told of a machine, argument by argument. Nobody else sees that a
// device, a cache mode or a part of the sandbox has gone.
func TestCommandLines(t *testing.T) {
	mac := net.HardwareAddr{2, 0, 0, 0, 0, 1}
	tests := []struct {
		name    string
		arch    string
		verdict Verdict
		change  func(t *testing.T, s *vm.Spec) *memory
	}{
		{"amd64 emulated", "amd64", Verdict{Accelerator: TCG}, nil},
		{"amd64 emulated with a known clock", "amd64", Verdict{Accelerator: TCG, TSC: 2500000}, nil},
		{"amd64 kvm", "amd64", Verdict{Accelerator: KVM, TSC: 2500000}, nil},
		{"amd64 kvm nested", "amd64", Verdict{Accelerator: KVM}, func(_ *testing.T, s *vm.Spec) *memory { s.Nested = true; return nil }},
		{"arm64 emulated", "arm64", Verdict{Accelerator: TCG, TSC: 2500000}, nil},
		{"arm64 emulated nested", "arm64", Verdict{Accelerator: TCG}, func(_ *testing.T, s *vm.Spec) *memory { s.Nested = true; return nil }},
		{"with network and volume", "amd64", Verdict{Accelerator: KVM}, func(t *testing.T, s *vm.Spec) *memory {
			s.Network = &vm.NIC{MAC: mac, Socket: file(t, 0), MTU: 1500}
			s.Disks = append(s.Disks, vm.Disk{File: file(t, 1<<20), Serial: "volume2"})
			return nil
		}},
		{"to make a template", "amd64", Verdict{Accelerator: KVM}, func(t *testing.T, s *vm.Spec) *memory { return &memory{file: file(t, s.Memory), shared: true} }},
		{"restored from a template", "amd64", Verdict{Accelerator: KVM}, func(t *testing.T, s *vm.Spec) *memory {
			return &memory{file: file(t, s.Memory), state: file(t, 1)}
		}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			spec := leastSpec(t, tt.arch)
			var mem *memory
			if tt.change != nil {
				mem = tt.change(t, &spec)
			}
			c, err := newCommand(machines[tt.arch], tt.verdict, spec, mem)
			if err != nil {
				t.Fatal(err)
			}
			defer c.discard()
			golden(t, tt.name, c.args)
			if (tt.verdict.Accelerator == KVM) != c.kvm || c.memory != spec.Memory || c.cpus != spec.CPUs {
				t.Errorf("it is confined as another machine: %+v", c)
			}
			// A restored guest has its kernel in memory; the others read it.
			if restored := mem != nil && mem.state != nil; slices.Contains(c.files, spec.Kernel) == restored {
				t.Errorf("it inherits the kernel: %v", !restored)
			}
		})
	}
}

func TestTooManyDevices(t *testing.T) {
	spec := leastSpec(t, "amd64")
	for range 6 {
		spec.Disks = append(spec.Disks, vm.Disk{File: file(t, 4096), Serial: "more"})
	}
	if c, err := newCommand(machines["amd64"], Verdict{}, spec, nil); err == nil || !strings.Contains(err.Error(), "fewer volumes") {
		t.Errorf("newCommand() = %v, %v", c, err)
	}
	spec.Disks, spec.Shares = spec.Disks[:2], []vm.Share{{Dir: t.TempDir(), Tag: "share0"}}
	if _, err := newCommand(machines["arm64"], Verdict{}, vm.Spec{Arch: "arm64", Rosetta: true}, nil); !errors.Is(err, vm.ErrUnsupported) {
		t.Errorf("newCommand() with Rosetta: %v", err)
	}
	if _, err := newCommand(machines["amd64"], Verdict{}, spec, nil); !errors.Is(err, vm.ErrUnsupported) {
		t.Errorf("newCommand() with a share: %v", err)
	}
}

func TestDesktopCommandLines(t *testing.T) {
	fw := firmware{code: "/firmware, with a comma", variables: "/variables"}
	tests := []struct {
		name, arch string
		a          Accelerator
		change     func(t *testing.T, s *vm.DesktopSpec)
	}{
		{"desktop amd64", "amd64", KVM, nil},
		{"desktop arm64 emulated", "arm64", TCG, nil},
		{"desktop of a system without virtio", "amd64", KVM, func(_ *testing.T, s *vm.DesktopSpec) { s.Common = true }},
		{"desktop in a window", "amd64", KVM, func(_ *testing.T, s *vm.DesktopSpec) { s.Window = true }},
		{"desktop with Secure Boot TPM and drivers", "amd64", TCG, func(t *testing.T, s *vm.DesktopSpec) {
			s.Common, s.SecureBoot, s.TPM, s.Drivers = true, true, file(t, 0), file(t, 4096)
		}},
		{"desktop arm64 with a TPM", "arm64", TCG, func(t *testing.T, s *vm.DesktopSpec) { s.TPM = file(t, 0) }},
		{"desktop booted directly", "amd64", TCG, func(t *testing.T, s *vm.DesktopSpec) {
			s.Direct = &vm.DirectBoot{Kernel: file(t, 1), Initrd: file(t, 1), CommandLine: "auto"}
		}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			spec := vm.DesktopSpec{ID: "00000000-0000-4000-8000-000000000000", Name: "d", Arch: tt.arch, CPUs: 2, Memory: 1 << 30,
				Variables: file(t, 1), Disk: file(t, 4096), ISO: file(t, 4096),
				Network: &vm.NIC{MAC: net.HardwareAddr{2, 0, 0, 0, 0, 1}, Socket: file(t, 0), MTU: 1500}}
			if tt.change != nil {
				tt.change(t, &spec)
			}
			fw := fw
			fw.smm = spec.SecureBoot
			c, err := newDesktopCommand(spec, fw, tt.a)
			if err != nil {
				t.Fatal(err)
			}
			defer c.discard()
			golden(t, tt.name, c.args)
		})
	}
	for name, spec := range map[string]vm.DesktopSpec{"no CPU": {Arch: "amd64", Memory: 1 << 30}, "little memory": {Arch: "amd64", CPUs: 1, Memory: 1 << 20}} {
		if _, err := newDesktopCommand(spec, fw, TCG); err == nil {
			t.Errorf("%s: no error", name)
		}
	}
}

// A QEMU whose owner died before the kernel had been asked to end the one with the other
// ends by itself: it is not told what its monitor is.
func TestOwnerThatDied(t *testing.T) {
	path, err := find("amd64")
	if err != nil && testing.Short() {
		t.Skip("with -short: ", err)
	}
	if err != nil {
		t.Fatal(err)
	}
	c := &command{args: []string{"-M", "none", "-nodefaults", "-display", "none"}}
	if err := c.addMonitor(); err != nil {
		t.Fatal(err)
	}
	defer c.discard()
	c.owner.Close()
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	cmd := exec.CommandContext(ctx, path, c.args...)
	cmd.ExtraFiles = c.files
	if out, err := cmd.CombinedOutput(); ctx.Err() != nil || err == nil || !strings.Contains(string(out), `"qmp" not found`) {
		t.Errorf("QEMU ended with %v: %s", err, out)
	}
}
