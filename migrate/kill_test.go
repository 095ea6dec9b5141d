package migrate_test

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"gantry/meta"
	"gantry/migrate"
	"gantry/store"
	"gantry/upload"
)

// errKilled is what all calls of a killed run return.
var errKilled = upload.Errorf(upload.Canceled, "", "", "the process was killed")

// killAt is a gate at which a run dies at call n. calls counts all.
func killAt(n int) (g gate, calls *[]string) {
	var mu sync.Mutex
	calls = new([]string)
	return func(_ context.Context, call string) error {
		mu.Lock()
		defer mu.Unlock()
		if len(*calls) >= n {
			return errKilled
		}
		*calls = append(*calls, call)
		return nil
	}, calls
}

// A run is killed at each of its calls in turn, before it and after it took effect. All files have their bytes,
// the janitor harms nothing, and the next run goes on to the end.
func TestKilledAtEveryStep(t *testing.T) {
	t.Parallel()
	for n := 0; ; n++ {
		w := newWorld(t)
		files := w.fill(3)
		g, calls := killAt(n)
		_, err := w.migrator(options(), w.behind(g)).Run(t.Context())
		if err == nil {
			if n < 40 {
				t.Errorf("a run is %d calls: %v", n, *calls)
			}
			return
		}
		at := fmt.Sprintf("killed at call %d, after %v", n, (*calls)[max(0, n-2):])
		w.readable(files)
		w.clock.advance(2 * time.Hour)
		if err := errors.Join(w.Clean(t.Context()), w.Sweep(t.Context())); err != nil {
			t.Fatal(at, err)
		}
		w.readable(files)
		if found := w.check(migrate.CheckOptions{Deep: true}); len(found) > 0 {
			t.Errorf("%s: %+v", at, found)
		}
		w.migrate()
		w.readable(files)
		w.clock.advance(2 * time.Hour)
		if err := errors.Join(w.Clean(t.Context()), w.Sweep(t.Context())); err != nil {
			t.Fatal(at, err)
		}
		if a, b := w.keys(w.a), w.keys(w.b); len(a) != 0 || len(b) != 3 || len(w.moves()) != 0 {
			t.Fatalf("%s: in a %v, in b %v, moves %+v", at, a, b, w.moves())
		}
		w.readable(files)
	}
}

// What was copied before the kill is not copied again, and a copy half way goes on by its checkpoint.
func TestGoesOn(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.one()
	g, calls := killAt(1 << 20)
	if _, err := w.migrator(options(), w.behind(g)).Run(t.Context()); err != nil {
		t.Fatal(err)
	}
	put := slices.Index(*calls, "Put to b")
	for name, at := range map[string]int{"in the copy": put + 3, "after the copy": slices.Index(*calls, "Put to b, done") + 1} {
		w := newWorld(t)
		files := w.one()
		g, _ := killAt(at)
		if _, err := w.migrator(options(), w.behind(g)).Run(t.Context()); err == nil {
			t.Fatal("not killed")
		}
		half := w.moves()
		var again []string
		var checkpoint []byte
		deps := w.behind(func(_ context.Context, call string) error { again = append(again, call); return nil })
		deps.Stores["b"] = loading{deps.Stores["b"], &checkpoint}
		if _, err := w.migrator(options(), deps).Run(t.Context()); err != nil {
			t.Fatal(err)
		}
		if copied := slices.Contains(again, "Put to b"); copied != (name == "in the copy") {
			t.Errorf("killed %s, copied again: %v", name, copied)
		}
		if name == "in the copy" && string(checkpoint) != half[0].To.Key {
			t.Errorf("the checkpoint is %q, want %q", checkpoint, half[0].To.Key)
		}
		if len(half) != 1 || w.moves()[0].To != half[0].To {
			t.Errorf("killed %s, moves to %+v, before to %+v", name, w.moves(), half)
		}
		w.readable(files)
	}
}

// one stores a file in store a, and nothing in staging.
func (w *world) one() map[string][]byte {
	w.t.Helper()
	data := random(7, 5000)
	f := w.put(data)
	w.transfer()
	w.clean()
	return map[string][]byte{f.ID: data}
}

// loading notes which checkpoint a Put finds.
type loading struct {
	store.Store
	found *[]byte
}

func (l loading) Put(ctx context.Context, key string, content store.Content, opt store.PutOptions) error {
	*l.found = opt.Checkpoint.Load()
	return l.Store.Put(ctx, key, content, opt)
}

// A run that was stopped at any point, for so long that another one took over and did all of it, changes nothing
// when it wakes up.
func TestLeaseLost(t *testing.T) {
	t.Parallel()
	for n := 0; ; n++ {
		w := newWorld(t)
		files := w.fill(2)
		calls := 0
		var before, after []string
		state := func() (s []string) {
			for id := range files {
				b := w.blob(id)
				s = append(s, fmt.Sprint(b.ID, b.Store, b.ObjectKey, b.VerifiedAt))
			}
			slices.Sort(s)
			return s
		}
		asleep := false
		_, err := w.migrator(options(), w.behind(func(context.Context, string) error {
			if calls++; calls == n+1 {
				asleep = true
				w.clock.advance(lease + time.Second)
				opt := options()
				opt.Owner = "another"
				_, err := w.migrator(opt, migrate.Deps{}).Run(t.Context())
				w.must(err)
				w.clock.advance(time.Second)
				before = state()
			}
			return nil
		})).Run(t.Context())
		if !asleep {
			return
		}
		if err != nil && !errors.Is(err, upload.Conflict) {
			t.Fatalf("woken at call %d: %v", n, err)
		}
		if after = state(); !slices.Equal(before, after) {
			t.Fatalf("woken at call %d, it changed %v into %v", n, before, after)
		}
		w.readable(files)
		w.clock.advance(2 * time.Hour)
		w.must(errors.Join(w.Clean(t.Context()), w.Sweep(t.Context())))
		w.readable(files)
		if a, b := w.keys(w.a), w.keys(w.b); len(a) != 0 || len(b) != 2 {
			t.Fatalf("woken at call %d: in a %v, in b %v", n, a, b)
		}
	}
}

// A second run is refused, in words, while the first one lives; the lease of one that was killed is had after its
// time, and at once by the same node.
func TestSecondRun(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	files := w.fill(2)
	opt := options()
	opt.LeaseTTL = 2 * time.Second // a busy machine must be able to renew it
	other := opt
	other.Owner = "other"
	seen := &watcher{}
	second := false
	r, err := w.migrator(opt, w.behind(func(ctx context.Context, call string) error {
		if call == "Put to b" && !second {
			second = true
			// By the database's clock no time goes by, so the lease lasts.
			_, err := w.migrator(other, migrate.Deps{Watcher: seen}).Run(ctx)
			if !errors.Is(err, upload.Conflict) {
				t.Errorf("the second run: %v", err)
			}
		}
		return nil
	})).Run(t.Context())
	if err != nil || r.Moved != 2 || seen.waiting != 1 {
		t.Errorf("the first run: %+v, %v; the second was told %d times to wait", r, err, seen.waiting)
	}
	now := w.clock.now()
	killed, err := w.db.AcquireLease(t.Context(), meta.MoveLease, "test", now, now.Add(time.Hour))
	w.must(err)
	if _, err := w.migrator(opt, migrate.Deps{}).Run(t.Context()); err != nil {
		t.Errorf("the same node, killed before: %v", err)
	}
	// What the killed process has sent, and arrives only now, has no effect.
	b := upload.Blob{ID: "any"}
	_, err = w.db.BeginMove(t.Context(), meta.Fence{Lease: meta.MoveLease, Epoch: killed.Epoch}, &b, "b", now)
	if !errors.Is(err, upload.Conflict) || !strings.Contains(err.Error(), "has the lease") {
		t.Errorf("a late write of the killed process: %v", err)
	}
	_, err = w.db.AcquireLease(t.Context(), meta.MoveLease, "test", now, now.Add(-time.Second))
	w.must(err)
	if _, err := w.migrator(other, migrate.Deps{}).Run(t.Context()); err != nil {
		t.Errorf("another node, after the lease's time: %v", err)
	}
	w.readable(files)
}

// A run whose lease another has taken ends with an error, and not as if there were nothing left to do.
func TestLeaseTaken(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	files := w.fill(3)
	taken := false
	r, err := w.migrator(options(), w.behind(func(ctx context.Context, call string) error {
		if call == "Put to b" && !taken {
			taken = true
			w.clock.advance(lease + time.Second)
			now := w.clock.now()
			_, err := w.db.AcquireLease(ctx, meta.MoveLease, "another", now, now.Add(time.Hour))
			w.must(err)
		}
		return nil
	})).Run(t.Context())
	if !errors.Is(err, upload.Conflict) || r.Moved != 0 {
		t.Errorf("%+v, %v", r, err)
	}
	w.readable(files)
}

// A run that hears nothing of the database for as long as its lease lasts ends: another may have the lease.
func TestDatabaseAway(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.fill(1)
	opt := options()
	opt.LeaseTTL = 100 * time.Millisecond
	away := false
	var mu sync.Mutex
	_, err := w.migrator(opt, w.behind(func(ctx context.Context, call string) error {
		mu.Lock()
		if call == "Put to b" {
			away = true
		}
		down := away && call != "Put to b"
		mu.Unlock()
		if down && call == "AcquireLease" {
			return upload.Errorf(upload.Unavailable, "", "", "The database is away.")
		}
		if call == "Verify in b" {
			<-ctx.Done()
			return context.Cause(ctx)
		}
		return nil
	})).Run(t.Context())
	if !errors.Is(err, upload.Conflict) {
		t.Errorf("the run ended with %v", err)
	}
}
