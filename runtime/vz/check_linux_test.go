package vz

import (
	"errors"
	"strings"
	"testing"

	"github.com/abdul-abdi/lumina/runtime/vm"
)

// host is a framework that only says what doctor asks.
type host struct {
	framework
	version, signed string
	mark            string
	signErr, ros    error
}

func (h host) release() (string, error)       { return h.version, nil }
func (host) build() (string, error)           { return "24F74 Mac16,1", nil }
func (host) limits() (cpus int, memory int64) { return 10, 32 << 30 }
func (h host) signature() (string, error)     { return h.signed, h.signErr }
func (h host) quarantine() (string, error)    { return h.mark, nil }
func (h host) rosetta() error                 { return h.ros }

func TestCheck(t *testing.T) {
	good := host{version: "15.5", signed: signedText}
	for _, tt := range []struct {
		name, check, want string
		change            func(*host)
		status            vm.CheckStatus
	}{
		{"macOS", "macOS", "15.5 (24F74 Mac16,1)", func(*host) {}, vm.CheckOK},
		{"an old macOS", "macOS", "macOS 14 or newer", func(h *host) { h.version = "13.6" }, vm.CheckFail},
		{"signed", "signature", "ad hoc", func(*host) {}, vm.CheckOK},
		{"signed, older text", "signature", "signed", func(h *host) {
			h.signed = "[Dict]\n\t[Key] com.apple.security.virtualization\n\t[Value]\n\t\t[Bool] true\n"
		}, vm.CheckOK},
		{"not signed", "signature", "not signed at all", func(h *host) { h.signErr = errors.New("code object is not signed at all") }, vm.CheckFail},
		{"no entitlement", "signature", "lacks the entitlement", func(h *host) { h.signed = "Signature=adhoc" }, vm.CheckFail},
		{"an entitlement that is false", "signature", "lacks the entitlement", func(h *host) {
			h.signed = "<key>com.apple.security.virtualization</key><false/><key>x</key><true/>"
		}, vm.CheckFail},
		{"limits", "VM limits", "10 CPUs and 32 GB", func(*host) {}, vm.CheckOK},
		{"not downloaded", "quarantine", "not in quarantine", func(*host) {}, vm.CheckOK},
		{"downloaded", "quarantine", "may refuse to start it", func(h *host) { h.mark = "0083;5f3b3a2e;Safari;" }, vm.CheckWarn},
		{"Rosetta", "rosetta", "run amd64 programs", func(*host) {}, vm.CheckOK},
		{"Rosetta that is not installed", "rosetta", "not installed", func(h *host) { h.ros = errors.New("it is not installed") }, vm.CheckWarn},
		{"an Intel Mac", "rosetta", "Apple silicon only", func(h *host) { h.ros = errNoRosetta }, vm.CheckOK},
	} {
		h := good
		tt.change(&h)
		found := false
		for _, c := range (&Driver{framework: h}).Check(t.Context(), vm.Spec{}) {
			if c.Name != tt.check {
				continue
			}
			found = true
			if c.Status != tt.status || !strings.Contains(c.Detail, tt.want) || c.Status != vm.CheckOK && c.Remedy == "" {
				t.Errorf("%s: %+v, want %s with %q", tt.name, c, tt.status, tt.want)
			}
		}
		if !found {
			t.Errorf("%s: no check %q", tt.name, tt.check)
		}
	}
}

// Rosetta is refused before a machine is made where there is none.
func TestRosettaRefused(t *testing.T) {
	d := &Driver{framework: host{ros: errNoRosetta}}
	if _, err := d.Fingerprint(t.Context(), vm.Spec{Rosetta: true}); !errors.Is(err, vm.ErrUnsupported) {
		t.Errorf("a template with Rosetta: %v", err)
	}
}
