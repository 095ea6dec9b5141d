package upload

import (
	"strings"
	"time"
)

// File is one owner's named reference to a blob.
type File struct {
	ID          string
	Owner       string
	BlobID      string
	Name        string
	Path        string // folder-relative, data only; never a path on the server
	ContentType string
	Metadata    map[string]string
	Size        int64
	SHA1        SHA1 // zero: not known yet; see Blob.Undigested
	CreatedAt   time.Time
	UpdatedAt   time.Time
	Stored      bool // the blob is in a store, verified; otherwise in staging
	Lost        bool // the blob's bytes are gone for good
	Transfer    Transfer
}

// BlobState is where a blob stands.
type BlobState string

// The states of a blob.
const (
	BlobLive      BlobState = "live"
	BlobCondemned BlobState = "condemned" // no file refers to it; deleted after a grace time unless one does again
	BlobDeleting  BlobState = "deleting"  // its bytes are being deleted: never to be referred to again
	BlobStranded  BlobState = "stranded"  // on a node that is away
	BlobLost      BlobState = "lost"      // its bytes are gone or wrong
)

// Blob is stored content.
type Blob struct {
	ID          string
	SHA1        SHA1
	Size        int64
	Root        Root   // zero until a worker has computed it
	Hint        SHA1   // SHA-1 of the first HintLength bytes
	CRC32C      uint32 // of the bytes as they were received
	State       BlobState
	Refs        int64  // files that refer to it
	Node        string // the node whose staging has the bytes; empty: no staging copy any more
	Staging     string // the upload whose staging data these are
	Store       string // the store that has the verified bytes; empty: not yet
	ObjectKey   string // where in that store
	CreatedAt   time.Time
	VerifiedAt  time.Time // when the store's copy was verified
	CondemnedAt time.Time
}

// Undigested reports whether the bytes are in a store, where a client has sent them by itself, and nobody has
// read them yet: SHA1 is what was announced, or zero, and the other digests are zero. With a root they have been
// read, and only the end of that was not recorded.
func (b *Blob) Undigested() bool { return b.Store != "" && b.VerifiedAt.IsZero() }

// ObjectKeyFor is where a blob lives in a store: derived from the content, so that people can find
// it, and from the blob's id, so that no two blobs ever share an object (a blob being deleted and
// the same content arriving again, or two files with one SHA-1).
func ObjectKeyFor(b *Blob) string {
	sum := b.SHA1.String()
	return sum[:2] + "/" + sum + "-" + b.ID
}

// MovedKeyFor is where a move puts a blob's object: with the move's id besides, so that no key is ever used
// for a second time. Whoever deletes what a move has left cannot meet what a later one has made.
func MovedKeyFor(b *Blob, moveID string) string { return ObjectKeyFor(b) + "-" + moveID }

// DirectKeyFor is where a direct upload becomes an object, before its digests are known: derived from the node that
// began it, so that people can find out whose it is, and from the id that its blob is to have.
func DirectKeyFor(node, blobID string) string { return "direct/" + node + "-" + blobID }

// BlobIDFromKey returns the id of the blob whose object this key would name. The key need not be one
// that ObjectKeyFor or MovedKeyFor made: whoever looks the blob up compares its key.
func BlobIDFromKey(key string) (id string, ok bool) {
	_, rest, ok := strings.Cut(key, "-")
	id, _, _ = strings.Cut(rest, "-")
	return id, ok && id != ""
}

// TransferState is where a transfer stands.
type TransferState string

// The states of a transfer.
const (
	TransferQueued    TransferState = "queued"
	TransferRunning   TransferState = "running"
	TransferVerifying TransferState = "verifying"
	TransferStored    TransferState = "stored"   // done; the staging copy goes after a grace time
	TransferRetrying  TransferState = "retrying" // failed, will be tried again at NextAt
	TransferDead      TransferState = "dead"     // will not be tried again by itself
	TransferCancelled TransferState = "cancelled"
)

// Final reports whether nothing more happens to a transfer in this state by itself.
func (s TransferState) Final() bool {
	return s == TransferStored || s == TransferDead || s == TransferCancelled
}

// Transfer moves a blob from a node's staging to a store; of a blob that is in its store already (see
// Blob.Undigested) it only reads and verifies it there. Its row is the outbox entry, written in the transaction
// that makes the file.
type Transfer struct {
	ID        string
	BlobID    string
	Node      string // where the bytes are, or whose worker reads them in the store
	Store     string // where they go, or are
	State     TransferState
	Bytes     int64 // sent so far
	Size      int64
	Attempts  int
	NextAt    time.Time
	LastError string
	Lease     Lease
	CreatedAt time.Time
	UpdatedAt time.Time
}

// Lease is the right of one owner to work on something until it expires. Epoch is the fencing
// token: it grows with every grant, and every write under the lease names it.
type Lease struct {
	Owner string
	Epoch int64
	Until time.Time
}
