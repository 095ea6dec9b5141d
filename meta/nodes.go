package meta

import (
	"context"
	"time"

	"gantry/upload"
)

// Node is an upload node as the others see it.
type Node struct {
	ID        string
	Address   string    // where other nodes reach it, a URL; "": it does not take part in a cluster
	Epoch     int64     // grows with every start
	Beats     int64     // grows while it is alive; which clock it has does not matter
	SeenAt    time.Time // by its own clock
	Left      bool      // it was stopped in order
	Forgotten bool      // an operator has given it up
	Stranded  int64     // blobs whose only copy was there when it went away
}

// Nodes is the registry of the nodes that share a database.
type Nodes interface {
	// Join registers a node that starts, under an epoch higher than any before it: what a process that
	// joined earlier under this id writes with Beat and Leave is upload.Conflict from then on. The node's
	// stranded blobs are live again. upload.Gone if the node was given up.
	Join(ctx context.Context, id, address string, now time.Time) (epoch int64, err error)
	// Beat tells that the node is alive. What was stranded because it had not been heard of is live again.
	Beat(ctx context.Context, id string, epoch int64, now time.Time) error
	// Leave tells that the node stops in order: it will be back, and is not waited for.
	Leave(ctx context.Context, id string, epoch int64, now time.Time) error
	// Nodes lists all nodes in the order of ids.
	Nodes(ctx context.Context) ([]Node, error)
	// Strand marks the live blobs whose only copy is on a node as stranded and returns their number: they
	// are not offered for instant upload until the node is back. n is the node as it was seen to stand
	// still; if it has moved since, nothing is changed. upload.Conflict if the fence fell.
	Strand(ctx context.Context, fence Fence, n Node, now time.Time) (int64, error)
	// Forget gives a node up, for good, and returns how many blobs were lost: those whose only copy was
	// there. Their files answer 410 until the same content is uploaded again. What it was to read in a store
	// (CommitDirect) another node does. It may be repeated.
	// upload.NotFound if there is no such node.
	Forget(ctx context.Context, id string, now time.Time) (int64, error)
}

// Leases are rights that one process has at a time.
type Leases interface {
	// AcquireLease gives owner the named lease until the time given, or prolongs it: then the epoch stays.
	// upload.Conflict if another holds it, and the time has not come.
	AcquireLease(ctx context.Context, name, owner string, now, until time.Time) (upload.Lease, error)
	// ReleaseLease lets others have the lease at once. It may be repeated; of a lease that is another's
	// nothing is changed.
	ReleaseLease(ctx context.Context, name, owner string) error
}

// Fence makes a write count only while a lease has the epoch that the writer believes it has. The zero
// Fence holds always: there is only one node.
type Fence struct {
	Lease string
	Epoch int64
}
