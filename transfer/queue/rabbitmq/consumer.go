package rabbitmq

import (
	"context"
	"errors"
	"strconv"
	"sync"
	"sync/atomic"
	"time"

	amqp "github.com/rabbitmq/amqp091-go"

	"gantry/transfer/queue"
)

// Consumer is a worker's end. It is made by NewConsumer and safe for concurrent use. It has connections
// only during Consume.
type Consumer struct {
	opt     Options
	metrics *metrics
	state   state
}

var _ queue.Consumer = (*Consumer)(nil)

// NewConsumer returns a Consumer.
func NewConsumer(opt Options) (*Consumer, error) {
	if err := opt.Validate(); err != nil {
		return nil, err
	}
	c := &Consumer{opt: opt.withDefaults()}
	c.metrics = newMetrics(c.opt.Metrics, roleConsumer)
	c.state.connecting()
	return c, nil
}

// Check says whether messages can come, for /readyz.
func (c *Consumer) Check(context.Context) error { return c.state.check() }

// Consume connects to the broker, again and again if need be. Handlers are not disturbed by a
// connection that is lost; the broker then delivers again what they did not acknowledge.
func (c *Consumer) Consume(ctx context.Context, node string, workers int, handle queue.Handler) error {
	n, err := c.opt.names(node)
	if err != nil {
		return err
	}
	messages := make(chan *message)
	var handlers sync.WaitGroup
	for range workers {
		handlers.Go(func() {
			for m := range messages {
				m.handle(ctx, handle)
			}
		})
	}
	drained := sync.OnceFunc(func() {
		close(messages)
		handlers.Wait()
	})
	defer drained()
	delays := c.opt.delays()
	for ctx.Err() == nil {
		s, err := connect(ctx, &c.opt, roleConsumer)
		if err == nil {
			err = c.session(ctx, s, node, &n, workers, messages, delays.Reset)
			if ctx.Err() != nil {
				drained() // handlers may acknowledge as long as the session is there
			}
			s.close()
		}
		c.metrics.connected.Set(0)
		if ctx.Err() != nil {
			break
		}
		c.state.lost(err)
		after := delays.NextBackOff()
		c.opt.Log.Warn("no messages come from the queue; trying again", "broker", c.opt.address(), "queue", n.work, "after", after, "error", err)
		pause(ctx, after)
	}
	return nil
}

// errQueueDeleted ends a session whose queue is gone; the next one declares it.
var errQueueDeleted = errors.New("the broker has ended the consumer, as it does when the queue is deleted")

// session delivers messages until ctx is done or it has to be replaced, and says why.
func (c *Consumer) session(ctx context.Context, s *session, node string, n *names, workers int, messages chan<- *message, well func()) error {
	if err := s.declare(node, n); err != nil {
		return unavailable("rabbitmq.Consume", err)
	}
	// No more than can be looked at: others may be idle, and what waits here is not acknowledged.
	if err := s.ch.Qos(workers, 0, false); err != nil {
		return err
	}
	const autoAck, exclusive, noLocal, noWait = false, false, false, false
	deliveries, err := s.ch.Consume(n.work, consumerTag, autoAck, exclusive, noLocal, noWait, nil)
	if err != nil {
		return err
	}
	well()
	c.state.connected()
	c.metrics.connected.Set(1)
	c.opt.Log.Info("waiting for messages from the queue", "broker", c.opt.address(), "queue", n.work)
	d := &deliverer{opt: &c.opt, metrics: c.metrics, session: s, names: n, workers: workers}
	return d.run(ctx, deliveries, messages)
}

// consumerTag names the consumer of a session. There is one on a channel.
const consumerTag = "gantry"

// errDeaf ends a session to which the broker delivers nothing although it should. It happens when a queue is deleted and made
// again in the moment in which the consumer comes: the broker then forgets to end the consumer.
var errDeaf = errors.New("messages wait in the queue, and the broker does not deliver them")

// deliverer hands the messages of one session to workers.
type deliverer struct {
	opt     *Options
	metrics *metrics
	session *session
	names   *names
	workers int          // how many messages the broker delivers before one is settled
	held    atomic.Int64 // delivered and not settled

	publishing sync.Mutex // session.publish is for one at a time, and so are calls
}

// run returns nil when ctx is done.
func (d *deliverer) run(ctx context.Context, deliveries <-chan amqp.Delivery, messages chan<- *message) error {
	tick := time.NewTicker(d.opt.LookTime)
	defer tick.Stop()
	looked := make(chan look, 1)
	quiet, looking := false, false // nothing came since the last look, though messages waited
	var waiting []*message         // for a worker, in the order in which they came; at most as many as there are workers
	for {
		var free chan<- *message
		var first *message
		var heldTooLong <-chan time.Time
		if len(waiting) > 0 {
			free, first = messages, waiting[0]
			heldTooLong = time.After(time.Until(first.came.Add(d.opt.HoldTime)))
		}
		select {
		case <-ctx.Done():
			return nil
		case reason := <-d.session.ended:
			return endOf(reason)
		case delivery, open := <-deliveries:
			if !open {
				return errQueueDeleted
			}
			quiet = false
			d.held.Add(1)
			waiting = append(waiting, &message{deliverer: d, delivery: delivery, came: time.Now()})
		case free <- first:
			waiting = waiting[1:]
		case <-tick.C:
			if !looking && d.held.Load() < int64(d.workers) { // else the broker rightly delivers nothing
				looking = true
				d.session.asking.Go(func() { looked <- d.look() })
			}
		case l := <-looked:
			looking = false
			switch {
			case l.err != nil:
				return l.err
			case l.left && quiet:
				return errDeaf
			}
			quiet = l.left && d.held.Load() < int64(d.workers)
		case <-heldTooLong:
			first.settle(resultDropped, first.acknowledge)
			waiting = waiting[1:]
		}
	}
}

// look is whether messages wait in the queue.
type look struct {
	left bool
	err  error
}

func (d *deliverer) look() look {
	d.publishing.Lock() // the library does not keep the answers to two calls on one channel apart
	defer d.publishing.Unlock()
	const durable, autoDelete, exclusive, noWait = true, false, false, false
	q, err := d.session.ch.QueueDeclarePassive(d.names.work, durable, autoDelete, exclusive, noWait, nil)
	return look{q.Messages > 0, err}
}

// message is one delivery of a message.
type message struct {
	*deliverer
	delivery amqp.Delivery
	came     time.Time
	settled  atomic.Bool // acknowledged or given back
}

// handle has a message handled.
func (m *message) handle(ctx context.Context, handle queue.Handler) {
	id := string(m.delivery.Body)
	if !isID(id) {
		m.opt.Log.Error("a message is not a transfer's id; it goes to the dead-letter queue", "queue", m.names.work, "length", len(id))
		m.settle(resultDead, m.reject)
		return
	}
	ack := func() { m.settle(resultAcked, m.acknowledge) }
	err := handle(ctx, id, ack)
	switch {
	case err == nil:
		ack()
	case m.settled.Load(): // it is not needed any more
	case ctx.Err() != nil: // the broker delivers it again when the session ends
	default:
		m.again(ctx, id, err)
	}
}

// again has a message delivered again, later, unless that was done too often.
func (m *message) again(ctx context.Context, id string, why error) {
	log := m.opt.Log.With("queue", m.names.work, "transfer_id", id, "error", why)
	n := failures(&m.delivery) + 1
	if n >= deliveryLimit {
		log.Error("a message could not be handled for too long; it goes to the dead-letter queue", "failures", n)
		m.settle(resultDead, m.reject)
		return
	}
	log.Warn("a message could not be handled; it comes again", "failures", n, "after", m.opt.RetryDelay)
	later := publishing(id)
	later.Headers = amqp.Table{headerFailures: n}
	later.Expiration = strconv.FormatInt(m.opt.RetryDelay.Milliseconds(), 10)
	if err := m.publishLater(ctx, later); err != nil {
		log.Warn("a message could not be put off; it comes again at once", "reason", err)
		m.settle(resultDelayed, func() error { return m.delivery.Nack(false, true) })
		return
	}
	m.settle(resultDelayed, m.acknowledge)
}

func (m *message) publishLater(ctx context.Context, later amqp.Publishing) error {
	m.publishing.Lock()
	defer m.publishing.Unlock()
	err := m.session.publish(ctx, m.names.later, later)
	if !errors.Is(err, errUnroutable) {
		return err
	}
	if err := m.names.declare(m.session.ch); err != nil { // somebody deleted it
		return err
	}
	return m.session.publish(ctx, m.names.later, later)
}

// settle tells the broker once what becomes of the message. Over a session that has ended that is
// nothing: the message comes again.
func (m *message) settle(result string, tell func() error) {
	if !m.settled.CompareAndSwap(false, true) {
		return
	}
	m.held.Add(-1)
	if err := tell(); err == nil {
		m.metrics.consumed.WithLabelValues(result).Inc()
	}
}

func (m *message) acknowledge() error { return m.delivery.Ack(false) }

// reject sends the message to the dead-letter queue.
func (m *message) reject() error { return m.delivery.Nack(false, false) }
