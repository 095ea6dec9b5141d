package disk_test

import (
	"bytes"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"

	"gantry/chunkstore/chunkstoretest"
	"gantry/chunkstore/disk"
	"gantry/internal/vfs"
	"gantry/internal/vfs/faultfs"
	"gantry/internal/vfs/memfs"
	"gantry/upload"
)

// chunkSize is small, so that a whole life of an upload can be crashed at every step.
const chunkSize = 2048

// truth is what a client was told.
type truth struct {
	mu         sync.Mutex
	created    bool
	acked      map[int]bool
	sealed     bool
	committing bool
	whole      bool
}

func (tr *truth) set(change func(*truth)) {
	tr.mu.Lock()
	defer tr.mu.Unlock()
	change(tr)
}

func (tr *truth) copy() *truth {
	tr.mu.Lock()
	defer tr.mu.Unlock()
	c := &truth{created: tr.created, sealed: tr.sealed, committing: tr.committing, whole: tr.whole, acked: map[int]bool{}}
	for i := range tr.acked {
		c.acked[i] = true
	}
	return c
}

// life is the story that is crashed: an upload from init to commit, and a whole file.
type life struct {
	spec    upload.Spec
	content []byte
	order   []int
	wholeID string
	truth   *truth
}

func newLife() *life {
	content := chunkstoretest.Bytes(4*chunkSize+700, 1)
	return &life{
		spec:    chunkstoretest.NewSpec(int64(len(content)), chunkSize),
		content: content, order: []int{0, 3, 1, 4, 2}, wholeID: upload.NewUploadID("n0de"),
		truth: &truth{acked: map[int]bool{}},
	}
}

func (l *life) chunk(i int) []byte { return chunkstoretest.Chunk(l.content, chunkSize, i) }

func (l *life) run(t *testing.T, s *disk.Staging) {
	t.Helper()
	ok(t, s.Create(t.Context(), l.spec))
	l.truth.set(func(tr *truth) { tr.created = true })
	for _, i := range l.order {
		ok(t, s.WriteChunk(t.Context(), l.spec.ID, i, chunkstoretest.BodyOf(l.chunk(i))))
		l.truth.set(func(tr *truth) { tr.acked[i] = true })
	}
	_, err := s.Seal(t.Context(), l.spec.ID, upload.UnknownSize)
	ok(t, err)
	l.truth.set(func(tr *truth) { tr.sealed = true })
	_, err = s.WriteWhole(t.Context(), l.wholeID, chunkstoretest.BodyOf(l.content), 1<<20)
	ok(t, err)
	l.truth.set(func(tr *truth) { tr.whole = true })
	l.truth.set(func(tr *truth) { tr.committing = true })
	ok(t, s.Commit(t.Context(), l.spec.ID))
}

// check opens what a crash left and holds it against what the client had been told by then.
func (l *life) check(t *testing.T, fsys vfs.FS, opt disk.Options, told *truth, chunksSurvive bool) {
	t.Helper()
	s := openOn(t, fsys, opt)
	defer func() { ok(t, s.Close()) }()
	if told.whole && !bytes.Equal(chunkstoretest.ReadAll(t, s, l.wholeID), l.content) {
		t.Fatal("an acknowledged whole file has other bytes")
	}
	if told.sealed && !bytes.Equal(readData(t, fsys, l.spec.ID), l.content) {
		t.Fatal("a sealed upload has other bytes")
	}
	u, err := s.Get(l.spec.ID)
	switch {
	case told.committing: // the manifest may be gone, or be there again without its journal
		return
	case err != nil && told.created:
		t.Fatalf("an acknowledged upload is gone: %v", err)
	case err != nil:
		return
	case told.sealed && !u.Sealed:
		t.Fatalf("a sealed upload is open again and misses %v", u.Missing())
	}
	for i := range told.acked {
		if !u.Received.Has(i) && chunksSurvive {
			t.Fatalf("acknowledged chunk %d is gone", i)
		}
	}
	l.finish(t, s, &u)
}

// finish sends all chunks, those that are there already too, and completes.
func (l *life) finish(t *testing.T, s *disk.Staging, u *upload.Upload) {
	t.Helper()
	if !u.Sealed {
		for i := range 5 {
			if err := s.WriteChunk(t.Context(), u.ID, i, chunkstoretest.BodyOf(l.chunk(i))); err != nil {
				t.Fatalf("chunk %d (reported there: %v): %v", i, u.Received.Has(i), err)
			}
		}
	}
	sealed, err := s.Seal(t.Context(), u.ID, upload.UnknownSize)
	ok(t, err)
	if sealed != chunkstoretest.SealedOf(l.content) {
		t.Fatalf("sealed %+v, want %+v", sealed, chunkstoretest.SealedOf(l.content))
	}
	if !bytes.Equal(chunkstoretest.ReadAll(t, s, u.ID), l.content) {
		t.Fatal("other bytes come back")
	}
}

func readData(t *testing.T, fsys vfs.FS, id string) []byte {
	t.Helper()
	f, err := fsys.OpenFile(id+".data", vfs.ReadOnly, 0)
	ok(t, err)
	defer func() { _ = f.Close() }()
	info, err := f.Stat()
	ok(t, err)
	b := make([]byte, info.Size())
	_, _ = f.ReadAt(b, 0)
	return b
}

func ok(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func want(t *testing.T, err error, kind upload.Kind) {
	t.Helper()
	if err == nil || upload.KindOf(err) != kind {
		t.Fatalf("got error %v, want kind %q", err, kind.Code())
	}
}

// crashEverywhere runs a life and calls crash before each operation on the file system.
func crashEverywhere(t *testing.T, durability disk.Durability, crash func(m *memfs.FS, op faultfs.Op, told *truth, l *life)) {
	t.Helper()
	inner := memfs.New(nil)
	fsys := faultfs.New(inner, nil)
	s := openOn(t, fsys, disk.Options{Durability: durability})
	l := newLife()
	var mu sync.Mutex
	ops := 0
	fsys.SetHook(func(op faultfs.Op) error {
		if op.Kind == faultfs.Read || op.Kind == faultfs.Stat || op.Kind == faultfs.Space {
			return nil // nothing changes between these and the next
		}
		mu.Lock()
		defer mu.Unlock()
		ops++
		crash(inner, op, l.truth.copy(), l)
		return nil
	})
	l.run(t, s)
	ok(t, s.Close())
	if ops < 20 {
		t.Errorf("only %d operations were seen", ops)
	}
}

// Fault 1: the process is killed between any two operations. What was acknowledged is there.
func TestFault1KillAtEveryStep(t *testing.T) {
	t.Parallel()
	for _, durability := range []disk.Durability{disk.DurableComplete, disk.DurableChunk} {
		t.Run(string(durability), func(t *testing.T) {
			t.Parallel()
			type point struct {
				op    faultfs.Op
				left  *memfs.FS
				told  *truth
				story *life
			}
			var points []point
			crashEverywhere(t, durability, func(m *memfs.FS, op faultfs.Op, told *truth, l *life) {
				points = append(points, point{op, m.Kill(), told, l})
			})
			for _, p := range points {
				t.Run(fmt.Sprintf("%d %s %s", p.op.N, p.op.Kind, p.op.Name), func(t *testing.T) {
					p.story.check(t, p.left, disk.Options{Durability: durability}, p.told, true)
				})
			}
		})
	}
}

// Fault 2: the power fails between any two operations. With durability "chunk" every acknowledged
// chunk is there; with "complete" chunks may be missing, but those reported are right.
func TestFault2PowerCutAtEveryStep(t *testing.T) {
	t.Parallel()
	for _, durability := range []disk.Durability{disk.DurableComplete, disk.DurableChunk} {
		t.Run(string(durability), func(t *testing.T) {
			t.Parallel()
			type point struct {
				name  string
				left  *memfs.FS
				told  *truth
				story *life
			}
			var points []point
			crashEverywhere(t, durability, func(m *memfs.FS, op faultfs.Op, told *truth, l *life) {
				for seed := range uint64(12) {
					name := fmt.Sprintf("%d %s %s seed %d", op.N, op.Kind, op.Name, seed)
					points = append(points, point{name, m.Crash(rand.New(rand.NewPCG(seed, uint64(op.N)))), told, l})
				}
			})
			for _, p := range points {
				t.Run(p.name, func(t *testing.T) {
					p.story.check(t, p.left, disk.Options{Durability: durability, BootID: "boot 2"}, p.told, durability == disk.DurableChunk)
				})
			}
		})
	}
}

// A second power cut finds nothing believed that the first had not yet been checked for.
func TestFault2KilledBeforeItWasVerified(t *testing.T) {
	t.Parallel()
	l, inner := newLife(), memfs.New(nil)
	s := openOn(t, inner, disk.Options{})
	ok(t, s.Create(t.Context(), l.spec))
	send(t, s, l, 0, 1, 2)
	f, err := inner.OpenFile(l.spec.ID+".journal", vfs.ReadWrite, 0)
	ok(t, err)
	ok(t, errors.Join(f.Sync(), f.Close(), inner.SyncDir("."))) // the system may have done that by itself
	left := inner.Crash(rand.New(rand.NewPCG(1, 3)))
	corrupt(t, left, l.spec.ID, 1) // the sectors that did not make it
	// The next process opens the directory, so that it is marked as in use in this boot, and dies
	// before it has looked at the upload.
	hooked := faultfs.New(left, nil)
	var killed *memfs.FS
	var once sync.Once
	hooked.SetHook(func(op faultfs.Op) error {
		if op.Kind == faultfs.Open && strings.HasSuffix(op.Name, ".journal") {
			once.Do(func() { killed = left.Kill() })
		}
		return nil
	})
	ok(t, openOn(t, hooked, disk.Options{BootID: "boot 2"}).Close())
	if killed == nil {
		t.Fatal("the journal was not read")
	}
	again := openOn(t, killed, disk.Options{BootID: "boot 2"})
	u, err := again.Get(l.spec.ID)
	ok(t, err)
	l.finish(t, again, &u)
}

func send(t *testing.T, s *disk.Staging, l *life, indexes ...int) {
	t.Helper()
	for _, i := range indexes {
		if err := s.WriteChunk(t.Context(), l.spec.ID, i, chunkstoretest.BodyOf(l.chunk(i))); err != nil {
			t.Fatalf("chunk %d: %v", i, err)
		}
	}
}

// corrupt flips a bit of a chunk, behind everybody's back.
func corrupt(t *testing.T, fsys vfs.FS, id string, index int) {
	t.Helper()
	flip(t, fsys, id+".data", int64(index)*chunkSize+17, 4)
}

func flip(t *testing.T, fsys vfs.FS, name string, off int64, bit int) {
	t.Helper()
	f, err := fsys.OpenFile(name, vfs.ReadWrite, 0)
	ok(t, err)
	var b [1]byte
	_, _ = f.ReadAt(b[:], off)
	b[0] ^= 1 << bit
	_, err = f.WriteAt(b[:], off)
	ok(t, errors.Join(err, f.Close()))
}

func failing(kind faultfs.Kind, suffix string, err error) faultfs.Hook {
	return faultfs.FailNth(1, err, func(op faultfs.Op) bool { return op.Kind == kind && strings.HasSuffix(op.Name, suffix) })
}

// Fault 3: the sync of the data fails. Linux forgets the pages then, so nothing that was not synced
// is believed; sent again it is there, also after a power cut.
func TestFault3DataSyncFails(t *testing.T) {
	t.Parallel()
	t.Run("complete", func(t *testing.T) {
		t.Parallel()
		l, inner := newLife(), memfs.New(nil)
		fsys := faultfs.New(inner, nil)
		s := openOn(t, fsys, disk.Options{})
		ok(t, s.Create(t.Context(), l.spec))
		send(t, s, l, 0, 1, 2, 3, 4)
		fsys.SetHook(failing(faultfs.Sync, ".data", syscall.EIO))
		_, err := s.Seal(t.Context(), l.spec.ID, upload.UnknownSize)
		want(t, err, upload.Unavailable)
		if h := s.Health(); !h.Writable || h.Reason == "" || h.Reserved != int64(len(l.content)) {
			t.Errorf("health after the failure: %+v", h)
		}
		u, err := s.Get(l.spec.ID)
		ok(t, err)
		if u.Received.Len() != 0 || u.HashedBytes != 0 || u.Sealed {
			t.Fatalf("unsynced chunks are believed: %+v", u)
		}
		l.finish(t, s, &u)
		if h := s.Health(); !h.Writable || h.Reason != "" {
			t.Errorf("health after a good sync: %+v", h)
		}
		for seed := range uint64(10) {
			left := inner.Crash(rand.New(rand.NewPCG(seed, 3)))
			again := openOn(t, left, disk.Options{BootID: "boot 2"})
			if !bytes.Equal(chunkstoretest.ReadAll(t, again, l.spec.ID), l.content) {
				t.Fatal("a sealed upload has other bytes")
			}
		}
	})
	t.Run("chunk", func(t *testing.T) {
		t.Parallel()
		l, inner := newLife(), memfs.New(nil)
		fsys := faultfs.New(inner, nil)
		s := openOn(t, fsys, disk.Options{Durability: disk.DurableChunk})
		ok(t, s.Create(t.Context(), l.spec))
		send(t, s, l, 0)
		fsys.SetHook(failing(faultfs.Sync, ".data", syscall.EIO))
		want(t, s.WriteChunk(t.Context(), l.spec.ID, 1, chunkstoretest.BodyOf(l.chunk(1))), upload.Unavailable)
		u, err := s.Get(l.spec.ID)
		ok(t, err)
		if !u.Received.Has(0) || u.Received.Has(1) {
			t.Fatalf("received %v", u.Missing())
		}
		l.finish(t, s, &u)
	})
	// A chunk that was half written when the sync of another failed has lost pages too.
	t.Run("chunk, another under way", func(t *testing.T) {
		t.Parallel()
		l, inner := newLife(), memfs.New(nil)
		fsys := faultfs.New(inner, nil)
		s := openOn(t, fsys, disk.Options{Durability: disk.DurableChunk})
		big := chunkstoretest.Bytes(3<<20, 9)
		l.spec.Size, l.spec.ChunkSize = int64(len(big)), 1<<20
		ok(t, s.Create(t.Context(), l.spec))
		part := func(i int) []byte { return chunkstoretest.Chunk(big, 1<<20, i) }
		body, open := chunkstoretest.GatedBody(part(1), 600<<10) // two buffers are written by then
		written := make(chan struct{}, 10)
		fsys.SetHook(func(op faultfs.Op) error {
			if op.Kind == faultfs.Write && strings.HasSuffix(op.Name, ".data") {
				written <- struct{}{}
			}
			return nil
		})
		var wg sync.WaitGroup
		var err error
		wg.Go(func() { err = s.WriteChunk(t.Context(), l.spec.ID, 1, body) })
		<-written
		<-written
		waitFor(t, func() bool { return len(readData(t, inner, l.spec.ID)) >= 1<<20+512<<10 })
		fsys.SetHook(failing(faultfs.Sync, ".data", syscall.EIO))
		want(t, s.WriteChunk(t.Context(), l.spec.ID, 0, chunkstoretest.BodyOf(part(0))), upload.Unavailable)
		open()
		wg.Wait()
		want(t, err, upload.Unavailable)
	})
	t.Run("whole", func(t *testing.T) {
		t.Parallel()
		l, inner := newLife(), memfs.New(nil)
		fsys := faultfs.New(inner, nil)
		s := openOn(t, fsys, disk.Options{})
		fsys.SetHook(failing(faultfs.Sync, ".data", syscall.EIO))
		_, err := s.WriteWhole(t.Context(), l.wholeID, chunkstoretest.BodyOf(l.content), 1<<20)
		want(t, err, upload.Unavailable)
		if ids, err := s.Data(); err != nil || len(ids) != 0 {
			t.Errorf("left: %v, %v", ids, err)
		}
		_, err = s.WriteWhole(t.Context(), l.wholeID, chunkstoretest.BodyOf(l.content), 1<<20)
		ok(t, err)
	})
}

// After a failed sync a process that dies at once leaves chunks that nobody may believe.
func TestFault3KilledAfterDataSyncFailed(t *testing.T) {
	t.Parallel()
	l, inner := newLife(), memfs.New(nil)
	fsys := faultfs.New(inner, nil)
	s := openOn(t, fsys, disk.Options{})
	ok(t, s.Create(t.Context(), l.spec))
	send(t, s, l, 0, 1, 2, 3, 4)
	var left *memfs.FS
	failed := failing(faultfs.Sync, ".data", syscall.EIO)
	fsys.SetHook(func(op faultfs.Op) error {
		if op.Kind == faultfs.Write && strings.HasSuffix(op.Name, ".journal") && left == nil {
			left = inner.Kill() // before the first record after the failure
		}
		return failed(op)
	})
	_, err := s.Seal(t.Context(), l.spec.ID, upload.UnknownSize)
	want(t, err, upload.Unavailable)
	corrupt(t, left, l.spec.ID, 2) // the page was dropped, and the disk has what it had
	again := openOn(t, left, disk.Options{})
	u, err := again.Get(l.spec.ID)
	ok(t, err)
	if u.Received.Has(2) {
		t.Error("a chunk is believed whose sync failed")
	}
	l.finish(t, again, &u)
}

func waitFor(t *testing.T, cond func() bool) {
	t.Helper()
	for !cond() {
		if t.Context().Err() != nil {
			t.Fatal("waited in vain")
		}
	}
}

// Fault 4: the journal cannot be written or synced. The chunk is not acknowledged, and nothing is
// written until a restart.
func TestFault4JournalFails(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		durability disk.Durability
		kind       faultfs.Kind
		err        error
		want       upload.Kind
	}{
		"append EIO":                  {disk.DurableComplete, faultfs.Write, syscall.EIO, upload.Unavailable},
		"append EIO, whole record":    {disk.DurableComplete, faultfs.Write, &faultfs.ShortWrite{Bytes: 128, Err: syscall.EIO}, upload.Unavailable},
		"append EIO, half a record":   {disk.DurableChunk, faultfs.Write, &faultfs.ShortWrite{Bytes: 64, Err: syscall.EIO}, upload.Unavailable},
		"sync EIO":                    {disk.DurableChunk, faultfs.Sync, syscall.EIO, upload.Unavailable},
		"sync ENOSPC":                 {disk.DurableChunk, faultfs.Sync, syscall.ENOSPC, upload.NoRoom},
		"append ENOSPC, no way back":  {disk.DurableComplete, faultfs.Write, &faultfs.ShortWrite{Bytes: 128, Err: syscall.ENOSPC}, upload.NoRoom},
		"directory sync EIO":          {disk.DurableChunk, faultfs.SyncDir, syscall.EIO, upload.Unavailable},
		"directory sync EIO, at seal": {disk.DurableComplete, faultfs.SyncDir, syscall.EIO, upload.Unavailable},
		"sync EIO, at seal":           {disk.DurableComplete, faultfs.Sync, syscall.EIO, upload.Unavailable},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			l, inner := newLife(), memfs.New(nil)
			fsys := faultfs.New(inner, nil)
			s := openOn(t, fsys, disk.Options{Durability: c.durability})
			ok(t, s.Create(t.Context(), l.spec))
			atSeal := strings.HasSuffix(name, "at seal")
			suffix := ".journal"
			if c.kind == faultfs.SyncDir {
				suffix = ""
			}
			if atSeal {
				send(t, s, l, 0, 1, 2, 3, 4)
			} else if c.kind != faultfs.SyncDir {
				send(t, s, l, 0)
			}
			first := failing(c.kind, suffix, c.err)
			fsys.SetHook(func(op faultfs.Op) error {
				if op.Kind == faultfs.Truncate && strings.HasSuffix(op.Name, ".journal") {
					return syscall.EIO
				}
				return first(op)
			})
			var err error
			if atSeal {
				_, err = s.Seal(t.Context(), l.spec.ID, upload.UnknownSize)
			} else {
				err = s.WriteChunk(t.Context(), l.spec.ID, 1, chunkstoretest.BodyOf(l.chunk(1)))
			}
			want(t, err, c.want)
			if h := s.Health(); h.Writable || h.Reason == "" {
				t.Errorf("health: %+v", h)
			}
			u, err := s.Get(l.spec.ID)
			ok(t, err)
			if u.Sealed || !atSeal && u.Received.Has(1) {
				t.Errorf("what failed shows: %+v", u)
			}
			want(t, s.WriteChunk(t.Context(), l.spec.ID, 2, chunkstoretest.BodyOf(l.chunk(2))), upload.Unavailable)
			want(t, s.Create(t.Context(), chunkstoretest.NewSpec(1, chunkSize)), upload.Unavailable)
			_, err = s.WriteWhole(t.Context(), l.wholeID, chunkstoretest.BodyOf(l.content), 1<<20)
			want(t, err, upload.Unavailable)
			_ = s.Close()

			again := openOn(t, inner, disk.Options{Durability: c.durability})
			if h := again.Health(); !h.Writable {
				t.Fatalf("after a restart: %+v", h)
			}
			u, err = again.Get(l.spec.ID)
			ok(t, err)
			if c.kind != faultfs.SyncDir && !u.Received.Has(0) {
				t.Error("an acknowledged chunk is gone")
			}
			l.finish(t, again, &u)
		})
	}
}

// A full disk is not a broken one: once there is room the upload goes on, and what was refused has
// left nothing that could be taken for an acknowledged chunk.
func TestFault4JournalHasNoRoom(t *testing.T) {
	t.Parallel()
	for _, written := range []int{0, 64, 128} {
		l, inner := newLife(), memfs.New(nil)
		fsys := faultfs.New(inner, nil)
		s := openOn(t, fsys, disk.Options{})
		l.spec.Size = upload.UnknownSize
		ok(t, s.Create(t.Context(), l.spec))
		send(t, s, l, 0)
		fsys.SetHook(failing(faultfs.Write, ".journal", &faultfs.ShortWrite{Bytes: written, Err: syscall.ENOSPC}))
		// A short chunk of other bytes, which would show the size.
		want(t, s.WriteChunk(t.Context(), l.spec.ID, 1, chunkstoretest.BodyOf([]byte("other"))), upload.NoRoom)
		if h := s.Health(); !h.Writable {
			t.Fatalf("health: %+v", h)
		}
		u, err := s.Get(l.spec.ID)
		ok(t, err)
		if u.Received.Has(1) || u.Size != upload.UnknownSize {
			t.Fatalf("the refused chunk shows: %+v", u)
		}
		// The client gives up that chunk and sends what it should have; the process dies in the middle.
		fsys.SetHook(failing(faultfs.Write, ".journal", syscall.EIO))
		want(t, s.WriteChunk(t.Context(), l.spec.ID, 1, chunkstoretest.BodyOf(l.chunk(1))), upload.Unavailable)
		again := openOn(t, inner.Kill(), disk.Options{})
		u, err = again.Get(l.spec.ID)
		ok(t, err)
		if u.Received.Has(1) || u.Size != upload.UnknownSize {
			t.Fatalf("%d bytes of a refused record: the chunk is there after a restart, size %d", written, u.Size)
		}
		for i := range 5 {
			send(t, again, l, i)
		}
		sealed, err := again.Seal(t.Context(), l.spec.ID, upload.UnknownSize)
		ok(t, err)
		if sealed != chunkstoretest.SealedOf(l.content) {
			t.Errorf("sealed %+v", sealed)
		}
	}
}

// The data has no room: not acknowledged, and nothing else happens.
func TestDataHasNoRoom(t *testing.T) {
	t.Parallel()
	l, inner := newLife(), memfs.New(nil)
	fsys := faultfs.New(inner, nil)
	s := openOn(t, fsys, disk.Options{})
	ok(t, s.Create(t.Context(), l.spec))
	fsys.SetHook(failing(faultfs.Write, ".data", &faultfs.ShortWrite{Bytes: 100, Err: syscall.ENOSPC}))
	want(t, s.WriteChunk(t.Context(), l.spec.ID, 0, chunkstoretest.BodyOf(l.chunk(0))), upload.NoRoom)
	if h := s.Health(); !h.Writable || h.Reason != "" {
		t.Errorf("health: %+v", h)
	}
	u, err := s.Get(l.spec.ID)
	ok(t, err)
	l.finish(t, s, &u)
}

// Fault 5: the journal is torn at any length, or any of its bits is flipped. A chunk may be missing,
// never wrong.
func TestFault5DamagedJournal(t *testing.T) {
	t.Parallel()
	l, inner := newLife(), memfs.New(nil)
	s := openOn(t, inner, disk.Options{})
	ok(t, s.Create(t.Context(), l.spec))
	send(t, s, l, 1, 0, 4, 2)
	waitFor(t, func() bool { u, _ := s.Get(l.spec.ID); return u.HashedBytes == 3*chunkSize })
	name := l.spec.ID + ".journal"
	left := inner.Kill()
	info, err := left.Stat(name)
	ok(t, err)
	length := info.Size()
	if length < 4*128 {
		t.Fatalf("the journal has %d bytes", length)
	}
	check := func(damaged *memfs.FS, atLeast int) {
		t.Helper()
		again := openOn(t, damaged, disk.Options{})
		u, err := again.Get(l.spec.ID)
		ok(t, err)
		if u.Received.Len() < atLeast || u.Received.Has(3) {
			t.Fatalf("received %d chunks, want at least %d", u.Received.Len(), atLeast)
		}
		l.finish(t, again, &u)
		ok(t, again.Close())
		again = openOn(t, damaged, disk.Options{}) // and what was appended is readable
		u, err = again.Get(l.spec.ID)
		ok(t, err)
		if !u.Sealed {
			t.Fatal("the seal was lost")
		}
		ok(t, again.Close())
	}
	for cut := int64(0); cut <= length; cut += 37 {
		damaged := left.Kill()
		f, err := damaged.OpenFile(name, vfs.ReadWrite, 0)
		ok(t, err)
		ok(t, errors.Join(f.Truncate(length-cut), f.Close()))
		check(damaged, max(0, 4-int((cut+127)/128)))
	}
	for off := int64(0); off < length; off += 3 {
		damaged := left.Kill()
		flip(t, damaged, name, off, int(off%8))
		check(damaged, 3)
	}
}

// Fault 5, continued: the flipped record said that a chunk is void. The chunk is read before it is
// believed.
func TestFault5LostDrop(t *testing.T) {
	t.Parallel()
	l, inner := newLife(), memfs.New(nil)
	s := openOn(t, inner, disk.Options{})
	ok(t, s.Create(t.Context(), l.spec))
	send(t, s, l, 0, 1, 2)
	corrupt(t, inner, l.spec.ID, 1)
	bad, err := s.Recheck(t.Context(), l.spec.ID)
	ok(t, err)
	if !slices.Equal(bad, []upload.Range{{First: 1, Last: 1}}) {
		t.Fatalf("bad %v", bad)
	}
	info, err := inner.Stat(l.spec.ID + ".journal")
	ok(t, err)
	send(t, s, l, 3)
	ok(t, s.Close())
	flip(t, inner, l.spec.ID+".journal", info.Size()-2*128+30, 1) // before "unsealed"
	s = openOn(t, inner, disk.Options{})
	u, err := s.Get(l.spec.ID)
	ok(t, err)
	if u.Received.Has(1) || !u.Received.Has(0) || !u.Received.Has(3) {
		t.Fatalf("missing %v", u.Missing())
	}
	l.finish(t, s, &u)
}

// Fault 6: a bit of the data flips after the acknowledgement. Complete names the chunk, and sending
// it again heals.
func TestFault6FlippedData(t *testing.T) {
	t.Parallel()
	for name, restart := range map[string]bool{"running": false, "while it was down": true} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			l, inner := newLife(), memfs.New(nil)
			s := openOn(t, inner, disk.Options{})
			ok(t, s.Create(t.Context(), l.spec))
			send(t, s, l, 0, 1, 2, 3, 4)
			if restart {
				ok(t, s.Close())
			}
			corrupt(t, inner, l.spec.ID, 2)
			corrupt(t, inner, l.spec.ID, 3)
			if restart {
				s = openOn(t, inner, disk.Options{})
			}
			_, err := s.Seal(t.Context(), l.spec.ID, upload.UnknownSize)
			want(t, err, upload.Incomplete)
			if e, _ := errors.AsType[*upload.Error](err); !slices.Equal(e.Ranges, []upload.Range{{First: 2, Last: 3}}) {
				t.Errorf("ranges %v", e.Ranges)
			}
			u, err := s.Get(l.spec.ID)
			ok(t, err)
			if u.Received.Has(2) || u.Received.Has(3) || u.ReceivedBytes != 2*chunkSize+700 {
				t.Errorf("received %d bytes, missing %v", u.ReceivedBytes, u.Missing())
			}
			l.finish(t, s, &u)
		})
	}
}

// Fault 6, early: the chunk was to be hashed from disk later.
func TestFault6FlippedBeforeItIsHashed(t *testing.T) {
	t.Parallel()
	l, inner := newLife(), memfs.New(nil)
	s := openOn(t, inner, disk.Options{})
	ok(t, s.Create(t.Context(), l.spec))
	send(t, s, l, 1, 2)
	corrupt(t, inner, l.spec.ID, 1)
	send(t, s, l, 0)
	waitFor(t, func() bool {
		u, err := s.Get(l.spec.ID)
		ok(t, err)
		return !u.Received.Has(1)
	})
	u, err := s.Get(l.spec.ID)
	ok(t, err)
	if !u.Received.Has(0) || !u.Received.Has(2) {
		t.Errorf("missing %v", u.Missing())
	}
	l.finish(t, s, &u)
}

// Fault 6, repaired by a client that repeats the chunk of its own accord.
func TestFault6FlippedThenRepeated(t *testing.T) {
	t.Parallel()
	l, inner := newLife(), memfs.New(nil)
	s := openOn(t, inner, disk.Options{})
	ok(t, s.Create(t.Context(), l.spec))
	send(t, s, l, 0, 1)
	corrupt(t, inner, l.spec.ID, 1)
	want(t, s.WriteChunk(t.Context(), l.spec.ID, 1, chunkstoretest.BodyOf(l.chunk(1))), upload.Unavailable)
	u, err := s.Get(l.spec.ID)
	ok(t, err)
	l.finish(t, s, &u)
}

// Fault 6, after the seal: Recheck opens the upload again, and other bytes may then take the place.
func TestFault6FlippedAfterSeal(t *testing.T) {
	t.Parallel()
	l, inner := newLife(), memfs.New(nil)
	s := openOn(t, inner, disk.Options{})
	ok(t, s.Create(t.Context(), l.spec))
	send(t, s, l, 0, 1, 2, 3, 4)
	_, err := s.Seal(t.Context(), l.spec.ID, upload.UnknownSize)
	ok(t, err)
	corrupt(t, inner, l.spec.ID, 0)
	bad, err := s.Recheck(t.Context(), l.spec.ID)
	ok(t, err)
	if !slices.Equal(bad, []upload.Range{{First: 0, Last: 0}}) {
		t.Fatalf("bad %v", bad)
	}
	ok(t, s.Close())
	s = openOn(t, inner, disk.Options{})
	u, err := s.Get(l.spec.ID)
	ok(t, err)
	if u.Sealed || u.Received.Has(0) {
		t.Fatalf("after a restart: sealed %v, missing %v", u.Sealed, u.Missing())
	}
	// The void chunk had been hashed: the digest must be that of the new bytes.
	copy(l.content, "other bytes than before")
	l.finish(t, s, &u)
}
