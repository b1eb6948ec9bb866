package runtime

import (
	"errors"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/abdul-abdi/lumina/runtime/vm"
)

// named is a driver that opens disks by name.
type named struct{ vm.Driver }

func (named) NamesDisks() bool { return true }

// A process that is killed while it starts a VM leaves a scratch disk, where disks have
// names: clean takes it, and none of a start that goes on.
func TestScratchOfKilledStarts(t *testing.T) {
	r, err := Open(Options{Home: t.TempDir(), Driver: named{}})
	if err != nil {
		t.Fatal(err)
	}
	f, err := r.makeScratch(16 << 20)
	if err != nil {
		t.Fatal(err)
	}
	f.Close()
	other := filepath.Join(filepath.Dir(f.Name()), "other")
	old := time.Now().Add(-2 * abandoned)
	if err := errors.Join(os.WriteFile(other, nil, 0o600), os.Chtimes(other, old, old)); err != nil {
		t.Fatal(err)
	}
	if _, err := r.Clean(t.Context()); err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(f.Name()); err != nil {
		t.Errorf("one that is being used: %v", err)
	}
	if err := os.Chtimes(f.Name(), old, old); err != nil {
		t.Fatal(err)
	}
	if _, err := r.Clean(t.Context()); err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(f.Name()); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("one that was left: %v", err)
	}
	if _, err := os.Stat(other); err != nil {
		t.Errorf("what is not a scratch disk: %v", err)
	}
}
