package redis

import (
	"context"
	"errors"
	"net"
	"net/url"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/gomodule/redigo/redis"

	"gantry/upload"
)

// cluster is the masters of a Redis Cluster. It follows their redirections; the libraries for redigo that
// do so hide which server a connection goes to, and readers have to know.
type cluster struct {
	seeds []*url.URL
	opt   *Options

	refreshing sync.Mutex // those who need the slots wait for the one who asks

	mu     sync.Mutex
	pools  map[string]*pool // by address
	ranges []slotRange
	asked  time.Time // when the slots were last asked for
}

// slotRange is slots and the address of the master that has them.
type slotRange struct {
	first, last int
	address     string
}

func newCluster(seeds []*url.URL, opt *Options) *cluster {
	return &cluster{seeds: seeds, opt: opt, pools: map[string]*pool{}}
}

// slots is how many there are.
const slots = 16384

// slotOf is the slot of a key: of what is in its first braces, if there is something.
func slotOf(key string) int {
	if _, rest, ok := strings.Cut(key, "{"); ok {
		if tag, _, ok := strings.Cut(rest, "}"); ok && tag != "" {
			key = tag
		}
	}
	var crc uint16 // CRC-16/XMODEM
	for i := range len(key) {
		crc ^= uint16(key[i]) << 8
		for range 8 {
			carry := crc&0x8000 != 0
			crc <<= 1
			if carry {
				crc ^= 0x1021
			}
		}
	}
	return int(crc % slots)
}

// tries bounds how often one command is sent elsewhere.
const tries = 4

func (c *cluster) do(ctx context.Context, key string, f func(c *conn) error) error {
	address, err := c.find(ctx, key)
	asking := false
	for range tries {
		if err != nil {
			return err
		}
		err = c.at(address).do(ctx, func(conn *conn) error {
			if !asking {
				return f(conn)
			}
			if err := conn.ask(); err != nil {
				return err
			}
			conn.asking = true
			defer func() { conn.asking = false }()
			return f(conn)
		})
		asking = false
		if reply, ok := errors.AsType[redis.Error](err); ok && !refused(err) {
			word, target := redirection(string(reply), address)
			switch word {
			case "MOVED":
				c.forget()
			case "ASK":
				asking = true
			default:
				return err
			}
			address, err = target, nil
			continue
		}
		if err == nil || c.at(address).down() == nil { // f's own errors are no failure of the server
			return err
		}
		// The master is away. Another one may have its slots by now.
		c.refresh(ctx)
		moved, findErr := c.find(ctx, key)
		if findErr != nil || moved == address {
			return err
		}
		address, err = moved, nil
	}
	return errRedirected
}

// errRedirected: each server says that another one has the key. Slots are moving, or the servers do not agree.
var errRedirected = upload.Errorf(upload.Unavailable, "redis", "", "The nodes of the Redis Cluster refer to each other. Try again later.")

// redirected reports whether a server only said who else to ask.
func redirected(err error) bool {
	reply, ok := errors.AsType[redis.Error](err)
	word, _ := redirection(string(reply), "")
	return ok && word != ""
}

// redirection reads "MOVED 3999 127.0.0.1:6381".
func redirection(reply, from string) (word, address string) {
	fields := strings.Fields(reply)
	if len(fields) != 3 || fields[0] != "MOVED" && fields[0] != "ASK" {
		return "", ""
	}
	host, port, err := net.SplitHostPort(fields[2])
	if err != nil {
		return "", ""
	}
	if host == "" { // the same as that of the server that says it
		host, _, _ = net.SplitHostPort(from)
	}
	return fields[0], net.JoinHostPort(host, port)
}

// at is the connections to a node.
func (c *cluster) at(address string) *pool {
	c.mu.Lock()
	defer c.mu.Unlock()
	p := c.pools[address]
	if p == nil {
		u := *c.seeds[0]
		u.Host = address
		p = newPool(address, c.opt, func(ctx context.Context) (*conn, error) { return dial(ctx, &u, c.opt) })
		c.pools[address] = p
	}
	return p
}

// find returns the address of the master that has a key.
func (c *cluster) find(ctx context.Context, key string) (string, error) {
	slot := slotOf(key)
	for range 2 {
		c.mu.Lock()
		for _, r := range c.ranges {
			if r.first <= slot && slot <= r.last {
				c.mu.Unlock()
				return r.address, nil
			}
		}
		c.mu.Unlock()
		c.refresh(ctx)
	}
	return "", errAway
}

// forget has the slots asked for again at the next command.
func (c *cluster) forget() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.ranges, c.asked = nil, time.Time{}
}

// refresh asks the nodes, one after the other, who has which slots; not more often than failing servers
// are tried.
func (c *cluster) refresh(ctx context.Context) {
	c.refreshing.Lock()
	defer c.refreshing.Unlock()
	c.mu.Lock()
	if time.Since(c.asked) < c.opt.Pause {
		c.mu.Unlock()
		return
	}
	c.asked = time.Now()
	addresses := make(map[string]bool)
	for _, r := range c.ranges {
		addresses[r.address] = true
	}
	for _, seed := range c.seeds {
		addresses[seed.Host] = true
	}
	for address := range c.pools {
		addresses[address] = true
	}
	c.mu.Unlock()
	for address := range addresses {
		var ranges []slotRange
		err := c.at(address).do(ctx, func(conn *conn) error {
			reply, err := redis.Values(conn.Do("CLUSTER", "SLOTS"))
			if err == nil {
				ranges, err = parseSlots(reply, address)
			}
			return err
		})
		if err == nil && len(ranges) > 0 {
			c.mu.Lock()
			c.ranges = ranges
			c.mu.Unlock()
			return
		}
	}
}

// parseSlots reads the answer to CLUSTER SLOTS: first, last, the master (host, port, …), its replicas.
func parseSlots(reply []any, from string) ([]slotRange, error) {
	var ranges []slotRange
	for _, one := range reply {
		fields, err := redis.Values(one, nil)
		if err != nil {
			return nil, err
		}
		var r slotRange
		var master []any
		if _, err := redis.Scan(fields, &r.first, &r.last, &master); err != nil {
			return nil, err
		}
		var host string
		var port int
		if _, err := redis.Scan(master, &host, &port); err != nil {
			return nil, err
		}
		if host == "" {
			host, _, _ = net.SplitHostPort(from)
		}
		r.address = net.JoinHostPort(host, strconv.Itoa(port))
		ranges = append(ranges, r)
	}
	return ranges, nil
}

func (c *cluster) groups(ctx context.Context, keys []string) [][]int {
	byAddress := map[string][]int{}
	for i, key := range keys {
		address, err := c.find(ctx, key)
		if err != nil {
			address = ""
		}
		byAddress[address] = append(byAddress[address], i)
	}
	var groups [][]int
	for _, group := range byAddress {
		groups = append(groups, group)
	}
	return groups
}

func (c *cluster) samples(ctx context.Context, name string) []string {
	_, _ = c.find(ctx, name) // asks for the slots if they are not known
	c.mu.Lock()
	defer c.mu.Unlock()
	missing := map[string]bool{}
	for _, r := range c.ranges {
		missing[r.address] = true
	}
	keys := []string{}
	for n := 0; len(missing) > 0 && n < slots; n++ {
		key := name + "{" + strconv.Itoa(n) + "}"
		slot := slotOf(key)
		for _, r := range c.ranges {
			if r.first <= slot && slot <= r.last && missing[r.address] {
				delete(missing, r.address)
				keys = append(keys, key)
			}
		}
	}
	if len(keys) == 0 {
		return []string{name}
	}
	return keys
}

// down says which masters are away.
func (c *cluster) down() error {
	c.mu.Lock()
	masters := map[string]*pool{}
	for _, r := range c.ranges {
		if p := c.pools[r.address]; p != nil {
			masters[r.address] = p
		}
	}
	c.mu.Unlock()
	var errs []error
	for _, p := range masters {
		errs = append(errs, p.down())
	}
	return errors.Join(errs...)
}

func (c *cluster) close() error {
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, p := range c.pools {
		p.drain()
	}
	return nil
}
