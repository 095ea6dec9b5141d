package migrate_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"math/rand/v2"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"go.uber.org/goleak"

	"gantry/chunkstore"
	"gantry/chunkstore/disk"
	chunkmemory "gantry/chunkstore/memory"
	"gantry/internal/vfs/memfs"
	"gantry/meta"
	"gantry/meta/sqldb"
	"gantry/migrate"
	"gantry/server/ingest"
	"gantry/store"
	"gantry/store/memory"
	"gantry/transfer"
	queue "gantry/transfer/queue/memory"
	"gantry/upload"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

const (
	owner = "local"
	grace = time.Hour
	lease = 10_000 * time.Hour // by the tests' clock, which jumps
)

// clock is a time that only tests move. It begins now, because stores say by their own when an object was put.
type clock struct {
	mu sync.Mutex
	t  time.Time
}

func (c *clock) now() time.Time {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.t
}

func (c *clock) advance(d time.Duration) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.t = c.t.Add(d)
}

// tb is what *testing.T and *rapid.T have in common.
type tb interface {
	Helper()
	Errorf(format string, args ...any)
	Fatal(args ...any)
	Fatalf(format string, args ...any)
	Context() context.Context
}

// world is a node with two stores: real use cases, worker and janitor, on SQLite and in memory.
type world struct {
	t       tb
	clock   *clock
	db      *sqldb.DB
	staging *disk.Staging
	a, b    *memory.Store
	worker  *transfer.Worker
	*ingest.Service
}

func newWorld(t testing.TB) *world {
	w := newWorldIn(t, t.TempDir())
	t.Cleanup(w.close)
	return w
}

func newWorldIn(t tb, dir string) *world {
	t.Helper()
	w := &world{t: t, clock: &clock{t: time.Now()}, a: memory.New(), b: memory.New()}
	log := slog.New(slog.DiscardHandler)
	var err error
	if w.db, err = sqldb.OpenSQLite(t.Context(), filepath.Join(dir, "gantry.db"), sqldb.Options{Log: log, Now: w.clock.now}); err != nil {
		t.Fatal(err)
	}
	if w.staging, err = disk.Open(memfs.New(w.clock.now), disk.Options{BootID: "boot", Now: w.clock.now, Log: log, MinFree: 1}); err != nil {
		t.Fatal(err)
	}
	stores := w.stores()
	w.worker = transfer.NewWorker(transfer.Options{Node: "n1", Log: log}, transfer.Deps{
		Outbox: w.db, Staging: w.staging, Stores: stores, Queue: queue.New(), Now: w.clock.now,
	})
	w.Service = ingest.New(ingest.Options{
		Node: "n1", DeleteGrace: grace, Scope: meta.ScopeGlobal, Route: func(int64, string, string) string { return "a" },
	}, ingest.Deps{
		Staging: w.staging, View: chunkmemory.New(), DB: w.db, Stores: stores, Wake: func() {}, Log: log, Now: w.clock.now,
	})
	return w
}

func (w *world) stores() map[string]store.Store { return map[string]store.Store{"a": w.a, "b": w.b} }

func (w *world) close() {
	if err := errors.Join(w.staging.Close(), w.db.Close()); err != nil {
		w.t.Errorf("close: %v", err)
	}
}

func (w *world) must(err error) {
	w.t.Helper()
	if err != nil {
		w.t.Fatal(err)
	}
}

// random is n bytes that depend on seed only.
func random(seed uint64, n int) []byte {
	var key [32]byte
	for i := range 8 {
		key[i] = byte(seed >> (8 * i))
	}
	b := make([]byte, n)
	_, _ = rand.NewChaCha8(key).Read(b)
	return b
}

// put takes a file in. Its bytes are in staging.
func (w *world) put(data []byte) upload.File {
	w.t.Helper()
	w.clock.advance(time.Millisecond) // ids are in order
	f, err := w.PutFile(w.t.Context(), owner, ingest.FileRequest{Name: "a"}, chunkstore.Body{Reader: bytes.NewReader(data), Length: int64(len(data))})
	w.must(err)
	return f
}

// transfer does all transfers that are due.
func (w *world) transfer() {
	w.t.Helper()
	for {
		ids, err := w.db.TakeDue(w.t.Context(), "n1", w.clock.now(), time.Minute, 100)
		w.must(err)
		if len(ids) == 0 {
			return
		}
		for _, id := range ids {
			w.must(w.worker.Handle(w.t.Context(), id, func() {}))
		}
	}
}

// fill stores n files in store a, and nothing in staging.
func (w *world) fill(n int) map[string][]byte {
	w.t.Helper()
	files := map[string][]byte{}
	for i := range n {
		data := random(uint64(i), 1000*i+i)
		files[w.put(data).ID] = data
	}
	w.transfer()
	w.clean()
	return files
}

// clean lets the janitor work when the staging copies are not needed any more.
func (w *world) clean() {
	w.t.Helper()
	w.clock.advance(11 * time.Minute)
	w.must(w.Clean(w.t.Context()))
}

func (w *world) read(id string) ([]byte, error) {
	content, err := w.Content(w.t.Context(), owner, id)
	if err != nil {
		return nil, err
	}
	defer content.Close()
	r, err := content.Open(w.t.Context(), 0, -1)
	if err != nil {
		return nil, err
	}
	defer r.Close()
	return io.ReadAll(r)
}

// readable fails unless all files have the bytes that they should have.
func (w *world) readable(files map[string][]byte) {
	w.t.Helper()
	for id, want := range files {
		got, err := w.read(id)
		if err != nil {
			w.t.Fatalf("file %s: %v", id, err)
		}
		if !bytes.Equal(got, want) {
			w.t.Fatalf("file %s has other bytes", id)
		}
	}
}

// blob is the blob of a file.
func (w *world) blob(id string) upload.Blob {
	w.t.Helper()
	f, err := w.db.File(w.t.Context(), owner, id)
	w.must(err)
	b, err := w.db.Blob(w.t.Context(), f.BlobID)
	w.must(err)
	return b
}

// keys are what is in a store.
func (w *world) keys(s store.Store) []string {
	w.t.Helper()
	var keys []string
	for o, err := range s.List(w.t.Context()) {
		w.must(err)
		keys = append(keys, o.Key)
	}
	return keys
}

// empty fails unless a store is empty.
func (w *world) empty(name string, s store.Store) {
	w.t.Helper()
	if keys := w.keys(s); len(keys) > 0 {
		w.t.Errorf("in store %s is %v", name, keys)
	}
}

func (w *world) moves() []meta.Move {
	w.t.Helper()
	moves, err := w.db.Moves(w.t.Context(), meta.MoveQuery{Limit: 1000})
	w.must(err)
	return moves
}

// options are those of a run from a to b whose failures are soon tried again.
func options() migrate.Options {
	return migrate.Options{
		From: "a", To: "b", Owner: "test", Parallel: 1, LeaseTTL: lease, Tries: 3,
		Poll: time.Millisecond, MinBackoff: time.Microsecond, MaxBackoff: time.Millisecond,
	}
}

func (w *world) migrator(opt migrate.Options, deps migrate.Deps) *migrate.Migrator {
	w.t.Helper()
	if deps.DB == nil {
		deps.DB = w.db
	}
	if deps.Stores == nil {
		deps.Stores = w.stores()
	}
	deps.Now = w.clock.now
	m, err := migrate.New(opt, deps)
	w.must(err)
	return m
}

// migrate moves all from a to b.
func (w *world) migrate() migrate.Result {
	w.t.Helper()
	r, err := w.migrator(options(), migrate.Deps{}).Run(w.t.Context())
	w.must(err)
	return r
}

// check compares both stores and returns what is wrong.
func (w *world) check(opt migrate.CheckOptions) []migrate.Finding {
	w.t.Helper()
	var found []migrate.Finding
	w.must(w.migrator(options(), migrate.Deps{}).Check(w.t.Context(), opt, func(f migrate.Finding) { found = append(found, f) }))
	return found
}

// sound fails for everything that a deep check finds, once all is old enough to be looked at.
func (w *world) sound() {
	w.t.Helper()
	w.clock.advance(2 * time.Hour)
	for _, f := range w.check(migrate.CheckOptions{Deep: true}) {
		w.t.Errorf("check: %s %s", f.ID, f.Problem)
	}
}

// watcher notes what it is told.
type watcher struct {
	mu      sync.Mutex
	waiting int
	found   [2]int64
	again   []error
	copied  map[string]int64
	moved   int
	failed  []error
}

func (w *watcher) Waiting(time.Duration) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.waiting++
}

func (w *watcher) Found(blobs, bytes int64) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.found = [2]int64{blobs, bytes}
}

func (w *watcher) Begun(_ *upload.Blob, again error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if again != nil {
		w.again = append(w.again, again)
	}
}

func (w *watcher) Copied(b *upload.Blob, bytes int64) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.copied == nil {
		w.copied = map[string]int64{}
	}
	w.copied[b.ID] = bytes
}

func (w *watcher) Ended(_ *upload.Blob, moved bool, err error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if moved {
		w.moved++
	}
	if err != nil {
		w.failed = append(w.failed, err)
	}
}

// gate is what all calls of a run go through, before and after they are done.
type gate func(ctx context.Context, call string) error

// gatedDB is a database behind a gate.
type gatedDB struct {
	*sqldb.DB
	gate gate
}

func through[T any](ctx context.Context, g gate, call string, do func() (T, error)) (v T, err error) {
	if err := g(ctx, call); err != nil {
		return v, err
	}
	v, err = do()
	if late := g(ctx, call+", done"); late != nil { // the answer is lost
		var none T
		return none, late
	}
	return v, err
}

func only(ctx context.Context, g gate, call string, do func() error) error {
	_, err := through(ctx, g, call, func() (struct{}, error) { return struct{}{}, do() })
	return err
}

func (d gatedDB) BlobsIn(ctx context.Context, name string, state upload.BlobState, after string, limit int) ([]upload.Blob, error) {
	return through(ctx, d.gate, "BlobsIn", func() ([]upload.Blob, error) { return d.DB.BlobsIn(ctx, name, state, after, limit) })
}

func (d gatedDB) BeginMove(ctx context.Context, f meta.Fence, b *upload.Blob, to string, now time.Time) (meta.Move, error) {
	return through(ctx, d.gate, "BeginMove", func() (meta.Move, error) { return d.DB.BeginMove(ctx, f, b, to, now) })
}

func (d gatedDB) SaveMove(ctx context.Context, f meta.Fence, id string, state []byte) error {
	return only(ctx, d.gate, "SaveMove", func() error { return d.DB.SaveMove(ctx, f, id, state) })
}

func (d gatedDB) Switch(ctx context.Context, f meta.Fence, id string, now time.Time) error {
	return only(ctx, d.gate, "Switch", func() error { return d.DB.Switch(ctx, f, id, now) })
}

func (d gatedDB) Abandon(ctx context.Context, f meta.Fence, id string) error {
	return only(ctx, d.gate, "Abandon", func() error { return d.DB.Abandon(ctx, f, id) })
}

func (d gatedDB) ForgetMove(ctx context.Context, id string) error {
	return only(ctx, d.gate, "ForgetMove", func() error { return d.DB.ForgetMove(ctx, id) })
}

func (d gatedDB) AcquireLease(ctx context.Context, name, who string, now, until time.Time) (upload.Lease, error) {
	return through(ctx, d.gate, "AcquireLease", func() (upload.Lease, error) { return d.DB.AcquireLease(ctx, name, who, now, until) })
}

func (d gatedDB) ReleaseLease(ctx context.Context, name, who string) error {
	return only(ctx, d.gate, "ReleaseLease", func() error { return d.DB.ReleaseLease(ctx, name, who) })
}

// gatedStore is a store behind a gate. Its Put keeps a checkpoint half way, and may be stopped there.
type gatedStore struct {
	store.Store
	name string
	gate gate
}

func (s gatedStore) Put(ctx context.Context, key string, content store.Content, opt store.PutOptions) error {
	return only(ctx, s.gate, "Put to "+s.name, func() error {
		if opt.Checkpoint != nil {
			if err := opt.Checkpoint.Save(ctx, fmt.Append(nil, key)); err != nil {
				return err
			}
		}
		return s.Store.Put(ctx, key, content, opt)
	})
}

func (s gatedStore) Verify(ctx context.Context, key string, want store.Digests) error {
	return only(ctx, s.gate, "Verify in "+s.name, func() error { return s.Store.Verify(ctx, key, want) })
}

func (s gatedStore) Open(ctx context.Context, key string, offset, length int64) (io.ReadCloser, error) {
	return through(ctx, s.gate, "Open in "+s.name, func() (io.ReadCloser, error) { return s.Store.Open(ctx, key, offset, length) })
}

func (s gatedStore) Size(ctx context.Context, key string) (int64, error) {
	return through(ctx, s.gate, "Size in "+s.name, func() (int64, error) { return s.Store.Size(ctx, key) })
}

func (s gatedStore) Delete(ctx context.Context, key string) error {
	return only(ctx, s.gate, "Delete in "+s.name, func() error { return s.Store.Delete(ctx, key) })
}

// behind is what a run has whose calls go through a gate.
func (w *world) behind(g gate) migrate.Deps {
	return migrate.Deps{
		DB:     gatedDB{w.db, g},
		Stores: map[string]store.Store{"a": gatedStore{w.a, "a", g}, "b": gatedStore{w.b, "b", g}},
	}
}
