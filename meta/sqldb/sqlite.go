package sqldb

import (
	"context"
	"embed"
	"errors"
	"fmt"
	"io/fs"
	"net/url"
	"os"
	"path/filepath"

	"github.com/jmoiron/sqlx"
	"github.com/pressly/goose/v3"
	"modernc.org/sqlite"
	sqlite3 "modernc.org/sqlite/lib"

	"gantry/upload"
)

//go:embed migrations/sqlite/*.sql
var sqliteMigrations embed.FS

// Sizes and periods of the SQLite driver.
const (
	sqliteReaders     = 4        // connections that read; reading never waits for the writer
	sqliteBusyMillis  = 5_000    // how long to wait for another process
	sqliteWriterCache = 64 << 10 // KiB of pages
	sqliteReaderCache = 16 << 10 // KiB of pages, each
	sqliteBatch       = 256      // operations in one transaction: the first of them waits for the last
	sqliteCheckpoint  = 4_000    // pages in the write-ahead log before they go to the database
)

// OpenSQLite opens the database file at path, makes it if it is not there, and brings its schema up
// to date. Several processes may have it open at once. upload.Conflict if a newer version of the
// program has changed the schema.
func OpenSQLite(ctx context.Context, path string, opt Options) (*DB, error) {
	const op = "sqldb.OpenSQLite"
	migrations, err := fs.Sub(sqliteMigrations, "migrations/sqlite")
	if err != nil {
		return nil, upload.Wrap(upload.Internal, op, "", err)
	}
	d := dialect{
		goose: goose.DialectSQLite3, migrations: migrations, begin: "BEGIN IMMEDIATE", commit: commitText, byIndex: "%.0s",
		writers: 1, batch: sqliteBatch, kind: sqliteKind, conflict: never, lost: never,
	}
	path, err = filepath.Abs(path)
	if err != nil {
		return nil, upload.Wrap(upload.Internal, op, "", err)
	}
	if err := createPrivate(path); err != nil {
		return nil, upload.Wrap(upload.Unavailable, op, "", err)
	}
	writer, err := sqlx.Open("sqlite", sqliteName(path, sqliteWriterCache, false))
	if err != nil {
		return nil, upload.Wrap(upload.Internal, op, "", err)
	}
	writer.SetMaxOpenConns(1)
	readers, err := sqlx.Open("sqlite", sqliteName(path, sqliteReaderCache, true))
	if err != nil {
		return nil, upload.Wrap(upload.Internal, op, "", errors.Join(err, writer.Close()))
	}
	readers.SetMaxOpenConns(sqliteReaders)
	readers.SetMaxIdleConns(sqliteReaders)

	opt = opt.withDefaults()
	if err := migrate(ctx, writer, d, opt.Log); err != nil {
		return nil, upload.Wrap(d.kind(err), op, "", errors.Join(err, readers.Close(), writer.Close()))
	}
	return start(ctx, writer, readers, nil, d, opt), nil
}

// createPrivate makes the file before SQLite does, because SQLite would let others read it.
func createPrivate(path string) error {
	f, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return err
	}
	return f.Close()
}

// sqliteName is the data source name. The path is escaped: a "?" in it is no query.
func sqliteName(path string, cacheKiB int, readOnly bool) string {
	pragmas := []string{
		fmt.Sprintf("busy_timeout(%d)", sqliteBusyMillis),
		"journal_mode(WAL)",
		// WAL with NORMAL loses commits on a power cut.
		"synchronous(FULL)",
		"foreign_keys(ON)",
		fmt.Sprintf("cache_size(-%d)", cacheKiB),
		fmt.Sprintf("wal_autocheckpoint(%d)", sqliteCheckpoint),
		"journal_size_limit(67108864)",
		"temp_store(MEMORY)",
	}
	if readOnly {
		pragmas = append(pragmas, "query_only(ON)")
	}
	query := url.Values{"_pragma": pragmas, "_error_rc": {"1"}, "_dqs": {"0"}}
	name := url.URL{Scheme: "file", OmitHost: true, Path: filepath.ToSlash(path), RawQuery: query.Encode()}
	return name.String()
}

// sqliteKind sorts SQLite's errors by what a caller can do.
func sqliteKind(err error) upload.Kind {
	e, ok := errors.AsType[*sqlite.Error](err)
	if !ok {
		return upload.KindOf(err)
	}
	switch e.Code() & 0xff { // the rest of an extended code says more than is needed
	case sqlite3.SQLITE_FULL:
		return upload.NoRoom
	case sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED, sqlite3.SQLITE_PROTOCOL, sqlite3.SQLITE_IOERR, sqlite3.SQLITE_CANTOPEN,
		sqlite3.SQLITE_READONLY, sqlite3.SQLITE_NOMEM, sqlite3.SQLITE_INTERRUPT, sqlite3.SQLITE_ABORT:
		return upload.Unavailable
	case sqlite3.SQLITE_CONSTRAINT:
		if code := e.Code(); code == sqlite3.SQLITE_CONSTRAINT_UNIQUE || code == sqlite3.SQLITE_CONSTRAINT_PRIMARYKEY {
			return upload.Conflict // an id or a name that is taken
		}
	}
	return upload.Internal
}
