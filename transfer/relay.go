package transfer

import (
	"cmp"
	"context"
	"log/slog"
	"time"

	"github.com/cenkalti/backoff/v5"

	"gantry/meta"
	"gantry/transfer/queue"
)

// RelayOptions are the periods of a Relay. What is zero gets its default.
type RelayOptions struct {
	Node      string        // whose transfers are published; needed
	Sweep     time.Duration // how often the relay looks without being woken; default 2 s
	Republish time.Duration // a message nobody acted upon for so long is sent again; default 1 min
	Log       *slog.Logger  // default: none
}

func (o RelayOptions) withDefaults() RelayOptions {
	o.Sweep = cmp.Or(o.Sweep, 2*time.Second)
	o.Republish = cmp.Or(o.Republish, time.Minute)
	if o.Log == nil {
		o.Log = slog.New(slog.DiscardHandler)
	}
	return o
}

// RelayDeps are the ports that a Relay stands on.
type RelayDeps struct {
	Outbox meta.Outbox
	Queue  queue.Publisher
	Now    func() time.Time // time.Now if nil
}

// Relay publishes one node's transfers that are due. It runs in the process that writes their rows,
// which wakes it. It is made by NewRelay.
type Relay struct {
	RelayDeps
	opt  RelayOptions
	log  *slog.Logger
	wake chan struct{}

	// taken are ids that the outbox gave out and that the queue did not take yet. To the outbox they
	// are published, so without this they would wait for RelayOptions.Republish. Only Run uses it.
	taken []string
}

// NewRelay returns a Relay that Run sets to work.
func NewRelay(opt RelayOptions, deps RelayDeps) *Relay {
	if deps.Now == nil {
		deps.Now = time.Now
	}
	opt = opt.withDefaults()
	return &Relay{RelayDeps: deps, opt: opt, log: opt.Log.With("node", opt.Node), wake: make(chan struct{}, 1)}
}

// Wake tells the relay that there is something in the outbox. It never blocks.
func (r *Relay) Wake() {
	select {
	case r.wake <- struct{}{}:
	default: // it has not yet seen the last one
	}
}

const (
	relayBatch = 256                   // rows at a time
	relayGap   = 20 * time.Millisecond // at least between two looks, so that many small files share one
)

// Run publishes what is due, when it is woken and once per RelayOptions.Sweep, until ctx is done. Then
// it returns nil.
func (r *Relay) Run(ctx context.Context) error {
	sweep := time.NewTicker(r.opt.Sweep)
	defer sweep.Stop()
	delays := &backoff.ExponentialBackOff{
		InitialInterval: min(relayGap, r.opt.Sweep), Multiplier: 2, RandomizationFactor: jitter, MaxInterval: r.opt.Sweep,
	}
	for {
		looked := time.Now()
		if err := r.publishDue(ctx); err != nil && ctx.Err() == nil {
			r.log.Warn("could not publish the transfers that are due; trying again", "error", err)
			pause(ctx, delays.NextBackOff())
			continue
		}
		delays.Reset()
		select {
		case <-ctx.Done():
			return nil
		case <-sweep.C:
		case <-r.wake:
			pause(ctx, relayGap-time.Since(looked))
		}
	}
}

func (r *Relay) publishDue(ctx context.Context) error {
	for {
		if len(r.taken) == 0 {
			// Ids are taken when they can be published: those that die with the process in between wait
			// for RelayOptions.Republish.
			if err := r.Queue.Publish(ctx, r.opt.Node); err != nil {
				return err
			}
			ids, err := r.Outbox.TakeDue(ctx, r.opt.Node, r.Now(), r.opt.Republish, relayBatch)
			if err != nil {
				return err
			}
			r.taken = ids
		}
		if len(r.taken) == 0 {
			return nil
		}
		if err := r.Queue.Publish(ctx, r.opt.Node, r.taken...); err != nil {
			return err
		}
		last := len(r.taken) < relayBatch
		r.taken = nil
		if last {
			return nil
		}
	}
}
