package sqldb

import (
	"context"
	"database/sql/driver"
	"embed"
	"errors"
	"fmt"
	"io/fs"
	"net/url"
	"strings"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/stdlib"
	"github.com/pressly/goose/v3"

	"gantry/upload"
)

//go:embed migrations/postgres/*.sql
var postgresMigrations embed.FS

func postgresDialect() (dialect, error) {
	migrations, err := fs.Sub(postgresMigrations, "migrations/postgres")
	return dialect{
		goose: goose.DialectPostgres, migrations: migrations,
		// Any number does, as long as it stays; it is the database's, not the server's.
		migrationLock: []string{`SELECT 1 FROM set_config('lock_timeout', '600s', false)`, `SELECT 1 FROM pg_advisory_lock(4714711)`},
		begin:         "BEGIN ISOLATION LEVEL READ COMMITTED", commit: postgresCommit, forUpdate: " FOR UPDATE", pageFirst: true, byIndex: "%.0s",
		writers: serverWriters, batch: serverBatch, patience: serverPatience,
		kind: postgresKind, conflict: postgresConflict, lost: postgresLost,
	}, err
}

// postgresConnector makes connections from a URL. The driver's parameters, and the server's, come after
// the "?", and count where they say something else than here.
func postgresConnector(u *url.URL) (driver.Connector, error) {
	cfg, err := pgx.ParseConfig(u.String())
	if err != nil {
		if e, ok := errors.AsType[*pgconn.ParseConfigError](err); ok {
			err = errors.Unwrap(e) // without the URL
		}
		return nil, upload.Errorf(upload.Invalid, "", "", "The parameters of the database's URL are not those of the driver: %v.", err)
	}
	for name, period := range map[string]time.Duration{
		"lock_timeout":                        serverLockWait,
		"idle_in_transaction_session_timeout": serverAbandoned,
	} {
		if _, there := cfg.RuntimeParams[name]; !there {
			cfg.RuntimeParams[name] = fmt.Sprint(period.Milliseconds())
		}
	}
	if cfg.ConnectTimeout == 0 {
		cfg.ConnectTimeout = serverPatience
	}
	return stdlib.GetConnector(*cfg), nil
}

// postgresCommit ends a transaction. To one in which a statement failed the server answers a COMMIT with a
// ROLLBACK, which is no error to the driver.
func postgresCommit(ctx context.Context, s *session) error {
	return s.conn.Raw(func(conn any) error {
		tag, err := conn.(*stdlib.Conn).Conn().Exec(ctx, "COMMIT")
		if err == nil && tag.String() != "COMMIT" {
			err = errors.New("the transaction was rolled back")
		}
		return err
	})
}

// Codes of PostgreSQL's errors.
const (
	postgresUnique        = "23505"
	postgresSerialization = "40001"
	postgresDeadlock      = "40P01"
	postgresLockTimeout   = "55P03"
	postgresNoText        = "22021"
	postgresDiskFull      = "53100"
	postgresTooMany       = "53300"
	postgresShutdown      = "57P01"
	postgresCrash         = "57P02"
	postgresStarting      = "57P03"
	postgresAbandoned     = "25P03" // idle in a transaction for too long
	postgresReadOnly      = "25006" // the primary has become a replica: connect anew
	postgresCanceled      = "57014"
	postgresConnections   = "08" // a class
)

func postgresCode(err error) string {
	if e, ok := errors.AsType[*pgconn.PgError](err); ok {
		return e.Code
	}
	return ""
}

func postgresConflict(err error) bool {
	switch postgresCode(err) {
	case postgresDeadlock, postgresSerialization, postgresLockTimeout:
		return true
	}
	return false
}

func postgresLost(err error) bool {
	switch code := postgresCode(err); code {
	case "":
	case postgresTooMany, postgresShutdown, postgresCrash, postgresStarting, postgresAbandoned, postgresReadOnly, postgresCanceled:
		return true
	default:
		return strings.HasPrefix(code, postgresConnections)
	}
	_, connecting := errors.AsType[*pgconn.ConnectError](err)
	return connecting || connectionLost(err)
}

// postgresKind sorts errors by what a caller can do.
func postgresKind(err error) upload.Kind {
	switch postgresCode(err) {
	case postgresUnique:
		return upload.Conflict // an id or a name that is taken
	case postgresDiskFull:
		return upload.NoRoom
	case postgresNoText:
		return upload.Invalid
	}
	if postgresConflict(err) || postgresLost(err) {
		return upload.Unavailable
	}
	return upload.KindOf(err)
}
