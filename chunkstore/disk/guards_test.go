package disk_test

import (
	"math/rand/v2"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"gantry/chunkstore/chunkstoretest"
	"gantry/chunkstore/disk"
	"gantry/internal/vfs/faultfs"
	"gantry/internal/vfs/memfs"
	"gantry/upload"
)

// Each of these fails when one guard is taken out that no other test misses.

// A sealed upload in which a chunk is void is open again at once, not only after a restart: the seal
// that stood must not be committed.
func TestDropTakesTheSealBack(t *testing.T) {
	t.Parallel()
	l, inner := newLife(), memfs.New(nil)
	s := openOn(t, inner, disk.Options{})
	ok(t, s.Create(t.Context(), l.spec))
	send(t, s, l, 0, 1, 2, 3, 4)
	_, err := s.Seal(t.Context(), l.spec.ID, upload.UnknownSize)
	ok(t, err)
	corrupt(t, inner, l.spec.ID, 2)
	bad, err := s.Recheck(t.Context(), l.spec.ID)
	ok(t, err)
	if !slices.Equal(bad, []upload.Range{{First: 2, Last: 2}}) {
		t.Fatalf("bad %v", bad)
	}
	_, err = s.Seal(t.Context(), l.spec.ID, upload.UnknownSize)
	want(t, err, upload.Incomplete)
	u, err := s.Get(l.spec.ID)
	ok(t, err)
	l.finish(t, s, &u)
}

// A chunk that a process with durability "complete" left is acknowledged by one with "chunk" only
// when its bytes, its record and the names of both files are on stable storage.
func TestChunksOfALessDurableProcessAreSynced(t *testing.T) {
	t.Parallel()
	opt := disk.Options{Durability: disk.DurableChunk}
	l, left := killed(t)
	s := openOn(t, left, opt)
	send(t, s, l, 0, 1, 2, 3, 4)
	opt.BootID = "boot 2"
	for seed := range uint64(20) {
		after := openOn(t, left.Crash(rand.New(rand.NewPCG(seed, 7))), opt)
		u, err := after.Get(l.spec.ID)
		ok(t, err)
		if len(u.Missing()) != 0 {
			t.Fatalf("acknowledged chunks did not survive: missing %v", u.Missing())
		}
		l.finish(t, after, &u)
	}
}

// slowSyncDir is a file system whose first SyncDir returns some time after it has done its work.
type slowSyncDir struct {
	*memfs.FS
	once   sync.Once
	synced chan struct{}
	goOn   chan struct{}
}

func (s *slowSyncDir) SyncDir(name string) error {
	err := s.FS.SyncDir(name)
	s.once.Do(func() {
		close(s.synced)
		<-s.goOn
	})
	return err
}

// A sync that is under way may have missed what came after it began, so it is not shared.
func TestASyncUnderWayIsNotShared(t *testing.T) {
	t.Parallel()
	inner := memfs.New(nil)
	ok(t, openOn(t, inner, disk.Options{}).Close()) // the boot file is there, durably
	slow := &slowSyncDir{FS: inner, synced: make(chan struct{}), goOn: make(chan struct{})}
	slow.once.Do(func() {}) // not the sync of Open
	fsys := faultfs.New(slow, nil)
	s := openOn(t, fsys, disk.Options{})
	slow.once = sync.Once{}
	first, second := chunkstoretest.NewSpec(1, chunkSize), chunkstoretest.NewSpec(1, chunkSize)
	written := make(chan struct{}, 2)
	fsys.SetHook(func(op faultfs.Op) error {
		if op.Kind == faultfs.Close && strings.HasPrefix(op.Name, second.ID) {
			written <- struct{}{}
		}
		return nil
	})
	var wg sync.WaitGroup
	errs := make([]error, 2)
	wg.Go(func() { errs[0] = s.Create(t.Context(), first) })
	<-slow.synced
	wg.Go(func() { errs[1] = s.Create(t.Context(), second) })
	<-written
	time.Sleep(20 * time.Millisecond) // it is at its sync now: were it not, the test would only find less
	close(slow.goOn)
	wg.Wait()
	ok(t, errs[0])
	ok(t, errs[1])
	for seed := range uint64(20) {
		after := openOn(t, inner.Crash(rand.New(rand.NewPCG(seed, 7))), disk.Options{BootID: "boot 2"})
		for _, id := range []string{first.ID, second.ID} {
			if _, err := after.Get(id); err != nil {
				t.Fatalf("an acknowledged upload did not survive: %v", err)
			}
		}
	}
}

// A prefix that was voided while a chunk's record was being synced does not come back with that
// chunk: it would stand for bytes that are sent anew, and may be others.
func TestVoidedPrefixStaysVoid(t *testing.T) {
	t.Parallel()
	l, inner := newLife(), memfs.New(nil)
	fsys := faultfs.New(inner, nil)
	s := openOn(t, fsys, disk.Options{Durability: disk.DurableChunk})
	ok(t, s.Create(t.Context(), l.spec))
	send(t, s, l, 0)
	var once sync.Once
	fsys.SetHook(func(op faultfs.Op) error {
		if op.Kind == faultfs.Sync && strings.HasSuffix(op.Name, ".journal") {
			once.Do(func() {
				corrupt(t, inner, l.spec.ID, 0)
				if bad, err := s.Recheck(t.Context(), l.spec.ID); err != nil || len(bad) != 1 {
					t.Errorf("bad %v, %v", bad, err)
				}
			})
		}
		return nil
	})
	send(t, s, l, 1)
	u, err := s.Get(l.spec.ID)
	ok(t, err)
	if u.Received.Has(0) || u.HashedBytes != 0 {
		t.Errorf("%d bytes are hashed, missing %v", u.HashedBytes, u.Missing())
	}
	copy(l.content, "other bytes than before")
	l.finish(t, s, &u)
}
