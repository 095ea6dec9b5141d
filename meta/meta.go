// Package meta is the port for what is known about content: files, blobs, the answers of finished
// uploads, and the transfer outbox. The database is the truth about all of these.
package meta

import (
	"context"
	"time"

	"gantry/upload"
)

// DB is all of the database. Every method is safe for concurrent use and one transaction, but for
// ForgetAnswers and ForgetDeleted. Times are kept in microseconds. Methods return upload.Unavailable when the database
// cannot be reached or its answer is not known, and upload.NoRoom when its disk is full; the call may
// then be repeated. upload.Canceled: ctx was done before anything was changed.
type DB interface {
	Catalog
	Changes
	DirectUploads
	Outbox
	Collector
	Nodes
	Leases
	Mover
	// Ping reports whether the database answers.
	Ping(ctx context.Context) error
	// Close waits for what is going on. Calls after it are upload.Unavailable.
	Close() error
}

// Commit is what a finished upload becomes.
type Commit struct {
	UploadID    string // of the answer and, with Sealed, of the staging data
	Answer      bool   // keep an answer for repeats of complete (or of a request with a Key)
	Key         string // Idempotency-Key, "" for none
	Fingerprint string
	File        upload.File // ID, Owner, Name, Path, ContentType, Metadata, CreatedAt are taken from it
	Replaces    string      // the file whose content this becomes, keeping its id and what File leaves empty; a new file if it is gone
	Sealed      upload.Sealed
	Node        string // whose staging has the bytes
	Store       string // where they are to go
	Direct      bool   // CommitInstant: the upload is a direct one
	AnswerUntil time.Time
}

// Answer is how an upload ended. It is kept so that a repeated call gets the same answer.
type Answer struct {
	UploadID    string
	Owner       string
	Key         string
	Fingerprint string
	State       upload.State // Complete, Cancelled, Expired or Rejected
	Instant     bool         // Complete without all bytes having been sent
	File        *upload.File // Complete: the file as it was then
	Want, Got   string       // Rejected: the digests
	CreatedAt   time.Time
	ExpiresAt   time.Time
}

// Catalog is files, blobs and answers. Things of another owner are upload.NotFound.
type Catalog interface {
	// CommitUpload makes the file of a sealed upload visible: blob, file, transfer and answer, all or
	// nothing.
	//  1. If an answer for the upload is already there, that one is returned and nothing is changed: of
	//     complete ∥ complete ∥ cancel the first decides.
	//  2. The same if there is one for the owner's Key. It may be another upload's (see its UploadID),
	//     and then the bytes of this one belong to nothing.
	//  3. Without Answer a repeat is known by the upload whose staging data the blob is, and the file is
	//     returned as it is now; upload.Conflict if it has been deleted since.
	// upload.Conflict too if File.ID is taken.
	CommitUpload(ctx context.Context, c Commit) (Answer, error)

	// CommitInstant makes a file of a blob that is already there; c.Sealed and c.Node are not used.
	// upload.NotFound if the blob cannot be referred to any more. An existing answer is returned as
	// by CommitUpload. A condemned blob is live again.
	CommitInstant(ctx context.Context, c Commit, blobID string) (Answer, error)

	// EndUpload records that an upload ended without a file. An existing answer of this upload is
	// returned instead; a Key that has another upload's answer already is left to that one.
	EndUpload(ctx context.Context, a Answer) (Answer, error)

	// Answer returns how an upload ended; upload.NotFound if it did not, or the answer has expired.
	Answer(ctx context.Context, uploadID string) (Answer, error)
	// AnswerByKey is Answer by Idempotency-Key.
	AnswerByKey(ctx context.Context, owner, key string) (Answer, error)

	// FindContent returns the blob that an instant upload may refer to: live or condemned, its root
	// known, and in scope. upload.NotFound otherwise, and where blobs with different roots share
	// (sha1, size), whatever their states. With ScopeUser a blob is in scope if a file of owner refers to
	// it, or if it is condemned and its last file was owner's.
	FindContent(ctx context.Context, scope Scope, owner string, sha1 upload.SHA1, size int64) (upload.Blob, error)
	// KnowsHint reports whether FindContent might succeed for content of this size that begins so.
	KnowsHint(ctx context.Context, scope Scope, owner string, hint upload.SHA1, size int64) (bool, error)

	// File returns one file with its transfer.
	File(ctx context.Context, owner, id string) (upload.File, error)
	// Files lists an owner's files.
	Files(ctx context.Context, q FileQuery) ([]upload.File, error)
	// UpdateFile changes what is not nil in c and returns the file.
	UpdateFile(ctx context.Context, owner, id string, c FileChange) (upload.File, error)
	// DeleteFile drops the reference. A blob without references is condemned at now.
	DeleteFile(ctx context.Context, owner, id string, now time.Time) error
	// Blob returns a blob by id.
	Blob(ctx context.Context, id string) (upload.Blob, error)
}

// Scope is how far instant upload looks.
type Scope string

// The scopes of instant upload.
const (
	ScopeUser   Scope = "user"   // only one's own content
	ScopeGlobal Scope = "global" // everybody's
	ScopeOff    Scope = "server" // never instant: always upload, share the bytes afterwards
)

// FileQuery selects and orders files. Page by page: After is the last file of the page before.
type FileQuery struct {
	Owner string
	Name  string // part of the name, any case
	Path  *string
	Sort  Sort // "": ByCreated
	Desc  bool
	After *upload.File
	Limit int
}

// Sort is an order of files; ties are broken by id.
type Sort string

// The orders of files.
const (
	ByCreated Sort = "created_at"
	ByName    Sort = "name" // without regard to case
	BySize    Sort = "size"
)

// FileChange is what UpdateFile changes.
type FileChange struct {
	Name     *string
	Path     *string
	Metadata *map[string]string
	Now      time.Time
}

// Change is something that happened to a file.
type Change struct {
	FileID  string
	At      time.Time // when, by the clock of who did it: the change may be seen only a while later
	Deleted bool
}

// Changes is what happened to files lately, for those who follow them.
type Changes interface {
	// Changes returns what happened to an owner's files at or after a time, whoever did it: files were made, renamed or
	// replaced, their content's transfer went on, their content was lost, they were deleted. Of more than limit of one of
	// these kinds it returns the newest. Of what happened to a file several times it returns the last of a kind.
	Changes(ctx context.Context, owner string, since time.Time, limit int) ([]Change, error)
	// ForgetDeleted forgets which files were deleted before a time. If there are many it takes several transactions.
	ForgetDeleted(ctx context.Context, before time.Time) error
}

// Outbox is the transfers. Writes under a lease name its epoch; upload.Conflict means that the lease
// was lost, and nothing was changed.
type Outbox interface {
	// TakeDue returns transfers of node whose time has come and that nobody works on, oldest first,
	// and marks them as published: they are due again after republish. A new transfer, and one retried
	// by hand, is due at once whatever the clock says; a retrying one at its time; one that is worked on
	// when its lease ends.
	TakeDue(ctx context.Context, node string, now time.Time, republish time.Duration, limit int) ([]string, error)
	// Lease gives owner the transfer until the time given: a new epoch, one more attempt, no bytes sent.
	// upload.Conflict if it is held (also by owner), to be retried later, or final. It is not the time of
	// TakeDue that counts: a transfer that was published may be leased.
	Lease(ctx context.Context, id, owner string, now, until time.Time) (Job, error)
	// Renew prolongs a lease and records state and progress. A lease that is over but that nobody else
	// has taken can be renewed.
	Renew(ctx context.Context, id string, epoch int64, p Progress) error
	// SetDigests records what a worker found to be the bytes of a blob that nobody had read (see
	// upload.Blob.Undigested). It may be repeated; upload.DigestMismatch if other digests are recorded already.
	SetDigests(ctx context.Context, id string, epoch int64, found upload.Sealed, now time.Time) error
	// SetRoot records the blob's root. Where a blob with the same identity is there already the two
	// become one: one gets the files of both, the other is condemned for good and its transfer is
	// cancelled. A blob whose bytes are lost joins one whose are not, one in staging joins one in a store,
	// one whose transfer was given up joins one whose goes on, and else the newer joins the older.
	// Different roots for one (sha1, size) are audited, once for a pair. It may be repeated;
	// upload.DigestMismatch if the blob has another root already.
	SetRoot(ctx context.Context, id string, epoch int64, root upload.Root, now time.Time) (RootResult, error)
	// Checkpoint returns what SaveCheckpoint kept for this store, "" if nothing.
	Checkpoint(ctx context.Context, id, store string) (string, error)
	// SaveCheckpoint keeps how far the putting of the object into a store got, instead of what was kept before.
	SaveCheckpoint(ctx context.Context, id string, epoch int64, store, state string) error
	// Redirect makes another store the transfer's.
	Redirect(ctx context.Context, id string, epoch int64, store string, now time.Time) error
	// Stored records the verified object and ends the transfer. Stored, Retry and Dead may be repeated:
	// what they did themselves is no lost lease.
	Stored(ctx context.Context, id string, epoch int64, store, key string, now time.Time) error
	// Retry records a failure and when to try again.
	Retry(ctx context.Context, id string, epoch int64, next time.Time, reason string, now time.Time) error
	// Dead records a failure that trying again will not mend. With lost the blob's bytes are gone: as
	// MarkLost.
	Dead(ctx context.Context, id string, epoch int64, reason string, lost bool, now time.Time) error

	// RetryStore makes those of node's transfers to a store that wait to be tried again due now.
	RetryStore(ctx context.Context, node, store string, now time.Time) error

	// Transfer returns one transfer.
	Transfer(ctx context.Context, id string) (upload.Transfer, error)
	// Transfers lists transfers, newest first; states empty: all.
	Transfers(ctx context.Context, states []upload.TransferState, limit int) ([]upload.Transfer, error)
	// RetryTransfer makes a retrying, dead or cancelled transfer due now, as if it were new.
	// upload.Conflict if it is running or stored, or if its bytes are not there any more.
	RetryTransfer(ctx context.Context, id string, now time.Time) error
	// CancelTransfer stops a transfer that is not stored: the blob stays in staging. A worker that
	// holds it loses its lease.
	CancelTransfer(ctx context.Context, id string, now time.Time) error
	// Backlog counts the transfers that are not final and says when the oldest was made.
	Backlog(ctx context.Context, now time.Time) (Backlog, error)

	// Droppable returns blobs whose staging copy is on node and not needed: those stored and verified before
	// the time given, and those that are being deleted.
	Droppable(ctx context.Context, node string, verifiedBefore time.Time, limit int) ([]upload.Blob, error)
	// StagingDropped records that the staging copy is gone. If no store has the blob, it is lost.
	StagingDropped(ctx context.Context, blobID string) error
}

// Job is a leased transfer with its blob.
type Job struct {
	Transfer upload.Transfer
	Blob     upload.Blob
}

// Progress is what a worker tells while it works.
type Progress struct {
	State upload.TransferState // TransferRunning or TransferVerifying
	Bytes int64
	Until time.Time // the lease's new end
	Now   time.Time
}

// RootResult is what SetRoot found.
type RootResult struct {
	JoinedTo  string // the blob that this one became part of; "": none, go on
	Collision bool   // another root is known for the same (sha1, size)
}

// Backlog is the work that is left to the transfer workers.
type Backlog struct {
	Waiting int       // queued, running, verifying, retrying
	Dead    int       // in need of an operator
	Oldest  time.Time // when the oldest waiting one was made; zero if none
}

// CollectQuery says what Collect looks for.
type CollectQuery struct {
	Fence           Fence
	Node            string   // leave out what has a staging copy on another node: that node deletes it first; "": all
	Without         []string // leave out what is in these stores
	CondemnedBefore time.Time
	Now             time.Time
	Limit           int
}

// Collector is what the janitor and the doctor need.
type Collector interface {
	// Collect moves condemned blobs without references to deleting, those condemned before the time
	// given and not held by a worker, and returns those that are deleting, the longest condemned first.
	// Their transfers are cancelled, and nothing can refer to them any more. upload.Conflict if the fence
	// fell.
	Collect(ctx context.Context, q CollectQuery) ([]upload.Blob, error)
	// Deleted forgets a blob whose bytes are gone, and its moves. It may be repeated; upload.Conflict if the blob is not
	// being deleted.
	Deleted(ctx context.Context, blobID string) error
	// ForgetAnswers deletes expired answers and returns their number. If there are many it takes several
	// transactions, so that nobody waits long for it.
	ForgetAnswers(ctx context.Context, now time.Time) (int, error)
	// KnownStaging returns those of the upload ids that are the staging data of a blob.
	KnownStaging(ctx context.Context, ids []string) (map[string]bool, error)
	// KnownObjects returns those of the object keys of a store that belong to a blob: recorded, where the blob's
	// transfer would put it, or the old and the new one of a move; or to a direct upload that was not dropped.
	KnownObjects(ctx context.Context, store string, keys []string) (map[string]bool, error)
	// Blobs goes through all blobs in the order of ids.
	Blobs(ctx context.Context, after string, limit int) ([]upload.Blob, error)
	// WrongRefs returns blobs whose refs differ from the number of their files, with that number.
	WrongRefs(ctx context.Context) (map[string]int64, error)
	// MendRefs sets refs to the number of files; a live blob without any is condemned at now, a condemned
	// one with some is live, and one that is being deleted although it has files is lost.
	MendRefs(ctx context.Context, blobID string, now time.Time) error
	// MarkLost records that a blob's bytes are gone or wrong. Its files stay; the same content arriving
	// again heals them (SetRoot). Its transfer is dead unless it was stored.
	MarkLost(ctx context.Context, blobID, reason string, now time.Time) error
	// Unstore records that a store no longer has a blob that staging still has: its transfer is due
	// again. upload.Conflict if staging does not have it either.
	Unstore(ctx context.Context, blobID, reason string, now time.Time) error
}
