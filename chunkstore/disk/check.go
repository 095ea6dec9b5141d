package disk

import (
	"context"
	"errors"
	"slices"
	"syscall"

	"gantry/internal/vfs"
	"gantry/upload"
)

// isDamage reports whether an error of ReadAt means that these bytes cannot be had any more.
func isDamage(err error) bool {
	return errors.Is(err, syscall.EIO)
}

// comparer is a file that compares what is written to it with what is there.
type comparer struct {
	file  vfs.File
	equal bool
}

// WriteAt compares and never writes.
func (c *comparer) WriteAt(p []byte, off int64) (int, error) {
	if !c.equal {
		return len(p), nil
	}
	equal, err := sameBytes(c.file, p, off)
	c.equal = equal
	return len(p), err
}

// Flush has nothing to do.
func (c *comparer) Flush(int64, int64) {}

// verify reads the chunks of an upload that was open when the machine stopped, before anything is
// believed about them. It does so once, whoever comes first.
func (s *Staging) verify(ctx context.Context, u *session) error {
	if !u.isSuspect() {
		return nil
	}
	if err := u.lock(ctx); err != nil {
		return err
	}
	defer u.unlock()
	return s.verifyLocked(ctx, u)
}

func (u *session) isSuspect() bool {
	u.mu.Lock()
	defer u.mu.Unlock()
	return u.suspect
}

func (s *Staging) verifyLocked(ctx context.Context, u *session) error {
	if !u.isSuspect() {
		return nil
	}
	h, err := s.acquire(u)
	if err != nil {
		return err
	}
	defer s.release(h)
	bad, err := s.check(ctx, u, h, nil)
	if err != nil {
		return err
	}
	if len(bad) > 0 {
		s.opt.Log.Warn("chunks did not survive an unclean stop; they will be asked for again", "upload_id", u.spec.ID, "chunks", len(bad))
	}
	u.journalMu.Lock()
	err = s.appendRecords(u, h, record{kind: recordVerified, time: s.opt.Now()})
	u.journalMu.Unlock()
	if err != nil {
		s.opt.Log.Warn("cannot record that an upload was verified; the next start does it again", "upload_id", u.spec.ID, "error", err)
	}
	u.mu.Lock()
	u.suspect = false
	u.mu.Unlock()
	return nil
}

// recheck is check by a caller that does not have the session locked.
func (s *Staging) recheck(ctx context.Context, u *session, which []int) ([]int, error) {
	if err := u.lock(ctx); err != nil {
		return nil, err
	}
	defer u.unlock()
	h, err := s.acquire(u)
	if err != nil {
		return nil, err
	}
	defer s.release(h)
	return s.check(ctx, u, h, which)
}

// check reads chunks (nil: all that are there), and drops and returns those that are not what was
// acknowledged. The session is locked.
func (s *Staging) check(ctx context.Context, u *session, h *handle, which []int) ([]int, error) {
	u.mu.Lock()
	if which == nil {
		which = indexes(&u.received)
	}
	crcs, layout := slices.Clone(u.crcs), u.layout()
	which = slices.DeleteFunc(slices.Clone(which), func(index int) bool { return !u.received.Has(index) })
	u.mu.Unlock()
	var bad []int
	for _, index := range which {
		crc, ok, err := readChunk(ctx, h.data, layout.Offset(index), layout.Length(index), nil)
		if err != nil {
			return nil, err
		}
		if !ok || crc != crcs[index] {
			bad = append(bad, index)
		}
	}
	return bad, s.drop(u, h, bad)
}

// Recheck is part of chunkstore.Staging.
func (s *Staging) Recheck(ctx context.Context, id string) ([]upload.Range, error) {
	const op = "chunkstore.Recheck"
	u, err := s.enter(op, id)
	if err != nil {
		return nil, err
	}
	defer s.leave()
	bad, err := s.recheck(ctx, u, nil)
	return ranges(bad), upload.Wrap(upload.Unavailable, op, id, err)
}

// ranges makes runs of indexes that are in order.
func ranges(list []int) []upload.Range {
	out := []upload.Range{}
	for _, index := range list {
		if last := len(out) - 1; last >= 0 && out[last].Last == index-1 {
			out[last].Last = index
			continue
		}
		out = append(out, upload.Range{First: index, Last: index})
	}
	return out
}
