package transfer_test

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"hash/crc32"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"gantry/chunkstore/disk"
	"gantry/internal/vfs/memfs"
	"gantry/store"
	"gantry/store/storetest"
	"gantry/transfer"
	"gantry/transfer/queue"
	"gantry/upload"
)

func TestBlobsAreStored(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	opt := testOptions()
	opt.Sweep = time.Hour // only what Wake wakes
	relay, _ := r.start(opt)
	for _, size := range []int{0, 1, 4096, 100_000, 1 << 20, 5<<20 + 17} {
		data := storetest.Bytes(uint64(size), size)
		f := r.commit(data)
		relay.Wake()
		r.waitFor(&f, upload.TransferStored)
		r.expectStored(&f, data)
		r.expectStaged(&f, data)
		if got := r.transfer(&f); got.Bytes != int64(size) || got.Attempts != 1 || got.LastError != "" {
			t.Errorf("%+v", got)
		}
	}
}

// A blob whose staging is on the store's disk costs no second copy, though it is verified.
func TestStoredBlobIsALink(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	r.start(testOptions())
	f := r.commit(storetest.Bytes(1, 1<<20))
	r.waitFor(&f, upload.TransferStored)
	b := r.blob(&f)
	staged, err := os.Stat(filepath.Join(r.dir, "staging", b.Staging+".data"))
	if err != nil {
		t.Fatal(err)
	}
	if object, err := os.Stat(filepath.Join(r.dir, "store", b.ObjectKey)); err != nil || !os.SameFile(staged, object) {
		t.Errorf("the object is a copy (%v)", err)
	}
}

// What was due before the worker was there, or whose message was lost, is found without being woken.
func TestTheSweepFindsWhatIsDue(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	data := storetest.Bytes(1, 1000)
	f := r.commit(data)
	r.queue = lossy{}
	_, stop := r.start(testOptions())
	r.eventually("publishing", func() bool {
		ids, err := r.db.TakeDue(t.Context(), node, r.now(), time.Minute, 1)
		return err == nil && len(ids) == 0
	})
	stop()
	if got := r.transfer(&f); got.State != upload.TransferQueued {
		t.Fatalf("%+v", got)
	}
	r.queue = newRig(t).queue
	r.shift.Store(int64(2 * time.Minute)) // republished after Options.Republish
	r.start(testOptions())
	r.waitFor(&f, upload.TransferStored)
	r.expectStored(&f, data)
}

// lossy is a queue that takes messages and delivers none.
type lossy struct{}

func (lossy) Publish(context.Context, string, ...string) error { return nil }
func (lossy) Consume(ctx context.Context, _ string, _ int, _ queue.Handler) error {
	<-ctx.Done()
	return nil
}

// Two uploads of the same bytes become one blob, and the second transfer is over without a Put.
func TestTwinsAreJoined(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	data := storetest.Bytes(1, 2<<20)
	a, b := r.commit(data), r.commit(data)
	if a.BlobID == b.BlobID {
		t.Fatal("they are one blob before anybody compared their roots")
	}
	opt := testOptions()
	opt.Workers = 1 // else the newer may be put before the older is known to be the same
	r.start(opt)
	r.eventually("both final", func() bool { return r.transfer(&a).State.Final() && r.transfer(&b).State.Final() })
	if x, y := r.blob(&a), r.blob(&b); x.ID != y.ID || x.Refs != 2 || x.Store == "" {
		t.Errorf("%+v\n%+v", x, y)
	}
	if puts := r.store.Puts(); len(puts) != 1 {
		t.Errorf("put %q", puts)
	}
}

// Wrong bytes in staging never reach the store, and the blob is known to be lost.
func TestDamagedStagingIsLost(t *testing.T) {
	t.Parallel()
	data := storetest.Bytes(1, 3<<20)
	for name, c := range map[string]struct {
		change func([]byte) []byte
		reason string
	}{
		"a bit":      {func(b []byte) []byte { b[1<<20+5] ^= 4; return b }, "CRC-32C"},
		"cut short":  {func(b []byte) []byte { return b[:len(b)-1] }, "bytes"},
		"longer":     {func(b []byte) []byte { return append(b, 0) }, "bytes"},
		"all zeroes": {func(b []byte) []byte { clear(b); return b }, "CRC-32C"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			r := newRig(t)
			f := r.commit(data)
			r.alterStaged(&f, c.change)
			r.start(testOptions())
			got := r.waitFor(&f, upload.TransferDead)
			if !strings.Contains(got.LastError, c.reason) {
				t.Errorf("the reason is %q", got.LastError)
			}
			if b := r.blob(&f); b.State != upload.BlobLost || b.Store != "" || !b.Root.IsZero() {
				t.Errorf("%+v", b)
			}
			if puts := r.store.Puts(); len(puts) > 0 {
				t.Errorf("put %q", puts)
			}
		})
	}
}

func TestMissingStagingIsLost(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	f := r.commit(storetest.Bytes(1, 1000))
	if err := r.staging.Discard(t.Context(), r.blob(&f).Staging); err != nil {
		t.Fatal(err)
	}
	r.start(testOptions())
	if got := r.waitFor(&f, upload.TransferDead); got.LastError != "The staging copy is gone." {
		t.Errorf("%+v", got)
	}
	if b := r.blob(&f); b.State != upload.BlobLost {
		t.Errorf("%+v", b)
	}
}

// Fault 25: bytes that are missing in an old copy of the directory are in the newer one, where another process has
// started as the node. They are not lost, and the worker on the old copy ends.
func TestFault25WorkerOnAnOldCopy(t *testing.T) {
	t.Parallel()
	for name, alter := range map[string]func(t *testing.T, r *rig, f *upload.File){
		"gone": func(t *testing.T, r *rig, f *upload.File) {
			if err := r.staging.Discard(t.Context(), r.blob(f).Staging); err != nil {
				t.Fatal(err)
			}
		},
		"other bytes": func(_ *testing.T, r *rig, f *upload.File) {
			r.alterStaged(f, func(b []byte) []byte { b[0] ^= 1; return b })
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			r := newRig(t)
			f := r.commit(storetest.Bytes(1, 1000))
			alter(t, r, &f)
			var kind atomic.Pointer[upload.Kind] // of what the registry says; nil: the directory is the node's
			is := func(k upload.Kind) { kind.Store(&k) }
			deps := r.deps()
			deps.Current = func(context.Context) error {
				if k := kind.Load(); k != nil {
					return upload.Errorf(*k, "", node, "Of the test.")
				}
				return nil
			}
			notLost := func() {
				t.Helper()
				if got, b := r.transfer(&f), r.blob(&f); got.State == upload.TransferDead || b.State != upload.BlobLive {
					t.Errorf("transfer %s, blob %s", got.State, b.State)
				}
			}
			is(upload.Conflict)
			if err := r.queue.Publish(t.Context(), node, f.Transfer.ID); err != nil {
				t.Fatal(err)
			}
			ctx, cancel := context.WithTimeout(t.Context(), patience)
			defer cancel()
			if err := transfer.NewWorker(testOptions().Options, deps).Run(ctx); upload.KindOf(err) != upload.Conflict || err == nil {
				t.Errorf("the worker ended with %v", err)
			}
			notLost()
			// A registry that cannot be asked is no reason to give bytes up either, nor to end.
			is(upload.Unavailable)
			r.startWith(testOptions(), deps)
			r.eventually("more attempts", func() bool { return r.transfer(&f).Attempts > 3 })
			notLost()
			kind.Store(nil)
			r.waitFor(&f, upload.TransferDead)
			if b := r.blob(&f); b.State != upload.BlobLost {
				t.Errorf("blob %s", b.State)
			}
		})
	}
}

// Staging that was right at the first attempt and is damaged at the next is found out too.
func TestDamageBetweenAttempts(t *testing.T) {
	t.Parallel()
	for name, change := range map[string]func([]byte) []byte{
		"a bit": func(b []byte) []byte { b[7] ^= 1; return b },
		"with the same CRC": func(b []byte) []byte { // which the polynomial itself does not change
			var polynomial [8]byte
			binary.LittleEndian.PutUint64(polynomial[:], uint64(crc32.Castagnoli)<<1|1)
			for i, p := range polynomial {
				b[1000+i] ^= p
			}
			return b
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			r := newRig(t)
			f := r.commit(storetest.Bytes(1, 1<<20))
			r.store.SetDown(true)
			r.start(testOptions())
			r.eventually("an attempt", func() bool { return r.transfer(&f).State == upload.TransferRetrying })
			r.alterStaged(&f, change)
			r.store.SetDown(false)
			r.waitFor(&f, upload.TransferDead)
			if b := r.blob(&f); b.State != upload.BlobLost {
				t.Errorf("%+v", b)
			}
			if puts := r.store.Puts(); len(puts) > 0 {
				t.Errorf("put %q", puts)
			}
		})
	}
}

func TestAPanicIsAFailedAttempt(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	data := storetest.Bytes(1, 1000)
	f := r.commit(data)
	r.store.Next(storetest.PutPanics, 2)
	var log logged
	opt := testOptions()
	opt.Log = log.logger()
	r.start(opt)
	r.waitFor(&f, upload.TransferStored)
	r.expectStored(&f, data)
	if got := r.transfer(&f); got.Attempts != 3 {
		t.Errorf("%d attempts", got.Attempts)
	}
	if text := log.String(); !strings.Contains(text, "driver met a defect") || !strings.Contains(text, "faulty.go") {
		t.Errorf("the log does not tell what and where: %s", text)
	}
}

// A message that reached the wrong node does no harm: that the bytes are not there does not mean that
// they are lost.
func TestAnotherNodesTransfer(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	data := storetest.Bytes(1, 1000)
	f := r.commit(data)
	opt := testOptions()
	opt.Node = "n2"
	staging, err := disk.Open(memfs.New(nil), disk.Options{})
	if err != nil {
		t.Fatal(err)
	}
	defer staging.Close()
	other := transfer.NewWorker(opt.Options, transfer.Deps{
		Outbox: r.db, Staging: staging, Stores: map[string]store.Store{storeName: r.store}, Queue: r.queue, Now: r.now,
	})
	if err := other.Handle(t.Context(), f.Transfer.ID, ignored); err != nil {
		t.Fatal(err)
	}
	if b := r.blob(&f); b.State != upload.BlobLive {
		t.Errorf("%+v", b)
	}
	r.start(testOptions())
	r.waitFor(&f, upload.TransferStored)
	r.expectStored(&f, data)
}

func TestAnUnknownStoreIsWaitedFor(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	data := storetest.Bytes(1, 1000)
	f := r.commit(data)
	deps := r.deps()
	deps.Stores = map[string]store.Store{}
	_, stop := r.startWith(testOptions(), deps)
	r.eventually("several attempts", func() bool { return r.transfer(&f).Attempts > 3 })
	stop()
	if got := r.transfer(&f); !strings.Contains(got.LastError, storeName) && !strings.Contains(got.LastError, "stopped") {
		t.Errorf("%+v", got)
	}
	r.start(testOptions())
	r.waitFor(&f, upload.TransferStored)
	r.expectStored(&f, data)
}

// A node that is stopped in the middle of a transfer gives it back at once.
func TestStopGivesTransfersBack(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	data := storetest.Bytes(1, 1000)
	f := r.commit(data)
	putting := make(chan struct{})
	r.store.BeforePut(func(ctx context.Context, _ string) {
		close(putting)
		<-ctx.Done()
	})
	_, stop := r.start(testOptions())
	<-putting
	began := time.Now()
	stop()
	if took := time.Since(began); took > 5*time.Second {
		t.Errorf("stopping took %v", took)
	}
	got := r.transfer(&f)
	if got.State != upload.TransferRetrying || got.NextAt.After(r.now()) || got.Lease.Owner != "" || !strings.Contains(got.LastError, "stopped") {
		t.Errorf("%+v", got)
	}
	r.store.BeforePut(nil)
	r.start(testOptions())
	r.waitFor(&f, upload.TransferStored)
	r.expectStored(&f, data)
}

// A killed worker's lease runs out, and then another does the transfer.
func TestAKilledWorkersTransferIsDoneByAnother(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	data := storetest.Bytes(1, 1000)
	f := r.commit(data)
	if _, err := r.db.Lease(t.Context(), f.Transfer.ID, "killed", r.now(), r.now().Add(300*time.Millisecond)); err != nil {
		t.Fatal(err)
	}
	r.start(testOptions())
	r.waitFor(&f, upload.TransferStored)
	r.expectStored(&f, data)
	if got := r.transfer(&f); got.Attempts != 2 || got.Lease.Epoch != 2 {
		t.Errorf("%+v", got)
	}
}

// Long work keeps its lease, and users see how far it is.
func TestHeartbeatKeepsTheLease(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	data := storetest.Bytes(1, 1000)
	f := r.commit(data)
	goOn := make(chan struct{})
	r.store.BeforePut(func(ctx context.Context, _ string) {
		select {
		case <-goOn:
		case <-ctx.Done():
		}
	})
	opt := testOptions()
	opt.LeaseTTL, opt.Heartbeat = 400*time.Millisecond, 50*time.Millisecond
	r.start(opt)
	began := r.waitFor(&f, upload.TransferRunning)
	time.Sleep(2 * opt.LeaseTTL)
	if got := r.transfer(&f); got.State != upload.TransferRunning || got.Lease.Epoch != began.Lease.Epoch || !got.Lease.Until.After(began.Lease.Until) {
		t.Errorf("before %+v\nafter %+v", began, got)
	}
	close(goOn)
	r.waitFor(&f, upload.TransferStored)
	r.expectStored(&f, data)
	if got := r.transfer(&f); got.Attempts != 1 {
		t.Errorf("%d attempts", got.Attempts)
	}
}

// The database does not answer for a while at the end of a long transfer: it is not done again.
func TestTheDatabaseIsBusyAtTheEnd(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	data := storetest.Bytes(1, 1000)
	f := r.commit(data)
	var mu sync.Mutex
	left := map[string]int{"SetRoot": 2, "Stored": 3}
	r.outbox.hook(func(op string) error {
		mu.Lock()
		defer mu.Unlock()
		if left[op] > 0 {
			left[op]--
			return upload.Errorf(upload.Unavailable, op, "", "The database is busy.")
		}
		return nil
	})
	r.start(testOptions())
	r.waitFor(&f, upload.TransferStored)
	r.expectStored(&f, data)
	if got := r.transfer(&f); got.Attempts != 1 || len(r.store.Puts()) != 1 {
		t.Errorf("%d attempts, %d puts", got.Attempts, len(r.store.Puts()))
	}
}

// The database is away before anything is known of a transfer: the message is not lost.
func TestTheDatabaseIsAwayAtTheBeginning(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	data := storetest.Bytes(1, 1000)
	f := r.commit(data)
	var mu sync.Mutex
	left := map[string]int{"TakeDue": 3, "Lease": 2}
	r.outbox.hook(func(op string) error {
		mu.Lock()
		defer mu.Unlock()
		if left[op] > 0 {
			left[op]--
			return upload.Errorf(upload.Unavailable, op, "", "The database is away.")
		}
		return nil
	})
	opt := testOptions()
	opt.Republish = time.Hour // the queue delivers again by itself
	r.start(opt)
	r.waitFor(&f, upload.TransferStored)
	r.expectStored(&f, data)
}

// The outcome of the last write is not known: it was done, and is reported as failed.
func TestTheLastWriteIsDoneButNotKnown(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	data := storetest.Bytes(1, 1000)
	f := r.commit(data)
	var once sync.Once
	r.outbox.hook(func(op string) (err error) {
		if op != "Stored" {
			return nil
		}
		once.Do(func() {
			got := r.transfer(&f)
			b := r.blob(&f)
			err = r.db.Stored(context.Background(), got.ID, got.Lease.Epoch, storeName, upload.ObjectKeyFor(&b), r.now())
			err = errors.Join(err, upload.Errorf(upload.Unavailable, op, "", "The connection was lost."))
		})
		return err
	})
	_, stop := r.start(testOptions())
	r.waitFor(&f, upload.TransferStored)
	stop()
	r.expectStored(&f, data)
	if puts := r.store.Puts(); len(puts) != 1 {
		t.Errorf("put %q", puts)
	}
}

// A transfer canceled by an operator while it is under way has no effect any more.
func TestACanceledTransferStops(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	data := storetest.Bytes(1, 1000)
	f := r.commit(data)
	putting, stopped := make(chan struct{}), make(chan struct{})
	r.store.BeforePut(func(ctx context.Context, _ string) {
		close(putting)
		<-ctx.Done()
		close(stopped)
	})
	opt := testOptions()
	opt.Heartbeat = 20 * time.Millisecond
	_, stop := r.start(opt)
	<-putting
	if err := r.db.CancelTransfer(t.Context(), f.Transfer.ID, r.now()); err != nil {
		t.Fatal(err)
	}
	select {
	case <-stopped:
	case <-time.After(patience):
		t.Fatal("the worker went on")
	}
	stop()
	if got := r.transfer(&f); got.State != upload.TransferCancelled {
		t.Errorf("%+v", got)
	}
	r.expectStaged(&f, data)
}

// On disk there may be files of a Put that was killed.
func TestRunCleansTheStores(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	left := filepath.Join(r.dir, "store", ".tmp-n1-killed")
	if err := os.WriteFile(left, []byte("half"), 0o600); err != nil {
		t.Fatal(err)
	}
	data := storetest.Bytes(1, 10)
	f := r.commit(data)
	r.start(testOptions())
	r.waitFor(&f, upload.TransferStored)
	if _, err := os.Stat(left); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("it is still there (%v)", err)
	}
}

// A store that does not answer is asked before all bytes are read again.
func TestAStoreThatIsAwayCostsNoReading(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	data := bytes.Repeat([]byte("x"), 1000)
	f := r.commit(data)
	r.store.SetDown(true)
	watch := &stagingWatch{Staging: r.staging}
	deps := r.deps()
	deps.Staging = watch
	r.startWith(testOptions(), deps)
	r.eventually("many attempts", func() bool { return r.transfer(&f).Attempts >= 8 })
	if n := watch.opened.Load(); n != 1 {
		t.Errorf("the content was opened %d times in %d attempts", n, r.transfer(&f).Attempts)
	}
	r.store.SetDown(false)
	r.waitFor(&f, upload.TransferStored)
}

// The message is acknowledged once the lease is there, and before the work, which may take longer than
// a broker waits. Without a lease it is not acknowledged: nothing else would see to the transfer.
func TestTheMessageIsAcknowledgedUnderTheLease(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	data := storetest.Bytes(1, 1000)
	f := r.commit(data)
	w := r.worker(testOptions())
	acked := 0
	ack := func() {
		acked++
		if got := r.transfer(&f); got.State != upload.TransferRunning || got.Lease.Owner == "" {
			t.Errorf("acknowledged without a lease: %+v", got)
		}
	}
	r.outbox.hook(func(string) error { return upload.Errorf(upload.Unavailable, "", "", "The database is away.") })
	if err := w.Handle(t.Context(), f.Transfer.ID, ack); err == nil || acked > 0 {
		t.Errorf("without a lease: %v, acknowledged %d times", err, acked)
	}
	r.outbox.hook(func(string) error { return nil })
	r.store.BeforePut(func(context.Context, string) {
		if acked != 1 {
			t.Errorf("acknowledged %d times before the work", acked)
		}
	})
	if err := w.Handle(t.Context(), f.Transfer.ID, ack); err != nil {
		t.Error(err)
	}
	r.expectStored(&f, data)
}

// What the outbox gave out and the queue did not take is published as soon as the queue is back, and
// not when the outbox gives it out again.
func TestTheQueueIsAwayForAWhile(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	var files []upload.File
	for i := range 10 {
		files = append(files, r.commit(storetest.Bytes(uint64(i), 1000)))
	}
	r.queue = &away{Queue: r.queue, times: 3}
	opt := testOptions()
	opt.Republish = time.Hour
	r.start(opt)
	for i := range files {
		r.waitFor(&files[i], upload.TransferStored)
	}
}

// While the queue is away nothing is taken from the outbox: what is taken and not published when the
// process dies waits for long.
func TestNothingIsTakenWhileTheQueueIsAway(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	f := r.commit(storetest.Bytes(1, 1000))
	r.queue = gone{}
	_, stop := r.start(testOptions())
	time.Sleep(100 * time.Millisecond)
	stop()
	if ids, err := r.db.TakeDue(t.Context(), node, r.now(), time.Minute, 10); err != nil || !slices.Equal(ids, []string{f.Transfer.ID}) {
		t.Errorf("due are %q, %v", ids, err)
	}
}

// gone is a queue that is waited for in vain.
type gone struct{ lossy }

func (gone) Publish(ctx context.Context, _ string, _ ...string) error {
	<-ctx.Done()
	return ctx.Err()
}

// away is a queue that does not take the first messages.
type away struct {
	queue.Queue
	times int
}

func (a *away) Publish(ctx context.Context, node string, ids ...string) error {
	if len(ids) == 0 {
		return nil
	}
	if a.times--; a.times >= 0 {
		return upload.Errorf(upload.Unavailable, "", "", "The broker is away.")
	}
	return a.Queue.Publish(ctx, node, ids...)
}
