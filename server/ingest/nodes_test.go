package ingest_test

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
	"net/url"
	"os/exec"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"gantry/chunkstore"
	"gantry/chunkstore/memory"
	"gantry/chunkstore/redis"
	"gantry/internal/testenv"
	"gantry/server/ingest"
	"gantry/upload"
)

// views makes the views that nodes can share: each call of the function returned is another node's.
func views(t *testing.T) map[string]func(t *testing.T) func() chunkstore.View {
	t.Helper()
	shared := func(s testenv.Server) func(t *testing.T) func() chunkstore.View {
		return func(t *testing.T) func() chunkstore.View {
			return redisViews(t, testenv.Address(t, s))
		}
	}
	return map[string]func(t *testing.T) func() chunkstore.View{
		"memory": func(*testing.T) func() chunkstore.View {
			v := memory.New()
			return func() chunkstore.View { return v }
		},
		"redis":         shared(testenv.Redis),
		"redis cluster": shared(testenv.RedisCluster),
	}
}

func redisViews(t *testing.T, address string) func() chunkstore.View {
	prefix := "test-" + upload.NewNodeID() + ":"
	return func() chunkstore.View {
		t.Helper()
		v, err := redis.New(address, redis.Options{
			Prefix: prefix, Fresh: 300 * time.Millisecond, Timeout: 200 * time.Millisecond,
			Pause: 50 * time.Millisecond, Poll: 20 * time.Millisecond,
		})
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = v.Close() })
		return &chunkstore.Fallback{Shared: v, Own: memory.New()}
	}
}

// onEachView runs a test with two nodes that share a view and a database.
func onEachView(t *testing.T, test func(t *testing.T, a, b *engine)) {
	t.Helper()
	for name, open := range views(t) {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			view := open(t)
			a := sharing(t, "n1", view(), nil)
			test(t, a, sharing(t, "n2", view(), a))
		})
	}
}

// Any node answers status with every chunk that was acknowledged, and lists what others have.
func TestAnyNodeAnswers(t *testing.T) {
	t.Parallel()
	onEachView(t, func(t *testing.T, a, b *engine) {
		ctx := t.Context()
		data := random(60, 5<<20+1)
		id := a.mustBegin(data)
		for i := range 6 {
			if err := a.PutChunk(ctx, owner, id, i, body(chunk(data, i))); err != nil {
				t.Fatal(err)
			}
			status, err := b.Status(ctx, owner, id)
			if err != nil || status.State != upload.Open || !status.Upload.Received.Has(i) || status.Upload.Received.Len() != i+1 {
				t.Errorf("status after chunk %d: %+v, %v", i, status, err)
			}
		}
		if _, err := b.Status(ctx, "other", id); !errors.Is(err, upload.NotFound) {
			t.Errorf("another owner's status: %v", err)
		}
		for _, e := range []*engine{a, b} {
			page, err := e.Uploads(ctx, owner, "", 10)
			if err != nil || len(page.Items) != 1 || page.Items[0].Upload.Received.Len() != 6 {
				t.Errorf("listed: %+v, %v", page, err)
			}
		}
		if _, err := a.Complete(ctx, owner, id, ingest.CompleteRequest{}); err != nil {
			t.Fatal(err)
		}
		if status, err := b.Status(ctx, owner, id); err != nil || status.State != upload.Complete {
			t.Errorf("status after complete: %+v, %v", status, err)
		}
		if page, err := b.Uploads(ctx, owner, "", 10); err != nil || len(page.Items) > 0 {
			t.Errorf("listed after complete: %+v, %v", page, err)
		}
	})
}

// Two nodes that are asked to begin at once with one Idempotency-Key end with one upload.
func TestOneKeyOnTwoNodes(t *testing.T) {
	t.Parallel()
	onEachView(t, func(t *testing.T, a, b *engine) {
		for i := range 20 {
			size := int64(1 << 20)
			r := ingest.InitRequest{Name: "a", Size: &size, Key: fmt.Sprint("key ", i)}
			var ids [2]string
			var wg sync.WaitGroup
			for n, e := range []*engine{a, b} {
				wg.Go(func() {
					opened, _, err := e.Init(t.Context(), owner, r)
					if err != nil {
						t.Error(err)
					}
					ids[n] = opened.ID
				})
			}
			wg.Wait()
			if ids[0] != ids[1] || ids[0] == "" {
				t.Errorf("one key, two uploads: %q", ids)
			}
			again, replayed, err := b.Init(t.Context(), owner, r)
			if err != nil || !replayed || again.ID != ids[0] {
				t.Errorf("repeated: %+v, %v, %v", again, replayed, err)
			}
			r.Name = "b"
			for _, e := range []*engine{a, b} {
				if _, _, err := e.Init(t.Context(), owner, r); !errors.Is(err, upload.KeyReused) {
					t.Errorf("the key of another request: %v", err)
				}
			}
		}
		count := 0
		for _, e := range []*engine{a, b} {
			for range e.staging.All() {
				count++
			}
		}
		if count != 20 {
			t.Errorf("20 keys, %d uploads on the nodes' disks", count)
		}
	})
}

// Chunks that turn out damaged at complete are not shown any more, also where a bit was set that never was.
func TestDamagedChunksAreNotShown(t *testing.T) {
	t.Parallel()
	onEachView(t, func(t *testing.T, a, b *engine) {
		ctx := t.Context()
		data := random(61, 3<<20)
		id := a.mustBegin(data)
		a.mustPut(id, data)
		a.clock.advance(time.Second) // the data is newer than the journal
		flip(t, a, id, 1<<20+5)
		sha1 := upload.SumSHA1(data)
		if _, err := a.Complete(ctx, owner, id, ingest.CompleteRequest{SHA1: &sha1}); !errors.Is(err, upload.Incomplete) {
			t.Fatalf("complete of damaged bytes: %v", err)
		}
		status, err := b.Status(ctx, owner, id)
		if err != nil || status.Upload.Received.Has(1) || status.Upload.Received.Len() != 2 {
			t.Errorf("the damaged chunk is shown: %+v, %v", status, err)
		}
		if err := a.PutChunk(ctx, owner, id, 1, body(chunk(data, 1))); err != nil {
			t.Fatal(err)
		}
		f, err := a.Complete(ctx, owner, id, ingest.CompleteRequest{SHA1: &sha1})
		if err != nil {
			t.Fatal(err)
		}
		a.mustRead(f.ID, data)
	})
}

// watchedView looks at staging when an upload is removed.
type watchedView struct {
	chunkstore.View
	removed func(id string)
}

func (w watchedView) Remove(ctx context.Context, spec *upload.Spec) error {
	w.removed(spec.ID)
	return w.View.Remove(ctx, spec)
}

// An upload leaves staging before it leaves the view: a chunk that is about to be marked finds it ended, and
// does not make it known again for as long as it would have lived.
func TestRemovedForGood(t *testing.T) {
	t.Parallel()
	e := newEngine(t)
	removed := 0
	e.View = watchedView{e.View, func(id string) {
		removed++
		if _, err := e.staging.Get(id); !errors.Is(err, upload.NotFound) {
			t.Errorf("removed from the view while it is in staging: %v", err)
		}
	}}
	data := random(62, 1<<20)
	if err := e.Cancel(t.Context(), owner, e.mustBegin(data)); err != nil {
		t.Fatal(err)
	}
	e.mustUpload(data)
	e.transfer()
	if r, err := e.instant(t.Context(), owner, e.mustBegin(data), data); err != nil || r.Answer == nil {
		t.Fatalf("instant upload: %+v, %v", r, err)
	}
	if removed != 3 {
		t.Errorf("%d of 3 uploads were removed from the view", removed)
	}
}

// redisProcess is a Redis of the test's own.
type redisProcess struct {
	t    *testing.T
	args []string
	url  string
	cmd  *exec.Cmd
}

func startRedis(t *testing.T, address string) *redisProcess {
	t.Helper()
	binary, err := exec.LookPath("redis-server")
	testenv.Need(t, err == nil, "redis-server is not installed: scripts/services install")
	_, port, _ := strings.Cut(address, ":")
	r := &redisProcess{t: t, url: "redis://" + address, args: []string{
		binary, "--bind", "127.0.0.1", "--port", port, "--dir", t.TempDir(), "--appendonly", "yes", "--save", "", "--logfile", "log",
	}}
	r.start()
	t.Cleanup(func() {
		_ = r.cmd.Process.Signal(syscall.SIGCONT)
		r.kill()
	})
	return r
}

func (r *redisProcess) start() {
	r.t.Helper()
	r.cmd = exec.Command(r.args[0], r.args[1:]...)
	if err := r.cmd.Start(); err != nil {
		r.t.Fatal(err)
	}
}

func (r *redisProcess) kill() {
	_ = r.cmd.Process.Kill()
	_ = r.cmd.Wait()
}

func (r *redisProcess) cli(args ...string) {
	r.t.Helper()
	u, _ := url.Parse(r.url)
	if out, err := exec.Command("redis-cli", append([]string{"-p", u.Port()}, args...)...).CombinedOutput(); err != nil {
		r.t.Errorf("redis-cli %v: %s, %v", args, out, err)
	}
}

// Faults 9 and 10: whatever happens to Redis in the middle of an upload, each acknowledged chunk is in every
// status, also another node's, and the file comes back as it was sent.
func TestRedisFails(t *testing.T) {
	t.Parallel()
	for i, c := range []struct {
		name   string
		breaks func(r *redisProcess)
		mends  func(r *redisProcess)
	}{
		{"flushed", func(r *redisProcess) { r.cli("FLUSHALL") }, func(*redisProcess) {}},
		{
			"stopped",
			func(r *redisProcess) { _ = r.cmd.Process.Signal(syscall.SIGSTOP) },
			func(r *redisProcess) { _ = r.cmd.Process.Signal(syscall.SIGCONT) },
		},
		{"killed", func(r *redisProcess) { r.kill() }, func(r *redisProcess) { r.start() }},
		{"evicting", func(r *redisProcess) {
			r.cli("CONFIG", "SET", "maxmemory-policy", "allkeys-lru")
			r.cli("CONFIG", "SET", "maxmemory", "1")
		}, func(r *redisProcess) { r.cli("CONFIG", "SET", "maxmemory", "0") }},
		{"bits set by hand", func(r *redisProcess) {
			r.cli("EVAL", `for _, k in ipairs(redis.call('KEYS', '*upload:*')) do redis.call('HSET', k, 'chunks', '\255\255') end return 1`, "0")
		}, func(*redisProcess) {}},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			r := startRedis(t, fmt.Sprintf("127.0.0.1:%d", freePort(t)))
			view := redisViews(t, r.url)
			a := sharing(t, "n1", view(), nil)
			b := sharing(t, "n2", view(), a)
			ctx, cancel := context.WithCancel(t.Context())
			var running sync.WaitGroup
			defer running.Wait()
			defer cancel()
			for _, e := range []*engine{a, b} {
				running.Go(func() { _ = e.Run(ctx) })
			}
			data := random(uint64(70+i), 8<<20+1)
			first := a.mustBegin(data)
			put := func(id string, from, to int) {
				t.Helper()
				for i := from; i < to; i++ {
					if err := a.PutChunk(ctx, owner, id, i, body(chunk(data, i))); err != nil {
						t.Fatalf("chunk %d: %v", i, err)
					}
					own, err := a.Status(ctx, owner, id)
					if err != nil || own.Upload.Received.Len() != i+1 {
						t.Fatalf("the own node's status after chunk %d: %v, %v", i, own.Upload.Missing(), err)
					}
					if status, err := b.Status(ctx, owner, id); err == nil {
						for k := range i + 1 {
							if !status.Upload.Received.Has(k) {
								t.Fatalf("chunk %d was acknowledged and is not in another node's status", k)
							}
						}
					}
				}
			}
			put(first, 0, 3)
			c.breaks(r)
			put(first, 3, 6)
			second := a.mustBegin(data) // everything goes on, on this node
			key := ingest.InitRequest{Name: "k", Key: "k"}
			third, _, err := a.Init(ctx, owner, key)
			if err != nil {
				t.Fatal(err)
			}
			if again, replayed, err := a.Init(ctx, owner, key); err != nil || !replayed || again.ID != third.ID {
				t.Errorf("init repeated: %+v, %v, %v", again, replayed, err)
			}
			if page, err := a.Uploads(ctx, owner, "", 10); err != nil || c.name != "evicting" && c.name != "flushed" && len(page.Items) != 3 {
				t.Errorf("%d listed, %v", len(page.Items), err)
			}
			sha1 := upload.SumSHA1(data)
			if asked, err := a.Instant(ctx, owner, second, ingest.InstantRequest{SHA1: sha1}); err != nil || asked.Challenge == nil {
				t.Errorf("instant upload: %+v, %v", asked, err)
			}
			if _, err := a.Complete(ctx, owner, first, ingest.CompleteRequest{}); !errors.Is(err, upload.Incomplete) {
				t.Errorf("complete with chunks missing: %v", err)
			}
			put(second, 0, 9)
			if f, err := a.Complete(ctx, owner, second, ingest.CompleteRequest{SHA1: &sha1}); err != nil {
				t.Error(err)
			} else {
				a.mustRead(f.ID, data)
			}
			if err := a.Cancel(ctx, owner, third.ID); err != nil {
				t.Error(err)
			}
			c.mends(r)
			seen := func() bool {
				page, err := b.Uploads(ctx, owner, "", 10)
				return err == nil && len(page.Items) == 1 && page.Items[0].ID == first && page.Items[0].Upload.Received.Len() == 6
			}
			for end := time.Now().Add(30 * time.Second); !seen(); time.Sleep(10 * time.Millisecond) {
				if time.Now().After(end) {
					page, err := b.Uploads(ctx, owner, "", 10)
					t.Fatalf("the upload was not put back: %+v, %v", page, err)
				}
			}
			put(first, 6, 9)
			f, err := a.Complete(ctx, owner, first, ingest.CompleteRequest{SHA1: &sha1})
			if err != nil {
				t.Fatal(err)
			}
			a.mustRead(f.ID, data)
		})
	}
}

// freePort is one below those that the system gives to outgoing connections.
func freePort(t *testing.T) int {
	t.Helper()
	for range 100 {
		port := 21000 + rand.IntN(9000)
		if l, err := net.Listen("tcp", fmt.Sprintf("127.0.0.1:%d", port)); err == nil {
			_ = l.Close()
			return port
		}
	}
	t.Fatal("no free port")
	return 0
}
