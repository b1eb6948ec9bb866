package vz

import (
	"bytes"
	"cmp"
	"errors"
	goruntime "runtime"
	"strings"
	"testing"

	"github.com/abdul-abdi/lumina/runtime/vm"
)

func TestCheckMacOS(t *testing.T) {
	for release, ok := range map[string]bool{
		"14": true, "14.0": true, "15.2.1": true, "26.0": true, "13.6.9": false, "9.1": false, "12.10": false, "": false, "x": false,
	} {
		if err := checkMacOS(release); (err == nil) != ok || err != nil && !errors.Is(err, ErrMacOS) {
			t.Errorf("%q: %v", release, err)
		}
	}
}

func TestCheckKernel(t *testing.T) {
	image := make([]byte, 64)
	copy(image[56:], "ARM\x64")
	tests := []struct {
		name, want string
		kernel     []byte
		arch       string
	}{
		{"Image", "", image, ""},
		{"gzip", "compressed with gzip", append([]byte{0x1f, 0x8b}, make([]byte, 100)...), ""},
		{"zboot", "compressed EFI image", append([]byte("MZ\x00\x00zimg"), make([]byte, 100)...), ""},
		{"ELF", "not an arm64 Image", append([]byte("\x7fELF"), make([]byte, 100)...), ""},
		{"short", "reading the kernel", []byte("MZ"), ""},
		{"bzImage", "", append(make([]byte, 0x202), "HdrS and more"...), "amd64"},
		{"vmlinux", "not a bzImage", append([]byte("\x7fELF"), make([]byte, 0x300)...), "amd64"},
	}
	for _, tt := range tests {
		err := checkKernel(bytes.NewReader(tt.kernel), cmp.Or(tt.arch, "arm64"))
		if (err == nil) != (tt.want == "") || err != nil && !strings.Contains(err.Error(), tt.want) {
			t.Errorf("%s: %v, want %q", tt.name, err, tt.want)
		}
	}
}

func TestCheckSpec(t *testing.T) {
	for _, spec := range []vm.Spec{
		{Arch: "amd64", CPUs: 0, Memory: 1 << 30},
		{Arch: "amd64", CPUs: 1, Memory: 1<<30 + 4096},
	} {
		if err := checkSpec(spec); err == nil {
			t.Errorf("%+v is let through", spec)
		}
	}
}

func TestCheckDesktop(t *testing.T) {
	ok := vm.DesktopSpec{Arch: goruntime.GOARCH, CPUs: 2, Memory: 1 << 30, Identifier: []byte("id")}
	if err := checkDesktop(ok); err != nil {
		t.Error(err)
	}
	mac, direct := "without hardware model", "boots macOS only"
	if goruntime.GOARCH != "arm64" {
		mac, direct = "Apple silicon", "Apple silicon"
	}
	for name, tt := range map[string]struct {
		change func(*vm.DesktopSpec)
		want   string
	}{
		"no CPU":                {func(s *vm.DesktopSpec) { s.CPUs = 0 }, "0 cpus"},
		"half a mebibyte":       {func(s *vm.DesktopSpec) { s.Memory += 1 << 19 }, "whole mebibytes"},
		"an empty identifier":   {func(s *vm.DesktopSpec) { s.Identifier = []byte{} }, "identifier is empty"},
		"a Mac without a model": {func(s *vm.DesktopSpec) { s.HardwareModel = []byte{} }, mac},
		"a Mac with a kernel":   {func(s *vm.DesktopSpec) { s.HardwareModel, s.Direct = []byte("m"), &vm.DirectBoot{} }, direct},
	} {
		spec := ok
		tt.change(&spec)
		if err := checkDesktop(spec); err == nil || !strings.Contains(err.Error(), tt.want) {
			t.Errorf("%s: %v, want %q", name, err, tt.want)
		}
	}
}
