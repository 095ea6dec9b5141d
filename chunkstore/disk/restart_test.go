package disk_test

import (
	"bytes"
	"errors"
	"fmt"
	"math/rand/v2"
	"strings"
	"sync"
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

// killed returns what a killed process left of an upload with all chunks acknowledged, none of it
// synced.
func killed(t *testing.T) (*life, *memfs.FS) {
	t.Helper()
	l, inner := newLife(), memfs.New(nil)
	s := openOn(t, inner, disk.Options{})
	ok(t, s.Create(t.Context(), l.spec))
	send(t, s, l, 2, 1, 0, 4, 3)
	waitFor(t, func() bool { u, _ := s.Get(l.spec.ID); return u.HashedBytes == u.Size })
	return l, inner.Kill()
}

// What the process before wrote and did not sync is synced with the rest, its directory entries too.
func TestSealAfterKillSurvivesAPowerCut(t *testing.T) {
	t.Parallel()
	for seed := range uint64(20) {
		l, left := killed(t)
		s := openOn(t, left, disk.Options{})
		_, err := s.Seal(t.Context(), l.spec.ID, upload.UnknownSize)
		ok(t, err)
		after := openOn(t, left.Crash(rand.New(rand.NewPCG(seed, 7))), disk.Options{BootID: "boot 2"})
		u, err := after.Get(l.spec.ID)
		ok(t, err)
		if !u.Sealed || !bytes.Equal(chunkstoretest.ReadAll(t, after, l.spec.ID), l.content) {
			t.Fatalf("a sealed upload did not survive: missing %v", u.Missing())
		}
	}
}

func TestCleanStopAfterKillSurvivesAPowerCut(t *testing.T) {
	t.Parallel()
	for seed := range uint64(20) {
		l, left := killed(t)
		ok(t, openOn(t, left, disk.Options{}).Close())
		after := openOn(t, left.Crash(rand.New(rand.NewPCG(seed, 7))), disk.Options{BootID: "boot 2"})
		u, err := after.Get(l.spec.ID)
		ok(t, err)
		if len(u.Missing()) != 0 {
			t.Fatalf("missing %v", u.Missing())
		}
		l.finish(t, after, &u)
	}
}

// A failed sync concerns what the process before wrote, too.
func TestSyncFailsAfterKill(t *testing.T) {
	t.Parallel()
	l, left := killed(t)
	fsys := faultfs.New(left, nil)
	s := openOn(t, fsys, disk.Options{})
	fsys.SetHook(failing(faultfs.Sync, ".data", syscall.EIO))
	_, err := s.Seal(t.Context(), l.spec.ID, upload.UnknownSize)
	want(t, err, upload.Unavailable)
	u, err := s.Get(l.spec.ID)
	ok(t, err)
	if u.Received.Len() != 0 {
		t.Errorf("unsynced chunks are believed, missing only %v", u.Missing())
	}
	l.finish(t, s, &u)
}

// Whatever comes first after a power cut looks at the chunks first.
func TestEverythingVerifiesFirst(t *testing.T) {
	t.Parallel()
	for name, first := range map[string]func(t *testing.T, s *disk.Staging, l *life){
		"get": func(t *testing.T, s *disk.Staging, l *life) {
			t.Helper()
			if u, err := s.Get(l.spec.ID); err != nil || u.Received.Has(1) {
				t.Errorf("a damaged chunk is reported there (%v)", err)
			}
		},
		"write": func(t *testing.T, s *disk.Staging, l *life) {
			t.Helper()
			send(t, s, l, 1) // not "damaged, send again": it is known to be missing
		},
		"open": func(t *testing.T, s *disk.Staging, l *life) {
			t.Helper()
			if got := chunkstoretest.ReadAll(t, s, l.spec.ID); !bytes.HasPrefix(l.content, got) {
				t.Error("wrong bytes can be read")
			}
		},
		"seal": func(t *testing.T, s *disk.Staging, l *life) {
			t.Helper()
			_, err := s.Seal(t.Context(), l.spec.ID, upload.UnknownSize)
			want(t, err, upload.Incomplete)
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			l, left := killed(t)
			corrupt(t, left, l.spec.ID, 1)
			// The mtimes say nothing after a power cut.
			f, err := left.OpenFile(l.spec.ID+".journal", vfs.ReadWrite, 0)
			ok(t, err)
			info, err := f.Stat()
			ok(t, err)
			ok(t, errors.Join(f.Truncate(info.Size()), f.Close()))
			var once sync.Once
			fsys := faultfs.New(left, func(op faultfs.Op) error {
				if op.Kind == faultfs.Read && strings.HasSuffix(op.Name, ".data") {
					once.Do(func() { time.Sleep(50 * time.Millisecond) }) // the background work is not faster than the call
				}
				return nil
			})
			s := openOn(t, fsys, disk.Options{BootID: "boot 2"})
			first(t, s, l)
			u, err := s.Get(l.spec.ID)
			ok(t, err)
			l.finish(t, s, &u)
		})
	}
}

// Which of two chunks of an upload of unknown size is acknowledged first decides.
func TestShortChunkAgainstOneBeyond(t *testing.T) {
	t.Parallel()
	for _, shortFirst := range []bool{true, false} {
		t.Run(fmt.Sprint(shortFirst), func(t *testing.T) {
			t.Parallel()
			s := openOn(t, memfs.New(nil), disk.Options{})
			l := newLife()
			l.spec.Size = upload.UnknownSize
			ok(t, s.Create(t.Context(), l.spec))
			short, full := []byte("the end"), l.chunk(3)
			late, index, early, earlyIndex := full, 3, short, 1
			if !shortFirst {
				late, index, early, earlyIndex = short, 1, full, 3
			}
			body, open := chunkstoretest.GatedBody(late, 3)
			begun := chunkstoretest.Begun(&body)
			var wg sync.WaitGroup
			var err error
			wg.Go(func() { err = s.WriteChunk(t.Context(), l.spec.ID, index, body) })
			<-begun
			ok(t, s.WriteChunk(t.Context(), l.spec.ID, earlyIndex, chunkstoretest.BodyOf(early)))
			open()
			wg.Wait()
			u, getErr := s.Get(l.spec.ID)
			ok(t, getErr)
			if shortFirst {
				want(t, err, upload.InvalidIndex)
				if u.Size != chunkSize+int64(len(short)) {
					t.Errorf("size %d", u.Size)
				}
			} else {
				want(t, err, upload.ShortBody)
				if u.Size != upload.UnknownSize {
					t.Errorf("size %d", u.Size)
				}
			}
			if u.Received.Len() != 1 {
				t.Errorf("%d chunks", u.Received.Len())
			}
		})
	}
}

// A download that begins while a finished upload is put away reads all of it.
func TestOpenDuringCommit(t *testing.T) {
	t.Parallel()
	l, inner := newLife(), memfs.New(nil)
	fsys := faultfs.New(inner, nil)
	s := openOn(t, fsys, disk.Options{})
	ok(t, s.Create(t.Context(), l.spec))
	send(t, s, l, 0, 1, 2, 3, 4)
	_, err := s.Seal(t.Context(), l.spec.ID, upload.UnknownSize)
	ok(t, err)
	seen := 0
	fsys.SetHook(func(op faultfs.Op) error {
		if op.Kind == faultfs.Remove && strings.HasPrefix(op.Name, l.spec.ID) {
			seen++
			c, err := s.Open(t.Context(), l.spec.ID)
			if err != nil {
				t.Errorf("before the removal of %s: %v", op.Name, err)
				return nil
			}
			if c.Size() != int64(len(l.content)) {
				t.Errorf("%d bytes", c.Size())
			}
			_ = c.Close()
		}
		return nil
	})
	ok(t, s.Commit(t.Context(), l.spec.ID))
	if seen != 2 {
		t.Errorf("%d removals were seen", seen)
	}
}

// After a failed sync the cache is not the disk: what a restarted process finds and promises must be
// written again. Here the record of a chunk is in the cache only, then the power fails.
func TestDoubtfulCacheIsWrittenAgain(t *testing.T) {
	t.Parallel()
	for _, suffix := range []string{".journal", ".data"} {
		for _, between := range []string{"nothing", "killed", "stopped"} {
			t.Run(suffix+", "+between, func(t *testing.T) { t.Parallel(); testDoubtfulCache(t, suffix, between) })
		}
	}
}

func testDoubtfulCache(t *testing.T, suffix, between string) {
	t.Helper()
	l, inner := newLife(), memfs.New(nil)
	fsys := faultfs.New(inner, nil)
	s := openOn(t, fsys, disk.Options{Durability: disk.DurableChunk})
	ok(t, s.Create(t.Context(), l.spec))
	send(t, s, l, 0)
	fsys.SetHook(failing(faultfs.Sync, ".journal", syscall.EIO))
	want(t, s.WriteChunk(t.Context(), l.spec.ID, 1, chunkstoretest.BodyOf(l.chunk(1))), upload.Unavailable)
	if suffix == ".data" { // the sync of the data failed unseen, with that of the journal
		f, err := inner.OpenFile(l.spec.ID+".data", vfs.ReadWrite, 0)
		ok(t, err)
		p := readData(t, inner, l.spec.ID)
		_, err = f.WriteAt(make([]byte, len(p)), 0)
		ok(t, errors.Join(err, f.Sync()))
		_, err = f.WriteAt(p, 0)
		ok(t, err)
		f.(interface{ LoseDirty() }).LoseDirty()
		ok(t, f.Close())
	}
	left := inner.Kill()
	if between != "nothing" {
		// Another process comes and goes without having looked at the upload.
		unread := faultfs.New(left, func(op faultfs.Op) error {
			if op.Kind == faultfs.Read && strings.HasSuffix(op.Name, ".data") {
				return syscall.EMFILE
			}
			return nil
		})
		other := openOn(t, unread, disk.Options{Durability: disk.DurableChunk})
		_, err := other.Get(l.spec.ID)
		want(t, err, upload.Unavailable)
		if between == "stopped" {
			ok(t, other.Close())
		}
		left = left.Kill()
	}
	again := openOn(t, left, disk.Options{Durability: disk.DurableChunk})
	ok(t, again.WriteChunk(t.Context(), l.spec.ID, 1, chunkstoretest.BodyOf(l.chunk(1))))
	for seed := range uint64(10) {
		after := openOn(t, left.Crash(rand.New(rand.NewPCG(seed, 5))), disk.Options{Durability: disk.DurableChunk, BootID: "boot 2"})
		if bad, err := after.Recheck(t.Context(), l.spec.ID); err != nil || len(bad) != 0 {
			t.Fatalf("%s: bad %v, %v", suffix, bad, err)
		}
		u, err := after.Get(l.spec.ID)
		ok(t, err)
		if !u.Received.Has(0) || !u.Received.Has(1) {
			t.Fatalf("%s: an acknowledged chunk did not survive: missing %v", suffix, u.Missing())
		}
		l.finish(t, after, &u)
	}
}

// A process that was killed between writing and syncing leaves what the next one may promise only
// after a sync.
func TestUnsyncedSealIsSynced(t *testing.T) {
	t.Parallel()
	l, inner := newLife(), memfs.New(nil)
	fsys := faultfs.New(inner, nil)
	s := openOn(t, fsys, disk.Options{})
	ok(t, s.Create(t.Context(), l.spec))
	send(t, s, l, 0, 1, 2, 3, 4)
	var left *memfs.FS
	fsys.SetHook(func(op faultfs.Op) error {
		if op.Kind == faultfs.Sync && strings.HasSuffix(op.Name, ".journal") && left == nil {
			left = inner.Kill()
		}
		return nil
	})
	_, err := s.Seal(t.Context(), l.spec.ID, upload.UnknownSize)
	ok(t, err)
	again := openOn(t, left, disk.Options{})
	_, err = again.Seal(t.Context(), l.spec.ID, upload.UnknownSize)
	ok(t, err)
	for seed := range uint64(10) {
		after := openOn(t, left.Crash(rand.New(rand.NewPCG(seed, 5))), disk.Options{BootID: "boot 2"})
		u, err := after.Get(l.spec.ID)
		ok(t, err)
		if !u.Sealed {
			t.Fatalf("a sealed upload is open again, missing %v", u.Missing())
		}
	}
}

// With durability "chunk" a repeat is acknowledged only when the chunk is on stable storage, however
// it came there.
func TestUnsyncedChunkIsSynced(t *testing.T) {
	t.Parallel()
	l, inner := newLife(), memfs.New(nil)
	fsys := faultfs.New(inner, nil)
	opt := disk.Options{Durability: disk.DurableChunk}
	s := openOn(t, fsys, opt)
	ok(t, s.Create(t.Context(), l.spec))
	var left *memfs.FS
	fsys.SetHook(func(op faultfs.Op) error {
		if op.Kind == faultfs.Sync && strings.HasSuffix(op.Name, ".journal") && left == nil {
			left = inner.Kill()
		}
		return nil
	})
	send(t, s, l, 0)
	again := openOn(t, left, opt)
	send(t, again, l, 0)
	opt.BootID = "boot 2"
	for seed := range uint64(10) {
		after := openOn(t, left.Crash(rand.New(rand.NewPCG(seed, 5))), opt)
		u, err := after.Get(l.spec.ID)
		ok(t, err)
		if !u.Received.Has(0) {
			t.Fatal("an acknowledged chunk did not survive")
		}
	}
}

// What a process with durability "chunk" could not sync, one with "complete" must not build a seal on:
// all chunks are marked as durable there, and yet the last record is in the cache only.
func TestDoubtOutlivesAChangeOfDurability(t *testing.T) {
	t.Parallel()
	l, inner := newLife(), memfs.New(nil)
	fsys := faultfs.New(inner, nil)
	s := openOn(t, fsys, disk.Options{Durability: disk.DurableChunk})
	ok(t, s.Create(t.Context(), l.spec))
	send(t, s, l, 0, 1, 2) // the next record is the last in its sector: writing more does not bring it to the disk
	fsys.SetHook(failing(faultfs.Sync, ".journal", syscall.EIO))
	want(t, s.WriteChunk(t.Context(), l.spec.ID, 3, chunkstoretest.BodyOf(l.chunk(3))), upload.Unavailable)
	left := inner.Kill()
	again := openOn(t, left, disk.Options{})
	send(t, again, l, 4)
	_, err := again.Seal(t.Context(), l.spec.ID, upload.UnknownSize)
	ok(t, err)
	for seed := range uint64(10) {
		after := openOn(t, left.Crash(rand.New(rand.NewPCG(seed, 5))), disk.Options{BootID: "boot 2"})
		u, err := after.Get(l.spec.ID)
		ok(t, err)
		if !u.Sealed {
			t.Fatalf("a sealed upload is open again, missing %v", u.Missing())
		}
	}
}

// A stop that could not sync an upload, because its files could not even be opened, is no clean one.
func TestStopThatSyncedNothingIsNotClean(t *testing.T) {
	t.Parallel()
	for seed := range uint64(20) {
		l, left := killed(t)
		fsys := faultfs.New(left, nil)
		s := openOn(t, fsys, disk.Options{})
		fsys.SetHook(failing(faultfs.Open, ".data", syscall.EMFILE))
		want(t, s.Close(), upload.Unavailable)
		after := openOn(t, left.Crash(rand.New(rand.NewPCG(seed, 7))), disk.Options{BootID: "boot 2"})
		u, err := after.Get(l.spec.ID)
		ok(t, err)
		l.finish(t, after, &u) // a chunk that is reported there and is not would fail here
	}
}
