package storetest

import (
	"context"
	"io"
	"sync"

	"gantry/store"
	"gantry/upload"
)

// Fault is a way in which a store misbehaves.
type Fault int

// The faults. Those of Put need a Put to happen, the others any call that they can befall.
const (
	PutTimesOut Fault = iota // Put succeeds and reports a time-out
	PutFlipsBit              // Put succeeds, with one bit changed
	PutCutsOff               // Put succeeds, without the last byte
	PutHidden                // Put succeeds, and from then on Size finds the object and reading it does not
	PutPanics                // Put panics
	Unavailable              // the call fails and nothing happens
	Full                     // Put fails: no room
	Refused                  // the call fails for good
)

// Faulty is a store that misbehaves on request. It is made by NewFaulty and safe for concurrent use.
type Faulty struct {
	store.Store

	mu      sync.Mutex
	down    bool
	faults  map[Fault]int
	hidden  map[string]bool
	putting map[string]int
	puts    []string
	deletes []string
	overlap bool
	before  func(ctx context.Context, key string) // see BeforePut
}

// NewFaulty wraps a store that is in order.
func NewFaulty(inner store.Store) *Faulty {
	return &Faulty{Store: inner, faults: map[Fault]int{}, hidden: map[string]bool{}, putting: map[string]int{}}
}

// Next makes the next n calls that the fault can befall misbehave.
func (f *Faulty) Next(fault Fault, n int) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.faults[fault] += n
}

// SetDown makes all calls fail with upload.Unavailable until it is called again with false.
func (f *Faulty) SetDown(down bool) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.down = down
}

// BeforePut has hook called at the beginning of each Put, once the store is seen to be up.
func (f *Faulty) BeforePut(hook func(ctx context.Context, key string)) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.before = hook
}

// Puts returns the keys that were put, in the order in which it was begun, those that failed too.
func (f *Faulty) Puts() []string {
	f.mu.Lock()
	defer f.mu.Unlock()
	return append([]string(nil), f.puts...)
}

// Deletes returns the keys that were deleted.
func (f *Faulty) Deletes() []string {
	f.mu.Lock()
	defer f.mu.Unlock()
	return append([]string(nil), f.deletes...)
}

// Overlapped reports whether there were ever two Puts of one key at a time.
func (f *Faulty) Overlapped() bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.overlap
}

// befalls reports whether a fault is due, and uses it up. Callers hold mu.
func (f *Faulty) befalls(fault Fault) bool {
	if f.faults[fault] == 0 {
		return false
	}
	f.faults[fault]--
	return true
}

// up returns the error of a call that does not come through.
func (f *Faulty) up(op, key string) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	switch {
	case f.down || f.befalls(Unavailable):
		return upload.Errorf(upload.Unavailable, op, key, "The store answers 503.")
	case f.befalls(Refused):
		return upload.Errorf(upload.Invalid, op, key, "The store refuses the credentials.")
	}
	return nil
}

// plan is what is to go wrong with one Put.
type plan struct {
	timesOut, flips, cuts, hides, panics, full bool
	before                                     func(ctx context.Context, key string)
}

func (f *Faulty) beginPut(key string) plan {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.puts = append(f.puts, key)
	if f.putting[key]++; f.putting[key] > 1 {
		f.overlap = true
	}
	delete(f.hidden, key)
	return plan{
		f.befalls(PutTimesOut), f.befalls(PutFlipsBit), f.befalls(PutCutsOff), f.befalls(PutHidden), f.befalls(PutPanics),
		f.befalls(Full), f.before,
	}
}

func (f *Faulty) endPut(key string, hides bool) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.putting[key]--
	if hides {
		f.hidden[key] = true
	}
}

// Put is part of store.Store.
func (f *Faulty) Put(ctx context.Context, key string, content store.Content, opt store.PutOptions) error {
	const op = "faulty.Put"
	if err := f.up(op, key); err != nil {
		return err
	}
	p := f.beginPut(key)
	defer f.endPut(key, p.hides)
	if p.before != nil {
		p.before(ctx, key)
	}
	switch {
	case p.panics:
		panic("the store's driver met a defect")
	case p.full:
		return upload.Errorf(upload.NoRoom, op, key, "The store is full.")
	case p.flips:
		content = flipped{content}
	case p.cuts:
		content = cut{content}
	}
	if err := f.Store.Put(ctx, key, content, opt); err != nil {
		return err
	}
	if p.timesOut {
		return upload.Wrap(upload.Timeout, op, key, context.DeadlineExceeded)
	}
	return nil
}

// flipped is content with the lowest bit of its first byte changed. It does not offer its file.
type flipped struct{ store.Content }

func (c flipped) ReadAt(p []byte, off int64) (int, error) {
	n, err := c.Content.ReadAt(p, off)
	if off == 0 && n > 0 {
		p[0] ^= 1
	}
	return n, err
}

// cut is content without its last byte. It does not offer its file.
type cut struct{ store.Content }

func (c cut) Size() int64 { return max(0, c.Content.Size()-1) }

func (f *Faulty) visible(op, key string) error {
	if err := f.up(op, key); err != nil {
		return err
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.hidden[key] {
		return upload.Errorf(upload.NotFound, op, key, "There is no such object.")
	}
	return nil
}

// Verify is part of store.Store.
func (f *Faulty) Verify(ctx context.Context, key string, want store.Digests) error {
	if err := f.visible("faulty.Verify", key); err != nil {
		return err
	}
	return f.Store.Verify(ctx, key, want)
}

// Open is part of store.Store.
func (f *Faulty) Open(ctx context.Context, key string, offset, length int64) (io.ReadCloser, error) {
	if err := f.visible("faulty.Open", key); err != nil {
		return nil, err
	}
	return f.Store.Open(ctx, key, offset, length)
}

// Size is part of store.Store.
func (f *Faulty) Size(ctx context.Context, key string) (int64, error) {
	if err := f.up("faulty.Size", key); err != nil {
		return 0, err
	}
	return f.Store.Size(ctx, key)
}

// Delete is part of store.Store.
func (f *Faulty) Delete(ctx context.Context, key string) error {
	if err := f.up("faulty.Delete", key); err != nil {
		return err
	}
	f.mu.Lock()
	f.deletes = append(f.deletes, key)
	f.mu.Unlock()
	return f.Store.Delete(ctx, key)
}
