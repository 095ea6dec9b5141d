// Package rabbitmq is the queue between processes: messages wait in a RabbitMQ broker.
//
// A node has a durable quorum queue, and beside it one in which messages wait that are to come again
// later: their time to live ends there, and the broker puts them back. What is delivered too often,
// and what is no message of ours, goes to the dead-letter queue for people to look at. No transfer is
// lost with it: the relay publishes a transfer as long as its row is not done.
//
// Both ends connect by themselves, again and again, and each declares all queues whenever it has
// connected: so a broker that comes back empty, or a queue that somebody deleted, mends itself.
package rabbitmq

import (
	"cmp"
	"errors"
	"fmt"
	"log/slog"
	"net/url"
	"strings"
	"time"

	"github.com/cenkalti/backoff/v5"
	"github.com/prometheus/client_golang/prometheus"
	amqp "github.com/rabbitmq/amqp091-go"

	"gantry/upload"
)

// Options are the settings of both ends. What is zero gets its default.
type Options struct {
	URL    string // amqp://user:password@host:port/vhost, or amqps; needed
	Prefix string // of the names of all queues; default "gantry.transfer"

	MinBackoff     time.Duration // before connecting again; default 100 ms
	MaxBackoff     time.Duration // between any two attempts; default 5 s
	ConnectTimeout time.Duration // of one attempt; default 10 s
	ConfirmTimeout time.Duration // for the broker to confirm what was published; default 30 s
	Heartbeat      time.Duration // a broker that is not heard of for about twice this is taken for dead; default 10 s
	RetryDelay     time.Duration // after a failure to handle it a message is delivered again; default 5 s
	// HoldTime is how long a message may wait in this process for a worker. Then it is dropped. It is
	// longer than the relay's period of publishing again, so that there is another one, and much
	// shorter than the broker's acknowledgement time-out (30 min), which would end the consumer.
	HoldTime time.Duration // default 5 min
	LookTime time.Duration // how often a consumer looks whether messages wait that do not come; default 10 s

	Log     *slog.Logger          // default: none
	Metrics prometheus.Registerer // counted unseen if nil
}

func (o Options) withDefaults() Options {
	o.Prefix = cmp.Or(o.Prefix, "gantry.transfer")
	o.MinBackoff = cmp.Or(o.MinBackoff, 100*time.Millisecond)
	o.MaxBackoff = cmp.Or(o.MaxBackoff, 5*time.Second)
	o.ConnectTimeout = cmp.Or(o.ConnectTimeout, 10*time.Second)
	o.ConfirmTimeout = cmp.Or(o.ConfirmTimeout, 30*time.Second)
	o.Heartbeat = cmp.Or(o.Heartbeat, 10*time.Second)
	o.RetryDelay = cmp.Or(o.RetryDelay, 5*time.Second)
	o.HoldTime = cmp.Or(o.HoldTime, 5*time.Minute)
	o.LookTime = cmp.Or(o.LookTime, 10*time.Second)
	if o.Log == nil {
		o.Log = slog.New(slog.DiscardHandler)
	}
	return o
}

// Validate reports what is wrong with the options, without the password.
func (o Options) Validate() error {
	if _, err := amqp.ParseURI(o.URL); err != nil {
		return upload.Errorf(upload.Invalid, "rabbitmq", "", "The queue's address is not one like amqp://user:password@host:5672/vhost.")
	}
	return nil
}

// address is the broker's, for people.
func (o *Options) address() string {
	u, err := url.Parse(o.URL)
	if err != nil {
		return "the broker"
	}
	return u.Redacted()
}

// delays are those between attempts to connect. They differ between processes, so that a broker that
// comes back is not met by all at once.
func (o *Options) delays() *backoff.ExponentialBackOff {
	const jitter = 0.25
	return &backoff.ExponentialBackOff{
		InitialInterval: o.MinBackoff, Multiplier: 2, RandomizationFactor: jitter,
		MaxInterval: time.Duration(float64(o.MaxBackoff) / (1 + jitter)),
	}
}

// Limits of the queues. They are part of the queues' declaration: a broker refuses to declare a queue
// again with others, so that changing one needs another Prefix, or deleting the queues.
const (
	deliveryLimit = 20     // a message that came so often and was not acknowledged is dead
	maxWaiting    = 10_000 // messages of one node; more are refused, and the relay keeps them
	maxDead       = 10_000 // dead messages; the oldest go first
)

// names are those of one node's queues.
type names struct {
	work  string // what the worker consumes
	later string // what is to come again
	dead  string // what is given up, of all nodes; also the exchange before it
}

func (o *Options) names(node string) (names, error) {
	n := names{work: o.Prefix + "." + node, later: o.Prefix + "." + node + ".later", dead: o.Prefix + ".dead"}
	if node == "" || strings.Contains(node, ".") || n.work == n.dead {
		return names{}, upload.Errorf(upload.Invalid, "rabbitmq", "", "%q cannot be the name of a node with this queue.", node)
	}
	return n, nil
}

// declare makes what is not there.
func (n *names) declare(ch *amqp.Channel) error {
	const durable, autoDelete, exclusive, internal, noWait = true, false, false, false, false
	queue := func(name string, arguments amqp.Table) error {
		arguments[amqp.QueueTypeArg] = amqp.QueueTypeQuorum
		_, err := ch.QueueDeclare(name, durable, autoDelete, exclusive, noWait, arguments)
		return err
	}
	if err := ch.ExchangeDeclare(n.dead, amqp.ExchangeFanout, durable, autoDelete, internal, noWait, nil); err != nil {
		return err
	}
	if err := queue(n.dead, amqp.Table{amqp.QueueMaxLenArg: int32(maxDead)}); err != nil {
		return err
	}
	if err := ch.QueueBind(n.dead, "", n.dead, noWait, nil); err != nil {
		return err
	}
	if err := queue(n.work, amqp.Table{
		"x-delivery-limit":       int32(deliveryLimit),
		"x-dead-letter-exchange": n.dead,
		amqp.QueueMaxLenArg:      int32(maxWaiting),
		amqp.QueueOverflowArg:    amqp.QueueOverflowRejectPublish,
	}); err != nil {
		return err
	}
	return queue(n.later, amqp.Table{
		"x-dead-letter-exchange":    "", // the default one, which knows every queue by its name
		"x-dead-letter-routing-key": n.work,
	})
}

// A message is a transfer's id as plain text. Ids are short and have no odd characters; what is not
// like that was not published here.
const maxID = 64

func isID(s string) bool {
	for i := range len(s) {
		if c := s[i]; !('0' <= c && c <= '9' || 'a' <= c && c <= 'z' || 'A' <= c && c <= 'Z' || c == '-' || c == '_') {
			return false
		}
	}
	return 0 < len(s) && len(s) <= maxID
}

// headerFailures counts how often a message could not be handled.
const headerFailures = "x-gantry-failures"

func failures(d *amqp.Delivery) int32 {
	n, _ := d.Headers[headerFailures].(int32) // whatever else it is counts as none
	return n
}

// refused reports whether the broker said no to what was asked of it, so that asking again does not
// help: no permission, or a queue that is there with other settings.
func refused(err error) bool {
	e, ok := errors.AsType[*amqp.Error](err)
	if !ok {
		return false
	}
	switch e.Code {
	case amqp.AccessRefused, amqp.NotFound, amqp.ResourceLocked, amqp.PreconditionFailed, amqp.NotAllowed:
		return true
	default:
		return false
	}
}

// unavailable is an error of the client library as one of ours.
func unavailable(op string, err error) error {
	if err == nil {
		return nil
	}
	if e, ok := errors.AsType[*amqp.Error](err); ok && e.Code == amqp.PreconditionFailed {
		err = fmt.Errorf("%w (a queue that was declared with other settings can be deleted: what is due is published again)", err)
	}
	return upload.Wrap(upload.Unavailable, op, "", err)
}
