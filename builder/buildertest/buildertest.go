// Package buildertest gives tests real input: a Debian root file system as an
// OCI layout, made by Debian's own tools, and a real registry.
package buildertest

import (
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"
)

// debianRecipe makes the layout; it is part of the cache's key.
const debianRecipe = `set -eu
mmdebstrap --quiet --architectures="$ARCH" --variant=minbase bookworm "$DIR/root.tar"
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

// Debian returns the path of an OCI layout, tag latest, of a real Debian 12.
func Debian(arch string) (string, error) {
	sum := sha256.Sum256([]byte(arch + debianRecipe))
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
	cmd.Env = append(os.Environ(), "ARCH="+arch, "DIR="+work)
	if out, err := cmd.CombinedOutput(); err != nil {
		return "", fmt.Errorf("making a Debian image: %w\n%s", err, out)
	}
	return dir, os.Rename(filepath.Join(work, "layout"), dir)
}

// DebianFor is Debian for a test.
func DebianFor(t testing.TB, arch string) string {
	t.Helper()
	dir, err := Debian(arch)
	if err != nil {
		t.Fatal(err)
	}
	return dir
}

// Run runs a program that must succeed.
func Run(t testing.TB, name string, args ...string) string {
	t.Helper()
	out, err := exec.Command(name, args...).CombinedOutput()
	if err != nil {
		t.Fatalf("%s %s: %v\n%s", name, strings.Join(args, " "), err, out)
	}
	return string(out)
}

// Registry starts a real registry on the loopback and returns its HOST:PORT.
func Registry(t testing.TB) string {
	t.Helper()
	l, err := net.Listen("tcp4", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	address := l.Addr().String()
	l.Close()
	dir := t.TempDir()
	config := filepath.Join(dir, "config.yml")
	if err := os.WriteFile(config, fmt.Appendf(nil,
		"version: 0.1\nlog: {level: error, accesslog: {disabled: true}}\nstorage: {filesystem: {rootdirectory: %s/data}}\nhttp: {addr: %s}\n", dir, address), 0o644); err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command("docker-registry", "serve", config)
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = cmd.Process.Kill()
		_ = cmd.Wait()
	})
	// It has no way to tell that it listens.
	for deadline := time.Now().Add(30 * time.Second); ; {
		c, err := net.Dial("tcp4", address)
		if err == nil {
			c.Close()
			return address
		}
		if time.Now().After(deadline) {
			t.Fatalf("the registry does not answer: %v", err)
		}
		time.Sleep(20 * time.Millisecond)
	}
}
