package sqldb

import (
	"context"
	"database/sql"
	"database/sql/driver"
	"errors"
	"log/slog"
	"time"

	"github.com/jmoiron/sqlx"
	"github.com/pressly/goose/v3"

	"gantry/upload"
)

// Two processes that open a new SQLite database at once both apply the first migration; one of them
// fails because the tables are there then. Each migration is one transaction, so looking again is all
// that the loser has to do. On a server one waits for the other.
const (
	migrationTries = 5
	migrationPause = 100 * time.Millisecond
)

// migrate brings the schema up to date. It only goes forward.
func migrate(ctx context.Context, db *sqlx.DB, d dialect, log *slog.Logger) error {
	var err error
	for try := range migrationTries {
		if try > 0 {
			select {
			case <-ctx.Done():
				return ctx.Err()
			case <-time.After(migrationPause):
			}
		}
		if err = migrateOnce(ctx, db, d, log); err == nil || upload.KindOf(err) != upload.Internal {
			return err
		}
	}
	return err
}

func migrateOnce(ctx context.Context, db *sqlx.DB, d dialect, log *slog.Logger) error {
	unlock, err := lockMigrations(ctx, db, d)
	if err != nil {
		return err
	}
	defer unlock()
	p, err := goose.NewProvider(d.goose, db.DB, d.migrations, goose.WithSlog(log), goose.WithDisableGlobalRegistry(true))
	if err != nil {
		return err
	}
	current, target, err := p.GetVersions(ctx)
	if err != nil {
		return err
	}
	if current > target {
		return upload.Errorf(upload.Conflict, "", "",
			"The database has schema version %d, this program knows up to %d: use a newer version of it.", current, target)
	}
	applied, err := p.Up(ctx)
	if err != nil {
		return err
	}
	for _, m := range applied {
		log.InfoContext(ctx, "schema migrated", "version", m.Source.Version, "duration", m.Duration)
	}
	return nil
}

// lockMigrations waits until no other process migrates the database. The lock belongs to a connection and
// goes with it, also if the process dies.
func lockMigrations(ctx context.Context, db *sqlx.DB, d dialect) (unlock func(), err error) {
	if len(d.migrationLock) == 0 {
		return func() {}, nil
	}
	conn, err := db.Connx(ctx)
	if err != nil {
		return nil, err
	}
	unlock = func() { _ = conn.Raw(func(any) error { return driver.ErrBadConn }) }
	for _, statement := range d.migrationLock {
		var got sql.NullInt64
		if err := conn.QueryRowxContext(ctx, statement).Scan(&got); err != nil || got.Int64 != 1 {
			unlock()
			return nil, errors.Join(err, errors.New("another node takes too long to migrate the database"))
		}
	}
	return unlock, nil
}
