package image

import (
	"os"
	"slices"
)

// Usage is what images take of the disk.
type Usage struct {
	Count int
	Bytes int64 // of all files of all images
	// Shared is how much of that is not there again, since another image has it.
	Shared int64
}

// extent is a part of the disk.
type extent struct{ start, length int64 }

// Usage says what the images of the store take.
func (s *Store) Usage() (u Usage, err error) {
	names, err := s.List()
	if err != nil {
		return u, err
	}
	var seen []os.FileInfo
	var shared []extent
	for _, name := range names {
		h, err := s.Open(name)
		if err != nil {
			continue // List is of what may be broken
		}
		u.Count++
		for file, described := range h.Files {
			u.Bytes += described.Size
			f, err := h.Open(file)
			if err != nil {
				continue
			}
			info, err := f.Stat()
			switch {
			case err != nil:
			case slices.ContainsFunc(seen, func(other os.FileInfo) bool { return os.SameFile(info, other) }):
				u.Shared += described.Size
			default:
				seen = append(seen, info)
				shared = append(shared, sharedExtents(f)...)
			}
			f.Close()
		}
		h.Close()
	}
	u.Shared += repeated(shared)
	return u, nil
}

// repeated is how many bytes of the disk are in extents again.
func repeated(extents []extent) (n int64) {
	slices.SortFunc(extents, func(a, b extent) int {
		if a.start < b.start {
			return -1
		}
		return 1
	})
	end := int64(0)
	for _, e := range extents {
		n += max(min(end, e.start+e.length)-e.start, 0)
		end = max(end, e.start+e.length)
	}
	return n
}
