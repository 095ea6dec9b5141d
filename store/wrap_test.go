package store_test

import (
	"bytes"
	"context"
	"errors"
	"iter"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"gantry/store"
	"gantry/store/memory"
	"gantry/store/storetest"
	"gantry/upload"
)

// What is around a store is a store.
func TestWrapped(t *testing.T) {
	for name, wrap := range map[string]func(inner store.Store) store.Store{
		"guarded": func(inner store.Store) store.Store { return store.NewGuard(inner, store.GuardOptions{Name: "m"}) },
		"limited": func(inner store.Store) store.Store {
			return store.NewGuard(inner, store.GuardOptions{Name: "m", Rate: 1 << 32, Limiter: store.NewLimiter(1 << 32)})
		},
		"owned":    func(inner store.Store) store.Store { return store.NewOwned(inner, "db") },
		"mirrored": func(inner store.Store) store.Store { return store.NewMirror(inner, memory.New()) },
	} {
		t.Run(name, func(t *testing.T) {
			// The suite lists what is there: of a mirror most come twice, so it gets one to list.
			storetest.Run(t, func(*testing.T) store.Store {
				if name == "mirrored" {
					return once{wrap(memory.New())}
				}
				return wrap(memory.New())
			}, storetest.Caps{AnyKey: true, Memory: storetest.InMemory})
		})
	}
}

// once lists each object once.
type once struct{ store.Store }

func (o once) List(ctx context.Context) iter.Seq2[store.Object, error] {
	return func(yield func(store.Object, error) bool) {
		seen := map[string]bool{}
		for object, err := range o.Store.List(ctx) {
			if !seen[object.Key] && !yield(object, err) {
				return
			}
			seen[object.Key] = true
		}
	}
}

func put(t *testing.T, s store.Store, key, text string) {
	t.Helper()
	if err := s.Put(t.Context(), key, strings.NewReader(text), store.PutOptions{}); err != nil {
		t.Fatal(err)
	}
}

func TestGuardLeavesAStoreAlone(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		inner := storetest.NewFaulty(memory.New())
		g := store.NewGuard(inner, store.GuardOptions{Name: "m", Failures: 3, Pause: 10 * time.Second})
		put(t, g, "00/a", "x")
		inner.SetDown(true)
		for i := range 3 {
			if g.Down() {
				t.Errorf("left alone after %d failures", i)
			}
			if _, err := g.Size(t.Context(), "00/a"); !errors.Is(err, upload.Unavailable) {
				t.Error(err)
			}
		}
		if !g.Down() {
			t.Error("asked on after three failures")
		}
		inner.SetDown(false)
		_, err := g.Open(t.Context(), "00/a", 0, -1)
		if e, ok := errors.AsType[*upload.Error](err); !ok || e.Kind != upload.Unavailable || !strings.Contains(e.Detail, `"m"`) {
			t.Errorf("a store that is left alone: %v", err)
		}
		// After the pause a small call finds out, before the one that asks goes on.
		time.Sleep(10*time.Second + 1)
		put(t, g, "00/b", "y")
		if g.Down() {
			t.Error("still left alone")
		}
		// Still away after the pause: the Put is not tried with all its bytes.
		inner.SetDown(true)
		for range 3 {
			_, _ = g.Size(t.Context(), "00/a")
		}
		time.Sleep(10*time.Second + 1)
		before := len(inner.Puts())
		if err := g.Put(t.Context(), "00/c", strings.NewReader("z"), store.PutOptions{}); !errors.Is(err, upload.Unavailable) {
			t.Error(err)
		}
		if len(inner.Puts()) != before || !g.Down() {
			t.Error("a store that is away was sent something")
		}
	})
}

// What says nothing about the store does not count: no such object, content that cannot be read, a caller that goes away.
func TestGuardCountsTheStoresFailuresOnly(t *testing.T) {
	g := store.NewGuard(memory.New(), store.GuardOptions{Failures: 1})
	_, _ = g.Size(t.Context(), "00/none")
	canceled, cancel := context.WithCancel(t.Context())
	cancel()
	_ = g.Put(canceled, "00/a", strings.NewReader("x"), store.PutOptions{})
	broken := errors.New("the disk is gone")
	if err := g.Put(t.Context(), "00/a", unreadable{strings.NewReader("x"), broken}, store.PutOptions{}); !errors.Is(err, broken) {
		t.Error(err)
	}
	if g.Down() {
		t.Error("the store counts as down")
	}
}

type unreadable struct {
	*strings.Reader
	err error
}

func (u unreadable) ReadAt([]byte, int64) (int, error) { return 0, u.err }

// A driver that panics while the store is being tried must not leave it tried for ever.
func TestGuardSurvivesPanics(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		inner := storetest.NewFaulty(memory.New())
		g := store.NewGuard(inner, store.GuardOptions{Failures: 1, Pause: time.Second})
		inner.Next(storetest.PutPanics, 1)
		func() {
			defer func() { _ = recover() }()
			_ = g.Put(t.Context(), "00/a", strings.NewReader("x"), store.PutOptions{})
		}()
		time.Sleep(time.Second + 1)
		put(t, g, "00/a", "x")
	})
}

func TestGuardLimits(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		whole := store.NewLimiter(1 << 20)
		a := store.NewGuard(memory.New(), store.GuardOptions{Rate: 512 << 10, Limiter: whole})
		b := store.NewGuard(memory.New(), store.GuardOptions{Limiter: whole})
		data := bytes.NewReader(make([]byte, 4<<20))
		took := func(stores ...store.Store) time.Duration {
			began := time.Now()
			var all sync.WaitGroup
			for _, s := range stores {
				all.Go(func() {
					if err := s.Put(t.Context(), "00/a", data, store.PutOptions{}); err != nil {
						t.Error(err)
					}
				})
			}
			all.Wait()
			return time.Since(began).Round(time.Second)
		}
		if d := took(a); d != 8*time.Second {
			t.Errorf("4 MiB at 512 KiB/s took %v", d)
		}
		if d := took(b); d != 4*time.Second {
			t.Errorf("4 MiB at 1 MiB/s took %v", d)
		}
		if d := took(b, b); d != 8*time.Second {
			t.Errorf("twice 4 MiB at 1 MiB/s together took %v", d)
		}
	})
}

func TestOwned(t *testing.T) {
	inner := memory.New()
	mine := store.NewOwned(inner, "mine")
	put(t, mine, "00/a", "x")
	var keys []string
	for o, err := range mine.List(t.Context()) {
		if err != nil {
			t.Fatal(err)
		}
		keys = append(keys, o.Key)
	}
	if !slices.Equal(keys, []string{"00/a"}) {
		t.Errorf("listed %q", keys)
	}
	// To another database all of it would be garbage.
	other := store.NewOwned(inner, "other")
	refused := func(what string, s *store.Owned) {
		t.Helper()
		for name, err := range map[string]error{
			"put":   s.Put(t.Context(), "00/b", strings.NewReader("y"), store.PutOptions{}),
			"claim": s.Claim(t.Context()),
			"list": func() (err error) {
				for _, err = range s.List(t.Context()) {
				}
				return err
			}(),
		} {
			if !errors.Is(err, upload.Invalid) {
				t.Errorf("%s of %s: %v", name, what, err)
			}
		}
	}
	refused("another server's store", other)
	// A process that has claimed it long ago looks again before it calls anything garbage.
	if err := other.Adopt(t.Context()); err != nil {
		t.Fatal(err)
	}
	for _, err := range mine.List(t.Context()) {
		if !errors.Is(err, upload.Invalid) {
			t.Errorf("listing a store that another server has taken over: %v", err)
		}
	}

	foreign := memory.New()
	put(t, foreign, "holiday.jpg", "z")
	refused("a bucket with other things", store.NewOwned(foreign, "mine"))

	down := storetest.NewFaulty(memory.New())
	down.SetDown(true)
	if err := store.NewOwned(down, "mine").Claim(t.Context()); !errors.Is(err, upload.Unavailable) {
		t.Errorf("claim of a store that is away: %v", err)
	}
}

func TestMirror(t *testing.T) {
	a, b := storetest.NewFaulty(memory.New()), storetest.NewFaulty(memory.New())
	r := store.NewMirror(a, b)
	data := storetest.Bytes(1, 100_000)
	key, digests := storetest.Key(data, "a"), storetest.DigestsOf(data)
	kept := &storetest.Checkpoint{}
	send := func() error {
		return r.Put(t.Context(), key, bytes.NewReader(data), store.PutOptions{Digests: &digests, Checkpoint: kept})
	}
	// One is away: nothing is sent to the other, at each try anew.
	b.SetDown(true)
	if err := send(); !errors.Is(err, upload.Unavailable) {
		t.Errorf("put with a store away: %v", err)
	}
	if len(a.Puts()) != 0 {
		t.Error("sent to one store while the other was away")
	}
	b.SetDown(false)
	// One fails in the middle: the other is not sent the same again.
	b.Next(storetest.Full, 1)
	if err := send(); !errors.Is(err, upload.NoRoom) {
		t.Errorf("put with a store full: %v", err)
	}
	if err := send(); err != nil {
		t.Fatal(err)
	}
	if len(a.Puts()) != 1 || len(b.Puts()) != 2 {
		t.Errorf("%d and %d puts", len(a.Puts()), len(b.Puts()))
	}
	// Either is enough for reading, both are needed for being right.
	for _, away := range []*storetest.Faulty{a, b} {
		away.SetDown(true)
		if got, err := storetest.Read(t.Context(), r, key, 0, -1); err != nil || !bytes.Equal(got, data) {
			t.Errorf("read with a store away: %d bytes, %v", len(got), err)
		}
		if err := r.Verify(t.Context(), key, digests); !errors.Is(err, upload.Unavailable) {
			t.Errorf("verify with a store away: %v", err)
		}
		away.SetDown(false)
	}
	a.Store.(*memory.Store).Alter(key, func(data []byte) []byte { data[7] ^= 1; return data })
	if err := r.Verify(t.Context(), key, digests); !errors.Is(err, upload.DigestMismatch) {
		t.Errorf("verify with a damaged copy: %v", err)
	}
	if err := send(); err != nil { // mends it
		t.Fatal(err)
	}
	if err := r.Verify(t.Context(), key, digests); err != nil {
		t.Error(err)
	}
	// While one does not answer "not found" of the other proves nothing.
	other := storetest.Key(data, "other")
	b.SetDown(true)
	if _, err := r.Size(t.Context(), other); !errors.Is(err, upload.Unavailable) {
		t.Errorf("size of nothing with a store away: %v", err)
	}
	if err := r.Delete(t.Context(), key); !errors.Is(err, upload.Unavailable) {
		t.Errorf("delete with a store away: %v", err)
	}
	b.SetDown(false)
	if _, err := r.Size(t.Context(), other); !errors.Is(err, upload.NotFound) {
		t.Errorf("size of nothing: %v", err)
	}
}

func TestSharesOfACheckpoint(t *testing.T) {
	whole := &storetest.Checkpoint{}
	a, b := &remembers{Store: memory.New()}, &remembers{Store: memory.New()}
	r := store.NewMirror(a, b)
	for range 2 {
		if err := r.Put(t.Context(), "00/a", strings.NewReader("x"), store.PutOptions{Checkpoint: whole}); err != nil {
			t.Fatal(err)
		}
	}
	if got := []string{a.seen, b.seen}; !slices.Equal(got, []string{"a", "b"}) && got[0] == got[1] {
		t.Errorf("the stores found %q", got)
	}
	// What another store has saved is not divided wrongly.
	for _, foreign := range []string{"garbage", `["YQ=="]`, `{"id":"x"}`, ""} {
		if err := r.Put(t.Context(), "00/a", strings.NewReader("x"), store.PutOptions{Checkpoint: saved(t, foreign)}); err != nil {
			t.Error(err)
		}
		if a.seen != "" || b.seen != "" {
			t.Errorf("of %q the stores found %q and %q", foreign, a.seen, b.seen)
		}
	}
}

// remembers is a store that saves its own address and tells what it finds.
type remembers struct {
	store.Store
	seen string
}

func (r *remembers) Put(ctx context.Context, key string, content store.Content, opt store.PutOptions) error {
	r.seen = string(opt.Checkpoint.Load())
	name := map[bool]string{true: r.seen, false: time.Now().Format(time.RFC3339Nano)}[r.seen != ""]
	if err := opt.Checkpoint.Save(ctx, []byte(name)); err != nil {
		return err
	}
	return r.Store.Put(ctx, key, content, opt)
}

func TestAs(t *testing.T) {
	guarded := store.NewGuard(store.NewOwned(memory.New(), "db"), store.GuardOptions{})
	if _, ok := store.As[*memory.Store](guarded); !ok {
		t.Error("what is inside is not found")
	}
	if _, ok := store.As[store.Presigner](guarded); ok {
		t.Error("found what is not there")
	}
}

// saved is a checkpoint with this in it.
func saved(t *testing.T, state string) *storetest.Checkpoint {
	t.Helper()
	c := &storetest.Checkpoint{}
	if err := c.Save(t.Context(), []byte(state)); err != nil {
		t.Fatal(err)
	}
	return c
}
