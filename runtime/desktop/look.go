package desktop

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"path"
	"path/filepath"
	"strings"
	"time"

	"github.com/abdul-abdi/lumina/runtime/desktop/iso"
)

// Looked is what can be seen of a file without reading all of it.
type Looked struct {
	OS           OS     // of the catalogue, by the file's name; the zero value for none
	Disk         bool   // the image of a disk rather than an ISO
	Architecture string // for what it boots; "" when it boots nothing that is known
}

// Look looks at a file of which a desktop of an architecture is to be made. The error
// says why it cannot be.
func Look(_ context.Context, file, arch string) (l Looked, err error) {
	l.OS, _ = osOfFile(file)
	f, err := iso.Open(file)
	if err != nil {
		return l, err
	}
	defer f.Close()
	boots := func(image interface{ Boots(string) error }) error {
		for _, a := range []string{arch, "amd64", "arm64"} {
			if image.Boots(a) == nil {
				l.Architecture = a
				break
			}
		}
		return image.Boots(arch)
	}
	if strings.EqualFold(filepath.Ext(file), ".iso") {
		image, err := iso.ReadFile(f)
		if err != nil {
			return l, fmt.Errorf("installation ISO %q: %w", filepath.Base(file), err)
		}
		if err := boots(image); err != nil {
			return l, fmt.Errorf("installation ISO %q: %w", filepath.Base(file), err)
		}
		return l, nil
	}
	l.Disk = true
	disk, err := openDisk(f)
	if err == nil {
		image, readErr := iso.ReadDisk(disk, disk.Size())
		if err = readErr; err == nil {
			err = boots(image)
		}
	}
	if err != nil {
		return l, fmt.Errorf("disk %q: %w", filepath.Base(file), err)
	}
	return l, nil
}

// ISOCache is the directory of a state directory that keeps ISOs.
func ISOCache(home string) string { return filepath.Join(home, "cache", "iso") }

// Fetchable says whether the ISO can be fetched: its vendor may have it behind a page.
func (o OS) Fetchable() bool { return path.Ext(o.URL) == ".iso" }

var errNotFetchable = errors.New("its vendor offers it only on a web page")

// Fetch fetches the ISO, unless it was fetched before, and returns the name of its
// file. What came of an earlier try is gone on with. Its digest is looked at when a
// desktop is made of it, see [Request.Examine].
func (o OS) Fetch(ctx context.Context, home string, progress func(done, total int64)) (string, error) {
	return o.fetch(ctx, home, &fetcher{client: http.DefaultClient, pause: time.Second, progress: progress})
}

func (o OS) fetch(ctx context.Context, home string, f *fetcher) (string, error) {
	if !o.Fetchable() {
		return "", fmt.Errorf("fetching %s: %w: %s", o.Name, errNotFetchable, o.URL)
	}
	return f.fetch(ctx, o.URL, ISOCache(home))
}
