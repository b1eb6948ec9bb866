// Package image is Lumina's image format and the store of images. An image is
// a directory that a person can read:
//
//	image.json      Image, as JSON
//	kernel          what the VM boots: arm64 a raw Image, amd64 a PVH vmlinux
//	initramfs.cpio  init and agent
//	rootfs.erofs    the root file system, read-only
package image

import (
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path"
	"path/filepath"
	"strings"
	"time"

	"github.com/abdul-abdi/lumina/runtime/durable"
	"github.com/abdul-abdi/lumina/runtime/statefile"
)

// Schema is the version of the format.
const Schema = 1

// The files of an image beside image.json.
const (
	Kernel    = "kernel"
	Initramfs = "initramfs.cpio"
	Rootfs    = "rootfs.erofs"

	// SignedBy is in the directory of an image that was pulled with a key: which.
	SignedBy = "signed-by"

	prebuilt = "prebuilt" // see MarkPrebuilt

	metadata = "image.json"
)

// FileMode is that of an image's files, whatever the umask of who makes it: the
// virtual machines of root run as another user, who reads them. The directories
// above them are their owner's alone.
const FileMode = 0o644

// Who is PID 1 of a guest.
const (
	InitLumina  = "lumina"
	InitSystemd = "systemd" // the image's own, with Lumina's agent beside it
)

// CheckInit returns an error when s is neither the name of an init nor empty.
func CheckInit(s string) error {
	if s != "" && s != InitLumina && s != InitSystemd {
		return fmt.Errorf("init %.80q: want %s or %s", s, InitLumina, InitSystemd)
	}
	return nil
}

// maxMetadata bounds image.json, in bytes.
const maxMetadata = 4 << 20

// Image is image.json.
type Image struct {
	Schema       int             `json:"schema"`
	Architecture string          `json:"architecture"` // Go's name
	Created      time.Time       `json:"created"`
	Kernel       KernelInfo      `json:"kernel"`
	Config       Config          `json:"config"`
	Source       Source          `json:"source"`
	History      []History       `json:"history,omitempty"`
	Layers       []Layer         `json:"layers,omitempty"`
	Files        map[string]File `json:"files"`
	Rosetta      bool            `json:"rosetta,omitempty"`
	Description  string          `json:"description,omitempty"`
	Tags         []string        `json:"tags,omitempty"`
	// Container is what the container image said that it was made from; nil: it was
	// made from none.
	Container *Container `json:"container,omitempty"`
	// Init is who is PID 1; InitLumina when empty.
	Init string `json:"init,omitempty"`
	// DiskSize is the default size of a VM's own disk, in bytes; 0: the
	// runtime's.
	DiskSize int64 `json:"disk_size,omitempty"`
}

// KernelInfo describes the kernel.
type KernelInfo struct {
	Version     string `json:"version"`
	CommandLine string `json:"cmdline"` // the driver adds its machine's part
	// Fragment are the options that it was built with on top of Lumina's own.
	Fragment string `json:"fragment,omitempty"`
}

// Config is the part of the OCI image configuration that running a command
// needs; see the OCI image specification, config.md.
type Config struct {
	Env          []string          `json:"env,omitempty"`
	User         string            `json:"user,omitempty"`
	WorkingDir   string            `json:"workdir,omitempty"`
	Entrypoint   []string          `json:"entrypoint,omitempty"`
	Cmd          []string          `json:"cmd,omitempty"`
	Labels       map[string]string `json:"labels,omitempty"`
	ExposedPorts []string          `json:"exposed_ports,omitempty"`
	StopSignal   string            `json:"stop_signal,omitempty"`
}

// Container is what a container image says of itself. Lumina has no use for most
// of it, and hands it on when the image is pushed.
type Container struct {
	Config      json.RawMessage   `json:"config"` // all of it
	Annotations map[string]string `json:"annotations,omitempty"`
}

// Source is what an image was made from.
type Source struct {
	Reference string `json:"reference"`
	Digest    string `json:"digest,omitempty"` // of the manifest
}

// Public is the reference without the folders of the machine on which the image
// was made.
func (s Source) Public() string {
	switch kind, local, _ := strings.Cut(s.Reference, ":"); kind {
	case "oci", "oci-archive", "docker-archive":
		file, tag, _ := strings.Cut(local, ":")
		if host, _, ok := strings.Cut(tag, "/"); ok && strings.ContainsAny(host, ".:") {
			return kind + ":" + path.Base(file) + ":" + tag // the tag has a registry's slashes
		}
		return kind + ":" + path.Base(local)
	}
	return s.Reference
}

// History is one step of how the layers were made.
type History struct {
	Created    time.Time `json:"created,omitzero"`
	CreatedBy  string    `json:"created_by,omitempty"`
	Comment    string    `json:"comment,omitempty"`
	EmptyLayer bool      `json:"empty_layer,omitempty"`
}

// Layer is an OCI layer, lowest first.
type Layer struct {
	MediaType string `json:"media_type"`
	Digest    string `json:"digest"`
	DiffID    string `json:"diff_id"`
	Size      int64  `json:"size"` // bytes, compressed
	// Annotations are those of its descriptor.
	Annotations map[string]string `json:"annotations,omitempty"`
}

// File is a file of the image.
type File struct {
	Size   int64  `json:"size"` // bytes
	SHA256 string `json:"sha256"`
}

// ErrInvalid is wrapped by errors about image directories that break the format.
var ErrInvalid = errors.New("not a valid image")

// isSHA256 says whether s is a digest, in lower-case hexadecimal digits.
func isSHA256(s string) bool {
	b, err := hex.DecodeString(s)
	return err == nil && len(b) == sha256.Size && s == strings.ToLower(s)
}

// Parse reads image.json and checks it.
func Parse(r io.Reader) (*Image, error) {
	b, err := io.ReadAll(io.LimitReader(r, maxMetadata+1))
	if err != nil {
		return nil, fmt.Errorf("reading %s: %w", metadata, err)
	}
	if len(b) > maxMetadata {
		return nil, fmt.Errorf("%w: %s is longer than %d bytes", ErrInvalid, metadata, maxMetadata)
	}
	// The version first: a later format may not fit the types of this one.
	var version struct {
		Schema int `json:"schema"`
	}
	if err := json.Unmarshal(b, &version); err != nil {
		return nil, fmt.Errorf("%w: %s: %w", ErrInvalid, metadata, err)
	}
	if version.Schema != Schema {
		return nil, fmt.Errorf("%w: it has schema %d, this lumina reads %d", ErrInvalid, version.Schema, Schema)
	}
	img := new(Image)
	if err := json.Unmarshal(b, img); err != nil {
		return nil, fmt.Errorf("%w: %s: %w", ErrInvalid, metadata, err)
	}
	return img, img.check()
}

func (img *Image) check() error {
	if img.Architecture != "amd64" && img.Architecture != "arm64" {
		return fmt.Errorf("%w: architecture %q", ErrInvalid, img.Architecture)
	}
	if img.DiskSize < 0 {
		return fmt.Errorf("%w: disk size %d", ErrInvalid, img.DiskSize)
	}
	if err := CheckInit(img.Init); err != nil {
		return fmt.Errorf("%w: %w", ErrInvalid, err)
	}
	if len(img.Files) != 3 {
		return fmt.Errorf("%w: it lists %d files, want 3", ErrInvalid, len(img.Files))
	}
	for _, name := range []string{Kernel, Initramfs, Rootfs} {
		f, ok := img.Files[name]
		if !ok || f.Size <= 0 || !isSHA256(f.SHA256) {
			return fmt.Errorf("%w: its entry of %s is missing or malformed", ErrInvalid, name)
		}
	}
	return nil
}

// Write writes image.json into dir.
func (img *Image) Write(dir string) error {
	if err := img.check(); err != nil {
		return err
	}
	b, err := json.MarshalIndent(img, "", "  ")
	if err != nil {
		return fmt.Errorf("encoding %s: %w", metadata, err)
	}
	if err := durable.WriteNew(filepath.Join(dir, metadata), append(b, '\n'), FileMode); err != nil {
		return fmt.Errorf("writing %s: %w", metadata, err)
	}
	return nil
}

// Read reads the image.json of a directory and checks the sizes of its files.
func Read(dir string) (*Image, error) {
	root, err := statefile.OpenRoot(dir)
	if err != nil {
		return nil, err
	}
	defer root.Close()
	f, err := openFile(root, metadata)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	return read(root, f)
}

// openFile opens a file of an image. What is a link, a directory or a FIFO, which
// would be waited for, is none.
func openFile(root *os.Root, name string) (*os.File, error) {
	f, err := statefile.OpenIn(root, name)
	if errors.Is(err, statefile.ErrDamaged) {
		return nil, fmt.Errorf("%w: %w", ErrInvalid, err)
	}
	if err != nil {
		return nil, fmt.Errorf("opening %s: %w", name, err)
	}
	return f, nil
}

func read(root *os.Root, description io.Reader) (*Image, error) {
	img, err := Parse(description)
	if err != nil {
		return nil, err
	}
	for name, file := range img.Files {
		info, err := root.Lstat(name)
		if err != nil {
			return nil, fmt.Errorf("%w: %w", ErrInvalid, err)
		}
		if !info.Mode().IsRegular() {
			return nil, fmt.Errorf("%w: %s is not a file", ErrInvalid, name)
		}
		if info.Size() != file.Size {
			return nil, fmt.Errorf("%w: %s has %d bytes, %s says %d", ErrInvalid, name, info.Size(), metadata, file.Size)
		}
	}
	return img, nil
}
