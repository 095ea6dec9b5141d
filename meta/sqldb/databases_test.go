package sqldb

import (
	"context"
	"crypto/rand"
	"errors"
	"net/url"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"github.com/go-sql-driver/mysql"
	"github.com/jmoiron/sqlx"

	"gantry/internal/testenv"
	"gantry/meta"
	"gantry/meta/metatest"
)

// kindOfDatabase is one of those that tests run on.
type kindOfDatabase struct {
	name  string
	fresh func(t testing.TB) string // the URL of a new, empty database
}

var (
	onSQLite   = kindOfDatabase{"sqlite", func(t testing.TB) string { return "sqlite:" + filepath.Join(t.TempDir(), "gantry.db") }}
	onMySQL    = kindOfDatabase{"mysql", freshMySQL}
	onPostgres = kindOfDatabase{"postgres", freshPostgres}
	servers    = []kindOfDatabase{onMySQL, onPostgres}
)

// each runs a test on every kind.
func each(t *testing.T, kinds []kindOfDatabase, test func(t *testing.T, k kindOfDatabase)) {
	t.Helper()
	for _, k := range kinds {
		t.Run(k.name, func(t *testing.T) { t.Parallel(); test(t, k) })
	}
}

// open opens a new database.
func (k kindOfDatabase) open(t testing.TB) *DB {
	t.Helper()
	return openURL(t, k.fresh(t), Options{})
}

func openURL(t testing.TB, url string, opt Options) *DB {
	t.Helper()
	db, err := Open(context.WithoutCancel(t.Context()), url, opt)
	must(t, err)
	t.Cleanup(func() {
		if err := db.Close(); err != nil {
			t.Error(err)
		}
	})
	return db
}

// nodes opens databases for tests that come one after the other. On a server it is the same one each time,
// emptied: making one takes longer than most tests.
func (k kindOfDatabase) nodes(t *testing.T) metatest.Open {
	t.Helper()
	if k.name == onSQLite.name {
		return func(t *testing.T) ([]meta.DB, func()) {
			var nodes []meta.DB
			url := k.fresh(t)
			for range 2 {
				db, err := Open(t.Context(), url, Options{})
				must(t, err)
				nodes = append(nodes, db)
			}
			return nodes, func() { must(t, errors.Join(nodes[0].Close(), nodes[1].Close())) }
		}
	}
	url := k.fresh(t)
	first, second := openURL(t, url, Options{}), openURL(t, url, Options{})
	return func(t *testing.T) ([]meta.DB, func()) {
		return []meta.DB{first, second}, func() { empty(t, first) }
	}
}

func empty(t testing.TB, db *DB) {
	t.Helper()
	for _, table := range []string{"moves", "files", "transfers", "blobs", "answers", "audit", "nodes", "leases", "checkpoints", "direct_uploads", "deleted_files"} {
		_, err := db.reader.db.Exec("DELETE FROM " + table)
		must(t, err)
	}
}

// admin is connections that make and drop databases, one set for the whole process.
var admin struct {
	sync.Mutex
	pools map[string]*sqlx.DB
}

func adminOf(t testing.TB, driver, name string) *sqlx.DB {
	t.Helper()
	admin.Lock()
	defer admin.Unlock()
	if db := admin.pools[name]; db != nil {
		return db
	}
	db, err := sqlx.Open(driver, name)
	must(t, err)
	db.SetMaxOpenConns(4)
	if admin.pools == nil {
		admin.pools = map[string]*sqlx.DB{}
	}
	admin.pools[name] = db
	return db
}

func closeAdmins() {
	for _, db := range admin.pools {
		_ = db.Close()
	}
}

func newName() string { return "gantry_" + strings.ToLower(rand.Text()) }

// mysqlURL is the URL of a database on the server that testenv names.
func mysqlURL(t testing.TB, server testenv.Server, database string) string {
	t.Helper()
	cfg, err := mysql.ParseDSN(testenv.Address(t, server))
	must(t, err)
	u := url.URL{Scheme: "mysql", User: url.UserPassword(cfg.User, cfg.Passwd), Host: cfg.Addr, Path: "/" + database}
	return u.String()
}

func freshMySQL(t testing.TB) string {
	t.Helper()
	name := newName()
	db := adminOf(t, "mysql", testenv.Address(t, testenv.MySQL))
	_, err := db.Exec("CREATE DATABASE " + name)
	must(t, err)
	t.Cleanup(func() {
		if _, err := db.Exec("DROP DATABASE " + name); err != nil {
			t.Error(err)
		}
	})
	return mysqlURL(t, testenv.MySQL, name)
}

func freshPostgres(t testing.TB) string {
	t.Helper()
	name := newName()
	address := testenv.Address(t, testenv.Postgres)
	db := adminOf(t, "pgx", address)
	_, err := db.Exec("CREATE DATABASE " + name)
	must(t, err)
	t.Cleanup(func() {
		if _, err := db.Exec("DROP DATABASE " + name + " WITH (FORCE)"); err != nil {
			t.Error(err)
		}
	})
	u, err := url.Parse(address)
	must(t, err)
	u.Path = "/" + name
	q := u.Query()
	// The default is a second, and tests meet deadlocks all the time.
	q.Set("deadlock_timeout", "20ms")
	u.RawQuery = q.Encode()
	return u.String()
}
