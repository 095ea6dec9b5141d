package migrate_test

import (
	"context"
	"errors"
	"maps"
	"slices"
	"strings"
	"testing"
	"time"

	"gantry/meta"
	"gantry/migrate"
	"gantry/store"
	"gantry/store/storetest"
	"gantry/upload"
)

func TestMove(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	files := w.fill(7)
	seen := &watcher{}
	r, err := w.migrator(options(), migrate.Deps{Watcher: seen}).Run(t.Context())
	w.must(err)
	var bytes int64
	for id, data := range files {
		bytes += int64(len(data))
		b := w.blob(id)
		if b.Store != "b" || b.VerifiedAt.UnixMicro() != w.clock.now().UnixMicro() {
			t.Errorf("the blob is in %q, verified %v", b.Store, b.VerifiedAt)
		}
		if f, err := w.db.File(t.Context(), owner, id); err != nil || f.Transfer.Store != "b" {
			t.Errorf("the transfer is to %q, %v", f.Transfer.Store, err)
		}
		if len(data) > 0 && seen.copied[b.ID] != int64(len(data)) {
			t.Errorf("%d bytes are told of %d", seen.copied[b.ID], len(data))
		}
	}
	if r.Moved != 7 || r.Bytes != bytes || r.Failed != 0 || r.Left.From != (meta.Usage{Leftovers: 7}) || r.Left.To != (meta.Usage{Live: 7, Bytes: bytes}) {
		t.Errorf("result: %+v", r)
	}
	if seen.moved != 7 || seen.found != [2]int64{7, bytes} {
		t.Errorf("told: %+v", seen)
	}
	w.readable(files)

	// The old objects stay for a grace time, whatever the janitor does.
	w.must(errors.Join(w.Clean(t.Context()), w.Sweep(t.Context())))
	if n := len(w.keys(w.a)); n != 7 {
		t.Errorf("%d old objects, want 7", n)
	}
	w.clock.advance(grace)
	w.must(errors.Join(w.Clean(t.Context()), w.Sweep(t.Context())))
	if n := len(w.keys(w.a)); n != 7 {
		t.Errorf("%d old objects when the grace time is not quite over, want 7", n)
	}
	w.clock.advance(time.Microsecond)
	w.must(w.Clean(t.Context()))
	w.empty("a", w.a)
	if moves := w.moves(); len(moves) > 0 {
		t.Errorf("moves are left: %+v", moves)
	}
	w.readable(files)
	w.sound()
	if again := w.migrate(); again.Moved != 0 {
		t.Errorf("moved again: %+v", again)
	}
}

// There and back again at once: no object of the one move is in the way of the other.
func TestMoveBack(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	files := w.fill(3)
	w.migrate()
	back := options()
	back.From, back.To = "b", "a"
	r, err := w.migrator(back, migrate.Deps{}).Run(t.Context())
	w.must(err)
	if r.Moved != 3 {
		t.Errorf("moved %d", r.Moved)
	}
	w.clock.advance(grace + time.Second)
	w.must(w.Clean(t.Context()))
	w.empty("b", w.b)
	w.readable(files)
	w.sound()
}

func TestDryRunChangesNothing(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	files := w.fill(3)
	w.put(random(99, 10)) // waits for its transfer
	before := w.keys(w.a)
	p, err := w.migrator(options(), migrate.Deps{}).Plan(t.Context())
	w.must(err)
	if p.From != (meta.Usage{Live: 3, Bytes: 3003, Waiting: 1}) || p.To != (meta.Usage{}) {
		t.Errorf("plan: %+v", p)
	}
	if !slices.Equal(before, w.keys(w.a)) || len(w.moves()) > 0 {
		t.Error("a plan changed something")
	}
	w.empty("b", w.b)
	w.readable(files)
}

// Only what files refer to is moved. What is left is told.
func TestLeft(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	files := w.fill(4)
	ids := slices.Sorted(maps.Keys(files))
	w.must(w.DeleteFile(t.Context(), owner, ids[0]))
	delete(files, ids[0])
	w.must(w.db.MarkLost(t.Context(), w.blob(ids[1]).ID, "a test", w.clock.now()))
	delete(files, ids[1])
	halted, waiting := w.put(random(98, 10)), w.put(random(99, 10))
	w.must(w.db.CancelTransfer(t.Context(), halted.Transfer.ID, w.clock.now()))
	r := w.migrate()
	if r.Moved != 2 || r.Left.From != (meta.Usage{Condemned: 1, Lost: 1, Waiting: 1, Halted: 1, Leftovers: 2}) {
		t.Errorf("result: %+v", r)
	}
	w.transfer()
	if r := w.migrate(); r.Moved != 1 || w.blob(waiting.ID).Store != "b" {
		t.Errorf("what was transferred later: %+v", r)
	}
	w.readable(files)
}

// Follow goes on as long as transfers go into the old store.
func TestFollow(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	files := w.fill(1)
	data := random(99, 10)
	late := w.put(data)
	files[late.ID] = data
	looks := 0
	deps := w.behind(func(_ context.Context, call string) error {
		if call == "BlobsIn" {
			if looks++; looks == 7 { // after three passes
				w.transfer()
			}
		}
		return nil
	})
	opt := options()
	opt.Follow = true
	r, err := w.migrator(opt, deps).Run(t.Context())
	w.must(err)
	if r.Moved != 2 || w.blob(late.ID).Store != "b" {
		t.Errorf("%+v, the late one is in %s", r, w.blob(late.ID).Store)
	}
	w.readable(files)
}

// A download that has looked up the old place finds the new one, also when the old object is gone.
func TestDownloadAcrossAMove(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	files := w.fill(2)
	for id, data := range files {
		content, err := w.Content(t.Context(), owner, id)
		w.must(err)
		w.migrate()
		w.clock.advance(grace + time.Second)
		w.must(w.Clean(t.Context()))
		r, err := content.Open(t.Context(), 0, -1)
		w.must(err)
		defer r.Close()
		got := make([]byte, len(data)+1)
		n := 0
		for err == nil {
			var more int
			more, err = r.Read(got[n:])
			n += more
		}
		if string(got[:n]) != string(data) {
			t.Error("other bytes")
		}
		break
	}
}

// A file that is deleted leaves nothing in either store, wherever its blob's move stands.
func TestDeleteWhileMoving(t *testing.T) {
	t.Parallel()
	for _, call := range []string{"BeginMove", "BeginMove, done", "Put to b", "Put to b, done", "Verify in b", "Switch", "Switch, done"} {
		t.Run(call, func(t *testing.T) {
			t.Parallel()
			w := newWorld(t)
			files := w.fill(2)
			ids := slices.Sorted(maps.Keys(files))
			id, blob := ids[1], w.blob(ids[1]).ID
			done := false
			r, err := w.migrator(options(), w.behind(func(ctx context.Context, now string) error {
				if moves, err := w.db.Moves(ctx, meta.MoveQuery{BlobID: blob, Limit: 1}); now == call && !done && (err != nil || len(moves) > 0 || call == "BeginMove" && w.moving(ids[0])) {
					done = true
					w.must(w.DeleteFile(ctx, owner, id))
					w.clock.advance(grace + time.Second)
					w.must(w.Clean(ctx))
					for _, key := range append(w.keys(w.a), w.keys(w.b)...) {
						if strings.Contains(key, blob) {
							t.Errorf("deleted, and there is %s", key)
						}
					}
				}
				return nil
			})).Run(t.Context())
			w.must(err)
			if !done {
				t.Fatal("the file was never deleted")
			}
			if want := map[bool]int64{false: 1, true: 2}[call == "Switch, done"]; r.Moved != want || r.Failed != 0 {
				t.Errorf("%+v", r)
			}
			delete(files, id)
			w.readable(files)
			w.clock.advance(2 * grace)
			w.must(errors.Join(w.Clean(t.Context()), w.Sweep(t.Context())))
			w.empty("a", w.a)
			if keys := w.keys(w.b); len(keys) != 1 {
				t.Errorf("objects in b: %v", keys)
			}
			w.sound()
		})
	}
}

// moving reports whether a file's blob has been moved already.
func (w *world) moving(id string) bool { return w.blob(id).Store == "b" }

// What happens to a blob while it is copied counts: the switch finds another blob than was copied, and the
// copy is deleted at once.
func TestChangedWhileMoving(t *testing.T) {
	t.Parallel()
	for name, change := range map[string]func(w *world, b *upload.Blob) error{
		"lost": func(w *world, b *upload.Blob) error {
			return w.db.MarkLost(w.t.Context(), b.ID, "a test", w.clock.now())
		},
		"back in staging": func(w *world, b *upload.Blob) error {
			return w.db.Unstore(w.t.Context(), b.ID, "a test", w.clock.now())
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			w := newWorld(t)
			f := w.put(random(1, 100))
			w.transfer() // and the staging copy is there still
			b := w.blob(f.ID)
			r, err := w.migrator(options(), w.behind(func(_ context.Context, call string) error {
				if call == "Verify in b, done" {
					return change(w, &b)
				}
				return nil
			})).Run(t.Context())
			w.must(err)
			if r.Moved != 0 || r.Failed != 0 {
				t.Errorf("%+v", r)
			}
			w.empty("b", w.b)
			if moves := w.moves(); len(moves) > 0 {
				t.Errorf("moves: %+v", moves)
			}
		})
	}
}

// damage changes the object of a file in store a.
func (w *world) damage(id string) {
	b := w.blob(id)
	w.a.Alter(b.ObjectKey, func(data []byte) []byte { data[0] ^= 1; return data })
}

// An object that is wrong, short or missing stays where it is, is told, and does not keep the others.
func TestDamagedSource(t *testing.T) {
	t.Parallel()
	for words, harm := range map[string]func(w *world, id string){
		"has other bytes than were received": (*world).damage,
		"is missing":                         func(w *world, id string) { w.must(w.a.Delete(w.t.Context(), w.blob(id).ObjectKey)) },
		"is 2001 bytes long, not 2002": func(w *world, id string) {
			w.a.Alter(w.blob(id).ObjectKey, func(data []byte) []byte { return data[1:] })
		},
	} {
		t.Run(words, func(t *testing.T) {
			t.Parallel()
			w := newWorld(t)
			files := w.fill(4)
			for id, data := range files {
				if len(data) == 2002 {
					harm(w, id)
					delete(files, id)
				}
			}
			seen := &watcher{}
			r, err := w.migrator(options(), migrate.Deps{Watcher: seen}).Run(t.Context())
			w.must(err)
			if r.Moved != 3 || r.Failed != 1 || r.Left.From.Live != 1 {
				t.Errorf("%+v", r)
			}
			if len(seen.failed) != 1 || !strings.Contains(seen.failed[0].Error(), words) {
				t.Errorf("told: %v", seen.failed)
			}
			if keys := w.keys(w.b); len(keys) != 3 {
				t.Errorf("in b: %v", keys)
			}
			w.readable(files)
			if found := w.check(migrate.CheckOptions{Deep: true}); len(found) != 1 || !strings.Contains(found[0].Problem, words) {
				t.Errorf("check: %+v", found)
			}
		})
	}
}

// A new store that loses, cuts or changes what it is sent is never switched to.
func TestFaultyTarget(t *testing.T) {
	t.Parallel()
	for name, fault := range map[string]storetest.Fault{
		"time-out": storetest.PutTimesOut, "bit": storetest.PutFlipsBit, "cut": storetest.PutCutsOff,
		"hidden": storetest.PutHidden, "unavailable": storetest.Unavailable,
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			w := newWorld(t)
			files := w.fill(3)
			faulty := storetest.NewFaulty(w.b)
			seen := &watcher{}
			faulty.Next(fault, 2)
			deps := migrate.Deps{Stores: map[string]store.Store{"a": w.a, "b": faulty}, Watcher: seen}
			r, err := w.migrator(options(), deps).Run(t.Context())
			w.must(err)
			if r.Moved != 3 || r.Failed != 0 || len(seen.again) == 0 {
				t.Errorf("%+v, tried again for %v", r, seen.again)
			}
			w.clock.advance(grace + time.Second)
			w.must(w.Clean(t.Context()))
			w.readable(files)
			w.sound()
		})
	}
}

// A store that cannot be used ends the run, in words. The next one goes on.
func TestHopelessTarget(t *testing.T) {
	t.Parallel()
	for name, fault := range map[string]storetest.Fault{"full": storetest.Full, "refused": storetest.Refused, "down": storetest.Unavailable} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			w := newWorld(t)
			files := w.fill(30)
			faulty := storetest.NewFaulty(w.b)
			faulty.Next(fault, 1000)
			r, err := w.migrator(options(), migrate.Deps{Stores: map[string]store.Store{"a": w.a, "b": faulty}}).Run(t.Context())
			// That of a store which does not answer may pass; what has to be mended need not be tried for each blob.
			if want := map[string]int64{"down": 20}[name]; err == nil || r.Moved != 0 || r.Failed != max(want, 1) {
				t.Errorf("%+v, %v", r, err)
			}
			if r := w.migrate(); r.Moved != 30 {
				t.Errorf("the next run: %+v", r)
			}
			w.readable(files)
			w.sound()
		})
	}
}

// What a run was told to copy per second it does not exceed.
func TestRate(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	for i := range 4 {
		w.put(random(uint64(i), 128<<10))
	}
	w.transfer()
	opt := options()
	opt.Rate, opt.Parallel = 512<<10, 4
	began := time.Now()
	r, err := w.migrator(opt, migrate.Deps{}).Run(t.Context())
	w.must(err)
	// One burst of an eighth of a second is free.
	if took := time.Since(began); r.Moved != 4 || took < 800*time.Millisecond {
		t.Errorf("%d bytes in %v", r.Bytes, took)
	}
}

// A run goes on with moves of its own and clears away what others have begun.
func TestTidy(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	files := w.fill(3)
	ids := slices.Sorted(maps.Keys(files))
	var begun []meta.Move
	for i, to := range []string{"b", "c", "b"} {
		b := w.blob(ids[i])
		mv, err := w.db.BeginMove(t.Context(), meta.Fence{}, &b, to, w.clock.now())
		w.must(err)
		begun = append(begun, mv)
	}
	w.must(w.b.Put(t.Context(), begun[2].To.Key, strings.NewReader("half"), store.PutOptions{}))
	gone := w.blob(ids[2])
	w.must(w.db.MarkLost(t.Context(), gone.ID, "a test", w.clock.now()))
	w.must(w.db.DeleteFile(t.Context(), owner, ids[2], w.clock.now()))
	w.migrate()
	if got := w.blob(ids[0]).ObjectKey; got != begun[0].To.Key {
		t.Errorf("a move that was begun was not gone on with: %s", got)
	}
	if got := w.blob(ids[1]); got.Store != "b" {
		t.Errorf("a move to another store was gone on with: %+v", got)
	}
	w.clock.advance(grace + time.Second)
	// One store that is not there keeps nothing else.
	if err := w.Clean(t.Context()); err == nil || !strings.Contains(err.Error(), `The store "c" is not configured`) {
		t.Error(err)
	}
	delete(files, ids[2])
	w.readable(files)
	for _, mv := range w.moves() {
		if mv.To.Store != "c" { // which is not configured
			t.Errorf("left: %+v", mv)
		}
	}
}

func TestNewRefuses(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	for _, change := range []func(o *migrate.Options){
		func(o *migrate.Options) { o.From = "c" },
		func(o *migrate.Options) { o.To = "c" },
		func(o *migrate.Options) { o.To = "a" },
		func(o *migrate.Options) { o.Owner = "" },
	} {
		opt := options()
		change(&opt)
		if _, err := migrate.New(opt, migrate.Deps{DB: w.db, Stores: w.stores()}); !errors.Is(err, upload.Invalid) {
			t.Errorf("%+v: %v", opt, err)
		}
	}
}
