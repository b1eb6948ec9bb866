package runtime

import (
	"sync/atomic"
	"testing"
	"time"

	"github.com/abdul-abdi/lumina/runtime/image"
	"github.com/abdul-abdi/lumina/runtime/network"
	"github.com/abdul-abdi/lumina/runtime/vm/vmtest"
)

// A host that has slept sets its guests' clocks before it asks them for anything else,
// once.
func TestClockAfterSleep(t *testing.T) {
	var set atomic.Int32
	fake := &vmtest.Fake{Clock: func(at time.Time) {
		if d := time.Since(at).Abs(); d > time.Minute {
			t.Errorf("the clock is set to a time %v away", d)
		}
		set.Add(1)
	}}
	home := t.TempDir()
	if err := vmtest.InstallImage(t.Context(), home, "img", image.Config{WorkingDir: home}); err != nil {
		t.Fatal(err)
	}
	r, err := Open(Options{Home: home, Driver: fake})
	if err != nil {
		t.Fatal(err)
	}
	v, err := r.Start(t.Context(), VMOptions{Image: "img", Network: network.ModeNone, Memory: MinMemory, DiskSize: 16 << 20, DiskReserve: NoDiskReserve, NoTemplate: true})
	if err != nil {
		t.Fatal(err)
	}
	defer v.Close()
	var slept, drifted time.Duration
	real := v.clock.read
	v.clock.read = func() reading {
		now := real()
		now.wall = now.wall.Add(slept + drifted)
		return now
	}
	for _, step := range []struct {
		name string
		do   func()
		want int32
	}{
		{"after the start", func() {}, 0},
		{"a little drift", func() { drifted = jump / 2 }, 0},
		{"an hour's sleep", func() { slept = time.Hour }, 1},
		{"once", func() {}, 1},
		{"more drift than may be", func() { drifted += 2 * jump }, 2},
		{"a clock that is set back", func() { slept = 0 }, 3},
	} {
		step.do()
		if exit, err := v.Exec(t.Context(), Command{Shell: "true"}); err != nil || exit.Code != 0 {
			t.Fatalf("%s: %v, %v", step.name, exit, err)
		}
		if got := set.Load(); got != step.want {
			t.Errorf("%s: the clock was set %d times, want %d", step.name, got, step.want)
		}
	}
}
