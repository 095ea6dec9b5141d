package metatest

import (
	"slices"
	"strings"
	"time"

	"gantry/meta"
	"gantry/upload"
)

var outboxTests = map[string]func(h *harness){
	"due at once, then after republish":   testTakeDue,
	"due when a lease ends or a retry is": testTakeDueLater,
	"due whatever the clock does":         testTakeDueClock,
	"lease":                               testLease,
	"renew":                               testRenew,
	"stored":                              testStored,
	"retry":                               testRetry,
	"dead":                                testDead,
	"dead and lost":                       testDeadLost,
	"a stale epoch has no effect":         testStaleEpoch,
	"writes that end a lease can be repeated": testEndsRepeat,
	"retry by hand":    testRetryTransfer,
	"cancel by hand":   testCancelTransfer,
	"list and backlog": testTransfers,
	"checkpoint":       testCheckpoint,
	"redirect":         testRedirect,
	"retry a store":    testRetryStore,
	"staging copies":   testDroppable,
}

func (h *harness) due(republish time.Duration) []string {
	h.Helper()
	ids, err := h.db.TakeDue(h.Context(), node, h.now, republish, 100)
	h.must(err)
	return ids
}

func (h *harness) isDue(what string, want ...string) {
	h.Helper()
	if got := h.due(time.Minute); !slices.Equal(got, want) {
		h.Errorf("%s: due %v, want %v", what, got, want)
	}
}

func testTakeDue(h *harness) {
	h.isDue("nothing")
	a, b := h.add(alice, "a", body{"x", 0}), h.add(alice, "b", body{"y", 0})
	other, err := h.db.TakeDue(h.Context(), "node2", h.now, time.Minute, 100)
	h.must(err)
	equal(h, "due on another node", len(other), 0)
	one, err := h.db.TakeDue(h.Context(), node, h.now, time.Minute, 1)
	h.must(err)
	if !slices.Equal(one, []string{a.Transfer.ID}) {
		h.Errorf("the oldest is %v, want %s", one, a.Transfer.ID)
	}
	h.isDue("the other", b.Transfer.ID)
	h.isDue("both published")
	h.pass(time.Minute)
	h.isDue("a minute later", a.Transfer.ID, b.Transfer.ID)
}

func testTakeDueLater(h *harness) {
	f := h.add(alice, "a", body{"x", 0})
	id := f.Transfer.ID
	job := h.lease(id)
	h.isDue("leased")
	h.must(h.db.Renew(h.Context(), id, job.Transfer.Lease.Epoch, meta.Progress{State: upload.TransferVerifying, Until: h.now.Add(2 * lease), Now: h.now}))
	h.pass(lease)
	h.isDue("renewed")
	h.pass(lease)
	h.isDue("its worker is gone", id)
	job = h.lease(id)
	h.must(h.db.Retry(h.Context(), id, job.Transfer.Lease.Epoch, h.now.Add(time.Hour), "store down", h.now))
	h.isDue("to be tried later")
	h.pass(time.Hour - time.Second)
	h.isDue("nearly")
	h.pass(time.Second)
	h.isDue("now", id)
	job = h.lease(id)
	h.stored(job)
	h.pass(1000 * time.Hour)
	h.isDue("stored")

	g := h.add(alice, "b", body{"y", 0})
	job = h.lease(g.Transfer.ID)
	h.must(h.db.Dead(h.Context(), g.Transfer.ID, job.Transfer.Lease.Epoch, "hopeless", false, h.now))
	c := h.add(alice, "c", body{"z", 0})
	h.must(h.db.CancelTransfer(h.Context(), c.Transfer.ID, h.now))
	h.pass(1000 * time.Hour)
	h.isDue("dead and cancelled")
}

// A clock that was wrong must not hide work: what is new is due at once, whatever time it is, and what
// was published or leased with a clock that was ahead is due when that time comes.
func testTakeDueClock(h *harness) {
	f := h.add(alice, "a", body{"x", 0})
	h.pass(-time.Hour)
	h.isDue("made an hour ahead", f.Transfer.ID)
	h.lease(f.Transfer.ID)
	h.pass(-time.Hour)
	_, err := h.db.Lease(h.Context(), f.Transfer.ID, "other", h.now, h.now.Add(lease))
	h.want(upload.Conflict, err)
	h.pass(time.Hour + lease)
	h.isDue("the lease ended", f.Transfer.ID)
	h.pass(10 * time.Hour)
	h.lease(f.Transfer.ID)
}

func testLease(h *harness) {
	_, err := h.db.Lease(h.Context(), "nothing", "w", h.now, h.now.Add(lease))
	h.want(upload.NotFound, err)
	b := body{"x", 0}
	f := h.add(alice, "a", b)
	id := f.Transfer.ID
	job, err := h.db.Lease(h.Context(), id, "w1", h.now, h.now.Add(lease))
	h.must(err)
	equal(h, "lease", job.Transfer.Lease, upload.Lease{Owner: "w1", Epoch: 1, Until: h.now.Add(lease)})
	equal(h, "state", job.Transfer.State, upload.TransferRunning)
	equal(h, "attempts", job.Transfer.Attempts, 1)
	equal(h, "blob", job.Blob, h.blob(f.BlobID))
	equal(h, "kept", h.transfer(id), job.Transfer)

	// Nobody gets it while it is held, its owner neither: two messages for one worker are two jobs.
	for _, owner := range []string{"w1", "w2"} {
		_, err = h.db.Lease(h.Context(), id, owner, h.now.Add(lease-time.Microsecond), h.now.Add(2*lease))
		h.want(upload.Conflict, err)
	}
	h.pass(lease)
	job, err = h.db.Lease(h.Context(), id, "w2", h.now, h.now.Add(lease))
	h.must(err)
	equal(h, "epoch", job.Transfer.Lease.Epoch, 2)
	equal(h, "attempts", job.Transfer.Attempts, 2)
	h.must(h.db.Retry(h.Context(), id, 2, h.now.Add(time.Hour), "why", h.now))
	_, err = h.db.Lease(h.Context(), id, "w2", h.now.Add(time.Hour-time.Microsecond), h.now.Add(2*time.Hour))
	h.want(upload.Conflict, err)
	h.pass(time.Hour)
	h.stored(h.lease(id))
	_, err = h.db.Lease(h.Context(), id, "w2", h.now.Add(time.Hour), h.now.Add(2*time.Hour))
	h.want(upload.Conflict, err)
}

func testRenew(h *harness) {
	f := h.add(alice, "a", body{"x", 0})
	job := h.lease(f.Transfer.ID)
	h.pass(time.Second)
	for _, state := range []upload.TransferState{upload.TransferRunning, upload.TransferVerifying} {
		until := h.now.Add(lease)
		h.must(h.db.Renew(h.Context(), job.Transfer.ID, 1, meta.Progress{State: state, Bytes: 4711, Until: until, Now: h.now}))
		tr := h.file(alice, f.ID).Transfer
		equal(h, "state", tr.State, state)
		equal(h, "bytes", tr.Bytes, 4711)
		equal(h, "until", tr.Lease.Until, until)
		equal(h, "updated", tr.UpdatedAt, h.now)
	}
	h.want(upload.Invalid, h.db.Renew(h.Context(), job.Transfer.ID, 1, meta.Progress{State: upload.TransferStored, Until: h.now.Add(lease)}))
	// Late, and nobody else came: it still holds.
	h.pass(10 * lease)
	h.must(h.db.Renew(h.Context(), job.Transfer.ID, 1, meta.Progress{State: upload.TransferRunning, Until: h.now.Add(lease), Now: h.now}))
	// The next attempt begins at zero.
	h.pass(lease)
	equal(h, "bytes of the next", h.lease(job.Transfer.ID).Transfer.Bytes, 0)
}

func testStored(h *harness) {
	b := body{"x", 0}
	f := h.add(alice, "a", b)
	job := h.lease(f.Transfer.ID)
	h.must(h.db.Retry(h.Context(), job.Transfer.ID, 1, h.now, "once", h.now))
	job, _ = h.rooted(&f, b)
	h.pass(time.Second)
	key := upload.ObjectKeyFor(&job.Blob)
	h.must(h.db.Stored(h.Context(), job.Transfer.ID, 2, "elsewhere", key, h.now))
	blob := h.blob(f.BlobID)
	equal(h, "where", blob.Store+" "+blob.ObjectKey, "elsewhere "+key)
	equal(h, "verified", blob.VerifiedAt, h.now)
	equal(h, "staging is still there", blob.Node+" "+blob.Staging, node+" "+job.Blob.Staging)
	equal(h, "root", blob.Root, b.root())
	got := h.file(alice, f.ID)
	equal(h, "stored", got.Stored, true)
	tr := got.Transfer
	equal(h, "state", tr.State, upload.TransferStored)
	equal(h, "store", tr.Store, "elsewhere")
	equal(h, "bytes", tr.Bytes, bodySize)
	equal(h, "last error", tr.LastError, "")
	equal(h, "lease", tr.Lease, upload.Lease{Epoch: 2})
}

func testCheckpoint(h *harness) {
	f := h.add(alice, "a", body{"x", 0})
	other := h.add(alice, "b", body{"y", 0})
	is := func(what, id, store, want string) {
		h.Helper()
		got, err := h.db.Checkpoint(h.Context(), id, store)
		h.must(err)
		equal(h, what, got, want)
	}
	is("at first", f.Transfer.ID, local, "")
	job, second := h.lease(f.Transfer.ID), h.lease(other.Transfer.ID)
	h.must(h.db.SaveCheckpoint(h.Context(), second.Transfer.ID, 1, local, "other"))
	for _, state := range []string{"one", "two", "two", strings.Repeat("long", 1<<10)} {
		h.must(h.db.SaveCheckpoint(h.Context(), job.Transfer.ID, 1, local, state))
		is("saved", job.Transfer.ID, local, state)
	}
	is("of another store", job.Transfer.ID, "elsewhere", "")
	h.must(h.db.SaveCheckpoint(h.Context(), job.Transfer.ID, 1, "elsewhere", "there"))
	is("of the other store", job.Transfer.ID, "elsewhere", "there")
	is("of the first store", job.Transfer.ID, local, "")
	h.must(h.db.Retry(h.Context(), job.Transfer.ID, 1, h.now, "why", h.now))
	is("after a failure", job.Transfer.ID, "elsewhere", "there")
	is("of another transfer", second.Transfer.ID, local, "other")
	h.remove(alice, f.ID)
	equal(h, "collected", len(h.collect()), 1)
	h.must(h.db.Deleted(h.Context(), f.BlobID))
	is("deleted", job.Transfer.ID, "elsewhere", "")
	is("of another transfer", second.Transfer.ID, local, "other")
}

func testRedirect(h *harness) {
	f := h.add(alice, "a", body{"x", 0})
	job := h.lease(f.Transfer.ID)
	h.pass(time.Second)
	for range 2 {
		h.must(h.db.Redirect(h.Context(), job.Transfer.ID, 1, "elsewhere", h.now))
		want := job.Transfer
		want.Store, want.UpdatedAt = "elsewhere", h.now
		equal(h, "transfer", h.transfer(job.Transfer.ID), want)
	}
	// The object that is being put is not garbage, and what may be left in the first store is.
	key := upload.ObjectKeyFor(&job.Blob)
	for store, want := range map[string]bool{"elsewhere": true, local: false} {
		known, err := h.db.KnownObjects(h.Context(), store, []string{key})
		h.must(err)
		equal(h, "known in "+store, known[key], want)
	}
	h.must(h.db.Retry(h.Context(), job.Transfer.ID, 1, h.now, "why", h.now))
	equal(h, "store of the next attempt", h.lease(job.Transfer.ID).Transfer.Store, "elsewhere")
}

// When a store is back what waits for it is due at once, the oldest first, before what came later.
func testRetryStore(h *harness) {
	var ids []string
	for i := range 5 {
		f := h.add(alice, "a", body{"x", i})
		h.pass(time.Second)
		ids = append(ids, f.Transfer.ID)
		job := h.lease(f.Transfer.ID)
		h.must(h.db.Retry(h.Context(), job.Transfer.ID, 1, h.now.Add(time.Hour-time.Duration(i)*time.Minute), "down", h.now))
	}
	h.must(h.db.RetryTransfer(h.Context(), ids[4], h.now))
	job := h.lease(ids[4])
	h.must(h.db.Redirect(h.Context(), ids[4], job.Transfer.Lease.Epoch, "elsewhere", h.now))
	h.must(h.db.Retry(h.Context(), ids[4], job.Transfer.Lease.Epoch, h.now.Add(time.Hour), "down", h.now))
	leased := h.add(alice, "b", body{"y", 0})
	h.lease(leased.Transfer.ID)
	h.must(h.db.RetryStore(h.Context(), "node2", local, h.now))
	h.isDue("of another node")
	later := h.add(alice, "c", body{"z", 0})
	h.must(h.db.RetryStore(h.Context(), node, local, h.now))
	h.isDue("all that wait", append(ids[:4:4], later.Transfer.ID)...)
	for _, id := range ids[:4] {
		h.lease(id)
	}
	h.must(h.db.RetryStore(h.Context(), node, "elsewhere", h.now))
	h.isDue("the other store's", ids[4])
}

func testRetry(h *harness) {
	f := h.add(alice, "a", body{"x", 0})
	job := h.lease(f.Transfer.ID)
	next := h.now.Add(time.Minute)
	h.must(h.db.Retry(h.Context(), job.Transfer.ID, 1, next, "store down", h.now))
	tr := h.transfer(job.Transfer.ID)
	equal(h, "state", tr.State, upload.TransferRetrying)
	equal(h, "next", tr.NextAt, next)
	equal(h, "why", tr.LastError, "store down")
	equal(h, "attempts", tr.Attempts, 1)
	equal(h, "lease", tr.Lease, upload.Lease{Epoch: 1})
}

func testDead(h *harness) {
	f := h.add(alice, "a", body{"x", 0})
	job := h.lease(f.Transfer.ID)
	h.must(h.db.Dead(h.Context(), job.Transfer.ID, 1, "no such bucket", false, h.now))
	tr := h.transfer(job.Transfer.ID)
	equal(h, "state", tr.State, upload.TransferDead)
	equal(h, "why", tr.LastError, "no such bucket")
	equal(h, "blob", h.blob(f.BlobID).State, upload.BlobLive)
	_, err := h.db.Lease(h.Context(), job.Transfer.ID, "w", h.now.Add(time.Hour), h.now.Add(2*time.Hour))
	h.want(upload.Conflict, err)
	// An operator gives up on it.
	h.must(h.db.CancelTransfer(h.Context(), job.Transfer.ID, h.now))
	equal(h, "state", h.transfer(job.Transfer.ID).State, upload.TransferCancelled)
}

func testDeadLost(h *harness) {
	f := h.add(alice, "a", body{"x", 0})
	job := h.lease(f.Transfer.ID)
	for range 2 {
		h.must(h.db.Dead(h.Context(), job.Transfer.ID, 1, "wrong bytes", true, h.now))
		equal(h, "state", h.transfer(job.Transfer.ID).State, upload.TransferDead)
		equal(h, "why", h.transfer(job.Transfer.ID).LastError, "wrong bytes")
		equal(h, "blob", h.blob(f.BlobID).State, upload.BlobLost)
		equal(h, "file", h.file(alice, f.ID).Lost, true)
	}
	h.want(upload.Conflict, h.db.RetryTransfer(h.Context(), job.Transfer.ID, h.now))
}

// underLease is every write under a lease.
func (h *harness) underLease(id string, epoch int64) map[string]func() error {
	ctx := h.Context()
	return map[string]func() error{
		"Renew": func() error {
			return h.db.Renew(ctx, id, epoch, meta.Progress{State: upload.TransferVerifying, Bytes: 99, Until: h.now.Add(9 * lease), Now: h.now})
		},
		"SetDigests": func() error { return h.db.SetDigests(ctx, id, epoch, body{"stale", 9}.sealed(), h.now) },
		"SetRoot": func() error {
			_, err := h.db.SetRoot(ctx, id, epoch, body{"stale", 9}.root(), h.now)
			return err
		},
		"Stored":         func() error { return h.db.Stored(ctx, id, epoch, "stale", "key", h.now) },
		"SaveCheckpoint": func() error { return h.db.SaveCheckpoint(ctx, id, epoch, local, "stale") },
		"Redirect":       func() error { return h.db.Redirect(ctx, id, epoch, "stale", h.now) },
		"Retry":          func() error { return h.db.Retry(ctx, id, epoch, h.now.Add(time.Hour), "stale", h.now) },
		"Dead":           func() error { return h.db.Dead(ctx, id, epoch, "stale", true, h.now) },
	}
}

func testStaleEpoch(h *harness) {
	f := h.add(alice, "a", body{"x", 0})
	id := f.Transfer.ID
	unchanged := func(what string, epochs ...int64) {
		h.Helper()
		before, blob := h.transfer(id), h.blob(f.BlobID)
		for _, epoch := range epochs {
			for name, write := range h.underLease(id, epoch) {
				h.want(upload.Conflict, write())
				if after := h.transfer(id); after != before {
					h.Errorf("%s, %s with epoch %d: %+v became %+v", what, name, epoch, before, after)
				}
				if after := h.blob(f.BlobID); after != blob {
					h.Errorf("%s, %s with epoch %d: %+v became %+v", what, name, epoch, blob, after)
				}
			}
		}
	}
	unchanged("never leased", 0, 1)
	h.lease(id)
	h.pass(lease)
	h.lease(id)
	unchanged("leased again", 0, 1, 3)
	h.must(h.db.CancelTransfer(h.Context(), id, h.now))
	unchanged("cancelled", 1, 2, 3)
	h.must(h.db.RetryTransfer(h.Context(), id, h.now))
	unchanged("queued again", 1, 2, 3, 4)
	job := h.lease(id)
	h.must(h.db.Retry(h.Context(), id, job.Transfer.Lease.Epoch, h.now, "r", h.now))
	unchanged("retrying", job.Transfer.Lease.Epoch-1, job.Transfer.Lease.Epoch)
	job = h.lease(id)
	h.must(h.db.MarkLost(h.Context(), f.BlobID, "gone", h.now))
	unchanged("lost", job.Transfer.Lease.Epoch)
	h.remove(alice, f.ID)
	equal(h, "collected", len(h.collect()), 1)
	unchanged("deleting", job.Transfer.Lease.Epoch)
	h.must(h.db.Deleted(h.Context(), f.BlobID))
	for name, write := range h.underLease(id, job.Transfer.Lease.Epoch) {
		if err := write(); upload.KindOf(err) != upload.Conflict {
			h.Errorf("deleted, %s: %v", name, err)
		}
	}
}

// The answer of a write may be lost; repeating it then is no lost lease.
func testEndsRepeat(h *harness) {
	for i, end := range []func(id string, epoch int64, b *upload.Blob) error{
		func(id string, epoch int64, b *upload.Blob) error {
			return h.db.Stored(h.Context(), id, epoch, local, upload.ObjectKeyFor(b), h.now)
		},
		func(id string, epoch int64, _ *upload.Blob) error {
			return h.db.Retry(h.Context(), id, epoch, h.now.Add(time.Hour), "why", h.now)
		},
		func(id string, epoch int64, _ *upload.Blob) error {
			return h.db.Dead(h.Context(), id, epoch, "why", false, h.now)
		},
	} {
		f := h.add(alice, "a", body{"x", i})
		job := h.lease(f.Transfer.ID)
		h.must(end(job.Transfer.ID, 1, &job.Blob))
		before, blob := h.transfer(job.Transfer.ID), h.blob(f.BlobID)
		h.pass(time.Second)
		if i == 1 {
			h.pass(-time.Second) // "why, and when" is what is repeated
		}
		h.must(end(job.Transfer.ID, 1, &job.Blob))
		equal(h, "transfer", h.transfer(job.Transfer.ID), before)
		equal(h, "blob", h.blob(f.BlobID), blob)
		h.want(upload.Conflict, end(job.Transfer.ID, 2, &job.Blob))
		h.want(upload.Conflict, end(job.Transfer.ID, 0, &job.Blob))
	}
}

func testRetryTransfer(h *harness) {
	h.want(upload.NotFound, h.db.RetryTransfer(h.Context(), "nothing", h.now))
	f := h.add(alice, "a", body{"x", 0})
	id := f.Transfer.ID
	h.must(h.db.RetryTransfer(h.Context(), id, h.now))
	equal(h, "queued", h.transfer(id).State, upload.TransferQueued)
	job := h.lease(id)
	h.want(upload.Conflict, h.db.RetryTransfer(h.Context(), id, h.now))
	equal(h, "running", h.transfer(id), job.Transfer)
	h.must(h.db.Retry(h.Context(), id, 1, h.now.Add(time.Hour), "why", h.now))
	h.must(h.db.RetryTransfer(h.Context(), id, h.now))
	tr := h.transfer(id)
	equal(h, "state", tr.State, upload.TransferQueued)
	equal(h, "attempts", tr.Attempts, 0)
	equal(h, "why it is being retried", tr.LastError, "why")
	h.isDue("at once", id)
	job = h.lease(id)
	h.must(h.db.Dead(h.Context(), id, job.Transfer.Lease.Epoch, "hopeless", false, h.now))
	h.must(h.db.RetryTransfer(h.Context(), id, h.now))
	h.isDue("at once", id)
	h.must(h.db.CancelTransfer(h.Context(), id, h.now))
	h.must(h.db.RetryTransfer(h.Context(), id, h.now))
	h.isDue("at once", id)
	h.stored(h.lease(id))
	h.want(upload.Conflict, h.db.RetryTransfer(h.Context(), id, h.now))
}

func testCancelTransfer(h *harness) {
	h.want(upload.NotFound, h.db.CancelTransfer(h.Context(), "nothing", h.now))
	f := h.add(alice, "a", body{"x", 0})
	job := h.lease(f.Transfer.ID)
	for range 2 {
		h.must(h.db.CancelTransfer(h.Context(), job.Transfer.ID, h.now))
		equal(h, "state", h.transfer(job.Transfer.ID).State, upload.TransferCancelled)
	}
	h.want(upload.Conflict, h.db.Renew(h.Context(), job.Transfer.ID, 1, meta.Progress{State: upload.TransferRunning, Until: h.now.Add(lease)}))
	equal(h, "blob", h.blob(f.BlobID).State, upload.BlobLive)
	equal(h, "staging", h.blob(f.BlobID).Staging, job.Blob.Staging)

	g := h.addStored(alice, "b", body{"y", 0})
	h.want(upload.Conflict, h.db.CancelTransfer(h.Context(), g.Transfer.ID, h.now))
	equal(h, "state", h.transfer(g.Transfer.ID).State, upload.TransferStored)
}

func testTransfers(h *harness) {
	empty, err := h.db.Backlog(h.Context(), h.now)
	h.must(err)
	equal(h, "empty", empty, meta.Backlog{})

	byState := map[upload.TransferState]string{}
	var newest []string
	for i, state := range []upload.TransferState{
		upload.TransferStored, upload.TransferQueued, upload.TransferRunning, upload.TransferVerifying, upload.TransferRetrying,
		upload.TransferDead, upload.TransferCancelled,
	} {
		f := h.add(alice, string(state), body{"x", i})
		id := f.Transfer.ID
		byState[state] = id
		newest = append([]string{id}, newest...)
		if state == upload.TransferQueued {
			continue
		}
		job := h.lease(id)
		switch state {
		case upload.TransferStored:
			h.stored(job)
		case upload.TransferVerifying:
			h.must(h.db.Renew(h.Context(), id, 1, meta.Progress{State: state, Until: h.now.Add(lease), Now: h.now}))
		case upload.TransferRetrying:
			h.must(h.db.Retry(h.Context(), id, 1, h.now, "why", h.now))
		case upload.TransferDead:
			h.must(h.db.Dead(h.Context(), id, 1, "why", false, h.now))
		case upload.TransferCancelled:
			h.must(h.db.CancelTransfer(h.Context(), id, h.now))
		default: // running, as leased
		}
	}
	list := func(limit int, states ...upload.TransferState) []string {
		all, err := h.db.Transfers(h.Context(), states, limit)
		h.must(err)
		ids := []string{}
		for i := range all {
			ids = append(ids, all[i].ID)
		}
		return ids
	}
	for state, id := range byState {
		if got := list(10, state); !slices.Equal(got, []string{id}) {
			h.Errorf("%s: %v", state, got)
		}
	}
	if got := list(10); !slices.Equal(got, newest) {
		h.Errorf("all: %v, want %v", got, newest)
	}
	if got := list(3); !slices.Equal(got, newest[:3]) {
		h.Errorf("the newest three: %v, want %v", got, newest[:3])
	}
	if got := list(10, upload.TransferQueued, upload.TransferDead, upload.TransferQueued); !slices.Equal(got, []string{byState[upload.TransferDead], byState[upload.TransferQueued]}) {
		h.Errorf("two states: %v", got)
	}
	backlog, err := h.db.Backlog(h.Context(), h.now)
	h.must(err)
	equal(h, "backlog", backlog, meta.Backlog{Waiting: 4, Dead: 1, Oldest: h.transfer(byState[upload.TransferQueued]).CreatedAt})
}

func testDroppable(h *harness) {
	waiting := h.add(alice, "waiting", body{"w", 0})
	first := h.addStored(alice, "first", body{"x", 0})
	h.pass(time.Minute)
	second := h.addStored(alice, "second", body{"y", 0})
	drop := func(node string, before time.Time, limit int) []string {
		blobs, err := h.db.Droppable(h.Context(), node, before, limit)
		h.must(err)
		ids := []string{}
		for i := range blobs {
			ids = append(ids, blobs[i].ID)
		}
		return ids
	}
	later := h.now.Add(time.Microsecond)
	for _, c := range []struct {
		node   string
		before time.Time
		limit  int
		want   []string
	}{
		{node, h.blob(first.BlobID).VerifiedAt, 10, nil},
		{node, h.now, 10, []string{first.BlobID}},
		{node, later, 10, []string{first.BlobID, second.BlobID}},
		{node, later, 1, []string{first.BlobID}},
		{"node2", later, 10, nil},
	} {
		if got := drop(c.node, c.before, c.limit); !slices.Equal(got, c.want) {
			h.Errorf("droppable on %s before %v: %v, want %v", c.node, c.before, got, c.want)
		}
	}
	staging := h.blob(first.BlobID).Staging
	for range 2 {
		h.must(h.db.StagingDropped(h.Context(), first.BlobID))
		b := h.blob(first.BlobID)
		equal(h, "node and staging", b.Node+b.Staging, "")
		equal(h, "state", b.State, upload.BlobLive)
		equal(h, "store", b.Store, local)
	}
	if got := drop(node, later, 10); !slices.Equal(got, []string{second.BlobID}) {
		h.Errorf("after one was dropped: %v", got)
	}
	known, err := h.db.KnownStaging(h.Context(), []string{staging})
	h.must(err)
	equal(h, "known staging", len(known), 0)
	h.want(upload.NotFound, h.db.StagingDropped(h.Context(), "nothing"))

	// Bytes that were nowhere else are lost, and that is said.
	h.must(h.db.StagingDropped(h.Context(), waiting.BlobID))
	equal(h, "lost", h.file(alice, waiting.ID).Lost, true)
	h.want(upload.Conflict, h.db.RetryTransfer(h.Context(), waiting.Transfer.ID, h.now))

	// A condemned blob's staging copy goes as well, and that of one that is being deleted.
	h.remove(alice, second.ID)
	equal(h, "condemned", len(drop(node, later, 10)), 1)
	h.collect()
	equal(h, "deleting", len(drop(node, later, 10)), 1)
	equal(h, "deleting, on another node", len(drop("node", later, 10)), 0)
	h.must(h.db.StagingDropped(h.Context(), second.BlobID))
	equal(h, "dropped", len(drop(node, later, 10)), 0)
	equal(h, "state", h.blob(second.BlobID).State, upload.BlobDeleting)
}
