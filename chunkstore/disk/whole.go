package disk

import (
	"context"
	"crypto/sha1" // the field's look-up key, see upload.SHA1
	"errors"
	"hash"
	"io/fs"

	"gantry/chunkstore"
	"gantry/internal/vfs"
	"gantry/upload"
)

// WriteWhole is part of chunkstore.Staging.
func (s *Staging) WriteWhole(ctx context.Context, id string, body chunkstore.Body, limit int64) (upload.Sealed, error) {
	const op = "chunkstore.WriteWhole"
	if _, ok := upload.ParseUploadID(id); !ok {
		return upload.Sealed{}, upload.Errorf(upload.Invalid, op, id, "This is not the id of an upload.")
	}
	if err := s.enterAny(op, id); err != nil {
		return upload.Sealed{}, err
	}
	defer s.leave()
	sealed, err := s.writeWhole(ctx, id, &body, limit)
	return sealed, upload.Wrap(upload.Unavailable, op, id, err)
}

func (s *Staging) writeWhole(ctx context.Context, id string, body *chunkstore.Body, limit int64) (upload.Sealed, error) {
	if err := s.writable("", id); err != nil {
		return upload.Sealed{}, err
	}
	if s.lookup(id) != nil {
		return upload.Sealed{}, upload.Errorf(upload.Conflict, "", id, "There is an upload with this id already.")
	}
	if body.Length > limit {
		return upload.Sealed{}, upload.Errorf(upload.TooLarge, "", id, "The file is larger than this server takes: %d bytes at most. Send it in parts, or ask for a higher limit.", limit)
	}
	if err := s.space.promise(max(body.Length, 0)); err != nil {
		return upload.Sealed{}, err
	}
	w := &whole{limit: limit, sum: sha1.New()}
	err := s.fill(ctx, id, body, w)
	s.space.release(max(body.Length, 0))
	if err != nil {
		return upload.Sealed{}, err
	}
	if body.Length >= 0 {
		s.space.used(w.n, false)
	}
	sealed := upload.Sealed{Size: w.n, SHA1: upload.SHA1(w.sum.Sum(nil)), Hint: w.hint, CRC32C: w.crc}
	if sealed.Size <= upload.HintLength {
		sealed.Hint = sealed.SHA1
	}
	return sealed, nil
}

// whole is what became of a body.
type whole struct {
	limit int64
	sum   hash.Hash
	hint  upload.SHA1
	crc   uint32
	n     int64
}

// fill writes the data file; after a failure there is none.
func (s *Staging) fill(ctx context.Context, id string, body *chunkstore.Body, w *whole) error {
	name := id + dataSuffix
	if body.Abort != nil && ctx.Done() != nil {
		defer context.AfterFunc(ctx, body.Abort)()
	}
	// The file is made when the first bytes are there: a small one that never comes costs nothing.
	f := &lateFile{open: func() (vfs.File, error) {
		return s.fs.OpenFile(name, vfs.Create|vfs.Excl|vfs.ReadWrite, 0o600)
	}}
	if body.Length < 0 {
		// Room for a body of unknown length is looked for as it comes. What is promised to open
		// uploads is theirs, however long this one gets.
		f.room = s.space.take
	}
	in := intake{body: body, length: body.Length, limit: w.limit, file: f, sum: w.sum}
	in.first = func(p []byte) {
		if len(p) > upload.HintLength { // else it is all there is, and hashed anyway
			w.hint = upload.SumSHA1(p[:upload.HintLength])
		}
	}
	err := in.run(ctx)
	if err == nil && in.n == 0 {
		err = f.make()
	}
	if err == nil {
		if err = f.file.Sync(); err != nil {
			reason := "The staging disk failed to write data."
			s.degraded.Store(&reason)
			s.distrust()
			err = upload.Wrap(upload.Unavailable, "", id, err)
		} else {
			s.degraded.Store(nil)
		}
	}
	if f.file == nil {
		return err
	}
	err = errors.Join(err, f.file.Close())
	if err == nil {
		err = upload.Wrap(upload.Unavailable, "", id, s.syncEntries())
	}
	if err != nil {
		return errors.Join(err, s.remove(name))
	}
	w.crc, w.n = in.crc, in.n
	return nil
}

// lateFile is opened at the first write.
type lateFile struct {
	open func() (vfs.File, error)
	room func(n int64) error // asked before every write; nil: all is promised
	file vfs.File
}

func (l *lateFile) make() error {
	if l.file != nil {
		return nil
	}
	f, err := l.open()
	if errors.Is(err, fs.ErrExist) {
		return &upload.Error{Kind: upload.Conflict, Detail: "There is data with this id already.", Err: err}
	}
	if err != nil {
		return err
	}
	l.file = f
	return nil
}

// WriteAt is part of target.
func (l *lateFile) WriteAt(p []byte, off int64) (int, error) {
	if l.room != nil {
		if err := l.room(int64(len(p))); err != nil {
			return 0, err
		}
	}
	if err := l.make(); err != nil {
		return 0, err
	}
	return l.file.WriteAt(p, off)
}

// Flush is part of target. A file of a few buffers is synced so soon that it would only cost.
func (l *lateFile) Flush(off, n int64) {
	if off+n > flushStep {
		l.file.Flush(off, n)
	}
}
