package desktop

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"

	"github.com/abdul-abdi/lumina/runtime/desktop/iso"
	"github.com/abdul-abdi/lumina/runtime/vm"
)

// Request is a desktop that is to be made from an ISO, or from a disk.
type Request struct {
	Manifest
	// Disk is the name of a disk's image that its disk is a copy of; "" for an
	// empty one.
	Disk string
	// OS is what the catalogue says of the ISO, its digest above all; its zero
	// value when it is of none. Then the ISO need not be verified.
	OS OS
	// SHA256 of the ISO, in the place of the catalogue's, or of the disk.
	SHA256 string
	// Force takes media that do not fit or are not verified.
	Force bool
	// WithTPM and WithSecureBoot say whether it is to have them; nil: when its system
	// asks for them and the driver can. See Secure.
	WithTPM, WithSecureBoot *bool
}

// Examine looks whether ISO and disk fit a desktop before one is made, and
// fills in what the ISO says of it.
func (r *Request) Examine(ctx context.Context) error {
	if r.ISO != "" {
		if err := r.examineISO(ctx); err != nil {
			return err
		}
	}
	r.fillOS()
	if r.Drivers != "" {
		path, err := ExamineDrivers(r.Drivers)
		if err != nil {
			return err
		}
		r.Drivers = path
	}
	if r.Disk == "" {
		return nil
	}
	f, err := iso.Open(r.Disk)
	if err != nil {
		return fmt.Errorf("disk: %w", err)
	}
	defer f.Close()
	disk, err := openDisk(f)
	if err != nil {
		return fmt.Errorf("disk %q: %w", r.Disk, err)
	}
	image, err := iso.ReadDisk(disk, disk.Size())
	if err == nil {
		err = image.Boots(r.Architecture)
	}
	if err != nil && !r.Force {
		return fmt.Errorf("disk %q: %w; --arch chooses the guest's, --force uses it anyway", r.Disk, err)
	}
	if r.ISO != "" {
		return nil // the digest is that one's
	}
	return r.verify(ctx, f, "disk", r.Disk, r.SHA256)
}

// asksForSecurity is the variant of the catalogue whose installer goes on only with a TPM
// 2.0 and Secure Boot.
const asksForSecurity = "windows-11"

// Secure decides whether the desktop gets a TPM and Secure Boot, once it was examined,
// and says why it cannot have what it is to have.
func (r *Request) Secure(driver vm.DesktopDriver) error {
	tpm, can := driver.(vm.TPMDriver)
	asks := can && r.Variant == asksForSecurity
	choose := func(wish *bool) bool { return wish == nil && asks || wish != nil && *wish }
	r.TPM, r.SecureBoot = choose(r.WithTPM), choose(r.WithSecureBoot)
	switch {
	case !r.TPM && !r.SecureBoot:
		return nil
	case !can:
		return fmt.Errorf("%w: this system's driver has neither TPMs nor Secure Boot", vm.ErrUnsupported)
	case r.TPM:
		if err := tpm.CheckTPM(r.Architecture); err != nil {
			return fmt.Errorf("%w; --tpm=false makes the desktop without one", err)
		}
	}
	return nil
}

func (r *Request) fillOS() {
	set(&r.Family, r.OS.Family)
	set(&r.Variant, r.OS.Variant)
	set(&r.Memory, r.OS.Memory)
	if r.Disk == "" {
		set(&r.DiskSize, r.OS.DiskSize)
	}
}

func (r *Request) examineISO(ctx context.Context) (err error) {
	if r.ISO, err = filepath.Abs(r.ISO); err != nil {
		return err
	}
	if o, ok := osOfFile(r.ISO); ok && r.OS.ID == "" {
		r.OS = o // what is called so is to be it
	}
	f, err := iso.Open(r.ISO)
	if err != nil {
		return err
	}
	defer f.Close()
	image, err := iso.ReadFile(f)
	if err != nil {
		return fmt.Errorf("installation ISO %q: %w", r.ISO, err)
	}
	if err := image.Boots(r.Architecture); err != nil && !r.Force {
		return fmt.Errorf("installation ISO %q: %w; --arch chooses the guest's, --force uses it anyway", r.ISO, err)
	}
	set(&r.Family, r.OS.Family)
	if image.Windows() {
		set(&r.Family, Windows)
	}
	err = r.verify(ctx, f, "installation ISO", r.ISO, cmp.Or(r.SHA256, r.OS.SHA256))
	if errors.Is(err, ErrDigest) && r.SHA256 == "" {
		err = fmt.Errorf("%w, which the catalogue has for %s; give that of another release with --sha256, from %s, or --force", err, r.OS.Name, r.OS.Checksums)
	}
	return err
}

// verify compares a file with its digest, which what is said to be of the catalogue
// must have. what is it, for messages.
func (r *Request) verify(ctx context.Context, f *os.File, what, name, digest string) error {
	if digest == "" && (r.OS.ID == "" || r.Force) {
		return nil
	}
	if digest == "" {
		return fmt.Errorf("%s %q: %w: the catalogue's digest of %s is its ISO's; give the %s's with --sha256, or --force",
			what, name, ErrDigest, r.OS.ID, what)
	}
	err := Verify(ctx, f, digest)
	if errors.Is(err, ErrDigest) && r.Force {
		return nil
	}
	if err != nil {
		return fmt.Errorf("%s %q: %w", what, name, err)
	}
	return nil
}
