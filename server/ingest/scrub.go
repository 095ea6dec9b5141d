package ingest

import (
	"context"
	"errors"
	"io"
	"time"

	"golang.org/x/time/rate"

	"gantry/store"
	"gantry/upload"
)

// scrubPause is how long the scrub waits when it has gone through everything, and after a failure of ours.
const scrubPause = time.Minute

// scrub reads what is in the stores again, for ever and at Options.ScrubRate, and tells of objects that are gone or
// wrong. It begins anywhere, so that a node that is often started anew does not always read the same.
func (s *Service) scrub(ctx context.Context) {
	limit := store.NewLimiter(s.opt.ScrubRate)
	begun := false // from the beginning
	for after := upload.NewID(s.scrubFrom(ctx)); ctx.Err() == nil; {
		blobs, err := s.scrubNext(ctx, after)
		if err != nil && ctx.Err() == nil {
			s.Log.Warn("the scrub cannot go on; it tries again", "error", err)
		}
		if len(blobs) == 0 {
			if err != nil || begun {
				wait(ctx, scrubPause)
			}
			if err == nil {
				after, begun = "", true
			}
			continue
		}
		for i := range blobs {
			if err := s.scrubBlob(ctx, &blobs[i], limit); err != nil && ctx.Err() == nil {
				s.Log.Warn("the scrub could not read an object; it comes back to it", "blob_id", blobs[i].ID, "store", blobs[i].Store, "error", err)
				wait(ctx, time.Second)
			}
		}
		after = blobs[len(blobs)-1].ID
	}
}

// scrubFrom is a time in the life of what is stored, at random.
func (s *Service) scrubFrom(ctx context.Context) time.Time {
	now := s.Now()
	oldest, err := s.DB.Blobs(ctx, "", 1)
	if err != nil || len(oldest) == 0 {
		return now
	}
	age := now.Sub(oldest[0].CreatedAt)
	return now.Add(-time.Duration(float64(age) * float64(time.Now().Nanosecond()) / 1e9))
}

// scrubNext returns the next blobs, none while another node does the scrubbing.
func (s *Service) scrubNext(ctx context.Context, after string) ([]upload.Blob, error) {
	if _, leads := s.lead(); !leads {
		return nil, nil
	}
	return s.DB.Blobs(ctx, after, sweepBatch)
}

// scrubBlob reads one object to its end. What it returns is no fault of the object.
func (s *Service) scrubBlob(ctx context.Context, b *upload.Blob, limit *rate.Limiter) error {
	if b.Store == "" || b.Root.IsZero() || b.State != upload.BlobLive {
		return nil
	}
	st, ok := s.Stores[b.Store]
	if !ok {
		return upload.Errorf(upload.Unavailable, "ingest.scrub", b.ID, "The store %q is not configured. Put it back into the configuration.", b.Store)
	}
	copies := []store.Store{st}
	if mirror, ok := store.As[*store.Mirror](st); ok {
		copies = mirror.Copies()
	}
	for i, of := range copies {
		err := readAgain(ctx, slowly{of, limit}, b)
		if errors.Is(err, upload.NotFound) || errors.Is(err, upload.DigestMismatch) {
			now, lookErr := s.DB.Blob(ctx, b.ID)
			if lookErr != nil || now.Store != b.Store || now.ObjectKey != b.ObjectKey || now.State != upload.BlobLive {
				return lookErr // deleted or moved meanwhile
			}
			s.Metrics.scrubFailures.Inc()
			s.Log.Error("an object in a store is gone or wrong; see what \"gantry doctor --deep\" says of it", "blob_id", b.ID, "store", b.Store,
				"copy", i, "object_key", b.ObjectKey, "error", err)
			continue
		}
		if err != nil {
			return err
		}
		s.Metrics.scrubbed.Add(float64(b.Size))
	}
	return nil
}

// readAgain compares all of an object with what was received, by its root too: in the years since, more than a fault may
// have changed it.
func readAgain(ctx context.Context, st store.Store, b *upload.Blob) error {
	size, err := st.Size(ctx, b.ObjectKey)
	if err != nil {
		return err
	}
	d := store.NewDigester(false)
	if size == b.Size { // or its size says it
		err = store.ReadInOrder(ctx, st, b.ObjectKey, size, d)
	}
	if err != nil {
		return err
	}
	got := d.Sum()
	got.Size = size
	return store.Digests{Size: b.Size, Root: b.Root, CRC32C: b.CRC32C}.Compare("ingest.scrub", b.ObjectKey, got)
}

// slowly is a store from which is read no faster than the limit allows.
type slowly struct {
	store.Store
	limit *rate.Limiter
}

func (s slowly) Open(ctx context.Context, key string, offset, length int64) (io.ReadCloser, error) {
	r, err := s.Store.Open(ctx, key, offset, length)
	if err != nil {
		return nil, err
	}
	return &slowReader{ctx, r, s.limit}, nil
}

type slowReader struct {
	ctx context.Context //nolint:containedctx // of the read-back
	io.ReadCloser
	limit *rate.Limiter
}

func (r *slowReader) Read(p []byte) (int, error) {
	p = p[:min(len(p), r.limit.Burst())]
	if err := r.limit.WaitN(r.ctx, len(p)); err != nil {
		return 0, err
	}
	return r.ReadCloser.Read(p)
}

// wait waits for a while, or until ctx is done.
func wait(ctx context.Context, d time.Duration) {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-ctx.Done():
	case <-timer.C:
	}
}
