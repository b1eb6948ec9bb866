package runtime

import (
	"cmp"
	"fmt"
	"time"

	"github.com/abdul-abdi/lumina/runtime/ext4"
	"github.com/abdul-abdi/lumina/runtime/image"
	"github.com/abdul-abdi/lumina/runtime/network"
	"github.com/abdul-abdi/lumina/runtime/vm"
	"github.com/abdul-abdi/lumina/runtime/volume"
)

// Defaults of VMOptions.
const (
	DefaultCPUs     = 2
	DefaultMemory   = 1 << 30  // bytes
	DefaultDiskSize = 16 << 30 // bytes
)

// Limits of VMOptions.
const (
	MaxCPUs   = 64
	MinMemory = 64 << 20 // bytes; with less the kernel does not start
)

// VMOptions says which VM to start. Zero values mean the defaults.
type VMOptions struct {
	Image    string // a name in the image store
	CPUs     int
	Memory   int64 // bytes
	DiskSize int64 // bytes of the scratch disk
	Network  network.Mode
	// AllowLAN lets the network reach private addresses, too.
	AllowLAN bool
	// AnnouncedSockets has Go's scheduler told of every call on the network's sockets,
	// see package rawconn.
	AnnouncedSockets bool
	// Member, if set, makes the VM one of a network of VMs in place of Network.
	Member  *Member
	Volumes []Volume
	// Hostname is the guest's own name; a new one if it is empty.
	Hostname string
	// Init is who is PID 1, of image.InitLumina and image.InitSystemd; the
	// image says when it is empty.
	Init string
	// NoTemplate boots even if there is a template to restore.
	NoTemplate bool
	// NoRehearsal has the guests of templates wait idly until they are configured.
	NoRehearsal bool
	// Nested lets the guest run virtual machines itself.
	Nested bool
	// DiskReserve is what has to be free on the disk of the state directory, in
	// bytes; NoDiskReserve for nothing.
	DiskReserve int64
	// BootTimeout is how long the guest may take until its agent answers; 0 for the
	// default, which depends on what it does until then.
	BootTimeout time.Duration
	// disks are those of a build; the VM closes them.
	disks []*volume.Disk
	// whole is closed when the image's root is written, which is not read before; nil:
	// it is.
	whole <-chan struct{}
}

// CheckHostname says whether a guest may be called so.
func CheckHostname(name string) error {
	const maxHostname = 64 // Linux's
	ok := name != "" && len(name) <= maxHostname
	for i, c := range []byte(name) {
		ok = ok && (c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z' || c >= '0' && c <= '9' || i > 0 && (c == '-' || c == '_' || c == '.' && name[i-1] != '.'))
	}
	if !ok {
		return fmt.Errorf("hostname %.80q: want letters, digits, '-', '_' and '.', at most %d", name, maxHostname)
	}
	return nil
}

// CheckSize says whether a VM of that size can be had on this host.
func (o VMOptions) CheckSize() error {
	if o.CPUs < 0 || o.CPUs > MaxCPUs {
		return fmt.Errorf("%d cpus: want 1 to %d", o.CPUs, MaxCPUs)
	}
	if o.Memory != 0 && o.Memory < MinMemory {
		return fmt.Errorf("memory of %d B: want at least 64 MB", o.Memory)
	}
	if host, err := hostMemory(); err == nil && o.Memory > host {
		return fmt.Errorf("memory of %.1f GB: this host has %.1f", gigabytes(o.Memory), gigabytes(host))
	}
	if o.DiskSize != 0 && (o.DiskSize < ext4.MinSize || o.DiskSize > ext4.MaxSize) {
		return fmt.Errorf("disk of %d bytes: want 16 MB to 16 TB", o.DiskSize)
	}
	return nil
}

func gigabytes(bytes int64) float64 { return float64(bytes) / (1 << 30) }

// withDefaults fills in what an image and the runtime say.
func (o VMOptions) withDefaults(img *image.Image) VMOptions {
	if o.DiskSize == 0 {
		o.DiskSize = img.DiskSize
	}
	o.Init = cmp.Or(o.Init, img.Init, image.InitLumina)
	if o.CPUs == 0 {
		o.CPUs = DefaultCPUs
	}
	if o.Memory == 0 {
		o.Memory = DefaultMemory
	}
	if o.DiskSize == 0 {
		o.DiskSize = DefaultDiskSize
	}
	// Whole units are what every driver takes.
	o.Memory = vm.RoundUp(o.Memory)
	o.DiskSize = vm.RoundUp(o.DiskSize)
	if o.Network == "" {
		o.Network = network.ModeNAT
	}
	return o
}
