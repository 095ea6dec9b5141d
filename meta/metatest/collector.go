package metatest

import (
	"slices"
	"time"

	"gantry/meta"
	"gantry/upload"
)

var collectorTests = map[string]func(h *harness){
	"collect after the grace time": testCollect,
	"collect waits for a worker":   testCollectLease,
	"collect stops the transfer":   testCollectTransfer,
	"collect in steps":             testCollectLimit,
	"deleted":                      testDeleted,
	"the same content again":       testSameContentAgain,
	"known staging":                testKnownStaging,
	"known objects":                testKnownObjects,
	"blobs in pages":               testBlobPages,
	"refs that are right":          testMendNothing,
	"lost":                         testMarkLost,
	"unstore":                      testUnstore,
	"unstore what is nowhere else": testUnstoreConflict,
}

func testCollect(h *harness) {
	f, kept := h.addStored(alice, "a", body{"x", 0}), h.addStored(alice, "b", body{"y", 0})
	h.remove(alice, f.ID)
	for _, c := range []struct {
		before time.Time
		want   int
	}{{h.now.Add(-time.Hour), 0}, {h.now, 0}, {h.now.Add(time.Microsecond), 1}, {h.now.Add(-time.Hour), 1}} {
		got, err := h.db.Collect(h.Context(), meta.CollectQuery{CondemnedBefore: c.before, Now: h.now, Limit: 10})
		h.must(err)
		equal(h, "deleting", len(got), c.want)
		if c.want == 1 {
			equal(h, "blob", got[0], h.blob(f.BlobID))
			equal(h, "state", got[0].State, upload.BlobDeleting)
			equal(h, "its object", got[0].Store+got[0].ObjectKey != "", true)
		}
	}
	equal(h, "the other", h.blob(kept.BlobID).State, upload.BlobLive)
}

func testCollectLease(h *harness) {
	f := h.add(alice, "a", body{"x", 0})
	job := h.lease(f.Transfer.ID)
	h.remove(alice, f.ID)
	equal(h, "while it is held", len(h.collect()), 0)
	h.pass(lease - time.Microsecond)
	equal(h, "nearly", len(h.collect()), 0)
	h.pass(time.Microsecond)
	equal(h, "its lease ended", len(h.collect()), 1)
	h.want(upload.Conflict, h.db.Stored(h.Context(), job.Transfer.ID, 1, local, "key", h.now))
	_, err := h.db.Lease(h.Context(), job.Transfer.ID, "w", h.now, h.now.Add(lease))
	h.want(upload.Conflict, err)
	equal(h, "store", h.blob(f.BlobID).Store, "")
}

func testCollectTransfer(h *harness) {
	queued, dead := h.add(alice, "a", body{"x", 0}), h.add(alice, "b", body{"y", 0})
	job := h.lease(dead.Transfer.ID)
	h.must(h.db.Dead(h.Context(), job.Transfer.ID, 1, "why", false, h.now))
	h.remove(alice, queued.ID)
	h.remove(alice, dead.ID)
	stored := h.addStored(alice, "c", body{"z", 0})
	h.remove(alice, stored.ID)
	equal(h, "collected", len(h.collect()), 3)
	equal(h, "what was done", h.transfer(stored.Transfer.ID).State, upload.TransferStored)
	for _, id := range []string{queued.Transfer.ID, dead.Transfer.ID} {
		equal(h, "state", h.transfer(id).State, upload.TransferCancelled)
		h.want(upload.Conflict, h.db.RetryTransfer(h.Context(), id, h.now))
	}
	h.isDue("nothing")
	backlog, err := h.db.Backlog(h.Context(), h.now)
	h.must(err)
	equal(h, "backlog", backlog.Waiting+backlog.Dead, 0)
}

func testCollectLimit(h *harness) {
	want := []string{}
	for i := range 5 {
		f := h.addStored(alice, "a", body{"x", i})
		h.remove(alice, f.ID)
		want = append(want, f.BlobID)
	}
	got := []string{}
	for range 3 {
		blobs, err := h.db.Collect(h.Context(), meta.CollectQuery{CondemnedBefore: h.now.Add(time.Hour), Now: h.now, Limit: 2})
		h.must(err)
		for i := range blobs {
			got = append(got, blobs[i].ID)
			h.must(h.db.Deleted(h.Context(), blobs[i].ID))
		}
		if len(blobs) > 2 {
			h.Errorf("%d at a time", len(blobs))
		}
	}
	if !slices.Equal(got, want) {
		h.Errorf("collected %v, want %v", got, want)
	}
	equal(h, "blobs", len(h.blobs()), 0)
}

func testDeleted(h *harness) {
	f := h.addStored(alice, "a", body{"x", 0})
	h.want(upload.Conflict, h.db.Deleted(h.Context(), f.BlobID))
	h.remove(alice, f.ID)
	h.want(upload.Conflict, h.db.Deleted(h.Context(), f.BlobID))
	h.collect()
	for range 2 {
		h.must(h.db.Deleted(h.Context(), f.BlobID))
		_, err := h.db.Blob(h.Context(), f.BlobID)
		h.want(upload.NotFound, err)
		_, err = h.db.Transfer(h.Context(), f.Transfer.ID)
		h.want(upload.NotFound, err)
	}
}

func testSameContentAgain(h *harness) {
	b := body{"x", 0}
	old := h.addStored(alice, "a", b)
	h.remove(alice, old.ID)
	h.collect()
	f := h.addStored(alice, "a", b) // while the old one's bytes are being deleted
	if f.BlobID == old.BlobID || h.blob(f.BlobID).ObjectKey == h.blob(old.BlobID).ObjectKey {
		h.Error("the new blob is the one that is being deleted")
	}
	h.must(h.db.Deleted(h.Context(), old.BlobID))
	equal(h, "state", h.blob(f.BlobID).State, upload.BlobLive)
}

func testKnownStaging(h *harness) {
	c := h.commitOf(alice, "a", body{"x", 0})
	_, err := h.db.CommitUpload(h.Context(), c)
	h.must(err)
	ids := []string{c.UploadID}
	for range 1100 { // more than any database takes in one list
		ids = append(ids, upload.NewUploadID(node))
	}
	slices.Reverse(ids)
	known, err := h.db.KnownStaging(h.Context(), ids)
	h.must(err)
	if len(known) != 1 || !known[c.UploadID] {
		h.Errorf("known: %v", known)
	}
	known, err = h.db.KnownStaging(h.Context(), nil)
	h.must(err)
	equal(h, "of none", len(known), 0)
}

func testKnownObjects(h *harness) {
	waiting, stored := h.add(alice, "a", body{"x", 0}), h.addStored(alice, "b", body{"y", 0})
	garbage := h.addStored(alice, "c", body{"z", 0})
	h.remove(alice, garbage.ID)
	h.collect()
	moved := h.add(alice, "d", body{"m", 0})
	job := h.lease(moved.Transfer.ID)
	h.must(h.db.Stored(h.Context(), job.Transfer.ID, 1, "elsewhere", upload.ObjectKeyFor(&job.Blob), h.now))
	key := func(f *upload.File) string { b := h.blob(f.BlobID); return upload.ObjectKeyFor(&b) }
	want := map[string][]string{
		local:       {key(&waiting), key(&stored), key(&garbage)},
		"elsewhere": {key(&moved)},
	}
	wrong := []string{"", "-", "x-y", "xx" + key(&stored), key(&stored) + "x", "a/b-" + stored.BlobID, stored.BlobID, "-" + stored.BlobID}
	asked := slices.Concat(want[local], want["elsewhere"], wrong)
	for store, keys := range want {
		known, err := h.db.KnownObjects(h.Context(), store, asked)
		h.must(err)
		for _, key := range asked {
			if known[key] != slices.Contains(keys, key) {
				h.Errorf("%q in %s: known %v", key, store, known[key])
			}
		}
	}
	h.must(h.db.Deleted(h.Context(), garbage.BlobID))
	known, err := h.db.KnownObjects(h.Context(), local, []string{want[local][2]})
	h.must(err)
	equal(h, "after it was deleted", len(known), 0)
}

func testBlobPages(h *harness) {
	for i := range 5 {
		h.add(alice, "a", body{"x", i})
	}
	all := h.blobs()
	equal(h, "all", len(all), 5)
	var paged []upload.Blob
	for after := ""; ; {
		page, err := h.db.Blobs(h.Context(), after, 2)
		h.must(err)
		if len(page) == 0 {
			break
		}
		paged, after = append(paged, page...), page[len(page)-1].ID
	}
	if !slices.Equal(paged, all) {
		h.Errorf("pages: %v, all: %v", paged, all)
	}
}

func testMendNothing(h *harness) {
	f := h.addStored(alice, "a", body{"x", 0})
	before := h.blob(f.BlobID)
	h.must(h.db.MendRefs(h.Context(), f.BlobID, h.now.Add(time.Hour)))
	equal(h, "blob", h.blob(f.BlobID), before)
	h.remove(alice, f.ID)
	before = h.blob(f.BlobID)
	h.must(h.db.MendRefs(h.Context(), f.BlobID, h.now.Add(time.Hour)))
	equal(h, "condemned", h.blob(f.BlobID), before)
	h.want(upload.NotFound, h.db.MendRefs(h.Context(), "nothing", h.now))
}

func testMarkLost(h *harness) {
	h.want(upload.NotFound, h.db.MarkLost(h.Context(), "nothing", "gone", h.now))
	f := h.add(alice, "a", body{"x", 0})
	job, _ := h.rooted(&f, body{"x", 0})
	for range 2 {
		h.must(h.db.MarkLost(h.Context(), f.BlobID, "bit rot", h.now))
		equal(h, "blob", h.blob(f.BlobID).State, upload.BlobLost)
		got := h.file(alice, f.ID)
		equal(h, "lost", got.Lost, true)
		equal(h, "transfer", got.Transfer.State, upload.TransferDead)
		equal(h, "why", got.Transfer.LastError, "bit rot")
	}
	h.want(upload.Conflict, h.db.Stored(h.Context(), job.Transfer.ID, 1, local, "key", h.now))

	stored := h.addStored(alice, "b", body{"y", 0})
	h.must(h.db.MarkLost(h.Context(), stored.BlobID, "bit rot", h.now))
	equal(h, "lost", h.file(alice, stored.ID).Lost, true)
	// What is left of it is collected with it.
	h.remove(alice, stored.ID)
	if ids := h.collect(); !slices.Equal(ids, []string{stored.BlobID}) {
		h.Errorf("collected %v", ids)
	}
	h.must(h.db.MarkLost(h.Context(), stored.BlobID, "bit rot", h.now))
	equal(h, "while it is being deleted", h.blob(stored.BlobID).State, upload.BlobDeleting)
}

func testUnstore(h *harness) {
	f := h.addStored(alice, "a", body{"x", 0})
	h.pass(time.Hour)
	for range 2 {
		h.must(h.db.Unstore(h.Context(), f.BlobID, "404", h.now))
		b := h.blob(f.BlobID)
		equal(h, "store", b.Store+b.ObjectKey, "")
		equal(h, "verified", b.VerifiedAt, time.Time{})
		got := h.file(alice, f.ID)
		equal(h, "stored", got.Stored, false)
		equal(h, "transfer", got.Transfer.State, upload.TransferQueued)
		equal(h, "why", got.Transfer.LastError, "404")
		droppable, err := h.db.Droppable(h.Context(), node, h.now.Add(time.Hour), 10)
		h.must(err)
		equal(h, "droppable", len(droppable), 0)
	}
	h.isDue("again", f.Transfer.ID)
	h.stored(h.lease(f.Transfer.ID))
	equal(h, "stored", h.file(alice, f.ID).Stored, true)
}

func testUnstoreConflict(h *harness) {
	h.want(upload.NotFound, h.db.Unstore(h.Context(), "nothing", "404", h.now))
	f := h.addStored(alice, "a", body{"x", 0})
	h.must(h.db.StagingDropped(h.Context(), f.BlobID))
	before := h.blob(f.BlobID)
	h.want(upload.Conflict, h.db.Unstore(h.Context(), f.BlobID, "404", h.now))
	equal(h, "blob", h.blob(f.BlobID), before)
	g := h.addStored(alice, "b", body{"y", 0})
	h.must(h.db.MarkLost(h.Context(), g.BlobID, "gone", h.now))
	h.want(upload.Conflict, h.db.Unstore(h.Context(), g.BlobID, "404", h.now))
}
