// Package server is the HTTP front of an upload node: it decodes requests, calls the use cases of
// server/ingest, and encodes what they say. It knows nothing of disks, databases and stores.
//
// The contract is docs/api/openapi.yaml; the tests hold the two together.
package server

import (
	"cmp"
	"context"
	"crypto/sha256"
	"log/slog"
	"net/http"
	"sync"
	"time"

	"github.com/labstack/echo/v4"
	"github.com/prometheus/client_golang/prometheus"

	"gantry/chunkstore"
	"gantry/meta"
	"gantry/server/forward"
	"gantry/server/ingest"
	"gantry/upload"
)

// Uploads is what the front needs of the use cases; ingest.Service has it.
type Uploads interface {
	Init(ctx context.Context, owner string, r ingest.InitRequest) (ingest.Opened, bool, error)
	PutChunk(ctx context.Context, owner, id string, index int, body chunkstore.Body) error
	Status(ctx context.Context, owner, id string) (ingest.Status, error)
	Uploads(ctx context.Context, owner, after string, limit int) (ingest.Page[ingest.Status], error)
	URLs(ctx context.Context, owner, id string, first, count int) (ingest.URLs, error)
	Instant(ctx context.Context, owner, id string, r ingest.InstantRequest) (ingest.InstantResult, error)
	Complete(ctx context.Context, owner, id string, r ingest.CompleteRequest) (upload.File, error)
	Cancel(ctx context.Context, owner, id string) error
	Prefix(ctx context.Context, owner, id string) (ingest.Prefix, error)
	PutFile(ctx context.Context, owner string, r ingest.FileRequest, body chunkstore.Body) (upload.File, error)
	File(ctx context.Context, owner, id string) (upload.File, error)
	Files(ctx context.Context, q meta.FileQuery) (ingest.Page[upload.File], error)
	UpdateFile(ctx context.Context, owner, id string, c meta.FileChange) (upload.File, error)
	DeleteFile(ctx context.Context, owner, id string) error
	Content(ctx context.Context, owner, id string) (ingest.FileContent, error)
	Follow(owner string) (*ingest.Follower, error)
}

// Options are the front's settings; the zero value of each has a default.
type Options struct {
	// Token is the static bearer token that requests need. Without one nobody logs in, and only
	// requests for a loopback name that do not come from another site's page are answered: such a
	// server must listen on a loopback address.
	Token string
	Owner string // whose uploads and files these are; "local"

	// Origins are other sites, like https://example.com, whose pages may use the API. Without a token they may do all that the
	// server's own page may.
	Origins []string

	// Node is this node's id, and Forward passes requests for what another node has on to it. nil: there
	// is only this node.
	Node    string
	Forward *forward.Forwarder

	MinRate  int64         // bytes per second that a body must make on average; 1 KiB
	Window   time.Duration // over which that average is taken; 30 s
	Stall    time.Duration // how long the receiver of an answer may take nothing; 2 min
	MaxJSON  int64         // bytes of a JSON request; 64 KiB (a proof: 1 MiB)
	MaxParts int           // files of one multipart request; 1000

	EventPause time.Duration // how often clients are told what happened, at the most; 1 s
	EventBeat  time.Duration // after so long without an event something is sent all the same; 15 s
	EventLife  time.Duration // after which a stream of events ends, and access is looked at anew; 1 h

	HeaderTimeout time.Duration // until a request's headers are there; 10 s
	IdleTimeout   time.Duration // of a kept connection; 2 min
	DrainTimeout  time.Duration // for requests under way when the server stops; 30 s

	Notices func() []string       // what the page says of how the server is, sentences; nil: nothing
	Log     *slog.Logger          // discarded if nil
	Metrics prometheus.Registerer // counted unseen if nil
}

func (o Options) withDefaults() Options {
	o.Owner = cmp.Or(o.Owner, "local")
	if o.Notices == nil {
		o.Notices = func() []string { return nil }
	}
	o.MinRate = cmp.Or(o.MinRate, 1<<10)
	o.Window = cmp.Or(o.Window, 30*time.Second)
	o.Stall = cmp.Or(o.Stall, 2*time.Minute)
	o.MaxJSON = cmp.Or(o.MaxJSON, 64<<10)
	o.MaxParts = cmp.Or(o.MaxParts, 1000)
	o.EventPause = cmp.Or(o.EventPause, time.Second)
	o.EventBeat = cmp.Or(o.EventBeat, 15*time.Second)
	o.EventLife = cmp.Or(o.EventLife, time.Hour)
	o.HeaderTimeout = cmp.Or(o.HeaderTimeout, 10*time.Second)
	o.IdleTimeout = cmp.Or(o.IdleTimeout, 2*time.Minute)
	o.DrainTimeout = cmp.Or(o.DrainTimeout, 30*time.Second)
	if o.Log == nil {
		o.Log = slog.New(slog.DiscardHandler)
	}
	return o
}

// maxProofJSON bounds a request with a proof: 32 leaves of 4 KiB in base64, and their paths.
const maxProofJSON = 1 << 20

// Server is the HTTP front. It is made by New and safe for concurrent use.
type Server struct {
	uploads  Uploads
	opt      Options
	metrics  *metrics
	api      *echo.Echo
	draining chan struct{} // closed when the server is stopping
	drain    sync.Once
}

// New makes a front for uploads; nil for a process that only has a Management.
func New(uploads Uploads, opt Options) *Server {
	s := &Server{uploads: uploads, opt: opt.withDefaults(), draining: make(chan struct{})}
	s.metrics = newMetrics(s.opt.Metrics)
	f := s.front()
	f.stall = s.opt.Stall
	f.forward = s.opt.Forward
	f.origins = s.opt.Origins
	if s.opt.Token == "" {
		f.crossOrigin = http.NewCrossOriginProtection()
		for _, origin := range f.origins {
			if err := f.crossOrigin.AddTrustedOrigin(origin); err != nil {
				panic(err) // the settings were checked: see config
			}
		}
		f.loopbackOnly = true
	} else {
		sum := sha256.Sum256([]byte(s.opt.Token))
		f.token = &sum
	}
	s.api = f.echo()
	s.routes(s.api)
	return s
}

// front is the part of a listener's behavior that both listeners share.
func (s *Server) front() *front {
	window := s.opt.Window
	return &front{
		log: s.opt.Log, metrics: s.metrics,
		pace: pace{bytes: max(1, int64(float64(s.opt.MinRate)*window.Seconds())), window: window},
	}
}

// Handler is the API with its pages, for the public listener.
func (s *Server) Handler() http.Handler { return s.api }

func (s *Server) routes(e *echo.Echo) {
	e.POST("/v1/uploads", s.initUpload)
	e.GET("/v1/uploads", s.listUploads)
	e.GET("/v1/uploads/:id", s.uploadStatus)
	e.DELETE("/v1/uploads/:id", s.atOwner(s.cancelUpload))
	e.PUT("/v1/uploads/:id/chunks", s.atOwner(s.putChunk))
	e.PUT("/v1/uploads/:id/chunks/:index", s.atOwner(s.putChunk))
	e.GET("/v1/uploads/:id/urls", s.atOwner(s.chunkURLs))
	e.POST("/v1/uploads/:id/instant", s.atOwner(s.instantUpload))
	e.POST("/v1/uploads/:id/complete", s.atOwner(s.completeUpload))
	e.GET("/v1/uploads/:id/content", s.atOwner(s.uploadContent))
	e.HEAD("/v1/uploads/:id/content", s.atOwner(s.uploadContent))

	e.POST("/v1/files", s.postFiles)
	e.GET("/v1/files", s.listFiles)
	e.GET("/v1/files/:id", s.getFile)
	e.PATCH("/v1/files/:id", s.updateFile)
	e.DELETE("/v1/files/:id", s.deleteFile)
	e.GET("/v1/files/:id/content", s.fileContent)
	e.HEAD("/v1/files/:id/content", s.fileContent)
	e.GET("/v1/files/:id/transfer", s.fileTransfer)

	e.GET("/v1/events", s.events)

	s.pages(e)
}

// Drain makes /readyz say that the server is stopping, so that no new work is sent to it, and ends the streams of events, which
// would not end by themselves.
func (s *Server) Drain() { s.drain.Do(func() { close(s.draining) }) }

func (s *Server) isDraining() bool {
	select {
	case <-s.draining:
		return true
	default:
		return false
	}
}
