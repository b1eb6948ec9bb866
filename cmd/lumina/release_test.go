package main

import (
	"bytes"
	"encoding/json"
	"fmt"
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"

	"github.com/abdul-abdi/lumina/release/catalog"
	"github.com/abdul-abdi/lumina/release/githubtest"
)

// with adds to a command's environment.
func with(cmd *exec.Cmd, env ...string) *exec.Cmd {
	cmd.Env = append(cmd.Env, env...)
	return cmd
}

// An image made here, published, pulled by another state directory, by its
// first run, and run there.
func TestReleaseEndToEnd(t *testing.T) {
	server := githubtest.New(t)
	key := filepath.Join(t.TempDir(), "key")
	generated := lumina(t, "release", "keygen", key).succeeded(t)
	var public struct {
		PublicKey string `json:"public_key"`
	}
	if err := json.Unmarshal([]byte(generated.stdout), &public); err != nil {
		t.Fatal(err)
	}
	if again := lumina(t, "release", "keygen", key); again.code != exitFailure {
		t.Errorf("a key is overwritten: %+v", again)
	}
	publish := command("release", "publish", "debian=default", "--repo", defaultRepo, "--tag", "v1.2.3", "--part-size", "20MB", "--key", key, "--base-url", server.URL)
	type published struct {
		Uploaded, Replaced, Kept []string
		URL                      string
		Files                    []struct{ Name string }
	}
	var first published
	r := finish(t, with(publish, "GITHUB_TOKEN="+githubtest.Token)).succeeded(t)
	if err := json.Unmarshal([]byte(r.stdout), &first); err != nil || len(first.Uploaded) < 7 || first.URL != server.URL+"/"+defaultRepo+"/releases/tag/v1.2.3" {
		t.Fatalf("%v: %s", err, r.stdout)
	}
	if !strings.Contains(r.stderr, "LUMINA_PUBLIC_KEY="+public.PublicKey) {
		t.Errorf("it does not tell the key: %s", r.stderr)
	}
	pullInterrupted(t, server, public.PublicKey)

	second := t.TempDir()
	env := []string{"LUMINA_HOME=" + second, "LUMINA_GITHUB_URL=" + server.URL, "LUMINA_PUBLIC_KEY=" + public.PublicKey, "GITHUB_TOKEN="}
	ran := finish(t, with(command("run", ". /etc/os-release; echo $ID $VERSION_ID"), env...)).succeeded(t)
	if ran.Stdout != "debian 12\n" || !strings.Contains(ran.stderr, "lumina: fetching default-amd64, ") {
		t.Errorf("stdout %q, stderr %q", ran.Stdout, ran.stderr)
	}
	for _, name := range catalog.Files() {
		want, err := os.ReadFile(filepath.Join(home, "images", "debian", name))
		if err != nil {
			t.Fatal(err)
		}
		if got, err := os.ReadFile(filepath.Join(second, "images", "default", name)); err != nil || !bytes.Equal(got, want) {
			t.Errorf("%s differs: %v", name, err)
		}
	}
	if left, _ := os.ReadDir(filepath.Join(second, "cache", "pull")); len(left) != 0 {
		t.Errorf("pulling leaves %v", left)
	}
	// So does a network's first run.
	third := append(env, "LUMINA_HOME="+t.TempDir())
	file := filepath.Join(t.TempDir(), "network.yaml")
	write(t, file, "sessions: [{name: a}, {name: b}]\n")
	network := finish(t, with(command("network", "run", "--timeout", "1s", file), third...)).succeeded(t)
	if strings.Count(network.stderr, "lumina: fetching default-amd64, ") != 1 || !strings.Contains(network.stdout, `"name":"b"`) {
		t.Errorf("network run: stdout %q, stderr %q", network.stdout, network.stderr)
	}
	pulled := finish(t, with(command("pull"), env...)).succeeded(t)
	if !strings.Contains(pulled.stdout, `"name":"default"`) || !strings.Contains(pulled.stderr, "already exists") {
		t.Errorf("pulling again: %+v", pulled)
	}

	// The catalog, through a proxy: the server's name is the proxy's to find.
	target, err := url.Parse(server.URL)
	if err != nil {
		t.Fatal(err)
	}
	var through atomic.Int32
	forward := &httputil.ReverseProxy{Rewrite: func(r *httputil.ProxyRequest) { through.Add(1); r.SetURL(target); r.Out.Host = target.Host }}
	proxy := httptest.NewServer(http.HandlerFunc(forward.ServeHTTP))
	t.Cleanup(proxy.Close)
	listed := finish(t, with(command("images", "catalog", "--base-url", "http://github.test"), append(env, "HTTP_PROXY="+proxy.URL)...)).succeeded(t)
	c, err := catalog.Parse([]byte(listed.stdout))
	if err != nil || len(c.Images) != 1 || c.Images[0].ID != "default-amd64" || through.Load() == 0 {
		t.Errorf("%v, %d requests through the proxy: %s", err, through.Load(), listed.stdout)
	}
	text := finish(t, with(command("images", "catalog"), append(env, "LUMINA_FORMAT=text")...)).succeeded(t)
	if !strings.Contains(text.stdout, "default-amd64  amd64  v1.2.3") {
		t.Errorf("%s", text.stdout)
	}
}

// pullInterrupted kills pulls in the middle; the next one goes on where it was.
func pullInterrupted(t *testing.T, server *githubtest.Server, key string) {
	env := []string{"LUMINA_HOME=" + t.TempDir(), "LUMINA_GITHUB_URL=" + server.URL, "LUMINA_PUBLIC_KEY=" + key, "GITHUB_TOKEN="}
	var ranges []string
	const first = 10 << 20
	for _, signal := range []syscall.Signal{syscall.SIGKILL, syscall.SIGINT} {
		hangs := make(chan struct{}, 1)
		server.SetFault(func(r githubtest.Request) githubtest.Fault {
			switch {
			case !r.Storage || !strings.Contains(r.Path, ".zst"):
				return githubtest.Fault{}
			case r.Range == "":
				return githubtest.Fault{CutAfter: first}
			}
			ranges = append(ranges, r.Range)
			hangs <- struct{}{}
			return githubtest.Fault{Hang: true}
		})
		cmd := with(command("pull"), env...)
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		<-hangs
		if err := cmd.Process.Signal(signal); err != nil {
			t.Fatal(err)
		}
		want := -int(signal)
		if signal == syscall.SIGINT {
			want = 128 + int(signal)
		}
		if code := waitCode(t, cmd); code != want {
			t.Errorf("%v: exit code %d, want %d", signal, code, want)
		}
	}
	server.SetFault(nil)
	for _, r := range ranges {
		if r != fmt.Sprintf("bytes=%d-", first) {
			t.Errorf("it goes on at %s", r)
		}
	}
	if len(ranges) != 2 {
		t.Errorf("ranges %v", ranges)
	}
	finish(t, with(command("pull"), env...)).succeeded(t)
}

// Where there is no image and none to pull, the command did not run, and what
// to do is said in one line.
func TestRunWithoutImage(t *testing.T) {
	server := githubtest.New(t)
	generated := lumina(t, "release", "keygen", filepath.Join(t.TempDir(), "key")).succeeded(t)
	var public struct {
		PublicKey string `json:"public_key"`
	}
	if err := json.Unmarshal([]byte(generated.stdout), &public); err != nil {
		t.Fatal(err)
	}
	tests := []struct{ name, url, key, want string }{
		{"no release", server.URL, public.PublicKey, "not found"},
		{"no server", "http://127.0.0.1:1", public.PublicKey, "connection refused"},
		{"no key", server.URL, "", "no public key is trusted"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			env := []string{"LUMINA_HOME=" + t.TempDir(), "LUMINA_GITHUB_URL=" + tt.url, "LUMINA_PUBLIC_KEY=" + tt.key, "GITHUB_TOKEN="}
			r := finish(t, with(command("run", "true"), env...))
			if r.code != exitFailure || r.Error != "connection_failed" || r.PartialStdout != nil {
				t.Errorf("%+v", r)
			}
			if !strings.Contains(r.Message, tt.want) || !strings.HasSuffix(r.Message, "; this takes another: "+program+" run --image debian:12 true") || strings.Contains(r.Message, "\n") {
				t.Errorf("message %q, want %q", r.Message, tt.want)
			}
			started := finish(t, with(command("session", "start"), env...))
			if started.code != exitFailure || started.Error != "connection_failed" || !strings.HasSuffix(started.Message, program+" session start --image debian:12") {
				t.Errorf("session start: %+v", started)
			}
			file := filepath.Join(t.TempDir(), "network.yaml")
			write(t, file, "sessions: [{name: a}, {name: b, image: debian}]\n")
			network := finish(t, with(command("network", "run", file), env...))
			if network.code != exitFailure || network.Error != "connection_failed" || !strings.HasSuffix(network.Message, program+" images create default --from debian:12") {
				t.Errorf("network run: %+v", network)
			}
			secret := finish(t, with(command("run", "-e", "A=secret", "true"), env...))
			if !strings.HasSuffix(secret.Message, program+" images create default --from debian:12") {
				t.Errorf("with a variable: %s", secret.Message)
			}
			text := finish(t, with(command("run", "true"), append(env, "LUMINA_FORMAT=text")...))
			if text.code != exitFailure || strings.Count(text.stderr, "\n") != 1 {
				t.Errorf("%+v", text)
			}
		})
	}
}

func TestReleaseUsage(t *testing.T) {
	tests := []struct {
		args []string
		code int
		want string
	}{
		{[]string{"release", "publish", "debian"}, exitUsage, "--repo and --tag are required"},
		{[]string{"release", "publish", "debian", "--repo", "me", "--tag", "v1"}, exitUsage, "want OWNER/REPO"},
		{[]string{"release", "publish", "debian", "--repo", "me/images", "--tag", "v1"}, exitFailure, "GITHUB_TOKEN is not set"},
		{[]string{"pull", "--base-url", "host"}, exitUsage, "want https://HOST"},
		{[]string{"pull", "--public-key", "nonsense"}, exitUsage, "neither a key nor a file"},
		{[]string{"pull", "--platform", "linux/mips"}, exitUsage, "--platform"},
		{[]string{"images", "pull"}, exitUsage, "no argument is given; write lumina images pull"},
	}
	for _, tt := range tests {
		r := finish(t, with(command(tt.args...), "GITHUB_TOKEN=", "LUMINA_KEY="))
		if r.code != tt.code || !strings.Contains(r.stderr, tt.want) || strings.Count(r.stderr, "\n") != 1 {
			t.Errorf("%v: code %d, %s", tt.args, r.code, r.stderr)
		}
	}
}

// A key made with a password signs with it only.
func TestKeyWithPassword(t *testing.T) {
	key := filepath.Join(t.TempDir(), "key")
	finish(t, with(command("release", "keygen", key), "LUMINA_KEY_PASSWORD=secret")).succeeded(t)
	if info, err := os.Stat(key); err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("%v, %v", info.Mode(), err)
	}
	r := finish(t, with(command("release", "publish", "debian", "--repo", "me/images", "--tag", "v1", "--dry-run", "--key", key), "GITHUB_TOKEN="))
	if r.code != exitFailure || !strings.Contains(r.stderr, "is encrypted: set LUMINA_KEY_PASSWORD") {
		t.Errorf("%+v", r)
	}
}

// A dry run makes the files and asks nobody.
func TestPublishDryRun(t *testing.T) {
	out := filepath.Join(t.TempDir(), "out")
	r := finish(t, with(command("release", "publish", "debian", "--repo", "me/images", "--tag", "v1", "--dry-run", "--out", out, "--base-url", "http://127.0.0.1:1"), "GITHUB_TOKEN=", "LUMINA_KEY=")).succeeded(t)
	if !strings.Contains(r.stderr, "not signed") || !strings.Contains(r.stdout, `"dry_run":true`) {
		t.Errorf("%+v", r)
	}
	b, err := os.ReadFile(filepath.Join(out, catalog.Name))
	if err != nil {
		t.Fatal(err)
	}
	c, err := catalog.Parse(b)
	if err != nil {
		t.Fatal(err)
	}
	sbom, err := os.ReadFile(filepath.Join(out, c.Images[0].SBOM.Name))
	if err != nil || !bytes.Contains(sbom, []byte("pkg:deb/debian/base-files@12")) {
		t.Errorf("%v, %d bytes", err, len(sbom))
	}
	t.Logf("%d bytes become %d", c.Images[0].Size, c.Images[0].DownloadSize)
}
