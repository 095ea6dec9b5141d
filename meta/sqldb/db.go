// Package sqldb is the database driver: meta.DB in SQL through sqlx, on SQLite.
//
// Writing goes through one goroutine and one connection, which runs all waiting operations in one
// transaction: many at once cost one fsync. Reading has connections of its own and waits for nobody.
package sqldb

import (
	"context"
	"database/sql"
	"database/sql/driver"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"time"

	"github.com/jmoiron/sqlx"

	"gantry/meta"
	"gantry/upload"
)

// Options are what a DB needs from outside. The zero value is usable.
type Options struct {
	Log *slog.Logger     // default: nothing is logged
	Now func() time.Time // decides which answers have expired; default time.Now
}

func (o Options) withDefaults() Options {
	if o.Log == nil {
		o.Log = slog.New(slog.DiscardHandler)
	}
	if o.Now == nil {
		o.Now = time.Now
	}
	return o
}

// DB is a meta.DB. It is safe for concurrent use. Close ends it.
type DB struct {
	dialect dialect
	now     func() time.Time
	reader  *reader
	writer  *writer
}

var _ meta.DB = (*DB)(nil)

func start(ctx context.Context, writing, reading *sqlx.DB, d dialect, opt Options) *DB {
	db := &DB{
		dialect: d,
		now:     opt.Now,
		reader:  &reader{db: reading, stmts: map[string]*sqlx.Stmt{}},
		writer:  newWriter(writing, d),
	}
	// The writer outlives the call that opens it; Close ends and waits for it.
	db.writer.start(context.WithoutCancel(ctx))
	return db
}

// Ping reports whether the database answers.
func (db *DB) Ping(ctx context.Context) error {
	const op = "meta.Ping"
	if err := db.writer.err(); err != nil {
		return upload.Wrap(upload.Unavailable, op, "", err)
	}
	return db.failure(op, "", db.reader.db.PingContext(ctx))
}

// Close waits for the operations that have begun; later ones are upload.Unavailable. It may be
// repeated.
func (db *DB) Close() error {
	werr := db.writer.close()
	rerr := db.reader.close()
	return upload.Wrap(upload.Internal, "meta.Close", "", errors.Join(werr, rerr))
}

// failure gives an error of the driver a kind.
func (db *DB) failure(op, id string, err error) error {
	if err == nil {
		return nil
	}
	return upload.Wrap(db.kind(err), op, id, err)
}

func (db *DB) kind(err error) upload.Kind {
	if kind := upload.KindOf(err); kind != upload.Internal {
		return kind
	}
	switch {
	case errors.Is(err, sql.ErrNoRows):
		return upload.NotFound
	case errors.Is(err, context.Canceled), errors.Is(err, context.DeadlineExceeded):
		return upload.Canceled
	case errors.Is(err, driver.ErrBadConn), errors.Is(err, sql.ErrConnDone), db.writer.closed():
		return upload.Unavailable
	}
	return db.dialect.kind(err)
}

// write runs f in the writer's next transaction, with those of others. f touches nothing but its
// session: when it returns an error what it did is undone, and when another one fails it may be run a
// second time.
func write[T any](ctx context.Context, db *DB, op, id string, f func(ctx context.Context, s *session) (T, error)) (T, error) {
	var result T
	err := db.writer.do(ctx, func(ctx context.Context, s *session) (err error) {
		result, err = f(ctx, s)
		return err
	})
	if err != nil {
		var none T
		return none, db.failure("meta."+op, id, err)
	}
	return result, nil
}

// act is write for operations that return nothing.
func act(ctx context.Context, db *DB, op, id string, f func(ctx context.Context, s *session) error) error {
	return db.failure("meta."+op, id, db.writer.do(ctx, f))
}

// preparer has statements ready: the writer's session or the readers.
type preparer interface {
	prepare(ctx context.Context, query string) (*sqlx.Stmt, error)
}

// row scans the only row of a query; sql.ErrNoRows if there is none.
func row(ctx context.Context, p preparer, dest []any, query string, args ...any) error {
	stmt, err := p.prepare(ctx, query)
	if err != nil {
		return err
	}
	return stmt.QueryRowContext(ctx, args...).Scan(dest...)
}

// rows scans all rows of a query into values of T.
func rows[T any](ctx context.Context, p preparer, dest func(*T) []any, query string, args ...any) ([]T, error) {
	stmt, err := p.prepare(ctx, query)
	if err != nil {
		return nil, err
	}
	found, err := stmt.QueryContext(ctx, args...)
	if err != nil {
		return nil, err
	}
	return scanAll(found, dest)
}

func scanAll[T any](found *sql.Rows, dest func(*T) []any) (all []T, err error) {
	defer func() { err = errors.Join(err, found.Close()) }()
	for found.Next() {
		var one T
		if err := found.Scan(dest(&one)...); err != nil {
			return nil, err
		}
		all = append(all, one)
	}
	return all, found.Err()
}

// reader is the connections that read.
type reader struct {
	db    *sqlx.DB
	mu    sync.RWMutex
	stmts map[string]*sqlx.Stmt // by query; the queries are constants
}

func (r *reader) prepare(ctx context.Context, query string) (*sqlx.Stmt, error) {
	r.mu.RLock()
	stmt := r.stmts[query]
	r.mu.RUnlock()
	if stmt != nil {
		return stmt, nil
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	if stmt := r.stmts[query]; stmt != nil {
		return stmt, nil
	}
	stmt, err := r.db.PreparexContext(ctx, r.db.Rebind(query))
	if err != nil {
		return nil, fmt.Errorf("prepare %q: %w", query, err)
	}
	r.stmts[query] = stmt
	return stmt, nil
}

func (r *reader) close() error {
	r.mu.Lock()
	defer r.mu.Unlock()
	var errs []error
	for _, stmt := range r.stmts {
		errs = append(errs, stmt.Close())
	}
	clear(r.stmts)
	return errors.Join(append(errs, r.db.Close())...)
}

// maxIn is how many values one IN list holds at the most.
const maxIn = 500

// rowsIn is rows for a query with one IN (?) over values, as many queries as it takes.
func rowsIn[T any](ctx context.Context, r *reader, dest func(*T) []any, query string, values []string) ([]T, error) {
	var all []T
	for len(values) > 0 {
		n := min(maxIn, len(values))
		expanded, args, err := sqlx.In(query, values[:n])
		if err != nil {
			return nil, err
		}
		found, err := r.db.QueryContext(ctx, r.db.Rebind(expanded), args...)
		if err != nil {
			return nil, err
		}
		some, err := scanAll(found, dest)
		if err != nil {
			return nil, err
		}
		all, values = append(all, some...), values[n:]
	}
	return all, nil
}
