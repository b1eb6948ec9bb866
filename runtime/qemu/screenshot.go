package qemu

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"image"
	"image/png"
	"io"
	"os"
)

// screenSet is the number of the descriptor set that a screenshot is written to;
// those of disks begin with 3.
const screenSet = 1 << 20

// maxScreen bounds a screen, in pixels.
const maxScreen = 32 << 20

// Screenshot is part of [vm.Screen]. QEMU is asked for the pixels as they are: while it
// writes them its guest waits: 24 ms for a PNG of 1280x800, 8 ms for the pixels.
func (d *desktop) Screenshot() (shot []byte, err error) {
	err = d.dump(func(r *bufio.Reader) error {
		img, err := readPPM(r)
		if err != nil {
			return err
		}
		var b bytes.Buffer
		err = (&png.Encoder{CompressionLevel: png.BestSpeed}).Encode(&b, img)
		shot = b.Bytes()
		return err
	})
	if err != nil {
		return nil, fmt.Errorf("making a screenshot: %w", err)
	}
	return shot, nil
}

// dump has QEMU write its screen, and read read it.
func (d *desktop) dump(read func(*bufio.Reader) error) error {
	file, err := os.CreateTemp("", "lumina-")
	if err != nil {
		return err
	}
	defer file.Close()
	defer os.Remove(file.Name())
	// QEMU wants a descriptor that can be written, and no more.
	out, err := os.OpenFile(file.Name(), os.O_WRONLY, 0)
	if err != nil {
		return err
	}
	defer out.Close()
	if err := d.writeScreen(out); err != nil {
		return err
	}
	return read(bufio.NewReader(file))
}

func (d *desktop) writeScreen(out *os.File) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	set := map[string]any{"fdset-id": screenSet}
	if err := d.qmp.command(out, "add-fd", set); err != nil {
		return err
	}
	err := d.qmp.command(nil, "screendump", map[string]any{"filename": fmt.Sprintf("/dev/fdset/%d", screenSet)})
	return errors.Join(err, d.qmp.command(nil, "remove-fd", set))
}

// readSize reads the head of a picture in the "portable pixmap" form (PPM, P6), as QEMU
// writes it. Its guest may have taken QEMU over.
func readSize(r *bufio.Reader) (size image.Point, err error) {
	var depth int
	head, err := r.Peek(min(64, r.Size()))
	if err != nil && !errors.Is(err, io.EOF) {
		return size, err
	}
	lines := bytes.SplitN(head, []byte("\n"), 4)
	if len(lines) < 4 || string(lines[0]) != "P6" {
		return size, fmt.Errorf("QEMU's picture begins with %.8q", head)
	}
	what := fmt.Sprintf("%s %s", lines[1], lines[2])
	if n, err := fmt.Sscanf(what, "%d %d %d", &size.X, &size.Y, &depth); n != 3 || err != nil || depth != 255 {
		return image.Point{}, fmt.Errorf("QEMU's picture is %.40q", what)
	}
	if size.X < 1 || size.Y < 1 || size.X > maxScreen || size.Y > maxScreen/size.X {
		return image.Point{}, fmt.Errorf("a screen of %dx%d pixels: at most %d are read", size.X, size.Y, maxScreen)
	}
	_, err = r.Discard(len(lines[0]) + len(lines[1]) + len(lines[2]) + 3)
	return size, err
}

// readPPM reads a picture. There is memory for what has come, not for what was said.
func readPPM(r *bufio.Reader) (*image.RGBA, error) {
	size, err := readSize(r)
	if err != nil {
		return nil, err
	}
	img := &image.RGBA{Stride: 4 * size.X, Rect: image.Rectangle{Max: size}}
	row := make([]byte, 3*size.X)
	for y := range size.Y {
		if _, err := io.ReadFull(r, row); err != nil {
			return nil, fmt.Errorf("QEMU's picture ends in row %d of %d: %w", y, size.Y, err)
		}
		for x := 0; x < len(row); x += 3 {
			img.Pix = append(img.Pix, row[x], row[x+1], row[x+2], 0xFF)
		}
	}
	return img, nil
}
