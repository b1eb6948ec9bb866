package main

import (
	"encoding/json"
	"path/filepath"
	"strings"
	"testing"

	"github.com/abdul-abdi/lumina/builder/buildertest"
)

// systemdImage makes an image whose recipe says that its systemd is PID 1.
func systemdImage(t *testing.T, name string) {
	t.Helper()
	needsProgram(t)
	layout, err := buildertest.Debian("amd64", "systemd-sysv", "udev", "dbus")
	if err != nil {
		t.Fatal(err)
	}
	recipe := filepath.Join(t.TempDir(), "systemd.yaml")
	write(t, recipe, "base: oci:"+layout+`:latest
init: systemd
tests:
  - {command: cat /proc/1/comm, stdout: '^systemd\n$'}
`)
	lumina(t, "images", "create", name, "--recipe", recipe).succeeded(t)
	t.Cleanup(func() {
		lumina(t, "images", "remove", name).succeeded(t)
		nothingLeft(t)
	})
}

func TestSystemd(t *testing.T) {
	systemdImage(t, "units")
	var inspected struct{ Init string }
	if err := json.Unmarshal([]byte(lumina(t, "images", "inspect", "units").succeeded(t).stdout), &inspected); err != nil || inspected.Init != "systemd" {
		t.Errorf("image.json says init %q, %v", inspected.Init, err)
	}
	start := func(t *testing.T, args ...string) (do func(args ...string) result, sid string) {
		t.Helper()
		sid = lumina(t, append([]string{"session", "start", "--image", "units"}, args...)...).succeeded(t).SID
		t.Cleanup(func() { lumina(t, "session", "stop", sid).succeeded(t) })
		return func(args ...string) result { return lumina(t, append([]string{"exec", sid}, args...)...) }, sid
	}

	t.Run("a session", func(t *testing.T) {
		lumina(t, "volume", "create", "kept", "--size", "64MB").succeeded(t)
		t.Cleanup(func() { lumina(t, "volume", "remove", "kept").succeeded(t) })
		do, sid := start(t, "--volume", "kept:/srv")
		if r := do("cat /proc/1/comm; systemctl is-system-running --wait; systemctl --failed --no-legend").succeeded(t); r.Stdout != "systemd\nrunning\n" {
			t.Errorf("stdout = %q", r.Stdout)
		}
		// Its names, addresses and volumes are what the host gave.
		if r := do(`[ "$(hostname)" = "$(cat /etc/hostname)" ] && grep -q 10.0.2 /proc/net/fib_trie && findmnt -no FSTYPE /srv; cat /sys/class/net/*/uevent | grep eth0`).succeeded(t); r.Stdout != "ext4\nINTERFACE=eth0\n" {
			t.Errorf("stdout = %q", r.Stdout)
		}
		// A service outlives its exec, and ends when the session is stopped.
		do("systemd-run --quiet --unit=work -p ExecStop='/bin/sh -c \"echo stopped >/srv/end\"' sleep 1000").succeeded(t)
		if r := do("systemctl is-active work").succeeded(t); r.Stdout != "active\n" {
			t.Errorf("stdout = %q", r.Stdout)
		}
		lumina(t, "session", "stop", sid).succeeded(t)
		if r := lumina(t, "run", "--image", "units", "--init", "lumina", "--volume", "kept:/srv", "cat /proc/1/comm /srv/end").succeeded(t); r.Stdout != "init\nstopped\n" {
			t.Errorf("stdout = %q", r.Stdout)
		}
	})
	t.Run("systemd powers off", func(t *testing.T) {
		do, sid := start(t)
		// It spares what begins with an @, up to the end of the machine.
		wait := command("exec", sid, "echo here; exec bash -c 'exec -a @wait sleep 1000'")
		wait.Env = append(wait.Env, "LUMINA_FORMAT=text")
		started(t, "here", wait)
		do("systemctl poweroff")
		if code := waitCode(t, wait); code != exitFailure {
			t.Errorf("a command whose VM ends has exit code %d", code)
		}
	})
	t.Run("a run, which boots cold", func(t *testing.T) {
		r, trace := runRestored(t, "--image", "units", "cat /proc/1/comm; systemctl is-system-running --wait")
		if r.succeeded(t).Stdout != "systemd\nrunning\n" || trace != "boot: cold, since systemd keeps the host name it booted with, so a snapshot cannot be renamed" {
			t.Errorf("%s: stdout = %q", trace, r.Stdout)
		}
	})
	t.Run("an image of it", func(t *testing.T) {
		// Steps do without: what systemd writes as it starts is not theirs.
		lumina(t, "images", "create", "units2", "--from", "units", "--no-verify", "--network", "none", "--run", "cat /proc/1/comm > /init").succeeded(t)
		t.Cleanup(func() { lumina(t, "images", "remove", "units2").succeeded(t) })
		if r := lumina(t, "run", "--image", "units2", "cat /init /proc/1/comm").succeeded(t); r.Stdout != "init\nsystemd\n" {
			t.Errorf("stdout = %q", r.Stdout)
		}
	})
	t.Run("an image without it", func(t *testing.T) {
		r := run(t, "--init", "systemd", "true")
		if r.code != exitFailure || r.Error != "connection_failed" || !strings.Contains(r.stdout+r.stderr, "starting systemd: the image has none") {
			t.Errorf("%+v", r)
		}
	})
	t.Run("another init", func(t *testing.T) {
		if r := run(t, "--init", "upstart", "true"); r.code != exitUsage || !strings.Contains(r.stderr, `"upstart" for "--init" flag: want lumina or systemd`) {
			t.Errorf("%+v", r)
		}
	})
}
