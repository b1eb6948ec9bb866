// Package github publishes files as a GitHub release and fetches them from
// one, over connections that break and servers that are busy.
package github

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"sync/atomic"
	"time"

	gh "github.com/google/go-github/v84/github"

	"github.com/abdul-abdi/lumina/runtime/pace"
	"github.com/abdul-abdi/lumina/runtime/printable"
)

// Options configures a Client. Zero values mean the defaults.
type Options struct {
	// BaseURL is the address of a GitHub Enterprise server; GitHub's own when empty.
	BaseURL string
	// Token authenticates; without one, public repositories can be read.
	Token string
	// MaxWait is how long the server may make the client wait before one
	// request; a minute when 0.
	MaxWait time.Duration
	// Backoff is the first pause before a failed request is made again, which
	// doubles each time; half a second when 0.
	Backoff time.Duration
	// Idle is how long a connection may bring nothing; a minute when 0.
	Idle time.Duration
}

// Client talks to one server. It honours HTTP_PROXY, HTTPS_PROXY and NO_PROXY.
type Client struct {
	api     *gh.Client
	web     *url.URL // of the pages
	http    *http.Client
	options Options
	// reached: the server has answered once. What cannot be reached at all is
	// not tried again.
	reached atomic.Bool
}

const (
	attempts  = 5
	maxAnswer = 32 << 20 // bytes of an answer of the API
	maxPages  = 100      // of a list
	progress  = 1 << 20  // bytes that make a failed download worth as many attempts again
	userAgent = "lumina"
)

// New makes a client.
func New(o Options) (*Client, error) {
	if o.MaxWait == 0 {
		o.MaxWait = time.Minute
	}
	if o.Backoff == 0 {
		o.Backoff = 500 * time.Millisecond
	}
	if o.Idle == 0 {
		o.Idle = time.Minute
	}
	transport := &http.Transport{
		Proxy:                 http.ProxyFromEnvironment,
		DialContext:           (&net.Dialer{Timeout: 10 * time.Second}).DialContext,
		ForceAttemptHTTP2:     true,
		TLSHandshakeTimeout:   10 * time.Second,
		ResponseHeaderTimeout: 5 * time.Minute, // GitHub thinks about large uploads
		IdleConnTimeout:       time.Minute,
	}
	c := &Client{options: o, web: &url.URL{Scheme: "https", Host: "github.com"}}
	c.http = &http.Client{Transport: transport, CheckRedirect: c.checkRedirect}
	c.api = gh.NewClient(&http.Client{Transport: &authorizing{c, transport}, CheckRedirect: c.checkRedirect})
	c.api.UserAgent = userAgent
	if o.BaseURL != "" {
		u, err := url.Parse(o.BaseURL)
		if err != nil || u.Scheme != "https" && u.Scheme != "http" || u.Host == "" || u.User != nil || u.RawQuery != "" || u.Fragment != "" {
			return nil, fmt.Errorf("base URL %q: want https://HOST, of a GitHub Enterprise server", o.BaseURL)
		}
		if u.Scheme == "http" && o.Token != "" && !isLoopback(u.Hostname()) {
			return nil, fmt.Errorf("base URL %q: the token would go there unencrypted: use https, or unset GITHUB_TOKEN", o.BaseURL)
		}
		if c.api, err = c.api.WithEnterpriseURLs(o.BaseURL, o.BaseURL); err != nil {
			return nil, fmt.Errorf("base URL %q: %w", o.BaseURL, err)
		}
		c.web = u
	}
	return c, nil
}

func isLoopback(host string) bool {
	ip := net.ParseIP(host)
	return host == "localhost" || ip != nil && ip.IsLoopback()
}

// authorizing gives the token to the server it is for, and to no other that a
// redirect may lead to.
type authorizing struct {
	c    *Client
	next http.RoundTripper
}

func (a *authorizing) RoundTrip(req *http.Request) (*http.Response, error) {
	if a.c.options.Token != "" && a.c.isServer(req.URL) {
		req = req.Clone(req.Context())
		req.Header.Set("Authorization", "Bearer "+a.c.options.Token)
	}
	resp, err := a.next.RoundTrip(req)
	if err == nil {
		resp.Body = http.MaxBytesReader(nil, resp.Body, maxAnswer)
	}
	return resp, err
}

// isServer says whether a URL is of the API.
func (c *Client) isServer(u *url.URL) bool {
	for _, ours := range []*url.URL{c.api.BaseURL, c.api.UploadURL} {
		if u.Scheme == ours.Scheme && u.Host == ours.Host {
			return true
		}
	}
	return false
}

func (c *Client) checkRedirect(req *http.Request, via []*http.Request) error {
	if len(via) >= 10 {
		return fmt.Errorf("%w: the server redirects without end", ErrRefused)
	}
	if req.URL.Host != via[0].URL.Host {
		req.Header.Del("Authorization") // another port is another server
	}
	return c.checkURL(req.URL)
}

// checkURL refuses what would leave encryption behind.
func (c *Client) checkURL(u *url.URL) error {
	if u.Scheme == "https" || u.Scheme == "http" && c.api.BaseURL.Scheme == "http" {
		return nil
	}
	return fmt.Errorf("%w: the server leads to %s://%s, which is not https", ErrRefused, u.Scheme, u.Host)
}

// Repo names a repository.
type Repo struct{ Owner, Name string }

func (r Repo) String() string { return r.Owner + "/" + r.Name }

// ParseRepo reads OWNER/REPO.
func ParseRepo(s string) (Repo, error) {
	owner, name, ok := strings.Cut(s, "/")
	if !ok || !isPart(owner) || !isPart(name) {
		return Repo{}, fmt.Errorf("repository %q: want OWNER/REPO", s)
	}
	return Repo{owner, name}, nil
}

func isPart(s string) bool {
	return s != "" && len(s) <= 100 && strings.Trim(s, ".") != "" && !strings.ContainsFunc(s, func(c rune) bool {
		return !(c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z' || c >= '0' && c <= '9' || c == '.' || c == '_' || c == '-')
	})
}

// ErrNotFound is wrapped when there is no such release, or none that can be seen.
var ErrNotFound = errors.New("not found")

// statusError is an answer that is an error, of a server that is not the API.
type statusError struct {
	status string
	code   int
	header http.Header
}

func (e *statusError) Error() string { return "the server answers " + e.status }

// retry calls do until it succeeds, fails for good or has failed too often.
func (c *Client) retry(ctx context.Context, do func() error) error {
	for attempt := 1; ; attempt++ {
		err := do()
		if err == nil {
			c.reached.Store(true)
			return nil
		}
		if err = c.pause(ctx, err, attempt); err != nil {
			return err
		}
	}
}

// pause waits before another attempt, or returns why there is none.
func (c *Client) pause(ctx context.Context, err error, attempt int) error {
	if cause := context.Cause(ctx); cause != nil {
		return cause
	}
	if _, code := headerOf(err); code != 0 {
		c.reached.Store(true)
	}
	wait, again := c.verdict(err)
	if !again {
		return err
	}
	if wait > c.options.MaxWait {
		return fmt.Errorf("the server allows no request before %s (%w); try again then, or set GITHUB_TOKEN", time.Now().Add(wait).Format(time.DateTime), err)
	}
	if attempt >= attempts {
		return &exhausted{attempt, err}
	}
	if wait < 0 {
		// Doubling, and not at the same moment as everybody else.
		wait = min(c.options.Backoff<<(attempt-1), c.options.MaxWait)
		wait = wait/2 + rand.N(wait/2+1)
	}
	return pace.Wait(ctx, wait)
}

// verdict says whether a failed request may succeed when it is made again, and
// how long the server wants to be left alone; negative when it does not say.
func (c *Client) verdict(err error) (wait time.Duration, again bool) {
	var limit *gh.RateLimitError
	var abuse *gh.AbuseRateLimitError
	switch {
	case errors.As(err, &limit):
		return max(time.Until(limit.Rate.Reset.Time), 0), true
	case errors.As(err, &abuse) && abuse.RetryAfter != nil:
		return max(*abuse.RetryAfter, 0), true
	case errors.As(err, &abuse):
		return -1, true
	}
	header, code := headerOf(err)
	switch {
	case code >= 500 || code == http.StatusTooManyRequests || code == http.StatusRequestTimeout:
		return retryAfter(header), true
	case code == http.StatusForbidden && header.Get("Retry-After") != "":
		return retryAfter(header), true
	case code != 0:
		return 0, false
	}
	var certificate *tls.CertificateVerificationError
	var large *http.MaxBytesError
	if errors.Is(err, ErrRefused) || errors.As(err, &certificate) || errors.As(err, &large) {
		return 0, false
	}
	var dial *net.OpError
	var dns *net.DNSError
	if errors.As(err, &dns) || errors.As(err, &dial) && dial.Op != "read" && dial.Op != "write" {
		return -1, c.reached.Load()
	}
	var network *url.Error
	return -1, errors.As(err, &network) || errors.Is(err, errBroken)
}

// ErrRefused is wrapped when what a server sends or asks for is not acceptable.
var ErrRefused = errors.New("refused")

// errBroken is wrapped when a transfer ended before its end.
var errBroken = errors.New("the connection broke")

// exhausted is a request that failed too often.
type exhausted struct {
	times int
	err   error // of the last time
}

func (e *exhausted) Error() string { return fmt.Sprintf("failed %d times: %v", e.times, e.err) }
func (e *exhausted) Unwrap() error { return e.err }

// headerOf returns the answer that err is about; code 0 when there was none.
func headerOf(err error) (http.Header, int) {
	var api *gh.ErrorResponse
	var status *statusError
	switch {
	case errors.As(err, &api) && api.Response != nil:
		return api.Response.Header, api.Response.StatusCode
	case errors.As(err, &status):
		return status.header, status.code
	}
	return nil, 0
}

// retryAfter reads the header of that name: seconds, or a time.
func retryAfter(h http.Header) time.Duration {
	v := h.Get("Retry-After")
	if s, err := strconv.ParseInt(v, 10, 32); err == nil {
		return max(time.Duration(s)*time.Second, 0)
	}
	if t, err := http.ParseTime(v); err == nil {
		return max(time.Until(t), 0)
	}
	return -1
}

// explain puts what GitHub says about a request into one line.
func explain(err error, what string) error {
	var api *gh.ErrorResponse
	var status *statusError
	if errors.As(err, &status) && status.code == http.StatusNotFound {
		return fmt.Errorf("%s: %w", what, ErrNotFound)
	}
	if !errors.As(err, &api) || api.Response == nil {
		return fmt.Errorf("%s: %w", what, printable.Error(err))
	}
	var often *exhausted
	if errors.As(err, &often) {
		what += fmt.Sprintf(": failed %d times", often.times)
	}
	code := api.Response.StatusCode
	switch code {
	case http.StatusNotFound:
		return fmt.Errorf("%s: %w", what, ErrNotFound)
	case http.StatusUnauthorized:
		return fmt.Errorf("%s: the token is refused; set GITHUB_TOKEN to a valid one", what)
	case http.StatusForbidden:
		return fmt.Errorf("%s: not allowed: %.200q; GITHUB_TOKEN needs the permission contents: write to publish, contents: read to pull", what, api.Message)
	}
	detail := api.Message
	for _, e := range api.Errors {
		detail += fmt.Sprintf("; %s %s %s %s", e.Resource, e.Field, e.Code, e.Message)
	}
	return fmt.Errorf("%s: the server answers %d: %.200q", what, code, detail)
}

// drain reads the rest of a short answer, so that its connection serves again.
func drain(body io.ReadCloser) {
	_, _ = io.CopyN(io.Discard, body, 64<<10)
	body.Close()
}
