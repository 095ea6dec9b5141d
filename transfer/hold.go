package transfer

import (
	"context"
	"errors"
	"sync"
	"sync/atomic"
	"time"

	"gantry/meta"
	"gantry/upload"
)

// errLeaseLost ends the work on a transfer that is another's now.
var errLeaseLost = errors.New("the lease is lost")

// showFrom is the size from which on users see a transfer "verifying", bytes. Smaller ones would cost
// more in the database than in the store.
const showFrom = 64 << 20

// hold is a lease while it is being worked under. Work that lasts longer than a heartbeat has it
// renewed; shorter work costs no more than a timer.
type hold struct {
	w      *Worker
	job    meta.Job
	cancel context.CancelCauseFunc
	sent   atomic.Int64

	mu      sync.Mutex // held during renewals
	state   upload.TransferState
	renewed time.Time // the lease lasts Options.LeaseTTL from then on; monotonic: a clock set differently changes nothing
	beat    *time.Timer
	over    bool
}

// hold begins the work under a lease that was asked for at the time given. The context that it returns
// ends with the lease. The caller calls release.
func (w *Worker) hold(ctx context.Context, job meta.Job, asked time.Time) (context.Context, *hold) {
	ctx, cancel := context.WithCancelCause(ctx)
	h := &hold{w: w, job: job, cancel: cancel, state: upload.TransferRunning, renewed: asked}
	h.mu.Lock() // heartbeat must find beat set
	defer h.mu.Unlock()
	h.beat = time.AfterFunc(w.opt.Heartbeat, func() { h.heartbeat(ctx) })
	return ctx, h
}

// release stops the heartbeat and waits for one that is going on.
func (h *hold) release() {
	h.cancel(nil)
	h.mu.Lock()
	defer h.mu.Unlock()
	h.over = true
	h.beat.Stop()
}

func (h *hold) heartbeat(ctx context.Context) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.over {
		return
	}
	h.renew(ctx)
	if ctx.Err() == nil {
		h.beat.Reset(min(h.w.opt.Heartbeat, h.left()))
	}
}

// verifying tells that all is sent.
func (h *hold) verifying(ctx context.Context) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.state = upload.TransferVerifying
	if h.job.Blob.Size >= showFrom {
		h.renew(ctx)
	}
}

// sending tells that it has to be sent all the same.
func (h *hold) sending() {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.state = upload.TransferRunning
}

// check returns errLeaseLost when the lease has run out or is known to be lost. After a process was
// stopped for a while it knows that before any timer does.
func (h *hold) check(ctx context.Context) error {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.left() <= 0 {
		h.cancel(errLeaseLost)
	}
	return context.Cause(ctx)
}

func (h *hold) left() time.Duration { return h.w.opt.LeaseTTL - time.Since(h.renewed) }

// renew prolongs the lease. A failure to do so is tried again until the lease has run out: then
// another may have it, and the work ends. Callers hold mu.
func (h *hold) renew(ctx context.Context) {
	left := h.left()
	if left <= 0 {
		h.cancel(errLeaseLost)
		return
	}
	asking, cancel := context.WithTimeout(ctx, left)
	defer cancel()
	asked, now := time.Now(), h.w.Now()
	err := h.w.Outbox.Renew(asking, h.job.Transfer.ID, h.job.Transfer.Lease.Epoch, meta.Progress{
		State: h.state, Bytes: h.sent.Load(), Until: now.Add(h.w.opt.LeaseTTL), Now: now,
	})
	switch {
	case err == nil:
		h.renewed = asked
	case lostLease(err) || h.left() <= 0:
		h.cancel(errLeaseLost)
	case ctx.Err() == nil:
		h.w.log.Warn("could not renew a lease; trying again", "transfer_id", h.job.Transfer.ID, "error", err)
	}
}
