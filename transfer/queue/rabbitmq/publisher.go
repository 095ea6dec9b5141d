package rabbitmq

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"

	amqp "github.com/rabbitmq/amqp091-go"

	"gantry/transfer/queue"
	"gantry/upload"
)

// Publisher is a relay's end. It is made by NewPublisher and safe for concurrent use.
type Publisher struct {
	opt     Options
	metrics *metrics
	state   state
	turn    chan struct{} // has room while nobody publishes
	stop    context.CancelFunc
	running sync.WaitGroup

	mu      sync.Mutex
	session *session      // nil while there is no connection
	changed chan struct{} // closed when session changes
}

var _ queue.Publisher = (*Publisher)(nil)

// NewPublisher connects to the broker in the background, again and again if need be, until Close.
func NewPublisher(ctx context.Context, opt Options) (*Publisher, error) {
	if err := opt.Validate(); err != nil {
		return nil, err
	}
	p := &Publisher{opt: opt.withDefaults(), turn: make(chan struct{}, 1), changed: make(chan struct{})}
	p.metrics = newMetrics(p.opt.Metrics, rolePublisher)
	p.state.connecting()
	// The connection outlives the call that makes it; Close ends and waits for it.
	ctx, p.stop = context.WithCancel(context.WithoutCancel(ctx))
	p.running.Go(func() { p.connected(ctx) })
	return p, nil
}

// Close ends the connection. Publish does not return any more unless its context is done.
func (p *Publisher) Close() error {
	p.stop()
	p.running.Wait()
	return nil
}

// Check says whether the broker takes messages, for /readyz.
func (p *Publisher) Check(context.Context) error { return p.state.check() }

// connected keeps a session until ctx is done.
func (p *Publisher) connected(ctx context.Context) {
	delays := p.opt.delays()
	for ctx.Err() == nil {
		s, err := connect(ctx, &p.opt, rolePublisher)
		if err == nil {
			delays.Reset()
			p.opt.Log.Info("connected to the queue", "broker", p.opt.address(), "role", rolePublisher)
			err = p.watch(ctx, s)
		}
		if ctx.Err() != nil {
			return
		}
		p.state.lost(err)
		after := delays.NextBackOff()
		p.opt.Log.Warn("no connection to the queue; trying again", "broker", p.opt.address(), "role", rolePublisher, "after", after, "error", err)
		pause(ctx, after)
	}
}

// watch offers a session to Publish until it ends, and says why it did.
func (p *Publisher) watch(ctx context.Context, s *session) error {
	defer s.close()
	blocked := s.conn.NotifyBlocked(make(chan amqp.Blocking, 1))
	p.offer(s)
	defer p.offer(nil)
	p.state.connected()
	p.metrics.connected.Set(1)
	defer p.metrics.connected.Set(0)
	for {
		select {
		case <-ctx.Done():
			return ctx.Err()
		case reason := <-s.ended:
			return endOf(reason)
		case b, open := <-blocked:
			switch {
			case !open:
				blocked = nil // the end follows
			case b.Active:
				p.state.lost(fmt.Errorf("the broker takes no messages now: %s", b.Reason))
			default:
				p.state.connected()
			}
		}
	}
}

// offer makes a session the one that Publish uses; nil: there is none.
func (p *Publisher) offer(s *session) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.session = s
	close(p.changed)
	p.changed = make(chan struct{})
}

// wait returns a session that has not ended as far as is known.
func (p *Publisher) wait(ctx context.Context) (*session, error) {
	for {
		p.mu.Lock()
		s, changed := p.session, p.changed
		p.mu.Unlock()
		if s != nil && !s.lost() {
			return s, nil
		}
		select {
		case <-changed:
		case <-ctx.Done():
			return nil, ctx.Err()
		}
	}
}

// Publish waits for the broker. A message that it returns, because there is no queue for it, is an
// error, and the next call declares the queue again. So is one that a full queue refuses.
func (p *Publisher) Publish(ctx context.Context, node string, transferIDs ...string) error {
	const op = "rabbitmq.Publish"
	n, err := p.opt.names(node)
	if err != nil {
		return err
	}
	select {
	case p.turn <- struct{}{}:
		defer func() { <-p.turn }()
	case <-ctx.Done():
		return upload.Wrap(upload.Canceled, op, "", ctx.Err())
	}
	if len(transferIDs) == 0 {
		return unavailable(op, p.publish(ctx, node, &n, nil))
	}
	for batch := range slices.Chunk(transferIDs, maxBatch) {
		if err := p.publish(ctx, node, &n, batch); err != nil {
			return unavailable(op, err)
		}
	}
	return nil
}

// publish repeats a batch if the connection was lost in the middle: then it is not known what of it
// has arrived.
func (p *Publisher) publish(ctx context.Context, node string, n *names, ids []string) error {
	for {
		s, err := p.wait(ctx)
		if err != nil {
			return upload.Wrap(upload.Canceled, "", "", err)
		}
		err = p.over(ctx, s, node, n, ids)
		if ctx.Err() != nil && err != nil {
			return upload.Wrap(upload.Canceled, "", "", errors.Join(ctx.Err(), err))
		}
		if err == nil || refused(err) || !s.lost() {
			return err
		}
	}
}

// over publishes a batch over a session.
func (p *Publisher) over(ctx context.Context, s *session, node string, n *names, ids []string) error {
	if late := s.drain(); late > 0 {
		p.opt.Log.Warn("the broker returned messages later than expected; they are published again when they are due", "count", late)
	}
	if err := s.declare(node, n); err != nil || len(ids) == 0 {
		return err
	}
	messages := make([]amqp.Publishing, len(ids))
	for i, id := range ids {
		messages[i] = publishing(id)
	}
	err := s.publish(ctx, n.work, messages...)
	switch {
	case err == nil:
		p.metrics.published.WithLabelValues(resultConfirmed).Add(float64(len(ids)))
	case errors.Is(err, errUnroutable):
		delete(s.declared, node)
		p.metrics.published.WithLabelValues(resultReturned).Add(float64(len(ids)))
	case errors.Is(err, errRejected):
		p.metrics.published.WithLabelValues(resultRejected).Add(float64(len(ids)))
	default:
		p.metrics.published.WithLabelValues(resultFailed).Add(float64(len(ids)))
	}
	return err
}
