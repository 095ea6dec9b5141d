package e2e

import (
	"context"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"gantry/internal/testenv"
)

// member is a node of a fleet: the process that takes requests, and the one that does its transfers.
type member struct {
	*server
	worker     *process
	management func() string
}

func (m *member) start() {
	m.t.Helper()
	m.server.start()
	m.worker.start()
}

func (m *member) kill() {
	m.server.kill()
	m.worker.kill()
}

func (m *member) stop() {
	m.server.stop()
	m.worker.stop()
}

// id is the node's id, once it has started.
func (m *member) id() string {
	m.t.Helper()
	text, err := os.ReadFile(filepath.Join(m.data, "node"))
	if err != nil {
		m.t.Fatal(err)
	}
	return strings.TrimSpace(string(text))
}

// serviceOf is what scripts/services calls a server.
var serviceOf = map[testenv.Server]string{
	testenv.MySQL: "mysql", testenv.Postgres: "postgres", testenv.Redis: "redis", testenv.RedisCluster: "redis-cluster",
}

// fleet is the nodes of a cluster with servers of their own, which the test may harm.
type fleet struct {
	t           *testing.T
	servers     *testenv.Servers
	nodes       []*member
	database    string // and Redis, as scripts/services calls them
	redis       string
	newDatabase func(t *testing.T) string
	network     func(node int, what, host string) string // where a node finds what is at host; nil: there
	storeDir    string
	mu          sync.Mutex
	rnd         *rand.Rand
	clients     uint64
}

// newFleet makes n nodes on servers of their own; start begins them.
func newFleet(t *testing.T, n int, options ...func(f *fleet)) *fleet {
	t.Helper()
	database, redis := databaseAndRedis(t)
	if *setup == "embedded" {
		database, redis = testenv.MySQL, testenv.Redis
	}
	f := &fleet{t: t, database: serviceOf[database], redis: serviceOf[redis], storeDir: t.TempDir(), rnd: rand.New(rand.NewPCG(*seed, 99))}
	for _, option := range options {
		option(f)
	}
	f.servers = testenv.Private(t, f.database, f.redis, "rabbitmq")
	// through is an address as a node has it, maybe behind a network of the test's.
	through := func(node int, what, address string) string {
		if f.network == nil {
			return address
		}
		host := hostOf(address)
		return strings.Replace(address, host, f.network(node, what, host), 1)
	}
	secret := filepath.Join(t.TempDir(), "secret")
	if err := os.WriteFile(secret, []byte("a secret of all nodes of this test\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	f.newDatabase = func(t *testing.T) string { return testenv.Database(t, database, f.servers.Address(database)) }
	url := f.newDatabase(t)
	for i := range n {
		s := newBareServer(t, "--transfer-process", "--transfer-lease", leaseTTL.String(), "--staging-grace", "1s")
		s.env = []string{
			"GANTRY_DATABASE=" + through(i, f.database, url),
			"GANTRY_REDIS=" + through(i, f.redis, f.servers.Address(redis)),
			"GANTRY_QUEUE=" + through(i, "rabbitmq", f.servers.Address(testenv.RabbitMQ)),
			"GANTRY_STORE_DIR=" + f.storeDir,
			"GANTRY_CLUSTER_ADDRESS=" + through(i, "nodes", "http://"+s.addr),
			"GANTRY_CLUSTER_SECRET_FILE=" + secret,
		}
		m := &member{server: s, management: s.manages()}
		m.worker = newTransfers(s)
		f.nodes = append(f.nodes, m)
	}
	return f
}

// hostOf is the host and port in a URL.
func hostOf(address string) string {
	_, after, _ := strings.Cut(address, "://")
	if i := strings.LastIndexByte(after, '@'); i >= 0 {
		after = after[i+1:]
	}
	host, _, _ := strings.Cut(after, "/")
	return host
}

func (f *fleet) start() {
	f.t.Helper()
	for _, m := range f.nodes {
		m.start()
	}
}

func (f *fleet) stop() {
	for _, m := range f.nodes {
		m.stop()
	}
}

// do has any node answer, as behind a balancer that knows nothing of them. A node that is down is passed over,
// as balancers do.
func (f *fleet) do(ctx context.Context, method, path string, header map[string]string, body []byte) (answer, error) {
	f.mu.Lock()
	m := f.nodes[f.rnd.IntN(len(f.nodes))]
	f.mu.Unlock()
	return m.do(ctx, method, path, header, body)
}

// settle waits until every file is in the store.
func (f *fleet) settle(t *testing.T, files []finished) {
	t.Helper()
	for _, file := range files {
		f.nodes[0].waitStored(file.id)
	}
}

// client returns a client of a node, or of all.
func (f *fleet) client(t *testing.T, to target) *uploader {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.clients++
	return &uploader{t: t, s: to, rnd: rand.New(rand.NewPCG(*seed, f.clients)), id: int(f.clients), pace: 50 * time.Millisecond}
}

// load is clients that upload until they are told to stop.
type load struct {
	cancel    context.CancelFunc
	wg        sync.WaitGroup
	uploaders []*uploader
}

func (f *fleet) load(t *testing.T, clients int) *load {
	ctx, cancel := context.WithCancel(t.Context())
	l := &load{cancel: cancel}
	for range clients {
		u := f.client(t, f)
		l.uploaders = append(l.uploaders, u)
		l.wg.Go(func() { u.run(ctx) })
	}
	return l
}

// end lets every client finish what it is doing, compares all files, and returns them.
func (l *load) end(t *testing.T) []finished {
	t.Helper()
	l.cancel()
	l.wg.Wait()
	var files []finished
	for _, u := range l.uploaders {
		for _, file := range u.files {
			u.compare(t.Context(), file)
		}
		files = append(files, u.files...)
	}
	if len(files) < len(l.uploaders) {
		t.Errorf("only %d files were completed: the test does not test anything", len(files))
	}
	return files
}
