package vz

import (
	"context"
	"errors"
	"fmt"
	"strings"

	"github.com/abdul-abdi/lumina/runtime/vm"
)

// entitlement is what a program needs to use the framework.
const entitlement = "com.apple.security.virtualization"

const signRemedy = "build it with make build, or: codesign -s - -f --entitlements runtime/vz/lumina.entitlements PROGRAM"

// Check is part of [vm.Checker].
func (d *Driver) Check(_ context.Context, _ vm.Spec) []vm.Check {
	return []vm.Check{d.checkRelease(), d.checkSignature(), d.checkQuarantine(), d.checkLimits(), d.checkRosetta()}
}

func (d *Driver) checkRelease() vm.Check {
	release, err := d.framework.release()
	if err == nil {
		err = checkMacOS(release)
	}
	if err != nil {
		return vm.Check{Name: "macOS", Status: vm.CheckFail, Detail: err.Error(), Remedy: "update macOS"}
	}
	build, err := d.framework.build()
	if err != nil {
		build = err.Error()
	}
	return vm.Check{Name: "macOS", Status: vm.CheckOK, Detail: fmt.Sprintf("%s (%s)", release, build)}
}

// checkSignature looks at what the framework refuses programs for: it says of one
// without the entitlement that the configuration is invalid.
func (d *Driver) checkSignature() vm.Check {
	check := vm.Check{Name: "signature", Status: vm.CheckOK}
	text, err := d.framework.signature()
	switch {
	case err != nil:
		check.Status, check.Detail = vm.CheckFail, err.Error()
	case !entitled(text):
		check.Status, check.Detail = vm.CheckFail, "this program lacks the entitlement "+entitlement
	case strings.Contains(text, "Signature=adhoc"):
		check.Detail = "signed on this Mac (ad hoc), with " + entitlement
	default:
		check.Detail = "signed, with " + entitlement
	}
	if check.Status != vm.CheckOK {
		check.Remedy = signRemedy
	}
	return check
}

// checkQuarantine looks at the mark of what a browser has downloaded, which macOS does
// not let start until its user agrees, in a dialog that a program in the background never
// sees.
func (d *Driver) checkQuarantine() vm.Check {
	check := vm.Check{Name: "quarantine", Status: vm.CheckOK, Detail: "this program is not in quarantine"}
	mark, err := d.framework.quarantine()
	switch {
	case err != nil:
		check.Status, check.Detail = vm.CheckWarn, "it is unknown whether this program is in quarantine: "+err.Error()
	case mark != "":
		check.Status = vm.CheckWarn
		check.Detail = "this program is in quarantine, as a download: macOS may refuse to start it"
		check.Remedy = "verify it as install.sh does, then: xattr -d com.apple.quarantine PROGRAM"
	}
	return check
}

// entitled says whether codesign lists the entitlement as true, in a property list
// or in its older text form.
func entitled(text string) bool {
	_, rest, ok := strings.Cut(text, entitlement)
	if !ok {
		return false
	}
	rest, _, _ = strings.Cut(rest, "[Key]")
	rest, _, _ = strings.Cut(strings.TrimPrefix(rest, "</key>"), "<key>")
	return strings.Contains(rest, "<true/>") || strings.Contains(rest, "[Bool] true")
}

func (d *Driver) checkLimits() vm.Check {
	cpus, memory := d.framework.limits()
	return vm.Check{Name: "VM limits", Status: vm.CheckOK, Detail: fmt.Sprintf("at most %d CPUs and %d GB of memory for one VM", cpus, memory>>30)}
}

func (d *Driver) checkRosetta() vm.Check {
	check := vm.Check{Name: "rosetta", Status: vm.CheckOK, Detail: "guests of images made with --rosetta run amd64 programs"}
	if err := d.framework.rosetta(); errors.Is(err, vm.ErrUnsupported) {
		check.Detail = "images made with --rosetta do not run: " + err.Error() // nobody has to want it
	} else if err != nil {
		check.Status, check.Detail, check.Remedy = vm.CheckWarn, "images made with --rosetta do not run: "+err.Error(), "softwareupdate --install-rosetta"
	}
	return check
}
