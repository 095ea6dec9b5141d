package ingest_test

import (
	"context"
	"errors"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"gantry/internal/vfs/faultfs"
	"gantry/meta"
	"gantry/server/ingest"
	"gantry/store"
	"gantry/upload"
)

// TestSweepSparesWhatIsBeingWritten: no row knows a whole file that is still coming in.
func TestSweepSparesWhatIsBeingWritten(t *testing.T) {
	e := newEngine(t)
	data := random(50, 70_000)
	var once sync.Once
	e.stagingFault.SetHook(func(op faultfs.Op) error {
		if op.Kind == faultfs.Sync && strings.HasSuffix(op.Name, ".data") {
			once.Do(func() {
				if err := e.Sweep(t.Context()); err != nil {
					t.Error(err)
				}
			})
		}
		return nil
	})
	f, err := e.PutFile(t.Context(), owner, ingest.FileRequest{Name: "a"}, body(data))
	if err != nil {
		t.Fatal(err)
	}
	e.mustRead(f.ID, data)
}

// slowDB holds commits up until a sweep has asked which staging data is known.
type slowDB struct {
	meta.DB
	commit chan struct{} // closed: go on
	goOn   func()        // once
	done   func()        // waits for the end of who commits
}

func (s *slowDB) CommitUpload(ctx context.Context, c meta.Commit) (meta.Answer, error) {
	<-s.commit
	return s.DB.CommitUpload(ctx, c)
}

func (s *slowDB) KnownStaging(ctx context.Context, ids []string) (map[string]bool, error) {
	known, err := s.DB.KnownStaging(ctx, ids)
	s.goOn()
	s.done()
	return known, err
}

// TestSweepSparesWhatWasJustWritten: a whole file is committed right after the database was asked for
// it, so that neither the database's answer nor the list of what is being written has it. The sweep
// looked at that list before.
func TestSweepSparesWhatWasJustWritten(t *testing.T) {
	e := newEngine(t)
	data := random(51, 70_000)
	var wg sync.WaitGroup
	db := &slowDB{DB: e.db, commit: make(chan struct{}), done: wg.Wait}
	db.goOn = sync.OnceFunc(func() { close(db.commit) })
	e.DB = db
	var f upload.File
	var putErr error
	wg.Go(func() { f, putErr = e.PutFile(t.Context(), owner, ingest.FileRequest{Name: "a"}, body(data)) })
	for { // until it is written
		ids, err := e.staging.Data()
		if err != nil {
			t.Fatal(err)
		}
		if len(ids) == 1 {
			break
		}
		time.Sleep(time.Millisecond)
	}
	err := e.Sweep(t.Context())
	db.goOn()
	wg.Wait()
	if err != nil || putErr != nil {
		t.Fatal(err, putErr)
	}
	e.mustRead(f.ID, data)
}

func (e *engine) objects() []string {
	e.t.Helper()
	var keys []string
	for object, err := range e.local.List(e.t.Context()) {
		if err != nil {
			e.t.Fatal(err)
		}
		keys = append(keys, object.Key)
	}
	return keys
}

// putObject puts a blob's staged bytes into the store, as a worker does that then dies.
func (e *engine) putObject(b *upload.Blob) string {
	e.t.Helper()
	content, err := e.staging.Open(e.t.Context(), b.Staging)
	if err != nil {
		e.t.Fatal(err)
	}
	defer content.Close()
	key := upload.ObjectKeyFor(b)
	if err := e.local.Put(e.t.Context(), key, content, store.PutOptions{}); err != nil {
		e.t.Fatal(err)
	}
	return key
}

func (e *engine) blobOf(f upload.File) upload.Blob {
	e.t.Helper()
	b, err := e.db.Blob(e.t.Context(), f.BlobID)
	if err != nil {
		e.t.Fatal(err)
	}
	return b
}

// TestOrphanObjects: an object that no row refers to is deleted, but not at once; those that are in
// their store, and those about to be, stay.
func TestOrphanObjects(t *testing.T) {
	e := newEngine(t)
	stored := e.mustUpload(random(52, 1<<20))
	e.transfer()
	coming := e.blobOf(e.mustUpload(random(53, 1<<20)))
	orphan := coming
	orphan.ID = upload.NewID(e.clock.now())
	b := e.blobOf(stored)
	want := []string{upload.ObjectKeyFor(&b), e.putObject(&coming), e.putObject(&orphan)}
	sweep := func(after time.Duration) {
		t.Helper()
		e.clock.advance(after)
		if err := e.Sweep(t.Context()); err != nil {
			t.Fatal(err)
		}
		slices.Sort(want)
		if got := e.objects(); !slices.Equal(got, want) {
			t.Errorf("objects %q, want %q", got, want)
		}
	}
	sweep(time.Minute)
	want = slices.DeleteFunc(want, func(key string) bool { return key == upload.ObjectKeyFor(&orphan) })
	sweep(2 * time.Hour)
}

// TestCollectedBlobTakesItsObjectAlong: also one that its worker put and did not live to record.
func TestCollectedBlobTakesItsObjectAlong(t *testing.T) {
	e := newEngine(t)
	f := e.mustUpload(random(54, 1<<20))
	b := e.blobOf(f)
	e.putObject(&b)
	if err := e.DeleteFile(t.Context(), owner, f.ID); err != nil {
		t.Fatal(err)
	}
	e.clock.advance(2 * time.Hour)
	if err := e.Clean(t.Context()); err != nil {
		t.Fatal(err)
	}
	if keys := e.objects(); len(keys) > 0 {
		t.Errorf("left: %q", keys)
	}
	e.examine()
}

// TestBytesGoBeforeTheirRow: while the bytes of a blob cannot be deleted its row stays, or nobody
// would know of them.
func TestBytesGoBeforeTheirRow(t *testing.T) {
	for name, fault := range map[string]func(e *engine) *faultfs.FS{
		"store":   func(e *engine) *faultfs.FS { return e.storeFault },
		"staging": func(e *engine) *faultfs.FS { return e.stagingFault },
	} {
		t.Run(name, func(t *testing.T) {
			e := newEngine(t)
			f := e.mustUpload(random(55, 1<<20))
			e.transfer()
			if err := e.DeleteFile(t.Context(), owner, f.ID); err != nil {
				t.Fatal(err)
			}
			e.Service = ingest.New(ingest.Options{Node: "n1", Route: toLocal, StageGrace: 100 * time.Hour}, e.Deps)
			e.clock.advance(2 * time.Hour)
			fs := fault(e)
			fs.SetHook(func(op faultfs.Op) error {
				if op.Kind == faultfs.Remove {
					return syscall.EIO
				}
				return nil
			})
			if err := e.Clean(t.Context()); err == nil {
				t.Error("a failing disk was not noticed")
			}
			e.blobOf(f)
			fs.SetHook(nil)
			if err := e.Clean(t.Context()); err != nil {
				t.Fatal(err)
			}
			if _, err := e.db.Blob(t.Context(), f.BlobID); !errors.Is(err, upload.NotFound) {
				t.Errorf("the row is still there: %v", err)
			}
			ids, err := e.staging.Data()
			if keys := e.objects(); len(keys)+len(ids) > 0 || err != nil {
				t.Errorf("left: %q %q %v", keys, ids, err)
			}
		})
	}
}

// TestBlobOfAnUnknownStoreStays: its object would be left behind for good.
func TestBlobOfAnUnknownStoreStays(t *testing.T) {
	e := newEngine(t)
	f := e.mustUpload(random(56, 1<<20))
	e.transfer()
	if err := e.DeleteFile(t.Context(), owner, f.ID); err != nil {
		t.Fatal(err)
	}
	e.clock.advance(2 * time.Hour)
	stores := e.Stores
	e.Stores = map[string]store.Store{}
	if err := e.Clean(t.Context()); !errors.Is(err, upload.Unavailable) {
		t.Errorf("the store is not configured: %v", err)
	}
	e.Stores = stores
	e.blobOf(f)
	if err := e.Clean(t.Context()); err != nil {
		t.Fatal(err)
	}
	if keys := e.objects(); len(keys) > 0 {
		t.Errorf("left: %q", keys)
	}
}

// TestStagingCopyThatCannotBeDropped is tried again: its row knows of it until it is gone.
func TestStagingCopyThatCannotBeDropped(t *testing.T) {
	e := newEngine(t)
	data := random(57, 1<<20)
	f := e.mustUpload(data)
	e.transfer()
	e.clock.advance(time.Hour)
	e.stagingFault.SetHook(faultfs.FailNth(1, syscall.EIO, func(op faultfs.Op) bool { return op.Kind == faultfs.Remove }))
	if err := e.Clean(t.Context()); err == nil {
		t.Error("a failing disk was not noticed")
	}
	if err := e.Clean(t.Context()); err != nil {
		t.Fatal(err)
	}
	if ids, err := e.staging.Data(); err != nil || len(ids) > 0 {
		t.Errorf("left: %q %v", ids, err)
	}
	e.mustRead(f.ID, data)
}
