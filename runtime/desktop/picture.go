package desktop

import (
	"bytes"
	"context"
	"fmt"
	"hash/maphash"
	"image"
	"image/color"
	"image/draw"
	"image/png"
	"path/filepath"
	"time"

	"github.com/abdul-abdi/lumina/runtime/statefile"
	"github.com/abdul-abdi/lumina/runtime/vm"
)

// pictureFile is a small picture of what was on the screen last.
const pictureFile = "screen.png"

// A picture has at most pictureWidth by pictureHeight pixels; of a screen with more than
// maxPixels there is none.
const (
	pictureWidth  = 480
	pictureHeight = 480
	maxPixels     = 32 << 20
)

// A picture is taken firstPicture after the start, and then every pictureInterval. It
// costs the hypervisor one screenshot, and the rest only when the screen has changed.
const (
	firstPicture    = 10 * time.Second
	pictureInterval = time.Minute
	// lastPictureTime bounds how long an end waits for one.
	lastPictureTime = 2 * time.Second
)

// PictureFile is the file of a small PNG of what was on a desktop's screen last. It is
// not there before the desktop has run for some seconds, nor where the driver cannot
// read the screen. This process's program has made it, whatever the guest showed.
func (s *Store) PictureFile(m *Manifest) string { return filepath.Join(s.path(m.ID), pictureFile) }

// pictures keeps the picture until ctx ends.
func (s *supervisor) pictures(ctx context.Context) {
	if _, ok := s.machine.(vm.Screen); !ok {
		return
	}
	t := time.NewTimer(firstPicture)
	defer t.Stop()
	for {
		select {
		case <-t.C:
		case <-s.machine.Done():
			return
		case <-ctx.Done():
			return
		}
		s.picture.take(s)
		t.Reset(pictureInterval)
	}
}

// lastPicture takes one before the machine ends, unless that takes long.
func (s *supervisor) lastPicture() {
	taken := make(chan struct{})
	go func() {
		defer close(taken)
		s.picture.take(s)
	}()
	t := time.NewTimer(lastPictureTime)
	defer t.Stop()
	select {
	case <-taken:
	case <-t.C:
	}
}

// picture is that of a supervisor's desktop.
type picture struct {
	busy chan struct{} // has room for one
	seed maphash.Seed
	last uint64 // of the screenshot that it was made of
}

func newPicture() *picture {
	return &picture{busy: make(chan struct{}, 1), seed: maphash.MakeSeed()}
}

// take takes a picture, unless one is being taken. What fails is tried again later.
func (p *picture) take(s *supervisor) {
	screen, ok := s.machine.(vm.Screen)
	if !ok {
		return
	}
	select {
	case p.busy <- struct{}{}:
		defer func() { <-p.busy }()
	default:
		return
	}
	shot, err := screen.Screenshot()
	if err != nil {
		return
	}
	sum := maphash.Bytes(p.seed, shot)
	if sum == p.last {
		return
	}
	small, err := shrink(shot)
	if err != nil {
		return
	}
	if statefile.Replace(filepath.Join(s.dir, pictureFile), small) == nil {
		p.last = sum
	}
}

// shrink makes a small PNG of a large one, which a hypervisor has made that its guest
// may have taken over.
func shrink(shot []byte) ([]byte, error) {
	size, err := png.DecodeConfig(bytes.NewReader(shot))
	if err != nil {
		return nil, fmt.Errorf("reading a screenshot: %w", err)
	}
	if size.Width < 1 || size.Height < 1 || int64(size.Width)*int64(size.Height) > maxPixels {
		return nil, fmt.Errorf("a screen of %dx%d pixels is too large", size.Width, size.Height)
	}
	img, err := png.Decode(bytes.NewReader(shot))
	if err != nil {
		return nil, fmt.Errorf("reading a screenshot: %w", err)
	}
	var b bytes.Buffer
	if err := png.Encode(&b, scaleDown(img, pictureWidth, pictureHeight)); err != nil {
		return nil, err
	}
	return b.Bytes(), nil
}

// scaleDown gives an image at most a size: each pixel is the mean of those it stands for.
func scaleDown(img image.Image, width, height int) image.Image {
	from := image.NewRGBA(image.Rectangle{Max: img.Bounds().Size()})
	draw.Draw(from, from.Rect, img, img.Bounds().Min, draw.Src)
	w, h := from.Rect.Dx(), from.Rect.Dy()
	if w > width {
		h, w = max(1, h*width/w), width
	}
	if h > height {
		w, h = max(1, w*height/h), height
	}
	// from the first to before the last of those that one stands for
	part := func(i, of, size int) (first, last int) {
		first = i * size / of
		return first, max((i+1)*size/of, first+1)
	}
	to := image.NewRGBA(image.Rect(0, 0, w, h))
	for y := range h {
		top, bottom := part(y, h, from.Rect.Dy())
		for x := range w {
			left, right := part(x, w, from.Rect.Dx())
			var sum [3]int
			for v := top; v < bottom; v++ {
				for p := from.Pix[v*from.Stride+4*left : v*from.Stride+4*right]; len(p) > 0; p = p[4:] {
					sum[0], sum[1], sum[2] = sum[0]+int(p[0]), sum[1]+int(p[1]), sum[2]+int(p[2])
				}
			}
			n := (bottom - top) * (right - left)
			to.SetRGBA(x, y, color.RGBA{byte(sum[0] / n), byte(sum[1] / n), byte(sum[2] / n), 0xFF})
		}
	}
	return to
}
