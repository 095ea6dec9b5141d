package disk

import (
	"container/list"
	"errors"
	"sync"

	"gantry/internal/vfs"
	"gantry/upload"
)

// handle is the open files of an upload.
type handle struct {
	data, journal vfs.File

	// Guarded by handleCache.mu.
	users  int
	idle   *list.Element // in handleCache.idle while there are no users
	closed bool
}

func (h *handle) close() error { return errors.Join(h.data.Close(), h.journal.Close()) }

// handleCache keeps the files of a bounded number of idle uploads open.
type handleCache struct {
	max int

	mu   sync.Mutex
	idle list.List // of *handle, the last used in front
}

// use takes an open handle into use; false if it was closed meanwhile.
func (c *handleCache) use(h *handle) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	if h.closed {
		return false
	}
	h.users++
	if h.idle != nil {
		c.idle.Remove(h.idle)
		h.idle = nil
	}
	return true
}

// put ends a use. It returns a handle to close, if any.
func (c *handleCache) put(h *handle) *handle {
	c.mu.Lock()
	defer c.mu.Unlock()
	if h.users--; h.users > 0 {
		return nil
	}
	if h.closed { // retired while in use
		return h
	}
	h.idle = c.idle.PushFront(h)
	if c.idle.Len() <= c.max {
		return nil
	}
	oldest := c.idle.Remove(c.idle.Back()).(*handle)
	oldest.idle, oldest.closed = nil, true
	return oldest
}

// retire makes sure that a handle is not taken into use again. It reports whether the caller is to
// close it; otherwise its last user does.
func (c *handleCache) retire(h *handle) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	if h.closed {
		return false
	}
	h.closed = true
	if h.idle != nil {
		c.idle.Remove(h.idle)
		h.idle = nil
	}
	return h.users == 0
}

func (c *handleCache) close() error {
	var errs []error
	for {
		c.mu.Lock()
		front := c.idle.Front()
		if front == nil {
			c.mu.Unlock()
			return errors.Join(errs...)
		}
		h := c.idle.Remove(front).(*handle)
		h.idle, h.closed = nil, true
		c.mu.Unlock()
		errs = append(errs, h.close())
	}
}

// acquire returns the open files of an upload, creating them at their first use. The caller releases.
// upload.NotFound if the upload is gone.
func (s *Staging) acquire(u *session) (*handle, error) {
	u.filesMu.Lock()
	defer u.filesMu.Unlock()
	u.mu.Lock()
	gone := u.gone
	u.mu.Unlock()
	if gone {
		return nil, notFound("", u.spec.ID)
	}
	if u.files != nil && s.files.use(u.files) {
		return u.files, nil
	}
	const flags = vfs.Create | vfs.ReadWrite
	data, err := s.fs.OpenFile(u.spec.ID+dataSuffix, flags, 0o600)
	if err != nil {
		return nil, upload.Wrap(diskKind(err), "", u.spec.ID, err)
	}
	journal, err := s.fs.OpenFile(u.spec.ID+journalSuffix, flags, 0o600)
	if err != nil {
		return nil, upload.Wrap(diskKind(err), "", u.spec.ID, errors.Join(err, data.Close()))
	}
	u.files = &handle{data: data, journal: journal, users: 1}
	return u.files, nil
}

// release ends the use of a handle. What closing says is of no interest: a failed write-back is told
// by the sync that comes before anything is promised.
func (s *Staging) release(h *handle) {
	if unused := s.files.put(h); unused != nil {
		_ = unused.close()
	}
}

// retire closes the files of an upload that is gone, and keeps them from being opened again.
func (s *Staging) retire(u *session) {
	u.filesMu.Lock()
	defer u.filesMu.Unlock()
	if u.files != nil && s.files.retire(u.files) {
		_ = u.files.close()
	}
	u.files = nil
}
