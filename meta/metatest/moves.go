package metatest

import (
	"errors"
	"slices"
	"time"

	"gantry/meta"
	"gantry/upload"
)

var moveTests = map[string]func(h *harness){
	"a move from begin to end":       testMove,
	"begin what cannot be moved":     testBeginMove,
	"begin again":                    testBeginMoveAgain,
	"switch what has changed":        testSwitchChanged,
	"switch back":                    testSwitchBack,
	"abandon":                        testAbandon,
	"leftovers in steps":             testLeftovers,
	"delete a blob with moves":       testDeleteMoved,
	"known objects of moves":         testKnownMoves,
	"a moved blob that is unstored":  testUnstoreMoved,
	"join with a blob that is moved": testJoinMoved,
	"mend while moving":              testMendMoving,
	"lost objects":                   testObjectLost,
	"usage":                          testUsage,
	"blobs in a store":               testBlobsIn,
	"moves under a fence":            testMoveFence,
}

const remote = "remote"

// beginMove begins the move of a file's blob from where it is.
func (h *harness) beginMove(f *upload.File, to string) meta.Move {
	h.Helper()
	b := h.blob(f.BlobID)
	mv, err := h.db.BeginMove(h.Context(), meta.Fence{}, &b, to, h.now)
	h.must(err)
	return mv
}

// move moves a file's blob.
func (h *harness) move(f *upload.File, to string) meta.Move {
	h.Helper()
	mv := h.beginMove(f, to)
	h.must(h.db.Switch(h.Context(), meta.Fence{}, mv.ID, h.now))
	return mv
}

func (h *harness) moves(q meta.MoveQuery) []meta.Move {
	h.Helper()
	q.Limit = 1000
	moves, err := h.db.Moves(h.Context(), q)
	h.must(err)
	return moves
}

func (h *harness) leftovers(before time.Time) []meta.Move {
	h.Helper()
	moves, err := h.db.Leftovers(h.Context(), meta.Fence{}, before, "", 1000)
	h.must(err)
	return moves
}

func (h *harness) state(mv *meta.Move) meta.MoveState {
	h.Helper()
	for _, m := range h.moves(meta.MoveQuery{BlobID: mv.BlobID}) {
		if m.ID == mv.ID {
			return m.State
		}
	}
	return ""
}

func testMove(h *harness) {
	f := h.addStored(alice, "a", body{"x", 0})
	before := h.blob(f.BlobID)
	h.pass(time.Second)
	mv := h.beginMove(&f, remote)
	equal(h, "from", mv.From, meta.Place{Store: local, Key: before.ObjectKey})
	equal(h, "to", mv.To, meta.Place{Store: remote, Key: before.ObjectKey + "-" + mv.ID})
	equal(h, "blob", mv.BlobID, f.BlobID)
	equal(h, "created", mv.CreatedAt, h.now)
	equal(h, "while it is copied", h.blob(f.BlobID), before)
	for _, state := range []string{"half", "nearly", "nearly"} {
		h.must(h.db.SaveMove(h.Context(), meta.Fence{}, mv.ID, []byte(state)))
		equal(h, "checkpoint", string(h.moves(meta.MoveQuery{})[0].Checkpoint), state)
	}
	h.want(upload.Conflict, h.db.ForgetMove(h.Context(), mv.ID))
	equal(h, "leftovers while it is copied", len(h.leftovers(h.now.Add(time.Hour))), 0)

	h.pass(time.Second)
	for range 2 {
		h.must(h.db.Switch(h.Context(), meta.Fence{}, mv.ID, h.now))
		after := before
		after.Store, after.ObjectKey, after.VerifiedAt = mv.To.Store, mv.To.Key, h.now
		equal(h, "blob", h.blob(f.BlobID), after)
		got := h.file(alice, f.ID)
		equal(h, "the transfer's store", got.Transfer.Store, remote)
		equal(h, "the transfer", got.Transfer.State, upload.TransferStored)
		switched := h.moves(meta.MoveQuery{State: meta.MoveSwitched})[0]
		equal(h, "switched at", switched.SwitchedAt, h.now)
		equal(h, "checkpoint", len(switched.Checkpoint), 0)
		equal(h, "garbage", switched.Garbage(), mv.From)
	}
	h.want(upload.Conflict, h.db.SaveMove(h.Context(), meta.Fence{}, mv.ID, nil))
	h.want(upload.Conflict, h.db.Abandon(h.Context(), meta.Fence{}, mv.ID))
	h.want(upload.Conflict, h.db.ForgetMove(h.Context(), mv.ID))
	equal(h, "before the grace time", len(h.leftovers(h.now)), 0)
	equal(h, "its state", h.state(&mv), meta.MoveSwitched)
	left := h.leftovers(h.now.Add(time.Microsecond))
	equal(h, "after the grace time", len(left), 1)
	equal(h, "its state", left[0].State, meta.MoveDeleting)
	equal(h, "garbage", left[0].Garbage(), mv.From)
	equal(h, "again", len(h.leftovers(noon)), 1)
	for range 2 {
		h.must(h.db.ForgetMove(h.Context(), mv.ID))
		equal(h, "left", len(h.moves(meta.MoveQuery{})), 0)
	}
	h.want(upload.Conflict, h.db.Switch(h.Context(), meta.Fence{}, mv.ID, h.now))
}

func testBeginMove(h *harness) {
	conflict := func(what string, b upload.Blob, to string) {
		h.Helper()
		if _, err := h.db.BeginMove(h.Context(), meta.Fence{}, &b, to, h.now); !errors.Is(err, upload.Conflict) {
			h.Errorf("%s: %v", what, err)
		}
	}
	f := h.addStored(alice, "a", body{"x", 0})
	b := h.blob(f.BlobID)
	conflict("to where it is", b, local)
	elsewhere := b
	elsewhere.Store = "elsewhere"
	conflict("from where it is not", elsewhere, remote)
	elsewhere = b
	elsewhere.ObjectKey += "x"
	conflict("another key", elsewhere, remote)
	conflict("nothing", upload.Blob{ID: "nothing", Store: local, ObjectKey: "key"}, remote)
	waiting := h.add(alice, "b", body{"y", 0})
	conflict("not stored yet", h.blob(waiting.BlobID), remote)
	direct := h.addDirect(alice, "d")
	conflict("not read yet", h.blob(direct.BlobID), remote)
	h.digested(&direct, body{"direct", 0})
	conflict("read, and not verified", h.blob(direct.BlobID), remote)
	lost := h.addStored(alice, "c", body{"z", 0})
	h.must(h.db.MarkLost(h.Context(), lost.BlobID, "rot", h.now))
	conflict("lost", h.blob(lost.BlobID), remote)
	h.remove(alice, f.ID)
	conflict("condemned", b, remote)
	h.collect()
	conflict("being deleted", b, remote)
	equal(h, "moves", len(h.moves(meta.MoveQuery{})), 0)
}

func testBeginMoveAgain(h *harness) {
	f := h.addStored(alice, "a", body{"x", 0})
	first := h.beginMove(&f, remote)
	h.must(h.db.SaveMove(h.Context(), meta.Fence{}, first.ID, []byte("half")))
	h.pass(time.Hour)
	again := h.beginMove(&f, remote)
	equal(h, "the same", again.ID, first.ID)
	equal(h, "created", again.CreatedAt, first.CreatedAt)
	equal(h, "checkpoint", string(again.Checkpoint), "half")
	// Another goal: the first is given up.
	other := h.beginMove(&f, "other")
	if other.ID == first.ID || other.To.Key == first.To.Key {
		h.Errorf("a move with another goal is the same: %+v", other)
	}
	equal(h, "the first", h.state(&first), meta.MoveDeleting)
	equal(h, "copying", len(h.moves(meta.MoveQuery{State: meta.MoveCopying})), 1)
	equal(h, "of the blob", len(h.moves(meta.MoveQuery{BlobID: f.BlobID})), 2)
	equal(h, "after the first", len(h.moves(meta.MoveQuery{After: first.ID})), 1)
	h.want(upload.Conflict, h.db.Switch(h.Context(), meta.Fence{}, first.ID, h.now))
	left := h.leftovers(noon)
	equal(h, "left", len(left), 1)
	equal(h, "garbage", left[0].Garbage(), first.To)
	h.must(h.db.Switch(h.Context(), meta.Fence{}, other.ID, h.now))
	// From the new place: one more move, and the blob leaves two objects.
	back := h.move(&f, local)
	equal(h, "from", back.From, other.To)
	equal(h, "left", len(h.leftovers(h.now.Add(time.Hour))), 3)
	equal(h, "the blob", h.blob(f.BlobID).ObjectKey, back.To.Key)
}

func testSwitchChanged(h *harness) {
	for what, change := range map[string]func(f *upload.File){
		"lost": func(f *upload.File) { h.must(h.db.MarkLost(h.Context(), f.BlobID, "rot", h.now)) },
		"back in staging": func(f *upload.File) {
			h.must(h.db.Unstore(h.Context(), f.BlobID, "404", h.now))
		},
		"elsewhere": func(f *upload.File) {
			h.must(h.db.Unstore(h.Context(), f.BlobID, "404", h.now))
			job := h.lease(f.Transfer.ID)
			h.must(h.db.Stored(h.Context(), job.Transfer.ID, job.Transfer.Lease.Epoch, "elsewhere", "key", h.now))
		},
		"being deleted": func(f *upload.File) { h.remove(alice, f.ID); h.collect() },
		"deleted": func(f *upload.File) {
			h.remove(alice, f.ID)
			h.collect()
			h.must(h.db.Deleted(h.Context(), f.BlobID))
		},
		"given up": func(f *upload.File) {
			h.must(h.db.Abandon(h.Context(), meta.Fence{}, h.moves(meta.MoveQuery{BlobID: f.BlobID})[0].ID))
		},
	} {
		f := h.addStored(alice, "a", body{what, 0})
		mv := h.beginMove(&f, remote)
		change(&f)
		before, err := h.db.Blob(h.Context(), f.BlobID)
		h.want(upload.Conflict, h.db.Switch(h.Context(), meta.Fence{}, mv.ID, h.now.Add(time.Second)))
		after, again := h.db.Blob(h.Context(), f.BlobID)
		equal(h, what, after, before)
		equal(h, what, errors.Is(again, upload.NotFound), errors.Is(err, upload.NotFound))
		equal(h, what+": switched", len(h.moves(meta.MoveQuery{State: meta.MoveSwitched})), 0)
	}
	// A blob without files may be wanted again, so it is switched.
	f := h.addStored(alice, "a", body{"condemned", 0})
	mv := h.beginMove(&f, remote)
	h.remove(alice, f.ID)
	h.must(h.db.Switch(h.Context(), meta.Fence{}, mv.ID, h.now))
	equal(h, "condemned", h.blob(f.BlobID).Store, remote)
	equal(h, "condemned", h.blob(f.BlobID).State, upload.BlobCondemned)
}

func testSwitchBack(h *harness) {
	f := h.addStored(alice, "a", body{"x", 0})
	mv := h.beginMove(&f, remote)
	h.want(upload.Conflict, h.db.SwitchBack(h.Context(), meta.Fence{}, mv.ID, h.now))
	h.must(h.db.Switch(h.Context(), meta.Fence{}, mv.ID, h.now))
	h.pass(time.Second)
	for range 2 {
		h.must(h.db.SwitchBack(h.Context(), meta.Fence{}, mv.ID, h.now))
		b := h.blob(f.BlobID)
		equal(h, "place", meta.Place{Store: b.Store, Key: b.ObjectKey}, mv.From)
		equal(h, "verified", b.VerifiedAt, h.now)
		equal(h, "the transfer's store", h.transfer(f.Transfer.ID).Store, local)
		left := h.leftovers(noon)
		equal(h, "garbage", left[0].Garbage(), mv.To)
	}
	// An old object that is being deleted is not gone back to.
	next := h.move(&f, remote)
	h.leftovers(h.now.Add(time.Hour))
	h.want(upload.Conflict, h.db.SwitchBack(h.Context(), meta.Fence{}, next.ID, h.now))
	equal(h, "place", h.blob(f.BlobID).ObjectKey, next.To.Key)
	// Nor is one that another move has come after.
	third := h.move(&f, local)
	fourth := h.move(&f, remote)
	h.want(upload.Conflict, h.db.SwitchBack(h.Context(), meta.Fence{}, third.ID, h.now))
	h.must(h.db.MarkLost(h.Context(), f.BlobID, "rot", h.now))
	h.want(upload.Conflict, h.db.SwitchBack(h.Context(), meta.Fence{}, fourth.ID, h.now))
	equal(h, "place", h.blob(f.BlobID).ObjectKey, fourth.To.Key)
}

func testAbandon(h *harness) {
	f := h.addStored(alice, "a", body{"x", 0})
	before := h.blob(f.BlobID)
	mv := h.beginMove(&f, remote)
	h.must(h.db.Abandon(h.Context(), meta.Fence{}, mv.ID))
	h.want(upload.Conflict, h.db.Abandon(h.Context(), meta.Fence{}, mv.ID))
	h.want(upload.Conflict, h.db.SaveMove(h.Context(), meta.Fence{}, mv.ID, []byte("late")))
	equal(h, "blob", h.blob(f.BlobID), before)
	left := h.leftovers(noon)
	equal(h, "left", len(left), 1)
	equal(h, "garbage", left[0].Garbage(), mv.To)
	again := h.beginMove(&f, remote)
	if again.To.Key == mv.To.Key {
		h.Error("a key is used twice")
	}
	h.must(h.db.ForgetMove(h.Context(), mv.ID))
}

func testLeftovers(h *harness) {
	var all, got []string
	for i := range 5 {
		f := h.addStored(alice, "a", body{"x", i})
		mv := h.move(&f, remote)
		all = append(all, mv.ID)
	}
	young := h.addStored(alice, "b", body{"y", 0})
	before := h.now.Add(time.Microsecond)
	h.pass(time.Second)
	h.move(&young, remote)
	for after := ""; ; {
		page, err := h.db.Leftovers(h.Context(), meta.Fence{}, before, after, 2)
		h.must(err)
		if len(page) == 0 {
			break
		}
		if len(page) > 2 {
			h.Errorf("%d at a time", len(page))
		}
		for _, mv := range page {
			got, after = append(got, mv.ID), mv.ID
		}
	}
	if !slices.Equal(got, all) {
		h.Errorf("leftovers %v, want %v", got, all)
	}
}

func testDeleteMoved(h *harness) {
	f := h.addStored(alice, "a", body{"x", 0})
	first := h.move(&f, remote)
	second := h.beginMove(&f, local)
	h.remove(alice, f.ID)
	equal(h, "collected", len(h.collect()), 1)
	equal(h, "its moves", len(h.moves(meta.MoveQuery{BlobID: f.BlobID})), 2)
	h.want(upload.Conflict, h.db.Switch(h.Context(), meta.Fence{}, second.ID, h.now))
	h.must(h.db.Deleted(h.Context(), f.BlobID))
	equal(h, "moves", len(h.moves(meta.MoveQuery{})), 0)
	for _, mv := range []meta.Move{first, second} {
		h.want(upload.Conflict, h.db.Switch(h.Context(), meta.Fence{}, mv.ID, h.now))
		h.want(upload.Conflict, h.db.SaveMove(h.Context(), meta.Fence{}, mv.ID, nil))
		h.must(h.db.ForgetMove(h.Context(), mv.ID))
	}
}

func testKnownMoves(h *harness) {
	f := h.addStored(alice, "a", body{"x", 0})
	known := func(what string, at meta.Place, want bool) {
		h.Helper()
		got, err := h.db.KnownObjects(h.Context(), at.Store, []string{at.Key, at.Key + "x"})
		h.must(err)
		equal(h, what, got[at.Key], want)
		equal(h, what+", a like one", got[at.Key+"x"], false)
	}
	mv := h.beginMove(&f, remote)
	known("the old one, copying", mv.From, true)
	known("the new one, copying", mv.To, true)
	known("in another store", meta.Place{Store: local, Key: mv.To.Key}, false)
	h.must(h.db.Switch(h.Context(), meta.Fence{}, mv.ID, h.now))
	known("the old one, switched", mv.From, true)
	known("the new one, switched", mv.To, true)
	h.leftovers(h.now.Add(time.Hour))
	known("the old one, deleting", mv.From, true)
	h.must(h.db.ForgetMove(h.Context(), mv.ID))
	known("the old one, deleted", mv.From, false)
	known("the new one, in the end", mv.To, true)
	next := h.beginMove(&f, local)
	h.must(h.db.Abandon(h.Context(), meta.Fence{}, next.ID))
	known("given up", next.To, true)
	h.must(h.db.ForgetMove(h.Context(), next.ID))
	known("given up and deleted", next.To, false)
}

func testUnstoreMoved(h *harness) {
	f := h.addStored(alice, "a", body{"x", 0})
	h.move(&f, remote)
	h.must(h.db.Unstore(h.Context(), f.BlobID, "404", h.now))
	job := h.lease(f.Transfer.ID)
	equal(h, "it goes to the new store", job.Transfer.Store, remote)
	h.must(h.db.Stored(h.Context(), job.Transfer.ID, job.Transfer.Lease.Epoch, remote, "key", h.now))
	equal(h, "left", len(h.leftovers(h.now.Add(time.Hour))), 1)
}

func testJoinMoved(h *harness) {
	b := body{"x", 0}
	moved := h.addStored(alice, "a", b)
	mv := h.beginMove(&moved, remote)
	twin := h.add(bob, "b", b)
	_, result := h.rooted(&twin, b)
	equal(h, "joined to", result.JoinedTo, moved.BlobID)
	h.must(h.db.Switch(h.Context(), meta.Fence{}, mv.ID, h.now))
	equal(h, "references", h.blob(moved.BlobID).Refs, 2)
	// The one that is moved may be the one that goes.
	c := body{"y", 0}
	lost := h.addStored(alice, "c", c)
	next := h.beginMove(&lost, remote)
	h.must(h.db.MarkLost(h.Context(), lost.BlobID, "rot", h.now))
	again := h.addStored(bob, "d", c)
	equal(h, "healed by", h.file(alice, lost.ID).BlobID, again.BlobID)
	h.must(h.db.Switch(h.Context(), meta.Fence{}, next.ID, h.now)) // condemned: to be deleted from wherever it is
	equal(h, "collected", len(h.collect()), 2)                     // and bob's first
	h.must(h.db.Deleted(h.Context(), lost.BlobID))
	equal(h, "moves", len(h.moves(meta.MoveQuery{})), 1)
}

func testMendMoving(h *harness) {
	f := h.addStored(alice, "a", body{"x", 0})
	mv := h.beginMove(&f, remote)
	h.must(h.db.MendRefs(h.Context(), f.BlobID, h.now))
	h.must(h.db.Switch(h.Context(), meta.Fence{}, mv.ID, h.now))
	h.must(h.db.MendRefs(h.Context(), f.BlobID, h.now))
	equal(h, "store", h.blob(f.BlobID).Store, remote)
	h.must(h.db.StagingDropped(h.Context(), f.BlobID))
	equal(h, "state", h.blob(f.BlobID).State, upload.BlobLive)
}

func testObjectLost(h *harness) {
	place := func(f *upload.File) meta.Place {
		b := h.blob(f.BlobID)
		return meta.Place{Store: b.Store, Key: b.ObjectKey}
	}
	h.want(upload.Conflict, h.db.ObjectLost(h.Context(), "nothing", meta.Place{Store: local, Key: "key"}, "404", h.now))
	f := h.addStored(alice, "a", body{"x", 0})
	at := place(&f)
	for _, wrong := range []meta.Place{{Store: remote, Key: at.Key}, {Store: local, Key: at.Key + "x"}, {}} {
		h.want(upload.Conflict, h.db.ObjectLost(h.Context(), f.BlobID, wrong, "404", h.now))
	}
	h.must(h.db.ObjectLost(h.Context(), f.BlobID, at, "404", h.now))
	equal(h, "staging has it", h.file(alice, f.ID).Transfer.State, upload.TransferQueued)
	equal(h, "why", h.file(alice, f.ID).Transfer.LastError, "404")
	h.want(upload.Conflict, h.db.ObjectLost(h.Context(), f.BlobID, at, "404", h.now))
	h.stored(h.lease(f.Transfer.ID))
	h.must(h.db.StagingDropped(h.Context(), f.BlobID))
	h.must(h.db.ObjectLost(h.Context(), f.BlobID, place(&f), "404", h.now))
	equal(h, "nowhere", h.blob(f.BlobID).State, upload.BlobLost)
	h.want(upload.Conflict, h.db.ObjectLost(h.Context(), f.BlobID, place(&f), "404", h.now))
}

func testUsage(h *harness) {
	usage := func(store string) meta.Usage {
		h.Helper()
		u, err := h.db.Usage(h.Context(), store)
		h.must(err)
		return u
	}
	equal(h, "of nothing", usage(local), meta.Usage{})
	var files []upload.File
	for i := range 6 {
		files = append(files, h.addStored(alice, "a", body{"x", i}))
	}
	h.remove(alice, files[0].ID)
	h.must(h.db.MarkLost(h.Context(), files[1].BlobID, "rot", h.now))
	h.beginMove(&files[2], remote)
	h.move(&files[3], remote)
	given := h.beginMove(&files[4], remote)
	h.must(h.db.Abandon(h.Context(), meta.Fence{}, given.ID))
	h.add(alice, "waiting", body{"y", 0})
	retried, dead, stopped := h.add(alice, "b", body{"y", 1}), h.add(alice, "c", body{"y", 2}), h.add(alice, "d", body{"y", 3})
	job := h.lease(retried.Transfer.ID)
	h.must(h.db.Retry(h.Context(), job.Transfer.ID, 1, h.now, "why", h.now))
	job = h.lease(dead.Transfer.ID)
	h.must(h.db.Dead(h.Context(), job.Transfer.ID, 1, "why", false, h.now))
	h.must(h.db.CancelTransfer(h.Context(), stopped.Transfer.ID, h.now))
	h.lease(h.add(alice, "e", body{"y", 4}).Transfer.ID)
	equal(h, "the old store", usage(local), meta.Usage{Live: 3, Bytes: 3 * bodySize, Condemned: 1, Lost: 1, Waiting: 3, Halted: 2, Leftovers: 1})
	equal(h, "the new store", usage(remote), meta.Usage{Live: 1, Bytes: bodySize, Copying: 1, Leftovers: 1})
}

func testBlobsIn(h *harness) {
	var want []string
	for i := range 5 {
		f := h.addStored(alice, "a", body{"x", i})
		want = append(want, f.BlobID)
	}
	gone := h.addStored(alice, "b", body{"y", 0})
	h.remove(alice, gone.ID)
	moved := h.addStored(alice, "b", body{"y", 1})
	h.move(&moved, remote)
	h.add(alice, "c", body{"z", 0})
	in := func(store string, state upload.BlobState) (ids []string) {
		h.Helper()
		for after := ""; ; {
			page, err := h.db.BlobsIn(h.Context(), store, state, after, 2)
			h.must(err)
			if len(page) == 0 {
				return ids
			}
			for i := range page {
				equal(h, "blob", page[i], h.blob(page[i].ID))
				ids, after = append(ids, page[i].ID), page[i].ID
			}
		}
	}
	if got := in(local, upload.BlobLive); !slices.Equal(got, want) {
		h.Errorf("live: %v, want %v", got, want)
	}
	if got := in(local, upload.BlobCondemned); !slices.Equal(got, []string{gone.BlobID}) {
		h.Errorf("condemned: %v", got)
	}
	if got := in(remote, upload.BlobLive); !slices.Equal(got, []string{moved.BlobID}) {
		h.Errorf("in the other store: %v", got)
	}
}

// Nothing that is written under a lease counts when the lease has passed on.
func testMoveFence(h *harness) {
	hold := func(owner string) meta.Fence {
		h.Helper()
		l, err := h.db.AcquireLease(h.Context(), meta.MoveLease, owner, h.now, h.now.Add(lease))
		h.must(err)
		return meta.Fence{Lease: meta.MoveLease, Epoch: l.Epoch}
	}
	f, g := h.addStored(alice, "a", body{"x", 0}), h.addStored(alice, "b", body{"y", 0})
	stale := hold("first")
	b := h.blob(f.BlobID)
	mv, err := h.db.BeginMove(h.Context(), stale, &b, remote, h.now)
	h.must(err)
	switched := h.move(&g, remote)
	h.pass(lease)
	fence := hold("second")
	before := h.moves(meta.MoveQuery{})
	_, err = h.db.BeginMove(h.Context(), stale, &b, "other", h.now)
	h.want(upload.Conflict, err)
	h.want(upload.Conflict, h.db.SaveMove(h.Context(), stale, mv.ID, []byte("stale")))
	h.want(upload.Conflict, h.db.Switch(h.Context(), stale, mv.ID, h.now))
	h.want(upload.Conflict, h.db.SwitchBack(h.Context(), stale, switched.ID, h.now))
	h.want(upload.Conflict, h.db.Abandon(h.Context(), stale, mv.ID))
	_, err = h.db.Leftovers(h.Context(), stale, h.now.Add(time.Hour), "", 10)
	h.want(upload.Conflict, err)
	if after := h.moves(meta.MoveQuery{}); !slices.EqualFunc(before, after, func(a, b meta.Move) bool { return a.ID == b.ID && a.State == b.State }) {
		h.Errorf("moves %+v, before %+v", after, before)
	}
	equal(h, "blob", h.blob(f.BlobID), b)
	h.must(h.db.SaveMove(h.Context(), fence, mv.ID, []byte("half")))
	h.must(h.db.Switch(h.Context(), fence, mv.ID, h.now))
}
