package builder

import (
	"context"
	"fmt"
	"path/filepath"

	"github.com/abdul-abdi/lumina/builder/cosign"
	"github.com/abdul-abdi/lumina/builder/oci"
	"github.com/abdul-abdi/lumina/builder/reference"
	"github.com/abdul-abdi/lumina/runtime/durable"
	"github.com/abdul-abdi/lumina/runtime/image"
)

// verified is what a key has signed: nothing else is fetched then. The zero value
// is of an image that need not be signed.
type verified struct{ digest, key string }

// verify finds what a reference names in its registry now, and that it is signed.
func verify(ctx context.Context, r reference.Reference, key *cosign.PublicKey) (verified, error) {
	if err := CheckSigned(r); err != nil {
		return verified{}, err
	}
	digest, err := oci.Verify(ctx, r.String(), key)
	if ctx.Err() != nil {
		return verified{}, context.Cause(ctx)
	}
	if err != nil {
		return verified{}, fmt.Errorf("pulling %q: %w", r, err)
	}
	return verified{digest, key.ID()}, nil
}

// CheckSigned says whether what a reference names can be signed.
func CheckSigned(r reference.Reference) error {
	if r.Kind != reference.Registry {
		return fmt.Errorf("%q is %w of a registry, and only what is in one has signatures", r, reference.ErrInvalid)
	}
	return nil
}

// write keeps in an image's directory whose signature it has.
func (v verified) write(dir string) error {
	if v.key == "" {
		return nil
	}
	return durable.WriteNew(filepath.Join(dir, image.SignedBy), []byte(v.key+"\n"), image.FileMode)
}

// isVerified says whether an image was pulled with this key.
func isVerified(store *image.Store, name string, key *cosign.PublicKey) bool {
	h, err := store.Open(name)
	if err != nil {
		return false // who starts it tells
	}
	defer h.Close()
	return h.SignedBy() == key.ID()
}
