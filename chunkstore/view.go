package chunkstore

import (
	"context"
	"time"

	"gantry/upload"
)

// View is what every node may know of open uploads, and the small shared state around them. It may
// be lost at any time, as a whole or in parts. The node whose disk has an upload's bytes is its owner
// node: it alone writes about it here, and puts it back from its journal when it was lost.
//
// All methods may be called at once from many goroutines. upload.Unavailable: the view cannot be
// reached now. Nothing waits long for that.
type View interface {
	// Begin makes a new upload known, until ttl after now, and takes its Idempotency-Key for it.
	// upload.Conflict with the ID of the upload that has the key, if another one has: then the new one
	// is not known.
	Begin(ctx context.Context, spec *upload.Spec, ttl time.Duration) error
	// Mark makes a chunk known that is there by now and is about to be acknowledged. When it returns,
	// with or without an error, no Get leaves that chunk out: it shows it, or nothing. An upload that
	// is not known, or only partly, is Put. One round trip where nothing went wrong before.
	// upload.Canceled: ctx ended first, and the chunk must not be acknowledged.
	Mark(ctx context.Context, id string, index int, truth Truth) error
	// Put makes an upload known as it stands, in place of what was known of it: after a loss, and when
	// chunks that were there turned out to be damaged. A key that another upload has by now stays that one's.
	Put(ctx context.Context, id string, truth Truth) error
	// Remove forgets an upload and gives up its key; one that is not known is no error. When it
	// returns, with or without an error, no Get shows the upload, unless ctx ended first.
	Remove(ctx context.Context, spec *upload.Spec) error

	// Get returns an upload with every chunk that was acknowledged before the call. upload.NotFound:
	// it is not known, or not surely as it stands; its owner node can tell.
	Get(ctx context.Context, id string) (upload.Upload, error)
	// List returns an owner's open uploads in the order of ids, those after the id given. They are as
	// they were when last heard of: chunks may have come since, and some may just have ended.
	List(ctx context.Context, owner, after string, limit int) ([]upload.Upload, error)
	// ByKey returns the upload that owner began with this Idempotency-Key, "" if none.
	ByKey(ctx context.Context, owner, key string) (id string, err error)

	// PutChallenge keeps a challenge until it expires.
	PutChallenge(ctx context.Context, c upload.Challenge) error
	// TakeChallenge returns a challenge once; upload.NotFound afterwards, and after it expired.
	TakeChallenge(ctx context.Context, id string, now time.Time) (upload.Challenge, error)
	// CountFailure counts a wrong proof against who and returns how many there were in the window
	// that ends now.
	CountFailure(ctx context.Context, who string, now time.Time) (int, error)
	// Failures returns that number without counting.
	Failures(ctx context.Context, who string, now time.Time) (int, error)

	// Watch calls lost whenever this node's uploads may not be known any more, again after it failed,
	// and now and then. It returns when ctx is done.
	Watch(ctx context.Context, lost func(ctx context.Context) error)
}

// Truth tells how an open upload of this node stands, with every chunk that was taken in before the
// call, and how long it will live if nothing more comes. upload.NotFound: it has ended.
type Truth func(id string) (u upload.Upload, ttl time.Duration, err error)

// Bounds on what one owner can make a view keep, and for how long.
const (
	FailureWindow = time.Hour // a wrong proof counts against its owner for so long
	MaxChallenges = 1000      // open ones; the oldest goes first
	MaxFailures   = 100       // more are counted as so many
)
