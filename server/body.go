package server

import (
	"errors"
	"io"
	"net"
	"net/http"
	"os"
	"sync"
	"sync/atomic"
	"time"

	"github.com/labstack/echo/v4"

	"gantry/upload"
)

// What is still read of a body after its request has failed, so that a client that sends before it
// reads gets to see the answer instead of a broken connection.
const (
	drainBytes = 16 << 20
	drainTime  = 5 * time.Second
)

// longAgo is a deadline that makes a blocked read return at once.
var longAgo = time.Unix(1, 0)

// pace is the least speed of a request's body: so many bytes in each window.
type pace struct {
	bytes  int64
	window time.Duration
}

// incoming is a request's body on its way in. It closes the connection of a client that sends too
// slowly, and gives read errors their kinds. It is used by one reader at a time; abort may be called
// from anywhere.
type incoming struct {
	src     io.Reader
	conn    *http.ResponseController
	pace    pace
	request *http.Request

	since time.Time // when the current window began
	bytes int64     // read in it
	read  int64     // read in all
	begun bool      // Read was called: a client that waits for "100 Continue" has been told to send
	ended bool      // all was read, or no more can be
	err   error     // why no more can be

	aborted  atomic.Bool
	mu       sync.Mutex // orders abort and finish
	finished bool
}

// keyIncoming is where a request's context has its body. The request keeps its own: net/http looks at
// that to decide what to do with a rest.
const keyIncoming = "incoming"

// receive puts the request's body under watch; nil if it has none.
func (f *front) receive(c echo.Context, now time.Time) *incoming {
	r := c.Request()
	if r.ContentLength == 0 || r.Body == nil || r.Body == http.NoBody {
		return nil
	}
	in := &incoming{
		src: r.Body, conn: http.NewResponseController(c.Response().Writer), pace: f.pace, request: r, since: now,
	}
	in.deadline(now.Add(f.pace.window))
	c.Set(keyIncoming, in)
	return in
}

// bodyOf is the request's body under watch; nil if it has none.
func bodyOf(c echo.Context) *incoming {
	in, _ := c.Get(keyIncoming).(*incoming)
	return in
}

// readerOf is the request's body, empty if it has none.
func readerOf(c echo.Context) io.Reader {
	if in := bodyOf(c); in != nil {
		return in
	}
	return http.NoBody
}

// deadline sets when a read must have returned. Where the connection cannot do that (a test's
// recorder) there is nobody to wait for either.
func (in *incoming) deadline(t time.Time) { _ = in.conn.SetReadDeadline(t) }

// Read reads the body. Errors other than io.EOF have a kind: Timeout, ShortBody, Canceled, Invalid.
func (in *incoming) Read(p []byte) (int, error) {
	in.begun = true
	n, err := in.src.Read(p)
	in.bytes += int64(n)
	in.read += int64(n)
	switch err {
	case nil:
		in.prolong()
		return n, nil
	case io.EOF:
		// The server goes on reading, to notice a client that goes away. That must not end in a
		// deadline: it would cancel the request while its answer is being made.
		in.ended = true
		in.finish()
		in.deadline(time.Time{})
		return n, io.EOF
	}
	in.ended, in.err = true, in.classify(err)
	return n, in.err
}

// cause returns why a request failed, if err is what came of it. A failed read makes net/http cancel
// the request, so that all that a use case may see is a canceled context.
func (in *incoming) cause(err error) error {
	if in != nil && in.err != nil && kindOf(err) == upload.Canceled {
		return in.err
	}
	return err
}

// prolong begins a new window when enough came in the current one.
func (in *incoming) prolong() {
	if in.bytes < in.pace.bytes {
		return
	}
	now := time.Now()
	if now.Sub(in.since) < in.pace.window/32 {
		return // fast: not a timer for every read
	}
	in.since, in.bytes = now, 0
	in.deadline(now.Add(in.pace.window))
	if in.aborted.Load() {
		in.deadline(longAgo) // abort came between
	}
}

func (in *incoming) classify(err error) error {
	const op = "server.body"
	switch netErr, isNet := errors.AsType[net.Error](err); {
	case errors.Is(err, os.ErrDeadlineExceeded), isNet && netErr.Timeout():
		return upload.Wrap(upload.Timeout, op, "", err)
	case errors.Is(err, io.ErrUnexpectedEOF):
		return upload.Wrap(upload.ShortBody, op, "", err)
	case isNet || in.request.Context().Err() != nil:
		return upload.Wrap(upload.Canceled, op, "", err)
	case errors.Is(err, http.ErrBodyReadAfterClose):
		return upload.Wrap(upload.Internal, op, "", err)
	default: // malformed chunked coding; net/http closes the connection
		return &upload.Error{Op: op, Kind: upload.Invalid, Detail: "The body's transfer coding is malformed. Send it again with Content-Length.", Err: err}
	}
}

// abort makes a blocked Read return soon, with a Timeout. It may be called at any time, also after
// the request: then it does nothing, so that it never hits the connection's next request.
func (in *incoming) abort() {
	in.mu.Lock()
	defer in.mu.Unlock()
	if !in.finished {
		in.aborted.Store(true)
		in.deadline(longAgo)
	}
}

// finish ends the watch: from now on abort does nothing.
func (in *incoming) finish() {
	in.mu.Lock()
	defer in.mu.Unlock()
	in.finished = true
}

// rest reads what a request that succeeded has not looked at: the body of one that was repeated. A
// client that sends all before it reads could not see the answer otherwise, however often it repeats.
// The body has to keep up its rate, and costs what it cost the first time.
func (in *incoming) rest() error {
	if in == nil || in.ended || !in.begun && in.request.Header.Get("Expect") != "" {
		return nil
	}
	_, err := io.Copy(io.Discard, in)
	return err
}

// drain reads a small rest of a body whose request has failed. A client that waits for "100
// Continue" is not asked to send what nobody wants, and a large rest is left to net/http, which cuts
// the connection.
func (in *incoming) drain() {
	if in.ended || in.aborted.Load() {
		return
	}
	if !in.begun && in.request.Header.Get("Expect") != "" {
		in.deadline(longAgo)
		return
	}
	in.deadline(time.Now().Add(drainTime))
	rest := in.request.ContentLength - in.read
	if rest > drainBytes || in.request.ContentLength < 0 {
		return
	}
	_, _ = io.CopyN(io.Discard, in.src, rest)
}
