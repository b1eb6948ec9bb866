package attest

import (
	"strings"
	"time"

	"github.com/abdul-abdi/lumina/release/catalog"
	"github.com/abdul-abdi/lumina/runtime/image"
)

// Builder is who makes a release.
type Builder struct {
	ID         string // a URI of what ran
	Invocation string // a URI of the run, if it has one
	Version    string // lumina's
}

// statement is an in-toto Statement v1 with the predicate SLSA Provenance v1.
type statement struct {
	Type          string       `json:"_type"`
	Subject       []descriptor `json:"subject"`
	PredicateType string       `json:"predicateType"`
	Predicate     provenance   `json:"predicate"`
}

type descriptor struct {
	Name   string            `json:"name,omitempty"`
	URI    string            `json:"uri,omitempty"`
	Digest map[string]string `json:"digest,omitempty"`
}

type provenance struct {
	BuildDefinition buildDefinition `json:"buildDefinition"`
	RunDetails      runDetails      `json:"runDetails"`
}

type buildDefinition struct {
	BuildType            string         `json:"buildType"`
	ExternalParameters   map[string]any `json:"externalParameters"`
	InternalParameters   map[string]any `json:"internalParameters,omitempty"`
	ResolvedDependencies []descriptor   `json:"resolvedDependencies,omitempty"`
}

type runDetails struct {
	Builder  builder  `json:"builder"`
	Metadata metadata `json:"metadata"`
}

type builder struct {
	ID      string            `json:"id"`
	Version map[string]string `json:"version,omitempty"`
}

type metadata struct {
	InvocationID string `json:"invocationId,omitempty"`
	FinishedOn   string `json:"finishedOn"`
}

// Provenance says what an image's archive was made from and by whom.
func Provenance(h *image.Handle, entry *catalog.Image, by Builder) ([]byte, error) {
	s := statement{
		Type:          "https://in-toto.io/Statement/v1",
		PredicateType: "https://slsa.dev/provenance/v1",
	}
	for _, p := range entry.Parts {
		s.Subject = append(s.Subject, descriptor{Name: p.Name, Digest: map[string]string{"sha256": p.SHA256}})
	}
	for _, name := range catalog.Files() {
		s.Subject = append(s.Subject, descriptor{Name: entry.ID + "/" + name, Digest: map[string]string{"sha256": entry.Files[name].SHA256}})
	}
	b := &s.Predicate.BuildDefinition
	b.BuildType = "https://github.com/abdul-abdi/lumina/images/create/v1"
	b.ExternalParameters = map[string]any{
		"reference": h.Source.Public(), "platform": "linux/" + h.Architecture, "name": entry.Name, "version": entry.Version,
	}
	b.InternalParameters = map[string]any{"kernel": h.Image.Kernel.Version}
	var steps []string
	for _, step := range h.History {
		if step.CreatedBy != "" {
			steps = append(steps, step.CreatedBy)
		}
	}
	if len(steps) > 0 {
		b.InternalParameters["history"] = steps
	}
	b.ResolvedDependencies = append(b.ResolvedDependencies, dependency(h.Source.Public(), h.Source.Digest))
	for _, l := range h.Layers {
		b.ResolvedDependencies = append(b.ResolvedDependencies, dependency("", l.Digest))
	}
	s.Predicate.RunDetails = runDetails{
		Builder:  builder{ID: by.ID},
		Metadata: metadata{InvocationID: by.Invocation, FinishedOn: h.Created.UTC().Format(time.RFC3339)},
	}
	if by.Version != "" {
		s.Predicate.RunDetails.Builder.Version = map[string]string{"lumina": by.Version}
	}
	return encode(s)
}

// dependency is a reference, or nothing but its digest.
func dependency(reference, digest string) descriptor {
	d := descriptor{Name: reference}
	if algorithm, value, ok := strings.Cut(digest, ":"); ok {
		d.Digest = map[string]string{algorithm: value}
	}
	return d
}
