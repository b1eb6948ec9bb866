package supervise

import (
	"os"
	"os/exec"
	"path/filepath"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/abdul-abdi/lumina/runtime/confine"
)

// A supervisor whose VM runs has of the state directory what is its own, and nothing
// else of its user's files.
func TestSettle(t *testing.T) {
	if testing.Short() {
		t.Skip("with -short: it builds a program")
	}
	if confine.Landlock() == 0 {
		t.Fatal("this kernel has no Landlock, and the tests need one that has")
	}
	dir := t.TempDir()
	program := filepath.Join(dir, "settled")
	build := exec.Command("go", "build", "-o", program, "./testdata/settled")
	build.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := build.CombinedOutput(); err != nil {
		t.Fatalf("building: %v\n%s", err, out)
	}
	home, shared := filepath.Join(dir, "home"), filepath.Join(dir, "shared")
	for _, name := range []string{"home/images/image.json", "home/cache/templates/memory", "home/sessions/own/session.json", "home/sessions/other/session.json", ".secret", "shared/file"} {
		name = filepath.Join(dir, name)
		if err := os.MkdirAll(filepath.Dir(name), 0o700); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(name, []byte("{}"), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	out, err := exec.Command(program, home, shared).CombinedOutput()
	if err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	const want = `an image: refused
from another thread: refused
a new image: refused
a template: refused
another session's file: refused
changing it: refused
removing it: refused
the home directory: refused
what was open: done
its own file: done
exchanging its own: done
what is shared: done
the resolver's file: done
who else there is: done
its end: done
`
	if diff := cmp.Diff(want, string(out)); diff != "" {
		t.Errorf("(-want +got)\n%s", diff)
	}
}
