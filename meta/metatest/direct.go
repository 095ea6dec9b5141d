package metatest

import (
	"errors"
	"reflect"
	"time"

	"gantry/meta"
	"gantry/upload"
)

var directTests = map[string]func(h *harness){
	"begin, look, list":                  testDirectBegin,
	"one open upload for a key":          testDirectKey,
	"commit":                             testDirectCommit,
	"commit what is not there":           testDirectCommitNothing,
	"its object is known":                testDirectObjects,
	"ended by cancel":                    testDirectCancel,
	"ended by instant upload":            testDirectInstant,
	"idle":                               testDirectIdle,
	"digests":                            testDirectDigests,
	"digests that differ":                testDirectDigestsDiffer,
	"not offered before it was read":     testDirectNotOffered,
	"joins and is joined":                testDirectJoins,
	"its transfer can be tried again":    testDirectRetry,
	"another node takes a lost one's":    testDirectForget,
	"complete, complete, cancel, drop":   rounds(raceDirect),
	"begin twice with a key at one time": testDirectBeginRace,
}

// directOf is a direct upload that could begin now.
func (h *harness) directOf(owner, name string) meta.DirectUpload {
	h.pass(time.Millisecond)
	id := upload.NewID(h.now)
	return meta.DirectUpload{
		Spec: upload.Spec{
			ID: upload.NewUploadID(node), Owner: owner, Name: name, Path: "some/folder", ContentType: "text/plain",
			Metadata: map[string]string{"k": "v\x00"}, Size: bodySize, ChunkSize: 1 << 20, Fingerprint: "print", CreatedAt: h.now,
		},
		BlobID: id, Store: local, ObjectKey: upload.DirectKeyFor(node, id), MultipartID: "2~multipart", UpdatedAt: h.now,
	}
}

func (h *harness) begin(owner, name string) meta.DirectUpload {
	h.Helper()
	d := h.directOf(owner, name)
	h.must(h.db.BeginDirect(h.Context(), d))
	return d
}

// commitDirectOf is the commit of a direct upload; sum is what its client has announced.
func (h *harness) commitDirectOf(d *meta.DirectUpload, sum upload.SHA1) meta.Commit {
	return meta.Commit{
		UploadID: d.ID, Answer: true, Key: d.Key, Fingerprint: d.Fingerprint,
		File:   upload.File{ID: upload.NewID(h.now), Owner: d.Owner, Name: d.Name, Path: d.Path, Metadata: d.Metadata, CreatedAt: h.now},
		Sealed: upload.Sealed{Size: d.Size, SHA1: sum}, Node: node, AnswerUntil: forever,
	}
}

// addDirect begins and commits a direct upload.
func (h *harness) addDirect(owner, name string) upload.File {
	h.Helper()
	d := h.begin(owner, name)
	a, err := h.db.CommitDirect(h.Context(), h.commitDirectOf(&d, upload.SHA1{}))
	h.must(err)
	return *a.File
}

// digested leases the file's transfer and records digests and root.
func (h *harness) digested(f *upload.File, b body) (meta.Job, meta.RootResult) {
	h.Helper()
	job := h.lease(f.Transfer.ID)
	h.must(h.db.SetDigests(h.Context(), job.Transfer.ID, job.Transfer.Lease.Epoch, b.sealed(), h.now))
	result, err := h.db.SetRoot(h.Context(), job.Transfer.ID, job.Transfer.Lease.Epoch, b.root(), h.now)
	h.must(err)
	return job, result
}

func (h *harness) read(job meta.Job) {
	h.Helper()
	h.must(h.db.Stored(h.Context(), job.Transfer.ID, job.Transfer.Lease.Epoch, job.Blob.Store, job.Blob.ObjectKey, h.now))
}

func testDirectBegin(h *harness) {
	_, err := h.db.DirectUpload(h.Context(), upload.NewUploadID(node))
	h.want(upload.NotFound, err)
	a, b, other := h.begin(alice, "Ünïcode 秒传"), h.begin(alice, "b"), h.begin(bob, "c")
	got, err := h.db.DirectUpload(h.Context(), a.ID)
	h.must(err)
	if !reflect.DeepEqual(got, a) {
		h.Errorf("got  %+v\nwant %+v", got, a)
	}
	n, err := h.db.CountDirect(h.Context())
	h.must(err)
	equal(h, "open", n, 3)
	first, second := min(a.ID, b.ID), max(a.ID, b.ID)
	list := func(owner, after string, limit int) (ids []string) {
		h.Helper()
		found, err := h.db.DirectOf(h.Context(), owner, after, limit)
		h.must(err)
		for i := range found {
			ids = append(ids, found[i].ID)
		}
		return ids
	}
	for _, c := range []struct {
		owner, after string
		limit        int
		want         []string
	}{
		{alice, "", 10, []string{first, second}},
		{alice, "", 1, []string{first}},
		{alice, first, 10, []string{second}},
		{alice, second, 10, nil},
		{bob, "", 10, []string{other.ID}},
		{"nobody", "", 10, nil},
	} {
		if got := list(c.owner, c.after, c.limit); !reflect.DeepEqual(got, c.want) {
			h.Errorf("%s after %q: %v, want %v", c.owner, c.after, got, c.want)
		}
	}
	h.pass(time.Hour)
	h.must(h.db.TouchDirect(h.Context(), a.ID, h.now))
	got, err = h.db.DirectUpload(h.Context(), a.ID)
	h.must(err)
	equal(h, "updated", got.UpdatedAt, h.now)
	h.want(upload.NotFound, h.db.TouchDirect(h.Context(), upload.NewUploadID(node), h.now))
}

func testDirectKey(h *harness) {
	_, err := h.db.DirectByKey(h.Context(), alice, "k")
	h.want(upload.NotFound, err)
	a, again, other := h.directOf(alice, "a"), h.directOf(alice, "again"), h.directOf(bob, "b")
	a.Key, again.Key, other.Key = "k", "k", "k"
	h.must(h.db.BeginDirect(h.Context(), a))
	h.must(h.db.BeginDirect(h.Context(), other))
	h.want(upload.Conflict, h.db.BeginDirect(h.Context(), again))
	got, err := h.db.DirectByKey(h.Context(), alice, "k")
	h.must(err)
	equal(h, "by key", got.ID, a.ID)
	_, err = h.db.EndUpload(h.Context(), h.ended(&a, upload.Cancelled))
	h.must(err)
	_, err = h.db.DirectByKey(h.Context(), alice, "k")
	h.want(upload.NotFound, err)
	h.must(h.db.BeginDirect(h.Context(), again)) // whether the key's answer is still there is for the caller to see
}

func (h *harness) ended(d *meta.DirectUpload, state upload.State) meta.Answer {
	return meta.Answer{UploadID: d.ID, Owner: d.Owner, Key: d.Key, Fingerprint: d.Fingerprint, State: state, CreatedAt: h.now, ExpiresAt: forever}
}

func testDirectCommit(h *harness) {
	d := h.directOf(alice, "a")
	d.Key = "k"
	h.must(h.db.BeginDirect(h.Context(), d))
	h.pass(time.Hour)
	sum := body{"x", 0}.sha1()
	a, err := h.db.CommitDirect(h.Context(), h.commitDirectOf(&d, sum))
	h.must(err)
	f := h.file(alice, a.File.ID)
	if !reflect.DeepEqual(*a.File, f) {
		h.Errorf("answered %+v\nkept     %+v", *a.File, f)
	}
	equal(h, "announced", f.SHA1, sum)
	equal(h, "stored", f.Stored, true)
	equal(h, "blob", h.blob(f.BlobID), upload.Blob{
		ID: d.BlobID, SHA1: sum, Size: bodySize, State: upload.BlobLive, Refs: 1, Store: local, ObjectKey: d.ObjectKey, CreatedAt: h.now,
	})
	tr := h.transfer(f.Transfer.ID)
	equal(h, "transfer", string(tr.State)+" "+tr.Node+" "+tr.Store, "queued "+node+" "+local)
	h.isDue("to be read", tr.ID)
	_, err = h.db.DirectUpload(h.Context(), d.ID)
	h.want(upload.NotFound, err)
	again, err := h.db.CommitDirect(h.Context(), h.commitDirectOf(&d, upload.SHA1{}))
	h.must(err)
	sameAnswer(h, again, a)
	byKey, err := h.db.AnswerByKey(h.Context(), alice, "k")
	h.must(err)
	sameAnswer(h, byKey, a)
	stands, err := h.db.EndUpload(h.Context(), h.ended(&d, upload.Cancelled))
	h.must(err)
	sameAnswer(h, stands, a)
	ended, err := h.db.EndedDirect(h.Context(), "", 10)
	h.must(err)
	equal(h, "nothing to delete", len(ended), 0)
}

func testDirectCommitNothing(h *harness) {
	d := h.directOf(alice, "a")
	_, err := h.db.CommitDirect(h.Context(), h.commitDirectOf(&d, upload.SHA1{}))
	h.want(upload.NotFound, err)
	equal(h, "blobs", len(h.blobs()), 0)
}

func (h *harness) knows(store, key string, want bool) {
	h.Helper()
	known, err := h.db.KnownObjects(h.Context(), store, []string{key, "direct/other-" + upload.NewID(h.now)})
	h.must(err)
	equal(h, "known", known[key], want)
	equal(h, "known objects", len(known) == 1, want)
}

func testDirectObjects(h *harness) {
	d := h.begin(alice, "a")
	h.knows(local, d.ObjectKey, true)
	h.knows("elsewhere", d.ObjectKey, false)
	h.knows(local, "direct/x-"+d.BlobID, false)
	a, err := h.db.CommitDirect(h.Context(), h.commitDirectOf(&d, upload.SHA1{}))
	h.must(err)
	h.knows(local, d.ObjectKey, true)
	h.remove(alice, a.File.ID)
	equal(h, "collected", len(h.collect()), 1)
	h.knows(local, d.ObjectKey, true) // its row tells what is to be deleted
	h.must(h.db.Deleted(h.Context(), d.BlobID))
	h.knows(local, d.ObjectKey, false)
}

func testDirectCancel(h *harness) {
	d := h.begin(alice, "a")
	a, err := h.db.EndUpload(h.Context(), h.ended(&d, upload.Cancelled))
	h.must(err)
	again, err := h.db.CommitDirect(h.Context(), h.commitDirectOf(&d, upload.SHA1{}))
	h.must(err)
	sameAnswer(h, again, a)
	_, err = h.db.DirectUpload(h.Context(), d.ID)
	h.want(upload.NotFound, err)
	h.want(upload.NotFound, h.db.TouchDirect(h.Context(), d.ID, h.now))
	list, err := h.db.DirectOf(h.Context(), alice, "", 10)
	h.must(err)
	n, err := h.db.CountDirect(h.Context())
	h.must(err)
	equal(h, "listed and counted", len(list)+n, 0)
	h.dropsOnly(&d)
}

// dropsOnly fails unless d is all that has ended, and drops it.
func (h *harness) dropsOnly(d *meta.DirectUpload) {
	h.Helper()
	open := h.begin(bob, "open")
	ended, err := h.db.EndedDirect(h.Context(), "", 10)
	h.must(err)
	if len(ended) != 1 || ended[0].ID != d.ID || ended[0].ObjectKey != d.ObjectKey || ended[0].MultipartID != d.MultipartID {
		h.Fatalf("ended: %+v", ended)
	}
	later, err := h.db.EndedDirect(h.Context(), d.ID, 10)
	h.must(err)
	equal(h, "after it", len(later), 0)
	for range 2 {
		h.must(h.db.DropDirect(h.Context(), d.ID))
		h.must(h.db.DropDirect(h.Context(), open.ID))
	}
	_, err = h.db.DirectUpload(h.Context(), open.ID)
	h.must(err)
	ended, err = h.db.EndedDirect(h.Context(), "", 10)
	h.must(err)
	equal(h, "left", len(ended), 0)
}

func testDirectInstant(h *harness) {
	f := h.addStored(alice, "a", body{"x", 0})
	d := h.begin(alice, "b")
	c := h.commitDirectOf(&d, upload.SHA1{})
	c.Direct = true
	a, err := h.db.CommitInstant(h.Context(), c, f.BlobID)
	h.must(err)
	equal(h, "blob", a.File.BlobID, f.BlobID)
	again, err := h.db.CommitDirect(h.Context(), c)
	h.must(err)
	equal(h, "answered to complete", again.File.ID, a.File.ID)
	equal(h, "instant", again.Instant, true)
	h.dropsOnly(&d)
}

func testDirectIdle(h *harness) {
	begun := h.now
	a, b := h.begin(alice, "a"), h.begin(alice, "b")
	h.pass(time.Hour)
	h.must(h.db.TouchDirect(h.Context(), b.ID, h.now))
	idle, err := h.db.IdleDirect(h.Context(), h.now, 10)
	h.must(err)
	equal(h, "idle", len(idle) == 1 && idle[0].ID == a.ID, true)
	idle, err = h.db.IdleDirect(h.Context(), begun, 10)
	h.must(err)
	equal(h, "idle before", len(idle), 0)
	_, err = h.db.EndUpload(h.Context(), h.ended(&a, upload.Expired))
	h.must(err)
	idle, err = h.db.IdleDirect(h.Context(), h.now, 10)
	h.must(err)
	equal(h, "idle, and ended", len(idle), 0)
}

func testDirectDigests(h *harness) {
	f := h.addDirect(alice, "a")
	b := body{"x", 0}
	job := h.lease(f.Transfer.ID)
	equal(h, "nobody has read it", job.Blob.Undigested() && job.Blob.Root.IsZero(), true)
	for range 2 {
		h.must(h.db.SetDigests(h.Context(), job.Transfer.ID, 1, b.sealed(), h.now))
	}
	want := job.Blob
	want.SHA1, want.Hint, want.CRC32C = b.sha1(), b.hint(), b.sealed().CRC32C
	equal(h, "blob", h.blob(f.BlobID), want)
	equal(h, "the file's", h.file(alice, f.ID).SHA1, b.sha1())
	h.want(upload.DigestMismatch, h.db.SetDigests(h.Context(), job.Transfer.ID, 1, body{"y", 0}.sealed(), h.now))
	_, err := h.db.SetRoot(h.Context(), job.Transfer.ID, 1, b.root(), h.now)
	h.must(err)
	h.read(job)
	got := h.blob(f.BlobID)
	equal(h, "read", got.Undigested(), false)
	equal(h, "its object", got.ObjectKey, job.Blob.ObjectKey)
	equal(h, "state", h.transfer(f.Transfer.ID).State, upload.TransferStored)
}

func testDirectDigestsDiffer(h *harness) {
	d := h.begin(alice, "a")
	a, err := h.db.CommitDirect(h.Context(), h.commitDirectOf(&d, body{"x", 0}.sha1()))
	h.must(err)
	job := h.lease(a.File.Transfer.ID)
	short := body{"x", 0}.sealed()
	short.Size--
	for _, found := range []upload.Sealed{body{"y", 0}.sealed(), short} {
		h.want(upload.DigestMismatch, h.db.SetDigests(h.Context(), job.Transfer.ID, 1, found, h.now))
		equal(h, "blob", h.blob(d.BlobID), job.Blob)
	}
	h.must(h.db.Dead(h.Context(), job.Transfer.ID, 1, "not what was announced", true, h.now))
	equal(h, "lost", h.file(alice, a.File.ID).Lost, true)
	h.remove(alice, a.File.ID)
	equal(h, "collected", len(h.collect()), 1)
}

func testDirectNotOffered(h *harness) {
	b := body{"x", 0}
	d := h.begin(alice, "a")
	a, err := h.db.CommitDirect(h.Context(), h.commitDirectOf(&d, b.sha1()))
	h.must(err)
	offered := func(want bool) {
		h.Helper()
		_, err := h.db.FindContent(h.Context(), meta.ScopeGlobal, alice, b.sha1(), bodySize)
		equal(h, "found", err == nil, want)
		known, err := h.db.KnowsHint(h.Context(), meta.ScopeGlobal, alice, b.hint(), bodySize)
		h.must(err)
		equal(h, "known", known, want)
		c := h.commitOf(bob, "b", b)
		if !want {
			_, err = h.db.CommitInstant(h.Context(), c, d.BlobID)
			h.want(upload.NotFound, err)
		}
	}
	offered(false)
	job := h.lease(a.File.Transfer.ID)
	h.must(h.db.SetDigests(h.Context(), job.Transfer.ID, 1, b.sealed(), h.now))
	offered(false)
	_, err = h.db.SetRoot(h.Context(), job.Transfer.ID, 1, b.root(), h.now)
	h.must(err)
	offered(true)
}

func testDirectJoins(h *harness) {
	// One in a store, older: the direct one's object goes.
	old := h.addStored(alice, "old", body{"x", 0})
	f := h.addDirect(bob, "direct")
	_, result := h.digested(&f, body{"x", 0})
	equal(h, "joined", result.JoinedTo, old.BlobID)
	equal(h, "its file", h.file(bob, f.ID).BlobID, old.BlobID)
	equal(h, "its object is garbage", h.collect()[0], f.BlobID)

	// One in staging only, older: it joins the one that is in a store.
	staged := h.add(alice, "staged", body{"y", 0})
	_, none := h.rooted(&staged, body{"y", 0})
	equal(h, "joined to", none.JoinedTo, "")
	f = h.addDirect(bob, "direct")
	job, result := h.digested(&f, body{"y", 0})
	equal(h, "goes on", result.JoinedTo, "")
	h.read(job)
	equal(h, "the staged file", h.file(alice, staged.ID).BlobID, f.BlobID)

	// And who comes later joins it.
	late := h.add(alice, "late", body{"y", 0})
	_, result = h.rooted(&late, body{"y", 0})
	equal(h, "the later", result.JoinedTo, f.BlobID)
}

func testDirectRetry(h *harness) {
	f := h.addDirect(alice, "a")
	h.must(h.db.CancelTransfer(h.Context(), f.Transfer.ID, h.now))
	h.isDue("cancelled")
	h.must(h.db.RetryTransfer(h.Context(), f.Transfer.ID, h.now))
	h.isDue("tried again", f.Transfer.ID)
	job := h.lease(f.Transfer.ID)
	h.must(h.db.Dead(h.Context(), job.Transfer.ID, job.Transfer.Lease.Epoch, "why", false, h.now))
	h.must(h.db.RetryTransfer(h.Context(), f.Transfer.ID, h.now))
	h.isDue("again", f.Transfer.ID)
}

func testDirectForget(h *harness) {
	h.join(node)
	h.join(elsewhere)
	f, read := h.addDirect(alice, "a"), h.addDirect(alice, "b")
	job, _ := h.digested(&read, body{"x", 0})
	h.read(job)
	n, err := h.db.Forget(h.Context(), node, h.now)
	h.must(err)
	equal(h, "lost", n, 0)
	equal(h, "to be read by", h.transfer(f.Transfer.ID).Node, elsewhere)
	equal(h, "was read by", h.transfer(read.Transfer.ID).Node, node)
	equal(h, "state", h.blob(f.BlobID).State, upload.BlobLive)
}

// One decides, and the others hear what it was: the object is the file's, or is to be deleted.
func raceDirect(h *harness, _ body) {
	d := h.begin(alice, "a")
	commit := func(db meta.DB) func() error {
		c := h.commitDirectOf(&d, upload.SHA1{})
		return func() error { _, err := db.CommitDirect(h.Context(), c); return err }
	}
	cancel := h.next()
	for _, err := range together(commit(h.next()), commit(h.next()), func() error {
		_, err := cancel.EndUpload(h.Context(), h.ended(&d, upload.Cancelled))
		return err
	}) {
		h.must(err)
	}
	a, err := h.db.Answer(h.Context(), d.ID)
	h.must(err)
	ended, err := h.db.EndedDirect(h.Context(), "", 10)
	h.must(err)
	equal(h, "ended without a file", len(ended) == 1, a.State == upload.Cancelled)
	equal(h, "files", len(h.list(alice)) == 1, a.State == upload.Complete)
	h.must(h.db.DropDirect(h.Context(), d.ID))
}

func testDirectBeginRace(h *harness) {
	for range raceRounds {
		a, b := h.directOf(alice, "a"), h.directOf(alice, "b")
		a.Key = upload.NewID(h.now)
		b.Key = a.Key
		one, two := h.next(), h.next()
		errs := together(
			func() error { return one.BeginDirect(h.Context(), a) },
			func() error { return two.BeginDirect(h.Context(), b) },
		)
		if (errs[0] == nil) == (errs[1] == nil) {
			h.Fatalf("both or none: %v", errs)
		}
		h.want(upload.Conflict, errors.Join(errs...))
	}
}
