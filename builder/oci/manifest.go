package oci

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"strings"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/types"
)

// place is where the parts of an image are, each found by its digest.
type place interface {
	// manifest reads a manifest or an index of such, and compares its digest.
	manifest(ctx context.Context, d v1.Descriptor) ([]byte, error)
	// config reads a configuration and compares its digest.
	config(ctx context.Context, d v1.Descriptor) ([]byte, error)
	layer(d v1.Descriptor) Layer
}

// maxNested is how deep indexes may be in each other.
const maxNested = 3

// notJSON says in plain words why text, which should be JSON, cannot be read.
func notJSON(text []byte, err error) error {
	var kind *json.UnmarshalTypeError
	switch text = bytes.TrimSpace(text); {
	case len(text) == 0:
		return errors.New("it is empty")
	case text[0] == '<':
		return errors.New("it is a web page, probably of a proxy or of the network's login")
	case errors.As(err, &kind) && kind.Field == "":
		return fmt.Errorf("it cannot be of the kind %s", kind.Value)
	case errors.As(err, &kind):
		return fmt.Errorf("%q cannot be of the kind %s", kind.Field, kind.Value)
	case text[0] != '{' && text[0] != '[':
		return errors.New("it is not JSON")
	}
	return fmt.Errorf("its JSON is broken: %w", err)
}

// readImage reads the image of a platform that a manifest is, or an index leads to.
func readImage(ctx context.Context, p place, raw []byte, d v1.Descriptor, o Options) (*Image, error) {
	for depth := 0; d.MediaType.IsIndex(); depth++ {
		if depth > maxNested {
			return nil, fmt.Errorf("%w: indexes within indexes", ErrInvalid)
		}
		index, err := v1.ParseIndexManifest(bytes.NewReader(raw))
		if err != nil {
			return nil, fmt.Errorf("%w: index %s: %w", ErrInvalid, d.Digest, notJSON(raw, err))
		}
		chosen, err := pick(index, o.Platform)
		if err != nil {
			return nil, err
		}
		if raw, err = p.manifest(ctx, chosen); err != nil {
			return nil, err
		}
		d = describe(raw, string(chosen.MediaType))
	}
	if d.MediaType == types.DockerManifestSchema1 || d.MediaType == types.DockerManifestSchema1Signed {
		return nil, fmt.Errorf("%w: its manifest has Docker's schema 1, from before 2016: convert it by pulling and pushing it with a current tool", ErrInvalid)
	}
	m, err := v1.ParseManifest(bytes.NewReader(raw))
	if err != nil {
		return nil, fmt.Errorf("%w: manifest %s: %w", ErrInvalid, d.Digest, notJSON(raw, err))
	}
	if err := checkKind(raw, m); err != nil {
		return nil, err
	}
	config, err := p.config(ctx, m.Config)
	if err != nil {
		return nil, err
	}
	img, err := newImage(config, m.Config.Digest.String())
	if err != nil {
		return nil, err
	}
	img.Digest, img.Annotations = d.Digest.String(), m.Annotations
	for _, l := range m.Layers {
		layer := p.layer(l)
		layer.Annotations = l.Annotations
		img.Layers = append(img.Layers, layer)
	}
	return img, nil
}

// newImage is an image of a configuration; name says which.
func newImage(config []byte, name string) (*Image, error) {
	c, err := v1.ParseConfigFile(bytes.NewReader(config))
	if err != nil {
		// Docker's own type of a command has been a string, too.
		if asLists, changed := commandsAsLists(config); changed {
			config = asLists
			c, err = v1.ParseConfigFile(bytes.NewReader(config))
		}
	}
	if err != nil {
		return nil, fmt.Errorf("%w: configuration %.80q: %w", ErrInvalid, name, notJSON(config, err))
	}
	return &Image{Config: c, RawConfig: config}, nil
}

// commandsAsLists makes lists of one word of the commands in a configuration that are
// strings, as Docker reads them, and says whether there were any.
func commandsAsLists(config []byte) (_ []byte, changed bool) {
	var fields map[string]json.RawMessage
	if json.Unmarshal(config, &fields) != nil {
		return nil, false
	}
	for key, inner := range fields {
		var values map[string]json.RawMessage
		if !strings.EqualFold(key, "config") || json.Unmarshal(inner, &values) != nil {
			continue
		}
		for name, value := range values {
			var text string
			switch strings.ToLower(name) {
			case "cmd", "entrypoint", "shell":
				if json.Unmarshal(value, &text) != nil || string(value) == "null" {
					continue
				}
				values[name] = json.RawMessage("null")
				if text != "" {
					values[name], _ = json.Marshal([]string{text}) // a string can be marshalled
				}
				changed = true
			}
		}
		fields[key], _ = json.Marshal(values)
	}
	b, err := json.Marshal(fields)
	return b, changed && err == nil
}

// checkKind returns an error for manifests that are not of container images.
func checkKind(raw []byte, m *v1.Manifest) error {
	var kind struct {
		ArtifactType string `json:"artifactType"`
	}
	_ = json.Unmarshal(raw, &kind) // it was read before
	switch t := string(m.Config.MediaType); {
	case t == "", t == string(types.OCIConfigJSON), t == string(types.DockerConfigJSON), t == "application/octet-stream":
		if kind.ArtifactType == "" {
			return nil
		}
	case kind.ArtifactType == "":
		kind.ArtifactType = t
	}
	if strings.HasPrefix(kind.ArtifactType, "application/vnd.lumina.") {
		return fmt.Errorf("%w: it was pushed with --as-is and is not a container image: get it with lumina images pull", ErrInvalid)
	}
	return fmt.Errorf("%w: it is an artifact of type %.80q, not a container image", ErrInvalid, kind.ArtifactType)
}

// describe is the descriptor of a manifest. What it says of itself goes before
// what a server does.
func describe(raw []byte, said string) v1.Descriptor {
	sum := sha256.Sum256(raw)
	d := v1.Descriptor{Size: int64(len(raw)), Digest: v1.Hash{Algorithm: "sha256", Hex: hex.EncodeToString(sum[:])}}
	var self struct {
		Schema    int               `json:"schemaVersion"`
		MediaType types.MediaType   `json:"mediaType"`
		Manifests []json.RawMessage `json:"manifests"`
		Config    json.RawMessage   `json:"config"`
	}
	_ = json.Unmarshal(raw, &self) // what is none is found out when it is read
	said, _, _ = strings.Cut(said, ";")
	switch d.MediaType = types.MediaType(strings.TrimSpace(said)); {
	case self.Schema == 1:
		d.MediaType = types.DockerManifestSchema1
	case self.MediaType != "":
		d.MediaType = self.MediaType
	case self.Manifests != nil && self.Config == nil:
		d.MediaType = types.OCIImageIndex
	case self.Config != nil:
		d.MediaType = types.OCIManifestSchema1
	}
	return d
}

// readBounded reads what is to be in memory.
func readBounded(r io.Reader, what string) ([]byte, error) {
	b, err := io.ReadAll(io.LimitReader(r, maxManifest+1))
	if err != nil {
		return nil, fmt.Errorf("reading %s: %w", what, err)
	}
	return b, checkSmall(what, len(b), bytes.Count(b, []byte(",")))
}

// checkSmall says whether a document is too large to be parsed: by its bytes, or by the
// commas in it, as many as its parts, of which each takes some hundred bytes however
// short it is.
func checkSmall(what string, size, commas int) error {
	if size > maxManifest {
		return fmt.Errorf("%w: %s is longer than %d bytes", ErrInvalid, what, maxManifest)
	}
	if commas > maxParts {
		return fmt.Errorf("%w: %s has more than %d parts", ErrInvalid, what, maxParts)
	}
	return nil
}
