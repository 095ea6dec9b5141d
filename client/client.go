// Package client talks to a Gantry server: one method for each call of its API, and Upload and
// Download, which do all that it takes to bring a file over an unreliable line.
//
// The methods for single calls make one attempt (two when the token had to be renewed). Upload and
// Download try again by themselves, for as long as Options.RetryFor says.
package client

import (
	"bytes"
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"maps"
	"net"
	"net/http"
	"net/url"
	"os"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sync/semaphore"
	"golang.org/x/time/rate"

	"gantry/upload"
)

// Defaults of Options.
const (
	DefaultBaseURL      = "http://127.0.0.1:8080"
	DefaultParallel     = 4
	DefaultRetryFor     = 15 * time.Minute
	DefaultStallTimeout = 30 * time.Second
)

// Time limits of single calls: a server that is alive answers within them.
const (
	callTimeout     = 2 * time.Minute
	completeTimeout = 10 * time.Minute // flushes a large file to a slow disk, at the worst
)

// Options say where the server is and how to use it. The zero value of each field has a meaning.
type Options struct {
	// BaseURL is the server's address, with a path if it lives under one. "": DefaultBaseURL.
	BaseURL string
	// Token gives the bearer token. nil: none is sent.
	Token TokenSource
	// HTTPClient carries the requests. nil: one that uses HTTP/1.1, so that each lane has a
	// connection of its own (measured faster than HTTP/2 for bodies).
	HTTPClient *http.Client
	// Parallel bounds the requests with a body that run at once, over all files. 0: DefaultParallel.
	Parallel int
	// ChunkSize is a wish, in bytes; the server decides. 0: the server's default.
	ChunkSize int64
	// RetryFor is for how long Upload and Download try again without any progress.
	// 0: DefaultRetryFor; negative: they give up at the first failure.
	RetryFor time.Duration
	// StallTimeout is after how long without a byte a request is given up and made again.
	// 0: DefaultStallTimeout.
	StallTimeout time.Duration
	// Limit bounds the bytes per second of all bodies together. nil: no limit.
	Limit *rate.Limiter
	// States remembers unfinished uploads, so that another process can go on with them. nil: nothing
	// is remembered.
	States StateStore
	// UserAgent is sent with each request. "": "gantry".
	UserAgent string
	// Log gets what happens underneath, at debug level. nil: nothing is logged.
	Log *slog.Logger
}

// TokenSource returns the bearer token to use now. It is asked once, and again when the server
// refuses the token; the call is then repeated if the token is another one.
type TokenSource func(ctx context.Context) (string, error)

// StaticToken is a token that never changes. "" sends none.
func StaticToken(token string) TokenSource {
	return func(context.Context) (string, error) { return token, nil }
}

// TokenFile reads the token from a file whenever it is asked, so that it can be renewed there.
func TokenFile(path string) TokenSource {
	return func(context.Context) (string, error) {
		b, err := os.ReadFile(path)
		if err != nil {
			return "", &LocalError{Op: "read the token", Path: path, Err: err}
		}
		return strings.TrimSpace(string(b)), nil
	}
}

// Client is a connection to one server. It is safe for concurrent use.
type Client struct {
	base     *url.URL
	opt      Options
	http     *http.Client
	lanes    *semaphore.Weighted
	log      *slog.Logger
	reached  atomic.Bool // the server has answered at least once
	owned    bool        // http is ours to close
	minDelay time.Duration
	maxDelay time.Duration

	mu       sync.Mutex
	token    string
	hasToken bool
}

// New returns a client; it does not talk to the server yet.
func New(opt Options) (*Client, error) {
	base, err := url.Parse(cmp.Or(opt.BaseURL, DefaultBaseURL))
	if err != nil || base.Host == "" || base.Scheme != "http" && base.Scheme != "https" {
		return nil, &upload.Error{
			Op: "client.New", Kind: upload.Invalid, Err: err,
			Detail: fmt.Sprintf("%q is not the address of a server, like %s.", opt.BaseURL, DefaultBaseURL),
		}
	}
	base.Path = strings.TrimRight(base.Path, "/")
	opt.Parallel = max(cmp.Or(opt.Parallel, DefaultParallel), 1)
	opt.RetryFor = cmp.Or(opt.RetryFor, DefaultRetryFor)
	opt.StallTimeout = cmp.Or(opt.StallTimeout, DefaultStallTimeout)
	opt.UserAgent = cmp.Or(opt.UserAgent, "gantry")
	c := &Client{
		base: base, opt: opt, lanes: semaphore.NewWeighted(int64(opt.Parallel)), log: opt.Log,
		minDelay: 500 * time.Millisecond, maxDelay: 30 * time.Second,
	}
	if c.log == nil {
		c.log = slog.New(slog.DiscardHandler)
	}
	if opt.HTTPClient != nil {
		copied := *opt.HTTPClient
		c.http = &copied
	} else {
		c.http = &http.Client{Transport: newTransport(opt.Parallel)}
		c.owned = true
	}
	c.http.CheckRedirect = checkRedirect(c.http.CheckRedirect)
	return c, nil
}

func newTransport(parallel int) *http.Transport {
	t := http.DefaultTransport.(*http.Transport).Clone()
	t.Protocols = new(http.Protocols)
	t.Protocols.SetHTTP1(true)
	t.ForceAttemptHTTP2 = false
	t.MaxIdleConnsPerHost = parallel + 2
	t.DisableCompression = true
	t.DialContext = (&net.Dialer{Timeout: 15 * time.Second, KeepAlive: 15 * time.Second}).DialContext
	return t
}

// checkRedirect lets reads follow redirects (downloads go to presigned addresses) and nothing else:
// following one with a PUT would turn it into a GET.
func checkRedirect(next func(*http.Request, []*http.Request) error) func(*http.Request, []*http.Request) error {
	return func(r *http.Request, via []*http.Request) error {
		if m := via[0].Method; m != http.MethodGet && m != http.MethodHead {
			return http.ErrUseLastResponse
		}
		if r.URL.Host != via[0].URL.Host || r.URL.Scheme != via[0].URL.Scheme {
			r.Header.Del("Authorization") // a presigned address has its own permission, and refuses two
		}
		if next != nil {
			return next(r, via)
		}
		if len(via) >= 10 {
			return errors.New("stopped after 10 redirects")
		}
		return nil
	}
}

// Close releases idle connections. Calls that are under way are not disturbed.
func (c *Client) Close() {
	if c.owned {
		c.http.CloseIdleConnections()
	}
}

// BaseURL is the address of the server, as it was given.
func (c *Client) BaseURL() string { return c.base.String() }

// request is one call of the API.
type request struct {
	method string
	path   string // escaped, below the base address
	query  url.Values
	header http.Header
	json   any                  // sent as the body
	body   func() io.ReadCloser // sent as the body; called again when the call is repeated
	length int64                // of body
}

// send makes the call and returns the answer if its status is 2xx, and an *Error otherwise. A token
// that is refused is renewed once.
func (c *Client) send(ctx context.Context, r request) (*http.Response, error) {
	token, err := c.currentToken(ctx)
	if err != nil {
		return nil, err
	}
	resp, err := c.sendOnce(ctx, r, token)
	if !IsUnauthenticated(err) || c.opt.Token == nil {
		return resp, err
	}
	fresh, tokenErr := c.renewToken(ctx, token)
	if tokenErr != nil {
		return nil, tokenErr
	}
	if fresh == token {
		return nil, err
	}
	return c.sendOnce(ctx, r, fresh)
}

func (c *Client) currentToken(ctx context.Context) (string, error) {
	if c.opt.Token == nil {
		return "", nil
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.hasToken {
		return c.token, nil
	}
	return c.fetchToken(ctx)
}

// renewToken asks for a token unless another goroutine has done so since refused was current.
func (c *Client) renewToken(ctx context.Context, refused string) (string, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.hasToken && c.token != refused {
		return c.token, nil
	}
	return c.fetchToken(ctx)
}

func (c *Client) fetchToken(ctx context.Context) (string, error) {
	token, err := c.opt.Token(ctx)
	if err != nil {
		return "", err
	}
	c.token, c.hasToken = token, true
	return token, nil
}

func (c *Client) sendOnce(ctx context.Context, r request, token string) (*http.Response, error) {
	req, err := c.newRequest(ctx, r)
	if err != nil {
		return nil, err
	}
	if token != "" {
		req.Header.Set("Authorization", "Bearer "+token)
	}
	start := time.Now()
	resp, err := c.http.Do(req)
	if err != nil {
		if cause := context.Cause(ctx); cause != nil {
			err = cause // what ended the call, rather than "context canceled"
		}
		c.log.DebugContext(ctx, "request failed", "method", r.method, "path", r.path, "error", err)
		return nil, err
	}
	c.reached.Store(true)
	c.log.DebugContext(ctx, "request", "method", r.method, "path", r.path, "status", resp.StatusCode,
		"request_id", resp.Header.Get("X-Request-Id"), "duration", time.Since(start))
	if resp.StatusCode/100 != 2 {
		defer drain(resp.Body)
		return nil, parseError(r.method+" "+r.path, resp)
	}
	return resp, nil
}

func (c *Client) newRequest(ctx context.Context, r request) (*http.Request, error) {
	address := c.base.String() + r.path
	if len(r.query) > 0 {
		address += "?" + r.query.Encode()
	}
	var body io.Reader
	length := r.length
	switch {
	case r.json != nil:
		b, err := json.Marshal(r.json)
		if err != nil {
			return nil, upload.Wrap(upload.Internal, "client", "", err)
		}
		body, length = bytes.NewReader(b), int64(len(b))
	case r.body != nil && length == 0:
		body = http.NoBody // announces Content-Length: 0
	case r.body != nil:
		body = r.body()
	}
	req, err := http.NewRequestWithContext(ctx, r.method, address, body)
	if err != nil {
		return nil, upload.Wrap(upload.Invalid, "client", "", err)
	}
	if body != nil {
		req.ContentLength = length
	}
	maps.Copy(req.Header, r.header)
	if r.json != nil {
		req.Header.Set("Content-Type", "application/json")
	}
	req.Header.Set("User-Agent", c.opt.UserAgent)
	return req, nil
}

// call makes a call without a large body and decodes the answer into out unless it is nil.
func (c *Client) call(ctx context.Context, r request, out any) error {
	return c.callWithin(ctx, callTimeout, r, out)
}

func (c *Client) callWithin(ctx context.Context, limit time.Duration, r request, out any) error {
	ctx, cancel := context.WithTimeoutCause(ctx, limit, errStalled)
	defer cancel()
	resp, err := c.send(ctx, r)
	if err != nil {
		return err
	}
	return decode(ctx, resp, out)
}

// decode reads the answer to its end, so that the connection can be used again.
func decode(ctx context.Context, resp *http.Response, out any) error {
	defer drain(resp.Body)
	if out == nil {
		return nil
	}
	const limit = 64 << 20 // an answer is never that long; a broken proxy's may be
	if err := json.NewDecoder(io.LimitReader(resp.Body, limit)).Decode(out); err != nil {
		if cause := context.Cause(ctx); cause != nil {
			return cause
		}
		return &answerError{err: err, requestID: resp.Header.Get("X-Request-Id")}
	}
	return nil
}

func drain(body io.ReadCloser) {
	_, _ = io.CopyN(io.Discard, body, 64<<10)
	_ = body.Close() // read-only: nothing can be lost
}
