package disk

import (
	"bytes"
	"context"
	"errors"
	"hash"
	"hash/crc32"
	"io"
	"time"

	"gantry/chunkstore"
	"gantry/upload"
)

// WriteChunk is part of chunkstore.Staging.
func (s *Staging) WriteChunk(ctx context.Context, id string, index int, body chunkstore.Body) error {
	const op = "chunkstore.WriteChunk"
	u, err := s.enter(op, id)
	if err != nil {
		return err
	}
	defer s.leave()
	return upload.Wrap(upload.Unavailable, op, id, s.writeChunk(ctx, u, index, &body))
}

func (s *Staging) writeChunk(ctx context.Context, u *session, index int, body *chunkstore.Body) error {
	if err := s.verify(ctx, u); err != nil {
		return err
	}
	for {
		if err := s.writable("", u.spec.ID); err != nil {
			return err
		}
		fresh, other, err := u.begin(index, body)
		switch {
		case err != nil:
			return err
		case fresh != nil:
			return s.receive(ctx, u, fresh, body)
		case other == nil:
			return s.compare(ctx, u, index, body)
		}
		if err := s.await(ctx, other); err != nil {
			return err
		}
	}
}

// await waits until another request has ended that sends the same chunk. If nothing comes from it
// for a while it is stopped: its client has probably lost the connection, and this is the repeat.
func (s *Staging) await(ctx context.Context, other *reception) error {
	tick := time.NewTicker(s.opt.StallAfter)
	defer tick.Stop()
	seen := other.progress.Load()
	for {
		select {
		case <-other.done:
			return nil
		case <-ctx.Done():
			return canceled(ctx)
		case <-tick.C:
			now := other.progress.Load()
			if now == seen {
				other.stop()
			}
			seen = now
		}
	}
}

// receive takes a new chunk in.
func (s *Staging) receive(ctx context.Context, u *session, r *reception, body *chunkstore.Body) (err error) {
	defer func() {
		u.mu.Lock()
		defer u.mu.Unlock()
		u.end(r)
		s.schedule(u)
	}()
	if u.spec.Size < 0 {
		if err := s.space.promise(r.length); err != nil {
			return err
		}
		defer s.space.release(r.length)
	}
	h, err := s.acquire(u)
	if err != nil {
		return err
	}
	defer s.release(h)
	if ctx.Done() != nil && r.abort != nil {
		defer context.AfterFunc(ctx, r.stop)()
	}
	in := intake{
		body: body, length: r.length, file: h.data, off: u.spec.ChunkSize * int64(r.index),
		progress: &r.progress, stopped: r.stopped.Load,
	}
	if r.hashes {
		if in.sum, err = r.prefix.hash(); err != nil {
			return err
		}
	}
	err = in.run(ctx)
	r.read.Store(true)
	if err != nil {
		if r.stopped.Load() && !u.isOpen() { // which is why it was stopped
			return notFound("", u.spec.ID)
		}
		return err
	}
	return s.acknowledge(u, h, r, &in)
}

// acknowledge journals a chunk whose bytes are in place. When it returns nil the chunk is there.
func (s *Staging) acknowledge(u *session, h *handle, r *reception, in *intake) error {
	durable := s.opt.Durability == DurableChunk
	if durable {
		if err := s.syncData(u, h); err != nil {
			return err
		}
		if err := s.syncListed(u); err != nil {
			return err
		}
	}
	rec := record{kind: recordChunk, durable: durable, index: r.index, length: r.length, crc: in.crc, time: s.opt.Now()}
	if err := s.journalChunk(u, h, r, &rec, in.sum); err != nil {
		return err
	}
	if durable {
		if err := s.syncJournal(u, h); err != nil {
			return err
		}
		u.acknowledged(r, &rec)
	}
	s.space.used(r.length, u.spec.Size >= 0)
	return nil
}

// journalChunk appends the chunk's record. Where the record need not be synced first, memory follows
// while the journal is still locked, so that a failed sync of the data finds every chunk it concerns.
func (s *Staging) journalChunk(u *session, h *handle, r *reception, rec *record, sum hash.Hash) error {
	u.journalMu.Lock()
	defer u.journalMu.Unlock()
	u.mu.Lock()
	size, top := u.size, u.top
	u.mu.Unlock()
	err := u.admit(r, rec, func(p prefix) prefix { return p.extended(sum, rec.crc, rec.length) })
	if err != nil {
		return err
	}
	if err := s.appendRecords(u, h, *rec); err != nil {
		u.mu.Lock()
		u.size, u.top = size, top // nobody else was admitted meanwhile: the journal is locked
		u.mu.Unlock()
		return err
	}
	if !rec.durable {
		u.acknowledged(r, rec)
	}
	return nil
}

// compare reads a chunk that is there already. The same bytes are welcome; others are a conflict,
// unless it is the disk that changed: then the chunk is dropped, to be sent again.
func (s *Staging) compare(ctx context.Context, u *session, index int, body *chunkstore.Body) error {
	h, err := s.acquire(u)
	if err != nil {
		return err
	}
	defer s.release(h)
	if ctx.Done() != nil && body.Abort != nil {
		defer context.AfterFunc(ctx, body.Abort)()
	}
	off := u.spec.ChunkSize * int64(index)
	there := &comparer{file: h.data, equal: true}
	in := intake{body: body, length: body.Length, file: there, off: off}
	if err := in.run(ctx); err != nil {
		return err
	}
	if there.equal {
		return nil
	}
	if bad, err := s.recheck(ctx, u, []int{index}); err != nil {
		return err
	} else if len(bad) > 0 {
		return upload.Errorf(upload.Unavailable, "", u.spec.ID, "Chunk %d was damaged on the server's disk. Send it again.", index)
	}
	return upload.Errorf(upload.ChunkConflict, "", u.spec.ID, "Chunk %d is there already with other bytes. Begin a new upload for another file.", index)
}

// readChunk reads a chunk from disk into h (nil: not wanted) and returns its CRC. A chunk that cannot
// be read whole is as bad as one with wrong bytes: ok is false.
func readChunk(ctx context.Context, f io.ReaderAt, off, length int64, h hash.Hash) (crc uint32, ok bool, err error) {
	buf := getBuffer()
	defer buffers.Put(buf)
	for end := off + length; off < end; {
		if ctx.Err() != nil {
			return 0, false, canceled(ctx)
		}
		p := buf[:min(bufferSize, end-off)]
		if n, err := f.ReadAt(p, off); n < len(p) {
			if errors.Is(err, io.EOF) || isDamage(err) {
				return 0, false, nil
			}
			return 0, false, upload.Wrap(upload.Unavailable, "", "", err)
		}
		crc = crc32.Update(crc, upload.Castagnoli, p)
		if h != nil {
			h.Write(p)
		}
		off += int64(len(p))
	}
	return crc, true, nil
}

// sameBytes compares p with what a file has at off.
func sameBytes(f io.ReaderAt, p []byte, off int64) (bool, error) {
	buf := getBuffer()
	defer buffers.Put(buf)
	there := buf[:len(p)]
	if n, err := f.ReadAt(there, off); n < len(p) {
		if errors.Is(err, io.EOF) || isDamage(err) {
			return false, nil
		}
		return false, err
	}
	return bytes.Equal(p, there), nil
}
