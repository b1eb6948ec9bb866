package dockerfile

import (
	"errors"
	"fmt"
	"strconv"
	"strings"

	"github.com/abdul-abdi/lumina/builder/dockerfile/files"
)

// chmod changes a file's permissions.
type chmod func(mode uint32) uint32

// parseMode reads what chmod(1) takes: an octal number or u+x,go-w.
func parseMode(s string) (chmod, error) {
	if s == "" {
		return func(mode uint32) uint32 { return mode }, nil
	}
	if n, err := strconv.ParseUint(s, 8, 32); err == nil {
		if n > 0o7777 {
			return nil, errors.New("want an octal number up to 07777")
		}
		return func(mode uint32) uint32 { return mode&files.TypeMask | uint32(n) }, nil
	}
	var clauses []chmod
	for clause := range strings.SplitSeq(s, ",") {
		c, err := parseClause(clause)
		if err != nil {
			return nil, err
		}
		clauses = append(clauses, c)
	}
	return func(mode uint32) uint32 {
		for _, c := range clauses {
			mode = c(mode)
		}
		return mode
	}, nil
}

// parseClause reads WHO, then one or more of + - = with permissions.
func parseClause(s string) (chmod, error) {
	who := uint32(0) // a mask of rwx bits
	special := map[byte]uint32{}
	for ; s != "" && strings.IndexByte("ugoa", s[0]) >= 0; s = s[1:] {
		switch s[0] {
		case 'u':
			who |= 0o700
			special['s'] |= 0o4000
		case 'g':
			who |= 0o070
			special['s'] |= 0o2000
		case 'o':
			who |= 0o007
			special['t'] |= 0o1000
		default:
			who |= 0o777
			special['s'] |= 0o6000
			special['t'] |= 0o1000
		}
	}
	if who == 0 {
		who, special['s'], special['t'] = 0o777, 0o6000, 0o1000
	}
	if s == "" {
		return nil, errors.New("want an octal number, or permissions such as u+x")
	}
	var steps []chmod
	for s != "" {
		op := s[0]
		if strings.IndexByte("+-=", op) < 0 {
			return nil, fmt.Errorf("want an octal number, or permissions such as u+x, and %q is neither", op)
		}
		end := 1
		for end < len(s) && strings.IndexByte("+-=", s[end]) < 0 {
			end++
		}
		perms := s[1:end]
		s = s[end:]
		if i := strings.IndexFunc(perms, func(r rune) bool { return !strings.ContainsRune("rwxXstugo", r) }); i >= 0 {
			return nil, fmt.Errorf("%q is not a permission", perms[i:i+1])
		}
		steps = append(steps, func(mode uint32) uint32 { return applyPermissions(mode, op, perms, who, special) })
	}
	return func(mode uint32) uint32 {
		for _, step := range steps {
			mode = step(mode)
		}
		return mode
	}, nil
}

func applyPermissions(mode uint32, op byte, perms string, who uint32, special map[byte]uint32) uint32 {
	bits := uint32(0)
	for i := 0; i < len(perms); i++ {
		switch p := perms[i]; p {
		case 'r':
			bits |= 0o444 & who
		case 'w':
			bits |= 0o222 & who
		case 'x':
			bits |= 0o111 & who
		case 'X':
			if mode&files.TypeMask == files.TypeDir || mode&0o111 != 0 {
				bits |= 0o111 & who
			}
		case 's', 't':
			bits |= special[p]
		case 'u':
			bits |= (mode >> 6 & 7) * 0o111 & who
		case 'g':
			bits |= (mode >> 3 & 7) * 0o111 & who
		case 'o':
			bits |= (mode & 7) * 0o111 & who
		}
	}
	switch op {
	case '+':
		return mode | bits
	case '-':
		return mode &^ bits
	}
	return mode&^who | bits
}
