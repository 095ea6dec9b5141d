package transfer_test

import (
	"context"
	"errors"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"gantry/store"
	"gantry/store/memory"
	"gantry/store/storetest"
	"gantry/transfer"
	"gantry/upload"
)

// guarded is the rig's store as the program has it: left alone while it does not answer.
func (r *rig) guarded() store.Store {
	return store.NewGuard(r.store, store.GuardOptions{Name: storeName, Failures: 2, Pause: time.Millisecond})
}

// While a store does not answer another takes its place, and it alone; afterwards it is used again.
func TestFallback(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	backup := storetest.NewFaulty(memory.New())
	deps := r.deps()
	deps.Stores = map[string]store.Store{storeName: r.guarded(), "backup": store.NewGuard(backup, store.GuardOptions{Name: "backup"})}
	deps.Fallback = map[string]string{storeName: "backup", "backup": storeName}
	unknown := make(chan string, 100)
	backup.BeforePut(func(ctx context.Context, key string) {
		// The janitor deletes what no row knows, and this may take hours.
		if known, err := r.db.KnownObjects(ctx, "backup", []string{key}); err != nil || !known[key] {
			unknown <- key
		}
	})
	opt := testOptions()
	opt.Probe = 5 * time.Millisecond
	r.startWith(opt, deps)
	in := func(f *upload.File, want string) {
		t.Helper()
		tr := r.waitFor(f, upload.TransferStored)
		if b := r.blob(f); b.Store != want || tr.Store != want {
			t.Errorf("stored in %q (transfer: %q), want %q", b.Store, tr.Store, want)
		}
	}
	first := r.commit(storetest.Bytes(1, 1000))
	in(&first, storeName)
	r.store.SetDown(true)
	for i := range uint64(5) {
		f := r.commit(storetest.Bytes(10+i, 1000))
		in(&f, "backup")
	}
	r.store.SetDown(false)
	r.eventually("the store is used again", func() bool {
		f := r.commit(storetest.Bytes(uint64(time.Now().UnixNano()), 1000))
		r.waitFor(&f, upload.TransferStored)
		return r.blob(&f).Store == storeName
	})
	// What is to go to the fallback goes the other way about.
	if len(r.store.Deletes())+len(backup.Deletes()) > 0 {
		t.Error("a worker deleted an object")
	}
	select {
	case key := <-unknown:
		t.Errorf("the object %s was put where no row knew it", key)
	default:
	}
}

// A store that was away for long: all that waits is due when it is back, the oldest first.
func TestBacklogDrainsOldestFirst(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	r.store.SetDown(true)
	deps := r.deps()
	deps.Stores = map[string]store.Store{storeName: r.guarded()}
	opt := testOptions()
	opt.Workers, opt.MinBackoff, opt.MaxBackoff, opt.Probe = 1, time.Hour, time.Hour, 5*time.Millisecond
	r.startWith(opt, deps)
	var files []upload.File
	var want []string
	for i := range uint64(20) {
		f := r.commit(storetest.Bytes(i, 1000))
		r.waitFor(&f, upload.TransferRetrying)
		b := r.blob(&f)
		files, want = append(files, f), append(want, upload.ObjectKeyFor(&b))
	}
	r.store.SetDown(false)
	for i := range files {
		r.waitFor(&files[i], upload.TransferStored)
	}
	if got := r.store.Puts(); !slices.Equal(got, want) {
		t.Errorf("put in the order %q, want %q", got, want)
	}
}

// forgetful is a store whose Put saves how far it got, and breaks off the first time.
type forgetful struct {
	store.Store
	mu     sync.Mutex
	found  []string
	before func()
}

func (s *forgetful) Put(ctx context.Context, key string, content store.Content, opt store.PutOptions) error {
	s.mu.Lock()
	s.found = append(s.found, string(opt.Checkpoint.Load()))
	first := len(s.found) == 1
	s.mu.Unlock()
	if s.before != nil {
		s.before()
	}
	if err := opt.Checkpoint.Save(ctx, []byte("half of "+key)); err != nil {
		return err
	}
	if first {
		return upload.Errorf(upload.Unavailable, "", key, "The connection broke.")
	}
	return s.Store.Put(ctx, key, content, opt)
}

func TestCheckpointIsKept(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	data := storetest.Bytes(1, 6<<20)
	f := r.commit(data)
	st := &forgetful{Store: r.local}
	deps := r.deps()
	deps.Stores = map[string]store.Store{storeName: st}
	_, stop := r.startWith(testOptions(), deps)
	r.waitFor(&f, upload.TransferStored)
	stop()
	b := r.blob(&f)
	if want := []string{"", "half of " + upload.ObjectKeyFor(&b)}; !slices.Equal(st.found, want) {
		t.Errorf("found %q, want %q", st.found, want)
	}
	r.expectStored(&f, data)
}

// A worker that has lost its lease must not overwrite what the one who has it now remembers.
func TestCheckpointOfALostLease(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	f := r.commit(storetest.Bytes(1, 6<<20))
	st := &forgetful{Store: r.local}
	var saved error
	st.before = func() {
		r.shift.Add(int64(time.Hour))
		job, err := r.db.Lease(t.Context(), f.Transfer.ID, "another", r.now(), r.now().Add(time.Hour))
		if err == nil {
			err = r.db.SaveCheckpoint(t.Context(), f.Transfer.ID, job.Transfer.Lease.Epoch, storeName, "the other's")
		}
		saved = errors.Join(saved, err)
	}
	deps := r.deps()
	deps.Stores = map[string]store.Store{storeName: st}
	w := transfer.NewWorker(testOptions().Options, deps)
	if err := errors.Join(w.Handle(t.Context(), f.Transfer.ID, ignored), saved); err != nil {
		t.Fatal(err)
	}
	if got, err := r.db.Checkpoint(t.Context(), f.Transfer.ID, storeName); err != nil || got != "the other's" {
		t.Errorf("kept %q, %v", got, err)
	}
	if got := r.transfer(&f); got.Lease.Owner != "another" || strings.Contains(got.LastError, "broke") {
		t.Errorf("%+v", got)
	}
}

// Large content is sent while it is read.
func TestReadBesideSending(t *testing.T) {
	t.Parallel()
	data := storetest.Bytes(1, 64<<20)
	sending := func(r *rig) (began chan struct{}) {
		began = make(chan struct{})
		r.store.BeforePut(func(context.Context, string) { close(began); r.store.BeforePut(nil) })
		return began
	}
	t.Run("goes together", func(t *testing.T) {
		r := newRig(t)
		f := r.commit(data)
		began := sending(r)
		// The root is not recorded before the store has begun to get the bytes.
		r.outbox.hook(func(op string) error {
			if op == "SetRoot" {
				<-began
			}
			return nil
		})
		r.start(testOptions())
		r.waitFor(&f, upload.TransferStored)
		r.expectStored(&f, data)
	})
	t.Run("a store that is away does not hold up the root", func(t *testing.T) {
		r := newRig(t)
		f := r.commit(data)
		r.store.SetDown(true)
		_, stop := r.start(testOptions())
		r.eventually("the root is known", func() bool { b := r.blob(&f); return !b.Root.IsZero() })
		r.store.SetDown(false)
		r.waitFor(&f, upload.TransferStored)
		stop()
		r.expectStored(&f, data)
	})
	t.Run("damaged content does not count", func(t *testing.T) {
		r := newRig(t)
		f := r.commit(data)
		r.alterStaged(&f, func(data []byte) []byte { data[5] ^= 1; return data })
		r.start(testOptions())
		r.waitFor(&f, upload.TransferDead)
		if b := r.blob(&f); b.State != upload.BlobLost || b.Store != "" {
			t.Errorf("%+v", b)
		}
	})
	t.Run("a twin ends the sending", func(t *testing.T) {
		r := newRig(t)
		first := r.commit(data)
		_, stop := r.start(testOptions())
		r.waitFor(&first, upload.TransferStored)
		stop()
		second := r.commit(data)
		var ended error
		r.store.BeforePut(func(ctx context.Context, _ string) { // waits until it is told to stop
			<-ctx.Done()
			ended = context.Cause(ctx)
		})
		w := r.worker(testOptions())
		if err := w.Handle(t.Context(), second.Transfer.ID, ignored); err != nil {
			t.Fatal(err)
		}
		if ended == nil {
			t.Error("the sending did not end")
		}
		if a, b := r.blob(&first), r.blob(&second); a.ID != b.ID || a.Store != storeName {
			t.Errorf("%+v and %+v", a, b)
		}
	})
	t.Run("a defect of the driver is an error", func(t *testing.T) {
		r := newRig(t)
		f := r.commit(data)
		r.store.Next(storetest.PutPanics, 1)
		r.start(testOptions())
		r.waitFor(&f, upload.TransferStored)
		r.expectStored(&f, data)
	})
}
