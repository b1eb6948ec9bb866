package main

import (
	"encoding/binary"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// A disk's own kernel is one that EFI can start, of the image's architecture.
func TestKernelOfFile(t *testing.T) {
	program := func(machine uint16) []byte {
		b := make([]byte, 256)
		copy(b, "MZ")
		b[60] = 128
		copy(b[128:], "PE\x00\x00")
		binary.LittleEndian.PutUint16(b[132:], machine)
		return b
	}
	far := program(0x8664)
	binary.LittleEndian.PutUint32(far[60:], 1<<32-1)
	for _, tt := range []struct {
		name, arch, want string
		content          []byte
	}{
		{"amd64", "amd64", "", program(0x8664)},
		{"arm64", "arm64", "", program(0xaa64)},
		{"amd64 for arm64", "arm64", "another architecture than the image, arm64", program(0x8664)},
		{"arm64 for amd64", "amd64", "another architecture than the image, amd64", program(0xaa64)},
		{"riscv64", "amd64", "another architecture than the image, amd64", program(0x5064)},
		{"empty", "amd64", "not a kernel that EFI can start", nil},
		{"MZ alone", "amd64", "not a kernel that EFI can start", []byte("MZ")},
		{"no EFI", "amd64", "not a kernel that EFI can start", append([]byte("MZ"), make([]byte, 254)...)},
		{"a header behind the end", "amd64", "not a kernel that EFI can start", far},
	} {
		t.Run(tt.name, func(t *testing.T) {
			file := filepath.Join(t.TempDir(), "kernel")
			if err := os.WriteFile(file, tt.content, 0o600); err != nil {
				t.Fatal(err)
			}
			k, err := kernelOfFile(file, tt.arch)
			var usage usageError
			switch {
			case tt.want == "" && (err != nil || k.Size != int64(len(tt.content))):
				t.Errorf("a kernel of %d bytes, %v", k.Size, err)
			case tt.want != "" && (err == nil || !errors.As(err, &usage) || !strings.Contains(err.Error(), tt.want) || !strings.Contains(err.Error(), file)):
				t.Errorf("error %v, want one of usage with %q and the file", err, tt.want)
			}
		})
	}
}
