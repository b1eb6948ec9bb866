package disk

import (
	"io"
	"os"
	"slices"
)

// staged keeps what is written to a disk, in any order, for a format that is written
// from its beginning to its end. Zeroes take no room.
type staged struct {
	f      *os.File // without a name
	size   int64
	grains map[int64]int64 // number of a grain → where it is in f
}

// grainSize is the least that formats of this kind tell apart, in bytes.
const grainSize = 64 << 10

func newStaged(dir string, size int64) (*staged, error) {
	f, err := os.CreateTemp(dir, ".lumina-disk-*")
	if err != nil {
		return nil, err
	}
	if err := os.Remove(f.Name()); err != nil {
		f.Close()
		return nil, err
	}
	return &staged{f: f, size: size, grains: map[int64]int64{}}, nil
}

func (s *staged) WriteAt(p []byte, at int64) (int, error) {
	return writePieces(p, at, grainSize, func(p []byte, at int64) (int, error) {
		place, ok := s.grains[at/grainSize]
		if !ok {
			place = int64(len(s.grains)) * grainSize
			s.grains[at/grainSize] = place
		}
		return s.f.WriteAt(p, place+at%grainSize)
	})
}

// each calls do with every grain that has something, in order. All but the disk's
// last are whole.
func (s *staged) each(do func(number int64, b []byte) error) error {
	numbers := make([]int64, 0, len(s.grains))
	for n := range s.grains {
		numbers = append(numbers, n)
	}
	slices.Sort(numbers)
	b := make([]byte, grainSize)
	for _, n := range numbers {
		clear(b)
		if _, err := s.f.ReadAt(b, s.grains[n]); err != nil && err != io.EOF {
			return err
		}
		if err := do(n, b[:min(grainSize, s.size-n*grainSize)]); err != nil {
			return err
		}
	}
	return nil
}

func (s *staged) Close() error { return s.f.Close() }
