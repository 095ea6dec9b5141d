package testenv

import (
	"context"
	"crypto/rand"
	"database/sql"
	"net/url"
	"strings"
	"testing"

	"github.com/go-sql-driver/mysql"
	_ "github.com/jackc/pgx/v5/stdlib" // the driver "pgx"
)

// Database makes an empty database on the server at address, MySQL's or Postgres', and returns its URL as
// Gantry's settings have it. When the test ends it is dropped.
func Database(t testing.TB, s Server, address string) string {
	t.Helper()
	driver, drop := "mysql", ""
	if s == Postgres {
		driver, drop = "pgx", " WITH (FORCE)"
	}
	db, err := sql.Open(driver, address)
	if err != nil {
		t.Fatal(err)
	}
	ctx := context.WithoutCancel(t.Context())
	name := "gantry_" + strings.ToLower(rand.Text())
	if _, err := db.ExecContext(ctx, "CREATE DATABASE "+name); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if _, err := db.ExecContext(ctx, "DROP DATABASE "+name+drop); err != nil {
			t.Errorf("cannot drop the test's database: %v", err)
		}
		_ = db.Close()
	})
	if s == Postgres {
		u, err := url.Parse(address)
		if err != nil {
			t.Fatal(err)
		}
		u.Path = "/" + name
		return u.String()
	}
	cfg, err := mysql.ParseDSN(address)
	if err != nil {
		t.Fatal(err)
	}
	return (&url.URL{Scheme: "mysql", User: url.UserPassword(cfg.User, cfg.Passwd), Host: cfg.Addr, Path: "/" + name}).String()
}
