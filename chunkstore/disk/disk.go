// Package disk keeps open uploads on a node's own disk: for each a data file, which every chunk is
// written to at its own place, a manifest with what init decided, and a journal of the chunks that
// are there. Manifest, journal and data are the truth; what is in memory is read from them at start.
//
// An acknowledged chunk survives the death of the process at any moment. After a power cut every
// chunk that was not known to be on stable storage is compared with its CRC before it is believed,
// and reported missing if it is not right: a chunk may have to be sent again, but wrong bytes are
// never taken for right ones.
//
// # Locks
//
// A session (an open upload) has four, taken in this order: op (one Seal, check, Commit or Discard at
// a time), journalMu (the order of records, and what is in memory follows it), filesMu (opening), mu
// (its fields; held briefly, never over I/O). Those of Staging itself are taken last and alone.
package disk

import (
	"cmp"
	"context"
	"errors"
	"io/fs"
	"iter"
	"log/slog"
	"runtime"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"gantry/chunkstore"
	"gantry/internal/vfs"
	"gantry/upload"
)

// Durability says what an acknowledged chunk survives.
type Durability string

const (
	// DurableComplete syncs at complete. Chunks acknowledged shortly before a power cut may have to be
	// sent again.
	DurableComplete Durability = "complete"
	// DurableChunk syncs data and journal before each acknowledgement.
	DurableChunk Durability = "chunk"
)

// Options configure a Staging. The zero value of each field stands for its default.
type Options struct {
	Durability  Durability       // DurableComplete
	MinFree     int64            // bytes to keep free: at this watermark new uploads are refused (0)
	BootID      string           // changes when the machine starts; empty: unknown, each unclean start is taken for a power cut
	HashWorkers int              // how many uploads are hashed in the background at once (GOMAXPROCS)
	StallAfter  time.Duration    // a chunk that did not grow for so long is taken over by a repeat (2 s)
	MaxIdle     int              // uploads whose files are kept open while nothing happens (1024)
	Log         *slog.Logger     // discards
	Now         func() time.Time // time.Now
}

func (o Options) withDefaults() Options {
	o.Durability = cmp.Or(o.Durability, DurableComplete)
	o.HashWorkers = cmp.Or(o.HashWorkers, runtime.GOMAXPROCS(0))
	o.StallAfter = cmp.Or(o.StallAfter, 2*time.Second)
	o.MaxIdle = cmp.Or(o.MaxIdle, 1024)
	if o.Log == nil {
		o.Log = slog.New(slog.DiscardHandler)
	}
	if o.Now == nil {
		o.Now = time.Now
	}
	return o
}

// Validate reports what is wrong with the options.
func (o Options) Validate() error {
	var errs []error
	if d := cmp.Or(o.Durability, DurableComplete); d != DurableComplete && d != DurableChunk {
		errs = append(errs, upload.Errorf(upload.Invalid, "", "", "durability is %q or %q, not %q.", DurableComplete, DurableChunk, o.Durability))
	}
	if o.MinFree < 0 {
		errs = append(errs, upload.Errorf(upload.Invalid, "", "", "The space to keep free is not negative."))
	}
	if o.HashWorkers < 0 || o.MaxIdle < 0 || o.StallAfter < 0 {
		errs = append(errs, upload.Errorf(upload.Invalid, "", "", "Numbers of workers and files, and times, are not negative."))
	}
	return errors.Join(errs...)
}

// Staging is the chunkstore.Staging on a file system. It is made by Open.
type Staging struct {
	fs         vfs.FS
	opt        Options
	generation uint32 // of records written now; see boot.go
	doubt      bool   // an earlier process met a failed sync
	entries    groupSync
	files      handleCache
	space      space
	pool       *pool
	verifyNow  func(*session) error // verify for callers without a context; Close interrupts it

	broken     atomic.Pointer[string] // why nothing can be written until a restart
	degraded   atomic.Pointer[string] // why the disk is doubted, until a sync succeeds
	distrusted atomic.Bool            // the next start must look at everything

	mu      sync.RWMutex
	open    map[string]*session
	damaged map[string]bool // ids whose manifest is not readable: left alone
	closed  bool
	active  sync.WaitGroup // calls that are going on
}

var _ chunkstore.Staging = (*Staging)(nil)

// Open reads the uploads in the root of a directory tree that nobody else uses. The caller closes the
// Staging, and then the file system.
func Open(fsys vfs.FS, opt Options) (*Staging, error) {
	const op = "disk.Open"
	if err := opt.Validate(); err != nil {
		return nil, upload.Wrap(upload.Invalid, op, "", err)
	}
	opt = opt.withDefaults()
	s := &Staging{
		fs: fsys, opt: opt,
		open: map[string]*session{}, damaged: map[string]bool{},
	}
	s.files.max = opt.MaxIdle
	s.space = space{fs: fsys, now: opt.Now, minFree: opt.MinFree}
	clean, err := s.boot()
	if err != nil {
		return nil, upload.Wrap(upload.Unavailable, op, "", err)
	}
	if err := s.load(clean); err != nil {
		return nil, upload.Wrap(upload.Unavailable, op, "", err)
	}
	if s.doubt && len(s.open) == 0 { // a new directory, or none left to doubt
		s.doubt = false
		if err := s.writeBoot(bootOpen); err != nil {
			return nil, upload.Wrap(upload.Unavailable, op, "", err)
		}
	}
	ctx, cancel := context.WithCancel(context.Background())
	s.verifyNow = func(u *session) error { return s.verify(ctx, u) }
	s.pool = newPool(opt.HashWorkers, cancel, func(u *session) { s.catchUp(ctx, u) })
	for _, u := range s.open {
		u.mu.Lock()
		s.schedule(u)
		u.mu.Unlock()
	}
	return s, nil
}

// enter begins a call on an open upload; the caller ends it with leave.
func (s *Staging) enter(op, id string) (*session, error) {
	s.mu.RLock()
	defer s.mu.RUnlock()
	if s.closed {
		return nil, closedError(op, id)
	}
	u, ok := s.open[id]
	if !ok {
		return nil, notFound(op, id)
	}
	s.active.Add(1)
	return u, nil
}

// enterAny begins a call that needs no open upload.
func (s *Staging) enterAny(op, id string) error {
	s.mu.RLock()
	defer s.mu.RUnlock()
	if s.closed {
		return closedError(op, id)
	}
	s.active.Add(1)
	return nil
}

func (s *Staging) leave() { s.active.Done() }

func closedError(op, id string) error {
	return upload.Errorf(upload.Unavailable, op, id, "The server is shutting down. Try again.")
}

func notFound(op, id string) error {
	return upload.Errorf(upload.NotFound, op, id, "There is no such upload here. Begin a new one.")
}

// lookup returns an open upload, nil if there is none.
func (s *Staging) lookup(id string) *session {
	s.mu.RLock()
	defer s.mu.RUnlock()
	return s.open[id]
}

func (s *Staging) forget(id string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.open, id)
}

// Create is part of chunkstore.Staging.
func (s *Staging) Create(_ context.Context, spec upload.Spec) error {
	const op = "chunkstore.Create"
	if err := checkSpec(&spec); err != nil {
		return err
	}
	if err := s.enterAny(op, spec.ID); err != nil {
		return err
	}
	defer s.leave()
	if err := s.writable(op, spec.ID); err != nil {
		return err
	}
	if err := s.space.promise(max(spec.Size, 0)); err != nil {
		return upload.Wrap(upload.Unavailable, op, spec.ID, err)
	}
	u := newSession(spec)
	if err := s.writeManifest(&spec); err != nil {
		s.space.release(max(spec.Size, 0))
		return upload.Wrap(diskKind(err), op, spec.ID, err)
	}
	s.mu.Lock()
	s.open[spec.ID] = u
	s.mu.Unlock()
	return nil
}

// writeManifest makes the manifest durable, or leaves none.
func (s *Staging) writeManifest(spec *upload.Spec) error {
	text, err := encodeManifest(spec)
	if err != nil {
		return err
	}
	err = s.writeNew(spec.ID+manifestSuffix, text)
	if err == nil {
		err = s.syncEntries()
	}
	if err != nil && !errors.Is(err, fs.ErrExist) {
		return errors.Join(err, s.remove(spec.ID+manifestSuffix))
	}
	return err
}

// writeNew writes a small file that was not there, and syncs its content.
func (s *Staging) writeNew(name string, content []byte) error {
	f, err := s.fs.OpenFile(name, vfs.Create|vfs.Excl|vfs.ReadWrite, 0o600)
	if err != nil {
		if errors.Is(err, fs.ErrExist) {
			return &upload.Error{Kind: upload.Conflict, Detail: "There is an upload with this id already.", Err: err}
		}
		return err
	}
	_, err = f.WriteAt(content, 0)
	if err == nil {
		err = f.Sync()
	}
	return errors.Join(err, f.Close())
}

// remove deletes a file that may be gone already.
func (s *Staging) remove(name string) error {
	if err := s.fs.Remove(name); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	return nil
}

// syncEntries makes the directory's entries durable. A failure is like that of a journal: what the
// disk now has is unknown, and no later sync would tell.
func (s *Staging) syncEntries() error {
	err := s.entries.do(func() error { return s.fs.SyncDir(".") })
	if err != nil {
		s.breakDown("The staging directory cannot be synced. Look after its disk, then restart the server.")
	}
	return err
}

// Get is part of chunkstore.Staging. The first Get after a power cut reads the upload's chunks.
func (s *Staging) Get(id string) (upload.Upload, error) {
	const op = "chunkstore.Get"
	u, err := s.enter(op, id)
	if err != nil {
		return upload.Upload{}, err
	}
	defer s.leave()
	if err := s.verifyNow(u); err != nil {
		return upload.Upload{}, upload.Wrap(upload.Unavailable, op, id, err)
	}
	if snapshot, ok := u.snapshot(); ok {
		return snapshot, nil
	}
	return upload.Upload{}, notFound(op, id)
}

// All is part of chunkstore.Staging. It reads no data: chunks that are still to be verified after a
// power cut are taken to be there.
func (s *Staging) All() iter.Seq[upload.Upload] {
	return func(yield func(upload.Upload) bool) {
		for _, u := range s.sessions() {
			if snapshot, ok := u.snapshot(); ok && !yield(snapshot) {
				return
			}
		}
	}
}

func (s *Staging) sessions() []*session {
	s.mu.RLock()
	defer s.mu.RUnlock()
	all := make([]*session, 0, len(s.open))
	for _, u := range s.open {
		all = append(all, u)
	}
	return all
}

// breakDown stops the taking of writes until a restart, which will look at everything.
func (s *Staging) breakDown(reason string) {
	s.distrust()
	s.broken.CompareAndSwap(nil, &reason)
}

func (s *Staging) writable(op, id string) error {
	if s.broken.Load() != nil {
		return upload.Errorf(upload.Unavailable, op, id, "The server's disk has failed, so it takes no uploads at the moment. Try again later.")
	}
	return nil
}

// Health is part of chunkstore.Staging.
func (s *Staging) Health() chunkstore.Health {
	h := chunkstore.Health{Writable: true}
	if reason := cmp.Or(s.broken.Load(), s.degraded.Load()); reason != nil {
		h.Reason = *reason
		h.Writable = s.broken.Load() == nil
	}
	if err := s.space.report(&h); err != nil && h.Reason == "" {
		h.Reason = "The free space of the staging disk cannot be told."
	}
	s.mu.RLock()
	defer s.mu.RUnlock()
	h.Open = len(s.open)
	if s.closed {
		h.Writable, h.Reason = false, "The server is shutting down."
	}
	return h
}

// Close is part of chunkstore.Staging. It interrupts chunks that are being received.
func (s *Staging) Close() error {
	s.mu.Lock()
	closed := s.closed
	s.closed = true
	s.mu.Unlock()
	if closed {
		return nil
	}
	sessions := s.sessions()
	for _, u := range sessions {
		u.stopReceptions(0)
	}
	s.pool.stop()
	s.active.Wait()
	s.pool.wait()
	var errs []error
	settled := true
	for _, u := range sessions {
		if err := s.settle(u); err != nil {
			errs = append(errs, err)
		}
		settled = settled && !(s.doubt && u.isPending())
	}
	errs = append(errs, s.syncEntries(), s.files.close())
	if errors.Join(errs...) == nil && settled && !s.distrusted.Load() {
		errs = append(errs, s.writeBoot(bootClean))
	}
	return upload.Wrap(upload.Unavailable, "disk.Close", "", errors.Join(errs...))
}

// settle puts all of an upload on stable storage.
func (s *Staging) settle(u *session) error {
	u.mu.Lock()
	settled := u.settled || u.gone
	u.mu.Unlock()
	if settled {
		return nil
	}
	h, err := s.acquire(u)
	if err != nil {
		return err
	}
	defer s.release(h)
	return errors.Join(s.syncData(u, h), s.syncJournal(u, h))
}

// diskKind classifies an error of the file system.
func diskKind(err error) upload.Kind {
	if isFull(err) {
		return upload.NoRoom
	}
	return upload.Unavailable
}

func isFull(err error) bool {
	return errors.Is(err, syscall.ENOSPC) || errors.Is(err, syscall.EDQUOT)
}
