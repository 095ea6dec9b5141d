package store

import (
	"context"
	"encoding/json"
	"sync"
)

// newLeast makes one progress out of several: what all have.
func newLeast(sent []int64, progress func(int64)) func(i int, n int64) {
	var mu sync.Mutex
	told := int64(-1)
	return func(i int, n int64) {
		mu.Lock()
		defer mu.Unlock()
		sent[i] = n
		least := sent[0]
		for _, s := range sent {
			least = min(least, s)
		}
		if progress != nil && least > told {
			told = least
			progress(least)
		}
	}
}

// shares divides a Checkpoint among several stores.
type shares struct {
	whole Checkpoint
	mu    sync.Mutex
	parts [][]byte
}

func newShares(whole Checkpoint, n int) *shares {
	s := &shares{whole: whole, parts: make([][]byte, n)}
	if whole == nil {
		return s
	}
	var kept [][]byte
	if json.Unmarshal(whole.Load(), &kept) == nil && len(kept) == n {
		s.parts = kept
	}
	return s
}

// of returns the share of one store; nil if there is nothing to be shared.
func (s *shares) of(i int) Checkpoint {
	if s.whole == nil {
		return nil
	}
	return share{s, i}
}

type share struct {
	*shares
	i int
}

func (s share) Load() []byte {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.parts[s.i]
}

func (s share) Save(ctx context.Context, state []byte) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.parts[s.i] = state
	all, err := json.Marshal(s.parts)
	if err != nil {
		return err
	}
	return s.whole.Save(ctx, all)
}
