package builder

import (
	"archive/tar"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"io"
	"os"
	"time"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/types"
	"github.com/klauspost/compress/gzip"

	"github.com/abdul-abdi/lumina/builder/oci"
)

// kubevirtUser is whom KubeVirt's containers run as (its user guide, "containerDisk").
const kubevirtUser = 107

// PushContainerDisk sends a disk, a file, to a registry as a containerDisk of
// KubeVirt: a container image that has nothing but the disk, below /disk.
func PushContainerDisk(ctx context.Context, o PushOptions, disk, arch string, created time.Time) (string, error) {
	if err := os.MkdirAll(o.CacheDir, 0o700); err != nil {
		return "", err
	}
	layer, packed, err := diskLayer(ctx, disk, o.CacheDir)
	if err != nil {
		return "", err
	}
	defer packed.Close()
	config, err := json.Marshal(v1.ConfigFile{Architecture: arch, OS: "linux", Created: v1.Time{Time: created},
		History: []v1.History{{CreatedBy: "lumina images push --containerdisk", Created: v1.Time{Time: created}}}})
	if err != nil {
		return "", err
	}
	annotations := map[string]string{annotationPrefix + "created": created.UTC().Format(time.RFC3339)}
	for key, value := range o.Annotations {
		annotations[key] = value
	}
	digest, err := oci.Push(ctx, o.Reference, config, annotations, []oci.Layer{layer}, o.Progress)
	if ctx.Err() != nil {
		return "", context.Cause(ctx)
	}
	if err != nil {
		return "", err
	}
	return digest, o.complete(ctx, digest)
}

// diskLayer packs a disk into a file without a name in dir, to be closed.
func diskLayer(ctx context.Context, disk, dir string) (l oci.Layer, out *os.File, err error) {
	in, err := os.Open(disk)
	if err != nil {
		return l, nil, err
	}
	defer in.Close()
	info, err := in.Stat()
	if err != nil {
		return l, nil, err
	}
	if out, err = os.CreateTemp(dir, "push-"); err != nil {
		return l, nil, err
	}
	defer func() {
		if err != nil {
			out.Close()
		}
	}()
	if err := os.Remove(out.Name()); err != nil {
		return l, nil, err
	}
	packed, plain := sha256.New(), sha256.New()
	z, err := gzip.NewWriterLevel(io.MultiWriter(out, packed), gzip.BestSpeed)
	if err != nil {
		return l, nil, err
	}
	t := tar.NewWriter(io.MultiWriter(z, plain))
	owner := func(h tar.Header) *tar.Header {
		h.Uid, h.Gid, h.ModTime, h.Format = kubevirtUser, kubevirtUser, time.Unix(0, 0), tar.FormatGNU
		return &h
	}
	err = t.WriteHeader(owner(tar.Header{Typeflag: tar.TypeDir, Name: "disk/", Mode: 0o555}))
	if err == nil {
		err = t.WriteHeader(owner(tar.Header{Typeflag: tar.TypeReg, Name: "disk/disk.qcow2", Mode: 0o440, Size: info.Size()}))
	}
	if err == nil {
		_, err = io.Copy(t, interruptible{ctx, in})
	}
	if err = errors.Join(err, t.Close(), z.Close()); err != nil {
		return l, nil, err
	}
	size, err := out.Seek(0, io.SeekCurrent)
	if err != nil {
		return l, nil, err
	}
	return oci.Layer{
		MediaType: string(types.OCILayer), Size: size,
		Digest: v1.Hash{Algorithm: "sha256", Hex: hex.EncodeToString(packed.Sum(nil))},
		DiffID: v1.Hash{Algorithm: "sha256", Hex: hex.EncodeToString(plain.Sum(nil))},
		Open: func(context.Context) (io.ReadCloser, error) {
			return io.NopCloser(io.NewSectionReader(out, 0, size)), nil
		},
	}, out, nil
}
