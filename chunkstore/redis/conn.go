package redis

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"time"

	"github.com/gomodule/redigo/redis"

	"gantry/upload"
)

// conn is a connection to one server, with what it said of itself. It is used by one at a time.
type conn struct {
	redis.Conn
	server string // the run of the server: another one after each of its starts
	role   string // master or slave, when the connection was made
	mode   string // standalone, sentinel or cluster

	time   int64     // of the server, ms, when it was last heard of
	seen   time.Time // when that was
	made   time.Time // when it was connected
	asking bool      // the slot is being moved here: each command has to say that it knows

	odd bool // an upload was put to another server: this one may not be the master any more
}

// greet asks a new server who it is and how late.
func (c *conn) greet() error {
	for _, command := range []string{"ROLE", "INFO", "TIME"} {
		if err := c.Send(command, map[string][]any{"INFO": {"server"}}[command]...); err != nil {
			return err
		}
	}
	if err := c.Flush(); err != nil {
		return err
	}
	role, roleErr := redis.Values(c.Receive())
	info, infoErr := redis.String(c.Receive())
	now, timeErr := c.receiveTime()
	if err := errors.Join(roleErr, infoErr, timeErr); err != nil {
		return err
	}
	c.saw(now)
	if len(role) > 0 {
		c.role, _ = redis.String(role[0], nil)
	}
	for line := range strings.Lines(info) {
		key, value, _ := strings.Cut(strings.TrimSpace(line), ":")
		switch key {
		case "run_id":
			c.server = value
		case "redis_mode":
			c.mode = value
		}
	}
	if c.server == "" {
		return errors.New("the server does not tell its run_id")
	}
	return nil
}

// ask makes the next command one that may use a slot which is being moved to this server.
func (c *conn) ask() error {
	_, err := c.Conn.Do("ASKING")
	return err
}

// Do is part of redis.Conn. EVAL comes after an EVALSHA of a script that the server did not have, which has used
// up the asking.
func (c *conn) Do(command string, args ...any) (any, error) {
	if c.asking && command == "EVAL" {
		if err := c.ask(); err != nil {
			return nil, err
		}
	}
	return c.Conn.Do(command, args...)
}

func (c *conn) ping() error {
	_, err := c.Do("PING")
	return err
}

// saw notes the server's time.
func (c *conn) saw(ms int64) { c.time, c.seen = ms, time.Now() }

// at is the server's time, ms, at a moment of this node's clock. It is not ahead of it: the answer
// that told the time was under way for a while.
func (c *conn) at(now time.Time) int64 { return c.time + now.Sub(c.seen).Milliseconds() }

func (c *conn) receiveTime() (ms int64, err error) {
	t, err := redis.Int64s(c.Receive())
	if err != nil {
		return 0, err
	}
	if len(t) != 2 {
		return 0, errReply
	}
	return t[0]*1000 + t[1]/1000, nil
}

// refusals begin errors of servers that are not what they should be, or not yet: those of a master that
// became a replica, of one that loads its data, of a cluster without a majority.
var refusals = []string{"READONLY", "LOADING", "MASTERDOWN", "CLUSTERDOWN", "NOREPLICAS"}

func refused(err error) bool {
	reply, ok := errors.AsType[redis.Error](err)
	if !ok {
		return false
	}
	for _, prefix := range refusals {
		if strings.HasPrefix(string(reply), prefix) {
			return true
		}
	}
	return false
}

// errAway: the server failed a moment ago and is not asked now.
var errAway = upload.Errorf(upload.Unavailable, "redis", "", "Redis cannot be reached now. Try again later.")

// pool is connections to one server. When it fails, it is left alone for a while, so that not everyone
// waits for it.
type pool struct {
	name  string // for the log; without password
	dial  func(ctx context.Context) (*conn, error)
	opt   *Options
	slots chan struct{} // has room while another connection may be in use

	mu    sync.Mutex
	idle  []*conn
	fault error     // why it was left alone; nil: it is well
	again time.Time // when one may try again
}

func newPool(name string, opt *Options, dial func(ctx context.Context) (*conn, error)) *pool {
	return &pool{name: name, dial: dial, opt: opt, slots: make(chan struct{}, opt.Conns)}
}

// do calls f with a connection. One that had been lying idle may have been closed long ago, so there is
// a second try then; f must bear being called twice.
func (p *pool) do(ctx context.Context, f func(c *conn) error) error {
	if !p.allowed() {
		return errAway
	}
	if err := p.enter(ctx); err != nil {
		return err
	}
	defer func() { <-p.slots }()
	for {
		c, reused := p.take()
		if c == nil {
			var err error
			if c, err = p.connect(ctx); err != nil {
				return err
			}
		}
		err := f(c)
		if c.Err() == nil && !refused(err) {
			p.give(c)
			return err
		}
		_ = c.Close()
		p.drain() // the others are no better
		if !reused || timedOut(c.Err()) {
			p.failed(err)
			return err
		}
	}
}

func timedOut(err error) bool {
	timeout, ok := errors.AsType[interface {
		error
		Timeout() bool
	}](err)
	return ok && timeout.Timeout()
}

// allowed reports whether the server may be asked: always while it is well, else one at a time.
func (p *pool) allowed() bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.fault == nil {
		return true
	}
	if time.Now().Before(p.again) {
		return false
	}
	p.again = time.Now().Add(p.opt.Pause)
	return true
}

func (p *pool) enter(ctx context.Context) error {
	select {
	case p.slots <- struct{}{}:
		return nil
	default:
	}
	patience := time.NewTimer(p.opt.Timeout)
	defer patience.Stop()
	select {
	case p.slots <- struct{}{}:
		return nil
	case <-ctx.Done():
		return context.Cause(ctx)
	case <-patience.C:
		return upload.Errorf(upload.Unavailable, "redis", "", "All connections to Redis are in use. Try again later.")
	}
}

func (p *pool) connect(ctx context.Context) (*conn, error) {
	dialing, cancel := context.WithTimeout(ctx, p.opt.Timeout)
	defer cancel()
	c, err := p.dial(dialing)
	if err != nil && ctx.Err() == nil {
		p.failed(err)
	}
	return c, err
}

// take returns an idle connection, nil if there is none. Of one that was idle for long neither the
// server nor its clock are known well.
func (p *pool) take() (*conn, bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for len(p.idle) > 0 {
		c := p.idle[len(p.idle)-1]
		p.idle = p.idle[:len(p.idle)-1]
		if time.Since(c.seen) < p.opt.Idle {
			return c, true
		}
		_ = c.Close()
	}
	return nil, false
}

func (p *pool) give(c *conn) {
	if c.odd && time.Since(c.made) > p.opt.Pause { // look who is the master by now
		p.drain()
		_ = c.Close()
		return
	}
	c.odd = false
	p.mu.Lock()
	defer p.mu.Unlock()
	p.idle = append(p.idle, c)
	if p.fault != nil {
		p.fault = nil
		p.opt.Log.Info("redis answers again", "server", p.name)
	}
}

func (p *pool) failed(err error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.fault == nil {
		p.opt.Log.Warn("redis does not answer; this node goes on alone and tries again", "server", p.name, "error", err)
	}
	p.fault, p.again = err, time.Now().Add(p.opt.Pause)
}

// drain closes the idle connections.
func (p *pool) drain() {
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, c := range p.idle {
		_ = c.Close()
	}
	p.idle = nil
}

// down says why the server is left alone, nil if it is well.
func (p *pool) down() error {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.fault == nil {
		return nil
	}
	return fmt.Errorf("%s: %w", p.name, p.fault)
}

// single is one server, or the master that Sentinel names.
type single struct{ *pool }

func (s single) do(ctx context.Context, _ string, f func(c *conn) error) error {
	return s.pool.do(ctx, f)
}

func (s single) groups(_ context.Context, keys []string) [][]int {
	all := make([]int, len(keys))
	for i := range all {
		all[i] = i
	}
	return [][]int{all}
}

func (s single) samples(_ context.Context, name string) []string { return []string{name} }

func (s single) close() error {
	s.drain()
	return nil
}
