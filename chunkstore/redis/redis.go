// Package redis is the view of open uploads that all nodes share, in Redis: a standalone server, one
// watched by Sentinel, or a Cluster. docs/decisions/0011 says what readers may believe, and why.
package redis

import (
	"cmp"
	"context"
	"errors"
	"log/slog"
	"strconv"
	"sync"
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"gantry/chunkstore"
	"gantry/upload"
)

// Options are the settings of a View; the zero value of each has a default.
type Options struct {
	Prefix  string        // before every key
	Fresh   time.Duration // how long readers believe what was last written about an upload; 2 s
	Timeout time.Duration // of connecting, and of one command; 500 ms
	Pause   time.Duration // for how long a server that failed is left alone; 1 s
	Idle    time.Duration // how long an unused connection is kept, and its server's clock trusted; 1 min
	Conns   int           // to one server; 64
	Poll    time.Duration // how often Watch looks; 1 s
	Refresh time.Duration // how often Watch has all uploads put back though nothing seems lost; 10 min

	Log     *slog.Logger          // discarded if nil
	Metrics prometheus.Registerer // counted unseen if nil
}

func (o Options) withDefaults() Options {
	o.Fresh = cmp.Or(o.Fresh, 2*time.Second)
	o.Timeout = cmp.Or(o.Timeout, 500*time.Millisecond)
	o.Pause = cmp.Or(o.Pause, time.Second)
	o.Idle = cmp.Or(o.Idle, time.Minute)
	o.Conns = cmp.Or(o.Conns, 64)
	o.Poll = cmp.Or(o.Poll, time.Second)
	o.Refresh = cmp.Or(o.Refresh, 10*time.Minute)
	if o.Log == nil {
		o.Log = slog.New(slog.DiscardHandler)
	}
	return o
}

// margin is for clocks that do not run equally fast, and for rounding.
const margin = 100 * time.Millisecond

// servers finds the server that has a key.
type servers interface {
	// do calls f with a connection to the server that has key: again, with another connection, if that
	// one turns out to be the wrong one or to have been closed long ago.
	do(ctx context.Context, key string, f func(c *conn) error) error
	// groups splits keys, by their places in the list, into those that one server has.
	groups(ctx context.Context, keys []string) [][]int
	// samples returns keys that begin with name, one on each server.
	samples(ctx context.Context, name string) []string
	// down says what is wrong with the servers, nil if nothing seems to be.
	down() error
	close() error
}

// View is a chunkstore.View in Redis. It is made by New and safe for concurrent use.
type View struct {
	opt     Options
	servers servers
	metrics *metrics
	started time.Time
	run     string       // of this process, to name its Puts
	puts    atomic.Int64 // so far
	missed  atomic.Bool  // something could not be written: Redis may lack it

	mu   sync.Mutex
	told map[string]*told // by upload; of this node's
}

var _ chunkstore.View = (*View)(nil)

// New returns a view in the Redis at the address given; see docs/operations.md. It connects when it has
// something to say.
func New(address string, opt Options) (*View, error) {
	opt = opt.withDefaults()
	s, err := open(address, &opt)
	if err != nil {
		return nil, err
	}
	v := &View{opt: opt, servers: s, started: time.Now(), run: upload.NewNodeID(), told: map[string]*told{}}
	v.metrics = newMetrics(opt.Metrics, s)
	return v, nil
}

// Close closes the connections.
func (v *View) Close() error { return v.servers.close() }

// Ping asks every server whether it is there.
func (v *View) Ping(ctx context.Context) error {
	for _, key := range v.servers.samples(ctx, "") {
		if err := v.do(ctx, "ping", key, func(c *conn) error { return c.ping() }); err != nil {
			return err
		}
	}
	return v.servers.down()
}

// do runs f where key is, and measures it. What fails is upload.Unavailable.
func (v *View) do(ctx context.Context, op, key string, f func(c *conn) error) error {
	start := time.Now()
	err := v.servers.do(ctx, key, f)
	if errors.Is(err, errNotWhole) || errors.Is(err, upload.NotFound) {
		v.metrics.observe(op, start, nil)
		return err
	}
	v.metrics.observe(op, start, err)
	if err != nil && ctx.Err() != nil {
		return upload.Wrap(upload.Canceled, "redis."+op, "", err)
	}
	return upload.Wrap(upload.Unavailable, "redis."+op, "", err)
}

// The keys. What is in braces decides on which server of a cluster a key is.
func (v *View) uploadKey(id string) string { return v.opt.Prefix + "upload:{" + id + "}" }

func (v *View) listKey(owner string) string { return v.opt.Prefix + "uploads:{" + owner + "}" }

func (v *View) claimKey(owner, key string) string { return v.opt.Prefix + "key:{" + owner + "}:" + key }

// told is what this node has told Redis of one of its uploads.
type told struct {
	// Marks share order; Put, Begin and Remove have it alone: what they write is in place of all that
	// was marked before, so it has to contain it.
	order sync.RWMutex

	mu     sync.Mutex
	put    string    // names the last Put: what is sent for another one does nothing
	server string    // that Put was to; "": none by this process
	whole  bool      // as far as is known, that server has the upload whole
	given  time.Time // when something was last sent there, to be believed for Options.Fresh from then on
	stale  time.Time // until then something may be believed that can no longer be corrected
}

// of returns what was told of an upload. Of one that this process did not begin the process before
// may have told until it ended.
func (v *View) of(id string) *told {
	v.mu.Lock()
	defer v.mu.Unlock()
	t := v.told[id]
	if t == nil {
		t = &told{given: v.started}
		v.told[id] = t
	}
	return t
}

func (v *View) forget(id string) {
	v.mu.Lock()
	defer v.mu.Unlock()
	delete(v.told, id)
}

// lapse notes that what was given out can no longer be corrected: it has to lapse by itself. t.mu is held.
func (v *View) lapse(t *told) {
	t.whole = false
	t.stale = later(t.stale, t.given.Add(v.opt.Fresh+margin))
}

// failed notes a write whose outcome is not known.
func (v *View) failed(t *told) {
	v.missed.Store(true)
	t.mu.Lock()
	defer t.mu.Unlock()
	v.lapse(t)
}

// settle waits until nothing can be believed any more that can no longer be corrected: no time at all
// unless a server failed or another one took its place a moment ago.
func (v *View) settle(ctx context.Context, t *told) error {
	t.mu.Lock()
	wait := time.Until(t.stale)
	t.mu.Unlock()
	if wait <= 0 {
		return nil
	}
	timer := time.NewTimer(wait)
	defer timer.Stop()
	select {
	case <-timer.C:
		return nil
	case <-ctx.Done():
		return upload.Wrap(upload.Canceled, "redis.settle", "", context.Cause(ctx))
	}
}

// errNotWhole: Redis does not have the upload whole where this node looked.
var errNotWhole = errors.New("not known whole")

// Begin is part of chunkstore.View.
func (v *View) Begin(ctx context.Context, spec *upload.Spec, ttl time.Duration) error {
	const op = "chunkstore.Begin"
	t := v.of(spec.ID)
	t.mu.Lock()
	t.given = time.Time{} // it is new: nobody has told anything
	t.mu.Unlock()
	truth := func(string) (upload.Upload, time.Duration, error) {
		return upload.Upload{Spec: *spec, Size: spec.Size, UpdatedAt: spec.CreatedAt}, ttl, nil
	}
	if err := v.put(ctx, t, spec.ID, truth); err != nil {
		return upload.Wrap(upload.Unavailable, op, spec.ID, err)
	}
	holder, err := v.enlist(ctx, spec, ttl)
	if err == nil && holder != spec.ID {
		err = upload.Errorf(upload.Conflict, op, holder, "The Idempotency-Key stands for another upload.")
		return errors.Join(err, v.Remove(ctx, spec))
	}
	return upload.Wrap(upload.Unavailable, op, spec.ID, err)
}

// Put is part of chunkstore.View.
func (v *View) Put(ctx context.Context, id string, truth chunkstore.Truth) error {
	const op = "chunkstore.Put"
	t := v.of(id)
	t.mu.Lock()
	t.whole = false
	t.mu.Unlock()
	return upload.Wrap(upload.Unavailable, op, id, v.putAndEnlist(ctx, t, id, truth))
}

func (v *View) putAndEnlist(ctx context.Context, t *told, id string, truth chunkstore.Truth) error {
	var put upload.Upload
	var left time.Duration
	err := v.put(ctx, t, id, func(id string) (u upload.Upload, ttl time.Duration, err error) {
		put, left, err = truth(id)
		return put, left, err
	})
	if err != nil || put.ID == "" { // somebody else has put it meanwhile
		return err
	}
	_, err = v.enlist(ctx, &put.Spec, left)
	return err
}

// Mark is part of chunkstore.View.
func (v *View) Mark(ctx context.Context, id string, index int, truth chunkstore.Truth) error {
	const op = "chunkstore.Mark"
	t := v.of(id)
	err := v.mark(ctx, t, id, index, truth)
	if errors.Is(err, errNotWhole) {
		err = v.putAndEnlist(ctx, t, id, truth)
	}
	if errors.Is(err, upload.NotFound) {
		v.forget(id)
		return upload.Wrap(upload.NotFound, op, id, err)
	}
	if waiting := v.settle(ctx, t); waiting != nil {
		return upload.Wrap(upload.Canceled, op, id, waiting)
	}
	return upload.Wrap(upload.Unavailable, op, id, err)
}

// mark is one round trip; errNotWhole: the upload has to be put.
func (v *View) mark(ctx context.Context, t *told, id string, index int, truth chunkstore.Truth) error {
	t.order.RLock()
	defer t.order.RUnlock()
	t.mu.Lock()
	whole, put := t.whole, t.put
	t.mu.Unlock()
	if !whole {
		return errNotWhole
	}
	u, ttl, err := truth(id)
	if err != nil {
		return err
	}
	layout := u.Layout()
	err = v.do(ctx, "mark", v.uploadKey(id), func(c *conn) error {
		done, err := c.mark(v.uploadKey(id), put, t.promise(c, v.opt.Fresh), ttl, index, layout.Length(index), &u)
		if err == nil && !done {
			t.mu.Lock()
			defer t.mu.Unlock()
			t.whole = false // and nothing of it can be believed on that server
			return errNotWhole
		}
		return err
	})
	if err != nil && !errors.Is(err, errNotWhole) {
		v.failed(t)
	}
	return err
}

// promise is until when, in the server's time, readers may believe what is sent now. It is counted
// from before the sending: a server that gets to it late makes nothing believed that has lapsed.
func (t *told) promise(c *conn, fresh time.Duration) int64 {
	t.mu.Lock()
	defer t.mu.Unlock()
	now := time.Now()
	t.given = now
	return c.at(now) + fresh.Milliseconds()
}

// put writes an upload whole, unless somebody else has done so since it was seen to be necessary.
func (v *View) put(ctx context.Context, t *told, id string, truth chunkstore.Truth) error {
	t.order.Lock()
	defer t.order.Unlock()
	t.mu.Lock()
	whole := t.whole
	t.mu.Unlock()
	if whole {
		return nil // with all that had come in when order was waited for
	}
	u, ttl, err := truth(id)
	if errors.Is(err, upload.NotFound) {
		v.forget(id)
	}
	if err != nil {
		return err
	}
	t.mu.Lock()
	first, before := t.server == "", t.given
	t.mu.Unlock()
	err = v.do(ctx, "put", v.uploadKey(id), func(c *conn) error {
		was, err := v.putTo(c, t, &u, ttl)
		if err == nil && first && was != c.server { // the process before this one may have told another server
			t.mu.Lock()
			defer t.mu.Unlock()
			t.stale = later(t.stale, before.Add(v.opt.Fresh+margin))
		}
		return err
	})
	if err != nil {
		v.failed(t)
	}
	return err
}

// putTo returns where the upload had been put before, if it was there.
func (v *View) putTo(c *conn, t *told, u *upload.Upload, ttl time.Duration) (was string, err error) {
	put := v.run + "." + strconv.FormatInt(v.puts.Add(1), 10)
	t.mu.Lock()
	server, given := t.server, t.given
	t.mu.Unlock()
	was, err = c.put(v.uploadKey(u.ID), put, t.promise(c, v.opt.Fresh), ttl, u)
	t.mu.Lock()
	defer t.mu.Unlock()
	if server != c.server && server != "" { // readers may still look at the other one
		t.stale = later(t.stale, given.Add(v.opt.Fresh+margin))
	}
	t.server, t.put, t.whole = c.server, put, err == nil
	return was, err
}

func later(a, b time.Time) time.Time {
	if a.After(b) {
		return a
	}
	return b
}

// Remove is part of chunkstore.View.
func (v *View) Remove(ctx context.Context, spec *upload.Spec) error {
	const op = "chunkstore.Remove"
	t := v.of(spec.ID)
	err := v.remove(ctx, t, spec)
	if waiting := v.settle(ctx, t); waiting != nil {
		return upload.Wrap(upload.Canceled, op, spec.ID, waiting)
	}
	v.forget(spec.ID)
	return upload.Wrap(upload.Unavailable, op, spec.ID, err)
}

func (v *View) remove(ctx context.Context, t *told, spec *upload.Spec) error {
	t.order.Lock()
	defer t.order.Unlock()
	err := v.do(ctx, "remove", v.uploadKey(spec.ID), func(c *conn) error {
		_, err := c.Do("DEL", v.uploadKey(spec.ID))
		return err
	})
	if err != nil {
		v.failed(t)
		return err
	}
	t.mu.Lock()
	t.whole = false
	t.mu.Unlock()
	return v.delist(ctx, spec)
}

// Get is part of chunkstore.View.
func (v *View) Get(ctx context.Context, id string) (upload.Upload, error) {
	const op = "chunkstore.Get"
	var u upload.Upload
	err := v.do(ctx, "get", v.uploadKey(id), func(c *conn) error {
		found, err := c.get(v.uploadKey(id))
		if err != nil {
			return err
		}
		if found == nil || !found.believed {
			return upload.Errorf(upload.NotFound, op, id, "There is no such upload, or only its node can tell.")
		}
		u = found.upload
		return nil
	})
	return u, upload.Wrap(upload.Unavailable, op, id, err)
}
