package vmtest_test

import (
	"testing"
	"time"

	"github.com/abdul-abdi/lumina/runtime/vm"
	"github.com/abdul-abdi/lumina/runtime/vm/vmtest"
)

// The driver in memory keeps the contract that it stands in for.
func TestFake(t *testing.T) {
	driver := &vmtest.Fake{}
	spec := func(t testing.TB) vm.Spec {
		s, err := vmtest.Spec(t.TempDir())
		if err != nil {
			t.Fatal(err)
		}
		return s
	}
	// once makes the next machine one that fails.
	once := func(t testing.TB, field *bool) vm.Spec {
		*field = true
		t.Cleanup(func() { *field = false })
		return spec(t)
	}
	vmtest.Run(t, vmtest.Target{
		Driver:   driver,
		Spec:     spec,
		NoAgent:  func(t testing.TB) vm.Spec { return once(t, &driver.EndBeforeAgent) },
		Silent:   func(t testing.TB) vm.Spec { return once(t, &driver.Silent) },
		PowerOff: func(_ testing.TB, m vm.Machine) { m.(*vmtest.Machine).PowerOff() },
		Crash:    func(_ testing.TB, m vm.Machine) { m.(*vmtest.Machine).Crash("kernel panic") },
		Print:    func(_ testing.TB, m vm.Machine, line string) { m.(*vmtest.Machine).Print(line + "\n") },
		Patience: 10 * time.Second,
	})
}
