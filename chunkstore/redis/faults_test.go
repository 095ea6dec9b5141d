package redis

import (
	"context"
	"errors"
	"fmt"
	"net"
	"sync"
	"syscall"
	"testing"
	"time"

	"gantry/chunkstore/chunkstoretest"
	"gantry/upload"
)

// pair is an upload's owner node and another node that is asked about it.
type pair struct {
	t             testing.TB
	owner, reader *View
	o             *chunkstoretest.Owner
	acked         int
}

// quick are settings with which faults are over soon.
var quick = Options{Fresh: 500 * time.Millisecond, Timeout: 200 * time.Millisecond, Pause: 200 * time.Millisecond, Poll: 20 * time.Millisecond}

func newPair(t testing.TB, owner, reader string) *pair {
	t.Helper()
	opt := quick
	opt.Prefix = "test-" + upload.NewNodeID() + ":"
	p := &pair{t: t, owner: newView(t, owner, opt), reader: newView(t, reader, opt), o: chunkstoretest.NewOwner(upload.MaxChunks)}
	if err := p.owner.Begin(t.Context(), p.o.Spec(), time.Hour); err != nil {
		t.Fatal(err)
	}
	return p
}

// ack has the next chunk come in, marked and acknowledged, and asks the other node: its status has every
// chunk, or there is none (I7).
func (p *pair) ack() error {
	p.t.Helper()
	p.o.Take(p.acked)
	err := p.owner.Mark(p.t.Context(), p.o.Spec().ID, p.acked, p.o.Truth)
	if err != nil && upload.KindOf(err) != upload.Unavailable {
		p.t.Fatalf("chunk %d: %v", p.acked, err)
	}
	p.acked++
	p.check()
	return err
}

func (p *pair) check() bool {
	p.t.Helper()
	u, err := p.reader.Get(p.t.Context(), p.o.Spec().ID)
	switch {
	case err == nil:
		for i := range p.acked {
			if !u.Received.Has(i) {
				p.t.Errorf("chunk %d was acknowledged, and another node's status lacks it", i)
			}
		}
		if n := u.Received.Len(); n != p.acked || u.ReceivedBytes != int64(n)*u.ChunkSize {
			p.t.Errorf("%d chunks with %d bytes are shown, %d are there", n, u.ReceivedBytes, p.acked)
		}
	case upload.KindOf(err) != upload.NotFound && upload.KindOf(err) != upload.Unavailable:
		p.t.Errorf("status: %v", err)
	}
	return err == nil
}

// well waits until other nodes see the upload again as chunks come in.
func (p *pair) well() {
	p.t.Helper()
	eventually(p.t, "the upload is seen again", func() bool { return p.ack() == nil && p.check() })
}

func TestFaults(t *testing.T) {
	t.Parallel()
	for name, fault := range map[string]func(s *server, p *pair){
		"flushed": func(s *server, p *pair) {
			s.say("FLUSHALL")
		},
		"stopped for a while": func(s *server, p *pair) {
			s.signal(syscall.SIGSTOP)
			for range 5 {
				p.ack()
			}
			s.signal(syscall.SIGCONT)
		},
		"killed and back": func(s *server, p *pair) {
			s.kill()
			for range 20 {
				p.ack()
			}
			s.start()
		},
		"killed and back at once": func(s *server, p *pair) {
			s.kill()
			s.start()
		},
		"killed and back without its data": func(s *server, p *pair) {
			s.kill()
			s.loses()
			s.start()
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s := startServer(t)
			p := newPair(t, s.url(), s.url())
			for range 20 {
				if err := p.ack(); err != nil {
					t.Fatal(err)
				}
			}
			for range 2 {
				fault(s, p)
				p.well()
				if err := p.ack(); err != nil || !p.check() {
					t.Errorf("not well again: %v", err)
				}
			}
			if list, err := p.reader.List(t.Context(), p.o.Spec().Owner, "", 10); err != nil || len(list) != 1 || list[0].Received.Len() != p.acked {
				t.Errorf("listed: %d, %v", len(list), err)
			}
		})
	}
}

// Only the owner node is cut off. The others still reach Redis, and what they are told there is not
// believed any more by the time that the next chunk is acknowledged. Waiting for that happens once.
func TestOwnerCutOff(t *testing.T) {
	t.Parallel()
	s := startServer(t)
	proxy := startProxy(t, s.addr)
	p := newPair(t, proxy.url(), s.url())
	if err := p.ack(); err != nil || !p.check() {
		t.Fatal("not seen by the other node", err)
	}
	proxy.hold(true)
	if err := p.ack(); upload.KindOf(err) != upload.Unavailable {
		t.Errorf("got %v", err)
	}
	for range 50 {
		p.ack()
	}
	proxy.release()
	p.well()
}

// What a server gets to see late, after the node has given it up, makes nobody believe it.
func TestLateMark(t *testing.T) {
	t.Parallel()
	s := startServer(t)
	proxy := startProxy(t, s.addr)
	p := newPair(t, proxy.url(), s.url())
	p.ack()
	for range 5 {
		proxy.hold(true)
		p.ack() // held back, given up
		p.ack() // not even sent
		proxy.release()
		for range 10 {
			p.check()
			time.Sleep(5 * time.Millisecond)
		}
		p.well()
	}
}

// A state that comes late is not put in place of a newer one.
func TestLatePut(t *testing.T) {
	t.Parallel()
	s := startServer(t)
	proxy := startProxy(t, s.addr)
	p := newPair(t, proxy.url(), s.url())
	p.ack()
	proxy.hold(false)
	if err := p.owner.Put(t.Context(), p.o.Spec().ID, p.o.Truth); err == nil {
		t.Fatal("nothing was held back")
	}
	p.well() // over other connections
	proxy.release()
	for range 20 {
		time.Sleep(5 * time.Millisecond)
		if err := p.ack(); err != nil {
			t.Fatal(err)
		}
	}
	if !p.check() {
		t.Error("not seen by the other node")
	}
}

// What a server that has lost everything gets to see late does not come back as if it were the whole.
func TestLatePutAfterFlush(t *testing.T) {
	t.Parallel()
	s := startServer(t)
	proxy := startProxy(t, s.addr)
	p := newPair(t, proxy.url(), s.url())
	p.ack()
	proxy.hold(false)
	_ = p.owner.Put(t.Context(), p.o.Spec().ID, p.o.Truth)
	p.well()
	s.say("FLUSHALL")
	proxy.release()
	eventually(t, "the late one is there", func() bool { return s.say("DBSIZE") == ":1" })
	for range 20 {
		p.ack()
	}
	p.well()
}

// The replica that takes over lacks the last writes, and has been told of chunks that turned out damaged.
func TestFailoverLosesWrites(t *testing.T) {
	t.Parallel()
	master := startServer(t)
	stream := startProxy(t, master.addr)
	host, port, _ := net.SplitHostPort(stream.Addr().String())
	replica := startServer(t, "--replicaof", host+" "+port)
	p, sentinel := pairBehindSentinel(t, master)
	for range 5 {
		if err := p.ack(); err != nil {
			t.Fatal(err)
		}
	}
	eventually(t, "the replica has it", func() bool { return replica.say("DBSIZE") == master.say("DBSIZE") })
	p.ack()
	time.Sleep(50 * time.Millisecond)
	// From here on the replica gets nothing. What the master answers is held too: acknowledgements.
	stream.cut()
	for range 5 {
		p.ack()
	}
	if got := replica.say("REPLICAOF NO ONE"); got != "+OK" {
		t.Fatal(got)
	}
	sentinel.is(replica.addr)
	// The node that is asked has noticed, the owner has not yet: it still talks to the old master.
	p.reader.servers.(single).drain()
	for range 3 {
		p.ack()
	}
	master.kill()
	p.well()
	for range 5 {
		if err := p.ack(); err != nil {
			t.Fatal(err)
		}
	}
}

// A master that was made a replica takes no writes, and others do not write to it: its connections are given up.
func TestDemoted(t *testing.T) {
	t.Parallel()
	first, second := startServer(t), startServer(t)
	p, sentinel := pairBehindSentinel(t, first)
	p.ack()
	first.replicates(second.addr)
	p.ack()
	sentinel.is(second.addr)
	p.well()
}

// One that takes writes all the same is not taken for a master.
func TestWritableReplica(t *testing.T) {
	t.Parallel()
	first, second := startServer(t, "--replica-read-only", "no"), startServer(t)
	p, sentinel := pairBehindSentinel(t, first)
	p.ack()
	first.replicates(second.addr)
	for _, v := range []*View{p.owner, p.reader} {
		v.servers.(single).drain()
	}
	if err := p.ack(); err == nil {
		t.Error("a replica was taken for the master")
	}
	sentinel.is(second.addr)
	p.well()
}

// The owner finds the new master before the others do, who still ask the old one.
func TestOwnerMovesFirst(t *testing.T) {
	t.Parallel()
	first, second := startServer(t), startServer(t)
	p, sentinel := pairBehindSentinel(t, first)
	p.ack()
	sentinel.is(second.addr)
	p.owner.servers.(single).drain()
	for range 3 {
		if err := p.ack(); err != nil {
			t.Fatal(err)
		}
	}
	first.replicates(second.addr) // as Sentinel has it do in the end
	p.well()
}

func pairBehindSentinel(t *testing.T, master *server) (*pair, *sentinel) {
	t.Helper()
	sentinel := startSentinel(t, master.addr)
	address := "redis+sentinel://" + sentinel.Addr().String() + "/gantry"
	return newPair(t, address, address), sentinel
}

// Eviction takes uploads away whole: never a part.
func TestEviction(t *testing.T) {
	t.Parallel()
	s := startServer(t, "--maxmemory", "3mb", "--maxmemory-policy", "allkeys-lru", "--appendonly", "no")
	p := newPair(t, s.url(), s.url())
	others := 0
	for range 300 {
		for range 20 {
			o := chunkstoretest.NewOwner(upload.MaxChunks)
			if err := p.owner.Begin(t.Context(), o.Spec(), time.Hour); err == nil {
				others++
			}
		}
		p.ack()
		list, err := p.reader.List(t.Context(), p.o.Spec().Owner, "", 3)
		if err != nil {
			t.Fatal(err)
		}
		for i := range list {
			if list[i].Name == "" || list[i].Size == 0 || list[i].ChunkSize == 0 {
				t.Fatalf("a part of an upload: %+v", list[i])
			}
		}
	}
	var n int
	if _, err := fmt.Sscanf(s.say("DBSIZE"), ":%d", &n); err != nil || n >= others {
		t.Errorf("%d keys, of %d uploads: nothing was evicted (%v)", n, others, err)
	}
	p.well()
}

// Bits that somebody set by hand are gone with the next Put: complete makes one when it finds chunks missing.
func TestBitsTooMany(t *testing.T) {
	t.Parallel()
	s := startServer(t)
	p := newPair(t, s.url(), s.url())
	p.ack()
	key := p.owner.uploadKey(p.o.Spec().ID)
	at(t, p.owner, key, "HSET", key, "chunks", "\xff\xff")
	if err := p.owner.Put(t.Context(), p.o.Spec().ID, p.o.Truth); err != nil {
		t.Fatal(err)
	}
	if !p.check() {
		t.Error("not seen")
	}
}

// A new process does not know what the one before it has told, nor where.
func TestRestartedOwner(t *testing.T) {
	t.Parallel()
	s := startServer(t)
	proxy := startProxy(t, s.addr)
	p := newPair(t, proxy.url(), s.url())
	p.ack()
	opt := quick
	opt.Prefix = p.owner.opt.Prefix
	restarted := newView(t, proxy.url(), opt)
	restarted.started = time.Now()
	p.owner = restarted
	proxy.hold(true)
	p.ack() // no answer from Redis, and the other node still reaches it
	proxy.release()
	p.well()
}

// A new process finds another server than the one that the process before it told.
func TestRestartedOwnerElsewhere(t *testing.T) {
	t.Parallel()
	old, other := startServer(t), startServer(t)
	p := newPair(t, old.url(), old.url())
	p.ack()
	opt := quick
	opt.Prefix = p.owner.opt.Prefix
	p.owner = newView(t, other.url(), opt)
	p.owner.started = time.Now()
	for range 3 {
		if err := p.ack(); err != nil {
			t.Fatal(err)
		}
	}
}

// Nobody waits long, and not each chunk anew, for a Redis that is away.
func TestFailsFast(t *testing.T) {
	t.Parallel()
	s := startServer(t)
	proxy := startProxy(t, s.addr)
	opt := Options{Timeout: 300 * time.Millisecond, Pause: time.Hour, Fresh: time.Millisecond}
	v := newView(t, proxy.url(), opt)
	o := chunkstoretest.NewOwner(10_000)
	if err := v.Begin(t.Context(), o.Spec(), time.Hour); err != nil {
		t.Fatal(err)
	}
	s.signal(syscall.SIGSTOP)
	var wg sync.WaitGroup
	for i := range 1000 {
		wg.Go(func() {
			o.Take(i)
			if err := v.Mark(t.Context(), o.Spec().ID, i, o.Truth); upload.KindOf(err) != upload.Unavailable {
				t.Errorf("chunk %d: %v", i, err)
			}
		})
	}
	wg.Wait() // would take minutes, one by one
	before := proxy.connections()
	if v.servers.down() == nil || v.Ping(t.Context()) == nil {
		t.Error("nothing seems to be wrong")
	}
	for name, call := range map[string]func() error{
		"remove":   func() error { return v.Remove(t.Context(), o.Spec()) },
		"list":     func() error { _, err := v.List(t.Context(), "a", "", 1); return err },
		"key":      func() error { _, err := v.ByKey(t.Context(), "a", "b"); return err },
		"get":      func() error { _, err := v.Get(t.Context(), o.Spec().ID); return err },
		"failures": func() error { _, err := v.Failures(t.Context(), "a", time.Now()); return err },
	} {
		if err := call(); upload.KindOf(err) != upload.Unavailable {
			t.Errorf("%s: %v", name, err)
		}
	}
	if n := proxy.connections(); n != before {
		t.Errorf("a server that had failed was asked %d times", n-before)
	}
}

// A caller who goes away while a chunk waits gets no acknowledgement.
func TestCallerGoesAway(t *testing.T) {
	t.Parallel()
	s := startServer(t)
	proxy := startProxy(t, s.addr)
	opt := Options{Timeout: 100 * time.Millisecond, Fresh: time.Hour}
	v := newView(t, proxy.url(), opt)
	o := chunkstoretest.NewOwner(10)
	if err := v.Begin(t.Context(), o.Spec(), time.Hour); err != nil {
		t.Fatal(err)
	}
	proxy.hold(true)
	ctx, cancel := context.WithTimeout(t.Context(), 300*time.Millisecond)
	defer cancel()
	o.Take(1)
	if err := v.Mark(ctx, o.Spec().ID, 1, o.Truth); upload.KindOf(err) != upload.Canceled {
		t.Errorf("got %v", err)
	}
}

// After a loss and after an outage everything is asked for again, until it is there.
func TestWatch(t *testing.T) {
	t.Parallel()
	s := startServer(t)
	p := newPair(t, s.url(), s.url())
	ctx, cancel := context.WithCancel(t.Context())
	var wg sync.WaitGroup
	defer wg.Wait()
	defer cancel()
	var mu sync.Mutex
	calls, fail := 0, false
	wg.Go(func() {
		p.owner.Watch(ctx, func(ctx context.Context) error {
			mu.Lock()
			defer mu.Unlock()
			if calls++; fail {
				fail = false
				return errors.New("once more")
			}
			return p.owner.Put(ctx, p.o.Spec().ID, p.o.Truth)
		})
	})
	seen := func() bool {
		_, err := p.reader.List(ctx, p.o.Spec().Owner, "", 1)
		return err == nil && s.say("DBSIZE") == ":3"
	}
	eventually(t, "the first look", func() bool { mu.Lock(); defer mu.Unlock(); return calls > 0 })
	for name, fault := range map[string]func(){
		"flush":  func() { s.say("FLUSHALL") },
		"outage": func() { s.kill(); p.ack(); s.loses(); s.start() },
		"twice":  func() { mu.Lock(); fail = true; mu.Unlock(); s.say("FLUSHALL") },
	} {
		fault()
		eventually(t, "the upload is put back after "+name, seen)
	}
	// Nothing was lost this time, but something could not be said.
	count := func() int { mu.Lock(); defer mu.Unlock(); return calls }
	time.Sleep(5 * quick.Poll)
	before := count()
	s.kill()
	p.ack()
	s.start()
	eventually(t, "all is put after an outage", func() bool { return count() > before })
	time.Sleep(5 * quick.Poll)
	before = count()
	time.Sleep(10 * quick.Poll)
	mu.Lock()
	defer mu.Unlock()
	if calls > before+1 {
		t.Errorf("asked for %d times though nothing was lost", calls-before)
	}
}
