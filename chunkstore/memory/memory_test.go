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
	for i := range 3 * maxChallenges {
		c := upload.NewChallenge(1<<20, [32]byte{}, now)
		c.Owner = "greedy"
		if err := v.PutChallenge(t.Context(), c); err != nil {
			t.Fatal(err)
		}
		if _, err := v.CountFailure(t.Context(), "greedy", now.Add(time.Duration(i))); err != nil {
			t.Fatal(err)
		}
	}
	if n := len(v.challenges); n > maxChallenges {
		t.Errorf("%d challenges of one owner are kept", n)
	}
	if n := len(v.failures["greedy"]); n > maxFailures {
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
		if err := v.Put(t.Context(), spec); err != nil {
			t.Fatal(err)
		}
		if err := v.Remove(t.Context(), spec.ID); err != nil {
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
