package main

import (
	"bytes"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"reflect"
	"regexp"
	"strings"
	"sync"
	"testing"

	"golang.org/x/term"

	"github.com/abdul-abdi/lumina/builder/buildertest"
)

// An image that is named by a reference just runs, with what it says is to run.
func TestRunOfReference(t *testing.T) {
	needsProgram(t)
	layout, err := buildertest.Debian("amd64")
	if err != nil {
		t.Fatal(err)
	}
	mine := filepath.Join(t.TempDir(), "layout")
	buildertest.Run(t, "cp", "-a", layout, mine)
	tag := func(name string, config ...string) {
		buildertest.Run(t, "umoci", append([]string{"config", "--image", mine + ":latest", "--tag", name}, config...)...)
	}
	tag("v1", "--config.entrypoint", "/bin/sh", "--config.entrypoint", "-c", "--config.entrypoint", `echo "$WHO is $(id -un) in $(pwd): $0 $*"`,
		"--config.cmd", "two words", "--config.cmd", "three", "--config.env", "WHO=image", "--config.user", "daemon", "--config.workingdir", "/usr/share")
	tag("nothing", "--clear", "config.cmd", "--clear", "config.entrypoint")
	ref := buildertest.Registry(t) + "/team/app:v1"
	buildertest.Run(t, "skopeo", "copy", "--quiet", "--dest-tls-verify=false", "oci:"+mine+":v1", "docker://"+ref)
	t.Cleanup(func() {
		lumina(t, "images", "rm", ref, "oci:"+mine+":nothing").succeeded(t)
		nothingLeft(t)
	})

	if r := lumina(t, "run", "--image", ref, "--pull", "never"); r.code != 125 || r.Error != "connection_failed" || !strings.Contains(r.Message, "may not be fetched") {
		t.Errorf("--pull never: %s", r.stdout)
	}
	// Two first runs at once: it is made once.
	const said = "image is daemon in /usr/share: two words three\n"
	var results [2]result
	var wg sync.WaitGroup
	for i := range results {
		wg.Go(func() { results[i] = lumina(t, "run", "--image", ref) })
	}
	wg.Wait()
	for _, r := range results {
		if r.succeeded(t).Stdout != said {
			t.Errorf("it said %q, want %q", r.Stdout, said)
		}
		if r.BootMS == nil || r.DurationMS == nil || *r.BootMS < 10 || *r.DurationMS < *r.BootMS || strings.Contains(r.stdout, "network_metrics") {
			t.Errorf("the boot is not in its time, or network in it: %s", r.stdout)
		}
	}
	if made := strings.Count(results[0].stderr+results[1].stderr, "lumina: making an image of "+ref); made != 1 {
		t.Errorf("it was made %d times", made)
	}
	r := lumina(t, "run", "--image", ref, "--pull", "never", "--entrypoint", "id", "--", "-u").succeeded(t)
	if r.Stdout != "1\n" || r.stderr != "" {
		t.Errorf("--entrypoint: %q, %q", r.Stdout, r.stderr)
	}
	r = lumina(t, "run", "--image", "docker://"+ref, "--entrypoint", "", "--", "echo", "$WHO").succeeded(t)
	if r.Stdout != "$WHO\n" {
		t.Errorf("--entrypoint '': %q", r.Stdout)
	}
	for _, args := range [][]string{{"run"}, {"pool", "run"}, {"session", "start", "--run"}} {
		r := lumina(t, append(args, "--image", "oci:"+mine+":nothing")...)
		if r.code != 2 || r.stdout != "" || !strings.Contains(r.stderr, "no command given, and the image has neither ENTRYPOINT nor CMD") {
			t.Errorf("%s without a command: exit code %d, %s%s", args, r.code, r.stdout, r.stderr)
		}
	}
	s := lumina(t, "session", "start", "--image", ref, "--run", "-e", "WHO=flag").succeeded(t)
	if r := lumina(t, "logs", "-f", s.SID, s.ID); !strings.Contains(r.stdout, `flag is daemon in /usr/share: two words three`) {
		t.Errorf("the image's command said %s, %s", r.stdout, r.stderr)
	}
	if r := lumina(t, "exec", s.SID, "id -un").succeeded(t); r.Stdout != "daemon\n" || r.BootMS == nil || *r.BootMS != 0 {
		t.Errorf("exec: %s", r.stdout)
	}
	// Several at once: what one is not does not keep the others.
	gone := "00000000-0000-4000-8000-000000000000"
	if r := lumina(t, "session", "rm", "no-such-name", s.SID, gone); r.code != 125 || !strings.Contains(r.stderr, "no-such-name") ||
		!strings.Contains(r.stdout, `"confirmed":true`) || !strings.Contains(r.stdout, `"confirmed":false`) {
		t.Errorf("session rm of three: exit code %d, %s%s", r.code, r.stdout, r.stderr)
	}

	list := lumina(t, "images").succeeded(t).stdout
	if want := regexp.MustCompile(`"name":"127\.0\.0\.1-\d+-team-app-v1-[0-9a-f]{12}","architecture":"amd64".*?"source":"` + regexp.QuoteMeta(ref) + `"`); !want.MatchString(list) {
		t.Errorf("images lists %s, want %s", list, want)
	}
	if r := lumina(t, "images", "inspect", ref).succeeded(t); !strings.Contains(r.stdout, `"reference":"`+ref) {
		t.Errorf("inspect: %s", r.stdout)
	}
}

// A variable can be had from this process or a file: its value is in nobody's
// arguments then.
func TestRunEnvironment(t *testing.T) {
	if testing.Short() {
		t.Skip("it needs root or a VM")
	}
	const secret = "s3cret-of-this-test"
	file := filepath.Join(t.TempDir(), "env")
	write(t, file, "# comment\nFILE='quoted'\r\nBOTH=file\nSECRET2\nNOTSET\n")
	port := freePort(t)
	cmd := with(command("run", "--image", "debian", "--publish", fmt.Sprintf("127.0.0.1:%d:8080", port), "--rm", "-i", "--name", "docker-s", "-m", "300m", "-u", "daemon", "-w", "/usr", "-e", "SECRET", "-e", "NOTSET", "-e", "BOTH=flag", "--env-file", file, "--no-wait-network",
		`perl -MIO::Socket::INET -e '$l = IO::Socket::INET->new(Listen => 1, LocalPort => 8080); $| = 1; print "ready\n"; $c = $l->accept; print $c "served\n"'; read line; echo "$line $SECRET $SECRET2 $FILE $BOTH ${NOTSET-unset} $(id -un) $PWD"; grep MemTotal /proc/meminfo`),
		"SECRET="+secret, "SECRET2="+secret, "LUMINA_FORMAT=text", "LUMINA_TIMEOUT=100")
	stdin, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	buf := make([]byte, 6)
	if _, err := out.Read(buf); err != nil || string(buf) != "ready\n" {
		t.Fatalf("it said %q, %v", buf, err)
	}
	conn, err := net.Dial("tcp", fmt.Sprintf("127.0.0.1:%d", port))
	if err != nil {
		t.Fatal(err)
	}
	if b, err := io.ReadAll(conn); string(b) != "served\n" {
		t.Errorf("the forwarded port says %q, %v", b, err)
	}
	conn.Close()
	lines, _ := filepath.Glob("/proc/[0-9]*/cmdline")
	for _, name := range lines {
		if line, _ := os.ReadFile(name); bytes.Contains(line, []byte(secret)) {
			t.Errorf("%s has the secret: %q", name, line)
		}
	}
	fmt.Fprintln(stdin, "line")
	rest := new(strings.Builder)
	for b := make([]byte, 1024); ; {
		n, err := out.Read(b)
		rest.Write(b[:n])
		if err != nil {
			break
		}
	}
	if err := cmd.Wait(); err != nil {
		t.Error(err)
	}
	want := regexp.MustCompile(`^line ` + secret + ` ` + secret + ` 'quoted' flag unset daemon /usr\nMemTotal: +2\d{5} kB\n$`)
	if !want.MatchString(rest.String()) {
		t.Errorf("it said %q, want %s", rest, want)
	}
}

// What needs no VM says it all.
func TestVerbs(t *testing.T) {
	for _, group := range []string{"session", "volume", "desktop", "network", "pool", "release", "bench"} {
		if r := lumina(t, group).succeeded(t); !strings.Contains(r.stdout, "Available Commands:") || r.stderr != "" {
			t.Errorf("lumina %s: %q, %q", group, r.stdout, r.stderr)
		}
	}
	for _, group := range []string{"images", "session", "volume", "desktop"} {
		for _, verb := range []string{"list", "ls"} {
			if r := lumina(t, group, verb).succeeded(t); !strings.HasPrefix(r.stdout, "[") {
				t.Errorf("lumina %s %s: %q", group, verb, r.stdout)
			}
		}
		for _, verb := range []string{"remove", "rm"} {
			if r := lumina(t, group, verb, "--help").succeeded(t); !strings.Contains(r.stdout, "remove, rm") && !strings.Contains(r.stdout, "stop, remove, rm") {
				t.Errorf("lumina %s %s: %q", group, verb, r.stdout)
			}
		}
	}
	if a, b := lumina(t, "images").succeeded(t), lumina(t, "images", "list").succeeded(t); a.stdout != b.stdout || !strings.Contains(a.stdout, `"name":"debian"`) {
		t.Errorf("images: %q, images list: %q", a.stdout, b.stdout)
	}
	if a, b, c := lumina(t, "--version").succeeded(t), lumina(t, "version").succeeded(t), lumina(t, "-v").succeeded(t); a.stdout != b.stdout || c.stdout != b.stdout {
		t.Errorf("--version: %q, version: %q", a.stdout, b.stdout)
	}
	lumina(t, "volume", "create", "one").succeeded(t)
	lumina(t, "volume", "create", "two").succeeded(t)
	lumina(t, "volume", "rm", "one", "two").succeeded(t)
	// The line that ends the first run of a fresh home is one for a shell.
	r := finish(t, with(command("run", "-m", "1g", `echo "it's" $HOME`), "LUMINA_HOME="+t.TempDir(), "LUMINA_GITHUB_URL=http://127.0.0.1:1", "LUMINA_FORMAT=text"))
	_, line, found := strings.Cut(strings.TrimSpace(r.stderr), "this takes another: ")
	if !found {
		t.Fatalf("stderr %q", r.stderr)
	}
	words, err := exec.Command("sh", "-c", `for w in `+line+`; do echo "$w"; done`).Output()
	if want := program + "\nrun\n--image\ndebian:12\n-m\n1g\n" + `echo "it's" $HOME` + "\n"; err != nil || string(words) != want {
		t.Errorf("a shell reads %q, %v, want %q", words, err, want)
	}
}

// run -it is a shell of the image's, on this terminal; it is as it was afterwards.
func TestRunTerminal(t *testing.T) {
	if testing.Short() {
		t.Skip("it needs root or a VM")
	}
	cmd := command("run", "-it", "--rm", "--image", "debian")
	terminal := withTerminal(t, cmd)
	before, err := term.GetState(int(terminal.Fd()))
	if err != nil {
		t.Fatal(err)
	}
	seen := new(strings.Builder)
	until := func(text string) {
		for b := make([]byte, 1024); !strings.Contains(seen.String(), text); {
			n, err := terminal.Read(b)
			seen.Write(b[:n])
			if err != nil {
				t.Fatalf("%v after %q", err, seen)
			}
		}
	}
	until(":/# ")
	// One process group from the first word to the end: ^C meets no shell in between.
	fmt.Fprint(terminal, "sh -c 'tty; exec sleep 1000'\n")
	until("/dev/pts/0")
	fmt.Fprint(terminal, "\x03") // of no concern to lumina
	fmt.Fprint(terminal, "exit 7\n")
	if code := waitCode(t, cmd); code != 7 {
		t.Errorf("exit code %d, %q", code, seen)
	}
	if after, err := term.GetState(int(terminal.Fd())); err != nil || !reflect.DeepEqual(before, after) {
		t.Errorf("the terminal is %v, and was %v, %v", after, before, err)
	}
	nothingLeft(t)
}
