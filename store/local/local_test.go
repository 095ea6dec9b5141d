package local_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"go.uber.org/goleak"

	"gantry/internal/vfs"
	"gantry/internal/vfs/faultfs"
	"gantry/internal/vfs/memfs"
	"gantry/store"
	"gantry/store/local"
	"gantry/store/storetest"
	"gantry/upload"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// badKeys would be names outside the tree, or strange ones in it.
var badKeys = []string{
	"..", "../x", "aa/../../x", "aa", "aa/", "/aa/x", "aa//x", "aa/b/c", "AA/x", "a/x", "aaa/x", "gg/x", "aa/.tmp-x", "aa/X",
	"aa/x\x00", "aa/x y", "aa/..", "aa/.", ".tmp-x", `aa\x`, "aa/" + strings.Repeat("x", 201), "ää/x", "aa/ä",
}

func open(t testing.TB, tree vfs.FS) *local.Store {
	t.Helper()
	s, err := local.Open(tree, "n1")
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func osTree(t testing.TB, dir string) *vfs.OS {
	t.Helper()
	tree, err := vfs.OpenOS(dir)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := tree.Close(); err != nil {
			t.Error(err)
		}
	})
	return tree
}

func TestStoreOnDisk(t *testing.T) {
	// Not parallel: the suite measures memory.
	dirs := sync.Map{}
	storetest.Run(t, func(t *testing.T) store.Store {
		dir := t.TempDir()
		s := open(t, osTree(t, dir))
		dirs.Store(s, dir)
		return s
	}, storetest.Caps{BadKeys: badKeys, Memory: 24 << 20, Alter: func(t *testing.T, s store.Store, key string, change func([]byte) []byte) {
		dir, _ := dirs.Load(s)
		alter(t, filepath.Join(dir.(string), key), change)
	}})
}

func alter(t *testing.T, path string, change func([]byte) []byte) {
	t.Helper()
	data, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, change(data), 0o600); err != nil {
		t.Fatal(err)
	}
}

func TestStoreInMemory(t *testing.T) {
	t.Parallel()
	storetest.Run(t, func(t *testing.T) store.Store { return open(t, memfs.New(nil)) }, storetest.Caps{BadKeys: badKeys, Memory: storetest.InMemory})
}

func TestOpenNeedsItsDirectory(t *testing.T) {
	t.Parallel()
	broken := faultfs.New(memfs.New(nil), func(faultfs.Op) error { return syscall.EIO })
	if _, err := local.Open(broken, "n1"); !errors.Is(err, upload.Invalid) || !errors.Is(err, syscall.EIO) {
		t.Errorf("got %v", err)
	}
}

// staged is content that offers its file, as staging's does.
type staged struct {
	f    vfs.File
	size int64
}

func (c staged) File() vfs.File                          { return c.f }
func (c staged) ReadAt(p []byte, off int64) (int, error) { return c.f.ReadAt(p, off) }
func (c staged) Size() int64                             { return c.size }

// stage makes a durable file in a tree and opens it.
func stage(t testing.TB, tree vfs.FS, name string, data []byte) staged {
	t.Helper()
	f, err := tree.OpenFile(name, vfs.ReadWrite|vfs.Create|vfs.Excl, 0o600)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = f.Close() })
	if _, err := f.WriteAt(data, 0); err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(f.Sync(), tree.SyncDir(".")); err != nil {
		t.Fatal(err)
	}
	return staged{f, int64(len(data))}
}

// expect checks that the object is whole.
func expect(t testing.TB, s store.Store, key string, data []byte) {
	t.Helper()
	got, err := storetest.Read(context.Background(), s, key, 0, -1)
	if err != nil || !bytes.Equal(got, data) {
		t.Errorf("%s has %d bytes that are not those %d that were put (%v)", key, len(got), len(data), err)
	}
}

func noTemps(t testing.TB, tree vfs.FS) {
	t.Helper()
	entries, err := tree.ReadDir(".")
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range entries {
		if strings.HasPrefix(e.Name(), ".") {
			t.Errorf("%s was left behind", e.Name())
		}
	}
}

// trees are a staging tree and a store's tree on one disk.
func trees(t testing.TB) (stagingTree, storeTree *vfs.OS, storeDir string) {
	t.Helper()
	dir := t.TempDir()
	for _, name := range []string{"staging", "store"} {
		if err := os.Mkdir(filepath.Join(dir, name), 0o700); err != nil {
			t.Fatal(err)
		}
	}
	return osTree(t, filepath.Join(dir, "staging")), osTree(t, filepath.Join(dir, "store")), filepath.Join(dir, "store")
}

func TestAStagedFileIsLinked(t *testing.T) {
	t.Parallel()
	stagingTree, storeTree, dir := trees(t)
	s, data := open(t, storeTree), storetest.Bytes(1, 3<<20)
	key, content := storetest.Key(data, "a"), stage(t, stagingTree, "x", data)
	for range 2 { // and when the answer to the first was lost
		if err := s.Put(t.Context(), key, content, store.PutOptions{}); err != nil {
			t.Fatal(err)
		}
		object, err := os.Stat(filepath.Join(dir, key))
		if err != nil {
			t.Fatal(err)
		}
		if source, err := content.f.Stat(); err != nil || !os.SameFile(object, source) {
			t.Errorf("the object is a copy (%v)", err)
		}
		noTemps(t, storeTree)
	}
	if err := stagingTree.Remove("x"); err != nil {
		t.Fatal(err)
	}
	expect(t, s, key, data)
}

func TestALinkReplacesAWrongObject(t *testing.T) {
	t.Parallel()
	stagingTree, storeTree, _ := trees(t)
	s, data := open(t, storeTree), storetest.Bytes(1, 3<<20)
	key, content := storetest.Key(data, "a"), stage(t, stagingTree, "x", data)
	for _, wrong := range [][]byte{nil, data[1:], storetest.Bytes(2, 3<<20)} {
		if err := s.Put(t.Context(), key, bytes.NewReader(wrong), store.PutOptions{}); err != nil {
			t.Fatal(err)
		}
		if err := s.Put(t.Context(), key, content, store.PutOptions{}); err != nil {
			t.Fatal(err)
		}
		expect(t, s, key, data)
		noTemps(t, storeTree)
	}
}

// A file that has more bytes than the content is not the content.
func TestALongerFileIsCopied(t *testing.T) {
	t.Parallel()
	stagingTree, storeTree, _ := trees(t)
	s, data := open(t, storeTree), storetest.Bytes(1, 3<<20)
	content := stage(t, stagingTree, "x", data)
	content.size = 1 << 20
	key := storetest.Key(data[:1<<20], "a")
	if err := s.Put(t.Context(), key, content, store.PutOptions{}); err != nil {
		t.Fatal(err)
	}
	expect(t, s, key, data[:1<<20])
}

func TestWhatCannotBeLinkedIsCopied(t *testing.T) {
	t.Parallel()
	stagingTree, storeTree, _ := trees(t)
	for _, reason := range []error{syscall.EXDEV, syscall.EPERM, syscall.EMLINK, syscall.ENOENT, errors.ErrUnsupported} {
		s := open(t, faultfs.New(storeTree, func(op faultfs.Op) error {
			if op.Kind == faultfs.Link {
				return reason
			}
			return nil
		}))
		data := storetest.Bytes(uint64(reason.Error()[0]), 1<<20)
		key := storetest.Key(data, fmt.Sprintf("%x", reason.Error()))
		if err := s.Put(t.Context(), key, stage(t, stagingTree, fmt.Sprintf("%x", reason.Error()), data), store.PutOptions{}); err != nil {
			t.Fatalf("%v: %v", reason, err)
		}
		expect(t, s, key, data)
	}
}

// The bytes of a linked object were read when the digests were made; everything else is read back.
func TestVerifyReadsAllButTheSameFile(t *testing.T) {
	t.Parallel()
	stagingTree, storeTree, dir := trees(t)
	var reads atomic.Int64
	s := open(t, faultfs.New(storeTree, func(op faultfs.Op) error {
		if op.Kind == faultfs.Read {
			reads.Add(1)
		}
		return nil
	}))
	data := storetest.Bytes(1, 3<<20)
	key, content := storetest.Key(data, "a"), stage(t, stagingTree, "x", data)
	want := storetest.DigestsOf(data)
	verify := func(what string, source store.Content, wantReads bool, wantErr error) {
		t.Helper()
		reads.Store(0)
		want.Source = source
		if err := s.Verify(t.Context(), key, want); !errors.Is(err, wantErr) {
			t.Errorf("%s: %v", what, err)
		}
		if (reads.Load() > 0) != wantReads {
			t.Errorf("%s: %d reads", what, reads.Load())
		}
	}
	if err := s.Put(t.Context(), key, content, store.PutOptions{}); err != nil {
		t.Fatal(err)
	}
	verify("linked", content, false, nil)
	verify("linked, of unknown source", nil, true, nil)
	verify("linked, of another source", bytes.NewReader(data), true, nil)
	verify("linked, of another file", stage(t, stagingTree, "copy", data), true, nil)

	// The name was given to another file meanwhile.
	if err := os.Remove(filepath.Join(dir, key)); err != nil {
		t.Fatal(err)
	}
	wrong := bytes.Clone(data)
	wrong[len(wrong)-1] ^= 1
	if err := os.WriteFile(filepath.Join(dir, key), wrong, 0o600); err != nil {
		t.Fatal(err)
	}
	verify("another file under the name", content, true, upload.DigestMismatch)
}

func TestStrangeFilesAreNotObjects(t *testing.T) {
	t.Parallel()
	_, tree, dir := trees(t)
	s, data := open(t, tree), []byte("secret")
	outside := filepath.Join(t.TempDir(), "outside")
	if err := os.WriteFile(outside, data, 0o600); err != nil {
		t.Fatal(err)
	}
	key := storetest.Key(data, "real")
	if err := s.Put(t.Context(), key, bytes.NewReader(data), store.PutOptions{}); err != nil {
		t.Fatal(err)
	}
	strange := map[string]func(path string) error{
		"abs": func(path string) error { return os.Symlink(outside, path) },
		"in":  func(path string) error { return os.Symlink(filepath.Base(key), path) },
		"dir": func(path string) error { return os.Mkdir(path, 0o700) },
		"pip": func(path string) error { return syscall.Mkfifo(path, 0o600) },
	}
	for id, make := range strange {
		k := key[:3] + id
		if err := make(filepath.Join(dir, k)); err != nil {
			t.Fatal(err)
		}
		if got, err := storetest.Read(t.Context(), s, k, 0, -1); !errors.Is(err, upload.Invalid) {
			t.Errorf("%s: read %q, %v", id, got, err)
		}
		if _, err := s.Size(t.Context(), k); !errors.Is(err, upload.Invalid) {
			t.Errorf("%s: Size: %v", id, err)
		}
		if err := s.Verify(t.Context(), k, storetest.DigestsOf(data)); !errors.Is(err, upload.Invalid) {
			t.Errorf("%s: Verify: %v", id, err)
		}
	}
	// Neither are they followed when they are written to.
	if err := s.Put(t.Context(), key[:3]+"abs", bytes.NewReader([]byte("new")), store.PutOptions{}); err != nil {
		t.Error(err)
	}
	if got, err := os.ReadFile(outside); err != nil || !bytes.Equal(got, data) {
		t.Errorf("a file outside the store is now %q (%v)", got, err)
	}
	// Things beside the objects do not disturb.
	for _, name := range []string{"README", key[:3] + "UPPER.txt"} {
		if err := os.WriteFile(filepath.Join(dir, name), data, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	var keys []string
	for o, err := range s.List(t.Context()) {
		if err != nil {
			t.Fatal(err)
		}
		keys = append(keys, o.Key)
	}
	if !slices.Equal(keys, []string{key[:3] + "abs", key}) {
		t.Errorf("listed %q", keys)
	}
}

// A directory of the store may not be a link to elsewhere.
func TestALinkedDirectoryIsRefused(t *testing.T) {
	t.Parallel()
	_, tree, dir := trees(t)
	outside := t.TempDir()
	data := []byte("x")
	key := storetest.Key(data, "a")
	if err := os.Symlink(outside, filepath.Join(dir, key[:2])); err != nil {
		t.Fatal(err)
	}
	s := open(t, tree)
	if err := s.Put(t.Context(), key, bytes.NewReader(data), store.PutOptions{}); err == nil {
		t.Error("an object was put through a symbolic link")
	}
	if entries, err := os.ReadDir(outside); err != nil || len(entries) > 0 {
		t.Errorf("outside there is %v (%v)", entries, err)
	}
}

func TestADirectoryDeletedMeanwhileIsMadeAgain(t *testing.T) {
	t.Parallel()
	_, tree, dir := trees(t)
	s, data := open(t, tree), []byte("x")
	key := storetest.Key(data, "a")
	if err := s.Put(t.Context(), key, bytes.NewReader(data), store.PutOptions{}); err != nil {
		t.Fatal(err)
	}
	if err := os.RemoveAll(filepath.Join(dir, key[:2])); err != nil {
		t.Fatal(err)
	}
	if err := s.Put(t.Context(), key, bytes.NewReader(data), store.PutOptions{}); !errors.Is(err, upload.Unavailable) {
		t.Errorf("Put into a directory that is gone: %v", err)
	}
	if err := s.Put(t.Context(), key, bytes.NewReader(data), store.PutOptions{}); err != nil {
		t.Error(err)
	}
	noTemps(t, tree)
}

func TestCleanRemovesTemporaryFilesOnly(t *testing.T) {
	t.Parallel()
	_, tree, dir := trees(t)
	s, data := open(t, tree), []byte("x")
	key := storetest.Key(data, "a")
	if err := s.Put(t.Context(), key, bytes.NewReader(data), store.PutOptions{}); err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{".tmp-n1-1", ".tmp-n1-2", ".tmp-n2-1", ".tmp-n2-2", "notes"} {
		if err := os.WriteFile(filepath.Join(dir, name), data, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	long := time.Now().Add(-30 * 24 * time.Hour)
	if err := os.Chtimes(filepath.Join(dir, ".tmp-n2-2"), long, long); err != nil {
		t.Fatal(err)
	}
	if err := s.Clean(t.Context()); err != nil {
		t.Fatal(err)
	}
	if err := os.Remove(filepath.Join(dir, ".tmp-n2-1")); err != nil {
		t.Errorf("Clean deleted what another node is at work on: %v", err)
	}
	noTemps(t, tree)
	if _, err := os.Stat(filepath.Join(dir, "notes")); err != nil {
		t.Error("Clean deleted a file that is not temporary")
	}
	expect(t, s, key, data)
}

// An open object can be read to its end after it was deleted: downloads go on.
func TestReadersOutliveDelete(t *testing.T) {
	t.Parallel()
	_, tree, _ := trees(t)
	s, data := open(t, tree), storetest.Bytes(1, 3<<20)
	key := storetest.Key(data, "a")
	if err := s.Put(t.Context(), key, bytes.NewReader(data), store.PutOptions{}); err != nil {
		t.Fatal(err)
	}
	r, err := s.Open(t.Context(), key, 0, -1)
	if err != nil {
		t.Fatal(err)
	}
	if err := s.Delete(t.Context(), key); err != nil {
		t.Fatal(err)
	}
	got := bytes.Buffer{}
	if _, err := got.ReadFrom(r); err != nil || !bytes.Equal(got.Bytes(), data) {
		t.Errorf("read %d bytes, %v", got.Len(), err)
	}
	if err := r.Close(); err != nil {
		t.Error(err)
	}
}

func BenchmarkPutLink(b *testing.B) {
	stagingTree, storeTree, _ := trees(b)
	s := open(b, storeTree)
	content := stage(b, stagingTree, "x", make([]byte, 100<<10))
	sum := upload.SHA1{}
	b.ReportAllocs()
	i := 0
	for b.Loop() {
		i++
		sum[0], sum[1], sum[2], sum[3] = byte(i), byte(i>>8), byte(i>>16), byte(i>>24)
		if err := s.Put(b.Context(), upload.ObjectKeyFor(&upload.Blob{ID: "a", SHA1: sum}), content, store.PutOptions{}); err != nil {
			b.Fatal(err)
		}
		if i%50000 == 0 { // a file has at most 65,000 names
			b.StopTimer()
			content = stage(b, stagingTree, fmt.Sprint("x", i), make([]byte, 100<<10))
			b.StartTimer()
		}
	}
}
