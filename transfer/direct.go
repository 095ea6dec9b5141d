package transfer

import (
	"context"
	"crypto/sha1"
	"errors"
	"fmt"
	"hash"
	"hash/crc32"
	"sync/atomic"

	"gantry/store"
	"gantry/upload"
)

// readStored is work on a blob whose object a client has made by itself. Nobody has read those bytes, so they are read
// now, and what they are is recorded. After nil the object is verified, for it is the only thing to compare with.
func (w *Worker) readStored(ctx context.Context, h *hold) error {
	t, b := &h.job.Transfer, &h.job.Blob
	st, ok := w.Stores[b.Store]
	if !ok {
		return upload.Errorf(upload.Unavailable, "transfer.readStored", t.ID, "The store %q is not configured.", b.Store)
	}
	size, err := st.Size(ctx, b.ObjectKey)
	if errors.Is(err, upload.NotFound) { // perhaps only for now: the file is not given up for it
		return &upload.Error{
			Kind: upload.NotFound, Op: "transfer.readStored", ID: t.ID, Err: err,
			Detail: "The store does not have the object that a client has sent there by itself.",
		}
	}
	if err != nil {
		return err
	}
	if size != b.Size {
		return &lostError{fmt.Sprintf("The object in the store has %d bytes; %d were sent.", size, b.Size)}
	}
	if !b.Root.IsZero() {
		return h.check(ctx) // an earlier attempt has read it, and could not record its end
	}
	found, root, err := readObject(ctx, h, st)
	if err != nil {
		return err
	}
	if !b.SHA1.IsZero() && found.SHA1 != b.SHA1 {
		// The file is lost for this, so it is not believed at once: bytes can be damaged on their way here, too.
		again, _, err := readObject(ctx, h, st)
		switch {
		case err != nil:
			return err
		case again != found:
			return upload.Errorf(upload.DigestMismatch, "transfer.readStored", t.ID, "The store answers with other bytes each time.")
		}
		return &lostError{fmt.Sprintf("The content is not what was announced: its SHA-1 is %s, and %s was announced.", found.SHA1, b.SHA1)}
	}
	now := w.Now()
	_, err = persist(ctx, func() (struct{}, error) {
		return struct{}{}, w.Outbox.SetDigests(ctx, t.ID, t.Lease.Epoch, found, now)
	})
	if lostLease(err) {
		return errLeaseLost
	}
	if err != nil {
		return err
	}
	if err := w.setRoot(ctx, h, root); err != nil {
		return err
	}
	return h.check(ctx)
}

// readObject reads the object of a blob from its first byte to its last.
func readObject(ctx context.Context, h *hold, st store.Store) (upload.Sealed, upload.Root, error) {
	h.sent.Store(0)
	d := digester{sha1: sha1.New(), hint: sha1.New(), read: &h.sent}
	if err := store.ReadInOrder(ctx, st, h.job.Blob.ObjectKey, h.job.Blob.Size, &d); err != nil {
		return upload.Sealed{}, upload.Root{}, err
	}
	return upload.Sealed{
		Size: h.job.Blob.Size, SHA1: upload.SHA1(d.sha1.Sum(nil)), Hint: upload.SHA1(d.hint.Sum(nil)), CRC32C: d.crc,
	}, d.tree.Root(), nil
}

// digester computes all that is recorded of content.
type digester struct {
	sha1, hint hash.Hash
	crc        uint32
	tree       upload.TreeHasher
	read       *atomic.Int64
}

// Write takes the next bytes in. It never fails.
func (d *digester) Write(p []byte) (int, error) {
	if rest := upload.HintLength - d.read.Load(); rest > 0 {
		_, _ = d.hint.Write(p[:min(rest, int64(len(p)))])
	}
	_, _ = d.sha1.Write(p)
	_, _ = d.tree.Write(p)
	d.crc = crc32.Update(d.crc, upload.Castagnoli, p)
	d.read.Add(int64(len(p)))
	return len(p), nil
}

// keyOf is where the object of a blob is, or is to be.
func keyOf(b *upload.Blob) string {
	if b.Undigested() {
		return b.ObjectKey
	}
	return upload.ObjectKeyFor(b)
}
