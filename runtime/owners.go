//go:build unix

package runtime

import (
	"bufio"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	goruntime "runtime"
	"slices"
	"strconv"
	"strings"
	"syscall"
)

// CheckOwners reports who else than this user and root can change what is in a state
// directory, or put another one in its place: they decide what its VMs run, and read what
// those have. The directory need not exist. What it costs is a stat of each directory
// on the way.
func CheckOwners(home string) error {
	return owners{uid: os.Getuid(), gid: os.Getgid(), etc: "/etc", uidMap: "/proc/self/uid_map"}.check(home)
}

// owners is for whom a state directory is to be private.
type owners struct {
	uid, gid int
	etc      string // the directory of passwd and group
	uidMap   string // which users this process can tell apart
}

func (o owners) check(home string) error {
	dir, err := filepath.EvalSymlinks(home)
	for at := home; errors.Is(err, fs.ErrNotExist) && at != filepath.Dir(at); {
		at = filepath.Dir(at)
		dir, err = filepath.EvalSymlinks(at)
		home = "" // only what is above it is there
	}
	if err != nil {
		return nil // the code that uses it reports this
	}
	for first := home != ""; ; first = false {
		if why, remedy := o.exposed(dir, first); why != "" {
			return fmt.Errorf("%s %s, who can change what VMs run: %s", dir, why, remedy)
		}
		if dir == filepath.Dir(dir) {
			return nil
		}
		dir = filepath.Dir(dir)
	}
}

// exposed says how others can change a directory, or "". In one above the state
// directory, the sticky bit keeps them from what is not theirs.
func (o owners) exposed(dir string, isHome bool) (why, remedy string) {
	info, err := os.Stat(dir)
	if err != nil || !info.IsDir() { // the code that uses it reports this
		return "", ""
	}
	st, ok := info.Sys().(*syscall.Stat_t)
	if !ok {
		return "", ""
	}
	owner, mode := int(st.Uid), info.Mode()
	remedy = fmt.Sprintf("chmod go-w %s, or set LUMINA_HOME to a directory that only you can write to", dir)
	switch {
	case owner != o.uid && owner != 0 && (isHome || owner != overflowUID || o.knowsAll()):
		return fmt.Sprintf("belongs to another user (%d)", owner), "set LUMINA_HOME to a directory of your own"
	case mode&fs.ModeSticky != 0 && !isHome:
		return "", ""
	case mode.Perm()&0o002 != 0:
		return fmt.Sprintf("can be written to by all users (mode %04o)", mode.Perm()), remedy
	case mode.Perm()&0o020 != 0 && !o.isPrivate(int(st.Gid)):
		return fmt.Sprintf("can be written to by users of its group (%d, mode %04o)", st.Gid, mode.Perm()), remedy
	}
	return "", ""
}

// overflowUID is how the kernel shows users that a user namespace does not have, root
// among them, in most sandboxes.
const overflowUID = 65534

// knowsAll says whether all users are seen by their own numbers.
func (o owners) knowsAll() bool {
	b, err := os.ReadFile(o.uidMap)
	return err != nil || slices.Equal(strings.Fields(string(b)), []string{"0", "0", "4294967295"})
}

// macAdmins are those whom sudo makes root on macOS.
const macAdmins = 80

// isPrivate says whether a group has nobody but this user and root: many systems give
// each user one, and an umask that lets it write. Users that only a directory service
// knows have one of their own number.
func (o owners) isPrivate(gid int) bool {
	if gid == 0 || goruntime.GOOS == "darwin" { // where all users are of one group
		return gid == 0 || gid == macAdmins
	}
	known, name := gid == o.gid && gid == o.uid, ""
	var members []string
	o.read("group", func(f []string) {
		if f[2] == strconv.Itoa(gid) {
			known = true
			members = append(members, strings.FieldsFunc(f[3], func(r rune) bool { return r == ',' })...)
		}
	})
	o.read("passwd", func(f []string) {
		switch {
		case f[2] == strconv.Itoa(o.uid):
			name = f[0]
		case f[3] == strconv.Itoa(gid) && f[2] != "0":
			known = false
		}
	})
	for _, m := range members {
		known = known && (m == name && name != "" || m == "root")
	}
	return known
}

// read calls line for the lines of a file of /etc that are of users or groups.
func (o owners) read(name string, line func([]string)) {
	f, err := os.Open(filepath.Join(o.etc, name))
	if err != nil {
		return
	}
	defer f.Close()
	for s := bufio.NewScanner(f); s.Scan(); {
		if fields := strings.Split(s.Text(), ":"); len(fields) >= 4 {
			line(fields)
		}
	}
}
