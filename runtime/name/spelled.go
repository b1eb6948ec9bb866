package name

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
)

// Other says how the entry that a directory gives for a file name is spelt, if that is
// otherwise: a disk that does not tell cases apart, as most of macOS are, gives "debian"
// for "Debian". It is "" where the entry is spelt so, and where there is none. It is for
// names that [Check] lets through, with an extension or without.
func Other(dir, entry string) (string, error) {
	swapped := strings.Map(func(r rune) rune {
		switch {
		case r >= 'a' && r <= 'z':
			return r - 'a' + 'A'
		case r >= 'A' && r <= 'Z':
			return r - 'A' + 'a'
		}
		return r
	}, entry)
	if swapped == entry {
		return "", nil
	}
	// Mostly nothing is read but this: the disk tells cases apart.
	if _, err := os.Lstat(filepath.Join(dir, swapped)); err != nil {
		return "", nil
	}
	d, err := os.Open(dir)
	if err != nil {
		return "", err
	}
	defer d.Close()
	names, err := d.Readdirnames(-1)
	if err != nil {
		return "", fmt.Errorf("reading how %q is spelt: %w", entry, err)
	}
	if _, err := os.Lstat(filepath.Join(dir, entry)); err != nil || slices.Contains(names, entry) {
		return "", nil
	}
	for _, n := range names {
		if strings.EqualFold(n, entry) {
			return n, nil
		}
	}
	return "", nil
}
