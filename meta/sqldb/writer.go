package sqldb

import (
	"context"
	"database/sql"
	"database/sql/driver"
	"errors"
	"fmt"
	"runtime"
	"sync"
	"time"

	"github.com/cenkalti/backoff/v5"
	"github.com/jmoiron/sqlx"
	"golang.org/x/sync/errgroup"

	"gantry/upload"
)

var (
	errClosed = upload.Errorf(upload.Unavailable, "", "", "The server is shutting down. Try again.")
	errLate   = upload.Errorf(upload.Unavailable, "", "", "The database does not answer. Try again.")
)

// writer runs operations in transactions, those that are waiting together in one. None is answered
// before its transaction is committed. It has as many transactions at a time as its database is good at:
// with one, operations are run in the order in which they come.
type writer struct {
	pool    *sqlx.DB // of as many connections
	dialect *dialect
	queue   chan *operation // unbuffered: what was taken from it is answered
	quit    chan struct{}   // closed: take no more
	stop    sync.Once
	lanes   errgroup.Group
	commit  func(context.Context, *session) error // replaced by tests that make commits fail
	step    func()                                // set by tests that stop a transaction between two statements
}

// operation is one caller's part of a transaction.
type operation struct {
	canceled func() error                                // why the caller does not want it any more
	run      func(ctx context.Context, s *session) error // may be run again, when what it did was undone
	err      error
	done     chan struct{}
}

func newWriter(pool *sqlx.DB, d *dialect) *writer {
	return &writer{pool: pool, dialect: d, queue: make(chan *operation), quit: make(chan struct{}), commit: d.commit}
}

func (w *writer) start(ctx context.Context) {
	for range w.dialect.writers {
		l := &lane{w: w}
		w.lanes.Go(func() error { return l.loop(ctx) })
	}
}

// close waits for the transactions that are going on.
func (w *writer) close() error {
	w.stop.Do(func() { close(w.quit) })
	return errors.Join(w.lanes.Wait(), w.pool.Close())
}

func (w *writer) closed() bool { return w.err() != nil }

func (w *writer) err() error {
	select {
	case <-w.quit:
		return errClosed
	default:
		return nil
	}
}

// do runs f in the next transaction and returns when that is committed. A caller that goes away
// before f has begun gets its context's error and f is not run; later it has to wait, because
// otherwise it would not know what became of it.
func (w *writer) do(ctx context.Context, f func(ctx context.Context, s *session) error) error {
	o := &operation{canceled: ctx.Err, run: f, done: make(chan struct{})}
	if err := w.err(); err != nil {
		return err
	}
	var late <-chan time.Time
	if w.dialect.patience > 0 {
		timer := time.NewTimer(w.dialect.patience)
		defer timer.Stop()
		late = timer.C
	}
	select {
	case w.queue <- o:
	case <-ctx.Done():
		return ctx.Err()
	case <-late:
		return errLate
	case <-w.quit:
		return errClosed
	}
	<-o.done
	return o.err
}

// lane is one of a writer's transactions at a time, and its connection.
type lane struct {
	w       *writer
	session *session // nil: there is no connection
}

func (l *lane) loop(ctx context.Context) error {
	w := l.w
	batch := make([]*operation, 0, w.dialect.batch)
	for {
		select {
		case <-w.quit:
			if err := l.drop(); !w.dialect.lost(err) { // what is gone needs no closing
				return err
			}
			return nil
		case first := <-w.queue:
			batch = w.waiting(append(batch[:0], first))
		}
		l.serve(ctx, batch)
		for _, o := range batch {
			close(o.done)
		}
		clear(batch)
	}
}

// waiting adds to batch what is waiting, as far as there is room. Those who were answered just now may
// have more to do: letting them run first makes batches twice as long.
func (w *writer) waiting(batch []*operation) []*operation {
	yielded := false
	for len(batch) < w.dialect.batch {
		select {
		case o := <-w.queue:
			batch = append(batch, o)
		default:
			if yielded {
				return batch
			}
			runtime.Gosched()
			yielded = true
		}
	}
	return batch
}

// serve runs the batch to its end, whatever that is.
func (l *lane) serve(ctx context.Context, batch []*operation) {
	if patience := l.w.dialect.patience; patience > 0 {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(ctx, patience)
		defer cancel()
	}
	err := l.transaction(ctx, batch)
	if len(batch) > 1 && l.w.dialect.conflict(err) {
		// Alone each holds its own rows only, and for a shorter time. And one that waits for what somebody
		// holds for long does not keep the others.
		for i := range batch {
			l.answer(batch[i:i+1], l.transaction(ctx, batch[i:i+1]))
		}
		return
	}
	l.answer(batch, err)
}

// answer tells the batch that its transaction failed.
func (l *lane) answer(batch []*operation, err error) {
	if err == nil {
		return
	}
	kind := upload.Unavailable // it may pass
	if l.w.dialect.kind(err) == upload.NoRoom {
		kind = upload.NoRoom
	}
	err = &upload.Error{Kind: kind, Detail: "The database could not record this. Try again.", Err: err}
	// Also what failed by itself may have done so because of another's work, which is undone.
	for _, o := range batch {
		o.err = err
	}
}

// How long a transaction that was in another's way waits before it is run again.
const (
	firstPause = 2 * time.Millisecond
	lastPause  = 500 * time.Millisecond
)

// transaction runs the batch and commits it. An operation's own failure is in its err; the error
// returned is that of the transaction as a whole. This is the one place where a transaction is run
// again: because an operation in it has to be undone by itself, because it conflicted with another, or
// because the connection broke before it was to be committed. When that happens later nobody knows what
// the database has, and it is for the caller to repeat the call.
func (l *lane) transaction(ctx context.Context, batch []*operation) error {
	pauses := backoff.ExponentialBackOff{InitialInterval: firstPause, Multiplier: 2, RandomizationFactor: 0.5, MaxInterval: lastPause}
	// Hardly any operation fails after it has changed something, and savepoints cost a fifth of all
	// time. So they are only used when one has.
	attempt := (*session).attempt
	for {
		undone, committing, err := l.run(ctx, batch, attempt)
		switch {
		case undone:
			attempt = (*session).attemptWithSavepoint
			continue
		case err == nil:
			return nil
		}
		conflict := l.w.dialect.conflict(err)
		if !conflict || l.session == nil || l.session.text(ctx, "ROLLBACK") != nil {
			// What state the connection is in is not known, so another one is made.
			err = errors.Join(err, l.drop())
		}
		if conflict && len(batch) > 1 || !conflict && (committing || !l.w.dialect.lost(err)) {
			return err
		}
		select {
		case <-ctx.Done():
			return errors.Join(err, ctx.Err())
		case <-l.w.quit:
			return err
		case <-time.After(pauses.NextBackOff()):
		}
	}
}

// run runs the batch and commits it, or undoes all of it because of an operation that cannot be undone
// by itself. committing: the error is that of the commit.
func (l *lane) run(ctx context.Context, batch []*operation, attempt attemptFunc) (undone, committing bool, err error) {
	s, err := l.connect(ctx)
	if err != nil {
		return false, false, err
	}
	if err := s.text(ctx, l.w.dialect.begin); err != nil {
		return false, false, err
	}
	for _, o := range batch {
		if o.err = o.canceled(); o.err != nil {
			continue
		}
		if ok, err := attempt(s, ctx, o); err != nil {
			return false, false, err
		} else if !ok {
			// Databases end the transaction by themselves at some errors (disk full, I/O). Then this fails.
			if err := s.text(ctx, "ROLLBACK"); err != nil {
				return false, false, errors.Join(o.err, err)
			}
			return true, false, nil
		}
	}
	return false, true, l.w.commit(ctx, s)
}

// attemptFunc runs one operation. Its own failure is in its err. If ok is false that failure cannot be
// undone by itself; an error means that the transaction cannot go on.
type attemptFunc func(s *session, ctx context.Context, o *operation) (ok bool, err error)

func (l *lane) connect(ctx context.Context) (*session, error) {
	if l.session != nil {
		return l.session, nil
	}
	conn, err := l.w.pool.Connx(ctx)
	if err != nil {
		return nil, err
	}
	l.session = &session{conn: conn, dialect: l.w.dialect, step: l.w.step, stmts: map[string]*sqlx.Stmt{}}
	return l.session, nil
}

// drop closes the connection, and with it a transaction that is still open.
func (l *lane) drop() error {
	s := l.session
	if s == nil {
		return nil
	}
	l.session = nil
	var errs []error
	for _, stmt := range s.stmts {
		errs = append(errs, stmt.Close())
	}
	// ErrBadConn keeps the pool from using the connection again.
	if err := s.conn.Raw(func(any) error { return driver.ErrBadConn }); !errors.Is(err, driver.ErrBadConn) {
		errs = append(errs, err)
	}
	if err := s.conn.Close(); !errors.Is(err, sql.ErrConnDone) {
		errs = append(errs, err)
	}
	return errors.Join(errs...)
}

// session is a connection that writes, in a transaction.
type session struct {
	conn    *sqlx.Conn
	dialect *dialect
	step    func()
	stmts   map[string]*sqlx.Stmt // by query; the queries are constants
	dirty   bool                  // the operation has changed something
}

func (s *session) attempt(ctx context.Context, o *operation) (ok bool, err error) {
	s.dirty = false
	if o.err = o.run(ctx, s); o.err == nil {
		return true, nil
	}
	if s.hopeless(o.err) {
		return false, o.err
	}
	// After an error of its own a database may refuse to go on with the transaction.
	_, refused := errors.AsType[*upload.Error](o.err)
	return refused && !s.dirty, nil
}

// hopeless reports that the whole transaction is gone.
func (s *session) hopeless(err error) bool { return s.dialect.conflict(err) || s.dialect.lost(err) }

// insertTries is how often an operation is run that found something taken which was not there when it
// looked. Another transaction was faster. What that one has done may be the very answer.
const insertTries = 3

func (s *session) attemptWithSavepoint(ctx context.Context, o *operation) (ok bool, err error) {
	for try := 1; ; try++ {
		if err := s.text(ctx, "SAVEPOINT operation"); err != nil {
			return false, err
		}
		if o.err = o.run(ctx, s); o.err != nil {
			if s.hopeless(o.err) {
				return false, o.err
			}
			if err := s.text(ctx, "ROLLBACK TO SAVEPOINT operation"); err != nil {
				return false, errors.Join(o.err, err)
			}
		}
		if err := s.text(ctx, "RELEASE SAVEPOINT operation"); err != nil {
			return false, err
		}
		if o.err == nil || try == insertTries || !s.overtaken(o.err) {
			return true, nil
		}
	}
}

// overtaken reports that what an operation wanted to insert was there, by a word of the database's. Where
// transactions come one after the other nobody can have been faster.
func (s *session) overtaken(err error) bool {
	_, refused := errors.AsType[*upload.Error](err)
	return !refused && s.dialect.forUpdate != "" && s.dialect.kind(err) == upload.Conflict
}

// text runs a statement that not all databases can prepare.
func (s *session) text(ctx context.Context, statement string) error {
	_, err := s.conn.ExecContext(ctx, statement)
	return err
}

func (s *session) prepare(ctx context.Context, query string) (*sqlx.Stmt, error) {
	if s.step != nil {
		s.step()
	}
	if stmt := s.stmts[query]; stmt != nil {
		return stmt, nil
	}
	stmt, err := s.conn.PreparexContext(ctx, s.conn.Rebind(query))
	if err != nil {
		return nil, fmt.Errorf("prepare %q: %w", query, err)
	}
	s.stmts[query] = stmt
	return stmt, nil
}

// bounded leaves the time to the transaction.
func (s *session) bounded(ctx context.Context) (context.Context, context.CancelFunc) {
	return ctx, func() {}
}

// exec runs a statement and returns how many rows it changed.
func (s *session) exec(ctx context.Context, query string, args ...any) (int64, error) {
	stmt, err := s.prepare(ctx, query)
	if err != nil {
		return 0, err
	}
	result, err := stmt.ExecContext(ctx, args...)
	if err != nil {
		return 0, err
	}
	n, err := result.RowsAffected()
	s.dirty = s.dirty || n != 0
	return n, err
}
