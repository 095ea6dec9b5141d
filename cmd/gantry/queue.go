package main

import (
	"context"
	"log/slog"

	"github.com/prometheus/client_golang/prometheus"

	"gantry/config"
	"gantry/server"
	"gantry/transfer/queue"
	"gantry/transfer/queue/memory"
	"gantry/transfer/queue/rabbitmq"
)

// wakeup is the queue between a relay and a worker: in the process, or a broker's.
type wakeup struct {
	publisher queue.Publisher
	consumer  queue.Consumer
	checks    []server.Check
	close     func() error
}

// openQueue returns the ends of the queue that this process needs. A broker that is away is no error:
// both ends connect when it is there.
func openQueue(ctx context.Context, c *config.Config, publish, consume bool, reg prometheus.Registerer, log *slog.Logger) (*wakeup, error) {
	if c.Queue == "" {
		q := memory.New()
		return &wakeup{publisher: q, consumer: q, close: func() error { return nil }}, nil
	}
	opt := rabbitmq.Options{URL: string(c.Queue), Log: log, Metrics: reg}
	w := &wakeup{close: func() error { return nil }}
	if consume {
		consumer, err := rabbitmq.NewConsumer(opt)
		if err != nil {
			return nil, err
		}
		w.consumer = consumer
		w.checks = append(w.checks, server.Check{Name: "queue-consumer", Run: consumer.Check})
	}
	if publish {
		publisher, err := rabbitmq.NewPublisher(ctx, opt)
		if err != nil {
			return nil, err
		}
		w.publisher, w.close = publisher, publisher.Close
		w.checks = append(w.checks, server.Check{Name: "queue-publisher", Run: publisher.Check})
	}
	return w, nil
}
