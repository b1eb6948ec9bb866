package vz

import (
	"strings"
	"testing"
)

// A second boot is seen, however its bytes come: by init's word, or by the kernel's clock.
func TestFirstBoot(t *testing.T) {
	const (
		kernel = "[    0.100000] virtio_blk virtio1: [vda] 3 logical blocks\r\n[    0.200000] Key type registered\r\n"
		slow   = "[    0.400000] virtio_blk virtio1: [vda] 3 logical blocks\r\n[    0.500000] Key type registered\r\n"
		begins = beginsText + "\r\n"
	)
	tests := []struct {
		name, console string
		restored, ok  bool
	}{
		{"nothing", "", false, true},
		{"one boot", kernel + begins + "[    0.300000] a line\n", false, true},
		{"a line again", kernel + "[    0.300000] Key type registered\n" + begins, false, true},
		{"lines out of order", kernel + "[    0.199990] Key type registered\n" + begins, false, true},
		{"a clock that is changed", "[    0.000000] calibrate\n[    0.012000] tsc\n[    0.000000] calibrate\n" + kernel + begins, false, true},
		{"a clock that is changed late", "[    0.000000] calibrate\n[    0.212000] tsc\n[    0.000000] calibrate\n" + begins, false, true},
		{"a clock that is changed later", kernel + begins + "[    0.000000] Key type registered\n", false, true},
		{"a kernel that prints its command line", "[    0.000000] Kernel command line: quiet lumina.begins=" + begins + kernel + begins, false, true},
		{"init twice", kernel + begins + slow + begins, false, false},
		{"an init that says nothing", kernel + kernel, false, false},
		{"a boot that is slower, and one as fast", kernel + slow + kernel, false, false},
		{"cut off", kernel + "[    0.3000" + kernel, false, false},
		{"noise", kernel + "\x00\xff\x1b[2J" + kernel, false, false},
		{"a long line", kernel + strings.Repeat("x", 9000) + "\n" + kernel, false, false},
		{"times that are none", "[99999999999999999999.000000] x\n[    0.1] x\n[] x\n", false, true},
		{"a panic", kernel + "[    0.900000] Kernel panic - not syncing: no init\n", false, false},
		{"restored", "[    9.000000] a line\n", true, true},
		{"restored, then booted", begins, true, false},
	}
	for _, tt := range tests {
		for _, size := range []int{1, 7, 4096} {
			b := newFirstBoot(tt.restored)
			var err error
			for p := []byte(tt.console); len(p) > 0 && err == nil; p = p[min(size, len(p)):] {
				err = b.see(p[:min(size, len(p))])
			}
			if (err == nil) != tt.ok {
				t.Errorf("%s, %d bytes at a time: %v", tt.name, size, err)
			}
		}
	}
}

// What a guest prints takes a bounded amount of memory.
func FuzzFirstBoot(f *testing.F) {
	f.Add([]byte("[    0.100000] a line\n[    0.1"), 3)
	f.Fuzz(func(t *testing.T, console []byte, size int) {
		b := newFirstBoot(false)
		size = min(max(size, 1), 4096)
		for p := console; len(p) > 0; p = p[min(size, len(p)):] {
			_ = b.see(p[:min(size, len(p))])
		}
		if len(b.line) > maxLine || len(b.clock.seen) > maxLinesSeen || len(b.begins.tail) >= len(beginsText) {
			t.Errorf("%d, %d, %d", len(b.line), len(b.clock.seen), len(b.begins.tail))
		}
	})
}
