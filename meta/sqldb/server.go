package sqldb

import (
	"context"
	"database/sql"
	"database/sql/driver"
	"errors"
	"fmt"
	"log/slog"
	"net/url"
	"strings"
	"time"

	"github.com/cenkalti/backoff/v5"
	"github.com/jmoiron/sqlx"

	"gantry/upload"
)

// Connections and times of databases that are servers.
const (
	serverWriters  = 8                // transactions at a time
	serverBatch    = 16               // operations in one of them
	serverReaders  = 16               // connections that read
	serverIdle     = 30 * time.Second // an idle connection is closed before a server or a proxy does it
	serverLifetime = 5 * time.Minute  // so that connections spread again after a failover
	// serverPatience is how long a call waits for the database. It outlasts a server's restart.
	serverPatience = 15 * time.Second
	// serverLockWait is how long a transaction waits for another's rows.
	serverLockWait = 3 * time.Second
	// serverAbandoned is how long the server keeps the transaction, and the locks, of a node that has gone
	// without a word.
	serverAbandoned = 20 * time.Second
)

// Open opens the database that a URL names, and brings its schema up to date: sqlite:PATH,
// mysql://USER:PASSWORD@HOST:PORT/DATABASE (MariaDB too) or postgres://USER:PASSWORD@HOST:PORT/DATABASE, with the
// parameters of the driver after a "?". A server's database has to be there; its tables are made. No error tells
// a part of the URL that may be a password. upload.Conflict if a newer version of the program has changed the
// schema.
func Open(ctx context.Context, database string, opt Options) (*DB, error) {
	scheme, path, _ := strings.Cut(database, ":")
	if scheme == "sqlite" {
		if len(opt.Replicas) > 0 {
			return nil, upload.Errorf(upload.Invalid, "sqldb.Open", "", "SQLite has no replicas.")
		}
		return OpenSQLite(ctx, path, opt)
	}
	db, err := openServer(ctx, database, opt.withDefaults())
	return db, upload.Wrap(upload.Internal, "sqldb.Open", "", err)
}

// server is a kind of database that is reached by a URL.
type server struct {
	dialect func() (dialect, error)
	// connector knows how to make a connection that reads and writes as the dialect wants it.
	connector func(u *url.URL) (driver.Connector, error)
	driver    string // sqlx's name for it
}

func serverOf(u *url.URL) (server, error) {
	switch u.Scheme {
	case "mysql", "mariadb":
		return server{mysqlDialect, mysqlConnector, "mysql"}, nil
	case "postgres", "postgresql":
		return server{postgresDialect, postgresConnector, "pgx"}, nil
	}
	return server{}, upload.Errorf(upload.Invalid, "", "", "A database is named sqlite:PATH, mysql://… or postgres://…")
}

// parseURL is url.Parse whose error has no part of the URL in it.
func parseURL(database string) (*url.URL, error) {
	u, err := url.Parse(database)
	if err != nil {
		return nil, upload.Errorf(upload.Invalid, "", "",
			"The database's URL cannot be read. Write what is special in user and password as %%XX.")
	}
	return u, nil
}

func openServer(ctx context.Context, database string, opt Options) (_ *DB, err error) {
	u, err := parseURL(database)
	if err != nil {
		return nil, err
	}
	kind, err := serverOf(u)
	if err != nil {
		return nil, err
	}
	d, err := kind.dialect()
	if err != nil {
		return nil, err
	}
	if opt.patience > 0 {
		d.patience = opt.patience
	}
	var pools []*sqlx.DB
	defer func() {
		if err == nil {
			return
		}
		err = upload.Wrap(d.kind(err), "", "", fmt.Errorf("%s: %w", u.Redacted(), err))
		for _, p := range pools {
			err = errors.Join(err, p.Close())
		}
	}()
	pool := func(u *url.URL, connections int) (*sqlx.DB, error) {
		c, err := kind.connector(u)
		if err != nil {
			return nil, err
		}
		db := sqlx.NewDb(sql.OpenDB(c), kind.driver)
		db.SetMaxOpenConns(connections)
		db.SetMaxIdleConns(connections)
		db.SetConnMaxIdleTime(serverIdle)
		db.SetConnMaxLifetime(serverLifetime)
		pools = append(pools, db)
		return db, nil
	}
	writing, err := pool(u, d.writers+1) // and the one that holds the migrations' lock
	if err != nil {
		return nil, err
	}
	reading, err := pool(u, serverReaders)
	if err != nil {
		return nil, err
	}
	var copies []*sqlx.DB
	for _, replica := range opt.Replicas {
		r, err := parseURL(replica)
		if err != nil {
			return nil, err
		}
		if r.Scheme != u.Scheme {
			return nil, upload.Errorf(upload.Invalid, "", "", "A replica of a %s database is one too.", u.Scheme)
		}
		c, err := pool(r, serverReaders)
		if err != nil {
			return nil, err
		}
		copies = append(copies, c)
	}
	if err := untilThere(ctx, d, opt.Log, func() error { return migrate(ctx, writing, d, opt.Log) }); err != nil {
		return nil, err
	}
	return start(ctx, writing, reading, copies, d, opt), nil
}

// untilThere waits for a server that is away, as calls do later: a node may start while the server does.
func untilThere(ctx context.Context, d dialect, log *slog.Logger, do func() error) error {
	_, err := backoff.Retry(ctx, func() (struct{}, error) {
		err := do()
		if err != nil && d.kind(err) != upload.Unavailable {
			err = backoff.Permanent(err)
		}
		return struct{}{}, err
	}, backoff.WithBackOff(&backoff.ExponentialBackOff{InitialInterval: 100 * time.Millisecond, Multiplier: 2, RandomizationFactor: 0.5, MaxInterval: 2 * time.Second}),
		backoff.WithMaxElapsedTime(d.patience),
		backoff.WithNotify(func(err error, _ time.Duration) {
			log.Warn("the database cannot be reached; trying again", "error", err)
		}))
	return err
}

// Identity is the name that a database on a server was given when it was made: by it a node knows that the
// bytes it has are those that this database tells of. "" for SQLite, whose database is beside the bytes.
func (db *DB) Identity(ctx context.Context) (id string, err error) {
	if len(db.dialect.migrationLock) > 0 {
		err = row(ctx, db.reader, []any{&id}, `SELECT c.id FROM cluster c WHERE c.one = 1`)
	}
	return id, db.failure("meta.Identity", "", err)
}
