//go:build linux

package agent

import (
	"bufio"
	"fmt"
	"io"
	"os"
	"slices"
	"strconv"
	"strings"
	"syscall"

	"github.com/abdul-abdi/lumina/initramfs/protocol"
)

// maxAccountFile bounds how much of /etc/passwd or /etc/group is read, in
// bytes: the image wrote them.
const maxAccountFile = 16 << 20

// account is who a process runs as.
type account struct {
	uid, gid uint32
	groups   []uint32
	home     string
}

// lookupUser resolves NAME, UID, NAME:GROUP or UID:GID as container tools do:
// a number needs no entry in /etc/passwd, a name does.
func lookupUser(spec string) (account, error) {
	if spec == "" {
		return account{home: "/root"}, nil // no file is read for every exec
	}
	passwd, err := readAccounts("/etc/passwd")
	if err != nil {
		return account{}, err
	}
	group, err := readAccounts("/etc/group")
	if err != nil {
		return account{}, err
	}
	return resolveUser(spec, passwd, group)
}

func resolveUser(spec string, passwd, group [][]string) (account, error) {
	name, groupName, hasGroup := strings.Cut(spec, ":")
	a := account{home: "/"}
	entry := findAccount(passwd, name, 7)
	switch {
	case entry != nil:
		uid, uidErr := parseID(entry[2])
		gid, gidErr := parseID(entry[3])
		if uidErr != nil || gidErr != nil {
			return account{}, notFound("user %q has a malformed entry in the guest's /etc/passwd", name)
		}
		a.uid, a.gid, name = uid, gid, entry[0]
		if entry[5] != "" {
			a.home = entry[5]
		}
	default:
		uid, err := parseID(name)
		if err != nil {
			return account{}, notFound("user %q is not in the guest's /etc/passwd", name)
		}
		a.uid = uid
	}
	if hasGroup {
		if entry := findAccount(group, groupName, 3); entry != nil {
			groupName = entry[2]
		}
		gid, err := parseID(groupName)
		if err != nil {
			return account{}, notFound("group %q is not in the guest's /etc/group", groupName)
		}
		a.gid = gid
		return a, nil
	}
	for _, g := range group {
		if len(g) < 4 || !slices.Contains(strings.Split(g[3], ","), name) {
			continue
		}
		if gid, err := parseID(g[2]); err == nil && gid != a.gid {
			a.groups = append(a.groups, gid)
		}
	}
	return a, nil
}

// findAccount finds a line by name or, failing that, by number.
func findAccount(lines [][]string, key string, fields int) []string {
	for _, l := range lines {
		if len(l) >= fields && l[0] == key {
			return l
		}
	}
	for _, l := range lines {
		if len(l) >= fields && l[2] == key {
			return l
		}
	}
	return nil
}

func parseID(s string) (uint32, error) {
	n, err := strconv.ParseUint(s, 10, 32)
	return uint32(n), err
}

// readAccounts splits a colon-separated file; a missing one is empty.
func readAccounts(path string) ([][]string, error) {
	// Not a device or FIFO that the image put there, which could block.
	f, err := os.OpenFile(path, os.O_RDONLY|syscall.O_NONBLOCK, 0)
	if os.IsNotExist(err) {
		return nil, nil
	}
	if err != nil {
		return nil, failed("reading accounts", err)
	}
	defer f.Close()
	return parseAccounts(f), nil
}

func parseAccounts(r io.Reader) [][]string {
	var lines [][]string
	scanner := bufio.NewScanner(io.LimitReader(r, maxAccountFile))
	scanner.Buffer(nil, 1<<20)
	for scanner.Scan() {
		line := strings.TrimSpace(scanner.Text())
		if line != "" && line[0] != '#' {
			lines = append(lines, strings.Split(line, ":"))
		}
	}
	return lines
}

func notFound(format string, args ...any) error {
	return &protocol.Error{Code: protocol.CodeNotFound, Message: fmt.Sprintf(format, args...)}
}

func failed(doing string, err error) error {
	return &protocol.Error{Code: protocol.CodeFailed, Message: doing + ": " + err.Error()}
}
