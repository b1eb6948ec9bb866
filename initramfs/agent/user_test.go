//go:build linux

package agent

import (
	"bytes"
	"fmt"
	"os"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/moby/sys/user"

	"github.com/abdul-abdi/lumina/initramfs/protocol"
)

const (
	testPasswd = "root:x:0:0:root:/root:/bin/sh\n" +
		"# comment\n\n" +
		"alice:x:1000:1001::/home/alice:/bin/sh\n" +
		"  bob:x:1002:1002::/home/bob:/bin/sh  \n" +
		"1234:x:77:78::/home/number:/bin/sh\n" +
		"alice:x:3000:3000::/home/second:/bin/sh\n" +
		"twin:x:1000:9::/home/twin:/bin/sh\n" +
		"homeless:x:1005:1005:::\n"
	testGroup = "root:x:0:root\n" +
		"alice:x:1001:\n" +
		"staff:x:50:other,alice,root\n" +
		"audio:x:29:alice\n" +
		"44:x:45:bob\n" +
		"nearly:x:46:alicex,xalice\n" +
		"twins:x:47:twin\n"
)

// What runc and Docker make of every form of USER, from the package that they use.
func TestResolveUserAsContainerToolsDo(t *testing.T) {
	users := []string{"", "root", "0", "alice", "1000", "bob", "1002", "twin", "77", "1234", "homeless", "nobody", "4321", "2147483647",
		"2147483648", "99999999999999999999", "-1", "+5", "007", " alice", "alice ", "0x0"}
	groups := []string{"", ":", ":root", ":staff", ":44", ":45", ":50", ":nogroup", ":5555", ":-1", ":2147483648", ":alice:x", "::50"}
	for _, u := range users {
		for _, g := range groups {
			spec := u + g
			want, wantErr := user.GetExecUser(spec, &user.ExecUser{Home: "/"}, strings.NewReader(testPasswd), strings.NewReader(testGroup))
			got, err := resolveUser(spec, []byte(testPasswd), []byte(testGroup))
			if (err != nil) != (wantErr != nil) {
				t.Errorf("%q: %v, want %v", spec, err, wantErr)
				continue
			}
			if err != nil {
				continue
			}
			if want.Home == "" {
				want.Home = "/" // a process's HOME is never empty
			}
			theirs := account{uid: uint32(want.Uid), gid: uint32(want.Gid), home: want.Home}
			for _, id := range want.Sgids {
				theirs.groups = append(theirs.groups, uint32(id))
			}
			if diff := cmp.Diff(theirs, got, cmp.AllowUnexported(account{})); diff != "" {
				t.Errorf("%q differs (-container tools +ours):\n%s", spec, diff)
			}
		}
	}
}

// Files that break their format, or are missing: nobody becomes the superuser by that.
func TestResolveUserInBrokenFiles(t *testing.T) {
	long := "long:x:60000:60001:" + strings.Repeat("x", 1<<20) + ":/long:\n"
	passwd := "broken:x:no:1::/:/\nempty:x:::::\nshort:x:7\nnegative:x:-5:0::/:/\nhuge:x:4294967296:0::/:/\n\x00\xff::::\n" + long +
		strings.Repeat("filler:x:5:5:::\n", 1<<18) + "last:x:1000:1000::/home/last:/bin/sh" // no newline
	group := "broken:x:no:last\nshort\nok:x:50:last\n" + "many:x:51:" + strings.Repeat("somebody,", 1<<17) + "last\n"
	tests := []struct {
		spec string
		want account
		err  bool
	}{
		{"broken", account{}, true},
		{"empty", account{}, true},
		{"short", account{}, true},
		{"negative", account{}, true},
		{"huge", account{}, true},
		{"long", account{uid: 60000, gid: 60001, home: "/long"}, false},
		{"last", account{uid: 1000, gid: 1000, home: "/home/last", groups: []uint32{50, 51}}, false},
		{"1000", account{uid: 1000, gid: 1000, home: "/home/last", groups: []uint32{50, 51}}, false},
		{"last:broken", account{}, true},
		{"last:many", account{uid: 1000, gid: 51, home: "/home/last"}, false},
		{"", account{home: "/"}, false},
	}
	for _, tt := range tests {
		got, err := resolveUser(tt.spec, []byte(passwd), []byte(group))
		if (err != nil) != tt.err {
			t.Errorf("resolveUser(%q) = %v, want error %v", tt.spec, err, tt.err)
		} else if diff := cmp.Diff(tt.want, got, cmp.AllowUnexported(account{})); err == nil && diff != "" {
			t.Errorf("resolveUser(%q) differs (-want +got):\n%s", tt.spec, diff)
		}
	}
	if got, err := resolveUser("5:6", nil, nil); err != nil || !cmp.Equal(got, account{uid: 5, gid: 6, home: "/"}, cmp.AllowUnexported(account{})) {
		t.Errorf("numbers without files: %+v, %v", got, err)
	}
}

func FuzzResolveUser(f *testing.F) {
	f.Add("me:x", []byte("me:x:1:2::/:/\n"), []byte("x:x:3:me\n"))
	f.Add("alice", []byte(testPasswd), []byte(testGroup))
	f.Fuzz(func(t *testing.T, spec string, passwd, group []byte) {
		a, err := resolveUser(spec, passwd, group)
		name, _, _ := strings.Cut(spec, ":")
		if err == nil && name != "" && a.uid == 0 && !isZero(name) && !bytes.Contains(passwd, []byte(name)) {
			t.Errorf("%q became the superuser", spec)
		}
	})
}

func isZero(s string) bool { return strings.Trim(s, "0+-") == "" }

func TestAccountFilesThatAreNone(t *testing.T) {
	dir := t.TempDir()
	for _, name := range []string{dir, dir + "/missing", "/dev/zero", os.DevNull} {
		if b := readAccounts(name); len(b) != 0 {
			t.Errorf("%s: %d bytes", name, len(b))
		}
	}
}

// An answer is kept only where a change of the files would show.
func TestFileStateShowsAChange(t *testing.T) {
	file := t.TempDir() + "/passwd"
	if err := os.WriteFile(file, []byte("one"), 0o644); err != nil {
		t.Fatal(err)
	}
	before := stateOf(file)
	if before.settled() {
		t.Error("a file that was just written is taken for settled")
	}
	if err := os.WriteFile(file, []byte("other"), 0o644); err != nil {
		t.Fatal(err)
	}
	if stateOf(file) == before {
		t.Error("a file of another size has the same state")
	}
	if !(fileState{}).settled() {
		t.Error("no file is not settled")
	}
}

func TestEnvironment(t *testing.T) {
	name, err := os.Hostname()
	if err != nil {
		t.Fatal(err)
	}
	terminal := &protocol.TerminalSize{}
	tests := []struct {
		name string
		req  protocol.Exec
		want []string
	}{
		{"nothing", protocol.Exec{}, []string{"HOME=/h", "HOSTNAME=" + name}},
		{"its own", protocol.Exec{Env: []string{"HOME=/x", "HOSTNAME=", "A=b"}}, []string{"A=b", "HOME=/x", "HOSTNAME="}},
		{"an empty HOME is none", protocol.Exec{Env: []string{"HOME=", "HOSTNAME=n"}}, []string{"HOME=/h", "HOSTNAME=n"}},
		{"a terminal", protocol.Exec{Env: []string{"HOSTNAME=n"}, Terminal: terminal}, []string{"HOME=/h", "HOSTNAME=n", "TERM=xterm"}},
		{"a terminal of a kind", protocol.Exec{Env: []string{"HOSTNAME=n", "TERM=dumb"}, Terminal: terminal}, []string{"HOME=/h", "HOSTNAME=n", "TERM=dumb"}},
	}
	for _, tt := range tests {
		given := fmt.Sprint(tt.req.Env)
		got := slices.Clone(environment(&tt.req, "/h"))
		slices.Sort(got)
		if diff := cmp.Diff(tt.want, got); diff != "" {
			t.Errorf("%s (-want +got):\n%s", tt.name, diff)
		}
		if fmt.Sprint(tt.req.Env) != given {
			t.Errorf("%s: the request was changed: %q", tt.name, tt.req.Env)
		}
	}
}
