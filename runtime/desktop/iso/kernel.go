package iso

import (
	"errors"
	"io"
)

// Kernel is an ISO's Linux, to be booted without its loader.
type Kernel struct {
	Path, InitrdPath string
	Kernel, Initrd   *io.SectionReader
	// CommandLine is what this kind of ISO needs, without a console.
	CommandLine string
}

// kernels are where distributions keep theirs.
var kernels = map[string][]struct{ kernel, initrd, commandLine string }{
	"amd64": {
		{"/install.amd/vmlinuz", "/install.amd/initrd.gz", ""},
		{"/casper/vmlinuz", "/casper/initrd", "boot=casper"},
		{"/live/vmlinuz", "/live/initrd.img", "boot=live"},
		{"/images/pxeboot/vmlinuz", "/images/pxeboot/initrd.img", ""},
		{"/boot/x86_64/loader/linux", "/boot/x86_64/loader/initrd", ""},
		{"/boot/vmlinuz-lts", "/boot/initramfs-lts", "modules=loop,squashfs,sd-mod,usb-storage"},
		{"/arch/boot/x86_64/vmlinuz-linux", "/arch/boot/x86_64/initramfs-linux.img", ""},
		{"/linux", "/initrd.gz", ""},
	},
	"arm64": {
		{"/install.a64/vmlinuz", "/install.a64/initrd.gz", ""},
		{"/casper/vmlinuz", "/casper/initrd", "boot=casper"},
		{"/live/vmlinuz", "/live/initrd.img", "boot=live"},
		{"/images/pxeboot/vmlinuz", "/images/pxeboot/initrd.img", ""},
		{"/boot/aarch64/linux", "/boot/aarch64/initrd", ""},
		{"/boot/vmlinuz-lts", "/boot/initramfs-lts", "modules=loop,squashfs,sd-mod,usb-storage"},
		{"/linux", "/initrd.gz", ""},
	},
}

// ErrNoKernel is returned when no kernel is where distributions keep theirs.
var ErrNoKernel = errors.New("no Linux kernel and initial RAM disk where distributions keep them")

// Kernel finds the kernel for an architecture.
func (i *Image) Kernel(arch string) (*Kernel, error) {
	for _, at := range kernels[arch] {
		kernel, err := i.Open(at.kernel)
		if err != nil {
			continue
		}
		initrd, err := i.Open(at.initrd)
		if err != nil {
			continue
		}
		return &Kernel{Path: at.kernel, InitrdPath: at.initrd, Kernel: kernel, Initrd: initrd, CommandLine: at.commandLine}, nil
	}
	return nil, ErrNoKernel
}
