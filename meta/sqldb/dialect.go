package sqldb

import (
	"context"
	"database/sql/driver"
	"errors"
	"io"
	"io/fs"
	"net"
	"time"

	"github.com/pressly/goose/v3"

	"gantry/upload"
)

// dialect is everything in which the databases differ; all other SQL here is common to them.
type dialect struct {
	goose      goose.Dialect
	migrations fs.FS
	// migrationLock keeps the migrations of nodes that start at once apart: statements that return 1, in the
	// end with a lock that is the connection's. None: the database needs none.
	migrationLock []string

	begin  string                                      // starts a transaction that writes
	commit func(ctx context.Context, s *session) error // ends it
	// forUpdate makes a query lock the rows it finds until the commit. "": transactions that write come
	// one after the other, so there is nothing to lock.
	forUpdate string
	// pageFirst: a page of a listing is found in its index alone, and then the rows of it are looked up. Otherwise
	// MariaDB reads an index from its end to the page, and PostgreSQL joins more than the page where it thinks
	// that few rows match. SQLite does as it is told, and would sort the page again.
	pageFirst bool
	// byIndex says which index that is, with %s for its name, to a database that thinks an owner's whole
	// listing as good as a part of it; "%.0s" says nothing.
	byIndex string

	writers  int           // transactions at a time
	batch    int           // operations in one of them, at the most
	patience time.Duration // how long a call waits for the database at the most; 0: the database sees to it

	kind func(error) upload.Kind // of an error of the driver
	// conflict reports that a transaction was undone because of another one, and is to be run again.
	conflict func(error) bool
	// lost reports that the connection is gone, or the server is going.
	lost func(error) bool
}

// commitText ends a transaction where the answer to COMMIT says it all.
func commitText(ctx context.Context, s *session) error { return s.text(ctx, "COMMIT") }

func never(error) bool { return false }

// connectionLost is what drivers of servers have in common.
func connectionLost(err error) bool {
	if errors.Is(err, driver.ErrBadConn) || errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) {
		return true
	}
	_, ok := errors.AsType[net.Error](err)
	return ok
}

// The rows that operations lock before they read what they decide by. A transaction reads what is
// committed at that moment (READ COMMITTED); from its lock to its commit nobody changes these rows.
// What no row stands for, an answer that is not there yet, is decided by a unique index: the second
// one to insert it is told of the first, undone, and run again (attemptWithSavepoint). Where this is
// enough, and what it is enough for, is in docs/decisions/0009.
//
// Who needs several takes them in this order, so that few meet crosswise: a direct upload, a file, its
// transfer, its blob. Those who do meet are told by the database, and one of them is run again.
const (
	fileRow     = `SELECT f.id FROM files f WHERE f.id = ?`
	transferRow = `SELECT t.id FROM transfers t WHERE t.id = ?`
	blobRow     = `SELECT b.id FROM transfers t JOIN blobs b ON b.id = t.blob_id WHERE t.blob_id = ?` // with its transfer
	// twinRows are all that may be the same content, with or without a root: two that get one at the same
	// time have to see each other.
	twinRows = `SELECT b.id FROM transfers t JOIN blobs b ON b.id = t.blob_id WHERE b.sha1 = ? AND b.size = ? ORDER BY b.id`
)

// lock keeps the rows of a query as they are until the commit. It waits for those who are changing them.
func (s *session) lock(ctx context.Context, query string, args ...any) error {
	if s.dialect.forUpdate == "" {
		return nil
	}
	_, err := rows(ctx, s, scanString, query+s.dialect.forUpdate, args...)
	return err
}
