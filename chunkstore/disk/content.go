package disk

import (
	"context"
	"errors"
	"io"
	"io/fs"
	"strings"

	"gantry/chunkstore"
	"gantry/internal/vfs"
	"gantry/upload"
)

// content is the data of an upload, or the beginning of it. It stays readable when the file is
// deleted.
type content struct {
	file vfs.File
	size int64
}

// sealedContent is that of a sealed or committed upload: a file on stable storage that nobody writes to
// any more. It offers the file, so that a store on the same disk may link it instead of copying.
type sealedContent struct{ content }

// File is what store.Filer asks for.
func (c *sealedContent) File() vfs.File { return c.file }

// Close is part of io.Closer.
func (c *content) Close() error { return c.file.Close() }

// Size is part of chunkstore.Content.
func (c *content) Size() int64 { return c.size }

// ReadAt is part of io.ReaderAt.
func (c *content) ReadAt(p []byte, off int64) (int, error) {
	if off >= c.size {
		return 0, io.EOF
	}
	if room := c.size - off; int64(len(p)) > room {
		n, err := c.file.ReadAt(p[:room], off)
		if err == nil {
			err = io.EOF
		}
		return n, err
	}
	return c.file.ReadAt(p, off)
}

// empty is content of no bytes.
type empty struct{}

func (empty) ReadAt([]byte, int64) (int, error) { return 0, io.EOF }
func (empty) Close() error                      { return nil }
func (empty) Size() int64                       { return 0 }

// Open is part of chunkstore.Staging.
func (s *Staging) Open(ctx context.Context, id string) (chunkstore.Content, error) {
	const op = "chunkstore.Open"
	if _, ok := upload.ParseUploadID(id); !ok {
		return nil, notFound(op, id)
	}
	if err := s.enterAny(op, id); err != nil {
		return nil, err
	}
	defer s.leave()
	size, sealed := int64(-1), true // all
	if u := s.lookup(id); u != nil && !u.committed.Load() {
		if err := s.verify(ctx, u); err != nil {
			return nil, upload.Wrap(upload.Unavailable, op, id, err)
		}
		u.mu.Lock()
		gone := u.gone
		size, sealed = u.prefix.n, u.sealed != nil
		u.mu.Unlock()
		switch {
		case u.committed.Load():
			size, sealed = -1, true
		case gone:
			return nil, notFound(op, id)
		case size == 0:
			return empty{}, nil
		}
	}
	c, err := openData(op, s.fs, id, size)
	if err != nil {
		return nil, err
	}
	if sealed {
		return &sealedContent{*c}, nil
	}
	return c, nil
}

// openData opens the first size bytes of an upload's data; -1: all.
func openData(op string, fsys vfs.FS, id string, size int64) (*content, error) {
	f, err := fsys.OpenFile(id+dataSuffix, vfs.ReadOnly, 0)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return nil, notFound(op, id)
	case err != nil:
		return nil, upload.Wrap(upload.Unavailable, op, id, err)
	}
	if size < 0 {
		info, err := f.Stat()
		if err != nil {
			return nil, upload.Wrap(upload.Unavailable, op, id, errors.Join(err, f.Close()))
		}
		size = info.Size()
	}
	return &content{f, size}, nil
}

// Commit is part of chunkstore.Staging.
func (s *Staging) Commit(ctx context.Context, id string) error {
	const op = "chunkstore.Commit"
	if _, ok := upload.ParseUploadID(id); !ok {
		return notFound(op, id)
	}
	if err := s.enterAny(op, id); err != nil {
		return err
	}
	defer s.leave()
	u := s.lookup(id)
	if u == nil {
		_, err := s.fs.Stat(id + dataSuffix)
		if errors.Is(err, fs.ErrNotExist) {
			return notFound(op, id)
		}
		return upload.Wrap(upload.Unavailable, op, id, err)
	}
	u.committed.Store(true) // from now on its data is read as a blob's, also while the rest is removed
	return upload.Wrap(upload.Unavailable, op, id, s.finish(ctx, u, manifestSuffix, journalSuffix))
}

// Discard is part of chunkstore.Staging.
func (s *Staging) Discard(ctx context.Context, id string) error {
	const op = "chunkstore.Discard"
	if _, ok := upload.ParseUploadID(id); !ok {
		return nil
	}
	if err := s.enterAny(op, id); err != nil {
		return err
	}
	defer s.leave()
	// The manifest goes first: what a crash leaves of the others is no open upload any more.
	files := []string{manifestSuffix, journalSuffix, dataSuffix}
	if u := s.lookup(id); u != nil {
		return upload.Wrap(upload.Unavailable, op, id, s.finish(ctx, u, files...))
	}
	if err := s.removeFiles(id, files...); err != nil {
		return upload.Wrap(upload.Unavailable, op, id, err)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.damaged, id)
	return nil
}

func (s *Staging) removeFiles(id string, suffixes ...string) error {
	for _, suffix := range suffixes {
		if err := s.remove(id + suffix); err != nil {
			return err
		}
	}
	return nil
}

// finish ends an upload and removes some of its files. If that fails it can be called again; to all
// others the upload is gone from the first call on.
func (s *Staging) finish(ctx context.Context, u *session, suffixes ...string) error {
	u.mu.Lock()
	u.gone = true
	u.mu.Unlock()
	u.stopReceptions(0)
	if err := u.lock(ctx); err != nil { // a Seal or check that goes on
		return err
	}
	defer u.unlock()
	u.mu.Lock()
	if !u.released {
		u.released = true
		s.space.release(u.promised)
	}
	u.mu.Unlock()
	s.retire(u)
	if err := s.removeFiles(u.spec.ID, suffixes...); err != nil {
		return err
	}
	s.forget(u.spec.ID)
	return nil
}

// Data is part of chunkstore.Staging.
func (s *Staging) Data() ([]string, error) {
	const op = "chunkstore.Data"
	if err := s.enterAny(op, ""); err != nil {
		return nil, err
	}
	defer s.leave()
	entries, err := s.fs.ReadDir(".")
	if err != nil {
		return nil, upload.Wrap(upload.Unavailable, op, "", err)
	}
	s.mu.RLock()
	defer s.mu.RUnlock()
	var ids []string
	for _, entry := range entries {
		id, ok := strings.CutSuffix(entry.Name(), dataSuffix)
		if _, isID := upload.ParseUploadID(id); !ok || !isID || s.damaged[id] {
			continue
		}
		if _, open := s.open[id]; !open {
			ids = append(ids, id)
		}
	}
	return ids, nil
}
