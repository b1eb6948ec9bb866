package disk

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"io"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/abdul-abdi/lumina/builder/buildertest"
	"github.com/abdul-abdi/lumina/runtime/image"
)

// options of an image with a real root and noise for the rest.
func options(t *testing.T, arch string) Options {
	t.Helper()
	dir, root := t.TempDir(), t.TempDir()
	noise := make([]byte, 3*mib+777)
	_, _ = rand.NewChaCha8([32]byte{1}).Read(noise)
	for name, b := range map[string][]byte{filepath.Join(root, "file"): noise, filepath.Join(dir, image.Kernel): noise[:2*mib+5], filepath.Join(dir, image.Initramfs): noise[:99]} {
		if err := os.WriteFile(name, b, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	buildertest.Run(t, "mkfs.erofs", "-T0", "-U", "00000000-0000-4000-8000-000000000000", filepath.Join(dir, image.Rootfs), root)
	img := &image.Image{Schema: image.Schema, Architecture: arch, Kernel: image.KernelInfo{CommandLine: "quiet"}, Files: map[string]image.File{}}
	for _, name := range []string{image.Kernel, image.Initramfs, image.Rootfs} {
		b, err := os.ReadFile(filepath.Join(dir, name))
		if err != nil {
			t.Fatal(err)
		}
		sum := sha256.Sum256(b)
		img.Files[name] = image.File{Size: int64(len(b)), SHA256: hex.EncodeToString(sum[:])}
	}
	if err := img.Write(dir); err != nil {
		t.Fatal(err)
	}
	h, err := image.OpenDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { h.Close() })
	kernel := noise[mib:]
	return Options{Image: h, Loader: noise[:8192], Kernel: Kernel{Size: int64(len(kernel)), Open: reader(kernel)}, DataSize: 300 * mib}
}

func mustExport(t *testing.T, o Options, path string) {
	t.Helper()
	o.Path = path
	if err := Export(context.Background(), o); err != nil {
		t.Fatal(err)
	}
}

// part copies a partition of a disk into a file of its own.
func part(t *testing.T, disk string, number, name string) string {
	t.Helper()
	var start, size string
	for line := range strings.Lines(buildertest.Run(t, "sfdisk", "-d", disk)) {
		if rest, ok := strings.CutPrefix(line, disk+number+" : start="); ok {
			f := strings.FieldsFunc(rest, func(r rune) bool { return r == ',' || r == '=' || r == ' ' })
			start, size = f[0], f[2]
		}
	}
	out := filepath.Join(filepath.Dir(disk), name)
	buildertest.Run(t, "dd", "if="+disk, "of="+out, "bs=512", "skip="+start, "count="+size, "conv=sparse", "status=none")
	buildertest.Run(t, "truncate", "-s", "%1M", out)
	return out
}

// The tools of the formats find nothing wrong.
func TestDisk(t *testing.T) {
	for _, arch := range []string{"amd64", "arm64"} {
		t.Run(arch, func(t *testing.T) {
			o, dir := options(t, arch), t.TempDir()
			disk := filepath.Join(dir, "d.raw")
			mustExport(t, o, disk)
			if out := buildertest.Run(t, "sfdisk", "--verify", disk); !strings.Contains(out, "No errors detected") {
				t.Errorf("sfdisk: %s", out)
			}
			esp := part(t, disk, "1", "esp")
			checkFAT(t, esp)
			loader := map[string]string{"amd64": "BOOTX64.EFI", "arm64": "BOOTAA64.EFI"}[arch]
			if got := exec.Command("mtype", "-i", esp, "::EFI/BOOT/"+loader); !bytes.Equal(output(t, got), o.Loader) {
				t.Error("the loader is another")
			}
			if got := output(t, exec.Command("mtype", "-i", esp, "::lumina/cmdline")); !strings.HasPrefix(string(got), "quiet console=") {
				t.Errorf("the command line is %q", got)
			}
			buildertest.Run(t, "fsck.erofs", part(t, disk, "2", "root"))
			if out := buildertest.Run(t, "e2fsck", "-fn", part(t, disk, "3", "data")); strings.Contains(out, "Fix?") {
				t.Errorf("e2fsck: %s", out)
			}
			info, err := os.Stat(disk)
			if err != nil {
				t.Fatal(err)
			}
			if used := info.Sys().(*syscall.Stat_t).Blocks * 512; used > 24*mib {
				t.Errorf("%d of %d bytes are used", used, info.Size())
			}
		})
	}
}

func output(t *testing.T, cmd *exec.Cmd) []byte {
	t.Helper()
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("%s: %v", cmd, err)
	}
	return out
}

func checkFAT(t *testing.T, file string) {
	t.Helper()
	if out := buildertest.Run(t, "fsck.fat", "-n", file); strings.Count(out, "\n") != 2 {
		t.Errorf("fsck.fat: %s", out)
	}
}

// Every format holds the same disk, and the same input gives the same bytes.
func TestFormats(t *testing.T) {
	o, dir := options(t, "amd64"), t.TempDir()
	raw := filepath.Join(dir, "d.raw")
	mustExport(t, o, raw)
	for _, tt := range []struct{ extension, format string }{{"raw", "raw"}, {"qcow2", "qcow2"}, {"vhd", "vpc"}, {"iso", ""}} {
		t.Run(tt.extension, func(t *testing.T) {
			a, b := filepath.Join(dir, "a."+tt.extension), filepath.Join(dir, "b."+tt.extension)
			mustExport(t, o, a)
			mustExport(t, o, b)
			buildertest.Run(t, "cmp", a, b)
			if tt.format == "" {
				return
			}
			if tt.extension == "qcow2" {
				buildertest.Run(t, "qemu-img", "check", "-f", tt.format, a)
			}
			if out := buildertest.Run(t, "qemu-img", "compare", "-f", "raw", "-F", tt.format, raw, a); !strings.Contains(out, "identical") {
				t.Errorf("qemu-img: %s", out)
			}
		})
	}
}

func TestISO(t *testing.T) {
	o, iso := options(t, "amd64"), filepath.Join(t.TempDir(), "d.iso")
	mustExport(t, o, iso)
	if out := buildertest.Run(t, "sfdisk", "--verify", iso); !strings.Contains(out, "No errors detected") {
		t.Errorf("sfdisk: %s", out)
	}
	esp := part(t, iso, "1", "esp")
	checkFAT(t, esp)
	// What ISO 9660's other readers find.
	extracted := filepath.Join(filepath.Dir(iso), "root")
	listed := buildertest.Run(t, "xorriso", "-osirrox", "on", "-indev", iso, "-pvd_info", "-report_el_torito", "plain", "-extract", "/ROOT.IMG", extracted)
	line := string(output(t, exec.Command("mtype", "-i", esp, "::lumina/cmdline")))
	_, id, _ := strings.Cut(strings.TrimSpace(line), " lumina.iso=")
	if id == "" || !strings.Contains(listed, id) || !strings.Contains(listed, "UEFI") {
		t.Errorf("the command line is %q, xorriso says\n%s", line, listed)
	}
	buildertest.Run(t, "cmp", extracted, o.Image.Path(image.Rootfs))
}

// Larger file systems have larger clusters.
func TestLargeFAT(t *testing.T) {
	name := filepath.Join(t.TempDir(), "fat")
	f, err := os.Create(name)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	v, err := layOutFAT([]file{{dir: "A/B", name: "LARGE", size: 600 * mib}, {dir: "A", name: "EMPTY"}, {dir: "C", name: "X.TXT", size: 1}}, 7)
	if err != nil {
		t.Fatal(err)
	}
	c, err := newRaw(f, v.size)
	if err != nil {
		t.Fatal(err)
	}
	if err := v.write(c, func(io.WriterAt, int64, file) error { return nil }); err != nil {
		t.Fatal(err)
	}
	checkFAT(t, name)
	if _, err := layOutFAT([]file{{dir: "A", name: "LARGE", size: 4 << 30}}, 7); err == nil {
		t.Error("a file of 4 GiB has its place in a FAT file system")
	}
}

// What does not succeed leaves nothing.
func TestExportFails(t *testing.T) {
	o := options(t, "arm64")
	stop := errors.New("stopped")
	cancelled, cancel := context.WithCancelCause(context.Background())
	tests := map[string]struct {
		ctx    context.Context
		change func(*Options)
		want   string
	}{
		"interrupted":        {cancelled, func(o *Options) { o.Progress = func(int64, int64) { cancel(stop) } }, "stopped"},
		"a short kernel":     {context.Background(), func(o *Options) { o.Kernel.Size++ }, "unexpected EOF"},
		"a hostile line":     {context.Background(), func(o *Options) { o.Image.Kernel.CommandLine = "a\ninit=/evil" }, "command line"},
		"a long line":        {context.Background(), func(o *Options) { o.Image.Kernel.CommandLine = strings.Repeat("a", 2040) }, "command line"},
		"another format":     {context.Background(), func(o *Options) { o.Path += ".vmdk" }, `".vmdk"`},
		"too little to fill": {context.Background(), func(o *Options) { o.DataSize = 1 }, "writable partition"},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			o, img := o, *o.Image.Image
			handle := *o.Image
			handle.Image, o.Image = &img, &handle
			dir := t.TempDir()
			o.Path = filepath.Join(dir, "d.raw")
			tt.change(&o)
			if err := Export(tt.ctx, o); err == nil || !strings.Contains(err.Error(), tt.want) {
				t.Errorf("Export() = %v, want %q", err, tt.want)
			}
			if left, err := os.ReadDir(dir); err != nil || len(left) != 0 {
				t.Errorf("left behind: %v, %v", left, err)
			}
		})
	}
}
