package qemu_test

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	goruntime "runtime"
	"testing"
	"time"

	"github.com/abdul-abdi/lumina/builder"
	"github.com/abdul-abdi/lumina/builder/buildertest"
	"github.com/abdul-abdi/lumina/initramfs"
	"github.com/abdul-abdi/lumina/initramfs/protocol"
	kernelconfig "github.com/abdul-abdi/lumina/kernel-config"
	"github.com/abdul-abdi/lumina/runtime/agent"
	"github.com/abdul-abdi/lumina/runtime/ext4"
	"github.com/abdul-abdi/lumina/runtime/image"
	"github.com/abdul-abdi/lumina/runtime/qemu"
	"github.com/abdul-abdi/lumina/runtime/vm"
	"github.com/abdul-abdi/lumina/runtime/vm/vmtest"
)

// QEMU keeps the contract of drivers, with the kernel, the initramfs and the
// agent that its guests have.
func TestSuite(t *testing.T) {
	if testing.Short() {
		t.Skip("it boots VMs")
	}
	store := image.NewStore(filepath.Join(t.TempDir(), "images"))
	layout, err := buildertest.Debian(goruntime.GOARCH)
	if err != nil {
		t.Fatal(err)
	}
	img, err := builder.Create(t.Context(), builder.Options{
		Name: "debian", Reference: "oci:" + layout + ":latest", Store: store, CacheDir: t.TempDir(), Kernel: kernel, Initramfs: initramfs.Read,
	})
	if err != nil {
		t.Fatal(err)
	}
	spec := func(t testing.TB) vm.Spec {
		files, err := store.Open("debian")
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { files.Close() })
		open := func(name string) *os.File {
			f, err := files.Open(name)
			if err != nil {
				t.Fatal(err)
			}
			t.Cleanup(func() { f.Close() })
			return f
		}
		scratch, err := os.Create(filepath.Join(t.TempDir(), "scratch"))
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { scratch.Close() })
		if err := ext4.Format(scratch, 64<<20, ext4.Options{Label: protocol.DiskScratch}); err != nil {
			t.Fatal(err)
		}
		return vm.Spec{
			Arch: goruntime.GOARCH, Kernel: open(image.Kernel), Initramfs: open(image.Initramfs), CommandLine: img.Kernel.CommandLine,
			CPUs: 2, Memory: 256 << 20,
			Disks: []vm.Disk{
				{File: open(image.Rootfs), Serial: protocol.DiskRoot, ReadOnly: true},
				{File: scratch, Serial: protocol.DiskScratch, Ephemeral: true},
			},
		}
	}
	with := func(t testing.TB, option string) vm.Spec {
		s := spec(t)
		s.CommandLine += " " + option
		return s
	}
	vmtest.Run(t, vmtest.Target{
		Driver:  qemu.New(),
		Spec:    spec,
		NoAgent: func(t testing.TB) vm.Spec { return with(t, "rdinit=/missing") },
		// The init waits for the partitions of a disk that is not there.
		Silent: func(t testing.TB) vm.Spec { return with(t, "lumina.disk=missing") },
		PowerOff: func(t testing.TB, m vm.Machine) {
			ctx, cancel := context.WithTimeout(context.Background(), 30*time.Second)
			defer cancel()
			conn, err := m.Dial(ctx)
			if err == nil {
				err = agent.Shutdown(ctx, conn)
			}
			if err != nil {
				t.Error(err)
			}
		},
		Crash: func(t testing.TB, m vm.Machine) {
			_, _ = vmtest.Shell(context.Background(), m, "echo c >/proc/sysrq-trigger")
		},
		Print: func(t testing.TB, m vm.Machine, line string) {
			if _, err := vmtest.Shell(context.Background(), m, fmt.Sprintf("echo '%s' >/dev/console", line)); err != nil {
				t.Error(err)
			}
		},
		CrashIsSilent: true, // QEMU ends when its machine resets
		Patience:      time.Minute,
	})
}

// kernel is Lumina's own.
func kernel(arch string) (builder.Kernel, error) {
	k, err := kernelconfig.Open(arch)
	if err != nil {
		return builder.Kernel{}, err
	}
	return builder.Kernel{Version: k.Version, CommandLine: kernelconfig.CommandLine(arch), Default: true, Open: k.Open}, nil
}
