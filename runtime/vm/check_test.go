package vm

import (
	"math"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

func TestSpecCheck(t *testing.T) {
	file := func(size int64) *os.File {
		f, err := os.Create(filepath.Join(t.TempDir(), "file"))
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { f.Close() })
		if err := f.Truncate(size); err != nil {
			t.Fatal(err)
		}
		return f
	}
	good := func() Spec {
		return Spec{
			Kernel: file(1), Initramfs: file(1), CPUs: 1, Memory: 64 << 20,
			Disks:   []Disk{{File: file(4096), Serial: "root"}, {File: file(512), Serial: "scratch"}},
			Shares:  []Share{{Dir: "/srv", Tag: "share0"}},
			Network: &NIC{MAC: NewMAC(), Socket: file(0), MTU: 1500},
		}
	}
	if err := good().Check(); err != nil {
		t.Fatal(err)
	}
	for name, tt := range map[string]struct {
		change func(*Spec)
		want   string
	}{
		"Rosetta":             {func(s *Spec) { s.Arch, s.Rosetta = "amd64", true }, "want an arm64 one"},
		"no kernel":           {func(s *Spec) { s.Kernel = nil }, "kernel"},
		"no initramfs":        {func(s *Spec) { s.Initramfs = nil }, "initramfs"},
		"no CPU":              {func(s *Spec) { s.CPUs = 0 }, "0 CPUs"},
		"little memory":       {func(s *Spec) { s.Memory = 16 << 20 }, "at least 32 MiB"},
		"half a mebibyte":     {func(s *Spec) { s.Memory += 1 << 19 }, "multiple of 1 MiB"},
		"a long serial":       {func(s *Spec) { s.Disks[0].Serial = strings.Repeat("x", 21) }, "1 to 20 bytes"},
		"a serial twice":      {func(s *Spec) { s.Disks[1].Serial = "root" }, "no other disk"},
		"no serial":           {func(s *Spec) { s.Disks[0].Serial = "" }, "1 to 20 bytes"},
		"a disk without file": {func(s *Spec) { s.Disks[0].File = nil }, "no file"},
		"half a sector":       {func(s *Spec) { s.Disks[0].File = file(1000) }, "multiple of 512"},
		"an empty disk":       {func(s *Spec) { s.Disks[0].File = file(0) }, "multiple of 512"},
		"a relative share":    {func(s *Spec) { s.Shares[0].Dir = "srv" }, "not absolute"},
		"a share without tag": {func(s *Spec) { s.Shares[0].Tag = "" }, "want a tag"},
		"a multicast address": {func(s *Spec) { s.Network.MAC = net.HardwareAddr{1, 2, 3, 4, 5, 6} }, "unicast"},
		"a short address":     {func(s *Spec) { s.Network.MAC = s.Network.MAC[:4] }, "6 bytes"},
		"a small MTU":         {func(s *Spec) { s.Network.MTU = 576 }, "MTU"},
		"a large MTU":         {func(s *Spec) { s.Network.MTU = 1 << 16 }, "MTU"},
		"no socket":           {func(s *Spec) { s.Network.Socket = nil }, "no socket"},
	} {
		spec := good()
		tt.change(&spec)
		if err := spec.Check(); err == nil || !strings.Contains(err.Error(), tt.want) {
			t.Errorf("%s: %v, want %q", name, err, tt.want)
		}
	}
}

func TestDesktopSpecCheck(t *testing.T) {
	file := func(size int64) *os.File {
		f, err := os.Create(filepath.Join(t.TempDir(), "disk"))
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { f.Close() })
		if err := f.Truncate(size); err != nil {
			t.Fatal(err)
		}
		return f
	}
	good := DesktopSpec{CPUs: 1, Memory: 1 << 30, Variables: file(1), Disk: file(1 << 20)}
	if err := good.Check(); err != nil {
		t.Error(err)
	}
	for want, change := range map[string]func(*DesktopSpec){
		"want at least 1":       func(s *DesktopSpec) { s.CPUs = 0 },
		"a multiple of 1 MiB":   func(s *DesktopSpec) { s.Memory++ },
		"firmware's variables":  func(s *DesktopSpec) { s.Variables = nil },
		"a multiple of 512":     func(s *DesktopSpec) { s.Disk = file(1<<20 + 1) },
		"not a unicast address": func(s *DesktopSpec) { s.Network = &NIC{} },
	} {
		s := good
		change(&s)
		if err := s.Check(); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%v, want %q", err, want)
		}
	}
}

func TestRoundUp(t *testing.T) {
	for size, want := range map[int64]int64{0: 0, 1: 1 << 20, 1 << 20: 1 << 20, 1395864371: 1332 << 20, math.MaxInt64: math.MaxInt64} {
		if got := RoundUp(size); got != want {
			t.Errorf("RoundUp(%d) = %d, want %d", size, got, want)
		}
	}
}
