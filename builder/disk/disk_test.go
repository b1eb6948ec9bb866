package disk

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/xml"
	"errors"
	"io"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"

	"github.com/abdul-abdi/lumina/builder/buildertest"
	"github.com/abdul-abdi/lumina/runtime/desktop/iso"
	"github.com/abdul-abdi/lumina/runtime/fat"
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
	for _, tt := range []struct{ extension, format string }{{"raw", "raw"}, {"qcow2", "qcow2"}, {"vhd", "vpc"}, {"vhdx", "vhdx"}, {"vmdk", "vmdk"}, {"iso", ""}} {
		t.Run(tt.extension, func(t *testing.T) {
			// A VMDK has its own name in it.
			a, b := filepath.Join(dir, "disk."+tt.extension), filepath.Join(t.TempDir(), "disk."+tt.extension)
			mustExport(t, o, a)
			mustExport(t, o, b)
			buildertest.Run(t, "cmp", a, b)
			if tt.format == "" {
				return
			}
			if tt.extension != "raw" && tt.extension != "vhd" {
				buildertest.Run(t, "qemu-img", "check", "-f", tt.format, a)
			}
			if out := buildertest.Run(t, "qemu-img", "compare", "-f", "raw", "-F", tt.format, raw, a); !strings.Contains(out, "identical") {
				t.Errorf("qemu-img: %s", out)
			}
		})
	}
}

// What a place takes holds a disk that sfdisk finds nothing wrong with, is of the
// size that the place wants, and its kernel is told of the place's console.
func TestPlaces(t *testing.T) {
	consoles := map[string]string{
		"azure": " console=ttyS0,115200", "hyperv": " console=tty0", "aws": " nvme_core.io_timeout=4294967295", "gcp": " console=ttyS0,38400n8",
		"vmware": " console=tty0", "virtualbox": " console=tty0", "proxmox": " console=tty0", "kubevirt": " console=ttyS0,115200",
		"openstack": " console=ttyS0,115200", "baremetal": " console=tty0",
	}
	for _, name := range Places() {
		place, err := FindPlace(name)
		if err != nil {
			t.Fatal(err)
		}
		for _, extension := range place.Formats[:1] {
			t.Run(name+extension, func(t *testing.T) {
				o, dir := options(t, "amd64"), t.TempDir()
				o.Image.Kernel.CommandLine = "quiet panic=-1 reboot=t"
				o.For = place
				file := filepath.Join(dir, "d"+extension)
				mustExport(t, o, file)
				format := map[string]string{".vhd": "vpc", ".vhdx": "vhdx", ".vmdk": "vmdk", ".qcow2": "qcow2", ".raw": "raw"}[extension]
				switch extension {
				case ".ova":
					if out := buildertest.Run(t, "tar", "-tf", file); out != "d.ovf\nd.mf\nd-disk1.vmdk\n" {
						t.Errorf("the archive has %q", out)
					}
					buildertest.Run(t, "tar", "-xf", file, "-C", dir)
					buildertest.Run(t, "sh", "-c", "cd "+dir+` && sed -n 's/^SHA256(\(.*\))= \(.*\)/\2  \1/p' d.mf | sha256sum -c --strict`)
					ovf, err := os.ReadFile(filepath.Join(dir, "d.ovf"))
					if err != nil {
						t.Fatal(err)
					}
					checkOVF(t, ovf)
					file, format = filepath.Join(dir, "d-disk1.vmdk"), "vmdk"
				case ".tar.gz":
					buildertest.Run(t, "tar", "-xzSf", file, "-C", dir)
					file, format = filepath.Join(dir, "disk.raw"), "raw"
				case ".vhd":
					info, err := os.Stat(file)
					if err != nil || place.fixed && info.Size()%mib != sector {
						t.Errorf("a fixed disk of %d bytes, %v", info.Size(), err)
					}
				}
				raw := filepath.Join(dir, "out.raw")
				buildertest.Run(t, "qemu-img", "convert", "-f", format, "-O", "raw", file, raw)
				if out := buildertest.Run(t, "sfdisk", "--verify", raw); !strings.Contains(out, "No errors detected") {
					t.Errorf("sfdisk: %s", out)
				}
				info, err := os.Stat(raw)
				if err != nil || info.Size()%max(place.round, mib) != 0 {
					t.Errorf("a disk of %d bytes, %v", info.Size(), err)
				}
				line := string(output(t, exec.Command("mtype", "-i", part(t, raw, "1", "esp"), "::lumina/cmdline")))
				line, _, _ = strings.Cut(line, " lumina.host=none")
				if !strings.HasPrefix(line, "quiet panic=30 console=") || !strings.HasSuffix(line, consoles[name]) || !strings.Contains(line, "tty0") {
					t.Errorf("the command line is %q", line)
				}
				if out := buildertest.Run(t, "e2fsck", "-fn", part(t, raw, "3", "data")); strings.Contains(out, "Fix?") {
					t.Errorf("e2fsck: %s", out)
				}
			})
		}
	}
	if _, err := FindPlace("moon"); err == nil || !strings.Contains(err.Error(), "azure, hyperv, aws") {
		t.Errorf("FindPlace() = %v", err)
	}
}

// checkOVF looks whether a description is well-formed, and whether a name in it that
// means something to XML is only a name.
func checkOVF(t *testing.T, ovf []byte) {
	t.Helper()
	var e struct {
		References struct {
			File struct {
				Href string `xml:"href,attr"`
			}
		}
		VirtualSystem struct {
			ID    string `xml:"id,attr"`
			Items []struct {
				ElementName, InstanceID, Parent, ResourceType string
			} `xml:"VirtualHardwareSection>Item"`
		}
	}
	if err := xml.Unmarshal(ovf, &e); err != nil {
		t.Fatalf("%v\n%s", err, ovf)
	}
	if e.References.File.Href != "d-disk1.vmdk" || len(e.VirtualSystem.Items) != 5 || e.VirtualSystem.Items[3].Parent != e.VirtualSystem.Items[2].InstanceID {
		t.Errorf("it says %+v", e)
	}
	name := `a"<b>&`
	if err := xml.Unmarshal([]byte(ovfVMware(&ovaOptions{name: name, disk: name})), &e); err != nil || e.VirtualSystem.ID != name || e.References.File.Href != name {
		t.Errorf("a name of XML: %v, %+v", err, e)
	}
}

func TestCheckPath(t *testing.T) {
	azure, err := FindPlace("azure")
	if err != nil {
		t.Fatal(err)
	}
	for _, tt := range []struct {
		path, want string
		place      *Place
	}{
		{"d.vhdx", "", nil}, {"d.tar.gz", "add --for", nil}, {"d.ova", "add --for", nil}, {"d.img", "want .raw, .qcow2", nil},
		{"d.vhd", "", azure}, {"d.qcow2", "for azure it is .vhd", azure}, {"vhd", "for azure it is .vhd", azure},
	} {
		if err := CheckPath(tt.path, tt.place); (err == nil) != (tt.want == "") || err != nil && !strings.Contains(err.Error(), tt.want) {
			t.Errorf("CheckPath(%q) = %v, want %q", tt.path, err, tt.want)
		}
	}
}

// What is to be done with a disk is said for its format: tools of a place take some only.
func TestNext(t *testing.T) {
	for _, tt := range []struct{ place, path, arch, want, not string }{
		{"hyperv", "d.vhdx", "amd64", "-VHDPath FILE", "Convert-VHD"},
		{"hyperv", "d.vhd", "amd64", "Convert-VHD FILE", "-VHDPath FILE"}, // VMs of generation 2 have no .vhd
		{"vmware", "d.ova", "amd64", "ovftool FILE", "vmkfstools"},
		{"vmware", "d.vmdk", "amd64", "vmkfstools -i FILE", "ovftool"},
		{"virtualbox", "d.ova", "amd64", "import FILE", "clonemedium"},
		{"virtualbox", "d.vmdk", "amd64", "clonemedium disk FILE", "import"}, // a compressed one is not written to
		{"openstack", "d.qcow2", "amd64", "--disk-format qcow2", "raw"},
		{"openstack", "d.raw", "amd64", "--disk-format raw", "qcow2"},
		{"openstack", "d.raw", "arm64", "hw_machine_type=virt", "q35"},
		{"aws", "d.raw", "amd64", "--architecture x86_64", "arm64"},
		{"aws", "d.raw", "arm64", "--architecture arm64", "x86_64"},
		{"azure", "d.vhd", "arm64", "--architecture Arm64", "az image"}, // images there are of amd64
		{"gcp", "d.tar.gz", "arm64", "--architecture=ARM64", "x86"},
	} {
		p, err := FindPlace(tt.place)
		if err != nil {
			t.Fatal(err)
		}
		if got := p.Next(tt.path, tt.arch); !strings.Contains(got, tt.want) || strings.Contains(got, tt.not) {
			t.Errorf("%s of %s for %s: %q, want %q and not %q", tt.path, tt.arch, tt.place, got, tt.want, tt.not)
		}
	}
	for _, p := range places {
		for _, f := range p.Formats {
			if next := p.Next("d"+f, "amd64"); !strings.Contains(next, "FILE") && !strings.Contains(next, " it ") {
				t.Errorf("%s for %s: %q does not say with what", f, p.Name, next)
			}
		}
		for f := range p.nextOf {
			if !slices.Contains(p.Formats, f) {
				t.Errorf("%s has something to do with a %s and takes none", p.Name, f)
			}
		}
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

// What is written is read back by what reads others' disks and ISOs: partition table, ISO
// 9660, El Torito and the loader in the EFI system partition.
func TestRoundTrip(t *testing.T) {
	loader := make([]byte, 8192) // a program's header, as far as it says for which machine
	copy(loader, "MZ")
	le.PutUint32(loader[60:], 64)
	copy(loader[64:], "PE\x00\x00\x64\x86")
	o, dir := options(t, "amd64"), t.TempDir()
	o.Loader = loader
	for _, tt := range []struct {
		file string
		read func(io.ReaderAt, int64) (*iso.Image, error)
	}{{"d.raw", iso.ReadDisk}, {"d.iso", iso.Read}} {
		path := filepath.Join(dir, tt.file)
		mustExport(t, o, path)
		f, err := os.Open(path)
		if err != nil {
			t.Fatal(err)
		}
		defer f.Close()
		info, err := f.Stat()
		if err != nil {
			t.Fatal(err)
		}
		i, err := tt.read(f, info.Size())
		if err != nil {
			t.Fatalf("%s: %v", tt.file, err)
		}
		if err := i.Boots("amd64"); err != nil {
			t.Errorf("%s: %v", tt.file, err)
		}
		if err := i.Boots("arm64"); err == nil {
			t.Errorf("%s boots another architecture", tt.file)
		}
		if tt.file != "d.iso" {
			continue
		}
		root, err := i.Open("/ROOT.IMG")
		if err != nil {
			t.Fatal(err)
		}
		sum := sha256.New()
		if _, err := io.Copy(sum, root); err != nil || hex.EncodeToString(sum.Sum(nil)) != o.Image.Files[image.Rootfs].SHA256 {
			t.Errorf("the root is another: %v", err)
		}
	}
}

// Larger file systems have larger clusters.
func TestLargeFAT(t *testing.T) {
	name := filepath.Join(t.TempDir(), "fat")
	f, err := os.Create(name)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	v, err := fat.LayOut([]fat.File{{Dir: "A/B", Name: "LARGE", Size: 600 * mib}, {Dir: "A", Name: "EMPTY"}, {Dir: "C", Name: "X.TXT", Size: 1}}, 7)
	if err != nil {
		t.Fatal(err)
	}
	c, err := newRaw(f, v.Size)
	if err != nil {
		t.Fatal(err)
	}
	if err := v.Write(c, func(io.WriterAt, int64, fat.File) error { return nil }); err != nil {
		t.Fatal(err)
	}
	checkFAT(t, name)
	if _, err := fat.LayOut([]fat.File{{Dir: "A", Name: "LARGE", Size: 4 << 30}}, 7); err == nil {
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
		"another format":     {context.Background(), func(o *Options) { o.Path += ".img" }, `d.raw.img`},
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
