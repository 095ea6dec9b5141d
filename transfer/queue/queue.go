// Package queue is the port that wakes transfer workers. The outbox rows are the truth: a message
// may be lost, doubled or reordered and costs at most time.
package queue

import "context"

// Queue carries transfer ids to the node that has the bytes.
type Queue interface {
	Publisher
	Consumer
}

// Publisher is the relay's end of a queue.
type Publisher interface {
	// Publish hands over ids, in this order. When it returns nil they are safe with the queue. It may
	// wait for a queue that is away or has no room. After an error some of them may have been handed
	// over: the caller publishes all again, after a while. Without ids it only waits for the queue.
	Publish(ctx context.Context, node string, transferIDs ...string) error
}

// Consumer is the worker's end of a queue.
type Consumer interface {
	// Consume calls handle for the messages of node, at most workers at a time, until ctx is done. Then
	// it waits for the calls that are going on, and returns nil.
	//
	// A message that no worker was free for in a while may be dropped: whoever published it does so
	// again as long as its transfer is not done.
	Consume(ctx context.Context, node string, workers int, handle Handler) error
}

// Handler does what a message asks for.
//  1. It calls ack as soon as the message is not needed any more, though the work goes on: a broker
//     takes a message back, and delivers it to others, if that does not happen in time.
//  2. When it returns nil the message is acknowledged, if it was not before.
//  3. After an error without ack the message is delivered again, later.
type Handler func(ctx context.Context, transferID string, ack func()) error
