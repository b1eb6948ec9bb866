package main

import (
	"os/exec"
	"strings"
	"testing"
)

const module = "github.com/abdul-abdi/lumina/"

// Which part of Lumina may use which.
func TestImports(t *testing.T) {
	needsProgram(t)
	tests := []struct {
		packages, why string
		banned        []string
		allowed       []string // of what is banned
	}{
		{"initramfs/...", "the guest's code knows nothing of the host", []string{"builder", "runtime", "cmd", "kernel-config"}, nil},
		{"runtime/...", "images are run without what makes them", []string{"builder", "cmd", "kernel-config"}, nil},
		{"builder/...", "images are made without what runs them; the formats are shared, and a Dockerfile's cache mounts are volumes", []string{"runtime", "cmd"}, []string{"runtime/image", "runtime/name", "runtime/flock", "runtime/ext4", "runtime/printable", "runtime/durable", "runtime/statefile", "runtime/pace", "runtime/redirects", "runtime/volume", "runtime/vm", "runtime/qcow2", "runtime/fat"}},
		{"release/...", "releases are made and pulled without VMs", []string{"runtime", "builder", "initramfs", "kernel-config", "cmd"}, []string{"runtime/image", "runtime/name", "runtime/flock", "runtime/printable", "runtime/durable", "runtime/statefile", "runtime/pace", "builder/erofs"}},
		{"runtime/vm", "the contract knows no driver", []string{"runtime/qemu", "runtime/vz"}, nil},
		{"initramfs/cmd/init", "PID 1 stays small", []string{"initramfs/cmd/mkinitramfs"}, nil},
	}
	for _, tt := range tests {
		out, err := exec.Command("go", "list", "-deps", module+tt.packages).Output()
		if err != nil {
			t.Fatal(err)
		}
		for _, dep := range strings.Fields(string(out)) {
			name, ours := strings.CutPrefix(dep, module)
			if ours && within(name, tt.banned) && !within(name, tt.allowed) && !within(name, []string{strings.TrimSuffix(tt.packages, "/...")}) {
				t.Errorf("%s imports %s: %s", tt.packages, name, tt.why)
			}
		}
	}
}

// within says whether a package is one of these or below one.
func within(name string, folders []string) bool {
	for _, f := range folders {
		if name == f || strings.HasPrefix(name, f+"/") {
			return true
		}
	}
	return false
}

// What a newcomer reads first: every package says what it is for.
func TestPackagesAreDocumented(t *testing.T) {
	out, err := exec.Command("go", "list", "-f", "{{if not .Doc}}{{.ImportPath}}{{end}}", module+"...").Output()
	if err != nil {
		t.Fatal(err)
	}
	if missing := strings.Fields(string(out)); len(missing) != 0 {
		t.Errorf("without a package comment: %q", missing)
	}
}
