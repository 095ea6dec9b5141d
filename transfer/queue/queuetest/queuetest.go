// Package queuetest is the test suite that every queue passes.
package queuetest

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"testing"
	"time"

	"gantry/transfer/queue"
)

// Caps say what of the contract depends on the queue.
type Caps struct {
	// Redelivery is how long it takes at most until a message whose handling failed comes again.
	Redelivery time.Duration
}

// Run tests a queue; open returns a fresh, empty one.
func Run(t *testing.T, open func(t *testing.T) queue.Queue, caps Caps) {
	s := suite{open, caps}
	for name, test := range map[string]func(*testing.T){
		"PublishedBeforeConsume":   s.publishedBeforeConsume,
		"PublishedDuringConsume":   s.publishedDuringConsume,
		"FailedIsDeliveredAgain":   s.failedIsDeliveredAgain,
		"FailedDoesNotHoldUpRest":  s.failedDoesNotHoldUpRest,
		"NodesAreApart":            s.nodesAreApart,
		"WorkersAreTheLimit":       s.workersAreTheLimit,
		"ConsumeEndsAfterHandlers": s.consumeEndsAfterHandlers,
		"FailedSurvivesConsume":    s.failedSurvivesConsume,
		"SeveralConsumers":         s.severalConsumers,
		"PublishKeepsContext":      s.publishKeepsContext,
		"PublishedWhileHandled":    s.publishedWhileHandled,
		"PublishNothing":           s.publishNothing,
		"InOrder":                  s.inOrder,
		"AckedIsNotDeliveredAgain": s.ackedIsNotDeliveredAgain,
		"AckFreesNoWorker":         s.ackFreesNoWorker,
		"AckTwice":                 s.ackTwice,
	} {
		t.Run(name, test)
	}
}

type suite struct {
	open func(t *testing.T) queue.Queue
	caps Caps
}

const nodeA, nodeB = "nodea", "nodeb"

// patience is how long a message may take that nothing holds up.
const patience = 10 * time.Second

// consumer runs Consume until it is stopped, at the latest at the end of the test.
type consumer struct {
	stop func() // ends Consume and waits for it
	got  chan string
}

// consume delivers to handle, and after that to got. A nil handle succeeds.
func consume(t *testing.T, q queue.Consumer, node string, workers int, handle queue.Handler) consumer {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	c := consumer{got: make(chan string, 10000)}
	var running sync.WaitGroup
	running.Go(func() {
		err := q.Consume(ctx, node, workers, func(ctx context.Context, id string, ack func()) error {
			var err error
			if handle != nil {
				err = handle(ctx, id, ack)
			}
			c.got <- id
			return err
		})
		if err != nil {
			t.Errorf("Consume ended with %v", err)
		}
	})
	c.stop = sync.OnceFunc(func() {
		cancel()
		running.Wait()
	})
	t.Cleanup(c.stop)
	return c
}

// wait waits for one message.
func (c consumer) wait(t *testing.T, limit time.Duration) string {
	t.Helper()
	select {
	case id := <-c.got:
		return id
	case <-time.After(limit):
		t.Fatalf("no message came in %v", limit)
		return ""
	}
}

// waitFor waits until all ids came at least once; others must not come.
func (c consumer) waitFor(t *testing.T, ids []string, limit time.Duration) {
	t.Helper()
	missing := map[string]bool{}
	for _, id := range ids {
		missing[id] = true
	}
	for len(missing) > 0 {
		id := c.wait(t, limit)
		if !slices.Contains(ids, id) {
			t.Fatalf("a message %q came that nobody sent here", id)
		}
		delete(missing, id)
	}
}

func publish(t *testing.T, q queue.Publisher, node string, ids ...string) {
	t.Helper()
	if err := q.Publish(t.Context(), node, ids...); err != nil {
		t.Fatalf("Publish of %d ids: %v", len(ids), err)
	}
}

func numbered(prefix string, n int) []string {
	ids := make([]string, n)
	for i := range ids {
		ids[i] = fmt.Sprintf("%s%05d", prefix, i)
	}
	return ids
}

func (s suite) publishedBeforeConsume(t *testing.T) {
	q, ids := s.open(t), numbered("a", 200)
	publish(t, q, nodeA, ids...)
	consume(t, q, nodeA, 3, nil).waitFor(t, ids, patience)
}

func (s suite) publishedDuringConsume(t *testing.T) {
	q, ids := s.open(t), numbered("b", 5000)
	c := consume(t, q, nodeA, 3, nil)
	for batch := range slices.Chunk(ids, 250) {
		publish(t, q, nodeA, batch...)
	}
	c.waitFor(t, ids, patience)
}

func (s suite) failedIsDeliveredAgain(t *testing.T) {
	q := s.open(t)
	var mu sync.Mutex
	var times []time.Time
	c := consume(t, q, nodeA, 2, func(context.Context, string, func()) error {
		mu.Lock()
		defer mu.Unlock()
		if times = append(times, time.Now()); len(times) < 3 {
			return errors.New("not yet")
		}
		return nil
	})
	publish(t, q, nodeA, "one")
	for range 3 {
		c.wait(t, s.caps.Redelivery+patience)
	}
	mu.Lock()
	defer mu.Unlock()
	if gap := times[1].Sub(times[0]); gap < time.Millisecond {
		t.Errorf("it came again after %v: a failure that stays would keep a processor busy", gap)
	}
}

func (s suite) failedDoesNotHoldUpRest(t *testing.T) {
	q, ids := s.open(t), numbered("c", 50)
	c := consume(t, q, nodeA, 1, func(_ context.Context, id string, _ func()) error {
		if id == "bad" {
			return errors.New("always")
		}
		return nil
	})
	publish(t, q, nodeA, "bad")
	publish(t, q, nodeA, ids...)
	c.waitFor(t, append(ids, "bad"), patience)
}

func (s suite) nodesAreApart(t *testing.T) {
	q := s.open(t)
	forA, forB := numbered("a", 50), numbered("b", 50)
	publish(t, q, nodeB, forB...)
	publish(t, q, nodeA, forA...)
	consume(t, q, nodeA, 2, nil).waitFor(t, forA, patience)
	consume(t, q, nodeB, 2, nil).waitFor(t, forB, patience)
}

func (s suite) workersAreTheLimit(t *testing.T) {
	const workers = 3
	q, ids := s.open(t), numbered("w", 100)
	var mu sync.Mutex
	running, most := 0, 0
	full := make(chan struct{})
	c := consume(t, q, nodeA, workers, func(ctx context.Context, _ string, _ func()) error {
		mu.Lock()
		running++
		if most = max(most, running); most == workers {
			select {
			case <-full:
			default:
				close(full)
			}
		}
		mu.Unlock()
		select { // nobody goes on before all workers are at work
		case <-full:
		case <-ctx.Done():
		}
		mu.Lock()
		running--
		mu.Unlock()
		return nil
	})
	publish(t, q, nodeA, ids...)
	c.waitFor(t, ids, patience)
	mu.Lock()
	defer mu.Unlock()
	if most != workers {
		t.Errorf("%d messages were handled at a time, with %d workers", most, workers)
	}
}

func (s suite) consumeEndsAfterHandlers(t *testing.T) {
	q := s.open(t)
	began, ended := make(chan struct{}), false
	c := consume(t, q, nodeA, 1, func(ctx context.Context, _ string, _ func()) error {
		close(began)
		<-ctx.Done()
		time.Sleep(20 * time.Millisecond) // as a handler does that puts things in order
		ended = true
		return nil
	})
	publish(t, q, nodeA, "one")
	select {
	case <-began:
	case <-time.After(patience):
		t.Fatal("the message did not come")
	}
	c.stop()
	if !ended {
		t.Error("Consume returned before its handler did")
	}
}

func (s suite) failedSurvivesConsume(t *testing.T) {
	q := s.open(t)
	c := consume(t, q, nodeA, 1, func(ctx context.Context, _ string, _ func()) error { return errors.New("the node stops") })
	publish(t, q, nodeA, "one")
	c.wait(t, patience)
	c.stop()
	consume(t, q, nodeA, 1, nil).waitFor(t, []string{"one"}, s.caps.Redelivery+patience)
}

func (s suite) severalConsumers(t *testing.T) {
	q, ids := s.open(t), numbered("s", 500)
	a, b := consume(t, q, nodeA, 2, nil), consume(t, q, nodeA, 2, nil)
	publish(t, q, nodeA, ids...)
	missing := map[string]bool{}
	for _, id := range ids {
		missing[id] = true
	}
	for len(missing) > 0 {
		select {
		case id := <-a.got:
			delete(missing, id)
		case id := <-b.got:
			delete(missing, id)
		case <-time.After(patience):
			t.Fatalf("%d messages did not come", len(missing))
		}
	}
}

// A Publish that cannot go on ends with its context: the relay must be able to stop.
func (s suite) publishKeepsContext(t *testing.T) {
	q := s.open(t)
	ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	for i := 0; ; i++ {
		if err := q.Publish(ctx, nodeA, fmt.Sprint("full", i)); err != nil {
			return
		}
		if ctx.Err() != nil {
			return // it is never full: fine
		}
	}
}

func (s suite) publishedWhileHandled(t *testing.T) {
	q := s.open(t)
	began, goOn := make(chan struct{}, 10), make(chan struct{})
	c := consume(t, q, nodeA, 1, func(ctx context.Context, _ string, _ func()) error {
		began <- struct{}{}
		select {
		case <-goOn:
		case <-ctx.Done():
		}
		return nil
	})
	publish(t, q, nodeA, "one")
	select {
	case <-began:
	case <-time.After(patience):
		t.Fatal("the message did not come")
	}
	publish(t, q, nodeA, "one") // there is something new about it: it must come again
	close(goOn)
	for range 2 {
		c.wait(t, patience)
	}
}

// Without ids Publish waits for the queue, which is there.
func (s suite) publishNothing(t *testing.T) {
	q := s.open(t)
	publish(t, q, nodeA)
	publish(t, q, nodeA, "one")
	consume(t, q, nodeA, 1, nil).waitFor(t, []string{"one"}, patience)
}

// One worker gets what one relay publishes in that order: a backlog is worked off oldest first.
func (s suite) inOrder(t *testing.T) {
	q, ids := s.open(t), numbered("o", 300)
	for batch := range slices.Chunk(ids, 70) {
		publish(t, q, nodeA, batch...)
	}
	c := consume(t, q, nodeA, 1, nil)
	for _, want := range ids {
		if id := c.wait(t, patience); id != want {
			t.Fatalf("%q came, want %q", id, want)
		}
	}
}

// Whatever becomes of the work after ack, and of whoever does it, the message is gone.
func (s suite) ackedIsNotDeliveredAgain(t *testing.T) {
	q := s.open(t)
	c := consume(t, q, nodeA, 1, func(_ context.Context, id string, ack func()) error {
		if id == "one" {
			ack()
			return errors.New("the work fails")
		}
		return nil
	})
	publish(t, q, nodeA, "one", "two")
	if first, second := c.wait(t, patience), c.wait(t, patience); first != "one" || second != "two" {
		t.Fatalf("%q and %q came", first, second)
	}
	time.Sleep(2 * s.caps.Redelivery) // when a message that failed would be back
	c.stop()
	publish(t, q, nodeA, "three")
	if id := consume(t, q, nodeA, 1, nil).wait(t, patience); id != "three" {
		t.Errorf("%q came again", id)
	}
	if len(c.got) > 0 {
		t.Errorf("%q came again", <-c.got)
	}
}

// ack tells the queue that the message is not needed, not that the worker is free.
func (s suite) ackFreesNoWorker(t *testing.T) {
	q := s.open(t)
	acked, goOn := make(chan string, 10), make(chan struct{})
	c := consume(t, q, nodeA, 1, func(ctx context.Context, id string, ack func()) error {
		ack()
		acked <- id
		select {
		case <-goOn:
		case <-ctx.Done():
		}
		return nil
	})
	publish(t, q, nodeA, "one", "two")
	if id := <-acked; id != "one" {
		t.Fatalf("%q came", id)
	}
	select {
	case id := <-acked:
		t.Errorf("%q was handled beside another, with one worker", id)
	case <-time.After(200 * time.Millisecond):
	}
	close(goOn)
	c.waitFor(t, []string{"one", "two"}, patience)
}

func (s suite) ackTwice(t *testing.T) {
	q := s.open(t)
	c := consume(t, q, nodeA, 2, func(_ context.Context, _ string, ack func()) error {
		ack()
		ack()
		return nil // a third time
	})
	ids := numbered("t", 20)
	publish(t, q, nodeA, ids...)
	c.waitFor(t, ids, patience)
}
