// Package queue is the port that wakes transfer workers. The outbox rows are the truth: a message
// may be lost, doubled or reordered and costs at most time.
package queue

import "context"

// Queue carries transfer ids to the node that has the bytes.
type Queue interface {
	// Publish hands over an id; when it returns nil the message is safe with the queue.
	Publish(ctx context.Context, node, transferID string) error
	// Consume calls handle for each message of node, at most workers at a time, until ctx is done. A
	// message is acknowledged when handle returns nil, and otherwise delivered again later.
	Consume(ctx context.Context, node string, workers int, handle func(ctx context.Context, transferID string) error) error
}
