package erofs

import (
	"fmt"
	"io/fs"
	"strings"

	goerofs "github.com/erofs/go-erofs"
)

// maxDepth is how many directories in each other a name of Linux can have.
const maxDepth = 4096 / 2

// Places is where the directories of a file system are, by inode. A walk through a file
// system that somebody else made asks it of every directory: one that is in two places,
// such as in itself, gives a walk no end.
type Places map[int64]string

// Check returns an error for a directory that is in another place, too, or too deep.
func (p Places) Check(name string, info fs.FileInfo) error {
	st, ok := info.Sys().(*goerofs.Stat)
	if !ok {
		return fmt.Errorf("%q: its attributes are not known", name)
	}
	if strings.Count(name, "/") > maxDepth {
		return fmt.Errorf("the root file system has more than %d directories in each other", maxDepth)
	}
	if at, ok := p[st.Ino]; ok && at != name {
		return fmt.Errorf("the root file system is damaged: its directory %q is %q, too", at, name)
	}
	p[st.Ino] = name
	return nil
}
