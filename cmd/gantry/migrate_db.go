package main

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"

	"github.com/spf13/cobra"

	"gantry/config"
	"gantry/internal/vfs"
	"gantry/meta/sqldb"
)

func newMigrateDBCommand(app *app) *cobra.Command {
	cmd := &cobra.Command{
		Use:   "migrate-db",
		Short: "Bring the database's tables up to date, and do nothing else",
		Long: "Bring the database's tables up to date, and do nothing else. \"gantry serve\" does it too, at its start;\n" +
			"this is for doing it at a time of one's choice. Several at once wait for each other. There is no way back:\n" +
			"make a backup first.",
		Args: cobra.NoArgs,
	}
	config.AddDataFlags(cmd.Flags())
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		c, err := config.Load(cmd.Flags(), app.environ)
		if err != nil {
			return usageError{err}
		}
		if err := migrateDB(cmd.Context(), &c, newLogger(&c, app.stderr)); err != nil {
			return nodeFailure(err)
		}
		fmt.Fprintln(app.stdout, "the database is up to date")
		return nil
	}
	return cmd
}

func migrateDB(ctx context.Context, c *config.Config, log *slog.Logger) (err error) {
	database := string(c.Database)
	if database == "" {
		path := filepath.Join(c.Data, databaseName)
		if _, err := os.Stat(path); errors.Is(err, fs.ErrNotExist) {
			return fmt.Errorf("%s has no %s; \"gantry serve\" makes one", c.Data, databaseName)
		}
		lock, locked := vfs.LockDir(c.Data, nodeLock)
		if locked != nil {
			return locked
		}
		defer func() { err = errors.Join(err, lock.Close()) }()
		database = "sqlite:" + path
	}
	db, err := sqldb.Open(ctx, database, sqldb.Options{Log: log})
	if err != nil {
		return err
	}
	return db.Close()
}
