package main

import (
	"bytes"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	embedded "github.com/abdul-abdi/lumina/release/licences"
)

const root = "../.."

// What the program carries is what is in it now.
func TestNoticesAreCurrent(t *testing.T) {
	if _, err := os.Stat(filepath.Join(root, "runtime/app/page/out/licences")); err != nil && testing.Short() {
		t.Skip("make app has not run: ", err)
	}
	have, err := embedded.Notices()
	if err != nil {
		t.Skip(err) // of a program that was built so
	}
	var want bytes.Buffer
	if err := run(root, &want); err != nil {
		t.Fatal(err)
	}
	// The standard library's texts differ between Go's packages.
	if table(t, have) != table(t, want.String()) {
		t.Error("the notices are out of date; run make notices")
	}
}

// table is what comes before the licences.
func table(t *testing.T, notices string) string {
	t.Helper()
	before, _, ok := strings.Cut(notices, "\n## Licences\n")
	if !ok {
		t.Fatal("no licences")
	}
	return before
}

// A module without a licence cannot be passed on.
func TestLicences(t *testing.T) {
	dir := t.TempDir()
	if _, err := licences(dir); err == nil || !strings.Contains(err.Error(), "no licence") {
		t.Errorf("error %v", err)
	}
	for _, name := range []string{"LICENSE", "license.go", "LICENSE.docs", "NOTICE.txt", "UNLICENSE", "main.go"} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(" one \r\ntwo\n\n"), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	found, err := licences(dir)
	if err != nil {
		t.Fatal(err)
	}
	var names []string
	for _, l := range found {
		names = append(names, l.name)
		if l.text != " one\ntwo" {
			t.Errorf("%s: %q", l.name, l.text)
		}
	}
	if got := strings.Join(names, " "); got != "LICENSE NOTICE.txt UNLICENSE" {
		t.Errorf("licences %q", got)
	}
}

// One text of several parts is printed once.
func TestByText(t *testing.T) {
	groups := byText([]part{
		{name: "a", licences: []licence{{"LICENSE", "Do as\nyou like."}}},
		{name: "b", licences: []licence{{"COPYING", "Do as you\nlike."}, {"NOTICE", "By b."}}},
	})
	if len(groups) != 2 || strings.Join(groups[0].of, ", ") != "a (LICENSE), b (COPYING)" {
		t.Errorf("%q", groups)
	}
}

// No lock file names a registry's host: whoever builds has one of their own.
func TestLockNamesNoRegistry(t *testing.T) {
	locks, err := exec.Command("git", "-C", root, "ls-files", "*package-lock.json").Output()
	if err != nil {
		t.Skip("not in a clone: ", err)
	}
	for name := range strings.Lines(string(locks)) {
		b, err := os.ReadFile(filepath.Join(root, strings.TrimSpace(name)))
		if err != nil {
			t.Fatal(err)
		}
		if bytes.Contains(b, []byte(`"resolved"`)) || !bytes.Contains(b, []byte(`"integrity": "sha512-`)) {
			t.Errorf("%s has a resolved field or no digest", name)
		}
	}
}
