package storetest

import (
	"bytes"
	"errors"
	"fmt"
	"sync"
	"testing"

	"golang.org/x/sync/errgroup"

	"gantry/store"
	"gantry/upload"
)

// differentKeys has each of some goroutines put, read and delete objects of its own, while another lists.
func (s suite) differentKeys(t *testing.T) {
	const workers, rounds = 8, 5
	st := s.open(t)
	var all errgroup.Group
	mine := map[string]bool{}
	for w := range workers {
		data := Bytes(uint64(w), 100_000+w)
		key := Key(data, fmt.Sprint("id", w))
		mine[key] = true
		all.Go(func() error {
			for range rounds {
				if err := st.Put(t.Context(), key, bytes.NewReader(data), store.PutOptions{}); err != nil {
					return err
				}
				if err := st.Verify(t.Context(), key, DigestsOf(data)); err != nil {
					return err
				}
				got, err := Read(t.Context(), st, key, 5, 50_000)
				if err != nil || !bytes.Equal(got, data[5:50_005]) {
					return fmt.Errorf("%s: read %d bytes, %w", key, len(got), err)
				}
				if err := st.Delete(t.Context(), key); err != nil {
					return err
				}
				if _, err := st.Size(t.Context(), key); !errors.Is(err, upload.NotFound) {
					return fmt.Errorf("%s is there after it was deleted: %w", key, err)
				}
			}
			return nil
		})
	}
	all.Go(func() error {
		for range rounds {
			for o, err := range st.List(t.Context()) {
				if err != nil {
					return err
				}
				if !mine[o.Key] {
					return fmt.Errorf("%q is listed, and nobody has put it", o.Key)
				}
			}
		}
		return nil
	})
	if err := all.Wait(); err != nil {
		t.Error(err)
	}
	if keys := listed(t, st); len(keys) > 0 {
		t.Errorf("all were deleted, and there are %q", keys)
	}
}

// listMany lists more objects than a page has, also while others come and go: those that are there all the time
// are listed once.
func (s suite) listMany(t *testing.T) {
	const n = 1010
	st := s.open(t)
	key := func(kind string, i int) string { return fmt.Sprintf("%02x/%s%d", i%256, kind, i) }
	putMany := func(kind string, n int) error {
		var all errgroup.Group
		all.SetLimit(8)
		for i := range n {
			all.Go(func() error {
				return st.Put(t.Context(), key(kind, i), bytes.NewReader([]byte(kind)), store.PutOptions{})
			})
		}
		return all.Wait()
	}
	if err := putMany("stays", n); err != nil {
		t.Fatal(err)
	}
	check := func() {
		t.Helper()
		times := map[string]int{}
		for _, key := range listed(t, st) {
			times[key]++
		}
		for i := range n {
			if key := key("stays", i); times[key] != 1 {
				t.Errorf("%s is listed %d times", key, times[key])
			}
		}
	}
	check()
	var writing sync.WaitGroup
	writing.Go(func() {
		err := putMany("goes", 100)
		for i := range 50 {
			err = errors.Join(err, st.Delete(t.Context(), key("goes", i)))
		}
		if err != nil {
			t.Error(err)
		}
	})
	check()
	check()
	writing.Wait()
	if got := len(listed(t, st)); got != n+50 {
		t.Errorf("%d objects, want %d", got, n+50)
	}
}
