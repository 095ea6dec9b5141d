package disk

import (
	"sync"
	"time"

	"gantry/chunkstore"
	"gantry/internal/vfs"
	"gantry/upload"
)

// spaceAge is how old a reading of the free space may be.
const spaceAge = time.Second

// space knows how much room there is and how much of it is promised.
type space struct {
	fs      vfs.FS
	now     func() time.Time
	minFree int64

	mu       sync.Mutex
	read     time.Time // when total and free were read; zero: never
	total    int64
	free     int64 // less what was received since
	reserved int64
}

// refresh reads the free space if the last reading is old. mu is held.
func (s *space) refresh() error {
	now := s.now()
	if age := now.Sub(s.read); !s.read.IsZero() && age >= 0 && age < spaceAge {
		return nil
	}
	total, free, err := s.fs.Space()
	if err != nil {
		return err
	}
	s.read, s.total, s.free = now, total, free
	return nil
}

// promise keeps room free for n bytes; upload.NoRoom if the watermark would be passed.
func (s *space) promise(n int64) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if err := s.refresh(); err != nil {
		return err
	}
	if s.free-s.reserved-n < s.minFree {
		return upload.Errorf(upload.NoRoom, "", "", "The server's disk has no room for this file. Try again later.")
	}
	s.reserved += n
	return nil
}

// reserve keeps room free for n bytes of an upload that has been promised it.
func (s *space) reserve(n int64) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.reserved += n
}

// release gives up a promise.
func (s *space) release(n int64) { s.reserve(-n) }

// take is promise and used at once, for n bytes that are about to be written.
func (s *space) take(n int64) error {
	if err := s.promise(n); err != nil {
		return err
	}
	s.used(n, true)
	return nil
}

// used tells that n bytes were written, which had been promised or not.
func (s *space) used(n int64, promised bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.free -= n
	if promised {
		s.reserved -= n
	}
}

func (s *space) report(h *chunkstore.Health) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	err := s.refresh()
	h.Total, h.Free, h.Reserved = s.total, s.free, s.reserved
	h.Full = s.free-s.reserved <= s.minFree
	return err
}
