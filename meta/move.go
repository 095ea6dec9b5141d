package meta

import (
	"context"
	"time"

	"gantry/upload"
)

// MoveLease is the lease of who moves blobs between stores. There is one, whichever stores they are: two that
// move at once would at best undo each other's work.
const MoveLease = "migrate"

// MoveState is where a move stands.
type MoveState string

// The states of a move. A move that is done, or given up and cleaned up after, has no row any more.
const (
	MoveCopying  MoveState = "copying"  // the object at the new place is being made; the blob is at the old one
	MoveSwitched MoveState = "switched" // the blob is at the new place; the old object is kept for those who are reading it
	MoveDeleting MoveState = "deleting" // nobody needs one of the objects, and it is being deleted: see Move.Garbage
)

// Place is where an object is.
type Place struct{ Store, Key string }

// Move is the way of a blob from one place to another. While it has a row both its objects are known
// (Collector.KnownObjects). Move.To.Key is never used by anything else, before or after.
type Move struct {
	ID         string
	BlobID     string
	From, To   Place
	State      MoveState
	Checkpoint []byte // how far the copy is, in the words of the store's driver; copying only
	CreatedAt  time.Time
	SwitchedAt time.Time // zero unless the blob is at the new place
}

// Garbage is the object that a move which is deleting has no use for: the old one after a switch, the new
// one of a move that was given up.
func (m *Move) Garbage() Place {
	if m.SwitchedAt.IsZero() {
		return m.To
	}
	return m.From
}

// MoveQuery selects moves, in the order of their ids.
type MoveQuery struct {
	BlobID string    // "": of all blobs
	State  MoveState // "": in all states
	After  string    // the last id of the page before
	Limit  int
}

// Usage is what a store has, and what is on its way to it.
type Usage struct {
	Live, Bytes     int64 // blobs that files refer to, stranded ones too, and their bytes: all that is moved
	Condemned, Lost int64 // blobs without files, which are deleted after a grace time, and blobs whose bytes are gone
	Waiting, Halted int64 // transfers into it that are not done: those that go on by themselves, and dead and cancelled ones
	Copying         int64 // blobs that are being moved into it
	Leftovers       int64 // objects that moves have left in it and that are yet to be deleted
}

// Mover is blobs that are moved between stores. What is written under a lease names its fence;
// upload.Conflict means that the fence fell or that things are not as the caller has seen them, and nothing
// was changed.
type Mover interface {
	// BlobsIn goes through the blobs in a store that have a state, in the order of ids.
	BlobsIn(ctx context.Context, store string, state upload.BlobState, after string, limit int) ([]upload.Blob, error)
	// Usage counts what a store has.
	Usage(ctx context.Context, store string) (Usage, error)
	// Moves lists moves.
	Moves(ctx context.Context, q MoveQuery) ([]Move, error)

	// BeginMove makes the move's row, before anything is copied: from then on the janitor knows the new object.
	// A move from the same place to the same store that was begun and not ended is gone on with, any other of
	// the blob that is copying is given up. upload.Conflict unless the blob is live or stranded, verified,
	// and at the place that b names.
	BeginMove(ctx context.Context, fence Fence, b *upload.Blob, to string, now time.Time) (Move, error)
	// SaveMove keeps the checkpoint of a move that is copying.
	SaveMove(ctx context.Context, fence Fence, id string, checkpoint []byte) error
	// Switch makes the new place the blob's, which was verified there at now. It may be repeated.
	// upload.Conflict if the blob is not at the old place any more, or its bytes are not wanted.
	Switch(ctx context.Context, fence Fence, id string, now time.Time) error
	// SwitchBack makes the old place of a switched move the blob's again, whose object was verified at now: the new
	// one is found to be gone or wrong, and is deleted. upload.Conflict if the old object is being deleted.
	SwitchBack(ctx context.Context, fence Fence, id string, now time.Time) error
	// Abandon gives up a move that is copying; its object is to be deleted, and then ForgetMove called.
	Abandon(ctx context.Context, fence Fence, id string) error

	// Leftovers makes moves that were switched before the time given deleting, and returns moves that are:
	// those after an id, in the order of ids. Only what this has returned, or what was given up, may be deleted.
	Leftovers(ctx context.Context, fence Fence, switchedBefore time.Time, after string, limit int) ([]Move, error)
	// ForgetMove ends a move that is deleting. It may be repeated; upload.Conflict if it is not deleting.
	ForgetMove(ctx context.Context, id string) error

	// ObjectLost records that the object at a blob's place is gone or wrong: as Unstore if staging may still
	// have the content, as MarkLost otherwise. upload.Conflict if the blob is not at that place (any more).
	ObjectLost(ctx context.Context, blobID string, at Place, reason string, now time.Time) error
}
