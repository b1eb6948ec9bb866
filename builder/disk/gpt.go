package disk

import (
	"io"

	"github.com/diskfs/go-diskfs/backend"
	"github.com/diskfs/go-diskfs/partition/gpt"
	"github.com/google/uuid"
)

type partition struct {
	kind        gpt.Type
	id          uuid.UUID
	name        string
	start, size int64 // bytes, multiples of a sector
}

// gptTable is the size of a partition table of 128 entries, in sectors.
const gptTable = 128 * gpt.PartitionEntrySize / sector

// writeGPT writes the partition table of a disk of size bytes and its copy, and
// an MBR that says so (UEFI specification, 5.2 and 5.3).
func writeGPT(w io.WriterAt, size int64, id uuid.UUID, parts []partition) error {
	t := &gpt.Table{LogicalSectorSize: sector, PhysicalSectorSize: sector, ProtectiveMBR: true, GUID: id.String()}
	for i, p := range parts {
		t.Partitions = append(t.Partitions, &gpt.Partition{
			Index: i + 1, Type: p.kind, GUID: p.id.String(), Name: p.name,
			Start: uint64(p.start / sector), Size: uint64(p.size),
		})
	}
	return t.Write(writeOnly{w: w}, size)
}

// writeOnly is a backend of which only WriteAt is called.
type writeOnly struct {
	backend.WritableFile
	w io.WriterAt
}

func (f writeOnly) WriteAt(p []byte, at int64) (int, error) { return f.w.WriteAt(p, at) }
