package cgroup

import (
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
)

// tree makes directories as the kernel's: each with the files of a group, and with
// memory among what it controls if its name has a star.
func tree(t *testing.T, dirs ...string) string {
	t.Helper()
	mount := t.TempDir()
	for _, d := range dirs {
		dir := filepath.Join(mount, strings.ReplaceAll(d, "*", ""))
		if err := os.MkdirAll(dir, 0o755); err != nil {
			t.Fatal(err)
		}
		controls := ""
		if strings.HasSuffix(d, "*") {
			controls = "cpu memory pids\n"
		}
		for name, content := range map[string]string{"cgroup.subtree_control": controls, "cgroup.procs": ""} {
			if err := os.WriteFile(filepath.Join(dir, name), []byte(content), 0o644); err != nil {
				t.Fatal(err)
			}
		}
	}
	return mount
}

func TestFind(t *testing.T) {
	slice := []string{"*", "user.slice*", "user.slice/app.slice*", "user.slice/app.slice/run.scope"}
	for _, tt := range []struct {
		name      string
		dirs      []string
		self      string
		superuser bool
		want      string
	}{
		{"the nearest that controls memory", slice, "0::/user.slice/app.slice/run.scope\n", false, "/user.slice/app.slice"},
		{"beside the first version's", slice, "8:pids:/\n1:name=systemd:/\n0::/user.slice/app.slice\n", false, "/user.slice/app.slice"},
		{"root's, that nobody gave away", slice, "0::/user.slice/app.slice/run.scope\n", true, ""},
		{"none that controls memory", []string{"", "a"}, "0::/a\n", false, ""},
		{"the first version only", slice, "4:memory:/user.slice\n", false, ""},
		{"another part of the file system", slice, "0::/../user.slice\n", false, ""},
		{"nothing", slice, "", false, ""},
	} {
		mount := tree(t, tt.dirs...)
		want := tt.want
		if want != "" {
			want = mount + want
		}
		if got := find(mount, tt.self, tt.superuser); got != want {
			t.Errorf("%s: %q, want %q", tt.name, got, want)
		}
	}
	// A container's root is all that it sees.
	mount := tree(t, "*")
	if err := os.WriteFile(filepath.Join(mount, "cgroup.type"), nil, 0o644); err != nil {
		t.Fatal(err)
	}
	if got := find(mount, "0::/\n", true); got != mount {
		t.Errorf("in a container: %q, want %q", got, mount)
	}
}

func TestGroups(t *testing.T) {
	dir := t.TempDir()
	ended := exec.Command("true")
	if err := ended.Run(); err != nil {
		t.Fatal(err)
	}
	stale := filepath.Join(dir, prefix+strconv.Itoa(ended.Process.Pid)+"-1")
	foreign := filepath.Join(dir, "other")
	for _, d := range []string{stale, foreign} {
		if err := os.Mkdir(d, 0o755); err != nil {
			t.Fatal(err)
		}
	}
	a, err := New(dir, Limits{Memory: 1 << 30, CPUs: 2, Processes: 100})
	if err != nil {
		t.Fatal(err)
	}
	b, err := New(dir, Limits{})
	if err != nil {
		t.Fatal(err)
	}
	if a.dir == b.dir {
		t.Errorf("two groups are %s", a.dir)
	}
	if _, err := os.Stat(stale); err == nil {
		t.Error("the group of a process that has ended is still there")
	}
	if err := a.Add(os.Getpid()); err == nil {
		t.Error("a directory that is no control group takes processes")
	}
	for range 2 {
		if err := a.Remove(); err != nil {
			t.Error(err)
		}
	}
	left, _ := filepath.Glob(dir + "/*")
	if len(left) != 2 {
		t.Errorf("left: %v, want b and what is not ours", left)
	}
}
