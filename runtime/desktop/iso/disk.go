package iso

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"
)

// A disk's partition table (UEFI 2.10, 5.3), of disks with sectors of 512 bytes.
const (
	blockSize = 512
	// maxPartitions bounds how many entries of a table are looked at.
	maxPartitions = 1024
)

// espType is the type of EFI system partitions,
// C12A7328-F81F-11D2-BA4B-00A0C93EC93B, as a table has it.
const espType = "\x28\x73\x2A\xC1\x1F\xF8\xD2\x11\xBA\x4B\x00\xA0\xC9\x3E\xC9\x3B"

// ReadDisk reads which loaders a disk has that EFI firmware finds without having
// been told of them.
func ReadDisk(r io.ReaderAt, size int64) (*Image, error) {
	i := &Image{r: r, size: size}
	header := make([]byte, 92)
	if err := i.readAt(header, blockSize); err != nil {
		return nil, fmt.Errorf("reading the partition table: %w", err)
	}
	if string(header[:8]) != "EFI PART" {
		return i, nil // of another kind: no loaders
	}
	le := binary.LittleEndian
	at, count, length := int64(le.Uint64(header[72:])), le.Uint32(header[80:]), int64(le.Uint32(header[84:]))
	if at < 1 || at > size/blockSize || length < 128 || length > 4096 {
		return nil, errors.New("its partition table is damaged")
	}
	entry := make([]byte, 128)
	for n := range int64(min(count, maxPartitions)) {
		if err := i.readAt(entry, at*blockSize+n*length); err != nil {
			return nil, fmt.Errorf("reading the partition table: %w", err)
		}
		first, last := int64(le.Uint64(entry[32:])), int64(le.Uint64(entry[40:]))
		if string(entry[:16]) != espType || first < 1 || last < first || last >= size/blockSize {
			continue
		}
		i.addFAT(first*blockSize, (last-first+1)*blockSize, "EFI system partition")
	}
	return i, nil
}
