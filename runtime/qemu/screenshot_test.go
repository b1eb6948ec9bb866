package qemu

import (
	"bufio"
	"image/color"
	"strings"
	"testing"
)

func TestReadPPM(t *testing.T) {
	img, err := readPPM(bufio.NewReader(strings.NewReader("P6\n2 1\n255\n\x01\x02\x03\xff\x00\n")))
	if err != nil || img.Bounds().Dx() != 2 || img.Bounds().Dy() != 1 ||
		img.RGBAAt(0, 0) != (color.RGBA{1, 2, 3, 255}) || img.RGBAAt(1, 0) != (color.RGBA{255, 0, '\n', 255}) {
		t.Errorf("%v, %v", img, err)
	}
	for name, tt := range map[string]struct{ picture, want string }{
		"nothing":     {"", `begins with ""`},
		"a PNG":       {"\x89PNG\r\n\x1a\n", "begins with"},
		"no end":      {"P6\n2 2\n255", "begins with"},
		"a row short": {"P6\n2 2\n255\n123456", "ends in row 1 of 2"},
		"too large":   {"P6\n65536 65536\n255\n", "65536x65536"},
		"overflow":    {"P6\n2147483647 9223372036854775807\n255\n", "pixels"},
		"no pixels":   {"P6\n0 5\n255\n", "0x5"},
		"negative":    {"P6\n-5 5\n255\n", "-5x5"},
		"deep":        {"P6\n1 1\n65535\n123456", "65535"},
		"no numbers":  {"P6\na b\nc\n", `"a b c"`},
	} {
		t.Run(name, func(t *testing.T) {
			if _, err := readPPM(bufio.NewReader(strings.NewReader(tt.picture))); err == nil || !strings.Contains(err.Error(), tt.want) {
				t.Errorf("%v; want %q", err, tt.want)
			}
		})
	}
}

func FuzzReadPPM(f *testing.F) {
	f.Add("P6\n2 1\n255\n123456")
	f.Add("P6\n1 99999999\n255\n")
	f.Fuzz(func(t *testing.T, picture string) {
		img, err := readPPM(bufio.NewReader(strings.NewReader(picture)))
		if err == nil && len(picture) < 3*img.Bounds().Dx()*img.Bounds().Dy() {
			t.Errorf("%v of %d bytes", img.Bounds(), len(picture))
		}
	})
}
