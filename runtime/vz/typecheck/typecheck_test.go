package typecheck

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
)

const (
	module = "github.com/abdul-abdi/lumina"
	vz     = "github.com/Code-Hex/vz/v3"
)

func load(t *testing.T, arch string) *Checker {
	t.Helper()
	c, err := Load("../../..", "darwin", arch, "./...")
	if err != nil {
		t.Fatal(err)
	}
	c.Own = func(path string) bool {
		return path == module || strings.HasPrefix(path, module+"/") || path == vz || strings.HasPrefix(path, vz+"/")
	}
	if c.packages[vz] == nil {
		t.Fatal("nothing of the module imports vz")
	}
	return c
}

// Every file that a Mac compiles, of this module and of vz, has the right types.
func TestDarwin(t *testing.T) {
	for _, arch := range []string{"arm64", "amd64"} {
		t.Run(arch, func(t *testing.T) {
			if err := load(t, arch).Check(); err != nil {
				t.Error(err)
			}
		})
	}
}

// The check fails when a call of vz does not exist or has a wrong type.
func TestDarwinIsReallyChecked(t *testing.T) {
	if testing.Short() {
		t.Skip("with -short: it checks the sources five times")
	}
	for _, tt := range []struct{ name, file, old, new, want string }{
		{"a call that vz does not have", "framework_darwin.go", "apple.NewVirtioEntropyDeviceConfiguration()", "apple.NewVirtioEntropyDevice()", "undefined: apple.NewVirtioEntropyDevice"},
		{"a method that vz does not have", "framework_darwin.go", "m.vm.Start()", "m.vm.StartUp()", "m.vm.StartUp undefined"},
		{"an argument of another type", "framework_darwin.go", "uint(c.cpus)", "c.cpus", "cannot use c.cpus"},
		{"a file of a desktop", "desktop_darwin.go", "apple.NewEFIBootLoader(", "apple.NewUEFIBootLoader(", "undefined: apple.NewUEFIBootLoader"},
		{"a file of one architecture", "macos_darwin_arm64.go", "installer.FractionCompleted()", "installer.Progress()", "installer.Progress undefined"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			driver, err := filepath.Abs("../" + tt.file)
			if err != nil {
				t.Fatal(err)
			}
			source, err := os.ReadFile(driver)
			if err != nil {
				t.Fatal(err)
			}
			broken := strings.Replace(string(source), tt.old, tt.new, 1)
			if broken == string(source) {
				t.Fatalf("the driver has no %q", tt.old)
			}
			c := load(t, "arm64")
			c.Overlay = map[string]string{driver: broken}
			if err := c.Check(); err == nil || !strings.Contains(err.Error(), tt.want) {
				t.Errorf("%v, want %q", err, tt.want)
			}
		})
	}
}
