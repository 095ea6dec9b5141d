package rabbitmq

import (
	"context"
	"errors"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	amqp "github.com/rabbitmq/amqp091-go"
)

// state is what is known of a connection; the zero value is one that nobody wants.
type state struct {
	mu  sync.Mutex
	err error // why there is none
}

var errConnecting = errors.New("there is no connection to the broker yet")

func (s *state) connecting()    { s.lost(errConnecting) }
func (s *state) connected()     { s.lost(nil) }
func (s *state) lost(why error) { s.mu.Lock(); s.err = why; s.mu.Unlock() }

func (s *state) check() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.err
}

// endOf is why a session ended, from what the library says.
func endOf(reason *amqp.Error) error {
	if reason == nil {
		return amqp.ErrClosed
	}
	return reason
}

// pause waits for a while, or until ctx is done.
func pause(ctx context.Context, d time.Duration) {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-ctx.Done():
	case <-timer.C:
	}
}

// The two ends, and what can become of messages, as /metrics calls them.
const (
	rolePublisher = "publisher"
	roleConsumer  = "consumer"

	resultConfirmed = "confirmed" // safe with the broker
	resultReturned  = "returned"  // there was no queue for it
	resultRejected  = "rejected"  // the queue was full
	resultFailed    = "failed"    // the connection was lost; sent again

	resultAcked   = "acked"   // done with
	resultDelayed = "delayed" // to come again
	resultDead    = "dead"    // to the dead-letter queue
	resultDropped = "dropped" // no worker was free
)

// metrics count what one end does.
type metrics struct {
	connected prometheus.Gauge
	published *prometheus.CounterVec // result
	consumed  *prometheus.CounterVec // result
}

// newMetrics registers those of one end with reg; nil: they count unseen.
func newMetrics(reg prometheus.Registerer, role string) *metrics {
	m := &metrics{
		connected: prometheus.NewGauge(prometheus.GaugeOpts{
			Name: "gantry_queue_connected", Help: "1 while there is a connection to the broker.", ConstLabels: prometheus.Labels{"role": role},
		}),
		published: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "gantry_queue_published_total", Help: "Messages sent to the broker, by what became of them.",
		}, []string{"result"}),
		consumed: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "gantry_queue_consumed_total", Help: "Messages from the broker, by what became of them.",
		}, []string{"result"}),
	}
	if reg == nil {
		return m
	}
	reg.MustRegister(m.connected)
	if role == rolePublisher {
		reg.MustRegister(m.published)
	} else {
		reg.MustRegister(m.consumed)
	}
	return m
}
