package oci

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"net/http"
	"regexp"
	"sync"
	"time"

	"github.com/google/go-containerregistry/pkg/name"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/remote"

	"github.com/abdul-abdi/lumina/runtime/pace"
)

// remoteOptions are those of every exchange with a registry that go-containerregistry
// makes. Its own connections would follow a registry to anywhere.
func remoteOptions(ctx context.Context, registry name.Registry, progress func(done, total int64)) []remote.Option {
	options := []remote.Option{remote.WithContext(ctx), remote.WithAuthFromKeychain(logins{}), remote.WithTransport(paced{newPool(registry, commitTimeout), idleTimeout, answerTimeout, manifestTimeout})}
	if progress != nil {
		updates := make(chan v1.Update, 16)
		go func() {
			for u := range updates {
				progress(u.Complete, u.Total)
			}
		}()
		options = append(options, remote.WithProgress(updates))
	}
	return options
}

// paced ends an exchange with a server that takes nothing of a request for so long,
// or sends too little of its answer (package pace). An answer that is no blob is read
// into memory: it has to end within patience, and with maxManifest bytes.
type paced struct {
	next     http.RoundTripper
	idle     time.Duration
	answer   time.Duration // that one may take to a request that sends nothing
	patience time.Duration
}

func (p paced) RoundTrip(req *http.Request) (*http.Response, error) {
	ctx, cancel := context.WithCancelCause(req.Context())
	if req.Method == http.MethodGet || req.Method == http.MethodHead {
		silent := time.AfterFunc(p.answer, func() { cancel(fmt.Errorf("the registry has not answered for %v", p.answer)) })
		defer silent.Stop()
	}
	req = req.WithContext(ctx)
	if req.Body != nil && req.Body != http.NoBody {
		sent := watch(req.Body, p.idle, cancel)
		defer sent.answered()
		req.Body = sent
	}
	resp, err := p.next.RoundTrip(req)
	if err != nil {
		err = orCause(ctx, err)
		cancel(nil)
		return nil, err
	}
	a := &answer{Reader: pace.NewReader(resp.Body, p.idle, func(slow error) { cancel(slow) }), body: resp.Body, ctx: ctx, cancel: cancel}
	if !asksForBlob(req) {
		a.small = time.AfterFunc(p.patience, func() { cancel(fmt.Errorf("the registry's answer has not come for %v", p.patience)) })
	}
	resp.Body = a
	return resp, nil
}

var blobPath = regexp.MustCompile(`^/v2/.+/blobs/[a-z0-9]+:[0-9a-f]+$`)

// asksForBlob says whether a request, or the one that was redirected to it, is for a
// blob. One for a token has a query, whatever path the registry gave it.
func asksForBlob(req *http.Request) bool {
	for req.Response != nil && req.Response.Request != nil {
		req = req.Response.Request
	}
	return req.Method == http.MethodGet && req.URL.RawQuery == "" && blobPath.MatchString(req.URL.Path)
}

// answer is the body of a response.
type answer struct {
	io.Reader
	body         io.Closer
	ctx          context.Context
	cancel       context.CancelCauseFunc
	small        *time.Timer // ends one that is no blob; else nil
	came, fields int
}

func (a *answer) Read(b []byte) (int, error) {
	n, err := a.Reader.Read(b)
	if a.small != nil {
		a.came, a.fields = a.came+n, a.fields+bytes.Count(b[:n], []byte(","))
		if tooMuch := checkSmall("the registry's answer", a.came, a.fields); tooMuch != nil {
			return n, tooMuch
		}
	}
	if err != nil && err != io.EOF {
		err = orCause(a.ctx, err)
	}
	return n, err
}

func (a *answer) Close() error {
	err := a.body.Close()
	if a.small != nil {
		a.small.Stop()
	}
	a.cancel(nil)
	return err
}

// watched is the body of a request, of which a part has to be taken in each period.
type watched struct {
	io.ReadCloser
	period time.Duration

	mu    sync.Mutex
	timer *time.Timer
	done  bool
}

func watch(body io.ReadCloser, period time.Duration, cancel context.CancelCauseFunc) *watched {
	stuck := func() { cancel(fmt.Errorf("the registry has taken nothing for %v", period)) }
	return &watched{ReadCloser: body, period: period, timer: time.AfterFunc(period, stuck)}
}

func (w *watched) Read(b []byte) (int, error) {
	w.mu.Lock()
	w.timer.Stop() // reading may take as long as it likes
	w.mu.Unlock()
	n, err := w.ReadCloser.Read(b)
	w.mu.Lock()
	defer w.mu.Unlock()
	if err != nil {
		w.done = true // then it is the answer that is waited for
	}
	if !w.done {
		w.timer.Reset(w.period)
	}
	return n, err
}

// answered ends the watch.
func (w *watched) answered() {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.done = true
	w.timer.Stop()
}
