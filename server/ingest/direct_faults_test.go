package ingest_test

import (
	"context"
	"errors"
	"net/http"
	"slices"
	"strings"
	"testing"
	"time"

	"gantry/meta"
	"gantry/server/ingest"
	"gantry/store"
	"gantry/upload"
)

// failOnce makes one call of the store fail.
func (e *engine) failOnce(op string) {
	failed := false
	e.direct.Hook(func(now string) error {
		if now != op || failed {
			return nil
		}
		failed = true
		return upload.Errorf(upload.Unavailable, op, "", "The store does not answer.")
	})
}

// sweepLater is the janitor's sweep at a time when all objects are old enough.
func (e *engine) sweepLater() error {
	now := e.clock.now()
	defer func() { e.clock.advance(now.Sub(e.clock.now())) }()
	e.clock.advance(time.Now().Add(2 * time.Hour).Sub(now)) // the store has a clock of its own
	return e.Sweep(e.t.Context())
}

// commitDB is a database in which the commit of direct uploads fails once.
type commitDB struct {
	meta.DB
	before, after bool
}

func (db *commitDB) CommitDirect(ctx context.Context, c meta.Commit) (meta.Answer, error) {
	lost := upload.Errorf(upload.Unavailable, "test", "", "The database does not answer.")
	if db.before {
		db.before = false
		return meta.Answer{}, lost
	}
	a, err := db.DB.CommitDirect(ctx, c)
	if db.after {
		db.after = false
		return meta.Answer{}, lost
	}
	return a, err
}

// Wherever complete is cut off, and the node is killed, it can be repeated: there is one file then, with the bytes that were
// sent, and nothing else is left in the store.
func TestDirectCompleteIsRepeatable(t *testing.T) {
	cuts := map[string]func(e *engine){}
	for _, op := range []string{"Parts", "Parts done", "Complete", "Complete done", "Size", "Size done"} {
		cuts[op] = func(e *engine) { e.failOnce(op) }
	}
	for name, db := range map[string]commitDB{"before the commit": {before: true}, "after the commit": {after: true}} {
		cuts[name] = func(e *engine) {
			deps, failing := e.Deps, db
			failing.DB = e.db
			deps.DB = &failing
			e.Service = ingest.New(ingest.Options{Node: "n1", Route: toLocal}, deps)
		}
	}
	for name, cut := range cuts {
		for _, killed := range []bool{false, true} {
			t.Run(name, func(t *testing.T) {
				e := newDirectEngine(t)
				data := random(20, 3<<20+1)
				opened := e.mustBeginDirect(data)
				e.mustSend(&opened, data)
				cut(e)
				if _, err := e.complete(opened.ID, nil); !errors.Is(err, upload.Unavailable) {
					t.Fatalf("cut off: %v", err)
				}
				if killed {
					e.kill()
				}
				// Meanwhile the janitor comes by, and takes nothing for garbage.
				if err := errors.Join(e.Clean(t.Context()), e.sweepLater()); err != nil {
					t.Fatal(err)
				}
				status, err := e.Status(t.Context(), owner, opened.ID)
				if err != nil || status.State == upload.Open && len(status.Upload.Missing()) > 0 {
					t.Errorf("status: %+v %v", status, err)
				}
				f, err := e.complete(opened.ID, nil)
				if err != nil {
					t.Fatal(err)
				}
				e.mustRead(f.ID, data)
				e.transfer()
				e.examine()
				if page, err := e.Files(t.Context(), meta.FileQuery{Owner: owner, Limit: 10}); err != nil || len(page.Items) != 1 {
					t.Errorf("files: %+v %v", page, err)
				}
				if open, keys := e.direct.OpenUploads(), e.objectKeys(); len(open) != 0 || len(keys) != 1 {
					t.Errorf("in the store: uploads %v, objects %v", open, keys)
				}
			})
		}
	}
}

func TestDirectCompleteTellsWhatIsMissing(t *testing.T) {
	e := newDirectEngine(t)
	data := random(21, 4<<20+7)
	opened := e.mustBeginDirect(data)
	sends := func(index int, body []byte) {
		t.Helper()
		if status := sendTo(t, opened.URLs.Parts[index].URL, body); status != http.StatusOK {
			t.Fatal(status)
		}
	}
	missing := func(want ...upload.Range) {
		t.Helper()
		_, err := e.complete(opened.ID, nil)
		if e, ok := errors.AsType[*upload.Error](err); !ok || e.Kind != upload.Incomplete || !slices.Equal(e.Ranges, want) {
			t.Errorf("completed: %v, want %v", err, want)
		}
	}
	missing(upload.Range{First: 0, Last: 4})
	sends(0, chunk(data, 0))
	sends(1, chunk(data, 1)[1:])                      // too short
	sends(2, append(chunk(data, 2)[:1<<20:1<<20], 0)) // too long
	sends(4, chunk(data, 0))                          // the last one has the rest
	missing(upload.Range{First: 1, Last: 4})
	for i := 1; i < 5; i++ {
		sends(i, chunk(data, i))
	}
	f, err := e.complete(opened.ID, nil)
	if err != nil {
		t.Fatal(err)
	}
	e.mustRead(f.ID, data)
}

// A cancel, or an instant upload, that comes while the store is at work decides, and nothing is left.
func TestDirectCompleteMeetsCancel(t *testing.T) {
	for _, op := range []string{"Parts", "Complete", "Complete, too late to abort", "Complete done", "Size done"} {
		t.Run(op, func(t *testing.T) {
			e := newDirectEngine(t)
			data := random(22, 2<<20)
			opened := e.mustBeginDirect(data)
			e.mustSend(&opened, data)
			e.direct.Hook(func(now string) error {
				at, late := strings.CutSuffix(op, ", too late to abort")
				if now != at {
					return nil
				}
				e.direct.Hook(nil)
				if late { // the store has begun to make the object, which appears after the cancel
					defer e.direct.Remember()()
				}
				return e.Cancel(context.Background(), owner, opened.ID)
			})
			if _, err := e.complete(opened.ID, nil); !errors.Is(err, upload.Gone) {
				t.Errorf("completed: %v", err)
			}
			if status, err := e.Status(t.Context(), owner, opened.ID); err != nil || status.State != upload.Cancelled {
				t.Errorf("status: %+v %v", status, err)
			}
			e.nothingLeft()
		})
	}
}

func TestDirectCancel(t *testing.T) {
	e := newDirectEngine(t)
	data := random(23, 2<<20)
	// With the store away it is cancelled all the same, and cleaned up later.
	opened := e.mustBeginDirect(data)
	e.mustSend(&opened, data)
	e.direct.Hook(func(op string) error { return upload.Errorf(upload.Unavailable, op, "", "The store is away.") })
	for range 2 {
		if err := e.Cancel(t.Context(), owner, opened.ID); err != nil {
			t.Fatal(err)
		}
	}
	if err := e.Clean(t.Context()); !errors.Is(err, upload.Unavailable) {
		t.Errorf("cleaned with the store away: %v", err)
	}
	if n := len(e.direct.OpenUploads()); n != 1 {
		t.Errorf("%d uploads in the store", n)
	}
	e.direct.Hook(nil)
	e.kill()
	e.nothingLeft()
	if _, err := e.complete(opened.ID, nil); !errors.Is(err, upload.Gone) {
		t.Errorf("completed: %v", err)
	}
	// A file is not cancelled.
	f := e.mustUploadDirect(data)
	opened = e.mustBeginDirect(data)
	e.mustSend(&opened, data)
	if _, err := e.complete(opened.ID, nil); err != nil {
		t.Fatal(err)
	}
	if err := e.Cancel(t.Context(), owner, opened.ID); !errors.Is(err, upload.NotOpen) {
		t.Errorf("cancelled after complete: %v", err)
	}
	e.mustRead(f.ID, data)
}

// One that nobody goes on with expires, also when the store had made its object already. Who asks for URLs goes on.
func TestDirectUploadsExpire(t *testing.T) {
	e := newDirectEngine(t)
	data := random(24, 2<<20)
	idle, whole, used := e.mustBeginDirect(data), e.mustBeginDirect(data), e.mustBeginDirect(data)
	for _, opened := range []*ingest.Opened{&idle, &whole, &used} {
		e.mustSend(opened, data)
	}
	e.failOnce("Complete done")
	if _, err := e.complete(whole.ID, nil); !errors.Is(err, upload.Unavailable) {
		t.Fatal(err)
	}
	e.clock.advance(6 * 24 * time.Hour)
	if _, err := e.URLs(t.Context(), owner, used.ID, 0, 1); err != nil {
		t.Fatal(err)
	}
	if err := e.Clean(t.Context()); err != nil {
		t.Fatal(err)
	}
	if n, m := len(e.direct.OpenUploads()), len(e.objectKeys()); n != 2 || m != 1 {
		t.Errorf("after six days: %d uploads, %d objects", n, m)
	}
	e.clock.advance(2 * 24 * time.Hour)
	if err := e.Clean(t.Context()); err != nil {
		t.Fatal(err)
	}
	for _, id := range []string{idle.ID, whole.ID} {
		if status, err := e.Status(t.Context(), owner, id); err != nil || status.State != upload.Expired {
			t.Errorf("status: %+v %v", status, err)
		}
	}
	if _, err := e.complete(used.ID, nil); err != nil {
		t.Error(err)
	}
	if n, m := len(e.direct.OpenUploads()), len(e.objectKeys()); n != 0 || m != 1 {
		t.Errorf("in the end: %d uploads, %d objects", n, m)
	}
}

// An object is nobody's garbage while its upload is open, however old it is.
func TestSweepSparesDirectUploads(t *testing.T) {
	e := newDirectEngine(t)
	data := random(25, 2<<20)
	opened := e.mustBeginDirect(data)
	e.mustSend(&opened, data)
	e.failOnce("Complete done")
	if _, err := e.complete(opened.ID, nil); err == nil {
		t.Fatal("not cut off")
	}
	if err := e.direct.Put(t.Context(), "direct/n1-"+upload.NewID(time.Now()), strings.NewReader("x"), store.PutOptions{}); err != nil {
		t.Fatal(err)
	}
	if err := e.sweepLater(); err != nil {
		t.Fatal(err)
	}
	if keys := e.objectKeys(); len(keys) != 1 {
		t.Errorf("objects: %v", keys)
	}
	f, err := e.complete(opened.ID, nil)
	if err != nil {
		t.Fatal(err)
	}
	e.mustRead(f.ID, data)
}

// A bucket may have a rule that drops old multipart uploads. Then the upload is over, and says so.
func TestTheStoreDropsADirectUpload(t *testing.T) {
	for name, call := range map[string]func(e *engine, id string) error{
		"status":   func(e *engine, id string) error { _, err := e.Status(e.t.Context(), owner, id); return err },
		"complete": func(e *engine, id string) error { _, err := e.complete(id, nil); return err },
	} {
		t.Run(name, func(t *testing.T) {
			e := newDirectEngine(t)
			data := random(26, 2<<20)
			opened := e.mustBeginDirect(data)
			e.mustSend(&opened, data)
			e.direct.Forget()
			if err := call(e, opened.ID); err != nil && !errors.Is(err, upload.Gone) {
				t.Error(err)
			}
			if status, err := e.Status(t.Context(), owner, opened.ID); err != nil || status.State != upload.Expired {
				t.Errorf("status: %+v %v", status, err)
			}
			e.nothingLeft()
		})
	}
}

// What is in the object's place must be as long as what was announced.
func TestDirectUploadFindsAnotherObject(t *testing.T) {
	e := newDirectEngine(t)
	opened := e.mustBeginDirect(random(29, 2<<20))
	d, err := e.db.DirectUpload(t.Context(), opened.ID)
	if err != nil {
		t.Fatal(err)
	}
	if err := e.direct.Put(t.Context(), d.ObjectKey, strings.NewReader("x"), store.PutOptions{}); err != nil {
		t.Fatal(err)
	}
	e.direct.Forget()
	for range 2 {
		_, err := e.complete(opened.ID, nil)
		if e, ok := errors.AsType[*upload.Error](err); !ok || e.Kind != upload.DigestMismatch || e.Want != "2097152 bytes" || e.Got != "1 bytes" {
			t.Errorf("completed: %v", err)
		}
	}
	e.nothingLeft()
}

// While the store does not answer an upload is neither lost nor believed to be complete.
func TestDirectUploadWithTheStoreAway(t *testing.T) {
	e := newDirectEngine(t)
	data := random(27, 2<<20)
	opened := e.mustBeginDirect(data)
	e.mustSend(&opened, data)
	e.direct.Hook(func(op string) error { return upload.Errorf(upload.Unavailable, op, "", "The store is away.") })
	if _, err := e.Status(t.Context(), owner, opened.ID); !errors.Is(err, upload.Unavailable) {
		t.Errorf("status: %v", err)
	}
	if _, err := e.complete(opened.ID, nil); !errors.Is(err, upload.Unavailable) {
		t.Errorf("complete: %v", err)
	}
	e.direct.Hook(nil)
	if _, err := e.complete(opened.ID, nil); err != nil {
		t.Error(err)
	}
}

// An init whose row cannot be written leaves nothing in the store.
func TestDirectInitThatFails(t *testing.T) {
	e := newDirectEngine(t)
	data := random(28, 2<<20)
	e.direct.Hook(func(op string) error {
		if op == "Create done" {
			return e.db.Close()
		}
		return nil
	})
	if _, _, err := e.Init(t.Context(), owner, ask(data)); !errors.Is(err, upload.Unavailable) {
		t.Errorf("with the database gone: %v", err)
	}
	if n := len(e.direct.OpenUploads()); n != 0 {
		t.Errorf("%d uploads in the store", n)
	}
}
