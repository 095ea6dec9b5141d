package upload_test

import (
	"encoding/json"
	"fmt"
	"slices"
	"testing"

	"gantry/upload"

	"pgregory.net/rapid"
)

// modelSet is a set of chunks as simple as it can be.
type modelSet map[int]bool

func (m modelSet) missing(count int) []upload.Range {
	out := []upload.Range{}
	for i := range count {
		switch {
		case m[i]:
		case len(out) > 0 && out[len(out)-1].Last == i-1:
			out[len(out)-1].Last = i
		default:
			out = append(out, upload.Range{First: i, Last: i})
		}
	}
	return out
}

func (m modelSet) last() int {
	last := -1
	for i := range m {
		last = max(last, i)
	}
	return last
}

func TestChunkSetAgainstModel(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		var set upload.ChunkSet
		model := modelSet{}
		limit := rapid.SampledFrom([]int{1, 7, 8, 9, 64, 200, upload.MaxChunks}).Draw(t, "limit")
		index := rapid.IntRange(-2, limit+1)
		t.Repeat(map[string]func(*rapid.T){
			"add": func(t *rapid.T) {
				i := index.Draw(t, "i")
				want := i >= 0 && i < upload.MaxChunks && !model[i]
				if want {
					model[i] = true
				}
				if got := set.Add(i); got != want {
					t.Fatalf("Add(%d) = %v, want %v", i, got, want)
				}
			},
			"add a run": func(t *rapid.T) {
				first := rapid.IntRange(0, limit-1).Draw(t, "first")
				for i := first; i < min(first+rapid.IntRange(1, 40).Draw(t, "n"), limit); i++ {
					set.Add(i)
					model[i] = true
				}
			},
			"remove": func(t *rapid.T) {
				i := index.Draw(t, "i")
				if got := set.Remove(i); got != model[i] {
					t.Fatalf("Remove(%d) = %v, want %v", i, got, model[i])
				}
				delete(model, i)
			},
			"clone": func(t *rapid.T) {
				clone := set.Clone()
				i := rapid.IntRange(0, limit-1).Draw(t, "i")
				if !clone.Add(i) {
					clone.Remove(i)
				}
				if set.Has(i) != model[i] {
					t.Fatalf("a change to a clone shows in the original at %d", i)
				}
			},
			"through bytes": func(*rapid.T) {
				set = upload.ChunkSetFromBytes(slices.Clone(set.Bytes()))
			},
			"": func(t *rapid.T) {
				if set.Len() != len(model) {
					t.Fatalf("Len = %d, want %d", set.Len(), len(model))
				}
				if set.Last() != model.last() {
					t.Fatalf("Last = %d, want %d", set.Last(), model.last())
				}
				for i := range min(limit, 300) {
					if set.Has(i) != model[i] {
						t.Fatalf("Has(%d) = %v, want %v", i, set.Has(i), model[i])
					}
				}
				count := rapid.IntRange(0, limit).Draw(t, "count")
				if got, want := set.Missing(count), model.missing(count); !slices.Equal(got, want) {
					t.Fatalf("Missing(%d) = %v, want %v", count, got, want)
				}
			},
		})
	})
}

// The bitmap's order is shared with Redis (SETBIT), so it is fixed.
func TestChunkSetBitOrder(t *testing.T) {
	t.Parallel()
	var set upload.ChunkSet
	set.Add(0)
	set.Add(9)
	if got := set.Bytes(); !slices.Equal(got, []byte{0x80, 0x40}) {
		t.Errorf("chunks 0 and 9 are %x, want 8040", got)
	}
}

func TestMissingIsAnEmptyListInJSON(t *testing.T) {
	t.Parallel()
	var set upload.ChunkSet
	got, err := json.Marshal(set.Missing(0))
	if err != nil || string(got) != "[]" {
		t.Errorf("got %s, %v", got, err)
	}
}

func TestRangeText(t *testing.T) {
	if got := fmt.Sprint([]upload.Range{{0, 0}, {5, 7}}); got != "[0 5-7]" {
		t.Errorf("got %s", got)
	}
}

func TestRangeJSON(t *testing.T) {
	t.Parallel()
	got, err := json.Marshal([]upload.Range{{First: 0, Last: 0}, {First: 3, Last: 17}})
	if err != nil || string(got) != "[[0,0],[3,17]]" {
		t.Fatalf("got %s, %v", got, err)
	}
	var back []upload.Range
	if err := json.Unmarshal(got, &back); err != nil || !slices.Equal(back, []upload.Range{{First: 0, Last: 0}, {First: 3, Last: 17}}) {
		t.Errorf("got %v, %v", back, err)
	}
	for _, bad := range []string{`[]`, `[1]`, `[1,2,3]`, `null`, `{}`, `"1-2"`, `[1,"2"]`, `[1.5,2]`} {
		var r upload.Range
		if err := r.UnmarshalJSON([]byte(bad)); err == nil {
			t.Errorf("%s was read as %v", bad, r)
		}
	}
}

func FuzzRange(f *testing.F) {
	for _, seed := range []string{`[0,0]`, `[3,17]`, `[-1,9223372036854775807]`, `[1]`, `null`, `[1,2,3]`} {
		f.Add([]byte(seed))
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		var r, back upload.Range
		if r.UnmarshalJSON(data) != nil {
			return
		}
		again, err := r.MarshalJSON()
		if err != nil {
			t.Fatal(err)
		}
		if err := back.UnmarshalJSON(again); err != nil || back != r {
			t.Fatalf("%q was read as %v, written as %s, read as %v (%v)", data, r, again, back, err)
		}
	})
}

func BenchmarkMissing10000(b *testing.B) {
	bench := func(name string, keep func(i int) bool) {
		var set upload.ChunkSet
		for i := range upload.MaxChunks {
			if keep(i) {
				set.Add(i)
			}
		}
		b.Run(name, func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				set.Missing(upload.MaxChunks)
			}
		})
	}
	bench("all there", func(int) bool { return true })
	bench("none", func(int) bool { return false })
	bench("one missing", func(i int) bool { return i != 7001 })
	bench("every other", func(i int) bool { return i%2 == 0 })
}
