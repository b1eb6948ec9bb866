package builder

import (
	"bytes"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"math"
	"os"
	"path/filepath"

	"github.com/abdul-abdi/lumina/runtime/durable"
	"github.com/abdul-abdi/lumina/runtime/image"
)

// writeKernel writes the kernel and checks that it is one.
func writeKernel(path string, k Kernel, arch string) (image.File, error) {
	r, err := k.Open()
	if err != nil {
		return image.File{}, fmt.Errorf("opening the kernel: %w", err)
	}
	defer r.Close()
	f, err := durable.Create(path, image.FileMode)
	if err != nil {
		return image.File{}, fmt.Errorf("writing the kernel: %w", err)
	}
	defer f.Close()
	sum := sha256.New()
	n, err := io.Copy(io.MultiWriter(io.NewOffsetWriter(&output{File: f, limit: math.MaxInt64}, 0), sum), r)
	if err != nil {
		return image.File{}, fmt.Errorf("writing the kernel: %w", err)
	}
	return image.File{Size: n, SHA256: fmt.Sprintf("%x", sum.Sum(nil))}, CheckKernel(f, arch)
}

// CheckKernel looks whether f begins like a kernel that an architecture boots:
// an ELF file or a bzImage of amd64 (Documentation/arch/x86/boot.rst of the
// kernel), or an uncompressed arm64 Image (Documentation/arch/arm64/booting.rst).
func CheckKernel(f io.ReaderAt, arch string) error {
	head := make([]byte, 0x206)
	n, err := f.ReadAt(head, 0)
	if n < 64 {
		if err != nil && !errors.Is(err, io.EOF) {
			return fmt.Errorf("reading the kernel: %w", err)
		}
		return fmt.Errorf("the kernel has %d bytes: it is empty or cut off", n)
	}
	isELF := bytes.HasPrefix(head, []byte("\x7fELF")) && binary.LittleEndian.Uint16(head[18:]) == 62
	isBzImage := string(head[0x202:]) == "HdrS"
	isARM := string(head[56:60]) == "ARM\x64"
	switch {
	case arch == "amd64" && (isELF || isBzImage), arch == "arm64" && isARM:
		return nil
	case isELF, isBzImage, isARM:
		return fmt.Errorf("the kernel is for another architecture than the image, %s", arch)
	case bytes.HasPrefix(head, []byte{0x1f, 0x8b}):
		return fmt.Errorf("the kernel is compressed; give the uncompressed one (arm64: Image, amd64: vmlinux or bzImage)")
	}
	return fmt.Errorf("the kernel cannot be booted: want an Image (arm64), or a vmlinux or bzImage (amd64)")
}

// KernelFile is a kernel that is not Lumina's own.
func KernelFile(path, commandLine string) (Kernel, error) {
	info, err := os.Stat(path)
	if err != nil {
		return Kernel{}, fmt.Errorf("kernel: %w", err)
	}
	if info.Size() == 0 {
		return Kernel{}, fmt.Errorf("kernel %q is empty", path)
	}
	return Kernel{Version: filepath.Base(path), CommandLine: commandLine, Open: func() (io.ReadCloser, error) { return os.Open(path) }}, nil
}
