package disk

import (
	"encoding/binary"
	"os"

	"github.com/abdul-abdi/lumina/runtime/qcow2"
)

var le, be = binary.LittleEndian, binary.BigEndian

// raw is a disk as it is. Zeroes become holes.
type raw struct{ f *os.File }

func newRaw(f *os.File, size int64) (*raw, error) { return &raw{f}, f.Truncate(size) }

func (r *raw) WriteAt(p []byte, at int64) (int, error) {
	return writePieces(p, at, 64<<10, r.f.WriteAt)
}

func (*raw) finish() error { return nil }

func (*raw) Close() error { return nil }

// qcow2Disk is a disk in QEMU's format.
type qcow2Disk struct{ w *qcow2.Writer }

func (q *qcow2Disk) WriteAt(p []byte, at int64) (int, error) {
	return writePieces(p, at, qcow2.ClusterSize, q.w.WriteCluster)
}

func (q *qcow2Disk) finish() error { return q.w.Finish() }

func (*qcow2Disk) Close() error { return nil }

// writePieces writes p in pieces that end at multiples of size, without those
// of zeroes.
func writePieces(p []byte, at, size int64, write func([]byte, int64) (int, error)) (int, error) {
	for done := 0; done < len(p); {
		n := min(int(size-(at+int64(done))%size), len(p)-done)
		if piece := p[done : done+n]; !isZero(piece) {
			if _, err := write(piece, at+int64(done)); err != nil {
				return done, err
			}
		}
		done += n
	}
	return len(p), nil
}

func isZero(p []byte) bool {
	for len(p) >= 8 {
		if le.Uint64(p) != 0 {
			return false
		}
		p = p[8:]
	}
	for _, b := range p {
		if b != 0 {
			return false
		}
	}
	return true
}
