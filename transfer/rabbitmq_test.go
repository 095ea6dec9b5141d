package transfer_test

import (
	"context"
	"crypto/rand"
	"fmt"
	"log/slog"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	amqp "github.com/rabbitmq/amqp091-go"

	"gantry/internal/testenv"
	"gantry/store/storetest"
	"gantry/transfer/queue"
	"gantry/transfer/queue/rabbitmq"
	"gantry/upload"
)

// brokerPatience is for what needs a broker to start on a machine that has other things to do.
const brokerPatience = 90 * time.Second

// useBroker makes a broker the rig's queue, with queues of the test's own, and returns their prefix.
func (r *rig) useBroker(url string, log *slog.Logger) (prefix string) {
	r.t.Helper()
	opt := rabbitmq.Options{
		URL: url, Prefix: "test." + strings.ToLower(rand.Text()[:10]), Log: log,
		MaxBackoff: 300 * time.Millisecond, RetryDelay: 100 * time.Millisecond, HoldTime: 2 * time.Second, LookTime: time.Second,
	}
	publisher := must(rabbitmq.NewPublisher(context.Background(), opt))(r.t)
	r.t.Cleanup(func() { _ = publisher.Close() })
	r.queue = struct {
		queue.Publisher
		queue.Consumer
	}{publisher, must(rabbitmq.NewConsumer(opt))(r.t)}
	return opt.Prefix
}

// dial returns a channel of the test's own to a broker.
func dial(t *testing.T, url string) *amqp.Channel {
	t.Helper()
	conn := must(amqp.Dial(url))(t)
	t.Cleanup(func() { _ = conn.Close() })
	return must(conn.Channel())(t)
}

// deleteQueues deletes all queues of a prefix.
func deleteQueues(t *testing.T, ch *amqp.Channel, prefix string) {
	t.Helper()
	for _, name := range []string{prefix + "." + node, prefix + "." + node + ".later", prefix + ".dead"} {
		must(ch.QueueDelete(name, false, false, false))(t)
	}
	if err := ch.ExchangeDelete(prefix+".dead", false, false); err != nil {
		t.Fatal(err)
	}
}

// batch is files that are to be transferred.
type batch struct {
	r     *rig
	files []upload.File
}

func (b *batch) content(i int) []byte { return storetest.Bytes(uint64(i), 1000+i) }

func (b *batch) commit(n int) {
	for range n {
		b.files = append(b.files, b.r.commit(b.content(len(b.files))))
	}
}

// expectOneEffect waits until all are stored, and checks that each was put once, under one lease.
func (b *batch) expectOneEffect() {
	b.r.t.Helper()
	deadline := time.Now().Add(brokerPatience)
	for i := range b.files {
		for b.r.transfer(&b.files[i]).State != upload.TransferStored {
			if time.Now().After(deadline) {
				b.r.t.Fatalf("not stored: %+v", b.r.transfer(&b.files[i]))
			}
			time.Sleep(5 * time.Millisecond)
		}
	}
	for i := range b.files {
		b.r.expectStored(&b.files[i], b.content(i))
		if got := b.r.transfer(&b.files[i]); got.Attempts != 1 {
			b.r.t.Errorf("file %d: %d attempts", i, got.Attempts)
		}
	}
	puts := b.r.store.Puts()
	slices.Sort(puts)
	if len(puts) != len(b.files) || len(slices.Compact(puts)) != len(b.files) {
		b.r.t.Errorf("%d puts for %d blobs", len(puts), len(b.files))
	}
	if b.r.store.Overlapped() {
		b.r.t.Error("two workers put one object at the same time")
	}
}

// brokerOptions have the outbox give out again soon what was not acted upon.
func brokerOptions() options {
	opt := testOptions()
	opt.Republish = 500 * time.Millisecond
	return opt
}

// Fault 18: the broker dies between the commit and the publishing, or in the middle of many transfers,
// and comes back after a while.
func TestFault18BrokerDies(t *testing.T) {
	broker := testenv.Private(t, "rabbitmq")
	t.Run("between commit and publish", func(t *testing.T) {
		r := newRig(t)
		r.useBroker(broker.Address(testenv.RabbitMQ), nil)
		b := &batch{r: r}
		b.commit(10)
		var once sync.Once
		r.outbox.hook(func(op string) error {
			if op == "TakeDue" {
				once.Do(func() { broker.Do("kill", "rabbitmq") })
			}
			return nil
		})
		opt := brokerOptions()
		opt.Republish = time.Hour // what was taken is not lost with the connection
		r.start(opt)
		time.Sleep(300 * time.Millisecond)
		b.commit(10)
		broker.Do("start", "rabbitmq")
		b.expectOneEffect()
	})
	t.Run("in the middle", func(t *testing.T) {
		r := newRig(t)
		r.useBroker(broker.Address(testenv.RabbitMQ), nil)
		b := &batch{r: r}
		opt := brokerOptions()
		r.start(opt)
		r.start(opt)
		for range 3 {
			b.commit(100)
			broker.Do("kill", "rabbitmq")
			b.commit(30)
			broker.Do("start", "rabbitmq")
			b.commit(30)
		}
		b.expectOneEffect()
	})
	t.Run("stopped for a while", func(t *testing.T) {
		r := newRig(t)
		r.useBroker(broker.Address(testenv.RabbitMQ), nil)
		b := &batch{r: r}
		r.start(brokerOptions())
		b.commit(50)
		broker.Do("stop", "rabbitmq")
		b.commit(50)
		time.Sleep(time.Second)
		broker.Do("cont", "rabbitmq")
		b.expectOneEffect()
	})
}

// Fault 18: queues are deleted with what is in them, by which messages are lost or cannot be routed.
func TestFault18QueueDeleted(t *testing.T) {
	t.Parallel()
	address := testenv.Address(t, testenv.RabbitMQ)
	r := newRig(t)
	prefix := r.useBroker(address, nil)
	ch := dial(t, address)
	b := &batch{r: r}
	opt := brokerOptions()
	r.start(opt)
	r.start(opt)
	for range 15 {
		b.commit(20)
		deleteQueues(t, ch, prefix)
	}
	b.expectOneEffect()
	t.Cleanup(func() { deleteQueues(t, dial(t, address), prefix) })
}

// Fault 18: a message is delivered too often and ends as a dead letter. Its transfer is announced again.
func TestFault18DeliveryLimit(t *testing.T) {
	t.Parallel()
	address := testenv.Address(t, testenv.RabbitMQ)
	r := newRig(t)
	prefix := r.useBroker(address, nil)
	t.Cleanup(func() { deleteQueues(t, dial(t, address), prefix) })
	b := &batch{r: r}
	b.commit(3)
	ids := must(r.db.TakeDue(t.Context(), node, r.now(), 2*time.Second, 10))(t)
	if err := r.queue.Publish(t.Context(), node, ids...); err != nil {
		t.Fatal(err)
	}
	ch := dial(t, address)
	dead := func() int {
		return must(ch.QueueDeclarePassive(prefix+".dead", true, false, false, false, amqp.Table{amqp.QueueTypeArg: amqp.QueueTypeQuorum}))(t).Messages
	}
	for deadline := time.Now().Add(brokerPatience); dead() < len(ids); {
		if time.Now().After(deadline) {
			t.Fatalf("%d dead letters", dead())
		}
		d, ok, err := ch.Get(prefix+"."+node, false)
		if err != nil {
			t.Fatal(err)
		}
		if ok {
			if err := d.Nack(false, true); err != nil { // as when a consumer dies with it
				t.Fatal(err)
			}
		}
	}
	r.start(brokerOptions())
	b.expectOneEffect()
}

// Fault 19, with a real broker: messages are doubled, delivered again and reordered, while connections
// are lost; two workers have them.
func TestFault19OverABroker(t *testing.T) {
	t.Parallel()
	address := testenv.Address(t, testenv.RabbitMQ)
	r := newRig(t)
	prefix := r.useBroker(address, nil)
	t.Cleanup(func() { deleteQueues(t, dial(t, address), prefix) })
	r.queue = &unruly{Queue: r.queue}
	b := &batch{r: r}
	opt := brokerOptions()
	opt.Republish = 250 * time.Millisecond // more often, and a slow machine has the queue full of repetitions
	r.start(opt)
	_, stop := r.start(opt)
	for range 5 {
		b.commit(30)
		stop()
		_, stop = r.start(opt)
	}
	deadline := time.Now().Add(brokerPatience)
	for i := range b.files {
		for r.transfer(&b.files[i]).State != upload.TransferStored {
			if time.Now().After(deadline) {
				t.Fatalf("not stored: %+v", r.transfer(&b.files[i]))
			}
			time.Sleep(5 * time.Millisecond)
		}
		r.expectStored(&b.files[i], b.content(i))
	}
	if r.store.Overlapped() {
		t.Error("two workers put one object at the same time")
	}
}

// Fault 21: a transfer lasts longer than the broker waits for an acknowledgement, and so does the next
// one's wait for a worker. Neither is done twice, and the consumer stays.
func TestFault21TransferOutlastsTheBrokersPatience(t *testing.T) {
	t.Parallel()
	address := testenv.Address(t, testenv.RabbitMQ)
	r := newRig(t)
	var log logged
	prefix := r.useBroker(address, log.logger())
	t.Cleanup(func() { deleteQueues(t, dial(t, address), prefix) })

	// How long that is shows a consumer that acknowledges nothing.
	ch := dial(t, address)
	ended := ch.NotifyClose(make(chan *amqp.Error, 1))
	other := fmt.Sprint(prefix, ".held")
	must(ch.QueueDeclare(other, false, true, true, false, nil))(t)
	must(ch.Consume(other, "", false, false, false, false, nil))(t)
	if err := ch.PublishWithContext(t.Context(), "", other, false, false, amqp.Publishing{}); err != nil {
		t.Fatal(err)
	}

	b := &batch{r: r}
	b.commit(3)
	goOn := make(chan struct{})
	r.store.BeforePut(func(ctx context.Context, _ string) {
		select {
		case <-goOn:
		case <-ctx.Done():
		}
	})
	opt := brokerOptions()
	opt.Workers = 1
	r.start(opt)
	select {
	case <-ended:
	case <-time.After(brokerPatience):
		testenv.Need(t, false, "a broker with a consumer_timeout of seconds, as scripts/services starts it")
	}
	time.Sleep(2 * time.Second) // the worker began later than that consumer, and looks are a second apart
	close(goOn)
	b.expectOneEffect()
	if text := log.String(); strings.Contains(text, "no messages come") {
		t.Errorf("the broker has ended the consumer: %s", text)
	}
}
