package main

import (
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"

	"github.com/abdul-abdi/lumina/builder/buildertest"
)

// diskDrivers prints the drivers that the disk of the root is behind, and the network
// adapter's.
const diskDrivers = `for p in $(readlink -f /sys/class/block/*3/..) $(readlink -f /sys/class/net/eth0/device); do
while [ "$p" != / ] && [ -n "$p" ]; do [ -e $p/driver ] && basename $(readlink $p/driver); p=${p%/*}; done; done`

// The disk of each place boots from a controller of that place, as far as QEMU has
// it, with EFI firmware and nothing of Lumina's: the agent answers, the network is up,
// what can be written is as large as the disk, and the screen has a shell.
func TestExportFor(t *testing.T) {
	kernel, err := filepath.Abs("../../bin/kernel-full-amd64")
	if err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(kernel); err != nil {
		t.Skip("the kernel with every driver is not built: make kernel-full")
	}
	for _, tt := range []struct {
		place, file, format string
		grow                int64  // the disk's size is that, in bytes
		devices             string // how the disk, "d", is attached, and a network adapter to "n"
		drivers             string // of both
	}{
		{"azure", "d.vhd", "vpc", 0, "-M pc -device ide-hd,drive=d,bus=ide.0 -device e1000-82545em,netdev=n,romfile=", "sd ata_piix e1000"},
		{"hyperv", "d.vhdx", "vhdx", 0, "-device virtio-scsi-pci -device scsi-hd,drive=d -device e1000,netdev=n,romfile=", "sd virtio_scsi virtio-pci e1000"},
		{"aws", "d.raw", "raw", 0, "-device nvme,drive=d,serial=1 -device e1000e,netdev=n,romfile=", "nvme e1000e"},
		{"gcp", "d.tar.gz", "raw", 0, "-device virtio-scsi-pci -device scsi-hd,drive=d -device virtio-net-pci,netdev=n,romfile=", "sd virtio_scsi virtio-pci virtio_net virtio-pci"},
		{"vmware", "d.ova", "vmdk", 0, "-device pvscsi -device scsi-hd,drive=d -device vmxnet3,netdev=n,romfile= -device VGA", "sd vmw_pvscsi vmxnet3"},
		{"virtualbox", "d.ova", "vmdk", 0, "-device ahci,id=ahci -device ide-hd,drive=d,bus=ahci.0 -device e1000,netdev=n,romfile=", "sd ahci e1000"},
		{"baremetal", "d.raw", "raw", 4 << 30, "-device qemu-xhci -device usb-storage,drive=d -device usb-kbd -device pcnet,netdev=n,romfile= -device ramfb", "sd usb-storage usb usb xhci_hcd pcnet32"},
	} {
		t.Run(tt.place, func(t *testing.T) {
			t.Parallel() // each is one CPU's work
			dir := t.TempDir()
			file := filepath.Join(dir, tt.file)
			r := lumina(t, "images", "export", "debian", "--for", tt.place, "--kernel", kernel, "-o", file).succeeded(t)
			if !strings.Contains(r.stderr, "next: ") {
				t.Errorf("it does not say how to go on: %q", r.stderr)
			}
			switch {
			case strings.HasSuffix(tt.file, ".ova"):
				buildertest.Run(t, "tar", "-xf", file, "-C", dir)
				file = filepath.Join(dir, "d-disk1.vmdk")
			case strings.HasSuffix(tt.file, ".tar.gz"):
				buildertest.Run(t, "tar", "-xzSf", file, "-C", dir)
				file = filepath.Join(dir, "disk.raw")
			}
			if tt.grow != 0 {
				if err := os.Truncate(file, tt.grow); err != nil {
					t.Fatal(err)
				}
			}
			if strings.Contains(tt.devices, "pvscsi") {
				// Debian's firmware has no driver of it: it starts from a copy of the
				// first partition, and the kernel finds the rest.
				raw, esp := filepath.Join(dir, "raw"), filepath.Join(dir, "esp")
				buildertest.Run(t, "qemu-img", "convert", "-O", "raw", file, raw)
				sectors := strings.TrimSpace(buildertest.Run(t, "partx", "-g", "-o", "SECTORS", "-n", "1", raw))
				buildertest.Run(t, "dd", "if="+raw, "of="+esp, "bs=1M", "skip=1M", "count="+sectors+"x512", "iflag=skip_bytes,count_bytes", "status=none")
				tt.devices += " -drive if=virtio,format=raw,readonly=on,file=" + esp
			}
			b := bootFirmware(t, "amd64", "if=none,id=d,snapshot=on,format="+tt.format+",file="+file+" -netdev user,id=n "+tt.devices)
			if out := strings.Join(strings.Fields(b.exec(t, diskDrivers)), " "); out != tt.drivers && !strings.HasPrefix(out, tt.drivers) {
				t.Errorf("the drivers are %q, want %q", out, tt.drivers)
			}
			b.exec(t, "i=0; until grep -q 10.0.2.15 /proc/net/fib_trie; do i=$((i+1)); [ $i != 600 ]; sleep 0.1; done")
			size, err := strconv.ParseInt(strings.TrimSpace(b.exec(t, "df --output=size -k / | tail -n1")), 10, 64)
			if want := max(tt.grow-500<<20, 900<<20); err != nil || size<<10 < want {
				t.Errorf("what can be written is %d KiB, %v; want %d", size, err, want>>10)
			}
			// The shell of the screen, if there is a screen, and of the serial line.
			if out := b.exec(t, "cat /sys/class/tty/console/active; i=0; until grep -q '# ' /dev/vcs1; do i=$((i+1)); [ $i != 100 ]; sleep 0.1; done"); !strings.Contains(out, "ttyS0") || !strings.Contains(out, "tty0") {
				t.Errorf("the consoles are %q", out)
			}
			if said, _ := b.console.text(); !strings.Contains(said, "# ") {
				t.Errorf("no shell on the serial line: %q", said)
			}
			if tt.place == "baremetal" {
				if out := b.exec(t, "cat /proc/fb"); !strings.Contains(out, "simpledrm") {
					t.Errorf("the screen is of %q", out)
				}
			}
			b.shutdown(t)
		})
	}
}
