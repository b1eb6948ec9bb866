package vz

import (
	"os"
	"path/filepath"
	"testing"

	"golang.org/x/sys/unix"
)

// A locked file is known in every language of the user's.
func TestRefusals(t *testing.T) {
	dir := t.TempDir()
	free, taken := filepath.Join(dir, "free"), filepath.Join(dir, "taken")
	for _, path := range []string{free, taken} {
		if err := os.WriteFile(path, nil, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	f, err := os.Open(taken)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if err := unix.Flock(int(f.Fd()), unix.LOCK_EX); err != nil {
		t.Fatal(err)
	}
	const german = "Die Konfiguration der virtuellen Maschine ist ungültig."
	for _, tt := range []struct {
		name  string
		r     refusal
		paths []string
		want  bool
	}{
		{"a disk (mvm 549)", refusal{refusalDomain, 2, "Invalid virtual machine configuration. The storage device attachment is invalid.", ""}, nil, true},
		{"an auxiliary storage (vphone-cli 56)", refusal{refusalDomain, 2, "Failed to lock auxiliary storage.", `NSUnderlyingError = "Error Domain=NSPOSIXErrorDomain Code=35 \"Resource temporarily unavailable\""`}, nil, true},
		{"a disk, in German", refusal{refusalDomain, 2, german, ""}, []string{free, taken}, true},
		{"something else, in German", refusal{refusalDomain, 2, german, ""}, []string{free, filepath.Join(dir, "none")}, false},
		{"no entitlement (vfkit 91)", refusal{refusalDomain, 2, "Invalid virtual machine configuration. The process doesn\u2019t have the \u201c" + entitlement + "\u201d entitlement.", ""}, []string{free}, false},
		{"a start that fails", refusal{refusalDomain, 1, "Internal Virtualization error. The virtual machine failed to start.", ""}, []string{taken}, false},
		{"another domain", refusal{"NSPOSIXErrorDomain", 2, "storage device attachment", ""}, nil, false},
	} {
		if got := tt.r.locked(tt.paths); got != tt.want {
			t.Errorf("%s: %v", tt.name, got)
		}
	}
}
