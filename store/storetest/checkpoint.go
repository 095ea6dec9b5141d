package storetest

import (
	"context"
	"slices"
	"sync"

	"gantry/store"
	"gantry/upload"
)

// Checkpoint is a store.Checkpoint in memory. The zero value is empty. It is safe for concurrent use.
type Checkpoint struct {
	mu    sync.Mutex
	state []byte
}

var _ store.Checkpoint = (*Checkpoint)(nil)

// Load returns what was saved last.
func (c *Checkpoint) Load() []byte {
	c.mu.Lock()
	defer c.mu.Unlock()
	return slices.Clone(c.state)
}

// Save keeps the state. It refuses more than a Checkpoint has to keep.
func (c *Checkpoint) Save(ctx context.Context, state []byte) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	if len(state) > store.MaxCheckpoint {
		return upload.Errorf(upload.Invalid, "storetest.Save", "", "A checkpoint has at most %d bytes.", store.MaxCheckpoint)
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	c.state = slices.Clone(state)
	return nil
}
