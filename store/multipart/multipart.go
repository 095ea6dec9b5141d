// Package multipart puts content into an object store in parts: what S3, OSS and COS have in common, and
// what is hard about it. Parts are sent in parallel out of a bounded memory, a part that fails is sent again,
// a Put goes on where a killed one stopped, and an answer to Complete that got lost is found out about.
package multipart

import (
	"cmp"
	"context"
	"errors"
	"iter"
	"sync"
	"time"

	"github.com/cenkalti/backoff/v5"
	"golang.org/x/sync/semaphore"

	"gantry/store"
	"gantry/upload"
)

// Server is what an object store's driver does, one request each. Its errors are those of store.Store. Keys are
// those of the store; the driver adds its prefix.
type Server interface {
	// PutObject stores an object in one request. The store checks a digest of body that came with it.
	PutObject(ctx context.Context, key string, body []byte) error

	// Create begins a multipart upload.
	Create(ctx context.Context, key string) (id string, err error)
	// Parts lists what a multipart upload has. upload.NotFound if there is no such.
	Parts(ctx context.Context, key, id string) iter.Seq2[store.Part, error]
	// Same reports whether a part that Parts has listed has these bytes, by a digest of the store's.
	Same(part store.Part, body []byte) bool
	// PutPart stores one part; again replaces it. The store checks a digest of body that came with it.
	PutPart(ctx context.Context, key, id string, number int, body []byte) (store.Part, error)
	// Complete makes an object of the parts, which are all there, in the order of their numbers.
	Complete(ctx context.Context, key, id string, parts []store.Part) error
	// Abort ends a multipart upload. One that is not there is no error.
	Abort(ctx context.Context, key, id string) error
	// Uploads lists the multipart uploads of this store that have not ended.
	Uploads(ctx context.Context) iter.Seq2[Upload, error]

	// Size is that of store.Store.
	Size(ctx context.Context, key string) (int64, error)
}

// Upload is a multipart upload that has not ended.
type Upload struct {
	Key, ID string
	Began   time.Time
}

// Options are the limits of a Putter. What is zero gets its default.
type Options struct {
	PartSize int64         // bytes; 16 MiB. Larger for objects that would have too many parts
	Parts    int           // sent at a time, for all objects together; 4
	MinPart  int64         // what the store allows, for all but the last part, bytes; 5 MiB
	MaxParts int           // what the store allows; 10,000
	Tries    int           // of one request that fails, before the whole Put does; 4
	Delay    time.Duration // before the second; 200 ms
}

const mebi = 1 << 20

// Putter does the Puts of a store. It is made by New and safe for concurrent use. Its buffers are no larger
// together than Options.Parts times Options.PartSize, or than one part if that has to be larger.
type Putter struct {
	opt    Options
	server Server
	budget int64
	memory *semaphore.Weighted

	// Not a sync.Pool: what that gives up is garbage, and lets the heap grow to twice what is needed.
	mu   sync.Mutex
	puts int      // under way
	free [][]byte // of Options.PartSize bytes each, as long as there are any
}

// New returns a Putter.
func New(server Server, opt Options) *Putter {
	opt.MinPart = cmp.Or(opt.MinPart, 5*mebi)
	opt.PartSize = max(cmp.Or(opt.PartSize, 16*mebi), opt.MinPart)
	opt.Parts = max(cmp.Or(opt.Parts, 4), 1)
	opt.MaxParts = cmp.Or(opt.MaxParts, 10_000)
	opt.Tries = max(cmp.Or(opt.Tries, 4), 1)
	opt.Delay = cmp.Or(opt.Delay, 200*time.Millisecond)
	budget := opt.PartSize * int64(opt.Parts)
	return &Putter{opt: opt, server: server, budget: budget, memory: semaphore.NewWeighted(budget)}
}

// PartSize is how large the parts of an object are: the same for the same object, so that they can be told
// to be there.
func (p *Putter) PartSize(size int64) int64 {
	part := p.opt.PartSize
	if needed := (size + int64(p.opt.MaxParts) - 1) / int64(p.opt.MaxParts); needed > part {
		part = (needed + mebi - 1) / mebi * mebi
	}
	return part
}

// Put is store.Store's.
func (p *Putter) Put(ctx context.Context, key string, content store.Content, opt store.PutOptions) error {
	const op = "multipart.Put"
	w := &put{Putter: p, key: key, content: content, size: content.Size(), opt: opt}
	p.enter()
	defer p.leave()
	var err error
	if w.size <= p.opt.PartSize {
		err = w.whole(ctx)
	} else {
		err = w.inParts(ctx)
	}
	if err != nil && ctx.Err() != nil {
		return upload.Wrap(upload.Canceled, op, key, errors.Join(ctx.Err(), err))
	}
	return upload.Wrap(upload.Unavailable, op, key, err)
}

// Clean aborts multipart uploads that began so long ago that nobody will go on with them.
func (p *Putter) Clean(ctx context.Context, olderThan time.Duration) error {
	var old []Upload
	for u, err := range p.server.Uploads(ctx) {
		if err != nil {
			return err
		}
		if time.Since(u.Began) > olderThan {
			old = append(old, u)
		}
	}
	for _, u := range old {
		if err := p.server.Abort(ctx, u.Key, u.ID); err != nil {
			return err
		}
	}
	return nil
}

// buffer returns so many bytes, when there is room for them. The caller calls release.
func (p *Putter) buffer(ctx context.Context, size int64) (body []byte, release func(), err error) {
	weight := min(size, p.budget) // a part larger than all is alone
	if err := p.memory.Acquire(ctx, weight); err != nil {
		return nil, nil, err
	}
	if size != p.opt.PartSize { // a small body does not hold a large buffer, which weighs more
		return make([]byte, size), func() { p.memory.Release(weight) }, nil
	}
	p.mu.Lock()
	if n := len(p.free); n > 0 {
		body, p.free = p.free[n-1], p.free[:n-1]
	}
	p.mu.Unlock()
	if body == nil {
		body = make([]byte, size)
	}
	return body, func() {
		p.mu.Lock()
		p.free = append(p.free, body)
		p.mu.Unlock()
		p.memory.Release(weight)
	}, nil
}

func (p *Putter) enter() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.puts++
}

// leave gives the buffers up when nobody needs them any more.
func (p *Putter) leave() {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.puts--; p.puts == 0 {
		p.free = nil
	}
}

// try repeats a request while its failure is one that may pass.
func try[T any](ctx context.Context, p *Putter, request func() (T, error)) (T, error) {
	return backoff.Retry(ctx, func() (T, error) {
		v, err := request()
		if err != nil && !passes(upload.KindOf(err)) {
			err = backoff.Permanent(err)
		}
		return v, err
	}, backoff.WithMaxTries(uint(p.opt.Tries)), backoff.WithMaxElapsedTime(0),
		backoff.WithBackOff(&backoff.ExponentialBackOff{
			InitialInterval: p.opt.Delay, Multiplier: 2, RandomizationFactor: 0.25, MaxInterval: 10 * time.Second,
		}))
}

// passes reports whether the same request may succeed soon: the store is busy, or bytes were damaged on the way.
func passes(kind upload.Kind) bool {
	return kind == upload.Unavailable || kind == upload.Timeout || kind == upload.TooMany || kind == upload.DigestMismatch
}
