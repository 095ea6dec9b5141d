package redis

import (
	"errors"
	"net/url"
	"strconv"
	"strings"
	"testing"

	"github.com/gomodule/redigo/redis"

	"gantry/internal/testenv"
	"gantry/upload"
)

// on runs a command on one node of a cluster.
func (p *pair) on(address string, command string, args ...any) any {
	p.t.Helper()
	var reply any
	err := p.owner.servers.(*cluster).at(address).do(p.t.Context(), func(c *conn) (err error) {
		reply, err = c.Do(command, args...)
		return err
	})
	if err != nil {
		p.t.Fatalf("%s %v: %v", command, args, err)
	}
	return reply
}

// A replica takes the slots over: the nodes follow, and what was told to the old master is not believed of the
// new one.
func TestClusterFailover(t *testing.T) {
	address := testenv.Address(t, testenv.RedisCluster)
	p := newPair(t, address, address)
	for range 5 {
		p.ack()
	}
	key := p.owner.uploadKey(p.o.Spec().ID)
	master, err := p.owner.servers.(*cluster).find(t.Context(), key)
	if err != nil {
		t.Fatal(err)
	}
	ranges, err := redis.Values(p.on(master, "CLUSTER", "SLOTS"), nil)
	if err != nil {
		t.Fatal(err)
	}
	for _, one := range ranges {
		fields, _ := redis.Values(one, nil)
		if first, _ := redis.Int(fields[0], nil); first > slotOf(key) {
			continue
		}
		if last, _ := redis.Int(fields[1], nil); last < slotOf(key) {
			continue
		}
		if len(fields) < 4 {
			t.Fatal("the master has no replica")
		}
		replica, _ := redis.Values(fields[3], nil)
		host, _ := redis.String(replica[0], nil)
		port, _ := redis.Int(replica[1], nil)
		p.on(host+":"+strconv.Itoa(port), "CLUSTER", "FAILOVER")
	}
	eventually(t, "another one is the master", func() bool {
		p.ack()
		now, err := p.owner.servers.(*cluster).find(t.Context(), key)
		return err == nil && now != master
	})
	p.well()
	for range 5 {
		if err := p.ack(); err != nil {
			t.Error(err)
		}
	}
}

// While slots move from one master to another, those that are asked for a key say who has it.
func TestClusterMovesSlots(t *testing.T) {
	address := testenv.Address(t, testenv.RedisCluster)
	p := newPair(t, address, address)
	p.ack()
	key := p.owner.uploadKey(p.o.Spec().ID)
	slot := slotOf(key)
	c := p.owner.servers.(*cluster)
	from, err := c.find(t.Context(), key)
	if err != nil {
		t.Fatal(err)
	}
	to := from
	for _, r := range c.ranges {
		if r.address != from {
			to = r.address
		}
	}
	id := func(address string) string {
		id, _ := redis.String(p.on(address, "CLUSTER", "MYID"), nil)
		return id
	}
	u, err := url.Parse(strings.Split(address, ",")[0])
	if err != nil {
		t.Fatal(err)
	}
	password, _ := u.User.Password()
	host, port, _ := strings.Cut(to, ":")
	p.on(to, "CLUSTER", "SETSLOT", slot, "IMPORTING", id(from))
	p.on(from, "CLUSTER", "SETSLOT", slot, "MIGRATING", id(to))
	defer func() {
		if err := p.owner.Remove(t.Context(), p.o.Spec()); err != nil {
			t.Error(err)
		}
		p.on(from, "CLUSTER", "SETSLOT", slot, "STABLE")
		p.on(to, "CLUSTER", "SETSLOT", slot, "STABLE")
	}()
	p.on(from, "MIGRATE", host, port, key, 0, 5000, "AUTH", password)
	p.on(to, "SCRIPT", "FLUSH") // as one that has never seen this key's commands
	p.ack()                     // waits: another node may still ask the other master
	for range 5 {
		if err := p.ack(); err != nil {
			t.Fatal(err)
		}
		if !p.check() {
			t.Error("not seen by the other node")
		}
	}
	if list, err := p.reader.List(t.Context(), p.o.Spec().Owner, "", 10); err != nil || len(list) != 1 || list[0].Received.Len() != p.acked {
		t.Errorf("listed: %d, %v", len(list), err)
	}

	// Servers that refer to each other: the chunk is not known there, and nobody takes it for known.
	p.on(to, "CLUSTER", "SETSLOT", slot, "STABLE")
	if err := p.ack(); !errors.Is(err, upload.Unavailable) {
		t.Errorf("marked where nobody has the slot: %v", err)
	}
	p.on(to, "CLUSTER", "SETSLOT", slot, "IMPORTING", id(from))
	p.well()
}
