package ingest_test

import (
	"bytes"
	"context"
	"log/slog"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"gantry/chunkstore/memory"
	"gantry/server/ingest"
	"gantry/store"
	storememory "gantry/store/memory"
	"gantry/upload"
)

// The scrub finds, by itself, what has become of objects since they were verified: each copy of each.
func TestScrub(t *testing.T) {
	t.Parallel()
	e := newEngine(t)
	a, b := storememory.New(), storememory.New()
	both := store.NewMirror(store.NewGuard(a, store.GuardOptions{}), b)
	stores := map[string]store.Store{"local": both}
	e.worker.Stores["local"] = both
	var blobs []upload.Blob
	for i := range byte(6) {
		blobs = append(blobs, e.blobOf(e.mustUpload(bytes.Repeat([]byte{i}, 100_000))))
	}
	e.transfer()
	keys := make([]string, len(blobs))
	for i := range blobs {
		keys[i] = upload.ObjectKeyFor(&blobs[i])
	}
	a.Alter(keys[1], func(data []byte) []byte { data[5] ^= 1; return data })
	b.Alter(keys[2], func(data []byte) []byte { return data[1:] })
	if err := b.Delete(t.Context(), keys[3]); err != nil {
		t.Fatal(err)
	}

	reg := prometheus.NewRegistry()
	log := &lockedBuffer{}
	s := ingest.New(ingest.Options{Node: "n1", Route: toLocal, ScrubRate: 1 << 30, Janitor: time.Hour}, ingest.Deps{
		Staging: e.staging, View: memory.New(), DB: e.db, Stores: stores, Wake: func() {}, Now: e.clock.now,
		Metrics: ingest.NewMetrics(reg), Log: slog.New(slog.NewTextHandler(log, nil)),
	})
	ctx, cancel := context.WithCancel(t.Context())
	var running sync.WaitGroup
	running.Go(func() {
		if err := s.Run(ctx); err != nil {
			t.Error(err)
		}
	})
	found := func(i, copied int) bool {
		return strings.Contains(log.String(), "object_key="+keys[i]) && strings.Contains(log.String(), "copy="+string(rune('0'+copied)))
	}
	for deadline := time.Now().Add(time.Minute); ; time.Sleep(5 * time.Millisecond) {
		if found(1, 0) && found(2, 1) && found(3, 1) {
			break
		}
		if time.Now().After(deadline) {
			t.Fatalf("not found; the log is\n%s", log.String())
		}
	}
	cancel()
	running.Wait()
	for _, i := range []int{0, 4, 5} {
		if strings.Contains(log.String(), keys[i]) {
			t.Errorf("complains about an object that is right:\n%s", log.String())
		}
	}
	// It reports, and changes nothing: with wrong credentials, say, everything seems to be gone.
	for i := range blobs {
		if got, err := e.db.Blob(t.Context(), blobs[i].ID); err != nil || got.State != upload.BlobLive || got.Store != "local" {
			t.Errorf("%+v, %v", got, err)
		}
	}
}

// lockedBuffer is a log that can be read while it is written.
type lockedBuffer struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (l *lockedBuffer) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.Write(p)
}

func (l *lockedBuffer) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.String()
}
