package disk_test

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"math/rand/v2"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"gantry/chunkstore"
	"gantry/chunkstore/chunkstoretest"
	"gantry/chunkstore/disk"
	"gantry/internal/vfs"
	"gantry/internal/vfs/faultfs"
	"gantry/internal/vfs/memfs"
	"gantry/upload"
)

func TestOptions(t *testing.T) {
	t.Parallel()
	bad := disk.Options{Durability: "maybe", MinFree: -1, HashWorkers: -1}
	err := bad.Validate()
	for _, part := range []string{"durability", "space to keep free", "workers"} {
		if err == nil || !strings.Contains(err.Error(), part) {
			t.Errorf("%q is not reported: %v", part, err)
		}
	}
	if _, err := disk.Open(memfs.New(nil), bad); !errors.Is(err, upload.Invalid) {
		t.Errorf("Open: %v", err)
	}
	if err := (disk.Options{}).Validate(); err != nil {
		t.Error(err)
	}
}

func names(t *testing.T, fsys vfs.FS) []string {
	t.Helper()
	entries, err := fsys.ReadDir(".")
	ok(t, err)
	var list []string
	for _, e := range entries {
		list = append(list, e.Name())
	}
	return list
}

func TestNothingIsLeft(t *testing.T) {
	t.Parallel()
	l, inner := newLife(), memfs.New(nil)
	s := openOn(t, inner, disk.Options{})
	l.run(t, s)
	if got := names(t, inner); !slices.Equal(got, sorted("boot", l.spec.ID+".data", l.wholeID+".data")) {
		t.Errorf("after commit: %v", got)
	}
	ok(t, s.Discard(t.Context(), l.spec.ID))
	ok(t, s.Discard(t.Context(), l.wholeID))
	open := newLife()
	ok(t, s.Create(t.Context(), open.spec))
	send(t, s, open, 1)
	ok(t, s.Discard(t.Context(), open.spec.ID))
	if got := names(t, inner); !slices.Equal(got, []string{"boot"}) {
		t.Errorf("after discard: %v", got)
	}
}

func sorted(list ...string) []string {
	slices.Sort(list)
	return list
}

// What a clean stop leaves is believed in the next boot of the machine, so all of it must be on the
// disk.
func TestCleanStopSurvivesAPowerCut(t *testing.T) {
	t.Parallel()
	for seed := range uint64(20) {
		l, inner := newLife(), memfs.New(nil)
		s := openOn(t, inner, disk.Options{})
		ok(t, s.Create(t.Context(), l.spec))
		send(t, s, l, 0, 3, 1)
		ok(t, s.Close())
		var reads atomic.Int64
		fsys := faultfs.New(inner.Crash(rand.New(rand.NewPCG(seed, 1))), func(op faultfs.Op) error {
			if op.Kind == faultfs.Read && strings.HasSuffix(op.Name, ".data") {
				reads.Add(1)
			}
			return nil
		})
		again := openOn(t, fsys, disk.Options{BootID: "boot 2"})
		u, err := again.Get(l.spec.ID)
		ok(t, err)
		if u.Received.Len() != 3 {
			t.Fatalf("missing %v", u.Missing())
		}
		if reads.Load() != 0 {
			t.Error("chunks were read again after a clean stop")
		}
		l.finish(t, again, &u)
	}
}

// Unless the boot is known to be the same, an unclean stop is taken for a power cut.
func TestUncleanStopIsVerified(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		boot     string
		touch    func(t *testing.T, fsys vfs.FS)
		verified bool
	}{
		"same boot":        {boot: "boot 1"},
		"other boot":       {boot: "boot 2", verified: true},
		"marker gone":      {boot: "boot 1", verified: true, touch: func(t *testing.T, fsys vfs.FS) { t.Helper(); ok(t, fsys.Remove("boot")) }},
		"marker damaged":   {boot: "boot 1", verified: true, touch: func(t *testing.T, fsys vfs.FS) { t.Helper(); flip(t, fsys, "boot", 2, 0) }},
		"marker forged":    {boot: "boot 2", verified: true, touch: func(t *testing.T, fsys vfs.FS) { t.Helper(); flip(t, fsys, "boot", 20, 1) }},
		"marker truncated": {boot: "boot 1", verified: true, touch: func(t *testing.T, fsys vfs.FS) { t.Helper(); truncate(t, fsys, "boot", 9) }},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			l, inner := newLife(), memfs.New(nil)
			s := openOn(t, inner, disk.Options{})
			ok(t, s.Create(t.Context(), l.spec))
			send(t, s, l, 0, 1)
			left := inner.Kill()
			if c.touch != nil {
				c.touch(t, left)
			}
			corrupt(t, left, l.spec.ID, 1)
			again := openOn(t, left, disk.Options{BootID: c.boot})
			u, err := again.Get(l.spec.ID)
			ok(t, err)
			if u.Received.Has(1) == c.verified || !u.Received.Has(0) {
				t.Errorf("missing %v", u.Missing())
			}
		})
	}
}

func truncate(t *testing.T, fsys vfs.FS, name string, size int64) {
	t.Helper()
	f, err := fsys.OpenFile(name, vfs.ReadWrite, 0)
	ok(t, err)
	ok(t, errors.Join(f.Truncate(size), f.Close()))
}

// A machine that does not tell its boot id verifies after each unclean stop.
func TestUnknownBoot(t *testing.T) {
	t.Parallel()
	l, inner := newLife(), memfs.New(nil)
	s, err := disk.Open(inner, disk.Options{})
	ok(t, err)
	ok(t, s.Create(t.Context(), l.spec))
	send(t, s, l, 0, 1)
	left := inner.Kill()
	ok(t, s.Close())
	corrupt(t, left, l.spec.ID, 1)
	again, err := disk.Open(left, disk.Options{})
	ok(t, err)
	u, err := again.Get(l.spec.ID)
	ok(t, err)
	if u.Received.Has(1) {
		t.Error("a chunk is believed unseen")
	}
	ok(t, again.Close())
}

// Verified once is enough.
func TestVerifiedOnce(t *testing.T) {
	t.Parallel()
	l, inner := newLife(), memfs.New(nil)
	s := openOn(t, inner, disk.Options{})
	ok(t, s.Create(t.Context(), l.spec))
	send(t, s, l, 0, 1)
	left := inner.Kill()
	again := openOn(t, left, disk.Options{BootID: "boot 2"})
	_, err := again.Get(l.spec.ID)
	ok(t, err)
	killed := left.Kill()
	var reads atomic.Int64
	fsys := faultfs.New(killed, func(op faultfs.Op) error {
		if op.Kind == faultfs.Read && strings.HasSuffix(op.Name, ".data") {
			reads.Add(1)
		}
		return nil
	})
	third := openOn(t, fsys, disk.Options{BootID: "boot 2"})
	u, err := third.Get(l.spec.ID)
	ok(t, err)
	if u.Received.Len() != 2 || reads.Load() != 0 {
		t.Errorf("%d reads, missing %v", reads.Load(), u.Missing())
	}
}

// What a crash in the middle of Create, Commit or Discard leaves.
func TestLeftovers(t *testing.T) {
	t.Parallel()
	l, inner := newLife(), memfs.New(nil)
	s := openOn(t, inner, disk.Options{})
	ok(t, s.Create(t.Context(), l.spec))
	send(t, s, l, 0, 1, 2)
	ok(t, s.Close())
	id := l.spec.ID

	t.Run("torn manifest alone", func(t *testing.T) {
		left := inner.Kill()
		ok(t, errors.Join(left.Remove(id+".data"), left.Remove(id+".journal")))
		truncate(t, left, id+".manifest", 50)
		again := openOn(t, left, disk.Options{})
		_, err := again.Get(id)
		want(t, err, upload.NotFound)
		if got := names(t, left); !slices.Equal(got, []string{"boot"}) {
			t.Errorf("left: %v", got)
		}
	})
	t.Run("damaged manifest", func(t *testing.T) {
		left := inner.Kill()
		flip(t, left, id+".manifest", 50, 1)
		var log bytes.Buffer
		again := openOn(t, left, disk.Options{Log: slog.New(slog.NewTextHandler(&log, nil))})
		_, err := again.Get(id)
		want(t, err, upload.NotFound)
		if data, err := again.Data(); err != nil || len(data) != 0 {
			t.Errorf("the bytes of an upload that cannot be read are offered for deletion: %v, %v", data, err)
		}
		if len(names(t, left)) != 4 || !strings.Contains(log.String(), id) {
			t.Errorf("left: %v; log: %s", names(t, left), log.String())
		}
		ok(t, again.Discard(t.Context(), id)) // if somebody says so
		if got := names(t, left); !slices.Equal(got, []string{"boot"}) {
			t.Errorf("left: %v", got)
		}
	})
	t.Run("no manifest", func(t *testing.T) {
		left := inner.Kill()
		ok(t, left.Remove(id+".manifest"))
		again := openOn(t, left, disk.Options{})
		if data, err := again.Data(); err != nil || !slices.Equal(data, []string{id}) {
			t.Errorf("Data: %v, %v", data, err)
		}
		if got := names(t, left); !slices.Equal(got, sorted("boot", id+".data")) {
			t.Errorf("left: %v", got)
		}
	})
	t.Run("no data", func(t *testing.T) { // a discard, then a power cut that undid a part of it
		left := inner.Kill()
		ok(t, left.Remove(id+".data"))
		for range 2 {
			again := openOn(t, left, disk.Options{})
			u, err := again.Get(id)
			ok(t, err)
			if u.Received.Len() != 0 {
				t.Errorf("received %d chunks without data", u.Received.Len())
			}
			ok(t, again.Close())
		}
	})
	t.Run("no journal", func(t *testing.T) {
		left := inner.Kill()
		ok(t, left.Remove(id+".journal"))
		again := openOn(t, left, disk.Options{})
		u, err := again.Get(id)
		ok(t, err)
		l.finish(t, again, &u)
		ok(t, again.Commit(t.Context(), id))
	})
	t.Run("committed by the database, journal gone", func(t *testing.T) {
		left := inner.Kill()
		ok(t, left.Remove(id+".journal"))
		again := openOn(t, left, disk.Options{})
		ok(t, again.Commit(t.Context(), id))
		if data, err := again.Data(); err != nil || !slices.Equal(data, []string{id}) {
			t.Errorf("Data: %v, %v", data, err)
		}
	})
	t.Run("foreign files", func(t *testing.T) {
		left := inner.Kill()
		for _, name := range []string{"x.data", "lost+found.manifest", ".journal", "README"} {
			f, err := left.OpenFile(name, vfs.Create|vfs.ReadWrite, 0o600)
			ok(t, errors.Join(err, f.Close()))
		}
		again := openOn(t, left, disk.Options{})
		if data, err := again.Data(); err != nil || len(data) != 0 {
			t.Errorf("Data: %v, %v", data, err)
		}
		if got := names(t, left); len(got) != 8 {
			t.Errorf("left: %v", got)
		}
	})
}

func TestWatermark(t *testing.T) {
	t.Parallel()
	inner, now := memfs.New(nil), time.Now()
	var skew atomic.Int64
	inner.SetSpace(1<<30, 100*chunkSize)
	s := openOn(t, inner, disk.Options{MinFree: 20 * chunkSize, Now: func() time.Time { return now.Add(time.Duration(skew.Load())) }})
	create := func(chunks int64) (upload.Spec, error) {
		spec := chunkstoretest.NewSpec(chunks*chunkSize, chunkSize)
		return spec, s.Create(t.Context(), spec)
	}
	_, err := create(81)
	want(t, err, upload.NoRoom)
	first, err := create(50)
	ok(t, err)
	_, err = create(31)
	want(t, err, upload.NoRoom)
	second, err := create(30)
	ok(t, err)
	if h := s.Health(); !h.Full || !h.Writable || h.Reserved != 80*chunkSize {
		t.Errorf("health: %+v", h)
	}
	content := chunkstoretest.Bytes(50*chunkSize, 1)
	for i := range 50 { // those that are open go on
		ok(t, s.WriteChunk(t.Context(), first.ID, i, chunkstoretest.BodyOf(chunkstoretest.Chunk(content, chunkSize, i))))
	}
	// The disk has less by now, and that was counted though it was not looked at again.
	if h := s.Health(); h.Free != 50*chunkSize || h.Reserved != 30*chunkSize || !h.Full {
		t.Errorf("health: %+v", h)
	}
	_, err = create(1)
	want(t, err, upload.NoRoom)
	_, err = s.WriteWhole(t.Context(), upload.NewUploadID("n0de"), chunkstoretest.BodyOf(content[:1]), 1<<20)
	want(t, err, upload.NoRoom)

	ok(t, s.Discard(t.Context(), second.ID))
	inner.SetSpace(1<<30, 55*chunkSize)
	skew.Store(int64(time.Minute))
	third, err := create(upload.UnknownSize / chunkSize) // 0 chunks
	ok(t, err)
	ok(t, s.Discard(t.Context(), third.ID))

	// The chunks of an upload whose size is not known were not promised anything.
	unknown := chunkstoretest.NewSpec(upload.UnknownSize, chunkSize)
	ok(t, s.Create(t.Context(), unknown))
	for i := range 35 {
		ok(t, s.WriteChunk(t.Context(), unknown.ID, i, chunkstoretest.BodyOf(content[:chunkSize])))
	}
	want(t, s.WriteChunk(t.Context(), unknown.ID, 35, chunkstoretest.BodyOf(content[:chunkSize])), upload.NoRoom)
	if h := s.Health(); h.Free != 20*chunkSize || h.Reserved != 0 {
		t.Errorf("health: %+v", h)
	}
}

// A refused upload leaves no promise and no file.
// A body of unknown length takes no room that was promised to an open upload.
func TestUnknownLengthLeavesPromisedRoom(t *testing.T) {
	t.Parallel()
	const mib = 1 << 20
	inner := memfs.New(nil)
	inner.SetSpace(1<<30, 20*mib)
	s := openOn(t, inner, disk.Options{MinFree: 4 * mib, Now: func() time.Time { return time.Unix(1e9, 0) }})
	open := chunkstoretest.NewSpec(8*mib, mib)
	ok(t, s.Create(t.Context(), open))
	endless := func(n int) chunkstore.Body {
		return chunkstore.Body{Reader: bytes.NewReader(make([]byte, n)), Length: -1}
	}
	id := upload.NewUploadID("n0de")
	_, err := s.WriteWhole(t.Context(), id, endless(8*mib+1), 1<<30)
	want(t, err, upload.NoRoom)
	if ids, err := s.Data(); err != nil || len(ids) > 0 {
		t.Errorf("what did not fit is kept: %v %v", ids, err)
	}
	if h := s.Health(); h.Reserved != 8*mib {
		t.Errorf("health: %+v", h)
	}
	inner.SetSpace(1<<30, 20*mib)
	s = openOn(t, inner.Kill(), disk.Options{MinFree: 4 * mib})
	_, err = s.WriteWhole(t.Context(), id, endless(8*mib), 1<<30)
	ok(t, err)
	content := chunkstoretest.Bytes(8*mib, 1)
	for i := range 8 {
		ok(t, s.WriteChunk(t.Context(), open.ID, i, chunkstoretest.BodyOf(chunkstoretest.Chunk(content, mib, i))))
	}
}

func TestCreateFails(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		hook     faultfs.Hook
		kind     upload.Kind
		writable bool
	}{
		"no room":        {failing(faultfs.Write, ".manifest", &faultfs.ShortWrite{Bytes: 20, Err: syscall.ENOSPC}), upload.NoRoom, true},
		"sync fails":     {failing(faultfs.Sync, ".manifest", syscall.EIO), upload.Unavailable, true},
		"dir sync fails": {failing(faultfs.SyncDir, "", syscall.EIO), upload.Unavailable, false},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			inner := memfs.New(nil)
			fsys := faultfs.New(inner, nil)
			s := openOn(t, fsys, disk.Options{})
			fsys.SetHook(c.hook)
			spec := chunkstoretest.NewSpec(100, chunkSize)
			want(t, s.Create(t.Context(), spec), c.kind)
			if h := s.Health(); h.Open != 0 || h.Reserved != 0 || h.Writable != c.writable {
				t.Errorf("health: %+v", h)
			}
			for _, name := range names(t, inner) {
				if strings.Contains(name, spec.ID) {
					t.Errorf("%s is left", name)
				}
			}
			if c.writable {
				ok(t, s.Create(t.Context(), spec))
			}
		})
	}
}

// Creates that come together share syncs of the directory.
func TestGroupedDirectorySync(t *testing.T) {
	t.Parallel()
	fsys := faultfs.New(memfs.New(nil), nil)
	s := openOn(t, fsys, disk.Options{})
	var syncs atomic.Int64
	fsys.SetHook(func(op faultfs.Op) error {
		if op.Kind == faultfs.SyncDir {
			syncs.Add(1)
			time.Sleep(5 * time.Millisecond)
		}
		return nil
	})
	var wg sync.WaitGroup
	for range 100 {
		wg.Go(func() {
			if err := s.Create(t.Context(), chunkstoretest.NewSpec(1, chunkSize)); err != nil {
				t.Error(err)
			}
		})
	}
	wg.Wait()
	if n := syncs.Load(); n > 50 {
		t.Errorf("100 creates at once took %d syncs of the directory", n)
	}
}

// A seal that fixes the size does not leave bytes of a chunk beyond it.
func TestSealCutsWhatIsBeyond(t *testing.T) {
	t.Parallel()
	inner := memfs.New(nil)
	s := openOn(t, inner, disk.Options{})
	l := newLife()
	l.spec.Size, l.spec.ChunkSize = upload.UnknownSize, 1<<20
	l.content = chunkstoretest.Bytes(2<<20, 5)
	ok(t, s.Create(t.Context(), l.spec))
	ok(t, s.WriteChunk(t.Context(), l.spec.ID, 0, chunkstoretest.BodyOf(l.content[:1<<20])))
	body, _ := chunkstoretest.GatedBody(l.content[1<<20:], 600<<10)
	var wg sync.WaitGroup
	var err error
	wg.Go(func() { err = s.WriteChunk(t.Context(), l.spec.ID, 1, body) })
	waitFor(t, func() bool { return len(readData(t, inner, l.spec.ID)) > 1<<20 })
	sealed, sealErr := s.Seal(t.Context(), l.spec.ID, 1<<20)
	ok(t, sealErr)
	wg.Wait()
	want(t, err, upload.Canceled)
	ok(t, s.Commit(t.Context(), l.spec.ID))
	if got := chunkstoretest.ReadAll(t, s, l.spec.ID); sealed.Size != 1<<20 || !bytes.Equal(got, l.content[:1<<20]) {
		t.Errorf("sealed with %d bytes, %d come back", sealed.Size, len(got))
	}
}

// A chunk is void on disk before it is in memory: in between it could be sent again, with other
// bytes, and a restart would take them for the old ones.
func TestDropIsJournalledFirst(t *testing.T) {
	t.Parallel()
	l, inner := newLife(), memfs.New(nil)
	fsys := faultfs.New(inner, nil)
	s := openOn(t, fsys, disk.Options{})
	ok(t, s.Create(t.Context(), l.spec))
	send(t, s, l, 0)
	corrupt(t, inner, l.spec.ID, 0)
	seen := 0
	fsys.SetHook(func(op faultfs.Op) error {
		if op.Kind == faultfs.Write && strings.HasSuffix(op.Name, ".journal") {
			seen++
			if u, err := s.Get(l.spec.ID); err != nil || !u.Received.Has(0) {
				t.Errorf("void in memory before the journal says so (%v)", err)
			}
		}
		return nil
	})
	if bad, err := s.Recheck(t.Context(), l.spec.ID); err != nil || len(bad) != 1 || seen != 1 {
		t.Errorf("bad %v, %v; %d writes", bad, err, seen)
	}
}

// Idle files are closed, those of the most recent uploads stay open.
func TestOpenFilesAreBounded(t *testing.T) {
	t.Parallel()
	var open, most atomic.Int64
	fsys := faultfs.New(memfs.New(nil), func(op faultfs.Op) error {
		if !strings.HasSuffix(op.Name, ".data") {
			return nil
		}
		switch op.Kind {
		case faultfs.Open:
			most.Store(max(most.Load(), open.Add(1)))
		case faultfs.Close:
			open.Add(-1)
		default:
		}
		return nil
	})
	s := openOn(t, fsys, disk.Options{MaxIdle: 10})
	var lives []*life
	for range 100 {
		l := newLife()
		lives = append(lives, l)
		ok(t, s.Create(t.Context(), l.spec))
		send(t, s, l, 1)
	}
	if most.Load() > 11 || open.Load() > 10 {
		t.Errorf("%d data files were open, %d are", most.Load(), open.Load())
	}
	for _, l := range lives {
		send(t, s, l, 0, 2, 3, 4)
		_, err := s.Seal(t.Context(), l.spec.ID, upload.UnknownSize)
		ok(t, err)
	}
	ok(t, s.Close())
	if open.Load() != 0 {
		t.Errorf("%d data files are open after Close", open.Load())
	}
}

// An open upload costs no goroutine.
func TestNoGoroutinePerUpload(t *testing.T) {
	fsys := memfs.New(nil)
	s := openOn(t, fsys, disk.Options{})
	before := runtime.NumGoroutine()
	for range 2000 {
		spec := chunkstoretest.NewSpec(4*chunkSize, chunkSize)
		ok(t, s.Create(t.Context(), spec))
		ok(t, s.WriteChunk(t.Context(), spec.ID, 1, chunkstoretest.BodyOf(make([]byte, chunkSize))))
	}
	if n := runtime.NumGoroutine() - before; n > 20 {
		t.Errorf("2000 open uploads have %d goroutines", n)
	}
}

// Names in the staging directory are never followed.
func TestSymbolicLinks(t *testing.T) {
	t.Parallel()
	dir, outside := t.TempDir(), filepath.Join(t.TempDir(), "secret")
	ok(t, os.WriteFile(outside, []byte("secret"), 0o600))
	ok(t, os.WriteFile(filepath.Join(dir, "inside"), []byte("secret"), 0o600))
	s := openOn(t, newOS(t, dir), disk.Options{})
	for _, target := range []string{outside, "inside"} {
		id := upload.NewUploadID("n0de")
		link := filepath.Join(dir, id+".data")
		ok(t, os.Symlink(target, link))
		if c, err := s.Open(t.Context(), id); err == nil {
			_ = c.Close()
			t.Errorf("a link to %s was followed", target)
		}
		_, err := s.WriteWhole(t.Context(), id, chunkstoretest.BodyOf([]byte("x")), 10)
		want(t, err, upload.Conflict)
		spec := chunkstoretest.NewSpec(1, chunkSize)
		spec.ID = id
		ok(t, s.Create(t.Context(), spec))
		if err := s.WriteChunk(t.Context(), id, 0, chunkstoretest.BodyOf([]byte("x"))); err == nil {
			t.Errorf("a chunk was written through a link to %s", target)
		}
		ok(t, s.Discard(t.Context(), id))
		if _, err := os.Lstat(link); !errors.Is(err, fs.ErrNotExist) {
			t.Errorf("the link is left: %v", err)
		}
	}
	for _, name := range []string{outside, filepath.Join(dir, "inside")} {
		if b, err := os.ReadFile(name); err != nil || string(b) != "secret" {
			t.Errorf("%s has %q, %v", name, b, err)
		}
	}
}

// Ten thousand chunks, sealed and restarted.
func TestMostChunks(t *testing.T) {
	t.Parallel()
	fsys := memfs.New(nil)
	s := openOn(t, fsys, disk.Options{})
	spec := chunkstoretest.NewSpec(upload.MaxChunks*8, 8)
	ok(t, s.Create(t.Context(), spec))
	content := chunkstoretest.Bytes(spec.Size, 3)
	order := rand.New(rand.NewPCG(1, 1)).Perm(upload.MaxChunks)
	for _, i := range order {
		ok(t, s.WriteChunk(t.Context(), spec.ID, i, chunkstoretest.BodyOf(chunkstoretest.Chunk(content, 8, i))))
	}
	again := openOn(t, fsys.Kill(), disk.Options{BootID: "boot 2"})
	for _, s := range []chunkstore.Staging{s, again} {
		sealed, err := s.Seal(t.Context(), spec.ID, upload.UnknownSize)
		ok(t, err)
		if sealed != chunkstoretest.SealedOf(content) {
			t.Error(fmt.Sprint("sealed ", sealed))
		}
	}
}
