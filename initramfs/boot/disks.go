//go:build linux

package boot

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"github.com/abdul-abdi/lumina/initramfs/protocol"
	"github.com/abdul-abdi/lumina/initramfs/uevent"
)

// disks is where the root file system comes from.
type disks struct {
	iso     []task // mounts what root is on, if it is a file
	root    string // device or file of the image's root
	scratch mount
	// grow says that what is written is the last partition of a disk that may be
	// larger now.
	grow bool
}

// mountScratch mounts what is written. One that cannot grow is as good as it was.
func (d *disks) mountScratch() error {
	if d.grow {
		if err := growPartition(d.scratch.source); err != nil {
			fmt.Fprintf(os.Stderr, "lumina-init: growing the partition of what is written: %v\n", err)
		}
	}
	if err := d.scratch.apply(); err != nil {
		return err
	}
	if d.grow {
		if err := growFileSystem(d.scratch.source, d.scratch.target); err != nil {
			fmt.Fprintf(os.Stderr, "lumina-init: growing the file system of what is written: %v\n", err)
		}
	}
	return nil
}

// findDisks finds what the kernel's command line names: the partitions
// of an exported disk, by ParamDisk; an exported ISO, by ParamISO, on a CD or
// written to a stick; nothing, the two disks that a host gives.
func findDisks(c commandLine) (d disks, err error) {
	switch {
	case c[protocol.ParamDisk] != "":
		scratch := ""
		err = uevent.Wait(time.Minute, func() (bool, error) {
			if d.root, err = findPartition("root-" + c[protocol.ParamDisk]); err != nil {
				return false, err
			}
			scratch, err = findPartition("data-" + c[protocol.ParamDisk])
			return d.root != "" && scratch != "", err
		})
		if err != nil {
			return d, fmt.Errorf("finding the partitions of disk %q: %w", c[protocol.ParamDisk], err)
		}
		d.scratch, d.grow = mount{scratch, scratchDir, "ext4", unix.MS_NOATIME, ""}, true
	case c[protocol.ParamISO] != "":
		device := ""
		err = uevent.Wait(time.Minute, func() (bool, error) {
			device, err = findISO(c[protocol.ParamISO])
			return device != "", err
		})
		if err != nil {
			return d, fmt.Errorf("finding the ISO %q: %w", c[protocol.ParamISO], err)
		}
		d.iso = []task{mount{device, isoDir, "iso9660", unix.MS_RDONLY, ""}}
		d.root = isoDir + "/root.img"
		d.scratch = mount{"scratch", scratchDir, "tmpfs", 0, "mode=0755,size=75%"}
	default:
		if d.root, err = findDisk(protocol.DiskRoot); err != nil {
			return d, err
		}
		scratch, err := findDisk(protocol.DiskScratch)
		if err != nil {
			return d, err
		}
		// The scratch disk ends with the VM: nothing is gained by waiting for it.
		d.scratch = mount{scratch, scratchDir, "ext4", unix.MS_NOATIME, "nobarrier,noinit_itable"}
	}
	return d, nil
}

// findPartition finds a partition by its name; "" when it is not there (yet).
func findPartition(name string) (string, error) {
	files, err := filepath.Glob("/sys/class/block/*/uevent")
	if err != nil {
		return "", err
	}
	for _, f := range files {
		b, err := os.ReadFile(f)
		if err != nil {
			continue // gone meanwhile
		}
		for line := range strings.Lines(string(b)) {
			if strings.TrimSpace(line) == "PARTNAME="+name {
				return "/dev/" + filepath.Base(filepath.Dir(f)), nil
			}
		}
	}
	return "", nil
}

// Where the primary descriptor of an ISO 9660 file system is, and in it the
// name of the volume (ECMA-119, 8.4).
const (
	isoDescriptor = 16 * 2048
	isoName       = 40
)

// findISO finds a disk, not a partition of one, that has an ISO 9660 file
// system of a name; "" when it is not there (yet).
func findISO(name string) (string, error) {
	devices, err := filepath.Glob("/sys/block/*")
	if err != nil {
		return "", err
	}
	want := fmt.Sprintf("%-32s", name)
	for _, d := range devices {
		path := "/dev/" + filepath.Base(d)
		f, err := os.Open(path)
		if err != nil {
			continue // a drive without an ISO
		}
		b := make([]byte, isoName+len(want))
		_, err = f.ReadAt(b, isoDescriptor)
		f.Close()
		if err == nil && string(b[:6]) == "\x01CD001" && string(b[isoName:]) == want {
			return path, nil
		}
	}
	return "", nil
}
