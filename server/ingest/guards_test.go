package ingest_test

import (
	"context"
	"errors"
	"slices"
	"sync"
	"testing"
	"time"

	"gantry/internal/vfs/faultfs"
	"gantry/meta"
	"gantry/server/ingest"
	"gantry/upload"
)

// Each of these fails when one guard is taken out that no other test misses.

// Requests with one Idempotency-Key that come at once begin one upload, and make one file of one copy
// of the bytes.
func TestOneKeyAtOnce(t *testing.T) {
	e := newEngine(t)
	data := random(40, 70_000)
	size := int64(1 << 20)
	e.stagingFault.SetHook(func(op faultfs.Op) error {
		if op.Kind == faultfs.Sync {
			time.Sleep(5 * time.Millisecond) // so that the others come before the first is done
		}
		return nil
	})
	uploads, files := make([]string, 4), make([]string, 4)
	var wg sync.WaitGroup
	for i := range uploads {
		wg.Go(func() {
			opened, _, err := e.Init(t.Context(), owner, ingest.InitRequest{Name: "a", Size: &size, Key: "chunks"})
			if err != nil {
				t.Error(err)
			}
			uploads[i] = opened.ID
			f, err := e.PutFile(t.Context(), owner, ingest.FileRequest{Name: "w", Key: "whole"}, body(data))
			if err != nil {
				t.Error(err)
			}
			files[i] = f.ID
		})
	}
	wg.Wait()
	if len(slices.Compact(uploads)) != 1 {
		t.Errorf("one key began several uploads: %q", uploads)
	}
	if len(slices.Compact(files)) != 1 {
		t.Errorf("one key made several files: %q", files)
	}
	if ids, err := e.staging.Data(); err != nil || len(ids) != 1 {
		t.Errorf("%d copies of the bytes, %v", len(ids), err)
	}
}

// fasterDB is a database in which somebody else is faster than a commit.
type fasterDB struct {
	meta.DB
	faster func()
}

func (f *fasterDB) CommitUpload(ctx context.Context, c meta.Commit) (meta.Answer, error) {
	f.faster()
	return f.DB.CommitUpload(ctx, c)
}

func (f *fasterDB) CommitInstant(ctx context.Context, c meta.Commit, blobID string) (meta.Answer, error) {
	f.faster()
	return f.DB.CommitInstant(ctx, c, blobID)
}

func (f *fasterDB) EndUpload(ctx context.Context, a meta.Answer) (meta.Answer, error) {
	f.faster()
	return f.DB.EndUpload(ctx, a)
}

// commit completes an upload as another request does, up to the answer in the database.
func (e *engine) commit(id string) upload.File {
	e.t.Helper()
	sealed, err := e.staging.Seal(e.t.Context(), id, upload.UnknownSize)
	if err != nil {
		e.t.Fatal(err)
	}
	a, err := e.db.CommitUpload(e.t.Context(), meta.Commit{
		UploadID: id, Answer: true, Sealed: sealed, Node: "n1", Store: "local", AnswerUntil: e.clock.now().Add(time.Hour),
		File: upload.File{ID: upload.NewID(e.clock.now()), Owner: owner, Name: "a", CreatedAt: e.clock.now()},
	})
	if err != nil {
		e.t.Fatal(err)
	}
	return *a.File
}

// A complete that a cancel was faster than does not turn the bytes into a blob's: no row knows them,
// and the cancel still has to find an upload to drop.
func TestCancelFasterThanCommit(t *testing.T) {
	e := newEngine(t)
	data := random(41, 1<<20+1)
	id := e.mustBegin(data)
	e.mustPut(id, data)
	e.DB = &fasterDB{DB: e.db, faster: func() {
		_, err := e.db.EndUpload(t.Context(), meta.Answer{
			UploadID: id, Owner: owner, State: upload.Cancelled, CreatedAt: e.clock.now(), ExpiresAt: e.clock.now().Add(time.Hour),
		})
		if err != nil {
			t.Error(err)
		}
	}}
	if _, err := e.Complete(t.Context(), owner, id, ingest.CompleteRequest{}); !errors.Is(err, upload.Gone) {
		t.Errorf("complete after a cancel: %v", err)
	}
	if ids, err := e.staging.Data(); err != nil || len(ids) > 0 {
		t.Errorf("the bytes of a cancelled upload are kept like a file's: %v %v", ids, err)
	}
}

// A proof is for the SHA-1 that was asked for.
func TestProofNamesItsDigest(t *testing.T) {
	e := newEngine(t)
	data := random(42, 1<<20)
	e.mustUpload(data)
	e.transfer()
	id := e.mustBegin(data)
	asked, err := e.Instant(t.Context(), owner, id, ingest.InstantRequest{SHA1: upload.SumSHA1(data)})
	if err != nil {
		t.Fatal(err)
	}
	r, err := e.Instant(t.Context(), owner, id, ingest.InstantRequest{
		SHA1: upload.SumSHA1(nil), Proof: prove(t, asked.Challenge, data),
	})
	if err != nil || r.Answer != nil {
		t.Errorf("a proof passed that names another digest: %+v %v", r, err)
	}
}

// An instant upload that a complete was faster than leaves the bytes alone: they are the file's.
func TestCompleteFasterThanInstant(t *testing.T) {
	e := newEngine(t)
	data := random(43, 1<<20+1)
	e.mustUpload(data)
	e.transfer()
	id := e.mustBegin(data)
	e.mustPut(id, data)
	e.DB = &fasterDB{DB: e.db, faster: func() { e.commit(id) }}
	r, err := e.instant(t.Context(), owner, id, data)
	if err != nil || r.Answer == nil || r.Answer.Instant {
		t.Fatalf("instant after a complete: %+v %v", r.Answer, err)
	}
	e.restart()
	e.mustRead(r.Answer.File.ID, data)
	e.examine()
}

// TestDamagedContentIsNotServed: once it is known that the bytes in staging are not those that were
// received, nobody gets them.
func TestDamagedContentIsNotServed(t *testing.T) {
	e := newEngine(t)
	data := random(44, 1<<20+1)
	f, err := e.PutFile(t.Context(), owner, ingest.FileRequest{Name: "a"}, body(data))
	if err != nil {
		t.Fatal(err)
	}
	ids, err := e.staging.Data()
	if err != nil || len(ids) != 1 {
		t.Fatal(ids, err)
	}
	flip(t, e, ids[0], 1000)
	e.transfer()
	if got, err := e.read(f.ID); !errors.Is(err, upload.Gone) {
		t.Errorf("%d bytes of damaged content were served: %v", len(got), err)
	}
}

// Nor does a cancel or the janitor drop the bytes of an upload that became a file in the last moment.
func TestCompleteFasterThanTheEnd(t *testing.T) {
	for name, end := range map[string]func(e *engine, id string) error{
		"cancel": func(e *engine, id string) error {
			if err := e.Cancel(e.t.Context(), owner, id); !errors.Is(err, upload.NotOpen) {
				return errors.Join(errors.New("a complete upload was cancelled"), err)
			}
			return nil
		},
		"expiry": func(e *engine, _ string) error {
			e.clock.advance(8 * 24 * time.Hour)
			return e.Clean(e.t.Context())
		},
	} {
		t.Run(name, func(t *testing.T) {
			e := newEngine(t)
			data := random(45, 1<<20+1)
			id := e.mustBegin(data)
			e.mustPut(id, data)
			var f upload.File
			e.DB = &fasterDB{DB: e.db, faster: func() { f = e.commit(id) }}
			if err := end(e, id); err != nil {
				t.Error(err)
			}
			e.restart()
			e.mustRead(f.ID, data)
			e.examine()
		})
	}
}

// TestClientGoesAwayAtTheEnd: what is about to be recorded is recorded and finished, though nobody
// waits for the answer any more.
func TestClientGoesAwayAtTheEnd(t *testing.T) {
	data := random(46, 1<<20+1)
	for name, last := range map[string]func(ctx context.Context, e *engine, id string) error{
		"complete": func(ctx context.Context, e *engine, id string) error {
			_, err := e.Complete(ctx, owner, id, ingest.CompleteRequest{})
			return err
		},
		"cancel": func(ctx context.Context, e *engine, id string) error { return e.Cancel(ctx, owner, id) },
		"instant": func(ctx context.Context, e *engine, id string) error {
			r, err := e.instant(ctx, owner, id, data)
			if err == nil && r.Answer == nil {
				err = errors.New("no file")
			}
			return err
		},
		"whole file": func(ctx context.Context, e *engine, _ string) error {
			_, err := e.PutFile(ctx, owner, ingest.FileRequest{Name: "w"}, body(data))
			return err
		},
	} {
		t.Run(name, func(t *testing.T) {
			e := newEngine(t)
			e.mustUpload(data)
			e.transfer()
			id := e.mustBegin(data)
			e.mustPut(id, data)
			ctx, cancel := context.WithCancel(t.Context())
			defer cancel()
			e.DB = &fasterDB{DB: e.db, faster: cancel}
			if err := last(ctx, e, id); err != nil {
				t.Error(err)
			}
			e.examine()
		})
	}
}
