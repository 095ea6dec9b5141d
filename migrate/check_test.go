package migrate_test

import (
	"bytes"
	"context"
	"errors"
	"strings"
	"testing"
	"time"

	"gantry/meta"
	"gantry/migrate"
	"gantry/store"
	"gantry/store/memory"
	"gantry/upload"
)

// problem fails unless a check finds just this, and repairs it if it is told to; then nothing is left to be found.
func (w *world) problem(words, repair string, deep bool) {
	w.t.Helper()
	if deep {
		if found := w.check(migrate.CheckOptions{}); len(found) > 0 {
			w.t.Errorf("found without reading: %+v", found)
		}
	}
	for _, opt := range []migrate.CheckOptions{{Deep: deep}, {Deep: deep, Repair: true}} {
		found := w.check(opt)
		if len(found) != 1 || !strings.Contains(found[0].Problem, words) || !strings.Contains(found[0].Repair, repair) || found[0].Repaired != opt.Repair {
			w.t.Errorf("%+v: found %+v, want %q and %q", opt, found, words, repair)
		}
	}
	if found := w.check(migrate.CheckOptions{Deep: true}); len(found) > 0 {
		w.t.Errorf("after the repair: %+v", found)
	}
}

// Every blob of both stores has its object. What is wrong is mended from the best copy that there is.
func TestCheckBlobs(t *testing.T) {
	t.Parallel()
	missing := func(s *memory.Store, key string) { _ = s.Delete(context.Background(), key) }
	short := func(s *memory.Store, key string) { s.Alter(key, func(data []byte) []byte { return data[:10] }) }
	rot := func(s *memory.Store, key string) {
		s.Alter(key, func(data []byte) []byte { data[5] ^= 1; return data })
	}
	harms := []struct {
		words string
		harm  func(s *memory.Store, key string)
		deep  bool
	}{
		{"is missing", missing, false},
		{"is 10 bytes long, not 5000", short, false},
		{"has other bytes than were received", rot, true},
	}
	for _, h := range harms {
		t.Run(h.words+", moved not long ago", func(t *testing.T) {
			t.Parallel()
			w := newWorld(t)
			files := w.one()
			w.migrate()
			for id := range files {
				old := w.moves()[0].From.Key
				h.harm(w.b, w.blob(id).ObjectKey)
				w.problem(`store "b" `+h.words+`; the old one in store "a" is right`, "Make the old object", h.deep)
				if b := w.blob(id); b.Store != "a" || b.ObjectKey != old {
					t.Errorf("the blob is at %s %s", b.Store, b.ObjectKey)
				}
			}
			w.readable(files)
			if r := w.migrate(); r.Moved != 1 {
				t.Errorf("moved again: %+v", r)
			}
			w.readable(files)
			w.clock.advance(2 * time.Hour)
			w.must(errors.Join(w.Clean(t.Context()), w.Sweep(t.Context())))
			w.empty("a", w.a)
			if keys := w.keys(w.b); len(keys) != 1 {
				t.Errorf("in b: %v", keys)
			}
			w.readable(files)
		})
		t.Run(h.words+", in staging", func(t *testing.T) {
			t.Parallel()
			w := newWorld(t)
			data := random(7, 5000)
			f := w.put(data)
			w.transfer()
			h.harm(w.a, w.blob(f.ID).ObjectKey)
			w.problem(`store "a" `+h.words+`; staging has a copy`, "Transfer the blob again", h.deep)
			w.transfer()
			w.clean()
			w.readable(map[string][]byte{f.ID: data})
			w.sound()
		})
		t.Run(h.words+", nowhere else", func(t *testing.T) {
			t.Parallel()
			w := newWorld(t)
			files := w.one()
			for id := range files {
				h.harm(w.a, w.blob(id).ObjectKey)
				w.problem(`store "a" `+h.words+`; there is no other copy`, "Mark the blob as lost", h.deep)
				if b := w.blob(id); b.State != upload.BlobLost {
					t.Errorf("the blob is %s", b.State)
				}
			}
		})
	}
}

// The old object is damaged as well: it is not gone back to.
func TestCheckBothWrong(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	files := w.one()
	w.migrate()
	mv := w.moves()[0]
	w.must(w.b.Delete(t.Context(), mv.To.Key))
	w.a.Alter(mv.From.Key, func(data []byte) []byte { data[0] ^= 1; return data })
	w.problem("there is no other copy", "lost", false)
	for id := range files {
		if b := w.blob(id); b.State != upload.BlobLost {
			t.Errorf("the blob is %s", b.State)
		}
	}
}

// Objects that no row knows are found in both stores, once they are old enough. Those of moves are known.
func TestCheckOrphans(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	files := w.fill(3)
	w.migrate()
	b := w.blob(w.put(random(50, 10)).ID)
	w.transfer()
	b, err := w.db.Blob(t.Context(), b.ID)
	w.must(err)
	mv, err := w.db.BeginMove(t.Context(), meta.Fence{}, &b, "b", w.clock.now())
	w.must(err)
	w.must(w.b.Put(t.Context(), mv.To.Key, strings.NewReader("half"), store.PutOptions{}))
	const orphan = "ab/abcdef-nobody-s"
	for _, s := range []store.Store{w.a, w.b} {
		w.must(s.Put(t.Context(), orphan, strings.NewReader("nobody's"), store.PutOptions{}))
	}
	if found := w.check(migrate.CheckOptions{}); len(found) > 0 {
		t.Errorf("found at once: %+v", found)
	}
	w.clock.advance(2 * time.Hour)
	for _, c := range []struct {
		repair bool
		want   int
	}{{false, 2}, {true, 2}, {true, 0}} {
		found := w.check(migrate.CheckOptions{Repair: c.repair})
		for _, f := range found {
			if f.ID != orphan || f.Repaired != c.repair || !strings.Contains(f.Problem, "No blob refers to this object") {
				t.Errorf("%+v", f)
			}
		}
		if len(found) != c.want {
			t.Errorf("found %+v, want %d", found, c.want)
		}
	}
	if a, b := w.keys(w.a), w.keys(w.b); len(a) != 4 || len(b) != 4 {
		t.Errorf("in a %v, in b %v", a, b)
	}
	w.readable(files)
}

// A blob that was moved between the look at its row and the look at its object is not missing.
func TestCheckWhileMoving(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	files := w.one()
	moved := false
	m := w.migrator(options(), w.behind(func(_ context.Context, call string) error {
		if call == "Size in a" && !moved {
			moved = true
			w.migrate()
			w.clock.advance(grace + time.Second)
			w.must(w.Clean(t.Context()))
		}
		return nil
	}))
	w.must(m.Check(t.Context(), migrate.CheckOptions{}, func(f migrate.Finding) { t.Errorf("found: %+v", f) }))
	w.readable(files)
}

// What is repaired is what was looked at: a blob that was mended by somebody else meanwhile stays as it is.
func TestRepairLooksAgain(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	data := random(7, 5000)
	f := w.put(data)
	w.transfer()
	w.must(w.a.Delete(t.Context(), w.blob(f.ID).ObjectKey))
	var found []migrate.Finding
	m := w.migrator(options(), migrate.Deps{DB: late{w.db, func() {
		b := w.blob(f.ID)
		w.must(w.db.Unstore(t.Context(), b.ID, "the doctor", w.clock.now()))
		w.transfer()
		w.migrateBeside()
	}}})
	w.must(m.Check(t.Context(), migrate.CheckOptions{Repair: true}, func(f migrate.Finding) { found = append(found, f) }))
	if len(found) != 1 || found[0].Repaired {
		t.Errorf("found: %+v", found)
	}
	if b := w.blob(f.ID); b.Store != "b" || b.State != upload.BlobLive {
		t.Errorf("the blob is %s in %q", b.State, b.Store)
	}
}

// migrateBeside moves all without the lease.
func (w *world) migrateBeside() {
	w.t.Helper()
	blobs, err := w.db.BlobsIn(w.t.Context(), "a", upload.BlobLive, "", 100)
	w.must(err)
	for i := range blobs {
		mv, err := w.db.BeginMove(w.t.Context(), meta.Fence{}, &blobs[i], "b", w.clock.now())
		w.must(err)
		data, err := w.a.Open(w.t.Context(), mv.From.Key, 0, -1)
		w.must(err)
		var copied bytes.Buffer
		_, err = copied.ReadFrom(data)
		w.must(errors.Join(err, data.Close()))
		w.must(w.b.Put(w.t.Context(), mv.To.Key, bytes.NewReader(copied.Bytes()), store.PutOptions{}))
		w.must(w.db.Switch(w.t.Context(), meta.Fence{}, mv.ID, w.clock.now()))
	}
}

// late is a database in which something happens before an object is called lost.
type late struct {
	migrate.DB
	before func()
}

func (l late) ObjectLost(ctx context.Context, id string, at meta.Place, reason string, now time.Time) error {
	l.before()
	return l.DB.ObjectLost(ctx, id, at, reason, now)
}
