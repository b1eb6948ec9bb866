package main

import (
	"bytes"
	"image"
	"image/color"
	"image/png"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/abdul-abdi/lumina/runtime/desktop"
)

// What the X session of recipes/desktop.yaml draws.
var (
	sessionRoot = color.RGBA{0x20, 0x4A, 0x87, 0xFF} // the recipe's own
	white       = color.RGBA{0xFF, 0xFF, 0xFF, 0xFF}
	// xterm's, of the first four of its eight.
	xtermRed, xtermGreen, xtermBlue = color.RGBA{0xCD, 0, 0, 0xFF}, color.RGBA{0, 0xCD, 0, 0xFF}, color.RGBA{0, 0, 0xEE, 0xFF}
)

// The size of a character of xterm's font, which is X's own "fixed".
const xtermWidth, xtermHeight = 6, 13

// where says where a colour is: the smallest rectangle with all of its pixels, and
// how many they are.
func where(img *image.RGBA, c color.RGBA) (r image.Rectangle, pixels int) {
	for y := img.Rect.Min.Y; y < img.Rect.Max.Y; y++ {
		row := img.Pix[img.PixOffset(img.Rect.Min.X, y):]
		for x := range img.Rect.Dx() {
			if p := row[4*x:]; p[0] == c.R && p[1] == c.G && p[2] == c.B {
				x += img.Rect.Min.X
				r, pixels = r.Union(image.Rect(x, y, x+1, y+1)), pixels+1
			}
		}
	}
	return r, pixels
}

// stripe is where a colour is when it is a filled rectangle, and nowhere else.
func stripe(img *image.RGBA, c color.RGBA) (image.Rectangle, bool) {
	r, pixels := where(img, c)
	return r, pixels > 0 && pixels == r.Dx()*r.Dy()
}

// changed is where two pictures differ, but for a part of them.
func changed(a, b *image.RGBA, but image.Rectangle) (r image.Rectangle) {
	if a.Bounds() != b.Bounds() {
		return a.Bounds().Union(b.Bounds())
	}
	for i := 0; i < len(a.Pix); i += 4 {
		if [3]byte(a.Pix[i:]) != [3]byte(b.Pix[i:]) {
			if at := image.Pt(i%a.Stride/4, i/a.Stride); !at.In(but) {
				r = r.Union(image.Rectangle{at, at.Add(image.Pt(1, 1))})
			}
		}
	}
	return r
}

// A recipe's image becomes a disk, the disk a desktop, and the desktop shows its X
// session, which keys and clicks drive.
func TestDesktopSession(t *testing.T) {
	needsProgram(t)
	const name = "session"
	createDesktop(t, name, "--disk", sessionDisk(t), "--memory", "1GB")
	lumina(t, "desktop", "boot", name, "--headless", "--detach").succeeded(t)
	waitPicture(t, name, "the X session", 10*time.Minute, func(img *image.RGBA) bool {
		_, pixels := where(img, sessionRoot)
		return pixels == img.Rect.Dx()*img.Rect.Dy()
	})

	// A terminal, by its key.
	lumina(t, "desktop", "key", name, "ctrl+alt+t").succeeded(t)
	var window image.Rectangle
	waitPicture(t, name, "the terminal's prompt", 3*time.Minute, func(img *image.RGBA) bool {
		window, _ = where(img, white)
		_, black := where(img, color.RGBA{0, 0, 0, 0xFF})
		return window.Dx() >= 80*xtermWidth && window.Dy() >= 24*xtermHeight && black > 2*xtermWidth*xtermHeight
	})
	// What is typed says nothing of how wide, how high or where its output is.
	lumina(t, "desktop", "type", name, `for c in 1 2 4; do printf '\e[4%dm%*s\e[m\n' $c $((6*7)) ''; done`+"\n").succeeded(t)
	before := waitPicture(t, name, "what the command printed", 3*time.Minute, func(img *image.RGBA) bool {
		red, isRed := stripe(img, xtermRed)
		green, isGreen := stripe(img, xtermGreen)
		blue, isBlue := stripe(img, xtermBlue)
		size := image.Pt(6*7*xtermWidth, xtermHeight)
		return isRed && isGreen && isBlue && red.Size() == size && red.In(window) &&
			green == red.Add(image.Pt(0, xtermHeight)) && blue == green.Add(image.Pt(0, xtermHeight))
	})

	// A click on the root opens the window manager's menu there, and changes
	// nothing else, but that the terminal prints its prompt; one on its first line
	// opens another terminal.
	lumina(t, "desktop", "click", name, "200", "600", "--button", "right").succeeded(t)
	_, whiteBefore := where(before, white)
	waitPicture(t, name, "the menu", 3*time.Minute, func(img *image.RGBA) bool {
		menu := changed(before, img, window)
		_, pixels := where(img, white)
		return menu.Min == image.Pt(200, 600) && menu.Dx() < 200 && menu.Dy() < 200 && pixels > whiteBefore+menu.Dx()*menu.Dy()/3
	})
	lumina(t, "desktop", "click", name, "250", "610").succeeded(t)
	waitPicture(t, name, "another terminal", 3*time.Minute, func(img *image.RGBA) bool {
		_, pixels := where(img, white)
		return pixels > whiteBefore*5/4
	})

	// The agent of its image answers, beside systemd.
	r := lumina(t, "desktop", "exec", name, "cat /proc/1/comm; echo wrong >&2; exit 3")
	if r.code != 3 || !strings.Contains(r.stdout, `"stdout":"systemd\n"`) || !strings.Contains(r.stdout, `"stderr":"wrong\n"`) {
		t.Errorf("exec: %d %s%s", r.code, r.stdout, r.stderr)
	}
	t.Run("the clipboard", func(t *testing.T) { testSpiceClipboard(t, name) })
	lumina(t, "desktop", "stop", name).succeeded(t)
	picture := filepath.Join(desktopRowOf(t, name).Path, "screen.png")
	if size, err := png.DecodeConfig(bytes.NewReader(readFile(t, picture))); err != nil || size.Width != 480 {
		t.Errorf("the picture of its last screen: %+v, %v", size, err)
	}
	if r := lumina(t, "desktop", "exec", name, "true"); r.code != exitFailure || !strings.Contains(r.stdout, `"error":"connection_failed"`) || !strings.Contains(r.stdout, "it is not running") {
		t.Errorf("exec, once it has ended: %d %s%s", r.code, r.stdout, r.stderr)
	}
}

// testSpiceClipboard pastes a text into an X session whose spice-vdagent runs, as a viewer
// does, and gets one that is copied there.
func testSpiceClipboard(t *testing.T, name string) {
	// spice-vdagent forwards what a program asks for, and what one has.
	const loop = `export DISPLAY=:0 XAUTHORITY=/home/user/.Xauthority; echo ready
while :; do
	got=$(timeout 5 xclip -o -selection clipboard 2>/dev/null)
	if [ "$got" = "from the viewer ü" ]; then echo "the guest got $got" | timeout 60 xclip -i -selection clipboard >/dev/null 2>&1; fi
	sleep 0.2
done`
	cmd := command("desktop", "exec", name, loop)
	cmd.Env = append(cmd.Env, "LUMINA_FORMAT=text")
	started(t, "ready", cmd)
	defer func() {
		_ = cmd.Process.Signal(syscall.SIGINT)
		_ = waitCode(t, cmd)
	}()
	d, err := desktop.Open(home, name)
	if err != nil {
		t.Fatal(err)
	}
	// What is offered before spice-vdagent is there is not told to it later.
	var got string
	for end := time.Now().Add(3 * time.Minute); got != "the guest got from the viewer ü\n"; {
		if time.Now().After(end) {
			t.Fatalf("what the session copied is %q, %v", got, err)
		}
		screen, viewErr := d.Viewer(t.Context())
		if viewErr != nil {
			t.Fatal(viewErr)
		}
		if err := screen.SetDeadline(time.Now().Add(15 * time.Second)); err != nil {
			t.Fatal(err)
		}
		got, err = clipboard(screen, "from the viewer ü")
		screen.Close()
	}
}
