package store

import (
	"context"
	"iter"
	"net/url"
	"time"
)

// Director is implemented by stores that can take the parts of an object from a client, which sends them there
// by itself.
type Director interface {
	Direct() Direct
}

// Direct is multipart uploads whose parts somebody else sends. Errors are those of Store.
type Direct interface {
	// Create begins a multipart upload.
	Create(ctx context.Context, key string) (id string, err error)
	// PresignPart returns a URL to which a PUT sends one part, numbered from 1. It does not ask the store.
	PresignPart(ctx context.Context, key, id string, number int, expires time.Duration) (*url.URL, error)
	// Parts lists what is there. upload.NotFound if there is no such upload (any more).
	Parts(ctx context.Context, key, id string) iter.Seq2[Part, error]
	// Complete makes an object of the parts, in the order of their numbers. It may be repeated if the answer
	// got lost: upload.NotFound then, with the object there.
	Complete(ctx context.Context, key, id string, parts []Part) error
	// Abort ends the upload. One that is not there is no error.
	Abort(ctx context.Context, key, id string) error
	// PartLimits are what the store allows: the least size of all parts but the last, the largest, bytes, and
	// how many there may be.
	PartLimits() (least, largest int64, most int)
}

// Part is a part of a multipart upload that the store has.
type Part struct {
	Number   int // from 1
	Size     int64
	ETag     string // as the store writes it
	Checksum string // another digest of the store's, in the driver's own form; "": none
}
