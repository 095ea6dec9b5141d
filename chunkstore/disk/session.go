package disk

import (
	"context"
	"errors"
	"sync"
	"sync/atomic"
	"time"

	"gantry/chunkstore"
	"gantry/upload"
)

// session is an open upload. There may be a million of them: no goroutine, file or buffer belongs to
// one that nothing happens to.
type session struct {
	spec upload.Spec   // never changes
	op   chan struct{} // holds one token while a Seal, check, Commit or Discard goes on

	journalMu sync.Mutex
	records   int64 // where the next record goes

	filesMu sync.Mutex
	files   *handle // nil or closed: to be opened

	dataSync, journalSync groupSync

	mu          sync.Mutex
	size        int64 // spec.Size, or what a short chunk or a seal has shown
	top         int   // the highest chunk there or about to be acknowledged; -1: none
	received    upload.ChunkSet
	unsynced    upload.ChunkSet // of received: acknowledged since the data was last synced
	crcs        []uint32        // of received
	bytes       int64           // of received
	promised    int64           // room kept free for what is to come
	released    bool            // that promise was given up
	prefix      prefix
	hashing     chan struct{} // who extends prefix closes it in the end; nil: nobody does
	queued      bool          // for background work
	receiving   map[int]*reception
	failedSyncs int // of the data
	updated     time.Time
	sealed      *upload.Sealed
	hinted      bool // sealed.Hint is set
	suspect     bool // its chunks are to be read before anything is believed
	pending     bool // to be verified or synced before anything is promised
	settled     bool // all that was written is on stable storage
	listed      bool // the directory entries of data and journal are on stable storage
	gone        bool // discarded or committed

	committed atomic.Bool // gone too, but its data is a blob's and stays
}

// reception is one chunk on its way in.
type reception struct {
	index       int
	length      int64
	hashes      bool // it holds session.hashing, and its bytes follow on prefix
	prefix      prefix
	failedSyncs int // of the session when it began

	progress atomic.Int64 // bytes received
	read     atomic.Bool  // all of them
	stopped  atomic.Bool
	abort    func()
	done     chan struct{}
}

// stop makes a reception that waits for its client end soon.
func (r *reception) stop() {
	if !r.read.Load() && !r.stopped.Swap(true) && r.abort != nil {
		r.abort()
	}
}

func newSession(spec upload.Spec) *session {
	return &session{
		spec: spec, op: make(chan struct{}, 1),
		size: spec.Size, top: -1, promised: max(spec.Size, 0), updated: spec.CreatedAt, settled: true,
	}
}

// restore takes over what the journal says; nobody else has the session yet.
func (u *session) restore(r *replay, clean bool) {
	u.records = r.records
	u.size, u.top, u.received, u.crcs, u.prefix = r.size, r.received.Last(), r.received, r.crcs, r.prefix
	layout := u.layout()
	for index := range u.top + 1 {
		if !u.received.Has(index) {
			continue
		}
		u.bytes += layout.Length(index)
		if !clean && !r.durable.Has(index) {
			u.unsynced.Add(index)
		}
	}
	if u.spec.Size >= 0 {
		u.promised -= u.bytes
	}
	if !r.updated.IsZero() {
		u.updated = r.updated.UTC()
	}
	u.suspect, u.settled, u.listed = r.suspect(), clean, clean
	if r.sealed {
		if sum, err := r.prefix.sum(); err == nil {
			u.sealed = &upload.Sealed{Size: r.prefix.n, SHA1: sum, CRC32C: r.prefix.crc}
		}
	}
}

// lock takes the session's token; unlock gives it back.
func (u *session) lock(ctx context.Context) error {
	select {
	case u.op <- struct{}{}:
		return nil
	default:
	}
	select {
	case u.op <- struct{}{}:
		return nil
	case <-ctx.Done():
		return canceled(ctx)
	}
}

func (u *session) unlock() { <-u.op }

// canceled says why a context ended.
func canceled(ctx context.Context) error {
	kind := upload.Canceled
	if errors.Is(ctx.Err(), context.DeadlineExceeded) {
		kind = upload.Timeout
	}
	return upload.Wrap(kind, "", "", context.Cause(ctx))
}

func (u *session) layout() upload.Layout {
	return upload.Layout{Size: u.size, ChunkSize: u.spec.ChunkSize}
}

func (u *session) isOpen() bool {
	u.mu.Lock()
	defer u.mu.Unlock()
	return !u.gone
}

// snapshot is the upload as it stands; false if it is gone.
func (u *session) snapshot() (upload.Upload, bool) {
	u.mu.Lock()
	defer u.mu.Unlock()
	return upload.Upload{
		Spec: u.spec, Size: u.size, Received: u.received.Clone(), ReceivedBytes: u.bytes,
		HashedBytes: u.prefix.n, UpdatedAt: u.updated, Sealed: u.sealed != nil,
	}, !u.gone
}

// begin decides what is to be done with a chunk that comes in. One of these is returned: an error; a
// reception that goes on for the same chunk and is to be waited for; a new reception; or none of
// them: the chunk is there, and the bytes are to be compared.
func (u *session) begin(index int, body *chunkstore.Body) (fresh, other *reception, err error) {
	u.mu.Lock()
	defer u.mu.Unlock()
	if err := u.accepts(index, body.Length); err != nil {
		return nil, nil, err
	}
	if u.received.Has(index) {
		return nil, nil, nil
	}
	if r := u.receiving[index]; r != nil {
		return nil, r, nil
	}
	r := &reception{
		index: index, length: body.Length, failedSyncs: u.failedSyncs,
		abort: body.Abort, done: make(chan struct{}),
	}
	if u.hashing == nil && u.layout().Offset(index) == u.prefix.n {
		r.hashes, r.prefix = true, u.prefix
		u.hashing = make(chan struct{})
	}
	if u.receiving == nil {
		u.receiving = make(map[int]*reception, 4)
	}
	u.receiving[index] = r
	return r, nil, nil
}

// accepts refuses chunks that cannot be. mu is held.
func (u *session) accepts(index int, length int64) error {
	const op = "chunkstore.WriteChunk"
	id, layout := u.spec.ID, u.layout()
	switch {
	case u.gone:
		return notFound(op, id)
	case u.sealed != nil:
		return upload.Errorf(upload.NotOpen, op, id, "The upload is complete or completing and takes no more chunks. Look at its state.")
	case index < 0 || index >= layout.Count():
		return upload.Errorf(upload.InvalidIndex, op, id, "There is no chunk %d: this upload has chunks 0 to %d. Cut the file as the upload says.", index, layout.Count()-1)
	case length < 0:
		return upload.Errorf(upload.LengthRequired, op, id, "The length of a chunk must be announced.")
	}
	want := layout.Length(index)
	switch {
	case length > want:
		return upload.Errorf(upload.LongBody, op, id, "Chunk %d has %d bytes, not %d. Send the whole chunk and nothing else.", index, want, length)
	case u.size >= 0 && length < want, length == 0:
		return upload.Errorf(upload.ShortBody, op, id, "Chunk %d has %d bytes, not %d. Send the whole chunk and nothing else.", index, want, length)
	case u.size < 0 && u.received.Has(index) && length != want:
		return upload.Errorf(upload.ChunkConflict, op, id, "Chunk %d is there already, with %d bytes. Begin a new upload for another file.", index, want)
	case u.size < 0 && length < want && index < u.top:
		return upload.Errorf(upload.ShortBody, op, id, "Only the last chunk may be shorter than %d bytes, and chunk %d is there already. Send the whole chunk.", want, u.top)
	}
	return nil
}

// admit makes the record of a chunk whose bytes are in place. journalMu is held. From here on the
// chunk counts in what the size may be.
func (u *session) admit(r *reception, rec *record, extended func(prefix) prefix) error {
	u.mu.Lock()
	defer u.mu.Unlock()
	if u.failedSyncs != r.failedSyncs {
		return upload.Errorf(upload.Unavailable, "chunkstore.WriteChunk", u.spec.ID, "The server's disk failed while the chunk was written. Send it again.")
	}
	if err := u.accepts(r.index, r.length); err != nil {
		return err
	}
	if u.size < 0 && r.length < u.spec.ChunkSize {
		u.size = u.layout().Offset(r.index) + r.length
	}
	u.top = max(u.top, r.index)
	if r.hashes && u.prefix.n == r.prefix.n { // else the prefix was voided meanwhile
		rec.prefix = extended(r.prefix)
	}
	return nil
}

// acknowledged puts an admitted and journalled chunk into memory.
func (u *session) acknowledged(r *reception, rec *record) {
	u.mu.Lock()
	defer u.mu.Unlock()
	u.received.Add(r.index)
	if !rec.durable {
		u.unsynced.Add(r.index)
	}
	u.crcs = grow(u.crcs, r.index)
	u.crcs[r.index] = rec.crc
	u.bytes += r.length
	if u.spec.Size >= 0 {
		u.promised -= r.length
	}
	u.updated = rec.time.UTC()
	if rec.prefix.n > 0 && u.prefix.n == r.prefix.n {
		u.prefix = rec.prefix
	}
}

// end closes a reception, successful or not. mu is held.
func (u *session) end(r *reception) {
	delete(u.receiving, r.index)
	if r.hashes {
		u.releaseHashing()
	}
	close(r.done)
}

func (u *session) releaseHashing() {
	close(u.hashing)
	u.hashing = nil
}

// stopReceptions ends those of chunks from first on and waits for them.
func (u *session) stopReceptions(first int) {
	u.mu.Lock()
	var stopped []*reception
	for index, r := range u.receiving {
		if index >= first {
			stopped = append(stopped, r)
		}
	}
	u.mu.Unlock()
	for _, r := range stopped {
		r.stop()
	}
	for _, r := range stopped {
		<-r.done
	}
}

// next returns the chunk that follows on the hashed prefix; false if it is not there or all is
// hashed. mu is held.
func (u *session) next() (index int, length int64, ok bool) {
	if u.gone || u.prefix.n%u.spec.ChunkSize != 0 {
		return 0, 0, false
	}
	index = int(u.prefix.n / u.spec.ChunkSize)
	if !u.received.Has(index) {
		return 0, 0, false
	}
	return index, u.layout().Length(index), true
}
