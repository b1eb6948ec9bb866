package dockerfile

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"os"
	"path"
	"regexp"
	"strings"
	"sync"
	"time"

	"github.com/abdul-abdi/lumina/builder/dockerfile/files"
	"github.com/abdul-abdi/lumina/builder/oci"
	"github.com/abdul-abdi/lumina/runtime/pace"
	"github.com/abdul-abdi/lumina/runtime/printable"
)

func isURL(s string) bool {
	s = strings.ToLower(s)
	return (strings.HasPrefix(s, "http://") || strings.HasPrefix(s, "https://")) && !isGit(s)
}

var gitName = sync.OnceValue(func() *regexp.Regexp { return regexp.MustCompile(`^[\w.-]+@[\w.-]+:`) })

// isGit says whether a source is a git repository, as BuildKit does.
func isGit(s string) bool {
	s = strings.ToLower(s)
	for _, p := range []string{"git://", "ssh://", "git@", "github.com/"} {
		if strings.HasPrefix(s, p) {
			return true
		}
	}
	if strings.HasPrefix(s, "http://") || strings.HasPrefix(s, "https://") {
		before, _, _ := strings.Cut(s, "#")
		before, _, _ = strings.Cut(before, "?")
		return strings.HasSuffix(before, ".git")
	}
	return gitName().MatchString(s)
}

// IsRemote says whether what names a context is none of this host.
func IsRemote(s string) bool { return isURL(s) || isGit(s) }

// remoteTimeout bounds the wait for a server: for its answer, and for each piece of
// what it sends.
const remoteTimeout = time.Minute

// fetched is a file that ADD fetched.
type fetched struct{ files.File }

func (f fetched) remove() { os.Remove(f.Path) }

// fetch brings the file of a URL to this host. A checksum is sha256:HEX.
func (b *build) fetch(from, checksum string) (f fetched, err error) {
	u, err := url.Parse(from)
	if err != nil {
		return f, fmt.Errorf("ADD %s: %w", from, err)
	}
	want := ""
	if checksum != "" {
		var ok bool
		if want, ok = strings.CutPrefix(checksum, "sha256:"); !ok || len(want) != 64 {
			return f, fmt.Errorf("--checksum=%s: want sha256: and 64 hexadecimal digits", checksum)
		}
	}
	f.Name, f.Mode, f.ModTime = path.Base(u.Path), 0o600, time.Unix(0, 0)
	if f.Name == "." || f.Name == "/" {
		f.Name = "__unnamed__"
	}
	tmp, err := os.CreateTemp(b.place.Dir, "add-*")
	if err != nil {
		return f, err
	}
	f.Path = tmp.Name()
	defer func() {
		tmp.Close()
		if err != nil {
			f.remove()
		}
	}()
	ctx, cancel := context.WithCancelCause(b.ctx)
	defer cancel(nil)
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, from, nil)
	if err != nil {
		return f, err
	}
	if b.o.Dial == nil {
		return f, fmt.Errorf("ADD %s: this build fetches nothing", u.Redacted())
	}
	// Who wrote the Dockerfile says where this host connects to: no further than a RUN
	// could, and not through somebody else.
	transport := http.DefaultTransport.(*http.Transport).Clone()
	transport.DialContext, transport.Proxy = b.o.Dial, nil
	transport.ResponseHeaderTimeout = remoteTimeout
	defer transport.CloseIdleConnections()
	resp, err := (&http.Client{Transport: transport}).Do(req)
	if err != nil {
		return f, fmt.Errorf("ADD: %w", err)
	}
	defer resp.Body.Close()
	if resp.StatusCode != http.StatusOK {
		return f, fmt.Errorf("ADD %s: the server answered %s", u.Redacted(), printable.Line(resp.Status))
	}
	if t, err := http.ParseTime(resp.Header.Get("Last-Modified")); err == nil {
		f.ModTime = t
	}
	sum := sha256.New()
	_, err = io.Copy(oci.Limit(io.MultiWriter(tmp, sum), b.place.MaxSize()), pace.NewReader(resp.Body, b.silence, func(slow error) { cancel(slow) }))
	if cause := context.Cause(ctx); cause != nil {
		err = cause
	}
	if err != nil {
		return f, fmt.Errorf("ADD %s: %w", u.Redacted(), err)
	}
	if got := hex.EncodeToString(sum.Sum(nil)); want != "" && got != strings.ToLower(want) {
		return f, fmt.Errorf("ADD %s: it has checksum sha256:%s, --checksum says sha256:%s", u.Redacted(), got, want)
	}
	return f, nil
}
