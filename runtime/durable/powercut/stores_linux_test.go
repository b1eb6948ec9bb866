package powercut_test

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"

	"github.com/abdul-abdi/lumina/builder/oci"
	"github.com/abdul-abdi/lumina/release/releasetest"
	"github.com/abdul-abdi/lumina/runtime/desktop"
	"github.com/abdul-abdi/lumina/runtime/durable"
	"github.com/abdul-abdi/lumina/runtime/durable/powercut"
	"github.com/abdul-abdi/lumina/runtime/image"
	"github.com/abdul-abdi/lumina/runtime/template"
	"github.com/abdul-abdi/lumina/runtime/vm"
	"github.com/abdul-abdi/lumina/runtime/volume"
)

// promise is something that a call said is there, and how long the log was then.
type promise struct {
	what  string
	size  int64
	check func(home string) error
}

// Whatever a store holds after a power cut is whole, at any moment; and what its
// caller was told is there is there. LUMINA_POWERCUT is the number of moments,
// 200 in the nightly tests.
func TestStoresAfterPowerCuts(t *testing.T) {
	moments := 40
	if s := os.Getenv("LUMINA_POWERCUT"); s != "" {
		var err error
		if moments, err = strconv.Atoi(s); err != nil {
			t.Fatal(err)
		}
	}
	disk := powercut.Record(t, 96<<20)
	promises := fillStores(t, disk)
	log, before := disk.Stop(t)
	defer log.Close()
	defer before.Close()
	t.Logf("%d entries in the log, %d moments", log.Len(), moments)

	dice := rand.New(rand.NewPCG(16, 17))
	replay := log.Replay(before)
	cuts, dir := t.TempDir(), t.TempDir()
	for n := range moments {
		moment := (n + 1) * log.Len() / moments
		// A file of its own: the last one may still be a loop device's.
		name := filepath.Join(cuts, strconv.Itoa(n))
		cut, err := os.Create(name)
		if err != nil {
			t.Fatal(err)
		}
		if err := errors.Join(replay.Cut(moment, cut, dice), cut.Close()); err != nil {
			t.Fatal(err)
		}
		fail := func(what string, err error) {
			if err != nil {
				t.Errorf("power cut %d of %d, behind entry %d: %s: %v", n+1, moments, moment, what, err)
			}
		}
		fail("the file system", powercut.Mount(name, dir, func() {
			home := filepath.Join(dir, "home")
			for _, p := range promises {
				if log.At(p.size) <= moment {
					fail("promised "+p.what, p.check(home))
				}
			}
			for what, check := range map[string]func(string) error{"images": checkImages, "volumes": checkVolumes, "templates": checkTemplates,
				"layers": checkLayers, "descriptions": checkDescriptions, "desktops": checkDesktops} {
				fail(what, check(home))
			}
		}))
		if err := os.Remove(name); err != nil {
			t.Error(err)
		}
		if t.Failed() {
			return
		}
	}
}

// fillStores does what fills and changes each store, a few times.
func fillStores(t *testing.T, disk *powercut.Recorded) (promises []promise) {
	home := filepath.Join(disk.Dir, "home")
	promised := func(what string, check func(home string) error) {
		promises = append(promises, promise{what, disk.Size(t), check})
	}
	// Another program that syncs commits the journal at all moments.
	noise, done := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(done)
		f, err := os.Create(filepath.Join(disk.Dir, "noise"))
		for err == nil {
			select {
			case <-noise:
				f.Close()
				return
			default:
			}
			if _, err = f.WriteString("x"); err == nil {
				err = f.Sync()
			}
		}
		t.Error(err)
	}()
	images, volumes, templates, desktops := image.NewStore(filepath.Join(home, "images")), volume.NewStore(filepath.Join(home, "volumes")), template.NewStore(filepath.Join(home, "templates")), desktop.NewStore(home)
	must := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	for n := range 4 {
		releasetest.Install(t, images, "changes", "amd64", map[string]string{"version": strings.Repeat(strconv.Itoa(n), 300_000)})
		promised("image that took another's place", func(home string) error {
			return openImage(home, "changes")
		})
		one := fmt.Sprintf("image-%d", n)
		releasetest.Install(t, images, one, "amd64", map[string]string{"version": one})
		promised(one, func(home string) error { return openImage(home, one) })

		name := fmt.Sprintf("volume-%d", n)
		must(volumes.Create(name, 32<<20))
		promised(name, func(home string) error {
			_, err := volume.NewStore(filepath.Join(home, "volumes")).Inspect(name)
			return err
		})
		must(templates.Make(t.Context(), fmt.Sprintf("key-%d", n), func(f *template.Files) error {
			for _, file := range []*os.File{f.Memory, f.State, f.Scratch} {
				if _, err := file.Write(releasetest.Noise(200_000, 7)); err != nil {
					return err
				}
			}
			return nil
		}))
		layer, err := oci.AddLayer(filepath.Join(home, "cache"), func(w io.Writer) error {
			_, err := w.Write(releasetest.Noise(300_000, uint64(n)))
			return err
		})
		must(err)
		promised("layer", func(home string) error {
			_, err := oci.CachedLayer(context.Background(), filepath.Join(home, "cache"), layer)
			return err
		})
		m, err := desktops.Create(t.Context(), variables{}, desktop.Manifest{Name: fmt.Sprintf("desktop-%d", n), Architecture: "amd64", DiskSize: 1 << 20}, "")
		must(err)
		promised("desktop", func(home string) error { _, err := desktop.NewStore(home).Find(m.ID); return err })
		// A description such as a session's, or a catalogue's: for the first time,
		// and once more.
		dir := filepath.Join(home, "descriptions")
		must(durable.MkdirAll(dir, 0o700))
		for k := range 5 {
			b, err := json.Marshal(map[string]string{"text": strings.Repeat("x", 100*(k+1)), "end": "yes"})
			must(err)
			must(durable.Replace(filepath.Join(dir, strconv.Itoa(n*3+k)), b, 0o600))
		}
		if n > 1 {
			must(images.Remove(fmt.Sprintf("image-%d", n-2)))
			// What is removed may come back, but whole: it is promised no more.
			for k := range promises {
				if promises[k].what == fmt.Sprintf("image-%d", n-2) {
					promises[k].check = func(string) error { return nil }
				}
			}
			must(templates.Remove(fmt.Sprintf("key-%d", n-2)))
		}
	}
	close(noise)
	<-done
	return promises
}

func openImage(home, name string) error {
	h, err := image.NewStore(filepath.Join(home, "images")).Open(name)
	if err != nil {
		return err
	}
	return errors.Join(h.Verify(context.Background()), h.Close())
}

func checkImages(home string) error {
	names, err := image.NewStore(filepath.Join(home, "images")).List()
	for _, name := range names {
		err = errors.Join(err, openImage(home, name))
	}
	return err
}

func checkVolumes(home string) error {
	dir := filepath.Join(home, "volumes")
	names, err := volume.NewStore(dir).List()
	for _, name := range names {
		if out, fsckErr := exec.Command("e2fsck", "-fn", filepath.Join(dir, name+".img")).CombinedOutput(); fsckErr != nil {
			err = errors.Join(err, fmt.Errorf("%s: %w: %s", name, fsckErr, out))
		}
	}
	return err
}

func checkTemplates(home string) (err error) {
	store := template.NewStore(filepath.Join(home, "templates"))
	for n := range 4 {
		key := fmt.Sprintf("key-%d", n)
		files, openErr := store.Open(key)
		if openErr == template.ErrNone { //nolint:errorlint // the bare one: there is none, and none was damaged
			continue
		}
		if openErr != nil {
			err = errors.Join(err, openErr)
			continue
		}
		for _, f := range []*os.File{files.Memory, files.State, files.Scratch} {
			if b, readErr := io.ReadAll(f); readErr != nil || !bytes.Equal(b, releasetest.Noise(200_000, 7)) {
				err = errors.Join(err, readErr, fmt.Errorf("%s is not what was written", f.Name()))
			}
		}
		files.Close()
	}
	return err
}

func checkLayers(home string) (err error) {
	files, _ := filepath.Glob(filepath.Join(home, "cache/blobs/sha256/*"))
	for _, f := range files {
		if strings.HasPrefix(filepath.Base(f), "fetch-") {
			continue
		}
		b, readErr := os.ReadFile(f)
		if sum := sha256.Sum256(b); readErr != nil || hex.EncodeToString(sum[:]) != filepath.Base(f) {
			err = errors.Join(err, readErr, fmt.Errorf("layer %s has %d bytes, and others than it should", filepath.Base(f), len(b)))
		}
	}
	return err
}

func checkDescriptions(home string) (err error) {
	files, _ := filepath.Glob(filepath.Join(home, "descriptions/[0-9]*")) // not what was cut off before it got its name
	for _, f := range files {
		b, readErr := os.ReadFile(f)
		var whole struct{ Text, End string }
		if readErr == nil {
			readErr = json.Unmarshal(b, &whole)
		}
		if readErr != nil || whole.End != "yes" {
			err = errors.Join(err, fmt.Errorf("%s: %q: %w", f, b, readErr))
		}
	}
	return err
}

func checkDesktops(home string) error {
	store := desktop.NewStore(home)
	all, err := store.List()
	damaged, damagedErr := store.Damaged()
	err = errors.Join(err, damagedErr)
	for _, d := range damaged {
		err = errors.Join(err, d)
	}
	for _, m := range all {
		b, readErr := os.ReadFile(filepath.Join(home, "desktop-vms", m.ID, "efi.vars"))
		if readErr != nil || string(b) != content {
			err = errors.Join(err, fmt.Errorf("desktop %s: its firmware's variables are %q, %w", m.Name, b, readErr))
		}
	}
	return err
}

// variables is a driver's part in making a desktop.
type variables struct{ vm.DesktopDriver }

const content = "the firmware's variables"

func (variables) WriteVariables(_ string, _ bool, w *os.File) error {
	_, err := w.WriteString(content)
	return err
}
