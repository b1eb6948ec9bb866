package kernelconfig

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"os"
	"regexp"
	"runtime"
	"sort"
	"strings"
	"testing"
	"testing/fstest"

	"github.com/google/go-cmp/cmp"
	"github.com/klauspost/compress/zstd"
)

var optionLine = regexp.MustCompile(`^(?:(CONFIG_[A-Z0-9_]+)=(?:y|-?[0-9]+|"[^"]*")|# (CONFIG_[A-Z0-9_]+) is not set)$`)

// option returns the name in a line of a fragment, or "".
func option(line string) string {
	m := optionLine.FindStringSubmatch(line)
	if m == nil {
		return ""
	}
	return m[1] + m[2]
}

func readFragment(t *testing.T, name string) []string {
	t.Helper()
	text, err := os.ReadFile(name)
	if err != nil {
		t.Fatal(err)
	}
	return strings.Split(strings.TrimSuffix(string(text), "\n"), "\n")
}

// TestFragments: lines are options or comments, each option is asked for once in all that make one kernel, and
// the groups between blank lines are sorted, so that a reader finds an option and a merge conflicts where it must.
func TestFragments(t *testing.T) {
	for _, kernel := range [][]string{{"common.config", "amd64.config"}, {"common.config", "arm64.config"}, {"common.config", "amd64.config", "full.config"}} {
		t.Run(kernel[len(kernel)-1], func(t *testing.T) {
			// The full flavour may have another value, not the same again.
			again := map[string]bool{}
			seen := map[string]string{}
			for _, name := range kernel {
				var group []string
				for i, line := range append(readFragment(t, name), "") {
					at := fmt.Sprintf("%s:%d", name, i+1)
					key := option(line)
					switch {
					case line == "":
						if !sort.StringsAreSorted(group) {
							want := append([]string(nil), group...)
							sort.Strings(want)
							t.Errorf("%s: the group above is not sorted (-got +want):\n%s", at, cmp.Diff(group, want))
						}
						group = nil
					case key != "":
						other := name == "full.config" && !again[line]
						again[line] = true
						if before, ok := seen[key]; ok && !other {
							t.Errorf("%s: %s was asked for before, at %s", at, key, before)
						}
						seen[key] = at
						group = append(group, key)
					case strings.HasPrefix(line, "# ") && !strings.Contains(line, "CONFIG_X"):
					default:
						t.Errorf("%s: %q is neither an option nor a comment", at, line)
					}
				}
			}
			if len(seen) < 100 {
				t.Errorf("%d options found, want the hundreds that a kernel takes", len(seen))
			}
		})
	}
}

// TestPromises: what other parts of the project build on is asked for.
func TestPromises(t *testing.T) {
	promises := map[string][]string{
		"a crash resets the VM":           {"PANIC_ON_OOPS", "PANIC_TIMEOUT", "MAGIC_SYSRQ"},
		"root file system and scratch":    {"EROFS_FS", "EROFS_FS_XATTR", "EROFS_FS_POSIX_ACL", "EROFS_FS_SECURITY", "EXT4_FS", "EXT4_FS_SECURITY", "OVERLAY_FS", "TMPFS_XATTR"},
		"the agent's transport":           {"VIRTIO_CONSOLE", "VIRTIO_VSOCKETS", "VIRTIO_MMIO", "VIRTIO_PCI"},
		"fresh entropy after a restore":   {"VMGENID", "HW_RANDOM_VIRTIO"},
		"EFI disks":                       {"EFI_STUB", "EFI_PARTITION", "VFAT_FS", "NLS_CODEPAGE_437", "NLS_ISO8859_1"},
		"Docker's bridge and port maps":   {"BRIDGE_NETFILTER", "VETH", "NF_NAT", "IP_NF_TARGET_MASQUERADE", "NFT_MASQ", "NETFILTER_XT_MATCH_ADDRTYPE", "CGROUP_DEVICE", "MEMCG"},
		"systemd's README, required":      {"CGROUPS", "INOTIFY_USER", "SIGNALFD", "TIMERFD", "EPOLL", "UNIX", "SYSFS", "PROC_FS", "FHANDLE", "DEVTMPFS", "MULTIUSER"},
		"JITs, debuggers, language tools": {"IO_URING", "USERFAULTFD", "MEMBARRIER", "RSEQ", "FUTEX_PI", "CHECKPOINT_RESTORE", "PERF_EVENTS"},
	}
	promised(t, promises, "common.config")
	promised(t, map[string][]string{
		"Azure and Hyper-V":        {"HYPERV", "HYPERV_STORAGE", "HYPERV_NET", "DRM_HYPERV", "HYPERV_KEYBOARD", "PCI_HYPERV", "MICROSOFT_MANA", "MLX5_CORE_EN"},
		"Amazon":                   {"ENA_ETHERNET", "IXGBEVF", "XEN_BLKDEV_FRONTEND", "HOTPLUG_PCI"},
		"Google":                   {"GVE", "IDPF"},
		"VMware and VirtualBox":    {"VMWARE_PVSCSI", "VMXNET3", "DRM_VMWGFX", "FUSION_SPI", "PCNET32", "DRM_VBOXVIDEO"},
		"bare machines":            {"ATA_PIIX", "E1000E", "IGB", "IXGBE", "R8169", "BNXT", "USB_EHCI_HCD", "USB_UAS", "TCG_TIS", "CPU_MITIGATIONS", "IRQ_REMAP"},
		"a guest that is a host":   {"VIRTUALIZATION", "KVM", "KVM_AMD", "KVM_INTEL", "VHOST_NET", "VHOST_VSOCK"},
		"exits of KVM are counted": {"FTRACE", "HIST_TRIGGERS", "DEBUG_FS"},
	}, "full.config")
}

func promised(t *testing.T, promises map[string][]string, fragment string) {
	t.Helper()
	have := map[string]bool{}
	for _, line := range readFragment(t, fragment) {
		if !strings.HasPrefix(line, "#") {
			have[option(line)] = true
		}
	}
	for promise, names := range promises {
		for _, name := range names {
			if !have["CONFIG_"+name] {
				t.Errorf("%s: CONFIG_%s is not asked for in %s", promise, name, fragment)
			}
		}
	}
}

// TestOpenBuilt reads every kernel this test program was built with, to the end.
func TestOpenBuilt(t *testing.T) {
	// What a loader looks for: an ELF header, "HdrS" of the x86 boot protocol, "ARM\x64" of the arm64 one.
	tests := []struct {
		name   string
		open   func(string) (Kernel, error)
		arch   string
		offset int
		magic  string
	}{
		{"amd64 vmlinux", Open, "amd64", 0, "\x7fELF"},
		{"amd64 bzImage", OpenEFI, "amd64", 0x202, "HdrS"},
		{"arm64 Image", Open, "arm64", 56, "ARM\x64"},
		{"arm64 Image for EFI", OpenEFI, "arm64", 56, "ARM\x64"},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			kernel, err := test.open(test.arch)
			var missing *ErrNotBuilt
			if errors.As(err, &missing) {
				t.Skip(err)
			}
			if err != nil {
				t.Fatal(err)
			}
			if !strings.HasSuffix(kernel.Version, "-lumina") || kernel.Architecture != test.arch {
				t.Errorf("version %q of architecture %q, want …-lumina of %q", kernel.Version, kernel.Architecture, test.arch)
			}
			var image bytes.Buffer
			n, err := kernel.WriteTo(&image)
			if err != nil || n != kernel.Size {
				t.Fatalf("WriteTo() = %d, %v, want %d", n, err, kernel.Size)
			}
			if got := string(image.Bytes()[test.offset : test.offset+4]); got != test.magic {
				t.Errorf("bytes at %#x are %q, want %q", test.offset, got, test.magic)
			}
		})
	}
}

// built returns an out/ folder with one kernel, described as given.
func built(t *testing.T, image []byte, sum string, size int) fstest.MapFS {
	t.Helper()
	encoder, err := zstd.NewWriter(nil)
	if err != nil {
		t.Fatal(err)
	}
	text := fmt.Sprintf(`{"version":"6.1-lumina","architecture":"arm64","sha256":%q,"size":%d}`, sum, size)
	return fstest.MapFS{
		"out/arm64.json":       {Data: []byte(text)},
		"out/kernel-arm64.zst": {Data: encoder.EncodeAll(image, nil)},
	}
}

func TestOpenChecks(t *testing.T) {
	image := bytes.Repeat([]byte("kernel"), 100_000)
	digest := sha256.Sum256(image)
	sum := hex.EncodeToString(digest[:])
	truncated := built(t, image, sum, len(image))
	file := truncated["out/kernel-arm64.zst"]
	file.Data = file.Data[:len(file.Data)/2]

	tests := []struct {
		name  string
		files fstest.MapFS
		want  string // in the error; "" for none
	}{
		{"intact", built(t, image, sum, len(image)), ""},
		{"other digest", built(t, image, strings.Repeat("0", 64), len(image)), "sha256 is " + sum},
		{"longer than described", built(t, image, sum, len(image)-1), "more than its"},
		{"shorter than described", built(t, image, sum, len(image)+1), "1 bytes are missing"},
		{"truncated", truncated, "unexpected EOF"},
		{"absurd size", built(t, image, sum, maxSize+1), "is not in 1.."},
		{"no size", built(t, image, sum, 0), "is not in 1.."},
		{"no kernel beside its description", fstest.MapFS{"out/arm64.json": {Data: []byte(`{"size":1}`)}}, "make kernel ARCH=arm64"},
		{"description that is not JSON", fstest.MapFS{"out/arm64.json": {Data: []byte("{")}}, "reading its description"},
		{"nothing built", fstest.MapFS{}, "make kernel ARCH=arm64"},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			var got bytes.Buffer
			kernel, err := open(test.files, "arm64", false)
			if err == nil {
				_, err = kernel.WriteTo(&got)
			}
			if test.want == "" {
				if err != nil || !bytes.Equal(got.Bytes(), image) {
					t.Fatalf("read %d bytes and error %v, want %d", got.Len(), err, len(image))
				}
				return
			}
			if err == nil || !strings.Contains(err.Error(), test.want) {
				t.Errorf("error %v, want %q in it", err, test.want)
			}
			if int64(got.Len()) > max(kernel.Size, 0) {
				t.Errorf("%d bytes came out of a kernel of %d", got.Len(), kernel.Size)
			}
		})
	}
}

func TestOpenUnknownArchitecture(t *testing.T) {
	if _, err := Open("riscv64"); err == nil || !strings.Contains(err.Error(), `"riscv64"`) {
		t.Errorf("Open() error = %v, want it to name the architecture", err)
	}
}

// FuzzOpen: whatever the description and the compressed kernel hold, reading ends in an error or in the bytes
// described, and never gives more than the description says.
func FuzzOpen(f *testing.F) {
	f.Add([]byte(`{"sha256":"","size":5}`), []byte("\x28\xb5\x2f\xfd\x04\x00\x29\x00\x00hello"))
	f.Add([]byte(`{"size":-1}`), []byte{})
	f.Fuzz(func(t *testing.T, text, compressed []byte) {
		kernel, err := open(fstest.MapFS{"out/arm64.json": {Data: text}, "out/kernel-arm64.zst": {Data: compressed}}, "arm64", false)
		if err != nil {
			return
		}
		kernel.Size = min(kernel.Size, 1<<20)
		r, err := kernel.Open()
		if err != nil {
			return
		}
		defer r.Close()
		digest := sha256.New()
		n, err := io.Copy(digest, r)
		if n > kernel.Size {
			t.Fatalf("%d bytes came out of a kernel of %d", n, kernel.Size)
		}
		if err == nil && hex.EncodeToString(digest.Sum(nil)) != kernel.SHA256 {
			t.Fatalf("read to the end without error, but the digest is not %q", kernel.SHA256)
		}
	})
}

// A kernel is decompressed with its window in memory (8 MB), and with no copy of what
// is compressed (7 MB).
func TestMemory(t *testing.T) {
	const most = 14 << 20
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	kernel, err := Open("amd64")
	var missing *ErrNotBuilt
	if errors.As(err, &missing) {
		t.Skip(err)
	}
	if err == nil {
		_, err = kernel.WriteTo(io.Discard)
	}
	if err != nil {
		t.Fatal(err)
	}
	runtime.ReadMemStats(&after)
	if taken := after.TotalAlloc - before.TotalAlloc; taken > most {
		t.Errorf("reading the kernel took %d bytes, want at most %d", taken, most)
	}
}
