package kernelconfig

import (
	"archive/tar"
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"syscall"
	"testing"
)

// sourceMakefile is a kernel's source as build.sh sees it: what it "compiles" is
// its configuration, behind what begins a kernel.
const sourceMakefile = `
allnoconfig:
	cp $(KCONFIG_ALLCONFIG) .config
	if grep -q CONFIG_NEEDS_MORE .config; then sed -i /CONFIG_NEEDS_MORE/d .config; fi
vmlinux Image:
	if grep -q CONFIG_STUCK=y .config; then echo $$$$ >"$(STUCK)"; exec sleep 1000; fi
	cp /bin/true vmlinux
	mkdir -p arch/arm64/boot && cp .config arch/arm64/boot/Image
bzImage: vmlinux
	mkdir -p arch/x86/boot && cp .config arch/x86/boot/bzImage
kernelrelease:
	echo 1.2.3-lumina
`

// smallSource makes build.sh build sourceMakefile. Lumina's patches do not fit it.
func smallSource(t *testing.T) {
	t.Helper()
	dir := t.TempDir()
	var b bytes.Buffer
	w := tar.NewWriter(&b)
	if err := errors.Join(
		w.WriteHeader(&tar.Header{Name: "linux/Makefile", Mode: 0o644, Size: int64(len(sourceMakefile))}),
		func() error { _, err := w.Write([]byte(sourceMakefile)); return err }(),
		w.Close(),
		os.WriteFile(filepath.Join(dir, "source.tar"), b.Bytes(), 0o600),
		os.Mkdir(filepath.Join(dir, "bin"), 0o700),
		os.WriteFile(filepath.Join(dir, "bin", "patch"), []byte("#!/bin/sh\nexec cat >/dev/null\n"), 0o700),
	); err != nil {
		t.Fatal(err)
	}
	t.Setenv("PATH", filepath.Join(dir, "bin")+":"+os.Getenv("PATH"))
	t.Setenv("LUMINA_KERNEL_SOURCE", filepath.Join(dir, "source.tar"))
	t.Setenv("LUMINA_KERNEL_UNPINNED", "1")
	t.Setenv("LUMINA_CACHE", filepath.Join(dir, "cache"))
}

// compiles skips a test whose build of a kernel goes as far as make.
func compiles(t *testing.T) {
	t.Helper()
	if testing.Short() {
		t.Skip("with -short: it runs make")
	}
}

func onLinux(t *testing.T) {
	t.Helper()
	if runtime.GOOS != "linux" {
		t.Skip("kernels are built on Linux")
	}
}

func TestBuild(t *testing.T) {
	onLinux(t)
	compiles(t)
	smallSource(t)
	var said bytes.Buffer
	built, err := Build(t.Context(), runtime.GOARCH, "# Mine.\nCONFIG_BLK_DEV_NBD=y\nCONFIG_LOG_BUF_SHIFT=20\n# CONFIG_SWAP is not set\n", os.Getenv("LUMINA_CACHE"), &said)
	if err != nil {
		t.Fatalf("%v\n%s", err, said.String())
	}
	if built.Kernel.Version != "1.2.3-lumina" || built.Kernel.Architecture != runtime.GOARCH || built.Kernel.SHA256 == "" {
		t.Errorf("the kernel is %+v", built.Kernel)
	}
	var config bytes.Buffer
	if _, err := built.EFI.WriteTo(&config); err != nil {
		t.Fatal(err)
	}
	lines := map[string]int{}
	for line := range strings.Lines(config.String()) {
		lines[strings.TrimSpace(line)]++
	}
	for line, want := range map[string]int{
		"CONFIG_BLK_DEV_NBD=y": 1, "CONFIG_LOG_BUF_SHIFT=20": 1, "CONFIG_LOG_BUF_SHIFT=17": 0,
		"# CONFIG_SWAP is not set": 1, "CONFIG_SWAP=y": 0, "CONFIG_EROFS_FS=y": 1,
	} {
		if lines[line] != want {
			t.Errorf("%q is there %d times, want %d", line, lines[line], want)
		}
	}
	if !strings.Contains(said.String(), "kernel: unpacking the source") {
		t.Errorf("it said %q", said.String())
	}
	// The second time nothing is built.
	said.Reset()
	again, err := Build(t.Context(), runtime.GOARCH, "CONFIG_BLK_DEV_NBD=y\nCONFIG_LOG_BUF_SHIFT=20\n# CONFIG_SWAP is not set\n", os.Getenv("LUMINA_CACHE"), &said)
	if err != nil || again.Kernel.SHA256 != built.Kernel.SHA256 || strings.Contains(said.String(), "unpacking") {
		t.Errorf("again: %+v, %v, it said %q", again, err, said.String())
	}
}

func TestBuildRefuses(t *testing.T) {
	onLinux(t)
	smallSource(t)
	for _, tt := range []struct{ name, fragment, want string }{
		{"no option", "CONFIG_A=y\nA=y\n", `building a kernel: "A=y" is not an option`},
		{"dropped by the kernel", "CONFIG_NEEDS_MORE=y\n", "building a kernel: options asked for that the kernel's own rules dropped (a dependency is missing, or the name changed):\n  CONFIG_NEEDS_MORE=y"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			if strings.Contains(tt.fragment, "MORE") {
				compiles(t)
			}
			_, err := Build(t.Context(), runtime.GOARCH, tt.fragment, os.Getenv("LUMINA_CACHE"), new(bytes.Buffer))
			if err == nil || !strings.HasPrefix(err.Error(), tt.want) {
				t.Errorf("error %v, want %q", err, tt.want)
			}
		})
	}
	t.Run("without the source", func(t *testing.T) {
		t.Setenv("LUMINA_KERNEL_SOURCE", "/nowhere/linux.tar.xz")
		_, err := Build(t.Context(), runtime.GOARCH, "CONFIG_A=y\n", os.Getenv("LUMINA_CACHE"), new(bytes.Buffer))
		if err == nil || !strings.Contains(err.Error(), `building a kernel: no kernel source "/nowhere/linux.tar.xz": install `) {
			t.Errorf("error %v", err)
		}
	})
}

// What is cancelled has ended, all of it, when Build returns.
func TestBuildCancelled(t *testing.T) {
	onLinux(t)
	compiles(t)
	smallSource(t)
	stuck := filepath.Join(t.TempDir(), "stuck")
	if err := syscall.Mkfifo(stuck, 0o600); err != nil {
		t.Fatal(err)
	}
	t.Setenv("STUCK", stuck)
	stop := errors.New("stopped")
	ctx, cancel := context.WithCancelCause(t.Context())
	var pid int
	go func() {
		b, err := os.ReadFile(stuck) // until the compiler is there
		if err == nil {
			pid, err = strconv.Atoi(strings.TrimSpace(string(b)))
		}
		cancel(errors.Join(stop, err))
	}()
	if _, err := Build(ctx, runtime.GOARCH, "CONFIG_STUCK=y\n", os.Getenv("LUMINA_CACHE"), new(bytes.Buffer)); !errors.Is(err, stop) {
		t.Fatalf("Build() = %v, want %v", err, stop)
	}
	if pid == 0 {
		t.Fatal("the compiler's process is not known")
	}
	if err := syscall.Kill(pid, 0); err != syscall.ESRCH {
		t.Errorf("the compiler's process %d is there: %v", pid, err)
	}
}

func TestCheckFragment(t *testing.T) {
	for _, tt := range []struct {
		line string
		ok   bool
	}{
		{"", true}, {"# a comment", true}, {"CONFIG_A=y", true}, {"CONFIG_A=-1", true}, {"CONFIG_A=0x1f", true},
		{`CONFIG_A="quiet loglevel=3"`, true}, {"# CONFIG_A is not set", true},
		{"CONFIG_A", false}, {"CONFIG_A=n", false}, {"A=y", false}, {" CONFIG_A=y", false}, {"CONFIG_A=m", false}, {"# CONFIG_A is set", false},
		// make would run it, the kernel would hold the file.
		{`CONFIG_A="$(shell id)"`, false}, {`CONFIG_INITRAMFS_SOURCE="/etc/shadow"`, false}, {"CONFIG_A=`id`", false},
	} {
		err := CheckFragment("CONFIG_FIRST=y\n" + tt.line + "\n")
		var at *FragmentError
		if tt.ok != (err == nil) || err != nil && (!errors.As(err, &at) || at.Line != 1 || !strings.Contains(err.Error(), fmt.Sprintf("%q", tt.line))) {
			t.Errorf("CheckFragment(%q) = %v", tt.line, err)
		}
	}
}

// The full flavour is one more fragment, over which an image's own wins.
func TestFull(t *testing.T) {
	fragment, err := Full("amd64", "CONFIG_NR_CPUS=8\n")
	if err != nil || CheckFragment(fragment) != nil || !strings.HasSuffix(fragment, "CONFIG_NR_CPUS=8\n") || !strings.Contains(fragment, "\nCONFIG_HYPERV_STORAGE=y\n") {
		t.Errorf("Full() = %v, %v, %q", err, CheckFragment(fragment), fragment)
	}
	if _, err := Full("arm64", ""); err == nil || !strings.Contains(err.Error(), `not for "arm64"`) {
		t.Errorf("Full(arm64) = %v", err)
	}
}
