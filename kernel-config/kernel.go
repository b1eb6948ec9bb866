// Package kernelconfig holds the guest kernels that build.sh made of this folder's configuration.
//
// The kernels are embedded compressed, whatever of them was built when the Go program was: a program
// built from a clean clone has none, and Open says how to get one.
package kernelconfig

import (
	"crypto/sha256"
	"embed"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"hash"
	"io"
	"io/fs"

	"github.com/klauspost/compress/zstd"
)

//go:embed all:out
var embedded embed.FS

// maxSize bounds a decompressed kernel, in bytes.
const maxSize = 256 << 20

// Kernel is one built guest kernel.
type Kernel struct {
	Version      string // as uname -r prints it: "6.12.117-lumina"
	Architecture string // "amd64" or "arm64"
	SHA256       string // of the decompressed kernel, lower-case hexadecimal
	Size         int64  // of the decompressed kernel, in bytes

	compressed func() (fs.File, error)
}

// ErrNotBuilt reports that the program was built without the kernel of an architecture.
type ErrNotBuilt struct {
	Architecture string
}

func (e *ErrNotBuilt) Error() string {
	return fmt.Sprintf("opening the %s guest kernel: this program was built without it; run `make kernel ARCH=%s` and build again",
		e.Architecture, e.Architecture)
}

// description is out/ARCH.json, which build.sh writes.
type description struct {
	Version      string `json:"version"`
	Architecture string `json:"architecture"`
	file
	EFI *file `json:"efi"`
}

type file struct {
	SHA256 string `json:"sha256"`
	Size   int64  `json:"size"`
}

// Open returns the kernel that boots fastest in a VM without firmware: on amd64 an uncompressed ELF image
// with a PVH entry point, on arm64 a raw Image. arch is as Go spells it; a known architecture that was not
// built is an *ErrNotBuilt.
func Open(arch string) (Kernel, error) {
	return open(embedded, arch, false)
}

// OpenEFI returns the kernel that EFI firmware can start: on amd64 a bzImage, on arm64 what Open returns.
// Errors are those of Open.
func OpenEFI(arch string) (Kernel, error) {
	return open(embedded, arch, true)
}

// Loader returns the program that EFI firmware starts from an exported disk, and that starts the kernel with its
// command line; see loader/loader.c. It is built with the kernel of its architecture. Errors are those of Open.
func Loader(arch string) ([]byte, error) {
	b, err := embedded.ReadFile("out/loader-" + arch + ".efi")
	if errors.Is(err, fs.ErrNotExist) {
		return nil, &ErrNotBuilt{Architecture: arch}
	}
	return b, err
}

func open(files fs.FS, arch string, efi bool) (Kernel, error) {
	if arch != "amd64" && arch != "arm64" {
		return Kernel{}, fmt.Errorf("opening the guest kernel: unknown architecture %q", arch)
	}
	text, err := fs.ReadFile(files, "out/"+arch+".json")
	if errors.Is(err, fs.ErrNotExist) {
		return Kernel{}, &ErrNotBuilt{Architecture: arch}
	}
	if err != nil {
		return Kernel{}, fmt.Errorf("opening the %s guest kernel: %w", arch, err)
	}
	var d description
	if err := json.Unmarshal(text, &d); err != nil {
		return Kernel{}, fmt.Errorf("opening the %s guest kernel: reading its description: %w", arch, err)
	}
	name, which := "out/kernel-"+arch+".zst", d.file
	if efi && arch == "amd64" {
		if d.EFI == nil {
			return Kernel{}, &ErrNotBuilt{Architecture: arch}
		}
		name, which = "out/bzimage-amd64.zst", *d.EFI
	}
	if which.Size <= 0 || which.Size > maxSize {
		return Kernel{}, fmt.Errorf("opening the %s guest kernel: size %d is not in 1..%d", arch, which.Size, maxSize)
	}
	compressed := func() (fs.File, error) {
		f, err := files.Open(name)
		if errors.Is(err, fs.ErrNotExist) {
			return nil, &ErrNotBuilt{Architecture: arch}
		}
		if err != nil {
			return nil, fmt.Errorf("opening the %s guest kernel: %w", arch, err)
		}
		return f, nil
	}
	f, err := compressed()
	if err != nil {
		return Kernel{}, err
	}
	_ = f.Close()
	return Kernel{Version: d.Version, Architecture: d.Architecture, SHA256: which.SHA256, Size: which.Size, compressed: compressed}, nil
}

// Open returns a reader of the decompressed kernel. Its end is io.EOF only when size and digest are those of k.
func (k Kernel) Open() (io.ReadCloser, error) {
	compressed, err := k.compressed()
	if err != nil {
		return nil, err
	}
	// What is decompressed needs to be in memory by its window only.
	decoder, err := zstd.NewReader(compressed, zstd.WithDecoderMaxMemory(maxSize), zstd.WithDecoderConcurrency(1), zstd.WithDecoderLowmem(true))
	if err != nil {
		_ = compressed.Close()
		return nil, fmt.Errorf("decompressing the %s guest kernel: %w", k.Architecture, err)
	}
	return &reader{kernel: k, compressed: compressed, decoder: decoder, digest: sha256.New(), left: k.Size}, nil
}

// WriteTo writes the decompressed kernel to w, checks it, and returns how many bytes it wrote.
func (k Kernel) WriteTo(w io.Writer) (n int64, err error) {
	r, err := k.Open()
	if err != nil {
		return 0, err
	}
	defer func() { err = errors.Join(err, r.Close()) }()
	return io.Copy(w, r)
}

// reader decompresses at most Size bytes and checks them.
type reader struct {
	kernel     Kernel
	compressed fs.File
	decoder    *zstd.Decoder
	digest     hash.Hash
	left       int64
}

func (r *reader) Read(p []byte) (int, error) {
	n, err := r.decoder.Read(p)
	if int64(n) > r.left {
		return 0, fmt.Errorf("decompressing the %s guest kernel: more than its %d bytes", r.kernel.Architecture, r.kernel.Size)
	}
	r.left -= int64(n)
	r.digest.Write(p[:n])
	switch {
	case err == nil:
		return n, nil
	case !errors.Is(err, io.EOF):
		return n, fmt.Errorf("decompressing the %s guest kernel: %w", r.kernel.Architecture, err)
	case r.left > 0:
		return n, fmt.Errorf("decompressing the %s guest kernel: %d bytes are missing: %w", r.kernel.Architecture, r.left, io.ErrUnexpectedEOF)
	}
	if sum := hex.EncodeToString(r.digest.Sum(nil)); sum != r.kernel.SHA256 {
		return n, fmt.Errorf("decompressing the %s guest kernel: sha256 is %s, want %s", r.kernel.Architecture, sum, r.kernel.SHA256)
	}
	return n, io.EOF
}

func (r *reader) Close() error {
	r.decoder.Close()
	return r.compressed.Close()
}

// noSpareLinks keeps drivers that are built in from making links (dummy0, ifb0, tunl0, …) that nobody asked
// for. As modules they would make them only when loaded.
const noSpareLinks = "dummy.numdummies=0 ifb.numifbs=0 fb_tunnels=none"

// CommandLine returns the kernel command line a guest of arch boots with; console and devices come on top.
func CommandLine(arch string) string {
	common := "quiet panic=-1 " + noSpareLinks
	if arch == "amd64" {
		return common + " reboot=t"
	}
	return common
}
