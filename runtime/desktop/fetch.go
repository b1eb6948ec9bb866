package desktop

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"os"
	"path"
	"path/filepath"
	"strings"
	"time"

	"github.com/abdul-abdi/lumina/runtime"
	"github.com/abdul-abdi/lumina/runtime/durable"
	"github.com/abdul-abdi/lumina/runtime/flock"
	"github.com/abdul-abdi/lumina/runtime/pace"
	"github.com/abdul-abdi/lumina/runtime/redirects"
	"github.com/abdul-abdi/lumina/runtime/statefile"
)

// fetcher fetches a large file, and goes on where an earlier try ended.
type fetcher struct {
	client   *http.Client
	idle     time.Duration // in place of fetchIdle
	pause    time.Duration // after a first try that failed; doubled after others
	progress func(done, total int64)
}

// fetchIdle is how long a connection may bring nothing or too little; see package pace.
const fetchIdle = time.Minute

// fetchTries is how many times in a row a try may bring nothing.
const fetchTries = 5

// fetch returns the name of the file of an address, in dir. What has come of it is
// in a file of the same name with ".part", and beside it the server's tag of it.
func (f *fetcher) fetch(ctx context.Context, address, dir string) (string, error) {
	u, err := url.Parse(address)
	if err != nil || u.Scheme != "https" {
		return "", fmt.Errorf("fetching %q: want an https address", address)
	}
	if err := durable.MkdirAll(dir, 0o700); err != nil {
		return "", fmt.Errorf("fetching %s: %w", address, err)
	}
	confined, err := f.confined(u)
	if err != nil {
		return "", fmt.Errorf("fetching %s: %w", address, err)
	}
	defer confined.client.CloseIdleConnections()
	sum := sha256.Sum256([]byte(address))
	name := filepath.Join(dir, hex.EncodeToString(sum[:4])+"-"+path.Base("/"+u.Path))
	// When it was used last is known by its time.
	now := time.Now()
	if err := os.Chtimes(name, now, now); err == nil {
		return name, nil
	}
	part, err := statefile.Create(name + ".part")
	if err != nil {
		return "", fmt.Errorf("fetching %s: %w", address, err)
	}
	defer part.Close()
	busy, err := flock.TryExclusive(part)
	if err == nil && busy {
		err = errors.New("another lumina process is already downloading it")
	}
	if err == nil {
		err = confined.all(ctx, address, part)
	}
	if err == nil {
		err = durable.Move(part.Name(), name)
	}
	if err != nil {
		return "", fmt.Errorf("fetching %s: %w", address, err)
	}
	os.Remove(tagFile(part)) // of no use any more
	return name, nil
}

// confined is a fetcher whose server sends it to other https servers only, and to none of
// this host.
func (f *fetcher) confined(server *url.URL) (*fetcher, error) {
	next := f.client.Transport
	if next == nil {
		next = http.DefaultTransport
	}
	t, ok := next.(*http.Transport)
	if !ok {
		return nil, fmt.Errorf("its connections are made by a %T", next)
	}
	c := *f
	if c.idle == 0 {
		c.idle = fetchIdle
	}
	t = t.Clone()
	t.ResponseHeaderTimeout = c.idle
	redirects.Confine(t, server)
	c.client = &http.Client{Transport: t, CheckRedirect: func(to *http.Request, via []*http.Request) error {
		if to.URL.Scheme != "https" {
			return fmt.Errorf("the server sends us to %q, which is not https", to.URL.Redacted())
		}
		if len(via) >= maxRedirects {
			return fmt.Errorf("the server sends us on %d times", len(via))
		}
		return nil
	}}
	return &c, nil
}

const maxRedirects = 10

// maxTag is how long a server's tag of a file may be, in bytes.
const maxTag = 1 << 10

func tagFile(part *os.File) string { return part.Name() + ".tag" }

// all fetches what is missing, as often as the connection breaks.
func (f *fetcher) all(ctx context.Context, address string, part *os.File) error {
	pause := f.pause
	for try := 1; ; try++ {
		before, err := part.Seek(0, io.SeekEnd)
		if err != nil {
			return err
		}
		again, err := f.once(ctx, address, part)
		if err == nil || ctx.Err() != nil {
			return errors.Join(err, context.Cause(ctx))
		}
		after, seekErr := part.Seek(0, io.SeekEnd)
		if seekErr != nil {
			return seekErr
		}
		if after-before >= pace.Least { // who breaks off after each byte brings nothing
			try, pause = 0, f.pause
		}
		if !again || try >= fetchTries {
			return err
		}
		if err := pace.Wait(ctx, pause); err != nil {
			return err
		}
		pause *= 2
	}
}

// once fetches what is missing, as far as it comes; again says whether another try
// may bring more.
func (f *fetcher) once(ctx context.Context, address string, part *os.File) (again bool, err error) {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, address, nil)
	if err != nil {
		return false, err
	}
	done, err := part.Seek(0, io.SeekEnd)
	if err != nil {
		return false, err
	}
	// Only what is certainly of the same file is gone on with.
	if tag, err := statefile.Read(tagFile(part), maxTag); err == nil && done > 0 {
		req.Header.Set("Range", fmt.Sprintf("bytes=%d-", done))
		req.Header.Set("If-Range", string(tag))
	}
	resp, err := f.client.Do(req)
	if err != nil {
		return true, err
	}
	defer resp.Body.Close()
	var total int64
	switch resp.StatusCode {
	case http.StatusPartialContent:
		var from, to int64
		if n, _ := fmt.Sscanf(resp.Header.Get("Content-Range"), "bytes %d-%d/%d", &from, &to, &total); n != 3 || from != done {
			return false, fmt.Errorf("the server sends the range %.80q, asked for was %d-", resp.Header.Get("Content-Range"), done)
		}
	case http.StatusOK:
		done, total = 0, resp.ContentLength
		if err := f.restart(part, resp.Header.Get("ETag")); err != nil {
			return false, err
		}
	case http.StatusRequestedRangeNotSatisfiable:
		// What is there is longer than the file, or all of it: not known which.
		return true, errors.Join(errors.New(resp.Status), f.restart(part, ""))
	default:
		return resp.StatusCode >= 500 || resp.StatusCode == http.StatusTooManyRequests, errors.New(resp.Status)
	}
	if total < 0 {
		return false, errors.New("the server does not say how large the file is")
	}
	if free, err := runtime.FreeSpace(filepath.Dir(part.Name())); err == nil && total-done > free-runtime.DefaultDiskReserve {
		return false, fmt.Errorf("there is no room for it: %d of its %d bytes are missing, and %d are free", total-done, total, max(free-runtime.DefaultDiskReserve, 0))
	}
	body := pace.NewReader(io.LimitReader(resp.Body, total-done), f.idle, func(slow error) { cancel(slow) })
	n, err := io.Copy(part, &pace.Counter{R: body, Done: done, Report: func(done int64) { f.progress(done, total) }})
	if err == nil && done+n < total {
		err = io.ErrUnexpectedEOF
	}
	if ctx.Err() != nil {
		err = context.Cause(ctx)
	}
	if err != nil {
		return true, fmt.Errorf("after %d of %d bytes: %w", done+n, total, err)
	}
	return false, nil
}

// restart forgets what has come, and keeps the tag of what will.
func (f *fetcher) restart(part *os.File, tag string) error {
	if err := part.Truncate(0); err != nil {
		return err
	}
	if _, err := part.Seek(0, io.SeekStart); err != nil {
		return err
	}
	// A weak tag says nothing of bytes (RFC 9110, section 13.1.5).
	if tag == "" || strings.HasPrefix(tag, "W/") || len(tag) > maxTag {
		if err := os.Remove(tagFile(part)); !errors.Is(err, os.ErrNotExist) {
			return err
		}
		return nil
	}
	return statefile.Replace(tagFile(part), []byte(tag))
}
