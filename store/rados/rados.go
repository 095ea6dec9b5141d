//go:build ceph

package rados

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	ceph "github.com/ceph/go-ceph/rados"
	"golang.org/x/sync/errgroup"
	"golang.org/x/sync/singleflight"

	"gantry/store"
	"gantry/upload"
)

const mebi = 1 << 20

// Store is a namespace in a pool. It is made by New and safe for concurrent use. For each data object that is
// being sent it needs Options.ObjectSize of memory and 1 MiB, and for each reader 4 MiB.
type Store struct {
	opt   Options
	slots chan []byte // one for each data object that may be under way: what is read of the content at a time

	connecting singleflight.Group
	connected  atomic.Pointer[cluster]

	mu      sync.Mutex
	closed  bool
	calls   sync.WaitGroup // of librados, those that wait for a thread too
	threads chan struct{}
}

// maxThreads is how many calls of librados there may be at a time. Each has a thread for as long as it takes, and Go
// ends a process with 10,000 of them, which as many downloads would need while an OSD answers nothing.
const maxThreads = 512

var (
	_ store.Store   = (*Store)(nil)
	_ store.Checker = (*Store)(nil)
	_ store.Advisor = (*Store)(nil)
)

// New returns the store. It connects when it has something to do, so that a node can start while Ceph is away;
// Check says whether it could.
func New(opt Options) (*Store, error) {
	const op = "rados.New"
	opt.Conf = cmp.Or(opt.Conf, "/etc/ceph/ceph.conf")
	opt.User = cmp.Or(opt.User, "admin")
	opt.Namespace = cmp.Or(opt.Namespace, "gantry")
	opt.ObjectSize = cmp.Or(opt.ObjectSize, 8*mebi)
	opt.Parallel = cmp.Or(opt.Parallel, 4)
	opt.Timeout = cmp.Or(opt.Timeout, 30*time.Second)
	switch {
	case opt.Pool == "":
		return nil, upload.Errorf(upload.Invalid, op, "", "A RADOS store needs the name of a pool.")
	case opt.ObjectSize < 4*mebi || opt.ObjectSize > 64*mebi: // an OSD takes 90 MiB at a time, and objects of 128 MiB
		return nil, upload.Errorf(upload.Invalid, op, "", "The objects of a RADOS store have from 4 to 64 MiB, not %d bytes.", opt.ObjectSize)
	case opt.Parallel < 1 || opt.Timeout < 0 || len(opt.Namespace) > 200 || strings.ContainsRune(opt.Namespace, 0):
		return nil, upload.Errorf(upload.Invalid, op, "", "A RADOS store sends one object at a time or more, has a positive time-out and a namespace of at most 200 bytes.")
	}
	s := &Store{opt: opt, slots: make(chan []byte, opt.Parallel), threads: make(chan struct{}, maxThreads)}
	for range opt.Parallel {
		s.slots <- nil // made when it is needed
	}
	return s, nil
}

// Close ends the connection, when the calls are done that have been given up on. What is done with the store
// afterwards fails.
func (s *Store) Close() error {
	s.mu.Lock()
	s.closed = true
	s.mu.Unlock()
	s.calls.Wait()
	if c := s.connected.Swap(nil); c != nil {
		c.close()
	}
	return nil
}

// result is what a call of librados has returned.
type result[T any] struct {
	value T
	err   error
}

// enter keeps the connection open until somebody calls s.calls.Done.
func (s *Store) enter() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed {
		return upload.Errorf(upload.Unavailable, "rados", "", "The store is closed.")
	}
	s.calls.Add(1)
	return nil
}

// start runs a call of librados, which cannot be interrupted and takes as long as Options.Timeout if it must.
func start[T any](s *Store, call func() (T, error)) <-chan result[T] {
	done := make(chan result[T], 1)
	if err := s.enter(); err != nil {
		done <- result[T]{err: err}
		return done
	}
	defer s.calls.Done() // Go counts as well
	s.calls.Go(func() {
		s.threads <- struct{}{}
		defer func() { <-s.threads }()
		value, err := call()
		done <- result[T]{value, err}
	})
	return done
}

// await waits for a call that was started, but no longer than ctx. What it has not waited for goes on, and ends.
func await[T any](ctx context.Context, done <-chan result[T]) (T, error) {
	select {
	case r := <-done:
		return r.value, r.err
	case <-ctx.Done():
		var none T
		return none, ctx.Err()
	}
}

// call is start and await. Nothing is started if ctx is done.
func call[T any](ctx context.Context, s *Store, do func() (T, error)) (T, error) {
	if err := ctx.Err(); err != nil {
		var none T
		return none, err
	}
	return await(ctx, start(s, do))
}

// none makes of a call that returns only an error one that returns nothing with it.
func none(do func() error) func() (struct{}, error) {
	return func() (struct{}, error) { return struct{}{}, do() }
}

// each does something for n data objects, some at a time, until one fails.
func (s *Store) each(ctx context.Context, n int64, do func(ctx context.Context, i int64) error) error {
	group, running := errgroup.WithContext(ctx)
	group.SetLimit(s.opt.Parallel)
	for i := range n {
		if running.Err() != nil {
			break
		}
		group.Go(func() error { return do(running, i) })
	}
	return errors.Join(group.Wait(), ctx.Err())
}

// cluster is a connection.
type cluster struct {
	conn        *ceph.Conn
	heads, data *ceph.IOContext
	piece       int // how much of a data object is handed to librados at a time: in step with the pool's stripes
}

func (c *cluster) close() {
	for _, io := range []*ceph.IOContext{c.heads, c.data} {
		if io != nil {
			io.Destroy()
		}
	}
	c.conn.Shutdown()
}

// cluster returns the connection. Those who come while it is being made wait for the same attempt.
func (s *Store) cluster(ctx context.Context) (*cluster, error) {
	if c := s.connected.Load(); c != nil {
		return c, nil
	}
	return call(ctx, s, func() (*cluster, error) {
		c, err, _ := s.connecting.Do("", func() (any, error) {
			if c := s.connected.Load(); c != nil {
				return c, nil
			}
			c, err := s.connect()
			if err == nil {
				s.connected.Store(c)
			}
			return c, err
		})
		return c.(*cluster), err // of that type, also nil
	})
}

func (s *Store) connect() (*cluster, error) {
	const op = "rados.connect"
	conn, err := ceph.NewConnWithUser(s.opt.User)
	if err != nil {
		return nil, upload.Wrap(upload.Invalid, op, "", err)
	}
	if err := conn.ReadConfigFile(s.opt.Conf); err != nil {
		return nil, invalid(op, err, "The cluster's configuration, which the store's settings name, cannot be read. Correct its path, or its permissions.")
	}
	seconds := fmt.Sprint(max(int64(s.opt.Timeout/time.Second), 1))
	settings := map[string]string{"rados_osd_op_timeout": seconds, "rados_mon_op_timeout": seconds, "client_mount_timeout": seconds}
	if s.opt.Keyring != "" {
		settings["keyring"] = s.opt.Keyring
	}
	for name, value := range settings {
		if err := conn.SetConfigOption(name, value); err != nil {
			return nil, upload.Wrap(upload.Invalid, op, "", fmt.Errorf("%s: %w", name, err))
		}
	}
	if err := conn.Connect(); err != nil {
		if errno(err) == syscall.ETIMEDOUT {
			return nil, s.classify(op, "", err)
		}
		return nil, invalid(op, err, "The cluster does not let client.%s in. Correct the store's user and keyring.", s.opt.User)
	}
	c := &cluster{conn: conn, piece: mebi}
	if err := s.openPool(c); err != nil {
		c.close()
		return nil, err
	}
	return c, nil
}

// openPool finds the pool, and what it needs.
func (s *Store) openPool(c *cluster) error {
	const op = "rados.connect"
	for _, namespace := range []struct {
		io   **ceph.IOContext
		name string
	}{{&c.heads, ".heads"}, {&c.data, ".data"}} {
		io, err := c.conn.OpenIOContext(s.opt.Pool)
		if errno(err) == syscall.ENOENT {
			return invalid(op, err, "There is no pool %q. Make it, or correct the store's settings.", s.opt.Pool)
		}
		if err != nil {
			return s.classify(op, "", err)
		}
		*namespace.io = io
		io.SetNamespace(s.opt.Namespace + namespace.name)
		if err := io.SetPoolFullTry(); err != nil { // an error if it is full, instead of waiting until it is not
			return s.classify(op, "", err)
		}
	}
	aligned, err := c.data.RequiresAlignment()
	if err != nil || !aligned {
		return s.classify(op, "", err)
	}
	stripe, err := c.data.Alignment()
	if err == nil {
		c.piece = max(mebi/int(stripe), 1) * int(stripe)
	}
	return s.classify(op, "", err)
}

// there reports whether the pool is there: without it nothing is found in it.
func (s *Store) there(ctx context.Context, c *cluster) error {
	_, err := call(ctx, s, func() (string, error) { return c.conn.GetPoolByID(c.heads.GetPoolID()) })
	if errno(err) == syscall.ENOENT {
		return invalid("rados", err, "The pool %q has been deleted. Make it again and restart, or correct the store's settings.", s.opt.Pool)
	}
	return s.classify("rados", "", err)
}

func invalid(op string, err error, format string, args ...any) error {
	e := upload.Errorf(upload.Invalid, op, "", format, args...)
	e.Err = err
	return e
}

// errno is what librados has returned, 0 if err is no error of its.
func errno(err error) syscall.Errno {
	if op, ok := errors.AsType[ceph.OperationError](err); ok {
		err = op.OpError
	}
	if e, ok := errors.AsType[interface {
		error
		ErrorCode() int
	}](err); ok {
		return syscall.Errno(max(e.ErrorCode(), -e.ErrorCode()))
	}
	return 0
}

// classify gives an error of librados a kind and, where somebody can do something about it, words.
func (s *Store) classify(op, key string, err error) error {
	switch {
	case err == nil:
		return nil
	case upload.KindOf(err) != upload.Internal:
		return upload.Wrap(upload.Unavailable, op, key, err)
	case errors.Is(err, context.Canceled):
		return upload.Wrap(upload.Canceled, op, key, err)
	}
	kind, detail := upload.Unavailable, ""
	switch errno(err) { //nolint:exhaustive // the others may pass
	case syscall.ENOENT, syscall.ENODATA: // ENODATA: an object that is not the store's
		kind = upload.NotFound
	case syscall.ENOSPC:
		kind, detail = upload.NoRoom, "The Ceph cluster is full. Add OSDs, or delete something."
	case syscall.EDQUOT:
		kind, detail = upload.NoRoom, "The Ceph pool has reached its quota. Raise it, or delete something."
	case syscall.EPERM, syscall.EACCES:
		kind, detail = upload.Invalid, fmt.Sprintf("Ceph refuses that to client.%s. Give it the capabilities that docs/stores/rados.md names.", s.opt.User)
	case syscall.EFBIG, syscall.EMSGSIZE:
		kind, detail = upload.Invalid, "The objects of the store are larger than the OSDs allow. Lower the store's object size, or raise osd_max_object_size."
	case syscall.ENAMETOOLONG:
		kind, detail = upload.Invalid, "The names of the store's objects are longer than the OSDs allow. Raise osd_max_object_name_len."
	case syscall.ETIMEDOUT:
		detail = fmt.Sprintf("Ceph has not answered for %s. Is it in order?", s.opt.Timeout)
	case syscall.ESHUTDOWN:
		detail = "Ceph has blocklisted this client. Restart the process."
	}
	return &upload.Error{Op: op, Kind: kind, ID: key, Detail: detail, Err: err}
}
