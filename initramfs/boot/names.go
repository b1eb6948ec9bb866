//go:build linux

package boot

import (
	"errors"
	"fmt"
	"os"
	"slices"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/abdul-abdi/lumina/initramfs/protocol"
)

// names are the files in /etc that every container tool provides. Those of a
// guest that is going to be frozen stay mapped: thawed, with nothing having run
// in it yet, it stores other names of the same length over them, without one
// system call. Under emulation that is 8 ms less.
type names map[string]*nameFile

type nameFile struct {
	file    *os.File
	page    []byte // the file's content, mapped
	content string
}

const resolvFile = "/etc/resolv.conf"

// write writes them, but for those that are the image's.
func (n *names) write(c *protocol.Configure, but ...string) error {
	var resolv strings.Builder
	if c.Network != nil {
		for _, server := range c.Network.DNS {
			fmt.Fprintf(&resolv, "nameserver %s\n", server)
		}
		if len(c.Network.Search) > 0 {
			fmt.Fprintf(&resolv, "search %s\n", strings.Join(c.Network.Search, " "))
		}
	}
	hosts := "127.0.0.1\tlocalhost\n::1\tlocalhost ip6-localhost ip6-loopback\n127.0.1.1\t" + c.Hostname + "\n"
	for _, h := range c.Hosts {
		hosts += h.Address + "\t" + h.Name + "\n"
	}
	if *n == nil {
		*n = names{}
		if err := os.MkdirAll("/etc", 0o755); err != nil {
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
		var err error
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

// createName makes a file where the image may have a link, to a place that does
// not exist yet.
func createName(path string) (*os.File, error) {
	if err := os.Remove(path); err != nil && !errors.Is(err, os.ErrNotExist) {
		return nil, err
	}
	return os.OpenFile(path, os.O_RDWR|os.O_CREATE|os.O_EXCL, 0o644)
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
	n := &nameFile{file: f, content: content}
	if n.page, err = unix.Mmap(int(f.Fd()), 0, os.Getpagesize(), unix.PROT_READ|unix.PROT_WRITE, unix.MAP_SHARED); err != nil {
		return nil, fmt.Errorf("mapping %s: %w", path, err)
	}
	copy(n.page, content) // so that the page is there, and may be written
	return n, nil
}

func (n *nameFile) rewrite(content string) error {
	old := n.content
	n.content = content
	switch {
	case old == content:
		return nil
	case len(old) == len(content) && len(content) <= len(n.page):
		copy(n.page, content)
		return nil
	}
	if _, err := n.file.WriteAt([]byte(content), 0); err != nil {
		return err
	}
	return n.file.Truncate(int64(len(content)))
}
