package storetest

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"runtime"
	"sync"
	"sync/atomic"
	"testing"

	"gantry/store"
)

// defaultPart is the size of parts or stripes where Caps says nothing, bytes.
const defaultPart = 4 << 20

func (s suite) part() int64 {
	if s.caps.PartSize == 0 {
		return defaultPart
	}
	return s.caps.PartSize
}

// large puts an object of many parts and reads around their borders.
func (s suite) large(t *testing.T) {
	const size = 64<<20 + 12345
	st, data := s.open(t), Bytes(17, size)
	key := Key(data, "a")
	put(t, st, key, data)
	expect(t, st, key, data)
	ranges := [][2]int64{{0, size}, {1, size - 2}, {size - 1, 1}, {size / 2, -1}, {size, -1}}
	for border := s.part(); border < size; border += s.part() {
		ranges = append(ranges, [2]int64{border - 1, 1}, [2]int64{border, 1}, [2]int64{border - 1, 2}, [2]int64{border - 3, min(s.part()+6, size-border+3)})
	}
	for _, r := range ranges {
		want := data[r[0]:]
		if r[1] >= 0 {
			want = want[:r[1]]
		}
		if got, err := Read(t.Context(), st, key, r[0], r[1]); err != nil || !bytes.Equal(got, want) {
			t.Errorf("Open(offset %d, length %d): %d bytes that are not those %d, %v", r[0], r[1], len(got), len(want), err)
		}
	}
	short := Bytes(18, int(s.part())) // one part, exactly
	put(t, st, key, short)
	expect(t, st, key, short)
}

// endless is content that needs no memory.
type endless struct {
	size int64
	read func() // called after each ReadAt
}

func (e endless) Size() int64 { return e.size }

func (e endless) ReadAt(p []byte, off int64) (int, error) {
	n := min(int64(len(p)), e.size-off)
	for i := range n {
		p[i] = byte((off + i) >> 8)
	}
	e.read()
	if n < int64(len(p)) {
		return int(n), io.EOF
	}
	return int(n), nil
}

// memory puts much at once and looks at how much memory that takes.
func (s suite) memory(t *testing.T) {
	const (
		puts  = 24
		size  = 6<<20 + 1
		slack = 32 << 20 // connections, and the garbage that they leave
	)
	heap := func() int64 {
		var stats runtime.MemStats
		runtime.GC()
		runtime.ReadMemStats(&stats)
		return int64(stats.HeapAlloc)
	}
	st := s.open(t)
	before := heap()
	var most atomic.Int64
	var looking sync.Mutex // a look is expensive: one at a time
	content := endless{size, func() {
		if looking.TryLock() {
			most.Store(max(most.Load(), heap()-before))
			looking.Unlock()
		}
	}}
	var running sync.WaitGroup
	for i := range puts {
		running.Go(func() {
			if err := st.Put(t.Context(), Key(nil, fmt.Sprint("id", i)), content, store.PutOptions{}); err != nil {
				t.Error(err)
			}
		})
	}
	running.Wait()
	if s.caps.Memory == InMemory {
		if most.Load() < size {
			t.Error("the store says that it keeps all in memory, and does not")
		}
		return
	}
	if limit := s.caps.Memory + slack; most.Load() > limit {
		t.Errorf("%d puts of %d bytes at once took %d bytes of memory, more than %d", puts, size, most.Load(), limit)
	}
}

// canceledReader ends the context of a reader in the middle of the object.
func (s suite) canceledReader(t *testing.T) {
	st, data := s.open(t), Bytes(19, 8<<20)
	key := Key(data, "a")
	put(t, st, key, data)
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	s.disturbed(t, ctx, st, key, data, cancel)
}

// deletedReader deletes an object while it is read.
func (s suite) deletedReader(t *testing.T) {
	st, data := s.open(t), Bytes(20, 8<<20)
	key := Key(data, "a")
	put(t, st, key, data)
	s.disturbed(t, t.Context(), st, key, data, func() {
		if err := st.Delete(t.Context(), key); err != nil {
			t.Error(err)
		}
	})
	expectNone(t, st, key)
}

// disturbed reads an object and does something in between: the rest comes whole, or there is an error.
func (s suite) disturbed(t *testing.T, ctx context.Context, st store.Store, key string, data []byte, disturb func()) {
	t.Helper()
	r, err := st.Open(ctx, key, 0, -1)
	if err != nil {
		t.Fatal(err)
	}
	got := make([]byte, 1000)
	if _, err := io.ReadFull(r, got); err != nil {
		t.Fatal(err)
	}
	disturb()
	rest, err := io.ReadAll(r)
	if got = append(got, rest...); !bytes.HasPrefix(data, got) || err == nil && len(got) != len(data) {
		t.Errorf("read %d bytes of %d, %v", len(got), len(data), err)
	}
	_ = r.Close() // it returns; the error has been seen
}
