package ingest

import "sync"

// keyLocks serializes requests with the same key. The zero value is ready.
type keyLocks struct {
	mu    sync.Mutex
	locks map[string]*keyLock
}

type keyLock struct {
	mu    sync.Mutex
	users int
}

// lock waits for its turn with key and returns the function that ends it. An empty key never waits.
func (k *keyLocks) lock(key string) (unlock func()) {
	if key == "" {
		return func() {}
	}
	k.mu.Lock()
	if k.locks == nil {
		k.locks = make(map[string]*keyLock)
	}
	l := k.locks[key]
	if l == nil {
		l = &keyLock{}
		k.locks[key] = l
	}
	l.users++
	k.mu.Unlock()
	l.mu.Lock()
	return func() {
		l.mu.Unlock()
		k.mu.Lock()
		if l.users--; l.users == 0 {
			delete(k.locks, key)
		}
		k.mu.Unlock()
	}
}

// idSet is a set of ids. The zero value is ready.
type idSet struct{ ids sync.Map }

func (s *idSet) add(id string)      { s.ids.Store(id, nil) }
func (s *idSet) remove(id string)   { s.ids.Delete(id) }
func (s *idSet) has(id string) bool { _, ok := s.ids.Load(id); return ok }
