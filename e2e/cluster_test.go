package e2e

import (
	"bytes"
	"crypto/sha1"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"
)

// TestCluster is three nodes as processes, each with a process for its transfers, on servers of their own.
// Clients spray what they send over all nodes while parts of it all are killed, stopped and emptied; in the end
// every file is downloaded and compared. `make e2e-cluster` counts its parts.
func TestCluster(t *testing.T) {
	seeded(t)
	f := newFleet(t, 3)
	f.start()
	var files []finished
	under := func(name string, clients int, fault func(t *testing.T)) {
		t.Run(name, func(t *testing.T) {
			l := f.load(t, clients)
			time.Sleep(300 * time.Millisecond)
			fault(t)
			time.Sleep(300 * time.Millisecond)
			files = append(files, l.end(t)...)
		})
	}
	under("any chunk to any node", 3, func(*testing.T) { time.Sleep(3 * time.Second) })
	t.Run("the nodes are listed", f.testListed)
	under("a node is killed and is back", 3, func(t *testing.T) {
		for i := range 6 {
			m := f.nodes[i%3]
			m.kill()
			time.Sleep(time.Duration(i*100) * time.Millisecond)
			m.start()
		}
	})
	t.Run("a node that is away is waited for", f.testAway)
	under("Redis is emptied", 3, func(*testing.T) {
		for range 8 {
			f.servers.Do("flush", f.redis)
			time.Sleep(200 * time.Millisecond)
		}
	})
	under("Redis is killed and is back with what it had", 3, func(*testing.T) {
		f.servers.Do("kill", f.redis)
		time.Sleep(2 * time.Second)
		f.servers.Do("start", f.redis)
		time.Sleep(time.Second)
	})
	under("Redis answers nothing", 3, func(*testing.T) {
		f.servers.Do("stop", f.redis)
		time.Sleep(3 * time.Second)
		f.servers.Do("cont", f.redis)
		time.Sleep(time.Second)
	})
	under("the broker is restarted", 3, func(*testing.T) {
		f.servers.Do("kill", "rabbitmq")
		time.Sleep(time.Second)
		f.servers.Do("start", "rabbitmq")
	})
	under("the database is killed and is back", 3, func(*testing.T) {
		for range 2 {
			f.servers.Do("kill", f.database)
			time.Sleep(500 * time.Millisecond)
			f.servers.Do("start", f.database)
			time.Sleep(time.Second)
		}
	})
	under("transfers are killed, and stopped past their leases", 2, func(*testing.T) {
		for i := range 6 {
			w := f.nodes[i%3].worker
			if i%2 == 0 {
				w.signal(syscall.SIGSTOP)
				time.Sleep(leaseTTL + 200*time.Millisecond)
				w.signal(syscall.SIGCONT)
				continue
			}
			w.kill()
			w.start()
		}
	})
	under("a node is stopped for a while and goes on", 3, func(*testing.T) {
		f.nodes[1].server.signal(syscall.SIGSTOP)
		time.Sleep(4 * time.Second)
		f.nodes[1].server.signal(syscall.SIGCONT)
	})
	t.Run("rolling restart under load, with our client", f.testRollingRestart)
	t.Run("everything is stored once, and as it was sent", func(t *testing.T) {
		f.settle(t, files)
		u := f.client(t, f)
		for _, file := range files {
			u.compare(t.Context(), file)
		}
		objects, err := filepath.Glob(filepath.Join(f.storeDir, "??", "*"))
		if err != nil || len(objects) < len(distinct(files)) {
			t.Errorf("%d objects for %d contents (%v)", len(objects), len(distinct(files)), err)
		}
		t.Logf("%d files", len(files))
	})
	t.Run("the doctor finds nothing", func(t *testing.T) {
		f.stop()
		for _, m := range f.nodes {
			m.doctor()
		}
		f.start()
	})
	t.Run("a node that is lost for good is given up", f.testForgotten)
}

// distinct is the sizes and seeds of files, each once.
func distinct(files []finished) map[finished]bool {
	set := map[finished]bool{}
	for _, f := range files {
		f.id = ""
		set[f] = true
	}
	return set
}

// nodesJSON is the registry as an operator sees it.
type nodesJSON struct {
	Items []struct {
		ID       string
		Address  string
		State    string
		Stranded int
	}
}

func (m *member) registry(t *testing.T) nodesJSON {
	t.Helper()
	resp, err := http.Get(m.management() + "/nodes")
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	var list nodesJSON
	if err := json.NewDecoder(resp.Body).Decode(&list); err != nil {
		t.Fatal(err)
	}
	return list
}

func (f *fleet) testListed(t *testing.T) {
	list := f.nodes[0].registry(t)
	if len(list.Items) != 3 {
		t.Errorf("nodes: %+v", list)
	}
	for _, n := range list.Items {
		if n.State != "alive" {
			t.Errorf("a node that runs: %+v", n)
		}
	}
	out, err := exec.Command(binary, "nodes", "list", "--management", f.nodes[1].management()).CombinedOutput()
	if err != nil || strings.Count(string(out), " alive ") != 3 {
		t.Errorf("gantry nodes list: %v\n%s", err, out)
	}
}

// testAway: what only a node has that is away answers 503 with Retry-After on every other one, and goes on
// where it stood when the node is back.
func (f *fleet) testAway(t *testing.T) {
	ctx, away := t.Context(), f.nodes[2]
	body := content(*seed+1, 3*chunkSize)
	var up struct{ ID string }
	away.must(t, "POST", "/v1/uploads", jsonHeader, []byte(fmt.Sprintf(`{"name":"away","size":%d,"chunk_size":%d}`, len(body), chunkSize)), 201).decode(t, &up)
	away.must(t, "PUT", "/v1/uploads/"+up.ID+"/chunks/1", nil, body[chunkSize:2*chunkSize], 204)
	away.worker.stop() // else the file would soon be in the store
	var file struct{ ID string }
	away.must(t, "POST", "/v1/files?name=away", rawHeader, body, 201).decode(t, &file)
	away.server.kill()
	for _, m := range f.nodes[:2] {
		for _, call := range []struct {
			method, path string
			body         []byte
		}{
			{"PUT", "/v1/uploads/" + up.ID + "/chunks/0", body[:chunkSize]},
			{"GET", "/v1/files/" + file.ID + "/content", nil},
			{"DELETE", "/v1/uploads/" + up.ID, nil},
		} {
			a, err := m.do(ctx, call.method, call.path, nil, call.body)
			if err != nil || a.status != 503 {
				t.Errorf("%s %s while its node is away: %v %d %s", call.method, call.path, err, a.status, a.body)
			} else if s, err := strconv.Atoi(a.header.Get("Retry-After")); err != nil || s < 1 {
				t.Errorf("%s %s: Retry-After %q", call.method, call.path, a.header.Get("Retry-After"))
			}
		}
		// What the nodes share still tells how the upload stands, and it is not forgotten.
		if a := m.must(t, "GET", "/v1/uploads/"+up.ID, nil, nil, 200); !strings.Contains(string(a.body), `"received_chunks":1,`) {
			t.Errorf("status while its node is away: %s", a.body)
		}
	}
	away.start()
	u := f.client(t, f)
	for _, i := range []int{0, 2} {
		u.until("PUT", fmt.Sprintf("/v1/uploads/%s/chunks/%d", up.ID, i), nil, body[i*chunkSize:(i+1)*chunkSize], 204)
	}
	u.until("POST", "/v1/uploads/"+up.ID+"/complete", jsonHeader, []byte("{}"), 201)
	u.compare(ctx, finished{id: file.ID, seed: *seed + 1, size: len(body)})
}

// testForgotten: a node that will never be back is given up. Files whose only copy was there answer 410, until
// the same content comes again; the node cannot start with its old directory.
func (f *fleet) testForgotten(t *testing.T) {
	lost, other := f.nodes[2], f.nodes[0]
	body := content(*seed+2, 2<<20)
	// The store takes this content from nobody, so that it is known and on one node only.
	sum := sha1.Sum(body)
	obstacle := filepath.Join(f.storeDir, hex.EncodeToString(sum[:1]))
	aside := obstacle + ".aside"
	if err := os.Rename(obstacle, aside); err != nil && !errors.Is(err, fs.ErrNotExist) {
		t.Fatal(err)
	}
	if err := os.WriteFile(obstacle, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	var file, again struct{ ID string }
	lost.must(t, "POST", "/v1/files?name=lost", rawHeader, body, 201).decode(t, &file)
	lost.waitFor(file.ID, "its transfer to fail", func(a answer) bool { return strings.Contains(string(a.body), `"state":"retrying"`) })
	lost.worker.stop()
	id := lost.id()
	forget := func() ([]byte, error) {
		return exec.Command(binary, "nodes", "forget", id, "--yes", "--management", other.management()).CombinedOutput()
	}
	if out, err := forget(); err == nil || !strings.Contains(string(out), "alive") {
		t.Errorf("a node that is alive was given up: %v %s", err, out)
	}
	lost.server.stop()
	if out, err := forget(); err != nil || !strings.Contains(string(out), "1 content") {
		t.Errorf("gantry nodes forget: %v %s", err, out)
	}
	other.must(t, "GET", "/v1/files/"+file.ID+"/content", nil, nil, 410)
	if err := errors.Join(os.Remove(obstacle), os.Rename(aside, obstacle)); err != nil && !errors.Is(err, fs.ErrNotExist) {
		t.Fatal(err)
	}
	other.must(t, "POST", "/v1/files?name=again", rawHeader, body, 201).decode(t, &again)
	u := f.client(t, other)
	for _, id := range []string{again.ID, file.ID} { // one heals the other, once its transfer has compared them
		other.waitStored(id)
		u.compare(t.Context(), finished{id: id, seed: *seed + 2, size: len(body)})
	}
	cmd := exec.Command(binary, lost.args...)
	cmd.Env = append(cmd.Environ(), lost.env...)
	if out, err := cmd.CombinedOutput(); err == nil || !strings.Contains(string(out), "given up") {
		t.Errorf("a node that was given up starts: %v %s", err, out)
	}
	states := map[string]int{}
	for _, n := range other.registry(t).Items {
		states[n.State]++
	}
	if states["forgotten"] != 1 || states["alive"] != 2 {
		t.Errorf("states of the nodes: %v", states)
	}
}

// testRollingRestart: every node is stopped in order and started anew while files go up with the command-line
// client through a balancer. None of them fails.
func (f *fleet) testRollingRestart(t *testing.T) {
	balancer := newBalancer(t, f)
	results := make(chan error)
	const clients = 3
	done := make(chan struct{})
	uploads := 0
	for i := range clients {
		go func() {
			for n := 0; ; n++ {
				select {
				case <-done:
					results <- nil
					return
				default:
				}
				if err := balancer.put(t, content(*seed+uint64(1000*i+n), 12<<20)); err != nil {
					results <- err
					return
				}
				f.mu.Lock()
				uploads++
				f.mu.Unlock()
			}
		}()
	}
	for range 2 {
		for _, m := range f.nodes {
			m.stop()
			m.start()
		}
	}
	close(done)
	for range clients {
		if err := <-results; err != nil {
			t.Error(err)
		}
	}
	t.Logf("%d uploads during the restarts", uploads)
	if uploads < clients {
		t.Error("nothing was uploaded: the test does not test anything")
	}
}

var (
	jsonHeader = map[string]string{"Content-Type": "application/json"}
	rawHeader  = map[string]string{"Content-Type": "application/octet-stream"}
)

// must is do with the status that is expected.
func (s *server) must(t *testing.T, method, path string, header map[string]string, body []byte, want ...int) answer {
	t.Helper()
	a, err := s.do(t.Context(), method, path, header, body)
	if err != nil || !slices.Contains(want, a.status) {
		t.Fatalf("%s %s: %v %d %s, want %v", method, path, err, a.status, bytes.TrimSpace(a.body), want)
	}
	return a
}

// TestStoresOfNodes: nodes whose store directories are not one, and a node without a cluster address on the
// database of others, do not start.
func TestStoresOfNodes(t *testing.T) {
	seeded(t)
	f := newFleet(t, 3)
	f.nodes[0].start()
	refused := func(what, words string, env ...string) {
		t.Helper()
		m := f.nodes[1]
		cmd := exec.Command(binary, m.args...)
		cmd.Env = append(append(cmd.Environ(), m.env...), env...)
		if out, err := cmd.CombinedOutput(); err == nil || !strings.Contains(string(out), words) {
			t.Errorf("%s: %v %s", what, err, out)
		}
	}
	refused("another store directory", "is not the directory that node "+f.nodes[0].id(), "GANTRY_STORE_DIR="+t.TempDir())
	refused("alone", "start this one with a cluster address", "GANTRY_CLUSTER_ADDRESS=", "GANTRY_CLUSTER_SECRET_FILE=")
	refused("another database", "belongs to", "GANTRY_DATABASE="+f.newDatabase(t))
	f.nodes[1].start()
	f.nodes[1].must(t, "POST", "/v1/files?name=a", rawHeader, []byte("a"), 201)
}
