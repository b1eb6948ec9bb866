// Package disk exports images as disks that EFI firmware boots: GPT, an EFI
// system partition, the image's root and a partition for what is written.
//
// It is sparse and byte for byte the same from the same input. go-diskfs writes
// the partition table. Its file systems (1.9.4) are not used: fsck.fat refuses a
// FAT32 of 64 MiB of its ("Too few sectors in FAT"), and an environment variable of
// the whole process is what keeps the time of day out of them.
package disk

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"github.com/diskfs/go-diskfs/partition/gpt"

	"github.com/abdul-abdi/lumina/initramfs/protocol"
	"github.com/abdul-abdi/lumina/runtime/durable"
	"github.com/abdul-abdi/lumina/runtime/ext4"
	"github.com/abdul-abdi/lumina/runtime/fat"
	"github.com/abdul-abdi/lumina/runtime/image"
	"github.com/abdul-abdi/lumina/runtime/qcow2"
)

const (
	sector = 512
	mib    = 1 << 20

	// MaxDataSize bounds what is writable, in bytes: VHD's limit is 2040 GiB
	// for the whole disk.
	MaxDataSize = 1 << 40
	// maxISOFile bounds the root of an ISO, in bytes: a directory has 32 bits for
	// a file's size.
	maxISOFile = 4<<30 - 1
)

var (
	// ErrExists is wrapped when there is a file and Force was not given.
	ErrExists = errors.New("file exists")
	// ErrFormat is wrapped for a file name that names no format.
	ErrFormat = errors.New("unknown disk format")
)

// Kernel is a kernel that EFI firmware can start.
type Kernel struct {
	Size int64 // bytes
	Open func() (io.ReadCloser, error)
}

// Options of Export.
type Options struct {
	Image  *image.Handle
	Kernel Kernel
	Loader []byte // what starts the kernel
	// Init is who is PID 1; Lumina's when empty.
	Init     string
	DataSize int64  // of the writable partition, in bytes, at least; an ISO has none
	For      *Place // where it is to boot; nil for a VM
	Path     string
	Force    bool
	Progress func(done, total int64) // bytes of files; may be nil
}

// CheckDataSize says whether a writable partition can have a size.
func CheckDataSize(n int64) error {
	if n < ext4.MinSize || n > MaxDataSize {
		size := fmt.Sprintf("%d bytes", n)
		if n >= 1<<20 {
			size = fmt.Sprintf("%d MB", n>>20)
		}
		return fmt.Errorf("a writable partition of %s: want %d MB to %d GB", size, int64(ext4.MinSize)>>20, int64(MaxDataSize)>>30)
	}
	return nil
}

// Export writes a disk. The file is there complete, or not at all.
func Export(ctx context.Context, o Options) (err error) {
	if err := CheckPath(o.Path, o.For); err != nil {
		return err
	}
	if err := image.CheckInit(o.Init); err != nil {
		return err
	}
	if err := CheckDataSize(o.DataSize); err != nil {
		return err
	}
	path, mode := o.Path, fs.FileMode(0o644)
	if _, err := os.Lstat(path); err == nil {
		if !o.Force {
			return fmt.Errorf("%q: %w", path, ErrExists)
		}
		// A link is written through, and what is there keeps its mode.
		if path, err = filepath.EvalSymlinks(path); err != nil {
			return err
		}
		info, err := os.Stat(path)
		if err != nil {
			return err
		}
		if !info.Mode().IsRegular() {
			return fmt.Errorf("%q is not a regular file; a disk is not written in order", o.Path)
		}
		mode = info.Mode().Perm()
	}
	f, err := os.CreateTemp(filepath.Dir(path), "."+filepath.Base(path)+".tmp-*")
	if err != nil {
		return fmt.Errorf("creating the disk: %w", err)
	}
	defer func() {
		if err != nil {
			err = errors.Join(err, f.Close(), os.Remove(f.Name()))
		}
	}()
	e := &export{Options: o, ctx: ctx, file: f, live: filepath.Ext(o.Path) == ".iso"}
	if err := e.write(); err != nil {
		return fmt.Errorf("writing disk %q: %w", o.Path, err)
	}
	if err := f.Chmod(mode); err != nil {
		return err
	}
	if err := f.Close(); err != nil {
		return err
	}
	if o.Force {
		return durable.Move(f.Name(), path)
	}
	// Link, unlike Rename, leaves what came there meanwhile.
	if err := durable.Place(f.Name(), path, os.Link); err != nil {
		return err
	}
	return os.Remove(f.Name())
}

// export is one run of Export.
type export struct {
	Options
	ctx         context.Context // of this call only
	file        *os.File
	live        bool // an ISO: what is written is in memory
	id          [sha256.Size]byte
	done, total int64
}

// container is the format around a disk. What is never written, and zeroes,
// take no room in it.
type container interface {
	io.WriterAt
	// finish writes what is known only at the end.
	finish() error
	// Close frees what is beside the disk's file.
	Close() error
}

func (e *export) write() error {
	// What names the disk and its parts: all that it is made from.
	h := sha256.New()
	fmt.Fprintf(h, "lumina disk 4\n%s\n%s\n%d\n%v\n%x\n", e.Image.Architecture, e.commandLine(), e.DataSize, e.live, sha256.Sum256(e.Loader))
	for _, name := range []string{image.Kernel, image.Initramfs, image.Rootfs} {
		fmt.Fprintf(h, "%s\n", e.Image.Files[name].SHA256)
	}
	e.id = [sha256.Size]byte(h.Sum(nil))

	boot, err := e.bootFiles()
	if err != nil {
		return err
	}
	esp, err := fat.LayOut(boot, e.number("esp"))
	if err != nil {
		return err
	}
	for _, f := range boot {
		e.total += f.Size
	}
	root := e.Image.Files[image.Rootfs].Size
	e.total += root
	if e.live {
		return e.writeISO(esp)
	}
	data := (e.DataSize + mib - 1) / mib * mib
	parts := []partition{
		{kind: gpt.EFISystemPartition, name: "boot-" + e.shortID(), size: esp.Size},
		{kind: gpt.LinuxFilesystem, name: "root-" + e.shortID(), size: (root + mib - 1) / mib * mib},
		{kind: gpt.LinuxFilesystem, name: "data-" + e.shortID(), size: data},
	}
	at := int64(mib)
	for i := range parts {
		parts[i].start, parts[i].id = at, e.guid(parts[i].name)
		at += parts[i].size
	}
	size := at + mib // the backup of the table is at the end
	if e.For != nil && e.For.round > 0 {
		more := (e.For.round - size%e.For.round) % e.For.round
		parts[2].size, data, size = parts[2].size+more, data+more, size+more
	}
	c, err := e.newContainer(size)
	if err != nil {
		return err
	}
	defer c.Close()
	if err := writeGPT(c, size, e.guid("disk"), parts); err != nil {
		return err
	}
	if err := esp.Write(&section{c, parts[0].start}, e.copy); err != nil {
		return err
	}
	if err := e.copy(&section{c, parts[1].start}, 0, e.imageFile(image.Rootfs)); err != nil {
		return err
	}
	if err := ext4.Format(&section{c, parts[2].start}, data, ext4.Options{Label: "data", UUID: e.guid("data file system"), Grows: true}); err != nil {
		return err
	}
	return c.finish()
}

func (e *export) newContainer(size int64) (container, error) {
	switch format(e.Path) {
	case ".qcow2":
		return &qcow2Disk{qcow2.NewWriter(e.file, size)}, nil
	case ".vhd":
		if e.For != nil && e.For.fixed {
			return newFixedVHD(e.file, size, e.guid("vhd"))
		}
		return newVHD(e.file, size, e.guid("vhd"))
	case ".vhdx":
		return newVHDX(e.file, size, e.guid("vhdx"))
	case ".vmdk", ".ova", ".tar.gz":
		return newInOrder(e, size)
	}
	return newRaw(e.file, size)
}

// commandLine is the kernel's, without what names the disk.
func (e *export) commandLine() string {
	console := "console=tty0 console=ttyS0"
	if e.Image.Architecture == "arm64" {
		console = "console=tty0 console=ttyAMA0"
	}
	line := e.Image.Kernel.CommandLine + " " + console
	if e.For != nil {
		line = e.For.commandLine(e.Image.Kernel.CommandLine, e.Image.Architecture)
	}
	line += " " + protocol.ParamHost.Is(protocol.HostNone)
	if e.Init == image.InitSystemd {
		line += " " + protocol.ParamInit.Is(e.Init)
	}
	return line
}

// bootFiles are the files of the EFI system partition.
func (e *export) bootFiles() ([]fat.File, error) {
	loader := "BOOTX64.EFI"
	if e.Image.Architecture == "arm64" {
		loader = "BOOTAA64.EFI"
	}
	line := e.commandLine() + ` initrd=\lumina\initrd`
	if e.live {
		line += " " + protocol.ParamISO.Is(e.volumeID())
	} else {
		line += " " + protocol.ParamDisk.Is(e.shortID())
	}
	// 2047 is what the kernel of amd64 takes, and the loader.
	if len(line) > 2047 || strings.ContainsFunc(line, func(r rune) bool { return r < ' ' || r > '~' }) {
		return nil, fmt.Errorf("the kernel's command line %.80q is too long or not of ASCII characters", line)
	}
	files := []fat.File{
		{Dir: "EFI/BOOT", Name: loader, Size: int64(len(e.Loader)), Open: reader(e.Loader)},
		{Dir: "LUMINA", Name: "CMDLINE", Size: int64(len(line) + 1), Open: reader([]byte(line + "\n"))},
		{Dir: "LUMINA", Name: "KERNEL", Size: e.Kernel.Size, Open: e.Kernel.Open},
		{Dir: "LUMINA", Name: "INITRD", Size: e.Image.Files[image.Initramfs].Size, Open: e.imageFile(image.Initramfs).Open},
	}
	return files, nil
}

func (e *export) imageFile(name string) fat.File {
	return fat.File{Size: e.Image.Files[name].Size, Open: func() (io.ReadCloser, error) { return e.Image.Open(name) }}
}

func reader(b []byte) func() (io.ReadCloser, error) {
	return func() (io.ReadCloser, error) { return io.NopCloser(bytes.NewReader(b)), nil }
}

// copy writes a file, of exactly its size.
func (e *export) copy(w io.WriterAt, at int64, f fat.File) error {
	r, err := f.Open()
	if err != nil {
		return err
	}
	defer r.Close()
	buf := make([]byte, mib)
	for left := f.Size; left > 0; {
		if err := context.Cause(e.ctx); err != nil {
			return err
		}
		p := buf[:min(left, mib)]
		if _, err := io.ReadFull(r, p); err != nil {
			return fmt.Errorf("reading what goes on it: %w", err)
		}
		if _, err := w.WriteAt(p, at); err != nil {
			return err
		}
		at, left, e.done = at+int64(len(p)), left-int64(len(p)), e.done+int64(len(p))
		if e.Progress != nil {
			e.Progress(e.done, e.total)
		}
	}
	return nil
}

// shortID is how the guest finds its partitions, by their names.
func (e *export) shortID() string { return hex.EncodeToString(e.id[:8]) }

// guid derives one of what the disk is made from, marked as version 8 of RFC
// 9562.
func (e *export) guid(of string) [16]byte {
	sum := sha256.Sum256(append(e.id[:], of...))
	g := [16]byte(sum[:])
	g[6] = g[6]&0x0f | 0x80
	g[8] = g[8]&0x3f | 0x80
	return g
}

func (e *export) number(of string) uint32 {
	g := e.guid(of)
	return le.Uint32(g[:])
}

// section is a part of a disk.
type section struct {
	w     io.WriterAt
	start int64
}

func (s *section) WriteAt(p []byte, at int64) (int, error) { return s.w.WriteAt(p, s.start+at) }

// Truncate is there for ext4, which sizes files; a partition has its size.
func (s *section) Truncate(int64) error { return nil }
