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

// fasterDB is a database in which somebody else's answer comes right before a commit.
type fasterDB struct {
	meta.DB
	faster func()
}

func (f *fasterDB) CommitUpload(ctx context.Context, c meta.Commit) (meta.Answer, error) {
	f.faster()
	return f.DB.CommitUpload(ctx, c)
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
