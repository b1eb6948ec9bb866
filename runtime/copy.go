package runtime

import (
	"context"
	"errors"
	"fmt"
	"net"
	"path"
	"strings"

	"github.com/abdul-abdi/lumina/initramfs/protocol"
	"github.com/abdul-abdi/lumina/initramfs/transfer"
	"github.com/abdul-abdi/lumina/runtime/client"
)

// Copy is a file or directory to copy.
type Copy struct{ From, To string }

// CheckCopyIn says why a file or directory of the host cannot be copied, as far as
// that can be seen without a guest.
func CheckCopyIn(local string) error {
	return transfer.Check(local, transfer.SendOptions{Devices: true})
}

// CheckCopyOut says why nothing can be copied to a path of the host.
func CheckCopyOut(local string) error { return transfer.CheckDestination(local) }

// CopyIn copies a file or directory of the host into the guest, by the rules of
// cp -r and rsync: SRC/ and SRC/. are the content of SRC, DST/ is a directory, which
// is made, as missing parents are; what is there keeps its mode and owner, and the
// image's user owns what is new. Files that cannot be read are left out, and the
// error says so.
func (g *Guest) CopyIn(ctx context.Context, local, remote string, o CopyOptions) (copied Copied, err error) {
	if err := CheckCopyIn(local); err != nil {
		return copied, err
	}
	err = g.call(ctx, func(conn net.Conn) error {
		to := &protocol.CopyIn{Path: g.absolute(remote), User: g.config.User}
		done, err := client.CopyIn(ctx, conn, local, to, o.client())
		copied = Copied(done)
		return err
	})
	return copied, errors.Join(err, unread(err, local, copied))
}

// CopyOut copies a file or directory of the guest to the host, by the same rules.
// Whatever the guest sends, it lands under the base name of remote or at local
// itself, within the bounds of o, and never with setuid or setgid bits.
func (g *Guest) CopyOut(ctx context.Context, remote, local string, o CopyOptions) (copied Copied, err error) {
	if err := CheckCopyOut(local); err != nil {
		return copied, err
	}
	err = g.call(ctx, func(conn net.Conn) error {
		done, err := client.CopyOut(ctx, conn, g.absolute(remote), local, o.client())
		copied = Copied(done)
		return err
	})
	return copied, errors.Join(err, unread(err, remote, copied))
}

// unread is the error of a copy of source that is whole but for files that could not
// be read. Their names are relative to it.
func unread(err error, source string, copied Copied) error {
	if err != nil || copied.Failed == 0 {
		return nil
	}
	names := strings.Join(copied.FailedNames[:min(len(copied.FailedNames), 3)], "; ")
	if copied.Failed > 3 {
		names += "; …"
	}
	return fmt.Errorf("%s: %d of its files could not be read and are missing: %s", source, copied.Failed, names)
}

// absolute resolves a path of the guest against the image's working directory. What
// says that it is the content of a directory stays.
func (g *Guest) absolute(p string) string {
	if path.IsAbs(p) {
		return p
	}
	slash := ""
	if transfer.IsContent(p) {
		slash = "/"
	}
	return strings.TrimSuffix(path.Join("/", g.config.WorkingDir, p), "/") + slash
}

// Check says what is wrong with the copies before a VM is started for them.
func (o *RunOptions) Check() error {
	for _, c := range o.Copies {
		if err := CheckCopyIn(c.From); err != nil {
			return fmt.Errorf("cannot copy into the VM: %w", err)
		}
	}
	for _, c := range o.Downloads {
		if err := CheckCopyOut(c.To); err != nil {
			return fmt.Errorf("cannot download from the VM: %w", err)
		}
	}
	return nil
}

// copyIn copies everything in that a run begins with.
func (o *RunOptions) copyIn(ctx context.Context, v *VM, result *Result) error {
	for _, c := range o.Copies {
		copied, err := v.CopyIn(ctx, c.From, c.To, CopyOptions{})
		if err != nil {
			return kindOf(ConnectionFailed, fmt.Errorf("copying %s into the VM: %w", c.From, err))
		}
		result.NotCopied = append(result.NotCopied, copied.SkippedNames...)
	}
	return nil
}

// copyOut copies everything out that a run ends with. One that fails does not keep
// the others back.
func (o *RunOptions) copyOut(ctx context.Context, v *VM, result *Result) {
	for _, c := range o.Downloads {
		copied, err := v.CopyOut(ctx, c.From, c.To, CopyOptions{MaxSize: o.MaxSize})
		result.NotCopied = append(result.NotCopied, copied.SkippedNames...)
		if err == nil {
			continue
		}
		err = fmt.Errorf("copying %s out of the VM: %w", c.From, err)
		if result.TransferError != nil {
			err = fmt.Errorf("%w; %w", result.TransferError, err)
		}
		if result.TransferError = err; ctx.Err() != nil {
			return
		}
	}
}
