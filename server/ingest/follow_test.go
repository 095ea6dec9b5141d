package ingest_test

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"gantry/meta"
	"gantry/server/ingest"
	"gantry/upload"
)

// watchedDB counts the looks, and fails or waits as a test wants it.
type watchedDB struct {
	meta.DB
	looks   atomic.Int64
	fails   atomic.Pointer[string]
	changes func(ctx context.Context)
}

func (w *watchedDB) failing(call string) error {
	if name := w.fails.Load(); name != nil && *name == call {
		return upload.Errorf(upload.Unavailable, "meta."+call, "", "The database does not answer. Try again.")
	}
	return nil
}

func (w *watchedDB) Changes(ctx context.Context, owner string, since time.Time, limit int) ([]meta.Change, error) {
	w.looks.Add(1)
	if w.changes != nil {
		w.changes(ctx)
	}
	if err := w.failing("Changes"); err != nil {
		return nil, err
	}
	return w.DB.Changes(ctx, owner, since, limit)
}

func (w *watchedDB) File(ctx context.Context, owner, id string) (upload.File, error) {
	if err := w.failing("File"); err != nil {
		return upload.File{}, err
	}
	return w.DB.File(ctx, owner, id)
}

// following is an engine whose things are looked at as often as somebody asks.
func following(t *testing.T, pause time.Duration) (*engine, *ingest.Service, *watchedDB) {
	t.Helper()
	e := newEngine(t)
	db := &watchedDB{DB: e.db}
	deps := e.Deps
	deps.DB = db
	return e, ingest.New(ingest.Options{Node: e.node, Route: toLocal, FollowPause: pause}, deps), db
}

func follow(t *testing.T, s *ingest.Service) *ingest.Follower {
	t.Helper()
	f, err := s.Follow(owner)
	if err != nil {
		t.Fatal(err)
	}
	if events, missed, err := f.Next(t.Context()); err != nil || !missed || len(events) > 0 {
		t.Fatalf("at first: %v, %v, %v", events, missed, err)
	}
	return f
}

// next is Next until it has looked: looking takes a small part of the time only.
func (w *watchedDB) next(t *testing.T, f *ingest.Follower) (all []ingest.Event, missed bool) {
	t.Helper()
	for before := w.looks.Load(); w.looks.Load() == before; {
		events, some, err := f.Next(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		all, missed = append(all, events...), missed || some
	}
	return all, missed
}

// failure is what Next says when it looks.
func (w *watchedDB) failure(t *testing.T, f *ingest.Follower) (err error) {
	t.Helper()
	for before := w.looks.Load(); w.looks.Load() == before && err == nil; {
		_, _, err = f.Next(t.Context())
	}
	return err
}

// add makes so many files.
func add(t *testing.T, e *engine, n int) (last upload.File) {
	t.Helper()
	for range n {
		e.clock.advance(time.Microsecond)
		var err error
		if last, err = e.PutFile(t.Context(), owner, ingest.FileRequest{Name: "a"}, body([]byte("x"))); err != nil {
			t.Fatal(err)
		}
	}
	return last
}

// However many follow: one look. Nobody: none.
func TestFollowersShareLooks(t *testing.T) {
	e, s, db := following(t, time.Hour)
	a, b := follow(t, s), follow(t, s)
	add(t, e, 1)
	for range 10 {
		for _, f := range []*ingest.Follower{a, b} {
			if events, missed, err := f.Next(t.Context()); len(events) > 0 || missed || err != nil {
				t.Errorf("%v, %v, %v", events, missed, err)
			}
		}
	}
	if n := db.looks.Load(); n != 1 {
		t.Errorf("%d looks in one pause", n)
	}
	a.Close()
	b.Close()
	c := follow(t, s) // what the others saw is forgotten
	defer c.Close()
	if n := db.looks.Load(); n != 2 {
		t.Errorf("%d looks, want one more for who follows anew", n)
	}
}

// Who is too far behind is told that, and goes on from there; the others are not disturbed.
func TestFollowersThatAreBehind(t *testing.T) {
	e, s, db := following(t, time.Nanosecond)
	fast, slow := follow(t, s), follow(t, s)
	defer fast.Close()
	defer slow.Close()
	told := 0
	for range 6 {
		add(t, e, 100)
		events, missed := db.next(t, fast)
		if told += len(events); missed {
			t.Fatal("who reads at once has missed something")
		}
	}
	if told != 600 {
		t.Errorf("told of %d files, want 600", told)
	}
	if events, missed := db.next(t, slow); !missed || len(events) > 0 {
		t.Errorf("who is behind is told of %d files, missed %v", len(events), missed)
	}
	last := add(t, e, 1)
	for _, f := range []*ingest.Follower{fast, slow} {
		if events, missed := db.next(t, f); missed || len(events) != 1 || events[0].File == nil || events[0].File.ID != last.ID {
			t.Errorf("then: %v, %v", events, missed)
		}
	}
}

// Of very much at once the listing tells better.
func TestFollowingManyChanges(t *testing.T) {
	e, s, db := following(t, time.Nanosecond)
	a, b := follow(t, s), follow(t, s)
	defer a.Close()
	defer b.Close()
	add(t, e, 250)
	for _, f := range []*ingest.Follower{a, b} {
		if events, missed := db.next(t, f); !missed || len(events) > 0 {
			t.Errorf("%d events, missed %v", len(events), missed)
		}
		if events, missed := db.next(t, f); missed || len(events) > 0 {
			t.Errorf("then %d events, missed %v", len(events), missed)
		}
	}
}

// After a failure nothing is missed, and nothing is told twice.
func TestFollowingThroughFailures(t *testing.T) {
	e, s, db := following(t, time.Nanosecond)
	f := follow(t, s)
	defer f.Close()
	file := add(t, e, 1)
	for _, call := range []string{"Changes", "File"} {
		db.fails.Store(&call)
		if err := db.failure(t, f); !errors.Is(err, upload.Unavailable) {
			t.Errorf("%s fails: %v", call, err)
		}
	}
	db.fails.Store(nil)
	if events, missed := db.next(t, f); missed || len(events) != 1 || events[0].File.ID != file.ID {
		t.Errorf("%v, %v", events, missed)
	}
	if events, missed := db.next(t, f); missed || len(events) > 0 {
		t.Errorf("again: %v, %v", events, missed)
	}
}

// A change that was stamped long before it was committed, or by a clock that is behind, is told too.
func TestFollowingLateChanges(t *testing.T) {
	e, s, db := following(t, time.Nanosecond)
	add(t, e, 1)
	e.clock.advance(time.Hour)
	f := follow(t, s)
	defer f.Close()
	e.clock.advance(-50 * time.Second)
	late := add(t, e, 1)
	e.clock.advance(50 * time.Second)
	if events, missed := db.next(t, f); missed || len(events) != 1 || events[0].File.ID != late.ID {
		t.Errorf("%v, %v", events, missed)
	}
}

// What happens while the following begins may be in no listing yet, and is told.
func TestFollowingFromTheBeginning(t *testing.T) {
	e, s, db := following(t, time.Nanosecond)
	file := add(t, e, 1)
	f := follow(t, s)
	defer f.Close()
	if events, _ := db.next(t, f); len(events) != 1 || events[0].File.ID != file.ID {
		t.Errorf("%v", events)
	}
}

// Who goes away while another looks does not wait for that.
func TestFollowerThatGoesAway(t *testing.T) {
	_, s, db := following(t, time.Nanosecond)
	f, g := follow(t, s), follow(t, s)
	defer f.Close()
	defer g.Close()
	looking, leave := make(chan bool), make(chan bool)
	db.changes = func(context.Context) { looking <- true; <-leave }
	result := make(chan error, 1)
	var wg sync.WaitGroup
	defer wg.Wait()
	wg.Go(func() { result <- db.failure(t, f) })
	<-looking
	gone, cancel := context.WithCancel(t.Context())
	cancel()
	if _, _, err := g.Next(gone); !errors.Is(err, upload.Canceled) {
		t.Errorf("got %v", err)
	}
	leave <- true
	if err := <-result; err != nil {
		t.Error(err)
	}
}

// The bound is for each owner, and what is closed does not count.
func TestFollowersAreBounded(t *testing.T) {
	e := newEngine(t)
	s := ingest.New(ingest.Options{Node: e.node, Route: toLocal, MaxFollowers: 2}, e.Deps)
	var all []*ingest.Follower
	for i := range 4 {
		f, err := s.Follow(fmt.Sprint("owner", i%2))
		if err != nil {
			t.Fatal(err)
		}
		all = append(all, f)
	}
	if _, err := s.Follow("owner0"); !errors.Is(err, upload.TooMany) {
		t.Errorf("a third follower: %v", err)
	}
	all[0].Close()
	if _, err := s.Follow("owner0"); err != nil {
		t.Errorf("after one has gone: %v", err)
	}
	if _, err := s.Follow("owner1"); !errors.Is(err, upload.TooMany) {
		t.Errorf("a third follower of another owner: %v", err)
	}
}
