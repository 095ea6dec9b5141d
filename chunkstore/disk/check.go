package disk

import (
	"context"
	"errors"
	"io"
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

// verify deals with what an earlier process left of an upload, before anything is believed or
// promised about it. It does so once, whoever comes first.
func (s *Staging) verify(ctx context.Context, u *session) error {
	if !u.isPending() {
		return nil
	}
	if err := u.lock(ctx); err != nil {
		return err
	}
	defer u.unlock()
	return s.verifyLocked(ctx, u)
}

func (u *session) isPending() bool {
	u.mu.Lock()
	defer u.mu.Unlock()
	return u.pending
}

func (s *Staging) verifyLocked(ctx context.Context, u *session) error {
	u.mu.Lock()
	pending, suspect, sealed := u.pending, u.suspect, u.sealed != nil
	u.mu.Unlock()
	if !pending {
		return nil
	}
	h, err := s.acquire(u)
	if err != nil {
		return err
	}
	defer s.release(h)
	if suspect {
		bad, err := s.check(ctx, u, h, nil)
		if err != nil {
			return err
		}
		if len(bad) > 0 {
			s.opt.Log.Warn("chunks did not survive an unclean stop; they will be asked for again", "upload_id", u.spec.ID, "chunks", len(bad))
		}
	}
	if s.doubt {
		if err := s.rewrite(ctx, u, h); err != nil {
			return err
		}
	}
	if suspect {
		u.journalMu.Lock()
		err := s.appendRecords(u, h, record{kind: recordVerified, time: s.opt.Now()})
		u.journalMu.Unlock()
		if err != nil {
			return err
		}
	}
	// The process before this one may have died between writing and syncing.
	if sealed || s.opt.Durability == DurableChunk {
		if err := errors.Join(s.syncData(u, h), s.syncListed(u), s.syncJournal(u, h)); err != nil {
			return err
		}
	}
	u.mu.Lock()
	u.suspect, u.pending = false, false
	u.mu.Unlock()
	return nil
}

// rewrite writes journal and chunks over themselves. After a failed sync the system takes for
// written what is in its cache only; so it is made to write it again.
func (s *Staging) rewrite(ctx context.Context, u *session, h *handle) error {
	u.mu.Lock()
	chunks, layout := indexes(&u.received), u.layout()
	u.mu.Unlock()
	for _, index := range chunks {
		if err := writeAgain(ctx, h.data, layout.Offset(index), layout.Length(index)); err != nil {
			return err
		}
	}
	u.journalMu.Lock()
	defer u.journalMu.Unlock()
	return writeAgain(ctx, h.journal, 0, u.records*recordSize)
}

func writeAgain(ctx context.Context, f vfs.File, off, length int64) error {
	buf := getBuffer()
	defer buffers.Put(buf)
	for end := off + length; off < end; {
		if ctx.Err() != nil {
			return canceled(ctx)
		}
		p := buf[:min(bufferSize, end-off)]
		if n, err := f.ReadAt(p, off); n < len(p) {
			return upload.Wrap(upload.Unavailable, "", "", errors.Join(err, io.ErrUnexpectedEOF))
		}
		if _, err := f.WriteAt(p, off); err != nil {
			return upload.Wrap(diskKind(err), "", "", err)
		}
		off += int64(len(p))
	}
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
