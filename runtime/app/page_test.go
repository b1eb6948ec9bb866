package app

import (
	"bytes"
	"compress/gzip"
	"encoding/json"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
)

// maxPage bounds the page without noVNC and xterm.js, compressed, in bytes.
const maxPage = 300 << 10

func TestPageSize(t *testing.T) {
	files, err := filepath.Glob("page/out/*.*")
	if err != nil || len(files) == 0 {
		t.Skip("the page is not built")
	}
	sizes := map[string]int{}
	for _, name := range files {
		b, err := os.ReadFile(name)
		if err != nil {
			t.Fatal(err)
		}
		var packed bytes.Buffer
		z := gzip.NewWriter(&packed)
		if _, err := z.Write(b); err != nil {
			t.Fatal(err)
		}
		if err := z.Close(); err != nil {
			t.Fatal(err)
		}
		// screen.ts and terminal.ts are what noVNC and xterm.js are in.
		of, _, _ := strings.Cut(filepath.Base(name), "-")
		if of != "screen" && of != "terminal" {
			of = "page"
		}
		sizes[of] += packed.Len()
	}
	t.Logf("compressed: the page %d bytes, with noVNC %d more, with xterm.js %d more", sizes["page"], sizes["screen"], sizes["terminal"])
	if sizes["page"] == 0 || sizes["page"] > maxPage {
		t.Errorf("the page has %d bytes, want at most %d", sizes["page"], maxPage)
	}
	if sizes["screen"] == 0 || sizes["terminal"] == 0 {
		t.Errorf("noVNC and xterm.js are not apart: %v", sizes)
	}
}

// What the page is made of is known to the byte, and nobody else's is in this repository.
func TestPageDependencies(t *testing.T) {
	var wanted struct{ Dependencies, DevDependencies map[string]string }
	var lock struct {
		Packages map[string]struct{ Version, Resolved, Integrity string }
	}
	for name, into := range map[string]any{"package.json": &wanted, "package-lock.json": &lock} {
		b, err := os.ReadFile(filepath.Join("page", name))
		if err != nil {
			t.Fatal(err)
		}
		if err := json.Unmarshal(b, into); err != nil {
			t.Fatal(err)
		}
	}
	exact := regexp.MustCompile(`^\d+\.\d+\.\d+$`)
	for _, all := range []map[string]string{wanted.Dependencies, wanted.DevDependencies} {
		for name, version := range all {
			if got := lock.Packages["node_modules/"+name].Version; !exact.MatchString(version) || got != version {
				t.Errorf("%s: wanted is %q, locked is %q", name, version, got)
			}
		}
	}
	for name, p := range lock.Packages {
		if name != "" && (!strings.HasPrefix(p.Integrity, "sha512-") || p.Version == "") {
			t.Errorf("%s: version %q, integrity %q", name, p.Version, p.Integrity)
		}
	}
	out, err := exec.Command("git", "ls-files", "page").Output()
	if err != nil {
		t.Skip("this is no repository")
	}
	ours := regexp.MustCompile(`^page/(src/[a-z.]+\.(ts|css)|index\.html|(package|package-lock|tsconfig)\.json|build\.sh|(out/)?\.gitignore|\.npmrc)$`)
	for name := range strings.Lines(string(out)) {
		if name = strings.TrimSpace(name); !ours.MatchString(name) {
			t.Errorf("%s is in the repository", name)
		}
	}
}
