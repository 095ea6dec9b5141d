package disk

import (
	"context"
	"errors"
	"sync"

	"gantry/upload"
)

// pool runs background work on sessions, by a bounded number of goroutines that end when there is
// nothing to do.
type pool struct {
	max    int
	cancel context.CancelFunc
	work   func(*session)

	mu      sync.Mutex
	queue   []*session
	running int
	closed  bool
	wg      sync.WaitGroup
}

func newPool(workers int, cancel context.CancelFunc, work func(*session)) *pool {
	return &pool{max: workers, cancel: cancel, work: work}
}

func (p *pool) add(u *session) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.closed {
		return
	}
	p.queue = append(p.queue, u)
	if p.running < p.max {
		p.running++
		p.wg.Go(p.run)
	}
}

func (p *pool) run() {
	for {
		p.mu.Lock()
		if len(p.queue) == 0 || p.closed {
			p.running--
			p.mu.Unlock()
			return
		}
		u := p.queue[0]
		p.queue = p.queue[1:]
		p.mu.Unlock()
		p.work(u)
	}
}

// stop interrupts the work; wait waits for its end.
func (p *pool) stop() {
	p.mu.Lock()
	p.closed = true
	p.mu.Unlock()
	p.cancel()
}

func (p *pool) wait() { p.wg.Wait() }

// schedule queues an upload that has background work. mu is held.
func (s *Staging) schedule(u *session) {
	if u.queued || u.gone {
		return
	}
	if _, _, ok := u.next(); !u.pending && (!ok || u.hashing != nil) {
		return
	}
	u.queued = true
	s.pool.add(u)
}

// catchUp is the background work on an upload: it verifies what a power cut may have touched, and
// hashes the chunks that came before it was their turn.
func (s *Staging) catchUp(ctx context.Context, u *session) {
	u.mu.Lock()
	u.queued = false
	u.mu.Unlock()
	err := s.verify(ctx, u)
	if err == nil {
		err = s.hashOn(ctx, u)
	}
	if err != nil && ctx.Err() == nil && !errors.Is(err, upload.NotFound) {
		s.opt.Log.Warn("cannot hash an upload beside; complete will", "upload_id", u.spec.ID, "error", err)
	}
}

// hashOn extends the hashed prefix as far as the chunks go, unless somebody else does.
func (s *Staging) hashOn(ctx context.Context, u *session) error {
	h, err := s.acquire(u)
	if err != nil {
		return err
	}
	defer s.release(h)
	for {
		bad, more, err := s.hashChunk(ctx, u, h)
		if err != nil {
			return err
		}
		if bad >= 0 {
			if _, err := s.recheck(ctx, u, []int{bad}); err != nil {
				return err
			}
		}
		if !more {
			return nil
		}
	}
}

// hashChunk extends the hashed prefix by one chunk that is on disk. It returns the index of a chunk
// that turned out not to be what was acknowledged, or -1, and whether there may be more to do.
func (s *Staging) hashChunk(ctx context.Context, u *session, h *handle) (bad int, more bool, err error) {
	u.mu.Lock()
	index, length, ok := u.next()
	if !ok || u.hashing != nil {
		u.mu.Unlock()
		return -1, false, nil
	}
	u.hashing = make(chan struct{})
	start, crc := u.prefix, u.crcs[index]
	u.mu.Unlock()
	defer func() {
		u.mu.Lock()
		defer u.mu.Unlock()
		u.releaseHashing()
	}()
	sum, err := start.hash()
	if err != nil {
		return -1, false, err
	}
	got, ok, err := readChunk(ctx, h.data, start.n, length, sum)
	if err != nil {
		return -1, false, err
	}
	if !ok || got != crc {
		return index, true, nil
	}
	return -1, true, s.extend(u, h, start.n, start.extended(sum, crc, length), index)
}

// extend journals a longer prefix, unless what it stands on was dropped meanwhile.
func (s *Staging) extend(u *session, h *handle, from int64, longer prefix, index int) error {
	u.journalMu.Lock()
	defer u.journalMu.Unlock()
	u.mu.Lock()
	holds := !u.gone && u.prefix.n == from && u.received.Has(index)
	u.mu.Unlock()
	if !holds {
		return nil
	}
	if err := s.appendRecords(u, h, record{kind: recordHash, prefix: longer, time: s.opt.Now()}); err != nil {
		return err
	}
	u.mu.Lock()
	defer u.mu.Unlock()
	u.prefix = longer
	return nil
}
