package main

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/abdul-abdi/lumina/runtime/vm/vmtest"
)

// A template is made after a start that had none, and then VMs are restored from it.
func TestInMemoryTemplates(t *testing.T) {
	fake := &vmtest.Fake{}
	m := newInMemory(t, fake)
	for range 3 {
		m.lumina("run", "--image", "img", "true").succeeded(t)
	}
	m.lumina("session", "stop", m.started()).succeeded(t)
	machines := fake.Machines() // a run, a template's, three that are restored
	if m.templates != 1 || fake.Saves() != 1 || len(machines) != 5 {
		t.Fatalf("%d templates asked for, %d made, %d machines", m.templates, fake.Saves(), len(machines))
	}
	for i, machine := range machines {
		if machine.Restored() != (i >= 2) {
			t.Errorf("machine %d: restored %t", i, machine.Restored())
		}
	}
	if r := m.lumina("doctor"); !strings.Contains(r.stdout, "1 template, ") {
		t.Errorf("doctor: %s%s", r.stdout, r.stderr)
	}
	if r := m.lumina("run", "--image", "img", "--no-template", "true").succeeded(t); r.code != 0 || fake.Machines()[5].Restored() {
		t.Error("--no-template restores")
	}
	m.lumina("clean", "--templates").succeeded(t)
	m.lumina("run", "--image", "img", "true").succeeded(t)
	if fake.Saves() != 2 {
		t.Errorf("after clean --templates: %d made, want a second one", fake.Saves())
	}
}

// A template that fails at any step costs a start its speed, and nothing else.
func TestInMemoryTemplatesFail(t *testing.T) {
	makerCrashes := func(at int) func(*vmtest.Machine, int) {
		return func(machine *vmtest.Machine, n int) {
			if c := machine.Configured(); n == at && len(c) > 0 && c[0].Template {
				machine.Crash("the test says so")
			}
		}
	}
	restoredCrashes := func(machine *vmtest.Machine, _ int) {
		if machine.Restored() {
			machine.Crash("the test says so")
		}
	}
	// It is lost when the command is on its way, before it has answered.
	lostAsSent := func() *vmtest.Fake {
		sent := make(chan struct{})
		return &vmtest.Fake{
			Dialing: func(machine *vmtest.Machine, n int) {
				if machine.Restored() && n == 2 {
					sent <- struct{}{}
				}
			},
			Configuring: func(machine *vmtest.Machine) {
				if machine.Restored() {
					<-sent
					machine.Crash("the test says so")
				}
			},
		}
	}
	for _, tt := range []struct {
		name string
		fake *vmtest.Fake
		// asked is how often a template is asked for in three runs, and the boot trace of
		// the last run says.
		asked int
		says  string
	}{
		{"there are none", &vmtest.Fake{NoSnapshots: true}, 0, "VMs cannot be restored here"},
		{"saving fails", &vmtest.Fake{SaveError: errors.New("no can do")}, 1, "no can do"},
		{"the maker's VM is lost as it warms up", &vmtest.Fake{Dialing: makerCrashes(2)}, 1, "there is no template"},
		{"the maker's VM is lost as it gets quiet", &vmtest.Fake{Dialing: makerCrashes(3)}, 1, "there is no template"},
		{"restoring fails", &vmtest.Fake{RestoreError: errors.New("bad state")}, 2, "there is no template"},
		{"the host lacks memory", &vmtest.Fake{RestoreError: fmt.Errorf("mmap: %w", syscall.ENOMEM)}, 1, "the host had no memory for the restored VM"},
		{"a restored VM is lost before it answers", &vmtest.Fake{Dialing: restoredCrashes}, 2, "there is no template"},
		{"a restored VM is lost as the command is sent", lostAsSent(), 2, "there is no template"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			m := newInMemory(t, tt.fake)
			m.env["LUMINA_BOOT_TRACE"] = "1"
			var last result
			for range 3 {
				if last = m.pipe("in", "run", "--image", "img", "cat").succeeded(t); last.Stdout != "in" {
					t.Errorf("the run printed %q", last.Stdout)
				}
			}
			if m.templates > tt.asked || !strings.Contains(last.stderr, "boot: cold, since "+tt.says) && !strings.Contains(last.stderr, tt.says) {
				t.Errorf("%d templates asked for, want at most %d; the last run: %s", m.templates, tt.asked, last.stderr)
			}
			sid := m.started()
			m.lumina("exec", sid, "true").succeeded(t)
			m.lumina("session", "stop", sid).succeeded(t)
		})
	}
	t.Run("its files are changed", func(t *testing.T) {
		fake := &vmtest.Fake{}
		m := newInMemory(t, fake)
		m.env["LUMINA_BOOT_TRACE"] = "1"
		m.lumina("run", "--image", "img", "true").succeeded(t)
		states, _ := filepath.Glob(filepath.Join(m.home, "cache/templates/*/state"))
		if len(states) != 1 {
			t.Fatalf("templates: %v", states)
		}
		write(t, states[0], "other")
		if r := m.lumina("run", "--image", "img", "true").succeeded(t); !strings.Contains(r.stderr, `the template was discarded: file "state" was modified`) {
			t.Errorf("the next run: %s", r.stderr)
		}
	})
}

// Volumes, without and with VMs that have them.
func TestInMemoryVolumes(t *testing.T) {
	fake := &vmtest.Fake{}
	m := newInMemory(t, fake)
	m.lumina("volume", "create", "data", "--size", "64MB").succeeded(t)
	for args, says := range map[string]string{
		"volume create data":               "data",
		"volume create a/b":                "a/b",
		"volume create big --size 1":       "size",
		"volume inspect none":              "none",
		"volume remove none":               "none",
		"run --image img -v a,b:/x true":   "a,b",
		"run --image img -v data:x true":   "PATH",
		"run --image img -v /none:/x true": "/none",
	} {
		if r := m.lumina(strings.Fields(args)...); r.code != exitUsage && r.code != exitFailure || !strings.Contains(r.stderr+r.Message, says) {
			t.Errorf("%s: %d, %s%s", args, r.code, r.stdout, r.stderr)
		}
	}
	if n := len(fake.Machines()); n != 0 {
		t.Errorf("%d VMs were started", n)
	}
	dir := t.TempDir()
	sid := m.started("-v", "data:/data", "-v", "new:/new", "-v", dir+":/host:ro")
	spec := fake.Machines()[0].Spec()
	if len(spec.Disks) != 4 || spec.Disks[2].Ephemeral || spec.Disks[2].ReadOnly {
		t.Errorf("the VM has disks %+v", spec.Disks)
	}
	if mounts := fake.Machines()[0].Configured()[0].Mounts; len(mounts) != 3 || mounts[0].Path != "/data" || mounts[1].Path != "/new" || mounts[2].Path != "/host" || !mounts[2].ReadOnly {
		t.Errorf("the guest is told to mount %+v", mounts)
	}
	if r := m.lumina("volume", "inspect", "data").succeeded(t); !strings.Contains(r.stdout, `"in_use":true`) {
		t.Errorf("inspect: %s", r.stdout)
	}
	for _, args := range []string{"volume remove data", "run --image img -v data:/data true", "session start --image img -v new:/x"} {
		if r := m.lumina(strings.Fields(args)...); r.code == 0 || !strings.Contains(r.stderr+r.Message, "in use by another process: session "+sid+"; lumina session stop "+sid+" ends it") {
			t.Errorf("%s of one in use: %d, %s%s", args, r.code, r.stdout, r.stderr)
		}
	}
	m.lumina("session", "stop", sid).succeeded(t)
	m.lumina("run", "--image", "img", "-v", "data:/data", "true").succeeded(t)
	// A VM that is lost gives its volumes back.
	fake.Dialing = crashing(2)
	if r := m.lumina("run", "--image", "img", "-v", "data:/data", "true"); r.code != exitFailure {
		t.Errorf("a run whose VM is lost: %d", r.code)
	}
	fake.Dialing = nil
	m.env["LUMINA_FORMAT"] = "text"
	if r := m.lumina("volume", "list").succeeded(t); !strings.Contains(r.stdout, "data") || !strings.Contains(r.stdout, "new") {
		t.Errorf("list: %s", r.stdout)
	}
	m.lumina("volume", "remove", "data", "new").succeeded(t)
	if left, _ := os.ReadDir(filepath.Join(m.home, "volumes")); len(left) > 0 {
		t.Errorf("left: %v", left)
	}
}

// A state directory that others can write to is used, and said so by each command that
// reads it.
func TestInMemoryHomeOfOthers(t *testing.T) {
	m := newInMemory(t, &vmtest.Fake{})
	const said = "can be written to by all users (mode 0777)"
	for mode, told := range map[os.FileMode]bool{0o700: false, 0o755: false, 0o777: true} {
		if err := os.Chmod(m.home, mode); err != nil {
			t.Fatal(err)
		}
		for _, args := range []string{"run --image img true", "images list", "ps", "volume list", "desktop ls"} {
			r := m.lumina(strings.Fields(args)...).succeeded(t)
			if n := strings.Count(r.stderr, said); n == 1 != told || strings.Contains(r.stdout, said) {
				t.Errorf("mode %04o, lumina %s: it is told %d times: %s", mode, args, n, r.stderr)
			}
		}
		for _, args := range []string{"version", "--version", "help run", "completion bash"} {
			if r := m.lumina(strings.Fields(args)...).succeeded(t); strings.Contains(r.stderr, said) {
				t.Errorf("lumina %s: %s", args, r.stderr)
			}
		}
		if r := m.lumina("doctor"); strings.Contains(r.stdout, said) != told || strings.Contains(r.stderr, said) {
			t.Errorf("mode %04o, doctor: %s%s", mode, r.stdout, r.stderr)
		}
	}
}
