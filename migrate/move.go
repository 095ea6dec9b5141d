package migrate

import (
	"context"
	"errors"
	"fmt"

	"github.com/cenkalti/backoff/v5"

	"gantry/meta"
	"gantry/store"
	"gantry/upload"
)

// damagedError says that the object to be moved is not what was received; trying again would not mend that.
type damagedError struct{ reason string }

func (e *damagedError) Error() string { return e.reason }

// one moves one blob, and tells how that went. An error ends the run.
func (r *run) one(ctx context.Context, b *upload.Blob) error {
	moved, err := r.moveBlob(ctx, b)
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}
	r.Watcher.Ended(b, moved, err)
	r.mu.Lock()
	defer r.mu.Unlock()
	if err == nil {
		if moved {
			r.streak = 0
			r.result.Moved++
			r.result.Bytes += b.Size
		}
		return nil
	}
	r.failed[b.ID] = true
	r.result.Failed++
	if r.streak++; r.streak >= maxStreak || hopeless(err) {
		return err
	}
	return nil
}

// hopeless reports whether all blobs would fail as this one did.
func hopeless(err error) bool { return errors.Is(err, upload.Invalid) || errors.Is(err, upload.NoRoom) }

// moveBlob moves one blob; false if it is not there to be moved any more.
func (r *run) moveBlob(ctx context.Context, b *upload.Blob) (moved bool, err error) {
	mv, err := retried(ctx, func() (meta.Move, error) { return r.DB.BeginMove(ctx, r.fence, b, r.opt.To, r.Now()) })
	if errors.Is(err, upload.Conflict) {
		r.lease.check(ctx)
		return false, nil
	}
	if err != nil {
		return false, err
	}
	delays := &backoff.ExponentialBackOff{
		InitialInterval: r.opt.MinBackoff, Multiplier: 2, RandomizationFactor: 0.25, MaxInterval: r.opt.MaxBackoff,
	}
	r.Watcher.Begun(b, nil)
	for try := 1; ; try++ {
		err := r.attempt(ctx, b, &mv, try == 1 && r.begun[mv.ID])
		_, damaged := errors.AsType[*damagedError](err)
		switch {
		case err == nil:
			return true, nil
		case ctx.Err() != nil:
			return false, err
		case errors.Is(err, upload.Conflict): // deleted, lost, back in staging, or the lease is gone
			r.lease.check(ctx)
			if ctx.Err() != nil {
				return false, err
			}
			return false, r.giveUp(ctx, r.fence, &mv)
		case damaged:
			return false, errors.Join(err, r.giveUp(ctx, r.fence, &mv))
		case try >= r.opt.Tries || hopeless(err): // the next run goes on with it
			return false, err
		}
		r.Watcher.Begun(b, err)
		if err := pause(ctx, delays.NextBackOff()); err != nil {
			return false, err
		}
	}
}

// attempt copies, verifies and switches. again says that an earlier run may have come far with it.
func (r *run) attempt(ctx context.Context, b *upload.Blob, mv *meta.Move, again bool) error {
	want := store.Digests{Size: b.Size, Root: b.Root, CRC32C: b.CRC32C}
	if !again || !r.there(ctx, mv, want) {
		if err := r.copy(ctx, b, mv, want); err != nil {
			return err
		}
	}
	now := r.Now() // once: repeated it is the same switch
	_, err := retried(ctx, func() (struct{}, error) { return struct{}{}, r.DB.Switch(ctx, r.fence, mv.ID, now) })
	return err
}

// there reports whether the new object is whole already. If it cannot be told it is copied again.
func (r *run) there(ctx context.Context, mv *meta.Move, want store.Digests) bool {
	size, err := r.to.Size(ctx, mv.To.Key)
	return err == nil && size == want.Size && r.to.Verify(ctx, mv.To.Key, want) == nil
}

// copy makes the new object and verifies it.
func (r *run) copy(ctx context.Context, b *upload.Blob, mv *meta.Move, want store.Digests) error {
	size, err := r.from.Size(ctx, mv.From.Key)
	switch {
	case errors.Is(err, upload.NotFound):
		return r.damaged(ctx, mv, "is missing")
	case err != nil:
		return err
	case size != b.Size:
		return r.damaged(ctx, mv, fmt.Sprintf("is %d bytes long, not %d", size, b.Size))
	}
	src := r.open(ctx, mv.From.Key, size)
	err = r.to.Put(ctx, mv.To.Key, src, store.PutOptions{
		Progress:   func(sent int64) { r.Watcher.Copied(b, sent) },
		Checkpoint: &checkpoint{r, mv},
		Digests:    &want,
	})
	if err = errors.Join(err, src.Close()); err != nil {
		return err
	}
	r.Watcher.Copied(b, b.Size)
	err = r.to.Verify(ctx, mv.To.Key, want)
	if !errors.Is(err, upload.DigestMismatch) {
		return err
	}
	// Was it wrong before, or did it become so on the way?
	switch source := r.from.Verify(ctx, mv.From.Key, want); {
	case errors.Is(source, upload.DigestMismatch):
		return r.damaged(ctx, mv, "has other bytes than were received")
	case errors.Is(source, upload.NotFound):
		return r.damaged(ctx, mv, "is missing")
	}
	// With the kind of what may go better the next time.
	return upload.Errorf(upload.Unavailable, "migrate.copy", b.ID, "The store %q has other bytes than were sent.", mv.To.Store)
}

// damaged says what is wrong with the old object, if it is the blob's: if it is not any more, it may be missing.
func (r *run) damaged(ctx context.Context, mv *meta.Move, what string) error {
	b, err := retried(ctx, func() (upload.Blob, error) { return r.DB.Blob(ctx, mv.BlobID) })
	switch {
	case errors.Is(err, upload.NotFound), err == nil && (b.Store != mv.From.Store || b.ObjectKey != mv.From.Key):
		return upload.Errorf(upload.Conflict, "migrate.copy", mv.BlobID, "The blob is elsewhere by now.")
	case err != nil:
		return err
	}
	return &damagedError{fmt.Sprintf("The object in store %q %s. It stays there; gantry migrate --check --deep says what can be done.", mv.From.Store, what)}
}

// checkpoint keeps how far a copy is in the move's row.
type checkpoint struct {
	r  *run
	mv *meta.Move
}

// Load is store.Checkpoint's.
func (c *checkpoint) Load() []byte { return c.mv.Checkpoint }

// Save is store.Checkpoint's.
func (c *checkpoint) Save(ctx context.Context, state []byte) error {
	_, err := retried(ctx, func() (struct{}, error) {
		return struct{}{}, c.r.DB.SaveMove(ctx, c.r.fence, c.mv.ID, state)
	})
	if err == nil {
		c.mv.Checkpoint = state
	}
	return err
}
