package runtime

import (
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/abdul-abdi/lumina/runtime/image"
	"github.com/abdul-abdi/lumina/runtime/network"
	"github.com/abdul-abdi/lumina/runtime/vm/vmtest"
)

// A guest is told of the host's room as long as that is little, and of nothing else. That
// it has used all of it is told once, and as long as it is so.
func TestRoom(t *testing.T) {
	const reserve = 100 << 20
	var free atomic.Int64
	var none atomic.Bool
	told := make(chan int64, 1)
	fake := &vmtest.Fake{Room: func(left int64) bool {
		if left != vmtest.Measured {
			select {
			case told <- left:
			default: // the last is waited for
			}
		}
		return none.Load()
	}}
	home := t.TempDir()
	if err := vmtest.InstallImage(t.Context(), home, "img", image.Config{WorkingDir: home}); err != nil {
		t.Fatal(err)
	}
	r, err := Open(Options{Home: home, Driver: fake})
	if err != nil {
		t.Fatal(err)
	}
	r.freeSpace = func(string) (int64, error) { return free.Load(), nil }
	free.Store(reserve + lowRoom + 1)
	v, err := r.Start(t.Context(), VMOptions{Image: "img", Network: network.ModeNone, Memory: MinMemory, DiskSize: 16 << 20, DiskReserve: NoDiskReserve, NoTemplate: true})
	if err != nil {
		t.Fatal(err)
	}
	defer v.Close()
	v.room.mu.Lock()
	v.room.reserve = reserve
	v.room.mu.Unlock()
	until := func(want int64) {
		t.Helper()
		for deadline := time.After(time.Minute); ; {
			select {
			case got := <-told:
				if got == want {
					return
				}
			case <-deadline:
				t.Fatalf("the guest was not told that %d bytes are left", want)
			}
		}
	}
	if report := v.Report(); report != "" {
		t.Errorf("with room: %q", report)
	}
	select {
	case left := <-told:
		t.Errorf("with room, the guest was told %d", left)
	default:
	}
	free.Store(reserve + 8<<20)
	until(8 << 20)
	if report := v.Report(); report != "" {
		t.Errorf("with little room, of which the guest has some: %q", report)
	}
	free.Store(reserve - 1)
	none.Store(true)
	until(0)
	report := v.Report()
	if !strings.Contains(report, "the host's disk is full") || v.ReportSince(report) != report {
		t.Errorf("without room: %q, then %q", report, v.ReportSince(report))
	}
	none.Store(false)
	free.Store(reserve + 1<<30)
	until(-1)
	if since := v.ReportSince(report); v.Report() != report || since != "" {
		t.Errorf("with room again: %q, then %q", v.Report(), since)
	}
}

// Nobody looks for room while there cannot be little of it.
func TestPause(t *testing.T) {
	for left, want := range map[int64]time.Duration{
		-1:                    roomPeriod,
		lowRoom - 1:           roomPeriod,
		lowRoom + fastestFill: time.Second + roomPeriod,
		1 << 60:               time.Minute,
	} {
		if got := pause(left); got != want {
			t.Errorf("pause(%d) = %v, want %v", left, got, want)
		}
	}
}
