package client

import (
	"context"
	"errors"
	"sync/atomic"
	"time"

	"github.com/cenkalti/backoff/v5"
)

// maxDoubts is how often a failure is tried again that may well be for good.
const maxDoubts = 4

// pacer decides for all calls of one upload or download whether and when they are made again. Its
// lanes share it: as long as one of them gets on, the others go on trying.
type pacer struct {
	c      *Client
	emit   func(Event)
	moved  atomic.Int64 // when a call last succeeded, UnixNano
	budget time.Duration
}

func (c *Client) newPacer(emit func(Event)) *pacer {
	p := &pacer{c: c, emit: emit, budget: c.opt.RetryFor}
	p.progress()
	return p
}

func (p *pacer) progress() { p.moved.Store(time.Now().UnixNano()) }

// left is how much of the time without progress remains.
func (p *pacer) left() time.Duration {
	return p.budget - time.Since(time.Unix(0, p.moved.Load()))
}

// retry calls op until it succeeds, fails for good, or nothing of the upload has moved for the
// budget. what names the operation for the user.
func retry[T any](ctx context.Context, p *pacer, what string, op func(context.Context) (T, error)) (T, error) {
	doubts := 0
	attempt := func() (T, error) {
		v, err := op(ctx)
		if err == nil {
			p.progress()
			return v, nil
		}
		if ctx.Err() != nil || p.budget < 0 {
			return v, backoff.Permanent(err)
		}
		switch classify(err, p.c.reached.Load()) {
		case permanent:
			return v, backoff.Permanent(err)
		case doubtful:
			if doubts++; doubts > maxDoubts {
				return v, backoff.Permanent(err)
			}
		case temporary:
		}
		if wait := RetryAfter(err); wait > 0 {
			if wait > p.left() {
				return v, backoff.Permanent(err)
			}
			return v, &waitError{err: err, RetryAfterError: &backoff.RetryAfterError{Duration: wait}}
		}
		return v, err
	}
	exponential := &backoff.ExponentialBackOff{
		InitialInterval: p.c.minDelay, MaxInterval: p.c.maxDelay, Multiplier: 2, RandomizationFactor: 0.5,
	}
	v, err := backoff.Retry(ctx, attempt,
		backoff.WithBackOff(&patience{exponential, p}),
		backoff.WithMaxElapsedTime(0), // the pacer counts, and from the last progress on
		backoff.WithNotify(func(err error, delay time.Duration) {
			if w, ok := errors.AsType[*waitError](err); ok {
				err = w.err
			}
			p.c.log.DebugContext(ctx, "trying again", "what", what, "delay", delay, "error", err)
			p.emit(Event{Kind: Retrying, What: what, Err: err, Delay: delay})
		}))
	if w, ok := errors.AsType[*waitError](err); ok {
		err = w.err
	}
	return v, err
}

// Persist makes a call as Upload makes its own: again and again while it fails for reasons that pass,
// for as long as Options.RetryFor says. what names it in the events, which may be nil.
func (c *Client) Persist(ctx context.Context, what string, events func(Event), call func(context.Context) error) error {
	if events == nil {
		events = func(Event) {}
	}
	_, err := retry(ctx, c.newPacer(events), what, func(ctx context.Context) (struct{}, error) { return struct{}{}, call(ctx) })
	return err
}

// patience ends the delays when the pacer's budget would be passed.
type patience struct {
	backoff.BackOff
	p *pacer
}

func (b *patience) NextBackOff() time.Duration {
	next := b.BackOff.NextBackOff()
	if next == backoff.Stop || next > b.p.left() {
		return backoff.Stop
	}
	return next
}

// waitError carries the server's Retry-After to the back-off library without losing the error.
type waitError struct {
	err error
	*backoff.RetryAfterError
}

func (e *waitError) Error() string   { return e.err.Error() }
func (e *waitError) Unwrap() []error { return []error{e.err, e.RetryAfterError} }
