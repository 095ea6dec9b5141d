package local_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"math/rand/v2"
	"sync"
	"syscall"
	"testing"
	"testing/synctest"

	"gantry/internal/vfs"
	"gantry/internal/vfs/faultfs"
	"gantry/internal/vfs/memfs"
	"gantry/store"
	"gantry/store/local"
	"gantry/store/storetest"
	"gantry/upload"
)

// cases are the ways in which Put goes.
var cases = []struct {
	name        string
	link, there bool // the content offers its file; another object is there already
}{
	{"copy", false, false}, {"link", true, false}, {"copy over", false, true}, {"link over", true, true},
}

// prepare makes a file system with a store in it, and content to be put.
func prepare(t *testing.T, link, there bool, key string, data, old []byte) (*memfs.FS, store.Content) {
	t.Helper()
	tree := memfs.New(nil)
	if there {
		if err := open(t, tree).Put(t.Context(), key, bytes.NewReader(old), store.PutOptions{}); err != nil {
			t.Fatal(err)
		}
	}
	if !link {
		return tree, bytes.NewReader(data)
	}
	return tree, stage(t, tree, "staged", data)
}

// The power fails between any two operations of a Put: the object is whole or is not there, and once
// Put has returned it is there.
func TestPowerCutDuringPut(t *testing.T) {
	t.Parallel()
	const seeds = 8
	data, old := storetest.Bytes(1, 2<<20+777), storetest.Bytes(2, 1<<20)
	key := storetest.Key(data, "a")
	for _, c := range cases {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			tree, content := prepare(t, c.link, c.there, key, data, old)
			check := func(when string, mustBe bool) {
				for seed := range uint64(seeds) {
					after := open(t, tree.Crash(rand.New(rand.NewPCG(seed, 1))))
					got, err := storetest.Read(t.Context(), after, key, 0, -1)
					switch {
					case err == nil && bytes.Equal(got, data):
					case mustBe:
						t.Fatalf("%s, seed %d: Put had returned, and there are %d bytes, %v", when, seed, len(got), err)
					case c.there && err == nil && bytes.Equal(got, old):
					case !c.there && errors.Is(err, upload.NotFound):
					default:
						t.Fatalf("%s, seed %d: there are %d bytes, %v", when, seed, len(got), err)
					}
					if err := after.Clean(t.Context()); err != nil {
						t.Fatal(err)
					}
				}
			}
			ops := 0
			s := open(t, faultfs.New(tree, func(op faultfs.Op) error {
				ops++
				check(fmt.Sprintf("before %s %s", op.Kind, op.Name), false)
				return nil
			}))
			if err := s.Put(t.Context(), key, content, store.PutOptions{}); err != nil {
				t.Fatal(err)
			}
			check("at the end", true)
			if ops < 4 {
				t.Errorf("only %d operations were seen", ops)
			}
		})
	}
}

// Any operation fails: Put says so, leaves no half object, and works the next time.
func TestAnyOperationFails(t *testing.T) {
	t.Parallel()
	data, old := storetest.Bytes(3, 2<<20+777), storetest.Bytes(4, 1<<20)
	key := storetest.Key(data, "a")
	for _, c := range cases {
		for errno, kind := range map[syscall.Errno]upload.Kind{syscall.EIO: upload.Unavailable, syscall.ENOSPC: upload.NoRoom} {
			t.Run(fmt.Sprint(c.name, errno), func(t *testing.T) {
				t.Parallel()
				failed := 0
				for n := 1; ; n++ {
					tree, content := prepare(t, c.link, c.there, key, data, old)
					broken := faultfs.New(tree, nil)
					s := open(t, broken)
					var hit faultfs.Op
					broken.SetHook(faultfs.FailNth(n, errno, func(op faultfs.Op) bool {
						hit = op
						return true
					}))
					err := s.Put(t.Context(), key, content, store.PutOptions{})
					broken.SetHook(nil)
					if err == nil && failed > 0 && hit.N < int64(n) {
						break // there are not so many operations
					}
					what := fmt.Sprintf("operation %d (%s %s)", n, hit.Kind, hit.Name)
					if err != nil {
						failed++
						if !errors.Is(err, kind) || !errors.Is(err, errno) {
							t.Fatalf("%s: %v, want %v", what, err, kind)
						}
						got, err := storetest.Read(t.Context(), s, key, 0, -1)
						if !(errors.Is(err, upload.NotFound) || err == nil && (bytes.Equal(got, data) || bytes.Equal(got, old))) {
							t.Fatalf("%s left %d bytes, %v", what, len(got), err)
						}
						noTemps(t, tree)
						if err := s.Put(t.Context(), key, content, store.PutOptions{}); err != nil {
							t.Fatalf("after %s: %v", what, err)
						}
					}
					after := open(t, tree.Crash(rand.New(rand.NewPCG(uint64(n), 2))))
					expect(t, after, key, data)
					if n > 100 {
						t.Fatal("there is no end of operations")
					}
				}
				if failed < 3 {
					t.Errorf("only %d operations failed", failed)
				}
			})
		}
	}
}

// Puts into one directory share its syncs, and each is durable when it returns.
func TestConcurrentPutsShareASync(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		const n = 20
		tree := memfs.New(nil)
		goOn := make(chan struct{})
		var mu sync.Mutex
		syncs := 0
		s := open(t, faultfs.New(tree, func(op faultfs.Op) error {
			if op.Kind == faultfs.SyncDir && op.Name != "." {
				mu.Lock()
				syncs++
				mu.Unlock()
				<-goOn
			}
			return nil
		}))
		data := []byte("x")
		var running sync.WaitGroup
		put := func(i int) {
			running.Go(func() {
				key := storetest.Key(data, fmt.Sprint(i))
				if err := s.Put(context.Background(), key, bytes.NewReader(data), store.PutOptions{}); err != nil {
					t.Error(err)
					return
				}
				mu.Lock() // Crash draws from a generator
				defer mu.Unlock()
				expect(t, open(t, tree.Crash(rand.New(rand.NewPCG(uint64(i), 3)))), key, data)
			})
		}
		put(0)
		synctest.Wait() // it syncs: the names of the others are too late for that
		for i := 1; i < n; i++ {
			put(i)
		}
		synctest.Wait()
		close(goOn)
		running.Wait()
		if syncs != 2 {
			t.Errorf("%d syncs of the directory for %d objects, want 2", syncs, n)
		}
	})
}

// When a shared sync fails, all who waited for it are told.
func TestAFailedSharedSyncFailsAll(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		const n = 5
		goOn := make(chan struct{})
		s := open(t, faultfs.New(memfs.New(nil), func(op faultfs.Op) error {
			if op.Kind == faultfs.SyncDir && op.Name != "." {
				<-goOn
				return syscall.EIO
			}
			return nil
		}))
		data := []byte("x")
		var running sync.WaitGroup
		for i := range n {
			running.Go(func() {
				if err := s.Put(context.Background(), storetest.Key(data, fmt.Sprint(i)), bytes.NewReader(data), store.PutOptions{}); !errors.Is(err, syscall.EIO) {
					t.Errorf("Put %d: %v", i, err)
				}
			})
		}
		synctest.Wait()
		close(goOn)
		running.Wait()
	})
}

// shortFile loses the end of what is written to it.
type shortFile struct{ vfs.File }

func (f shortFile) WriteAt(p []byte, off int64) (int, error) {
	_, err := f.File.WriteAt(p[:len(p)-1], off)
	return len(p), err
}

type shortTree struct{ *memfs.FS }

func (s shortTree) OpenFile(name string, flag int, perm fs.FileMode) (vfs.File, error) {
	f, err := s.FS.OpenFile(name, flag, perm)
	return shortFile{f}, err
}

// A disk that says it wrote more than it did is found out before the object has its name.
func TestShortCopyIsNoticed(t *testing.T) {
	t.Parallel()
	s, err := local.Open(shortTree{memfs.New(nil)}, "n1")
	if err != nil {
		t.Fatal(err)
	}
	data := storetest.Bytes(5, 1<<20)
	key := storetest.Key(data, "a")
	if err := s.Put(t.Context(), key, bytes.NewReader(data), store.PutOptions{}); err == nil {
		t.Error("a copy that is too short was taken")
	}
	if _, err := s.Size(t.Context(), key); !errors.Is(err, upload.NotFound) {
		t.Errorf("Size: %v", err)
	}
}
