package store

import (
	"context"
	"errors"
	"fmt"
	"io"
	"iter"
	"sync"
	"time"

	"github.com/sony/gobreaker/v2"
	"golang.org/x/time/rate"

	"gantry/upload"
)

// Wrapper is a store around another one.
type Wrapper interface {
	Unwrap() Store
}

// As finds what a store can do beside Store, also where it is wrapped.
func As[T any](s Store) (T, bool) {
	for {
		if t, ok := s.(T); ok {
			return t, true
		}
		w, ok := s.(Wrapper)
		if !ok {
			var none T
			return none, false
		}
		s = w.Unwrap()
	}
}

// GuardOptions are the limits of a Guard. What is zero gets its default.
type GuardOptions struct {
	Name     string        // of the store, in messages
	Rate     int64         // sent per second by this process, bytes; 0: no limit
	Limiter  *rate.Limiter // of all stores together, bytes; nil: no limit
	Failures uint32        // in a row, after which the store counts as down; 5
	Pause    time.Duration // until it is asked again; 10 s
}

// Downer is implemented by stores that know whether they answer.
type Downer interface {
	// Down reports whether the store has not answered several times in a row and is left alone.
	Down() bool
	// Probe asks it whether it is up again; a store that was asked a short while ago is not asked.
	Probe(ctx context.Context) error
}

// Guard is a store that is left alone while it does not answer (a circuit breaker), and that is sent no more
// per second than it may be. A call that is refused because the store is down is upload.Unavailable, at once.
// It is made by NewGuard.
type Guard struct {
	Store
	name    string
	breaker *gobreaker.TwoStepCircuitBreaker[struct{}]
	limits  []*rate.Limiter
}

var (
	_ Wrapper = (*Guard)(nil)
	_ Downer  = (*Guard)(nil)
)

// limitStep is how much is read at a time under a limit, bytes.
const limitStep = 64 << 10

// NewGuard wraps a store.
func NewGuard(s Store, opt GuardOptions) *Guard {
	if opt.Failures == 0 {
		opt.Failures = 5
	}
	if opt.Pause == 0 {
		opt.Pause = 10 * time.Second
	}
	g := &Guard{Store: s, name: opt.Name}
	if opt.Rate > 0 {
		g.limits = append(g.limits, NewLimiter(opt.Rate))
	}
	if opt.Limiter != nil {
		g.limits = append(g.limits, opt.Limiter)
	}
	g.breaker = gobreaker.NewTwoStepCircuitBreaker[struct{}](gobreaker.Settings{
		Name: opt.Name, MaxRequests: 1, Timeout: opt.Pause,
		ReadyToTrip:  func(c gobreaker.Counts) bool { return c.ConsecutiveFailures >= opt.Failures },
		IsSuccessful: func(err error) bool { return !away(err) },
		IsExcluded:   func(err error) bool { return errors.Is(err, errOurs) || errors.Is(err, context.Canceled) },
	})
	return g
}

// NewLimiter returns a limit for GuardOptions.Limiter, in bytes per second.
func NewLimiter(perSecond int64) *rate.Limiter {
	return rate.NewLimiter(rate.Limit(perSecond), limitStep)
}

// away reports whether an error says that the store does not answer.
func away(err error) bool {
	kind := upload.KindOf(err)
	return err != nil && (kind == upload.Unavailable || kind == upload.Timeout || errors.Is(err, errPanic))
}

// Unwrap returns the store that is guarded.
func (g *Guard) Unwrap() Store { return g.Store }

// Down reports whether the store is left alone.
func (g *Guard) Down() bool { return g.breaker.State() != gobreaker.StateClosed }

// Probe asks the store whether it is up again, unless it was asked a short while ago.
func (g *Guard) Probe(ctx context.Context) error {
	done, err := g.breaker.Allow()
	if err != nil {
		return g.refusal("store.Probe", "", err)
	}
	return settle(done, func() error {
		_, err := g.Store.Size(ctx, "00/probe") // no object is called that
		if errors.Is(err, upload.NotFound) {
			return nil
		}
		return err
	})
}

// call makes a call unless the store is down. When it may be up again that is found out by a small call, and not by
// this one, which may last for hours.
func (g *Guard) call(ctx context.Context, op, key string, f func() error) error {
	if g.breaker.State() == gobreaker.StateHalfOpen {
		if err := g.Probe(ctx); err != nil {
			return upload.Wrap(upload.Unavailable, op, key, err)
		}
	}
	if g.Down() {
		return g.refusal(op, key, gobreaker.ErrOpenState)
	}
	done, err := g.breaker.Allow()
	if err != nil {
		return g.refusal(op, key, err)
	}
	return settle(done, f)
}

func (g *Guard) refusal(op, key string, err error) error {
	return &upload.Error{
		Kind: upload.Unavailable, Op: op, ID: key, Err: err,
		Detail: fmt.Sprintf("The store %q does not answer. It is asked again every few seconds.", g.name),
	}
}

// settle says how a call went, also when it panics.
func settle(done func(error), f func() error) error {
	err := errPanic
	defer func() { done(err) }()
	err = f()
	return err
}

var (
	errPanic = errors.New("the store's driver met a defect")
	errOurs  = errors.New("the content could not be read") // says nothing about the store
)

// Put is part of Store. What it reads of the content is limited: nothing is sent faster than it is read.
func (g *Guard) Put(ctx context.Context, key string, content Content, opt PutOptions) error {
	reading := &watched{Content: content}
	content = reading
	if filer, ok := reading.Content.(Filer); ok && len(g.limits) == 0 {
		content = watchedFile{reading, filer}
	}
	if len(g.limits) > 0 {
		content = limited{ctx, content, g.limits}
	}
	var failure error
	err := g.call(ctx, "store.Put", key, func() error {
		failure = g.Store.Put(ctx, key, content, opt)
		if failure != nil && reading.failed() {
			return errOurs
		}
		return failure
	})
	if failure != nil {
		return failure
	}
	return err
}

// watched is content that remembers that it could not be read.
type watched struct {
	Content
	mu  sync.Mutex
	err error
}

func (w *watched) ReadAt(p []byte, off int64) (int, error) {
	n, err := w.Content.ReadAt(p, off)
	if err != nil && !errors.Is(err, io.EOF) {
		w.mu.Lock()
		w.err = err
		w.mu.Unlock()
	}
	return n, err
}

func (w *watched) failed() bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.err != nil
}

type watchedFile struct {
	*watched
	Filer
}

// limited is content that cannot be read faster than the limits allow.
type limited struct {
	ctx context.Context //nolint:containedctx // of the Put that reads
	Content
	limits []*rate.Limiter
}

func (l limited) ReadAt(p []byte, off int64) (int, error) {
	for done := 0; ; {
		step := p[done:min(done+limitStep, len(p))]
		for _, limit := range l.limits {
			if err := limit.WaitN(l.ctx, len(step)); err != nil {
				return done, err
			}
		}
		n, err := l.Content.ReadAt(step, off+int64(done))
		if done += n; err != nil || done == len(p) {
			return done, err
		}
	}
}

// Verify is part of Store.
func (g *Guard) Verify(ctx context.Context, key string, want Digests) error {
	return g.call(ctx, "store.Verify", key, func() error { return g.Store.Verify(ctx, key, want) })
}

// Open is part of Store.
func (g *Guard) Open(ctx context.Context, key string, offset, length int64) (r io.ReadCloser, err error) {
	err = g.call(ctx, "store.Open", key, func() error {
		r, err = g.Store.Open(ctx, key, offset, length)
		return err
	})
	return r, err
}

// Size is part of Store.
func (g *Guard) Size(ctx context.Context, key string) (size int64, err error) {
	err = g.call(ctx, "store.Size", key, func() error {
		size, err = g.Store.Size(ctx, key)
		return err
	})
	return size, err
}

// Delete is part of Store.
func (g *Guard) Delete(ctx context.Context, key string) error {
	return g.call(ctx, "store.Delete", key, func() error { return g.Store.Delete(ctx, key) })
}

// List is part of Store.
func (g *Guard) List(ctx context.Context) iter.Seq2[Object, error] {
	return func(yield func(Object, error) bool) {
		var failure error
		err := g.call(ctx, "store.List", "", func() error {
			for o, err := range g.Store.List(ctx) {
				if failure = err; !yield(o, err) || err != nil {
					break
				}
			}
			return failure
		})
		if err != nil && failure == nil { // not begun
			yield(Object{}, err)
		}
	}
}
