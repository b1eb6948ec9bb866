package main

import (
	"encoding/json"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"
)

const templateOptions = `{"Image":"debian","Network":"nat"}`

// makeTestTemplate makes the template that a run with default options uses,
// and returns its directory.
func makeTestTemplate(t *testing.T) string {
	t.Helper()
	lumina(t, "clean", "--templates").succeeded(t)
	lumina(t, templateCommand, templateOptions).succeeded(t)
	found, err := filepath.Glob(filepath.Join(home, "cache/templates/*/template.json"))
	if err != nil || len(found) != 1 {
		t.Fatalf("templates: %v, %v, want one", found, err)
	}
	return filepath.Dir(found[0])
}

// runRestored runs a command with templates on, and returns what the boot trace
// says of them, too.
func runRestored(t testing.TB, args ...string) (result, string) {
	t.Helper()
	cmd := command(append([]string{"run", "--image", "debian"}, args...)...)
	cmd.Env = append(cmd.Env, "LUMINA_TEMPLATE=1", "LUMINA_BOOT_TRACE=1")
	r := finish(t, cmd)
	first, _, _ := strings.Cut(r.stderr, "\n")
	return r, first
}

// Whoever removes an image does not wait for what nobody asked for.
func TestImageIsRemovedWhileItsTemplateIsMade(t *testing.T) {
	needsProgram(t)
	t.Cleanup(func() { nothingLeft(t) })
	dir := filepath.Join(home, "images", "brief")
	if err := os.CopyFS(dir, os.DirFS(filepath.Join(home, "images", "debian"))); err != nil {
		t.Fatal(err)
	}
	lumina(t, "clean", "--templates").succeeded(t) // there may be that of the same image by another name
	cmd := command(templateCommand, `{"Image":"brief","Network":"nat"}`)
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	ended := make(chan error, 1)
	go func() { ended <- cmd.Wait() }()
	for !strings.Contains(strings.Join(processes(t), "\n"), "qemu-system-") {
		select {
		case err := <-ended:
			t.Fatalf("it ended before there was a VM: %v", err)
		case <-time.After(time.Millisecond):
		}
	}
	lumina(t, "images", "remove", "brief").succeeded(t)
	if err := <-ended; err != nil {
		t.Errorf("the template: %v", err)
	}
	lumina(t, "clean", "--templates").succeeded(t)
}

func TestRestoredVMsAreNobodysTwins(t *testing.T) {
	needsProgram(t)
	t.Cleanup(func() { nothingLeft(t) })
	if err := tools(); err != nil {
		t.Fatal(err)
	}
	lumina(t, templateCommand, `{"Image":"tools","Network":"nat"}`).succeeded(t)
	const script = `head -c 16 /dev/urandom | od -An -tx1 | tr -d ' \n'; echo
		hostname; cat /etc/machine-id /sys/class/net/eth0/address /proc/sys/kernel/random/boot_id /proc/sys/kernel/random/uuid
		mktemp -u; ssh-keygen -q -t ed25519 -N '' -f /root/host_key && cut -d' ' -f2 /root/host_key.pub; grep -c "$(hostname)" /etc/hosts; date +%s.%N`
	var mu sync.Mutex
	var wg sync.WaitGroup
	seen := map[string]int{}
	for range 20 {
		wg.Go(func() {
			r, trace := runRestored(t, "--image", "tools", "--timeout", "60s", script)
			lines := strings.Split(strings.TrimSpace(r.Stdout), "\n")
			if trace != "boot: from a template" || r.code != 0 || len(lines) != 10 {
				t.Errorf("%s: %s %s", trace, r.stdout, r.stderr)
				return
			}
			if at, err := strconv.ParseFloat(lines[9], 64); err != nil || time.Since(time.UnixMicro(int64(at*1e6))).Abs() > 20*time.Second {
				t.Errorf("the guest's clock says %s", lines[9])
			}
			if lines[8] != "1" {
				t.Errorf("/etc/hosts does not know the host name %s", lines[1])
			}
			mu.Lock()
			defer mu.Unlock()
			for i, line := range lines[:8] {
				seen[strconv.Itoa(i)+" "+line]++
			}
		})
	}
	wg.Wait()
	for line, n := range seen {
		if n > 1 {
			t.Errorf("%d VMs have the same %s", n, line)
		}
	}
}

func TestRestoredVMHasItsOwnDisk(t *testing.T) {
	makeTestTemplate(t)
	for range 2 {
		r, trace := runRestored(t, "ls /mine 2>/dev/null; echo x > /mine; df -BG --output=size / | tail -1")
		if trace != "boot: from a template" || r.code != 0 || strings.TrimSpace(r.Stdout) != "16G" {
			t.Errorf("%s: %s", trace, r.stdout)
		}
	}
	// Another shape of machine is another template.
	r, trace := runRestored(t, "--disk-size", "2GB", "--memory", "512MB", "df -BG --output=size / | tail -1")
	if !strings.HasPrefix(trace, "boot: cold, since there is no template yet") || strings.TrimSpace(r.Stdout) != "2G" {
		t.Errorf("%s: %s", trace, r.stdout)
	}
	nothingLeft(t) // which waits for the template that this run asked for
	r, trace = runRestored(t, "--disk-size", "2GB", "--memory", "512MB", "df -BG --output=size / | tail -1")
	if trace != "boot: from a template" || strings.TrimSpace(r.Stdout) != "2G" {
		t.Errorf("%s: %s", trace, r.stdout)
	}
	lumina(t, "clean", "--templates").succeeded(t)
	if left, _ := os.ReadDir(filepath.Join(home, "cache/templates")); len(left) != 0 {
		t.Errorf("clean left %v", left)
	}
}

// Nothing is restored that is not, byte for byte, what was saved.
func TestDamagedTemplatesAreNotUsed(t *testing.T) {
	tests := []struct {
		name   string
		damage func(t *testing.T, dir string) error
	}{
		{"byte of the memory", func(_ *testing.T, dir string) error {
			f, err := os.OpenFile(filepath.Join(dir, "memory"), os.O_RDWR, 0)
			if err != nil {
				return err
			}
			defer f.Close()
			_, err = f.WriteAt([]byte{0xff}, 1<<20)
			return err
		}},
		{"cut off state", func(_ *testing.T, dir string) error { return os.Truncate(filepath.Join(dir, "state"), 1000) }},
		{"missing disk", func(_ *testing.T, dir string) error { return os.Remove(filepath.Join(dir, "scratch")) }},
		{"description of another", func(_ *testing.T, dir string) error {
			return os.WriteFile(filepath.Join(dir, "template.json"), []byte(`{"key":"00"}`), 0o600)
		}},
		{"empty description", func(_ *testing.T, dir string) error { return os.Truncate(filepath.Join(dir, "template.json"), 0) }},
		{"readable by others", func(_ *testing.T, dir string) error { return os.Chmod(dir, 0o755) }},
		{"copied from elsewhere", func(_ *testing.T, dir string) error {
			b, err := os.ReadFile(filepath.Join(dir, "state"))
			if err != nil {
				return err
			}
			if err := os.Remove(filepath.Join(dir, "state")); err != nil {
				return err
			}
			return os.WriteFile(filepath.Join(dir, "state"), b, 0o600)
		}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			dir := makeTestTemplate(t)
			if err := tt.damage(t, dir); err != nil {
				t.Fatal(err)
			}
			r, trace := runRestored(t, "echo right")
			if !strings.HasPrefix(trace, "boot: cold, since the template was discarded: ") || r.Stdout != "right\n" {
				t.Errorf("%s: %s", trace, r.stdout)
			}
			if _, err := os.Stat(filepath.Join(dir, "memory")); err == nil {
				t.Error("the damaged template is still there")
			}
		})
	}
}

// A template that cannot be made is told, and not tried at every start.
func TestTemplateThatCannotBeMade(t *testing.T) {
	lumina(t, "clean", "--templates").succeeded(t)
	maker := command(templateCommand, templateOptions)
	if err := maker.Start(); err != nil {
		t.Fatal(err)
	}
	for vm := 0; vm == 0; {
		for _, p := range processes(t) {
			if pid, line, _ := strings.Cut(p, " "); strings.Contains(line, "qemu-system-") {
				vm, _ = strconv.Atoi(pid)
				kill(t, vm)
			}
		}
	}
	if code := waitCode(t, maker); code != 125 {
		t.Errorf("the maker whose VM was killed: exit code %d", code)
	}
	for range 2 {
		r, trace := runRestored(t, "echo right")
		if !strings.HasPrefix(trace, "boot: cold, since there is no template: ") || !strings.Contains(trace, "killed") || r.Stdout != "right\n" {
			t.Errorf("%s: %s", trace, r.stdout)
		}
		nothingLeft(t)
	}
	if found, _ := filepath.Glob(filepath.Join(home, "cache/templates/*/template.json")); len(found) != 0 {
		t.Errorf("it was tried again: %v", found)
	}
	if r := lumina(t, "doctor"); !strings.Contains(r.stdout, "one could not be made") {
		t.Errorf("doctor: %s", r.stdout)
	}
	makeTestTemplate(t)
	if _, trace := runRestored(t, "true"); trace != "boot: from a template" {
		t.Error(trace)
	}
}

func TestTemplateIsMadeOnce(t *testing.T) {
	lumina(t, "clean", "--templates").succeeded(t)
	var wg sync.WaitGroup
	for range 4 {
		wg.Go(func() { lumina(t, templateCommand, templateOptions).succeeded(t) })
	}
	wg.Wait()
	found, _ := filepath.Glob(filepath.Join(home, "cache/templates/*"))
	if len(found) != 1 {
		t.Fatalf("templates: %v, want one", found)
	}
	dir := found[0]
	for name, others := range map[string]os.FileMode{".": 0o077, "state": 0o077, "scratch": 0o077, "memory": 0o007} {
		info, err := os.Stat(filepath.Join(dir, name))
		if err != nil {
			t.Error(err)
		} else if info.Mode().Perm()&others != 0 {
			t.Errorf("%s has mode %v", name, info.Mode())
		}
	}
}

func TestFiftyAtOnce(t *testing.T) {
	makeTestTemplate(t)
	cmd := command("pool", "run", "--image", "debian", "--size", "50", "--count", "50", "sleep 3; echo $LUMINA_RUN")
	cmd.Env = append(cmd.Env, "LUMINA_TEMPLATE=1")
	r := finish(t, cmd)
	if n := strings.Count(r.stdout, `"exit_code":0`); r.code != 0 || n != 50 {
		t.Errorf("exit code %d, %d runs ended well: %.2000s", r.code, n, r.stdout)
	}
	nothingLeft(t)
}

func TestPool(t *testing.T) {
	makeTestTemplate(t)
	cmd := command("pool", "run", "--image", "debian", "--size", "3", "--count", "9", "echo $LUMINA_RUN; exit $((LUMINA_RUN % 2))")
	cmd.Env = append(cmd.Env, "LUMINA_TEMPLATE=1")
	r := finish(t, cmd)
	seen := map[string]bool{}
	for _, line := range strings.Split(strings.TrimSpace(r.stdout), "\n") {
		var row struct {
			Run      int
			Stdout   string
			ExitCode int `json:"exit_code"`
		}
		if err := json.Unmarshal([]byte(line), &row); err != nil {
			t.Fatalf("line %q: %v", line, err)
		}
		if row.Stdout != strconv.Itoa(row.Run)+"\n" || row.ExitCode != row.Run%2 {
			t.Errorf("row %s", line)
		}
		seen[row.Stdout] = true
	}
	if len(seen) != 9 || r.code != 1 {
		t.Errorf("%d results, exit code %d, want 9 and 1: some runs failed", len(seen), r.code)
	}
	nothingLeft(t)
}
