package ingest_test

import (
	"bytes"
	"context"
	"errors"
	"slices"
	"sync"
	"testing"
	"time"

	"gantry/internal/testenv"
	"gantry/internal/vfs"
	"gantry/meta"
	"gantry/server/ingest"
	"gantry/upload"
)

// The names say which fault of docs/faults.md a test is for.

func TestFault06FlippedBitIsNamedAndHeals(t *testing.T) {
	e := newEngine(t)
	data := random(1, 3<<20)
	for _, announce := range []bool{true, false} {
		id := e.mustBegin(data)
		e.mustPut(id, data)
		e.clock.advance(time.Second)
		flip(t, e, id, 1<<20+5)
		var r ingest.CompleteRequest
		if sha1 := upload.SumSHA1(data); announce {
			r.SHA1 = &sha1
		}
		_, err := e.Complete(t.Context(), owner, id, r)
		var got *upload.Error
		if !errors.As(err, &got) || got.Kind != upload.Incomplete || !slices.Equal(got.Ranges, []upload.Range{{First: 1, Last: 1}}) {
			t.Fatalf("complete does not name the damaged chunk: %v", err)
		}
		if err := e.PutChunk(t.Context(), owner, id, 1, body(chunk(data, 1))); err != nil {
			t.Fatal(err)
		}
		f, err := e.Complete(t.Context(), owner, id, r)
		if err != nil {
			t.Fatal(err)
		}
		e.mustRead(f.ID, data)
	}
}

// flip changes a byte of an upload's data on the disk.
func flip(t *testing.T, e *engine, id string, off int64) {
	t.Helper()
	f, err := e.stagingMem.OpenFile(id+".data", vfs.ReadWrite, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	var b [1]byte
	if _, err := f.ReadAt(b[:], off); err != nil {
		t.Fatal(err)
	}
	b[0] ^= 1
	if _, err := f.WriteAt(b[:], off); err != nil {
		t.Fatal(err)
	}
}

func TestFault08CompleteCompleteChunkCancel(t *testing.T) {
	e := newEngine(t)
	data := random(2, 2<<20)
	for round := range 30 {
		id := e.mustBegin(data)
		e.mustPut(id, data)
		var wg sync.WaitGroup
		var mu sync.Mutex
		ids := map[string]bool{}
		var completeErrs []error
		for range 2 {
			wg.Go(func() {
				f, err := e.Complete(t.Context(), owner, id, ingest.CompleteRequest{})
				mu.Lock()
				defer mu.Unlock()
				if err == nil {
					ids[f.ID] = true
				} else {
					completeErrs = append(completeErrs, err)
				}
			})
		}
		wg.Go(func() {
			err := e.PutChunk(t.Context(), owner, id, 0, body(chunk(data, 0)))
			if err != nil && !errors.Is(err, upload.NotOpen) && !errors.Is(err, upload.NotFound) {
				t.Errorf("chunk: %v", err)
			}
		})
		var cancelErr error
		wg.Go(func() { cancelErr = e.Cancel(t.Context(), owner, id) })
		wg.Wait()
		status, err := e.Status(t.Context(), owner, id)
		if err != nil {
			t.Fatal(err)
		}
		switch status.State {
		case upload.Complete:
			if len(ids) != 1 || len(completeErrs) > 0 || !errors.Is(cancelErr, upload.NotOpen) {
				t.Fatalf("round %d: complete: files %v, errors %v, cancel %v", round, ids, completeErrs, cancelErr)
			}
			e.mustRead(status.Answer.File.ID, data)
		case upload.Cancelled:
			if len(ids) != 0 || cancelErr != nil {
				t.Fatalf("round %d: cancelled: files %v, cancel %v", round, ids, cancelErr)
			}
			for _, err := range completeErrs {
				if !errors.Is(err, upload.Gone) && !errors.Is(err, upload.NotFound) {
					t.Fatalf("round %d: complete of a cancelled upload: %v", round, err)
				}
			}
		default:
			t.Fatalf("round %d: state %s", round, status.State)
		}
	}
	e.examine()
}

// flakyDB fails commits: before they happen, or after, when nobody can know.
type flakyDB struct {
	meta.DB
	before, after bool
}

var errGone = upload.Errorf(upload.Unavailable, "test", "", "the database went away")

func (f *flakyDB) CommitUpload(ctx context.Context, c meta.Commit) (meta.Answer, error) {
	if f.before {
		return meta.Answer{}, errGone
	}
	a, err := f.DB.CommitUpload(ctx, c)
	if f.after {
		return meta.Answer{}, errGone
	}
	return a, err
}

func TestFault11DatabaseGoneAtCommit(t *testing.T) {
	for _, outcome := range []string{"not committed", "committed, not known"} {
		t.Run(outcome, func(t *testing.T) {
			e := newEngine(t)
			flaky := &flakyDB{DB: e.db, before: outcome == "not committed", after: outcome != "not committed"}
			e.DB = flaky
			data := random(3, 1<<20+7)
			id := e.mustBegin(data)
			e.mustPut(id, data)
			if _, err := e.Complete(t.Context(), owner, id, ingest.CompleteRequest{}); !errors.Is(err, upload.Unavailable) {
				t.Fatalf("complete: %v", err)
			}
			if _, err := e.PutFile(t.Context(), owner, ingest.FileRequest{Name: "w", Key: "k"}, body(data)); !errors.Is(err, upload.Unavailable) {
				t.Fatalf("whole file: %v", err)
			}
			if err := e.Clean(t.Context()); err != nil { // the janitor must not take it for garbage
				t.Fatal(err)
			}
			flaky.before, flaky.after = false, false
			f, err := e.Complete(t.Context(), owner, id, ingest.CompleteRequest{})
			if err != nil {
				t.Fatal(err)
			}
			again, err := e.Complete(t.Context(), owner, id, ingest.CompleteRequest{})
			if err != nil || again.ID != f.ID {
				t.Fatalf("repeated complete: %s %v, want %s", again.ID, err, f.ID)
			}
			w, err := e.PutFile(t.Context(), owner, ingest.FileRequest{Name: "w", Key: "k"}, body(data))
			if err != nil {
				t.Fatal(err)
			}
			e.restart()
			e.mustRead(f.ID, data)
			e.mustRead(w.ID, data)
			files, err := e.Files(t.Context(), meta.FileQuery{Owner: owner, Limit: 10})
			if err != nil || len(files.Items) != 2 {
				t.Fatalf("%d files, %v", len(files.Items), err)
			}
			e.examine()
		})
	}
}

func TestFault12CrashBeforeCommit(t *testing.T) {
	e := newEngine(t)
	data := random(4, 1<<20+7)
	id := e.mustBegin(data)
	e.mustPut(id, data)
	if _, err := e.staging.Seal(t.Context(), id, upload.UnknownSize); err != nil {
		t.Fatal(err)
	}
	whole := upload.NewUploadID("n1")
	if _, err := e.staging.WriteWhole(t.Context(), whole, body(data), 1<<30); err != nil {
		t.Fatal(err)
	}
	e.powerCut(4)
	if ids, err := e.staging.Data(); err != nil || len(ids) != 0 {
		t.Errorf("a whole file that was not committed is left: %v %v", ids, err)
	}
	f, err := e.Complete(t.Context(), owner, id, ingest.CompleteRequest{})
	if err != nil {
		t.Fatal(err)
	}
	e.mustRead(f.ID, data)
}

func TestFault13CrashAfterCommit(t *testing.T) {
	e := newEngine(t)
	data := random(5, 1<<20+7)
	id := e.mustBegin(data)
	e.mustPut(id, data)
	sealed, err := e.staging.Seal(t.Context(), id, upload.UnknownSize)
	if err != nil {
		t.Fatal(err)
	}
	a, err := e.db.CommitUpload(t.Context(), meta.Commit{
		UploadID: id, Answer: true, File: upload.File{ID: upload.NewID(e.clock.now()), Owner: owner, Name: "a", CreatedAt: e.clock.now()},
		Sealed: sealed, Node: "n1", Store: "local", AnswerUntil: e.clock.now().Add(time.Hour),
	})
	if err != nil {
		t.Fatal(err)
	}
	e.powerCut(5)
	f, err := e.Complete(t.Context(), owner, id, ingest.CompleteRequest{})
	if err != nil || f.ID != a.File.ID {
		t.Fatalf("complete after the crash: %s %v, want %s", f.ID, err, a.File.ID)
	}
	e.mustRead(f.ID, data)
	for u := range e.staging.All() {
		t.Errorf("upload %s is still open", u.ID)
	}
}

func TestFault14InstantDeleteCollect(t *testing.T) {
	e := newEngine(t)
	data := random(6, 1<<20)
	for round := range 30 {
		f := e.mustUpload(data)
		e.transfer()
		id := e.mustBegin(data)
		asked, err := e.Instant(t.Context(), owner, id, ingest.InstantRequest{SHA1: upload.SumSHA1(data)})
		if err != nil {
			t.Fatal(err)
		}
		proof := prove(t, asked.Challenge, data)
		var wg sync.WaitGroup
		var result ingest.InstantResult
		wg.Go(func() {
			var err error
			result, err = e.Instant(t.Context(), owner, id, ingest.InstantRequest{SHA1: upload.SumSHA1(data), Proof: proof})
			if err != nil {
				t.Error(err)
			}
		})
		wg.Go(func() {
			if err := e.DeleteFile(t.Context(), owner, f.ID); err != nil {
				t.Error(err)
			}
			e.clock.advance(2 * time.Hour) // past the grace time
			if err := e.Clean(t.Context()); err != nil {
				t.Error(err)
			}
		})
		wg.Wait()
		if t.Failed() {
			return
		}
		if result.Answer != nil {
			e.mustRead(result.Answer.File.ID, data)
			if err := e.DeleteFile(t.Context(), owner, result.Answer.File.ID); err != nil {
				t.Fatal(err)
			}
		} else { // the blob was gone: the upload goes on
			e.mustPut(id, data)
			g, err := e.Complete(t.Context(), owner, id, ingest.CompleteRequest{})
			if err != nil {
				t.Fatalf("round %d: %v", round, err)
			}
			e.mustRead(g.ID, data)
			if err := e.DeleteFile(t.Context(), owner, g.ID); err != nil {
				t.Fatal(err)
			}
		}
	}
	e.clock.advance(2 * time.Hour)
	e.transfer()
	if err := e.Clean(t.Context()); err != nil {
		t.Fatal(err)
	}
	e.examine()
}

func TestFault15TwinsBecomeOne(t *testing.T) {
	e := newEngine(t)
	data := random(7, 1<<20+1)
	files := []upload.File{e.mustUpload(data), e.mustUpload(data), e.mustUpload(data)}
	e.transfer()
	e.clock.advance(2 * time.Hour)
	if err := e.Clean(t.Context()); err != nil {
		t.Fatal(err)
	}
	for _, f := range files {
		e.mustRead(f.ID, data)
	}
	blobs, err := e.db.Blobs(t.Context(), "", 10)
	if err != nil || len(blobs) != 1 || blobs[0].Refs != 3 {
		t.Fatalf("want one blob with 3 references: %+v %v", blobs, err)
	}
	e.examine()
}

// collision returns two different contents with one SHA-1 (the "shattered" pair), made long enough
// for instant upload by the same bytes behind both.
func collision(t *testing.T) (a, b []byte) {
	t.Helper()
	pair := testenv.Collisions(t)["shattered"]
	a, b = append(pair[0], make([]byte, 1<<20)...), append(pair[1], make([]byte, 1<<20)...)
	if bytes.Equal(a, b) || upload.SumSHA1(a) != upload.SumSHA1(b) {
		t.Fatal("not a collision pair")
	}
	return a, b
}

func TestFault16CollisionPair(t *testing.T) {
	e := newEngine(t)
	a, b := collision(t)
	fa, fb := e.mustUpload(a), e.mustUpload(b)
	e.mustRead(fa.ID, a)
	e.mustRead(fb.ID, b)
	e.transfer()
	e.clock.advance(2 * time.Hour)
	if err := e.Clean(t.Context()); err != nil {
		t.Fatal(err)
	}
	e.mustRead(fa.ID, a)
	e.mustRead(fb.ID, b)
	for _, data := range [][]byte{a, b} { // instant upload is off for this key
		if r, err := e.instant(t.Context(), owner, e.mustBegin(data), data); err != nil || r.Answer != nil {
			t.Errorf("instant upload of a collision: %+v %v", r, err)
		}
	}
	e.examine()
}

func TestFault16CollisionCannotClaimTheOther(t *testing.T) {
	e := newEngine(t)
	a, b := collision(t)
	fa := e.mustUpload(a)
	e.transfer()
	id := e.mustBegin(b)
	if r, err := e.instant(t.Context(), owner, id, b); err != nil || r.Answer != nil {
		t.Fatalf("the other file of the pair passed as this one: %+v %v", r, err)
	}
	e.mustPut(id, b)
	fb, err := e.Complete(t.Context(), owner, id, ingest.CompleteRequest{})
	if err != nil {
		t.Fatal(err)
	}
	e.mustRead(fa.ID, a)
	e.mustRead(fb.ID, b)
}

func TestFault17Proofs(t *testing.T) {
	e := newEngine(t)
	data, other := random(8, 2<<20), random(9, 2<<20)
	e.mustUpload(data)
	e.transfer()
	sha1 := upload.SumSHA1(data)
	ask := func(id string) *upload.Challenge {
		t.Helper()
		r, err := e.Instant(t.Context(), owner, id, ingest.InstantRequest{SHA1: sha1})
		if err != nil || r.Challenge == nil {
			t.Fatalf("no challenge: %+v %v", r, err)
		}
		return r.Challenge
	}
	answer := func(id string, p *upload.Proof) bool {
		t.Helper()
		r, err := e.Instant(t.Context(), owner, id, ingest.InstantRequest{SHA1: sha1, Proof: p})
		if err != nil {
			t.Fatal(err)
		}
		return r.Answer != nil
	}
	id, second := e.mustBegin(data), e.mustBegin(data)
	if answer(second, prove(t, ask(id), data)) {
		t.Error("a proof for one upload served another")
	}
	late := prove(t, ask(id), data)
	e.clock.advance(upload.ChallengeTTL + time.Second)
	if answer(id, late) {
		t.Error("an expired challenge was accepted")
	}
	c := ask(id)
	wrong := prove(t, c, data)
	wrong.Leaves[3].Data = slices.Clone(wrong.Leaves[3].Data)
	wrong.Leaves[3].Data[0] ^= 1
	if answer(id, wrong) {
		t.Error("a wrong proof was accepted")
	}
	if answer(id, prove(t, c, data)) {
		t.Error("a challenge was answered twice")
	}
	stranger, err := e.begin(data)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := e.Instant(t.Context(), "mallory", stranger.ID, ingest.InstantRequest{SHA1: sha1}); !errors.Is(err, upload.NotFound) {
		t.Errorf("another owner's upload: %v", err)
	}
	unknown := e.mustBegin(other)
	if r, err := e.instant(t.Context(), owner, unknown, other); err != nil || r.Answer != nil {
		t.Errorf("a decoy was satisfied: %+v %v", r, err)
	}
	if !answer(id, prove(t, ask(id), data)) {
		t.Error("the right proof was refused")
	}
}

// Who lacks some leaves must not be able to ask until he is asked for none of them.
func TestAskingAgainAsksTheSame(t *testing.T) {
	e := newEngine(t)
	data := random(10, 2<<20)
	e.mustUpload(data)
	e.transfer()
	ask := func(sha1 upload.SHA1) *upload.Challenge {
		t.Helper()
		r, err := e.Instant(t.Context(), owner, e.mustBegin(data), ingest.InstantRequest{SHA1: sha1})
		if err != nil || r.Challenge == nil {
			t.Fatalf("no challenge: %+v %v", r, err)
		}
		return r.Challenge
	}
	known, unknown := upload.SumSHA1(data), upload.SHA1{1}
	first, decoy := ask(known), ask(unknown)
	for range 3 {
		if c := ask(known); c.ID == first.ID || !slices.Equal(c.Leaves, first.Leaves) {
			t.Errorf("asked %v, before %v", c.Leaves, first.Leaves)
		}
		if c := ask(unknown); !slices.Equal(c.Leaves, decoy.Leaves) {
			t.Errorf("decoy %v, before %v", c.Leaves, decoy.Leaves)
		}
	}
	if slices.Equal(first.Leaves, decoy.Leaves) {
		t.Error("other content is asked for the same leaves")
	}
	e.clock.advance(24 * time.Hour)
	if c := ask(known); slices.Equal(c.Leaves, first.Leaves) {
		t.Error("the leaves never change")
	}
}

func TestRepeatedWrongProofsGetDecoysOnly(t *testing.T) {
	e := newEngine(t)
	data := random(10, 1<<20)
	e.mustUpload(data)
	e.transfer()
	sha1 := upload.SumSHA1(data)
	id := e.mustBegin(data)
	for range 5 {
		r, err := e.Instant(t.Context(), owner, id, ingest.InstantRequest{SHA1: sha1})
		if err != nil {
			t.Fatal(err)
		}
		p := prove(t, r.Challenge, data)
		p.Leaves[0].Data = random(11, upload.LeafSize)
		if r, err := e.Instant(t.Context(), owner, id, ingest.InstantRequest{SHA1: sha1, Proof: p}); err != nil || r.Answer != nil {
			t.Fatalf("wrong proof: %+v %v", r, err)
		}
	}
	if r, err := e.instant(t.Context(), owner, id, data); err != nil || r.Answer != nil {
		t.Errorf("after five wrong proofs a right one must meet a decoy: %+v %v", r, err)
	}
	e.clock.advance(2 * time.Hour)
	if r, err := e.instant(t.Context(), owner, id, data); err != nil || r.Answer == nil {
		t.Errorf("after a while instant upload must work again: %+v %v", r, err)
	}
}

func TestFault23StoreDownStagingFull(t *testing.T) {
	e := newEngine(t)
	data := random(12, 2<<20)
	open := e.mustBegin(data)
	f := e.mustUpload(random(13, 1<<20))
	e.stagingMem.SetSpace(100<<20, 1<<20) // less is free than is promised to the open upload
	e.clock.advance(2 * time.Second)
	if _, err := e.begin(data); !errors.Is(err, upload.NoRoom) {
		t.Errorf("init on a full disk: %v", err)
	}
	e.mustPut(open, data)
	g, err := e.Complete(t.Context(), owner, open, ingest.CompleteRequest{})
	if err != nil {
		t.Fatalf("an open upload must go on: %v", err)
	}
	e.clock.advance(48 * time.Hour) // nothing was transferred: nothing may be dropped
	if err := e.Clean(t.Context()); err != nil {
		t.Fatal(err)
	}
	e.mustRead(f.ID, random(13, 1<<20))
	e.mustRead(g.ID, data)
}

func TestFault24ClockJumps(t *testing.T) {
	e := newEngine(t)
	data := random(14, 2<<20)
	for _, jump := range []time.Duration{time.Hour, -2 * time.Hour, time.Hour} {
		id := e.mustBegin(data)
		if err := e.PutChunk(t.Context(), owner, id, 0, body(chunk(data, 0))); err != nil {
			t.Fatal(err)
		}
		f := e.mustUpload(random(15, 1<<20))
		e.clock.advance(jump)
		if err := e.Clean(t.Context()); err != nil {
			t.Fatal(err)
		}
		e.transfer()
		e.mustPut(id, data)
		g, err := e.Complete(t.Context(), owner, id, ingest.CompleteRequest{})
		if err != nil {
			t.Fatalf("after a jump of %v: %v", jump, err)
		}
		e.mustRead(f.ID, random(15, 1<<20))
		e.mustRead(g.ID, data)
	}
	e.clock.advance(24 * time.Hour)
	e.transfer()
	if err := e.Clean(t.Context()); err != nil {
		t.Fatal(err)
	}
	e.examine()
}

func TestFault25StagingRestoredFromAnOldCopy(t *testing.T) {
	e := newEngine(t)
	old := e.stagingMem.Kill() // a copy of the directory as it is now
	data := random(16, 1<<20+9)
	f := e.mustUpload(data)
	stored := e.mustUpload(random(17, 1<<20))
	cancelled := e.mustBegin(data)
	e.close()
	e.stagingMem = old
	e.open()
	if _, err := e.read(f.ID); !errors.Is(err, upload.Gone) {
		t.Errorf("a file whose bytes are not there: %v", err)
	}
	if err := e.Cancel(t.Context(), owner, cancelled); !errors.Is(err, upload.NotFound) {
		t.Errorf("an upload that the old copy does not have: %v", err)
	}
	// The doctor says so, and marks what is lost.
	var findings []ingest.Finding
	if err := e.Examine(t.Context(), ingest.ExamineOptions{Repair: true}, func(f ingest.Finding) { findings = append(findings, f) }); err != nil {
		t.Fatal(err)
	}
	if len(findings) != 2 {
		t.Errorf("findings: %+v", findings)
	}
	if _, err := e.read(stored.ID); !errors.Is(err, upload.Gone) {
		t.Errorf("a lost file: %v", err)
	}
	e.examine()
	g := e.mustUpload(data)
	e.mustRead(g.ID, data)
}

// TestLostContentHeals: when a blob's bytes are gone, uploading the same content brings its files back.
func TestLostContentHeals(t *testing.T) {
	e := newEngine(t)
	data := random(18, 1<<20+9)
	f := e.mustUpload(data)
	e.transfer()
	e.clock.advance(time.Hour)
	if err := e.Clean(t.Context()); err != nil { // the staging copy is dropped
		t.Fatal(err)
	}
	for object, err := range e.local.List(t.Context()) {
		if err != nil {
			t.Fatal(err)
		}
		if err := e.local.Delete(t.Context(), object.Key); err != nil {
			t.Fatal(err)
		}
	}
	found := 0
	if err := e.Examine(t.Context(), ingest.ExamineOptions{Repair: true}, func(ingest.Finding) { found++ }); err != nil || found != 1 {
		t.Fatalf("doctor found %d, %v", found, err)
	}
	if _, err := e.read(f.ID); !errors.Is(err, upload.Gone) {
		t.Fatalf("a lost file: %v", err)
	}
	e.mustUpload(data)
	e.transfer()
	e.mustRead(f.ID, data)
	e.examine()
}
