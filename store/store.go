// Package store is the port for where blobs live for good.
package store

import (
	"context"
	"io"
	"iter"

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
	// the key: no two calls at a time.
	Put(ctx context.Context, key string, content Content, progress func(sent int64)) error

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

	// List goes through all objects in the order of keys. It ends with the first error.
	List(ctx context.Context) iter.Seq2[Object, error]

	// Clean deletes what a killed Put left behind that is not an object, if no Put is going on.
	Clean(ctx context.Context) error
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
