package qcow2

import (
	"encoding/binary"
	"fmt"
	"os"
)

var be = binary.BigEndian

// Writer writes an image of version 3: data clusters in the order in which they were
// written first, the tables behind.
type Writer struct {
	f      *os.File
	size   int64
	next   int64              // first cluster that is free
	tables map[int64][]uint64 // the second level, of what has data
}

// ClusterSize is the size of a Writer's clusters, in bytes.
const ClusterSize = 1 << clusterBits

const (
	clusterBits = 16
	perTable    = ClusterSize / 8 // clusters that one second-level table maps
	// copied marks what is referenced once, which all is.
	copied = 1 << 63
)

// NewWriter makes the image of a disk of so many bytes in an empty file.
func NewWriter(f *os.File, size int64) *Writer {
	return &Writer{f: f, size: size, next: 1, tables: map[int64][]uint64{}}
}

// WriteCluster writes bytes that lie within one cluster of the disk.
func (q *Writer) WriteCluster(p []byte, at int64) (int, error) {
	if at < 0 || at+int64(len(p)) > q.size {
		return 0, fmt.Errorf("writing %d bytes at %d of %d", len(p), at, q.size)
	}
	cluster := at / ClusterSize
	table := q.tables[cluster/perTable]
	if table == nil {
		table = make([]uint64, perTable)
		q.tables[cluster/perTable] = table
	}
	entry := &table[cluster%perTable]
	if *entry == 0 {
		*entry = uint64(q.next*ClusterSize) | copied
		q.next++
	}
	return q.f.WriteAt(p, int64(*entry&^copied)+at%ClusterSize)
}

// Finish writes the tables. What was not written is zeros.
func (q *Writer) Finish() error {
	first := make([]byte, 8*((q.size+ClusterSize*perTable-1)/(ClusterSize*perTable)))
	for i := range int64(len(first) / 8) {
		table := q.tables[i]
		if table == nil {
			continue
		}
		b := make([]byte, 0, ClusterSize)
		for _, entry := range table {
			b = be.AppendUint64(b, entry)
		}
		if _, err := q.f.WriteAt(b, q.next*ClusterSize); err != nil {
			return err
		}
		be.PutUint64(first[8*i:], uint64(q.next*ClusterSize)|copied)
		q.next++
	}
	firstAt := q.next
	if _, err := q.f.WriteAt(first, firstAt*ClusterSize); err != nil {
		return err
	}
	q.next += clustersOf(len(first))

	// Reference counts, of 16 bits; those of their own clusters among them.
	const perBlock = ClusterSize / 2
	blocks, tableClusters := int64(0), int64(0)
	for {
		b := (q.next + blocks + tableClusters + perBlock - 1) / perBlock
		t := clustersOf(int(8 * b))
		if b == blocks && t == tableClusters {
			break
		}
		blocks, tableClusters = b, t
	}
	countsAt := q.next
	end := countsAt + tableClusters + blocks
	counts := make([]byte, 0, 8*blocks)
	for i := range blocks {
		at := (countsAt + tableClusters + i) * ClusterSize
		counts = be.AppendUint64(counts, uint64(at))
		b := make([]byte, ClusterSize)
		for j := range min(perBlock, end-i*perBlock) {
			b[2*j+1] = 1
		}
		if _, err := q.f.WriteAt(b, at); err != nil {
			return err
		}
	}
	if _, err := q.f.WriteAt(counts, countsAt*ClusterSize); err != nil {
		return err
	}
	h := make([]byte, 104)
	copy(h, Magic)
	be.PutUint32(h[4:], 3)
	be.PutUint32(h[20:], clusterBits)
	be.PutUint64(h[24:], uint64(q.size))
	be.PutUint32(h[36:], uint32(len(first)/8))
	be.PutUint64(h[40:], uint64(firstAt*ClusterSize))
	be.PutUint64(h[48:], uint64(countsAt*ClusterSize))
	be.PutUint32(h[56:], uint32(tableClusters))
	be.PutUint32(h[96:], 4) // log2 of a count's bits
	be.PutUint32(h[100:], uint32(len(h)))
	if _, err := q.f.WriteAt(h, 0); err != nil {
		return err
	}
	return q.f.Truncate(end * ClusterSize)
}

func clustersOf(bytes int) int64 { return (int64(bytes) + ClusterSize - 1) / ClusterSize }
