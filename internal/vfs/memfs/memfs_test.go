package memfs_test

import (
	"bytes"
	"errors"
	"io/fs"
	"math/rand/v2"
	"syscall"
	"testing"
	"time"

	"gantry/internal/vfs"
	"gantry/internal/vfs/memfs"
)

func ok(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func open(t *testing.T, m *memfs.FS, name string) vfs.File {
	t.Helper()
	f, err := m.OpenFile(name, vfs.Create|vfs.ReadWrite, 0o600)
	ok(t, err)
	return f
}

func write(t *testing.T, f vfs.File, p []byte, off int64) {
	t.Helper()
	_, err := f.WriteAt(p, off)
	ok(t, err)
}

// content returns a file's bytes, nil if it is not there.
func content(t *testing.T, m *memfs.FS, name string) []byte {
	t.Helper()
	f, err := m.OpenFile(name, vfs.ReadOnly, 0)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	ok(t, err)
	info, err := f.Stat()
	ok(t, err)
	p := make([]byte, info.Size())
	_, _ = f.ReadAt(p, 0)
	return p
}

// outcomes crashes many times and returns what was found of a file, each content once.
func outcomes(t *testing.T, m *memfs.FS, name string) map[string]bool {
	t.Helper()
	found := map[string]bool{}
	for seed := range uint64(300) {
		p := content(t, m.Crash(rand.New(rand.NewPCG(seed, 1))), name)
		if p == nil {
			found["none"] = true
		} else {
			found[string(p)] = true
		}
	}
	return found
}

func TestWhatWasSyncedSurvives(t *testing.T) {
	t.Parallel()
	m := memfs.New(nil)
	f := open(t, m, "a")
	write(t, f, []byte("one"), 0)
	if got := outcomes(t, m, "a"); !got["none"] || !got["one"] {
		t.Errorf("nothing synced: %v", got)
	}
	ok(t, f.Sync())
	if got := outcomes(t, m, "a"); !got["none"] || !got["one"] || len(got) != 2 {
		t.Errorf("content synced: %v", got)
	}
	ok(t, m.SyncDir("."))
	if got := outcomes(t, m, "a"); len(got) != 1 || !got["one"] {
		t.Errorf("all synced: %v", got)
	}
	ok(t, m.Remove("a"))
	if got := outcomes(t, m, "a"); !got["none"] || !got["one"] {
		t.Errorf("removed: %v", got)
	}
	ok(t, m.SyncDir("."))
	if got := outcomes(t, m, "a"); len(got) != 1 || !got["none"] {
		t.Errorf("removal synced: %v", got)
	}
}

func TestSectorsSurviveOneByOne(t *testing.T) {
	t.Parallel()
	m := memfs.New(nil)
	f := open(t, m, "a")
	write(t, f, bytes.Repeat([]byte("0"), 1024), 0)
	ok(t, errors.Join(f.Sync(), m.SyncDir(".")))
	write(t, f, bytes.Repeat([]byte("1"), 1024), 0)
	got := outcomes(t, m, "a")
	for _, sectors := range []string{"00", "01", "10", "11"} {
		whole := string(bytes.Repeat([]byte(sectors[:1]), 512)) + string(bytes.Repeat([]byte(sectors[1:]), 512))
		if !got[whole] {
			t.Errorf("%s never happens", sectors)
		}
	}
	if len(got) != 4 {
		t.Errorf("%d outcomes, want 4: a sector is never torn", len(got))
	}
}

func TestRenameIsAtomicForItsTarget(t *testing.T) {
	t.Parallel()
	m := memfs.New(nil)
	for _, name := range []string{"a", "b"} {
		f := open(t, m, name)
		write(t, f, []byte(name), 0)
		ok(t, f.Sync())
	}
	ok(t, m.SyncDir("."))
	ok(t, m.Rename("a", "b"))
	if got := outcomes(t, m, "b"); len(got) != 2 || !got["a"] || !got["b"] {
		t.Errorf("outcomes %v", got)
	}
	ok(t, m.SyncDir("."))
	if got := outcomes(t, m, "b"); len(got) != 1 || !got["a"] {
		t.Errorf("outcomes %v", got)
	}
}

// A failed sync on Linux: the pages count as clean, so the next sync does not write them.
func TestLoseDirty(t *testing.T) {
	t.Parallel()
	m := memfs.New(nil)
	f := open(t, m, "a")
	write(t, f, []byte("old"), 0)
	ok(t, errors.Join(f.Sync(), m.SyncDir(".")))
	write(t, f, []byte("new"), 0)
	f.(interface{ LoseDirty() }).LoseDirty()
	ok(t, f.Sync())
	if got := content(t, m, "a"); string(got) != "new" {
		t.Errorf("the cache has %q", got)
	}
	if got := outcomes(t, m, "a"); len(got) != 1 || !got["old"] {
		t.Errorf("on disk %v", got)
	}
	write(t, f, []byte("new"), 0)
	ok(t, f.Sync())
	if got := outcomes(t, m, "a"); len(got) != 1 || !got["new"] {
		t.Errorf("on disk %v", got)
	}
}

func TestKillKeepsTheCache(t *testing.T) {
	t.Parallel()
	m := memfs.New(nil)
	f := open(t, m, "a")
	write(t, f, []byte("one"), 0)
	left := m.Kill()
	write(t, f, []byte("two"), 0)
	ok(t, f.Sync())
	if got := content(t, left, "a"); string(got) != "one" {
		t.Errorf("got %q", got)
	}
	if got := outcomes(t, left, "a"); !got["none"] || !got["one"] {
		t.Errorf("what was not synced became durable by the kill: %v", got)
	}
}

func TestTruncateIsNotDurable(t *testing.T) {
	t.Parallel()
	m := memfs.New(nil)
	f := open(t, m, "a")
	write(t, f, []byte("long"), 0)
	ok(t, errors.Join(f.Sync(), m.SyncDir("."), f.Truncate(2)))
	if got := outcomes(t, m, "a"); !got["long"] || !got["lo"] {
		t.Errorf("outcomes %v", got)
	}
	ok(t, f.Sync())
	if got := outcomes(t, m, "a"); len(got) != 1 || !got["lo"] {
		t.Errorf("outcomes %v", got)
	}
}

func TestClockAndSpace(t *testing.T) {
	t.Parallel()
	now := time.Unix(100, 5)
	m := memfs.New(func() time.Time { return now })
	f := open(t, m, "a")
	write(t, f, []byte("x"), 0)
	now = now.Add(time.Hour)
	info, err := m.Stat("a")
	ok(t, err)
	if !info.ModTime().Equal(time.Unix(100, 5)) {
		t.Errorf("mtime %v", info.ModTime())
	}
	write(t, f, []byte("x"), 0)
	if info, err = f.Stat(); err != nil || !info.ModTime().Equal(now) {
		t.Errorf("mtime %v, %v", info.ModTime(), err)
	}
	m.SetSpace(1000, 0)
	if total, free, err := m.Space(); total != 1000 || free != 0 || err != nil {
		t.Errorf("space %d %d %v", total, free, err)
	}
	if _, err := f.WriteAt([]byte("longer"), 0); !errors.Is(err, syscall.ENOSPC) {
		t.Errorf("growing a file on a full disk: %v", err)
	}
	write(t, f, []byte("y"), 0)
}
