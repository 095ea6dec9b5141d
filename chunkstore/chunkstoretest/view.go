package chunkstoretest

import (
	"fmt"
	"slices"
	"strconv"
	"testing"
	"time"

	"gantry/chunkstore"
	"gantry/upload"
)

// RunView tests a View driver. fresh returns an empty one.
func RunView(t *testing.T, fresh func(t *testing.T) chunkstore.View) {
	t.Helper()
	run := func(name string, test func(t *testing.T, v chunkstore.View)) {
		t.Run(name, func(t *testing.T) { t.Parallel(); test(t, fresh(t)) })
	}
	run("listing", testListing)
	run("listing, many", testListingMany)
	run("keys", testKeys)
	run("challenges", testChallenges)
	run("failures", testFailures)
}

func viewSpec(owner, key string) upload.Spec {
	spec := NewSpec(1, chunkSize)
	spec.Owner, spec.Key = owner, key
	return spec
}

func list(t *testing.T, v chunkstore.View, owner, after string, limit int) []string {
	t.Helper()
	ids, err := v.List(t.Context(), owner, after, limit)
	ok(t, err)
	return ids
}

func testListing(t *testing.T, v chunkstore.View) {
	if ids := list(t, v, "anna", "", 10); len(ids) != 0 {
		t.Errorf("an empty view lists %v", ids)
	}
	var ids []string
	for range 5 {
		spec := viewSpec("anna", "")
		ok(t, v.Put(t.Context(), spec))
		ok(t, v.Put(t.Context(), spec)) // as Recover does
		ids = append(ids, spec.ID)
	}
	ok(t, v.Put(t.Context(), viewSpec("ben", "")))
	slices.Sort(ids)
	if got := list(t, v, "anna", "", 10); !slices.Equal(got, ids) {
		t.Errorf("got %v, want %v", got, ids)
	}
	if got := list(t, v, "anna", ids[1], 2); !slices.Equal(got, ids[2:4]) {
		t.Errorf("got %v, want %v", got, ids[2:4])
	}
	ok(t, v.Remove(t.Context(), ids[2]))
	ok(t, v.Remove(t.Context(), ids[2]))
	ok(t, v.Remove(t.Context(), "unknown"))
	// The upload that a page ended with may be gone when the next is asked for.
	if got := list(t, v, "anna", ids[2], 10); !slices.Equal(got, ids[3:]) {
		t.Errorf("got %v, want %v", got, ids[3:])
	}
	if got := list(t, v, "anna", ids[4], 10); len(got) != 0 {
		t.Errorf("after the last: %v", got)
	}
	if got := list(t, v, "ben", "", 10); len(got) != 1 {
		t.Errorf("ben has %v", got)
	}
}

func testListingMany(t *testing.T, v chunkstore.View) {
	want := map[string]bool{}
	var all []string
	for i := range 600 {
		spec := viewSpec("anna", "")
		ok(t, v.Put(t.Context(), spec))
		want[spec.ID] = true
		all = append(all, spec.ID)
		if i%3 != 0 {
			gone := all[(i*7)%len(all)]
			ok(t, v.Remove(t.Context(), gone))
			delete(want, gone)
		}
		if i%50 == 0 { // pages go on while uploads come and go
			list(t, v, "anna", "", 3)
		}
	}
	var got []string
	for after := ""; ; {
		page := list(t, v, "anna", after, 7)
		if len(page) == 0 {
			break
		}
		got = append(got, page...)
		after = page[len(page)-1]
	}
	if !slices.IsSorted(got) || len(got) != len(want) {
		t.Errorf("%d ids, sorted %v; want %d", len(got), slices.IsSorted(got), len(want))
	}
	for _, id := range got {
		if !want[id] {
			t.Errorf("%s is listed", id)
		}
	}
}

func testKeys(t *testing.T, v chunkstore.View) {
	byKey := func(owner, key string) string {
		t.Helper()
		id, err := v.ByKey(t.Context(), owner, key)
		ok(t, err)
		return id
	}
	spec, none := viewSpec("anna", "k"), viewSpec("anna", "")
	ok(t, v.Put(t.Context(), spec))
	ok(t, v.Put(t.Context(), none))
	if got := byKey("anna", "k"); got != spec.ID {
		t.Errorf("got %q, want %q", got, spec.ID)
	}
	for _, other := range [][2]string{{"ben", "k"}, {"anna", "l"}, {"anna", ""}, {"", "k"}} {
		if got := byKey(other[0], other[1]); got != "" {
			t.Errorf("%q: %q", other, got)
		}
	}
	again := viewSpec("anna", "k")
	ok(t, v.Remove(t.Context(), spec.ID))
	if got := byKey("anna", "k"); got != "" {
		t.Errorf("removed, but found: %q", got)
	}
	ok(t, v.Put(t.Context(), again))
	ok(t, v.Remove(t.Context(), spec.ID)) // once more, late
	if got := byKey("anna", "k"); got != again.ID {
		t.Errorf("got %q, want %q", got, again.ID)
	}
}

func testChallenges(t *testing.T, v chunkstore.View) {
	now := time.Now()
	c := upload.NewChallenge(1<<30, [32]byte{}, now)
	c.Owner, c.UploadID, c.BlobID, c.SHA1, c.Root = "anna", "u", "b", upload.SHA1{1}, upload.Root{2}
	take := func(id string, at time.Time) (upload.Challenge, error) { return v.TakeChallenge(t.Context(), id, at) }
	ok(t, v.PutChallenge(t.Context(), c))
	got, err := take(c.ID, now)
	ok(t, err)
	if fmt.Sprint(got) != fmt.Sprint(c) {
		t.Errorf("got %+v, want %+v", got, c)
	}
	_, err = take(c.ID, now)
	want(t, err, upload.NotFound) // once
	_, err = take("unknown", now)
	want(t, err, upload.NotFound)

	c = upload.NewChallenge(1<<30, [32]byte{}, now)
	ok(t, v.PutChallenge(t.Context(), c))
	_, err = take(c.ID, now.Add(upload.ChallengeTTL))
	want(t, err, upload.NotFound) // expired

	// Others that come and go do not touch it.
	c = upload.NewChallenge(1<<30, [32]byte{}, now)
	c.Owner = "anna"
	ok(t, v.PutChallenge(t.Context(), c))
	for i := range 3000 {
		other := upload.NewChallenge(1<<20, [32]byte{}, now.Add(time.Duration(i)*time.Millisecond))
		other.Owner = "owner " + strconv.Itoa(i%7)
		ok(t, v.PutChallenge(t.Context(), other))
	}
	_, err = take(c.ID, now.Add(upload.ChallengeTTL-time.Second))
	ok(t, err)
}

func testFailures(t *testing.T, v chunkstore.View) {
	now := time.Now()
	count := func(who string, at time.Time, want int) {
		t.Helper()
		if n, err := v.CountFailure(t.Context(), who, at); err != nil || n != want {
			t.Errorf("count %d (%v), want %d", n, err, want)
		}
	}
	see := func(who string, at time.Time, want int) {
		t.Helper()
		if n, err := v.Failures(t.Context(), who, at); err != nil || n != want {
			t.Errorf("%d failures (%v), want %d", n, err, want)
		}
	}
	see("anna", now, 0)
	count("anna", now, 1)
	count("anna", now.Add(30*time.Minute), 2)
	see("anna", now.Add(59*time.Minute), 2)
	see("ben", now, 0)
	see("anna", now.Add(61*time.Minute), 1) // the window slides
	count("anna", now.Add(61*time.Minute), 2)
	see("anna", now.Add(3*time.Hour), 0)
	count("anna", now.Add(3*time.Hour), 1)
}
