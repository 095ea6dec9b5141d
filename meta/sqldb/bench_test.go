package sqldb

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strconv"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"gantry/meta"
	"gantry/upload"
)

// Environment variables of the benchmarks: how many blobs are there beforehand, and on what. The figures in
// the docs are for 1000000 with SQLite and 10000000 with the servers, which takes some minutes to prepare.
const (
	benchBlobs    = "GANTRY_BENCH_BLOBS"
	benchDatabase = "GANTRY_BENCH_DATABASE" // sqlite, mysql or postgres
)

const benchDefault = 20_000

// cpu is the time that this process has used.
func cpu() time.Duration {
	var u unix.Rusage
	if err := unix.Getrusage(unix.RUSAGE_SELF, &u); err != nil {
		panic(err)
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}

// measured reports the CPU time of b's operations since begin.
func measured(b *testing.B, begin time.Duration) {
	b.StopTimer()
	b.ReportMetric(float64((cpu()-begin).Microseconds())/float64(b.N), "cpu-µs/op")
}

// contentOf is the content of blob n in a filled database.
func contentOf(n int) (sha1 upload.SHA1, hint upload.SHA1, root upload.Root) {
	s, h := sha256.Sum256(fmt.Append(nil, "s", n)), sha256.Sum256(fmt.Append(nil, "h", n))
	return upload.SHA1(s[:20]), upload.SHA1(h[:20]), sha256.Sum256(fmt.Append(nil, "r", n))
}

func blobIDOf(n int) string { return fmt.Sprintf("blob%022d", n) }

// shared is the database of all benchmarks, filled once for the process.
var shared struct {
	sync.Mutex
	db   *DB
	dir  string
	n    int          // blobs there beforehand
	drop func() error // on a server
	next atomic.Int64 // numbers for what is made by benchmarks
}

// closeShared is called when all benchmarks have been run.
func closeShared() error {
	if shared.db == nil {
		return nil
	}
	return errors.Join(shared.db.Close(), os.RemoveAll(shared.dir), shared.drop())
}

// filled returns a database with many stored blobs, each with a file.
func filled(b *testing.B) (*DB, int) {
	shared.Lock()
	defer shared.Unlock()
	if shared.db != nil {
		return shared.db, shared.n
	}
	n := benchDefault
	if text := os.Getenv(benchBlobs); text != "" {
		var err error
		if n, err = strconv.Atoi(text); err != nil {
			b.Fatal(err)
		}
	} else {
		b.Logf("%s is not set: measuring with only %d blobs", benchBlobs, n)
	}
	shared.n = n
	shared.next.Store(int64(n))
	if kind := os.Getenv(benchDatabase); kind == onMySQL.name || kind == onPostgres.name {
		shared.db = filledServer(b, kind, n)
		return shared.db, n
	}
	dir, err := os.MkdirTemp("", "gantry-bench-")
	must(b, err)
	db, err := OpenSQLite(context.WithoutCancel(b.Context()), filepath.Join(dir, "gantry.db"), Options{})
	must(b, err)
	shared.db, shared.dir, shared.drop = db, dir, func() error { return nil }
	const step = 10_000
	for begin := 0; begin < n; begin += step {
		must(b, act(b.Context(), db, "fill", "", func(ctx context.Context, s *session) error {
			for i := begin; i < min(begin+step, n); i++ {
				sha1, hint, root := contentOf(i)
				id, now := blobIDOf(i), noon.Add(time.Duration(i)*time.Millisecond)
				if _, err := s.exec(ctx, `INSERT INTO blobs (id, sha1, size, root, hint, crc32c, state, refs, store, object_key, created_at, updated_at, verified_at)
					VALUES (?, ?, ?, ?, ?, 0, 'live', 1, 'local', ?, ?, ?, ?)`, id, sha1[:], 1<<20+i, root[:], hint[:], id, at(now), at(now), at(now)); err != nil {
					return err
				}
				if err := insertFile(ctx, s, &upload.File{ID: "file" + id[4:], Owner: "owner", BlobID: id, Name: id, Size: 1 << 20, CreatedAt: now, UpdatedAt: now}); err != nil {
					return err
				}
				if _, err := s.exec(ctx, `INSERT INTO transfers (id, blob_id, node, store, state, bytes, attempts, lease_epoch, created_at, updated_at)
					VALUES (?, ?, 'node', 'local', 'stored', 0, 1, 1, ?, ?)`, "tran"+id[4:], id, at(now), at(now)); err != nil {
					return err
				}
			}
			return nil
		}))
	}
	return db, n
}

// at64 runs f in 64 goroutines at a time, each with a number of its own.
func at64(b *testing.B, f func(i int) error) {
	b.SetParallelism(32) // times two processors
	begin := cpu()
	b.ResetTimer()
	b.RunParallel(func(pb *testing.PB) {
		for pb.Next() {
			if err := f(int(shared.next.Add(1))); err != nil {
				b.Error(err)
				return
			}
		}
	})
	measured(b, begin)
}

// BenchmarkCommitUpload is one complete.
func BenchmarkCommitUpload(b *testing.B) {
	db, _ := filled(b)
	at64(b, func(i int) error {
		_, err := db.CommitUpload(b.Context(), commitOf(i))
		return err
	})
}

// BenchmarkFile is all that the database does for one file that goes up and into its store.
func BenchmarkFile(b *testing.B) {
	db, _ := filled(b)
	at64(b, func(i int) error {
		ctx := b.Context()
		now := noon
		a, err := db.CommitUpload(ctx, commitOf(i))
		if err != nil {
			return err
		}
		job, err := db.Lease(ctx, a.File.Transfer.ID, "worker", now, now.Add(time.Minute))
		if err != nil {
			return err
		}
		_, _, root := contentOf(i)
		if _, err := db.SetRoot(ctx, job.Transfer.ID, 1, root, now); err != nil {
			return err
		}
		return db.Stored(ctx, job.Transfer.ID, 1, "local", upload.ObjectKeyFor(&job.Blob), now)
	})
}

// BenchmarkCommitOne is one complete at a time: a transaction and an fsync for each.
func BenchmarkCommitOne(b *testing.B) {
	db, _ := filled(b)
	begin := cpu()
	for b.Loop() {
		_, err := db.CommitUpload(b.Context(), commitOf(int(shared.next.Add(1))))
		must(b, err)
	}
	measured(b, begin)
}

func BenchmarkFindContent(b *testing.B) {
	db, n := filled(b)
	for _, scope := range []meta.Scope{meta.ScopeUser, meta.ScopeGlobal} {
		b.Run(string(scope), func(b *testing.B) {
			begin := cpu()
			for b.Loop() {
				i := rand.IntN(min(n, benchFiles))
				if scope == meta.ScopeGlobal {
					i = rand.IntN(n)
				}
				sha1, _, _ := contentOf(i)
				blob, err := db.FindContent(b.Context(), scope, "owner", sha1, int64(1<<20+i))
				if err != nil || blob.ID != blobIDOf(i) {
					b.Fatal(err)
				}
			}
			measured(b, begin)
		})
	}
	b.Run("unknown", func(b *testing.B) {
		begin := cpu()
		for b.Loop() {
			sha1, _, _ := contentOf(n + rand.Int())
			if _, err := db.FindContent(b.Context(), meta.ScopeGlobal, "owner", sha1, 1<<20); err == nil {
				b.Fatal("found")
			}
		}
		measured(b, begin)
	})
}

func BenchmarkCommitInstant(b *testing.B) {
	db, n := filled(b)
	at64(b, func(i int) error {
		_, err := db.CommitInstant(b.Context(), commitOf(i), blobIDOf(rand.IntN(min(n, benchFiles))))
		return err
	})
}

// BenchmarkFiles is one page of a listing, from anywhere in it.
func BenchmarkFiles(b *testing.B) {
	db, n := filled(b)
	for _, limit := range []int{1, 100} {
		b.Run(strconv.Itoa(limit), func(b *testing.B) {
			begin := cpu()
			for b.Loop() {
				i := rand.IntN(min(n, benchFiles))
				after := upload.File{ID: "file" + blobIDOf(i)[4:], CreatedAt: noon.Add(time.Duration(i) * time.Millisecond)}
				_, err := db.Files(b.Context(), meta.FileQuery{Owner: "owner", Sort: meta.ByCreated, Desc: true, After: &after, Limit: limit})
				must(b, err)
			}
			measured(b, begin)
		})
	}
}
