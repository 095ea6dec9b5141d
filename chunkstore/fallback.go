package chunkstore

import (
	"context"
	"errors"
	"time"

	"gantry/upload"
)

// Fallback is a view that all nodes share, and one of this node's own that stands in while the shared
// one cannot be reached. Single-node service goes on then: what is asked about this node's uploads is
// answered, what only other nodes know is not.
type Fallback struct {
	Shared View
	Own    View // never fails
}

var _ View = (*Fallback)(nil)

// unreachable reports whether an error of the shared view is one that the own view makes up for. A
// caller who went away is not.
func unreachable(ctx context.Context, err error) bool {
	return err != nil && ctx.Err() == nil && !errors.Is(err, upload.NotFound) && !errors.Is(err, upload.Conflict)
}

// Begin is part of View.
func (f *Fallback) Begin(ctx context.Context, spec *upload.Spec, ttl time.Duration) error {
	if err := f.Own.Begin(ctx, spec, ttl); err != nil {
		return err
	}
	err := f.Shared.Begin(ctx, spec, ttl)
	if err == nil || unreachable(ctx, err) {
		return nil // Shared hears of it later: Mark, or Watch and Put
	}
	return errors.Join(err, f.Own.Remove(ctx, spec))
}

// Mark is part of View.
func (f *Fallback) Mark(ctx context.Context, id string, index int, truth Truth) error {
	err := f.Own.Mark(ctx, id, index, truth)
	return errors.Join(err, reached(ctx, f.Shared.Mark(ctx, id, index, truth)))
}

// Put is part of View.
func (f *Fallback) Put(ctx context.Context, id string, truth Truth) error {
	if err := f.Own.Put(ctx, id, truth); err != nil {
		return err
	}
	return reached(ctx, f.Shared.Put(ctx, id, truth)) // if not, Watch will ask for it again
}

// Remove is part of View.
func (f *Fallback) Remove(ctx context.Context, spec *upload.Spec) error {
	err := f.Own.Remove(ctx, spec)
	return errors.Join(err, reached(ctx, f.Shared.Remove(ctx, spec)))
}

// reached drops the error that says that the shared view could not be reached.
func reached(ctx context.Context, err error) error {
	if unreachable(ctx, err) {
		return nil
	}
	return err
}

// Get is part of View.
func (f *Fallback) Get(ctx context.Context, id string) (upload.Upload, error) {
	u, err := f.Shared.Get(ctx, id)
	if unreachable(ctx, err) {
		return f.Own.Get(ctx, id)
	}
	return u, err
}

// List is part of View.
func (f *Fallback) List(ctx context.Context, owner, after string, limit int) ([]upload.Upload, error) {
	list, err := f.Shared.List(ctx, owner, after, limit)
	if unreachable(ctx, err) {
		return f.Own.List(ctx, owner, after, limit)
	}
	return list, err
}

// ByKey is part of View. A key that the shared view has just lost is still known to the own one.
func (f *Fallback) ByKey(ctx context.Context, owner, key string) (string, error) {
	id, err := f.Shared.ByKey(ctx, owner, key)
	if id == "" && (err == nil || unreachable(ctx, err)) {
		return f.Own.ByKey(ctx, owner, key)
	}
	return id, err
}

// PutChallenge is part of View.
func (f *Fallback) PutChallenge(ctx context.Context, c upload.Challenge) error {
	err := f.Shared.PutChallenge(ctx, c)
	if unreachable(ctx, err) {
		return f.Own.PutChallenge(ctx, c)
	}
	return err
}

// TakeChallenge is part of View. Challenges that were given while the shared view was away are in the
// own one only.
func (f *Fallback) TakeChallenge(ctx context.Context, id string, now time.Time) (upload.Challenge, error) {
	c, err := f.Shared.TakeChallenge(ctx, id, now)
	if errors.Is(err, upload.NotFound) || unreachable(ctx, err) {
		return f.Own.TakeChallenge(ctx, id, now)
	}
	return c, err
}

// CountFailure is part of View. The own view counts all the time, so that nobody starts from nothing
// when the shared one goes away.
func (f *Fallback) CountFailure(ctx context.Context, who string, now time.Time) (int, error) {
	own, ownErr := f.Own.CountFailure(ctx, who, now)
	n, err := f.Shared.CountFailure(ctx, who, now)
	if unreachable(ctx, err) {
		return own, ownErr
	}
	return max(n, own), err
}

// Failures is part of View.
func (f *Fallback) Failures(ctx context.Context, who string, now time.Time) (int, error) {
	own, ownErr := f.Own.Failures(ctx, who, now)
	n, err := f.Shared.Failures(ctx, who, now)
	if unreachable(ctx, err) {
		return own, ownErr
	}
	return max(n, own), err
}

// Watch is part of View.
func (f *Fallback) Watch(ctx context.Context, lost func(ctx context.Context) error) {
	f.Shared.Watch(ctx, lost)
}
