package migrate

import (
	"context"
	"errors"
	"sync"
	"time"

	"gantry/meta"
	"gantry/upload"
)

// errLeaseLost ends a run whose lease another has, or may have.
var errLeaseLost = upload.Errorf(upload.Conflict, "migrate.lease", "",
	"Another gantry migrate has taken over, or the database was away for too long. Nothing is lost. Run the same command again.")

// lease is the right to move blobs, while it is held.
type lease struct {
	*Migrator
	fence  meta.Fence
	cancel context.CancelCauseFunc

	mu      sync.Mutex
	renewed time.Time // it lasts Options.LeaseTTL from then on; monotonic
}

// leased calls f while it holds the lease; f's context ends with it.
func (m *Migrator) leased(ctx context.Context, f func(ctx context.Context, l *lease) error) error {
	l, err := m.acquire(ctx)
	if err != nil {
		return err
	}
	working, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	l.cancel = cancel
	var renewing sync.WaitGroup
	renewing.Go(func() { l.keep(working) })
	err = f(working, l)
	if cause := context.Cause(working); cause != nil {
		err = cause
	}
	cancel(nil)
	renewing.Wait()
	ending, stop := context.WithTimeout(context.WithoutCancel(ctx), m.opt.LeaseTTL)
	defer stop()
	if failure := m.DB.ReleaseLease(ending, meta.MoveLease, m.opt.Owner); failure != nil {
		m.Log.Warn("could not give the lease back; it ends by itself", "error", failure)
	}
	return err
}

// acquire gets the lease. One that another run has is waited for as long as it takes to see whether that lives.
func (m *Migrator) acquire(ctx context.Context) (*lease, error) {
	// What is under this name is a killed process's. The epoch grows, so nothing of that has an effect any more.
	if _, err := retried(ctx, func() (struct{}, error) {
		return struct{}{}, m.DB.ReleaseLease(ctx, meta.MoveLease, m.opt.Owner)
	}); err != nil {
		return nil, err
	}
	began, told := time.Now(), false
	for {
		asked, now := time.Now(), m.Now()
		got, err := retried(ctx, func() (upload.Lease, error) {
			return m.DB.AcquireLease(ctx, meta.MoveLease, m.opt.Owner, now, now.Add(m.opt.LeaseTTL))
		})
		most := m.opt.LeaseTTL + m.opt.LeaseTTL/2
		switch {
		case err == nil:
			return &lease{Migrator: m, fence: meta.Fence{Lease: meta.MoveLease, Epoch: got.Epoch}, renewed: asked}, nil
		case !errors.Is(err, upload.Conflict):
			return nil, err
		case time.Since(began) > most:
			return nil, upload.Errorf(upload.Conflict, "migrate.lease", "",
				"Another gantry migrate is running, here or on another node. Wait until it ends, or stop it.")
		case !told:
			told = true
			m.Watcher.Waiting(most)
		}
		if err := pause(ctx, m.opt.LeaseTTL/10); err != nil {
			return nil, err
		}
	}
}

// keep renews the lease until ctx is done.
func (l *lease) keep(ctx context.Context) {
	for pause(ctx, min(l.opt.LeaseTTL/4, max(l.left(), time.Millisecond))) == nil {
		l.check(ctx)
	}
}

func (l *lease) left() time.Duration {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.opt.LeaseTTL - time.Since(l.renewed)
}

// check renews the lease, and ends the run's context if it is lost: it is another's, or nobody has
// heard of it for so long that it may be.
func (l *lease) check(ctx context.Context) {
	left := l.left()
	if left <= 0 {
		l.cancel(errLeaseLost)
		return
	}
	asking, cancel := context.WithTimeout(ctx, left)
	defer cancel()
	asked, now := time.Now(), l.Now()
	got, err := l.DB.AcquireLease(asking, meta.MoveLease, l.opt.Owner, now, now.Add(l.opt.LeaseTTL))
	switch {
	case err == nil && got.Epoch == l.fence.Epoch:
		l.mu.Lock()
		l.renewed = asked
		l.mu.Unlock()
	case err == nil || errors.Is(err, upload.Conflict) || l.left() <= 0:
		l.cancel(errLeaseLost)
	case ctx.Err() == nil:
		l.Log.Warn("could not renew the lease; trying again", "error", err)
	}
}
