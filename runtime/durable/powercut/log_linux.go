package powercut

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
)

// entry is a write, a flush, or both: the flush comes first.
type entry struct {
	at, length int64 // on the disk, in bytes
	data       int64 // where the log has it; 0: nowhere
	flush      bool
	discard    bool
	end        int64 // of the entry in the log
}

// Log is all that was written to a disk.
type Log struct {
	f       *os.File
	entries []entry
}

const (
	magic    = 0x6a736677736872
	flagSync = 1 << 0 // LOG_FLUSH_FLAG
	flagFUA  = 1 << 1
	flagDrop = 1 << 2 // LOG_DISCARD_FLAG
)

// OpenLog reads a log that is complete.
func OpenLog(name string) (*Log, error) {
	f, err := os.Open(name)
	if err != nil {
		return nil, err
	}
	l := &Log{f: f}
	if err := l.read(); err != nil {
		return nil, errors.Join(fmt.Errorf("reading the log of writes: %w", err), f.Close())
	}
	return l, nil
}

// Close closes the log.
func (l *Log) Close() error { return l.f.Close() }

func (l *Log) read() error {
	head := make([]byte, 32)
	if _, err := l.f.ReadAt(head[:28], 0); err != nil {
		return err
	}
	if binary.LittleEndian.Uint64(head) != magic {
		return errors.New("it is none")
	}
	sector := int64(binary.LittleEndian.Uint32(head[24:]))
	for at := sector; ; {
		if _, err := l.f.ReadAt(head, at); errors.Is(err, io.EOF) {
			return nil
		} else if err != nil {
			return err
		}
		flags := binary.LittleEndian.Uint64(head[16:])
		e := entry{
			at: int64(binary.LittleEndian.Uint64(head)) * sector, length: int64(binary.LittleEndian.Uint64(head[8:])) * sector,
			flush: flags&(flagSync|flagFUA) != 0, discard: flags&flagDrop != 0,
		}
		at += sector
		if e.length > 0 && !e.discard {
			e.data = at
			at += e.length
		}
		e.end = at
		l.entries = append(l.entries, e)
	}
}

// Len is how many moments there are: one after each entry.
func (l *Log) Len() int { return len(l.entries) }

// At is the first moment at which the log was of a size.
func (l *Log) At(size int64) int {
	for n, e := range l.entries {
		if e.end >= size {
			return n + 1
		}
	}
	return len(l.entries)
}

// Disk is a copy of the disk as it was before the log, going on in it.
type Disk struct {
	log  *Log
	f    *os.File
	next int // first entry that is not surely on the disk
}

// Replay begins with a disk as it was before the log.
func (l *Log) Replay(disk *os.File) *Disk { return &Disk{log: l, f: disk} }

// Cut makes copy the disk after a power cut behind so many entries: with all that
// was flushed, and what of the rest the dice say. Moments must not go back.
func (d *Disk) Cut(moment int, copy *os.File, dice *rand.Rand) error {
	flushed := d.next
	for n := d.next; n < moment; n++ {
		if d.log.entries[n].flush {
			flushed = n
		}
	}
	for ; d.next < flushed; d.next++ {
		if err := d.log.apply(d.log.entries[d.next], d.f); err != nil {
			return err
		}
	}
	if err := copySparse(copy, d.f); err != nil {
		return err
	}
	for n := d.next; n < moment; n++ {
		if dice.IntN(2) == 0 {
			continue
		}
		if err := d.log.apply(d.log.entries[n], copy); err != nil {
			return err
		}
	}
	return nil
}

func (l *Log) apply(e entry, to *os.File) error {
	if e.data == 0 {
		return nil // a flush, or blocks that nothing reads before it writes them
	}
	_, err := io.Copy(io.NewOffsetWriter(to, e.at), io.NewSectionReader(l.f, e.data, e.length))
	return err
}
