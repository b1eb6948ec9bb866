//go:build linux

package boot

import (
	"os"
	"path/filepath"
	"syscall"
	"testing"

	"github.com/abdul-abdi/lumina/initramfs/protocol"
)

func TestHostsOf(t *testing.T) {
	const top = "127.0.0.1\tlocalhost\n::1\tlocalhost ip6-localhost ip6-loopback\nff02::1\tip6-allnodes\nff02::2\tip6-allrouters\n"
	tests := []struct {
		name string
		c    protocol.Configure
		want string
	}{
		{"no network", protocol.Configure{Hostname: "me"}, top + "127.0.1.1\tme\n"},
		{"an address", protocol.Configure{Hostname: "me", Network: &protocol.Interface{Address: "10.0.2.15/24"}}, top + "10.0.2.15\tme\n"},
		{"others", protocol.Configure{Hostname: "web", Network: &protocol.Interface{Address: "10.0.3.2/24"}, Hosts: []protocol.Host{{Name: "db", Address: "10.0.3.1"}}},
			top + "10.0.3.2\tweb\n10.0.3.1\tdb\n"},
	}
	for _, tt := range tests {
		if got := hostsOf(&tt.c); got != tt.want {
			t.Errorf("%s: %q, want %q", tt.name, got, tt.want)
		}
	}
}

// Whatever the image has where a name goes, and where /etc is.
func TestOddNames(t *testing.T) {
	tests := []struct {
		name string
		make func(path string) error
	}{
		{"nothing", func(string) error { return nil }},
		{"file", func(p string) error { return os.WriteFile(p, []byte("old and longer"), 0o400) }},
		{"directory with content", func(p string) error { return os.MkdirAll(p+"/a/b", 0o755) }},
		{"dangling link", func(p string) error { return os.Symlink("../run/none/hosts", p) }},
		{"link to itself", func(p string) error { return os.Symlink(p, p) }},
		{"FIFO", func(p string) error { return syscall.Mkfifo(p, 0o600) }},
	}
	for _, tt := range tests {
		path := filepath.Join(t.TempDir(), "hosts")
		if err := tt.make(path); err != nil {
			t.Fatal(err)
		}
		if err := writeName(path, "new\n"); err != nil {
			t.Errorf("%s: %v", tt.name, err)
		}
		if b, err := os.ReadFile(path); string(b) != "new\n" || err != nil {
			t.Errorf("%s: %q, %v", tt.name, b, err)
		}
	}
	for _, tt := range tests {
		etc := filepath.Join(t.TempDir(), "etc")
		if err := tt.make(etc); err != nil {
			t.Fatal(err)
		}
		if err := makeEtc(etc); err != nil {
			t.Errorf("/etc, %s: %v", tt.name, err)
		}
		if info, err := os.Stat(etc); err != nil || !info.IsDir() {
			t.Errorf("/etc, %s: %v, %v", tt.name, info, err)
		}
	}
}
