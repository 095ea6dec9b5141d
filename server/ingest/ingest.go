// Package ingest is the use cases of an upload node: taking uploads in, instant upload, and the
// files that come of them. It knows no HTTP and no SQL; every front (native API, and other protocols
// later) calls it, and it calls the ports.
package ingest

import (
	"cmp"
	"context"
	"crypto/rand"
	"io"
	"log/slog"
	"net/url"
	"time"

	"gantry/chunkstore"
	"gantry/meta"
	"gantry/store"
	"gantry/upload"
)

// Options are the limits and periods of the use cases.
type Options struct {
	Node        string        // this node's id
	MaxSize     int64         // of one file, bytes
	MaxOpen     int           // open uploads on this node
	UploadTTL   time.Duration // an upload expires this long after its last chunk
	AnswerTTL   time.Duration // how long a repeated complete gets the same answer
	DeleteGrace time.Duration // how long a blob without references is kept
	StageGrace  time.Duration // how long the staging copy outlives its transfer
	Scope       meta.Scope    // how far instant upload looks
	// Route names the store that a file's content is transferred to. It may be another one next time; needed.
	Route func(size int64, contentType, owner string) string
	// Redirect says from which stores clients fetch by themselves: by name, the CDN that they are sent to, nil if it
	// is the store itself.
	Redirect    map[string]*url.URL
	Direct      bool          // clients may send chunks to a store by themselves, if it is a store.Director
	ScrubRate   int64         // at which what is in the stores is read again, bytes per second; 0: it is not
	Janitor     time.Duration // how often the janitor looks
	OrphanSweep time.Duration // how often it compares the stores with the database

	MaxFollowers int           // who follow one owner's things at a time
	FollowPause  time.Duration // how often it is looked at what happened to them, at the most
}

func (o Options) withDefaults() Options {
	o.MaxSize = cmp.Or(o.MaxSize, 1<<40)
	o.MaxOpen = cmp.Or(o.MaxOpen, 100_000)
	o.UploadTTL = cmp.Or(o.UploadTTL, 7*24*time.Hour)
	o.AnswerTTL = cmp.Or(o.AnswerTTL, 7*24*time.Hour)
	o.DeleteGrace = cmp.Or(o.DeleteGrace, time.Hour)
	o.StageGrace = cmp.Or(o.StageGrace, 10*time.Minute)
	o.Scope = cmp.Or(o.Scope, meta.ScopeUser)
	o.Janitor = cmp.Or(o.Janitor, time.Minute)
	o.OrphanSweep = cmp.Or(o.OrphanSweep, 24*time.Hour)
	o.MaxFollowers = cmp.Or(o.MaxFollowers, 256)
	o.FollowPause = cmp.Or(o.FollowPause, time.Second)
	o.MaxSize = min(o.MaxSize, upload.MaxSize)
	return o
}

// Deps are the ports that the use cases stand on.
type Deps struct {
	Staging chunkstore.Staging
	View    chunkstore.View
	DB      meta.DB
	Stores  map[string]store.Store
	// Lead says whether this node cleans up what belongs to all, and under which fence. nil: there is only
	// this node.
	Lead    func() (meta.Fence, bool)
	Wake    func() // tells the outbox relay that there is work; never blocks
	Metrics *Metrics
	Log     *slog.Logger     // discarded if nil
	Now     func() time.Time // time.Now if nil
}

// Service is the use cases. It is made by New and safe for concurrent use.
type Service struct {
	Deps
	opt Options

	secret  [32]byte // decides what nobody outside may foresee; see draw
	keys    keyLocks // one request at a time for an Idempotency-Key
	writing idSet    // whole files being written: not garbage, though no row knows them yet
	feeds   feeds
}

// New returns the use cases; Recover is to be called before the first request.
func New(opt Options, deps Deps) *Service {
	if deps.Now == nil {
		deps.Now = time.Now
	}
	if deps.Metrics == nil {
		deps.Metrics = NewMetrics(nil)
	}
	if deps.Log == nil {
		deps.Log = slog.New(slog.DiscardHandler)
	}
	s := &Service{Deps: deps, opt: opt.withDefaults()}
	_, _ = rand.Read(s.secret[:]) // never fails (crypto/rand, Go 1.24)
	return s
}

// InitRequest is what a client says about a file that it is going to send.
type InitRequest struct {
	Name        string
	Path        string
	Size        *int64 // nil: given at complete
	SHA1        *upload.SHA1
	Hint        *upload.SHA1
	ChunkSize   *int64 // a wish
	ContentType string
	Metadata    map[string]string
	Replaces    string
	Direct      bool   // the client can send the chunks to the store by itself
	Key         string // Idempotency-Key
}

// Known is what init tells about content that may be here already.
type Known string

// The answers to a hint.
const (
	KnownNo    Known = "no"    // send at once, hash beside
	KnownMaybe Known = "maybe" // hash first, then ask for instant upload
)

// Opened is the answer to init.
type Opened struct {
	Status
	Known     Known
	Challenge *upload.Challenge // when init named a SHA-1 and the file is large enough
	URLs      *URLs             // of a direct upload: of its first chunks
}

// Status is where an upload stands, in whatever state.
type Status struct {
	ID        string
	State     upload.State
	Upload    upload.Upload // while open
	Direct    bool          // while open: its chunks go to the store; see URLs
	ExpiresAt time.Time     // while open
	Answer    meta.Answer   // when it is not open any more
}

// InstantRequest asks for a challenge (Proof nil) or answers one.
type InstantRequest struct {
	SHA1  upload.SHA1
	Proof *upload.Proof
}

// InstantResult is the answer: a challenge, the file, or neither ("go on uploading").
type InstantResult struct {
	Challenge *upload.Challenge
	Answer    *meta.Answer
}

// CompleteRequest is what a client says at the end.
type CompleteRequest struct {
	SHA1 *upload.SHA1
	Size *int64
}

// FileRequest describes a file that comes whole, in one request.
type FileRequest struct {
	Name        string
	Path        string
	ContentType string
	Metadata    map[string]string
	SHA1        *upload.SHA1
	Replaces    string
	Key         string
}

// ElsewhereError says that another node has what a request is about, and can answer it.
type ElsewhereError struct{ Node string }

func (e *ElsewhereError) Error() string { return "it is on node " + e.Node }

// Page is one page of a listing.
type Page[T any] struct {
	Items []T
	More  bool
}

// FileContent is a file's bytes, wherever they are.
type FileContent struct {
	File upload.File
	// Open reads length bytes from offset on. The caller closes.
	Open func(ctx context.Context, offset, length int64) (io.ReadCloser, error)
	// URL returns where the client can fetch it by itself for a while; nil if it cannot.
	URL func(ctx context.Context, opt store.PresignOptions) (*url.URL, error)
	// Close ends the use of the content.
	Close func() error
}

// Prefix is the part of an open upload that is contiguous and hashed.
type Prefix struct {
	Upload  upload.Upload
	Content chunkstore.Content
}
