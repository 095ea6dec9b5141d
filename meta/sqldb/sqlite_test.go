package sqldb

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/fstest"
	"time"

	"github.com/jmoiron/sqlx"
	"github.com/pressly/goose/v3"
	"modernc.org/sqlite"
	sqlite3 "modernc.org/sqlite/lib"

	"gantry/meta"
	"gantry/upload"
)

// These settings are what durability rests on: WAL with synchronous NORMAL loses commits.
func TestPragmas(t *testing.T) {
	t.Parallel()
	db := openTest(t)
	check := func(who string, get func(pragma string, dest any) error, want map[string]any) {
		for pragma, value := range want {
			var got any
			must(t, get("PRAGMA "+pragma, &got))
			if fmt.Sprint(got) != fmt.Sprint(value) {
				t.Errorf("%s: %s is %v, want %v", who, pragma, got, value)
			}
		}
	}
	both := map[string]any{"journal_mode": "wal", "synchronous": 2, "foreign_keys": 1, "busy_timeout": 5000}
	reader := maps.Clone(both)
	reader["query_only"] = 1
	check("reader", func(pragma string, dest any) error { return db.reader.db.QueryRow(pragma).Scan(dest) }, reader)
	must(t, act(t.Context(), db, "test", "", func(ctx context.Context, s *session) error {
		check("writer", func(pragma string, dest any) error { return s.conn.QueryRowxContext(ctx, pragma).Scan(dest) }, both)
		return nil
	}))
	if _, err := db.reader.db.Exec(`DELETE FROM files`); err == nil {
		t.Error("a reader can write")
	}
}

func TestTheDatabaseIsPrivate(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "what?_pragma=x #1%41.db")
	db := openAt(t, path, Options{})
	_, err := db.CommitUpload(t.Context(), commitOf(1))
	must(t, err)
	entries, err := os.ReadDir(filepath.Dir(path))
	must(t, err)
	for _, e := range entries {
		info, err := e.Info()
		must(t, err)
		if info.Mode().Perm() != 0o600 || !strings.HasPrefix(e.Name(), filepath.Base(path)) {
			t.Errorf("%s has mode %v", e.Name(), info.Mode())
		}
	}
}

func TestOpenFails(t *testing.T) {
	t.Parallel()
	_, err := OpenSQLite(t.Context(), filepath.Join(t.TempDir(), "no", "such", "directory"), Options{})
	want(t, upload.Unavailable, err)
	text := filepath.Join(t.TempDir(), "text")
	must(t, os.WriteFile(text, []byte(strings.Repeat("This is not a database.\n", 1000)), 0o600))
	if _, err = OpenSQLite(t.Context(), text, Options{}); upload.KindOf(err) != upload.Internal {
		t.Errorf("not a database: %v", err)
	}
}

func TestTwoOpenAtOnce(t *testing.T) {
	t.Parallel()
	for range 5 {
		path := filepath.Join(t.TempDir(), "gantry.db")
		var wg sync.WaitGroup
		for i := range 4 {
			wg.Go(func() {
				db, err := OpenSQLite(t.Context(), path, Options{})
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
		if n := count(t, openAt(t, path, Options{}), `SELECT COUNT(*) FROM files`); n != 4 {
			t.Errorf("%d files", n)
		}
	}
}

func TestANewerSchemaIsRefused(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "gantry.db")
	db, err := OpenSQLite(t.Context(), path, Options{})
	must(t, err)
	must(t, act(t.Context(), db, "test", "", func(ctx context.Context, s *session) error {
		_, err := s.exec(ctx, `INSERT INTO goose_db_version (version_id, is_applied) VALUES (4711, 1)`)
		return err
	}))
	must(t, db.Close())
	_, err = OpenSQLite(t.Context(), path, Options{})
	want(t, upload.Conflict, err)
}

// A migration that fails half way leaves nothing of it, and the database as it was.
func TestAFailingMigrationIsUndone(t *testing.T) {
	t.Parallel()
	db, err := sqlx.Open("sqlite", sqliteName(filepath.Join(t.TempDir(), "x.db"), 1000, false))
	must(t, err)
	defer db.Close()
	d := dialect{goose: goose.DialectSQLite3, kind: sqliteKind, migrations: fstest.MapFS{
		"0001_good.sql": {Data: []byte("-- +goose Up\nCREATE TABLE good (x INTEGER);\n")},
		"0002_bad.sql":  {Data: []byte("-- +goose Up\nCREATE TABLE half (x INTEGER);\nCREATE TABLE good (x INTEGER);\n")},
	}}
	if err := migrate(t.Context(), db, d, Options{}.withDefaults().Log); err == nil {
		t.Fatal("no error")
	}
	var tables []string
	must(t, db.Select(&tables, `SELECT name FROM sqlite_master WHERE name IN ('good', 'half')`))
	if !slices.Equal(tables, []string{"good"}) {
		t.Errorf("tables: %v", tables)
	}
}

// Released migrations are never edited: databases have them.
func TestMigrationsAreNumbered(t *testing.T) {
	t.Parallel()
	names, err := fs.Glob(sqliteMigrations, "migrations/sqlite/*.sql")
	must(t, err)
	for i, name := range names {
		if !strings.HasPrefix(filepath.Base(name), fmt.Sprintf("%04d_", i+1)) {
			t.Errorf("%s is number %d", name, i+1)
		}
		text, err := sqliteMigrations.ReadFile(name)
		must(t, err)
		if strings.Contains(string(text), "+goose Down") {
			t.Errorf("%s goes backward", name)
		}
	}
}

func TestErrorKinds(t *testing.T) {
	t.Parallel()
	db := openTest(t)
	for _, c := range []struct {
		query string
		want  upload.Kind
	}{
		{`INSERT INTO audit VALUES ('a', 0, 'k', '{}'), ('a', 0, 'k', '{}')`, upload.Conflict},
		{`INSERT INTO blobs (id, sha1, size, hint, crc32c, state, refs, staging, created_at, updated_at) VALUES
			('a', zeroblob(20), 0, zeroblob(20), 0, 'live', 1, 's', 0, 0), ('b', zeroblob(20), 0, zeroblob(20), 0, 'live', 1, 's', 0, 0)`, upload.Conflict},
		{`INSERT INTO files VALUES ('f', 'o', 'no such blob', '', '', '', '', NULL, 0, 0, 0)`, upload.Internal},
		{`NONSENSE`, upload.Internal},
	} {
		err := act(t.Context(), db, "test", "", func(ctx context.Context, s *session) error {
			_, err := s.exec(ctx, c.query)
			return err
		})
		if upload.KindOf(err) != c.want {
			t.Errorf("%s: %v", c.query, err)
		}
	}
	if got := sqliteKind(fmt.Errorf("x: %w", context.Canceled)); got != upload.Internal {
		t.Errorf("an error of another kind is %v", got)
	}
}

// Two roots for one SHA-1 are recorded, once for the pair, however often they come.
func TestCollisionIsAuditedOnce(t *testing.T) {
	t.Parallel()
	db := openTest(t)
	for i := range 4 {
		c := commitOf(i)
		c.Sealed = commitOf(0).Sealed
		a, err := db.CommitUpload(t.Context(), c)
		must(t, err)
		job, err := db.Lease(t.Context(), a.File.Transfer.ID, "w", noon, noon.Add(time.Minute))
		must(t, err)
		for range 2 {
			_, err = db.SetRoot(t.Context(), job.Transfer.ID, 1, upload.Root{byte(i%2 + 1)}, noon)
			if i < 2 {
				must(t, err)
			}
		}
	}
	var kind, detail string
	must(t, db.reader.db.QueryRow(`SELECT kind, detail FROM audit`).Scan(&kind, &detail))
	if n := count(t, db, `SELECT COUNT(*) FROM audit`); n != 1 || kind != "sha1_collision" {
		t.Errorf("%d rows of audit: %s %s", n, kind, detail)
	}
	if sha1 := commitOf(0).Sealed.SHA1.String(); !strings.Contains(detail, sha1) || !strings.Contains(detail, upload.Root{1}.String()) {
		t.Errorf("detail: %s", detail)
	}
}

func TestLossIsAudited(t *testing.T) {
	t.Parallel()
	db := openTest(t)
	a, err := db.CommitUpload(t.Context(), commitOf(1))
	must(t, err)
	for range 2 {
		must(t, db.MarkLost(t.Context(), a.File.BlobID, "bit rot", noon))
	}
	if n := count(t, db, `SELECT COUNT(*) FROM audit WHERE kind = 'blob_lost' AND detail LIKE '%bit rot%'`); n != 1 {
		t.Errorf("%d rows", n)
	}
}

// Refs that are wrong, which no operation here makes, are found and mended.
func TestMendRefs(t *testing.T) {
	t.Parallel()
	db := openTest(t)
	var ids []string
	for i := range 6 {
		a, err := db.CommitUpload(t.Context(), commitOf(i))
		must(t, err)
		ids = append(ids, a.File.BlobID)
	}
	spoil := func(query string, id string) {
		must(t, act(t.Context(), db, "test", "", func(ctx context.Context, s *session) error {
			_, err := s.exec(ctx, query, id)
			return err
		}))
	}
	spoil(`UPDATE blobs SET refs = 7 WHERE id = ?`, ids[0])
	spoil(`UPDATE blobs SET refs = 0 WHERE id = ?`, ids[1])
	spoil(`UPDATE blobs SET refs = 0, state = 'condemned', condemned_at = 1 WHERE id = ?`, ids[2])
	spoil(`DELETE FROM files WHERE blob_id = ?`, ids[3])
	spoil(`UPDATE blobs SET refs = 0, state = 'deleting', condemned_at = 1 WHERE id = ?`, ids[4])
	wrong, err := db.WrongRefs(t.Context())
	must(t, err)
	if want := map[string]int64{ids[0]: 1, ids[1]: 1, ids[2]: 1, ids[3]: 0, ids[4]: 1}; !maps.Equal(wrong, want) {
		t.Errorf("wrong: %v, want %v", wrong, want)
	}
	for i, want := range []upload.BlobState{
		upload.BlobLive, upload.BlobLive, upload.BlobLive, upload.BlobCondemned, upload.BlobLost, upload.BlobLive,
	} {
		must(t, db.MendRefs(t.Context(), ids[i], noon))
		b, err := db.Blob(t.Context(), ids[i])
		must(t, err)
		refs := int64(1)
		if i == 3 {
			refs = 0
		}
		if b.State != want || b.Refs != refs || b.CondemnedAt.IsZero() == (i == 3) {
			t.Errorf("blob %d: %+v, want %s", i, b, want)
		}
	}
	wrong, err = db.WrongRefs(t.Context())
	must(t, err)
	if len(wrong) != 0 {
		t.Errorf("still wrong: %v", wrong)
	}
}

// The schema itself refuses what must never be.
func TestTheSchemaGuards(t *testing.T) {
	t.Parallel()
	db := openTest(t)
	a, err := db.CommitUpload(t.Context(), commitOf(1))
	must(t, err)
	b, err := db.CommitUpload(t.Context(), commitOf(2))
	must(t, err)
	for _, query := range []string{
		`UPDATE blobs SET refs = -1 WHERE id = '` + a.File.BlobID + `'`,
		`UPDATE blobs SET staging = (SELECT staging FROM blobs WHERE id = '` + a.File.BlobID + `') WHERE id = '` + b.File.BlobID + `'`,
		`UPDATE blobs SET sha1 = zeroblob(20), root = zeroblob(32)`,
		`DELETE FROM blobs WHERE id = '` + a.File.BlobID + `'`,
		`UPDATE files SET blob_id = 'nothing'`,
		`UPDATE transfers SET blob_id = '` + a.File.BlobID + `'`,
		`UPDATE blobs SET state = 'alive'`,
		`UPDATE answers SET idem_key = 'same'`,
	} {
		err := act(t.Context(), db, "test", "", func(ctx context.Context, s *session) error {
			_, err := s.exec(ctx, query)
			return err
		})
		if e, ok := errors.AsType[*sqlite.Error](err); !ok || e.Code()&0xff != sqlite3.SQLITE_CONSTRAINT {
			t.Errorf("%s: %v", query, err)
		}
	}
}

// What is asked often must not read a whole table. The plans are those of all statements that a normal
// life uses, as they were prepared.
func TestQueriesUseIndexes(t *testing.T) {
	t.Parallel()
	db := openTest(t)
	ctx := t.Context()
	c := commitOf(1)
	c.Key = "key"
	a, err := db.CommitUpload(ctx, c)
	must(t, err)
	c2 := commitOf(2)
	c2.Replaces, c2.Answer = a.File.ID, false
	_, err = db.CommitUpload(ctx, c2)
	must(t, err)
	root := upload.Root{1}
	f, err := db.File(ctx, "owner", a.File.ID)
	must(t, err)
	job, err := db.Lease(ctx, f.Transfer.ID, "w", noon, noon.Add(time.Minute))
	must(t, err)
	_, err = db.SetRoot(ctx, job.Transfer.ID, 1, root, noon)
	must(t, err)
	must(t, db.Renew(ctx, job.Transfer.ID, 1, meta.Progress{State: upload.TransferRunning, Until: noon.Add(time.Minute), Now: noon}))
	must(t, db.Stored(ctx, job.Transfer.ID, 1, "local", "key", noon))
	must(t, db.Stored(ctx, job.Transfer.ID, 1, "local", "key", noon))
	_, err = db.CommitInstant(ctx, commitOf(3), f.BlobID)
	must(t, err)
	for _, scope := range []meta.Scope{meta.ScopeUser, meta.ScopeGlobal} {
		_, err = db.FindContent(ctx, scope, "owner", c2.Sealed.SHA1, c2.Sealed.Size)
		must(t, err)
		_, err = db.KnowsHint(ctx, scope, "owner", c2.Sealed.Hint, c2.Sealed.Size)
		must(t, err)
	}
	path := "photos/2026"
	for _, sort := range []meta.Sort{meta.ByCreated, meta.ByName, meta.BySize} {
		for _, desc := range []bool{false, true} {
			for _, after := range []*upload.File{nil, &f} {
				for _, q := range []meta.FileQuery{{}, {Name: "x"}, {Path: &path}} {
					q.Owner, q.Sort, q.Desc, q.After, q.Limit = "owner", sort, desc, after, 10
					_, err = db.Files(ctx, q)
					must(t, err)
				}
			}
		}
	}
	_, err = db.Changes(ctx, "owner", noon, 10)
	must(t, err)
	must(t, db.ForgetDeleted(ctx, noon))
	_, err = db.EndUpload(ctx, meta.Answer{UploadID: "x", Owner: "owner", Key: "k", State: upload.Cancelled, CreatedAt: noon, ExpiresAt: noon})
	must(t, err)
	_, err = db.AnswerByKey(ctx, "owner", "key")
	must(t, err)
	_, err = db.Answer(ctx, c.UploadID)
	must(t, err)
	_, err = db.TakeDue(ctx, "node", noon.Add(time.Hour), time.Minute, 10)
	must(t, err)
	_, err = db.Transfers(ctx, nil, 10)
	must(t, err)
	_, err = db.Backlog(ctx, noon)
	must(t, err)
	_, err = db.Droppable(ctx, "node", noon, 10)
	must(t, err)
	must(t, db.StagingDropped(ctx, f.BlobID))
	must(t, db.MarkLost(ctx, f.BlobID, "gone", noon))
	must(t, db.DeleteFile(ctx, "owner", a.File.ID, noon))
	blobs, err := db.Collect(ctx, meta.CollectQuery{CondemnedBefore: noon.Add(time.Hour), Now: noon, Limit: 10})
	must(t, err)
	must(t, db.Deleted(ctx, blobs[0].ID))
	_, err = db.ForgetAnswers(ctx, noon)
	must(t, err)
	_, err = db.Blobs(ctx, "", 10)
	must(t, err)
	_, err = db.Transfer(ctx, "x")
	want(t, upload.NotFound, err)

	var queries []string
	must(t, act(ctx, db, "test", "", func(_ context.Context, s *session) error {
		queries = slices.Collect(maps.Keys(s.stmts))
		return nil
	}))
	queries = append(queries, slices.Collect(maps.Keys(db.reader.stmts))...)
	queries = append(queries, jobQuery+` WHERE b.id IN (?, ?)`, `SELECT b.staging FROM blobs b WHERE b.staging IN (?, ?)`)
	slices.Sort(queries)
	if len(queries) < 60 {
		t.Fatalf("only %d statements were prepared", len(queries))
	}
	for _, query := range slices.Compact(queries) {
		plan := explain(t, db, query)
		for _, step := range plan {
			if strings.HasPrefix(step, "SCAN ") && !strings.Contains(step, "CONSTANT ROW") {
				t.Errorf("reads a whole table: %s\n\t%s", query, strings.Join(plan, "\n\t"))
			}
			if strings.Contains(step, "TEMP B-TREE") {
				t.Errorf("sorts: %s\n\t%s", query, strings.Join(plan, "\n\t"))
			}
		}
	}
}

func explain(t *testing.T, db *DB, query string) (steps []string) {
	t.Helper()
	args := make([]any, strings.Count(query, "?"))
	found, err := db.reader.db.Query("EXPLAIN QUERY PLAN "+query, args...)
	must(t, err)
	defer found.Close()
	for found.Next() {
		var id, parent, unused int
		var step string
		must(t, found.Scan(&id, &parent, &unused, &step))
		steps = append(steps, step)
	}
	must(t, found.Err())
	return steps
}
