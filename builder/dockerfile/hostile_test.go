package dockerfile

import (
	"archive/tar"
	"context"
	"errors"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/abdul-abdi/lumina/builder"
	"github.com/abdul-abdi/lumina/runtime/image"
)

// hostileVM is a guest whose agent has been replaced: it says that all went well, and
// what has changed has no end.
type hostileVM struct{ said []byte }

func (*hostileVM) Unpack(_ context.Context, r io.Reader) error {
	_, err := io.Copy(io.Discard, r)
	return err
}
func (v *hostileVM) Stage(ctx context.Context, _ string, _ bool, r io.Reader) error {
	return v.Unpack(ctx, r)
}
func (*hostileVM) NextLayer(context.Context, string, []Mount) error { return nil }
func (*hostileVM) Run(context.Context, Command) (int, error)        { return 0, nil }
func (*hostileVM) Finish(context.Context) error                     { return nil }
func (v *hostileVM) Changes(ctx context.Context, w io.Writer) error {
	for ctx.Err() == nil {
		if _, err := w.Write(v.said); err != nil {
			return err
		}
	}
	return context.Cause(ctx)
}

// changesVM is a guest whose agent says what it likes of what has changed.
type changesVM struct {
	hostileVM
	said []byte
	asks *int
}

func (v *changesVM) Changes(_ context.Context, w io.Writer) error {
	*v.asks++
	_, err := w.Write(v.said)
	return err
}

// A layer that nobody can apply fails the build that it was made in, and is not taken
// from the cache by a later one: its step is run again.
func TestBrokenLayersAreNotKept(t *testing.T) {
	whole := archive(t, false, tar.Header{Name: "f", Typeflag: tar.TypeReg, Mode: 0o644})
	for _, tt := range []struct{ name, said, after string }{
		{"junk", strings.Repeat("\x1b[2Jjunk\n", 100), ""},
		{"junk below", strings.Repeat("junk", 1000), "\nRUN [\"y\"]\nCOPY a.txt /"},
		{"cut", whole[:514], ""},
		{"above", archive(t, false, tar.Header{Name: "../f", Typeflag: tar.TypeReg, Mode: 0o644}), ""},
		{"no target", archive(t, false, tar.Header{Name: "f", Linkname: "none", Typeflag: tar.TypeLink}), ""},
		{"device", archive(t, false, tar.Header{Name: "f", Typeflag: tar.TypeChar, Devmajor: 1 << 13}), ""},
	} {
		t.Run(tt.name, func(t *testing.T) {
			b := newBench(t)
			asks, said := 0, tt.said
			build := func() error {
				_, err := b.build(t, "made", "FROM scratch\nRUN [\"x\"]"+tt.after, func(o *Options) {
					o.Start = func(context.Context, Start) (VM, error) { return &changesVM{said: []byte(said), asks: &asks}, nil }
				})
				return err
			}
			for n := range 2 {
				before := asks
				if err := build(); err == nil || strings.Contains(err.Error(), "\x1b") {
					t.Fatalf("build %d: error %v", n+1, err)
				}
				if asks == before {
					t.Errorf("build %d has taken the layer from the cache", n+1)
				}
			}
			if keys, _ := filepath.Glob(filepath.Join(b.home, "cache/steps/*.json")); len(keys) > strings.Count(tt.after, "\n") {
				t.Errorf("the cache keeps the steps %q", keys)
			}
			said = whole
			if err := build(); err != nil {
				t.Errorf("with a whole layer: %v", err)
			}
			if err, before := build(), asks; err != nil || asks != before {
				t.Errorf("once more: error %v, %d commands were run", err, asks-before)
			}
		})
	}
}

// Neither a guest nor a server that sends without an end fills the host, and one that
// sends nothing more is not waited for. Nothing of it is kept.
func TestHostilePeersOfABuild(t *testing.T) {
	stop := make(chan struct{})
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		switch r.URL.Path {
		case "/endless":
			for {
				if _, err := w.Write(make([]byte, 64<<10)); err != nil {
					return
				}
			}
		case "/drops":
			for r.Context().Err() == nil {
				_, _ = io.WriteString(w, "x")
				w.(http.Flusher).Flush()
				time.Sleep(10 * time.Millisecond) // the speed is what is tested
			}
		case "/silent":
			_, _ = io.WriteString(w, "part")
			w.(http.Flusher).Flush()
			select {
			case <-stop:
			case <-r.Context().Done():
			}
		}
	}))
	defer server.Close()
	defer close(stop)
	withPassword := strings.Replace(server.URL, "://", "://user:hunter2@", 1)
	for _, tt := range []struct{ name, text, want string }{
		{"changes", "FROM scratch\nRUN [\"x\"]", builder.ErrTooLarge.Error()},
		{"endless", "FROM scratch\nADD " + withPassword + "/endless /x", builder.ErrTooLarge.Error()},
		{"silent", "FROM scratch\nADD " + withPassword + "/silent /x", "fewer than 60 KiB came in"},
		{"drops", "FROM scratch\nADD " + withPassword + "/drops /x", "fewer than 60 KiB came in"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			b := newBench(t)
			file, err := Parse(strings.NewReader(tt.text), "Dockerfile")
			if err != nil {
				t.Fatal(err)
			}
			o := Options{File: file, Dial: new(net.Dialer).DialContext, Log: NewLog(io.Discard), Args: map[string]string{},
				Start: func(context.Context, Start) (VM, error) { return &hostileVM{make([]byte, 64<<10)}, nil }}
			options := b.options("made", func(ctx context.Context, p *builder.Place) error {
				build, err := newBuild(ctx, o, p)
				if err != nil {
					return err
				}
				build.silence = 100 * time.Millisecond
				return build.run()
			})
			options.MaxSize = 1 << 20
			ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
			defer cancel()
			_, err = builder.Create(ctx, options)
			if err == nil || errors.Is(err, context.DeadlineExceeded) || !strings.Contains(err.Error(), tt.want) {
				t.Errorf("error %v, want %q", err, tt.want)
			}
			if err != nil && strings.Contains(err.Error(), "hunter2") {
				t.Errorf("the error tells the password: %v", err)
			}
			if _, err := image.NewStore(filepath.Join(b.home, "images")).Open("made"); !errors.Is(err, image.ErrNotFound) {
				t.Errorf("the image: %v", err)
			}
			_ = filepath.WalkDir(b.home, func(path string, e os.DirEntry, _ error) error {
				if info, err := e.Info(); err == nil && info.Mode().IsRegular() && info.Size() > 0 {
					t.Errorf("%s is left, of %d bytes", path, info.Size())
				}
				return nil
			})
		})
	}
}
