package main

import (
	"bytes"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/abdul-abdi/lumina/release/githubtest"
)

// elsewhere is another user of another machine.
type elsewhere struct {
	home string
	env  []string
}

func (e *elsewhere) command(args ...string) *exec.Cmd {
	cmd := exec.Command(program, args...)
	cmd.Env = append(append(os.Environ(), "LUMINA_HOME="+e.home, "LUMINA_TEMPLATE=0"), e.env...)
	return cmd
}

// What is published here is pulled there, byte for byte, and runs; whatever is
// changed on the way is refused.
func TestPublishAndPull(t *testing.T) {
	server := githubtest.New(t)
	key := filepath.Join(t.TempDir(), "lumina.key")
	lumina(t, "release", "keygen", key).succeeded(t)
	publish := command("release", "publish", "debian=default", "--repo", "abdul-abdi/lumina", "--tag", "v1", "--key", key, "--base-url", server.URL)
	publish.Env = append(publish.Env, "GITHUB_TOKEN="+githubtest.Token, "LUMINA_KEY_PASSWORD=")
	finish(t, publish).succeeded(t)

	there := &elsewhere{home: filepath.Join(t.TempDir(), "home"), env: []string{"LUMINA_GITHUB_URL=" + server.URL, "LUMINA_PUBLIC_KEY=" + key + ".pub"}}
	// The first run pulls the default image by itself.
	r := finish(t, there.command("run", "echo pulled")).succeeded(t)
	if r.Stdout != "pulled\n" {
		t.Errorf("stdout = %q", r.Stdout)
	}
	for _, name := range []string{"kernel", "initramfs.cpio", "rootfs.erofs"} {
		a, err := os.ReadFile(filepath.Join(home, "images/debian", name))
		if err != nil {
			t.Fatal(err)
		}
		b, err := os.ReadFile(filepath.Join(there.home, "images/default", name))
		if err != nil || !bytes.Equal(a, b) {
			t.Errorf("%s is not what was published: %v", name, err)
		}
	}
	if r := finish(t, there.command("images", "catalog")).succeeded(t); !strings.Contains(r.stdout, `"default-amd64"`) {
		t.Errorf("catalog: %s", r.stdout)
	}

	t.Run("a changed byte is refused", func(t *testing.T) {
		random := rand.New(rand.NewPCG(1, 2))
		for _, name := range server.Assets("v1") {
			if strings.HasSuffix(name, ".json") && name != "catalog.json" || name == "SHA256SUMS" {
				continue // for people: a pull does not read it
			}
			good := server.Asset("v1", name)
			for range 4 {
				bad := bytes.Clone(good)
				at := random.IntN(len(bad))
				bad[at] ^= 1 << random.IntN(8)
				server.SetAsset("v1", name, bad)
				victim := &elsewhere{home: filepath.Join(t.TempDir(), "home"), env: there.env}
				r := finish(t, victim.command("pull"))
				if strings.HasSuffix(name, ".minisig") && r.code == 0 {
					continue // its comment is for people, too
				}
				if r.code != 125 || len(strings.TrimSpace(r.stderr)) == 0 {
					t.Errorf("byte %d of %s changed: exit code %d, %s %s", at, name, r.code, r.stdout, r.stderr)
				}
				if left, _ := filepath.Glob(filepath.Join(victim.home, "images/*")); len(left) != 0 {
					t.Errorf("byte %d of %s changed: left %v", at, name, left)
				}
			}
			server.SetAsset("v1", name, good)
		}
	})
	t.Run("another key is refused", func(t *testing.T) {
		stranger := &elsewhere{home: filepath.Join(t.TempDir(), "home"), env: []string{"LUMINA_GITHUB_URL=" + server.URL}}
		if r := finish(t, stranger.command("pull")); r.code != 125 {
			t.Errorf("exit code %d, %s", r.code, r.stderr)
		}
	})
	t.Run("nowhere to pull from", func(t *testing.T) {
		alone := &elsewhere{home: filepath.Join(t.TempDir(), "home"), env: []string{"LUMINA_GITHUB_URL=http://127.0.0.1:1"}}
		r := finish(t, alone.command("run", "true"))
		if r.code != 125 || r.Error != "connection_failed" || !strings.Contains(r.Message, "make it with: lumina images create default") {
			t.Errorf("exit code %d, %s %s", r.code, r.stdout, r.stderr)
		}
	})
}
