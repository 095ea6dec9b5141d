package redis

import (
	"flag"
	"fmt"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/gomodule/redigo/redis"

	"gantry/chunkstore/chunkstoretest"
	"gantry/internal/testenv"
	"gantry/upload"
)

// An upload of 10,000 chunks takes at most 4 KiB of Redis' memory, with a name, a path and metadata of usual
// lengths.
func TestMemory(t *testing.T) {
	v := newView(t, testenv.Address(t, testenv.Redis), Options{})
	o := chunkstoretest.NewOwner(upload.MaxChunks)
	spec := o.Spec()
	spec.Name, spec.Path = "Quarterly report, final version (3).pdf", "projects/2026/reports/quarterly"
	spec.Metadata = map[string]string{"camera": "none", "modified": "2026-03-01T12:00:00Z"}
	spec.SHA1 = upload.SumSHA1(nil)
	if err := v.Begin(t.Context(), spec, ttlOfTests); err != nil {
		t.Fatal(err)
	}
	key := v.uploadKey(spec.ID)
	for index := range upload.MaxChunks {
		o.Take(index)
		if index%97 != 0 && index != upload.MaxChunks-1 {
			continue // all in the end, by Put
		}
		if err := v.Mark(t.Context(), spec.ID, index, o.Truth); err != nil {
			t.Fatal(err)
		}
	}
	measure := func(when string) {
		t.Helper()
		n, err := redis.Int(at(t, v, key, "MEMORY", "USAGE", key, "SAMPLES", 0), nil)
		if err != nil || n > 4<<10 {
			t.Errorf("%s an upload of %d chunks takes %d bytes (%v)", when, upload.MaxChunks, n, err)
		}
		t.Logf("%s an upload of %d chunks takes %d bytes", when, upload.MaxChunks, n)
	}
	measure("marked")
	if err := v.Put(t.Context(), spec.ID, o.Truth); err != nil {
		t.Fatal(err)
	}
	measure("put")
}

// One round trip per chunk, and one per status.
func TestRoundTrips(t *testing.T) {
	s := startServer(t)
	proxy := startProxy(t, s.addr)
	v := newView(t, proxy.url(), Options{})
	o := chunkstoretest.NewOwner(1000)
	if err := v.Begin(t.Context(), o.Spec(), ttlOfTests); err != nil {
		t.Fatal(err)
	}
	mark := func(index int) {
		t.Helper()
		o.Take(index)
		if err := v.Mark(t.Context(), o.Spec().ID, index, o.Truth); err != nil {
			t.Fatal(err)
		}
	}
	mark(0) // the server learns the script
	before := proxy.trips()
	for index := 1; index <= 100; index++ {
		mark(index)
	}
	if n := proxy.trips() - before; n != 100 {
		t.Errorf("%d round trips for 100 chunks", n)
	}
	before = proxy.trips()
	for range 100 {
		if _, err := v.Get(t.Context(), o.Spec().ID); err != nil {
			t.Fatal(err)
		}
	}
	if n := proxy.trips() - before; n != 100 {
		t.Errorf("%d round trips for 100 statuses", n)
	}
}

func benchView(b *testing.B) (*View, *chunkstoretest.Owner) {
	v := newView(b, testenv.Address(b, testenv.Redis), Options{})
	o := chunkstoretest.NewOwner(upload.MaxChunks)
	if err := v.Begin(b.Context(), o.Spec(), ttlOfTests); err != nil {
		b.Fatal(err)
	}
	return v, o
}

func BenchmarkMark(b *testing.B) {
	v, o := benchView(b)
	index := 0
	for b.Loop() {
		o.Take(index % upload.MaxChunks)
		if err := v.Mark(b.Context(), o.Spec().ID, index%upload.MaxChunks, o.Truth); err != nil {
			b.Fatal(err)
		}
		index++
	}
}

func BenchmarkMarkParallel(b *testing.B) {
	v, o := benchView(b)
	o.Take(7)
	b.RunParallel(func(pb *testing.PB) {
		for pb.Next() {
			if err := v.Mark(b.Context(), o.Spec().ID, 7, o.Truth); err != nil {
				b.Fatal(err)
			}
		}
	})
}

func BenchmarkGet(b *testing.B) {
	v, o := benchView(b)
	for b.Loop() {
		b.StopTimer()
		if err := v.Mark(b.Context(), o.Spec().ID, 7, o.Truth); err != nil {
			b.Fatal(err)
		}
		b.StartTimer()
		if _, err := v.Get(b.Context(), o.Spec().ID); err != nil {
			b.Fatal(err)
		}
	}
}

func BenchmarkPut(b *testing.B) {
	v, o := benchView(b)
	for b.Loop() {
		if err := v.Put(b.Context(), o.Spec().ID, o.Truth); err != nil {
			b.Fatal(err)
		}
	}
}

// BenchmarkPing is the least that one round trip costs.
func BenchmarkPing(b *testing.B) {
	v, _ := benchView(b)
	for b.Loop() {
		if err := v.Ping(b.Context()); err != nil {
			b.Fatal(err)
		}
	}
}

var openUploads = flag.Int("uploads", 20_000, "how many uploads are open in BenchmarkOpenUploads; the figures in the docs are for 1000000")

// BenchmarkOpenUploads has very many uploads open, of a thousand chunks and a hundred owners each, as init begins
// them, and puts them back after Redis was emptied, as the owner node does.
func BenchmarkOpenUploads(b *testing.B) {
	server := testenv.Private(b, "redis")
	v := newView(b, server.Address(testenv.Redis), Options{Timeout: 10 * time.Second}) // it forks while it is filled
	n := *openUploads
	specs := make([]*upload.Spec, n)
	for i := range specs {
		spec := chunkstoretest.NewSpec(1000<<20, 1<<20)
		spec.Owner, spec.Key, spec.Path = fmt.Sprintf("owner %d", i%100), fmt.Sprintf("key %d", i), "projects/2026/reports/quarterly"
		specs[i] = &spec
	}
	received := chunkstoretest.NewOwner(1000)
	for index := range 500 {
		received.Take(2 * index)
	}
	truth := func(spec *upload.Spec) func(string) (upload.Upload, time.Duration, error) {
		return func(string) (upload.Upload, time.Duration, error) {
			u := received.Upload()
			u.Spec = *spec
			return u, 24 * time.Hour, nil
		}
	}
	used := func() int64 {
		var bytes int64
		reply, err := redis.Values(at(b, v, "any", "MEMORY", "STATS"), nil)
		if err != nil {
			b.Fatal(err)
		}
		for i := 0; i < len(reply); i += 2 {
			if name, _ := redis.String(reply[i], nil); name == "total.allocated" {
				bytes, _ = redis.Int64(reply[i+1], nil)
			}
		}
		return bytes
	}
	all := func(what string, do func(spec *upload.Spec) error) {
		var next atomic.Int64
		var group sync.WaitGroup
		begun := time.Now()
		for range 16 {
			group.Go(func() {
				for i := next.Add(1) - 1; i < int64(n); i = next.Add(1) - 1 {
					if err := do(specs[i]); err != nil {
						b.Error(err)
						return
					}
				}
			})
		}
		group.Wait()
		b.ReportMetric(float64(n)/time.Since(begun).Seconds(), what+"/s")
	}
	one := func(what string, do func(i int) error) {
		const times = 5000
		took := make([]time.Duration, times)
		for i := range took {
			begun := time.Now()
			if err := do(i * 7919 % n); err != nil {
				b.Fatal(err)
			}
			took[i] = time.Since(begun)
		}
		slices.Sort(took)
		b.ReportMetric(float64(took[times/2].Microseconds()), what+"-p50-µs")
		b.ReportMetric(float64(took[times*99/100].Microseconds()), what+"-p99-µs")
	}
	for b.Loop() {
		before := used()
		all("begin", func(spec *upload.Spec) error { return v.Begin(b.Context(), spec, 24*time.Hour) })
		b.ReportMetric(float64(used()-before)/float64(n), "B/upload")
		one("mark", func(i int) error { return v.Mark(b.Context(), specs[i].ID, 0, truth(specs[i])) })
		one("get", func(i int) error {
			if err := v.Mark(b.Context(), specs[i].ID, 2, truth(specs[i])); err != nil {
				return err
			}
			_, err := v.Get(b.Context(), specs[i].ID)
			return err
		})
		one("list", func(i int) error {
			_, err := v.List(b.Context(), specs[i].Owner, "", 100)
			return err
		})
		server.Do("flush", "redis")
		all("put-back", func(spec *upload.Spec) error { return v.Put(b.Context(), spec.ID, truth(spec)) })
	}
}
