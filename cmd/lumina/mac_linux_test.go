package main

import (
	"context"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	goruntime "runtime"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/abdul-abdi/lumina/builder"
	"github.com/abdul-abdi/lumina/builder/buildertest"
	"github.com/abdul-abdi/lumina/initramfs"
	kernelconfig "github.com/abdul-abdi/lumina/kernel-config"
	"github.com/abdul-abdi/lumina/runtime"
	"github.com/abdul-abdi/lumina/runtime/image"
	"github.com/abdul-abdi/lumina/runtime/polltest"
	"github.com/abdul-abdi/lumina/runtime/vz"
)

// The command line as a Mac has it: over the driver for Virtualization.framework,
// whose framework is simulated; the guests are real.
func TestMacDriver(t *testing.T) {
	needsProgram(t)
	if goruntime.GOARCH != "amd64" {
		t.Skip("the simulated machine is an amd64 one")
	}
	home := t.TempDir()
	layout, err := buildertest.Debian(goruntime.GOARCH)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := builder.Create(t.Context(), builder.Options{
		Name: "img", Reference: "oci:" + layout + ":latest", Store: image.NewStore(filepath.Join(home, "images")),
		CacheDir: filepath.Join(home, "cache"), Initramfs: initramfs.Read,
		Kernel: func(arch string) (builder.Kernel, error) { // of an Intel Mac
			k, err := kernelconfig.OpenEFI(arch)
			if err != nil {
				return builder.Kernel{}, err
			}
			return builder.Kernel{Version: k.Version, CommandLine: kernelconfig.CommandLine(arch), Default: true, Open: k.Open}, nil
		},
	}); err != nil {
		t.Fatal(err)
	}
	m := newCommandLine(t, home, vz.Simulated(t.Logf, t.TempDir()))
	m.env["LUMINA_MEMORY"], m.env["LUMINA_DISK_SIZE"], m.env["LUMINA_TEMPLATE"] = "256MB", "64MB", "0"
	dir := t.TempDir()
	const serve = `use IO::Socket::INET; my $l = IO::Socket::INET->new(Listen=>5, LocalPort=>80, ReuseAddr=>1) or die; $| = 1; print "up\n"; while (my $c = $l->accept) { print $c "served\n"; close $c; exit 0 if $ARGV[0] }`

	// run, with a volume, copies and a forward.
	write(t, filepath.Join(dir, "in"), "content")
	m.env["LUMINA_OUTPUT"] = "ndjson"
	run := m.begin(t.Context(), "", "run", "--image", "img", "-v", "data:/data", "-p", "80",
		"--copy", filepath.Join(dir, "in")+":/data/file", "--download", "/data/file:"+filepath.Join(dir, "out"), "--", "perl", "-e", serve, "once")
	all := run.printed(`up\n`)
	var host int
	_, note, _ := strings.Cut(all, "lumina: 127.0.0.1:")
	if n, _ := fmt.Sscanf(note, "%d leads to", &host); n != 1 {
		t.Fatalf("no forward is told: %s", all)
	}
	if got := ask(t, host); got != "served\n" {
		t.Errorf("run's forward says %q", got)
	}
	if r := run.wait(); r.code != 0 || string(readFile(t, filepath.Join(dir, "out"))) != "content" {
		t.Fatalf("run: %d, %s%s", r.code, r.stdout, r.stderr)
	}
	delete(m.env, "LUMINA_OUTPUT")

	// A session, with the volume as the run left it.
	sid := m.started("--name", "web", "-v", "data:/data")
	if r := m.pipe("in\n", "exec", "web", "cat; cat /data/file; exit 3"); r.code != 3 || r.Stdout != "in\ncontent" {
		t.Errorf("exec: %d, %s%s", r.code, r.stdout, r.stderr)
	}
	if r := m.lumina("volume", "remove", "data"); r.code == 0 || !strings.Contains(r.stderr, "in use") {
		t.Errorf("a volume in use is removed: %s%s", r.stdout, r.stderr)
	}
	m.lumina("cp", filepath.Join(dir, "in"), "web:/root/").succeeded(t)
	m.lumina("cp", "web:/root/in", filepath.Join(dir, "back")).succeeded(t)
	if got := string(readFile(t, filepath.Join(dir, "back"))); got != "content" {
		t.Errorf("cp in and out: %q", got)
	}
	if r := m.lumina("exec", "web", "echo c >/proc/sysrq-trigger"); r.code != exitFailure || r.Error != "vm_crashed" {
		t.Errorf("a crash: %d, %s%s", r.code, r.stdout, r.stderr)
	}
	m.lumina("session", "stop", sid).succeeded(t)
	m.lumina("volume", "remove", "data").succeeded(t)

	// The floor of lumina bench: its guest has an initramfs of its own, no agent, and
	// resets, which the framework tells nobody.
	r, err := runtime.Open(runtime.Options{Home: home, Driver: m.driver})
	if err != nil {
		t.Fatal(err)
	}
	patience, enough := context.WithTimeout(t.Context(), 2*time.Minute)
	defer enough()
	if err := bootBare(patience, r, "img"); err != nil || patience.Err() != nil {
		t.Errorf("a bare boot: %v, %v", err, patience.Err())
	}

	// A network of two.
	file := filepath.Join(dir, "network.yml")
	write(t, file, "sessions:\n  - {name: db, image: img}\n  - {name: web, image: img}\n")
	ctx, cancel := context.WithCancelCause(t.Context())
	defer cancel(nil)
	lan := m.begin(ctx, "", "network", "run", file)
	var up struct{ Sessions []struct{ Name, SID string } }
	if err := json.Unmarshal([]byte(lan.printed("\n")), &up); err != nil || len(up.Sessions) != 2 {
		t.Fatalf("network run: %+v, %v", lan.wait(), err)
	}
	id := m.lumina("exec", "-d", up.Sessions[0].SID, "--", "perl", "-e", serve).succeeded(t).ID
	polltest.True(t, "db listens", func() bool { return m.lumina("logs", up.Sessions[0].SID, id).Stdout == "up\n" })
	if r := m.lumina("exec", up.Sessions[1].SID, "bash -c 'cat </dev/tcp/db/80'").succeeded(t); r.Stdout != "served\n" {
		t.Errorf("web hears of db: %q, %s", r.Stdout, r.Stderr)
	}
	cancel(interrupted{syscall.SIGINT})
	if r := lan.wait(); r.code != 128+int(syscall.SIGINT) {
		t.Errorf("network run: %d, %s%s", r.code, r.stdout, r.stderr)
	}
	for _, dir := range []string{"runs", "sessions"} {
		if left, _ := os.ReadDir(filepath.Join(home, dir)); len(left) > 0 {
			t.Errorf("left in %s: %v", dir, left)
		}
	}
}
