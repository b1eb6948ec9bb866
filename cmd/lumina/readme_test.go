package main

import (
	"archive/tar"
	"bufio"
	"bytes"
	"context"
	"errors"
	"io"
	stdlog "log"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/google/go-containerregistry/pkg/registry"

	"github.com/abdul-abdi/lumina/release/githubtest"
)

// readmeCommand is a command of README.md, with what the page shows that it prints.
type readmeCommand struct{ line, prints string }

// readmeCommands are the commands of README.md that begin with a prompt, in order.
func readmeCommands(t *testing.T) (all []readmeCommand) {
	t.Helper()
	for _, block := range regexp.MustCompile(`(?m)(?:^    .*\n)+`).FindAllString(read(t, "../../README.md"), -1) {
		for i, line := range strings.Split(strings.ReplaceAll("\n"+block, "\n    ", "\n"), "\n$ ") {
			if command, prints, _ := strings.Cut(line, "\n"); i > 0 {
				all = append(all, readmeCommand{regexp.MustCompile(` {2,}#.*`).ReplaceAllString(command, ""), strings.TrimSuffix(prints, "\n")})
			}
		}
	}
	return all
}

// Each command of README.md runs as it stands there, one after the other, from an empty
// state directory with the image of make quickstart, and prints what the page shows.
// What is not on this machine has a stand-in: registries, GitHub, packages, the
// installation ISO.
func TestReadme(t *testing.T) {
	needsProgram(t)
	dir := t.TempDir()
	state := filepath.Join(dir, "home")
	if err := os.MkdirAll(filepath.Join(state, "images"), 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.CopyFS(filepath.Join(state, "images", "debian"), os.DirFS(filepath.Join(home, "images", "debian"))); err != nil {
		t.Fatal(err)
	}
	work := filepath.Join(dir, "work")
	for name, content := range map[string]string{
		"Dockerfile": "FROM small\nCOPY job /job\n", "small": "FROM scratch\nADD root.tar /\n", "root.tar": smallRoot(t), "job/run.sh": "#!/bin/sh\necho ran\n", "bin/xdg-open": "#!/bin/sh\nexit 1\n",
	} {
		name = filepath.Join(work, name)
		if err := os.MkdirAll(filepath.Dir(name), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(name, []byte(content), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	for name, target := range map[string]string{"bin/lumina": program, "debian.iso": installer(t)} {
		if err := os.Symlink(target, filepath.Join(work, name)); err != nil {
			t.Fatal(err)
		}
	}
	hub := httptest.NewServer(registry.New(registry.Logger(stdlog.New(io.Discard, "", 0))))
	defer hub.Close()
	github := githubtest.New(t)
	env := append(os.Environ(), "PATH="+filepath.Join(work, "bin")+":"+os.Getenv("PATH"), "LUMINA_HOME="+state, "LUMINA_TEMPLATE=0", "HOME="+dir,
		"DISPLAY=", "GITHUB_TOKEN="+githubtest.Token, "LUMINA_GITHUB_URL="+github.URL)
	sh := func(ctx context.Context, line string) *exec.Cmd {
		cmd := exec.CommandContext(ctx, "bash", "-c", line)
		cmd.Dir, cmd.Env = work, env
		if !strings.HasSuffix(line, "| cat") {
			cmd.Env = append(env, "LUMINA_FORMAT=text") // the page shows a terminal
		}
		return cmd
	}
	for _, line := range []string{"lumina release keygen lumina.key", "lumina images create small --no-verify --file small . && rm root.tar"} {
		finish(t, sh(t.Context(), line)).succeeded(t)
	}
	env = append(env, "LUMINA_PUBLIC_KEY="+filepath.Join(work, "lumina.key.pub"))
	t.Cleanup(func() {
		_ = sh(context.Background(), "lumina session stop --force web; lumina desktop stop --force deb").Run()
	})

	standIns := strings.NewReplacer(
		"--from debian:12", "--no-verify --from small", // what comes of it is published, and smaller so
		"--file Dockerfile", "--no-verify --file Dockerfile",
		"apt-get update && apt-get install -y git", `printf "#!/bin/sh\n" >/usr/bin/git && chmod 755 /usr/bin/git`,
		"-o tools.qcow2", "-o ../tools.qcow2",
		"registry.example.test", strings.TrimPrefix(hub.URL, "http://"),
		"-p 8080:80", "-p "+strconv.Itoa(freePort(t))+":80",
		"python3 -m http.server 80", "echo served",
		"lumina exec -it web bash", `script -qec "lumina exec -it web sh" /dev/null <<<exit`,
		"desktop stop deb", "desktop stop --force deb", // the installer has no ACPI
	)
	n := 0
	for _, c := range readmeCommands(t) {
		n++
		line := standIns.Replace(c.line)
		if c.line == "lumina app" || strings.HasPrefix(c.line, "lumina desktop open") {
			printsAddress(t, sh, line)
			continue
		}
		ctx, cancel := context.WithTimeout(t.Context(), 2*time.Minute)
		begun := time.Now()
		cmd := sh(ctx, line)
		out, err := cmd.Output()
		cancel()
		t.Logf("%v: %s", time.Since(begun).Round(10*time.Millisecond), line)
		if err != nil {
			var stderr []byte
			if exit, ok := err.(*exec.ExitError); ok {
				stderr = exit.Stderr
			}
			t.Fatalf("%s: %v\n%s%s", line, err, out, stderr)
		}
		if got := strings.TrimSuffix(string(out), "\n"); c.prints != "" && alike(got) != alike(c.prints) {
			t.Errorf("%s prints %q, README.md shows %q", line, got, c.prints)
		}
	}
	if n < 20 {
		t.Errorf("README.md has %d commands", n)
	}
}

// smallRoot is an archive of a root file system with busybox.
func smallRoot(t *testing.T) string {
	t.Helper()
	busybox := readFile(t, "/bin/busybox")
	var b bytes.Buffer
	w := tar.NewWriter(&b)
	var errs []error
	for _, name := range []string{"bin/", "srv/", "tmp/", "usr/bin/", "var/lib/"} {
		errs = append(errs, w.WriteHeader(&tar.Header{Typeflag: tar.TypeDir, Name: name, Mode: 0o755}))
	}
	errs = append(errs, w.WriteHeader(&tar.Header{Name: "bin/busybox", Mode: 0o755, Size: int64(len(busybox))}))
	_, err := w.Write(busybox)
	for _, name := range []string{"sh", "chmod", "printf", "tar"} {
		errs = append(errs, w.WriteHeader(&tar.Header{Typeflag: tar.TypeSymlink, Name: "bin/" + name, Linkname: "busybox"}))
	}
	if err := errors.Join(append(errs, err, w.Close())...); err != nil {
		t.Fatal(err)
	}
	return b.String()
}

// alike is an output without what differs each time: identifiers, times.
func alike(out string) string {
	out = regexp.MustCompile(`[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}`).ReplaceAllString(out, "SID")
	return regexp.MustCompile(`_ms":[0-9]+`).ReplaceAllString(out, `_ms":N`)
}

// printsAddress runs a command that serves a page until Ctrl-C.
func printsAddress(t *testing.T, sh func(context.Context, string) *exec.Cmd, line string) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	cmd := sh(ctx, "exec "+line)
	out, err := cmd.StdoutPipe()
	if err == nil {
		err = cmd.Start()
	}
	if err != nil {
		t.Fatal(err)
	}
	if address, err := bufio.NewReader(out).ReadString('\n'); !strings.HasPrefix(address, "http://127.0.0.1:") {
		t.Errorf("%s prints %q, %v", line, address, err)
	}
	_ = cmd.Process.Signal(syscall.SIGINT)
	_, _ = io.Copy(io.Discard, out)
	_ = cmd.Wait()
}
