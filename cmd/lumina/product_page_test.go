package main

import (
	"encoding/json"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
)

// page runs lines as somebody pastes them: in a shell, with the program in the PATH.
type page struct {
	dir string
	env []string
}

func newPage(t *testing.T) *page {
	t.Helper()
	p := &page{dir: t.TempDir()}
	bin := filepath.Join(p.dir, "bin")
	if err := os.Mkdir(bin, 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink(program, filepath.Join(bin, "lumina")); err != nil {
		t.Fatal(err)
	}
	// The page's lines name no image: the default is the tests' own.
	state := filepath.Join(p.dir, "home")
	if err := os.MkdirAll(filepath.Join(state, "images"), 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.CopyFS(filepath.Join(state, "images", defaultImage), os.DirFS(filepath.Join(home, "images", "debian"))); err != nil {
		t.Fatal(err)
	}
	p.env = append(os.Environ(), "PATH="+bin+":"+os.Getenv("PATH"), "LUMINA_HOME="+state, "LUMINA_TEMPLATE=0")
	return p
}

// sh runs a script and returns how it ended.
func (p *page) sh(t *testing.T, script string) result {
	t.Helper()
	cmd := exec.Command("bash", "-euo", "pipefail", "-c", script)
	cmd.Dir, cmd.Env = p.dir, p.env
	return finish(t, cmd)
}

// shortLists leaves a Debian the one list of packages that is read in seconds. A mirror
// may be busy for a moment.
const shortLists = `sed -i '/security/!d' /etc/apt/sources.list && echo 'Acquire::Retries 5;' > /etc/apt/apt.conf.d/80retries`

// The lines of the product page and of its guide for agents run as they stand. What
// the page shows of their output is what they print.
func TestProductPage(t *testing.T) {
	if testing.Short() {
		t.Skip("it needs root or a VM")
	}
	p := newPage(t)
	for name, content := range map[string]string{
		"project/package.json": "{}", "project/src/main.js": "1", "project/dist/out.js": "built",
		"npm": "#!/bin/sh\ntest \"$1\" = ci && test -f package.json && echo installed in \"$PWD\"\n",
	} {
		name = filepath.Join(p.dir, name)
		if err := os.MkdirAll(filepath.Dir(name), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(name, []byte(content), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	port := freePort(t)
	forward := "--forward " + strconv.Itoa(port) + ":3000" // which is 3000:3000 where 3000 is free

	t.Run("run", func(t *testing.T) {
		r := p.sh(t, `lumina run "uname -a"`).succeeded(t)
		if r.ExitCode == nil || *r.ExitCode != 0 || !strings.HasPrefix(r.Stdout, "Linux lumina") || !strings.Contains(r.stdout, `"duration_ms":`) {
			t.Errorf("it prints %s", r.stdout)
		}
		if r := p.sh(t, "lumina run \\\n\"echo hello from a VM\"").succeeded(t); r.Stdout != "hello from a VM\n" {
			t.Errorf("it prints %s", r.stdout)
		}
		if r := p.sh(t, `LUMINA_TIMEOUT=30 lumina run --timeout 30 --no-wait-network 'echo started; exit 3'`); r.code != 3 || r.Error != "" || *r.ExitCode != 3 {
			t.Errorf("a command that fails: %d %s", r.code, r.stdout)
		}
	})
	t.Run("a session, by its SID", func(t *testing.T) {
		r := p.sh(t, `SID=$(lumina session start --memory 1GB `+forward+` | jq -r '.sid')
			lumina cp ./npm "$SID:/usr/local/bin/npm" >&2
			lumina cp ./project/ "$SID:/work/" >&2
			lumina exec "$SID" --workdir /work "npm ci"
			lumina cp "$SID:/work/dist/" ./out/ >&2
			script -qec "lumina exec --pty $SID 'tty; stty size'" /dev/null </dev/null >&2
			lumina ps >&2
			lumina session stop "$SID" >&2`)
		if r.code != 0 || r.Stdout != "installed in /work\n" || !strings.Contains(r.stderr, `"forwards":[{"protocol":"tcp","host":`+strconv.Itoa(port)+`,"guest":3000}]`) || !strings.Contains(r.stderr, "/dev/pts/") {
			t.Errorf("exit code %d, %s %s", r.code, r.stdout, r.stderr)
		}
		if b, err := os.ReadFile(filepath.Join(p.dir, "out", "out.js")); string(b) != "built" {
			t.Errorf("what was copied back: %q, %v", b, err)
		}
	})
	t.Run("a session, by what start printed", func(t *testing.T) {
		r := p.sh(t, `SID=$(lumina session start --name agent --label team=a -m 1GB)
			for n in 1 2 3 4; do lumina exec "$SID" "echo $n" >/dev/null & done; wait
			lumina exec agent 'mkdir /work; echo here >/work/before' >&2
			lumina cp ./project/ "$SID:/work/" >&2
			lumina exec "$SID" -w /work -u 1000 'cat before dist/out.js; id -u'
			lumina cp "$SID:/work/dist/" ./dist/ >&2
			lumina ps --filter label=team=a --filter name=agent --json >&2
			test "$(lumina ps --filter status=crashed)" = '[]'
			lumina exec "$SID" --timeout 1 'echo starting…; sleep 60' >timeout.json || test $? = 124
			lumina session stop "$SID" >&2
			lumina session stop "$SID" >&2`)
		if r.code != 0 || r.Stdout != "here\nbuilt1000\n" || !strings.Contains(r.stderr, `"name":"agent"`) || strings.Count(r.stderr, `"confirmed":true`) != 1 {
			t.Errorf("exit code %d, %s %s", r.code, r.stdout, r.stderr)
		}
		b, err := os.ReadFile(filepath.Join(p.dir, "timeout.json"))
		var got result
		if err == nil {
			err = json.Unmarshal(b, &got)
		}
		if err != nil || got.Error != "timeout" || got.PartialStdout == nil || *got.PartialStdout != "starting…\n" || got.PartialStderr == nil || *got.PartialStderr != "" {
			t.Errorf("a timeout prints %s, %v", b, err)
		}
	})
	t.Run("desktops", func(t *testing.T) {
		iso := startsISO(t)
		if err := os.Link(iso, filepath.Join(p.dir, "x.iso")); err != nil {
			t.Fatal(err)
		}
		// A file that says it is Ubuntu's is compared with Ubuntu's digest.
		if r := p.sh(t, `lumina desktop create --os-variant ubuntu-24.04 --iso ./*.iso`); r.code != exitUsage || !strings.Contains(r.stderr, "which the catalogue has for Ubuntu Desktop 24.04") {
			t.Errorf("an ISO that is another: %d %s", r.code, r.stderr)
		}
		r := p.sh(t, `lumina desktop create --os-variant ubuntu-24.04 --iso ./x.iso --sha256 "$(sha256sum x.iso | cut -d' ' -f1)" --disk-size 64MB --memory 256MB >&2
			lumina desktop create --name "Ubuntu 24.04" --iso ./x.iso --disk-size 64MB --memory 256MB >&2
			lumina desktop ls --json
			lumina desktop boot --headless -d --iso none "Ubuntu 24.04" >&2
			lumina desktop stop --force "Ubuntu 24.04" >&2
			lumina desktop boot --headless -d --iso none "$(lumina desktop ls --json | jq -r '.[0].path')" >&2
			lumina desktop stop --force ubuntu-24.04 >&2
			lumina desktop rm ubuntu-24.04 "Ubuntu 24.04"`)
		if r.code != 0 || !strings.Contains(r.stdout, `"name":"ubuntu-24.04"`) || !strings.Contains(r.stdout, `"name":"Ubuntu 24.04"`) {
			t.Errorf("exit code %d, %s %s", r.code, r.stdout, r.stderr)
		}
	})
	t.Run("an image with more in it", func(t *testing.T) {
		// The whole line, python3 of the whole of Debian in the default image, is the last
		// of make recipes: under emulation it takes minutes. Here it is the same package
		// manager and the same network with the shortest of Debian's lists.
		r := p.sh(t, `lumina images create X --from default --no-verify --timeout 10m --run "`+shortLists+` && apt-get update && apt-get install -y less" >&2
			lumina run --image X --network none "dpkg -s less; less --version"
			lumina images rm X >&2`)
		if r.code != 0 || !strings.Contains(r.Stdout, "install ok installed") || !strings.Contains(r.Stdout, "\nless ") {
			t.Errorf("exit code %d, %s %.2000s", r.code, r.stdout, r.stderr)
		}
	})
	t.Run("the rest", func(t *testing.T) {
		if r := p.sh(t, `lumina --version >&2; lumina doctor --json || test $? = 1`); r.code != 0 || !strings.Contains(r.stdout, `{"checks":[`) || !strings.Contains(r.stderr, "version") {
			t.Errorf("exit code %d, %.300s %s", r.code, r.stdout, r.stderr)
		}
		r := p.sh(t, `LUMINA_OUTPUT=ndjson lumina run 'echo line'`).succeeded(t)
		if !strings.Contains(r.stdout, `{"stream":"stdout","data":"line\n"}`) || !strings.Contains(r.stdout, `"exit_code":0`) {
			t.Errorf("ndjson: %s", r.stdout)
		}
	})
}
