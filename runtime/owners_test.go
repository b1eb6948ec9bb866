//go:build unix

package runtime

import (
	"errors"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
)

// Who else can write to a state directory, or exchange it, is told; a user's own group, a
// sticky directory above, and what a sandbox shows as nobody's are usual.
func TestCheckOwners(t *testing.T) {
	me := os.Getuid()
	if me == 0 {
		me = 1000 // whom root gives the directories to
	}
	const own, team, alone, mixed, theirs = 2000, 2001, 2002, 2003, 2004
	etc := t.TempDir()
	passwd := "root:x:0:0::/root:/bin/sh\nme:x:" + strconv.Itoa(me) + ":2000::/:\nbob:x:1999:2004::/:\nshort:line\n"
	group := "own:x:2000:\nteam:x:2001:me,bob\nalone:x:2002:\nmixed:x:2003:root,me\ntheirs:x:2004:\n"
	if err := errors.Join(os.WriteFile(filepath.Join(etc, "passwd"), []byte(passwd), 0o600), os.WriteFile(filepath.Join(etc, "group"), []byte(group), 0o600)); err != nil {
		t.Fatal(err)
	}
	for _, tt := range []struct {
		name         string
		above, home  os.FileMode
		group, owner int // -1: mine
		sandbox      bool
		want         string
	}{
		{"private", 0o755, 0o700, -1, -1, false, ""},
		{"for all to read", 0o755, 0o755, -1, -1, false, ""},
		{"not there yet", 0o755, 0, -1, -1, false, ""},
		{"umask 002, a group of the user's own", 0o755, 0o775, own, -1, false, ""},
		{"a group of nobody", 0o755, 0o775, alone, -1, false, ""},
		{"a group of root and the user", 0o755, 0o770, mixed, -1, false, ""},
		{"root's group", 0o755, 0o770, 0, -1, false, ""},
		{"a team's group", 0o755, 0o770, team, -1, false, "home can be written to by users of its group (2001, mode 0770)"},
		{"another user's group", 0o755, 0o770, theirs, -1, false, "users of its group (2004"},
		{"a group that nobody knows", 0o755, 0o770, 4242, -1, false, "users of its group (4242"},
		{"all", 0o755, 0o777, -1, -1, false, "home can be written to by all users (mode 0777)"},
		{"all, each what is his", 0o755, os.ModeSticky | 0o777, -1, -1, false, "home can be written to by all users"},
		{"write only", 0o755, 0o702, -1, -1, false, "by all users (mode 0702)"},
		{"above, all", 0o777, 0o700, -1, -1, false, "above can be written to by all users (mode 0777)"},
		{"above, all, and not there yet", 0o777, 0, -1, -1, false, "above can be written to by all users"},
		{"above, as /tmp is", os.ModeSticky | 0o777, 0o700, -1, -1, false, ""},
		{"another user's", 0o755, 0o700, -1, 1999, false, "home belongs to another user (1999)"},
		{"another user's, in a sandbox", 0o755, 0o700, -1, 65534, true, "home belongs to another user (65534)"},
		{"root's", 0o755, 0o755, -1, 0, false, ""},
	} {
		t.Run(tt.name, func(t *testing.T) {
			above := filepath.Join(t.TempDir(), "above")
			home := filepath.Join(above, "home")
			if err := os.Mkdir(above, 0o700); err != nil {
				t.Fatal(err)
			}
			if tt.home != 0 {
				if err := os.Mkdir(home, 0o700); err != nil {
					t.Fatal(err)
				}
				if os.Getuid() == 0 || tt.group >= 0 || tt.owner >= 0 {
					owner := tt.owner
					if owner < 0 {
						owner = me
					}
					if err := os.Chown(home, owner, tt.group); errors.Is(err, syscall.EPERM) {
						t.Skip("only root gives files away")
					} else if err != nil {
						t.Fatal(err)
					}
				}
				if err := os.Chmod(home, tt.home); err != nil {
					t.Fatal(err)
				}
			}
			if err := os.Chmod(above, tt.above); err != nil {
				t.Fatal(err)
			}
			o := owners{uid: me, gid: own, etc: etc, uidMap: filepath.Join(etc, "none")}
			if tt.sandbox {
				o.uidMap = filepath.Join(etc, "passwd") // not one of all users
			}
			err := o.check(home)
			if tt.want == "" && err != nil || tt.want != "" && (err == nil || !strings.Contains(err.Error(), tt.want)) {
				t.Errorf("check() = %v, want %q", err, tt.want)
			}
			// By a link, it is the same.
			link := filepath.Join(t.TempDir(), "link")
			if err := os.Symlink(home, link); err != nil {
				t.Fatal(err)
			}
			if by := o.check(link); tt.home != 0 && (by == nil) != (err == nil) {
				t.Errorf("by a link: %v, want %v", by, err)
			}
		})
	}
}

// What is no directory is not given advice that would change the mode of /dev/null.
func TestCheckOwnersOfAFile(t *testing.T) {
	file := filepath.Join(t.TempDir(), "file")
	if err := errors.Join(os.WriteFile(file, nil, 0o600), os.Chmod(file, 0o666)); err != nil {
		t.Fatal(err)
	}
	if err := CheckOwners(file); err != nil {
		t.Errorf("a file that all may write to: %v", err)
	}
}

// A sandbox shows root, which made the directories above, as nobody.
func TestCheckOwnersInASandbox(t *testing.T) {
	if os.Getuid() != 0 {
		t.Skip("only root gives files away")
	}
	above := filepath.Join(t.TempDir(), "above")
	home := filepath.Join(above, "home")
	if err := errors.Join(os.MkdirAll(home, 0o755), os.Chown(above, overflowUID, overflowUID)); err != nil {
		t.Fatal(err)
	}
	uidMap := filepath.Join(t.TempDir(), "uid_map")
	for content, told := range map[string]bool{"         0          0 4294967295\n": true, "      1000       1000          1\n": false} {
		if err := os.WriteFile(uidMap, []byte(content), 0o600); err != nil {
			t.Fatal(err)
		}
		if err := (owners{etc: t.TempDir(), uidMap: uidMap}).check(home); (err != nil) != told {
			t.Errorf("with the map %q: %v", content, err)
		}
	}
}
