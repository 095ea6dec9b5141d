package sqldb

import (
	"context"
	"errors"
	"log/slog"
	"sync"
	"sync/atomic"
	"time"

	"github.com/jmoiron/sqlx"
)

// Reads that come from replicas, and those that do not:
//
//   - Files, Transfers and Backlog may be late, by twice maxLag at the most. Who has just changed something
//     through this node sees it: for a while that listing comes from the primary. What was changed through
//     another node may take that long to show.
//   - File, Answer, AnswerByKey, Transfer and Blob come from the primary: they are asked for right after the
//     commit, through any node.
//   - What decides comes from the primary. A blob, an object or staging data that a replica does not know
//     yet would be deleted (KnownStaging, KnownObjects, Blobs, WrongRefs), a copy that it still thinks is
//     there would be relied upon (Droppable), work would begin late (TakeDue), content that has just
//     come would be sent again or a collision overlooked (FindContent, KnowsHint), and what is deleted would
//     be found again and again (ForgetAnswers).
const (
	// maxLag is how far behind a replica may be when it is looked at, and how long that look counts.
	maxLag = time.Second
	// lookPeriod is how often replicas are looked at.
	lookPeriod = maxLag / 2
)

// replicas are the read replicas of a server, and how they are. No clock of another machine is asked: the
// primary has a number that nodes count up, and a replica that has the number which the primary had maxLag
// ago is not further behind than that.
type replicas struct {
	log   *slog.Logger
	begin time.Time
	all   []*replica
	turn  atomic.Uint64
	wg    sync.WaitGroup
	quit  context.CancelFunc
	wrote sync.Map // owner: time.Time of the last write through this node
}

type replica struct {
	*reader
	until atomic.Int64 // since begin: it can be used so long
}

// pulse is a number that the primary had at a time.
type pulse struct {
	n  int64
	at time.Time
}

// watch begins to look at the replicas; none is used before it was looked at.
func watch(ctx context.Context, db *DB, pools []*sqlx.DB, log *slog.Logger) *replicas {
	ctx, quit := context.WithCancel(ctx)
	r := &replicas{log: log, quit: quit, begin: time.Now()}
	for _, p := range pools {
		r.all = append(r.all, &replica{reader: newReader(p, db.dialect)})
	}
	if len(r.all) > 0 {
		r.wg.Go(func() { r.watch(ctx, db) })
	}
	return r
}

func (r *replicas) close() error {
	r.quit()
	r.wg.Wait()
	var errs []error
	for _, c := range r.all {
		errs = append(errs, c.close())
	}
	return errors.Join(errs...)
}

func (r *replicas) watch(ctx context.Context, db *DB) {
	ticker := time.NewTicker(lookPeriod)
	defer ticker.Stop()
	used := make([]bool, len(r.all))
	var seen []pulse // oldest first
	for {
		now := time.Now()
		n, err := db.pulse(ctx)
		if err == nil {
			seen = append(seen, pulse{n, now})
		}
		for len(seen) > 1 && now.Sub(seen[1].at) >= maxLag {
			seen = seen[1:]
		}
		if len(seen) > 0 && now.Sub(seen[0].at) >= maxLag {
			r.look(ctx, now, seen[0].n, err, used)
		}
		r.wrote.Range(func(owner, at any) bool {
			if now.Sub(at.(time.Time)) > 2*maxLag {
				r.wrote.CompareAndDelete(owner, at)
			}
			return true
		})
		select {
		case <-ctx.Done():
			return
		case <-ticker.C:
		}
	}
}

// look looks at all replicas: those that have the pulse can be used. primary is the primary's error: while it
// does not answer nobody knows how far behind a replica is.
func (r *replicas) look(ctx context.Context, now time.Time, pulse int64, primary error, used []bool) {
	ctx, cancel := context.WithTimeout(ctx, maxLag)
	defer cancel()
	var looking sync.WaitGroup
	for i, c := range r.all {
		looking.Go(func() {
			n, err := int64(0), primary
			if err == nil {
				err = row(ctx, c, []any{&n}, pulseQuery)
			}
			use := err == nil && n >= pulse
			if use {
				c.until.Store(int64(now.Add(maxLag).Sub(r.begin)))
			}
			if use != used[i] && !errors.Is(ctx.Err(), context.Canceled) {
				used[i] = use
				r.log.InfoContext(ctx, "replica", "number", i+1, "used", use, "error", err)
			}
		})
	}
	looking.Wait()
}

const pulseQuery = `SELECT c.pulse FROM cluster c WHERE c.one = 1`

// pulse counts the primary's number up and returns it.
func (db *DB) pulse(ctx context.Context) (int64, error) {
	return write(ctx, db, "pulse", "", func(ctx context.Context, s *session) (n int64, err error) {
		if _, err = s.exec(ctx, `UPDATE cluster SET pulse = pulse + 1 WHERE one = 1`); err == nil {
			err = row(ctx, s, []any{&n}, pulseQuery)
		}
		return n, err
	})
}

// fresh returns a replica that is up to date; nil if there is none.
func (r *replicas) fresh() *replica {
	for range r.all {
		c := r.all[r.turn.Add(1)%uint64(len(r.all))]
		if int64(time.Since(r.begin)) < c.until.Load() {
			return c
		}
	}
	return nil
}

// changed notes that owner has changed something.
func (r *replicas) changed(owner string) {
	if len(r.all) > 0 {
		r.wrote.Store(owner, time.Now())
	}
}

// fromCopy reads what may be a little late: from a replica if there is one, else from the primary. owner is
// whose things are read.
func fromCopy[T any](ctx context.Context, db *DB, owner string, read func(r *reader) (T, error)) (T, error) {
	c := db.copies.fresh()
	if _, changed := db.copies.wrote.Load(owner); c == nil || changed {
		return read(db.reader)
	}
	v, err := read(c.reader)
	if err == nil || ctx.Err() != nil {
		return v, err
	}
	c.until.Store(0) // until it is looked at again
	return read(db.reader)
}
