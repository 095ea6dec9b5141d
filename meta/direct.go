package meta

import (
	"context"
	"time"

	"gantry/upload"
)

// DirectUpload is an open upload whose bytes the client sends to the store by itself. Which parts are there only
// the store knows.
type DirectUpload struct {
	upload.Spec           // its chunks are the store's parts
	BlobID      string    // the id that its blob is to have
	Store       string    // where the parts go
	ObjectKey   string    // what they become there
	MultipartID string    // the store's name for the upload
	UpdatedAt   time.Time // when the client last asked for URLs
}

// DirectUploads is the open direct uploads. An upload that has ended stays, hidden from all but EndedDirect, until
// DropDirect: what it has in the store is to be deleted.
type DirectUploads interface {
	// BeginDirect makes a direct upload known. upload.Conflict if the owner's Key stands for another open one: see
	// DirectByKey.
	BeginDirect(ctx context.Context, d DirectUpload) error
	// DirectUpload returns an open one; upload.NotFound if it has ended, or never was.
	DirectUpload(ctx context.Context, id string) (DirectUpload, error)
	// DirectByKey returns the open one that owner began with this Idempotency-Key; upload.NotFound if none.
	DirectByKey(ctx context.Context, owner, key string) (DirectUpload, error)
	// DirectOf lists an owner's open ones in the order of ids, those after the id given.
	DirectOf(ctx context.Context, owner, after string, limit int) ([]DirectUpload, error)
	// CountDirect counts those that are open.
	CountDirect(ctx context.Context) (int, error)
	// TouchDirect notes that the client goes on with one. upload.NotFound as DirectUpload.
	TouchDirect(ctx context.Context, id string, now time.Time) error

	// CommitDirect makes a file of a direct upload whose object is in its store: as CommitUpload, but that the
	// blob has no staging, and its digests are those of c.Sealed, which may all be zero. The transfer is one of
	// c.Node, which is to read the object and record its digests. upload.NotFound if the upload has been dropped.
	CommitDirect(ctx context.Context, c Commit) (Answer, error)

	// IdleDirect returns open ones, of all nodes, whose clients have not been heard of since before.
	IdleDirect(ctx context.Context, before time.Time, limit int) ([]DirectUpload, error)
	// EndedDirect goes in the order of ids through those that ended without what they have in the store
	// (EndUpload, CommitInstant).
	EndedDirect(ctx context.Context, after string, limit int) ([]DirectUpload, error)
	// DropDirect forgets one that has ended. It may be repeated.
	DropDirect(ctx context.Context, id string) error
}
