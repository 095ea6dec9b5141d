package rabbitmq

import (
	"context"
	"errors"
	"net"
	"sync"
	"time"

	amqp "github.com/rabbitmq/amqp091-go"
)

// maxBatch is how many messages may be on their way to the broker at a time.
const maxBatch = 256

// closeTimeout is how long a broker may take to say good-bye.
const closeTimeout = 2 * time.Second

// session is a connection with one channel on it, which confirms what is published. When either ends,
// both have ended, and another session is made.
type session struct {
	opt      *Options
	conn     *amqp.Connection
	ch       *amqp.Channel
	ended    chan *amqp.Error // gets why, or is closed
	returned chan amqp.Return
	declared map[string]bool // nodes whose queues are there
	asking   sync.WaitGroup  // what waits for the broker's answer; the end of the session ends it
}

// connect makes a session, unless ctx is done first.
func connect(ctx context.Context, opt *Options, role string) (_ *session, err error) {
	ctx, cancel := context.WithTimeout(ctx, opt.ConnectTimeout)
	defer cancel()
	var wire net.Conn
	hurry := func() bool { return true }
	s := &session{opt: opt, declared: map[string]bool{}}
	defer func() {
		if !hurry() && err == nil {
			err = ctx.Err()
		}
		if err == nil {
			return
		}
		if s.conn != nil {
			s.close()
		}
		if wire != nil {
			_ = wire.Close() // after some failures the library leaves it open
		}
	}()
	properties := amqp.NewConnectionProperties()
	properties.SetClientConnectionName("gantry " + role)
	s.conn, err = amqp.DialConfig(opt.URL, amqp.Config{
		Heartbeat: opt.Heartbeat, Properties: properties,
		Dial: func(network, address string) (net.Conn, error) {
			var d net.Dialer
			c, err := d.DialContext(ctx, network, address)
			if err != nil {
				return nil, err
			}
			wire = c
			hurry = context.AfterFunc(ctx, func() { _ = c.Close() })
			return c, nil
		},
	})
	if err != nil {
		return nil, err
	}
	if s.ch, err = s.conn.Channel(); err != nil {
		return nil, err
	}
	s.ended = s.ch.NotifyClose(make(chan *amqp.Error, 1))
	s.returned = s.ch.NotifyReturn(make(chan amqp.Return, maxBatch))
	return s, s.ch.Confirm(false)
}

// close ends the session; it may be repeated. What was delivered and not acknowledged goes back.
func (s *session) close() {
	_ = s.conn.CloseDeadline(time.Now().Add(closeTimeout)) // an error says that it is closed already
	s.asking.Wait()
}

// lost reports whether the session has ended by itself.
func (s *session) lost() bool { return s.ch.IsClosed() || s.conn.IsClosed() }

// declare makes the queues of a node, once in a session.
func (s *session) declare(node string, n *names) error {
	if s.declared[node] {
		return nil
	}
	if err := n.declare(s.ch); err != nil {
		return err
	}
	s.declared[node] = true
	return nil
}

// Errors of publish.
var (
	errUnroutable = errors.New("the queue is not there")
	errRejected   = errors.New("the broker did not take a message: the queue is full, or the broker has failed")
)

// publish sends messages to a queue and returns nil when the broker has confirmed all of them. One
// call at a time.
//
// The broker also confirms what it could not put into any queue, after having returned it, if asked to
// (mandatory). The client library hands returns and confirms over in different ways and promises no
// order between them. But it reads them one after the other, and puts a return into the channel
// before it looks at what comes next: with room in the channel for all that may come, a return is there
// when the confirm is. One that came later all the same belongs to no message of that batch; then it is
// the relay that finds out, when it publishes the row again.
func (s *session) publish(ctx context.Context, queue string, messages ...amqp.Publishing) error {
	ctx, cancel := context.WithTimeout(ctx, s.opt.ConfirmTimeout)
	defer cancel()
	confirms := make([]*amqp.DeferredConfirmation, len(messages))
	for i, m := range messages {
		const mandatory, immediate = true, false
		m.DeliveryMode = amqp.Persistent
		m.ContentType = "text/plain"
		var err error
		if confirms[i], err = s.ch.PublishWithDeferredConfirm("", queue, mandatory, immediate, m); err != nil {
			return err
		}
	}
	rejected := 0
	for _, c := range confirms {
		acked, err := c.WaitContext(ctx)
		if err != nil {
			s.close() // so that what comes of this batch is not taken for the next one's
			return err
		}
		if !acked {
			rejected++
		}
	}
	if s.lost() {
		return amqp.ErrClosed // the library says "not confirmed" of all that was under way
	}
	switch returned := s.drain(); {
	case returned > 0:
		return errUnroutable
	case rejected > 0:
		return errRejected
	}
	return nil
}

// drain takes the returned messages.
func (s *session) drain() (n int) {
	for {
		select {
		case _, open := <-s.returned:
			if !open {
				return n
			}
			n++
		default:
			return n
		}
	}
}

// publishing is the message for a transfer.
func publishing(id string) amqp.Publishing { return amqp.Publishing{Body: []byte(id)} }
