package client

import (
	"context"
	"errors"
	"io"
	"sync"
	"time"

	"golang.org/x/time/rate"
)

// answerPatience is how many stall times a server may take to answer after the last byte was handed
// to the network: a slow line still has to empty the socket's buffer.
const answerPatience = 4

// watchdog ends a request when nothing moves for the stall time. It runs only while the network is
// being waited for: not while a file is read or the rate limit holds us back.
type watchdog struct {
	timeout time.Duration
	cancel  context.CancelCauseFunc
	timer   *time.Timer
}

// watch returns a context that the watchdog ends with errStalled. The caller calls stop.
func watch(ctx context.Context, timeout time.Duration) (context.Context, *watchdog) {
	ctx, cancel := context.WithCancelCause(ctx)
	w := &watchdog{timeout: timeout, cancel: cancel}
	w.timer = time.AfterFunc(answerPatience*timeout, func() { cancel(errStalled) }) // also covers dialing
	return ctx, w
}

func (w *watchdog) waiting(d time.Duration) { w.timer.Reset(d) }
func (w *watchdog) busy()                   { w.timer.Stop() }

func (w *watchdog) stop() {
	w.timer.Stop()
	w.cancel(nil)
}

// body is the bytes of one request on their way out: it obeys the rate limit, reports progress, feeds
// the watchdog, and remembers what went wrong on this side, which net/http does not tell apart.
type body struct {
	ctx    context.Context //nolint:containedctx // a body lives exactly as long as its request
	src    io.Reader
	left   int64
	limit  *rate.Limiter
	dog    *watchdog
	onMove func(n int64)

	mu   sync.Mutex // net/http may still read when Do has returned
	sent int64
	err  error
	done bool
}

func (b *body) Read(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.done {
		return 0, io.ErrClosedPipe
	}
	b.dog.busy()
	if b.limit != nil {
		p = p[:min(len(p), b.limit.Burst())]
		if err := b.limit.WaitN(b.ctx, min(len(p), int(min(b.left, 1<<30)))); err != nil {
			return 0, err
		}
	}
	n, err := b.src.Read(p)
	b.left -= int64(n)
	b.sent += int64(n)
	switch {
	case err == io.EOF && b.left > 0:
		b.err = &LocalError{Op: "upload", Err: ErrChanged} // it was longer when the upload began
		err = b.err
	case err != nil && err != io.EOF:
		b.err = &LocalError{Op: "read", Err: err}
		err = b.err
	}
	if n > 0 && b.onMove != nil {
		b.onMove(int64(n))
	}
	if b.left <= 0 {
		b.dog.waiting(answerPatience * b.dog.timeout)
	} else {
		b.dog.waiting(b.dog.timeout)
	}
	return n, err
}

// Close is called by net/http; the source belongs to the caller.
func (b *body) Close() error { return nil }

// finish ends the use of the source: nothing reads it after finish has returned. With failed the
// progress that was reported is taken back. It returns the error of this side, if there was one.
func (b *body) finish(failed bool) error {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.done = true
	if failed && b.sent > 0 && b.onMove != nil {
		b.onMove(-b.sent)
	}
	return b.err
}

// exchange sends length bytes from open in one attempt under a lane and a watchdog. call makes the
// request with the context and the body given.
func (c *Client) exchange(ctx context.Context, length int64, open func() io.Reader, onMove func(int64),
	call func(ctx context.Context, body func() io.ReadCloser) error,
) error {
	if err := c.lanes.Acquire(ctx, 1); err != nil {
		return context.Cause(ctx)
	}
	defer c.lanes.Release(1)
	ctx, dog := watch(ctx, c.opt.StallTimeout)
	defer dog.stop()
	var current *body
	var local error
	err := call(ctx, func() io.ReadCloser {
		if current != nil { // the token was renewed: once more from the start
			local = current.finish(true)
		}
		current = &body{ctx: ctx, src: open(), left: length, limit: c.opt.Limit, dog: dog, onMove: onMove}
		return current
	})
	dog.stop() // a Read that waits for the rate limit returns
	if current != nil {
		if e := current.finish(err != nil); e != nil {
			local = e
		}
	}
	if err != nil && local != nil {
		return local
	}
	return err
}

// incoming is the bytes of an answer: as body, the other way round.
type incoming struct {
	ctx    context.Context //nolint:containedctx // lives as long as its request
	src    io.Reader
	limit  *rate.Limiter
	dog    *watchdog
	onMove func(n int64)
}

func (r *incoming) Read(p []byte) (int, error) {
	if r.limit != nil {
		p = p[:min(len(p), r.limit.Burst())]
	}
	r.dog.waiting(r.dog.timeout)
	n, err := r.src.Read(p)
	r.dog.busy()
	if err != nil && !errors.Is(err, io.EOF) && context.Cause(r.ctx) != nil {
		err = context.Cause(r.ctx)
	}
	if n > 0 {
		if r.onMove != nil {
			r.onMove(int64(n))
		}
		if r.limit != nil {
			if waitErr := r.limit.WaitN(r.ctx, n); waitErr != nil && err == nil {
				err = waitErr
			}
		}
	}
	return n, err
}
