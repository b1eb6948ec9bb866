package vmtest

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/abdul-abdi/lumina/initramfs/protocol"
	"github.com/abdul-abdi/lumina/runtime/client"
	"github.com/abdul-abdi/lumina/runtime/vm"
)

// Target is a driver that [Run] holds to the contract.
type Target struct {
	Driver vm.Driver
	// Spec lays out a machine that boots to an agent, with disks of its own.
	Spec func(t testing.TB) vm.Spec
	// NoAgent lays out one that ends before its agent is up, by itself.
	NoAgent func(t testing.TB) vm.Spec
	// Silent lays out one that runs on and whose agent never answers.
	Silent func(t testing.TB) vm.Spec
	// PowerOff has a configured guest power off, Crash has its kernel panic, and
	// Print has it write a line to its console.
	PowerOff, Crash func(t testing.TB, m vm.Machine)
	Print           func(t testing.TB, m vm.Machine, line string)
	// CrashIsSilent: to the driver, a panic is a reset like another, so that Err
	// is [vm.ErrEnded] itself.
	CrashIsSilent bool
	// Patience bounds each wait.
	Patience time.Duration
}

// Run holds a driver to the contract of package vm, one rule a subtest.
func Run(t *testing.T, target Target) {
	for _, rule := range []struct {
		name string
		hold func(*testing.T, Target)
	}{
		{"a machine answers", machineAnswers},
		{"many streams at once", manyStreams},
		{"kill ends it, once and again", killEnds},
		{"it ends with its context", endsWithContext},
		{"a dead context starts nothing", deadContext},
		{"a guest powers off", powersOff},
		{"a guest crashes", crashes},
		{"a stream of a machine that ends breaks", streamBreaks},
		{"dial after the end", dialAfterEnd},
		{"an end before the agent", endBeforeAgent},
		{"silence ends with the caller's patience", silence},
		{"the console's end is kept", console},
		{"what cannot be is refused", refuses},
		{"snapshots", snapshots},
	} {
		t.Run(rule.name, func(t *testing.T) { rule.hold(t, target) })
	}
}

// started is a machine that is killed when the test ends, and its console told
// when it fails.
func started(t *testing.T, target Target, ctx context.Context, spec vm.Spec) vm.Machine {
	t.Helper()
	if err := spec.Check(); err != nil {
		t.Fatal(err)
	}
	m, err := target.Driver.Start(ctx, spec)
	if err != nil {
		t.Fatal(err)
	}
	watch(t, target, m)
	return m
}

func watch(t *testing.T, target Target, m vm.Machine) {
	t.Cleanup(func() {
		m.Kill()
		ended(t, target, m)
		if t.Failed() {
			t.Logf("ended: %v; console: %s", m.Err(), m.Console())
		}
	})
}

// ended waits for a machine's end.
func ended(t testing.TB, target Target, m vm.Machine) {
	t.Helper()
	select {
	case <-m.Done():
	case <-time.After(target.Patience):
		t.Fatalf("the machine has not ended after %v", target.Patience)
	}
}

func limited(t testing.TB, target Target) context.Context {
	ctx, cancel := context.WithTimeout(context.Background(), target.Patience)
	t.Cleanup(cancel)
	return ctx
}

// configured starts a machine and makes its guest somebody.
func configured(t *testing.T, target Target) vm.Machine {
	t.Helper()
	m := started(t, target, context.Background(), target.Spec(t))
	configure(t, target, m, &protocol.Configure{})
	return m
}

func configure(t testing.TB, target Target, m vm.Machine, c *protocol.Configure) {
	t.Helper()
	if c.Hostname == "" {
		c.Hostname = "vmtest"
	}
	c.MachineID, c.Seed = strings.Repeat("0a", 16), bytes.Repeat([]byte{7}, 64)
	ctx := limited(t, target)
	conn, err := m.Dial(ctx)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := client.Configure(ctx, conn, c); err != nil {
		select {
		case <-m.Done():
			err = errors.Join(err, m.Err())
		case <-time.After(time.Second):
		}
		t.Fatal(err)
	}
}

// Shell runs a command in a configured guest and returns what it printed.
func Shell(ctx context.Context, m vm.Machine, command string) (string, error) {
	conn, err := m.Dial(ctx)
	if err != nil {
		return "", err
	}
	var out bytes.Buffer
	exit, err := client.Exec(ctx, conn, &protocol.Exec{Args: []string{command}, Shell: true, Env: []string{"PATH=/usr/sbin:/usr/bin:/sbin:/bin"}},
		client.Stdio{Stdout: &out, Stderr: &out}, client.Control{})
	if err == nil && exit.Code != 0 {
		err = fmt.Errorf("exit code %d: %s", exit.Code, out.String())
	}
	return out.String(), err
}

func shell(t testing.TB, target Target, m vm.Machine, command, want string) {
	t.Helper()
	if got, err := Shell(limited(t, target), m, command); err != nil || got != want {
		t.Fatalf("%s: %q, %v, want %q", command, got, err, want)
	}
}

func machineAnswers(t *testing.T, target Target) {
	m := configured(t, target)
	shell(t, target, m, "echo $((6 * 7))", "42\n")
	if err := m.Err(); err != nil {
		t.Errorf("a machine that runs has the error %v", err)
	}
	select {
	case <-m.Done():
		t.Error("a machine that runs is done")
	default:
	}
}

func manyStreams(t *testing.T, target Target) {
	m := configured(t, target)
	var wg sync.WaitGroup
	for i := range 20 {
		wg.Go(func() {
			if got, err := Shell(limited(t, target), m, fmt.Sprintf("echo %d", i)); err != nil || got != fmt.Sprintf("%d\n", i) {
				t.Errorf("stream %d: %q, %v", i, got, err)
			}
		})
	}
	wg.Wait()
}

// endedCleanly fails unless a machine's end was somebody's wish.
func endedCleanly(t *testing.T, m vm.Machine) {
	t.Helper()
	if err := m.Err(); err != vm.ErrEnded {
		t.Errorf("Err is %v, want ErrEnded itself", err)
	}
}

func killEnds(t *testing.T, target Target) {
	m := configured(t, target)
	m.Kill()
	m.Kill()
	ended(t, target, m)
	endedCleanly(t, m)
	m.Kill()
	endedCleanly(t, m)
}

func endsWithContext(t *testing.T, target Target) {
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	m := started(t, target, ctx, target.Spec(t))
	configure(t, target, m, &protocol.Configure{})
	cancel()
	ended(t, target, m)
	endedCleanly(t, m)
}

func deadContext(t *testing.T, target Target) {
	because := errors.New("called off")
	ctx, cancel := context.WithCancelCause(context.Background())
	cancel(because)
	m, err := target.Driver.Start(ctx, target.Spec(t))
	if err == nil {
		watch(t, target, m)
	}
	if !errors.Is(err, because) {
		t.Errorf("Start with a context that has ended: %v, want its cause", err)
	}
}

func powersOff(t *testing.T, target Target) {
	m := configured(t, target)
	target.PowerOff(t, m)
	ended(t, target, m)
	endedCleanly(t, m)
}

func crashes(t *testing.T, target Target) {
	m := configured(t, target)
	target.Crash(t, m)
	ended(t, target, m)
	err := m.Err()
	if !errors.Is(err, vm.ErrEnded) {
		t.Errorf("Err is %v, which does not wrap ErrEnded", err)
	}
	if !target.CrashIsSilent && err == vm.ErrEnded {
		t.Error("Err does not say that the guest crashed")
	}
}

func streamBreaks(t *testing.T, target Target) {
	m := configured(t, target)
	conn, err := m.Dial(limited(t, target))
	if err != nil {
		t.Fatal(err)
	}
	result := make(chan error, 1)
	go func() {
		_, err := client.Exec(context.Background(), conn, &protocol.Exec{Args: []string{"sleep 1000"}, Shell: true, Env: []string{"PATH=/usr/bin:/bin"}}, client.Stdio{}, client.Control{})
		result <- err
	}()
	shell(t, target, m, "echo up", "up\n")
	m.Kill()
	select {
	case err := <-result:
		if err == nil {
			t.Error("a command of a machine that was killed succeeded")
		}
	case <-time.After(target.Patience):
		t.Error("a stream outlives its machine")
	}
}

func dialAfterEnd(t *testing.T, target Target) {
	m := configured(t, target)
	m.Kill()
	ended(t, target, m)
	if conn, err := m.Dial(limited(t, target)); !errors.Is(err, vm.ErrEnded) {
		if err == nil {
			conn.Close()
		}
		t.Errorf("Dial after the end: %v, want ErrEnded", err)
	}
}

func endBeforeAgent(t *testing.T, target Target) {
	m, err := target.Driver.Start(context.Background(), target.NoAgent(t))
	if err != nil {
		return // the driver saw it
	}
	watch(t, target, m)
	ctx := limited(t, target)
	conn, err := m.Dial(ctx)
	if err == nil {
		_, err = client.Configure(ctx, conn, &protocol.Configure{Hostname: "x", MachineID: strings.Repeat("0a", 16), Seed: []byte{1}})
	}
	if err == nil || ctx.Err() != nil {
		t.Errorf("configuring a machine that has ended: %v", err)
	}
	ended(t, target, m)
	if !errors.Is(m.Err(), vm.ErrEnded) {
		t.Errorf("Err is %v", m.Err())
	}
}

func silence(t *testing.T, target Target) {
	m := started(t, target, context.Background(), target.Silent(t))
	tired := errors.New("out of patience")
	ctx, cancel := context.WithTimeoutCause(context.Background(), 300*time.Millisecond, tired)
	defer cancel()
	conn, err := m.Dial(ctx)
	if err == nil {
		_, err = client.Configure(ctx, conn, &protocol.Configure{})
	}
	if !errors.Is(err, tired) {
		t.Errorf("a silent agent: %v, want the cause of the context's end", err)
	}
	if err := m.Err(); err != nil {
		t.Errorf("a silent machine runs on, but Err is %v", err)
	}
}

func console(t *testing.T, target Target) {
	spec := target.Spec(t)
	spec.ConsoleTail = 4096
	m := started(t, target, context.Background(), spec)
	configure(t, target, m, &protocol.Configure{})
	for i := range 80 {
		target.Print(t, m, fmt.Sprintf("line %04d of the flood, %s", i, strings.Repeat("x", 40)))
	}
	target.Print(t, m, "the last line")
	target.PowerOff(t, m)
	ended(t, target, m)
	got := m.Console()
	if !strings.Contains(got, "the last line") || strings.Contains(got, "line 0000") {
		t.Errorf("the console's tail is %d bytes: …%.200s", len(got), got[max(0, len(got)-200):])
	}
	if len(got) > 4096+4 { // a cut character may become longer
		t.Errorf("the console's tail has %d bytes, want at most 4096", len(got))
	}
}

func refuses(t *testing.T, target Target) {
	spec := target.Spec(t)
	spec.Arch = "riscv64"
	m, err := target.Driver.Start(context.Background(), spec)
	if err == nil {
		watch(t, target, m)
	}
	if !errors.Is(err, vm.ErrUnsupported) {
		t.Errorf("another architecture: %v, want ErrUnsupported", err)
	}
}

// snapshots: a machine that is saved is restored many times, and the files stay
// as they are. A driver without snapshots says so.
func snapshots(t *testing.T, target Target) {
	driver, ok := target.Driver.(vm.Snapshotter)
	if !ok {
		t.Log("the driver has none")
		return
	}
	spec := target.Spec(t)
	first, err := driver.Fingerprint(context.Background(), spec)
	if errors.Is(err, vm.ErrUnsupported) {
		t.Logf("the driver has none of this machine: %v", err)
		return
	}
	if err != nil || first == "" {
		t.Fatalf("Fingerprint: %q, %v", first, err)
	}
	dir := t.TempDir()
	open := func(name string, size int64) *os.File {
		f, err := os.Create(filepath.Join(dir, name))
		if err == nil {
			err = f.Truncate(size)
		}
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { f.Close() })
		return f
	}
	s := vm.Snapshot{Memory: open("memory", spec.Memory), State: open("state", 0)}
	// again is the snapshot for one more restore.
	again := func() vm.Snapshot {
		reopen := func(f *os.File) *os.File {
			f, err := os.OpenFile(f.Name(), os.O_RDWR, 0)
			if err != nil {
				t.Fatal(err)
			}
			t.Cleanup(func() { f.Close() })
			return f
		}
		return vm.Snapshot{Memory: reopen(s.Memory), State: reopen(s.State)}
	}
	prepare := func(ctx context.Context, m vm.Machine) error {
		configure(t, target, m, &protocol.Configure{Template: true})
		if _, err := Shell(ctx, m, ":"); err != nil {
			return err
		}
		conn, err := m.Dial(ctx)
		if err != nil {
			return err
		}
		return client.PrepareSnapshot(ctx, conn)
	}
	refused := errors.New("not ready")
	if err := driver.Save(limited(t, target), spec, again(), func(context.Context, vm.Machine) error { return refused }); !errors.Is(err, refused) {
		t.Errorf("Save whose preparation fails: %v", err)
	}
	spec = target.Spec(t)
	if err := s.Memory.Truncate(0); err != nil {
		t.Fatal(err)
	}
	if err := s.Memory.Truncate(spec.Memory); err != nil {
		t.Fatal(err)
	}
	if err := driver.Save(limited(t, target), spec, s, prepare); err != nil {
		t.Fatal(err)
	}
	before := digest(t, s)
	// Both run at once, each with disks of its own, of the content that they had.
	var machines []vm.Machine
	for i := range 2 {
		m, err := driver.Restore(context.Background(), sameDisks(t, spec), again())
		if err != nil {
			t.Fatal(err)
		}
		watch(t, target, m)
		configure(t, target, m, &protocol.Configure{Hostname: fmt.Sprintf("twin%d", i)})
		machines = append(machines, m)
	}
	for _, m := range machines {
		shell(t, target, m, "echo restored", "restored\n")
		m.Kill()
		ended(t, target, m)
		endedCleanly(t, m)
	}
	if after := digest(t, s); !bytes.Equal(before, after) {
		t.Error("restoring changed the snapshot")
	}
	if err := s.State.Truncate(1); err != nil {
		t.Fatal(err)
	}
	if m, err := driver.Restore(limited(t, target), sameDisks(t, spec), again()); err == nil {
		watch(t, target, m)
		ended(t, target, m)
		if m.Err() == vm.ErrEnded {
			t.Error("a snapshot that is cut off is restored, and its machine powers off")
		}
	}
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	if m, err := driver.Restore(ctx, sameDisks(t, spec), again()); err == nil {
		watch(t, target, m)
		t.Error("a context that has ended restores a machine")
	}
}

// sameDisks is spec with copies of what is written to.
func sameDisks(t *testing.T, spec vm.Spec) vm.Spec {
	spec.Disks = append([]vm.Disk(nil), spec.Disks...)
	for i, d := range spec.Disks {
		if d.ReadOnly {
			continue
		}
		f, err := os.Create(filepath.Join(t.TempDir(), d.Serial))
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { f.Close() })
		if err := copySparse(f, d.File); err != nil {
			t.Fatal(err)
		}
		spec.Disks[i].File = f
	}
	return spec
}
