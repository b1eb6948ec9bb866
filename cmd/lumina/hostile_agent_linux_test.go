package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"
	"unicode/utf8"

	"github.com/abdul-abdi/lumina/runtime/confine"
	"github.com/abdul-abdi/lumina/runtime/image"
)

// hostileImages makes images whose agent lies, one for each way not to boot and
// "" for one that comes up. They differ from the Debian one in their init, which is
// initramfs/cmd/hostile, and its command line.
func hostileImages(t *testing.T, attacks ...string) {
	t.Helper()
	needsProgram(t)
	dir := t.TempDir()
	init := filepath.Join(dir, "init")
	build := exec.Command("go", "build", "-trimpath", "-ldflags", "-s -w", "-o", init, "../../initramfs/cmd/hostile")
	build.Env = append(os.Environ(), "CGO_ENABLED=0", "GOOS=linux", "GOARCH=amd64")
	pack := exec.Command("go", "run", "../../initramfs/cmd/mkinitramfs", init, filepath.Join(dir, "cpio.zst"))
	unpack := exec.Command("zstd", "-q", "-d", "--rm", filepath.Join(dir, "cpio.zst"))
	for _, cmd := range []*exec.Cmd{build, pack, unpack} {
		if out, err := cmd.CombinedOutput(); err != nil {
			t.Fatalf("%s: %v\n%s", cmd, err, out)
		}
	}
	store := image.NewStore(filepath.Join(home, "images"))
	honest, err := store.Open("debian")
	if err != nil {
		t.Fatal(err)
	}
	defer honest.Close()
	packed, err := image.Digest(t.Context(), filepath.Join(dir, "cpio"))
	if err != nil {
		t.Fatal(err)
	}
	for _, attack := range attacks {
		err := store.Install(t.Context(), hostileName(attack), func(to string) error {
			img := *honest.Image
			img.Kernel.CommandLine += " lumina.hostile=" + attack
			img.Files = map[string]image.File{image.Initramfs: packed}
			for _, name := range []string{image.Kernel, image.Rootfs} {
				img.Files[name] = honest.Files[name]
				if err := os.Link(honest.Path(name), filepath.Join(to, name)); err != nil {
					return err
				}
			}
			return errors.Join(os.Link(filepath.Join(dir, "cpio"), filepath.Join(to, image.Initramfs)), img.Write(to))
		})
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { lumina(t, "images", "remove", hostileName(attack)) })
	}
}

func hostileName(attack string) string { return strings.Trim("hostile-"+attack, "-") }

// bounded calls the program, which has to end by itself, with little memory, and
// without a word that a guest chose doing something to the terminal.
func bounded(t *testing.T, format string, args ...string) result {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 110*time.Second)
	defer cancel()
	c := command(args...)
	cmd := exec.CommandContext(ctx, c.Path, c.Args[1:]...)
	cmd.Env = append(c.Env, "LUMINA_FORMAT="+format)
	cmd.Dir = t.TempDir()
	cmd.WaitDelay = time.Second
	var stdout, stderr bytes.Buffer
	cmd.Stdout, cmd.Stderr = &stdout, &stderr
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	over, usage := make(chan struct{}), make(chan []int, 1)
	go func() { usage <- watch(over, cmd.Process.Pid) }()
	_ = cmd.Wait()
	close(over)
	r := result{stdout: stdout.String(), stderr: stderr.String(), code: cmd.ProcessState.ExitCode()}
	_ = json.Unmarshal(stdout.Bytes(), &r)
	if ctx.Err() != nil {
		t.Errorf("%v goes on", args)
	}
	if used := (<-usage)[0]; used > 96 {
		t.Errorf("%v took %d MB", args, used)
	}
	for name, s := range map[string]string{"standard output": r.stdout, "standard error": r.stderr} {
		if strings.ContainsAny(s, "\x1b\x07\r\u202e") || !utf8.ValidString(s) {
			t.Errorf("%v: %s acts on a terminal: %.300q", args, name, s)
		}
	}
	if n := strings.Count(r.stderr, "\n"); len(r.stderr) > 48<<10 || n > 110 {
		t.Errorf("%v: %d bytes in %d lines on standard error: %.300q", args, len(r.stderr), n, r.stderr)
	}
	if format == "json" && len(r.stdout) > 0 && !json.Valid([]byte(r.stdout)) {
		t.Errorf("%v: no JSON: %.300q", args, r.stdout)
	}
	t.Logf("%s %.60q: %d %.200q %.200q", format, args, r.code, r.stdout, r.stderr)
	return r
}

// An agent of root's in a guest says and does what it likes. Each command ends, as
// the contract says, takes little of the host, and leaves nothing; and neighbours go on.
func TestHostileAgent(t *testing.T) {
	slow := []string{"silence", "refusal-drip"}
	quick := []string{"hello-of-noise", "streams-of-its-own", "console", "refusal", "marks"}
	hostileImages(t, slices.Concat([]string{""}, slow, quick)...)
	neighbour := startTestSession(t)
	// These end when a boot has taken too long, which is after a minute; on a fast
	// machine what drips is more than a refusal may be before.
	var waiting sync.WaitGroup
	for _, attack := range slow {
		waiting.Go(func() {
			r := bounded(t, "json", "run", "--image", hostileName(attack), "true")
			if r.code != 125 || r.Error != "connection_failed" || !strings.Contains(r.Message, "did not answer") &&
				(attack != "refusal-drip" || !strings.Contains(r.Message, "does not keep to its protocol")) {
				t.Errorf("a boot of %s: %d %s %.300s", attack, r.code, r.Error, r.Message)
			}
		})
	}
	for _, attack := range quick {
		t.Run("boot/"+attack, func(t *testing.T) {
			// One that answers, and then runs no command, ends with its time.
			limit, want := "60s", 125
			if attack == "marks" {
				limit, want = "2s", 124
			}
			r := bounded(t, "json", "run", "--network", "none", "--timeout", limit, "--image", hostileName(attack), "true")
			if r.code != want || r.Error == "" {
				t.Errorf("exit code %d %s, want %d", r.code, r.Error, want)
			}
		})
	}
	for _, tt := range []struct {
		attack string
		codes  []int
	}{
		{"mux a-stream", []int{125}}, {"mux credit", []int{125}}, {"mux window", []int{125}}, // each rule: TestHostilePeer in mux
		{"reboot", []int{125}}, {"panic", []int{125}}, {"console", []int{125}},
		{"fill-disks", []int{124, 125}}, {"fill-memory", []int{124, 125}}, {"close-the-port", []int{124, 125}},
		{"stop-reading", []int{124}}, {"flood-both-ports", []int{124, 125}},
	} {
		t.Run(tt.attack, func(t *testing.T) {
			limit := "60s"
			if slices.Contains(tt.codes, 124) {
				limit = "2s"
			}
			r := bounded(t, "json", "run", "--network", "none", "--timeout", limit, "--image", "hostile", tt.attack)
			if !slices.Contains(tt.codes, r.code) || r.Error == "" {
				t.Errorf("exit code %d %s %s, want %v", r.code, r.Error, r.Message, tt.codes)
			}
		})
	}
	t.Run("answers", func(t *testing.T) { hostileAnswers(t) })
	lumina(t, "exec", neighbour, "echo fine").succeeded(t)
	waiting.Wait()
	lumina(t, "session", "stop", neighbour).succeeded(t)
	nothingLeft(t)
}

// hostileAnswers asks one VM for everything, and gets lies.
func hostileAnswers(t *testing.T) {
	sid := bounded(t, "json", "session", "start", "--image", "hostile", "--network", "none").succeeded(t).SID
	supervisor := sessionPID(t, sid)
	hasNamespaces(t, childOf(t, supervisor))
	usage, over := make(chan []int, 1), make(chan struct{})
	go func() { usage <- watch(over, supervisor) }()
	defer func() {
		close(over)
		if held := <-usage; held[0] > 64 {
			t.Errorf("the supervisor held %d MB", held[0])
		}
	}()
	for _, tt := range []struct {
		attack string
		code   int
	}{
		{"silence", 124}, {"end", 125}, {"half-a-frame", 124}, {"four-gigabytes", 125}, {"exit-256", 125}, {"exit-and-more", 7},
		{"refusal", 125}, {"credit", 124}, {"empty-output", 124}, {"a-tree", 125}, {"a-request", 125},
		{"frame 0 much", 125}, {"frame 35 much", 125}, {"frame 64 much", 125}, {"frame 65 little", 125}, {"frame 68 little", 125}, {"frame 69 much", 125}, {"frame 255 none", 125},
	} {
		r := bounded(t, "json", "exec", "--timeout", limitOf(tt.code), sid, tt.attack)
		if r.code != tt.code || (r.Error == "") != (tt.code == 7) {
			t.Errorf("%s: exit code %d, want %d: %.300s", tt.attack, r.code, tt.code, r.stdout+r.stderr)
		}
	}
	source := filepath.Join(t.TempDir(), "source")
	write(t, source, strings.Repeat("x", 1<<20))
	for _, tt := range []struct {
		manner string
		codes  string // of ps, kill, logs, exec --detach, cp from it and cp to it, as text; . is not called
	}{
		{"silent", "....ee"}, {"half", "....ee"}, // the rest takes 20 s: TestStoppedGuest
		{"gone", "f...ff"}, {"refuse", "ffffff"}, {"promise", "ffffff"}, {"deep", "ffffff"}, {"lists", "ffffff"}, {"output", "ff.fff"},
		{"early", "0fffff"}, {"figures", "....0f"},
		{"name", "....f."}, {"above", "....f."}, {"absolute", "....f."}, {"strange", "....0."}, {"zero", "....f."}, {"through", "....f."},
		{"setuid", "....0."}, {"device", "....f."}, {"petabyte", "....f."}, {"negative", "....f."}, {"links", "....f."},
		{"endless", "....f."}, {"many", "....f."}, {"nothing", "....f."},
	} {
		t.Run(tt.manner, func(t *testing.T) {
			bounded(t, "json", "exec", sid, "be "+tt.manner).succeeded(t)
			base := t.TempDir()
			into := filepath.Join(base, "into")
			if err := os.Mkdir(into, 0o750); err != nil {
				t.Fatal(err)
			}
			limit := limitOf(map[bool]int{true: 124}[strings.Contains(tt.codes, "e")])
			for i, call := range [][]string{
				{"ps", sid}, {"kill", sid, "1"}, {"logs", sid, "1"}, {"exec", "--detach", sid, "true"},
				{"cp", "--timeout", limit, "--max-size", "1MB", sid + ":/work/x", into + "/"},
				{"cp", "--timeout", limit, source, sid + ":/x"},
			} {
				want, ok := map[byte]int{'0': 0, 'f': 125, 'e': 124}[tt.codes[i]]
				if !ok {
					continue
				}
				if r := bounded(t, "text", call...); r.code != want {
					t.Errorf("%v: exit code %d, want %d: %.300s", call, r.code, want, r.stdout+r.stderr)
				}
			}
			nothingOutside(t, base, into, 8<<20)
		})
	}
	// It says that it has ended, and has not: it gets 10 s.
	bounded(t, "json", "exec", sid, "be stay").succeeded(t)
	bounded(t, "json", "session", "stop", sid).succeeded(t)
}

// hasNamespaces checks that a QEMU sees no network and no process of the host's, where that
// can be had.
func hasNamespaces(t *testing.T, qemu int) {
	t.Helper()
	if !confine.Namespaces() {
		t.Log("there are no namespaces to be had")
		return
	}
	for _, kind := range []string{"net", "mnt", "ipc", "uts", "pid"} {
		ours, err := os.Readlink("/proc/self/ns/" + kind)
		theirs, theirErr := os.Readlink(fmt.Sprintf("/proc/%d/ns/%s", qemu, kind))
		if err != nil || theirErr != nil || ours == theirs {
			t.Errorf("QEMU is in the host's %s, %v", theirs, errors.Join(err, theirErr))
		}
	}
}

// limitOf is long for what ends by itself.
func limitOf(code int) string {
	if code == 124 {
		return "1s"
	}
	return "60s"
}

// nothingOutside checks what a hostile sender has made: below x in a directory, with
// modes and kinds that the host allows, and no more than so many bytes.
func nothingOutside(t *testing.T, base, into string, most int64) {
	t.Helper()
	var total int64
	if err := filepath.WalkDir(base, func(path string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		name, _ := filepath.Rel(into, path)
		if name != ".." && name != "." && name != "x" && !strings.HasPrefix(name, "x/") {
			t.Errorf("there is %q", path)
		}
		info, err := d.Info()
		if err != nil {
			return err
		}
		if st := info.Sys().(*syscall.Stat_t); st.Mode&0o7000 != 0 || info.Mode().Type()&^(fs.ModeDir|fs.ModeSymlink) != 0 {
			t.Errorf("%q has mode %v", path, info.Mode())
		} else {
			total += st.Blocks * 512
		}
		return nil
	}); err != nil {
		t.Error(err)
	}
	if total > most {
		t.Errorf("%d bytes were written", total)
	}
}
