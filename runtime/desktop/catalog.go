package desktop

import (
	"context"
	"crypto/sha256"
	_ "embed"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"path"
	"path/filepath"
	"strings"
)

//go:embed catalog.json
var catalogJSON []byte

// OS is an operating system of the catalogue.
type OS struct {
	ID           string `json:"id"`
	Name         string `json:"name"`
	Family       Family `json:"osFamily"`
	Variant      string `json:"osVariant"`
	Architecture string `json:"architecture"`
	URL          string `json:"url"`       // of the ISO, or of the page that has it
	Checksums    string `json:"checksums"` // URL of the vendor's list of digests
	SHA256       string `json:"sha256"`    // of the ISO, in hexadecimal
	Memory       int64  `json:"memoryBytes,omitempty"`
	DiskSize     int64  `json:"diskBytes,omitempty"`
	Note         string `json:"note,omitempty"`
}

// Catalog lists the operating systems whose vendors' media are known. Their
// digests are those that several public repositories agree on; an ISO that has
// another one is refused.
func Catalog() ([]OS, error) {
	var all []OS
	if err := json.Unmarshal(catalogJSON, &all); err != nil {
		return nil, fmt.Errorf("reading the catalogue: %w", err)
	}
	return all, nil
}

// ErrNotInCatalog is wrapped when the catalogue has no such operating system.
var ErrNotInCatalog = errors.New("it is not in the catalogue")

// FindOS returns an entry of the catalogue: by its identifier, or that of a variant
// for an architecture.
func FindOS(id, arch string) (OS, error) {
	all, err := Catalog()
	if err != nil {
		return OS{}, err
	}
	var ids, others []string
	for _, o := range all {
		switch {
		case o.ID == id || o.Variant == id && o.Architecture == arch:
			return o, nil
		case o.Variant == id:
			others = append(others, o.Architecture)
		}
		ids = append(ids, o.ID)
	}
	if len(others) > 0 {
		return OS{}, fmt.Errorf("operating system %q: the catalogue has it for %s only; --arch chooses the guest's", id, strings.Join(others, ", "))
	}
	return OS{}, fmt.Errorf("operating system %q: %w, which has %s", id, ErrNotInCatalog, strings.Join(ids, ", "))
}

// osOfFile returns the entry whose ISO is called as a file is.
func osOfFile(name string) (OS, bool) {
	all, err := Catalog()
	if err != nil {
		return OS{}, false
	}
	for _, o := range all {
		if file := path.Base(o.URL); path.Ext(file) == ".iso" && file == filepath.Base(name) {
			return o, true
		}
	}
	return OS{}, false
}

// ErrDigest is wrapped when an ISO is not, or cannot be shown to be, the one
// that was meant.
var ErrDigest = errors.New("the ISO is not verified")

// CheckDigest returns an error when s is no SHA-256 that somebody computed of a
// ISO, such as a placeholder.
func CheckDigest(s string) error {
	b, err := hex.DecodeString(s)
	if err != nil || len(b) != sha256.Size {
		return fmt.Errorf("%w: SHA-256 %q is not 64 hexadecimal digits", ErrDigest, s)
	}
	empty := sha256.Sum256(nil)
	if strings.Count(s, s[:1]) == len(s) || hex.EncodeToString(empty[:]) == strings.ToLower(s) {
		return fmt.Errorf("%w: SHA-256 %q is a placeholder", ErrDigest, s)
	}
	return nil
}

// Verify compares an ISO with a digest.
func Verify(ctx context.Context, r io.Reader, want string) error {
	if err := CheckDigest(want); err != nil {
		return err
	}
	h := sha256.New()
	buf := make([]byte, 1<<20)
	for {
		if ctx.Err() != nil {
			return context.Cause(ctx)
		}
		n, err := r.Read(buf)
		h.Write(buf[:n])
		if err == io.EOF {
			break
		}
		if err != nil {
			return fmt.Errorf("reading the ISO: %w", err)
		}
	}
	if got := hex.EncodeToString(h.Sum(nil)); got != strings.ToLower(want) {
		return fmt.Errorf("%w: its SHA-256 is %s, not %s", ErrDigest, got, strings.ToLower(want))
	}
	return nil
}
