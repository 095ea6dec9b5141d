// Package memory is the queue of a node that runs on its own: ids wait in the process. They are lost
// with it, which costs nothing but a look into the outbox.
package memory

import (
	"context"
	"sync"
	"time"

	"gantry/transfer/queue"
	"gantry/upload"
)

const (
	capacity  = 1024        // ids of one node that may wait; Publish waits while there are as many
	redeliver = time.Second // after a failure to handle it an id is delivered again
)

// Queue is made by New and is safe for concurrent use.
type Queue struct {
	mu    sync.Mutex
	nodes map[string]*node
}

var _ queue.Queue = (*Queue)(nil)

// New returns an empty queue.
func New() *Queue { return &Queue{nodes: make(map[string]*node)} }

// node is the ids that wait for one node. An id waits at most once.
type node struct {
	mu      sync.Mutex
	changed sync.Cond       // ids came or went, or somebody's context is done
	known   map[string]bool // ids in ready, and those that wait to be delivered again
	ready   []string        // in the order of delivery
}

func (q *Queue) node(name string) *node {
	q.mu.Lock()
	defer q.mu.Unlock()
	n := q.nodes[name]
	if n == nil {
		n = &node{known: make(map[string]bool)}
		n.changed.L = &n.mu
		q.nodes[name] = n
	}
	return n
}

// Publish puts ids at the end, but for those that wait already. It waits for room.
func (q *Queue) Publish(ctx context.Context, nodeName string, transferIDs ...string) error {
	n := q.node(nodeName)
	defer n.wakeWhenDone(ctx)()
	n.mu.Lock()
	defer n.mu.Unlock()
	for _, id := range transferIDs {
		if err := n.put(ctx, id); err != nil {
			return upload.Wrap(upload.Canceled, "memory.Publish", id, err)
		}
	}
	return nil
}

// put waits for room for one id. Callers hold mu.
func (n *node) put(ctx context.Context, id string) error {
	for len(n.known) >= capacity && !n.known[id] {
		if err := ctx.Err(); err != nil {
			return err
		}
		n.changed.Wait()
	}
	if !n.known[id] {
		n.known[id] = true
		n.ready = append(n.ready, id)
		n.changed.Broadcast()
	}
	return nil
}

// Consume delivers the ids in the order in which they came.
func (q *Queue) Consume(ctx context.Context, nodeName string, workers int, handle queue.Handler) error {
	n := q.node(nodeName)
	defer n.wakeWhenDone(ctx)()
	var consumers sync.WaitGroup
	for range workers {
		consumers.Go(func() {
			for {
				id, ok := n.take(ctx)
				if !ok {
					return
				}
				acked := false
				if err := handle(ctx, id, func() { acked = true }); err != nil && !acked {
					n.putBack(id)
				}
			}
		})
	}
	consumers.Wait()
	return nil
}

// wakeWhenDone wakes those who wait when ctx is done, until the function that it returns is called.
func (n *node) wakeWhenDone(ctx context.Context) (stop func() bool) {
	return context.AfterFunc(ctx, func() {
		n.mu.Lock()
		defer n.mu.Unlock()
		n.changed.Broadcast()
	})
}

// take waits for the next id; false when ctx is done.
func (n *node) take(ctx context.Context) (string, bool) {
	n.mu.Lock()
	defer n.mu.Unlock()
	for ctx.Err() == nil && len(n.ready) == 0 {
		n.changed.Wait()
	}
	if ctx.Err() != nil {
		return "", false
	}
	id := n.ready[0]
	n.ready = n.ready[1:]
	delete(n.known, id)
	n.changed.Broadcast()
	return id, true
}

// putBack makes an id ready again after a while, unless it was published again meanwhile. It may pass
// the capacity, by one id for each worker.
func (n *node) putBack(id string) {
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.known[id] {
		return
	}
	n.known[id] = true
	time.AfterFunc(redeliver, func() {
		n.mu.Lock()
		defer n.mu.Unlock()
		n.ready = append(n.ready, id)
		n.changed.Broadcast()
	})
}
