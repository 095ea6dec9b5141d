package transfer_test

import (
	"bytes"
	"context"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"gantry/store/storetest"
	"gantry/transfer/queue"
	"gantry/upload"
)

// unruly is a queue that delivers messages twice, out of order and again after they were handled.
type unruly struct {
	queue.Queue
	mu   sync.Mutex
	held []string
}

func (u *unruly) Publish(ctx context.Context, node string, ids ...string) error {
	u.mu.Lock()
	defer u.mu.Unlock()
	u.held = append(append(u.held, ids...), ids...)
	if len(u.held) < 6 && rand.IntN(4) > 0 {
		return nil // later, with others; the end of the test is when the sweep finds it
	}
	rand.Shuffle(len(u.held), func(i, j int) { u.held[i], u.held[j] = u.held[j], u.held[i] })
	if err := u.Queue.Publish(ctx, node, u.held...); err != nil {
		return err
	}
	u.held = u.held[:len(u.held)/2] // and some once more
	return nil
}

func (u *unruly) Consume(ctx context.Context, node string, workers int, handle queue.Handler) error {
	return u.Queue.Consume(ctx, node, workers, func(ctx context.Context, id string, ack func()) error {
		var twice sync.WaitGroup
		twice.Go(func() { _ = handle(ctx, id, func() {}) })
		err := handle(ctx, id, ack)
		twice.Wait()
		return err
	})
}

// Fault 19: messages are doubled, delivered again and reordered, and two workers with several hands
// each have them: each blob is put once, by one at a time.
func TestFault19MessagesDoubledAndReordered(t *testing.T) {
	t.Parallel()
	const n = 60
	r := newRig(t)
	r.queue = &unruly{Queue: r.queue}
	var files []upload.File
	content := func(i int) []byte { return storetest.Bytes(uint64(i), 1000+i) }
	for i := range n {
		files = append(files, r.commit(content(i)))
	}
	opt := testOptions()
	opt.Republish = 30 * time.Millisecond
	r.start(opt)
	r.start(opt)
	for i := range files {
		r.waitFor(&files[i], upload.TransferStored)
	}
	for i := range files {
		r.expectStored(&files[i], content(i))
		if got := r.transfer(&files[i]); got.Attempts != 1 {
			t.Errorf("%d attempts", got.Attempts)
		}
	}
	puts := r.store.Puts()
	slices.Sort(puts)
	if len(puts) != n || len(slices.Compact(puts)) != n {
		t.Errorf("%d puts for %d blobs", len(r.store.Puts()), n)
	}
	if r.store.Overlapped() {
		t.Error("two workers put one object at the same time")
	}
}

// Fault 20: a worker is stopped past its lease, and another does its transfer. Then it goes on:
// nothing that it does has an effect, wherever it was stopped.
func TestFault20WorkerStoppedPastItsLease(t *testing.T) {
	t.Parallel()
	data := storetest.Bytes(1, 10_000)
	for _, at := range []string{"SetRoot", "Put", "Stored", "Retry"} {
		t.Run("stopped before "+at, func(t *testing.T) {
			t.Parallel()
			r := newRig(t)
			f := r.commit(data)
			stoppedAt, goOn := make(chan struct{}), make(chan struct{})
			var first atomic.Bool
			pause := func(op string) {
				if op == at && first.CompareAndSwap(false, true) { // only the first worker is stopped
					close(stoppedAt)
					<-goOn
				}
			}
			r.outbox.hook(func(op string) error { pause(op); return nil })
			r.store.BeforePut(func(context.Context, string) { pause("Put") })
			if at == "Retry" {
				r.store.Next(storetest.PutTimesOut, 1)
			}
			stoppedOpt := testOptions()
			stoppedOpt.Owner, stoppedOpt.LeaseTTL, stoppedOpt.Heartbeat = "stopped", 200*time.Millisecond, time.Hour // as if no timer ran
			// Its other consumers are not stopped, and may take the message that is meant for the other worker.
			stoppedOpt.Republish = 50 * time.Millisecond
			var log logged
			stoppedOpt.Log = log.logger()
			_, stopFirst := r.start(stoppedOpt)
			release := sync.OnceFunc(func() { close(goOn) })
			t.Cleanup(release) // before that of start, which waits for the worker
			<-stoppedAt

			opt := testOptions()
			opt.Owner, opt.Republish = "other", stoppedOpt.Republish
			_, stopSecond := r.start(opt)
			after := r.waitFor(&f, upload.TransferStored)
			blob := r.blob(&f)
			r.expectStored(&f, data)
			puts := len(r.store.Puts())

			release()
			r.eventually("the stopped worker's end", func() bool { return strings.Contains(log.String(), "lease") })
			stopFirst()
			stopSecond()
			if got := r.transfer(&f); got != after {
				t.Errorf("the transfer was\n%+v, is\n%+v", after, got)
			}
			if got := r.blob(&f); got != blob {
				t.Errorf("the blob was\n%+v, is\n%+v", blob, got)
			}
			r.expectStored(&f, data)
			if at == "SetRoot" && len(r.store.Puts()) != puts {
				t.Error("the worker put an object after its lease was lost")
			}
			if deletes := r.store.Deletes(); len(deletes) > 0 {
				t.Errorf("deleted %q", deletes)
			}
		})
	}
}

// A worker whose lease ran out without a failed write knows it before it writes to the store; also if
// it got the lease so late that nothing was left of it.
func TestALeaseThatRanOutStopsBeforePut(t *testing.T) {
	t.Parallel()
	for _, slowAt := range []string{"Lease", "SetRoot"} {
		t.Run(slowAt, func(t *testing.T) {
			t.Parallel()
			r := newRig(t)
			f := r.commit(storetest.Bytes(1, 1000))
			opt := testOptions()
			opt.LeaseTTL, opt.Heartbeat, opt.Republish = 100*time.Millisecond, time.Hour, 50*time.Millisecond
			var slow atomic.Bool
			r.outbox.hook(func(op string) error {
				if op == slowAt && slow.CompareAndSwap(false, true) {
					time.Sleep(150 * time.Millisecond) // nobody else took over yet
				}
				return nil
			})
			var puts int
			r.store.BeforePut(func(context.Context, string) {
				if r.transfer(&f).Lease.Epoch == 1 {
					puts++
				}
			})
			r.start(opt)
			r.waitFor(&f, upload.TransferStored)
			if puts > 0 {
				t.Error("it put an object under a lease that had run out")
			}
		})
	}
}

// A message that comes while its transfer is being worked on is not ignored: it may tell of something
// new. Here an operator takes the transfer away from the worker and has it tried again.
func TestAMessageDuringTheWorkIsNotIgnored(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	data := storetest.Bytes(1, 1000)
	f := r.commit(data)
	w := r.worker(testOptions()) // no relay runs that would look again
	var first atomic.Bool
	r.store.BeforePut(func(ctx context.Context, _ string) {
		if !first.CompareAndSwap(false, true) {
			return
		}
		for _, err := range []error{
			r.db.CancelTransfer(ctx, f.Transfer.ID, r.now()), r.db.RetryTransfer(ctx, f.Transfer.ID, r.now()), w.Handle(ctx, f.Transfer.ID, ignored),
		} {
			if err != nil {
				t.Error(err)
			}
		}
	})
	if err := w.Handle(t.Context(), f.Transfer.ID, ignored); err != nil {
		t.Fatal(err)
	}
	r.expectStored(&f, data)
	if r.store.Overlapped() {
		t.Error("one worker put one object twice at the same time")
	}
}

// Fault 22: what stores do to those who use them. Each ends with the object whole and verified, the
// staging copy there until then, and not one deletion.
func TestFault22StoreMisbehaves(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		fault    storetest.Fault
		times    int
		reason   string
		attempts int // 0: any number
	}{
		"time-out of a Put that succeeded": {storetest.PutTimesOut, 1, "in time", 2}, // the second finds the object
		"burst of 503":                     {storetest.Unavailable, 25, "503", 0},    // more than Options.MaxFailures
		"bit flipped":                      {storetest.PutFlipsBit, 3, "crc32c", 4},
		"object cut short":                 {storetest.PutCutsOff, 3, "bytes", 4},
		"found but not readable":           {storetest.PutHidden, 3, "no such object", 4},
		"full for a while":                 {storetest.Full, 25, "full", 26},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			r := newRig(t)
			data := storetest.Bytes(1, 2<<20)
			f := r.commit(data)
			r.store.Next(c.fault, c.times)
			var mu sync.Mutex
			var early []string
			reasons := map[string]bool{}
			r.outbox.hook(func(op string) error {
				if op != "Lease" && op != "Stored" {
					return nil
				}
				got, b := r.transfer(&f), r.blob(&f)
				mu.Lock()
				defer mu.Unlock()
				reasons[got.LastError] = true
				// The transfer must not be recorded before the object is whole.
				if op == "Stored" {
					if err := r.local.Verify(t.Context(), upload.ObjectKeyFor(&b), storetest.DigestsOf(data)); err != nil {
						early = append(early, err.Error())
					}
				}
				return nil
			})
			opt := testOptions()
			opt.MaxBackoff = 5 * time.Millisecond
			_, stop := r.start(opt)
			got := r.waitFor(&f, upload.TransferStored)
			stop()
			r.expectStored(&f, data)
			r.expectStaged(&f, data)
			if c.attempts > 0 && got.Attempts != c.attempts {
				t.Errorf("%d attempts, want %d", got.Attempts, c.attempts)
			}
			if len(early) > 0 {
				t.Errorf("recorded as stored before it was: %q", early)
			}
			told := false
			for reason := range reasons {
				told = told || strings.Contains(reason, c.reason)
			}
			if !told {
				t.Errorf("no reason tells of %q: %v", c.reason, reasons)
			}
			if deletes := r.store.Deletes(); len(deletes) > 0 {
				t.Errorf("deleted %q", deletes)
			}
		})
	}
}

// A store that keeps wrong bytes for ever is given up with a reason, and the staging copy stays.
func TestFault22StoreIsNeverRight(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	data := storetest.Bytes(1, 1000)
	f := r.commit(data)
	r.store.Next(storetest.PutFlipsBit, 1000)
	opt := testOptions()
	opt.MaxFailures = 5
	r.start(opt)
	got := r.waitFor(&f, upload.TransferDead)
	if got.Attempts != 5 || !strings.Contains(got.LastError, "crc32c") {
		t.Errorf("%+v", got)
	}
	if b := r.blob(&f); b.State != upload.BlobLive || b.Store != "" {
		t.Errorf("%+v", b)
	}
	r.expectStaged(&f, data)
	// The operator mends the store and has it tried again.
	r.store.Next(storetest.PutFlipsBit, -995)
	if err := r.db.RetryTransfer(t.Context(), f.Transfer.ID, r.now()); err != nil {
		t.Fatal(err)
	}
	r.waitFor(&f, upload.TransferStored)
	r.expectStored(&f, data)
}

// Wrong credentials: nothing is tried a second time, and the operator is told.
func TestFault22StoreRefuses(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	data := storetest.Bytes(1, 1000)
	f := r.commit(data)
	r.store.Next(storetest.Refused, 1)
	r.start(testOptions())
	got := r.waitFor(&f, upload.TransferDead)
	if got.Attempts != 1 || !strings.Contains(got.LastError, "credentials") {
		t.Errorf("%+v", got)
	}
	if b := r.blob(&f); b.State != upload.BlobLive {
		t.Errorf("%+v", b)
	}
	r.expectStaged(&f, data)
}

// Fault 23: the store is down for a day. Nothing dies, nothing is deleted, and when it is back the
// backlog drains by itself, oldest first.
func TestFault23StoreDownForADay(t *testing.T) {
	t.Parallel()
	const n = 8
	r := newRig(t)
	r.store.SetDown(true)
	var files []upload.File
	content := func(i int) []byte { return storetest.Bytes(uint64(i), 1000+i) }
	for i := range n {
		r.shift.Add(int64(time.Second)) // one a second
		files = append(files, r.commit(content(i)))
	}
	opt := testOptions()
	opt.MinBackoff, opt.MaxBackoff = 0, 0 // the real ones: 1 s to 5 min
	opt.Workers = 1
	_, stop := r.start(opt)
	for range 24 * 60 / 15 { // a day in steps of a quarter of an hour
		before := r.transfer(&files[n-1]).Attempts
		r.shift.Add(int64(15 * time.Minute))
		r.eventually("an attempt", func() bool {
			got := r.transfer(&files[n-1])
			return got.Attempts > before && got.State == upload.TransferRetrying
		})
	}
	for i := range files {
		got := r.transfer(&files[i])
		if got.State == upload.TransferDead || got.NextAt.Sub(r.now()) > 5*time.Minute+time.Second {
			t.Errorf("%+v", got)
		}
		r.expectStaged(&files[i], content(i))
	}
	stop() // so that all are due together: with what is due at different times the order is that of time
	r.shift.Add(int64(6 * time.Minute))
	r.store.SetDown(false)
	r.start(opt)
	for i := range files {
		r.waitFor(&files[i], upload.TransferStored)
		r.expectStored(&files[i], content(i))
	}
	if len(r.store.Deletes()) > 0 {
		t.Errorf("deleted %q", r.store.Deletes())
	}
}

// The backlog of a store that was down from the beginning drains in the order in which it grew.
func TestFault23OldestFirst(t *testing.T) {
	t.Parallel()
	const n = 40
	r := newRig(t)
	var want []string
	var files []upload.File
	for i := range n {
		r.shift.Add(int64(time.Second))
		files = append(files, r.commit(storetest.Bytes(uint64(i), 500)))
		b := r.blob(&files[i])
		want = append(want, upload.ObjectKeyFor(&b))
	}
	opt := testOptions()
	opt.Workers = 1
	r.start(opt)
	r.waitFor(&files[n-1], upload.TransferStored)
	if got := r.store.Puts(); !slices.Equal(got, want) {
		t.Errorf("put %q\nwant %q", got, want)
	}
}

// Fault 24: the clock jumps an hour, either way, at any step of transfers: each still has its effect
// exactly once, and none is forgotten once the clock has caught up.
func TestFault24ClockJumps(t *testing.T) {
	t.Parallel()
	for _, jump := range []time.Duration{time.Hour, -time.Hour} {
		for _, at := range []string{"Lease", "SetRoot", "Put", "Renew", "Stored", "Retry"} {
			t.Run(fmt.Sprint(jump, " before ", at), func(t *testing.T) {
				t.Parallel()
				r := newRig(t)
				const n = 5
				var files []upload.File
				content := func(i int) []byte { return storetest.Bytes(uint64(i), 2000+i) }
				for i := range n {
					files = append(files, r.commit(content(i)))
				}
				var once sync.Once
				jumped := make(chan struct{})
				jumpAt := func(op string) {
					if op == at {
						once.Do(func() {
							r.shift.Add(int64(jump))
							close(jumped)
						})
					}
				}
				r.outbox.hook(func(op string) error { jumpAt(op); return nil })
				r.store.BeforePut(func(context.Context, string) {
					jumpAt("Put")
					if at == "Renew" {
						time.Sleep(30 * time.Millisecond)
					}
				})
				if at == "Retry" {
					r.store.Next(storetest.PutTimesOut, 2)
				}
				opt := testOptions()
				opt.Heartbeat = 10 * time.Millisecond
				r.start(opt)
				other := opt
				other.Owner = "other"
				r.start(other)
				if jump < 0 { // what was leased or put off before the jump is due when the clock is there again
					<-jumped
					time.Sleep(100 * time.Millisecond)
					r.shift.Add(int64(-jump))
				}
				for i := range files {
					r.waitFor(&files[i], upload.TransferStored)
					r.expectStored(&files[i], content(i))
					r.expectStaged(&files[i], content(i))
				}
				if deletes := r.store.Deletes(); len(deletes) > 0 {
					t.Errorf("deleted %q", deletes)
				}
			})
		}
	}
}

// Files of all kinds while the store misbehaves in all ways, messages are unruly, and workers are
// stopped and started: in the end everything is stored.
func TestEverythingAtOnce(t *testing.T) {
	t.Parallel()
	const n = 80
	seed := uint64(time.Now().UnixNano())
	t.Logf("seed %d", seed)
	rng := rand.New(rand.NewPCG(seed, 0))
	r := newRig(t)
	r.queue = &unruly{Queue: r.queue}
	opt := func() options {
		opt := testOptions()
		opt.Republish, opt.LeaseTTL, opt.Heartbeat = 50*time.Millisecond, 2*time.Second, 20*time.Millisecond
		opt.MaxFailures = 1 << 30
		return opt
	}
	_, stop := r.start(opt())
	_, other := r.start(opt())
	var files []upload.File
	var contents [][]byte
	for range n {
		data := storetest.Bytes(rng.Uint64N(40), 1000) // with twins
		files, contents = append(files, r.commit(data)), append(contents, data)
		switch rng.IntN(12) {
		case 0:
			stop()
			_, stop = r.start(opt())
		case 1:
			other()
			_, other = r.start(opt())
		case 2, 3:
			r.store.Next(storetest.Fault(rng.IntN(int(storetest.Full)+1)), 1+rng.IntN(3))
		}
	}
	for i := range files {
		r.eventually("stored", func() bool { b := r.blob(&files[i]); return b.Store != "" && b.State == upload.BlobLive })
		b := r.blob(&files[i])
		got, err := storetest.Read(t.Context(), r.local, b.ObjectKey, 0, -1)
		if err != nil || !bytes.Equal(got, contents[i]) {
			t.Errorf("file %d: %d bytes, %v", i, len(got), err)
		}
	}
	if r.store.Overlapped() {
		t.Error("two workers put one object at the same time")
	}
}
