package oci

import (
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/types"
)

// ErrUsage is wrapped by errors about platforms that are none.
var ErrUsage = errors.New("want linux/amd64 or linux/arm64")

// ParsePlatform reads a platform as people and tools write it: linux/amd64,
// linux/x86_64, linux/arm64/v8, or an architecture alone.
func ParsePlatform(s string) (v1.Platform, error) {
	parts := strings.Split(s, "/")
	if len(parts) == 1 {
		parts = []string{"linux", parts[0]}
	}
	p := v1.Platform{OS: parts[0], Architecture: parts[1]}
	if len(parts) == 3 {
		p.Variant = parts[2]
	}
	p = normalize(p)
	known := p.Architecture == "amd64" && slices.Contains([]string{"", "v2", "v3", "v4"}, p.Variant) || p.Architecture == "arm64" && armVersion(p.Variant) >= 8
	if len(parts) > 3 || p.OS != "linux" || !known || strings.HasSuffix(s, "/") {
		return v1.Platform{}, fmt.Errorf("platform %.80q: %w", s, ErrUsage)
	}
	return p, nil
}

// normalize names a platform as Go does, and as one without a variant what every
// machine of its architecture runs.
func normalize(p v1.Platform) v1.Platform {
	p.OS, p.Architecture, p.Variant = strings.ToLower(p.OS), strings.ToLower(p.Architecture), strings.ToLower(p.Variant)
	switch p.Architecture {
	case "x86_64", "x86-64", "x64":
		p.Architecture = "amd64"
	case "aarch64", "armv8", "arm64v8":
		p.Architecture = "arm64"
	}
	switch {
	case p.Architecture == "amd64" && p.Variant == "v1",
		p.Architecture == "arm64" && (p.Variant == "v8" || p.Variant == "8" || p.Variant == "v8.0"):
		p.Variant = ""
	}
	return p
}

// armVersion is 8.1 of "v8.1"; 0 for what is none.
func armVersion(variant string) float64 {
	if variant == "" {
		return 8
	}
	v, err := strconv.ParseFloat(strings.TrimPrefix(variant, "v"), 64)
	if err != nil || v > 1000 {
		return 0
	}
	return v
}

// isAttestation says whether an entry of an index is not an image but what somebody
// says of one.
func isAttestation(d v1.Descriptor) bool {
	unknown := d.Platform != nil && d.Platform.OS == "unknown" && d.Platform.Architecture == "unknown"
	return unknown || d.Annotations["vnd.docker.reference.type"] != "" || d.ArtifactType != "" && !isConfig(d.ArtifactType)
}

// isConfig says whether something is the type of an image's configuration, which
// go-containerregistry, and crane with it, calls the artifact type of an image in
// an index.
func isConfig(mediaType string) bool {
	return mediaType == string(types.OCIConfigJSON) || mediaType == string(types.DockerConfigJSON)
}

// isManifest says whether an entry of an index can be an image, or an index of
// such.
func isManifest(d v1.Descriptor) bool {
	return d.MediaType == "" || d.MediaType.IsImage() || d.MediaType.IsIndex() || d.MediaType == types.DockerManifestSchema1 || d.MediaType == types.DockerManifestSchema1Signed
}

// fit is how well a platform that something is for suits the one that is wanted:
// the less the better; negative: not at all. Of the variants that need more than
// every machine has, the least comes first.
func fit(have *v1.Platform, want v1.Platform) int {
	if have == nil {
		return -1
	}
	p := normalize(*have)
	if (p.OS != "" && p.OS != want.OS) || p.Architecture != want.Architecture {
		return -1
	}
	levels := []string{"", "v2", "v3", "v4"}
	level := func(variant string) int {
		if want.Architecture == "arm64" {
			return int(10*armVersion(variant)) - 80
		}
		return slices.Index(levels, variant)
	}
	got, wanted := level(p.Variant), level(want.Variant)
	switch {
	case got < 0:
		return -1 // a variant that is not known
	case got == wanted:
		return 0
	case got < wanted:
		return wanted - got // runs there, too
	case want.Variant != "":
		return -1 // more than was asked for
	}
	return 100 + got
}

// pick chooses the manifest of a platform from an index.
func pick(index *v1.IndexManifest, want v1.Platform) (v1.Descriptor, error) {
	want = normalize(want)
	var have []string
	var silent []v1.Descriptor // that do not say what they are for
	best, found := -1, v1.Descriptor{}
	for _, m := range index.Manifests {
		if isAttestation(m) || !isManifest(m) {
			continue
		}
		if m.Platform == nil || m.Platform.Architecture == "" {
			// The same one may stand there twice.
			if !slices.ContainsFunc(silent, func(other v1.Descriptor) bool { return other.Digest == m.Digest }) {
				silent = append(silent, m)
			}
			continue
		}
		if f := fit(m.Platform, want); f >= 0 && (best < 0 || f < best) {
			best, found = f, m
		}
		have = append(have, m.Platform.String())
	}
	switch {
	case best >= 0:
		return found, nil
	case len(silent) == 1 && len(have) == 0:
		return silent[0], nil
	case len(have)+len(silent) == 0:
		return v1.Descriptor{}, fmt.Errorf("%w: the index has no container image", ErrInvalid)
	case len(have) == 0:
		return v1.Descriptor{}, fmt.Errorf("%w: it has %d images, and none says what platform it is for", ErrPlatform, len(silent))
	}
	return v1.Descriptor{}, fmt.Errorf("%w: it has none for %s; it has: %s", ErrPlatform, want, strings.Join(have, ", "))
}
