package reference

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/abdul-abdi/lumina/runtime/image"
)

var digest = "sha256:" + strings.Repeat("0a", 32)

func TestParse(t *testing.T) {
	for s, want := range map[string]string{
		"debian":                              "docker.io/library/debian:latest",
		"debian:12":                           "docker.io/library/debian:12",
		"docker:dind":                         "docker.io/library/docker:dind",
		"docker://debian:12":                  "docker.io/library/debian:12",
		"docker.io/debian":                    "docker.io/library/debian:latest",
		"index.docker.io/library/debian:12":   "docker.io/library/debian:12",
		"owner/name":                          "docker.io/owner/name:latest",
		"ghcr.io/o/n@" + digest:               "ghcr.io/o/n@" + digest,
		"ghcr.io/o/n:v1@" + digest:            "ghcr.io/o/n@" + digest,
		"index.example.test/x":                "index.example.test/x:latest",
		"localhost/x":                         "localhost/x:latest",
		"localhost:5000/x":                    "localhost:5000/x:latest",
		"localhost:5000":                      "docker.io/library/localhost:5000",
		"127.0.0.1:5000/a/b/c:V-1.x_y":        "127.0.0.1:5000/a/b/c:V-1.x_y",
		"[::1]:5000/x":                        "[::1]:5000/x:latest",
		"localhost:5000/x.tar:latest":         "localhost:5000/x.tar:latest",
		"own/a__b--c.d/e_f":                   "docker.io/own/a__b--c.d/e_f:latest",
		"oci:./dir:tag":                       "oci:./dir:tag",
		"oci:/a b:c":                          "oci:/a b:c",
		"oci-archive:x.tar":                   "oci-archive:x.tar",
		"docker-archive:/x.tar:debian:12":     "docker-archive:/x.tar:debian:12",
		"mmdebstrap:bookworm,minbase":         "mmdebstrap:bookworm,minbase",
		"registry.example.test/x/y:" + "0":    "registry.example.test/x/y:0",
		"Registry.Example.TEST:443/lower:TAG": "Registry.Example.TEST:443/lower:TAG",
	} {
		r, err := Parse(s)
		if err != nil {
			t.Errorf("Parse(%q) = %v", s, err)
			continue
		}
		if r.String() != want {
			t.Errorf("Parse(%q) = %q, want %q", s, r, want)
		}
		if again, err := Parse(r.String()); err != nil || again != r {
			t.Errorf("Parse(%q) = %v, %v, want %v again", r, again, err, r)
		}
	}
}

// What is of no known kind is refused, with what to write in its place.
func TestRefused(t *testing.T) {
	t.Chdir(t.TempDir())
	if err := errors.Join(os.MkdirAll("img", 0o700), os.WriteFile("x.tar", nil, 0o600)); err != nil {
		t.Fatal(err)
	}
	for s, want := range map[string]string{
		"":                              "it is empty",
		".":                             "write oci:.",
		"./img":                         "write oci:./img",
		"img/":                          "write oci:img",
		"../img":                        "write oci:../img",
		"/img":                          "write oci:/img",
		"/":                             "write oci:/",
		"//img":                         "it is a path",
		"~/img":                         "it is a path",
		"./it's":                        `write 'oci:./it'\''s'`,
		"a/../b":                        "it is a path",
		"x.tar":                         "write docker-archive:x.tar for an archive of docker save, oci-archive:x.tar",
		"./x.tar":                       "docker-archive:./x.tar",
		"out.d/x.tar.gz":                "docker-archive:out.d/x.tar.gz",
		"x.tgz":                         "docker-archive:x.tgz",
		"disk.qcow2":                    "the name of a file",
		"recipes/go.yaml":               "--recipe recipes/go.yaml",
		"dir:/x":                        "dir: cannot be read; write oci:DIR",
		"dir:x":                         "dir: cannot be read",
		"docker-daemon:debian:12":       "docker-daemon: cannot be read",
		"containers-storage:x":          "cannot be read",
		"file:/x":                       "cannot be read",
		"file:///x.tar":                 "docker-archive:/x.tar",
		"https://example.test/x:1":      "without https://",
		"http://example.test/x":         "without http://",
		"oci://example.test/x":          "without oci://",
		"s3://bucket/x":                 "s3:// cannot be read",
		`C:\x`:                          "a path of Windows",
		"C:/x":                          "a path of Windows",
		`a\b`:                           "a path of Windows",
		"oci:":                          "nothing follows oci:",
		"oci::tag":                      "nothing follows oci:",
		"docker-archive:":               "nothing follows docker-archive:",
		"docker://":                     "not a name in a registry",
		"docker:///x":                   "it is a path",
		"nosuch:/x":                     "not a registry's HOST",
		"3f2c:/work":                    "not a registry's HOST",
		"host:port/x":                   "not a registry's HOST",
		"host..name/x":                  "not a registry's HOST",
		"-host.name/x":                  "not a registry's HOST",
		"Debian:12":                     "are lower-case: write debian:12",
		"ghcr.io/Team/App@" + digest:    "are lower-case: write ghcr.io/team/app@" + digest,
		"debian:":                       "not a tag",
		":12":                           "not a name in a registry",
		"debian:12:13":                  "not a name in a registry",
		"debian 12":                     "not a name in a registry",
		"debian:1 2":                    "not a tag",
		"a//b":                          "not a name in a registry",
		"a..b":                          "not a name in a registry",
		"a___b":                         "not a name in a registry",
		"-x":                            "not a name in a registry",
		"a@sha256:12":                   "not a digest",
		"a@" + digest + "0":             "not a digest",
		"@" + digest:                    "not a name in a registry",
		"a\nb":                          "characters that no reference has",
		"a\x00":                         "characters that no reference has",
		"\xff":                          "characters that no reference has",
		strings.Repeat("a", 250):        "at most 255",
		"a:" + strings.Repeat("t", 129): "not a tag",
	} {
		r, err := Parse(s)
		if !errors.Is(err, ErrInvalid) || !strings.Contains(err.Error(), want) || strings.Contains(err.Error(), "\n") {
			t.Errorf("Parse(%q) = %v, %v, want an error with %q", s, r, err, want)
		}
	}
}

func TestName(t *testing.T) {
	dir := t.TempDir()
	t.Chdir(dir)
	if err := errors.Join(os.MkdirAll("layout", 0o700), os.Symlink("layout", "link"), os.WriteFile("x.tar", nil, 0o600)); err != nil {
		t.Fatal(err)
	}
	name := func(s string) string {
		t.Helper()
		r, err := Parse(s)
		if err != nil {
			t.Fatal(err)
		}
		n, err := r.Name()
		if err != nil {
			t.Fatal(err)
		}
		if err := image.CheckName(n); err != nil {
			t.Errorf("%q is kept as %v", s, err)
		}
		return n
	}
	// These are the same.
	for _, same := range [][]string{
		{"debian:12", "docker.io/debian:12", "docker://index.docker.io/library/debian:12"},
		{"debian", "debian:latest"},
		{"oci:layout:t", "oci:./layout:t", "oci:" + filepath.Join(dir, "layout") + ":t", "oci:link:t"},
	} {
		for _, s := range same[1:] {
			if a, b := name(same[0]), name(s); a != b {
				t.Errorf("%q is kept as %q and %q as %q", same[0], a, s, b)
			}
		}
	}
	// These are not, however alike they look.
	seen := map[string]string{}
	for _, s := range []string{"debian:12", "debian", "debian-12", "debian/12", "debian_12", "debian:1.2", "debian:12-", "debian:12.", "x.test/debian:12", "x.test/debian:LATEST",
		"x.test/debian", "x.test:5000/debian", "debian@" + digest, "oci:layout", "oci:layout:t", "oci:layout:T", "oci-archive:x.tar", "docker-archive:x.tar", "docker-archive:x.tar:t", "docker-archive:x.tar:tt",
		"x.test/" + strings.Repeat("a", 200), "x.test/" + strings.Repeat("a", 201), "oci:___", "mmdebstrap:bookworm", "mmdebstrap:bookworm,minbase"} {
		n := name(s)
		if other, ok := seen[n]; ok {
			t.Errorf("%q and %q are both kept as %q", s, other, n)
		}
		seen[n] = s
	}
	if n := name("debian:12"); !strings.HasPrefix(n, "debian-12-") {
		t.Errorf("debian:12 is kept as %q", n)
	}
}

func FuzzParse(f *testing.F) {
	for _, s := range []string{"debian:12", "oci:x:y", "docker://a/b@" + digest, `C:\x`, "./x", "[::1]:5/x"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		r, err := Parse(s)
		if err != nil {
			if !errors.Is(err, ErrInvalid) {
				t.Errorf("Parse(%q) = %v", s, err)
			}
			return
		}
		if again, err := Parse(r.String()); err != nil || again != r {
			t.Errorf("Parse(%q) = %v, and of that %v, %v", s, r, again, err)
		}
		n, err := r.Name()
		if err != nil || image.CheckName(n) != nil {
			t.Errorf("%q is kept as %q, %v", s, n, err)
		}
	})
}
