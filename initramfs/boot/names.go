//go:build linux

package boot

import (
	"errors"
	"fmt"
	"os"
	"slices"
	"strings"

	"github.com/abdul-abdi/lumina/initramfs/mkdir"
	"github.com/abdul-abdi/lumina/initramfs/protocol"
)

// names are the files in /etc that every container tool provides, by path. Those of a
// guest whose snapshot is going to be taken stay open: restored, it writes others into them.
type names map[string]*nameFile

type nameFile struct {
	file    *os.File
	content string
}

const resolvFile = "/etc/resolv.conf"

// write writes them, but for those that are the image's.
func (n *names) write(c *protocol.Configure, but ...string) (err error) {
	var resolv strings.Builder
	if c.Network != nil {
		for _, server := range c.Network.DNS {
			fmt.Fprintf(&resolv, "nameserver %s\n", server)
		}
		if len(c.Network.Search) > 0 {
			fmt.Fprintf(&resolv, "search %s\n", strings.Join(c.Network.Search, " "))
		}
	}
	hosts := hostsOf(c)
	if *n == nil {
		*n = names{}
		if err := makeEtc("/etc"); err != nil {
			return err
		}
		// What the guest's init has in /etc is no change of the image.
		before, statErr := changed("/etc")
		if statErr != nil {
			return statErr
		}
		defer func() { err = errors.Join(err, setTime("/etc", before)) }()
		// Where older programs look for what is mounted.
		if err := os.Symlink("/proc/mounts", "/etc/mtab"); err != nil && !errors.Is(err, os.ErrExist) {
			return err
		}
	}
	for _, f := range []struct{ path, content string }{
		{"/etc/hostname", c.Hostname + "\n"},
		{"/etc/hosts", hosts},
		{resolvFile, resolv.String()},
		{"/etc/machine-id", c.MachineID + "\n"},
	} {
		if slices.Contains(but, f.path) {
			continue
		}
		switch old := (*n)[f.path]; {
		case old != nil:
			err = old.rewrite(f.content)
		case c.Template:
			(*n)[f.path], err = keepName(f.path, f.content)
		default:
			err = writeName(f.path, f.content)
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// hostsOf is /etc/hosts: the guest's own name has the address by which others reach it.
func hostsOf(c *protocol.Configure) string {
	own := "127.0.1.1"
	if c.Network != nil {
		if address, _, ok := strings.Cut(c.Network.Address, "/"); ok {
			own = address
		}
	}
	var b strings.Builder
	b.WriteString("127.0.0.1\tlocalhost\n::1\tlocalhost ip6-localhost ip6-loopback\nff02::1\tip6-allnodes\nff02::2\tip6-allrouters\n")
	fmt.Fprintf(&b, "%s\t%s\n", own, c.Hostname)
	for _, h := range c.Hosts {
		fmt.Fprintf(&b, "%s\t%s\n", h.Address, h.Name)
	}
	return b.String()
}

// makeEtc makes a directory that may be a link to one that does not exist yet. What else
// the image has there, such as a file, is no use.
func makeEtc(name string) error {
	err := mkdir.All(name, 0o755)
	if err == nil {
		return nil
	}
	if removeErr := os.Remove(name); removeErr != nil {
		return errors.Join(err, removeErr)
	}
	return os.Mkdir(name, 0o755)
}

// createName makes a file where the image may have anything else, such as a link to a place
// that does not exist yet.
func createName(path string) (*os.File, error) {
	err := os.Remove(path)
	if err != nil && !errors.Is(err, os.ErrNotExist) {
		err = os.RemoveAll(path) // a directory
	}
	if err != nil && !errors.Is(err, os.ErrNotExist) {
		return nil, err
	}
	return os.OpenFile(path, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o644)
}

func writeName(path, content string) error {
	f, err := createName(path)
	if err != nil {
		return err
	}
	_, err = f.WriteString(content)
	return errors.Join(err, f.Close())
}

func keepName(path, content string) (*nameFile, error) {
	f, err := createName(path)
	if err != nil {
		return nil, err
	}
	if _, err := f.WriteString(content); err != nil {
		return nil, err
	}
	return &nameFile{file: f, content: content}, nil
}

func (n *nameFile) rewrite(content string) error {
	old := n.content
	n.content = content
	if old == content {
		return nil
	}
	if _, err := n.file.WriteAt([]byte(content), 0); err != nil || len(content) >= len(old) {
		return err
	}
	return n.file.Truncate(int64(len(content)))
}
