package disk

import (
	"bytes"
	"fmt"
	"io"

	"github.com/klauspost/compress/zlib"
)

// A streamOptimized VMDK, VMware's "Virtual Disk Format 5.0": compressed grains, each
// behind a marker, tables of them behind those that they are of, and at the end the
// directory of tables and a copy of the header that says where it is.
const (
	vmdkGrain    = grainSize / sector
	vmdkPerTable = 512
	vmdkOverhead = vmdkGrain // sectors before the first grain

	vmdkEnd       = 0 // markers
	vmdkTable     = 1
	vmdkDirectory = 2
	vmdkFooter    = 3
)

// vmdkWriter knows how many sectors it wrote.
type vmdkWriter struct {
	w  io.Writer
	at int64
}

// write pads with zeroes to whole sectors.
func (w *vmdkWriter) write(parts ...[]byte) error {
	n := 0
	for _, b := range parts {
		n += len(b)
	}
	parts = append(parts, make([]byte, (sector-n%sector)%sector))
	for _, b := range parts {
		if _, err := w.w.Write(b); err != nil {
			return err
		}
	}
	w.at += int64(n+sector-1) / sector
	return nil
}

func (w *vmdkWriter) mark(kind uint32, sectors int) error {
	b := le.AppendUint64(nil, uint64(sectors))
	return w.write(le.AppendUint32(le.AppendUint32(b, 0), kind))
}

// entries are numbers of sectors.
func vmdkEntries(numbers []uint32) []byte {
	b := make([]byte, 0, 4*len(numbers))
	for _, n := range numbers {
		b = le.AppendUint32(b, n)
	}
	return b
}

// writeVMDK writes a disk. id is any number that changes with what is in it.
func writeVMDK(out io.Writer, s *staged, name string, id uint32) error {
	w := &vmdkWriter{w: out}
	descriptor := vmdkDescriptor(s.size, name, id)
	if err := w.write(vmdkHeader(s.size, ^uint64(0), len(descriptor)), descriptor); err != nil {
		return err
	}
	if err := w.write(make([]byte, (vmdkOverhead-w.at)*sector)); err != nil {
		return err
	}
	directory := make([]uint32, (s.size+grainSize*vmdkPerTable-1)/(grainSize*vmdkPerTable))
	var table [vmdkPerTable]uint32
	current := int64(-1)
	end := func() error {
		if current < 0 {
			return nil
		}
		b := vmdkEntries(table[:])
		if err := w.mark(vmdkTable, len(b)/sector); err != nil {
			return err
		}
		directory[current] = uint32(w.at)
		clear(table[:])
		return w.write(b)
	}
	var packed bytes.Buffer
	compress, err := zlib.NewWriterLevel(&packed, zlib.BestSpeed)
	if err != nil {
		return err
	}
	if err := s.each(func(n int64, b []byte) error {
		if n/vmdkPerTable != current {
			if err := end(); err != nil {
				return err
			}
			current = n / vmdkPerTable
		}
		packed.Reset()
		compress.Reset(&packed)
		if _, err := compress.Write(b); err != nil {
			return err
		}
		if err := compress.Close(); err != nil {
			return err
		}
		table[n%vmdkPerTable] = uint32(w.at)
		marker := le.AppendUint32(le.AppendUint64(nil, uint64(n*vmdkGrain)), uint32(packed.Len()))
		return w.write(marker, packed.Bytes())
	}); err != nil {
		return err
	}
	if err := end(); err != nil {
		return err
	}
	b := vmdkEntries(directory)
	if err := w.mark(vmdkDirectory, (len(b)+sector-1)/sector); err != nil {
		return err
	}
	directoryAt := uint64(w.at)
	if err := w.write(b); err != nil {
		return err
	}
	if err := w.mark(vmdkFooter, 1); err != nil {
		return err
	}
	if err := w.write(vmdkHeader(s.size, directoryAt, len(descriptor))); err != nil {
		return err
	}
	return w.mark(vmdkEnd, 0)
}

func vmdkHeader(size int64, directory uint64, descriptor int) []byte {
	b := make([]byte, sector)
	copy(b, "KDMV")
	le.PutUint32(b[4:], 3)
	le.PutUint32(b[8:], 1|1<<16|1<<17) // the test of line ends below counts; compressed, with markers
	le.PutUint64(b[12:], uint64(size/sector))
	le.PutUint64(b[20:], vmdkGrain)
	le.PutUint64(b[28:], 1) // the descriptor
	le.PutUint64(b[36:], uint64(descriptor+sector-1)/sector)
	le.PutUint32(b[44:], vmdkPerTable)
	le.PutUint64(b[56:], directory)
	le.PutUint64(b[64:], vmdkOverhead)
	copy(b[73:], "\n \r\n")
	le.PutUint16(b[77:], 1) // deflate
	return b
}

func vmdkDescriptor(size int64, name string, id uint32) []byte {
	return fmt.Appendf(nil, `# Disk DescriptorFile
version=1
CID=%08x
parentCID=ffffffff
createType="streamOptimized"

# Extent description
RW %d SPARSE %q

# The Disk Data Base
#DDB

ddb.adapterType = "lsilogic"
ddb.geometry.cylinders = "%d"
ddb.geometry.heads = "255"
ddb.geometry.sectors = "63"
ddb.virtualHWVersion = "14"
`, id&^1|2, size/sector, name, min(size/sector/255/63, 65535))
}
