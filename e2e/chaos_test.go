package e2e

import (
	"flag"
	"fmt"
	"math/rand/v2"
	"net/url"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	amqp "github.com/rabbitmq/amqp091-go"

	"gantry/internal/testenv"
)

var chaosFor = flag.Duration("for", time.Minute, "how long TestChaos harms the cluster")

// TestChaos has three nodes, each with a network of its own to every server and to the other nodes. While clients spray
// chunks over all of them, nodes, transfers, servers and networks are harmed at random, two at a time. Whatever was
// acknowledged is there all the time and comes back as it was sent; in the end everything is stored once.
// `make soak` does it for an hour.
func TestChaos(t *testing.T) {
	if *setup == "postgres" {
		t.Fatal("the servers of a Redis Cluster refer to each other, past the test's networks: run it with -setup mariadb")
	}
	seeded(t)
	c := &chaos{t: t, rnd: rand.New(rand.NewPCG(*seed, 5)), links: map[string]*testenv.Proxy{}, busy: map[string]bool{}, began: time.Now()}
	c.f = newFleet(t, 3, func(f *fleet) {
		f.network = func(node int, what, host string) string {
			p := testenv.NewProxy(t, host)
			c.links[fmt.Sprintf("node %d and %s", node, what)] = p
			return p.Address()
		}
	})
	c.f.start()
	l := c.f.load(t, 4)
	until := time.Now().Add(*chaosFor)
	var harming sync.WaitGroup
	for range 2 {
		harming.Go(func() {
			for time.Now().Before(until) && !t.Failed() {
				c.harm()
				time.Sleep(c.upTo(time.Second))
			}
		})
	}
	harming.Wait()
	t.Logf("%d faults: %v", c.faults, c.counts)
	files := l.end(t)
	if t.Failed() {
		return
	}
	c.f.settle(t, files)
	for _, m := range c.f.nodes {
		u := c.f.client(t, m)
		for _, file := range files {
			u.compare(t.Context(), file)
		}
	}
	c.nothingWaits()
	c.f.stop()
	for _, m := range c.f.nodes {
		m.doctor()
	}
	objects, err := filepath.Glob(filepath.Join(c.f.storeDir, "??", "*"))
	if err != nil || len(objects) != len(distinct(files)) {
		t.Errorf("%d objects for %d contents (%v)", len(objects), len(distinct(files)), err)
	}
	t.Logf("%d files", len(files))
}

type chaos struct {
	t     *testing.T
	f     *fleet
	links map[string]*testenv.Proxy
	began time.Time

	mu     sync.Mutex
	rnd    *rand.Rand
	busy   map[string]bool // what is being harmed: nothing twice at a time
	faults int
	counts map[string]int
}

func (c *chaos) n(n int) int {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.rnd.IntN(n)
}

func (c *chaos) upTo(d time.Duration) time.Duration { return time.Duration(c.n(int(d))) }

// fault is something that is harmed, and healed after a while.
type fault struct {
	kind, target string
	harm, heal   func()
}

func (c *chaos) harm() {
	var f fault
	for {
		f = c.choose()
		c.mu.Lock()
		free := !c.busy[f.target]
		if free {
			c.busy[f.target] = true
			c.faults++
			if c.counts == nil {
				c.counts = map[string]int{}
			}
			c.counts[f.kind]++
		}
		c.mu.Unlock()
		if free {
			break
		}
	}
	lasts := 50*time.Millisecond + c.upTo(4*time.Second)
	c.t.Logf("%6.2fs %s: %s, for %s", time.Since(c.began).Seconds(), f.kind, f.target, lasts.Round(time.Millisecond))
	f.harm()
	time.Sleep(lasts)
	f.heal()
	c.mu.Lock()
	delete(c.busy, f.target)
	c.mu.Unlock()
}

func (c *chaos) choose() fault {
	i := c.n(len(c.f.nodes))
	m := c.f.nodes[i]
	node, worker := fmt.Sprintf("node %d", i), fmt.Sprintf("transfers of node %d", i)
	service := []string{c.f.database, c.f.redis, "rabbitmq"}[c.n(3)]
	do := func(verb string) func() { return func() { c.f.servers.Do(verb, service) } }
	signal := func(p *process, s syscall.Signal) func() { return func() { p.signal(s) } }
	link := fmt.Sprintf("node %d and %s", i, []string{c.f.database, c.f.redis, "rabbitmq", "nodes"}[c.n(4)])
	network := c.links[link]
	none := func() {}
	faults := []fault{
		{"killed", node, m.server.kill, m.server.start},
		{"restarted", node, m.server.stop, m.server.start},
		{"stopped", node, signal(m.process, syscall.SIGSTOP), signal(m.process, syscall.SIGCONT)},
		{"killed", worker, m.worker.kill, m.worker.start},
		{"stopped", worker, signal(m.worker, syscall.SIGSTOP), signal(m.worker, syscall.SIGCONT)},
		{"killed", service, do("kill"), do("start")},
		{"stopped", service, do("stop"), do("cont")},
		{"emptied", c.f.redis, func() { c.f.servers.Do("flush", c.f.redis) }, none},
		{"without its queue", worker, func() { c.deleteQueue(m.id()) }, none},
		{"cut", link, network.Refuse, network.Heal},
		{"silent", link, network.Hold, network.Heal},
		{"slow", link, func() { network.Slow(50 * time.Millisecond) }, network.Heal},
	}
	return faults[c.n(len(faults))]
}

// deleteQueue deletes a node's queue, if the broker is there to do it.
func (c *chaos) deleteQueue(node string) {
	conn, err := amqp.Dial(c.f.servers.Address(testenv.RabbitMQ))
	if err != nil {
		return
	}
	defer conn.Close()
	ch, err := conn.Channel()
	if err == nil {
		_, err = ch.QueueDelete("gantry.transfer."+node, false, false, false)
	}
	if err != nil {
		c.t.Logf("the queue was not deleted: %v", err)
	}
}

// nothingWaits looks that every transfer has ended well.
func (c *chaos) nothingWaits() {
	c.t.Helper()
	manage, err := url.Parse(c.f.nodes[0].management())
	if err != nil {
		c.t.Fatal(err)
	}
	for deadline := time.Now().Add(time.Minute); ; time.Sleep(100 * time.Millisecond) {
		out, err := exec.Command(binary, "transfers", "list", "--state", "queued,running,verifying,retrying,dead", "--management", manage.String()).CombinedOutput()
		if err == nil && strings.TrimSpace(string(out)) == "" {
			return
		}
		if time.Now().After(deadline) {
			c.t.Errorf("transfers wait: %v\n%s", err, out)
			return
		}
	}
}
