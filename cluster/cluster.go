// Package cluster makes a node one of several that share a database: it registers the node and tells
// that it is alive, knows where the others are, and decides which of them does what is to be done once
// for all.
//
// Nothing here compares the clocks of two machines. A node is alive while the number of its beats
// grows, as far as those who look have seen it grow by their own clock; a leader is who has a lease, and
// what a leader writes names the lease's epoch, so that one who was stopped past it changes nothing.
package cluster

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/url"
	"sync"
	"time"

	"gantry/meta"
	"gantry/upload"
)

// JanitorLease is the name of the lease of the node that cleans up for all.
const JanitorLease = "janitor"

// Options configure a Member. What is zero gets its default.
type Options struct {
	Node      string           // this node's id; needed
	Address   string           // where other nodes reach it: an http URL; "": it is alone, and the database its own
	Beat      time.Duration    // how often it tells that it is alive; 2 s
	AwayAfter time.Duration    // a node that has not been heard of for so long is away: what only it has is not offered; 30 s
	LeftAfter time.Duration    // the same for one that was stopped in order, and may be back after an update; 10 min
	LeaseTTL  time.Duration    // after so long without a word another node leads; 15 s
	Log       *slog.Logger     // discards
	Now       func() time.Time // time.Now
}

func (o Options) withDefaults() Options {
	o.Beat = cmp.Or(o.Beat, 2*time.Second)
	o.AwayAfter = cmp.Or(o.AwayAfter, 30*time.Second)
	o.LeftAfter = cmp.Or(o.LeftAfter, 10*time.Minute)
	o.LeaseTTL = cmp.Or(o.LeaseTTL, 15*time.Second)
	if o.Log == nil {
		o.Log = slog.New(slog.DiscardHandler)
	}
	if o.Now == nil {
		o.Now = time.Now
	}
	return o
}

// Validate reports what is wrong with the options.
func (o Options) Validate() error {
	var errs []error
	if o.Node == "" {
		errs = append(errs, errors.New("a member of a cluster needs its node's id"))
	}
	if u, err := url.Parse(o.Address); o.Address != "" && (err != nil || u.Scheme != "http" && u.Scheme != "https" || u.Host == "" || u.Path != "" && u.Path != "/") {
		errs = append(errs, fmt.Errorf("%q is not an address that other nodes can reach, like http://10.0.0.5:8080", o.Address))
	}
	return errors.Join(errs...)
}

// DB is what a Member needs of the database.
type DB interface {
	meta.Nodes
	meta.Leases
}

// Member is this node's part in the cluster. It is made by Join and safe for concurrent use.
type Member struct {
	opt   Options
	db    DB
	epoch int64

	mu      sync.Mutex
	nodes   map[string]meta.Node
	read    time.Time // when reading nodes began; monotonic
	heard   map[string]heard
	leading upload.Lease // zero: another node leads
	until   time.Time    // by this process's clock; monotonic

	disowned map[string]int64 // the epochs of nodes that have no lease any more; only Run uses it

	looking chan struct{} // has room while nobody looks for a node that is not known
}

// heard is when a node's beats were last seen to grow.
type heard struct {
	epoch, beats int64
	at           time.Time // monotonic
}

// Join registers the node. upload.Gone if it was given up; upload.Conflict if it is to be alone and is not, or
// if another is that thinks it is. The caller calls Run.
func Join(ctx context.Context, opt Options, db DB) (*Member, error) {
	const op = "cluster.Join"
	if err := opt.Validate(); err != nil {
		return nil, upload.Wrap(upload.Invalid, op, opt.Node, err)
	}
	m := &Member{opt: opt.withDefaults(), db: db, nodes: map[string]meta.Node{}, heard: map[string]heard{}, disowned: map[string]int64{}, looking: make(chan struct{}, 1)}
	if err := m.refuse(ctx); err != nil {
		return nil, upload.Wrap(upload.Unavailable, op, opt.Node, err)
	}
	var err error
	if m.epoch, err = db.Join(ctx, opt.Node, opt.Address, m.opt.Now()); err != nil {
		return nil, upload.Wrap(upload.Unavailable, op, opt.Node, err)
	}
	if err := m.look(ctx); err != nil {
		return nil, upload.Wrap(upload.Unavailable, op, opt.Node, err)
	}
	return m, nil
}

// refuse finds nodes that this one must not run beside. A node that is alone takes what others have for lost.
func (m *Member) refuse(ctx context.Context) error {
	if err := m.look(ctx); err != nil {
		return err
	}
	if err := m.alone(); err != nil || m.opt.Address == "" {
		return err
	}
	before := m.lonely()
	if len(before) == 0 {
		return nil
	}
	m.opt.Log.Info("a node without a cluster address was seen with this database; looking whether it runs")
	wait := time.NewTimer(3 * m.opt.Beat)
	defer wait.Stop()
	select {
	case <-ctx.Done():
		return ctx.Err()
	case <-wait.C:
	}
	if err := m.look(ctx); err != nil {
		return err
	}
	for id, n := range m.lonely() {
		if was, ok := before[id]; !ok || was.Epoch != n.Epoch || was.Beats != n.Beats {
			return upload.Errorf(upload.Conflict, "", id, "node %s runs with this database and is not in the cluster: stop it and start it with a cluster address", id)
		}
	}
	return nil
}

// alone is an error if this node is to be alone and is not.
func (m *Member) alone() error {
	m.mu.Lock()
	defer m.mu.Unlock()
	for id, n := range m.nodes {
		if m.opt.Address == "" && id != m.opt.Node && !n.Forgotten {
			return upload.Errorf(upload.Conflict, "", id, "node %s uses this database too: start this one with a cluster address, as one of several", id)
		}
	}
	return nil
}

// lonely lists the other nodes that think they are alone and have not stopped.
func (m *Member) lonely() map[string]meta.Node {
	m.mu.Lock()
	defer m.mu.Unlock()
	lonely := map[string]meta.Node{}
	for id, n := range m.nodes {
		if id != m.opt.Node && n.Address == "" && !n.Left && !n.Forgotten {
			lonely[id] = n
		}
	}
	return lonely
}

// Epoch is that under which the node is registered. A process that joins later as the same node has a higher one.
func (m *Member) Epoch() int64 { return m.epoch }

// Run tells that the node is alive until ctx is done, then that it stops. It returns an error when the
// node must not go on: another process has started as the same node, it was given up, or it is not alone as
// it was to be.
func (m *Member) Run(ctx context.Context) error {
	tick := time.NewTicker(m.opt.Beat)
	defer tick.Stop()
	for {
		err := m.round(ctx)
		switch {
		case errors.Is(err, upload.Conflict):
			return upload.Wrap(upload.Conflict, "cluster.Run", m.opt.Node, err)
		case err != nil && ctx.Err() == nil:
			m.opt.Log.Warn("the cluster's registry cannot be reached; trying again", "error", err)
		}
		select {
		case <-ctx.Done():
			m.leave(ctx)
			return nil
		case <-tick.C:
		}
	}
}

// leaveTime is how long a node that stops tries to say so.
const leaveTime = 2 * time.Second

func (m *Member) leave(ctx context.Context) {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), leaveTime)
	defer cancel()
	if err := errors.Join(m.db.ReleaseLease(ctx, JanitorLease, m.name()), m.db.Leave(ctx, m.opt.Node, m.epoch, m.opt.Now())); err != nil {
		m.opt.Log.Warn("could not tell the other nodes that this one stops; they will notice", "error", err)
	}
}

// name is this process as the owner of leases: after a restart it is another.
func (m *Member) name() string { return nameOf(m.opt.Node, m.epoch) }

func nameOf(node string, epoch int64) string { return fmt.Sprintf("%s/%d", node, epoch) }

func (m *Member) round(ctx context.Context) error {
	if err := m.db.Beat(ctx, m.opt.Node, m.epoch, m.opt.Now()); err != nil {
		return err
	}
	if err := m.look(ctx); err != nil {
		return err
	}
	if err := m.alone(); err != nil {
		return err
	}
	fence, ok := m.lead(ctx)
	if !ok {
		return m.disown(ctx)
	}
	for _, node := range m.away() {
		n, err := m.db.Strand(ctx, fence, node, m.opt.Now())
		if errors.Is(err, upload.Conflict) {
			return nil // another leads by now
		}
		if err != nil {
			return err
		}
		if n > 0 {
			m.opt.Log.Warn("a node is away; what only it has is not offered until it is back", "away", node.ID, "blobs", n)
		}
	}
	return nil
}

func (m *Member) known(node string) (meta.Node, bool) {
	m.mu.Lock()
	defer m.mu.Unlock()
	n, ok := m.nodes[node]
	return n, ok
}

// lookAfter sees to it that the registry was read after the time given. Many that ask at once look once.
func (m *Member) lookAfter(ctx context.Context, asked time.Time) error {
	select {
	case m.looking <- struct{}{}:
		defer func() { <-m.looking }()
	case <-ctx.Done():
		return ctx.Err()
	}
	m.mu.Lock()
	done := m.read.After(asked)
	m.mu.Unlock()
	if done {
		return nil
	}
	return m.look(ctx)
}

// disown takes the lease from nodes that are away. It ends by itself, but by their clock, which may have been ahead.
func (m *Member) disown(ctx context.Context) error {
	for _, n := range m.away() {
		if m.disowned[n.ID] == n.Epoch {
			continue
		}
		if err := m.db.ReleaseLease(ctx, JanitorLease, nameOf(n.ID, n.Epoch)); err != nil {
			return err
		}
		m.disowned[n.ID] = n.Epoch
	}
	return nil
}

// look reads the registry.
func (m *Member) look(ctx context.Context) error {
	began := time.Now()
	nodes, err := m.db.Nodes(ctx)
	if err != nil {
		return err
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.read.After(began) {
		return nil // another read is newer
	}
	now := time.Now()
	m.nodes, m.read = make(map[string]meta.Node, len(nodes)), began
	for i := range nodes {
		n := &nodes[i]
		m.nodes[n.ID] = *n
		if h, ok := m.heard[n.ID]; !ok || h.epoch != n.Epoch || h.beats != n.Beats {
			m.heard[n.ID] = heard{n.Epoch, n.Beats, now}
		}
	}
	return nil
}

// away lists the nodes that have not been heard of for too long.
func (m *Member) away() []meta.Node {
	m.mu.Lock()
	defer m.mu.Unlock()
	var away []meta.Node
	for id, n := range m.nodes {
		after := m.opt.AwayAfter
		if n.Left {
			after = m.opt.LeftAfter
		}
		if id != m.opt.Node && !n.Forgotten && time.Since(m.heard[id].at) > after {
			away = append(away, n)
		}
	}
	return away
}

// lead takes or prolongs the janitor's lease.
func (m *Member) lead(ctx context.Context) (meta.Fence, bool) {
	asked, now := time.Now(), m.opt.Now()
	lease, err := m.db.AcquireLease(ctx, JanitorLease, m.name(), now, now.Add(m.opt.LeaseTTL))
	m.mu.Lock()
	defer m.mu.Unlock()
	switch {
	case err == nil:
		if lease.Epoch != m.leading.Epoch {
			m.opt.Log.Info("this node cleans up for the cluster from now on", "epoch", lease.Epoch)
		}
		m.leading, m.until = lease, asked.Add(m.opt.LeaseTTL)
	case errors.Is(err, upload.Conflict):
		m.leading = upload.Lease{}
	case ctx.Err() == nil:
		m.opt.Log.Warn("could not ask for the janitor's lease; trying again", "error", err)
	}
	return m.fence()
}

// Lead returns the fence of what is to be done by one node for all; false if that is not this node.
func (m *Member) Lead() (meta.Fence, bool) {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.fence()
}

func (m *Member) fence() (meta.Fence, bool) {
	if m.leading == (upload.Lease{}) || !time.Now().Before(m.until) {
		return meta.Fence{}, false
	}
	return meta.Fence{Lease: JanitorLease, Epoch: m.leading.Epoch}, true
}

// Address returns where a node is; see forward.Peers.
func (m *Member) Address(ctx context.Context, node string) (*url.URL, error) {
	const op = "cluster.Address"
	asked := time.Now()
	n, ok := m.known(node)
	if !ok {
		// It may have joined a moment ago, and has given out the id that is asked about.
		if err := m.lookAfter(ctx, asked); err != nil {
			return nil, upload.Wrap(upload.Unavailable, op, node, err)
		}
		n, ok = m.known(node)
	}
	switch {
	case !ok:
		return nil, upload.Errorf(upload.NotFound, op, node, "There is no such upload. Look at the listing of uploads, or begin a new one.")
	case n.Forgotten:
		return nil, upload.Errorf(upload.Gone, op, node, "The node that had it was given up. Upload the file again.")
	}
	address, err := url.Parse(n.Address)
	if err != nil || n.Address == "" {
		return nil, upload.Errorf(upload.Unavailable, op, node, "The node that has it cannot be reached by others. Try again later.")
	}
	return address, nil
}
