package main

import (
	"encoding/json"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// system is a root with a shell and little else, so that a VM of it is quick.
const system = `FROM scratch AS system
COPY busybox /bin/busybox
RUN ["/bin/busybox", "--install", "-s", "/bin"]
COPY passwd group /etc/
RUN mkdir -p /tmp /root /lower/dir/deep && chmod 1777 /tmp && echo 1 > /lower/dir/one && echo 2 > /lower/two && ln /lower/two /lower/same
`

// dockerContext is what the Dockerfiles of these tests copy.
func dockerContext(t testing.TB) string {
	t.Helper()
	needsProgram(t)
	dir := t.TempDir()
	busybox, err := os.ReadFile("/bin/busybox")
	if err != nil {
		t.Fatal(err)
	}
	write(t, dir+"/busybox", string(busybox))
	write(t, dir+"/passwd", "root:x:0:0:root:/root:/bin/sh\nweb:x:33:34:web:/var/www:/bin/sh\n")
	write(t, dir+"/group", "root:x:0:\nweb:x:34:\nmore:x:77:web\n")
	write(t, dir+"/a.txt", "a\n")
	write(t, dir+"/token", "s3cret")
	if err := os.Chmod(dir+"/busybox", 0o755); err != nil {
		t.Fatal(err)
	}
	return dir
}

// build builds a Dockerfile that it is given on standard input.
func build(t testing.TB, text string, args ...string) result {
	t.Helper()
	cmd := command(append([]string{"images", "create", "--replace", "--no-verify", "--file", "-"}, args...)...)
	cmd.Stdin = strings.NewReader(text)
	return finish(t, cmd)
}

// RUN is what BuildKit's reference says of it; each line of the Dockerfile looks
// for itself whether the ones before did what they should.
func TestDockerfileRun(t *testing.T) {
	context := dockerContext(t)
	t.Cleanup(func() {
		lumina(t, "images", "remove", "made", "work").succeeded(t)
		nothingLeft(t)
	})
	const text = system + `FROM scratch AS other
COPY a.txt /dir/file
FROM system AS work
ARG GIVEN=no
ARG ROUND
ENV E="a b"
RUN [ "$GIVEN$E" = "yesa b" ] && [ -z "$UNKNOWN" ] && [ "$(pwd)" = / ] && [ "$http_proxy" = proxy ]
RUN cat /proc/sys/kernel/random/boot_id > /boot && sleep 1000 & sleep 0.1; echo left > /tmp/left
COPY --chown=web:more a.txt /copied/
RUN [ "$(cat /proc/sys/kernel/random/boot_id)" = "$(cat /boot)" ] && ! pidof sleep && [ "$(stat -c %u:%g /copied/a.txt)" = 33:77 ] && rm /boot /tmp/left
WORKDIR /w/v
RUN [ "$(pwd)" = /w/v ]
USER web
RUN [ "$(id -u):$(id -g):$(id -G)" = "33:34:34 77" ] && [ "$HOME" = /var/www ] && ! touch /w/v/x
USER 5:6
RUN [ "$(id -u):$(id -g)" = 5:6 ]
USER root
RUN ["/bin/sh", "-c", "[ \"$0\" = '$E' ]", "$E"]
SHELL ["/bin/sh", "-ec"]
RUN set -- 1; echo shell-$1 > /shell
RUN <<EOF
echo "heredoc $E" > /heredoc
echo '$E' >> /heredoc
EOF
RUN cat <<one > /one && cat <<"two" > /two
$E
one
$E
two
RUN <<EOF
#!/bin/busybox sh
echo "$0" > /script
EOF
RUN [ "$(cat /heredoc /one /two /script | tr '\n' ,)" = 'heredoc a b,$E,a b,$E,/dev/pipes/EOF,' ] && rm /heredoc /one /two /script
RUN --mount=type=tmpfs,target=/t,size=1m echo x > /t/x; ! dd if=/dev/zero of=/t/big bs=1M count=2 2>/dev/null; grep ' /t tmpfs' /proc/mounts
RUN --mount=type=bind,target=/ctx [ "$(cat /ctx/a.txt)" = a ]; ! touch /ctx/x
RUN --mount=type=bind,target=/ctx,rw touch /ctx/x
RUN --mount=target=/f,source=a.txt --mount=from=other,source=dir,target=g [ "$(cat /f g/file | wc -l)" = 2 ]; ! touch /f
RUN --mount=type=secret,id=token --mount=type=secret,id=token,target=/k,mode=0440,gid=34 --mount=type=secret,id=none,target=/n <<EOF
[ "$(cat /run/secrets/token)$(stat -c %a /run/secrets/token)" = s3cret400 ]
[ "$(stat -c %a:%g /k)" = 440:34 ]
[ ! -e /n ]
EOF
RUN ! cat /proc/1/fd/*/staged/secret*/data
RUN --mount=type=secret,id=token,env=TOKEN [ "${#TOKEN}" = 6 ]; [ ! -e /run/secrets ]; [ ! -e /ctx ]; [ ! -e /f ]; [ ! -e /k ]; [ ! -e /t ]
RUN --mount=type=cache,target=/cache/x,uid=33,mode=0750 [ "$(stat -c %a:%u /cache/x)" = 750:33 ]; echo $ROUND >> /cache/x/rounds; cat /cache/x/rounds > /rounds
RUN --mount=type=cache,target=/other,id=/cache/x,ro grep $ROUND /other/rounds; ! touch /other/x; [ ! -e /cache ]
RUN --network=none [ ! -e /sys/class/net/eth0 ]
RUN rm -r /lower/dir && mkdir /lower/dir && touch /lower/dir/new && rm /lower/two
RUN [ "$(ls /lower /lower/dir | tr '\n' ,)" = /lower:,dir,same,,/lower/dir:,new, ] && mv /lower /moved && ln -s moved /lower
RUN mkfifo /fifo && mknod /null c 1 3 && chmod 4711 /bin/busybox && chown 70000:80000 /shell && ln /shell /shell2 && touch -d '2001-02-03 04:05:06' /shell
FROM system
COPY --from=work / /work/
LABEL made=yes
CMD ["/bin/sh"]
`
	args := []string{"--build-arg", "GIVEN=yes", "--build-arg", "http_proxy=proxy", "--secret", "id=token,src=" + context + "/token"}
	r := build(t, text, append(args, "--build-arg", "ROUND=1", "made", context)...).succeeded(t)
	if strings.Contains(r.stderr, "CACHED") || !strings.Contains(r.stderr, "[work 12/") || strings.Contains(r.stderr, "s3cret") {
		t.Errorf("the log: %s", r.stderr)
	}
	r = lumina(t, "run", "--image", "made", `cd work; stat -c '%n %F %u:%g %a %h' fifo null shell bin/busybox; cat shell rounds; ls -d lower/dir/*; ls lower; readlink lower; ls tmp; date -u -r shell +%s`).succeeded(t)
	const want = "fifo fifo 0:0 644 1\nnull character special file 0:0 644 1\nshell regular file 70000:80000 644 2\nbin/busybox regular file 0:0 4711 1\n" +
		"shell-1\n1\nlower/dir/new\ndir\nsame\nmoved\n981173106\n"
	if r.Stdout != want {
		t.Errorf("it has %q, want %q; %s", r.Stdout, want, r.Stderr)
	}

	t.Run("what is known is not done again", func(t *testing.T) {
		r := build(t, text, append(args, "--build-arg", "ROUND=1", "made", context)...).succeeded(t)
		if done := strings.Count(r.stderr, "DONE"); done != 1 { // the root file system is written
			t.Errorf("%d steps were done, want 1: %s", done, r.stderr)
		}
	})
	t.Run("a cache mount outlives builds", func(t *testing.T) {
		build(t, text, append(args, "--build-arg", "ROUND=2", "--target", "work", "work", context)...).succeeded(t)
		if r := lumina(t, "run", "--image", "work", "cat /rounds").succeeded(t); r.Stdout != "1\n2\n" {
			t.Errorf("the cache had %q", r.Stdout)
		}
	})
	t.Run("what builds keep is told, and goes when that is asked for", func(t *testing.T) {
		use := func() (u usages) {
			t.Helper()
			if err := json.Unmarshal([]byte(lumina(t, "images", "df").succeeded(t).stdout), &u); err != nil {
				t.Fatal(err)
			}
			return u
		}
		before := use()
		if before.Images.Count < 2 || before.Layers.Count < 20 || before.Layers.Unused == 0 || before.Mounts.Count != 1 || before.Mounts.Unused == 0 {
			t.Errorf("images df: %+v", before)
		}
		lumina(t, "images", "prune", "--mounts", "--age", "1ms").succeeded(t)
		if after := use(); after.Images != before.Images || after.Layers.Unused != 0 || after.Layers.Bytes != before.Layers.Bytes-before.Layers.Unused || after.Mounts.Count != 0 {
			t.Errorf("images df after images prune: %+v, before: %+v", after, before)
		}
		if r := lumina(t, "images", "prune"); r.code != 2 || !strings.Contains(r.stderr, "nothing to remove is named") {
			t.Errorf("images prune: exit code %d, %s", r.code, r.stderr)
		}
	})
	t.Run("a command that fails", func(t *testing.T) {
		r := build(t, "FROM made\nENV A=1\n\nRUN echo one; \\\n  echo \"tw\033[2Jo\" >&2; exit 3\nRUN never", "failed", context)
		for _, part := range []string{"exit code: 3\n", "one\n", "two", "------\n > [2/3] RUN", "Dockerfile:4\n", "   4 | >>> RUN echo one; \\\n   5 | >>>   echo",
			`lumina: creating image "failed": Dockerfile:4: process "/bin/sh -c`} {
			if !strings.Contains(strings.ReplaceAll(r.stderr, `\x1b[2J`, ""), part) {
				t.Errorf("there is no %q in %s", part, r.stderr)
			}
		}
		if r.code != 125 || strings.Contains(r.stderr, "\033") || strings.Contains(r.stderr, "never\n#") {
			t.Errorf("exit code %d, %q", r.code, r.stderr)
		}
		nothingLeft(t)
	})
	t.Run("a shell where a command failed", func(t *testing.T) {
		file := filepath.Join(t.TempDir(), "Dockerfile")
		write(t, file, "FROM made\nWORKDIR /w\nRUN touch here; false\n")
		cmd := exec.Command("script", "-qec", program+" images create failed --no-verify --debug --file "+file, "/dev/null")
		cmd.Env = command().Env
		cmd.Stdin = strings.NewReader("echo $(pwd)-$(ls)-$((40 + 2)); exit\n")
		if out, err := cmd.CombinedOutput(); cmd.ProcessState.ExitCode() != 125 || !strings.Contains(string(out), "/w-here-42") {
			t.Errorf("%v, %s", err, out)
		}
	})
	t.Run("a secret that is required", func(t *testing.T) {
		if r := build(t, "FROM made\nRUN --mount=type=secret,id=x,required true", "failed", context); r.code != exitUsage || !strings.Contains(r.stderr, `secret "x" is required; give it with --secret id=x,src=FILE`) {
			t.Errorf("exit code %d, %s", r.code, r.stderr)
		}
	})
	t.Run("stages beside each other", func(t *testing.T) {
		r := build(t, "FROM made AS a\nRUN echo a > /a\nFROM made AS b\nRUN echo b > /b\nFROM made AS unused\nRUN exit 1\nFROM scratch\nCOPY --from=a /a /\nCOPY --from=b /b /", "made", context).succeeded(t)
		if strings.Contains(r.stderr, "unused") {
			t.Errorf("a stage that nothing needs was built: %s", r.stderr)
		}
	})
}

// What is asked for wrongly is said before a VM starts.
func TestDockerfileUsage(t *testing.T) {
	dir := t.TempDir()
	file := dir + "/Dockerfile"
	write(t, file, "FROM scratch\nCOPY x /\n")
	for _, tt := range []struct {
		args []string
		code int
		want string
	}{
		{[]string{"--file", file, "https://github.com/a/b.git#main"}, 2, "a repository is not fetched; do: git clone https://github.com/a/b.git DIR, then name DIR"},
		{[]string{"--file", file, "git@github.com:a/b"}, 2, "a repository is not fetched"},
		{[]string{"--file", "https://x.test/Dockerfile"}, 2, "curl -fsSL https://x.test/Dockerfile | lumina images create NAME --file -"},
		{[]string{"--file", dir, dir}, 2, "is a directory; name the Dockerfile"},
		{[]string{"--file", dir + "/none", dir}, 2, "opening the Dockerfile"},
		{[]string{"--file", file, dir + "/none"}, 2, "opening the context"},
		{[]string{"--file", file, file}, 2, "is not a directory"},
		{[]string{"--file", file, "-t", "x"}, 2, "write lumina images create NAME --file Dockerfile CONTEXT"},
		{[]string{"--file", file}, 2, "Dockerfile:2: there is no context: name a directory after the image's name"},
		{[]string{"--file", file, dir, "--from", "x"}, 2, "--from and --file exclude each other"},
		{[]string{"--file", file, dir, "--recipe", "x"}, 2, "--recipe and --file exclude each other"},
		{[]string{"--file", file, dir, "--run", "x"}, 2, "--run and --file exclude each other"},
		{[]string{"--from", "debian", "--target", "x"}, 2, "--target is for --file DOCKERFILE"},
		{[]string{"--from", "debian", dir}, 2, "a context is for --file DOCKERFILE"},
		{[]string{"--file", file, dir, "--build-arg", "=x"}, 2, "--build-arg \"=x\": want NAME=VALUE or NAME"},
		{[]string{"--file", file, dir, "--secret", "src=x"}, 2, "want id=ID,src=FILE or id=ID,env=NAME"},
		{[]string{"--file", file, dir, "--secret", "id=x,env=LUMINA_NONE"}, 2, "the environment has no LUMINA_NONE"},
		{[]string{"--file", file, dir, "--build-context", "x"}, 2, "want NAME=DIR or NAME=REF"},
		{[]string{"--file", file, dir, "--cache-from", "type=registry,ref=x.test/y"}, 2, `--cache-from "type=registry,ref=x.test/y": want a reference of a registry`},
		{[]string{"--file", file, dir, "--progress", "loud"}, 2, "want auto, plain or tty"},
		{[]string{"--file", file, dir, "--target", "none"}, 2, `there is no stage "none" to make; its stages are: 0 (line 1)`},
		{[]string{"--file", file, dir, "--ssh", "default"}, 2, "unknown flag: --ssh"},
		{[]string{"--file", file, dir, "--platform", "linux/amd64,linux/arm64"}, 2, "--platform"},
		{[]string{"--file", file, dir, "--debug"}, 2, "--debug needs a terminal"},
		{[]string{"--file", file, dir, "--memory", "1"}, 2, "memory"},
	} {
		if r := lumina(t, append([]string{"images", "create", "x"}, tt.args...)...); r.code != tt.code || !strings.Contains(r.stderr, tt.want) {
			t.Errorf("%q: exit code %d, want %d; %s, want %s", tt.args, r.code, tt.code, r.stderr, tt.want)
		}
	}
	if err := os.Symlink("/etc/shadow", filepath.Join(dir, "Link")); err != nil {
		t.Fatal(err)
	}
	if r := lumina(t, "images", "create", "x", "--file", filepath.Join(dir, "Link"), dir); r.code != 2 || !strings.Contains(r.stderr, "Link leads out of the context") || strings.Contains(r.stderr, "root:") {
		t.Errorf("a Dockerfile that is a link out of the context: exit code %d; %s", r.code, r.stderr)
	}
	// Who wrote the Dockerfile reaches neither this host's servers nor its files.
	server := httptest.NewServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) { t.Error("this host's server was asked") }))
	defer server.Close()
	for text, want := range map[string]string{
		"FROM scratch\nADD " + server.URL + " /x":                        "the host's own, link-local",
		"FROM scratch\nADD http://169.254.169.254/latest/ /x":            "the host's own, link-local",
		"FROM scratch\nCOPY --from=docker-archive:/etc/shadow /etc/ /x/": "a Dockerfile cannot name images outside",
	} {
		if err := os.WriteFile(file, []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
		if r := lumina(t, "images", "create", "x", "--no-verify", "--file", file, dir); r.code != 125 || !strings.Contains(r.stderr, want) {
			t.Errorf("%q: exit code %d; %s, want %s", text, r.code, r.stderr, want)
		}
	}
	nothingLeft(t)
}

// A recipe copies from this host and goes on from a Dockerfile.
func TestRecipeFromTheHost(t *testing.T) {
	dir := t.TempDir()
	for _, name := range []string{"app/main.py", "app/sub/x", "app/cache/y", "Dockerfile", "r.yaml"} {
		if err := os.MkdirAll(filepath.Dir(filepath.Join(dir, name)), 0o755); err != nil {
			t.Fatal(err)
		}
		write(t, filepath.Join(dir, name), name)
	}
	write(t, dir+"/Dockerfile", "FROM scratch AS a\nARG TEXT\nCOPY app/sub /a\nCOPY --chown=9 app/sub /private\nCOPY <<EOF /text\n$TEXT\nEOF\nENV A=1\nFROM nowhere\n")
	recipe := dir + "/r.yaml"
	const text = `dockerfile:
  file: Dockerfile
  target: a
  args: {TEXT: given}
copy:
  - from: app
    to: /srv
    ignore: [cache]
    mode: u=rwX,go=rX
    uid: 33
    gid: 70000
  - {from: app/main.py, to: /bin/}
  - {from: app/main.py, to: /private/}
files:
  - {path: /f, content: f}
env: {B: "2"}
cmd: [/bin/main.py]
`
	write(t, recipe, text)
	t.Cleanup(func() { lumina(t, "images", "remove", "copied") })
	if r := lumina(t, "recipe", "check", recipe).succeeded(t); r.stdout+r.stderr != "" {
		t.Errorf("recipe check: %s%s", r.stdout, r.stderr)
	}
	// A recipe, and a file beside it, in the directory that one is in.
	write(t, dir+"/beside.yaml", "base: mmdebstrap:bookworm\ncopy:\n  - {from: r.yaml, to: /r.yaml}\n")
	here := command("recipe", "check", "beside.yaml")
	here.Dir = dir
	finish(t, here).succeeded(t)
	lumina(t, "images", "create", "copied", "--recipe", recipe, "--no-verify").succeeded(t)
	want := []string{". 40755 0:0  map[]", "a 40755 0:0  map[]", `a/x 100644 0:0  map[] 9 "app/sub/x"`, "bin 40755 0:0  map[]", `bin/main.py 100644 0:0  map[] 11 "app/main.py"`,
		`f 100644 0:0  map[] 1 "f"`, "private 40755 9:9  map[]", `private/main.py 100644 0:0  map[] 11 "app/main.py"`, `private/x 100644 9:9  map[] 9 "app/sub/x"`,
		"srv 40755 33:70000  map[]", `srv/main.py 100644 33:70000  map[] 11 "app/main.py"`, "srv/sub 40755 33:70000  map[]", `srv/sub/x 100644 33:70000  map[] 9 "app/sub/x"`, `text 100644 0:0  map[] 6 "given\n"`}
	if diff := cmp.Diff(want, everyFile(t, "copied")); diff != "" {
		t.Errorf("the files (-want +got):\n%s", diff)
	}
	if r := lumina(t, "images", "inspect", "copied").succeeded(t); !strings.Contains(r.stdout, `"A=1","B=2"],"workdir":"/","cmd":["/bin/main.py"]`) {
		t.Errorf("the configuration: %s", r.stdout)
	}
	for _, tt := range []struct{ old, new, want string }{
		{"from: app\n", "from: none\n", "r.yaml:6: copy[0].from: stat "},
		{"mode: u=rwX,go=rX", "mode: '9'", `r.yaml:9: copy[0].mode: "9": want an octal number`},
		{"ignore: [cache]", "ignore: ['[']", "r.yaml:8: copy[0].ignore: "},
		{"target: a", "target: c", `Dockerfile: there is no stage "c" to make; its stages are: a (line 1), 1 (line 9)`},
		{"file: Dockerfile", "file: none", "r.yaml:1: dockerfile: opening the Dockerfile"},
		{"env:", "disk_size: big\nenv:", "r.yaml:16: disk_size: "},
	} {
		write(t, recipe, strings.Replace(text, tt.old, tt.new, 1))
		for _, args := range [][]string{{"recipe", "check", recipe}, {"images", "create", "other", "--recipe", recipe}} {
			if r := lumina(t, args...); r.code != 2 || !strings.Contains(r.stderr, tt.want) {
				t.Errorf("%s, %s: exit code %d, %s", tt.new, args[0], r.code, r.stderr)
			}
		}
	}
}
