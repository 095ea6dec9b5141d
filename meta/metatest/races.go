package metatest

import (
	"errors"
	"sync"
	"time"

	"gantry/meta"
	"gantry/upload"
)

// raceRounds is how often each race is run; what must hold holds whoever wins.
const raceRounds = 25

var raceTests = map[string]func(h *harness){
	"instant, delete, collect":        rounds(raceInstantDelete),
	"complete, complete, cancel":      rounds(raceComplete),
	"two requests with one key":       rounds(raceKey),
	"identical uploads join":          rounds(raceJoin),
	"identical uploads join, instant": rounds(raceJoinInstant),
	"delete, collect":                 rounds(raceDeleteCollect),
	"delete, replace, replace":        rounds(raceReplace),
	"two leases":                      rounds(raceLease),
	"stored, cancel, retry":           rounds(raceStored),
	"take due twice":                  rounds(raceTakeDue),
	"move, delete, collect":           rounds(raceMoveDelete),
	"switch, unstore, lost":           rounds(raceSwitch),
	"switch back, leftovers":          rounds(raceSwitchBack),
	"many at once":                    raceMany,
}

func rounds(race func(h *harness, b body)) func(h *harness) {
	return func(h *harness) {
		for round := range raceRounds {
			race(h, body{"round", round})
			for _, problem := range problems(h.Context(), h.db, owners) {
				h.Fatalf("round %d: %v", round, problem)
			}
			for _, owner := range owners {
				for _, f := range h.list(owner) {
					h.remove(owner, f.ID)
				}
			}
			h.pass(time.Hour)
			for _, id := range h.collect() {
				h.must(h.db.Deleted(h.Context(), id))
			}
			equal(h, "blobs left", len(h.blobs()), 0)
		}
	}
}

// together runs all at the same time and returns their errors.
func together(all ...func() error) []error {
	var wg sync.WaitGroup
	begin, errs := make(chan struct{}), make([]error, len(all))
	for i, f := range all {
		wg.Go(func() {
			<-begin
			errs[i] = f()
		})
	}
	close(begin)
	wg.Wait()
	return errs
}

// only fails unless err is nil or of one of the kinds.
func (h *harness) only(err error, kinds ...upload.Kind) {
	h.Helper()
	if err == nil {
		return
	}
	for _, kind := range kinds {
		if errors.Is(err, kind) {
			return
		}
	}
	h.Fatal(err)
}

func raceInstantDelete(h *harness, b body) {
	f := h.addStored(alice, "a", b)
	c := h.commitOf(bob, "b", b)
	collect := func() error {
		blobs, err := h.next().Collect(h.Context(), meta.CollectQuery{CondemnedBefore: h.now.Add(time.Second), Now: h.now, Limit: 10})
		for i := range blobs {
			err = errors.Join(err, h.next().Deleted(h.Context(), blobs[i].ID))
		}
		return err
	}
	errs := together(
		func() error { _, err := h.next().CommitInstant(h.Context(), c, f.BlobID); return err },
		func() error { return h.next().DeleteFile(h.Context(), alice, f.ID, h.now) },
		collect, collect,
	)
	h.only(errs[0], upload.NotFound)
	h.must(errs[1])
	h.must(errors.Join(errs[2:]...))
	got, err := h.db.Answer(h.Context(), c.UploadID)
	if errs[0] != nil {
		h.want(upload.NotFound, err)
		equal(h, "bob's files", len(h.list(bob)), 0)
		return
	}
	h.must(err)
	equal(h, "bob's content", h.blob(h.file(bob, got.File.ID).BlobID).State, upload.BlobLive)
}

func raceComplete(h *harness, b body) {
	c := h.commitOf(alice, "a", b)
	second := c
	second.File.ID = upload.NewID(h.now)
	answers := make([]meta.Answer, 4)
	errs := together(
		func() (err error) { answers[0], err = h.next().CommitUpload(h.Context(), c); return err },
		func() (err error) { answers[1], err = h.next().CommitUpload(h.Context(), second); return err },
		func() (err error) {
			answers[2], err = h.next().EndUpload(h.Context(), meta.Answer{UploadID: c.UploadID, Owner: alice, State: upload.Cancelled, CreatedAt: h.now, ExpiresAt: forever})
			return err
		},
		func() (err error) {
			answers[3], err = h.next().EndUpload(h.Context(), meta.Answer{UploadID: c.UploadID, Owner: alice, State: upload.Expired, CreatedAt: h.now, ExpiresAt: forever})
			return err
		},
	)
	h.must(errors.Join(errs...))
	kept, err := h.db.Answer(h.Context(), c.UploadID)
	h.must(err)
	for _, a := range answers {
		sameAnswer(h, a, kept)
	}
	want := 0
	if kept.State == upload.Complete {
		want = 1
	}
	equal(h, "files", len(h.list(alice)), want)
	equal(h, "blobs", len(h.blobs()), want)
}

func raceKey(h *harness, b body) {
	commits, answers := make([]meta.Commit, 4), make([]meta.Answer, 4)
	calls := []func() error{}
	for i := range commits {
		commits[i] = h.commitOf(alice, "a", b)
		commits[i].Key = "key of " + commits[0].UploadID
		calls = append(calls, func() (err error) { answers[i], err = h.next().CommitUpload(h.Context(), commits[i]); return err })
	}
	h.must(errors.Join(together(calls...)...))
	for _, a := range answers {
		sameAnswer(h, a, answers[0])
	}
	equal(h, "files", len(h.list(alice)), 1)
}

func raceJoin(h *harness, b body) {
	files := []upload.File{h.add(alice, "a", b), h.add(bob, "b", b), h.add(alice, "c", b)}
	var calls []func() error
	for i := range files {
		job := h.lease(files[i].Transfer.ID)
		calls = append(calls, func() error {
			result, err := h.next().SetRoot(h.Context(), job.Transfer.ID, job.Transfer.Lease.Epoch, b.root(), h.now)
			if err != nil || result.JoinedTo != "" {
				return err
			}
			return h.next().Stored(h.Context(), job.Transfer.ID, job.Transfer.Lease.Epoch, local, upload.ObjectKeyFor(&job.Blob), h.now)
		})
	}
	if b.variant%2 == 1 {
		calls[0], calls[2] = calls[2], calls[0]
	}
	for _, err := range together(calls...) {
		h.only(err, upload.Conflict) // joined by an older one while it was at work
	}
	live := 0
	for _, blob := range h.blobs() {
		if blob.State == upload.BlobLive {
			live++
			equal(h, "refs", blob.Refs, 3)
			equal(h, "stored", blob.Store, local)
		}
	}
	equal(h, "live blobs", live, 1)
}

func raceJoinInstant(h *harness, b body) {
	first, second := h.add(alice, "a", b), h.add(bob, "b", b)
	h.rooted(&second, b)
	job := h.lease(first.Transfer.ID)
	errs := together(
		func() error {
			_, err := h.next().SetRoot(h.Context(), job.Transfer.ID, job.Transfer.Lease.Epoch, b.root(), h.now)
			return err
		},
		func() error {
			_, err := h.next().CommitInstant(h.Context(), h.commitOf(bob, "c", b), second.BlobID)
			return err
		},
		func() error { return h.next().DeleteFile(h.Context(), bob, second.ID, h.now) },
	)
	h.must(errs[0])
	h.only(errs[1], upload.NotFound)
	h.must(errs[2])
	want := int64(1)
	if errs[1] == nil {
		want++
	}
	equal(h, "refs", h.blob(first.BlobID).Refs, want)
	equal(h, "refs of the joined", h.blob(second.BlobID).Refs, 0)
}

func raceDeleteCollect(h *harness, b body) {
	f := h.add(alice, "a", b)
	job := h.lease(f.Transfer.ID)
	errs := together(
		func() error { return h.next().DeleteFile(h.Context(), alice, f.ID, h.now) },
		func() error { return h.next().DeleteFile(h.Context(), alice, f.ID, h.now) },
		func() error {
			_, err := h.next().Collect(h.Context(), meta.CollectQuery{CondemnedBefore: h.now.Add(2 * lease), Now: h.now.Add(2 * lease), Limit: 10}) // the lease is over
			return err
		},
		func() error { return h.next().Stored(h.Context(), job.Transfer.ID, 1, local, "key", h.now) },
	)
	h.only(errs[0], upload.NotFound)
	h.only(errs[1], upload.NotFound)
	if (errs[0] == nil) == (errs[1] == nil) {
		h.Fatalf("deleted twice, or never: %v", errs)
	}
	h.must(errs[2])
	h.only(errs[3], upload.Conflict)
	blob := h.blob(f.BlobID)
	equal(h, "refs", blob.Refs, 0)
	equal(h, "stored", blob.Store != "", errs[3] == nil)
}

func raceReplace(h *harness, b body) {
	f := h.add(alice, "a", b)
	replace := func(variant int) func() error {
		c := h.commitOf(alice, "new", body{"new " + b.sum, 100*b.variant + variant})
		c.Replaces = f.ID
		return func() error { _, err := h.next().CommitUpload(h.Context(), c); return err }
	}
	h.must(errors.Join(together(
		replace(1), replace(2),
		func() error { return h.next().DeleteFile(h.Context(), alice, f.ID, h.now) },
	)...))
	// What came before the delete went with it, what came after is a new file.
	if n := len(h.list(alice)); n > 2 {
		h.Errorf("%d files", n)
	}
	equal(h, "the old content", h.blob(f.BlobID).State, upload.BlobCondemned)
}

func raceLease(h *harness, b body) {
	f := h.add(alice, "a", b)
	calls, jobs := []func() error{}, make([]meta.Job, 4)
	for i := range jobs {
		calls = append(calls, func() (err error) {
			jobs[i], err = h.next().Lease(h.Context(), f.Transfer.ID, "worker", h.now, h.now.Add(lease))
			return err
		})
	}
	won := 0
	for _, err := range together(calls...) {
		h.only(err, upload.Conflict)
		if err == nil {
			won++
		}
	}
	equal(h, "leases", won, 1)
	equal(h, "epoch", h.transfer(f.Transfer.ID).Lease.Epoch, 1)
}

func raceStored(h *harness, b body) {
	f := h.add(alice, "a", b)
	job := h.lease(f.Transfer.ID)
	errs := together(
		func() error {
			return h.next().Stored(h.Context(), job.Transfer.ID, 1, local, upload.ObjectKeyFor(&job.Blob), h.now)
		},
		func() error { return h.next().CancelTransfer(h.Context(), job.Transfer.ID, h.now) },
		func() error { return h.next().RetryTransfer(h.Context(), job.Transfer.ID, h.now) },
	)
	for _, err := range errs {
		h.only(err, upload.Conflict)
	}
	if (errs[0] == nil) == (errs[1] == nil) {
		h.Fatalf("stored and cancelled, or neither: %v", errs)
	}
	equal(h, "stored", h.file(alice, f.ID).Stored, errs[0] == nil)
}

func raceTakeDue(h *harness, b body) {
	f := h.add(alice, "a", b)
	h.pass(time.Hour)
	taken := make([][]string, 4)
	calls := []func() error{}
	for i := range taken {
		calls = append(calls, func() (err error) {
			taken[i], err = h.next().TakeDue(h.Context(), node, h.now, time.Hour, 10)
			return err
		})
	}
	h.must(errors.Join(together(calls...)...))
	times := 0
	for _, ids := range taken {
		for _, id := range ids {
			if id == f.Transfer.ID {
				times++
			}
		}
	}
	equal(h, "published", times, 1)
}

func raceMoveDelete(h *harness, b body) {
	f := h.addStored(alice, "a", b)
	blob := h.blob(f.BlobID)
	collect := func() error {
		blobs, err := h.next().Collect(h.Context(), meta.CollectQuery{CondemnedBefore: h.now.Add(time.Second), Now: h.now, Limit: 10})
		for i := range blobs {
			err = errors.Join(err, h.next().Deleted(h.Context(), blobs[i].ID))
		}
		return err
	}
	errs := together(
		func() error {
			mv, err := h.next().BeginMove(h.Context(), meta.Fence{}, &blob, remote, h.now)
			if err != nil {
				return err
			}
			return h.next().Switch(h.Context(), meta.Fence{}, mv.ID, h.now)
		},
		func() error { return h.next().DeleteFile(h.Context(), alice, f.ID, h.now) },
		collect, collect,
	)
	h.only(errs[0], upload.Conflict)
	h.must(errors.Join(errs[1:]...))
}

func raceSwitch(h *harness, b body) {
	f := h.addStored(alice, "a", b)
	mv := h.beginMove(&f, remote)
	errs := together(
		func() error { return h.next().Switch(h.Context(), meta.Fence{}, mv.ID, h.now) },
		func() error { return h.next().Switch(h.Context(), meta.Fence{}, mv.ID, h.now) },
		func() error { return h.next().Unstore(h.Context(), f.BlobID, "404", h.now) },
		func() error { return h.next().ObjectLost(h.Context(), f.BlobID, mv.From, "404", h.now) },
		func() error { return h.next().Abandon(h.Context(), meta.Fence{}, mv.ID) },
	)
	h.must(errs[2])
	for _, err := range errs {
		h.only(err, upload.Conflict)
	}
	if errs[0] == nil && errs[4] == nil {
		h.Fatal("switched, and given up")
	}
	equal(h, "in staging alone", h.blob(f.BlobID).Store, "")
}

func raceSwitchBack(h *harness, b body) {
	f := h.addStored(alice, "a", b)
	mv := h.move(&f, remote)
	var left []meta.Move
	errs := together(
		func() error { return h.next().SwitchBack(h.Context(), meta.Fence{}, mv.ID, h.now) },
		func() (err error) {
			left, err = h.next().Leftovers(h.Context(), meta.Fence{}, h.now.Add(time.Second), "", 10)
			return err
		},
	)
	h.only(errs[0], upload.Conflict)
	h.must(errs[1])
	place := h.blob(f.BlobID)
	for i := range left {
		if garbage := left[i].Garbage(); garbage.Store == place.Store && garbage.Key == place.ObjectKey {
			h.Fatalf("the blob's object is to be deleted: %+v", left[i])
		}
	}
	equal(h, "gone back", place.Store == local, errs[0] == nil)
}

// raceMany is more operations than fit into one transaction, good and bad ones, each of which is
// answered for itself.
func raceMany(h *harness) {
	const n = 600
	commits := make([]meta.Commit, n)
	errs, calls := []error(nil), []func() error{}
	for i := range n {
		commits[i] = h.commitOf(owners[i%2], "many", body{"many", i})
		switch i % 3 {
		case 0:
			calls = append(calls, func() error { _, err := h.next().CommitUpload(h.Context(), commits[i]); return err })
		case 1:
			calls = append(calls, func() error {
				_, err := h.next().CommitInstant(h.Context(), commits[i], "nothing")
				return err
			})
		case 2: // fails after it has begun to write: the file's id is taken
			commits[i].File.ID = commits[0].File.ID
			calls = append(calls, func() error { _, err := h.next().CommitUpload(h.Context(), commits[i]); return err })
		}
	}
	h.must(calls[0]())
	errs = together(calls...)
	for i, err := range errs {
		switch i % 3 {
		case 0:
			h.must(err)
			equal(h, "name", h.file(owners[i%2], commits[i].File.ID).Name, "many")
		case 1:
			h.want(upload.NotFound, err)
		case 2:
			h.want(upload.Conflict, err)
		}
	}
	equal(h, "blobs", len(h.blobs()), n/3)
	equal(h, "files", len(h.list(alice))+len(h.list(bob)), n/3)
}
