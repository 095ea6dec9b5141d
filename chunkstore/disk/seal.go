package disk

import (
	"context"
	"crypto/sha1" // the field's look-up key, see upload.SHA1
	"errors"
	"io"

	"gantry/upload"
)

// Seal is part of chunkstore.Staging.
func (s *Staging) Seal(ctx context.Context, id string, size int64) (upload.Sealed, error) {
	const op = "chunkstore.Seal"
	u, err := s.enter(op, id)
	if err != nil {
		return upload.Sealed{}, err
	}
	defer s.leave()
	if err := u.lock(ctx); err != nil {
		return upload.Sealed{}, upload.Wrap(upload.Canceled, op, id, err)
	}
	defer u.unlock()
	sealed, err := s.seal(ctx, u, size)
	return sealed, upload.Wrap(upload.Unavailable, op, id, err)
}

func (s *Staging) seal(ctx context.Context, u *session, size int64) (upload.Sealed, error) {
	if err := s.verifyLocked(ctx, u); err != nil {
		return upload.Sealed{}, err
	}
	h, err := s.acquire(u)
	if err != nil {
		return upload.Sealed{}, err
	}
	defer s.release(h)
	if sealed, done, err := s.sealedBefore(u, h, size); done || err != nil {
		return sealed, err
	}
	if err := u.settleSize(size); err != nil {
		return upload.Sealed{}, err
	}
	// Those beyond a size that was not known when they began.
	u.stopReceptions(u.layout().Count())
	if err := s.checkTouched(ctx, u, h); err != nil {
		return upload.Sealed{}, err
	}
	if err := s.hashAll(ctx, u, h); err != nil {
		return upload.Sealed{}, err
	}
	if err := s.makeDurable(u, h); err != nil {
		return upload.Sealed{}, err
	}
	hint, err := hintOf(h.data, u.size)
	if err != nil {
		return upload.Sealed{}, err
	}
	return s.recordSeal(u, h, hint)
}

// sealedBefore returns what an earlier Seal did.
func (s *Staging) sealedBefore(u *session, h *handle, size int64) (upload.Sealed, bool, error) {
	u.mu.Lock()
	sealed, hinted, gone := u.sealed, u.hinted, u.gone
	u.mu.Unlock()
	if gone {
		return upload.Sealed{}, true, notFound("", u.spec.ID)
	}
	if sealed == nil {
		return upload.Sealed{}, false, nil
	}
	if size >= 0 && size != sealed.Size {
		return upload.Sealed{}, true, wrongSize(sealed.Size, size)
	}
	if !hinted { // by the process before this one
		hint, err := hintOf(h.data, sealed.Size)
		if err != nil {
			return upload.Sealed{}, true, err
		}
		u.mu.Lock()
		sealed = &upload.Sealed{Size: sealed.Size, SHA1: sealed.SHA1, CRC32C: sealed.CRC32C, Hint: hint}
		u.sealed, u.hinted = sealed, true
		u.mu.Unlock()
	}
	return *sealed, true, nil
}

func wrongSize(want, got int64) error {
	return upload.Errorf(upload.InvalidSize, "", "", "The upload has %d bytes, not %d. Complete it with the size it has, or send what is missing.", want, got)
}

// settleSize makes sure that all chunks are there. From then on a size that was not known is.
func (u *session) settleSize(size int64) error {
	u.mu.Lock()
	defer u.mu.Unlock()
	layout := u.layout()
	switch {
	case u.gone:
		return notFound("", u.spec.ID)
	case u.size >= 0 && size >= 0 && size != u.size:
		return wrongSize(u.size, size)
	case u.size < 0 && size < 0:
		// All chunks so far are full ones. The last may have been lost in a power cut: without the size
		// nobody would notice.
		return upload.Errorf(upload.InvalidSize, "", u.spec.ID, "The size of this upload is not known yet. Complete it with \"size\".")
	case u.size < 0:
		if size > u.spec.ChunkSize*upload.MaxChunks {
			return upload.Errorf(upload.InvalidSize, "", u.spec.ID, "With chunks of %d bytes a file has at most %d bytes. Choose larger ones for a new upload.", u.spec.ChunkSize, u.spec.ChunkSize*upload.MaxChunks)
		}
		layout.Size = size
		last := u.received.Last()
		if last >= layout.Count() || last >= 0 && layout.Length(last) != u.spec.ChunkSize {
			return wrongSize(u.bytes, size)
		}
	}
	if missing := u.received.Missing(layout.Count()); len(missing) > 0 {
		return incomplete(u.spec.ID, missing)
	}
	u.size = layout.Size
	return nil
}

func incomplete(id string, missing []upload.Range) error {
	return &upload.Error{Kind: upload.Incomplete, ID: id, Ranges: missing, Detail: "Some chunks are missing. Send them, then complete."}
}

// stillComplete reports chunks that were dropped since settleSize.
func (u *session) stillComplete() error {
	u.mu.Lock()
	defer u.mu.Unlock()
	if u.gone {
		return notFound("", u.spec.ID)
	}
	if missing := u.received.Missing(u.layout().Count()); len(missing) > 0 {
		return incomplete(u.spec.ID, missing)
	}
	return nil
}

// checkTouched reads all chunks if somebody else seems to have written to the data: every chunk is
// journalled after it was written, so the data is never the newer of the two.
func (s *Staging) checkTouched(ctx context.Context, u *session, h *handle) error {
	data, err := h.data.Stat()
	if err != nil {
		return err
	}
	journal, err := h.journal.Stat()
	if err != nil {
		return err
	}
	if !data.ModTime().After(journal.ModTime()) && data.Size() >= u.size {
		return nil
	}
	bad, err := s.check(ctx, u, h, nil)
	if err != nil {
		return err
	}
	if len(bad) > 0 {
		s.opt.Log.Warn("chunks were changed on disk after they had been received; they will be asked for again", "upload_id", u.spec.ID, "chunks", len(bad))
	}
	return u.stillComplete()
}

// hashAll waits until the hash has reached the end, and helps if nobody works on it.
func (s *Staging) hashAll(ctx context.Context, u *session, h *handle) error {
	for {
		u.mu.Lock()
		done, hashing := u.prefix.n == u.size, u.hashing
		u.mu.Unlock()
		if done {
			return u.stillComplete()
		}
		if hashing != nil {
			select {
			case <-hashing:
				continue
			case <-ctx.Done():
				return canceled(ctx)
			}
		}
		bad, _, err := s.hashChunk(ctx, u, h)
		if err != nil {
			return err
		}
		if bad >= 0 {
			if _, err := s.check(ctx, u, h, []int{bad}); err != nil {
				return err
			}
		}
		if err := u.stillComplete(); err != nil {
			return err
		}
	}
}

// makeDurable cuts the data to its size and puts it on stable storage.
func (s *Staging) makeDurable(u *session, h *handle) error {
	info, err := h.data.Stat()
	if err != nil {
		return err
	}
	if info.Size() > u.size { // by a chunk beyond a size that was not known then
		if err := h.data.Truncate(u.size); err != nil {
			return upload.Wrap(upload.Unavailable, "", "", err)
		}
	}
	if err := s.syncData(u, h); err != nil {
		return err
	}
	return s.syncListed(u)
}

// hintOf is the SHA-1 of the first upload.HintLength bytes.
func hintOf(f io.ReaderAt, size int64) (upload.SHA1, error) {
	buf := getBuffer()
	defer buffers.Put(buf)
	p := buf[:min(size, upload.HintLength)]
	if n, err := f.ReadAt(p, 0); n < len(p) {
		return upload.SHA1{}, upload.Wrap(upload.Unavailable, "", "", errors.Join(err, io.ErrUnexpectedEOF))
	}
	return sha1.Sum(p), nil
}

// recordSeal is the step after which the upload takes no more chunks.
func (s *Staging) recordSeal(u *session, h *handle, hint upload.SHA1) (upload.Sealed, error) {
	u.mu.Lock()
	p := u.prefix
	u.mu.Unlock()
	sum, err := p.sum()
	if err != nil {
		return upload.Sealed{}, err
	}
	sealed := upload.Sealed{Size: p.n, SHA1: sum, Hint: hint, CRC32C: p.crc}
	u.journalMu.Lock()
	err = s.appendRecords(u, h, record{kind: recordSealed, prefix: p, time: s.opt.Now()})
	u.journalMu.Unlock()
	if err != nil {
		return upload.Sealed{}, err
	}
	if err := s.syncJournal(u, h); err != nil {
		return upload.Sealed{}, err
	}
	u.mu.Lock()
	defer u.mu.Unlock()
	if u.gone {
		return upload.Sealed{}, notFound("", u.spec.ID)
	}
	u.sealed, u.hinted, u.settled = &sealed, true, true
	return sealed, nil
}
