package erofs

import (
	"math"
)

// metaAllocator packs inodes into chunks of blocks.
type metaAllocator struct {
	w     *Writer
	start uint32 // first block of the chunk in memory
	used  uint32 // of its blocks
	chunk []byte
	open  []openBlock
}

// openBlock is a block of inodes that has room.
type openBlock struct {
	at   int64 // position of the room
	room int
}

// maxOpen is how many blocks are kept in view for a tighter fit.
const maxOpen = 16

// allocate finds a position for size bytes that do not cross a block, or begin
// a block when they are longer.
func (m *metaAllocator) allocate(size int) (int64, error) {
	size = (size + slotSize - 1) / slotSize * slotSize
	best := -1
	for k, b := range m.open {
		if b.room >= size && (best < 0 || b.room < m.open[best].room) {
			best = k
		}
	}
	if best >= 0 {
		b := &m.open[best]
		at := b.at
		b.at += int64(size)
		b.room -= size
		if b.room < inodeSize {
			m.open = append(m.open[:best], m.open[best+1:]...)
		}
		return at, nil
	}
	blocks := uint32((size + blockSize - 1) / blockSize)
	block, err := m.blocks(blocks)
	if err != nil {
		return 0, err
	}
	at := int64(block) * blockSize
	if room := int(blocks)*blockSize - size; room >= inodeSize {
		if len(m.open) == maxOpen {
			least := 0
			for k, b := range m.open {
				if b.room < m.open[least].room {
					least = k
				}
			}
			m.open = append(m.open[:least], m.open[least+1:]...)
		}
		m.open = append(m.open, openBlock{at + int64(size), room})
	}
	return at, nil
}

// blocks sets blocks aside in the chunk, or begins a new one.
func (m *metaAllocator) blocks(n uint32) (uint32, error) {
	if m.chunk == nil || m.used+n > uint32(len(m.chunk)/blockSize) {
		if err := m.flush(); err != nil {
			return 0, err
		}
		size := max(n, metaChunk)
		if uint64(m.w.next)+uint64(size) > math.MaxUint32 {
			return 0, ErrTooLarge
		}
		m.start, m.used = m.w.next, 0
		m.w.next += size
		if cap(m.chunk) < int(size)*blockSize {
			m.chunk = make([]byte, int(size)*blockSize)
		} else {
			m.chunk = m.chunk[:int(size)*blockSize]
			clear(m.chunk)
		}
	}
	block := m.start + m.used
	m.used += n
	return block, nil
}

// write puts p at a position that was allocated, in memory while its chunk is.
func (m *metaAllocator) write(at int64, p []byte) error {
	if from := at - int64(m.start)*blockSize; m.chunk != nil && from >= 0 && from+int64(len(p)) <= int64(len(m.chunk)) {
		copy(m.chunk[from:], p)
		return nil
	}
	_, err := m.w.f.WriteAt(p, at)
	return err
}

// flush writes the chunk's used blocks. The rest of a chunk stays a hole.
func (m *metaAllocator) flush() error {
	if m.chunk == nil {
		return nil
	}
	_, err := m.w.f.WriteAt(m.chunk[:int(m.used)*blockSize], int64(m.start)*blockSize)
	return err
}
