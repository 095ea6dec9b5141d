package main

import (
	"bytes"
	"slices"
	"testing"
)

func TestOptions(t *testing.T) {
	t.Parallel()
	o, err := parse([]string{"-size", "256MiB", "-dirs", "/a,/b", "-only", "file,status"})
	if err != nil || o.size != 256<<20 || !slices.Equal(o.dirs, []string{"/a", "/b"}) || !o.wants("1 file, 1 connection") || o.wants("complete") {
		t.Errorf("%+v, %v", o, err)
	}
	for _, bad := range [][]string{{"-size", "1"}, {"-size", "many"}, {"-rounds", "0"}} {
		if _, err := parse(bad); err == nil {
			t.Errorf("%v was taken", bad)
		}
	}
}

// Content has the length asked for, and is never the same twice.
func TestContent(t *testing.T) {
	t.Parallel()
	for _, size := range []int64{0, 1, 8, 9, smallSize, int64(len(buffer)) - 1, int64(len(buffer)) + 9} {
		a, b := slices.Concat(content(size)...), slices.Concat(content(size)...)
		if int64(len(a)) != size || int64(len(b)) != size {
			t.Fatalf("%d bytes asked for, got %d and %d", size, len(a), len(b))
		}
		if size > 8 && bytes.Equal(a, b) {
			t.Errorf("%d bytes: the same content twice", size)
		}
	}
}

func TestMedian(t *testing.T) {
	t.Parallel()
	for want, values := range map[float64][]float64{0: {}, 3: {3}, 2.5: {4, 1, 3, 2}, 5: {9, 5, 1}} {
		if got := median(values, func(v float64) float64 { return v }); got != want {
			t.Errorf("median of %v: %v, want %v", values, got, want)
		}
	}
}

// Every challenge can be answered from what is prepared.
func TestKnown(t *testing.T) {
	t.Parallel()
	k, err := newKnown(slices.Concat(content(knownSize)...))
	if err != nil || len(k.leaves) != 256 || len(k.sha1) != 40 {
		t.Errorf("%d leaves, %v", len(k.leaves), err)
	}
}
