// Package transfer moves blobs from a node's staging directory to their stores: a relay that turns the
// rows of the outbox into messages, and workers that do what the messages name.
//
// The rows are the truth. A message only says "look at this row", so it may be lost, doubled, late or
// out of order. A worker has a lease on the row before it does anything, and every write names the
// lease's epoch: a worker that was stopped past its lease finds that its writes change nothing. What
// it may have left in the store under the object key is then for the one who has the lease now, who
// puts and verifies the object itself; if nobody ever does, the janitor's sweep finds an object that
// belongs to no blob. For the same reason a worker never deletes an object, not even one that is
// wrong: between looking at its lease and deleting it might lose it. The next Put replaces it.
package transfer

import (
	"cmp"
	"context"
	"crypto/rand"
	"log/slog"
	"runtime"
	"sync"
	"time"

	"gantry/chunkstore"
	"gantry/meta"
	"gantry/store"
	"gantry/transfer/queue"
	"gantry/upload"
)

// Options are the limits and periods of a Worker. What is zero gets its default.
type Options struct {
	Node        string        // whose transfers are done here; needed
	Owner       string        // this process's name in leases, unique; default: the node and random letters
	Workers     int           // transfers at a time; default: two per processor
	LeaseTTL    time.Duration // a worker that is not heard of for so long has lost its lease; default 1 min
	Heartbeat   time.Duration // how often a lease is renewed and progress recorded; default 5 s
	Sweep       time.Duration // how often the relay looks without being woken; default 2 s
	Republish   time.Duration // a message nobody acted upon for so long is sent again; default 1 min
	MinBackoff  time.Duration // before the second attempt; default 1 s
	MaxBackoff  time.Duration // between any two; default 5 min
	MaxFailures int           // a transfer is dead after so many failures, those of a store that is away not counted; default 20
	Log         *slog.Logger  // default: none
}

func (o Options) withDefaults() Options {
	o.Owner = cmp.Or(o.Owner, o.Node+"-"+rand.Text()[:8])
	o.Workers = cmp.Or(o.Workers, 2*runtime.GOMAXPROCS(0))
	o.LeaseTTL = cmp.Or(o.LeaseTTL, time.Minute)
	o.Heartbeat = cmp.Or(o.Heartbeat, min(5*time.Second, o.LeaseTTL/4))
	o.Sweep = cmp.Or(o.Sweep, 2*time.Second)
	o.Republish = cmp.Or(o.Republish, time.Minute)
	o.MinBackoff = cmp.Or(o.MinBackoff, time.Second)
	o.MaxBackoff = cmp.Or(o.MaxBackoff, 5*time.Minute)
	o.MaxFailures = cmp.Or(o.MaxFailures, 20)
	if o.Log == nil {
		o.Log = slog.New(slog.DiscardHandler)
	}
	return o
}

// Deps are the ports that a Worker stands on.
type Deps struct {
	Outbox  meta.Outbox
	Staging chunkstore.Staging
	Stores  map[string]store.Store
	Queue   queue.Queue
	Now     func() time.Time // time.Now if nil
}

// Worker does one node's transfers. It is made by New and safe for concurrent use.
type Worker struct {
	Deps
	opt  Options
	log  *slog.Logger
	wake chan struct{}

	mu       sync.Mutex
	inHand   map[string]bool // transfers being worked on; true: another message for it came meanwhile
	failures map[string]int  // by transfer, in this process; see Options.MaxFailures
}

// New returns a Worker that Run sets to work.
func New(opt Options, deps Deps) *Worker {
	if deps.Now == nil {
		deps.Now = time.Now
	}
	opt = opt.withDefaults()
	return &Worker{
		Deps: deps, opt: opt, log: opt.Log.With("node", opt.Node), wake: make(chan struct{}, 1),
		inHand: make(map[string]bool), failures: make(map[string]int),
	}
}

// Wake tells the relay that there is something in the outbox. It never blocks.
func (w *Worker) Wake() {
	select {
	case w.wake <- struct{}{}:
	default: // it has not yet seen the last one
	}
}

// Run relays and works until ctx is done; then transfers under way are given back to the outbox, due
// at once, and it returns nil.
func (w *Worker) Run(ctx context.Context) error {
	for name, st := range w.Stores {
		if err := st.Clean(ctx); err != nil && ctx.Err() == nil {
			w.log.Warn("could not clean up in a store; the next start tries again", "store", name, "error", err)
		}
	}
	var running sync.WaitGroup
	running.Go(func() { w.relay(ctx) })
	running.Go(func() { w.consume(ctx) })
	running.Wait()
	return nil
}

const (
	relayBatch = 256                   // rows at a time
	relayGap   = 20 * time.Millisecond // at least between two looks, so that many small files share one
)

// relay publishes what is due, when it is woken and once per Options.Sweep.
func (w *Worker) relay(ctx context.Context) {
	sweep := time.NewTicker(w.opt.Sweep)
	defer sweep.Stop()
	for {
		looked := time.Now()
		if err := w.publishDue(ctx); err != nil && ctx.Err() == nil {
			w.log.Warn("could not publish the transfers that are due; trying again", "error", err)
		}
		select {
		case <-ctx.Done():
			return
		case <-sweep.C:
		case <-w.wake:
			pause(ctx, relayGap-time.Since(looked))
		}
	}
}

func (w *Worker) publishDue(ctx context.Context) error {
	for {
		ids, err := w.Outbox.TakeDue(ctx, w.opt.Node, w.Now(), w.opt.Republish, relayBatch)
		if err != nil {
			return err
		}
		for _, id := range ids {
			if err := w.Queue.Publish(ctx, w.opt.Node, id); err != nil {
				return err // they are due again after Options.Republish
			}
		}
		if len(ids) < relayBatch {
			return nil
		}
	}
}

// consume handles messages; a queue that is gone is tried again.
func (w *Worker) consume(ctx context.Context) {
	delays := w.delays()
	for ctx.Err() == nil {
		began := time.Now()
		err := w.Queue.Consume(ctx, w.opt.Node, w.opt.Workers, w.Handle)
		if ctx.Err() != nil {
			return
		}
		if time.Since(began) > w.opt.MaxBackoff {
			delays.Reset()
		}
		w.log.Warn("the queue is gone; trying again", "error", err)
		pause(ctx, delays.NextBackOff())
	}
}

// pause waits for a while, or until ctx is done.
func pause(ctx context.Context, d time.Duration) {
	if d <= 0 {
		return
	}
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-ctx.Done():
	case <-timer.C:
	}
}

// take marks a transfer as being worked on; false if it is already. Then whoever works on it looks at
// it once more when he is done: so that after a jump of the clock one process does not take a lease
// away from itself, and yet no message is ignored.
func (w *Worker) take(id string) bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	_, taken := w.inHand[id]
	w.inHand[id] = taken
	return !taken
}

// putDown ends the work on a transfer, unless another message came meanwhile: then it reports false.
func (w *Worker) putDown(id string) bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.inHand[id] {
		w.inHand[id] = false
		return false
	}
	delete(w.inHand, id)
	return true
}

// maxCounted bounds Worker.failures; transfers canceled meanwhile are never taken off it.
const maxCounted = 10000

// countFailure returns how many failures there were with this one.
func (w *Worker) countFailure(id string) int {
	w.mu.Lock()
	defer w.mu.Unlock()
	if len(w.failures) >= maxCounted {
		clear(w.failures)
	}
	w.failures[id]++
	return w.failures[id]
}

func (w *Worker) forgetFailures(id string) {
	w.mu.Lock()
	defer w.mu.Unlock()
	delete(w.failures, id)
}

// lostLease reports whether a write to the outbox says that the lease is another's, or nobody's.
func lostLease(err error) bool {
	kind := upload.KindOf(err)
	return err != nil && (kind == upload.Conflict || kind == upload.NotFound)
}
