package builder

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"regexp"
	"slices"
	"strings"
	"sync"

	"github.com/abdul-abdi/lumina/builder/oci"
	"github.com/abdul-abdi/lumina/runtime/image"
)

// debianPrefix begins references of roots that are made from Debian's packages
// on this host: mmdebstrap:SUITE[,VARIANT].
const debianPrefix = "mmdebstrap:"

// debianRoot is a root that mmdebstrap(1) makes.
type debianRoot struct {
	o              Options
	suite, variant string
}

var debianWord = sync.OnceValue(func() *regexp.Regexp { return regexp.MustCompile(`^[a-z][a-z0-9-]*$`) })

func newDebianRoot(o Options) (*debianRoot, error) {
	suite, variant, _ := strings.Cut(strings.TrimPrefix(o.Reference, debianPrefix), ",")
	if variant == "" {
		variant = "minbase"
	}
	if !debianWord().MatchString(suite) || !debianWord().MatchString(variant) {
		return nil, fmt.Errorf("reference %q is not %sSUITE[,VARIANT], such as %sbookworm", o.Reference, debianPrefix, debianPrefix)
	}
	if _, err := exec.LookPath("mmdebstrap"); err != nil {
		return nil, errors.New("mmdebstrap is not installed; on Debian: apt-get install mmdebstrap")
	}
	return &debianRoot{o: o, suite: suite, variant: variant}, nil
}

// leftOut are parts of packages that no image needs.
var leftOut = []string{
	"path-exclude=/usr/share/man/*", "path-exclude=/usr/share/info/*", "path-exclude=/usr/share/locale/*",
	"path-exclude=/usr/share/doc/*", "path-include=/usr/share/doc/*/copyright",
}

// recordPackages is a hook for mmdebstrap's variant without dpkg: what was unpacked
// is in var/lib/dpkg/status.d then, as in distroless images, for who asks what an
// image has in it (an SBOM, a scanner).
const recordPackages = `--extract-hook=mkdir -p "$1/var/lib/dpkg/status.d"; for deb in "$1"/var/cache/apt/archives/*.deb; do dpkg-deb -f "$deb" > "$1/var/lib/dpkg/status.d/$(dpkg-deb -f "$deb" Package)"; done`

func (d *debianRoot) layers(ctx context.Context, img *image.Image) ([]oci.Layer, error) {
	args := []string{"--quiet", "--architectures=" + d.o.Architecture, "--variant=" + d.variant, "--format=tar"}
	for _, o := range leftOut {
		args = append(args, "--dpkgopt="+o)
	}
	if d.variant == "extract" {
		args = append(args, recordPackages)
	}
	if len(d.o.Packages) > 0 {
		args = append(args, "--include="+strings.Join(d.o.Packages, ","))
	}
	args = append(args, d.suite, "-")
	sum := sha256.New()
	if err := json.NewEncoder(sum).Encode([]any{"mmdebstrap 1", args}); err != nil {
		return nil, err
	}
	key := hex.EncodeToString(sum.Sum(nil))
	cache := layerCache{d.o.CacheDir}
	layer, err := cache.get(ctx, key)
	if err != nil || d.o.NoCache {
		d.o.Progress(Progress{Step: "mmdebstrap", Item: d.suite})
		if layer, err = oci.AddLayer(d.o.CacheDir, func(w io.Writer) error { return mmdebstrap(ctx, args, oci.Limit(w, d.o.MaxSize)) }); err != nil {
			return nil, err
		}
		if err := cache.put(key, layer); err != nil {
			return nil, err
		}
	}
	img.Source = image.Source{Reference: d.o.Reference}
	img.Config = image.Config{Cmd: []string{"/bin/sh"}}
	img.Layers = []image.Layer{describeLayer(layer)}
	img.History = []image.History{{Created: img.Created, CreatedBy: "mmdebstrap " + strings.Join(args, " ")}}
	return []oci.Layer{layer}, nil
}

// passedOn are the variables of the environment, in small letters, that mmdebstrap gets:
// where programs and files are, and how to reach mirrors. The scripts of packages run in
// it, and a caller's secrets are not for them.
var passedOn = []string{
	"path", "home", "user", "logname", "tmpdir", "tz", "lang", "lc_all", "apt_config", "source_date_epoch",
	"http_proxy", "https_proxy", "ftp_proxy", "all_proxy", "no_proxy",
}

func mmdebstrap(ctx context.Context, args []string, w io.Writer) error {
	cmd := exec.CommandContext(ctx, "mmdebstrap", args...)
	var stderr bytes.Buffer
	cmd.Stdout, cmd.Stderr = w, &stderr
	cmd.Env = slices.DeleteFunc(os.Environ(), func(e string) bool {
		name, _, _ := strings.Cut(e, "=")
		return !slices.Contains(passedOn, strings.ToLower(name))
	})
	if err := cmd.Run(); err != nil {
		if ctx.Err() != nil {
			return context.Cause(ctx)
		}
		lines := strings.Split(strings.TrimSpace(stderr.String()), "\n")
		return fmt.Errorf("mmdebstrap: %w; its last output:\n%s", err, strings.Join(lines[max(0, len(lines)-8):], "\n"))
	}
	return nil
}

func (d *debianRoot) writeRoot(ctx context.Context, path string, img *image.Image, begun func(), progress func(Progress)) error {
	layers, err := d.layers(ctx, img)
	if err != nil {
		return err
	}
	return writeLayers(ctx, path, layers, d.o.MaxSize, begun, progress)
}

func (d *debianRoot) Close() error { return nil }
