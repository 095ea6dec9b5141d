// Package chunkstore is the port for open uploads: the chunk bytes and journal on a node's own disk
// (Staging) and what all nodes may know of an open upload (View).
package chunkstore

import (
	"context"
	"hash"
	"io"
	"iter"

	"gantry/upload"
)

// Staging holds the bytes of uploads on this node's disk, and of finished files until a store has
// them. Bytes and journal are the truth about an upload; everything else is a view of them.
//
// All methods may be called at once from many goroutines, for the same upload too. An unknown id is
// upload.NotFound everywhere.
type Staging interface {
	// Create opens an upload. When it returns nil:
	//  1. the manifest is on stable storage;
	//  2. the room for spec.Size is kept free for it.
	// upload.NoRoom if the disk's watermark would be passed, upload.Unavailable if the node does not
	// take writes.
	Create(ctx context.Context, spec upload.Spec) error

	// WriteChunk takes one chunk in. When it returns nil:
	//  1. the bytes are in place, their length and digest checked, and journalled: a killed process
	//     loses nothing (with durability "chunk", a power cut neither);
	//  2. Get shows the chunk.
	// It may be repeated: the same bytes for a chunk already there are nil again, others are
	// upload.ChunkConflict and change nothing. A repeat waits for the same chunk still being
	// received, and takes over from it when that one has stalled.
	// Other failures: InvalidIndex, ShortBody, LongBody, DigestMismatch, NotOpen, NoRoom, Timeout,
	// Canceled, Unavailable. After any failure the chunk is as it was before.
	WriteChunk(ctx context.Context, id string, index int, body Body) error

	// WriteWhole takes the bytes of one upload in at once, with no manifest or journal, and seals it:
	// they are on stable storage when it returns. body.Length may be -1 (until EOF); then limit bounds
	// it (TooLarge). After a failure, or a crash before the upload is committed, nothing is left.
	WriteWhole(ctx context.Context, id string, body Body, limit int64) (upload.Sealed, error)

	// Get returns an open upload as it stands; Sealed ones too until Commit.
	Get(id string) (upload.Upload, error)

	// All goes through the open uploads of this node.
	All() iter.Seq[upload.Upload]

	// Seal ends the receiving: all chunks are there, hashed and on stable storage. It may be
	// repeated. size is what the client says at complete, or upload.UnknownSize. Its cost does not
	// grow with the size once hashing and write-back have kept up.
	//  1. upload.Incomplete with the missing ranges: still open.
	//  2. upload.InvalidSize: the size is not what was announced or received; still open.
	//  3. nil: no more chunks are taken (NotOpen).
	Seal(ctx context.Context, id string, size int64) (upload.Sealed, error)

	// Recheck reads all chunks of an uncommitted upload and compares them with what was acknowledged.
	// Those that differ are reported missing from then on, and a sealed upload is open again. It
	// returns their ranges.
	Recheck(ctx context.Context, id string) ([]upload.Range, error)

	// Commit tells that the sealed upload is a blob now: only its data is kept. It may be repeated.
	Commit(ctx context.Context, id string) error

	// Open reads the data of a sealed or committed upload, or of an open one its hashed prefix.
	// Discard does not disturb it.
	Open(ctx context.Context, id string) (Content, error)

	// Discard deletes everything of an upload, open or committed. It may be repeated; an unknown id
	// is no error.
	Discard(ctx context.Context, id string) error

	// Data lists the ids whose data is on this disk without an open upload: committed, or left by a
	// crash in WriteWhole.
	Data() ([]string, error)

	// Health says whether the node can take writes.
	Health() Health

	// Close waits for what is going on, and marks the directory as cleanly shut.
	Close() error
}

// Body is a chunk, or a whole file, on its way in.
type Body struct {
	io.Reader
	Length int64   // as announced; -1 if not (WriteWhole only)
	CRC32C *uint32 // as announced, nil if not; free to check
	Checks []Check // other announced digests
	Abort  func()  // makes a blocked Read return soon; may be nil
}

// Check compares bytes with an announced digest.
type Check struct {
	Hash hash.Hash
	Want []byte
}

// Content is readable data of known length.
type Content interface {
	io.ReaderAt
	io.Closer
	Size() int64
}

// Health is what /readyz tells of the staging disk.
type Health struct {
	Writable bool   // false: no new uploads and no chunks
	Reason   string // why not; a sentence
	Full     bool   // the watermark is reached: no new uploads, open ones go on
	Total    int64  // bytes of the file system
	Free     int64
	Reserved int64 // promised to open uploads and not yet received
	Open     int   // open uploads
}
