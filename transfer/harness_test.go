package transfer_test

import (
	"bytes"
	"context"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"go.uber.org/goleak"
	"golang.org/x/sync/errgroup"

	"gantry/chunkstore"
	"gantry/chunkstore/disk"
	"gantry/internal/vfs"
	"gantry/meta"
	"gantry/meta/sqldb"
	"gantry/store"
	"gantry/store/local"
	"gantry/store/storetest"
	"gantry/transfer"
	"gantry/transfer/queue"
	"gantry/transfer/queue/memory"
	"gantry/upload"
)

func TestMain(m *testing.M) {
	// database/sql ends this goroutine some time after Close.
	goleak.VerifyTestMain(m, goleak.IgnoreTopFunction("database/sql.(*DB).connectionOpener"))
}

const (
	node      = "n1"
	storeName = "main"
	patience  = 20 * time.Second
)

// rig is a node's parts, all real: SQLite, staging and a store on disk.
type rig struct {
	t       testing.TB
	dir     string
	db      *sqldb.DB
	outbox  *outbox
	staging *disk.Staging
	local   *local.Store
	store   *storetest.Faulty
	queue   queue.Queue
	shift   atomic.Int64 // of the clock, nanoseconds
}

func newRig(t testing.TB) *rig {
	t.Helper()
	r := &rig{t: t, dir: t.TempDir(), queue: memory.New()}
	r.open()
	return r
}

func must[T any](v T, err error) func(testing.TB) T {
	return func(t testing.TB) T {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
		return v
	}
}

func (r *rig) open() {
	t := r.t
	tree := func(name string) *vfs.OS {
		path := filepath.Join(r.dir, name)
		if err := os.MkdirAll(path, 0o700); err != nil {
			t.Fatal(err)
		}
		tree := must(vfs.OpenOS(path))(t)
		t.Cleanup(func() { _ = tree.Close() })
		return tree
	}
	r.db = must(sqldb.OpenSQLite(context.Background(), filepath.Join(r.dir, "gantry.db"), sqldb.Options{}))(t)
	t.Cleanup(func() { _ = r.db.Close() })
	r.outbox = &outbox{Outbox: r.db}
	r.staging = must(disk.Open(tree("staging"), disk.Options{}))(t)
	t.Cleanup(func() { _ = r.staging.Close() })
	r.local = must(local.Open(tree("store"), "n1"))(t)
	r.store = storetest.NewFaulty(r.local)
}

func (r *rig) now() time.Time { return time.Now().Add(time.Duration(r.shift.Load())) }

// outbox is the real one, which a test can hold up or make fail.
type outbox struct {
	meta.Outbox
	before atomic.Pointer[func(op string) error] // may be nil
}

func (o *outbox) hook(f func(op string) error) { o.before.Store(&f) }

func (o *outbox) call(op string) error {
	if f := o.before.Load(); f != nil {
		return (*f)(op)
	}
	return nil
}

func (o *outbox) TakeDue(ctx context.Context, node string, now time.Time, republish time.Duration, limit int) ([]string, error) {
	if err := o.call("TakeDue"); err != nil {
		return nil, err
	}
	return o.Outbox.TakeDue(ctx, node, now, republish, limit)
}

func (o *outbox) Lease(ctx context.Context, id, owner string, now, until time.Time) (meta.Job, error) {
	if err := o.call("Lease"); err != nil {
		return meta.Job{}, err
	}
	return o.Outbox.Lease(ctx, id, owner, now, until)
}

func (o *outbox) Renew(ctx context.Context, id string, epoch int64, p meta.Progress) error {
	if err := o.call("Renew"); err != nil {
		return err
	}
	return o.Outbox.Renew(ctx, id, epoch, p)
}

func (o *outbox) SetDigests(ctx context.Context, id string, epoch int64, found upload.Sealed, now time.Time) error {
	if err := o.call("SetDigests"); err != nil {
		return err
	}
	return o.Outbox.SetDigests(ctx, id, epoch, found, now)
}

func (o *outbox) SetRoot(ctx context.Context, id string, epoch int64, root upload.Root, now time.Time) (meta.RootResult, error) {
	if err := o.call("SetRoot"); err != nil {
		return meta.RootResult{}, err
	}
	return o.Outbox.SetRoot(ctx, id, epoch, root, now)
}

func (o *outbox) Stored(ctx context.Context, id string, epoch int64, store, key string, now time.Time) error {
	if err := o.call("Stored"); err != nil {
		return err
	}
	return o.Outbox.Stored(ctx, id, epoch, store, key, now)
}

func (o *outbox) Retry(ctx context.Context, id string, epoch int64, next time.Time, reason string, now time.Time) error {
	if err := o.call("Retry"); err != nil {
		return err
	}
	return o.Outbox.Retry(ctx, id, epoch, next, reason, now)
}

// options are those of a worker and of the relay beside it.
type options struct {
	transfer.Options
	Sweep, Republish time.Duration
}

// testOptions make everything happen soon.
func testOptions() options {
	return options{Sweep: 20 * time.Millisecond, Options: transfer.Options{
		Node: node, Workers: 4, MinBackoff: time.Millisecond, MaxBackoff: 20 * time.Millisecond,
		Log: slog.New(slog.DiscardHandler),
	}}
}

// ignored is the acknowledgement of a message that no queue sent.
func ignored() {}

// start runs a relay and a worker until stop is called, at the latest at the end of the test.
func (r *rig) start(opt options) (relay *transfer.Relay, stop func()) {
	return r.startWith(opt, r.deps())
}

func (r *rig) startWith(opt options, deps transfer.Deps) (relay *transfer.Relay, stop func()) {
	relay = transfer.NewRelay(transfer.RelayOptions{Node: opt.Node, Sweep: opt.Sweep, Republish: opt.Republish, Log: opt.Log},
		transfer.RelayDeps{Outbox: deps.Outbox, Queue: r.queue, Now: r.now})
	w := transfer.NewWorker(opt.Options, deps)
	ctx, cancel := context.WithCancel(context.Background())
	var running errgroup.Group
	running.Go(func() error { return relay.Run(ctx) })
	running.Go(func() error { return w.Run(ctx) })
	stop = sync.OnceFunc(func() {
		cancel()
		if err := running.Wait(); err != nil {
			r.t.Error(err)
		}
	})
	r.t.Cleanup(stop)
	return relay, stop
}

func (r *rig) deps() transfer.Deps {
	return transfer.Deps{
		Outbox: r.outbox, Staging: r.staging, Stores: map[string]store.Store{storeName: r.store}, Queue: r.queue, Now: r.now,
	}
}

func (r *rig) worker(opt options) *transfer.Worker { return transfer.NewWorker(opt.Options, r.deps()) }

// commit makes a file, as an upload does: its transfer is due.
func (r *rig) commit(data []byte) upload.File {
	r.t.Helper()
	ctx := context.Background()
	id := upload.NewUploadID(node)
	body := chunkstore.Body{Reader: bytes.NewReader(data), Length: int64(len(data))}
	sealed := must(r.staging.WriteWhole(ctx, id, body, 1<<40))(r.t)
	now := r.now()
	answer := must(r.db.CommitUpload(ctx, meta.Commit{
		UploadID: id, File: upload.File{ID: upload.NewID(now), Owner: "local", Name: "f", CreatedAt: now},
		Sealed: sealed, Node: node, Store: storeName, AnswerUntil: now.Add(time.Hour),
	}))(r.t)
	if err := r.staging.Commit(ctx, id); err != nil {
		r.t.Fatal(err)
	}
	return must(r.db.File(ctx, "local", answer.File.ID))(r.t)
}

func (r *rig) blob(f *upload.File) upload.Blob {
	r.t.Helper()
	return must(r.db.Blob(context.Background(), must(r.db.File(context.Background(), f.Owner, f.ID))(r.t).BlobID))(r.t)
}

// alterStaged changes the bytes of a blob in staging behind all backs.
func (r *rig) alterStaged(f *upload.File, change func([]byte) []byte) {
	r.t.Helper()
	path := filepath.Join(r.dir, "staging", r.blob(f).Staging+".data")
	data := must(os.ReadFile(path))(r.t)
	if err := os.WriteFile(path, change(data), 0o600); err != nil {
		r.t.Fatal(err)
	}
}

func (r *rig) transfer(f *upload.File) upload.Transfer {
	r.t.Helper()
	return must(r.db.Transfer(context.Background(), f.Transfer.ID))(r.t)
}

// eventually waits until ok.
func (r *rig) eventually(what string, ok func() bool) {
	r.t.Helper()
	for deadline := time.Now().Add(patience); !ok(); time.Sleep(2 * time.Millisecond) {
		if time.Now().After(deadline) {
			all, _ := r.db.Transfers(context.Background(), nil, 5)
			r.t.Fatalf("%s did not come true; transfers: %+v", what, all)
		}
	}
}

func (r *rig) waitFor(f *upload.File, state upload.TransferState) upload.Transfer {
	r.t.Helper()
	r.eventually(fmt.Sprintf("transfer %s", state), func() bool { return r.transfer(f).State == state })
	return r.transfer(f)
}

// expectStored checks that a file's bytes are in the store, whole, and that the database says so.
func (r *rig) expectStored(f *upload.File, data []byte) {
	r.t.Helper()
	t, b := r.transfer(f), r.blob(f)
	if t.State != upload.TransferStored || b.Store != storeName || b.ObjectKey != upload.ObjectKeyFor(&b) || b.VerifiedAt.IsZero() {
		r.t.Errorf("transfer %+v\nblob %+v", t, b)
	}
	want := storetest.DigestsOf(data)
	if b.Root != want.Root || b.CRC32C != want.CRC32C {
		r.t.Errorf("the blob's digests are not those of its bytes: %+v", b)
	}
	got, err := storetest.Read(context.Background(), r.local, upload.ObjectKeyFor(&b), 0, -1)
	if err != nil || !bytes.Equal(got, data) {
		r.t.Errorf("the object has %d bytes that are not those %d of the file (%v)", len(got), len(data), err)
	}
}

// expectStaged checks that the staging copy is still there, whole.
func (r *rig) expectStaged(f *upload.File, data []byte) {
	r.t.Helper()
	content, err := r.staging.Open(context.Background(), r.blob(f).Staging)
	if err != nil {
		r.t.Errorf("the staging copy: %v", err)
		return
	}
	defer content.Close()
	got := make([]byte, content.Size())
	if _, err := content.ReadAt(got, 0); len(got) > 0 && err != nil || !bytes.Equal(got, data) {
		r.t.Errorf("the staging copy is not whole (%v)", err)
	}
}

// stagingWatch counts who opens which content.
type stagingWatch struct {
	transfer.Staging
	opened atomic.Int64
}

func (s *stagingWatch) Open(ctx context.Context, id string) (chunkstore.Content, error) {
	s.opened.Add(1)
	return s.Staging.Open(ctx, id)
}

// logged collects a worker's log.
type logged struct {
	mu   sync.Mutex
	text strings.Builder
}

func (l *logged) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.text.Write(p)
}

func (l *logged) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.text.String()
}

func (l *logged) logger() *slog.Logger {
	return slog.New(slog.NewTextHandler(l, &slog.HandlerOptions{Level: slog.LevelDebug}))
}
