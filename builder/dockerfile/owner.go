package dockerfile

import (
	"archive/tar"
	"errors"
	"fmt"
	"io"
	"path"
	"slices"
	"strconv"
	"strings"

	"github.com/abdul-abdi/lumina/builder"
	"github.com/abdul-abdi/lumina/builder/erofs"
)

// maxAccounts bounds how much of /etc/passwd or /etc/group is read, in bytes.
const maxAccounts = 4 << 20

func isNumeric(owner string) bool {
	user, group, _ := strings.Cut(owner, ":")
	_, err := parseID(user)
	if group != "" {
		_, groupErr := parseID(group)
		err = errors.Join(err, groupErr)
	}
	return owner == "" || err == nil
}

func parseID(s string) (int, error) {
	n, err := strconv.ParseUint(s, 10, 32)
	if err == nil && n == 1<<32-1 {
		err = errors.New("not an ID")
	}
	return int(n), err
}

// owner reads USER[:GROUP]: names are looked up in the image. An ID without a
// group is the group's, too.
func (s *stage) owner(spec string) (*owner, error) {
	if spec == "" {
		return nil, nil
	}
	user, group, hasGroup := strings.Cut(spec, ":")
	if user == "" {
		return nil, fmt.Errorf("owner %q: it begins with a user: USER or USER:GROUP", spec)
	}
	o := &owner{}
	var err error
	if o.uid, err = parseID(user); err != nil {
		line, err := s.account("etc/passwd", user, 4)
		if err != nil {
			return nil, err
		}
		uid, uidErr := parseID(line[2])
		gid, gidErr := parseID(line[3])
		if uidErr != nil || gidErr != nil {
			return nil, fmt.Errorf("user %q has a malformed entry in the image's /etc/passwd", user)
		}
		o.uid, o.gid = uid, gid
	} else {
		o.gid = o.uid
	}
	if !hasGroup || group == "" {
		return o, nil
	}
	if o.gid, err = parseID(group); err != nil {
		line, err := s.account("etc/group", group, 3)
		if err != nil {
			return nil, err
		}
		if o.gid, err = parseID(line[2]); err != nil {
			return nil, fmt.Errorf("group %q has a malformed entry in the image's /etc/group", group)
		}
	}
	return o, nil
}

func (s *stage) account(file, name string, fields int) ([]string, error) {
	b, err := s.readFile(file)
	if err != nil {
		return nil, err
	}
	for line := range strings.SplitSeq(string(b), "\n") {
		parts := strings.Split(strings.TrimSpace(line), ":")
		if len(parts) >= fields && parts[0] == name {
			return parts, nil
		}
	}
	return nil, fmt.Errorf("%q is not in the image's /%s", name, file)
}

// readFile reads a small file of the stage's root; one that is not there is
// empty.
func (s *stage) readFile(name string) ([]byte, error) {
	v, err := s.root.view(s.b.ctx, s.layers)
	if err != nil {
		return nil, err
	}
	if name, err = erofs.Resolve(name, v.at); err != nil {
		return nil, err
	}
	if mode, _ := v.at(name); mode == 0 {
		return nil, nil
	}
	for _, l := range slices.Backward(s.layers) {
		b, found, err := s.findInLayer(l, name, 0)
		if found || err != nil {
			return b, err
		}
	}
	return nil, nil
}

// maxHardLinks is how many hard links are followed for a name.
const maxHardLinks = 4

func (s *stage) findInLayer(l layer, name string, links int) (content []byte, found bool, err error) {
	r, err := builder.OpenLayer(s.b.ctx, l.Layer)
	if err != nil {
		return nil, false, err
	}
	defer r.Close()
	for t := tar.NewReader(r); ; {
		h, err := t.Next()
		if err == io.EOF {
			return content, found, nil // the last of the name counts
		}
		if err != nil {
			return nil, false, err
		}
		if strings.TrimPrefix(path.Clean("/"+h.Name), "/") != name {
			continue
		}
		switch h.Typeflag {
		case tar.TypeReg:
			if content, err = io.ReadAll(io.LimitReader(t, maxAccounts)); err != nil {
				return nil, false, err
			}
			found = true
		case tar.TypeLink:
			if links == maxHardLinks {
				return nil, false, fmt.Errorf("/%s: too many hard links", name)
			}
			return s.findInLayer(l, strings.TrimPrefix(path.Clean("/"+h.Linkname), "/"), links+1)
		}
	}
}
