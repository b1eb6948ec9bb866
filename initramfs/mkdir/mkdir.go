// Package mkdir makes directories in a root file system that somebody else wrote.
package mkdir

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
)

// maxLinks is how many links of a path may lead to what does not exist yet, as many as the
// kernel follows.
const maxLinks = 40

// All is [os.MkdirAll] that also makes the directories to which links of the path lead:
// /var/run may be a link to a /run that nobody has made yet.
func All(name string, mode os.FileMode) error {
	return all(name, mode, maxLinks)
}

func all(name string, mode os.FileMode, links int) error {
	for {
		err := os.MkdirAll(name, mode)
		if !errors.Is(err, fs.ErrExist) || links == 0 {
			return err
		}
		target := dangling(name)
		if target == "" {
			return err
		}
		links--
		if err := all(target, mode, links); err != nil {
			return err
		}
	}
}

// dangling is where the first link of a path leads that leads nowhere; "" when there is none.
func dangling(name string) string {
	for i := 1; i <= len(name); i++ {
		if i < len(name) && name[i] != filepath.Separator {
			continue
		}
		prefix := name[:i]
		target, err := os.Readlink(prefix)
		if err != nil {
			continue
		}
		if _, err := os.Stat(prefix); !errors.Is(err, fs.ErrNotExist) {
			continue
		}
		if !filepath.IsAbs(target) {
			// Not filepath.Join, which would take ".." for the parent of a link.
			target = prefix[:strings.LastIndexByte(prefix, filepath.Separator)+1] + target
		}
		return target
	}
	return ""
}
