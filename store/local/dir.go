package local

import (
	"sync"

	"gantry/internal/vfs"
)

// dir is one of the directories that objects are in.
type dir struct {
	name string

	making sync.Mutex
	made   bool // it is there, durably

	syncing sync.Mutex // held by the one who syncs
	mu      sync.Mutex
	next    *syncRound // the one that those who come now wait for
}

// syncRound is one SyncDir on behalf of all who asked for it before it began.
type syncRound struct {
	done chan struct{}
	err  error
}

// make makes the directory, once, and its name durable.
func (d *dir) make(tree vfs.FS) error {
	d.making.Lock()
	defer d.making.Unlock()
	if d.made {
		return nil
	}
	if err := tree.Mkdir(d.name, dirMode); err != nil {
		return err
	}
	// Also if it was there before: whoever made it may have died before it was durable.
	if err := tree.SyncDir("."); err != nil {
		return err
	}
	d.made = true
	return nil
}

// forget says that the directory may be gone.
func (d *dir) forget() {
	d.making.Lock()
	defer d.making.Unlock()
	d.made = false
}

// sync makes the names in the directory durable that were there when it was called. Calls that
// overlap share a SyncDir: one that was already going on might have missed the caller's name, the
// one after it has not.
func (d *dir) sync(tree vfs.FS) error {
	d.mu.Lock()
	if round := d.next; round != nil {
		d.mu.Unlock()
		<-round.done
		return round.err
	}
	round := &syncRound{done: make(chan struct{})}
	d.next = round
	d.mu.Unlock()

	d.syncing.Lock()
	defer d.syncing.Unlock()
	d.mu.Lock()
	d.next = nil
	d.mu.Unlock()
	defer close(round.done)
	round.err = tree.SyncDir(d.name)
	return round.err
}
