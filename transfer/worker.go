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
	MinBackoff  time.Duration // before the second attempt; default 1 s
	MaxBackoff  time.Duration // between any two; default 5 min
	Probe       time.Duration // how often a store that does not answer is asked whether it is back; default 5 s
	MaxFailures int           // a transfer is dead after so many failures, those of a store that is away not counted; default 20
	Log         *slog.Logger  // default: none
}

func (o Options) withDefaults() Options {
	o.Owner = cmp.Or(o.Owner, o.Node+"-"+rand.Text()[:8])
	o.Workers = cmp.Or(o.Workers, 2*runtime.GOMAXPROCS(0))
	o.LeaseTTL = cmp.Or(o.LeaseTTL, time.Minute)
	o.Heartbeat = cmp.Or(o.Heartbeat, min(5*time.Second, o.LeaseTTL/4))
	o.MinBackoff = cmp.Or(o.MinBackoff, time.Second)
	o.MaxBackoff = cmp.Or(o.MaxBackoff, 5*time.Minute)
	o.Probe = cmp.Or(o.Probe, 5*time.Second)
	o.MaxFailures = cmp.Or(o.MaxFailures, 20)
	if o.Log == nil {
		o.Log = slog.New(slog.DiscardHandler)
	}
	return o
}

// Staging is what a Worker needs of a node's staging directory: chunkstore.Staging has it, and so has
// what only reads, in a process beside the node's.
type Staging interface {
	// Open reads the data of a blob. upload.NotFound if it is gone.
	Open(ctx context.Context, id string) (chunkstore.Content, error)
}

// Deps are the ports that a Worker stands on.
type Deps struct {
	Outbox  meta.Outbox
	Staging Staging
	Stores  map[string]store.Store
	Queue   queue.Consumer
	// Fallback names the store that takes what is for another while that does not answer; "" or none: it waits.
	Fallback map[string]string
	Now      func() time.Time // time.Now if nil

	// Current says whether Staging is the node's, and not an old copy beside which another process has
	// started as this node: then upload.Conflict, and what is missing here may be there. nil if it always is.
	Current func(ctx context.Context) error
}

// Worker does one node's transfers. It is made by NewWorker and safe for concurrent use. Two for one
// node do no harm to the transfers, but see store.Store's Clean.
type Worker struct {
	Deps
	opt Options
	log *slog.Logger

	mu       sync.Mutex
	inHand   map[string]bool // transfers being worked on; true: another message for it came meanwhile
	failures map[string]int  // by transfer, in this process; see Options.MaxFailures
	stop     context.CancelCauseFunc
}

// NewWorker returns a Worker that Run sets to work.
func NewWorker(opt Options, deps Deps) *Worker {
	if deps.Now == nil {
		deps.Now = time.Now
	}
	opt = opt.withDefaults()
	return &Worker{
		Deps: deps, opt: opt, log: opt.Log.With("node", opt.Node),
		inHand: make(map[string]bool), failures: make(map[string]int), stop: func(error) {},
	}
}

// Run works until ctx is done; then transfers under way are given back to the outbox, due at once, and
// it returns nil. A queue that is gone is tried again. upload.Conflict if another process has started as
// this node on a newer copy of its directory; see Deps.Current.
func (w *Worker) Run(ctx context.Context) error {
	ctx, stop := context.WithCancelCause(ctx)
	w.mu.Lock()
	w.stop = stop
	w.mu.Unlock()
	var beside sync.WaitGroup
	defer func() { stop(nil); beside.Wait() }()
	for name, st := range w.Stores {
		beside.Go(func() { w.attend(ctx, name, st) })
	}
	delays := w.delays()
	for ctx.Err() == nil {
		began := time.Now()
		err := w.Queue.Consume(ctx, w.opt.Node, w.opt.Workers, w.Handle)
		if ctx.Err() != nil {
			break
		}
		if time.Since(began) > w.opt.MaxBackoff {
			delays.Reset()
		}
		w.log.Warn("the queue is gone; trying again", "error", err)
		pause(ctx, delays.NextBackOff())
	}
	if cause := context.Cause(ctx); upload.KindOf(cause) == upload.Conflict {
		return upload.Wrap(upload.Conflict, "transfer.Run", w.opt.Node, cause)
	}
	return nil
}

// lost is the failure of work whose bytes are gone or wrong: the *lostError given, if they are so in the
// node's directory. In an old copy they only seem to be, and then nothing more is done here.
func (w *Worker) lost(ctx context.Context, failure *lostError) error {
	if w.Current == nil {
		return failure
	}
	err := w.Current(ctx)
	if err == nil {
		return failure
	}
	if upload.KindOf(err) == upload.Conflict {
		w.mu.Lock()
		defer w.mu.Unlock()
		w.stop(err)
	}
	return &upload.Error{
		Kind: upload.Unavailable, Op: "transfer.lost", ID: w.opt.Node, Err: err,
		Detail: "The staging copy is not in this directory, which may be an old copy of the node's.",
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
