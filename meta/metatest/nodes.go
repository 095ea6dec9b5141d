package metatest

import (
	"sync"
	"sync/atomic"
	"time"

	"gantry/meta"
	"gantry/upload"
)

var nodeTests = map[string]func(h *harness){
	"join and beat":                        testJoin,
	"join twice":                           testJoinTwice,
	"strand":                               testStrand,
	"strand is fenced":                     testStrandFenced,
	"collect is fenced":                    testCollectFenced,
	"lost without a root":                  testLostWithoutRoot,
	"collect leaves copies to their nodes": testCollectElsewhere,
	"forget":                               testForget,
	"forget many":                          testForgetMany,
}

var leaseTests = map[string]func(h *harness){
	"acquire and release": testAcquireLease,
	"one at a time":       testLeaseRace,
}

const elsewhere = "node2"

func (h *harness) join(id string) int64 {
	h.Helper()
	epoch, err := h.db.Join(h.Context(), id, "http://"+id, h.now)
	h.must(err)
	return epoch
}

func (h *harness) nodes() map[string]meta.Node {
	h.Helper()
	all, err := h.db.Nodes(h.Context())
	h.must(err)
	byID := map[string]meta.Node{}
	for i := range all {
		if i > 0 && all[i].ID <= all[i-1].ID {
			h.Errorf("%s comes after %s", all[i].ID, all[i-1].ID)
		}
		byID[all[i].ID] = all[i]
	}
	return byID
}

func testJoin(h *harness) {
	equal(h, "nodes", len(h.nodes()), 0)
	epoch := h.join(node)
	h.join(elsewhere)
	first := h.nodes()[node]
	equal(h, "node", first, meta.Node{ID: node, Address: "http://" + node, Epoch: epoch, Beats: first.Beats, SeenAt: h.now})
	h.pass(time.Minute)
	h.must(h.db.Beat(h.Context(), node, epoch, h.now))
	second := h.nodes()[node]
	equal(h, "beats", second.Beats > first.Beats, true)
	equal(h, "seen", second.SeenAt, h.now)
	h.must(h.db.Leave(h.Context(), node, epoch, h.now))
	equal(h, "left", h.nodes()[node].Left, true)
	again := h.join(node)
	equal(h, "epoch grew", again > epoch, true)
	equal(h, "left", h.nodes()[node].Left, false)
	h.want(upload.Conflict, h.db.Beat(h.Context(), "unknown", 1, h.now))
}

// A directory that was copied: whoever starts last is the node, and the other notices.
func testJoinTwice(h *harness) {
	first := h.join(node)
	second := h.join(node)
	h.want(upload.Conflict, h.db.Beat(h.Context(), node, first, h.now))
	h.want(upload.Conflict, h.db.Leave(h.Context(), node, first, h.now))
	h.must(h.db.Beat(h.Context(), node, second, h.now))
	equal(h, "left", h.nodes()[node].Left, false)
}

func testStrand(h *harness) {
	h.join(node)
	staged, stored := h.add(alice, "staged", body{"x", 0}), h.addStored(alice, "stored", body{"y", 0})
	h.rooted(&staged, body{"x", 0})
	find := func(b body) error {
		_, err := h.db.FindContent(h.Context(), meta.ScopeUser, alice, b.sha1(), bodySize)
		return err
	}
	h.must(find(body{"x", 0}))
	for range 2 { // it may be repeated
		_, err := h.db.Strand(h.Context(), meta.Fence{}, h.nodes()[node], h.now)
		h.must(err)
	}
	equal(h, "state", h.blob(staged.BlobID).State, upload.BlobStranded)
	equal(h, "state of what the store has", h.blob(stored.BlobID).State, upload.BlobLive)
	equal(h, "stranded", h.nodes()[node].Stranded, 1)
	h.want(upload.NotFound, find(body{"x", 0}))
	h.must(find(body{"y", 0}))
	epoch := h.join(node)
	equal(h, "state", h.blob(staged.BlobID).State, upload.BlobLive)
	equal(h, "stranded", h.nodes()[node].Stranded, 0)
	h.must(find(body{"x", 0}))

	// It was only cut off: it beats again. Who saw it stand still before that does no harm.
	still := h.nodes()[node]
	_, err := h.db.Strand(h.Context(), meta.Fence{}, still, h.now)
	h.must(err)
	equal(h, "state", h.blob(staged.BlobID).State, upload.BlobStranded)
	h.must(h.db.Beat(h.Context(), node, epoch, h.now))
	equal(h, "state", h.blob(staged.BlobID).State, upload.BlobLive)
	n, err := h.db.Strand(h.Context(), meta.Fence{}, still, h.now)
	h.must(err)
	equal(h, "stranded by who came late", n, 0)
	equal(h, "state", h.blob(staged.BlobID).State, upload.BlobLive)
}

func testStrandFenced(h *harness) {
	h.join(node)
	f := h.add(alice, "a", body{"x", 0})
	old, err := h.db.AcquireLease(h.Context(), "janitor", "one", h.now, h.now.Add(lease))
	h.must(err)
	h.pass(2 * lease)
	late, err := h.db.AcquireLease(h.Context(), "janitor", "two", h.now, h.now.Add(lease))
	h.must(err)
	_, err = h.db.Strand(h.Context(), meta.Fence{Lease: "janitor", Epoch: old.Epoch}, h.nodes()[node], h.now)
	h.want(upload.Conflict, err)
	_, err = h.db.Strand(h.Context(), meta.Fence{Lease: "unknown", Epoch: 1}, h.nodes()[node], h.now)
	h.want(upload.Conflict, err)
	equal(h, "state", h.blob(f.BlobID).State, upload.BlobLive)
	_, err = h.db.Strand(h.Context(), meta.Fence{Lease: "janitor", Epoch: late.Epoch}, h.nodes()[node], h.now)
	h.must(err)
	equal(h, "state", h.blob(f.BlobID).State, upload.BlobStranded)
}

func testForget(h *harness) {
	epoch := h.join(node)
	lost, stored := h.add(alice, "lost", body{"x", 0}), h.addStored(alice, "stored", body{"y", 0})
	h.rooted(&lost, body{"x", 0})
	dropped := h.add(alice, "dropped", body{"z", 0}) // nobody misses its bytes
	h.must(h.db.DeleteFile(h.Context(), alice, dropped.ID, h.now))
	_, err := h.db.Strand(h.Context(), meta.Fence{}, h.nodes()[node], h.now)
	h.must(err)
	_, err = h.db.Forget(h.Context(), "unknown", h.now)
	h.want(upload.NotFound, err)
	n, err := h.db.Forget(h.Context(), node, h.now)
	h.must(err)
	equal(h, "lost", n, 1)
	equal(h, "forgotten", h.nodes()[node].Forgotten, true)
	b := h.blob(lost.BlobID)
	equal(h, "state", b.State, upload.BlobLost)
	equal(h, "node of a lost blob", b.Node+b.Staging, "")
	equal(h, "its file is lost", h.file(alice, lost.ID).Lost, true)
	equal(h, "its transfer", h.transfer(lost.Transfer.ID).State, upload.TransferDead)
	b = h.blob(stored.BlobID)
	equal(h, "state of what the store has", b.State, upload.BlobLive)
	equal(h, "node of what the store has", b.Node+b.Staging, "")
	n, err = h.db.Forget(h.Context(), node, h.now)
	h.must(err)
	equal(h, "lost again", n, 0)
	_, err = h.db.Join(h.Context(), node, "http://back", h.now)
	h.want(upload.Gone, err)
	h.want(upload.Conflict, h.db.Beat(h.Context(), node, epoch, h.now))

	again := h.add(bob, "again", body{"x", 0}) // the same content heals
	_, result := h.rooted(&again, body{"x", 0})
	equal(h, "joined", result.JoinedTo, "")
	equal(h, "the lost file is there again", h.file(alice, lost.ID).BlobID, again.BlobID)
}

// What was lost before its root was known stays lost: SHA-1 does not say that other content is the same, nor who
// sends it.
func testLostWithoutRoot(h *harness) {
	h.join(node)
	lost := h.add(alice, "lost", body{"x", 0})
	n, err := h.db.Forget(h.Context(), node, h.now)
	h.must(err)
	equal(h, "lost", n, 1)
	for variant := range 2 { // of one SHA-1
		again := h.add(alice, "again", body{"x", variant})
		h.rooted(&again, body{"x", variant})
		equal(h, "still lost", h.file(alice, lost.ID).Lost, true)
	}
}

func testForgetMany(h *harness) {
	h.join(node)
	const n = 450
	for i := range n {
		h.add(alice, "a", body{"many", i})
	}
	lost, err := h.db.Forget(h.Context(), node, h.now)
	h.must(err)
	equal(h, "lost", lost, n)
}

func testAcquireLease(h *harness) {
	acquire := func(owner string) (upload.Lease, error) {
		return h.db.AcquireLease(h.Context(), "x", owner, h.now, h.now.Add(lease))
	}
	first, err := acquire("one")
	h.must(err)
	equal(h, "lease", first, upload.Lease{Owner: "one", Epoch: first.Epoch, Until: h.now.Add(lease)})
	_, err = acquire("two")
	h.want(upload.Conflict, err)
	h.pass(lease / 2)
	again, err := acquire("one")
	h.must(err)
	equal(h, "prolonged", again, upload.Lease{Owner: "one", Epoch: first.Epoch, Until: h.now.Add(lease)})
	h.pass(lease)
	second, err := acquire("two")
	h.must(err)
	equal(h, "epoch grew", second.Epoch > first.Epoch, true)
	h.must(h.db.ReleaseLease(h.Context(), "x", "one")) // late
	_, err = acquire("one")
	h.want(upload.Conflict, err)
	h.must(h.db.ReleaseLease(h.Context(), "x", "two"))
	third, err := acquire("two")
	h.must(err)
	equal(h, "a released lease is a new one", third.Epoch > second.Epoch, true)
	h.pass(2 * lease)
	fourth, err := acquire("two")
	h.must(err)
	equal(h, "a lease that was over is a new one", fourth.Epoch > third.Epoch, true)
	h.must(h.db.ReleaseLease(h.Context(), "unknown", "one"))
}

func testLeaseRace(h *harness) {
	for round := range 20 {
		h.pass(2 * lease)
		var got atomic.Int64
		var all sync.WaitGroup
		for _, owner := range []string{"a", "b", "c", "d"} {
			all.Go(func() {
				if _, err := h.db.AcquireLease(h.Context(), "x", owner, h.now, h.now.Add(lease)); err == nil {
					got.Add(1)
				}
			})
		}
		all.Wait()
		if got.Load() != 1 {
			h.Fatalf("round %d: %d have the lease", round, got.Load())
		}
	}
}

func testCollectFenced(h *harness) {
	f := h.addStored(alice, "a", body{"x", 0})
	h.remove(alice, f.ID)
	h.pass(time.Hour)
	mine, err := h.db.AcquireLease(h.Context(), "janitor", "one", h.now, h.now.Add(lease))
	h.must(err)
	q := meta.CollectQuery{Fence: meta.Fence{Lease: "janitor", Epoch: mine.Epoch - 1}, CondemnedBefore: h.now, Now: h.now, Limit: 10}
	_, err = h.db.Collect(h.Context(), q)
	h.want(upload.Conflict, err)
	equal(h, "state", h.blob(f.BlobID).State, upload.BlobCondemned)
	q.Fence.Epoch = mine.Epoch
	blobs, err := h.db.Collect(h.Context(), q)
	h.must(err)
	equal(h, "deleting", len(blobs), 1)
}

// Each node deletes its own copies, so the one that collects leaves alone what another still has.
func testCollectElsewhere(h *harness) {
	f := h.addStored(alice, "a", body{"x", 0})
	h.remove(alice, f.ID)
	h.pass(time.Hour)
	collect := func(node string) int {
		blobs, err := h.db.Collect(h.Context(), meta.CollectQuery{Node: node, CondemnedBefore: h.now, Now: h.now, Limit: 10})
		h.must(err)
		return len(blobs)
	}
	equal(h, "with a copy on another node", collect(elsewhere), 0)
	equal(h, "state", h.blob(f.BlobID).State, upload.BlobDeleting)
	equal(h, "on its own node", collect(node), 1)
	h.must(h.db.StagingDropped(h.Context(), f.BlobID))
	equal(h, "without a copy", collect(elsewhere), 1)
}
