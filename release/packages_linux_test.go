package release_test

import (
	"bytes"
	"crypto/sha256"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"testing"
)

func output(t *testing.T, name string, args ...string) string {
	t.Helper()
	cmd := exec.Command(name, args...)
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("%s %q: %v\n%s", name, args, err, stderr.Bytes())
	}
	return string(out)
}

// The package for Debian installs into a system of its own, has what people expect
// of it, and leaves nothing.
func TestDeb(t *testing.T) {
	if testing.Short() || os.Getuid() != 0 {
		t.Skip("it links the program, and dpkg installs as root only")
	}
	dir := t.TempDir()
	program, manual, deb := filepath.Join(dir, "lumina"), filepath.Join(dir, "manual"), filepath.Join(dir, "lumina.deb")
	// One program that also writes the manual: to link two takes long.
	output(t, "go", "build", "-tags", "manual", "-ldflags", "-s -w", "-o", program, "../cmd/lumina")
	output(t, program, "manual", manual)
	t.Setenv("DPKG_DEB_COMPRESSOR_TYPE", "none")
	pack := func(version, out string) { output(t, "./deb.sh", program, version, runtime.GOARCH, manual, out) }
	pack("v1.2.3-rc.1", deb)

	for field, want := range map[string]string{
		"Version": "1.2.3~rc.1", "Architecture": runtime.GOARCH,
		"Depends": map[string]string{"amd64": "qemu-system-x86", "arm64": "qemu-system-arm"}[runtime.GOARCH],
	} {
		if got := strings.TrimSpace(output(t, "dpkg-deb", "-f", deb, field)); got != want {
			t.Errorf("%s: %q, want %q", field, got, want)
		}
	}
	again := filepath.Join(dir, "again.deb")
	pack("v1.2.3-rc.1", again)
	a, errA := os.ReadFile(deb)
	b, errB := os.ReadFile(again)
	if errA != nil || errB != nil || !bytes.Equal(a, b) {
		t.Errorf("two packages of the same files differ (%v, %v)", errA, errB)
	}

	root := filepath.Join(dir, "root")
	for _, d := range []string{"info", "updates"} {
		if err := os.MkdirAll(filepath.Join(root, "var/lib/dpkg", d), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.WriteFile(filepath.Join(root, "var/lib/dpkg/status"), nil, 0o644); err != nil {
		t.Fatal(err)
	}
	output(t, "dpkg", "--root="+root, "--force-depends", "-i", deb)
	if got := output(t, filepath.Join(root, "usr/bin/lumina"), "version"); !strings.Contains(got, `"version"`) {
		t.Errorf("the installed program says %q", got)
	}
	for _, name := range []string{
		"usr/share/man/man1/lumina.1.gz", "usr/share/man/man1/lumina-session-start.1.gz",
		"usr/share/bash-completion/completions/lumina", "usr/share/zsh/vendor-completions/_lumina", "usr/share/fish/vendor_completions.d/lumina.fish",
		"usr/share/doc/lumina/copyright", "usr/share/doc/lumina/THIRD_PARTY_NOTICES.md.gz", "usr/share/doc/lumina/changelog.gz",
	} {
		if i, err := os.Stat(filepath.Join(root, name)); err != nil || i.Size() == 0 || i.Mode().Perm() != 0o644 {
			t.Errorf("%s: %v", name, err)
		}
	}
	if got := output(t, "bash", "-n", filepath.Join(root, "usr/share/bash-completion/completions/lumina")); got != "" {
		t.Error(got)
	}
	output(t, "dpkg", "--root="+root, "--purge", "lumina")
	if left, err := filepath.Glob(filepath.Join(root, "usr/*/*lumina*")); err != nil || len(left) > 0 {
		t.Errorf("left: %q (%v)", left, err)
	}
}

func TestDebRefusesOtherArchitectures(t *testing.T) {
	out, err := exec.Command("./deb.sh", "lumina", "v1", "riscv64", ".", "x.deb").CombinedOutput()
	if err == nil || !strings.Contains(string(out), "riscv64") {
		t.Errorf("%v: %s", err, out)
	}
}

// The formula has the digests of what the release has.
func TestFormula(t *testing.T) {
	dir := t.TempDir()
	var want []string
	for _, name := range []string{"lumina-darwin-arm64", "lumina-linux-amd64", "lumina-linux-arm64", "lumina-manual.tar.gz"} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(name), 0o600); err != nil {
			t.Fatal(err)
		}
		want = append(want, "/download/v1.2.3/"+name+"\"\n", fmt.Sprintf("sha256 \"%x\"\n", sha256.Sum256([]byte(name))))
	}
	got := output(t, "./formula.sh", "v1.2.3", dir)
	for _, w := range append(want, "version \"1.2.3\"\n", "license \"MIT\"\n") {
		if strings.Count(got, w) != 1 {
			t.Errorf("without %q, or with two:\n%s", w, got)
		}
	}
	if ruby, err := exec.LookPath("ruby"); err == nil {
		file := filepath.Join(dir, "lumina.rb")
		if err := os.WriteFile(file, []byte(got), 0o600); err != nil {
			t.Fatal(err)
		}
		output(t, ruby, "-c", file)
	}
	if err := os.Remove(filepath.Join(dir, "lumina-linux-arm64")); err != nil {
		t.Fatal(err)
	}
	if out, err := exec.Command("./formula.sh", "v1.2.3", dir).CombinedOutput(); err == nil || !strings.Contains(string(out), "lumina-linux-arm64") {
		t.Errorf("a program is missing: %v: %s", err, out)
	}
}
