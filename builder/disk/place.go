package disk

import (
	"cmp"
	"fmt"
	"slices"
	"strings"
)

// Place is where a disk is to boot: what its files look like there, what its kernel
// has to have, and where somebody looks at its console.
type Place struct {
	Name string
	// Formats are the ends of file names that it takes, the best one first.
	Formats []string
	// Drivers says that the kernel of VMs has not all that this place has; see
	// kernelconfig.Full.
	Drivers bool

	next      string            // what to do with FILE there
	nextOf    map[string]string // the same, by format, where that is another thing
	console   string            // of amd64; the last one is /dev/console
	arguments string            // further ones of the kernel
	round     int64             // what the disk's size is a multiple of; 0: 1 MiB
	fixed     bool              // a .vhd has its whole size
	ova       func(o *ovaOptions) string
}

const (
	// Either is there; a serial line that is not has no console.
	serialLast = "console=tty0 console=ttyS0,115200"
	screenLast = "console=ttyS0,115200 console=tty0"
)

var places = []Place{
	{Name: "azure", Formats: []string{".vhd"}, Drivers: true, console: serialLast, fixed: true,
		next: "upload it as a page blob, then: az image create --name NAME --resource-group GROUP --os-type Linux --hyper-v-generation V2 --source URL"},
	{Name: "hyperv", Formats: []string{".vhdx", ".vhd"}, Drivers: true, console: screenLast,
		next:   "New-VM -Generation 2 -VHDPath FILE, then: Set-VMFirmware -EnableSecureBoot Off",
		nextOf: map[string]string{".vhd": "Convert-VHD FILE DISK.vhdx, as VMs with EFI have no other; then: New-VM -Generation 2 -VHDPath DISK.vhdx, and: Set-VMFirmware -EnableSecureBoot Off"}},
	{Name: "aws", Formats: []string{".raw", ".vmdk", ".vhd"}, Drivers: true, console: serialLast,
		arguments: "nvme_core.io_timeout=4294967295",
		next:      "copy it to S3, then: aws ec2 import-snapshot, aws ec2 register-image --boot-mode uefi --ena-support --architecture x86_64 --virtualization-type hvm"},
	{Name: "gcp", Formats: []string{".tar.gz"}, Drivers: true, console: "console=tty0 console=ttyS0,38400n8", round: 1 << 30,
		next: "copy it to a bucket, then: gcloud compute images create NAME --source-uri gs://BUCKET/FILE --guest-os-features=UEFI_COMPATIBLE,GVNIC,VIRTIO_SCSI_MULTIQUEUE"},
	{Name: "vmware", Formats: []string{".ova", ".vmdk"}, Drivers: true, console: screenLast, ova: ovfVMware,
		next:   "ovftool FILE vi://HOST, or deploy it as an OVF template",
		nextOf: map[string]string{".vmdk": "copy it to a datastore, then there: vmkfstools -i FILE DISK.vmdk, for a VM with EFI firmware"}},
	{Name: "virtualbox", Formats: []string{".ova", ".vmdk"}, Drivers: true, console: screenLast, ova: ovfVirtualBox,
		next:   "VBoxManage import FILE --vsys 0 --vmname NAME, then: VBoxManage modifyvm NAME --firmware efi",
		nextOf: map[string]string{".vmdk": "VBoxManage clonemedium disk FILE DISK.vdi, then: VBoxManage storageattach NAME --storagectl SATA --port 0 --type hdd --medium DISK.vdi, in a VM with --firmware efi"}},
	{Name: "proxmox", Formats: []string{".qcow2", ".raw"}, console: screenLast,
		next: "qm importdisk VMID FILE STORAGE, in a VM with --bios ovmf and no pre-enrolled keys"},
	{Name: "kubevirt", Formats: []string{".qcow2", ".raw"}, console: serialLast,
		next: "virtctl image-upload dv NAME --size SIZE --image-path FILE, for a VM with firmware.bootloader.efi.secureBoot: false"},
	{Name: "openstack", Formats: []string{".qcow2", ".raw"}, console: serialLast,
		next:   "openstack image create NAME --disk-format qcow2 --property hw_firmware_type=uefi --property hw_machine_type=q35 --file FILE",
		nextOf: map[string]string{".raw": "openstack image create NAME --disk-format raw --property hw_firmware_type=uefi --property hw_machine_type=q35 --file FILE"}},
	{Name: "baremetal", Formats: []string{".raw"}, Drivers: true, console: screenLast,
		next: "write it to a disk: dd if=FILE of=/dev/DISK bs=4M conv=fsync, or with any tool that writes images to sticks"},
}

// forARM are the words of what is to be done that differ for arm64.
var forARM = strings.NewReplacer(
	"az image create", "az disk create --architecture Arm64",
	"--architecture x86_64", "--architecture arm64",
	"gcloud compute images create NAME", "gcloud compute images create NAME --architecture=ARM64",
	"hw_machine_type=q35", "hw_machine_type=virt --property hw_architecture=aarch64")

// Next says what to do there with a disk, which it calls FILE.
func (p *Place) Next(path, arch string) string {
	next := cmp.Or(p.nextOf[format(path)], p.next)
	if arch == "arm64" {
		next = forARM.Replace(next)
	}
	return next
}

// FindPlace returns the place of a name.
func FindPlace(name string) (*Place, error) {
	for i := range places {
		if places[i].Name == name {
			return &places[i], nil
		}
	}
	return nil, fmt.Errorf("%q is not a target that disks are made for: want %s", name, strings.Join(Places(), ", "))
}

// Places are the names of all.
func Places() []string {
	var names []string
	for _, p := range places {
		names = append(names, p.Name)
	}
	return names
}

// formats are what a disk can be without a place.
var formats = []string{".raw", ".qcow2", ".vhd", ".vhdx", ".vmdk", ".iso"}

// format is the end of a path that says what a disk is; "" for none.
func format(path string) string {
	for _, f := range append([]string{".ova", ".tar.gz"}, formats...) {
		if strings.HasSuffix(path, f) {
			return f
		}
	}
	return ""
}

// CheckPath returns an error when the name of a disk does not end in that of a
// format, or in one that the place does not take. No place is nil.
func CheckPath(path string, p *Place) error {
	f, want := format(path), formats
	if p != nil {
		want = p.Formats
	}
	switch {
	case slices.Contains(want, f):
		return nil
	case p != nil:
		return fmt.Errorf("%w of %q: for %s it is %s", ErrFormat, path, p.Name, strings.Join(want, " or "))
	case f != "":
		return fmt.Errorf("%w of %q: a %s is made for a target; add --for", ErrFormat, path, f)
	}
	return fmt.Errorf("%w of %q: want %s", ErrFormat, path, strings.Join(want, ", "))
}

// Sparse says whether what is never written takes no room in a disk's file.
func Sparse(path string, p *Place) bool {
	f := format(path)
	return f != ".raw" && f != ".tar.gz" && (f != ".vhd" || p == nil || !p.fixed)
}

// commandLine is the kernel command line for the place, made from that of VMs.
func (p *Place) commandLine(own, arch string) string {
	var words []string
	for _, w := range strings.Fields(own) {
		switch w {
		case "reboot=t": // a triple fault is the fastest in a VM; a machine has its own way
		case "panic=-1": // a screen is to be read
			words = append(words, "panic=30")
		default:
			words = append(words, w)
		}
	}
	console := p.console
	if arch == "arm64" {
		console = strings.ReplaceAll(console, "ttyS0", "ttyAMA0")
	}
	return strings.Join(append(words, strings.Fields(console+" "+p.arguments)...), " ")
}
