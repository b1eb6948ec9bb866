package release_test

import (
	"context"
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/abdul-abdi/lumina/release"
	"github.com/abdul-abdi/lumina/release/github"
	"github.com/abdul-abdi/lumina/release/githubtest"
	"github.com/abdul-abdi/lumina/release/sign"
)

// installable is a server with a release of programs.
func installable(t *testing.T) *world {
	t.Helper()
	w := newWorld(t)
	dir := t.TempDir()
	var programs []string
	for _, platform := range []string{"linux-amd64", "linux-arm64", "darwin-arm64"} {
		path := filepath.Join(dir, "lumina-"+platform)
		if err := os.WriteFile(path, []byte("#!/bin/sh\necho "+platform+"\n"), 0o644); err != nil {
			t.Fatal(err)
		}
		programs = append(programs, path)
	}
	files, err := release.Build(t.Context(), release.BuildOptions{
		Store: w.publisher, Images: []release.Source{{Image: "mine", Name: "default"}}, Files: programs, Tag: "v1", Dir: t.TempDir(), Key: w.key,
	})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := w.client(t, githubtest.Token).Publish(t.Context(), github.Repo{Owner: "abdul-abdi", Name: "lumina"}, "v1", files, github.PublishOptions{}); err != nil {
		t.Fatal(err)
	}
	return w
}

// tools makes a directory with these programs of the system's, and scripts.
func tools(t *testing.T, names []string, scripts map[string]string) string {
	t.Helper()
	dir := t.TempDir()
	for _, name := range names {
		path, err := exec.LookPath(name)
		if err != nil {
			t.Skipf("%s is not installed", name)
		}
		if err := os.Symlink(path, filepath.Join(dir, name)); err != nil {
			t.Fatal(err)
		}
	}
	for name, text := range scripts {
		if err := os.WriteFile(filepath.Join(dir, name), []byte("#!/bin/sh\n"+text), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	return dir
}

func TestInstallScript(t *testing.T) {
	basic := []string{"sh", "mkdir", "mktemp", "rm", "awk", "cut", "chmod", "mv", "sed", "dd", "cat", "cmp", "tail", "grep"}
	uname := func(system, machine string) map[string]string {
		return map[string]string{"uname": fmt.Sprintf("[ $1 = -s ] && echo %s || echo %s\n", system, machine)}
	}
	// It tells in the program itself that its quarantine was lifted.
	const xattr = `[ "$1 $2" = "-d com.apple.quarantine" ] && echo "echo out of quarantine" >>"$3"` + "\n"
	flip := func(name string) func(w *world) {
		return func(w *world) {
			b := w.server.Asset("v1", name)
			b[len(b)-2] ^= 1
			w.server.SetAsset("v1", name, b)
		}
	}
	tests := []struct {
		name    string
		tools   []string
		scripts map[string]string
		server  func(w *world)
		env     func(w *world) []string
		prints  string // by what is installed
		want    string // of an error
	}{
		{"Linux on amd64", []string{"curl", "sha256sum"}, uname("Linux", "x86_64"), nil, nil, "linux-amd64", ""},
		{"Linux on arm64", []string{"curl", "sha256sum"}, uname("Linux", "aarch64"), nil, nil, "linux-arm64", ""},
		{"macOS", []string{"curl", "shasum", "perl"}, uname("Darwin", "arm64"), nil, nil, "darwin-arm64", ""},
		{"macOS in quarantine", []string{"curl", "shasum", "perl", "minisign"}, map[string]string{"uname": uname("Darwin", "arm64")["uname"], "xattr": xattr}, nil, func(w *world) []string {
			return []string{"LUMINA_PUBLIC_KEY=" + w.key.Public()}
		}, "darwin-arm64\nout of quarantine", ""},
		{"macOS in quarantine, not verified", []string{"curl", "shasum", "perl"}, map[string]string{"uname": uname("Darwin", "arm64")["uname"], "xattr": xattr}, nil, nil, "darwin-arm64", ""},
		{"macOS under Rosetta", []string{"curl", "sha256sum"}, map[string]string{"uname": uname("Darwin", "x86_64")["uname"], "sysctl": "echo 1\n"}, nil, nil, "darwin-arm64", ""},
		{"with wget", []string{"wget", "sha256sum"}, uname("Linux", "x86_64"), nil, nil, "linux-amd64", ""},
		{"with a key", []string{"curl", "sha256sum", "minisign"}, uname("Linux", "x86_64"), nil, func(w *world) []string {
			return []string{"LUMINA_PUBLIC_KEY=" + w.key.Public(), "LUMINA_VERSION=v1"}
		}, "linux-amd64", ""},
		{"the latest with a key", []string{"curl", "sha256sum", "minisign"}, uname("Linux", "x86_64"), nil, func(w *world) []string {
			return []string{"LUMINA_PUBLIC_KEY=" + w.key.Public()}
		}, "linux-amd64", ""},
		{"with a key and OpenSSL", []string{"curl", "sha256sum", "openssl"}, uname("Linux", "x86_64"), nil, func(w *world) []string {
			return []string{"LUMINA_PUBLIC_KEY=" + w.key.Public(), "LUMINA_VERSION=v1"}
		}, "linux-amd64", ""},
		{"another key, with OpenSSL", []string{"curl", "sha256sum", "openssl"}, uname("Linux", "x86_64"), nil, func(w *world) []string {
			other, _ := keys(t)
			return []string{"LUMINA_PUBLIC_KEY=" + other.Public()}
		}, "", "not of a key that is trusted"},
		{"a flipped bit of the sums, with OpenSSL", []string{"curl", "sha256sum", "openssl"}, uname("Linux", "x86_64"), flip("SHA256SUMS"), func(w *world) []string {
			return []string{"LUMINA_PUBLIC_KEY=" + w.key.Public()}
		}, "", "not of a key that is trusted"},
		{"another comment, with OpenSSL", []string{"curl", "sha256sum", "openssl"}, uname("Linux", "x86_64"), func(w *world) {
			b := w.server.Asset("v1", "SHA256SUMS.minisig")
			w.server.SetAsset("v1", "SHA256SUMS.minisig", []byte(strings.Replace(string(b), "release v1 ", "release v2 ", 1)))
		}, func(w *world) []string {
			return []string{"LUMINA_PUBLIC_KEY=" + w.key.Public()}
		}, "", "not of a key that is trusted"},
		{"one of several keys", []string{"curl", "sha256sum", "openssl"}, uname("Linux", "x86_64"), nil, func(w *world) []string {
			other, _ := keys(t)
			return []string{"LUMINA_PUBLIC_KEY=" + other.Public() + " " + w.key.Public()}
		}, "linux-amd64", ""},
		{"no key", []string{"curl", "sha256sum", "minisign"}, uname("Linux", "x86_64"), nil, func(*world) []string { return []string{"LUMINA_UNVERIFIED="} }, "", "no key is known"},
		{"the sums of another release", []string{"curl", "sha256sum", "minisign"}, uname("Linux", "x86_64"), func(w *world) {
			sums := w.server.Asset("v1", "SHA256SUMS")
			w.server.SetAsset("v1", "SHA256SUMS.minisig", w.key.Sign(sums, "lumina release v10 SHA256SUMS"))
		}, func(w *world) []string {
			return []string{"LUMINA_PUBLIC_KEY=" + w.key.Public(), "LUMINA_VERSION=v1"}
		}, "", "not of release v1"},
		{"an Intel Mac", []string{"curl", "sha256sum"}, uname("Darwin", "x86_64"), nil, nil, "", "no lumina for Darwin on x86_64"},
		{"BSD", []string{"curl", "sha256sum"}, uname("FreeBSD", "amd64"), nil, nil, "", "no lumina for FreeBSD"},
		{"no program to fetch with", []string{"sha256sum"}, uname("Linux", "x86_64"), nil, nil, "", "curl or wget"},
		{"no program to verify with", []string{"curl"}, uname("Linux", "x86_64"), nil, nil, "", "sha256sum or shasum"},
		{"another key", []string{"curl", "sha256sum", "minisign"}, uname("Linux", "x86_64"), nil, func(w *world) []string {
			other, _ := keys(t)
			return []string{"LUMINA_PUBLIC_KEY=" + other.Public()}
		}, "", "not of a key that is trusted, LUMINA_PUBLIC_KEY"},
		{"a key and nothing to verify with", []string{"curl", "sha256sum"}, uname("Linux", "x86_64"), nil, func(w *world) []string {
			return []string{"LUMINA_PUBLIC_KEY=" + w.key.Public()}
		}, "", "install minisign"},
		{"a flipped bit of the program", []string{"curl", "sha256sum"}, uname("Linux", "x86_64"), flip("lumina-linux-amd64"), nil, "", "SHA256SUMS says"},
		{"a flipped bit of the sums, with a key", []string{"curl", "sha256sum", "minisign"}, uname("Linux", "x86_64"), flip("SHA256SUMS"), func(w *world) []string {
			return []string{"LUMINA_PUBLIC_KEY=" + w.key.Public()}
		}, "", "not of a key that is trusted, LUMINA_PUBLIC_KEY"},
		{"no sum", []string{"curl", "sha256sum"}, uname("Linux", "x86_64"), func(w *world) {
			w.server.SetAsset("v1", "SHA256SUMS", []byte("TODO  lumina-linux-amd64\n"))
		}, nil, "", "no digest of lumina-linux-amd64"},
		{"no such release", []string{"curl", "sha256sum"}, uname("Linux", "x86_64"), nil, func(*world) []string { return []string{"LUMINA_VERSION=v9"} }, "", "cannot fetch"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			w := installable(t)
			if tt.server != nil {
				tt.server(w)
			}
			home := t.TempDir()
			bin := filepath.Join(home, ".local", "bin")
			if err := os.MkdirAll(bin, 0o755); err != nil {
				t.Fatal(err)
			}
			installed := filepath.Join(bin, "lumina")
			if err := os.WriteFile(installed, []byte("#!/bin/sh\necho old\n"), 0o755); err != nil {
				t.Fatal(err)
			}
			cmd := exec.Command("sh", "install.sh")
			cmd.Env = []string{"HOME=" + home, "PATH=" + tools(t, append(slices.Clone(basic), tt.tools...), tt.scripts), "LUMINA_GITHUB_URL=" + w.server.URL, "LUMINA_UNVERIFIED=1"}
			if tt.env != nil {
				cmd.Env = append(cmd.Env, tt.env(w)...)
			}
			out, err := cmd.CombinedOutput()
			if (err != nil) != (tt.want != "") || !strings.Contains(string(out), tt.want) {
				t.Errorf("%v, want %q\n%s", err, tt.want, out)
			}
			prints := tt.prints
			if prints == "" {
				prints = "old"
			}
			if got, err := exec.Command(installed).Output(); err != nil || string(got) != prints+"\n" {
				t.Errorf("what is installed prints %q, %v; want %q", got, err, prints)
			}
			if left, _ := os.ReadDir(bin); len(left) != 1 {
				t.Errorf("it leaves %v", left)
			}
		})
	}
}

// A server that sends without an end does not fill the disk, and one that drips is not
// waited for.
func TestInstallFromAHostileServer(t *testing.T) {
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		piece, pause := make([]byte, 64<<10), time.Duration(0)
		if strings.HasPrefix(r.URL.Path, "/drops/") {
			piece, pause = piece[:1], 100*time.Millisecond
		}
		for r.Context().Err() == nil {
			if _, err := w.Write(piece); err != nil {
				return
			}
			w.(http.Flusher).Flush()
			time.Sleep(pause) // the speed is what is tested
		}
	}))
	defer server.Close()
	script, err := os.ReadFile("install.sh")
	if err != nil {
		t.Fatal(err)
	}
	impatient := strings.Replace(string(script), "\npatience=60\n", "\npatience=1\n", 1)
	if impatient = strings.Replace(impatient, "--retry 3", "--retry 0", 1); len(impatient) != len(script)-1 {
		t.Fatal("the script has no patience of 60 seconds, or does not try again")
	}
	path := filepath.Join(t.TempDir(), "install.sh")
	if err := os.WriteFile(path, []byte(impatient), 0o755); err != nil {
		t.Fatal(err)
	}
	for _, what := range []string{"endless", "drops"} {
		for _, with := range []string{"curl", "wget"} {
			if what == "drops" && with == "wget" {
				continue // its time is bounded, by the half hour
			}
			t.Run(what+"/"+with, func(t *testing.T) {
				home := t.TempDir()
				ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
				defer cancel()
				cmd := exec.CommandContext(ctx, "sh", path)
				cmd.Env = []string{"HOME=" + home, "LUMINA_GITHUB_URL=" + server.URL + "/" + what, "LUMINA_UNVERIFIED=1",
					"PATH=" + tools(t, []string{"sh", "mkdir", "mktemp", "rm", "awk", "sed", "sha256sum", "uname", "timeout", with}, nil)}
				out, err := cmd.CombinedOutput()
				if err == nil || ctx.Err() != nil || !strings.Contains(string(out), "cannot fetch") {
					t.Errorf("%v, %v: %s", err, ctx.Err(), out)
				}
				if left, _ := os.ReadDir(filepath.Join(home, ".local", "bin")); len(left) != 0 {
					t.Errorf("it leaves %v", left)
				}
			})
		}
	}
}

// What the program trusts by itself, its installer does.
func TestInstallTrustsTheSameKeys(t *testing.T) {
	script, err := os.ReadFile("install.sh")
	if err != nil {
		t.Fatal(err)
	}
	trusted, err := sign.Default()
	if err != nil {
		t.Fatal(err)
	}
	var want []string
	for _, key := range trusted {
		want = append(want, key.String())
	}
	if line := `trusted_keys="` + strings.Join(want, " ") + `"`; !strings.Contains(string(script), "\n"+line+"\n") {
		t.Errorf("install.sh has no line %s", line)
	}
}
