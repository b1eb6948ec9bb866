package desktop

import (
	"bytes"
	"image"
	"image/color"
	"image/png"
	"testing"
)

func TestShrink(t *testing.T) {
	encode := func(w, h int, at func(x, y int) color.Color) []byte {
		t.Helper()
		img := image.NewRGBA(image.Rect(0, 0, w, h))
		for y := range h {
			for x := range w {
				img.Set(x, y, at(x, y))
			}
		}
		var b bytes.Buffer
		if err := png.Encode(&b, img); err != nil {
			t.Fatal(err)
		}
		return b.Bytes()
	}
	halves := func(w int) func(x, _ int) color.Color {
		return func(x, _ int) color.Color {
			if x < w/2 {
				return color.RGBA{200, 0, 0, 255}
			}
			return color.RGBA{0, 100, 0, 255}
		}
	}
	for _, tt := range []struct{ w, h, wantW, wantH int }{
		{1280, 800, 480, 300}, {800, 1280, 300, 480}, {100, 50, 100, 50}, {5000, 2, 480, 1}, {1, 1, 1, 1}, {2, 5000, 1, 480},
	} {
		small, err := shrink(encode(tt.w, tt.h, halves(tt.w)))
		if err != nil {
			t.Errorf("%dx%d: %v", tt.w, tt.h, err)
			continue
		}
		img, err := png.Decode(bytes.NewReader(small))
		if err != nil || img.Bounds().Size() != image.Pt(tt.wantW, tt.wantH) {
			t.Errorf("%dx%d became %v, %v", tt.w, tt.h, img.Bounds(), err)
			continue
		}
		if tt.wantW > 10 {
			left, right := img.At(tt.wantW/4, 0), img.At(tt.wantW*3/4, 0)
			if left != (color.RGBA{200, 0, 0, 255}) || right != (color.RGBA{0, 100, 0, 255}) {
				t.Errorf("%dx%d: %v and %v", tt.w, tt.h, left, right)
			}
		}
	}
	whole := encode(64, 64, halves(64))
	huge := bytes.Clone(whole)
	copy(huge[16:24], []byte{0x7F, 0xFF, 0xFF, 0xFF, 0x7F, 0xFF, 0xFF, 0xFF}) // of the header
	for name, shot := range map[string][]byte{"empty": nil, "text": []byte("text"), "half": whole[:len(whole)/2], "huge": huge} {
		if _, err := shrink(shot); err == nil {
			t.Errorf("%s: no error", name)
		}
	}
}

// What a hypervisor that was taken over hands out as a screenshot is read within bounds.
func FuzzShrink(f *testing.F) {
	var b bytes.Buffer
	if err := png.Encode(&b, image.NewRGBA(image.Rect(0, 0, 8, 8))); err != nil {
		f.Fatal(err)
	}
	f.Add(b.Bytes())
	f.Fuzz(func(t *testing.T, shot []byte) {
		small, err := shrink(shot)
		if err != nil {
			return
		}
		size, err := png.DecodeConfig(bytes.NewReader(small))
		if err != nil || size.Width > pictureWidth || size.Height > pictureHeight {
			t.Errorf("%+v, %v", size, err)
		}
	})
}
