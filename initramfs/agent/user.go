//go:build linux

package agent

import (
	"bytes"
	"fmt"
	"io"
	"iter"
	"math"
	"os"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"github.com/abdul-abdi/lumina/initramfs/protocol"
)

const (
	// maxAccountFile bounds how much of /etc/passwd or /etc/group is read, in
	// bytes: the image wrote them.
	maxAccountFile = 16 << 20
	// maxAccounts bounds how many answers are kept.
	maxAccounts = 64
)

// account is who a process runs as.
type account struct {
	uid, gid uint32
	groups   []uint32
	home     string
}

// root says whether the account is what the agent is itself.
func (a *account) root() bool { return a.uid == 0 && a.gid == 0 && len(a.groups) == 0 }

// accounts answers who a user is. Every exec asks: an answer is kept as long as the
// files are as they were.
type accounts struct {
	mu            sync.Mutex
	passwd, group fileState
	known         map[string]account
}

// lookup resolves USER, USER:GROUP, :GROUP or nothing, for root, as container tools
// do; see resolveUser.
func (c *accounts) lookup(spec string) (account, error) {
	passwd, group := stateOf("/etc/passwd"), stateOf("/etc/group")
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.passwd != passwd || c.group != group || len(c.known) > maxAccounts {
		c.known = nil
	}
	if a, ok := c.known[spec]; ok {
		return a, nil
	}
	a, err := lookupUser(spec)
	if err == nil && passwd.settled() && group.settled() {
		if c.known == nil {
			c.known = map[string]account{}
		}
		c.passwd, c.group, c.known[spec] = passwd, group, a
	}
	return a, err
}

// fileState tells whether a file has changed; it is zero for none.
type fileState struct {
	device, inode  uint64
	size           int64
	mtime, changed unix.Timespec
}

func stateOf(path string) fileState {
	var st unix.Stat_t
	if unix.Stat(path, &st) != nil {
		return fileState{}
	}
	return fileState{uint64(st.Dev), st.Ino, st.Size, st.Mtim, st.Ctim}
}

// settled says whether a later change would show: the clock of a file system ticks
// some hundred times a second only.
func (s fileState) settled() bool {
	age := time.Since(time.Unix(s.changed.Unix()))
	return s == fileState{} || age > time.Second
}

func lookupUser(spec string) (account, error) {
	return resolveUser(spec, readAccounts("/etc/passwd"), readAccounts("/etc/group"))
}

// resolveUser finds USER[:GROUP] in /etc/passwd and /etc/group as runc does, by the
// rules of github.com/moby/sys/user: a number is an ID and needs no entry, anything else
// is a name and needs one, no USER is the superuser. Without a GROUP, those of which the
// user is a member come along. Other than there, an entry whose ID is not a number is no
// entry, rather than the superuser's.
func resolveUser(spec string, passwd, group []byte) (account, error) {
	name, rest, _ := strings.Cut(spec, ":")
	groupName, _, _ := strings.Cut(rest, ":")
	a := account{home: "/"}
	uid, isID := 0, true
	if name != "" {
		var err error
		if uid, isID, err = specID("user", name); err != nil {
			return account{}, err
		}
	}
	entry := findAccount(passwd, passwdIDs, name, uid, isID)
	switch {
	case entry != nil:
		a.uid, a.gid = fileID(entry[2]), fileID(entry[3])
		if len(entry) > 5 && entry[5] != "" {
			a.home = entry[5]
		}
	case isID:
		a.uid = uint32(uid)
	default:
		return account{}, notFound("user %q is not in the guest's /etc/passwd", name)
	}
	if groupName != "" {
		gid, isID, err := specID("group", groupName)
		if err != nil {
			return account{}, err
		}
		if g := findAccount(group, groupIDs, groupName, gid, isID); g != nil {
			a.gid = fileID(g[2])
		} else if isID {
			a.gid = uint32(gid)
		} else {
			return account{}, notFound("group %q is not in the guest's /etc/group", groupName)
		}
	} else if entry != nil {
		a.groups = groupsOf(group, entry[0])
	}
	return a, nil
}

// specID reads a user or group that may be a number.
func specID(what, s string) (id int, isID bool, err error) {
	id, err = strconv.Atoi(s)
	if err != nil {
		return 0, false, nil
	}
	if id < 0 || id > math.MaxInt32 {
		return 0, false, notFound("%s %s is none that can be: a number is from 0 to %d", what, s, math.MaxInt32)
	}
	return id, true, nil
}

// The fields of an entry that must be IDs.
var (
	passwdIDs = []int{2, 3}
	groupIDs  = []int{2}
)

// findAccount finds the first entry of a number or else a name.
func findAccount(file []byte, ids []int, name string, id int, isID bool) []string {
	for fields := range entries(file, ids) {
		if isID && fileID(fields[2]) == uint32(id) || !isID && fields[0] == name {
			return fields
		}
	}
	return nil
}

// groupsOf lists the groups that have a user as a member.
func groupsOf(group []byte, name string) []uint32 {
	if !bytes.Contains(group, []byte(name)) {
		return nil
	}
	var gids []uint32
	for fields := range entries(group, groupIDs) {
		if len(fields) > 3 && slices.Contains(strings.Split(fields[3], ","), name) && len(gids) < maxGroups {
			gids = append(gids, fileID(fields[2]))
		}
	}
	return gids
}

// maxGroups is the kernel's limit of supplementary groups, NGROUPS_MAX.
const maxGroups = 65536

// entries are the lines of a colon-separated file whose fields of these indices are IDs.
func entries(file []byte, ids []int) iter.Seq[[]string] {
	return func(yield func([]string) bool) {
		for line := range bytes.Lines(file) {
			fields := strings.Split(string(bytes.TrimSpace(line)), ":")
			if slices.ContainsFunc(ids, func(i int) bool { return i >= len(fields) || !isFileID(fields[i]) }) {
				continue
			}
			if !yield(fields) {
				return
			}
		}
	}
}

func isFileID(s string) bool {
	_, err := strconv.ParseUint(s, 10, 32)
	return err == nil
}

// fileID is an ID of which isFileID has said that it is one.
func fileID(s string) uint32 {
	n, _ := strconv.ParseUint(s, 10, 32)
	return uint32(n)
}

// readAccounts reads an account file. What cannot be read is empty, as a missing one is,
// and so is what is not a file: a device or FIFO that the image put there could block.
func readAccounts(path string) []byte {
	f, err := os.OpenFile(path, os.O_RDONLY|syscall.O_NONBLOCK, 0)
	if err != nil {
		return nil
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil || !info.Mode().IsRegular() {
		return nil
	}
	b := make([]byte, min(info.Size(), maxAccountFile))
	n, err := io.ReadFull(f, b)
	if err != nil && err != io.ErrUnexpectedEOF {
		return nil
	}
	return b[:n]
}

func notFound(format string, args ...any) error {
	return &protocol.Error{Code: protocol.CodeNotFound, Message: fmt.Sprintf(format, args...)}
}

func failed(doing string, err error) error {
	return &protocol.Error{Code: protocol.CodeFailed, Message: doing + ": " + err.Error()}
}
