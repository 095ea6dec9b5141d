package transfer

import (
	"context"
	"time"

	"gantry/store"
	"gantry/upload"
)

// attend does what is to be done beside the transfers to a store, until ctx is done: it cleans up, and it asks a store
// that does not answer whether it is back. Then all that waits for it is due at once, so that a backlog drains
// from its oldest, and not as the delays of its transfers end.
func (w *Worker) attend(ctx context.Context, name string, st store.Store) {
	if err := st.Clean(ctx); err != nil && ctx.Err() == nil {
		w.log.Warn("could not clean up in a store; the next start tries again", "store", name, "error", err)
	}
	downer, ok := store.As[store.Downer](st)
	if !ok {
		return
	}
	tick := time.NewTicker(w.opt.Probe)
	defer tick.Stop()
	for down := false; ; {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
		now := downer.Down()
		if now {
			if !down {
				w.log.Error("a store does not answer; transfers to it wait", "store", name, "fallback", w.Fallback[name])
			}
			now = downer.Probe(ctx) != nil
		}
		if down && !now {
			w.log.Info("a store answers again; transfers to it go on", "store", name)
			if err := w.Outbox.RetryStore(ctx, w.opt.Node, name, w.Now()); err != nil && ctx.Err() == nil {
				w.log.Warn("could not announce what waited for a store; each transfer is tried again at its time", "store", name, "error", err)
			}
		}
		down = now
	}
}

// target is the store that a transfer is to put its blob into: its own or, while that does not answer, the next of
// its fallbacks that does. The outbox knows of it before anything is put there, so that nobody takes it
// for garbage.
func (w *Worker) target(ctx context.Context, h *hold) (store.Store, error) {
	t := &h.job.Transfer
	own, ok := w.Stores[t.Store]
	if !ok {
		return nil, upload.Errorf(upload.Unavailable, "transfer.work", t.ID, "The store %q is not configured.", t.Store)
	}
	tried := map[string]bool{}
	for name := t.Store; name != "" && !tried[name]; name = w.Fallback[name] {
		tried[name] = true
		st, ok := w.Stores[name]
		if downer, is := store.As[store.Downer](st); !ok || is && downer.Down() {
			continue
		}
		if name == t.Store {
			return st, nil
		}
		now := w.Now()
		_, err := persist(ctx, func() (struct{}, error) {
			return struct{}{}, w.Outbox.Redirect(ctx, t.ID, t.Lease.Epoch, name, now)
		})
		if lostLease(err) {
			return nil, errLeaseLost
		}
		if err != nil {
			return nil, err
		}
		w.log.Info("a store does not answer; another one takes its place", "transfer_id", t.ID, "store", t.Store, "fallback", name)
		t.Store = name
		return st, nil
	}
	return own, nil // it says that it does not answer
}

// checkpointFrom is the size from which on it is worth remembering how far a Put got, bytes: what is smaller is
// sent in one request.
const checkpointFrom = 5 << 20

// checkpoint is store.Checkpoint in the outbox.
type checkpoint struct {
	w     *Worker
	id    string
	epoch int64
	store string
	state string
}

// checkpointOf returns what is known of an earlier Put of the same object; nil if it is not worth it.
func (w *Worker) checkpointOf(ctx context.Context, t *upload.Transfer) (store.Checkpoint, error) {
	if t.Size < checkpointFrom {
		return nil, nil //nolint:nilnil // there is none
	}
	state, err := w.Outbox.Checkpoint(ctx, t.ID, t.Store)
	if err != nil {
		return nil, err
	}
	return &checkpoint{w, t.ID, t.Lease.Epoch, t.Store, state}, nil
}

func (c *checkpoint) Load() []byte { return []byte(c.state) }

func (c *checkpoint) Save(ctx context.Context, state []byte) error {
	_, err := persist(ctx, func() (struct{}, error) {
		return struct{}{}, c.w.Outbox.SaveCheckpoint(ctx, c.id, c.epoch, c.store, string(state))
	})
	if lostLease(err) {
		return errLeaseLost
	}
	return err
}
