package builder

import (
	"archive/tar"
	"bytes"
	"context"
	"errors"
	"io"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"testing/iotest"

	"github.com/abdul-abdi/lumina/builder/buildertest"
	"github.com/abdul-abdi/lumina/runtime/image"
)

// largestBlob is the layer of a layout of one layer.
func largestBlob(t testing.TB, layout string) string {
	t.Helper()
	blobs, err := filepath.Glob(filepath.Join(layout, "blobs/sha256/*"))
	if err != nil {
		t.Fatal(err)
	}
	largest, size := "", int64(-1)
	for _, b := range blobs {
		if info, err := os.Stat(b); err == nil && info.Size() > size {
			largest, size = b, info.Size()
		}
	}
	return largest
}

// files lists a tree, to see that nothing came of a failure.
func files(dir string) string {
	var list []string
	_ = filepath.WalkDir(dir, func(path string, _ os.DirEntry, err error) error {
		if err == nil && path != dir {
			list = append(list, strings.TrimPrefix(path, dir))
		}
		return nil
	})
	return strings.Join(list, "\n")
}

func TestCreateRefuses(t *testing.T) {
	random := strings.Repeat("incompressible? ", 1<<14)
	good := layer(t, file("a", random))
	tests := []struct {
		name    string
		prepare func(t *testing.T, o *Options)
		want    string // part of the message
	}{
		{"layout that is not there", func(t *testing.T, o *Options) { o.Reference = "oci:" + t.TempDir() + "/none" }, "not found"},
		{"directory that is not a layout", func(t *testing.T, o *Options) { o.Reference = "oci:" + t.TempDir() }, "not an OCI layout"},
		{"tag that is not there", func(t *testing.T, o *Options) { o.Reference += ":nope" }, `tag "nope"`},
		{"archive that is not there", func(t *testing.T, o *Options) { o.Reference = "docker-archive:/nonexistent.tar" }, "not found"},
		{"archive that is none", func(t *testing.T, o *Options) {
			path := filepath.Join(t.TempDir(), "x.tar")
			if err := os.WriteFile(path, []byte(random), 0o644); err != nil {
				t.Fatal(err)
			}
			o.Reference = "oci-archive:" + path
		}, "archive"},
		{"registry that is down", func(t *testing.T, o *Options) { o.Reference = "127.0.0.1:1/debian:12" }, "connection refused"},
		{"image that the registry does not have", func(t *testing.T, o *Options) { o.Reference = buildertest.Registry(t) + "/debian:12" }, "not found"},
		{"reference that is none", func(t *testing.T, o *Options) { o.Reference = "UPPER CASE" }, "not an image reference"},
		{"wrong architecture", func(t *testing.T, o *Options) { o.Architecture = "arm64" }, "--platform linux/amd64"},
		{"flipped byte in a layer", func(t *testing.T, o *Options) {
			blob := largestBlob(t, strings.TrimPrefix(o.Reference, "oci:"))
			b, err := os.ReadFile(blob)
			if err != nil {
				t.Fatal(err)
			}
			b[len(b)/2] ^= 0x40
			if err := os.WriteFile(blob, b, 0o644); err != nil {
				t.Fatal(err)
			}
		}, "not what its digest says"},
		{"descriptor that misstates a size", func(t *testing.T, o *Options) {
			dir := strings.TrimPrefix(o.Reference, "oci:")
			b, err := os.ReadFile(filepath.Join(dir, "index.json"))
			if err != nil {
				t.Fatal(err)
			}
			b = regexp.MustCompile(`"size": ?\d+`).ReplaceAll(b, []byte(`"size":1`))
			if err := os.WriteFile(filepath.Join(dir, "index.json"), b, 0o644); err != nil {
				t.Fatal(err)
			}
		}, "its descriptor says 1"},
		{"layer that is cut off", func(t *testing.T, o *Options) {
			if err := os.Truncate(largestBlob(t, strings.TrimPrefix(o.Reference, "oci:")), 300); err != nil {
				t.Fatal(err)
			}
		}, "cut off"},
		{"name that leads out", entries(layer(t, file("../x", ""))), "leads out of the image"},
		{"name that leads out later", entries(layer(t, file("a/../../x", ""))), "leads out of the image"},
		{"absolute name that leads out", entries(layer(t, file("/../x", ""))), "leads out of the image"},
		{"hard link that leads out", entries(layer(t, tar.Header{Name: "l", Typeflag: tar.TypeLink, Linkname: "../../etc/passwd"})), "leads out of the image"},
		{"hard link to nothing", entries(layer(t, tar.Header{Name: "l", Typeflag: tar.TypeLink, Linkname: "etc/passwd"})), "hard link"},
		{"hard link to a directory", entries(layer(t, dir("d", 0o755), link("l", "d"))), "hard link"},
		{"hard link to itself", entries(layer(t, link("l", "l"))), "hard link"},
		{"hard link through a link that leads out", entries(layer(t, symlink("up", "../../../.."), link("l", "up/etc/passwd"))), "hard link"},
		{"file below a file", entries(layer(t, file("a", ""), file("a/b", ""))), "not a directory"},
		{"file below a device", entries(layer(t, tar.Header{Name: "sda", Typeflag: tar.TypeBlock, Devmajor: 8}, file("sda/x", ""))), "not a directory"},
		{"file below a loop of links", entries(layer(t, tar.Header{Name: "l", Typeflag: tar.TypeSymlink, Linkname: "l"}, file("l/x", ""))), "too many symbolic links"},
		{"device number out of range", entries(layer(t, tar.Header{Name: "d", Typeflag: tar.TypeChar, Devmajor: 1 << 20})), "device number"},
		{"negative device number", entries(layer(t, tar.Header{Name: "d", Typeflag: tar.TypeChar, Devmajor: -1, Format: tar.FormatGNU})), "device number"},
		{"owner out of range", entries(layer(t, with(file("a", ""), func(h *tar.Header) { h.Uid = 1<<32 - 1 }))), "owner"},
		{"root that is a file", entries(layer(t, file(".", ""))), "root is not a directory"},
		{"attribute with a name too long", entries(layer(t, xattr(file("a", ""), "user."+strings.Repeat("n", 256), ""))), "too large"},
		{"tar that is none", entries([]byte(strings.Repeat("no tar ", 1000))), "invalid layer"},
		{"layer that ends within a file", entries(layer(t, file("a", random))[:5000]), "cut off"},
		{"blob that is not there", func(t *testing.T, o *Options) {
			if err := os.Remove(largestBlob(t, strings.TrimPrefix(o.Reference, "oci:"))); err != nil {
				t.Fatal(err)
			}
		}, "not found"},
		{"archived layer with a flipped byte", func(t *testing.T, o *Options) {
			path := filepath.Join(t.TempDir(), "docker.tar")
			buildertest.Run(t, "skopeo", "copy", "--quiet", o.Reference+":latest", "docker-archive:"+path)
			b, err := os.ReadFile(path)
			if err != nil {
				t.Fatal(err)
			}
			b[bytes.Index(b, []byte("incompressible?"))] ^= 1
			if err := os.WriteFile(path, b, 0o644); err != nil {
				t.Fatal(err)
			}
			o.Reference = "docker-archive:" + path
		}, "not what its digest says"},
		{"local image with a flipped byte", func(t *testing.T, o *Options) {
			local := *o
			local.Name = "local"
			root := create(t, local)
			b, err := os.ReadFile(root)
			if err != nil {
				t.Fatal(err)
			}
			b[5000] ^= 1
			// A file of its own: until now it is the other image's, too.
			if err := errors.Join(os.Remove(root), os.WriteFile(root, b, 0o644)); err != nil {
				t.Fatal(err)
			}
			o.Reference = "local"
		}, "was modified after the image was made"},
		{"local image of another architecture", func(t *testing.T, o *Options) { o.Reference, o.Architecture = "test", "arm64" }, "is for amd64"},
		{"kernel of no bytes", func(t *testing.T, o *Options) {
			o.Kernel = func(string) (Kernel, error) {
				return Kernel{Open: func() (io.ReadCloser, error) { return io.NopCloser(strings.NewReader("")), nil }}, nil
			}
		}, "empty"},
		{"kernel of another architecture", func(t *testing.T, o *Options) {
			o.Kernel = func(string) (Kernel, error) { return fakeKernel("arm64") }
		}, "another architecture"},
		{"kernel of Lumina's own, which is written last, cut off", func(t *testing.T, o *Options) {
			o.Kernel = func(string) (Kernel, error) {
				return Kernel{Default: true, Open: func() (io.ReadCloser, error) {
					return io.NopCloser(iotest.TimeoutReader(iotest.OneByteReader(strings.NewReader("\x7fELF")))), nil
				}}, nil
			}
		}, "writing the kernel: timeout"},
		{"image that does not boot", func(t *testing.T, o *Options) {
			o.Verify = func(_ context.Context, h *image.Handle, _ <-chan struct{}) error {
				h.Close()
				return errors.New("kernel panic")
			}
		}, "does not boot: kernel panic"},
		{"name that is none", func(t *testing.T, o *Options) { o.Name = "../x" }, "image name"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			home := t.TempDir()
			o := options(t, "oci:"+writeLayout(t, "amd64", good))
			o.Store = image.NewStore(filepath.Join(home, "images"))
			// What was there before stays as it was.
			old := o
			old.Name = "test"
			want := digest(t, create(t, old))
			tt.prepare(t, &o)
			before := files(home)
			_, err := Create(context.Background(), o)
			if err == nil || !strings.Contains(err.Error(), tt.want) {
				t.Errorf("Create() = %v, want an error with %q", err, tt.want)
			}
			if after := files(home); after != before {
				t.Errorf("the store holds\n%s\nand held\n%s", after, before)
			}
			h, err := o.Store.Open("test")
			if err != nil {
				t.Fatal(err)
			}
			defer h.Close()
			if got := digest(t, h.Path(image.Rootfs)); got != want {
				t.Error("the old image changed")
			}
		})
	}
}

// entries makes the reference one of a layout with this layer.
func entries(l []byte) func(*testing.T, *Options) {
	return func(t *testing.T, o *Options) { o.Reference = "oci:" + writeLayout(t, "amd64", l) }
}

func TestFullDisk(t *testing.T) {
	mount := t.TempDir()
	buildertest.Run(t, "mount", "-t", "tmpfs", "-o", "size=16m", "none", mount)
	t.Cleanup(func() { buildertest.Run(t, "umount", mount) })
	o := options(t, "oci:"+buildertest.DebianFor(t, "amd64")+":latest")
	o.MaxSize = 1 << 40 // the disk is what is full
	o.Store = image.NewStore(filepath.Join(mount, "images"))
	_, err := Create(context.Background(), o)
	if err == nil || !strings.Contains(err.Error(), "no space left") {
		t.Errorf("Create() on a full disk = %v", err)
	}
	if left := files(filepath.Join(mount, "images")); left != "" {
		t.Errorf("left behind: %s", left)
	}
}

func TestCancelledCreateLeavesNothing(t *testing.T) {
	debian := "oci:" + buildertest.DebianFor(t, "amd64") + ":latest"
	ref := buildertest.Registry(t) + "/debian:12"
	dir := t.TempDir()
	buildertest.Run(t, "skopeo", "copy", "--quiet", "--dest-tls-verify=false", debian, "docker://"+ref)
	buildertest.Run(t, "skopeo", "copy", "--quiet", debian, "oci-archive:"+dir+"/oci.tar:latest")
	buildertest.Run(t, "gzip", "--fast", dir+"/oci.tar")
	tests := []struct {
		name, reference, step string // in which to cancel; "": before
	}{
		{"before", debian, ""},
		{"unpacking a layout", debian, "unpack"},
		{"fetching", ref, "fetch"},
		{"unpacking what was fetched", ref, "unpack"},
		{"uncompressing an archive", "oci-archive:" + dir + "/oci.tar.gz", ""},
		{"unpacking an archive", "oci-archive:" + dir + "/oci.tar.gz", "unpack"},
		{"trying", debian, "verify"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			o := options(t, tt.reference)
			home := t.TempDir()
			o.Store, o.CacheDir = image.NewStore(filepath.Join(home, "images")), filepath.Join(home, "cache")
			o.Verify = func(ctx context.Context, h *image.Handle, _ <-chan struct{}) error {
				h.Close()
				<-ctx.Done()
				return ctx.Err()
			}
			ctx, cancel := context.WithCancelCause(context.Background())
			stopped := errors.New("stopped by the user")
			if tt.step == "" {
				cancel(stopped)
			}
			var last Progress // of the step, which one goroutine reports
			o.Progress = func(p Progress) {
				if p.Step == tt.step {
					if last = p; p.Done > 1<<20 || p.Step == "verify" {
						cancel(stopped)
					}
				}
			}
			if _, err := Create(ctx, o); !errors.Is(err, stopped) {
				t.Errorf("Create() = %v, want the cause of its end", err)
			}
			if last.Total > 0 && last.Done == last.Total {
				t.Errorf("all %d bytes were read all the same", last.Total)
			}
			left := files(filepath.Join(home, "images"))
			for _, path := range strings.Fields(files(filepath.Join(home, "cache"))) {
				// A blob that was fetched stays: it is whole.
				if path != "/blobs" && path != "/blobs/sha256" && (tt.step == "fetch" || len(filepath.Base(path)) != 64) {
					left += path
				}
			}
			if left != "" {
				t.Errorf("left behind: %s", left)
			}
		})
	}
}
