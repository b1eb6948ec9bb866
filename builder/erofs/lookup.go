package erofs

import (
	"fmt"
	"path"
	"strings"
)

// Lookup finds a clean name without symbolic links on the way; nil: there is nothing.
func (i *Inode) Lookup(name string) *Inode {
	if name == "." {
		return i
	}
	for part := range strings.SplitSeq(name, "/") {
		if i = i.Entries[part]; i == nil {
			return nil
		}
	}
	return i
}

const maxLinks = 40

// Resolve follows the symbolic links of a name as far as it exists, within the root; the
// rest is as it is. at says what a clean name has; its mode is 0 where there is nothing.
func Resolve(name string, at func(name string) (mode uint32, target string)) (string, error) {
	found := "."
	rest := strings.Split(name, "/")
	for links := 0; len(rest) > 0; {
		part := rest[0]
		rest = rest[1:]
		switch part {
		case "", ".":
			continue
		case "..":
			found = path.Dir(found)
			continue
		}
		next := path.Join(found, part)
		mode, target := at(next)
		if mode&TypeMask != TypeSymlink {
			found = next
			continue
		}
		if links++; links > maxLinks {
			return "", fmt.Errorf("/%s: too many symbolic links", name)
		}
		rest = append(strings.Split(target, "/"), rest...)
		if strings.HasPrefix(target, "/") {
			found = "."
		}
	}
	return found, nil
}
