package sqldb

import (
	"context"
	"database/sql"
	"database/sql/driver"
	"errors"
	"fmt"
	"runtime"
	"sync"

	"github.com/jmoiron/sqlx"

	"gantry/upload"
)

// maxBatch bounds how many operations one transaction holds, and so how long the first of them waits.
const maxBatch = 256

var errClosed = upload.Errorf(upload.Unavailable, "", "", "The server is shutting down. Try again.")

// writer runs operations in the order in which they come, all that are waiting in one transaction.
// None is answered before that transaction is committed.
type writer struct {
	pool    *sqlx.DB // of one connection
	dialect dialect
	queue   chan *operation // unbuffered: what was taken from it is answered
	quit    chan struct{}   // closed: take no more
	stop    sync.Once
	wg      sync.WaitGroup
	commit  func(context.Context, *session) error // replaced by tests that make commits fail

	session *session // nil: there is no connection
}

// operation is one caller's part of a transaction.
type operation struct {
	canceled func() error                                // why the caller does not want it any more
	run      func(ctx context.Context, s *session) error // may be run again, when what it did was undone
	err      error
	done     chan struct{}
}

func newWriter(pool *sqlx.DB, d dialect) *writer {
	return &writer{
		pool: pool, dialect: d, queue: make(chan *operation), quit: make(chan struct{}),
		commit: func(ctx context.Context, s *session) error { return s.text(ctx, "COMMIT") },
	}
}

func (w *writer) start(ctx context.Context) { w.wg.Go(func() { w.loop(ctx) }) }

// close waits for the transaction that is going on.
func (w *writer) close() error {
	w.stop.Do(func() { close(w.quit) })
	w.wg.Wait()
	return errors.Join(w.drop(), w.pool.Close())
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
	select {
	case w.queue <- o:
	case <-ctx.Done():
		return ctx.Err()
	case <-w.quit:
		return errClosed
	}
	<-o.done
	return o.err
}

func (w *writer) loop(ctx context.Context) {
	batch := make([]*operation, 0, maxBatch)
	for {
		select {
		case <-w.quit:
			return
		case first := <-w.queue:
			batch = w.waiting(append(batch[:0], first))
		}
		if err := w.transaction(ctx, batch); err != nil {
			// Also what failed by itself may have done so because of another's work, which is undone.
			for _, o := range batch {
				o.err = err
			}
		}
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
	for len(batch) < maxBatch {
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

// transaction runs the batch and commits it. An operation's own failure is in its err; the error
// returned is that of the transaction as a whole. After one it is not known what the database has,
// nor what state the connection is in, so another one is made.
func (w *writer) transaction(ctx context.Context, batch []*operation) (err error) {
	defer func() {
		if err != nil {
			err = &upload.Error{Kind: w.failureKind(err), Detail: "The database could not record this. Try again.", Err: errors.Join(err, w.drop())}
		}
	}()
	s, err := w.connect(ctx)
	if err != nil {
		return err
	}
	// Hardly any operation fails after it has changed something, and savepoints cost a fifth of all
	// time. So they are only used when one has.
	undone, err := w.run(ctx, s, batch, (*session).attempt)
	if undone {
		_, err = w.run(ctx, s, batch, (*session).attemptWithSavepoint)
	}
	return err
}

// run runs the batch and commits it, or undoes all of it because of an operation that cannot be undone
// by itself.
func (w *writer) run(ctx context.Context, s *session, batch []*operation, attempt attemptFunc) (undone bool, err error) {
	if err := s.text(ctx, w.dialect.begin); err != nil {
		return false, err
	}
	for _, o := range batch {
		if o.err = o.canceled(); o.err != nil {
			continue
		}
		if ok, err := attempt(s, ctx, o); err != nil {
			return false, err
		} else if !ok {
			// Databases end the transaction by themselves at some errors (disk full, I/O). Then this fails.
			if err := s.text(ctx, "ROLLBACK"); err != nil {
				return false, errors.Join(o.err, err)
			}
			return true, nil
		}
	}
	return false, w.commit(ctx, s)
}

// attemptFunc runs one operation. Its own failure is in its err. If ok is false that failure cannot be
// undone by itself; an error means that the transaction cannot go on.
type attemptFunc func(s *session, ctx context.Context, o *operation) (ok bool, err error)

// failureKind says why a whole transaction failed: no room, or something that may pass.
func (w *writer) failureKind(err error) upload.Kind {
	if w.dialect.kind(err) == upload.NoRoom {
		return upload.NoRoom
	}
	return upload.Unavailable
}

func (w *writer) connect(ctx context.Context) (*session, error) {
	if w.session != nil {
		return w.session, nil
	}
	conn, err := w.pool.Connx(ctx)
	if err != nil {
		return nil, err
	}
	w.session = &session{conn: conn, stmts: map[string]*sqlx.Stmt{}}
	return w.session, nil
}

// drop closes the connection, and with it a transaction that is still open.
func (w *writer) drop() error {
	s := w.session
	if s == nil {
		return nil
	}
	w.session = nil
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

// session is the writer's connection, in a transaction.
type session struct {
	conn  *sqlx.Conn
	stmts map[string]*sqlx.Stmt // by query; the queries are constants
	dirty bool                  // the operation has changed something
}

func (s *session) attempt(ctx context.Context, o *operation) (ok bool, err error) {
	s.dirty = false
	if o.err = o.run(ctx, s); o.err == nil {
		return true, nil
	}
	// After an error of its own a database may refuse to go on with the transaction.
	_, refused := errors.AsType[*upload.Error](o.err)
	return refused && !s.dirty, nil
}

func (s *session) attemptWithSavepoint(ctx context.Context, o *operation) (ok bool, err error) {
	if err := s.text(ctx, "SAVEPOINT operation"); err != nil {
		return false, err
	}
	if o.err = o.run(ctx, s); o.err != nil {
		if err := s.text(ctx, "ROLLBACK TO SAVEPOINT operation"); err != nil {
			return false, errors.Join(o.err, err)
		}
	}
	return true, s.text(ctx, "RELEASE SAVEPOINT operation")
}

// text runs a statement that not all databases can prepare.
func (s *session) text(ctx context.Context, statement string) error {
	_, err := s.conn.ExecContext(ctx, statement)
	return err
}

func (s *session) prepare(ctx context.Context, query string) (*sqlx.Stmt, error) {
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
