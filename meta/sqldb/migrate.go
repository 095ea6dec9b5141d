package sqldb

import (
	"context"
	"log/slog"
	"time"

	"github.com/jmoiron/sqlx"
	"github.com/pressly/goose/v3"

	"gantry/upload"
)

// Two processes that open a new database at once both apply the first migration; one of them fails
// because the tables are there then. Each migration is one transaction, so looking again is all that
// the loser has to do.
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
