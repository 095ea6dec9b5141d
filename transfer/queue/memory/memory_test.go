package memory

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"go.uber.org/goleak"

	"gantry/transfer/queue"
	"gantry/transfer/queue/queuetest"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func TestQueue(t *testing.T) {
	t.Parallel()
	queuetest.Run(t, func(*testing.T) queue.Queue { return New() }, queuetest.Caps{Redelivery: redeliver})
}

// The relay publishes all that is due again and again while the workers are busy.
func TestAnIDWaitsOnce(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		q := New()
		for range 3 {
			for _, id := range []string{"a", "b", "c"} {
				if err := q.Publish(t.Context(), "n", id); err != nil {
					t.Fatal(err)
				}
			}
		}
		if got := drain(t, q); !slices.Equal(got, []string{"a", "b", "c"}) {
			t.Errorf("delivered %v", got)
		}
	})
}

// drain returns what is delivered until nothing comes any more.
func drain(t *testing.T, q *Queue) []string {
	t.Helper()
	var got []string
	ctx, cancel := context.WithTimeout(t.Context(), time.Hour)
	defer cancel()
	err := q.Consume(ctx, "n", 1, func(_ context.Context, id string, _ func()) error {
		got = append(got, id)
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return got
}

func TestMemoryIsBounded(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		q := New()
		for i := range capacity {
			if err := q.Publish(t.Context(), "n", fmt.Sprint(i)); err != nil {
				t.Fatal(err)
			}
		}
		full, cancel := context.WithTimeout(t.Context(), time.Minute)
		defer cancel()
		if err := q.Publish(full, "n", "one too many"); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("Publish into a full queue: %v", err)
		}
		if err := q.Publish(full, "n", "0"); err != nil {
			t.Errorf("Publish of what waits already: %v", err)
		}
		done := make(chan error, 1)
		go func() { done <- q.Publish(t.Context(), "n", "waits for room") }()
		synctest.Wait()
		got := drain(t, q)
		if err := <-done; err != nil {
			t.Error(err)
		}
		if len(got) != capacity+1 || got[capacity] != "waits for room" {
			t.Errorf("delivered %d, last %q", len(got), got[len(got)-1])
		}
	})
}

// An id whose handling fails comes again after the delay, once, however often it is published.
func TestRedeliveryIsDelayed(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		q := New()
		start := time.Now()
		var at []time.Duration
		ctx, cancel := context.WithTimeout(t.Context(), time.Hour)
		defer cancel()
		if err := q.Publish(ctx, "n", "a"); err != nil {
			t.Fatal(err)
		}
		err := q.Consume(ctx, "n", 2, func(context.Context, string, func()) error {
			at = append(at, time.Since(start))
			if len(at) < 4 {
				return errors.New("not yet")
			}
			return nil
		})
		if want := []time.Duration{0, redeliver, 2 * redeliver, 3 * redeliver}; err != nil || !slices.Equal(at, want) {
			t.Errorf("delivered at %v (%v)", at, err)
		}
	})
}

func BenchmarkPublishConsume(b *testing.B) {
	q := New()
	ctx, cancel := context.WithCancel(b.Context())
	defer cancel()
	left := b.N
	ids := make([]string, capacity)
	for i := range ids {
		ids[i] = fmt.Sprint(i)
	}
	b.ReportAllocs()
	go func() {
		for i := range b.N {
			if q.Publish(ctx, "n", ids[i%capacity]+"-"+ids[i/capacity%capacity]) != nil {
				return
			}
		}
	}()
	err := q.Consume(ctx, "n", 1, func(context.Context, string, func()) error {
		if left--; left == 0 {
			cancel()
		}
		return nil
	})
	if err != nil {
		b.Fatal(err)
	}
}
