package runtime_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/abdul-abdi/lumina/runtime"
	"github.com/abdul-abdi/lumina/runtime/image"
	"github.com/abdul-abdi/lumina/runtime/network"
	"github.com/abdul-abdi/lumina/runtime/template"
	"github.com/abdul-abdi/lumina/runtime/vm"
	"github.com/abdul-abdi/lumina/runtime/vm/vmtest"
)

// open opens a state directory with an image; its VMs are in the memory of this
// process.
func open(t *testing.T, fake *vmtest.Fake) *runtime.Runtime {
	t.Helper()
	home := t.TempDir()
	if err := vmtest.InstallImage(t.Context(), home, "img", image.Config{WorkingDir: home, Env: []string{"FROM=image"}}); err != nil {
		t.Fatal(err)
	}
	r, err := runtime.Open(runtime.Options{Home: home, Driver: fake})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { nothingLeft(t, fake, home) })
	return r
}

// nothingLeft checks that every machine has ended and no scratch disk has a name.
func nothingLeft(t *testing.T, fake *vmtest.Fake, home string) {
	t.Helper()
	for i, m := range fake.Machines() {
		select {
		case <-m.Done():
		case <-time.After(10 * time.Second):
			t.Errorf("machine %d of %d runs on", i+1, len(fake.Machines()))
		}
	}
	if left, _ := os.ReadDir(filepath.Join(home, "runs")); len(left) > 0 {
		t.Errorf("left in runs: %v", left)
	}
}

func small() runtime.VMOptions {
	return runtime.VMOptions{Image: "img", Network: network.ModeNone, Memory: runtime.MinMemory, DiskSize: 16 << 20, DiskReserve: runtime.NoDiskReserve}
}

func shell(command string) runtime.RunOptions {
	return runtime.RunOptions{VM: small(), Command: runtime.Command{Shell: command}}
}

func kind(err error) runtime.ErrorKind {
	var e *runtime.Error
	if errors.As(err, &e) {
		return e.Kind
	}
	return ""
}

func TestRunRestoresOnceThereIsATemplate(t *testing.T) {
	fake := &vmtest.Fake{}
	r := open(t, fake)
	for _, want := range []runtime.ColdReason{runtime.ColdNoTemplate, ""} {
		o := shell(`echo "$FROM"; cat; echo err >&2; exit 3`)
		o.Command.Stdin = strings.NewReader("in\n")
		result, err := r.Run(t.Context(), o)
		if err != nil || result.ExitCode != 3 || string(result.Stdout) != "image\nin\n" || string(result.Stderr) != "err\n" {
			t.Fatalf("Run() = %+v, %v", result, err)
		}
		if result.Trace.Cold.Reason != want || result.Boot <= 0 || result.Duration < result.Boot {
			t.Errorf("cold: %v, want %q; boot %v of %v", result.Trace.Cold, want, result.Boot, result.Duration)
		}
		if result.Trace.Cold.WantsTemplate() {
			if err := errors.Join(r.MakeTemplate(t.Context(), small()), r.MakeTemplate(t.Context(), small())); err != nil {
				t.Fatal(err)
			}
		}
	}
	if fake.Saves() != 1 {
		t.Errorf("%d snapshots were made, want 1", fake.Saves())
	}
	machines := fake.Machines() // of a run, a template, a run
	restored := machines[len(machines)-1]
	if !restored.Restored() || machines[0].Restored() {
		t.Error("the last run is not the one that was restored")
	}
	if a, b := machines[0].Configured()[0], restored.Configured()[0]; a.Hostname == b.Hostname || a.MachineID == b.MachineID || bytes.Equal(a.Seed, b.Seed) || b.Template {
		t.Errorf("two VMs are twins: %+v, %+v", a, b)
	}
}

func TestColdReasons(t *testing.T) {
	templateFile := func(t *testing.T, r *runtime.Runtime, name string) string {
		files, err := filepath.Glob(filepath.Join(r.Home(), "cache/templates/*", name))
		if err != nil || len(files) != 1 {
			t.Fatalf("templates: %v, %v", files, err)
		}
		return files[0]
	}
	tests := []struct {
		name    string
		prepare func(t *testing.T, r *runtime.Runtime, fake *vmtest.Fake, o *runtime.VMOptions)
		reason  runtime.ColdReason
		says    string
	}{
		{"switched off", func(_ *testing.T, _ *runtime.Runtime, _ *vmtest.Fake, o *runtime.VMOptions) { o.NoTemplate = true }, runtime.ColdOff, "switched off"},
		{"volumes", func(_ *testing.T, _ *runtime.Runtime, _ *vmtest.Fake, o *runtime.VMOptions) {
			o.Volumes = []runtime.Volume{{Name: "data", Path: "/data"}}
		}, runtime.ColdVolumes, "volumes"},
		{"systemd", func(_ *testing.T, _ *runtime.Runtime, _ *vmtest.Fake, o *runtime.VMOptions) {
			o.Init = image.InitSystemd
		}, runtime.ColdSystemd, "host name"},
		{"a driver without snapshots", func(_ *testing.T, _ *runtime.Runtime, f *vmtest.Fake, _ *runtime.VMOptions) { f.NoSnapshots = true }, runtime.ColdDriver, "not supported"},
		{"another shape", func(t *testing.T, r *runtime.Runtime, _ *vmtest.Fake, o *runtime.VMOptions) {
			if err := r.MakeTemplate(t.Context(), *o); err != nil {
				t.Fatal(err)
			}
			o.CPUs = 3
		}, runtime.ColdNoTemplate, "no template yet"},
		{"no rehearsals", func(t *testing.T, r *runtime.Runtime, _ *vmtest.Fake, o *runtime.VMOptions) {
			if err := r.MakeTemplate(t.Context(), *o); err != nil {
				t.Fatal(err)
			}
			o.NoRehearsal = true
		}, runtime.ColdNoTemplate, "no template yet"},
		{"none with a directory, which takes no device", func(t *testing.T, r *runtime.Runtime, _ *vmtest.Fake, o *runtime.VMOptions) {
			o.Volumes = []runtime.Volume{{Dir: t.TempDir(), Path: "/host"}}
			if err := r.MakeTemplate(t.Context(), *o); err != nil {
				t.Fatal(err)
			}
		}, "", ""},
		{"one that could not be made", func(t *testing.T, r *runtime.Runtime, f *vmtest.Fake, o *runtime.VMOptions) {
			f.SaveError = errors.New("no can do")
			if err := r.MakeTemplate(t.Context(), *o); !errors.Is(err, f.SaveError) {
				t.Errorf("MakeTemplate() = %v", err)
			}
		}, runtime.ColdNotMade, "no can do"},
		{"one that was given up", func(t *testing.T, r *runtime.Runtime, f *vmtest.Fake, o *runtime.VMOptions) {
			ctx, cancel := context.WithCancel(t.Context())
			f.Dialing = func(*vmtest.Machine, int) { cancel() }
			if err := r.MakeTemplate(ctx, *o); !errors.Is(err, context.Canceled) {
				t.Errorf("MakeTemplate() = %v", err)
			}
			f.Dialing = nil
		}, runtime.ColdNoTemplate, "no template yet"},
		{"a modified one", func(t *testing.T, r *runtime.Runtime, _ *vmtest.Fake, o *runtime.VMOptions) {
			if err := r.MakeTemplate(t.Context(), *o); err != nil {
				t.Fatal(err)
			}
			if err := os.WriteFile(templateFile(t, r, "state"), []byte("other"), 0o600); err != nil {
				t.Fatal(err)
			}
		}, runtime.ColdModified, `file "state" was modified`},
		{"one that does not start", func(t *testing.T, r *runtime.Runtime, f *vmtest.Fake, o *runtime.VMOptions) {
			if err := r.MakeTemplate(t.Context(), *o); err != nil {
				t.Fatal(err)
			}
			f.RestoreError = errors.New("bad state")
		}, runtime.ColdFailed, "bad state"},
		{"one whose guest ends before it answers", func(t *testing.T, r *runtime.Runtime, f *vmtest.Fake, o *runtime.VMOptions) {
			if err := r.MakeTemplate(t.Context(), *o); err != nil {
				t.Fatal(err)
			}
			// At the second stream the command is on its way.
			sent := make(chan struct{})
			f.Dialing = func(m *vmtest.Machine, n int) {
				if m.Restored() && n == 2 {
					close(sent)
				}
			}
			f.Configuring = func(m *vmtest.Machine) {
				if m.Restored() {
					<-sent
					m.Crash("lost its memory")
				}
			}
		}, runtime.ColdFailed, "lost its memory"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			fake := &vmtest.Fake{}
			r := open(t, fake)
			o := shell("cat")
			tt.prepare(t, r, fake, &o.VM)
			// The command of a guest that did not answer has read none of it.
			o.Command.Stdin = strings.NewReader("input")
			result, err := r.Run(t.Context(), o)
			if err != nil || string(result.Stdout) != "input" {
				t.Fatalf("Run() = %+v, %v", result, err)
			}
			if cold := result.Trace.Cold; cold.Reason != tt.reason || !strings.Contains(cold.Error(), tt.says) {
				t.Errorf("cold: %#v, want %q with %q", cold, tt.reason, tt.says)
			}
			if tt.reason == runtime.ColdFailed || tt.reason == runtime.ColdModified {
				if count, _, err := r.Templates.Usage(); count != 0 || err != nil {
					t.Errorf("%d templates are left, %v", count, err)
				}
			}
		})
	}
}

func TestTemplateFailsAtEachStep(t *testing.T) {
	for n := 1; n <= 3; n++ { // configuration, warm-up, quiet
		t.Run(fmt.Sprintf("stream %d", n), func(t *testing.T) {
			fake := &vmtest.Fake{Dialing: func(m *vmtest.Machine, at int) {
				if at == n {
					m.Crash("at the wrong time")
				}
			}}
			r := open(t, fake)
			if err := r.MakeTemplate(t.Context(), small()); err == nil {
				t.Fatal("MakeTemplate() of a VM that ended: no error")
			}
			if count, _, err := r.Templates.Usage(); count != 0 || err != nil {
				t.Errorf("%d templates are left, %v", count, err)
			}
			if failures := r.Templates.Failures(); len(failures) != 1 {
				t.Errorf("failures: %v", failures)
			}
		})
	}
}

// A VM that ends at any step ends the run, with what there is of its output.
func TestRunLosesItsVM(t *testing.T) {
	tests := []struct {
		name string
		at   int // stream, after which the machine crashes
		kind runtime.ErrorKind
	}{
		{"before it is configured", 1, runtime.ConnectionFailed},
		{"as a file is copied in", 2, runtime.ConnectionFailed},
		{"as the command starts", 3, runtime.ConnectionFailed},
		{"as a file is copied out", 4, ""},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			fake := &vmtest.Fake{Dialing: func(m *vmtest.Machine, n int) {
				if n == tt.at {
					m.Print("a last word\n")
					m.Crash("no more")
				}
			}}
			r := open(t, fake)
			dir := t.TempDir()
			in, out := filepath.Join(dir, "in"), filepath.Join(dir, "out")
			if err := os.WriteFile(in, []byte("x"), 0o600); err != nil {
				t.Fatal(err)
			}
			o := shell("echo done")
			o.Copies = []runtime.Copy{{From: in, To: filepath.Join(dir, "guest")}}
			o.Downloads = []runtime.Copy{{From: filepath.Join(dir, "guest"), To: out}}
			result, err := r.Run(t.Context(), o)
			if kind(err) != tt.kind {
				t.Errorf("Run() = %+v, %v, want %q", result, err, tt.kind)
			}
			if tt.kind != "" && (!strings.Contains(err.Error(), "no more") || !strings.Contains(err.Error(), "a last word")) {
				t.Errorf("the error does not say why: %v", err)
			}
			if _, statErr := os.Stat(out); statErr == nil {
				t.Error("there is a download")
			}
			if tt.kind == "" && (result.TransferError == nil || string(result.Stdout) != "done\n") {
				t.Errorf("a download that failed: %+v", result)
			}
		})
	}
}

// onWrite calls do with the first output.
type onWrite struct {
	bytes.Buffer
	do func()
}

func (w *onWrite) Write(p []byte) (int, error) {
	n, err := w.Buffer.Write(p)
	if w.do != nil {
		w.do()
		w.do = nil
	}
	return n, err
}

func TestRunEndsUnderItsCommand(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	fake := &vmtest.Fake{}
	last := func() *vmtest.Machine { m := fake.Machines(); return m[len(m)-1] }
	tests := []struct {
		name    string
		ctx     context.Context
		do      func()
		timeout time.Duration
		check   func(error) bool
	}{
		{"crash", t.Context(), func() { last().Crash("no more") }, 0, func(err error) bool {
			return kind(err) == runtime.VMCrashed && strings.Contains(err.Error(), "no more")
		}},
		{"power off", t.Context(), func() { last().PowerOff() }, 0, func(err error) bool {
			return kind(err) == runtime.VMCrashed && strings.Contains(err.Error(), "ended unexpectedly")
		}},
		{"timeout", t.Context(), nil, 200 * time.Millisecond, func(err error) bool { return kind(err) == runtime.Timeout }},
		{"cancelled", ctx, cancel, 0, func(err error) bool { return errors.Is(err, context.Canceled) && kind(err) == "" }},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			r := open(t, fake)
			o := shell("echo begun; sleep 60")
			o.Command.Timeout = tt.timeout
			o.Command.Stdio = runtime.Stdio{Stdout: &onWrite{do: tt.do}}
			result, err := r.Run(tt.ctx, o)
			if !tt.check(err) {
				t.Errorf("Run() = %+v, %v", result, err)
			}
			if tt.name != "timeout" && o.Command.Stdout.(*onWrite).String() != "begun\n" {
				t.Errorf("it printed %q", o.Command.Stdout.(*onWrite).String())
			}
		})
	}
}

func TestRunThatDoesNotStart(t *testing.T) {
	tests := []struct {
		name string
		fake *vmtest.Fake
		says string
	}{
		{"the driver refuses", &vmtest.Fake{StartError: errors.New("no hypervisor")}, "no hypervisor"},
		{"no init", &vmtest.Fake{EndBeforeAgent: true}, "no init found"},
		{"its init refuses", &vmtest.Fake{ConfigureError: errors.New("no eth0")}, "no eth0"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			r := open(t, tt.fake)
			result, err := r.Run(t.Context(), shell("echo never"))
			if kind(err) != runtime.ConnectionFailed || !strings.Contains(err.Error(), tt.says) || !strings.Contains(err.Error(), `image "img"`) {
				t.Errorf("Run() = %v, want connection_failed with %q", err, tt.says)
			}
			if len(result.Stdout) > 0 || result.Boot != 0 {
				t.Errorf("it ran: %+v", result)
			}
		})
	}
	// Once is the host's fault, and nobody's concern.
	t.Run("reset before its agent answers", func(t *testing.T) {
		for resets, says := range map[int]string{1: "", 2: vm.ErrEarlyReset.Error()} {
			fake := &vmtest.Fake{EarlyResets: resets}
			r := open(t, fake)
			result, err := r.Run(t.Context(), shell("echo once"))
			if says == "" {
				told := slices.ContainsFunc(result.Trace.Marks, func(m runtime.Mark) bool { return strings.HasSuffix(m.Name, "booted once more") })
				if err != nil || string(result.Stdout) != "once\n" || !told {
					t.Errorf("%d: %q, %v; told: %t", resets, result.Stdout, err, told)
				}
			} else if kind(err) != runtime.ConnectionFailed || !strings.Contains(err.Error(), says) {
				t.Errorf("%d: Run() = %v", resets, err)
			}
			if n := len(fake.Machines()); n != 2 {
				t.Errorf("%d: %d machines", resets, n)
			}
		}
	})
	t.Run("reset as its template is made", func(t *testing.T) {
		fake := &vmtest.Fake{EarlyResets: 1}
		r := open(t, fake)
		if err := r.MakeTemplate(t.Context(), small()); err != nil || fake.Saves() != 1 || len(fake.Machines()) != 2 {
			t.Errorf("%v, %d snapshots of %d machines", err, fake.Saves(), len(fake.Machines()))
		}
		result, err := r.Run(t.Context(), shell("echo right"))
		if err != nil || string(result.Stdout) != "right\n" || result.Trace.Cold.Reason != "" {
			t.Errorf("%q, %v, %v", result.Stdout, err, result.Trace.Cold)
		}
	})
	t.Run("cancelled as it boots", func(t *testing.T) {
		cause := errors.New("changed my mind")
		ctx, cancel := context.WithCancelCause(t.Context())
		fake := &vmtest.Fake{Silent: true, Dialing: func(_ *vmtest.Machine, n int) {
			if n == 2 { // the command is on its way
				cancel(cause)
			}
		}}
		if _, err := open(t, fake).Run(ctx, shell("echo never")); !errors.Is(err, cause) {
			t.Errorf("Run() = %v", err)
		}
	})
	t.Run("what is found before a VM starts", func(t *testing.T) {
		fake := &vmtest.Fake{}
		r := open(t, fake)
		missing := shell("true")
		missing.VM.Image = "other"
		_, missingErr := r.Run(t.Context(), missing)
		_, commandErr := r.Run(t.Context(), runtime.RunOptions{VM: small()})
		if !errors.Is(missingErr, image.ErrNotFound) || !errors.Is(commandErr, runtime.ErrNoCommand) || len(fake.Machines()) > 0 {
			t.Errorf("Run() = %v and %v; %d machines", missingErr, commandErr, len(fake.Machines()))
		}
	})
}

func TestRunCopies(t *testing.T) {
	r := open(t, &vmtest.Fake{})
	dir := t.TempDir()
	if err := os.WriteFile(filepath.Join(dir, "in"), []byte("content"), 0o600); err != nil {
		t.Fatal(err)
	}
	o := shell("tr a-z A-Z < guest-in > guest-out")
	o.Copies = []runtime.Copy{{From: filepath.Join(dir, "in"), To: "guest-in"}}
	o.Downloads = []runtime.Copy{{From: "not-there", To: filepath.Join(dir, "none")}, {From: "guest-out", To: filepath.Join(dir, "out")}}
	result, err := r.Run(t.Context(), o)
	if err != nil || result.ExitCode != 0 || result.TransferError == nil || !strings.Contains(result.TransferError.Error(), "not-there") {
		t.Fatalf("Run() = %+v, %v", result, err)
	}
	if got, err := os.ReadFile(filepath.Join(dir, "out")); string(got) != "CONTENT" {
		t.Errorf("the download is %q, %v", got, err)
	}
}

// Makers race; one template comes of it, and starts meanwhile are cold.
func TestTemplateMakersRace(t *testing.T) {
	fake := &vmtest.Fake{}
	r := open(t, fake)
	done := make(chan error)
	for range 4 {
		go func() { done <- r.MakeTemplate(t.Context(), small()) }()
	}
	for range 4 {
		if err := <-done; err != nil {
			t.Error(err)
		}
	}
	if count, _, err := r.Templates.Usage(); count != 1 || fake.Saves() != 1 || err != nil {
		t.Errorf("%d templates of %d snapshots, %v", count, fake.Saves(), err)
	}
	if _, err := r.Templates.Open("00"); !errors.Is(err, template.ErrNone) {
		t.Errorf("Open() of another: %v", err)
	}
}
