package desktop

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"

	"github.com/abdul-abdi/lumina/runtime/desktop/iso"
)

// Request is a desktop that is to be made from a medium.
type Request struct {
	Manifest
	// OS is what the catalogue says of the medium; its zero value when it is of
	// none. Then the medium need not be verified.
	OS OS
	// SHA256 of the medium, in the place of the catalogue's.
	SHA256 string
	// Force takes media that do not fit or are not verified.
	Force bool
}

// Examine looks whether a medium fits a desktop before one is made, and fills in
// what the medium says of it.
func (r *Request) Examine(ctx context.Context) (err error) {
	if r.Medium, err = filepath.Abs(r.Medium); err != nil {
		return err
	}
	f, err := os.Open(r.Medium)
	if err != nil {
		return err
	}
	defer f.Close()
	image, err := iso.ReadFile(f)
	if err != nil {
		return fmt.Errorf("medium %q: %w", r.Medium, err)
	}
	if err := image.Boots(r.Architecture); err != nil && !r.Force {
		return fmt.Errorf("medium %q: %w; --arch chooses the guest's, --force takes it all the same", r.Medium, err)
	}
	set(&r.Family, r.OS.Family)
	if image.Windows() {
		set(&r.Family, Windows)
	}
	set(&r.Variant, r.OS.Variant)
	set(&r.Memory, r.OS.Memory)
	set(&r.DiskSize, r.OS.DiskSize)
	return r.verify(ctx, f)
}

func (r *Request) verify(ctx context.Context, f *os.File) error {
	digest := r.SHA256
	if digest == "" {
		digest = r.OS.SHA256
	}
	if digest == "" && (r.OS.ID == "" || r.Force) {
		return nil
	}
	if digest == "" {
		return fmt.Errorf("medium %q: %w: the catalogue has no digest of %s; give the one of %s with --sha256, or --force",
			r.Medium, ErrDigest, r.OS.ID, r.OS.Checksums)
	}
	err := Verify(ctx, f, digest)
	if errors.Is(err, ErrDigest) && r.Force {
		return nil
	}
	if err != nil {
		return fmt.Errorf("medium %q: %w", r.Medium, err)
	}
	return nil
}
