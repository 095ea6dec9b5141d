package metatest

import (
	"time"

	"gantry/meta"
	"gantry/upload"
)

var rootTests = map[string]func(h *harness){
	"alone":                                 testRootAlone,
	"another root than before":              testRootChanged,
	"the newer joins the older":             testJoinOlder,
	"the older leads if it comes second":    testJoinNewerCameFirst,
	"one that is stored is joined":          testJoinStored,
	"one whose transfer was given up joins": testJoinGivenUp,
	"a condemned one is revived":            testJoinCondemned,
	"one without files joins":               testJoinWithoutFiles,
	"files of several owners move":          testJoinMovesAll,
	"a lost one is healed":                  testHeal,
	"a collision":                           testCollision,
	"after a join the content is found":     testFoundAfterJoin,
	"a join takes the other's lease":        testJoinTakesLease,
}

func testRootAlone(h *harness) {
	b := body{"x", 0}
	f := h.add(alice, "a", b)
	job, result := h.rooted(&f, b)
	equal(h, "result", result, meta.RootResult{})
	equal(h, "root", h.blob(f.BlobID).Root, b.root())
	for range 2 { // may be repeated
		result, err := h.db.SetRoot(h.Context(), job.Transfer.ID, job.Transfer.Lease.Epoch, b.root(), h.now)
		h.must(err)
		equal(h, "result", result, meta.RootResult{})
	}
	equal(h, "still running", h.transfer(job.Transfer.ID).State, upload.TransferRunning)
	_, err := h.db.SetRoot(h.Context(), job.Transfer.ID, job.Transfer.Lease.Epoch, upload.Root{}, h.now)
	h.want(upload.Invalid, err)
	// The same size or the same SHA-1 alone is no twin.
	c := h.commitOf(alice, "b", b)
	c.Sealed.Size++
	a, err := h.db.CommitUpload(h.Context(), c)
	h.must(err)
	_, result = h.rooted(a.File, b)
	equal(h, "another size", result, meta.RootResult{})
}

func testRootChanged(h *harness) {
	f := h.add(alice, "a", body{"x", 0})
	job, _ := h.rooted(&f, body{"x", 0})
	_, err := h.db.SetRoot(h.Context(), job.Transfer.ID, job.Transfer.Lease.Epoch, body{"x", 1}.root(), h.now)
	h.want(upload.DigestMismatch, err)
	equal(h, "root", h.blob(f.BlobID).Root, body{"x", 0}.root())
}

// joined checks that from has become part of into.
func (h *harness) joined(from, into string, files int64) {
	h.Helper()
	old, left := h.blob(from), h.blob(into)
	equal(h, "state of the joined", old.State, upload.BlobCondemned)
	equal(h, "refs of the joined", old.Refs, 0)
	equal(h, "root of the joined", old.Root, upload.Root{})
	equal(h, "condemned at", old.CondemnedAt, h.now)
	equal(h, "state of the one left", left.State, upload.BlobLive)
	equal(h, "refs of the one left", left.Refs, files)
	if left.Root.IsZero() {
		h.Error("the one left has no root")
	}
}

func testJoinOlder(h *harness) {
	b := body{"x", 0}
	first, second := h.add(alice, "a", b), h.add(bob, "b", b)
	_, result := h.rooted(&first, b)
	equal(h, "first", result, meta.RootResult{})
	job, result := h.rooted(&second, b)
	equal(h, "second", result, meta.RootResult{JoinedTo: first.BlobID})
	h.joined(second.BlobID, first.BlobID, 2)
	moved := h.file(bob, second.ID)
	equal(h, "its blob", moved.BlobID, first.BlobID)
	equal(h, "its transfer", moved.Transfer.ID, first.Transfer.ID)
	equal(h, "its name", moved.Name, "b")
	equal(h, "the joined one's transfer", h.transfer(job.Transfer.ID).State.Final(), true)
	equal(h, "the other's transfer", h.transfer(first.Transfer.ID).State, upload.TransferRunning)
	for name, write := range h.underLease(job.Transfer.ID, job.Transfer.Lease.Epoch) {
		if err := write(); upload.KindOf(err) != upload.Conflict {
			h.Errorf("%s after the join: %v", name, err)
		}
	}
	ids := h.collect()
	if len(ids) != 1 || ids[0] != second.BlobID {
		h.Errorf("collected %v", ids)
	}
}

func testJoinNewerCameFirst(h *harness) {
	b := body{"x", 0}
	first, second := h.add(alice, "a", b), h.add(bob, "b", b)
	_, result := h.rooted(&second, b)
	equal(h, "second", result, meta.RootResult{})
	job, result := h.rooted(&first, b)
	equal(h, "first", result, meta.RootResult{}) // goes on
	h.joined(second.BlobID, first.BlobID, 2)
	h.stored(job)
	equal(h, "bob's", h.file(bob, second.ID).Stored, true)
}

func testJoinStored(h *harness) {
	b := body{"x", 0}
	first, second := h.add(alice, "a", b), h.add(bob, "b", b)
	h.store(&second, b)
	_, result := h.rooted(&first, b)
	equal(h, "the older", result, meta.RootResult{JoinedTo: second.BlobID})
	h.joined(first.BlobID, second.BlobID, 2)
	equal(h, "alice's", h.file(alice, first.ID).Stored, true)
}

func testJoinGivenUp(h *harness) {
	b := body{"x", 0}
	first, second := h.add(alice, "a", b), h.add(bob, "b", b)
	job, _ := h.rooted(&first, b)
	h.must(h.db.Dead(h.Context(), job.Transfer.ID, 1, "unreadable", false, h.now))
	_, result := h.rooted(&second, b)
	equal(h, "the newer", result, meta.RootResult{})
	h.joined(first.BlobID, second.BlobID, 2)
}

func testJoinCondemned(h *harness) {
	b := body{"x", 0}
	first := h.addStored(alice, "a", b)
	h.remove(alice, first.ID)
	second := h.add(bob, "b", b)
	_, result := h.rooted(&second, b)
	equal(h, "joined", result, meta.RootResult{JoinedTo: first.BlobID})
	h.joined(second.BlobID, first.BlobID, 1)
	equal(h, "revived", h.blob(first.BlobID).CondemnedAt, time.Time{})
}

func testJoinWithoutFiles(h *harness) {
	b := body{"x", 0}
	first, second := h.add(alice, "a", b), h.add(bob, "b", b)
	h.rooted(&first, b)
	h.remove(alice, first.ID)
	h.remove(bob, second.ID)
	_, result := h.rooted(&second, b)
	equal(h, "joined", result, meta.RootResult{JoinedTo: first.BlobID})
	equal(h, "the one left stays condemned", h.blob(first.BlobID).State, upload.BlobCondemned)
	equal(h, "and can be found", h.find(meta.ScopeGlobal, alice, b), first.BlobID)
}

func testJoinMovesAll(h *harness) {
	b := body{"x", 0}
	first, second := h.add(alice, "a", b), h.add(bob, "b", b)
	h.rooted(&second, b)
	for i := range 3 {
		_, err := h.db.CommitInstant(h.Context(), h.commitOf(owners[i%2], "c", b), second.BlobID)
		h.must(err)
	}
	h.remove(bob, second.ID)
	other := h.add(alice, "other", body{"y", 0})
	h.rooted(&first, b)
	h.joined(second.BlobID, first.BlobID, 4)
	equal(h, "another file", h.file(alice, other.ID).BlobID, other.BlobID)
}

func testHeal(h *harness) {
	b := body{"x", 0}
	lost := h.addStored(alice, "a", b)
	h.must(h.db.MarkLost(h.Context(), lost.BlobID, "gone", h.now))
	f := h.add(bob, "b", b)
	job, result := h.rooted(&f, b)
	equal(h, "result", result, meta.RootResult{})
	h.joined(lost.BlobID, f.BlobID, 2)
	h.stored(job)
	got := h.file(alice, lost.ID)
	equal(h, "lost", got.Lost, false)
	equal(h, "stored", got.Stored, true)
	equal(h, "found", h.find(meta.ScopeUser, alice, b), f.BlobID)
	equal(h, "collected", len(h.collect()), 1)
}

func testCollision(h *harness) {
	one, two := body{"x", 1}, body{"x", 2}
	first, second, third := h.add(alice, "1", one), h.add(bob, "2", two), h.add(bob, "1 again", one)
	h.rooted(&first, one)
	_, result := h.rooted(&second, two)
	equal(h, "second", result, meta.RootResult{Collision: true})
	_, result = h.rooted(&third, one)
	equal(h, "third", result, meta.RootResult{JoinedTo: first.BlobID, Collision: true})
	equal(h, "content of the second", h.blob(h.file(bob, second.ID).BlobID).Root, two.root())
	equal(h, "content of the third", h.blob(h.file(bob, third.ID).BlobID).Root, one.root())
}

func testFoundAfterJoin(h *harness) {
	b := body{"x", 0}
	first, second := h.add(alice, "a", b), h.add(bob, "b", b)
	h.store(&first, b)
	h.rooted(&second, b)
	equal(h, "alice", h.find(meta.ScopeUser, alice, b), first.BlobID)
	equal(h, "bob", h.find(meta.ScopeUser, bob, b), first.BlobID)
	_, err := h.db.CommitInstant(h.Context(), h.commitOf(bob, "c", b), second.BlobID)
	h.want(upload.NotFound, err) // the joined one is never referred to again
	h.must(h.db.DeleteFile(h.Context(), bob, second.ID, h.now))
	equal(h, "refs", h.blob(first.BlobID).Refs, 1)
}

func testJoinTakesLease(h *harness) {
	b := body{"x", 0}
	first, second := h.add(alice, "a", b), h.add(bob, "b", b)
	held, _ := h.rooted(&second, b) // the newer is being transferred
	h.rooted(&first, b)
	h.want(upload.Conflict, h.db.Stored(h.Context(), held.Transfer.ID, held.Transfer.Lease.Epoch, local, "key", h.now))
	equal(h, "the newer", h.blob(second.BlobID).Store, "")
}
