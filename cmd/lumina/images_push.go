package main

import (
	"context"
	"encoding/hex"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"github.com/spf13/cobra"

	"github.com/abdul-abdi/lumina/builder"
	"github.com/abdul-abdi/lumina/builder/disk"
	"github.com/abdul-abdi/lumina/builder/oci"
	"github.com/abdul-abdi/lumina/builder/reference"
	"github.com/abdul-abdi/lumina/release/attest"
	"github.com/abdul-abdi/lumina/release/catalog"
	"github.com/abdul-abdi/lumina/runtime"
	"github.com/abdul-abdi/lumina/runtime/image"
)

// pushFlags are those of images push.
type pushFlags struct {
	asIs, containerDisk, attest bool
	keyFile                     string
	annotations                 []string
}

func newImagesPushCommand(env *environment) *cobra.Command {
	var flags pushFlags
	c := &cobra.Command{
		Use:   "push NAME… REF",
		Short: "Send an image to a registry as a container image",
		Long: `Send an image to a registry as a container image, which every container tool
can run. Several images, each for another platform, become one index.

--as-is sends the image with its kernel and initramfs; images pull gets back the same
bytes. --containerdisk sends a disk from which KubeVirt boots a VM.

--attest also sends an SBOM (SPDX, from the packages of dpkg or apk) and the
provenance (SLSA), as documents that refer to the image. List them with
oras discover REF, or with docker buildx imagetools.

--sign signs the image, and the documents of --attest, as cosign does with a key.
The key is from cosign generate-key-pair (its password is in LUMINA_KEY_PASSWORD or
COSIGN_PASSWORD), or it is an ECDSA key on P-256 in PEM (openssl ecparam -name
prime256v1 -genkey -noout). Verify the image with
images pull --verify-key cosign.pub REF, or with
cosign verify --key cosign.pub --insecure-ignore-tlog=true REF.`,
		Args: usageArgs(cobra.MinimumNArgs(2)),
		RunE: func(c *cobra.Command, args []string) error {
			return pushImages(c.Context(), env, args[:len(args)-1], args[len(args)-1], flags)
		},
		ValidArgsFunction: completeNames(env, imageStore),
	}
	c.Flags().BoolVar(&flags.asIs, "as-is", false, "send the image itself, for lumina only")
	c.Flags().BoolVar(&flags.containerDisk, "containerdisk", false, "send a disk of the image, for KubeVirt")
	c.Flags().StringVar(&flags.keyFile, "sign", "", "sign it with this private key, as cosign does")
	c.Flags().BoolVar(&flags.attest, "attest", false, "send its SBOM and provenance with it")
	c.Flags().StringArrayVar(&flags.annotations, "annotation", nil, "add KEY=VALUE to what its manifest says (repeatable)")
	c.MarkFlagsMutuallyExclusive("as-is", "containerdisk")
	return c
}

func pushImages(ctx context.Context, env *environment, names []string, to string, flags pushFlags) error {
	if len(names) > 1 && (flags.asIs || flags.containerDisk || flags.attest) {
		return usageError{errors.New("--as-is, --containerdisk and --attest send one image")}
	}
	if ref, err := reference.Parse(to); err != nil {
		return usageError{err}
	} else if ref.Kind != reference.Registry {
		return usageError{fmt.Errorf("%s: an image is sent to a registry: write HOST/NAME:TAG", ref)}
	}
	annotations, err := parseAnnotations(flags.annotations)
	if err != nil {
		return usageError{err}
	}
	key, err := imageSigningKey(env, flags.keyFile) // before anything is sent
	if err != nil {
		return err
	}
	r, err := env.openRuntime()
	if err != nil {
		return err
	}
	local := make([]string, len(names))
	for n, name := range names {
		if local[n], err = localName(r.Images, name); err != nil {
			return err
		}
	}
	bars := newProgress(env)
	o := builder.PushOptions{
		Name: local[0], Reference: to, Store: r.Images, CacheDir: filepath.Join(r.Home(), "cache"), Sign: key, Annotations: annotations,
		Progress: func(done, total int64) {
			bars.update(builder.Progress{Step: "push", Done: done, Total: total})
		},
	}
	if flags.attest {
		o.Attach = func(digest string) ([]oci.Attachment, error) { return attestations(ctx, env, r, local[0], to, digest) }
	}
	var digest string
	switch {
	case flags.containerDisk:
		digest, err = pushContainerDisk(ctx, env, o)
	case flags.asIs:
		digest, err = builder.PushArtifact(ctx, o)
	case len(names) > 1:
		digest, err = builder.PushIndex(ctx, local, o)
	default:
		digest, err = builder.Push(ctx, o)
	}
	bars.close(err == nil)
	if err != nil {
		return err
	}
	return printPushed(env, strings.Join(names, " "), to, digest)
}

func printPushed(env *environment, name, to, digest string) error {
	f, err := outputFormat(env)
	if err != nil {
		return err
	}
	if f == formatText {
		_, err = fmt.Fprintf(env.stdout, "%s: %s\n", to, digest)
		return err
	}
	return printJSON(env.stdout, map[string]string{"name": name, "reference": to, "digest": digest})
}

// parseAnnotations reads KEY=VALUE.
func parseAnnotations(list []string) (map[string]string, error) {
	all := map[string]string{}
	for _, a := range list {
		key, value, ok := strings.Cut(a, "=")
		if !ok || key == "" {
			return nil, fmt.Errorf("--annotation %q: want KEY=VALUE, such as org.opencontainers.image.version=1.2", a)
		}
		all[key] = value
	}
	return all, nil
}

// attestations are an image's SBOM and its provenance; digest is what the registry
// has of it.
func attestations(ctx context.Context, env *environment, r *runtime.Runtime, name, to, digest string) ([]oci.Attachment, error) {
	h, err := r.Images.Open(name)
	if err != nil {
		return nil, err
	}
	defer h.Close()
	metadata, err := image.Digest(ctx, h.Path("image.json"))
	if err != nil {
		return nil, err
	}
	files := map[string]image.File{"image.json": metadata}
	for name, f := range h.Files {
		files[name] = f
	}
	algorithm, sum, _ := strings.Cut(digest, ":")
	if _, err := hex.DecodeString(sum); err != nil || algorithm != "sha256" {
		return nil, fmt.Errorf("%q is not a SHA-256 digest", digest)
	}
	entry := &catalog.Image{ID: name, Name: name, Version: digest, Architecture: h.Architecture, Files: files, Parts: []catalog.Asset{{Name: to, SHA256: sum}}}
	sbom, err := attest.SBOM(ctx, h, entry)
	if err != nil {
		return nil, err
	}
	provenance, err := attest.Provenance(h, entry, releaseBuilder(env))
	if err != nil {
		return nil, err
	}
	return []oci.Attachment{{Type: "application/spdx+json", Body: sbom}, {Type: "application/vnd.in-toto+json", Body: provenance}}, nil
}

// pushContainerDisk makes a disk of an image and sends it.
func pushContainerDisk(ctx context.Context, env *environment, o builder.PushOptions) (digest string, err error) {
	img, err := o.Store.Open(o.Name)
	if err != nil {
		return "", err
	}
	defer img.Close()
	dir, err := os.MkdirTemp(o.CacheDir, "disk-")
	if errors.Is(err, os.ErrNotExist) {
		if err = os.MkdirAll(o.CacheDir, 0o700); err == nil {
			dir, err = os.MkdirTemp(o.CacheDir, "disk-")
		}
	}
	if err != nil {
		return "", err
	}
	defer os.RemoveAll(dir)
	d := disk.Options{Image: img, Init: img.Init, Path: filepath.Join(dir, "disk.qcow2"), DataSize: img.DiskSize}
	if d.DataSize == 0 {
		d.DataSize = 16 << 30
	}
	if d.For, err = disk.FindPlace("kubevirt"); err != nil {
		return "", err
	}
	if err := bootable(ctx, env, &d, ""); err != nil {
		return "", err
	}
	if err := disk.Export(ctx, d); err != nil {
		return "", err
	}
	return builder.PushContainerDisk(ctx, o, d.Path, img.Architecture, img.Created)
}

func newImagesCopyCommand(env *environment) *cobra.Command {
	var maxSize byteSize
	c := &cobra.Command{
		Use:   "copy SRC DST",
		Short: "Copy an image between registries without changing it",
		Long: `Copy an image, or the images of all platforms, as they are: their digests stay.
SRC and DST are HOST/NAME:TAG or oci:DIR[:TAG], a layout. From registry to registry,
cosign's signatures and what refers to the image, such as its SBOM, are copied, too.`,
		Example: "  lumina images copy docker.io/library/debian:12 registry.example.test/base/debian:12",
		Args:    usageArgs(cobra.ExactArgs(2)),
		RunE: func(c *cobra.Command, args []string) error {
			if err := oci.CheckCopy(args[0], args[1]); err != nil {
				return usageError{err}
			}
			o := oci.CopyOptions{}
			if to, err := reference.Parse(args[1]); err == nil && to.Kind == reference.Layout {
				dir, _ := reference.SplitTag(to.Rest)
				if o.MaxSize, err = image.NewStore(dir).MaxSize(int64(maxSize)); err != nil {
					return err
				}
			}
			bars := newProgress(env)
			o.Progress = func(done, total int64) { bars.update(builder.Progress{Step: "push", Done: done, Total: total}) }
			digest, err := oci.Copy(c.Context(), args[0], args[1], o)
			bars.close(err == nil)
			if err != nil {
				return orMaxSize(err, int64(maxSize))
			}
			return printPushed(env, args[0], args[1], digest)
		},
	}
	c.Flags().Var(&maxSize, "max-size", "refuse an image that takes more space than this in a layout, such as 20GB (default half of the free space)")
	return c
}
