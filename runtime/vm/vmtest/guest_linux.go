package vmtest

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/abdul-abdi/lumina/initramfs/protocol"
	"github.com/abdul-abdi/lumina/runtime/client"
	"github.com/abdul-abdi/lumina/runtime/ext4"
	"github.com/abdul-abdi/lumina/runtime/image"
	"github.com/abdul-abdi/lumina/runtime/vm"
)

// OfImage is the target of a driver that boots an image of a store: Lumina's own
// kernel, init and agent.
func OfImage(driver vm.Driver, store *image.Store, name string) Target {
	spec := func(t testing.TB, options string) vm.Spec {
		t.Helper()
		img, err := store.Open(name)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { img.Close() })
		open := func(name string) *os.File {
			f, err := img.Open(name)
			if err != nil {
				t.Fatal(err)
			}
			t.Cleanup(func() { f.Close() })
			return f
		}
		return vm.Spec{
			Arch: img.Architecture, Kernel: open(image.Kernel), Initramfs: open(image.Initramfs), CommandLine: img.Kernel.CommandLine + options,
			CPUs: 2, Memory: 256 << 20,
			Disks: []vm.Disk{
				{File: open(image.Rootfs), Serial: protocol.DiskRoot, ReadOnly: true},
				{File: Disk(t), Serial: protocol.DiskScratch, Ephemeral: true},
			},
		}
	}
	return Target{
		Driver:  driver,
		Spec:    func(t testing.TB) vm.Spec { return spec(t, "") },
		NoAgent: func(t testing.TB) vm.Spec { return spec(t, " rdinit=/missing") },
		// The init waits for the partitions of a disk that is not there.
		Silent: func(t testing.TB) vm.Spec { return spec(t, " "+protocol.ParamDisk.Is("missing")) },
		PowerOff: func(t testing.TB, m vm.Machine) {
			ctx, cancel := context.WithTimeout(context.Background(), 30*time.Second)
			defer cancel()
			conn, err := m.Dial(ctx)
			if err == nil {
				err = client.Shutdown(ctx, conn)
			}
			if err != nil {
				t.Error(err)
			}
		},
		Crash: func(_ testing.TB, m vm.Machine) {
			_, _ = Shell(context.Background(), m, "echo c >/proc/sysrq-trigger") // its answer never comes
		},
		Print: func(t testing.TB, m vm.Machine, line string) {
			if _, err := Shell(context.Background(), m, fmt.Sprintf("echo '%s' >/dev/console", line)); err != nil {
				t.Error(err)
			}
		},
		Patience: time.Minute,
	}
}

// Disk is an empty file system of 64 MiB.
func Disk(t testing.TB) *os.File {
	t.Helper()
	f, err := os.Create(filepath.Join(t.TempDir(), "disk"))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { f.Close() })
	if err := ext4.Format(f, 64<<20, ext4.Options{}); err != nil {
		t.Fatal(err)
	}
	return f
}
