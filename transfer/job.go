package transfer

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"runtime/debug"
	"sync"
	"syscall"
	"time"

	"github.com/cenkalti/backoff/v5"

	"gantry/chunkstore"
	"gantry/store"
	"gantry/upload"
)

// finishTime is how long a worker tries to record how a transfer ended, also when it is being stopped.
const finishTime = 10 * time.Second

// errJoined says that nothing is left to be done.
var errJoined = errors.New("the blob became part of another")

// lostError says that a blob's bytes are gone or wrong; trying again would not mend that.
type lostError struct{ reason string }

func (e *lostError) Error() string { return e.reason }

// Handle does one transfer, as Run does for each message: see queue.Handler. It returns an error only
// if it could not find out what to do; how the transfer went is in the outbox. It calls ack under the
// lease, before the work, which may take longer than any broker waits: from then on it is the lease
// that sees to it that the transfer is done, for when it ends the row is due again.
func (w *Worker) Handle(ctx context.Context, id string, ack func()) error {
	if !w.take(id) {
		return nil
	}
	err := w.attempt(ctx, id, ack)
	for !w.putDown(id) {
		err = w.attempt(ctx, id, ack)
	}
	return err
}

func (w *Worker) attempt(ctx context.Context, id string, ack func()) error {
	asked, now := time.Now(), w.Now()
	job, err := w.Outbox.Lease(ctx, id, w.opt.Owner, now, now.Add(w.opt.LeaseTTL))
	if lostLease(err) {
		return nil // done, not due, another's or forgotten: the message came late, twice or in vain
	}
	if err != nil {
		return upload.Wrap(upload.Unavailable, "transfer.Handle", id, err)
	}
	ack()
	working, h := w.hold(ctx, job, asked)
	err = w.recovered(working, h)
	if err != nil && errors.Is(context.Cause(working), errLeaseLost) {
		err = errLeaseLost
	}
	h.release()
	w.settle(ctx, h, err)
	return nil
}

// recovered is work, with a panic made an error.
func (w *Worker) recovered(ctx context.Context, h *hold) (err error) {
	defer w.recover(h, &err)
	return w.work(ctx, h)
}

// recover makes an error of a panic; it is deferred.
func (w *Worker) recover(h *hold, err *error) {
	if p := recover(); p != nil {
		w.log.Error("a transfer met a defect", "transfer_id", h.job.Transfer.ID, "panic", p, "stack", string(debug.Stack()))
		*err = upload.Errorf(upload.Internal, "transfer.work", h.job.Transfer.ID, "The transfer met a defect in the server.")
	}
}

// work does what is to be done under a lease. After nil the object is in the store, verified.
func (w *Worker) work(ctx context.Context, h *hold) error {
	t, b := &h.job.Transfer, &h.job.Blob
	if t.Node != w.opt.Node {
		return upload.Errorf(upload.Unavailable, "transfer.work", t.ID, "The bytes are on node %q.", t.Node)
	}
	if b.Undigested() {
		return w.readStored(ctx, h)
	}
	st, err := w.target(ctx, h)
	if err != nil {
		return err
	}
	key, there := upload.ObjectKeyFor(b), false
	if !b.Root.IsZero() {
		// Not the first attempt: before all bytes are read again, see whether the store answers at all. If it has
		// an object, an answer was lost.
		size, err := st.Size(ctx, key)
		if err != nil && !errors.Is(err, upload.NotFound) {
			return err
		}
		there = err == nil && size == b.Size
	}
	content, err := w.Staging.Open(ctx, b.Staging)
	if errors.Is(err, upload.NotFound) {
		return w.lost(ctx, &lostError{"The staging copy is gone."})
	}
	if err != nil {
		return err
	}
	defer content.Close()

	send := func(ctx context.Context, known *store.Digests) error {
		saved, err := w.checkpointOf(ctx, t)
		if err != nil {
			return err
		}
		return st.Put(ctx, key, content, store.PutOptions{Progress: h.sent.Store, Digests: known, Checkpoint: saved})
	}
	_, crc64 := store.As[store.CRC64Verifier](st)
	var digests store.Digests
	if b.Size >= besideFrom && !there {
		digests, err = w.readBeside(ctx, h, content, crc64, send)
	} else if digests, err = w.read(ctx, h, content, crc64); err == nil {
		if there {
			h.verifying(ctx)
			if err := st.Verify(ctx, key, digests); err == nil || patient(upload.KindOf(err)) {
				return errors.Join(err, h.check(ctx))
			}
			h.sending()
		}
		err = send(ctx, &digests)
	}
	if err != nil {
		return err
	}
	h.verifying(ctx)
	if err := st.Verify(ctx, key, digests); err != nil {
		return err
	}
	return h.check(ctx)
}

// read reads all of the staging copy, compares it with what was received, and records its root.
func (w *Worker) read(ctx context.Context, h *hold, content chunkstore.Content, crc64 bool) (store.Digests, error) {
	b := &h.job.Blob
	digests, err := digest(ctx, content, crc64)
	if err != nil {
		return digests, err
	}
	if reason := differs(digests, b); reason != "" {
		return digests, w.lost(ctx, &lostError{reason})
	}
	if b.Root.IsZero() {
		if err := w.setRoot(ctx, h, digests.Root); err != nil {
			return digests, err
		}
	}
	return digests, h.check(ctx)
}

// besideFrom is the size from which on content is sent while it is read, bytes. Reading takes a third of the time of a
// transfer then; smaller content had better not be sent at all if it is there already.
const besideFrom = 64 << 20

// readBeside is read while send is at work. What was sent counts only if what was read is right; if it is not, or is there
// already, the sending ends. That send fails does not end the reading: the root is wanted whether the store answers or not.
func (w *Worker) readBeside(ctx context.Context, h *hold, content chunkstore.Content, crc64 bool, send func(context.Context, *store.Digests) error) (store.Digests, error) {
	if err := h.check(ctx); err != nil {
		return store.Digests{}, err
	}
	sending, cancel := context.WithCancelCause(ctx)
	var sent error
	var beside sync.WaitGroup
	defer beside.Wait()
	defer cancel(nil) // also when reading panics
	beside.Go(func() {
		defer w.recover(h, &sent)
		sent = send(sending, nil)
	})
	digests, err := w.read(ctx, h, content, crc64)
	if err != nil {
		cancel(err)
	}
	beside.Wait()
	return digests, cmp.Or(err, sent)
}

// differs says how the bytes in staging differ from those that were received, "" if they do not.
func differs(got store.Digests, b *upload.Blob) string {
	switch {
	case got.Size != b.Size:
		return fmt.Sprintf("The staging copy has %d bytes; %d were received.", got.Size, b.Size)
	case got.CRC32C != b.CRC32C:
		return fmt.Sprintf("The staging copy is damaged: its CRC-32C is %08x, that of the bytes received was %08x.", got.CRC32C, b.CRC32C)
	case !b.Root.IsZero() && got.Root != b.Root:
		return "The staging copy is damaged: its Merkle root is not the one of the first reading."
	}
	return ""
}

func (w *Worker) setRoot(ctx context.Context, h *hold, root upload.Root) error {
	t := &h.job.Transfer
	result, err := persist(ctx, func() (joined bool, err error) {
		r, err := w.Outbox.SetRoot(ctx, t.ID, t.Lease.Epoch, root, w.Now())
		if r.Collision {
			w.log.Warn("two contents with one SHA-1 and size; instant upload is off for them", "blob_id", t.BlobID)
		}
		return r.JoinedTo != "", err
	})
	switch {
	case lostLease(err):
		return errLeaseLost
	case err == nil && result:
		return errJoined
	}
	return err
}

const bufferSize = 256 << 10 // of one step of reading, bytes; it stays in the processor's cache

var buffers = sync.Pool{New: func() any { return new([bufferSize]byte) }}

// digest reads all of the content.
func digest(ctx context.Context, content chunkstore.Content, crc64 bool) (store.Digests, error) {
	buffer := buffers.Get().(*[bufferSize]byte)
	defer buffers.Put(buffer)
	d, size := store.NewDigester(crc64), content.Size()
	for off := int64(0); off < size; off += bufferSize {
		if err := ctx.Err(); err != nil {
			return store.Digests{}, err
		}
		block := buffer[:min(bufferSize, size-off)]
		if n, err := content.ReadAt(block, off); n < len(block) {
			if err == nil {
				err = io.ErrUnexpectedEOF
			}
			return store.Digests{}, &upload.Error{
				Kind: upload.Internal, Op: "transfer.digest", Err: err,
				Detail: fmt.Sprintf("The staging copy cannot be read at byte %d.", off+int64(n)),
			}
		}
		_, _ = d.Write(block) // never fails
	}
	digests := d.Sum()
	digests.Source = content
	return digests, nil
}

// settle records how the work under a lease ended.
func (w *Worker) settle(ctx context.Context, h *hold, failure error) {
	t := &h.job.Transfer
	log := w.log.With("transfer_id", t.ID, "blob_id", t.BlobID, "store", t.Store)
	now := w.Now() // once: a write that is repeated must be the same write
	record := func(ctx context.Context) error {
		return w.Outbox.Stored(ctx, t.ID, t.Lease.Epoch, t.Store, keyOf(&h.job.Blob), now)
	}
	retry := func(after time.Duration) func(context.Context) error {
		return func(ctx context.Context) error {
			return w.Outbox.Retry(ctx, t.ID, t.Lease.Epoch, now.Add(after), reason(failure), now)
		}
	}
	dead := func(lost bool) func(context.Context) error {
		return func(ctx context.Context) error {
			return w.Outbox.Dead(ctx, t.ID, t.Lease.Epoch, reason(failure), lost, now)
		}
	}
	lost, isLost := errors.AsType[*lostError](failure)
	kind := upload.KindOf(failure)
	switch {
	case failure == nil:
		log.Debug("stored a blob", "size", t.Size)
		w.forgetFailures(t.ID)
	case errors.Is(failure, errJoined):
		log.Debug("the blob is there already")
		w.forgetFailures(t.ID)
		return
	case errors.Is(failure, errLeaseLost):
		log.Warn("lost the lease of a transfer; whoever has it now does the rest")
		return
	case ctx.Err() != nil:
		failure = errStopped
		record = retry(0)
	case isLost:
		log.Error("a blob's bytes are gone or wrong", "reason", lost.reason)
		record = dead(h.job.Blob.Store == "" || h.job.Blob.Undigested())
	case kind == upload.Invalid:
		log.Error("a transfer cannot be done until an operator has mended what is wrong", "error", failure)
		record = dead(false)
	case !patient(kind) && w.countFailure(t.ID) >= w.opt.MaxFailures:
		log.Error("gave a transfer up after many failures", "error", failure)
		w.forgetFailures(t.ID)
		record = dead(false)
	default:
		after := w.backoff(t.Attempts)
		log.Warn("a transfer failed; trying again", "attempts", t.Attempts, "after", after, "error", failure)
		record = retry(after)
	}
	finishing, cancel := context.WithTimeout(context.WithoutCancel(ctx), finishTime)
	defer cancel()
	_, err := persist(finishing, func() (struct{}, error) { return struct{}{}, record(finishing) })
	switch {
	case lostLease(err):
		log.Warn("the lease of a transfer was lost at its end; nothing was changed")
	case err != nil:
		log.Error("could not record how a transfer ended; it will be done again", "error", err)
	}
}

// errStopped is recorded when the node stops in the middle of a transfer.
var errStopped = upload.Errorf(upload.Unavailable, "", "", "The node was stopped in the middle of the transfer.")

// patient reports whether a failure is that of a store that is away, full or slow. That may last for
// days, and is no reason to give up.
func patient(kind upload.Kind) bool {
	switch kind {
	case upload.Unavailable, upload.NoRoom, upload.TooMany, upload.Timeout, upload.Canceled:
		return true
	default:
		return false
	}
}

// reason says in words why an attempt failed. It is shown to users: no paths, no addresses.
func reason(err error) string {
	if lost, ok := errors.AsType[*lostError](err); ok {
		return lost.reason
	}
	if e, ok := errors.AsType[*upload.Error](err); ok && e.Detail != "" {
		return e.Detail
	}
	var words string
	switch kind := upload.KindOf(err); kind {
	case upload.Unavailable:
		words = "The store is not available"
	case upload.NoRoom:
		words = "The store is full"
	case upload.Timeout, upload.Canceled:
		words = "The store did not answer in time"
	case upload.NotFound:
		words = "The store does not have the object that was just put into it"
	case upload.DigestMismatch:
		words = "The store has other bytes than were sent"
	default:
		words = "The transfer failed (" + kind.Code() + ")"
	}
	if errno, ok := errors.AsType[syscall.Errno](err); ok {
		words += ": " + errno.Error()
	}
	return words + "."
}

// jitter spreads attempts so that a store that comes back is not met by all transfers at once.
const jitter = 0.25

// delays returns the delays between attempts; the longest is Options.MaxBackoff.
func (w *Worker) delays() *backoff.ExponentialBackOff {
	return &backoff.ExponentialBackOff{
		InitialInterval:     w.opt.MinBackoff,
		Multiplier:          2,
		RandomizationFactor: jitter,
		MaxInterval:         time.Duration(float64(w.opt.MaxBackoff) / (1 + jitter)),
	}
}

// backoff is the delay after so many attempts.
func (w *Worker) backoff(attempts int) time.Duration {
	delays := w.delays()
	for range min(max(attempts, 1), 32) - 1 {
		delays.NextBackOff()
	}
	return delays.NextBackOff()
}

// persist tries a write to the outbox until ctx is done: a transfer of 100 GB must not be done again
// because the database was busy for a second.
func persist[T any](ctx context.Context, write func() (T, error)) (T, error) {
	return backoff.Retry(ctx, func() (T, error) {
		v, err := write()
		if err != nil && upload.KindOf(err) != upload.Unavailable {
			err = backoff.Permanent(err)
		}
		return v, err
	}, backoff.WithBackOff(&backoff.ExponentialBackOff{
		InitialInterval: 50 * time.Millisecond, Multiplier: 2, RandomizationFactor: jitter, MaxInterval: time.Second,
	}), backoff.WithMaxElapsedTime(finishTime))
}
