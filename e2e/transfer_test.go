package e2e

import (
	"context"
	"fmt"
	"io"
	"math/rand/v2"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"gantry/internal/testenv"
)

// leaseTTL is short, so that a transfer whose worker was killed is soon done by the next.
const leaseTTL = time.Second

// newTransfers returns a process that does the transfers of a server.
func newTransfers(s *server) *process {
	s.t.Helper()
	p := newProcess(s.t, "waiting for transfers", "transfer", "--data", s.data,
		"--transfer-management", "127.0.0.1:0", "--transfer-lease", leaseTTL.String())
	p.env = s.env
	return p
}

// manages notes the address of a process's management listener.
func (p *process) manages() (address func() string) {
	var mu sync.Mutex
	var at string
	p.said = func(line string) {
		if a, ok := strings.CutPrefix(line, "management on "); ok {
			mu.Lock()
			defer mu.Unlock()
			at = a
		}
	}
	return func() string {
		mu.Lock()
		defer mu.Unlock()
		return at
	}
}

// newBrokerServer is a server that leaves its transfers to another process, told by a broker.
func newBrokerServer(t *testing.T, broker string) *server {
	t.Helper()
	s := newServer(t, "--transfer-process", "--transfer-lease", leaseTTL.String(), "--staging-grace", "1h")
	s.env = append(s.env, "GANTRY_QUEUE="+broker) // others may see the arguments
	return s
}

// TestTransferProcess kills the process that does the transfers at random moments, stops it past its
// lease, ends it, and kills the broker and the server, while files are uploaded. In the end every blob
// has one object, and the doctor finds nothing.
func TestTransferProcess(t *testing.T) {
	broker := testenv.Private(t, "rabbitmq")
	seeded(t)
	rnd := rand.New(rand.NewPCG(*seed, 7))
	s := newBrokerServer(t, broker.Address(testenv.RabbitMQ))
	s.start()
	worker := newTransfers(s)
	worker.start()

	const files = 60
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	u := &uploader{t: t, s: s, rnd: rand.New(rand.NewPCG(*seed, 8))}
	var uploading sync.WaitGroup
	uploading.Go(func() {
		for i := range files {
			f := finished{seed: *seed + uint64(i), size: 1<<20 + i*(1<<16)}
			if u.chunked(&f); t.Failed() || ctx.Err() != nil {
				return
			}
			u.files = append(u.files, f)
		}
	})
	nap := func(most time.Duration) { time.Sleep(rand.N(most)) }
	for round := range 24 {
		nap(150 * time.Millisecond)
		switch {
		case round%12 == 5:
			broker.Do("kill", "rabbitmq")
			nap(time.Second)
			broker.Do("start", "rabbitmq")
		case round%6 == 3:
			worker.signal(syscall.SIGSTOP)
			time.Sleep(leaseTTL + 200*time.Millisecond)
			worker.signal(syscall.SIGCONT)
		case round%6 == 4:
			worker.stop()
			worker.start()
		case rnd.IntN(6) == 0:
			s.kill()
			s.start()
		default:
			worker.kill()
			worker.start()
		}
	}
	uploading.Wait()
	if t.Failed() {
		return
	}
	for _, f := range u.files {
		s.waitStored(f.id)
		u.compare(ctx, f)
	}
	worker.stop()
	s.stop()
	s.doctor()
	objects, err := filepath.Glob(filepath.Join(s.data, "store", "??", "*"))
	if err != nil || len(objects) != files {
		t.Errorf("%d objects for %d files (%v)", len(objects), files, err)
	}
}

// waitStored waits until a file is in the store.
func (s *server) waitStored(file string) {
	s.t.Helper()
	s.waitFor(file, "it to be stored", func(a answer) bool {
		var f struct{ Location string }
		a.decode(s.t, &f)
		return f.Location == "store"
	})
}

// waitFor asks for a file until it is as it should be.
func (s *server) waitFor(file, what string, ok func(a answer) bool) {
	s.t.Helper()
	var last string
	for deadline := time.Now().Add(2 * time.Minute); time.Now().Before(deadline); time.Sleep(50 * time.Millisecond) {
		a, err := s.do(s.t.Context(), "GET", "/v1/files/"+file, nil, nil)
		if err != nil {
			s.t.Fatal(err)
		}
		if last = string(a.body); ok(a) {
			return
		}
	}
	s.t.Fatalf("waited minutes for %s: %s", what, last)
}

// TestTransferProcessHealth: the broker's absence is no reason to send uploads elsewhere, and one to call
// the process that does the transfers not ready. It is told by both, with the password by neither.
func TestTransferProcessHealth(t *testing.T) {
	broker := testenv.Private(t, "rabbitmq")
	s := newBrokerServer(t, broker.Address(testenv.RabbitMQ))
	serverAt := s.manages()
	s.start()
	worker := newTransfers(s)
	workerAt := worker.manages()
	worker.start()
	get := func(address, path string) (int, string) {
		resp, err := http.Get(address + path)
		if err != nil {
			t.Fatal(err)
		}
		defer resp.Body.Close()
		body, err := io.ReadAll(resp.Body)
		if err != nil {
			t.Fatal(err)
		}
		return resp.StatusCode, string(body)
	}
	ready := func(address string, status int, check string, ok bool) {
		t.Helper()
		var code int
		var body string
		for deadline := time.Now().Add(time.Minute); time.Now().Before(deadline); time.Sleep(50 * time.Millisecond) {
			code, body = get(address, "/readyz")
			if code == status && strings.Contains(body, fmt.Sprintf(`{"name":%q,"ok":%v`, check, ok)) {
				return
			}
		}
		t.Errorf("/readyz is %d %s, want %d with %s %v", code, body, status, check, ok)
	}
	ready(serverAt(), 200, "queue-publisher", true)
	ready(workerAt(), 200, "queue-consumer", true)
	ready(workerAt(), 200, "database", true)
	ready(workerAt(), 200, "store-local", true)
	broker.Do("kill", "rabbitmq")
	ready(serverAt(), 200, "queue-publisher", false)
	ready(workerAt(), 503, "queue-consumer", false)

	// Uploads go on, and are transferred when the broker is back.
	body := content(1, 100_000)
	a, err := s.do(t.Context(), "POST", "/v1/files?name=a", map[string]string{"Content-Type": "application/octet-stream"}, body)
	if err != nil || a.status != 201 {
		t.Fatalf("%v %d %s", err, a.status, a.body)
	}
	var file struct{ ID string }
	a.decode(t, &file)
	broker.Do("start", "rabbitmq")
	s.waitStored(file.ID)
	ready(serverAt(), 200, "queue-publisher", true)
	ready(workerAt(), 200, "queue-consumer", true)
	for address, metric := range map[string]string{
		serverAt(): `gantry_queue_published_total{result="confirmed"}`, workerAt(): `gantry_queue_consumed_total{result="acked"}`,
	} {
		if _, text := get(address, "/metrics"); !strings.Contains(text, metric) || !strings.Contains(text, `gantry_queue_connected{role="`) {
			t.Errorf("/metrics of %s lacks %s", address, metric)
		}
	}
	if code, _ := get(workerAt(), "/debug/pprof/cmdline"); code != 200 {
		t.Errorf("profiles of the transfer process: %d", code)
	}
	password := strings.SplitN(strings.SplitN(broker.Address(testenv.RabbitMQ), "@", 2)[0], ":", 3)[2]
	for _, p := range []*process{s.process, worker} {
		if strings.Contains(p.logTail(), password) {
			t.Errorf("gantry %s has logged the broker's password", p.args[0])
		}
	}
}

// TestOneProcessOfEachKind: a directory has one process that takes uploads and one that does the transfers,
// which may be the same.
func TestOneProcessOfEachKind(t *testing.T) {
	s := newServer(t)
	s.env = append(s.env, "GANTRY_QUEUE=amqp://127.0.0.1:1/") // nobody is there, which must not matter
	refused := func(words string, args ...string) {
		t.Helper()
		ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second) // one that did start
		defer cancel()
		cmd := exec.CommandContext(ctx, binary, append(args, "--data", s.data)...)
		cmd.Env = append(os.Environ(), s.env...)
		out, err := cmd.CombinedOutput()
		if err == nil || ctx.Err() != nil || !strings.Contains(string(out), words) {
			t.Errorf("gantry %v: %v: %s", args, err, out)
		}
	}
	serve := []string{"serve", "--listen", "127.0.0.1:0", "--management", "127.0.0.1:0"}
	transfer := []string{"transfer", "--transfer-management", "127.0.0.1:0"}
	refused("start gantry serve first", transfer...)
	s.start()
	refused("does the transfers of this node", transfer...) // the server does
	s.stop()

	s.args = append(s.args, "--transfer-process")
	worker := newTransfers(s)
	worker.start()
	refused("does the transfers of this node", transfer...)
	refused("does the transfers of this node", serve...)
	refused("does the transfers of this node", "doctor")
	s.start() // with --transfer-process it leaves them to the other
	refused("in use by process", append(serve, "--transfer-process")...)
	worker.kill()
	worker.start() // the lock of a process that was killed is nobody's
	worker.stop()
	s.stop()
	s.doctor()
}
