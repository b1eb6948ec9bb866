package qemu_test

import (
	"path/filepath"
	goruntime "runtime"
	"testing"

	"github.com/abdul-abdi/lumina/builder"
	"github.com/abdul-abdi/lumina/builder/buildertest"
	"github.com/abdul-abdi/lumina/initramfs"
	kernelconfig "github.com/abdul-abdi/lumina/kernel-config"
	"github.com/abdul-abdi/lumina/runtime/image"
	"github.com/abdul-abdi/lumina/runtime/qemu"
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
	if _, err := builder.Create(t.Context(), builder.Options{
		Name: "debian", Reference: "oci:" + layout + ":latest", Store: store, CacheDir: t.TempDir(), Kernel: kernel, Initramfs: initramfs.Read,
	}); err != nil {
		t.Fatal(err)
	}
	target := vmtest.OfImage(qemu.New(qemu.Options{}), store, "debian")
	target.CrashIsSilent = true // QEMU ends when its machine resets
	vmtest.Run(t, target)
}

// kernel is Lumina's own.
func kernel(arch string) (builder.Kernel, error) {
	k, err := kernelconfig.Open(arch)
	if err != nil {
		return builder.Kernel{}, err
	}
	return builder.Kernel{Version: k.Version, CommandLine: kernelconfig.CommandLine(arch), Default: true, Open: k.Open}, nil
}
