// Package forward passes a request on to the node that has what it is about, and the answer back, both
// as they stream. Nodes know each other by a secret that they share: see sign.go.
package forward

import (
	"cmp"
	"context"
	"errors"
	"io"
	"maps"
	"net"
	"net/http"
	"net/http/httputil"
	"net/url"
	"sync"
	"sync/atomic"
	"time"

	"gantry/upload"
)

// Peers tells where other nodes are.
type Peers interface {
	// Address returns the base address of a node. upload.NotFound: there is no such node. upload.Gone:
	// it was given up, and what it had is lost.
	Address(ctx context.Context, node string) (*url.URL, error)
}

// Options configure a Forwarder. What is zero gets its default.
type Options struct {
	Node        string           // this node's id; needed
	Secret      []byte           // shared by all nodes; needed
	Now         func() time.Time // time.Now
	DialTimeout time.Duration    // a node that does not answer for so long is away; 2 s
	Skew        time.Duration    // how far the clocks of nodes may be apart; 1 min
}

// Forwarder passes requests on. It is made by New and safe for concurrent use.
type Forwarder struct {
	opt   Options
	peers Peers
	proxy *httputil.ReverseProxy
	idle  *http.Transport
}

// New returns a Forwarder. Close ends it.
func New(opt Options, peers Peers) *Forwarder {
	if opt.Now == nil {
		opt.Now = time.Now
	}
	opt.DialTimeout = cmp.Or(opt.DialTimeout, 2*time.Second)
	opt.Skew = cmp.Or(opt.Skew, time.Minute)
	transport := &http.Transport{
		DialContext:         (&net.Dialer{Timeout: opt.DialTimeout, KeepAlive: 15 * time.Second}).DialContext,
		MaxIdleConnsPerHost: 256,
		IdleConnTimeout:     time.Minute,
		DisableCompression:  true, // bytes go through as they are
		WriteBufferSize:     64 << 10,
		ReadBufferSize:      64 << 10,
	}
	f := &Forwarder{opt: opt, peers: peers, idle: transport}
	f.proxy = &httputil.ReverseProxy{
		Rewrite:        rewrite,
		Transport:      transport,
		FlushInterval:  -1, // what comes goes on at once
		BufferPool:     pool{},
		ModifyResponse: f.checkAnswer,
		ErrorHandler: func(_ http.ResponseWriter, r *http.Request, err error) {
			passageOf(r.Context()).err = err
		},
	}
	return f
}

// Close closes the connections that are kept to other nodes.
func (f *Forwarder) Close() { f.idle.CloseIdleConnections() }

// Request is what is passed on, beside the HTTP request itself.
type Request struct {
	Node   string    // which is to answer it
	Owner  string    // on whose behalf, as this node has found out
	ID     string    // the request's id, for the logs of both nodes
	Body   io.Reader // nil: it has none
	Length int64     // of Body, bytes; -1: not known
	Abort  func()    // makes a blocked Read of Body return soon; may be nil
}

// passage is one request on its way, in its context.
type passage struct {
	to        *url.URL
	request   *Request
	signature string // of the request
	headers   http.Header
	err       error // why there was no answer
}

type passageKey struct{}

func passageOf(ctx context.Context) *passage {
	p, _ := ctx.Value(passageKey{}).(*passage)
	return p
}

// Send has another node answer r. If it returns an error nothing has been written to w:
// upload.Unavailable if the node cannot be reached or is not who it should be, upload.NotFound and
// upload.Gone as Peers says, and the error of the body where reading that failed.
func (f *Forwarder) Send(w http.ResponseWriter, r *http.Request, to Request) error {
	const op = "forward.Send"
	address, err := f.peers.Address(r.Context(), to.Node)
	if err != nil {
		return upload.Wrap(upload.Unavailable, op, to.Node, err)
	}
	p := &passage{to: address, request: &to, headers: http.Header{}}
	p.signature = f.sign(p.headers, r, &to)
	r = r.WithContext(context.WithValue(r.Context(), passageKey{}, p))
	body := &watched{src: to.Body, abort: to.Abort}
	defer func() { _ = body.finish() }() // also where the proxy panics, because the answer broke off
	r.Body, r.ContentLength = http.NoBody, 0
	if to.Body != nil {
		r.Body, r.ContentLength = body, to.Length
	}
	f.proxy.ServeHTTP(w, r)
	gone := r.Context().Err() // asked before finish, whose abort cancels the request
	broken := body.finish()
	switch {
	case p.err == nil:
		return nil
	case broken != nil:
		return upload.Wrap(upload.Canceled, op, to.Node, broken)
	case gone != nil:
		return upload.Wrap(upload.Canceled, op, to.Node, gone)
	}
	return &upload.Error{
		Op: op, Kind: upload.Unavailable, ID: to.Node, Err: p.err,
		Detail: "The node that has this cannot be reached at the moment. Try again; nothing that it acknowledged is lost.",
	}
}

// rewrite makes the request that goes to the other node. The address, the method and the headers stay
// as the client sent them; the client's token stays here.
func rewrite(r *httputil.ProxyRequest) {
	p := passageOf(r.In.Context())
	r.SetURL(p.to)
	r.Out.Host = p.to.Host
	r.Out.Header.Del("Authorization")
	r.Out.Header.Del("Cookie")
	r.Out.Header.Del("Expect") // answered here
	r.Out.Header.Del("Origin") // a foreign page's request was refused here already
	for name := range r.Out.Header {
		if isOurs(name) {
			r.Out.Header.Del(name)
		}
	}
	maps.Copy(r.Out.Header, p.headers)
	r.Out.Header.Set("X-Request-Id", p.request.ID)
}

// checkAnswer refuses an answer that does not come from a node: a machine that has got its address.
func (f *Forwarder) checkAnswer(answer *http.Response) error {
	p := passageOf(answer.Request.Context())
	if !f.answeredBy(answer.Header.Get(headerAnswer), p.signature, answer.StatusCode) {
		return errors.New("the answer is not signed with the cluster's secret")
	}
	answer.Header.Del(headerAnswer)
	return nil
}

// watched is a body that remembers why it could not be read, which net/http does not tell apart, and
// that nobody reads once its owner is done with it: net/http may go on reading after an early answer.
type watched struct {
	src   io.Reader
	abort func()

	done atomic.Bool
	mu   sync.Mutex // held while it is being read
	err  error
}

func (w *watched) Read(p []byte) (int, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.done.Load() {
		return 0, io.ErrClosedPipe
	}
	n, err := w.src.Read(p)
	if err != nil && !errors.Is(err, io.EOF) && !w.done.Load() { // else finish is why
		w.err = err
	}
	return n, err
}

// Close is for net/http; the body belongs to the caller.
func (w *watched) Close() error { return nil }

// finish waits until nobody reads the body any more and returns why it could not be read.
func (w *watched) finish() error {
	w.done.Store(true)
	if !w.mu.TryLock() {
		if w.abort != nil {
			w.abort()
		}
		w.mu.Lock()
	}
	defer w.mu.Unlock()
	return w.err
}

// pool lends buffers to the proxy for answers.
type pool struct{}

func (pool) Get() []byte  { return buffers.Get().(*[bufferSize]byte)[:] }
func (pool) Put(p []byte) { buffers.Put((*[bufferSize]byte)(p)) }

const bufferSize = 128 << 10

var buffers = sync.Pool{New: func() any { return new([bufferSize]byte) }}
