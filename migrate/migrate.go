// Package migrate moves blobs from one store to another while uploads, downloads, deletes, transfers and the
// janitor go on.
//
// A move is a row before it is anything else: from then on the janitor knows the object that is being made. The
// object is copied, verified by what the store has, and then one transaction makes the new place the blob's,
// if the blob is still what was copied. Whatever is killed, the blob's row names an object that was verified.
// The old object is the janitor's: it goes a grace time later. Why it is so, and what may race with what, is
// in docs/decisions/0015.
package migrate

import (
	"cmp"
	"context"
	"errors"
	"log/slog"
	"sync"
	"time"

	"github.com/cenkalti/backoff/v5"
	"golang.org/x/sync/errgroup"
	"golang.org/x/time/rate"

	"gantry/meta"
	"gantry/store"
	"gantry/upload"
)

// Options are what a Migrator is to do. What is zero gets its default.
type Options struct {
	From, To string // names of stores; needed
	// Owner is this process's name in the lease; needed. What a killed process has left under this name is taken
	// over at once, so no two that live may have the same.
	Owner    string
	Parallel int   // blobs at a time; default 4
	Rate     int64 // bytes copied per second, all together; default: no limit. What is read to verify is not counted
	Follow   bool  // go on until no transfer goes into From any more

	LeaseTTL   time.Duration // a run of which nothing is heard for so long has lost its lease; default 30 s
	Poll       time.Duration // between two looks for what has come meanwhile; default 10 s
	Tries      int           // of one blob; default 6
	MinBackoff time.Duration // before the second; default 1 s
	MaxBackoff time.Duration // between any two; default 30 s
}

func (o Options) withDefaults() Options {
	o.Parallel = max(cmp.Or(o.Parallel, 4), 1)
	o.LeaseTTL = cmp.Or(o.LeaseTTL, 30*time.Second)
	o.Poll = cmp.Or(o.Poll, 10*time.Second)
	o.Tries = max(cmp.Or(o.Tries, 6), 1)
	o.MinBackoff = cmp.Or(o.MinBackoff, time.Second)
	o.MaxBackoff = cmp.Or(o.MaxBackoff, 30*time.Second)
	return o
}

// DB is what a Migrator needs of the database; meta.DB has it.
type DB interface {
	meta.Mover
	meta.Leases
	Blob(ctx context.Context, id string) (upload.Blob, error)
	KnownObjects(ctx context.Context, store string, keys []string) (map[string]bool, error)
}

// Deps are the ports that a Migrator stands on.
type Deps struct {
	DB      DB
	Stores  map[string]store.Store
	Watcher Watcher          // nil: nobody is told
	Log     *slog.Logger     // default: none
	Now     func() time.Time // time.Now if nil
}

// Watcher is told how a run gets on, by several goroutines.
type Watcher interface {
	// Waiting tells that another run has the lease, which may have been killed.
	Waiting(most time.Duration)
	// Found tells how many blobs are to be moved, with how many bytes: in all, those that were moved counted.
	Found(blobs, bytes int64)
	// Begun tells that a blob is worked on; again that it is tried once more, and why.
	Begun(b *upload.Blob, again error)
	// Copied tells how many of its bytes the new store has. All of them: it is being verified.
	Copied(b *upload.Blob, bytes int64)
	// Ended tells that a blob was moved, or that it stays where it is, and why. Of one that somebody else
	// has deleted or moved there is nothing to say: then moved is false and err nil.
	Ended(b *upload.Blob, moved bool, err error)
}

// Migrator moves blobs from one store to another, and compares both with the database. It is made by New.
type Migrator struct {
	Deps
	opt      Options
	from, to store.Store
	limit    *rate.Limiter // nil: none
}

// New returns a Migrator. upload.Invalid if the stores cannot be what is meant.
func New(opt Options, deps Deps) (*Migrator, error) {
	const op = "migrate.New"
	if deps.Now == nil {
		deps.Now = time.Now
	}
	if deps.Log == nil {
		deps.Log = slog.New(slog.DiscardHandler)
	}
	if deps.Watcher == nil {
		deps.Watcher = nobody{}
	}
	m := &Migrator{Deps: deps, opt: opt.withDefaults(), from: deps.Stores[opt.From], to: deps.Stores[opt.To]}
	switch {
	case m.from == nil || m.to == nil:
		name := opt.From
		if m.from != nil {
			name = opt.To
		}
		return nil, upload.Errorf(upload.Invalid, op, name, "There is no store %q. Add it to the configuration, or correct the name.", name)
	case opt.From == opt.To:
		return nil, upload.Errorf(upload.Invalid, op, opt.To, "The stores to move from and to are the same.")
	case opt.Owner == "":
		return nil, upload.Errorf(upload.Invalid, op, "", "A run needs a name for its lease.")
	}
	if opt.Rate > 0 {
		m.limit = rate.NewLimiter(rate.Limit(opt.Rate), int(min(max(opt.Rate/8, 64<<10), 4<<20)))
	}
	return m, nil
}

type nobody struct{}

func (nobody) Waiting(time.Duration)           {}
func (nobody) Found(int64, int64)              {}
func (nobody) Begun(*upload.Blob, error)       {}
func (nobody) Copied(*upload.Blob, int64)      {}
func (nobody) Ended(*upload.Blob, bool, error) {}

// Plan is what a run would have to do.
type Plan struct{ From, To meta.Usage }

// Plan looks at both stores and changes nothing.
func (m *Migrator) Plan(ctx context.Context) (p Plan, err error) {
	const op = "migrate.Plan"
	for _, st := range []store.Store{m.from, m.to} {
		if checker, ok := store.As[store.Checker](st); ok {
			if err := checker.Check(ctx); err != nil {
				return p, upload.Wrap(upload.Unavailable, op, "", err)
			}
		}
	}
	p.From, err = retried(ctx, func() (meta.Usage, error) { return m.DB.Usage(ctx, m.opt.From) })
	if err == nil {
		p.To, err = retried(ctx, func() (meta.Usage, error) { return m.DB.Usage(ctx, m.opt.To) })
	}
	return p, upload.Wrap(upload.Unavailable, op, "", err)
}

// Result is what a run has done.
type Result struct {
	Moved, Bytes int64
	Failed       int64 // blobs that stay where they are; the Watcher was told why
	Left         Plan  // how things are now
}

// run is one Run.
type run struct {
	*Migrator
	fence meta.Fence
	lease *lease
	begun map[string]bool // moves that an earlier run began

	mu     sync.Mutex
	failed map[string]bool // by blob
	streak int             // of them without a blob between that could be moved
	result Result
}

// maxStreak is after how many failures without a success a run ends: then it is not the blobs.
const maxStreak = 20

// Run moves all blobs from the one store to the other, and returns when none is left that could be moved. It may
// be killed at any point and run again. upload.Conflict if another run has the lease, or has taken it.
func (m *Migrator) Run(ctx context.Context) (Result, error) {
	const op = "migrate.Run"
	if _, err := m.Plan(ctx); err != nil { // before anything is written: are the stores there?
		return Result{}, err
	}
	r := &run{Migrator: m, failed: map[string]bool{}}
	err := m.leased(ctx, func(ctx context.Context, l *lease) (err error) {
		r.lease, r.fence = l, l.fence
		if err := m.to.Clean(ctx); err != nil && ctx.Err() == nil {
			m.Log.Warn("could not clean up in a store; the next run tries again", "store", m.opt.To, "error", err)
		}
		if r.begun, err = m.tidy(ctx, l.fence); err != nil {
			return err
		}
		return r.passes(ctx)
	})
	if err == nil {
		r.result.Left, err = m.Plan(ctx)
	}
	return r.result, upload.Wrap(upload.Internal, op, "", err)
}

// passes goes through the store until nothing is left.
func (r *run) passes(ctx context.Context) error {
	for {
		usage, err := retried(ctx, func() (meta.Usage, error) { return r.DB.Usage(ctx, r.opt.From) })
		if err != nil {
			return err
		}
		before := r.told()
		r.Watcher.Found(before.Moved+usage.Live, before.Bytes+usage.Bytes)
		for _, state := range []upload.BlobState{upload.BlobLive, upload.BlobStranded} {
			if err := r.pass(ctx, state); err != nil {
				return err
			}
		}
		switch {
		case r.told().Moved > before.Moved: // it took a while, and more may have come
		case !r.opt.Follow || usage.Waiting == 0: // none came since they were counted
			return nil
		default:
			if err := pause(ctx, r.opt.Poll); err != nil {
				return err
			}
		}
	}
}

// told is what was done so far.
func (r *run) told() Result {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.result
}

// page is how many rows are asked for at a time.
const page = 500

// pass moves the blobs that have a state, as far as they have not failed in this run.
func (r *run) pass(ctx context.Context, state upload.BlobState) error {
	return r.each(ctx, r.opt.From, state, func(ctx context.Context, b *upload.Blob) error {
		r.mu.Lock()
		failed := r.failed[b.ID]
		r.mu.Unlock()
		if failed || b.Root.IsZero() || b.Undigested() { // there is nothing to verify it by until its transfer is done
			return nil
		}
		return r.one(ctx, b)
	})
}

// each calls f for the blobs in a store that have a state, Options.Parallel at a time, and ends with the first error.
func (m *Migrator) each(ctx context.Context, name string, state upload.BlobState, f func(ctx context.Context, b *upload.Blob) error) error {
	group, working := errgroup.WithContext(ctx)
	group.SetLimit(m.opt.Parallel)
	var listing error
	for after := ""; working.Err() == nil; {
		var blobs []upload.Blob
		blobs, listing = retried(working, func() ([]upload.Blob, error) { return m.DB.BlobsIn(working, name, state, after, page) })
		for i := range blobs {
			if working.Err() != nil {
				break
			}
			group.Go(func() error { return f(working, &blobs[i]) })
		}
		if listing != nil || len(blobs) < page {
			break
		}
		after = blobs[len(blobs)-1].ID
	}
	if err := group.Wait(); err != nil {
		return err
	}
	return errors.Join(listing, ctx.Err())
}

// tidy gives up what runs have begun that this one will not go on with: moves to other stores, and of blobs
// that are not where they were. Whoever has the lease knows that nobody works on them. It returns the others.
func (m *Migrator) tidy(ctx context.Context, fence meta.Fence) (begun map[string]bool, err error) {
	begun = map[string]bool{}
	for after := ""; ; {
		moves, err := retried(ctx, func() ([]meta.Move, error) {
			return m.DB.Moves(ctx, meta.MoveQuery{State: meta.MoveCopying, After: after, Limit: page})
		})
		if err != nil {
			return nil, err
		}
		for i := range moves {
			mv := &moves[i]
			after = mv.ID
			b, err := retried(ctx, func() (upload.Blob, error) { return m.DB.Blob(ctx, mv.BlobID) })
			if err != nil && !errors.Is(err, upload.NotFound) {
				return nil, err
			}
			if mv.From.Store == m.opt.From && mv.To.Store == m.opt.To && b.Store == mv.From.Store && b.ObjectKey == mv.From.Key {
				begun[mv.ID] = true
				continue
			}
			if err := m.giveUp(ctx, fence, mv); err != nil {
				return nil, err
			}
		}
		if len(moves) < page {
			return begun, nil
		}
	}
}

// giveUp ends a move that is copying, and deletes what there is of its object. What cannot be deleted now the
// janitor deletes.
func (m *Migrator) giveUp(ctx context.Context, fence meta.Fence, mv *meta.Move) error {
	_, err := retried(ctx, func() (struct{}, error) { return struct{}{}, m.DB.Abandon(ctx, fence, mv.ID) })
	if errors.Is(err, upload.Conflict) { // deleted with its blob, or the lease is lost, which will be noticed
		return nil
	}
	if err != nil {
		return err
	}
	st, ok := m.Stores[mv.To.Store]
	if !ok || st.Delete(ctx, mv.To.Key) != nil {
		return nil
	}
	_, err = retried(ctx, func() (struct{}, error) { return struct{}{}, m.DB.ForgetMove(ctx, mv.ID) })
	return err
}

// databasePatience is how long a run waits for a database that is away.
const databasePatience = time.Minute

// retried asks the database until it answers: a run of days does not end because it was restarted.
func retried[T any](ctx context.Context, ask func() (T, error)) (T, error) {
	return backoff.Retry(ctx, func() (T, error) {
		v, err := ask()
		if err != nil && upload.KindOf(err) != upload.Unavailable {
			err = backoff.Permanent(err)
		}
		return v, err
	}, backoff.WithBackOff(&backoff.ExponentialBackOff{
		InitialInterval: 50 * time.Millisecond, Multiplier: 2, RandomizationFactor: 0.25, MaxInterval: 2 * time.Second,
	}), backoff.WithMaxElapsedTime(databasePatience))
}

// pause waits for a while.
func pause(ctx context.Context, d time.Duration) error {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-ctx.Done():
		return context.Cause(ctx)
	case <-timer.C:
		return nil
	}
}
