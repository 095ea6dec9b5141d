package cluster_test

import (
	"context"
	"errors"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"go.uber.org/goleak"

	"gantry/cluster"
	"gantry/meta"
	"gantry/meta/sqldb"
	"gantry/upload"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func openDB(t *testing.T) meta.DB {
	t.Helper()
	db, err := sqldb.OpenSQLite(t.Context(), filepath.Join(t.TempDir(), "gantry.db"), sqldb.Options{})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := db.Close(); err != nil {
			t.Error(err)
		}
	})
	return db
}

// member is a node of a test.
type member struct {
	*cluster.Member
	t    *testing.T
	stop context.CancelFunc // as SIGTERM does
	done sync.WaitGroup
	err  error
}

// join starts a node whose periods are short.
func join(t *testing.T, db cluster.DB, id string) *member {
	t.Helper()
	c, err := cluster.Join(t.Context(), cluster.Options{
		Node: id, Address: "http://" + id, Beat: 5 * time.Millisecond, AwayAfter: 2 * time.Second, LeftAfter: time.Hour, LeaseTTL: 300 * time.Millisecond,
	}, db)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	m := &member{Member: c, t: t, stop: cancel}
	m.done.Go(func() { m.err = c.Run(ctx) })
	t.Cleanup(m.end)
	return m
}

func (m *member) end() {
	m.stop()
	m.done.Wait()
}

// mute is a database that a node cannot reach while it is set: as if it had died.
type mute struct {
	meta.DB
	mu  sync.Mutex
	set bool
}

func (m *mute) mute(set bool) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.set = set
}

func (m *mute) failed() error {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.set {
		return upload.Errorf(upload.Unavailable, "", "", "The database is away.")
	}
	return nil
}

func (m *mute) Beat(ctx context.Context, id string, epoch int64, now time.Time) error {
	return errors.Join(m.failed(), ctx.Err(), m.unless(func() error { return m.DB.Beat(ctx, id, epoch, now) }))
}

func (m *mute) unless(f func() error) error {
	if m.failed() != nil {
		return nil
	}
	return f()
}

func eventually(t *testing.T, what string, ok func() bool) {
	t.Helper()
	for deadline := time.Now().Add(20 * time.Second); !ok(); time.Sleep(2 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatal(what + " did not come true")
		}
	}
}

func TestNodesKnowEachOther(t *testing.T) {
	t.Parallel()
	db := openDB(t)
	a := join(t, db, "a")
	if _, err := a.Address(t.Context(), "b"); !errors.Is(err, upload.NotFound) {
		t.Errorf("an unknown node: %v", err)
	}
	b := join(t, db, "b")
	eventually(t, "the address of b at a", func() bool {
		u, err := a.Address(t.Context(), "b")
		return err == nil && u.String() == "http://b"
	})
	b.end()
	eventually(t, "that b left", func() bool {
		nodes, err := db.Nodes(t.Context())
		return err == nil && nodes[1].Left
	})
	if _, err := db.Forget(t.Context(), "b", time.Now()); err != nil {
		t.Fatal(err)
	}
	eventually(t, "that b was given up", func() bool { _, err := a.Address(t.Context(), "b"); return errors.Is(err, upload.Gone) })
}

// One node leads. When it is stopped another does at once; when it dies, after the lease.
func TestOneLeads(t *testing.T) {
	t.Parallel()
	db := openDB(t)
	leaders := func(members ...*member) (n int, fence meta.Fence) {
		for _, m := range members {
			if f, ok := m.Lead(); ok {
				n, fence = n+1, f
			}
		}
		return n, fence
	}
	a := join(t, db, "a")
	var first meta.Fence
	eventually(t, "that a leads", func() bool { n, f := leaders(a); first = f; return n == 1 })
	b, c := join(t, db, "b"), join(t, db, "c")
	for range 100 {
		if n, _ := leaders(a, b, c); n > 1 {
			t.Fatalf("%d nodes lead", n)
		}
		time.Sleep(time.Millisecond)
	}
	a.end()
	eventually(t, "that another leads", func() bool { n, f := leaders(b, c); return n == 1 && f.Epoch > first.Epoch })
	if _, err := db.Strand(t.Context(), first, meta.Node{ID: "b"}, time.Now()); !errors.Is(err, upload.Conflict) {
		t.Errorf("the first leader's fence still holds: %v", err)
	}
}

// Who starts as a node that another process is ends that process.
func TestDisplaced(t *testing.T) {
	t.Parallel()
	db := openDB(t)
	old := join(t, db, "a")
	join(t, db, "a")
	old.done.Wait()
	if !errors.Is(old.err, upload.Conflict) {
		t.Errorf("the older process ended with %v", old.err)
	}
}

// What only a dead node has is stranded, and live again when it is back. One that only restarts is
// waited for.
func TestStranded(t *testing.T) {
	t.Parallel()
	db := openDB(t)
	f := commit(t, db, "b")
	state := func() upload.BlobState {
		b, err := db.Blob(t.Context(), f.BlobID)
		if err != nil {
			t.Fatal(err)
		}
		return b.State
	}
	join(t, db, "a")
	quiet := &mute{DB: db}
	b := join(t, quiet, "b")
	quiet.mute(true)
	eventually(t, "stranded", func() bool { return state() == upload.BlobStranded })
	b.end()
	again := join(t, db, "b")
	if state() != upload.BlobLive {
		t.Error("the node is back, and its blob is " + state())
	}
	again.end() // in order
	time.Sleep(3 * time.Second)
	if state() != upload.BlobLive {
		t.Error("the node was stopped in order, and its blob is " + state())
	}
}

// commit makes a file whose only copy is on a node.
func commit(t *testing.T, db meta.DB, node string) upload.File {
	t.Helper()
	now := time.Now()
	a, err := db.CommitUpload(t.Context(), meta.Commit{
		UploadID: upload.NewUploadID(node), Answer: true, File: upload.File{ID: upload.NewID(now), Owner: "o", Name: "f", CreatedAt: now},
		Sealed: upload.Sealed{Size: 1 << 20}, Node: node, Store: "local", AnswerUntil: now.Add(time.Hour),
	})
	if err != nil {
		t.Fatal(err)
	}
	return *a.File
}

func TestValidate(t *testing.T) {
	t.Parallel()
	for _, o := range []cluster.Options{{}, {Node: "a", Address: "10.0.0.5:8080"}, {Node: "a", Address: "http://"}, {Node: "a", Address: "ftp://x"}, {Node: "a", Address: "http://x/y"}} {
		if o.Validate() == nil {
			t.Errorf("%+v is valid", o)
		}
	}
	for _, address := range []string{"", "http://10.0.0.5:8080", "https://n1.example/"} {
		if err := (cluster.Options{Node: "a", Address: address}).Validate(); err != nil {
			t.Error(err)
		}
	}
}

// A node that just joined has given out ids at once: others find it before their next look at the registry.
func TestNewNodeIsFound(t *testing.T) {
	t.Parallel()
	db := openDB(t)
	first, err := cluster.Join(t.Context(), cluster.Options{Node: "a", Address: "http://a"}, db) // does not run: it never looks by itself
	if err != nil {
		t.Fatal(err)
	}
	if _, err := first.Address(t.Context(), "b"); !errors.Is(err, upload.NotFound) {
		t.Errorf("before it joined: %v", err)
	}
	join(t, db, "b")
	var asking sync.WaitGroup
	for range 8 {
		asking.Go(func() {
			if u, err := first.Address(t.Context(), "b"); err != nil || u.Host != "b" {
				t.Errorf("%v, %v", u, err)
			}
		})
	}
	asking.Wait()
}

// A node without an address is alone with its database, or does not run.
func TestAlone(t *testing.T) {
	t.Parallel()
	db := openDB(t)
	begin := func(id, address string) (*cluster.Member, error) {
		beat := 5 * time.Millisecond
		if address != "" {
			beat = time.Second // it looks for the others for three of these
		}
		return cluster.Join(t.Context(), cluster.Options{Node: id, Address: address, Beat: beat}, db)
	}
	refused := func(what, id, address string) {
		t.Helper()
		if _, err := begin(id, address); !errors.Is(err, upload.Conflict) {
			t.Errorf("%s: %v", what, err)
		}
	}
	alone, err := begin("a", "")
	if err != nil {
		t.Fatal(err)
	}
	ctx, stop := context.WithCancel(t.Context())
	var running sync.WaitGroup
	running.Go(func() { err = alone.Run(ctx) })
	refused("another that is alone", "b", "")
	refused("a cluster's node while it runs", "b", "http://b")
	stop()
	running.Wait()
	if err != nil {
		t.Fatal(err)
	}
	join(t, db, "b") // once it has stopped
	refused("alone beside a cluster", "a", "")

	// Two that begin at once see each other only afterwards: then the one that is to be alone ends.
	other := openDB(t)
	late, err := cluster.Join(t.Context(), cluster.Options{Node: "a", Beat: 5 * time.Millisecond}, other)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := other.Join(t.Context(), "b", "http://b", time.Now()); err != nil {
		t.Fatal(err)
	}
	if err := late.Run(t.Context()); !errors.Is(err, upload.Conflict) {
		t.Errorf("alone, and then not: %v", err)
	}
	if nodes, err := other.Nodes(t.Context()); err != nil || len(nodes) != 2 {
		t.Error(nodes, err)
	}
}

// Fault 24: a leader whose clock was an hour ahead dies. The others lead long before its lease is over by their clocks; one
// whose clock is behind leads too. Nobody is stranded because of a clock.
func TestFault24ClocksOfNodes(t *testing.T) {
	t.Parallel()
	db := openDB(t)
	shifted := func(id string, by time.Duration, db cluster.DB) *member {
		c, err := cluster.Join(t.Context(), cluster.Options{
			Node: id, Address: "http://" + id, Beat: 5 * time.Millisecond, AwayAfter: time.Second, LeaseTTL: 300 * time.Millisecond,
			Now: func() time.Time { return time.Now().Add(by) },
		}, db)
		if err != nil {
			t.Fatal(err)
		}
		ctx, cancel := context.WithCancel(context.Background())
		m := &member{Member: c, t: t, stop: cancel}
		m.done.Go(func() { m.err = c.Run(ctx) })
		t.Cleanup(m.end)
		return m
	}
	leads := func(m *member) func() bool {
		return func() bool { _, ok := m.Lead(); return ok }
	}
	dying := &mute{DB: db}
	ahead := shifted("ahead", time.Hour, dying)
	eventually(t, "it leads", leads(ahead))
	behind := shifted("behind", -time.Hour, db)
	f := commit(t, db, "behind")
	dying.mute(true)
	eventually(t, "another leads", leads(behind))
	if b, err := db.Blob(t.Context(), f.BlobID); err != nil || b.State != upload.BlobLive {
		t.Errorf("what a node has that is alive: %v, %v", b.State, err)
	}
}
