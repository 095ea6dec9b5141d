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

	mu   sync.Mutex
	last *syncRound // begun last, or about to begin
	next *syncRound // about to begin: those who come now wait for it
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
	round, before := &syncRound{done: make(chan struct{})}, d.last
	d.next, d.last = round, round
	d.mu.Unlock()

	if before != nil {
		<-before.done // gathers company meanwhile
	}
	d.mu.Lock()
	d.next = nil
	d.mu.Unlock()
	defer close(round.done)
	round.err = tree.SyncDir(d.name)
	return round.err
}
