package sqldb

import (
	"context"
	"errors"
	"fmt"
	"net/url"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/pressly/goose/v3"

	"gantry/internal/testenv"
	"gantry/meta"
	"gantry/upload"
)

// hot is the questions that are asked all the time, with arguments, and the index that answers each.
func hot(db *DB, n int) []question {
	sha1, hint, _ := contentOf(n / 2)
	size := int64(1<<20 + n/2)
	lately := at(noon.Add(time.Duration(n-10) * time.Millisecond))
	page := func(sort meta.Sort) question {
		after := upload.File{ID: "file" + blobIDOf(n / 2)[4:], Name: blobIDOf(n / 2), Size: size, CreatedAt: noon}
		query, args, err := db.filesQuery(&meta.FileQuery{Owner: "owner", Sort: sort, Desc: true, After: &after, Limit: 10})
		if err != nil {
			panic(err)
		}
		index := map[meta.Sort]string{meta.ByCreated: "files_created", meta.ByName: "files_name", meta.BySize: "files_size"}[sort]
		return question{"Files by " + string(sort), query, args, index, true}
	}
	return []question{
		{"FindContent", contentQuery, []any{sha1[:], size}, "blobs_identity", false},
		{"FindContent of one's own", ownContentQuery, []any{"owner", "owner", sha1[:], size}, "blobs_identity", false},
		{"KnowsHint", hintQuery, []any{hint[:], size}, "blobs_hint", false},
		{"KnowsHint of one's own", ownHintQuery, []any{hint[:], size, "owner", "owner"}, "blobs_hint", false},
		{"TakeDue", dueQuery, []any{"node", at(noon), 100}, "transfers_due", false},
		page(meta.ByCreated), page(meta.ByName), page(meta.BySize),
		{"Answer", answerByID, []any{"node-" + blobIDOf(n / 2)[4:]}, "PRIMARY|answers_pkey", false},
		{"the lock on twins", twinRows + db.dialect.forUpdate, []any{sha1[:], size}, "blobs_identity", true},
		{"DirectUpload", directByID, []any{"upload" + blobIDOf(n / 2)[4:]}, "PRIMARY|direct_uploads_pkey", false},
		{"DirectByKey", directByKey, []any{fmt.Sprint("owner", n/2%50), "key" + blobIDOf(n / 2)[4:]}, "direct_key", false},
		{"DirectOf", directOfOwner, []any{"owner2", "", 10}, "direct_owner", false},
		{"IdleDirect", idleDirect, []any{at(noon), 10}, "direct_updated", true},
		{"KnownObjects of direct uploads", directQuery + ` WHERE d.blob_id IN (?, ?)`, []any{blobIDOf(1), blobIDOf(2)}, "direct_blob", true},
		// Of a store that has few; of one that has most of them the primary key is as good.
		{"BlobsIn", blobsInQuery, []any{"remote", "live", blobIDOf(n / 2), 100}, "blobs_store", false},
		{"Changes of files", changedFiles, []any{"owner", lately, 2000}, "files_updated", true},
		{"Changes of transfers", db.dialect.changedTransfers(), []any{"owner", lately, 2000}, "transfers_updated", true},
		{"Changes: deleted", deletedFiles, []any{"owner", lately, 2000}, "deleted_files_at", true},
		{"AnswerByKey", answerByKey, []any{"owner", "key" + blobIDOf(n / 2)[4:]}, "answers_key", false},
	}
}

type question struct {
	name, query string
	args        []any
	index       string // one of those, separated by bars
	few         bool   // so few rows that they may be sorted, and read from one end to the other
}

// plan returns what the database says about how it answers a question, and the indexes by which.
func (q question) plan(t testing.TB, db *DB) (text string, indexes []string) {
	t.Helper()
	explain := "EXPLAIN FORMAT=JSON "
	if db.dialect.goose == goose.DialectPostgres {
		explain = "EXPLAIN (FORMAT JSON) "
	}
	must(t, db.reader.db.QueryRow(db.reader.db.Rebind(explain+q.query), q.args...).Scan(&text))
	for _, m := range regexp.MustCompile(`"(?:key|Index Name)": "(\w+)"`).FindAllStringSubmatch(text, -1) {
		indexes = append(indexes, m[1])
	}
	return text, indexes
}

// On a database with some thousand blobs each question goes by its index, reads no table from one end to
// the other, and sorts nothing.
func TestQuestionsUseIndexesOnServers(t *testing.T) {
	t.Parallel()
	each(t, servers, func(t *testing.T, k kindOfDatabase) {
		const n = 5000
		db := k.open(t)
		fill(t, db, n)
		for _, q := range hot(db, n) {
			text, indexes := q.plan(t, db)
			if !slices.ContainsFunc(strings.Split(q.index, "|"), func(index string) bool { return slices.Contains(indexes, index) }) {
				t.Errorf("%s goes by %v, not by %s:\n%s", q.name, indexes, q.index, text)
			}
			for _, bad := range []string{"Seq Scan", `"Sort"`, "filesort", `"access_type": "ALL"`, `"access_type": "index"`} {
				if strings.Contains(text, bad) && (!q.few || bad == "Seq Scan") {
					t.Errorf("%s: %s\n%s", q.name, bad, text)
				}
			}
		}
	})
}

// A page costs what it shows, wherever in the listing it is.
func TestAPageReadsWhatItShows(t *testing.T) {
	t.Parallel()
	const n, limit = 5000, 50
	db := onMySQL.open(t) // it counts the rows that it reads
	fill(t, db, n)
	conn, err := db.reader.db.Connx(t.Context())
	must(t, err)
	defer conn.Close()
	for _, sort := range []meta.Sort{meta.ByCreated, meta.ByName, meta.BySize} {
		for _, desc := range []bool{false, true} {
			after := upload.File{ID: "file" + blobIDOf(n / 2)[4:], Name: blobIDOf(n / 2), Size: 1<<20 + n/2, CreatedAt: noon.Add(n / 2 * time.Millisecond)}
			query, args, err := db.filesQuery(&meta.FileQuery{Owner: "owner", Sort: sort, Desc: desc, After: &after, Limit: limit})
			must(t, err)
			_, err = conn.ExecContext(t.Context(), "FLUSH STATUS")
			must(t, err)
			found, err := conn.QueryContext(t.Context(), query, args...)
			must(t, err)
			shown := 0
			for found.Next() {
				shown++
			}
			must(t, errors.Join(found.Err(), found.Close()))
			status, err := conn.QueryContext(t.Context(), "SHOW SESSION STATUS LIKE 'Handler_read%'")
			must(t, err)
			read := 0
			for status.Next() {
				var name string
				var rows int
				must(t, status.Scan(&name, &rows))
				read += rows
			}
			must(t, errors.Join(status.Err(), status.Close()))
			if shown != limit || read > 8*limit {
				t.Errorf("by %s, descending %v: %d files, %d rows read", sort, desc, shown, read)
			}
		}
	}
}

// fill puts n stored blobs with a file each into a new database, by statements of many rows.
func fill(t testing.TB, db *DB, n int) {
	t.Helper()
	const step = 500
	tables := []struct {
		insert, row string
		args        func(i int) []any
	}{
		{
			"INSERT INTO blobs (id, sha1, size, root, hint, crc32c, state, refs, store, object_key, created_at, updated_at, verified_at) VALUES ",
			"(?, ?, ?, ?, ?, 0, 'live', 1, 'local', ?, ?, ?, ?)",
			func(i int) []any {
				sha1, hint, root := contentOf(i)
				id, now := blobIDOf(i), noon.UnixMicro()+int64(i)*1000
				return []any{id, sha1[:], int64(1<<20 + i), root[:], hint[:], id, now, now, now}
			},
		},
		{
			"INSERT INTO files (id, owner, blob_id, name, name_folded, path, content_type, size, created_at, updated_at) VALUES ",
			"(?, 'owner', ?, ?, ?, '', '', ?, ?, ?)",
			func(i int) []any {
				id, now := blobIDOf(i), noon.UnixMicro()+int64(i)*1000
				return []any{"file" + id[4:], id, id, id, int64(1<<20 + i), now, now}
			},
		},
		{
			"INSERT INTO transfers (id, blob_id, node, store, state, bytes, attempts, lease_epoch, created_at, updated_at) VALUES ",
			"(?, ?, 'node', 'local', 'stored', 0, 1, 1, ?, ?)",
			func(i int) []any {
				id, now := blobIDOf(i), noon.UnixMicro()+int64(i)*1000
				return []any{"tran" + id[4:], id, now, now}
			},
		},
		{
			"INSERT INTO answers (upload_id, owner, idem_key, state, instant, created_at, expires_at) VALUES ",
			"(?, 'owner', ?, 'complete', 0, ?, ?)",
			func(i int) []any {
				id, now := blobIDOf(i), noon.UnixMicro()+int64(i)*1000
				return []any{"node-" + id[4:], "key" + id[4:], now, now}
			},
		},
		{
			"INSERT INTO direct_uploads (id, owner, idem_key, spec, blob_id, store, object_key, multipart_id, created_at, updated_at) VALUES ",
			"(?, ?, ?, '{}', ?, 'local', 'key', 'm', ?, ?)",
			func(i int) []any {
				id, now := blobIDOf(i), noon.UnixMicro()+int64(i)*1000
				return []any{"upload" + id[4:], fmt.Sprint("owner", i%50), "key" + id[4:], id, now, now}
			},
		},
		{
			"INSERT INTO deleted_files (id, owner, deleted_at) VALUES ",
			"(?, 'owner', ?)",
			func(i int) []any { return []any{"gone" + blobIDOf(i)[4:], noon.UnixMicro() + int64(i)*1000} },
		},
	}
	for _, table := range tables {
		for begin := 0; begin < n; begin += step {
			end := min(begin+step, n)
			var args []any
			for i := begin; i < end; i++ {
				args = append(args, table.args(i)...)
			}
			query := table.insert + strings.Repeat(table.row+", ", end-begin-1) + table.row
			if _, err := db.writer.pool.Exec(db.writer.pool.Rebind(query), args...); err != nil {
				t.Fatal(err)
			}
		}
	}
	analyze := "ANALYZE"
	if db.dialect.goose == goose.DialectMySQL {
		analyze = "ANALYZE TABLE blobs, files, transfers, answers, deleted_files"
	}
	_, err := db.writer.pool.Exec(analyze)
	must(t, err)
}

// benchFiles is how many of a benchmark's blobs on a server have a file and a transfer.
const benchFiles = 200_000

// filledServer is a database on a server with n blobs, made by the server itself. It is for benchmarks, which
// share it: closeShared drops it.
func filledServer(b *testing.B, kind string, n int) *DB {
	b.Helper()
	name := newName()
	driver, at := "pgx", testenv.Postgres
	if kind == onMySQL.name {
		driver, at = "mysql", testenv.MySQL
	}
	address := testenv.Address(b, at)
	server := adminOf(b, driver, address)
	_, err := server.Exec("CREATE DATABASE " + name)
	must(b, err)
	shared.drop = func() error {
		_, err := server.Exec("DROP DATABASE " + name)
		return err
	}
	if kind == onMySQL.name {
		address = mysqlURL(b, testenv.MySQL, name)
	} else {
		u, err := url.Parse(address)
		must(b, err)
		u.Path = "/" + name
		address = u.String()
	}
	db, err := Open(context.WithoutCancel(b.Context()), address, Options{})
	must(b, err)
	fill(b, db, min(n, benchFiles))
	if n > benchFiles {
		fillBlobs(b, db, benchFiles, n)
	}
	b.Logf("%d blobs are there", count(b, db, "SELECT COUNT(*) FROM blobs"))
	for _, q := range hot(db, min(n, benchFiles)) {
		_, indexes := q.plan(b, db)
		b.Logf("%s goes by %v", q.name, indexes)
	}
	return db
}

// fillBlobs makes blobs without files. Digests are spread over the whole of an index, so those are made
// afterwards.
func fillBlobs(b testing.TB, db *DB, begin, end int) {
	b.Helper()
	exec := func(statements ...string) {
		for _, statement := range statements {
			_, err := db.writer.pool.Exec(statement)
			must(b, err)
		}
	}
	const columns = "INSERT INTO blobs (id, sha1, size, root, hint, crc32c, state, refs, store, object_key, created_at, updated_at, verified_at) SELECT "
	digits := "(SELECT 0 d"
	for d := 1; d < 10; d++ {
		digits += fmt.Sprint(" UNION ALL SELECT ", d)
	}
	digits += ")"
	// A hundred thousand at a time.
	numbers := fmt.Sprintf("(SELECT %%d + a.d + 10 * b.d + 100 * c.d + 1000 * d.d + 10000 * e.d AS n FROM %s a, %s b, %s c, %s d, %s e) numbers WHERE n < %d ORDER BY n",
		digits, digits, digits, digits, digits, end)
	row := "'blob' || lpad(n::text, 22, '0'), substr(sha256(('s' || n)::bytea), 1, 20), 1048576 + n, sha256(('r' || n)::bytea), substr(sha256(('h' || n)::bytea), 1, 20)"
	drop, build, analyze := []string{"DROP INDEX blobs_identity", "DROP INDEX blobs_hint"},
		[]string{"CREATE UNIQUE INDEX blobs_identity ON blobs (sha1, size, root)", "CREATE INDEX blobs_hint ON blobs (hint, size) WHERE root IS NOT NULL"}, "VACUUM ANALYZE blobs"
	if db.dialect.goose == goose.DialectMySQL {
		row = "CONCAT('blob', LPAD(n, 22, '0')), LEFT(UNHEX(SHA2(CONCAT('s', n), 256)), 20), 1048576 + n, UNHEX(SHA2(CONCAT('r', n), 256)), LEFT(UNHEX(SHA2(CONCAT('h', n), 256)), 20)"
		drop, build, analyze = []string{"ALTER TABLE blobs DROP INDEX blobs_identity, DROP INDEX blobs_hint"},
			[]string{"ALTER TABLE blobs ADD UNIQUE KEY blobs_identity (sha1, size, root), ADD KEY blobs_hint (hint, size)"}, "ANALYZE TABLE blobs"
	}
	exec(drop...)
	for ; begin < end; begin += 100_000 {
		exec(columns + row + ", 0, 'live', 0, 'local', 'key', 0, 0, 0 FROM " + fmt.Sprintf(numbers, begin))
	}
	exec(build...)
	exec(analyze)
}
