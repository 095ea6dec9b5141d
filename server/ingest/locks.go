package ingest

import (
	"context"
	"sync"
	"time"

	"gantry/upload"
)

// keyWait is how long a request waits for another one with the same key. It is shorter than the time
// in which a body has to move: the body of the one that waits is not being read.
const keyWait = 10 * time.Second

// keyLocks serializes requests with the same key. The zero value is ready.
type keyLocks struct {
	mu    sync.Mutex
	locks map[string]*keyLock
}

type keyLock struct {
	turn  chan struct{} // has room while nobody has the lock
	users int
}

// lock waits for its turn with key and returns the function that ends it. An empty key never waits.
// upload.Unavailable if it took too long: whoever has the lock may be a slow client, and requests that
// wait for one must not pile up.
func (k *keyLocks) lock(ctx context.Context, key string) (unlock func(), err error) {
	if key == "" {
		return func() {}, nil
	}
	k.mu.Lock()
	if k.locks == nil {
		k.locks = make(map[string]*keyLock)
	}
	l := k.locks[key]
	if l == nil {
		l = &keyLock{turn: make(chan struct{}, 1)}
		k.locks[key] = l
	}
	l.users++
	k.mu.Unlock()
	if err := l.wait(ctx); err != nil {
		k.leave(key, l)
		return nil, err
	}
	return func() {
		<-l.turn
		k.leave(key, l)
	}, nil
}

func (l *keyLock) wait(ctx context.Context) error {
	select {
	case l.turn <- struct{}{}:
		return nil
	default:
	}
	patience := time.NewTimer(keyWait)
	defer patience.Stop()
	select {
	case l.turn <- struct{}{}:
		return nil
	case <-ctx.Done():
		return upload.Wrap(upload.Canceled, "", "", ctx.Err())
	case <-patience.C:
		return upload.Errorf(upload.Unavailable, "", "", "Another request with this Idempotency-Key is still under way. Try again when it has ended.")
	}
}

// leave forgets a lock that nobody uses any more.
func (k *keyLocks) leave(key string, l *keyLock) {
	k.mu.Lock()
	defer k.mu.Unlock()
	if l.users--; l.users == 0 {
		delete(k.locks, key)
	}
}

// idSet is a set of ids. The zero value is ready.
type idSet struct{ ids sync.Map }

func (s *idSet) add(id string)      { s.ids.Store(id, nil) }
func (s *idSet) remove(id string)   { s.ids.Delete(id) }
func (s *idSet) has(id string) bool { _, ok := s.ids.Load(id); return ok }
