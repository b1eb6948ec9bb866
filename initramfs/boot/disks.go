//go:build linux

package boot

import (
	"errors"
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
	root    string // device of the image's root
	scratch mount
}

// findDisks finds what the kernel's command line names: lumina.disk=ID, the
// partitions of an exported disk; lumina.root=FILE, a root in the initramfs, of
// an ISO; nothing, the two disks that a host gives.
func findDisks(c commandLine) (d disks, err error) {
	switch {
	case c["disk"] != "":
		scratch := ""
		err = uevent.Wait(time.Minute, func() (bool, error) {
			if d.root, err = findPartition("root-" + c["disk"]); err != nil {
				return false, err
			}
			scratch, err = findPartition("data-" + c["disk"])
			return d.root != "" && scratch != "", err
		})
		if err != nil {
			return d, fmt.Errorf("finding the partitions of disk %q: %w", c["disk"], err)
		}
		d.scratch = mount{scratch, scratchDir, "ext4", unix.MS_NOATIME, ""}
	case c["root"] != "":
		if d.root, err = attachLoop(c["root"]); err != nil {
			return d, fmt.Errorf("attaching %q: %w", c["root"], err)
		}
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

// attachLoop makes a block device of a file.
func attachLoop(file string) (string, error) {
	f, err := os.Open(file)
	if err != nil {
		return "", err
	}
	defer f.Close()
	control, err := os.OpenFile("/dev/loop-control", os.O_RDWR, 0)
	if err != nil {
		return "", err
	}
	defer control.Close()
	n, err := unix.IoctlRetInt(int(control.Fd()), unix.LOOP_CTL_GET_FREE)
	if err != nil {
		return "", err
	}
	path := fmt.Sprintf("/dev/loop%d", n)
	device, err := os.OpenFile(path, os.O_RDONLY, 0)
	if err != nil {
		return "", err
	}
	err = unix.IoctlLoopConfigure(int(device.Fd()), &unix.LoopConfig{
		Fd: uint32(f.Fd()), Info: unix.LoopInfo64{Flags: unix.LO_FLAGS_READ_ONLY | unix.LO_FLAGS_AUTOCLEAR},
	})
	if err != nil {
		return "", errors.Join(err, device.Close())
	}
	// The device is left open until it is mounted, which is soon, and so for
	// good: without a user it would let go of the file.
	kept = append(kept, device)
	return path, nil
}

// kept are files that nobody closes.
var kept []*os.File
