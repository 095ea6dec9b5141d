package ingest

import (
	"context"
	"errors"
	"maps"
	"slices"
	"sync"
	"time"

	"golang.org/x/sync/errgroup"

	"gantry/meta"
	"gantry/store"
	"gantry/upload"
)

const (
	sweepBatch  = 500       // rows or names per step of the janitor
	orphanGrace = time.Hour // an object without a row is left alone for so long
)

// Recover puts this node's staging in agreement with the database, after a start and before the first
// request: uploads that ended while the process died are finished or dropped, and the view of the
// open ones is rebuilt. It may be repeated.
func (s *Service) Recover(ctx context.Context) error {
	const op = "ingest.Recover"
	for u := range s.Staging.All() {
		answer, err := s.DB.Answer(ctx, u.ID)
		switch {
		case errors.Is(err, upload.NotFound):
			s.putBack(ctx, u.ID)
			err = nil
		case err == nil && answer.State == upload.Complete && !answer.Instant:
			err = s.Staging.Commit(ctx, u.ID)
		case err == nil:
			err = s.Staging.Discard(ctx, u.ID)
		}
		if err != nil {
			return upload.Wrap(upload.Unavailable, op, u.ID, err)
		}
	}
	return upload.Wrap(upload.Unavailable, op, "", s.dropOrphanData(ctx))
}

// Run does the work beside the requests until ctx is done: the janitor's, and putting this node's uploads
// back into a view that has lost them.
func (s *Service) Run(ctx context.Context) error {
	var watching sync.WaitGroup
	defer watching.Wait()
	watching.Go(func() { s.View.Watch(ctx, s.putAllBack) })
	if s.opt.ScrubRate > 0 {
		watching.Go(func() { s.scrub(ctx) })
	}
	s.clean(ctx)
	return nil
}

// putAllBack makes all open uploads of this node known anew, several at a time: each waits for the view once or
// twice, and there may be a hundred thousand.
func (s *Service) putAllBack(ctx context.Context) error {
	group, ctx := errgroup.WithContext(ctx)
	group.SetLimit(16)
	for u := range s.Staging.All() {
		if ctx.Err() != nil {
			break
		}
		group.Go(func() error {
			if err := s.View.Put(ctx, u.ID, s.truth); err != nil && !errors.Is(err, upload.NotFound) {
				return err
			}
			return nil
		})
	}
	return group.Wait()
}

// clean is the janitor: it looks once per Options.Janitor until ctx is done. What fails is logged and
// tried again at the next round.
func (s *Service) clean(ctx context.Context) {
	tick := time.NewTicker(s.opt.Janitor)
	defer tick.Stop()
	lastSweep := s.Now()
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
		err := s.Clean(ctx)
		if now := s.Now(); now.Sub(lastSweep) >= s.opt.OrphanSweep || now.Before(lastSweep) {
			lastSweep = now
			err = errors.Join(err, s.Sweep(ctx))
		}
		if err != nil && ctx.Err() == nil {
			s.Log.Error("the janitor could not clean everything up; it will try again", "error", err)
		}
	}
}

// Clean is one round of the janitor: expired uploads, staging copies that a store has, blobs without
// files, old objects of moved blobs, expired answers, notes of deleted files, what ended direct uploads have in stores.
func (s *Service) Clean(ctx context.Context) error {
	err := errors.Join(s.expireUploads(ctx), s.dropStaged(ctx))
	if fence, leads := s.lead(); leads {
		err = errors.Join(err, s.collectBlobs(ctx, fence), s.dropMoved(ctx, fence), s.forgetAnswers(ctx), s.cleanDirect(ctx))
	}
	return err
}

// lead says whether this node does what one node does for all.
func (s *Service) lead() (meta.Fence, bool) {
	if s.Lead == nil {
		return meta.Fence{}, true
	}
	return s.Lead()
}

// Sweep deletes staging data and objects that no blob refers to: what crashes, power cuts and workers
// that lost their lease leave behind. It reads all names, so it is done seldom.
func (s *Service) Sweep(ctx context.Context) error {
	err := s.dropOrphanData(ctx)
	if _, leads := s.lead(); leads {
		err = errors.Join(err, s.dropOrphanObjects(ctx))
	}
	return err
}

func (s *Service) expireUploads(ctx context.Context) error {
	var errs []error
	before := s.Now().Add(-s.opt.UploadTTL)
	for u := range s.Staging.All() {
		if !u.UpdatedAt.Before(before) || ctx.Err() != nil {
			continue
		}
		if _, err := s.end(ctx, &openUpload{Upload: u}, meta.Answer{State: upload.Expired}); err != nil {
			errs = append(errs, err)
		}
	}
	return errors.Join(errs...)
}

// dropStaged deletes staging copies whose blob was verified in its store a grace time ago, or is being
// deleted. Those who are reading one go on reading.
func (s *Service) dropStaged(ctx context.Context) error {
	for {
		blobs, err := s.DB.Droppable(ctx, s.opt.Node, s.Now().Add(-s.opt.StageGrace), sweepBatch)
		if err != nil || len(blobs) == 0 {
			return err
		}
		for i := range blobs {
			if err := s.Staging.Discard(ctx, blobs[i].Staging); err != nil {
				return err
			}
			if err := s.DB.StagingDropped(ctx, blobs[i].ID); err != nil {
				return err
			}
		}
	}
}

// collectBlobs deletes blobs that no file has referred to for a grace time. The row goes last, so
// that a crash leaves it to be done again.
func (s *Service) collectBlobs(ctx context.Context, fence meta.Fence) error {
	q := meta.CollectQuery{Fence: fence, Limit: sweepBatch}
	if s.Lead != nil {
		q.Node = s.opt.Node // other nodes delete their own copies first
	}
	var errs []error
	for {
		now := s.Now()
		q.CondemnedBefore, q.Now = now.Add(-s.opt.DeleteGrace), now
		blobs, err := s.DB.Collect(ctx, q)
		if err != nil {
			return errors.Join(append(errs, err)...)
		}
		for i := range blobs {
			b := &blobs[i]
			if slices.Contains(q.Without, b.Store) {
				continue
			}
			err := s.deleteBlob(ctx, b)
			if err != nil && (b.Store == "" || ctx.Err() != nil) {
				return errors.Join(append(errs, err)...)
			}
			if err != nil { // a store that does not answer must not keep those of others
				errs, q.Without = append(errs, err), append(q.Without, b.Store)
			}
		}
		if len(blobs) < sweepBatch {
			return errors.Join(errs...)
		}
	}
}

func (s *Service) deleteBlob(ctx context.Context, b *upload.Blob) error {
	if err := s.deleteObject(ctx, meta.Place{Store: b.Store, Key: b.ObjectKey}); err != nil {
		return err
	}
	// Read now: none begins any more, and none switches. What cannot be deleted the sweep finds.
	moves, err := s.DB.Moves(ctx, meta.MoveQuery{BlobID: b.ID, Limit: sweepBatch})
	if err != nil {
		return err
	}
	for i := range moves {
		for _, at := range []meta.Place{moves[i].From, moves[i].To} {
			if err := s.deleteObject(ctx, at); err != nil && upload.KindOf(err) != upload.Unavailable {
				return err
			}
		}
	}
	if b.Store == "" {
		// A transfer that was stopped half way may have put an object that no row knows. What cannot be
		// deleted now the sweep finds.
		for _, st := range s.Stores {
			if err := st.Delete(ctx, upload.ObjectKeyFor(b)); err != nil && upload.KindOf(err) != upload.Unavailable {
				return err
			}
		}
	}
	if b.Staging != "" && b.Node == s.opt.Node {
		if err := s.Staging.Discard(ctx, b.Staging); err != nil {
			return err
		}
	}
	return s.DB.Deleted(ctx, b.ID)
}

// deleteObject deletes what is at a place, if it is one.
func (s *Service) deleteObject(ctx context.Context, at meta.Place) error {
	if at.Store == "" {
		return nil
	}
	st, ok := s.Stores[at.Store]
	if !ok {
		return upload.Errorf(upload.Unavailable, "ingest.deleteObject", at.Key,
			"The store %q is not configured. Keep it in the configuration until nothing is in it any more.", at.Store)
	}
	return st.Delete(ctx, at.Key)
}

// dropMoved deletes the objects that moves between stores have left, a grace time after the switch: who has
// looked up the old place goes on reading there. One store that is away does not keep the others'.
func (s *Service) dropMoved(ctx context.Context, fence meta.Fence) error {
	failed := map[string]error{} // by store
	for after := ""; ; {
		moves, err := s.DB.Leftovers(ctx, fence, s.Now().Add(-s.opt.DeleteGrace), after, sweepBatch)
		if err != nil {
			return err
		}
		for i := range moves {
			at := moves[i].Garbage()
			if failed[at.Store] != nil {
				continue
			}
			if err := s.deleteObject(ctx, at); err != nil {
				failed[at.Store] = err
				continue
			}
			if err := s.DB.ForgetMove(ctx, moves[i].ID); err != nil {
				return err
			}
		}
		if len(moves) < sweepBatch {
			return errors.Join(slices.Collect(maps.Values(failed))...)
		}
		after = moves[len(moves)-1].ID
	}
}

// deletedKept is for how long it is known which files were deleted: long after who follows has been told.
const deletedKept = time.Hour

func (s *Service) forgetAnswers(ctx context.Context) error {
	_, err := s.DB.ForgetAnswers(ctx, s.Now())
	return errors.Join(err, s.DB.ForgetDeleted(ctx, s.Now().Add(-deletedKept)))
}

// dropOrphanData deletes staging data that no blob refers to. The order matters: what is being
// written is looked at after the names were read and before the database is asked, so a file that is
// finished in between is known by then.
func (s *Service) dropOrphanData(ctx context.Context) error {
	ids, err := s.Staging.Data()
	if err != nil {
		return err
	}
	ids = slices.DeleteFunc(ids, s.writing.has)
	for batch := range slices.Chunk(ids, sweepBatch) {
		known, err := s.DB.KnownStaging(ctx, batch)
		if err != nil {
			return err
		}
		for _, id := range batch {
			if known[id] {
				continue
			}
			if err := s.Staging.Discard(ctx, id); err != nil {
				return err
			}
			s.Log.Info("dropped staging data that no file refers to", "upload_id", id)
		}
	}
	return nil
}

// dropOrphanObjects deletes objects that no blob refers to: left by a worker that lost its lease
// after it had put one.
func (s *Service) dropOrphanObjects(ctx context.Context) error {
	return s.eachOrphanObject(ctx, s.Now().Add(-orphanGrace).Unix(), func(name, key string, st store.Store) error {
		s.Log.Info("deleting an object that no blob refers to", "store", name, "key", key)
		return st.Delete(ctx, key)
	})
}

// eachOrphanObject calls f for every object made before the time given (Unix seconds) that belongs to
// no blob.
func (s *Service) eachOrphanObject(ctx context.Context, before int64, f func(name, key string, st store.Store) error) error {
	var errs []error
	for name, st := range s.Stores {
		errs = append(errs, s.eachOrphanOf(ctx, name, st, before, f))
	}
	return errors.Join(errs...)
}

func (s *Service) eachOrphanOf(ctx context.Context, name string, st store.Store, before int64, f func(name, key string, st store.Store) error) error {
	var keys []string
	check := func() error {
		known, err := s.DB.KnownObjects(ctx, name, keys)
		if err != nil {
			return err
		}
		for _, key := range keys {
			if known[key] {
				continue
			}
			if err := f(name, key, st); err != nil {
				return err
			}
		}
		keys = keys[:0]
		return nil
	}
	for object, err := range st.List(ctx) {
		if err != nil {
			return err
		}
		if object.Unix >= before {
			continue
		}
		if keys = append(keys, object.Key); len(keys) == sweepBatch {
			if err := check(); err != nil {
				return err
			}
		}
	}
	return check()
}
