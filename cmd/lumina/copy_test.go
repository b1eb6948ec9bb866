package main

import (
	"encoding/json"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/abdul-abdi/lumina/runtime/polltest"
)

// What users type to copy, in one VM.
func TestCopies(t *testing.T) {
	sid := startTestSession(t, "--network", "none")
	guest := func(command string) string {
		t.Helper()
		return lumina(t, "exec", sid, command).succeeded(t).Stdout
	}
	cp := func(t *testing.T, args ...string) result {
		t.Helper()
		for i := range args {
			args[i] = strings.Replace(args[i], "SID:", sid+":", 1)
		}
		return lumina(t, append([]string{"cp"}, args...)...)
	}
	dir := t.TempDir()
	project := filepath.Join(dir, "project")
	for name, content := range map[string]string{"project/package.json": "{}", "project/dist/index.html": "page", "a b:c": "odd", "-rf": "odd"} {
		path := filepath.Join(dir, name)
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			t.Fatal(err)
		}
		write(t, path, content)
	}

	t.Run("the product page's lines", func(t *testing.T) {
		guest("mkdir /work && chmod 1777 /work")
		for range 2 { // the second time everything is there
			cp(t, project+"/", "SID:/work/").succeeded(t)
			if r := lumina(t, "exec", "--workdir", "/work", sid, "cat package.json; stat -c %a .; ls -d project 2>&1").Stdout; !strings.HasPrefix(r, "{}1777\nls: cannot") {
				t.Errorf("in /work: %q", r)
			}
		}
		cp(t, project, "SID:/work/").succeeded(t)
		cp(t, "SID:/work/project/dist/", dir+"/dist/").succeeded(t)
		if b, err := os.ReadFile(dir + "/dist/index.html"); string(b) != "page" {
			t.Errorf("dist = %q, %v", b, err)
		}
		json := fmt.Sprintf(`{"sid":%q,"image":"a:b"}:/work/package.json`, sid)
		lumina(t, "cp", json, dir+"/by-object").succeeded(t)
	})
	t.Run("what is there keeps mode and owner, -p gives the source's", func(t *testing.T) {
		guest("echo old > /kept && chown 5:6 /kept && chmod 4751 /kept")
		cp(t, project+"/package.json", "SID:/kept").succeeded(t)
		if s := guest("stat -c '%a %u %g' /kept; cat /kept"); s != "4751 5 6\n{}" {
			t.Errorf("in the guest: %q", s)
		}
		cp(t, "-p", project+"/package.json", "SID:/kept").succeeded(t)
		if s := guest("stat -c '%a %u' /kept"); s != fmt.Sprintf("644 %d\n", os.Getuid()) {
			t.Errorf("in the guest, with -p: %q", s)
		}
		cp(t, "-a", "SID:/bin/su", dir+"/su").succeeded(t)
		if info, err := os.Stat(dir + "/su"); err != nil || info.Mode() != 0o755 {
			t.Errorf("a setuid program came as %v, %v", info.Mode(), err)
		}
	})
	t.Run("on a disk that does not tell cases apart, as a Mac's", func(t *testing.T) {
		disk := filepath.Join(dir, "fat")
		write(t, disk, "")
		if err := os.Truncate(disk, 40<<20); err != nil {
			t.Fatal(err)
		}
		tool(t, "mkfs.vfat", disk)
		build := exec.Command("go", "build", "-o", filepath.Join(dir, "caseless"), "./testdata/caseless")
		build.Env = append(os.Environ(), "CGO_ENABLED=0")
		if out, err := build.CombinedOutput(); err != nil {
			t.Fatalf("%v: %s", err, out)
		}
		cp(t, disk, "SID:/fat").succeeded(t)
		cp(t, filepath.Join(dir, "caseless"), "SID:/caseless").succeeded(t)
		const not, same = "this disk ignores case in names", "this file system treats the name as equal to that of an earlier file"
		want := `image debian: <nil>
image debian again: <nil>
image Debian: image "Debian": there is "debian", and ` + not + `
another Debian: image "Debian": there is "debian", and ` + not + `
opening DEBIAN: image "DEBIAN": no such image: there is "debian", and ` + not + `
removing Debian: removing image "Debian": no such image: there is "debian", and ` + not + `
has true false
opening debian: <nil>
[debian] <nil>
volume data: <nil>
volume Data: creating volume "Data": there is "data", and ` + not + `
opening DATA: volume "DATA": no such volume: there is "data", and ` + not + `
removing Data: removing volume "Data": no such volume: there is "data", and ` + not + `
opening data: <nil>
[data] <nil>
new-A: /caseless.d/new-A/a: ` + same + `; one file was copied before
A has "A", <nil>
old-A: /caseless.d/old-A/a: ` + same + `; one file was copied before
A has "A", <nil>
new-D: /caseless.d/new-D/d: ` + same + `; one file was copied before
D/x has "D/x", <nil>
old-D: /caseless.d/old-D/d: ` + same + `; one file was copied before
D/x has "D/x", <nil>
`
		if got := guest("mkdir /caseless.d && mount -o loop /fat /caseless.d && /caseless /caseless.d && umount /caseless.d"); got != want {
			t.Errorf("got %s, want %s", got, want)
		}
	})
	t.Run("through links, devices and FIFOs of the guest", func(t *testing.T) {
		guest("mkdir /real; ln -s /real /linked; echo old > /target; ln -s /target /real/package.json; mkfifo /fifo; cat /fifo > /came & exit 0")
		cp(t, project+"/", "SID:/linked").succeeded(t)
		cp(t, project+"/package.json", "SID:/dev/null").succeeded(t)
		cp(t, project+"/package.json", "SID:/fifo").succeeded(t)
		cp(t, project+"/package.json", "SID:/etc/resolv.conf").succeeded(t) // something may be mounted on it
		if s := guest("test -L /real/package.json -a -L /linked -a -c /dev/null -a -p /fifo && cat /target /came /etc/resolv.conf"); s != "{}{}{}" {
			t.Errorf("in the guest: %q", s)
		}
	})
	t.Run("files of /proc and /sys, and hard links", func(t *testing.T) {
		cp(t, "SID:/proc/meminfo", dir+"/meminfo").succeeded(t)
		if b, err := os.ReadFile(dir + "/meminfo"); !strings.Contains(string(b), "DirectMap") && !strings.Contains(string(b), "HugePages") {
			t.Errorf("/proc/meminfo = %q, %v", b, err)
		}
		guest("mkdir /many; head -c 3M /dev/urandom > /many/0; for i in 1 2 3 4 5 6 7 8 9; do ln /many/0 /many/$i; done; truncate -s 12T /many/sparse")
		r := cp(t, "SID:/many/", dir+"/many")
		if r.code != 125 || !strings.Contains(r.Message, "--max-size") && !strings.Contains(r.Message, "too large") {
			t.Errorf("twelve terabytes of hole: exit code %d, %s %s", r.code, r.stdout, r.stderr)
		}
		_ = os.RemoveAll(dir + "/many")
		guest("rm /many/sparse")
		cp(t, "--max-size", "4MB", "SID:/many/", dir+"/many").succeeded(t)
		var st syscall.Stat_t
		if err := syscall.Stat(dir+"/many/9", &st); err != nil || st.Nlink != 10 {
			t.Errorf("%d links, %v", st.Nlink, err)
		}
	})
	t.Run("a guest that is full, and the kernel's own files", func(t *testing.T) {
		guest("mkdir /full && mount -t tmpfs -o size=1m none /full")
		r := cp(t, "/dev/zero", "SID:/full/x")
		if r.code != 125 || !strings.Contains(r.Message, "no space left") {
			t.Errorf("exit code %d, %s %s", r.code, r.stdout, r.stderr)
		}
		if s := guest("ls -A /full"); s != "" {
			t.Errorf("left behind: %q", s)
		}
		guest("mkdir -p /root/p/proc && echo x > /root/p/f && mount -t proc none /root/p/proc")
		if r := cp(t, "SID:/root/p", dir).succeeded(t); !strings.Contains(r.stdout, `"skipped_names":["proc"]`) {
			t.Errorf("cp of a mounted /proc: %s", r.stdout)
		}
	})
	t.Run("several sources, odd names, this command's output", func(t *testing.T) {
		cp(t, dir+"/a b:c", dir+"/-rf", project, "SID:several").succeeded(t)
		if s := guest("ls -A several"); s != "-rf\na b:c\nproject\n" {
			t.Errorf("in the guest: %q", s)
		}
		r := cp(t, "SID:/several/-rf", "/dev/stdout")
		if r.code != 0 || r.stdout != "odd" {
			t.Errorf("to /dev/stdout: exit code %d, %q %s", r.code, r.stdout, r.stderr)
		}
		in := command("cp", "/dev/stdin", sid+":/from-stdin")
		in.Stdin = io.LimitReader(zeros{}, 1<<20)
		finish(t, in).succeeded(t)
		if s := guest("stat -c %s /from-stdin"); s != "1048576\n" {
			t.Errorf("from /dev/stdin: %q", s)
		}
		log, err := os.Create(dir + "/log")
		if err != nil {
			t.Fatal(err)
		}
		fmt.Fprint(log, "kept ")
		to := command("cp", sid+":/several/-rf", "/dev/stdout")
		to.Stdout = log
		if err := to.Run(); err != nil {
			t.Error(err)
		}
		if b, err := os.ReadFile(dir + "/log"); string(b) != "kept odd" {
			t.Errorf("output in a file: %q, %v", b, err)
		}
	})
	t.Run("bad usage", func(t *testing.T) {
		for _, args := range [][]string{{"-", "SID:/x"}, {"SID:/x", "-"}, {"a", "b"}, {"SID:/a", "SID:/b"}, {"SID:", dir}, {project, "SID:"}, {"", "SID:/x"}, {"only"},
			{project, "SID:/a", "SID:/b"}, {"--max-size", "nothing", "SID:/a", dir}, {"--timeout", "-1s", "SID:/a", dir}} {
			if r := cp(t, args...); r.code != 2 || r.stderr == "" || strings.Count(r.stderr, "\n") != 1 {
				t.Errorf("cp %q: exit code %d, %q", args, r.code, r.stderr)
			}
		}
		// What this host has is looked at first, and is bad usage.
		for _, args := range [][]string{{project + "/package.json/", "SID:/x"}, {"SID:/kept", dir + "/log/x"}} {
			if r := cp(t, args...); r.code != 2 || !strings.Contains(strings.ToLower(r.stderr), "not a directory") {
				t.Errorf("cp %q: exit code %d, %q %s", args, r.code, r.stderr, r.stdout)
			}
		}
		for _, args := range [][]string{{project, "SID:/kept"}, {project + "/package.json", "SID:/kept/"}, {"SID:/kept/", dir}, {"SID:/etc", dir + "/log"}} {
			if r := cp(t, args...); r.code != 125 || !strings.Contains(strings.ToLower(r.stderr+r.Message), "not a directory") {
				t.Errorf("cp %q: exit code %d, %q %s", args, r.code, r.stderr, r.stdout)
			}
		}
	})
	t.Run("an error names the path that was written", func(t *testing.T) {
		for _, tt := range []struct{ from, to, want string }{
			{project, "SID:/proc/y", `"message":"in the guest: /proc/y: no such file or directory"`},
			{project + "/", "SID:/full", `"message":"in the guest: /full/dist/index.html: no space left on device"`},
			{"SID:/nowhere", dir, `"message":"in the guest: /nowhere: no such file or directory"`},
			{"SID:/several", "/proc/y", `"message":"/proc/y: no such file or directory"`},
		} {
			if tt.to == "SID:/full" {
				guest("umount /full; mount -t tmpfs -o size=8k none /full; rm -rf /full/dist")
				write(t, project+"/dist/index.html", strings.Repeat("x", 1<<20))
			}
			if r := cp(t, tt.from, tt.to); r.code != 125 || !strings.Contains(r.stdout, tt.want) {
				t.Errorf("cp %s %s: exit code %d, %s", tt.from, tt.to, r.code, r.stdout)
			}
		}
	})
	t.Run("time, and Ctrl-C, end a copy and leave no half file", func(t *testing.T) {
		guest("mkfifo /nobody")
		r := cp(t, "--timeout", "1s", "--max-size", "1TB", project+"/package.json", "SID:/nobody")
		if r.code != 124 || r.Error != "timeout" {
			t.Errorf("timeout: exit code %d, %s %s", r.code, r.stdout, r.stderr)
		}
		out := filepath.Join(dir, "out")
		if err := os.Mkdir(out, 0o755); err != nil {
			t.Fatal(err)
		}
		guest("head -c 256M /dev/zero > /slow")
		cmd := command("cp", sid+":/slow", out)
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		polltest.True(t, "the copy has begun", func() bool {
			found, _ := filepath.Glob(out + "/.lumina-*")
			return len(found) > 0
		})
		_ = cmd.Process.Signal(syscall.SIGINT)
		if code := waitCode(t, cmd); code != 130 {
			t.Errorf("Ctrl-C: exit code %d", code)
		}
		if left, _ := os.ReadDir(out); len(left) != 0 {
			t.Errorf("left behind: %v", left)
		}
	})
}

// A download that fails costs nothing of the result.
func TestDownloadsThatFail(t *testing.T) {
	dir := t.TempDir()
	write(t, dir+"/in", "here")
	r := run(t, "--copy", dir+"/in:/x/", "--download", "/none:"+dir, "--download", "/x/in:"+dir+"/made/for/it", "--download", "/etc/:"+dir+"/etc", "--max-size", "100KB", "echo out; echo err >&2")
	var envelope struct {
		TransferError string `json:"transfer_error"`
	}
	_ = json.Unmarshal([]byte(r.stdout), &envelope)
	if r.code != 125 || r.Error != "" || r.ExitCode == nil || *r.ExitCode != 0 || r.Stdout != "out\n" || r.Stderr != "err\n" ||
		!strings.Contains(envelope.TransferError, "/none") || !strings.Contains(envelope.TransferError, "--max-size") {
		t.Errorf("exit code %d, %s %s", r.code, r.stdout, r.stderr)
	}
	if b, err := os.ReadFile(dir + "/made/for/it"); string(b) != "here" {
		t.Errorf("the other download: %q, %v", b, err)
	}
	text := command("run", "--image", "debian", "--download", "/none:"+dir, "echo out; exit 7")
	text.Env = append(text.Env, "LUMINA_FORMAT=text")
	if r := finish(t, text); r.code != 7 || r.stdout != "out\n" || strings.Count(r.stderr, "\n") != 1 || !strings.Contains(r.stderr, "/none") {
		t.Errorf("in text: exit code %d, %q %q", r.code, r.stdout, r.stderr)
	}
	// The time is the whole call's.
	r = run(t, "--timeout", "3s", "--download", "/fifo/:"+dir+"/never", "--copy", "/dev/zero:/dev/null", "echo ran")
	if r.code != 124 || r.Error != "timeout" || !strings.Contains(r.Message, "its copies") {
		t.Errorf("a copy without an end: exit code %d, %s %s", r.code, r.stdout, r.stderr)
	}
	for _, args := range [][]string{{"--copy", "/no/such:/x"}, {"--copy", dir + "/in/:/x"}, {"--download", "/x:" + dir + "/in/"}, {"--download", "/x:" + dir + "/in/y"}, {"--copy", "x"}} {
		if r := run(t, append(args, "true")...); r.code != 2 || strings.Count(r.stderr, "\n") != 1 {
			t.Errorf("run %q: exit code %d, %q", args, r.code, r.stderr)
		}
	}
	nothingLeft(t)
}
