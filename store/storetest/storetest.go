// Package storetest is the test suite that every store passes, and a store that misbehaves.
package storetest

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"math/rand/v2"
	"slices"
	"sync"
	"testing"
	"time"

	"gantry/store"
	"gantry/upload"
)

// Caps say what of the contract depends on the store.
type Caps struct {
	// Alter changes the bytes of an object behind the store's back. Nil if a test cannot reach them;
	// then it is not shown that Verify looks at the store's own copy.
	Alter func(t *testing.T, s store.Store, key string, change func([]byte) []byte)
	// BadKeys are keys that the store refuses.
	BadKeys []string
	// ReplaceDisturbs: a reader whose object is replaced by the same content may get an error. Wrong bytes
	// it never gets.
	ReplaceDisturbs bool
	// AnyKey: keys may have all characters but NUL and the backslash, and 512 bytes. A store that makes names of
	// files of them refuses what is not like upload.ObjectKeyFor's.
	AnyKey bool
	// PartSize is that of the parts or stripes of which the store makes objects, bytes; 0: none.
	PartSize int64
	// Memory is the most that 24 Puts at once take for their buffers, bytes; InMemory if the objects are there too.
	Memory int64
	// Sent returns the bytes of contents that were sent to the store since it was opened, what was sent twice
	// twice. Nil if a Put that was cut off is not gone on with.
	Sent func(s store.Store) int64
}

// InMemory is the Caps.Memory of a store whose objects are in this process.
const InMemory int64 = -1

// Run tests a store; open returns a fresh, empty one.
func Run(t *testing.T, open func(t *testing.T) store.Store, caps Caps) {
	s := suite{open, caps}
	for name, test := range map[string]func(*testing.T){
		"RoundTrip":           s.roundTrip,
		"Ranges":              s.ranges,
		"NotFound":            s.notFound,
		"BadKeys":             s.badKeys,
		"PutAgain":            s.putAgain,
		"PutReplaces":         s.putReplaces,
		"UnreadableContent":   s.unreadableContent,
		"ShortContent":        s.shortContent,
		"CanceledPut":         s.canceledPut,
		"Progress":            s.progress,
		"VerifyDigests":       s.verifyDigests,
		"VerifyOwnCopy":       s.verifyOwnCopy,
		"Delete":              s.delete,
		"List":                s.list,
		"ListEndsEarly":       s.listEndsEarly,
		"CleanKeepsObjects":   s.cleanKeepsObjects,
		"ManyAtOnce":          s.manyAtOnce,
		"ReadersDuringPut":    s.readersDuringPut,
		"CleanBesidePut":      s.cleanBesidePut,
		"DigestOfNothingIsOK": s.empty,
		"Large":               s.large,
		"Memory":              s.memory,
		"Keys":                s.keys,
		"Resume":              s.resume,
		"Checkpoints":         s.checkpoints,
		"CanceledReader":      s.canceledReader,
		"DeletedReader":       s.deletedReader,
		"DifferentKeys":       s.differentKeys,
		"ListMany":            s.listMany,
	} {
		t.Run(name, test)
	}
}

type suite struct {
	open func(t *testing.T) store.Store
	caps Caps
}

// Bytes returns n bytes that depend on seed.
func Bytes(seed uint64, n int) []byte {
	data := make([]byte, n)
	var key [32]byte
	key[0], key[1] = byte(seed), byte(seed>>8)
	_, _ = rand.NewChaCha8(key).Read(data)
	return data
}

// Key returns an object key as upload.ObjectKeyFor makes them.
func Key(data []byte, id string) string {
	return upload.ObjectKeyFor(&upload.Blob{SHA1: upload.SumSHA1(data), ID: id})
}

// DigestsOf returns what Verify wants to know of data.
func DigestsOf(data []byte) store.Digests {
	var tree upload.TreeHasher
	_, _ = tree.Write(data)
	return store.Digests{Size: int64(len(data)), Root: tree.Root(), CRC32C: crc32.Checksum(data, upload.Castagnoli)}
}

func put(t *testing.T, s store.Store, key string, data []byte) {
	t.Helper()
	if err := s.Put(t.Context(), key, bytes.NewReader(data), store.PutOptions{}); err != nil {
		t.Fatalf("Put(%s): %v", key, err)
	}
}

// Read returns an object's bytes.
func Read(ctx context.Context, s store.Store, key string, offset, length int64) ([]byte, error) {
	r, err := s.Open(ctx, key, offset, length)
	if err != nil {
		return nil, err
	}
	data, err := io.ReadAll(r)
	return data, errors.Join(err, r.Close())
}

// expect checks that key has exactly these bytes, by all means there are.
func expect(t *testing.T, s store.Store, key string, data []byte) {
	t.Helper()
	if size, err := s.Size(t.Context(), key); err != nil || size != int64(len(data)) {
		t.Errorf("Size(%s) = %d, %v; want %d", key, size, err, len(data))
	}
	if got, err := Read(t.Context(), s, key, 0, -1); err != nil || !bytes.Equal(got, data) {
		t.Errorf("%s has %d bytes that are not those %d that were put (%v)", key, len(got), len(data), err)
	}
	if err := s.Verify(t.Context(), key, DigestsOf(data)); err != nil {
		t.Errorf("Verify(%s): %v", key, err)
	}
}

// expectNone checks that there is no object under key.
func expectNone(t *testing.T, s store.Store, key string) {
	t.Helper()
	if size, err := s.Size(t.Context(), key); !errors.Is(err, upload.NotFound) {
		t.Errorf("Size(%s) = %d, %v; want not found", key, size, err)
	}
	if keys := listed(t, s); slices.Contains(keys, key) {
		t.Errorf("%s is listed", key)
	}
}

func listed(t *testing.T, s store.Store) []string {
	t.Helper()
	var keys []string
	for o, err := range s.List(t.Context()) {
		if err != nil {
			t.Fatalf("List: %v", err)
		}
		keys = append(keys, o.Key)
	}
	return keys
}

func (s suite) roundTrip(t *testing.T) {
	st := s.open(t)
	for _, size := range []int{1, 100, upload.LeafSize - 1, upload.LeafSize, upload.LeafSize + 1, 1 << 20, 1<<20 + 1, 9<<20 + 12345} {
		data := Bytes(uint64(size), size)
		key := Key(data, fmt.Sprint("blob", size))
		put(t, st, key, data)
		expect(t, st, key, data)
	}
}

func (s suite) empty(t *testing.T) {
	st, key := s.open(t), Key(nil, "empty")
	put(t, st, key, nil)
	expect(t, st, key, nil)
}

func (s suite) ranges(t *testing.T) {
	st, data := s.open(t), Bytes(1, 3<<20+7)
	key, size := Key(data, "a"), int64(3<<20+7)
	put(t, st, key, data)
	for _, r := range [][2]int64{{0, 1}, {0, size}, {5, 0}, {1, -1}, {size - 1, 1}, {size - 1, -1}, {size, 0}, {1<<20 - 1, 2}, {12345, 1 << 20}} {
		want := data[r[0]:]
		if r[1] >= 0 {
			want = want[:r[1]]
		}
		if got, err := Read(t.Context(), st, key, r[0], r[1]); err != nil || !bytes.Equal(got, want) {
			t.Errorf("Open(offset %d, length %d): %d bytes, %v", r[0], r[1], len(got), err)
		}
	}
}

func (s suite) notFound(t *testing.T) {
	st := s.open(t)
	put(t, st, Key([]byte("x"), "x"), []byte("x"))
	for _, key := range []string{Key([]byte("x"), "y"), Key([]byte("z"), "x")} {
		expectNone(t, st, key)
		if r, err := st.Open(t.Context(), key, 0, -1); !errors.Is(err, upload.NotFound) {
			t.Errorf("Open of nothing: %v, %v", r, err)
		}
		if err := st.Verify(t.Context(), key, DigestsOf([]byte("x"))); !errors.Is(err, upload.NotFound) {
			t.Errorf("Verify of nothing: %v", err)
		}
	}
}

func (s suite) badKeys(t *testing.T) {
	st := s.open(t)
	for _, key := range append([]string{""}, s.caps.BadKeys...) {
		if err := st.Put(t.Context(), key, bytes.NewReader([]byte("x")), store.PutOptions{}); !errors.Is(err, upload.Invalid) {
			t.Errorf("Put(%q): %v", key, err)
		}
	}
	if keys := listed(t, st); len(keys) > 0 {
		t.Errorf("there are objects %q", keys)
	}
	for _, key := range s.caps.BadKeys {
		if _, err := st.Open(t.Context(), key, 0, -1); !errors.Is(err, upload.Invalid) {
			t.Errorf("Open(%q): %v", key, err)
		}
		if _, err := st.Size(t.Context(), key); !errors.Is(err, upload.Invalid) {
			t.Errorf("Size(%q): %v", key, err)
		}
		if err := st.Verify(t.Context(), key, DigestsOf(nil)); !errors.Is(err, upload.Invalid) {
			t.Errorf("Verify(%q): %v", key, err)
		}
		if err := st.Delete(t.Context(), key); !errors.Is(err, upload.Invalid) {
			t.Errorf("Delete(%q): %v", key, err)
		}
	}
}

func (s suite) putAgain(t *testing.T) {
	st, data := s.open(t), Bytes(2, 1<<20+1)
	key := Key(data, "a")
	for range 3 {
		put(t, st, key, data)
		expect(t, st, key, data)
	}
	if keys := listed(t, st); !slices.Equal(keys, []string{key}) {
		t.Errorf("listed %q", keys)
	}
}

// An object that is wrong, of a worker that died or of a disk that failed, is mended by putting it.
func (s suite) putReplaces(t *testing.T) {
	st, data := s.open(t), Bytes(3, 100000)
	key := Key(data, "a")
	for _, wrong := range [][]byte{nil, data[:99999], append(slices.Clone(data), 1), Bytes(4, 100000)} {
		put(t, st, key, wrong)
		put(t, st, key, data)
		expect(t, st, key, data)
	}
}

// brokenContent fails to be read from offset at on.
type brokenContent struct {
	*bytes.Reader
	at  int64
	err error
}

func (c brokenContent) ReadAt(p []byte, off int64) (int, error) {
	if off+int64(len(p)) <= c.at {
		return c.Reader.ReadAt(p, off)
	}
	if off >= c.at {
		return 0, c.err
	}
	n, _ := c.Reader.ReadAt(p[:c.at-off], off)
	return n, c.err
}

func (s suite) unreadableContent(t *testing.T) {
	st, data := s.open(t), Bytes(5, 9<<20)
	key, broken := Key(data, "a"), errors.New("the disk is gone")
	for _, at := range []int64{0, 1, 1 << 20, 9<<20 - 1} {
		err := st.Put(t.Context(), key, brokenContent{bytes.NewReader(data), at, broken}, store.PutOptions{})
		if !errors.Is(err, broken) || errors.Is(err, upload.Invalid) {
			t.Errorf("Put of content that fails at %d: %v", at, err)
		}
		expectNone(t, st, key)
	}
	put(t, st, key, data)
	expect(t, st, key, data)
}

// A file that was cut short since its size was noted.
func (s suite) shortContent(t *testing.T) {
	st, data := s.open(t), Bytes(6, 2<<20)
	key := Key(data, "a")
	for _, at := range []int64{0, 1, 2<<20 - 1} {
		if err := st.Put(t.Context(), key, brokenContent{bytes.NewReader(data), at, io.EOF}, store.PutOptions{}); err == nil {
			t.Errorf("content of %d bytes was put as one of %d", at, len(data))
		}
		expectNone(t, st, key)
	}
}

func (s suite) canceledPut(t *testing.T) {
	st, data := s.open(t), Bytes(7, 9<<20)
	key := Key(data, "a")
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if err := st.Put(ctx, key, bytes.NewReader(data), store.PutOptions{}); !errors.Is(err, context.Canceled) {
		t.Errorf("Put with a context that is done: %v", err)
	}
	expectNone(t, st, key)

	ctx, cancel = context.WithCancel(t.Context())
	defer cancel()
	err := st.Put(ctx, key, cancelingContent{bytes.NewReader(data), cancel}, store.PutOptions{})
	if !errors.Is(err, context.Canceled) {
		t.Errorf("Put whose context ended in the middle: %v", err)
	}
	expectNone(t, st, key)
}

// cancelingContent ends a context when its second half is read.
type cancelingContent struct {
	*bytes.Reader
	cancel func()
}

func (c cancelingContent) ReadAt(p []byte, off int64) (int, error) {
	if off >= c.Size()/2 {
		c.cancel()
	}
	return c.Reader.ReadAt(p, off)
}

func (s suite) progress(t *testing.T) {
	st := s.open(t)
	for _, size := range []int{0, 1, 9<<20 + 1} {
		data := Bytes(8, size)
		var mu sync.Mutex
		var told []int64
		err := st.Put(t.Context(), Key(data, "a"), bytes.NewReader(data), store.PutOptions{Progress: func(sent int64) {
			mu.Lock()
			defer mu.Unlock()
			told = append(told, sent)
		}})
		if err != nil {
			t.Fatal(err)
		}
		mu.Lock()
		if !slices.IsSorted(told) || len(told) == 0 || told[len(told)-1] != int64(size) {
			t.Errorf("progress of %d bytes: %v", size, told)
		}
		mu.Unlock()
	}
}

func (s suite) verifyDigests(t *testing.T) {
	st, data := s.open(t), Bytes(9, 1<<20+5)
	key := Key(data, "a")
	put(t, st, key, data)
	for name, change := range map[string]func(d *store.Digests){
		"one byte more": func(d *store.Digests) { d.Size++ },
		"one byte less": func(d *store.Digests) { d.Size-- },
		"other content": func(d *store.Digests) { *d = DigestsOf(Bytes(10, 1<<20+5)) },
	} {
		want := DigestsOf(data)
		change(&want)
		if err := st.Verify(t.Context(), key, want); !errors.Is(err, upload.DigestMismatch) {
			t.Errorf("Verify with %s: %v", name, err)
		}
	}
}

// Verify looks at what the store has, not at what it was given: also when it is told where the
// digests come from, as long as that is another copy.
func (s suite) verifyOwnCopy(t *testing.T) {
	if s.caps.Alter == nil {
		t.Log("the store's bytes cannot be reached from here")
		return
	}
	st, data := s.open(t), Bytes(11, 1<<20+5)
	key := Key(data, "a")
	for name, change := range map[string]func([]byte) []byte{
		"a bit at the beginning": func(b []byte) []byte { b[0] ^= 1; return b },
		"a bit in the middle":    func(b []byte) []byte { b[len(b)/2] ^= 0x80; return b },
		"a bit at the end":       func(b []byte) []byte { b[len(b)-1] ^= 1; return b },
		"the last byte cut off":  func(b []byte) []byte { return b[:len(b)-1] },
		"all cut off":            func(b []byte) []byte { return b[:0] },
		"a byte more":            func(b []byte) []byte { return append(b, 0) },
		"another content":        func(b []byte) []byte { return Bytes(12, len(b)) },
	} {
		put(t, st, key, data)
		s.caps.Alter(t, st, key, change)
		want := DigestsOf(data)
		want.Source = bytes.NewReader(data)
		if err := st.Verify(t.Context(), key, want); !errors.Is(err, upload.DigestMismatch) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func (s suite) delete(t *testing.T) {
	st, data := s.open(t), Bytes(13, 1000)
	key, other := Key(data, "a"), Key(data, "b")
	put(t, st, key, data)
	put(t, st, other, data)
	for range 3 {
		if err := st.Delete(t.Context(), key); err != nil {
			t.Fatalf("Delete: %v", err)
		}
		expectNone(t, st, key)
	}
	if err := st.Delete(t.Context(), Key([]byte("never"), "there")); err != nil {
		t.Errorf("Delete of nothing: %v", err)
	}
	expect(t, st, other, data)
	put(t, st, key, data)
	expect(t, st, key, data)
}

func (s suite) list(t *testing.T) {
	st := s.open(t)
	if keys := listed(t, st); len(keys) > 0 {
		t.Fatalf("a new store has %q", keys)
	}
	before := time.Now().Unix()
	sizes := map[string]int64{}
	var keys []string
	for i := range 100 {
		data := Bytes(uint64(i), i)
		for _, id := range []string{"a", "b"} {
			key := Key(data, id)
			put(t, st, key, data)
			sizes[key] = int64(i)
			keys = append(keys, key)
		}
	}
	slices.Sort(keys)
	var got []string
	for o, err := range st.List(t.Context()) {
		if err != nil {
			t.Fatal(err)
		}
		got = append(got, o.Key)
		if o.Size != sizes[o.Key] {
			t.Errorf("%s: %d bytes, want %d", o.Key, o.Size, sizes[o.Key])
		}
		if o.Unix < before-60 || o.Unix > time.Now().Unix()+60 {
			t.Errorf("%s: made at %d, now is %d", o.Key, o.Unix, time.Now().Unix())
		}
	}
	slices.Sort(got)
	if !slices.Equal(got, keys) {
		t.Errorf("listed %d keys, want %d", len(got), len(keys))
	}
}

func (s suite) listEndsEarly(t *testing.T) {
	st := s.open(t)
	for i := range 10 {
		put(t, st, Key(Bytes(uint64(i), 10), "a"), Bytes(uint64(i), 10))
	}
	n := 0
	for range st.List(t.Context()) {
		if n++; n == 3 {
			break
		}
	}
	if n != 3 {
		t.Errorf("went through %d objects", n)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	var last error
	for _, err := range st.List(ctx) {
		last = err
	}
	if !errors.Is(last, context.Canceled) {
		t.Errorf("listing with a context that is done ended with %v", last)
	}
}

func (s suite) cleanKeepsObjects(t *testing.T) {
	st, data := s.open(t), Bytes(14, 5<<20)
	key := Key(data, "a")
	put(t, st, key, data)
	for range 2 {
		if err := st.Clean(t.Context()); err != nil {
			t.Fatal(err)
		}
	}
	expect(t, st, key, data)
}

// cleanBesidePut runs Clean while a Put of the same store goes on.
func (s suite) cleanBesidePut(t *testing.T) {
	st, data := s.open(t), Bytes(15, 4<<20)
	key := Key(data, "a")
	var cleaned error
	once := sync.OnceFunc(func() { cleaned = st.Clean(t.Context()) })
	err := st.Put(t.Context(), key, cancelingContent{bytes.NewReader(data), once}, store.PutOptions{})
	if err := errors.Join(err, cleaned); err != nil {
		t.Fatal(err)
	}
	expect(t, st, key, data)
}

func (s suite) manyAtOnce(t *testing.T) {
	const n = 64
	st := s.open(t)
	var running sync.WaitGroup
	for i := range n {
		running.Go(func() {
			data := Bytes(uint64(i%8), 2000)
			key := Key(data, fmt.Sprint("id", i)) // eight in a directory
			err := st.Put(t.Context(), key, bytes.NewReader(data), store.PutOptions{})
			if err == nil {
				err = st.Verify(t.Context(), key, DigestsOf(data))
			}
			if err == nil && i%4 == 0 {
				err = st.Delete(t.Context(), key)
			}
			if err != nil {
				t.Error(err)
			}
		})
	}
	running.Wait()
	if got := len(listed(t, st)); got != n*3/4 {
		t.Errorf("%d objects, want %d", got, n*3/4)
	}
}

// readersDuringPut checks that while an object is replaced readers find it whole: never a part of it,
// never nothing.
func (s suite) readersDuringPut(t *testing.T) {
	st, data := s.open(t), Bytes(16, 3<<20)
	key := Key(data, "a")
	put(t, st, key, data)
	ctx, cancel := context.WithCancel(t.Context())
	var reading sync.WaitGroup
	for range 2 {
		reading.Go(func() {
			for ctx.Err() == nil {
				got, err := Read(t.Context(), st, key, 0, -1)
				if err != nil && s.caps.ReplaceDisturbs && !errors.Is(err, upload.NotFound) && bytes.HasPrefix(data, got) {
					continue
				}
				if err != nil || !bytes.Equal(got, data) {
					t.Errorf("read %d bytes of %d, %v", len(got), len(data), err)
					return
				}
			}
		})
	}
	for range 10 {
		put(t, st, key, data)
	}
	cancel()
	reading.Wait()
}
