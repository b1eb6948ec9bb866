package iso

import (
	"bytes"
	"encoding/binary"
	"os"
	"strings"
	"testing"
)

// disk is one with a partition of data, and an EFI system partition after it.
func disk(t testing.TB, loader string, machine uint16) []byte {
	t.Helper()
	esp, err := os.ReadFile(bootImage(t, t.TempDir(), loader, machine, 12))
	if err != nil {
		t.Fatal(err)
	}
	const data, at = 34, 40 // blocks
	b := make([]byte, at*blockSize+len(esp)+33*blockSize)
	copy(b[blockSize:], "EFI PART")
	le := binary.LittleEndian
	le.PutUint64(b[blockSize+72:], 2)
	le.PutUint32(b[blockSize+80:], 128)
	le.PutUint32(b[blockSize+84:], 128)
	for i, p := range []struct {
		kind        string
		first, last uint64
	}{{strings.Repeat("d", 16), data, at - 1}, {espType, at, uint64(at + len(esp)/blockSize - 1)}} {
		entry := b[2*blockSize+i*128:]
		copy(entry, p.kind)
		le.PutUint64(entry[32:], p.first)
		le.PutUint64(entry[40:], p.last)
	}
	copy(b[at*blockSize:], esp)
	return b
}

func TestReadDisk(t *testing.T) {
	if testing.Short() {
		t.Skip("with -short: it runs mkfs.fat and mtools")
	}
	amd64, arm64 := disk(t, "BOOTX64.EFI", 0x8664), disk(t, "BOOTAA64.EFI", 0xAA64)
	damaged := bytes.Clone(amd64)
	copy(damaged[blockSize+72:], "\xff\xff\xff\xff\xff\xff\xff\x7f")
	for _, tt := range []struct {
		name, arch, want string
		disk             []byte
	}{
		{"amd64", "amd64", "", amd64},
		{"arm64", "arm64", "", arm64},
		{"amd64 for arm64", "arm64", "it is for amd64 (BOOTX64.EFI), the guest is arm64", amd64},
		{"arm64 for amd64", "amd64", "it is for arm64 (BOOTAA64.EFI), the guest is amd64", arm64},
		{"without a table", "amd64", "no EFI loader", make([]byte, 1<<16)},
		{"truncated", "amd64", "no EFI loader", amd64[:len(amd64)/2]},
		{"short", "amd64", "partition table", amd64[:blockSize]},
		{"damaged", "amd64", "damaged", damaged},
	} {
		t.Run(tt.name, func(t *testing.T) {
			i, err := ReadDisk(bytes.NewReader(tt.disk), int64(len(tt.disk)))
			if err == nil {
				err = i.Boots(tt.arch)
			}
			if (err == nil) != (tt.want == "") || err != nil && !strings.Contains(err.Error(), tt.want) {
				t.Errorf("%v, want %q", err, tt.want)
			}
		})
	}
}

func FuzzReadDisk(f *testing.F) {
	f.Add(disk(f, "BOOTX64.EFI", 0x8664))
	f.Fuzz(func(_ *testing.T, b []byte) {
		if i, err := ReadDisk(bytes.NewReader(b), int64(len(b))); err == nil {
			_ = i.Boots("amd64")
		}
	})
}
