// Package store is the port for where blobs live for good.
package store

import (
	"context"
	"io"
	"iter"
	"net/url"
	"time"

	"gantry/internal/vfs"
	"gantry/upload"
)

// Store keeps objects under keys. All methods are safe for concurrent use.
//
// Errors: upload.NotFound for a key that is not there, upload.NoRoom when the store is full,
// upload.Unavailable for what may work later (a worker tries again), upload.Invalid for what never
// will (wrong credentials, missing bucket: a worker gives up and says why).
type Store interface {
	// Put stores the content under key. An object is visible whole or not at all, also after a crash,
	// and when Put returns it is as durable as the store promises. It may be repeated: an object that
	// is already there under this key is replaced by the same content. The caller holds the lease for
	// the key: no two calls at a time. A Put after one that was killed goes on where that stopped, as far
	// as the store can.
	Put(ctx context.Context, key string, content Content, opt PutOptions) error

	// Verify proves that the object under key has exactly the bytes that want describes, by a checksum
	// that the store computed from its own copy or by reading it back. upload.DigestMismatch if it has
	// others, upload.NotFound if it is not there.
	Verify(ctx context.Context, key string, want Digests) error

	// Open reads length bytes of an object from offset on; -1: to its end. The caller closes.
	Open(ctx context.Context, key string, offset, length int64) (io.ReadCloser, error)

	// Size returns an object's length.
	Size(ctx context.Context, key string) (int64, error)

	// Delete removes an object. It may be repeated: a key that is not there is no error.
	Delete(ctx context.Context, key string) error

	// List goes through all objects, in any order. It ends with the first error.
	List(ctx context.Context) iter.Seq2[Object, error]

	// Clean deletes what a killed Put left behind that is not an object, and that no later one will go on
	// with, if no Put is going on.
	Clean(ctx context.Context) error
}

// PutOptions are what a Put may be told. The zero value will do.
type PutOptions struct {
	// Progress is called with the bytes of the content that the store has so far, by one goroutine at a
	// time, and never with fewer than before.
	Progress func(sent int64)
	// Digests are those of the content, if they are known. Where several stores are to have it, one that
	// is found to have it already is not sent it again.
	Digests *Digests
	// Checkpoint is kept for this key and store from one Put to the next; nil: nothing is.
	Checkpoint Checkpoint
}

// Checkpoint remembers how far the Put of an object got, also when its process was killed. What it says
// is a driver's own, and a hint: a driver that cannot make use of it begins anew.
type Checkpoint interface {
	// Load returns what was saved last; nil if nothing was.
	Load() []byte
	// Save keeps the state, at most MaxCheckpoint bytes. It is durable when Save returns.
	Save(ctx context.Context, state []byte) error
}

// MaxCheckpoint is the most that a Checkpoint keeps, bytes.
const MaxCheckpoint = 4 << 10

// Checker is implemented by stores that can be set up wrongly: Check says whether bucket, pool and
// credentials are as they must be, without writing. upload.Invalid says what to mend.
type Checker interface {
	Check(ctx context.Context) error
}

// Advisor is implemented by stores whose bucket or pool has settings that matter.
type Advisor interface {
	// Advise looks at them, one Advice for each, good ones too. It changes nothing.
	Advise(ctx context.Context) ([]Advice, error)
}

// Advice is about one setting.
type Advice struct {
	Setting string // what was looked at, a few words
	Problem string // a sentence; "" if it is as it should be
	Mend    string // what to do about it, a sentence
}

// Presigner is implemented by stores from which a client can download by itself, with a URL that
// carries the permission.
type Presigner interface {
	// Presign returns such a URL for one object. It does not ask the store whether the object is there.
	Presign(ctx context.Context, key string, opt PresignOptions) (*url.URL, error)
}

// PresignOptions say how an object is to be served.
type PresignOptions struct {
	Expires     time.Duration // for how long the URL is good
	ContentType string        // the answer's Content-Type; "": the store's own
	Disposition string        // the answer's Content-Disposition; "": none
}

// CRC64Verifier is implemented by stores that compute the CRC-64 of what they have. Verify costs them
// a request if Digests.CRC64 is there, and reading all bytes back if it is not.
type CRC64Verifier interface {
	VerifiesCRC64()
}

// Content is what is to be stored: readable any number of times.
type Content interface {
	io.ReaderAt
	Size() int64
}

// Filer is implemented by content that is a file on this machine, from its first byte to its last.
// File returns the open file that ReadAt reads; it is on stable storage and nobody writes to it any
// more. A store on the same file system may give it a second name instead of copying it.
type Filer interface {
	File() vfs.File
}

// Digests describe content.
type Digests struct {
	Size   int64
	Root   upload.Root
	CRC32C uint32
	CRC64  *uint64 // CRC-64/XZ, the polynomial of ECMA-182 (hash/crc64's ECMA); nil: not computed

	// Source is what the caller has just read from its first byte to its last to compute the
	// digests; nil if it did not. A store whose object is that very file (see Filer) need not read it
	// again; any other copy it must.
	Source Content
}

// Object is one entry of a listing.
type Object struct {
	Key  string
	Size int64
	Unix int64 // when its bytes were written, seconds; never later than when it was put
}
