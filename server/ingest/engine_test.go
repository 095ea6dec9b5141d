package ingest_test

import (
	"bytes"
	"context"
	"errors"
	"io"
	"log/slog"
	"math/rand/v2"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"gantry/chunkstore"
	"gantry/chunkstore/disk"
	"gantry/chunkstore/memory"
	"gantry/internal/vfs/faultfs"
	"gantry/internal/vfs/memfs"
	"gantry/meta"
	"gantry/meta/sqldb"
	"gantry/server/ingest"
	"gantry/store"
	"gantry/store/local"
	"gantry/store/storetest"
	"gantry/transfer"
	queue "gantry/transfer/queue/memory"
	"gantry/upload"
)

const owner = "local"

// clock is a time that only tests move.
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
	Log(args ...any)
	Errorf(format string, args ...any)
	Fatal(args ...any)
	Fatalf(format string, args ...any)
	Context() context.Context
}

// engine is a whole node but for HTTP: the real parts, on file systems in memory that can lose power.
type engine struct {
	t      tb
	clock  *clock
	path   string // of the database
	boot   string
	scope  meta.Scope
	most   int // open uploads; 0: the default
	node   string
	view   chunkstore.View   // nil: a new one in memory at each start
	other  *engine           // whose database this node shares; nil: it has one of its own
	direct *storetest.Direct // where new files go; nil: to the local store

	stagingMem, storeMem     *memfs.FS
	stagingFault, storeFault *faultfs.FS

	staging *disk.Staging
	db      *sqldb.DB
	local   *local.Store
	worker  *transfer.Worker
	*ingest.Service
}

func newEngine(t testing.TB) *engine {
	t.Helper()
	e := newEngineIn(t, t.TempDir())
	t.Cleanup(e.close)
	return e
}

func newEngineIn(t tb, dir string) *engine {
	t.Helper()
	c := &clock{t: time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)}
	e := &engine{
		t: t, clock: c, path: filepath.Join(dir, "gantry.db"), boot: "boot", scope: meta.ScopeUser, node: "n1",
		stagingMem: memfs.New(c.now), storeMem: memfs.New(c.now),
	}
	e.open()
	return e
}

func (e *engine) open() {
	e.t.Helper()
	log := slog.New(slog.DiscardHandler)
	e.stagingFault, e.storeFault = faultfs.New(e.stagingMem, nil), faultfs.New(e.storeMem, nil)
	var err error
	if e.other != nil {
		e.db = e.other.db
	} else if e.db, err = sqldb.OpenSQLite(e.t.Context(), e.path, sqldb.Options{Log: log, Now: e.clock.now}); err != nil {
		e.t.Fatal(err)
	}
	view := e.view
	if view == nil {
		view = memory.New()
	}
	if e.staging, err = disk.Open(e.stagingFault, disk.Options{BootID: e.boot, Now: e.clock.now, Log: log, MinFree: 1}); err != nil {
		e.t.Fatal(err)
	}
	if e.local, err = local.Open(e.storeFault, "n1"); err != nil {
		e.t.Fatal(err)
	}
	stores, route := map[string]store.Store{"local": e.local}, toLocal
	if e.direct != nil {
		stores["bucket"] = e.direct
		route = func(int64, string, string) string { return "bucket" }
	}
	e.worker = transfer.NewWorker(transfer.Options{Node: e.node, Log: log}, transfer.Deps{
		Outbox: e.db, Staging: e.staging, Stores: stores, Queue: queue.New(), Now: e.clock.now,
	})
	e.Service = ingest.New(ingest.Options{Node: e.node, Route: route, Direct: e.direct != nil, Scope: e.scope, MaxOpen: e.most}, ingest.Deps{
		Staging: e.staging, View: view, DB: e.db, Stores: stores,
		Wake: func() {}, Log: log, Now: e.clock.now,
	})
	if err := e.Recover(e.t.Context()); err != nil {
		e.t.Fatal(err)
	}
}

func (e *engine) close() {
	err := e.staging.Close()
	if e.other == nil {
		err = errors.Join(err, e.db.Close())
	}
	if err != nil {
		e.t.Log("close:", err)
	}
}

// sharing opens a node of its own name that shares database and view with others.
func sharing(t testing.TB, node string, view chunkstore.View, with *engine) *engine {
	t.Helper()
	c := &clock{t: time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)}
	e := &engine{
		t: t, clock: c, path: filepath.Join(t.TempDir(), "gantry.db"), boot: "boot", scope: meta.ScopeUser,
		node: node, view: view, other: with, stagingMem: memfs.New(c.now), storeMem: memfs.New(c.now),
	}
	e.open()
	t.Cleanup(e.close)
	return e
}

// restart ends the node in order and starts it again.
func (e *engine) restart() {
	e.close()
	e.open()
}

// kill is kill -9 and a start: the page cache survives, nothing else does.
func (e *engine) kill() {
	e.stagingMem, e.storeMem = e.stagingMem.Kill(), e.storeMem.Kill()
	e.close()
	e.open()
}

// powerCut keeps what was synced, and of the rest whatever the random numbers say.
func (e *engine) powerCut(seed uint64) {
	rng := rand.New(rand.NewPCG(seed, 1))
	e.stagingMem, e.storeMem = e.stagingMem.Crash(rng), e.storeMem.Crash(rng)
	e.close()
	e.boot += "'"
	e.open()
}

// transfer does all transfers that are due.
func (e *engine) transfer() {
	e.t.Helper()
	ctx := e.t.Context()
	for {
		ids, err := e.db.TakeDue(ctx, "n1", e.clock.now(), time.Minute, 100)
		if err != nil {
			e.t.Fatal(err)
		}
		if len(ids) == 0 {
			return
		}
		for _, id := range ids {
			if err := e.worker.Handle(ctx, id, func() {}); err != nil {
				e.t.Fatal(err)
			}
		}
	}
}

func body(data []byte) chunkstore.Body {
	return chunkstore.Body{Reader: bytes.NewReader(data), Length: int64(len(data))}
}

// begin opens an upload of data in chunks of 1 MiB.
func (e *engine) begin(data []byte) (ingest.Opened, error) {
	size, chunk := int64(len(data)), upload.MinChunkSize
	opened, _, err := e.Init(e.t.Context(), owner, ingest.InitRequest{Name: "a", Size: &size, ChunkSize: &chunk})
	return opened, err
}

func (e *engine) mustBegin(data []byte) string {
	e.t.Helper()
	opened, err := e.begin(data)
	if err != nil {
		e.t.Fatal(err)
	}
	return opened.ID
}

// chunk is chunk i of data.
func chunk(data []byte, i int) []byte {
	return data[i*int(upload.MinChunkSize) : min((i+1)*int(upload.MinChunkSize), len(data))]
}

func (e *engine) mustPut(id string, data []byte) {
	e.t.Helper()
	for i := range (upload.Layout{Size: int64(len(data)), ChunkSize: upload.MinChunkSize}).Count() {
		if err := e.PutChunk(e.t.Context(), owner, id, i, body(chunk(data, i))); err != nil {
			e.t.Fatal(err)
		}
	}
}

// mustUpload takes data in, in chunks, and returns the file.
func (e *engine) mustUpload(data []byte) upload.File {
	e.t.Helper()
	id := e.mustBegin(data)
	e.mustPut(id, data)
	f, err := e.Complete(e.t.Context(), owner, id, ingest.CompleteRequest{})
	if err != nil {
		e.t.Fatal(err)
	}
	return f
}

func (e *engine) read(fileID string) ([]byte, error) {
	content, err := e.Content(e.t.Context(), owner, fileID)
	if err != nil {
		return nil, err
	}
	defer content.Close()
	r, err := content.Open(e.t.Context(), 0, -1)
	if err != nil {
		return nil, err
	}
	defer r.Close()
	return io.ReadAll(r)
}

func (e *engine) mustRead(fileID string, want []byte) {
	e.t.Helper()
	got, err := e.read(fileID)
	if err != nil {
		e.t.Fatalf("file %s: %v", fileID, err)
	}
	if !bytes.Equal(got, want) {
		e.t.Fatalf("file %s: other bytes (%d, want %d)", fileID, len(got), len(want))
	}
}

// examine fails the test for everything that doctor finds.
func (e *engine) examine() {
	e.t.Helper()
	err := e.Examine(e.t.Context(), ingest.ExamineOptions{Deep: true}, func(f ingest.Finding) {
		e.t.Errorf("doctor: %s: %s", f.ID, f.Problem)
	})
	if err != nil {
		e.t.Fatal(err)
	}
}

// prove answers a challenge for data.
func prove(t tb, c *upload.Challenge, data []byte) *upload.Proof {
	t.Helper()
	h := upload.NewTreeHasher()
	_, _ = h.Write(data)
	tree := h.Sum()
	p := &upload.Proof{Challenge: c.ID}
	for _, i := range c.Leaves {
		leaf, err := tree.Prove(bytes.NewReader(data), i)
		if err != nil {
			t.Fatal(err)
		}
		p.Leaves = append(p.Leaves, leaf)
	}
	return p
}

// instant asks for instant upload of data and proves it.
func (e *engine) instant(ctx context.Context, who, id string, data []byte) (ingest.InstantResult, error) {
	sha1 := upload.SumSHA1(data)
	asked, err := e.Instant(ctx, who, id, ingest.InstantRequest{SHA1: sha1})
	if err != nil || asked.Challenge == nil {
		return asked, err
	}
	return e.Instant(ctx, who, id, ingest.InstantRequest{SHA1: sha1, Proof: prove(e.t, asked.Challenge, data)})
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

// toLocal sends all files to the one store there is.
func toLocal(int64, string, string) string { return "local" }
