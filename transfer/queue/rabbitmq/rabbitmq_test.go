package rabbitmq

import (
	"bytes"
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/testutil"
	amqp "github.com/rabbitmq/amqp091-go"
	"go.uber.org/goleak"

	"gantry/internal/testenv"
	"gantry/transfer/queue"
	"gantry/transfer/queue/queuetest"
	"gantry/upload"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

const node = "n1"

// patience is how long to wait for what should happen soon, also while the broker is being restarted.
const patience = 60 * time.Second

// testOptions are for queues of this test alone, which are deleted at its end.
func testOptions(t *testing.T) Options {
	t.Helper()
	opt := Options{
		URL: testenv.Address(t, testenv.RabbitMQ), Prefix: "test." + strings.ToLower(rand.Text()[:10]),
		MinBackoff: 10 * time.Millisecond, MaxBackoff: 200 * time.Millisecond, RetryDelay: 200 * time.Millisecond,
		Log: slog.New(slog.DiscardHandler),
	}
	url := opt.URL
	t.Cleanup(func() {
		b := dialBroker(t, url)
		for _, n := range []string{node, "nodea", "nodeb"} {
			for _, suffix := range []string{"." + n, "." + n + ".later"} {
				_, err := b.ch.QueueDelete(opt.Prefix+suffix, false, false, false)
				b.ok(err)
			}
		}
		_, err := b.ch.QueueDelete(opt.Prefix+".dead", false, false, false)
		b.ok(err)
		b.ok(b.ch.ExchangeDelete(opt.Prefix+".dead", false, false))
	})
	return opt
}

// broker is a connection of the test's own.
type broker struct {
	t    *testing.T
	conn *amqp.Connection
	ch   *amqp.Channel
}

func dialBroker(t *testing.T, url string) *broker {
	t.Helper()
	b := &broker{t: t}
	for deadline := time.Now().Add(patience); ; time.Sleep(100 * time.Millisecond) {
		var err error
		if b.conn, err = amqp.Dial(url); err == nil {
			b.ch, err = b.conn.Channel()
			b.ok(err)
			break
		}
		if time.Now().After(deadline) {
			t.Fatal("no connection to the broker:", err)
		}
	}
	t.Cleanup(func() { _ = b.conn.Close() })
	return b
}

func (b *broker) ok(err error) {
	b.t.Helper()
	if err != nil {
		b.t.Fatal(err)
	}
}

// waiting is how many messages wait in a queue.
func (b *broker) waiting(queue string) int {
	b.t.Helper()
	q, err := b.ch.QueueDeclarePassive(queue, true, false, false, false, amqp.Table{amqp.QueueTypeArg: amqp.QueueTypeQuorum})
	b.ok(err)
	return q.Messages
}

// eventually waits until ok. Counts of a quorum queue are not exact at every moment.
func eventually(t *testing.T, what string, ok func() bool) {
	t.Helper()
	for deadline := time.Now().Add(patience); !ok(); time.Sleep(20 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("%s: did not come true", what)
		}
	}
}

func openPublisher(t *testing.T, opt Options) *Publisher {
	t.Helper()
	p, err := NewPublisher(t.Context(), opt)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := p.Close(); err != nil {
			t.Error(err)
		}
	})
	return p
}

// consume runs a consumer until stop, at the latest until the end of the test.
func consume(t *testing.T, opt Options, workers int, handle queue.Handler) (c *Consumer, stop func()) {
	t.Helper()
	c, err := NewConsumer(opt)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	var running sync.WaitGroup
	running.Go(func() {
		if err := c.Consume(ctx, node, workers, handle); err != nil {
			t.Error(err)
		}
	})
	stop = sync.OnceFunc(func() {
		cancel()
		running.Wait()
	})
	t.Cleanup(stop)
	return c, stop
}

// publish keeps publishing until that succeeds, as a relay does.
func publish(t *testing.T, p *Publisher, ids ...string) {
	t.Helper()
	eventually(t, "publishing", func() bool { return p.Publish(t.Context(), node, ids...) == nil })
}

func numbered(n int) []string {
	ids := make([]string, n)
	for i := range ids {
		ids[i] = fmt.Sprintf("id%05d", i)
	}
	return ids
}

// logged keeps what was logged.
type logged struct {
	mu   sync.Mutex
	text bytes.Buffer
}

func (l *logged) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.text.Write(p)
}

func (l *logged) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.text.String()
}

// seen collects ids.
type seen struct {
	mu  sync.Mutex
	ids map[string]int
}

func (s *seen) add(id string) int {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.ids == nil {
		s.ids = map[string]int{}
	}
	s.ids[id]++
	return s.ids[id]
}

func (s *seen) count() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return len(s.ids)
}

func TestQueue(t *testing.T) {
	t.Parallel()
	queuetest.Run(t, func(t *testing.T) queue.Queue {
		opt := testOptions(t)
		c, err := NewConsumer(opt)
		if err != nil {
			t.Fatal(err)
		}
		return struct {
			*Publisher
			queue.Consumer
		}{openPublisher(t, opt), c}
	}, queuetest.Caps{Redelivery: 200 * time.Millisecond})
}

// A message that the broker could not put anywhere is an error, though the broker confirms it; the next
// call finds the queue declared again. Never is the return mistaken for one of another message.
func TestUnroutable(t *testing.T) {
	t.Parallel()
	opt := testOptions(t)
	reg := prometheus.NewRegistry()
	opt.Metrics = reg
	p := openPublisher(t, opt)
	publish(t, p, "first")
	b := dialBroker(t, opt.URL)
	for round := range 50 {
		_, err := b.ch.QueueDelete(opt.Prefix+"."+node, false, false, false)
		b.ok(err)
		ids := numbered(1 + round*4)
		if err := p.Publish(t.Context(), node, ids...); !errors.Is(err, upload.Unavailable) || !errors.Is(err, errUnroutable) {
			t.Fatalf("round %d: publishing to a queue that is not there: %v", round, err)
		}
		if err := p.Publish(t.Context(), node, ids...); err != nil {
			t.Fatalf("round %d: publishing again: %v", round, err)
		}
		eventually(t, "arrival", func() bool { return b.waiting(opt.Prefix+"."+node) == len(ids) })
	}
	if n := testutil.ToFloat64(p.metrics.published.WithLabelValues(resultReturned)); n < 50 {
		t.Errorf("%v messages counted as returned", n)
	}
}

// A queue that is full refuses messages, which is an error: they are not safe with it.
func TestFullQueue(t *testing.T) {
	t.Parallel()
	opt := testOptions(t)
	p := openPublisher(t, opt)
	var err error
	for i := 0; err == nil && i < 3*maxWaiting; i += maxBatch {
		err = p.Publish(t.Context(), node, numbered(maxBatch)...)
	}
	if !errors.Is(err, errRejected) || !errors.Is(err, upload.Unavailable) {
		t.Fatalf("publishing to a full queue: %v", err)
	}
	consume(t, opt, 4, func(context.Context, string, func()) error { return nil })
	publish(t, p, "there is room again")
}

// Publish does not return before the broker has confirmed, and not at all successfully if the
// connection is lost before.
func TestConfirm(t *testing.T) {
	t.Parallel()
	opt := testOptions(t)
	wire := newProxy(t, opt.URL)
	opt.URL = wire.url
	p := openPublisher(t, opt)
	publish(t, p, "first")
	wire.stall(true)
	var published atomic.Bool
	var running sync.WaitGroup
	running.Go(func() {
		if err := p.Publish(t.Context(), node, "second"); err != nil { // over the next connection
			t.Error(err)
		}
		published.Store(true)
	})
	time.Sleep(300 * time.Millisecond)
	if published.Load() {
		t.Error("published before the broker confirmed")
	}
	wire.cut()
	wire.stall(false)
	running.Wait()

	wire.stall(true)
	ctx, cancel := context.WithTimeout(t.Context(), 300*time.Millisecond)
	defer cancel()
	if err := p.Publish(ctx, node, "third"); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("publishing while the broker does not answer: %v", err)
	}
	wire.stall(false)
}

// The time for a confirmation is bounded, also when whoever calls has all the time in the world.
func TestConfirmTimeout(t *testing.T) {
	t.Parallel()
	opt := testOptions(t)
	wire := newProxy(t, opt.URL)
	opt.URL, opt.ConfirmTimeout = wire.url, 200*time.Millisecond
	p := openPublisher(t, opt)
	publish(t, p, "first")
	wire.stall(true)
	time.AfterFunc(time.Second, func() { wire.stall(false) })
	publish(t, p, "second")
}

// Connections are lost again and again on both sides: every message arrives, none is handled by more
// workers than there are, and nothing that was acknowledged comes again unless it was published again.
func TestConnectionsAreLost(t *testing.T) {
	t.Parallel()
	opt := testOptions(t)
	up, down := newProxy(t, opt.URL), newProxy(t, opt.URL)
	upOpt, downOpt := opt, opt
	upOpt.URL, downOpt.URL = up.url, down.url
	p := openPublisher(t, upOpt)
	var got seen
	var running, most atomic.Int32
	consume(t, downOpt, 3, func(_ context.Context, id string, ack func()) error {
		n := running.Add(1)
		defer running.Add(-1)
		for m := most.Load(); n > m && !most.CompareAndSwap(m, n); m = most.Load() {
		}
		got.add(id)
		ack()
		return nil
	})
	ids := numbered(4000)
	var cutting sync.WaitGroup
	done := make(chan struct{})
	cutting.Go(func() {
		for {
			select {
			case <-done:
				return
			case <-time.After(150 * time.Millisecond):
				up.cut()
				down.cut()
			}
		}
	})
	for batch := range slices.Chunk(ids, 20) {
		publish(t, p, batch...)
	}
	close(done)
	cutting.Wait()
	eventually(t, "all messages", func() bool { return got.count() == len(ids) })
	if most.Load() > 3 {
		t.Errorf("%d handlers at a time", most.Load())
	}
}

// A queue that somebody deletes under its consumer is declared again, by whichever end notices first.
func TestQueueDeletedUnderConsumer(t *testing.T) {
	t.Parallel()
	opt := testOptions(t)
	var got seen
	c, _ := consume(t, opt, 2, func(_ context.Context, id string, _ func()) error { got.add(id); return nil })
	p := openPublisher(t, opt)
	b := dialBroker(t, opt.URL)
	for i := range 20 {
		id := fmt.Sprint("id", i)
		publish(t, p, id)
		eventually(t, id, func() bool { return got.count() == i+1 })
		for _, name := range []string{".n1", ".n1.later", ".dead"} {
			_, err := b.ch.QueueDelete(opt.Prefix+name, false, false, false)
			b.ok(err)
		}
		if i%2 == 0 { // nobody publishes: the consumer has to notice by itself
			eventually(t, "a consumer", func() bool {
				b := dialBroker(t, opt.URL)
				defer b.conn.Close()
				q, err := b.ch.QueueDeclarePassive(opt.Prefix+".n1", true, false, false, false, nil)
				return err == nil && q.Consumers == 1
			})
		}
	}
	if err := c.Check(t.Context()); err != nil {
		t.Error(err)
	}
}

// A broker may forget a consumer without telling it, as RabbitMQ does now and then when a queue is deleted and declared
// again at once. The consumer finds out by what waits and does not come.
func TestForgottenConsumer(t *testing.T) {
	t.Parallel()
	opt := testOptions(t)
	opt.LookTime = 100 * time.Millisecond
	p := openPublisher(t, opt)
	wire := newProxy(t, opt.URL)
	opt.URL = wire.url
	var log logged
	opt.Log = slog.New(slog.NewTextHandler(&log, nil))
	var got seen
	consume(t, opt, 2, func(_ context.Context, id string, _ func()) error { got.add(id); return nil })
	publish(t, p, "id")
	eventually(t, "a message", func() bool { return got.count() == 1 })
	wire.forget(t)
	n := 1
	eventually(t, "the consumer's finding out", func() bool {
		publish(t, p, fmt.Sprint("id", n))
		n++
		return strings.Contains(log.String(), errDeaf.Error())
	})
	eventually(t, "all messages", func() bool { return got.count() == n })
}

// A consumer to which nothing comes because nothing is there, or because its workers are busy, stays.
func TestConsumerThatIsNotForgotten(t *testing.T) {
	t.Parallel()
	opt := testOptions(t)
	opt.LookTime = 20 * time.Millisecond
	var log logged
	opt.Log = slog.New(slog.NewTextHandler(&log, nil))
	p := openPublisher(t, opt)
	goOn := make(chan struct{})
	var got seen
	consume(t, opt, 1, func(_ context.Context, id string, _ func()) error {
		got.add(id)
		<-goOn
		return nil
	})
	time.Sleep(10 * opt.LookTime)
	publish(t, p, "a", "b", "c")
	eventually(t, "a message", func() bool { return got.count() == 1 })
	time.Sleep(10 * opt.LookTime)
	close(goOn)
	eventually(t, "all messages", func() bool { return got.count() == 3 })
	time.Sleep(10 * opt.LookTime)
	if strings.Contains(log.String(), "no messages come") {
		t.Errorf("the consumer was taken for a forgotten one: %s", log.String())
	}
}

// What is no id of a transfer is kept for people to look at, and does not stop the others.
func TestGarbage(t *testing.T) {
	t.Parallel()
	opt := testOptions(t)
	p := openPublisher(t, opt)
	publish(t, p, "before")
	b := dialBroker(t, opt.URL)
	garbage := []string{"", "{}", "a b", strings.Repeat("x", maxID+1), "\xff", "a/../b"}
	for _, body := range garbage {
		b.ok(b.ch.PublishWithContext(t.Context(), "", opt.Prefix+"."+node, true, false, amqp.Publishing{Body: []byte(body)}))
	}
	publish(t, p, "after")
	got := make(chan string, 10)
	consume(t, opt, 1, func(_ context.Context, id string, _ func()) error { got <- id; return nil })
	if first, second := <-got, <-got; first != "before" || second != "after" {
		t.Errorf("got %q, %q", first, second)
	}
	eventually(t, "dead letters", func() bool { return b.waiting(opt.Prefix+".dead") == len(garbage) })
}

// A message that never can be handled comes again after the delay, and ends as a dead letter.
func TestFailuresEndAsDeadLetters(t *testing.T) {
	t.Parallel()
	opt := testOptions(t)
	opt.RetryDelay = 30 * time.Millisecond
	p := openPublisher(t, opt)
	publish(t, p, "bad")
	var times atomic.Int32
	began := time.Now()
	consume(t, opt, 1, func(context.Context, string, func()) error {
		times.Add(1)
		return errors.New("the database is away")
	})
	b := dialBroker(t, opt.URL)
	eventually(t, "a dead letter", func() bool { return b.waiting(opt.Prefix+".dead") == 1 })
	if n, took := times.Load(), time.Since(began); n != deliveryLimit || took < (deliveryLimit-1)*opt.RetryDelay {
		t.Errorf("handled %d times in %v", n, took)
	}
}

// A message whose consumers die with it ends as a dead letter too: it may be what kills them.
func TestDeliveryLimit(t *testing.T) {
	t.Parallel()
	opt := testOptions(t)
	p := openPublisher(t, opt)
	publish(t, p, "poison")
	b := dialBroker(t, opt.URL)
	work := opt.Prefix + "." + node
	died := 0
	for deadline := time.Now().Add(patience); b.waiting(opt.Prefix+".dead") == 0; {
		if time.Now().After(deadline) {
			t.Fatalf("no dead letter after %d deliveries", died)
		}
		ch, err := b.conn.Channel()
		b.ok(err)
		if _, got, err := ch.Get(work, false); err != nil {
			t.Fatal(err)
		} else if got {
			died++
		}
		b.ok(ch.Close()) // without having acknowledged
	}
	if died != deliveryLimit+1 {
		t.Errorf("delivered %d times, want %d", died, deliveryLimit+1)
	}
	letter, ok, err := b.ch.Get(opt.Prefix+".dead", true)
	if err != nil || !ok || string(letter.Body) != "poison" || letter.Headers["x-first-death-reason"] != "delivery_limit" {
		t.Errorf("%q %v %v, %v", letter.Body, letter.Headers, ok, err)
	}
}

// While all workers are busy messages do not wait here without being acknowledged: the broker would
// end the consumer for it after a while. They are dropped, and the relay sends others.
func TestHeldMessagesAreDropped(t *testing.T) {
	t.Parallel()
	opt := testOptions(t)
	opt.HoldTime = 100 * time.Millisecond
	p := openPublisher(t, opt)
	b := dialBroker(t, opt.URL)
	busy, goOn := make(chan struct{}), make(chan struct{})
	var got seen
	c, stop := consume(t, opt, 1, func(ctx context.Context, id string, ack func()) error {
		got.add(id)
		if id == "long" {
			ack()
			close(busy)
			<-goOn
		}
		return nil
	})
	publish(t, p, "long")
	<-busy
	publish(t, p, "a", "b", "c")
	dropped := func() float64 { return testutil.ToFloat64(c.metrics.consumed.WithLabelValues(resultDropped)) }
	eventually(t, "three dropped", func() bool { return dropped() == 3 })
	close(goOn)
	publish(t, p, "d")
	eventually(t, "the next", func() bool { return got.count() == 2 })
	stop()
	eventually(t, "an empty queue", func() bool { return b.waiting(opt.Prefix+"."+node) == 0 })
}

// A consumer takes no more than its workers can look at: the rest is for others.
func TestPrefetch(t *testing.T) {
	t.Parallel()
	opt := testOptions(t)
	p := openPublisher(t, opt)
	b := dialBroker(t, opt.URL)
	publish(t, p, numbered(50)...)
	working := make(chan struct{}, 50)
	consume(t, opt, 2, func(ctx context.Context, _ string, _ func()) error {
		working <- struct{}{}
		<-ctx.Done()
		return ctx.Err()
	})
	<-working
	<-working
	time.Sleep(200 * time.Millisecond)
	if n := b.waiting(opt.Prefix + "." + node); n < 46 { // of ready ones; counts lag behind
		t.Errorf("of 50 messages %d were left to others by 2 workers", n)
	}
}

// What the worker had not yet looked at when it was stopped is for the next one.
func TestStopGivesMessagesBack(t *testing.T) {
	t.Parallel()
	opt := testOptions(t)
	p := openPublisher(t, opt)
	ids := numbered(20)
	publish(t, p, ids...)
	first := make(chan struct{}, len(ids))
	_, stop := consume(t, opt, 5, func(ctx context.Context, _ string, _ func()) error {
		first <- struct{}{}
		<-ctx.Done()
		return ctx.Err()
	})
	<-first
	stop()
	var got seen
	consume(t, opt, 5, func(_ context.Context, id string, _ func()) error { got.add(id); return nil })
	eventually(t, "all messages", func() bool { return got.count() == len(ids) })
}

// Somebody else's queue of that name is not overwritten, and Publish says so instead of trying for ever.
func TestQueueWithOtherSettings(t *testing.T) {
	t.Parallel()
	opt := testOptions(t)
	b := dialBroker(t, opt.URL)
	_, err := b.ch.QueueDeclare(opt.Prefix+"."+node, true, false, false, false, nil)
	b.ok(err)
	p := openPublisher(t, opt)
	if err := p.Publish(t.Context(), node, "one"); !errors.Is(err, upload.Unavailable) || !strings.Contains(err.Error(), "can be deleted") {
		t.Errorf("got %v", err)
	}
	_, err = b.ch.QueueDelete(opt.Prefix+"."+node, false, false, false)
	b.ok(err)
	publish(t, p, "one")
}

// Both ends say what their connection is like.
func TestCheck(t *testing.T) {
	t.Parallel()
	opt := testOptions(t)
	wire := newProxy(t, opt.URL)
	reg := prometheus.NewRegistry()
	opt.URL, opt.Metrics = wire.url, reg
	p := openPublisher(t, opt)
	c, _ := consume(t, opt, 1, func(context.Context, string, func()) error { return nil })
	both := func(connected bool) func() bool {
		want := 0.0
		if connected {
			want = 1
		}
		return func() bool {
			return (p.Check(t.Context()) == nil) == connected && (c.Check(t.Context()) == nil) == connected &&
				testutil.ToFloat64(p.metrics.connected) == want && testutil.ToFloat64(c.metrics.connected) == want
		}
	}
	eventually(t, "connected", both(true))
	wire.mu.Lock()
	target := wire.target
	wire.target = "127.0.0.1:1"
	wire.mu.Unlock()
	wire.cut()
	eventually(t, "not connected", both(false))
	wire.mu.Lock()
	wire.target = target
	wire.mu.Unlock()
	eventually(t, "connected again", both(true))
	names, err := reg.Gather()
	if err != nil || len(names) != 1 { // counters appear with their first event
		t.Errorf("%d metrics, %v", len(names), err)
	}
}

// Without a broker nothing fails but what needs it, and everything ends when it is told to.
func TestNoBroker(t *testing.T) {
	t.Parallel()
	opt := Options{URL: "amqp://user:s3cr3t@127.0.0.1:1/", MinBackoff: time.Millisecond, MaxBackoff: 10 * time.Millisecond}
	p := openPublisher(t, opt)
	_, stop := consume(t, opt, 1, func(context.Context, string, func()) error { return nil })
	ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	if err := p.Publish(ctx, node, "one"); !errors.Is(err, upload.Canceled) {
		t.Errorf("Publish: %v", err)
	}
	stop()
	if err := p.Check(t.Context()); err == nil || strings.Contains(err.Error(), "s3cr3t") {
		t.Errorf("Check: %v", err)
	}
}

func TestOptions(t *testing.T) {
	t.Parallel()
	for _, url := range []string{"", "http://h", "amqp://user:s3cr3t@[::1", "amqp://user:s3cr3t@h:port"} {
		opt := Options{URL: url}
		_, err := NewConsumer(opt)
		if !errors.Is(err, upload.Invalid) || strings.Contains(err.Error(), "s3cr3t") {
			t.Errorf("%s: %v", url, err)
		}
		if _, again := NewPublisher(t.Context(), opt); again == nil {
			t.Errorf("%s: accepted", url)
		}
	}
	c, err := NewConsumer(Options{URL: "amqp://user:s3cr3t@h"})
	if err != nil || strings.Contains(c.opt.address(), "s3cr3t") || !strings.Contains(c.opt.address(), "h") {
		t.Errorf("%s, %v", c.opt.address(), err)
	}
	for _, name := range []string{"", "dead", "a.b"} {
		if err := c.Consume(t.Context(), name, 1, nil); !errors.Is(err, upload.Invalid) {
			t.Errorf("node %q: %v", name, err)
		}
	}
}
