package store

import (
	"context"
	"errors"
	"io"
	"iter"
	"net/url"

	"golang.org/x/sync/errgroup"

	"gantry/upload"
)

// Mirror is a store that keeps each object in several. It has what all of them have: Put and Verify succeed
// when they have done so everywhere, and reading goes to the first one that can. It is made by NewMirror.
type Mirror struct {
	copies []Store
}

var (
	_ Store         = (*Mirror)(nil)
	_ CRC64Verifier = (*Mirror)(nil)
)

// NewMirror returns a store that keeps objects in all of these. Nothing else may use them.
func NewMirror(copies ...Store) *Mirror { return &Mirror{copies} }

// each calls f for all copies at once. The error is that of the first copy that has one.
func (r *Mirror) each(f func(i int, s Store) error) error {
	errs := make([]error, len(r.copies))
	var group errgroup.Group
	for i, s := range r.copies {
		group.Go(func() error { errs[i] = f(i, s); return nil })
	}
	_ = group.Wait()
	return errors.Join(errs...)
}

// first calls f for one copy after the other until one can do it. NotFound is an answer only if no other copy
// failed to give one.
func first[T any](ctx context.Context, r *Mirror, f func(s Store) (T, error)) (v T, err error) {
	var failures []error
	for _, s := range r.copies {
		v, err = f(s)
		if err == nil || ctx.Err() != nil {
			return v, err
		}
		if errors.Is(err, upload.NotFound) {
			failures = append(failures, err)
		} else {
			failures = append([]error{err}, failures...)
		}
	}
	return v, failures[0]
}

// Put sends the content to all stores at once, but for those that are known to have it (see
// PutOptions.Digests). If one does not answer nothing is sent to any.
func (r *Mirror) Put(ctx context.Context, key string, content Content, opt PutOptions) error {
	there := make([]bool, len(r.copies))
	err := r.each(func(i int, s Store) error {
		size, err := s.Size(ctx, key)
		there[i] = err == nil && size == content.Size() && opt.Digests != nil
		if errors.Is(err, upload.NotFound) {
			return nil
		}
		return err
	})
	if err != nil {
		return err
	}
	sent := make([]int64, len(r.copies))
	progress := newLeast(sent, opt.Progress)
	shares := newShares(opt.Checkpoint, len(r.copies))
	return r.each(func(i int, s Store) error {
		if there[i] && s.Verify(ctx, key, *opt.Digests) == nil {
			progress(i, content.Size())
			return nil
		}
		return s.Put(ctx, key, content, PutOptions{
			Progress:   func(n int64) { progress(i, n) },
			Checkpoint: shares.of(i),
			Digests:    opt.Digests,
		})
	})
}

// Verify proves that all copies are right.
func (r *Mirror) Verify(ctx context.Context, key string, want Digests) error {
	return r.each(func(_ int, s Store) error { return s.Verify(ctx, key, want) })
}

// VerifiesCRC64 is part of CRC64Verifier: one of the copies may.
func (r *Mirror) VerifiesCRC64() {}

// Open reads from the first copy that can be read.
func (r *Mirror) Open(ctx context.Context, key string, offset, length int64) (io.ReadCloser, error) {
	return first(ctx, r, func(s Store) (io.ReadCloser, error) { return s.Open(ctx, key, offset, length) })
}

// Size asks the first copy that answers.
func (r *Mirror) Size(ctx context.Context, key string) (int64, error) {
	return first(ctx, r, func(s Store) (int64, error) { return s.Size(ctx, key) })
}

// Delete removes all copies.
func (r *Mirror) Delete(ctx context.Context, key string) error {
	return r.each(func(_ int, s Store) error { return s.Delete(ctx, key) })
}

// List goes through the objects of all copies, so most of them come several times.
func (r *Mirror) List(ctx context.Context) iter.Seq2[Object, error] {
	return func(yield func(Object, error) bool) {
		for _, s := range r.copies {
			for o, err := range s.List(ctx) {
				if !yield(o, err) || err != nil {
					return
				}
			}
		}
	}
}

// Clean cleans up in all of them.
func (r *Mirror) Clean(ctx context.Context) error {
	return r.each(func(_ int, s Store) error { return s.Clean(ctx) })
}

// Copies returns the stores that have the copies.
func (r *Mirror) Copies() []Store { return r.copies }

// Down reports whether one of the stores is left alone because it does not answer.
func (r *Mirror) Down() bool {
	for _, s := range r.copies {
		if d, ok := As[Downer](s); ok && d.Down() {
			return true
		}
	}
	return false
}

// Probe asks those that are down whether they are up again.
func (r *Mirror) Probe(ctx context.Context) error {
	return r.each(func(_ int, s Store) error {
		if d, ok := As[Downer](s); ok && d.Down() {
			return d.Probe(ctx)
		}
		return nil
	})
}

// Check checks all of those that can be set up wrongly.
func (r *Mirror) Check(ctx context.Context) error {
	return r.each(func(_ int, s Store) error {
		if c, ok := As[Checker](s); ok {
			return c.Check(ctx)
		}
		return nil
	})
}

// Presign signs for the first copy that has the object and can sign.
func (r *Mirror) Presign(ctx context.Context, key string, opt PresignOptions) (*url.URL, error) {
	return first(ctx, r, func(s Store) (*url.URL, error) {
		p, ok := As[Presigner](s)
		if !ok {
			return nil, upload.Errorf(upload.NotFound, "store.Presign", key, "The store gives no URLs.")
		}
		if _, err := s.Size(ctx, key); err != nil {
			return nil, err
		}
		return p.Presign(ctx, key, opt)
	})
}
