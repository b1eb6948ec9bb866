package main

import (
	"image"
	"image/color"
	"image/draw"
	"image/png"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"
)

// A text screen is read without knowing its font: what is known is a text that
// must be on the first page. Where equal characters look equal, different ones
// different, and spaces like nothing, there it is: no other text of that length
// does that. It also says what its characters look like, and with these the
// pages after it are read.

// Cells of the installer's font, in pixels.
const (
	cellWidth  = 8
	cellHeight = 16
)

type glyph [cellHeight]byte

// screen is what a screenshot shows, in cells.
type screen struct {
	*image.RGBA
	cells [][]glyph
}

func newScreen(img *image.RGBA) *screen {
	s := &screen{RGBA: img}
	for y := 0; y+cellHeight <= img.Bounds().Dy(); y += cellHeight {
		var row []glyph
		for x := 0; x+cellWidth <= img.Bounds().Dx(); x += cellWidth {
			row = append(row, s.glyphAt(x, y))
		}
		s.cells = append(s.cells, row)
	}
	return s
}

// glyphAt is what differs from a cell's background, its most frequent colour.
func (s *screen) glyphAt(x, y int) (g glyph) {
	background := s.background(x, y)
	for dy := range cellHeight {
		for dx := range cellWidth {
			if s.RGBAAt(x+dx, y+dy) != background {
				g[dy] |= 1 << dx
			}
		}
	}
	return g
}

func (s *screen) background(x, y int) (most color.RGBA) {
	// A cell of text has two colours.
	var colours []color.RGBA
	var counts []int
	for dy := range cellHeight {
		for dx := range cellWidth {
			c := s.RGBAAt(x+dx, y+dy)
			i := slices.Index(colours, c)
			if i < 0 {
				i, colours, counts = len(colours), append(colours, c), append(counts, 0)
			}
			counts[i]++
		}
	}
	best := 0
	for i, n := range counts {
		if n > counts[best] {
			best = i
		}
	}
	return colours[best]
}

type font map[glyph]rune

// learn finds a text and what its characters look like.
func (s *screen) learn(text string) (font, bool) {
	for _, row := range s.cells {
		for at := 0; at+len(text) <= len(row); at++ {
			if f, ok := match(row[at:], text); ok {
				return f, true
			}
		}
	}
	return nil, false
}

func match(cells []glyph, text string) (font, bool) {
	f, looks := font{}, map[rune]glyph{' ': {}}
	for i, r := range text {
		g := cells[i]
		seen, known := looks[r]
		other, taken := f[g]
		if known && seen != g || taken && other != r {
			return nil, false
		}
		looks[r], f[g] = g, r
	}
	return f, true
}

// read is a row of the screen; what the font has not is U+FFFD.
func (f font) read(cells []glyph) string {
	var b strings.Builder
	for _, g := range cells {
		r, ok := f[g]
		if !ok {
			r = '\uFFFD'
		}
		b.WriteRune(r)
	}
	return b.String()
}

// shows says whether a text is on the screen, as far as the font has it.
func (f font) shows(s *screen, text string) bool {
	known := map[rune]bool{}
	for _, r := range f {
		known[r] = true
	}
	want := strings.Map(func(r rune) rune {
		if known[r] {
			return r
		}
		return '\uFFFD'
	}, text)
	for _, row := range s.cells {
		if strings.Contains(f.read(row), want) {
			return true
		}
	}
	return false
}

// selected is the row that is highlighted in red.
func (s *screen) selected(f font) string {
	red := color.RGBA{170, 0, 0, 255}
	for y, row := range s.cells {
		n := 0
		for x := range row {
			if s.background(x*cellWidth, y*cellHeight) == red {
				n++
			}
		}
		if n > 3 {
			return f.read(row)
		}
	}
	return ""
}

// screenshot takes one of a desktop.
func screenshot(t testing.TB, name string) *image.RGBA {
	t.Helper()
	return decode(t, lumina(t, "desktop", "screenshot", name, "-").succeeded(t).stdout)
}

func decode(t testing.TB, shot string) *image.RGBA {
	t.Helper()
	img, err := png.Decode(strings.NewReader(shot))
	if err != nil {
		t.Fatalf("reading the screenshot: %v", err)
	}
	if as, ok := img.(*image.RGBA); ok {
		return as
	}
	as := image.NewRGBA(img.Bounds())
	draw.Draw(as, as.Rect, img, as.Rect.Min, draw.Src)
	return as
}

// waitScreen takes screenshots of text until one is as it should be.
func waitScreen(t testing.TB, name, what string, limit time.Duration, ok func(*screen) bool) {
	t.Helper()
	waitPicture(t, name, what, limit, func(img *image.RGBA) bool { return ok(newScreen(img)) })
}

// waitPicture takes screenshots until one is as it should be, and returns it. A
// guest tells nobody that it has drawn: there is no event to wait for. The wait is
// bounded, and what was seen last is kept for whoever looks into it.
func waitPicture(t testing.TB, name, what string, limit time.Duration, ok func(*image.RGBA) bool) *image.RGBA {
	t.Helper()
	start := time.Now()
	var shot string
	var img *image.RGBA
	for {
		asked := time.Now()
		// What shows the same as before is not looked at again: under the race detector
		// that takes the time which the guest needs.
		if now := lumina(t, "desktop", "screenshot", name, "-").succeeded(t).stdout; now != shot {
			shot, img = now, decode(t, now)
			if ok(img) {
				t.Logf("%s after %.1f s", what, time.Since(start).Seconds())
				return img
			}
		}
		if time.Since(start) > limit {
			last := filepath.Join(t.ArtifactDir(), "last.png")
			writeFile(t, last, []byte(shot))
			t.Fatalf("no %s on the screen within %v; it shows %s, which is %s%s", what, limit, last, sketch(img), desktopStates(t, home, stacksOf))
		}
		time.Sleep(pause(asked))
	}
}

// pause is until the next picture. Each holds the guest up, and on a busy host those who
// look take what it would run with: most of the time is the guest's.
func pause(asked time.Time) time.Duration {
	return max(100*time.Millisecond, 5*time.Since(asked))
}
