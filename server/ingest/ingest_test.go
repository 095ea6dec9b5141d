package ingest_test

import (
	"errors"
	"hash/crc32"
	"slices"
	"testing"
	"time"

	"gantry/chunkstore"
	"gantry/internal/vfs"
	"gantry/meta"
	"gantry/server/ingest"
	"gantry/upload"
)

// TestOthersSeeNothing: every call for another owner's upload or file answers as for an unknown id.
func TestOthersSeeNothing(t *testing.T) {
	e := newEngine(t)
	ctx := t.Context()
	data := random(20, 1<<20+1)
	open, ended, cancelled := e.mustBegin(data), e.mustBegin(data), e.mustBegin(data)
	e.mustPut(ended, data)
	f, err := e.Complete(ctx, owner, ended, ingest.CompleteRequest{})
	if err != nil {
		t.Fatal(err)
	}
	if err := e.Cancel(ctx, owner, cancelled); err != nil {
		t.Fatal(err)
	}
	name := "stolen"
	const mallory = "mallory"
	for _, id := range []string{open, ended, cancelled, upload.NewUploadID("n1"), "../../etc/passwd"} {
		calls := map[string]func() error{
			"chunk":    func() error { return e.PutChunk(ctx, mallory, id, 0, body(chunk(data, 0))) },
			"status":   func() error { _, err := e.Status(ctx, mallory, id); return err },
			"complete": func() error { _, err := e.Complete(ctx, mallory, id, ingest.CompleteRequest{}); return err },
			"cancel":   func() error { return e.Cancel(ctx, mallory, id) },
			"prefix":   func() error { _, err := e.Prefix(ctx, mallory, id); return err },
			"instant": func() error {
				_, err := e.Instant(ctx, mallory, id, ingest.InstantRequest{SHA1: upload.SumSHA1(data)})
				return err
			},
		}
		for call, do := range calls {
			if err := do(); !errors.Is(err, upload.NotFound) {
				t.Errorf("%s of %s: %v", call, id, err)
			}
		}
	}
	size := int64(1)
	calls := map[string]func() error{
		"file":    func() error { _, err := e.File(ctx, mallory, f.ID); return err },
		"content": func() error { _, err := e.Content(ctx, mallory, f.ID); return err },
		"update":  func() error { _, err := e.UpdateFile(ctx, mallory, f.ID, meta.FileChange{Name: &name}); return err },
		"delete":  func() error { return e.DeleteFile(ctx, mallory, f.ID) },
		"replace": func() error {
			_, _, err := e.Init(ctx, mallory, ingest.InitRequest{Name: "a", Size: &size, Replaces: f.ID})
			return err
		},
		"replace at once": func() error {
			_, err := e.PutFile(ctx, mallory, ingest.FileRequest{Name: "a", Replaces: f.ID}, body(data))
			return err
		},
	}
	for call, do := range calls {
		if err := do(); !errors.Is(err, upload.NotFound) {
			t.Errorf("%s of a file: %v", call, err)
		}
	}
	if page, err := e.Uploads(ctx, mallory, "", 10); err != nil || len(page.Items) > 0 {
		t.Errorf("uploads of another owner are listed: %+v %v", page, err)
	}
	if page, err := e.Files(ctx, meta.FileQuery{Owner: mallory, Limit: 10}); err != nil || len(page.Items) > 0 {
		t.Errorf("files of another owner are listed: %+v %v", page, err)
	}
	// Instant upload is for one's own content, and hints tell of nothing else, with scope "user".
	e.transfer()
	hint := upload.SumSHA1(data[:upload.HintLength])
	n := int64(len(data))
	opened, _, err := e.Init(ctx, mallory, ingest.InitRequest{Name: "a", Size: &n, Hint: &hint})
	if err != nil || opened.Known != ingest.KnownNo {
		t.Errorf("a hint told of another owner's content: %+v %v", opened.Known, err)
	}
	if r, err := e.instant(ctx, mallory, opened.ID, data); err != nil || r.Answer != nil {
		t.Errorf("another owner's content was given: %+v %v", r, err)
	}
	mine, _, err := e.Init(ctx, owner, ingest.InitRequest{Name: "a", Size: &n, Hint: &hint})
	if err != nil || mine.Known != ingest.KnownMaybe {
		t.Errorf("a hint for one's own content: %+v %v", mine.Known, err)
	}
	e.mustRead(f.ID, data)
}

// With scope "global" a hint could tell what others have. So some of those for unknown content are
// answered like those for known content, and always the same ones.
func TestHintsAreBlurredWithScopeGlobal(t *testing.T) {
	e := newEngine(t)
	size := int64(1 << 20)
	maybe := func(i int) bool {
		t.Helper()
		hint := upload.SHA1{byte(i), byte(i >> 8)}
		opened, _, err := e.Init(t.Context(), owner, ingest.InitRequest{Name: "a", Size: &size, Hint: &hint})
		if err != nil {
			t.Fatal(err)
		}
		return opened.Known == ingest.KnownMaybe
	}
	const n = 200
	for i := range n {
		if maybe(i) {
			t.Fatal(`blurred with scope "user", where there is nothing to hide`)
		}
	}
	e.close()
	e.scope = meta.ScopeGlobal
	e.open()
	blurred := 0
	for i := range n {
		first := maybe(i)
		if first != maybe(i) {
			t.Fatal("asking again tells more")
		}
		if first {
			blurred++
		}
	}
	if blurred < n/20 || blurred > n/3 {
		t.Errorf("%d of %d were blurred", blurred, n)
	}
}

func TestOpenUploadsAreBounded(t *testing.T) {
	e := newEngine(t)
	e.close()
	e.most = 3
	e.open()
	data := random(22, 1<<20)
	var ids []string
	for range 3 {
		ids = append(ids, e.mustBegin(data))
	}
	if _, err := e.begin(data); !errors.Is(err, upload.TooMany) {
		t.Errorf("one too many: %v", err)
	}
	if err := e.Cancel(t.Context(), owner, ids[0]); err != nil {
		t.Fatal(err)
	}
	e.mustBegin(data)
}

// A key that comes again with other bytes of the same length is another request, as far as the
// digests that came with them tell.
func TestKeyOfAWholeFileKnowsItsDigest(t *testing.T) {
	e := newEngine(t)
	put := func(data []byte) (upload.File, error) {
		crc := crc32.Checksum(data, upload.Castagnoli)
		b := body(data)
		b.CRC32C = &crc
		return e.PutFile(t.Context(), owner, ingest.FileRequest{Name: "a", Key: "k"}, b)
	}
	f, err := put(random(1, 1000))
	if err != nil {
		t.Fatal(err)
	}
	if again, err := put(random(1, 1000)); err != nil || again.ID != f.ID {
		t.Errorf("the same again: %+v %v", again, err)
	}
	if _, err := put(random(2, 1000)); !errors.Is(err, upload.KeyReused) {
		t.Errorf("other bytes under the same key: %v", err)
	}
}

func TestInstantAcrossOwnersWithScopeGlobal(t *testing.T) {
	e := newEngine(t)
	e.close()
	e.scope = meta.ScopeGlobal
	e.open()
	data := random(21, 1<<20+1)
	e.mustUpload(data)
	e.transfer()
	size := int64(len(data))
	opened, _, err := e.Init(t.Context(), "alice", ingest.InitRequest{Name: "a", Size: &size})
	if err != nil {
		t.Fatal(err)
	}
	r, err := e.instant(t.Context(), "alice", opened.ID, data)
	if err != nil || r.Answer == nil || !r.Answer.Instant {
		t.Fatalf("instant: %+v %v", r, err)
	}
}

// TestInstantMidway: half of the chunks are there when the client knows the digest.
func TestInstantMidway(t *testing.T) {
	e := newEngine(t)
	data := random(22, 4<<20)
	e.mustUpload(data)
	e.transfer()
	id := e.mustBegin(data)
	for _, i := range []int{0, 2} {
		if err := e.PutChunk(t.Context(), owner, id, i, body(chunk(data, i))); err != nil {
			t.Fatal(err)
		}
	}
	r, err := e.instant(t.Context(), owner, id, data)
	if err != nil || r.Answer == nil {
		t.Fatalf("instant: %+v %v", r, err)
	}
	e.mustRead(r.Answer.File.ID, data)
	if ids, err := e.staging.Data(); err != nil || slices.Contains(ids, id) {
		t.Errorf("the bytes of the upload are still there: %v %v", ids, err)
	}
	again, err := e.Complete(t.Context(), owner, id, ingest.CompleteRequest{})
	if err != nil || again.ID != r.Answer.File.ID {
		t.Errorf("complete after instant: %+v %v", again, err)
	}
	e.examine()
}

func TestIdempotencyKeys(t *testing.T) {
	e := newEngine(t)
	ctx := t.Context()
	size, other := int64(1<<20), int64(2<<20)
	first, repeated, err := e.Init(ctx, owner, ingest.InitRequest{Name: "a", Size: &size, Key: "k"})
	if err != nil || repeated {
		t.Fatal(repeated, err)
	}
	check := func(when string) {
		t.Helper()
		again, repeated, err := e.Init(ctx, owner, ingest.InitRequest{Name: "a", Size: &size, Key: "k"})
		if err != nil || !repeated || again.ID != first.ID {
			t.Errorf("%s: %s %v %v, want %s", when, again.ID, repeated, err, first.ID)
		}
		if _, _, err := e.Init(ctx, owner, ingest.InitRequest{Name: "a", Size: &other, Key: "k"}); !errors.Is(err, upload.KeyReused) {
			t.Errorf("%s: another request with the key: %v", when, err)
		}
	}
	check("open")
	e.restart()
	check("after a restart")
	if o, repeated, err := e.Init(ctx, "alice", ingest.InitRequest{Name: "a", Size: &other, Key: "k"}); err != nil || repeated || o.ID == first.ID {
		t.Errorf("another owner with the key: %v", err)
	}
}

func TestKeyOfAFinishedUpload(t *testing.T) {
	e := newEngine(t)
	data := random(23, 1<<20)
	size := int64(len(data))
	first, _, err := e.Init(t.Context(), owner, ingest.InitRequest{Name: "a", Size: &size, Key: "k"})
	if err != nil {
		t.Fatal(err)
	}
	if err := e.PutChunk(t.Context(), owner, first.ID, 0, body(data)); err != nil {
		t.Fatal(err)
	}
	f, err := e.Complete(t.Context(), owner, first.ID, ingest.CompleteRequest{})
	if err != nil {
		t.Fatal(err)
	}
	again, repeated, err := e.Init(t.Context(), owner, ingest.InitRequest{Name: "a", Size: &size, Key: "k"})
	if err != nil || !repeated || again.State != upload.Complete || again.Answer.File.ID != f.ID {
		t.Errorf("init repeated after complete: %+v %v %v", again, repeated, err)
	}
}

func TestFalseDigestIsRejectedAndDropped(t *testing.T) {
	e := newEngine(t)
	data := random(24, 1<<20+5)
	id := e.mustBegin(data)
	e.mustPut(id, data)
	wrong := upload.SumSHA1(nil)
	for range 2 { // repeated: the same answer
		_, err := e.Complete(t.Context(), owner, id, ingest.CompleteRequest{SHA1: &wrong})
		var got *upload.Error
		if !errors.As(err, &got) || got.Kind != upload.DigestMismatch || got.Want != wrong.String() || got.Got != upload.SumSHA1(data).String() {
			t.Fatalf("got %v", err)
		}
	}
	if _, err := e.PutFile(t.Context(), owner, ingest.FileRequest{Name: "w", SHA1: &wrong}, body(data)); !errors.Is(err, upload.DigestMismatch) {
		t.Errorf("whole file: %v", err)
	}
	if ids, err := e.staging.Data(); err != nil || len(ids) > 0 {
		t.Errorf("bytes are left: %v %v", ids, err)
	}
	if status, err := e.Status(t.Context(), owner, id); err != nil || status.State != upload.Rejected {
		t.Errorf("state %s %v", status.State, err)
	}
}

func TestReplace(t *testing.T) {
	e := newEngine(t)
	old, fresh := random(25, 1<<20), random(26, 1<<20+1)
	f := e.mustUpload(old)
	size := int64(len(fresh))
	opened, _, err := e.Init(t.Context(), owner, ingest.InitRequest{Name: "a", Size: &size, Replaces: f.ID})
	if err != nil {
		t.Fatal(err)
	}
	for i := range opened.Upload.Layout().Count() {
		if err := e.PutChunk(t.Context(), owner, opened.ID, i, body(fresh)); err != nil {
			t.Fatal(err)
		}
	}
	e.mustRead(f.ID, old) // until complete
	g, err := e.Complete(t.Context(), owner, opened.ID, ingest.CompleteRequest{})
	if err != nil || g.ID != f.ID {
		t.Fatalf("%s %v, want %s", g.ID, err, f.ID)
	}
	e.mustRead(f.ID, fresh)
	e.transfer()
	e.clock.advance(2 * time.Hour)
	if err := e.Clean(t.Context()); err != nil {
		t.Fatal(err)
	}
	if blobs, err := e.db.Blobs(t.Context(), "", 10); err != nil || len(blobs) != 1 {
		t.Errorf("the old content was not collected: %d blobs, %v", len(blobs), err)
	}
	e.mustRead(f.ID, fresh)
}

func TestExpiry(t *testing.T) {
	e := newEngine(t)
	data := random(27, 2<<20)
	idle, active := e.mustBegin(data), e.mustBegin(data)
	e.clock.advance(4 * 24 * time.Hour)
	if err := e.PutChunk(t.Context(), owner, active, 0, body(chunk(data, 0))); err != nil {
		t.Fatal(err)
	}
	e.clock.advance(4 * 24 * time.Hour)
	if err := e.Clean(t.Context()); err != nil {
		t.Fatal(err)
	}
	if s, err := e.Status(t.Context(), owner, idle); err != nil || s.State != upload.Expired {
		t.Errorf("idle for 8 days: %s %v", s.State, err)
	}
	if s, err := e.Status(t.Context(), owner, active); err != nil || s.State != upload.Open {
		t.Errorf("a chunk 4 days ago: %s %v", s.State, err)
	}
	if page, err := e.Uploads(t.Context(), owner, "", 10); err != nil || len(page.Items) != 1 || page.Items[0].ID != active {
		t.Errorf("listed: %+v %v", page.Items, err)
	}
}

// TestStagingGoesOnlyAfterVerification is I5: with the transfer not done, or the grace time not over,
// the staging copy stays.
func TestStagingGoesOnlyAfterVerification(t *testing.T) {
	e := newEngine(t)
	data := random(28, 1<<20)
	f := e.mustUpload(data)
	staged := func() bool {
		ids, err := e.staging.Data()
		if err != nil {
			t.Fatal(err)
		}
		return len(ids) == 1
	}
	clean := func(after time.Duration) {
		t.Helper()
		e.clock.advance(after)
		if err := e.Clean(t.Context()); err != nil {
			t.Fatal(err)
		}
		e.mustRead(f.ID, data)
	}
	clean(time.Hour)
	if !staged() {
		t.Fatal("dropped before it was transferred")
	}
	e.transfer()
	clean(time.Minute)
	if !staged() {
		t.Fatal("dropped within the grace time")
	}
	clean(time.Hour)
	if staged() {
		t.Fatal("not dropped")
	}
	e.examine()
}

func TestUnknownSizeIsBounded(t *testing.T) {
	e := newEngine(t)
	e.Service = ingest.New(ingest.Options{Node: "n1", Route: toLocal, MaxSize: 3 << 20}, e.Deps)
	chunkSize := upload.MinChunkSize
	opened, _, err := e.Init(t.Context(), owner, ingest.InitRequest{Name: "stdin", ChunkSize: &chunkSize})
	if err != nil {
		t.Fatal(err)
	}
	data := random(29, 3<<20)
	e.mustPut(opened.ID, data)
	if err := e.PutChunk(t.Context(), owner, opened.ID, 3, body([]byte("x"))); !errors.Is(err, upload.TooLarge) {
		t.Errorf("a chunk beyond the limit: %v", err)
	}
	size := int64(len(data))
	f, err := e.Complete(t.Context(), owner, opened.ID, ingest.CompleteRequest{Size: &size})
	if err != nil {
		t.Fatal(err)
	}
	e.mustRead(f.ID, data)
}

func TestPrefixOfAnOpenUpload(t *testing.T) {
	e := newEngine(t)
	data := random(30, 3<<20)
	id := e.mustBegin(data)
	for _, i := range []int{0, 2} {
		if err := e.PutChunk(t.Context(), owner, id, i, body(chunk(data, i))); err != nil {
			t.Fatal(err)
		}
	}
	p, err := e.Prefix(t.Context(), owner, id)
	if err != nil {
		t.Fatal(err)
	}
	defer p.Content.Close()
	got := make([]byte, p.Content.Size())
	if _, err := p.Content.ReadAt(got, 0); err != nil && len(got) > 0 {
		t.Fatal(err)
	}
	if string(got) != string(data[:1<<20]) {
		t.Errorf("%d bytes, want the first chunk", len(got))
	}
}

func TestBadRequestsChangeNothing(t *testing.T) {
	e := newEngine(t)
	negative, huge, zero, one := int64(-1), int64(1)<<62, int64(0), int64(1)
	for name, r := range map[string]ingest.InitRequest{
		"negative size": {Name: "a", Size: &negative},
		"huge size":     {Name: "a", Size: &huge},
		"no chunk size": {Name: "a", Size: &one, ChunkSize: &zero},
		"no name":       {Size: &one},
		"name a path":   {Name: "../a", Size: &one},
		"newline":       {Name: "a\r\nSet-Cookie: x", Size: &one},
		"NUL":           {Name: "a\x00", Size: &one},
		"path":          {Name: "a", Path: "../b", Size: &one},
		"metadata":      {Name: "a", Size: &one, Metadata: map[string]string{"": "x"}},
	} {
		if _, _, err := e.Init(t.Context(), owner, r); err == nil || upload.KindOf(err) == upload.Internal {
			t.Errorf("%s: %v", name, err)
		}
	}
	for u := range e.staging.All() {
		t.Errorf("an upload was opened: %+v", u.Spec)
	}
	if opened, _, err := e.Init(t.Context(), owner, ingest.InitRequest{Name: "e\u0301", Size: &one}); err != nil || opened.Upload.Name != "\u00e9" {
		t.Errorf("a name is kept in composed form: %q %v", opened.Upload.Name, err)
	}
}

// TestDoctor breaks a data directory in every way that it knows.
func TestDoctor(t *testing.T) {
	e := newEngine(t)
	ctx := t.Context()
	data := random(31, 1<<20)
	e.mustUpload(data)              // its staging copy is going to be damaged
	e.mustUpload(random(32, 1<<20)) // its object is going to be deleted
	e.transfer()
	blobs, err := e.db.Blobs(ctx, "", 10)
	if err != nil || len(blobs) != 2 {
		t.Fatal(err)
	}
	e.examine()
	damage := func(b upload.Blob) {
		// A copy, because the store's object is the same file.
		f, err := e.stagingMem.OpenFile("copy", vfs.ReadWrite|vfs.Create, 0o600)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := f.WriteAt(make([]byte, b.Size), 0); err != nil {
			t.Fatal(err)
		}
		if err := errors.Join(f.Close(), e.stagingMem.Rename("copy", b.Staging+".data")); err != nil {
			t.Fatal(err)
		}
	}
	damage(blobs[0])
	if err := e.local.Delete(ctx, blobs[1].ObjectKey); err != nil {
		t.Fatal(err)
	}
	if _, err := e.staging.WriteWhole(ctx, upload.NewUploadID("n1"), chunkstore.Body{Reader: body(data).Reader, Length: 1 << 20}, 1<<30); err != nil {
		t.Fatal(err)
	}
	for round, want := range []int{3, 3, 0} {
		var found []ingest.Finding
		err := e.Examine(ctx, ingest.ExamineOptions{Deep: true, Repair: round == 1}, func(f ingest.Finding) { found = append(found, f) })
		if err != nil || len(found) != want {
			t.Fatalf("round %d: want %d findings: %+v %v", round, want, found, err)
		}
	}
	e.transfer()
	e.examine()
	files, err := e.Files(ctx, meta.FileQuery{Owner: owner, Limit: 10})
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range files.Items {
		got, err := e.read(f.ID)
		if err != nil || upload.SumSHA1(got) != f.SHA1 {
			t.Errorf("file %s after repair: %v", f.ID, err)
		}
	}
}
