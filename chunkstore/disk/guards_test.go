package disk_test

import (
	"errors"
	"math/rand/v2"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"gantry/chunkstore/chunkstoretest"
	"gantry/chunkstore/disk"
	"gantry/internal/vfs"
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

// The same for a chunk that is hashed from the disk.
func TestVoidedPrefixIsNotExtended(t *testing.T) {
	t.Parallel()
	l, inner := newLife(), memfs.New(nil)
	fsys := faultfs.New(inner, nil)
	s := openOn(t, fsys, disk.Options{})
	ok(t, s.Create(t.Context(), l.spec))
	send(t, s, l, 1)
	var seen atomic.Bool
	voided := make(chan struct{})
	fsys.SetHook(func(op faultfs.Op) error { // in the background, when chunk 1 is read to be hashed
		if op.Kind == faultfs.Read && strings.HasSuffix(op.Name, ".data") && seen.CompareAndSwap(false, true) {
			defer close(voided)
			corrupt(t, inner, l.spec.ID, 0)
			if bad, err := s.Recheck(t.Context(), l.spec.ID); err != nil || len(bad) != 1 {
				t.Errorf("bad %v, %v", bad, err)
			}
		}
		return nil
	})
	send(t, s, l, 0)
	<-voided
	u, err := s.Get(l.spec.ID)
	ok(t, err)
	copy(l.content, "other bytes than before")
	l.finish(t, s, &u)
}

// A discard waits for a seal that goes on, which then says that the upload is gone.
func TestDiscardDuringSeal(t *testing.T) {
	t.Parallel()
	l := newLife()
	fsys := faultfs.New(memfs.New(nil), nil)
	s := openOn(t, fsys, disk.Options{})
	ok(t, s.Create(t.Context(), l.spec))
	send(t, s, l, 0, 1, 2, 3, 4)
	var wg sync.WaitGroup
	var once sync.Once
	var sealing atomic.Bool
	var discardErr error
	fsys.SetHook(func(op faultfs.Op) error {
		switch {
		case op.Kind == faultfs.Sync && strings.HasSuffix(op.Name, ".journal"):
			once.Do(func() {
				wg.Go(func() { discardErr = s.Discard(t.Context(), l.spec.ID) })
				waitFor(t, func() bool { _, err := s.Get(l.spec.ID); return errors.Is(err, upload.NotFound) })
				time.Sleep(10 * time.Millisecond) // for a discard that does not wait
			})
		case op.Kind == faultfs.Remove && sealing.Load():
			t.Errorf("%s was removed during the seal", op.Name)
		}
		return nil
	})
	sealing.Store(true)
	_, err := s.Seal(t.Context(), l.spec.ID, upload.UnknownSize)
	sealing.Store(false)
	wg.Wait()
	want(t, err, upload.NotFound)
	ok(t, discardErr)
}

// A discard that failed and is repeated gives the room that was promised back once: given back twice
// it would be promised to two.
func TestRoomIsGivenBackOnce(t *testing.T) {
	t.Parallel()
	fsys := faultfs.New(memfs.New(nil), nil)
	s := openOn(t, fsys, disk.Options{})
	doomed, other := newLife().spec, newLife().spec
	ok(t, s.Create(t.Context(), doomed))
	ok(t, s.Create(t.Context(), other))
	fsys.SetHook(failing(faultfs.Remove, ".manifest", syscall.EIO))
	want(t, s.Discard(t.Context(), doomed.ID), upload.Unavailable)
	ok(t, s.Discard(t.Context(), doomed.ID))
	if h := s.Health(); h.Reserved != other.Size {
		t.Errorf("%d bytes are reserved, want the other upload's %d", h.Reserved, other.Size)
	}
}

// A process that is killed while it discards or commits leaves an upload that is whole or ended,
// never one that is open again with something missing.
func TestKilledWhileEnding(t *testing.T) {
	t.Parallel()
	for name, end := range map[string]func(s *disk.Staging, id string) error{
		"discard": func(s *disk.Staging, id string) error { return s.Discard(t.Context(), id) },
		"commit":  func(s *disk.Staging, id string) error { return s.Commit(t.Context(), id) },
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			l, inner := newLife(), memfs.New(nil)
			fsys := faultfs.New(inner, nil)
			s := openOn(t, fsys, disk.Options{})
			ok(t, s.Create(t.Context(), l.spec))
			send(t, s, l, 0, 1, 2, 3, 4)
			_, err := s.Seal(t.Context(), l.spec.ID, upload.UnknownSize)
			ok(t, err)
			var left []*memfs.FS
			fsys.SetHook(func(op faultfs.Op) error {
				if op.Kind == faultfs.Remove {
					left = append(left, inner.Kill())
				}
				return nil
			})
			ok(t, end(s, l.spec.ID))
			if len(left) < 2 {
				t.Fatalf("%d removals", len(left))
			}
			for i, fsys := range left {
				again := openOn(t, fsys, disk.Options{})
				u, err := again.Get(l.spec.ID)
				if errors.Is(err, upload.NotFound) {
					continue
				}
				ok(t, err)
				if !u.Sealed {
					t.Errorf("killed before removal %d: open, missing %v", i, u.Missing())
				}
			}
		})
	}
}

// The file of an upload that still grows is not offered: a store would make an object of it, by a
// second name, and chunks would go on being written into that object.
func TestAnOpenUploadIsNotLinked(t *testing.T) {
	t.Parallel()
	l := newLife()
	s := openOn(t, memfs.New(nil), disk.Options{})
	ok(t, s.Create(t.Context(), l.spec))
	send(t, s, l, 0, 1)
	linkable := func() bool {
		t.Helper()
		c, err := s.Open(t.Context(), l.spec.ID)
		ok(t, err)
		defer func() { ok(t, c.Close()) }()
		_, is := c.(interface{ File() vfs.File })
		return is
	}
	if linkable() {
		t.Error("the file of an open upload is offered to be linked")
	}
	send(t, s, l, 2, 3, 4)
	_, err := s.Seal(t.Context(), l.spec.ID, upload.UnknownSize)
	ok(t, err)
	if !linkable() {
		t.Error("the file of a sealed upload is not offered")
	}
}

// A process that met a failed sync and is stopped in order does not leave a directory that is taken
// for clean: its last syncs succeeded, of pages that the system had given up.
func TestStopAfterAFailedSyncIsNotClean(t *testing.T) {
	t.Parallel()
	opt := disk.Options{Durability: disk.DurableChunk}
	l, inner := newLife(), memfs.New(nil)
	fsys := faultfs.New(inner, nil)
	s := openOn(t, fsys, opt)
	ok(t, s.Create(t.Context(), l.spec))
	send(t, s, l, 0)
	fsys.SetHook(failing(faultfs.Sync, ".journal", syscall.EIO))
	want(t, s.WriteChunk(t.Context(), l.spec.ID, 1, chunkstoretest.BodyOf(l.chunk(1))), upload.Unavailable)
	_ = s.Close()
	again := openOn(t, inner, opt)
	send(t, again, l, 1) // there, says the cache
	opt.BootID = "boot 2"
	for seed := range uint64(20) {
		after := openOn(t, inner.Crash(rand.New(rand.NewPCG(seed, 5))), opt)
		u, err := after.Get(l.spec.ID)
		ok(t, err)
		if !u.Received.Has(0) || !u.Received.Has(1) {
			t.Fatalf("an acknowledged chunk did not survive: missing %v", u.Missing())
		}
	}
}

// A chunk that was under way when a journal broke is not acknowledged either.
func TestNothingIsAcknowledgedAfterABreakdown(t *testing.T) {
	t.Parallel()
	fsys := faultfs.New(memfs.New(nil), nil)
	s := openOn(t, fsys, disk.Options{Durability: disk.DurableChunk})
	first, second := newLife(), newLife()
	ok(t, s.Create(t.Context(), first.spec))
	ok(t, s.Create(t.Context(), second.spec))
	body, open := chunkstoretest.GatedBody(first.chunk(0), 100)
	begun := chunkstoretest.Begun(&body)
	var wg sync.WaitGroup
	var err error
	wg.Go(func() { err = s.WriteChunk(t.Context(), first.spec.ID, 0, body) })
	<-begun
	fsys.SetHook(failing(faultfs.Sync, ".journal", syscall.EIO))
	want(t, s.WriteChunk(t.Context(), second.spec.ID, 0, chunkstoretest.BodyOf(second.chunk(0))), upload.Unavailable)
	open()
	wg.Wait()
	want(t, err, upload.Unavailable)
}

// The room that was promised to a whole file is free again when the file is there, or failed to come.
func TestRoomOfAWholeFileIsGivenBack(t *testing.T) {
	t.Parallel()
	l := newLife()
	s := openOn(t, memfs.New(nil), disk.Options{})
	_, err := s.WriteWhole(t.Context(), l.wholeID, chunkstoretest.BodyOf(l.content), 1<<20)
	ok(t, err)
	cut := chunkstoretest.BodyOf(l.content[:100])
	cut.Length = int64(len(l.content))
	_, err = s.WriteWhole(t.Context(), upload.NewUploadID("n0de"), cut, 1<<20)
	want(t, err, upload.ShortBody)
	if h := s.Health(); h.Reserved != 0 {
		t.Errorf("%d bytes are still promised", h.Reserved)
	}
}
