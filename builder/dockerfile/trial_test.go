package dockerfile

import (
	"context"
	"strings"
	"testing"
	"time"

	"github.com/abdul-abdi/lumina/builder"
	"github.com/abdul-abdi/lumina/builder/dockerfile/files"
	"github.com/abdul-abdi/lumina/runtime/image"
)

// The trial of a Dockerfile's image begins before its root is written.
func TestTrialBesideTheRoot(t *testing.T) {
	b := newBench(t)
	b.write(t, "a", "content", 0o644)
	file, err := Parse(strings.NewReader("FROM scratch AS one\nCOPY a /a\nFROM one\nCOPY --from=one a /b\nUSER 7\n"), "Dockerfile")
	if err != nil {
		t.Fatal(err)
	}
	tree, err := files.OpenHost(b.context, nil)
	if err != nil {
		t.Fatal(err)
	}
	defer tree.Close()
	began := make(chan struct{})
	await := func(what string, c <-chan struct{}) {
		select {
		case <-c:
		case <-time.After(time.Minute): // which only ends a hang
			t.Errorf("waited for a minute: %s", what)
		}
	}
	m := Maker(Options{File: file, Context: tree, Log: NewLog(&b.log)})
	o := b.options("trial", func(ctx context.Context, p *builder.Place) error {
		begin := p.Begun
		p.Begun = func() {
			if p.Image.Config.User != "7" || len(p.Image.Layers) != 2 {
				t.Errorf("it begins with an image of %q and %d layers", p.Image.Config.User, len(p.Image.Layers))
			}
			begin()
			await("for the trial to begin", began)
		}
		return m(ctx, p)
	})
	o.Verify = func(_ context.Context, h *image.Handle, whole <-chan struct{}) error {
		defer h.Close()
		select {
		case <-whole:
			t.Error("the root was written before the trial began")
		default:
		}
		close(began)
		await("for the root", whole)
		return nil
	}
	if _, err := builder.Create(t.Context(), o); err != nil {
		t.Fatal(err)
	}
	if got := b.list(t, "trial"); len(got) != 2 {
		t.Errorf("the image has %q", got)
	}
}
