// Package sqldb is the database driver: meta.DB in SQL through sqlx, on SQLite, MySQL or MariaDB, and
// PostgreSQL.
//
// Writing goes through goroutines that have a connection each (SQLite: one), and run operations that are
// waiting in one transaction: many at once cost one fsync. Reading has connections of its own and waits
// for nobody. What the databases do differently is in their dialects, in sqlite.go, mysql.go and postgres.go.
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
	// Replicas are URLs of read replicas of a server's database. Listings come from them as long as they
	// are up to date.
	Replicas []string

	patience time.Duration // default: the dialect's
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
	dialect *dialect
	now     func() time.Time
	reader  *reader
	writer  *writer
	copies  *replicas
}

var _ meta.DB = (*DB)(nil)

func start(ctx context.Context, writing, reading *sqlx.DB, copies []*sqlx.DB, d dialect, opt Options) *DB {
	db := &DB{
		dialect: &d,
		now:     opt.Now,
		reader:  newReader(reading, &d),
		writer:  newWriter(writing, &d),
	}
	// The writer and what watches the replicas outlive the call that opens them; Close ends them.
	ctx = context.WithoutCancel(ctx)
	db.writer.start(ctx)
	db.copies = watch(ctx, db, copies, opt.Log)
	return db
}

// Ping reports whether the database answers.
func (db *DB) Ping(ctx context.Context) error {
	const op = "meta.Ping"
	if err := db.writer.err(); err != nil {
		return upload.Wrap(upload.Unavailable, op, "", err)
	}
	bounded, cancel := db.reader.bounded(ctx)
	defer cancel()
	return db.failure(op, "", late(ctx, bounded, db.reader.db.PingContext(bounded)))
}

// Close waits for the operations that have begun; later ones are upload.Unavailable. It may be
// repeated.
func (db *DB) Close() error {
	err := errors.Join(db.copies.close(), db.writer.close(), db.reader.close())
	return upload.Wrap(upload.Internal, "meta.Close", "", err)
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

// preparer has statements ready: a writer's session or the readers.
type preparer interface {
	prepare(ctx context.Context, query string) (*sqlx.Stmt, error)
	// bounded ends ctx when the database has had time enough.
	bounded(ctx context.Context) (context.Context, context.CancelFunc)
}

// late says of an error that is due to bounded, and not to the caller, what it is.
func late(ctx, bounded context.Context, err error) error {
	if err != nil && bounded.Err() != nil && ctx.Err() == nil {
		return errors.Join(errLate, err)
	}
	return err
}

// row scans the only row of a query; sql.ErrNoRows if there is none.
func row(ctx context.Context, p preparer, dest []any, query string, args ...any) error {
	bounded, cancel := p.bounded(ctx)
	defer cancel()
	stmt, err := p.prepare(bounded, query)
	if err == nil {
		err = stmt.QueryRowContext(bounded, args...).Scan(dest...)
	}
	return late(ctx, bounded, err)
}

// rows scans all rows of a query into values of T.
func rows[T any](ctx context.Context, p preparer, dest func(*T) []any, query string, args ...any) ([]T, error) {
	bounded, cancel := p.bounded(ctx)
	defer cancel()
	stmt, err := p.prepare(bounded, query)
	if err != nil {
		return nil, late(ctx, bounded, err)
	}
	found, err := stmt.QueryContext(bounded, args...)
	if err != nil {
		return nil, late(ctx, bounded, err)
	}
	all, err := scanAll(found, dest)
	return all, late(ctx, bounded, err)
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
	db       *sqlx.DB
	patience time.Duration
	mu       sync.RWMutex
	stmts    map[string]*sqlx.Stmt // by query; the queries are constants
}

func newReader(db *sqlx.DB, d *dialect) *reader {
	return &reader{db: db, patience: d.patience, stmts: map[string]*sqlx.Stmt{}}
}

func (r *reader) bounded(ctx context.Context) (context.Context, context.CancelFunc) {
	if r.patience == 0 {
		return ctx, func() {}
	}
	return context.WithTimeout(ctx, r.patience)
}

func (r *reader) prepare(ctx context.Context, query string) (*sqlx.Stmt, error) {
	r.mu.RLock()
	stmt := r.stmts[query]
	r.mu.RUnlock()
	if stmt != nil {
		return stmt, nil
	}
	// Not under the mutex: a server may take its time.
	stmt, err := r.db.PreparexContext(ctx, r.db.Rebind(query))
	if err != nil {
		return nil, fmt.Errorf("prepare %q: %w", query, err)
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	if first := r.stmts[query]; first != nil {
		return first, stmt.Close()
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
	bounded, cancel := r.bounded(ctx)
	defer cancel()
	for len(values) > 0 {
		n := min(maxIn, len(values))
		expanded, args, err := sqlx.In(query, values[:n])
		if err != nil {
			return nil, err
		}
		found, err := r.db.QueryContext(bounded, r.db.Rebind(expanded), args...)
		if err != nil {
			return nil, late(ctx, bounded, err)
		}
		some, err := scanAll(found, dest)
		if err != nil {
			return nil, late(ctx, bounded, err)
		}
		all, values = append(all, some...), values[n:]
	}
	return all, nil
}
