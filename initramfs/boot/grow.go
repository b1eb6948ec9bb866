//go:build linux

package boot

import (
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"unsafe"

	"golang.org/x/sys/unix"
)

// An exported disk is as small as it can be; where it is used, it is given the size
// that is wanted. So the last partition, which is what can be written, takes at each
// boot what is free behind it, and its file system takes the partition.

const (
	// grownBy is the least that a partition grows by, in bytes.
	grownBy = 16 << 20
	// gptAlign is where partitions end, in bytes.
	gptAlign = 1 << 20
	// gptHeaderSize is what is used of a header (UEFI specification, 5.3.2).
	gptHeaderSize = 92
	// gptMaxEntries bounds the table, in bytes: 128 entries of 128.
	gptMaxEntries = 16 << 10
)

// growPartition makes a partition, which must be the last one of its disk, as
// large as the disk allows. Nothing of it may be mounted.
func growPartition(device string) error {
	sys, err := filepath.EvalSymlinks("/sys/class/block/" + filepath.Base(device))
	if err != nil {
		return err
	}
	number, err := readNumber(sys + "/partition")
	if err != nil {
		return err
	}
	sectors, err := readNumber(filepath.Dir(sys) + "/size") // of 512 bytes, always
	if err != nil {
		return err
	}
	sector, err := readNumber(filepath.Dir(sys) + "/queue/logical_block_size")
	if err != nil {
		return err
	}
	disk, err := os.OpenFile("/dev/"+filepath.Base(filepath.Dir(sys)), os.O_RDWR, 0)
	if err != nil {
		return err
	}
	defer disk.Close()
	start, length, err := growGPT(disk, sectors*512, sector, int(number))
	if err != nil || length == 0 {
		return err
	}
	if err := disk.Sync(); err != nil {
		return err
	}
	// struct blkpg_partition and blkpg_ioctl_arg of linux/blkpg.h.
	p := struct {
		start, length   int64
		number          int32
		device, volname [64]byte
	}{start: start, length: length, number: int32(number)}
	arg := struct {
		op, flags, size int32
		data            unsafe.Pointer
	}{op: unix.BLKPG_RESIZE_PARTITION, size: int32(unsafe.Sizeof(p)), data: unsafe.Pointer(&p)}
	return ioctl(disk.Fd(), unix.BLKPG, unsafe.Pointer(&arg))
}

func readNumber(name string) (int64, error) {
	b, err := os.ReadFile(name)
	if err != nil {
		return 0, err
	}
	return strconv.ParseInt(strings.TrimSpace(string(b)), 10, 64)
}

// gptDisk is a disk with a partition table.
type gptDisk interface {
	io.ReaderAt
	io.WriterAt
}

// growGPT writes the partition table of a disk whose partition of a number, the
// last one, ends where the disk does; start and length are then the partition's, in
// bytes. A length of 0 says that there is nothing to gain. The copy at the end of
// the disk is there before the table says so.
func growGPT(disk gptDisk, size, sector int64, number int) (start, length int64, err error) {
	if sector < 512 || sector > 4096 {
		return 0, 0, fmt.Errorf("a disk with sectors of %d bytes", sector)
	}
	le := binary.LittleEndian
	h := make([]byte, sector)
	if _, err := disk.ReadAt(h, sector); err != nil {
		return 0, 0, err
	}
	if string(h[:8]) != "EFI PART" || le.Uint32(h[12:]) != gptHeaderSize || le.Uint32(h[16:]) != gptSum(h) {
		return 0, 0, errors.New("the disk's partition table is damaged")
	}
	count, entrySize := int64(le.Uint32(h[80:])), int64(le.Uint32(h[84:]))
	if entrySize < 128 || count < 1 || count*entrySize > gptMaxEntries || number < 1 || int64(number) > count {
		return 0, 0, fmt.Errorf("a partition table of %d entries of %d bytes", count, entrySize)
	}
	table := make([]byte, (count*entrySize+sector-1)/sector*sector)
	if _, err := disk.ReadAt(table, int64(le.Uint64(h[72:]))*sector); err != nil {
		return 0, 0, err
	}
	entries := table[:count*entrySize]
	if crc32.ChecksumIEEE(entries) != le.Uint32(h[88:]) {
		return 0, 0, errors.New("the disk's partition table is damaged")
	}
	own := entries[int64(number-1)*entrySize:][:entrySize]
	first, last := int64(le.Uint64(own[32:])), int64(le.Uint64(own[40:]))
	for e := entries; len(e) > 0; e = e[entrySize:] {
		if int64(le.Uint64(e[40:])) > last {
			return 0, 0, nil // another is behind it
		}
	}
	backup := size/sector - 1
	tableAt := backup - int64(len(table))/sector
	end := tableAt * sector / gptAlign * gptAlign / sector // the first that is not its own
	if (end-1-last)*sector < grownBy || first > last {
		return 0, 0, nil
	}
	le.PutUint64(own[40:], uint64(end-1))
	le.PutUint64(h[48:], uint64(tableAt-1)) // the last that a partition can have
	le.PutUint32(h[88:], crc32.ChecksumIEEE(entries))

	other := append([]byte(nil), h...)
	le.PutUint64(other[24:], uint64(backup))
	le.PutUint64(other[32:], 1)
	le.PutUint64(other[72:], uint64(tableAt))
	le.PutUint64(h[32:], uint64(backup))
	for _, header := range [][]byte{other, h} {
		le.PutUint32(header[16:], gptSum(header))
	}
	tableOfFirst := int64(le.Uint64(h[72:])) * sector
	for _, w := range []struct {
		b  []byte
		at int64
	}{{table, tableAt * sector}, {other, backup * sector}, {table, tableOfFirst}, {h, sector}} {
		if _, err := disk.WriteAt(w.b, w.at); err != nil {
			return 0, 0, err
		}
	}
	return first * sector, (end - first) * sector, nil
}

// gptSum is the checksum of a header, whose own field counts as zero.
func gptSum(h []byte) uint32 {
	c := append([]byte(nil), h[:gptHeaderSize]...)
	clear(c[16:20])
	return crc32.ChecksumIEEE(c)
}

// ext4Resize is EXT4_IOC_RESIZE_FS of linux/ext4.h: _IOW('f', 16, __u64).
const ext4Resize = 0x40086610

// growFileSystem makes the mounted ext4 file system of a device as large as the
// device.
func growFileSystem(device, target string) error {
	f, err := os.Open(device)
	if err != nil {
		return err
	}
	defer f.Close()
	size, err := f.Seek(0, io.SeekEnd)
	if err != nil {
		return err
	}
	dir, err := os.Open(target)
	if err != nil {
		return err
	}
	defer dir.Close()
	// The superblock; blocks are of 4 KiB, as package ext4 makes them.
	super := make([]byte, 1024)
	if _, err := f.ReadAt(super, 1024); err != nil {
		return err
	}
	blocks := uint64(size / 4096)
	if now := uint64(binary.LittleEndian.Uint32(super[4:])); blocks < now+grownBy/4096 {
		return nil
	}
	return ioctl(dir.Fd(), ext4Resize, unsafe.Pointer(&blocks))
}
