package qemu

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path"
	"path/filepath"
	"slices"
	"sort"
)

// firmware is an EFI firmware for desktops: its code, and its variables as they
// are at first.
type firmware struct {
	code, variables string
	smm             bool // it needs a machine with system management mode
}

// descriptor describes a firmware on this host (docs/interop/firmware.json).
type descriptor struct {
	Interfaces []string `json:"interface-types"`
	Mapping    struct {
		Device     string `json:"device"`
		Executable struct {
			Filename string `json:"filename"`
			Format   string `json:"format"`
		} `json:"executable"`
		Template struct {
			Filename string `json:"filename"`
			Format   string `json:"format"`
		} `json:"nvram-template"`
	} `json:"mapping"`
	Targets []struct {
		Architecture string   `json:"architecture"`
		Machines     []string `json:"machines"`
	} `json:"targets"`
	Features []string `json:"features"`
}

var firmwareArch = map[string]string{"amd64": "x86_64", "arm64": "aarch64"}

var firmwarePackage = map[string]string{"amd64": "ovmf", "arm64": "qemu-efi-aarch64"}

// findFirmware finds a firmware for an architecture. Distributions order their
// descriptors by name, and the host's administrator overrides them by it.
func findFirmware(arch string, secure bool) (firmware, error) {
	qemu, err := find(arch)
	if err != nil {
		return firmware{}, err
	}
	files := map[string]string{}
	for _, dir := range []string{
		filepath.Join(filepath.Dir(qemu), "../share/qemu/firmware"),
		"/usr/share/qemu/firmware",
		"/etc/qemu/firmware",
	} {
		found, _ := filepath.Glob(filepath.Join(dir, "*.json")) // fails for bad patterns only
		for _, f := range found {
			files[filepath.Base(f)] = f
		}
	}
	names := make([]string, 0, len(files))
	for name := range files {
		names = append(names, name)
	}
	sort.Strings(names)
	for _, name := range names {
		b, err := os.ReadFile(files[name])
		var d descriptor
		if err != nil || json.Unmarshal(b, &d) != nil || !d.suits(arch, secure) {
			continue
		}
		return firmware{d.Mapping.Executable.Filename, d.Mapping.Template.Filename, slices.Contains(d.Features, "requires-smm")}, nil
	}
	if secure {
		return firmware{}, fmt.Errorf("no EFI firmware with Secure Boot and its keys for %s; on Debian: apt-get install %s: %w", arch, firmwarePackage[arch], ErrNotInstalled)
	}
	return firmware{}, fmt.Errorf("no EFI firmware for %s; on Debian: apt-get install %s: %w", arch, firmwarePackage[arch], ErrNotInstalled)
}

// suits says whether a firmware is for a desktop: for Secure Boot, one that has its
// keys; else one that boots everything.
func (d *descriptor) suits(arch string, secure bool) bool {
	if !slices.Contains(d.Interfaces, "uefi") || d.Mapping.Device != "flash" ||
		d.Mapping.Executable.Format != "raw" || d.Mapping.Template.Format != "raw" {
		return false
	}
	has := func(feature string) bool { return slices.Contains(d.Features, feature) }
	if secure && !(has("secure-boot") && has("enrolled-keys")) {
		return false
	}
	if !secure && (has("secure-boot") || has("requires-smm") || has("enrolled-keys")) {
		return false
	}
	for _, t := range d.Targets {
		if t.Architecture != firmwareArch[arch] {
			continue
		}
		for _, pattern := range t.Machines {
			if ok, err := path.Match(pattern, desktopMachines[arch].version); ok && err == nil {
				return true
			}
		}
	}
	return false
}

// WriteVariables is part of [vm.DesktopDriver].
func (d *Driver) WriteVariables(arch string, secureBoot bool, to *os.File) error {
	fw, err := findFirmware(arch, secureBoot)
	if err != nil {
		return err
	}
	from, err := os.Open(fw.variables)
	if err != nil {
		return fmt.Errorf("reading the firmware's variables: %w", err)
	}
	defer from.Close()
	// That of arm64 has 64 MiB, nearly all of it zeros.
	buf, zeros := make([]byte, 64<<10), make([]byte, 64<<10)
	size := int64(0)
	for {
		n, err := io.ReadFull(from, buf)
		if string(buf[:n]) != string(zeros[:n]) {
			if _, err := to.WriteAt(buf[:n], size); err != nil {
				return fmt.Errorf("writing the firmware's variables: %w", err)
			}
		}
		size += int64(n)
		if errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) {
			return to.Truncate(size)
		}
		if err != nil {
			return fmt.Errorf("reading the firmware's variables: %w", err)
		}
	}
}
