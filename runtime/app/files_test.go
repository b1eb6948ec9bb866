package app

import (
	"archive/zip"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"
)

// TestPortable has a guest's names lead nowhere on another system.
func TestPortable(t *testing.T) {
	for name, want := range map[string]string{
		"a/b c.txt": "a/b c.txt", `..\..\evil.bat`: ".._.._evil.bat", `C:\x`: "C__x", "a\nb\x1b[1m\xff": "a_b_[1m_", "größe/ж": "größe/ж", "\u202etxt": "_txt",
		".. /x": "___/x", "... /x.": "____/x_", "a./b ": "a_/b_", ".bashrc": ".bashrc", "...": "___",
		"nul": "_nul", "d/NUL.tar.gz": "d/_NUL.tar.gz", "Aux .txt": "_Aux .txt", "com1": "_com1", "LPT³.x": "_LPT³.x", "conin$": "_conin$", "console": "console", "com10": "com10",
		`<a|b?*">`: "_a_b____",
	} {
		if got := portable(name); got != want {
			t.Errorf("%q is %q, want %q", name, got, want)
		}
	}
}

// A zip archive of what a guest named has a name of its own for each file, and none that
// leads out of where it is unpacked, on any system.
func TestPackHostileNames(t *testing.T) {
	dir := t.TempDir()
	names := []string{`..\x`, `..\..\windows\system.ini`, "C:x", `C:\x`, `\\host\share`, "a:b", "a_b", `a\b`, "line\nbreak", "\x1b[31m", "\xff\xfe", "NUL", "nul.txt",
		"com1 .log", ".. ", "...", "dot.", "blank ", "\u202egnp.exe", "in. /in", "con/in", "Con/IN", "A_B", "deep/..\\..\\x"}
	for _, name := range names {
		name = filepath.Join(dir, name)
		if err := errors.Join(os.MkdirAll(filepath.Dir(name), 0o700), os.WriteFile(name, []byte("content"), 0o600)); err != nil {
			t.Fatal(err)
		}
	}
	outside := filepath.Join(t.TempDir(), "outside")
	if err := errors.Join(os.WriteFile(outside, []byte("SECRET"), 0o600), os.Symlink(outside, filepath.Join(dir, "link")), os.Symlink(filepath.Dir(outside), filepath.Join(dir, "links")),
		syscall.Mkfifo(filepath.Join(dir, "fifo"), 0o600)); err != nil {
		t.Fatal(err)
	}
	found, err := packable(t.Context(), dir, len(names))
	if err != nil || len(found) != len(names) {
		t.Fatalf("%d files, %v, want %d", len(found), err, len(names))
	}
	var b bytes.Buffer
	if err := pack(t.Context(), &b, dir, found); err != nil {
		t.Fatal(err)
	}
	z, err := zip.NewReader(bytes.NewReader(b.Bytes()), int64(b.Len()))
	if err != nil {
		t.Fatal(err)
	}
	seen := map[string]bool{}
	for _, f := range z.File {
		if !fs.ValidPath(f.Name) || seen[strings.ToLower(f.Name)] || strings.ContainsAny(f.Name, "\\:\"<>|?*\n\x1b\x00\u202e\ufffd") {
			t.Errorf("the archive has %q", f.Name)
		}
		seen[strings.ToLower(f.Name)] = true
		for _, part := range strings.Split(f.Name, "/") {
			stem, _, _ := strings.Cut(part, ".")
			if strings.HasSuffix(part, ".") || strings.HasSuffix(part, " ") || isDevice(strings.TrimSpace(stem)) {
				t.Errorf("the archive has %q", f.Name)
			}
		}
		r, err := f.Open()
		if err != nil {
			t.Fatal(err)
		}
		if content, err := io.ReadAll(r); err != nil || string(content) != "content" {
			t.Errorf("%q has %q, %v", f.Name, content, err)
		}
	}
	if len(seen) != len(names) {
		t.Errorf("%d names, want %d", len(seen), len(names))
	}
	// More than an archive may have are found out before it begins.
	if _, err := packable(t.Context(), dir, len(names)-1); err == nil || !strings.Contains(fmt.Sprint(err), "lumina cp") {
		t.Errorf("one more than there may be: %v", err)
	}
}

// A guest that has all names become the same one does not keep the host busy for hours.
func TestPackNamesThatAreAlike(t *testing.T) {
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	entries := entryNames{map[string]bool{}, map[string]int{}}
	to := strings.NewReplacer("0", "?", "1", "*", "2", ":", "3", "<", "4", ">", "5", "|", "6", `"`, "7", `\`)
	for n := range maxPacked {
		if entries.of(to.Replace(fmt.Sprintf("%06o", n))); ctx.Err() != nil {
			t.Fatalf("only %d of %d names in a minute", n, maxPacked)
		}
	}
	if len(entries.used) != maxPacked {
		t.Errorf("%d files have %d names", maxPacked, len(entries.used))
	}
}

// Long names of many files would fill the host's memory: they are refused before.
func TestPackLongNames(t *testing.T) {
	dir := t.TempDir()
	at, part := dir, strings.Repeat("d", 200)
	for range 18 {
		at = filepath.Join(at, part)
	}
	if err := os.MkdirAll(at, 0o700); err != nil {
		t.Fatal(err)
	}
	first := filepath.Join(at, "0")
	if err := os.WriteFile(first, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	for n := range maxPackedNames / 3600 {
		if err := os.Link(first, filepath.Join(at, strconv.Itoa(n+1))); err != nil {
			t.Fatal(err)
		}
	}
	if names, err := packable(t.Context(), dir, maxPacked); err == nil || !strings.Contains(err.Error(), "lumina cp") {
		t.Errorf("%d names, %v", len(names), err)
	}
}
