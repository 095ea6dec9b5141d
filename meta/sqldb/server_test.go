package sqldb

import (
	"context"
	"errors"
	"net/url"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/go-sql-driver/mysql"

	"gantry/internal/testenv"
	"gantry/meta"
	"gantry/meta/metatest"
	"gantry/upload"
)

func TestFiveNodesOpenANewDatabaseAtOnce(t *testing.T) {
	t.Parallel()
	each(t, servers, func(t *testing.T, k kindOfDatabase) {
		address := k.fresh(t)
		var wg sync.WaitGroup
		for i := range 5 {
			wg.Go(func() {
				db, err := Open(t.Context(), address, Options{})
				if err != nil {
					t.Error(err)
					return
				}
				if _, err := db.CommitUpload(t.Context(), commitOf(i)); err != nil {
					t.Error(err)
				}
				if err := db.Close(); err != nil {
					t.Error(err)
				}
			})
		}
		wg.Wait()
		db := openURL(t, address, Options{})
		if n := count(t, db, `SELECT COUNT(*) FROM files`); n != 5 {
			t.Errorf("%d files", n)
		}
		id, err := db.Identity(t.Context())
		again, err2 := openURL(t, address, Options{}).Identity(t.Context())
		if err := errors.Join(err, err2); err != nil || id == "" || id != again {
			t.Errorf("the database is called %q and %q, %v", id, again, err)
		}
	})
}

// MySQL commits each statement of a migration by itself. A node that dies half way leaves the rest to the next.
func TestAMigrationThatDiedGoesOn(t *testing.T) {
	t.Parallel()
	address := onMySQL.fresh(t)
	db, err := Open(t.Context(), address, Options{})
	must(t, err)
	for _, statement := range []string{"DROP TABLE audit", "DROP TABLE cluster", "DROP TABLE leases", "DELETE FROM goose_db_version WHERE version_id > 0"} {
		_, err := db.reader.db.Exec(statement)
		must(t, err)
	}
	must(t, db.Close())
	db = openURL(t, address, Options{})
	_, err = db.CommitUpload(t.Context(), commitOf(1))
	must(t, err)
	must(t, db.MarkLost(t.Context(), count1(t, db, `SELECT b.id FROM blobs b`), "it is audited", noon))
}

func count1(t testing.TB, db *DB, query string) (s string) {
	t.Helper()
	must(t, db.reader.db.QueryRow(query).Scan(&s))
	return s
}

func TestANewerSchemaIsRefusedOnServers(t *testing.T) {
	t.Parallel()
	each(t, servers, func(t *testing.T, k kindOfDatabase) {
		address := k.fresh(t)
		db, err := Open(t.Context(), address, Options{})
		must(t, err)
		_, err = db.reader.db.Exec(`INSERT INTO goose_db_version (version_id, is_applied) VALUES (4711, TRUE)`)
		must(t, errors.Join(err, db.Close()))
		_, err = Open(t.Context(), address, Options{})
		want(t, upload.Conflict, err)
	})
}

// A URL has a password in it. No error has.
func TestErrorsDoNotTellThePassword(t *testing.T) {
	t.Parallel()
	const secret = "hunter2"
	bad := []string{
		"mysql://u:" + secret + "@127.0.0.1:1/db", "postgres://u:" + secret + "@127.0.0.1:1/db", "mysql://u:" + secret + "/x@h/db",
		"postgres://u:" + secret + "%zz@h/db", "redis://u:" + secret + "@h/db", secret, "mysql://u:" + secret + "@h/db?nonsense=%zz",
		"mysql://u:" + secret + "@h/db?timeout=x", "postgres://u:" + secret + "@h/db?sslmode=x",
	}
	each(t, servers, func(t *testing.T, k kindOfDatabase) {
		u, err := url.Parse(k.fresh(t))
		must(t, err)
		u.User = url.UserPassword(u.User.Username(), secret)
		for _, address := range append(bad, u.String()) {
			ctx, cancel := context.WithTimeout(t.Context(), 5*time.Second)
			_, err := Open(ctx, address, Options{})
			cancel()
			if err == nil || strings.Contains(err.Error(), secret) {
				t.Errorf("%s: %v", address, err)
			}
		}
	})
}

func TestOpenBySchemes(t *testing.T) {
	t.Parallel()
	must(t, openURL(t, onSQLite.fresh(t), Options{}).Ping(t.Context()))
	for _, address := range []string{"", "gantry.db", "redis://h/0"} {
		_, err := Open(t.Context(), address, Options{})
		want(t, upload.Invalid, err)
	}
	_, err := Open(t.Context(), onSQLite.fresh(t), Options{Replicas: []string{"mysql://h/db"}})
	want(t, upload.Invalid, err)
}

func TestErrorKindsOfServers(t *testing.T) {
	t.Parallel()
	each(t, servers, func(t *testing.T, k kindOfDatabase) {
		db := k.open(t)
		for _, c := range []struct {
			query string
			args  []any
			want  upload.Kind
		}{
			{`INSERT INTO audit VALUES ('a', 0, 'k', '{}'), ('a', 0, 'k', '{}')`, nil, upload.Conflict},
			{`INSERT INTO audit VALUES (?, 0, 'k', '{}')`, []any{"\xff"}, upload.Invalid},
			{`INSERT INTO files VALUES ('f', 'o', 'no such blob', '', '', '', '', NULL, 0, 0, 0)`, nil, upload.Internal},
			{`NONSENSE`, nil, upload.Internal},
		} {
			err := act(t.Context(), db, "test", "", func(ctx context.Context, s *session) error {
				_, err := s.exec(ctx, c.query, c.args...)
				return err
			})
			if upload.KindOf(err) != c.want {
				t.Errorf("%s: %v", c.query, err)
			}
		}
	})
}

// The schema itself refuses what must never be.
func TestTheSchemaOfServersGuards(t *testing.T) {
	t.Parallel()
	each(t, servers, func(t *testing.T, k kindOfDatabase) {
		db := k.open(t)
		a, err := db.CommitUpload(t.Context(), commitOf(1))
		must(t, err)
		b, err := db.CommitUpload(t.Context(), commitOf(2))
		must(t, err)
		twenty, thirtytwo := make([]byte, 20), make([]byte, 32)
		for _, c := range []struct {
			query string
			args  []any
		}{
			{`UPDATE blobs SET refs = -1 WHERE id = ?`, []any{a.File.BlobID}},
			{`UPDATE blobs SET staging = ?`, []any{"same"}},
			{`UPDATE blobs SET sha1 = ?, root = ?`, []any{twenty, thirtytwo}},
			{`UPDATE blobs SET sha1 = ?`, []any{make([]byte, 21)}},
			{`DELETE FROM blobs WHERE id = ?`, []any{a.File.BlobID}},
			{`UPDATE files SET blob_id = ?`, []any{"nothing"}},
			{`UPDATE transfers SET blob_id = ?`, []any{b.File.BlobID}},
			{`UPDATE blobs SET state = ?`, []any{"alive"}},
			{`UPDATE answers SET idem_key = ?`, []any{"same"}},
		} {
			if err := act(t.Context(), db, "test", "", func(ctx context.Context, s *session) error {
				_, err := s.exec(ctx, c.query, c.args...)
				return err
			}); err == nil {
				t.Errorf("%s was done", c.query)
			}
		}
	})
}

// started is private servers with a database on them.
func started(t *testing.T, names ...string) (*testenv.Servers, string) {
	t.Helper()
	s := testenv.Private(t, names...)
	if names[0] == "postgres" {
		return s, s.Address(testenv.Postgres)
	}
	return s, made(t, s, "root", testenv.MySQL)
}

// made is the URL of a database on a private MySQL server.
func made(t *testing.T, s *testenv.Servers, user string, server testenv.Server) string {
	t.Helper()
	cfg, err := mysql.ParseDSN(s.Address(server))
	must(t, err)
	if server == testenv.MySQL {
		_, err = adminOf(t, "mysql", s.Address(server)).Exec("CREATE DATABASE gantry")
		must(t, err)
	}
	u := url.URL{Scheme: "mysql", User: url.UserPassword(user, cfg.Passwd), Host: cfg.Addr, Path: "/gantry"}
	return u.String()
}

// A server that is killed in the middle of commits has all that was acknowledged, and nothing twice. The
// calls that were going on wait for its return, or may be repeated.
func TestKilledServer(t *testing.T) {
	t.Parallel()
	for _, name := range []string{"mysql", "postgres"} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			server, address := started(t, name)
			nodes := []*DB{openURL(t, address, Options{}), openURL(t, address, Options{})}
			var n, repeated atomic.Int64
			stop := make(chan struct{})
			var wg sync.WaitGroup
			for worker := range 16 {
				wg.Go(func() {
					for {
						select {
						case <-stop:
							return
						default:
						}
						c := commitOf(int(n.Add(1)))
						for {
							a, err := nodes[worker%2].CommitUpload(t.Context(), c)
							if err == nil {
								if a.File.ID != c.File.ID {
									t.Errorf("upload %s became file %s", c.UploadID, a.File.ID)
								}
								break
							}
							if upload.KindOf(err) != upload.Unavailable {
								t.Errorf("while the server was away: %v", err)
								return
							}
							repeated.Add(1)
						}
					}
				})
			}
			for range 3 {
				time.Sleep(300 * time.Millisecond)
				server.Do("kill", name)
				time.Sleep(200 * time.Millisecond)
				server.Do("start", name)
			}
			time.Sleep(300 * time.Millisecond)
			close(stop)
			wg.Wait()
			t.Logf("%d uploads, %d calls repeated", n.Load(), repeated.Load())
			if files := count(t, nodes[0], `SELECT COUNT(*) FROM files`); files != int(n.Load()) {
				t.Errorf("%d files of %d uploads", files, n.Load())
			}
			metatest.Check(t, nodes[1], "owner")
		})
	}
}

// A server that holds its connections and answers nothing is not waited for for ever, and used again when it
// goes on.
func TestStoppedServer(t *testing.T) {
	t.Parallel()
	for _, name := range []string{"mysql", "postgres"} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			server, address := started(t, name)
			db := openURL(t, address, Options{patience: time.Second})
			c := commitOf(1)
			_, err := db.CommitUpload(t.Context(), c)
			must(t, err)
			_, err = db.File(t.Context(), "owner", c.File.ID)
			must(t, err)
			server.Do("stop", name)
			begin := time.Now()
			var wg sync.WaitGroup
			for name, call := range map[string]func() error{
				"commit": func() error { _, err := db.CommitUpload(t.Context(), commitOf(2)); return err },
				"file":   func() error { _, err := db.File(t.Context(), "owner", c.File.ID); return err },
				"files":  func() error { _, err := db.Files(t.Context(), meta.FileQuery{Owner: "owner", Limit: 1}); return err },
				"known":  func() error { _, err := db.KnownStaging(t.Context(), []string{"x"}); return err },
				"ping":   func() error { return db.Ping(t.Context()) },
			} {
				wg.Go(func() {
					if err := call(); upload.KindOf(err) != upload.Unavailable {
						t.Errorf("%s: %v", name, err)
					}
				})
			}
			wg.Wait()
			if took := time.Since(begin); took > 5*time.Second {
				t.Errorf("the calls took %v", took)
			}
			server.Do("cont", name)
			_, err = db.CommitUpload(t.Context(), commitOf(3))
			must(t, err)
			_, err = db.File(t.Context(), "owner", c.File.ID)
			must(t, err)
		})
	}
}

// eventually waits until something is so.
func eventually(t *testing.T, what string, is func() bool) {
	t.Helper()
	for end := time.Now().Add(20 * time.Second); !is(); time.Sleep(20 * time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("it never came to be: %s", what)
		}
	}
}

func TestReplica(t *testing.T) {
	t.Parallel()
	server, primary := started(t, "mysql", "mysql-replica")
	replica := made(t, server, "gantry", testenv.MySQLReplica)
	db := openURL(t, primary, Options{Replicas: []string{replica}})
	other := openURL(t, primary, Options{})
	used := func() bool { return db.copies.fresh() != nil }
	list := func() int {
		files, err := db.Files(t.Context(), meta.FileQuery{Owner: "owner", Limit: 100})
		must(t, err)
		return len(files)
	}
	commit := func(db *DB, n int) string {
		a, err := db.CommitUpload(t.Context(), commitOf(n))
		must(t, err)
		return a.File.ID
	}
	admin := adminOf(t, "mysql", strings.Replace(server.Address(testenv.MySQLReplica), "gantry:", "root:", 1))
	slave := func(verb string) {
		_, err := admin.Exec(verb + " SLAVE")
		must(t, err)
	}

	eventually(t, "the replica is used", used)
	commit(other, 1)
	eventually(t, "what another node did is listed", func() bool { return list() == 1 })

	// It lags: for a while nobody knows, then it is not used.
	eventually(t, "the replica is used", used)
	slave("STOP")
	id := commit(other, 2)
	if n := list(); n != 1 {
		t.Errorf("%d files: the replica was not asked", n)
	}
	_, err := db.File(t.Context(), "owner", id)
	must(t, err)
	commit(db, 3)
	if n := list(); n != 3 {
		t.Errorf("%d files: a node does not see what it did itself", n)
	}
	eventually(t, "the replica is not used", func() bool { return !used() })
	if n := list(); n != 3 {
		t.Errorf("%d files", n)
	}
	slave("START")
	eventually(t, "the replica is used again", used)

	// It is away: nobody notices.
	time.Sleep(2 * maxLag) // the node has forgotten its own commit
	eventually(t, "the replica is used", used)
	server.Do("kill", "mysql-replica")
	if n := list(); n != 3 {
		t.Errorf("%d files", n)
	}
	eventually(t, "the replica is not used", func() bool { return !used() })
	server.Do("start", "mysql-replica")
	eventually(t, "the replica is used again", used)
	for _, read := range []func() error{
		func() error { _, err := db.Transfers(t.Context(), nil, 10); return err },
		func() error { _, err := db.Backlog(t.Context(), noon); return err },
	} {
		must(t, read())
	}
}

// An operation that is overtaken while it runs beside one that fails is run again, and finds what the faster one did.
func TestOvertaken(t *testing.T) {
	t.Parallel()
	each(t, servers, func(t *testing.T, k kindOfDatabase) {
		address := k.fresh(t)
		db, other := openURL(t, address, Options{}), openURL(t, address, Options{})
		a := meta.Answer{UploadID: "upload", Owner: "owner", State: upload.Cancelled, CreatedAt: noon, ExpiresAt: noon.Add(1e6 * time.Hour)}
		runs := 0
		o := &operation{canceled: func() error { return nil }, run: func(ctx context.Context, s *session) error {
			runs++
			if _, found, err := db.earlierAnswer(ctx, s, a.UploadID, "", ""); found || err != nil {
				return err
			}
			if _, err := other.EndUpload(ctx, a); err != nil {
				return err
			}
			return insertAnswer(ctx, s, &a)
		}}
		l := &lane{w: db.writer}
		undone, _, err := l.run(t.Context(), []*operation{o}, (*session).attemptWithSavepoint)
		must(t, errors.Join(err, o.err, l.drop()))
		if undone || runs != 2 {
			t.Errorf("%d runs, undone %v", runs, undone)
		}
	})
}

// A node that starts while the server does waits for it, and says so; with a wrong password it does not.
func TestOpenWaitsForTheServer(t *testing.T) {
	t.Parallel()
	for _, name := range []string{"mysql", "postgres"} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			server, address := started(t, name)
			server.Do("kill", name)
			if _, err := Open(t.Context(), address, Options{patience: 300 * time.Millisecond}); !errors.Is(err, upload.Unavailable) {
				t.Errorf("of a server that is not there: %v", err)
			}
			var starting sync.WaitGroup
			starting.Go(func() {
				time.Sleep(500 * time.Millisecond)
				server.Do("start", name)
			})
			openURL(t, address, Options{patience: time.Minute})
			starting.Wait()

			wrong, err := url.Parse(address)
			must(t, err)
			wrong.User = url.UserPassword(wrong.User.Username(), "wrong")
			ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
			defer cancel()
			if _, err := Open(ctx, wrong.String(), Options{patience: time.Minute}); err == nil || ctx.Err() != nil {
				t.Errorf("with a wrong password: %v", err)
			}
		})
	}
}
