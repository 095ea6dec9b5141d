package memory

import (
	"strconv"
	"testing"
	"time"

	"gantry/chunkstore"
	"gantry/chunkstore/chunkstoretest"
	"gantry/upload"
)

func TestContract(t *testing.T) {
	t.Parallel()
	chunkstoretest.RunView(t, func(*testing.T) chunkstore.View { return New() })
}

// What clients can make a node remember is bounded.
func TestBounded(t *testing.T) {
	t.Parallel()
	v, now := New(), time.Now()
	for i := range 3 * chunkstore.MaxChallenges {
		c := upload.NewChallenge(1<<20, [32]byte{}, now)
		c.Owner = "greedy"
		if err := v.PutChallenge(t.Context(), c); err != nil {
			t.Fatal(err)
		}
		if _, err := v.CountFailure(t.Context(), "greedy", now.Add(time.Duration(i))); err != nil {
			t.Fatal(err)
		}
	}
	if n := len(v.challenges); n > chunkstore.MaxChallenges {
		t.Errorf("%d challenges of one owner are kept", n)
	}
	if n := len(v.failures["greedy"]); n > chunkstore.MaxFailures {
		t.Errorf("%d failures of one owner are kept", n)
	}
}

func TestForgets(t *testing.T) {
	t.Parallel()
	v, now := New(), time.Now()
	for i := range 1000 {
		c := upload.NewChallenge(1<<20, [32]byte{}, now)
		c.Owner = strconv.Itoa(i)
		if err := v.PutChallenge(t.Context(), c); err != nil {
			t.Fatal(err)
		}
		if _, err := v.CountFailure(t.Context(), c.Owner, now); err != nil {
			t.Fatal(err)
		}
		spec := chunkstoretest.NewSpec(1, 1)
		spec.Owner, spec.Key = c.Owner, c.Owner
		if err := v.Begin(t.Context(), &spec, time.Hour); err != nil {
			t.Fatal(err)
		}
		if err := v.Remove(t.Context(), &spec); err != nil {
			t.Fatal(err)
		}
	}
	later := now.Add(2 * chunkstore.FailureWindow)
	if err := v.PutChallenge(t.Context(), upload.NewChallenge(1<<20, [32]byte{}, later)); err != nil {
		t.Fatal(err)
	}
	if len(v.challenges) != 1 || len(v.asked) != 1 || len(v.failures) != 0 || len(v.uploads)+len(v.owners)+len(v.keys) != 0 {
		t.Errorf("left: %d challenges, %d askers, %d failures, %d uploads, %d owners, %d keys",
			len(v.challenges), len(v.asked), len(v.failures), len(v.uploads), len(v.owners), len(v.keys))
	}
}

// BenchmarkMark is what a view in memory adds to a chunk of an upload of 10,000.
func BenchmarkMark(b *testing.B) {
	v := New()
	o := chunkstoretest.NewOwner(upload.MaxChunks)
	for i := range upload.MaxChunks {
		o.Take(i)
	}
	b.ReportAllocs()
	for b.Loop() {
		if err := v.Mark(b.Context(), o.Spec().ID, 7, o.Truth); err != nil {
			b.Fatal(err)
		}
	}
}
