package metatest

import (
	"context"
	"reflect"
	"time"

	"gantry/meta"
	"gantry/upload"
)

var commitTests = map[string]func(h *harness){
	"everything is kept":                     testEverythingIsKept,
	"a repeat gets the same answer":          testRepeat,
	"a repeat without an answer":             testRepeatWithoutAnswer,
	"the key finds the answer":               testKey,
	"another upload with the same key":       testKeyTaken,
	"how an upload ended is kept":            testEndUpload,
	"complete after cancel":                  testCompleteAfterCancel,
	"answers expire":                         testAnswersExpire,
	"an expired answer makes room":           testExpiredAnswerMakesRoom,
	"replace":                                testReplace,
	"replace what is not there or not yours": testReplaceNothing,
	"replace with the same content":          testReplaceSame,
	"instant":                                testInstant,
	"instant of what is not there":           testInstantOfNothing,
	"a file id is used once":                 testFileIDTwice,
	"the caller went away":                   testCanceled,
}

// sameAnswer compares all but what is not promised to be in a stored answer.
func sameAnswer(h *harness, got, want meta.Answer) {
	h.Helper()
	if !reflect.DeepEqual(got, want) {
		h.Errorf("got  %+v %+v\nwant %+v %+v", got, got.File, want, want.File)
	}
}

func testEverythingIsKept(h *harness) {
	b := body{"x", 0}
	c := h.commitOf(alice, "Ünïcode 秒传 %_.txt", b)
	c.Fingerprint = "print"
	a, err := h.db.CommitUpload(h.Context(), c)
	h.must(err)
	f := *a.File
	equal(h, "state", a.State, upload.Complete)
	equal(h, "instant", a.Instant, false)
	equal(h, "fingerprint", a.Fingerprint, "print")
	equal(h, "answer's id and owner", a.UploadID+a.Owner, c.UploadID+alice)
	equal(h, "created", a.CreatedAt, h.now)
	equal(h, "expires", a.ExpiresAt, c.AnswerUntil)
	equal(h, "id", f.ID, c.File.ID)
	equal(h, "sha1", f.SHA1, b.sha1())
	equal(h, "size", f.Size, bodySize)

	got := h.file(alice, f.ID)
	if !reflect.DeepEqual(got, f) {
		h.Errorf("got  %+v\nwant %+v", got, f)
	}
	equal(h, "name", got.Name, c.File.Name)
	equal(h, "path", got.Path, "some/folder")
	equal(h, "type", got.ContentType, "text/plain")
	equal(h, "metadata", got.Metadata["k"], "v")
	equal(h, "created", got.CreatedAt, h.now)
	equal(h, "updated", got.UpdatedAt, h.now)
	equal(h, "stored, lost", got.Stored || got.Lost, false)

	blob := h.blob(f.BlobID)
	want := upload.Blob{
		ID: f.BlobID, SHA1: b.sha1(), Size: bodySize, Hint: b.hint(), CRC32C: c.Sealed.CRC32C, State: upload.BlobLive, Refs: 1,
		Node: node, Staging: c.UploadID, CreatedAt: h.now,
	}
	equal(h, "blob", blob, want)

	tr := h.transfer(f.Transfer.ID)
	equal(h, "transfer", tr, got.Transfer)
	equal(h, "transfer's blob", tr.BlobID, f.BlobID)
	equal(h, "transfer's state", tr.State, upload.TransferQueued)
	equal(h, "transfer's way", tr.Node+" "+tr.Store, node+" "+local)
	equal(h, "transfer's size", tr.Size, bodySize)

	stored, err := h.db.Answer(h.Context(), c.UploadID)
	h.must(err)
	sameAnswer(h, stored, a)

	_, err = h.db.File(h.Context(), bob, f.ID)
	h.want(upload.NotFound, err)
	_, err = h.db.Blob(h.Context(), "nothing")
	h.want(upload.NotFound, err)
	_, err = h.db.Transfer(h.Context(), "nothing")
	h.want(upload.NotFound, err)
	h.must(h.db.Ping(h.Context()))
}

// blobs returns all blobs.
func (h *harness) blobs() []upload.Blob {
	h.Helper()
	all, err := h.db.Blobs(h.Context(), "", 1000)
	h.must(err)
	return all
}

// list returns all files of an owner, oldest first.
func (h *harness) list(owner string) []upload.File {
	h.Helper()
	all, err := h.db.Files(h.Context(), meta.FileQuery{Owner: owner, Sort: meta.ByCreated, Limit: 1000})
	h.must(err)
	return all
}

func testRepeat(h *harness) {
	c := h.commitOf(alice, "a", body{"x", 0})
	first, err := h.db.CommitUpload(h.Context(), c)
	h.must(err)
	c.File.ID, c.File.Name = upload.NewID(h.now), "b" // as a second process would have it
	again, err := h.db.CommitUpload(h.Context(), c)
	h.must(err)
	sameAnswer(h, again, first)
	_, err = h.db.CommitInstant(h.Context(), c, first.File.BlobID)
	h.must(err)
	ended, err := h.db.EndUpload(h.Context(), meta.Answer{UploadID: c.UploadID, Owner: alice, State: upload.Cancelled, CreatedAt: h.now, ExpiresAt: c.AnswerUntil})
	h.must(err)
	sameAnswer(h, ended, first)
	equal(h, "files", len(h.list(alice)), 1)
	equal(h, "blobs", len(h.blobs()), 1)
}

func testRepeatWithoutAnswer(h *harness) {
	c := h.commitOf(alice, "a", body{"x", 0})
	c.Answer = false
	first, err := h.db.CommitUpload(h.Context(), c)
	h.must(err)
	again, err := h.db.CommitUpload(h.Context(), c)
	h.must(err)
	sameAnswer(h, again, first)
	equal(h, "files", len(h.list(alice)), 1)
	equal(h, "blobs", len(h.blobs()), 1)
	_, err = h.db.Answer(h.Context(), c.UploadID)
	h.want(upload.NotFound, err)

	// Its file deleted since: the upload does not become another one.
	h.remove(alice, first.File.ID)
	_, err = h.db.CommitUpload(h.Context(), c)
	h.want(upload.Conflict, err)
	equal(h, "blobs", len(h.blobs()), 1)
}

func testKey(h *harness) {
	c := h.commitOf(alice, "a", body{"x", 0})
	c.Key, c.Fingerprint = "key", "print"
	first, err := h.db.CommitUpload(h.Context(), c)
	h.must(err)
	got, err := h.db.AnswerByKey(h.Context(), alice, "key")
	h.must(err)
	sameAnswer(h, got, first)
	equal(h, "key", got.Key, "key")
	_, err = h.db.AnswerByKey(h.Context(), bob, "key")
	h.want(upload.NotFound, err)
	_, err = h.db.AnswerByKey(h.Context(), alice, "")
	h.want(upload.NotFound, err)
}

func testKeyTaken(h *harness) {
	c := h.commitOf(alice, "a", body{"x", 0})
	c.Key = "key"
	first, err := h.db.CommitUpload(h.Context(), c)
	h.must(err)

	other := h.commitOf(alice, "b", body{"y", 0})
	other.Key = "key"
	got, err := h.db.CommitUpload(h.Context(), other)
	h.must(err)
	sameAnswer(h, got, first)
	equal(h, "files", len(h.list(alice)), 1)

	// An upload that ends otherwise says so, and leaves the key to the first.
	ended, err := h.db.EndUpload(h.Context(), meta.Answer{
		UploadID: other.UploadID, Owner: alice, Key: "key", State: upload.Cancelled,
		CreatedAt: h.now, ExpiresAt: c.AnswerUntil,
	})
	h.must(err)
	equal(h, "state", ended.State, upload.Cancelled)
	got, err = h.db.AnswerByKey(h.Context(), alice, "key")
	h.must(err)
	sameAnswer(h, got, first)

	others := h.commitOf(bob, "c", body{"y", 0})
	others.Key = "key"
	got, err = h.db.CommitUpload(h.Context(), others)
	h.must(err)
	equal(h, "bob's file", got.File.ID, others.File.ID)
}

func testEndUpload(h *harness) {
	for _, want := range []meta.Answer{
		{State: upload.Cancelled, Key: "k1"},
		{State: upload.Expired},
		{State: upload.Rejected, Want: "aa", Got: "bb", Fingerprint: "print"},
	} {
		want.UploadID, want.Owner, want.CreatedAt, want.ExpiresAt = upload.NewUploadID(node), alice, h.now, forever
		got, err := h.db.EndUpload(h.Context(), want)
		h.must(err)
		sameAnswer(h, got, want)
		second := want
		second.State = upload.Expired
		got, err = h.db.EndUpload(h.Context(), second)
		h.must(err)
		sameAnswer(h, got, want)
		got, err = h.db.Answer(h.Context(), want.UploadID)
		h.must(err)
		sameAnswer(h, got, want)
	}
	_, err := h.db.Answer(h.Context(), upload.NewUploadID(node))
	h.want(upload.NotFound, err)
}

func testCompleteAfterCancel(h *harness) {
	c := h.commitOf(alice, "a", body{"x", 0})
	ended, err := h.db.EndUpload(h.Context(), meta.Answer{UploadID: c.UploadID, Owner: alice, State: upload.Cancelled, CreatedAt: h.now, ExpiresAt: c.AnswerUntil})
	h.must(err)
	got, err := h.db.CommitUpload(h.Context(), c)
	h.must(err)
	sameAnswer(h, got, ended)
	equal(h, "blobs", len(h.blobs()), 0)
	equal(h, "files", len(h.list(alice)), 0)
}

func testAnswersExpire(h *harness) {
	// The database goes by its own clock here, so the answers are put around it.
	var last meta.Answer
	for i := range 1200 {
		last = meta.Answer{UploadID: upload.NewUploadID(node), Owner: alice, State: upload.Expired, CreatedAt: h.now, ExpiresAt: time.Now().Add(-time.Hour)}
		if i%2 == 0 {
			last.ExpiresAt = time.Now().Add(time.Hour)
		}
		_, err := h.db.EndUpload(h.Context(), last)
		h.must(err)
	}
	_, err := h.db.Answer(h.Context(), last.UploadID)
	h.want(upload.NotFound, err)
	for _, want := range []int{600, 0} {
		n, err := h.db.ForgetAnswers(h.Context(), time.Now())
		h.must(err)
		equal(h, "forgotten", n, want)
	}
	n, err := h.db.ForgetAnswers(h.Context(), time.Now().Add(2*time.Hour))
	h.must(err)
	equal(h, "forgotten later", n, 600)
}

func testExpiredAnswerMakesRoom(h *harness) {
	old := meta.Answer{UploadID: upload.NewUploadID(node), Owner: alice, Key: "key", State: upload.Cancelled, CreatedAt: h.now, ExpiresAt: time.Now().Add(-time.Hour)}
	_, err := h.db.EndUpload(h.Context(), old)
	h.must(err)
	_, err = h.db.AnswerByKey(h.Context(), alice, "key")
	h.want(upload.NotFound, err)

	c := h.commitOf(alice, "a", body{"x", 0})
	c.Key, c.AnswerUntil = "key", time.Now().Add(time.Hour)
	got, err := h.db.CommitUpload(h.Context(), c)
	h.must(err)
	equal(h, "state", got.State, upload.Complete)
	got, err = h.db.AnswerByKey(h.Context(), alice, "key")
	h.must(err)
	equal(h, "file", got.File.ID, c.File.ID)
}

func testReplace(h *harness) {
	old := h.add(alice, "old", body{"x", 0})
	h.pass(time.Hour)
	c := h.commitOf(alice, "", body{"y", 0})
	c.Replaces = old.ID
	c.File.Path, c.File.ContentType, c.File.Metadata = "", "", nil
	a, err := h.db.CommitUpload(h.Context(), c)
	h.must(err)
	f := h.file(alice, old.ID)
	equal(h, "answer's file", a.File.ID, old.ID)
	equal(h, "name", f.Name, "old")
	equal(h, "path", f.Path, "some/folder")
	equal(h, "type", f.ContentType, "text/plain")
	equal(h, "metadata", f.Metadata["k"], "v")
	equal(h, "sha1", f.SHA1, body{"y", 0}.sha1())
	equal(h, "created", f.CreatedAt, old.CreatedAt)
	equal(h, "updated", f.UpdatedAt, h.now)
	equal(h, "old blob", h.blob(old.BlobID).State, upload.BlobCondemned)
	equal(h, "old blob's time", h.blob(old.BlobID).CondemnedAt, h.now)
	if !reflect.DeepEqual(f, *a.File) {
		h.Errorf("got  %+v\nwant %+v", *a.File, f)
	}

	c = h.commitOf(alice, "new", body{"z", 0})
	c.Replaces, c.File.Path = old.ID, "else/where"
	_, err = h.db.CommitUpload(h.Context(), c)
	h.must(err)
	f = h.file(alice, old.ID)
	equal(h, "new name and path", f.Name+" "+f.Path, "new else/where")
	equal(h, "files", len(h.list(alice)), 1)
	found, err := h.db.Files(h.Context(), meta.FileQuery{Owner: alice, Name: "NEW", Limit: 10})
	h.must(err)
	equal(h, "found by its new name", len(found), 1)
}

func testReplaceNothing(h *harness) {
	others := h.add(bob, "bob's", body{"x", 0})
	for _, replaces := range []string{others.ID, "nothing"} {
		c := h.commitOf(alice, "mine", body{"y", 0})
		c.Replaces = replaces
		a, err := h.db.CommitUpload(h.Context(), c)
		h.must(err)
		equal(h, "a new file", a.File.ID, c.File.ID)
	}
	equal(h, "bob's content", h.file(bob, others.ID).SHA1, body{"x", 0}.sha1())
	equal(h, "files", len(h.list(alice)), 2)
}

func testReplaceSame(h *harness) {
	old := h.addStored(alice, "old", body{"x", 0})
	c := h.commitOf(alice, "old", body{})
	c.Replaces = old.ID
	_, err := h.db.CommitInstant(h.Context(), c, old.BlobID)
	h.must(err)
	b := h.blob(old.BlobID)
	equal(h, "refs", b.Refs, 1)
	equal(h, "state", b.State, upload.BlobLive)
}

func testInstant(h *harness) {
	f := h.addStored(alice, "a", body{"x", 0})
	c := h.commitOf(bob, "b", body{})
	c.Key = "key"
	a, err := h.db.CommitInstant(h.Context(), c, f.BlobID)
	h.must(err)
	equal(h, "instant", a.Instant, true)
	equal(h, "blob", a.File.BlobID, f.BlobID)
	equal(h, "size", a.File.Size, bodySize)
	equal(h, "stored", a.File.Stored, true)
	equal(h, "refs", h.blob(f.BlobID).Refs, 2)
	again, err := h.db.CommitInstant(h.Context(), c, f.BlobID)
	h.must(err)
	equal(h, "again", again.File.ID, a.File.ID)
	equal(h, "refs after a repeat", h.blob(f.BlobID).Refs, 2)
	kept, err := h.db.Answer(h.Context(), c.UploadID)
	h.must(err)
	equal(h, "kept as instant", kept.Instant, true)
	equal(h, "kept as stored", kept.File.Stored, true)

	c = h.commitOf(bob, "c", body{})
	c.Answer = false
	for range 2 {
		_, err = h.db.CommitInstant(h.Context(), c, f.BlobID)
		h.must(err)
	}
	equal(h, "refs without an answer", h.blob(f.BlobID).Refs, 3)

	// Condemned, it comes back.
	for _, file := range h.list(bob) {
		h.remove(bob, file.ID)
	}
	h.remove(alice, f.ID)
	equal(h, "state", h.blob(f.BlobID).State, upload.BlobCondemned)
	_, err = h.db.CommitInstant(h.Context(), h.commitOf(bob, "d", body{}), f.BlobID)
	h.must(err)
	equal(h, "state", h.blob(f.BlobID).State, upload.BlobLive)
	equal(h, "collected", len(h.collect()), 0)
}

func testInstantOfNothing(h *harness) {
	rootless := h.add(alice, "a", body{"x", 0})
	lost := h.addStored(alice, "b", body{"y", 0})
	h.must(h.db.MarkLost(h.Context(), lost.BlobID, "gone", h.now))
	deleting := h.addStored(alice, "c", body{"z", 0})
	h.remove(alice, deleting.ID)
	equal(h, "collected", len(h.collect()), 1)
	for _, blobID := range []string{"nothing", rootless.BlobID, lost.BlobID, deleting.BlobID} {
		c := h.commitOf(bob, "b", body{})
		_, err := h.db.CommitInstant(h.Context(), c, blobID)
		h.want(upload.NotFound, err)
		_, err = h.db.Answer(h.Context(), c.UploadID)
		h.want(upload.NotFound, err)
	}
	equal(h, "files", len(h.list(bob)), 0)
}

func testFileIDTwice(h *harness) {
	f := h.add(alice, "a", body{"x", 0})
	c := h.commitOf(bob, "b", body{"y", 0})
	c.File.ID = f.ID
	_, err := h.db.CommitUpload(h.Context(), c)
	h.want(upload.Conflict, err)
	// All or nothing: no blob, no transfer and no answer are left of it.
	equal(h, "blobs", len(h.blobs()), 1)
	_, err = h.db.Answer(h.Context(), c.UploadID)
	h.want(upload.NotFound, err)
}

func testCanceled(h *harness) {
	ctx, cancel := context.WithCancel(h.Context())
	cancel()
	c := h.commitOf(alice, "a", body{"x", 0})
	_, err := h.db.CommitUpload(ctx, c)
	h.want(upload.Canceled, err)
	_, err = h.db.File(ctx, alice, "x")
	h.want(upload.Canceled, err)
	equal(h, "files", len(h.list(alice)), 0)
}
