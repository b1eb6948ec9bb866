package dockerfile

import (
	"archive/tar"
	"context"
	"crypto/sha256"
	"fmt"
	"io"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/abdul-abdi/lumina/builder"
	"github.com/abdul-abdi/lumina/builder/dockerfile/files"
	"github.com/abdul-abdi/lumina/runtime/image"
)

// A step is done again when what it reads is another, and no sooner.
func TestCache(t *testing.T) {
	b := newBench(t)
	const text = "FROM scratch AS one\nCOPY a.txt /a\nCOPY --link b.sh /b\nFROM scratch\nCOPY --from=one / /"
	cached := func(noCache bool) int {
		t.Helper()
		file, err := Parse(strings.NewReader(text), "Dockerfile")
		if err != nil {
			t.Fatal(err)
		}
		context, err := files.OpenHost(b.context, nil)
		if err != nil {
			t.Fatal(err)
		}
		defer context.Close()
		b.log.Reset()
		o := b.options("made", Maker(Options{File: file, Context: context, Dial: new(net.Dialer).DialContext, Log: NewLog(&b.log)}))
		o.NoCache = noCache
		if _, err := builder.Create(t.Context(), o); err != nil {
			t.Fatal(err)
		}
		return strings.Count(b.log.String(), "CACHED")
	}
	now := func(want int, why string) {
		t.Helper()
		if got := cached(false); got != want {
			t.Errorf("%s: %d steps were taken from the cache, want %d\n%s", why, got, want, &b.log)
		}
	}
	now(0, "at first")
	root := func() string {
		content, err := os.ReadFile(filepath.Join(b.home, "images/made", image.Rootfs))
		if err != nil {
			t.Fatal(err)
		}
		return fmt.Sprintf("%x", sha256.Sum256(content))
	}
	first := root()
	now(3, "nothing changed")
	if root() != first {
		t.Error("the same build gave another root")
	}
	b.write(t, "a.txt", "a", 0o644) // at another time
	b.write(t, "other", "x", 0o644)
	now(3, "what is not copied changed")
	b.write(t, "a.txt", "A", 0o644)
	now(1, "a file changed, under a step that is linked")
	b.write(t, "a.txt", "A", 0o600)
	now(1, "a mode changed")
	b.write(t, "a.txt", "a", 0o644)
	now(3, "a file is as before")
	if got := cached(true); got != 0 {
		t.Errorf("--no-cache: %d steps were taken from the cache", got)
	}
}

// countingVM counts the commands that were run; none changes anything.
type countingVM struct{ ran *int }

func (countingVM) Unpack(context.Context, io.Reader) error              { return nil }
func (countingVM) Stage(context.Context, string, bool, io.Reader) error { return nil }
func (countingVM) NextLayer(context.Context, string, []Mount) error     { return nil }
func (v countingVM) Run(context.Context, Command) (int, error)          { *v.ran++; return 0, nil }
func (countingVM) Changes(_ context.Context, w io.Writer) error         { return tar.NewWriter(w).Close() }
func (countingVM) Finish(context.Context) error                         { return nil }

// What RUN made is taken again, but not from a VM of another kernel or agent, which
// may have given something else.
func TestRunCacheKnowsItsVM(t *testing.T) {
	b := newBench(t)
	ran := 0
	build := func(initramfs string, text ...string) {
		t.Helper()
		file, err := Parse(strings.NewReader("FROM scratch"+append(text, "\nRUN [\"/x\"]")[0]+"\n"), "Dockerfile")
		if err != nil {
			t.Fatal(err)
		}
		o := b.options("made", Maker(Options{File: file, Log: NewLog(io.Discard),
			Start: func(context.Context, Start) (VM, error) { return countingVM{&ran}, nil }}))
		o.Initramfs = func(string) ([]byte, error) { return []byte(initramfs), nil }
		if _, err := builder.Create(t.Context(), o); err != nil {
			t.Fatal(err)
		}
	}
	for n, step := range []struct {
		initramfs string
		want      int
	}{{"070701", 1}, {"070701", 1}, {"070701 of another agent", 2}, {"070701", 2}} {
		if build(step.initramfs); ran != step.want {
			t.Fatalf("build %d: %d commands were run, want %d", n+1, ran, step.want)
		}
	}
	// What another one left in its VM counts, whatever it says that it has changed: the
	// layers of /a and /b are the same.
	const last = "FROM one\nRUN [\"/last\"]"
	for n, step := range []struct {
		first string
		want  int
	}{{`RUN ["/a"]`, 4}, {`RUN ["/b"]`, 6}, {`RUN ["/b"]`, 6}, {`RUN ["/a"]`, 6}} {
		if build("070701", " AS one\n"+step.first+"\n"+last); ran != step.want {
			t.Fatalf("build %d of two: %d commands were run, want %d", n+1, ran, step.want)
		}
	}
}
