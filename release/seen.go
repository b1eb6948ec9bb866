package release

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/abdul-abdi/lumina/release/catalog"
	"github.com/abdul-abdi/lumina/runtime/durable"
	"github.com/abdul-abdi/lumina/runtime/flock"
	"github.com/abdul-abdi/lumina/runtime/statefile"
)

// ErrOlder is wrapped when a release is older than one of the same publisher that
// was seen: who answers for the publisher may hold back what mends a fault.
var ErrOlder = errors.New("it is older than what this publisher has issued since")

// seen is the newest catalog of a publisher.
type seen struct {
	Issued time.Time `json:"issued"`
	Tag    string    `json:"tag"`
}

// maxSeen bounds the file that remembers, in bytes.
const maxSeen = 4 << 20

// remember compares a catalog, whose signature was verified, with the newest of
// its publisher: a key, and a repository.
func (f From) remember(ctx context.Context, c *catalog.Catalog, key string) error {
	if err := durable.MkdirAll(filepath.Dir(f.Seen), 0o700); err != nil {
		return fmt.Errorf("remembering releases: %w", err)
	}
	lock, err := statefile.Create(f.Seen + ".lock")
	if err != nil {
		return fmt.Errorf("remembering releases: %w", err)
	}
	defer lock.Close()
	if err := flock.Exclusive(ctx, lock); err != nil {
		return err
	}
	all, err := readSeen(f.Seen)
	if err != nil {
		return err
	}
	publisher := f.Repo.String() + " " + key
	var newest seen
	for name, s := range all {
		// GitHub takes no notice of capitals in the names of repositories.
		if strings.EqualFold(name, publisher) && s.Issued.After(newest.Issued) {
			newest = s
		}
	}
	switch {
	case c.Issued.Before(newest.Issued) && f.AllowOlder:
		return nil
	case c.Issued.Before(newest.Issued):
		return fmt.Errorf("release %s of %s: %w, release %s of %s; to accept it, add --allow-older", c.Tag, f.Repo, ErrOlder, newest.Tag, newest.Issued.Format(time.DateOnly))
	case c.Issued.Equal(newest.Issued):
		return nil
	}
	all[publisher] = seen{Issued: c.Issued, Tag: c.Tag}
	b, err := json.MarshalIndent(all, "", "  ")
	if err == nil {
		err = durable.Replace(f.Seen, append(b, '\n'), 0o600)
	}
	if err == nil {
		err = durable.Sync(filepath.Dir(f.Seen))
	}
	if err != nil {
		return fmt.Errorf("remembering releases: %w", err)
	}
	return nil
}

func readSeen(name string) (map[string]seen, error) {
	all := map[string]seen{}
	info, err := os.Lstat(name)
	if errors.Is(err, os.ErrNotExist) {
		return all, nil
	}
	var b []byte
	if err == nil && (!info.Mode().IsRegular() || info.Size() > maxSeen) {
		err = errors.New("it is not what lumina wrote")
	}
	if err == nil {
		b, err = os.ReadFile(name)
	}
	if err == nil {
		err = json.Unmarshal(b, &all)
	}
	if err != nil {
		// To go on would be what somebody wants who damaged it.
		return nil, fmt.Errorf("reading which releases were seen from %q: %w; remove it to forget them", name, err)
	}
	if all == nil {
		all = map[string]seen{}
	}
	return all, nil
}
