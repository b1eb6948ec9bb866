// Package buildertest gives tests real input: a Debian root file system as an
// OCI layout, made by Debian's own tools, and a real registry.
package buildertest

import (
	"bufio"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
)

// debianRecipe makes the layout; it is part of the cache's key.
const debianRecipe = `set -eu
mmdebstrap --quiet --architectures="$ARCH" --variant=minbase ${PACKAGES:+--include="$PACKAGES"} bookworm "$DIR/root.tar"
umoci init --layout "$DIR/layout"
umoci new --image "$DIR/layout:latest"
umoci raw add-layer --image "$DIR/layout:latest" "$DIR/root.tar"
umoci config --image "$DIR/layout:latest" --architecture "$ARCH" --config.cmd /bin/bash --config.env LUMINA_TEST=image
rm "$DIR/root.tar"
`

// foreignRecipe lets this machine run the programs of another architecture,
// which mmdebstrap needs.
const foreignRecipe = `set -eu
[ -e /proc/sys/fs/binfmt_misc/register ] || mount -t binfmt_misc none /proc/sys/fs/binfmt_misc
update-binfmts --enable qemu-aarch64
`

// Cache is where test input that is slow to make is kept.
func Cache() string {
	if dir := os.Getenv("LUMINA_CACHE"); dir != "" {
		return filepath.Join(dir, "test")
	}
	dir, err := os.UserCacheDir()
	if err != nil {
		dir = os.TempDir()
	}
	return filepath.Join(dir, "lumina", "test")
}

// Debian returns the path of an OCI layout, tag latest, of a real Debian 12 with
// these packages beside the essential ones.
func Debian(arch string, packages ...string) (string, error) {
	include := strings.Join(packages, ",")
	sum := sha256.Sum256([]byte(arch + include + debianRecipe))
	dir := filepath.Join(Cache(), "debian-"+arch+"-"+hex.EncodeToString(sum[:8]))
	if _, err := os.Stat(dir); err == nil {
		return dir, nil
	}
	if err := os.MkdirAll(Cache(), 0o755); err != nil {
		return "", err
	}
	// One maker at a time: packages are tested side by side.
	lock, err := os.OpenFile(dir+".lock", os.O_RDWR|os.O_CREATE, 0o644)
	if err != nil {
		return "", err
	}
	defer lock.Close()
	if err := syscall.Flock(int(lock.Fd()), syscall.LOCK_EX); err != nil {
		return "", err
	}
	if _, err := os.Stat(dir); err == nil {
		return dir, nil
	}
	work, err := os.MkdirTemp(Cache(), "work-")
	if err != nil {
		return "", err
	}
	defer os.RemoveAll(work)
	script := debianRecipe
	if arch == "arm64" {
		script = foreignRecipe + debianRecipe
	}
	cmd := exec.Command("sh", "-c", script)
	cmd.Env = append(os.Environ(), "ARCH="+arch, "DIR="+work, "PACKAGES="+include)
	if out, err := cmd.CombinedOutput(); err != nil {
		return "", fmt.Errorf("making a Debian image: %w\n%s", err, out)
	}
	return dir, os.Rename(filepath.Join(work, "layout"), dir)
}

// DebianFor is Debian for a test.
func DebianFor(t testing.TB, arch string) string {
	t.Helper()
	if testing.Short() {
		t.Skip("with -short: it needs an image of Debian")
	}
	dir, err := Debian(arch)
	if err != nil {
		t.Fatal(err)
	}
	return dir
}

// Needs says which programs a test needs. With -short, which needs nothing but Go, the
// test is skipped where one of them is missing.
func Needs(t testing.TB, programs ...string) {
	t.Helper()
	for _, name := range programs {
		if _, err := exec.LookPath(name); err != nil && testing.Short() {
			t.Skipf("with -short: it needs %s", name)
		}
	}
}

// Run runs a program that must succeed. With -short, which needs nothing but Go, the
// test is skipped from there.
func Run(t testing.TB, name string, args ...string) string {
	t.Helper()
	if testing.Short() {
		t.Skipf("with -short: it runs %s", name)
	}
	out, err := exec.Command(name, args...).CombinedOutput()
	if err != nil {
		t.Fatalf("%s %s: %v\n%s", name, strings.Join(args, " "), err, out)
	}
	return string(out)
}

// Login is the user and the password that RegistryWithLogin asks for.
const Login = "lumina:lumina-test"

// loginFile is Login as htpasswd(1) writes it, with bcrypt.
const loginFile = "lumina:$2b$04$eXOrh1iYVXkgfeLn3H3bpOGD2TaHyanpLg2LgOte93bmqVWWy3An.\n"

// Registry starts a real registry on the loopback and returns its HOST:PORT.
func Registry(t testing.TB) string {
	t.Helper()
	address, _ := startRegistry(t, "")
	return address
}

// RegistryData is Registry with the directory in which it keeps its data.
func RegistryData(t testing.TB) (address, data string) {
	t.Helper()
	return startRegistry(t, "")
}

// RegistryWithLogin is Registry for those who log in.
func RegistryWithLogin(t testing.TB) string {
	t.Helper()
	file := filepath.Join(t.TempDir(), "htpasswd")
	if err := os.WriteFile(file, []byte(loginFile), 0o600); err != nil {
		t.Fatal(err)
	}
	address, _ := startRegistry(t, fmt.Sprintf("auth: {htpasswd: {realm: test, path: %q}}\n", file))
	return address
}

func startRegistry(t testing.TB, more string) (address, data string) {
	t.Helper()
	Needs(t, "docker-registry")
	dir := t.TempDir()
	data = filepath.Join(dir, "data")
	config := filepath.Join(dir, "config.yml")
	if err := os.WriteFile(config, fmt.Appendf(nil,
		"version: 0.1\nlog: {level: info, accesslog: {disabled: true}}\nstorage: {filesystem: {rootdirectory: %q}}\nhttp: {addr: \"127.0.0.1:0\"}\n%s", data, more), 0o644); err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command("docker-registry", "serve", config)
	logged, err := cmd.StderrPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	read := make(chan struct{})
	t.Cleanup(func() {
		_ = cmd.Process.Kill()
		<-read
		_ = cmd.Wait()
	})
	listening := make(chan string, 1)
	go func() {
		defer close(read)
		defer close(listening)
		lines := bufio.NewScanner(logged)
		for told := false; lines.Scan(); { // to the end, so that it never waits for us
			if _, after, ok := strings.Cut(lines.Text(), `msg="listening on `); ok && !told {
				address, _, _ := strings.Cut(after, `"`)
				listening <- address
				told = true
			}
		}
	}()
	address, ok := <-listening
	if !ok {
		t.Fatal("the registry ended before it listened")
	}
	return address, data
}
