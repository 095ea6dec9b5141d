package chunkstoretest

import (
	"errors"
	"fmt"
	"slices"
	"strconv"
	"sync"
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
	run("chunks", testMarks)
	run("chunks at once", testMarksAtOnce)
	run("an upload that nobody put", testMarkUnknown)
	run("an upload that has ended", testMarkEnded)
	run("put anew", testPutAnew)
	run("size that shows late", testLateSize)
	run("listing", testListing)
	run("listing, many", testListingMany)
	run("keys", testKeys)
	run("a key at once", testKeyAtOnce)
	run("a lost key", testLostKey)
	run("challenges", testChallenges)
	run("failures", testFailures)
}

// ttl is how long uploads live here.
const ttl = time.Hour

func viewSpec(owner, key string) *upload.Spec {
	spec := NewSpec(1, chunkSize)
	spec.Owner, spec.Key = owner, key
	return &spec
}

func list(t *testing.T, v chunkstore.View, owner, after string, limit int) []string {
	t.Helper()
	uploads, err := v.List(t.Context(), owner, after, limit)
	ok(t, err)
	var ids []string
	for i := range uploads {
		ids = append(ids, uploads[i].ID)
	}
	return ids
}

// shows fails the test unless the view has the upload as its owner does.
func shows(t *testing.T, v chunkstore.View, o *Owner) {
	t.Helper()
	got, err := v.Get(t.Context(), o.Spec().ID)
	ok(t, err)
	same(t, &got, o)
	listed, err := v.List(t.Context(), o.Spec().Owner, "", 10)
	ok(t, err)
	for i := range listed {
		if listed[i].ID == o.Spec().ID {
			same(t, &listed[i], o)
			return
		}
	}
	t.Errorf("%s is not listed", o.Spec().ID)
}

func same(t *testing.T, got *upload.Upload, o *Owner) {
	t.Helper()
	want := o.Upload()
	if count := want.Layout().Count(); fmt.Sprint(got.Received.Missing(count)) != fmt.Sprint(want.Received.Missing(count)) || got.Received.Len() != want.Received.Len() {
		t.Errorf("missing %v (%d there), want %v (%d)", got.Received.Missing(count), got.Received.Len(), want.Received.Missing(count), want.Received.Len())
	}
	got.Received, want.Received = upload.ChunkSet{}, upload.ChunkSet{}
	if fmt.Sprintf("%+v", *got) != fmt.Sprintf("%+v", want) {
		t.Errorf("got %+v, want %+v", *got, want)
	}
}

// take has a chunk come in and marks it.
func take(t *testing.T, v chunkstore.View, o *Owner, index int) {
	t.Helper()
	o.Take(index)
	ok(t, v.Mark(t.Context(), o.Spec().ID, index, o.Truth))
}

func testMarks(t *testing.T, v chunkstore.View) {
	_, err := v.Get(t.Context(), upload.NewUploadID("n0de"))
	want(t, err, upload.NotFound)
	o := NewOwner(upload.MaxChunks)
	ok(t, v.Begin(t.Context(), o.Spec(), ttl))
	shows(t, v, o)
	for _, index := range []int{0, 9, 1, 7, 8, 8, upload.MaxChunks - 1, 4711} {
		take(t, v, o, index)
		shows(t, v, o)
	}
	ok(t, v.Remove(t.Context(), o.Spec()))
	_, err = v.Get(t.Context(), o.Spec().ID)
	want(t, err, upload.NotFound)
}

func testMarksAtOnce(t *testing.T, v chunkstore.View) {
	const count = 200
	o := NewOwner(count)
	ok(t, v.Begin(t.Context(), o.Spec(), ttl))
	var wg sync.WaitGroup
	for worker := range 8 {
		wg.Go(func() {
			for index := worker; index < count; index += 8 {
				if index%50 == worker { // whole states come in between
					if err := v.Put(t.Context(), o.Spec().ID, o.Truth); err != nil {
						t.Error(err)
					}
				}
				o.Take(index)
				if err := v.Mark(t.Context(), o.Spec().ID, index, o.Truth); err != nil {
					t.Error(err)
				}
				if got, err := v.Get(t.Context(), o.Spec().ID); err != nil || !got.Received.Has(index) {
					t.Errorf("chunk %d was marked and is not shown: %v", index, err)
				}
			}
		})
	}
	wg.Wait()
	shows(t, v, o)
}

func testMarkUnknown(t *testing.T, v chunkstore.View) {
	o := NewOwner(10)
	o.Take(3)
	take(t, v, o, 7)
	shows(t, v, o) // chunk 3 too: never a part
}

func testMarkEnded(t *testing.T, v chunkstore.View) {
	o := NewOwner(10)
	o.End()
	want(t, v.Mark(t.Context(), o.Spec().ID, 1, o.Truth), upload.NotFound)
	want(t, v.Put(t.Context(), o.Spec().ID, o.Truth), upload.NotFound)
	if ids := list(t, v, o.Spec().Owner, "", 10); len(ids) > 0 {
		t.Errorf("an upload that has ended is listed: %v", ids)
	}
}

func testPutAnew(t *testing.T, v chunkstore.View) {
	o := NewOwner(10)
	ok(t, v.Begin(t.Context(), o.Spec(), ttl))
	for index := range 5 {
		take(t, v, o, index)
	}
	o.Void(2)
	ok(t, v.Put(t.Context(), o.Spec().ID, o.Truth))
	shows(t, v, o)
	take(t, v, o, 8)
	shows(t, v, o)
	take(t, v, o, 2)
	shows(t, v, o)
}

func testLateSize(t *testing.T, v chunkstore.View) {
	o := NewOwner(1)
	o.u.Spec.Size, o.u.Size = upload.UnknownSize, upload.UnknownSize
	ok(t, v.Begin(t.Context(), o.Spec(), ttl))
	shows(t, v, o)
	take(t, v, o, 0)
	o.u.Size = 2*chunkSize - 1
	o.u.Received.Add(1)
	o.u.ReceivedBytes, o.u.HashedBytes = o.u.Size, o.u.Size
	take(t, v, o, 1)
	shows(t, v, o)
}

func testListing(t *testing.T, v chunkstore.View) {
	if ids := list(t, v, "anna", "", 10); len(ids) != 0 {
		t.Errorf("an empty view lists %v", ids)
	}
	var ids []string
	specs := map[string]*upload.Spec{}
	for range 5 {
		spec := viewSpec("anna", "")
		ok(t, v.Begin(t.Context(), spec, ttl))
		ok(t, v.Begin(t.Context(), spec, ttl))
		ids, specs[spec.ID] = append(ids, spec.ID), spec
	}
	ok(t, v.Begin(t.Context(), viewSpec("ben", ""), ttl))
	slices.Sort(ids)
	if got := list(t, v, "anna", "", 10); !slices.Equal(got, ids) {
		t.Errorf("got %v, want %v", got, ids)
	}
	if got := list(t, v, "anna", ids[1], 2); !slices.Equal(got, ids[2:4]) {
		t.Errorf("got %v, want %v", got, ids[2:4])
	}
	ok(t, v.Remove(t.Context(), specs[ids[2]]))
	ok(t, v.Remove(t.Context(), specs[ids[2]]))
	ok(t, v.Remove(t.Context(), viewSpec("anna", "unknown")))
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
	var all []*upload.Spec
	for i := range 600 {
		spec := viewSpec("anna", "")
		ok(t, v.Begin(t.Context(), spec, ttl))
		want[spec.ID] = true
		all = append(all, spec)
		if i%3 != 0 {
			gone := all[(i*7)%len(all)]
			ok(t, v.Remove(t.Context(), gone))
			delete(want, gone.ID)
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
	ok(t, v.Begin(t.Context(), spec, ttl))
	ok(t, v.Begin(t.Context(), spec, ttl)) // its own key
	ok(t, v.Begin(t.Context(), none, ttl))
	if got := byKey("anna", "k"); got != spec.ID {
		t.Errorf("got %q, want %q", got, spec.ID)
	}
	for _, other := range [][2]string{{"ben", "k"}, {"anna", "l"}, {"anna", ""}, {"", "k"}} {
		if got := byKey(other[0], other[1]); got != "" {
			t.Errorf("%q: %q", other, got)
		}
	}
	again := viewSpec("anna", "k")
	err := v.Begin(t.Context(), again, ttl)
	want(t, err, upload.Conflict)
	if e, is := errors.AsType[*upload.Error](err); !is || e.ID != spec.ID {
		t.Errorf("the key is not said to be %s's: %v", spec.ID, err)
	}
	if ids := list(t, v, "anna", "", 10); slices.Contains(ids, again.ID) {
		t.Errorf("an upload whose key is another's is listed: %v", ids)
	}
	ok(t, v.Remove(t.Context(), again)) // it has nothing to give up
	if got := byKey("anna", "k"); got != spec.ID {
		t.Errorf("got %q, want %q", got, spec.ID)
	}
	ok(t, v.Remove(t.Context(), spec))
	if got := byKey("anna", "k"); got != "" {
		t.Errorf("removed, but found: %q", got)
	}
	ok(t, v.Begin(t.Context(), again, ttl))
	ok(t, v.Remove(t.Context(), spec)) // once more, late
	if got := byKey("anna", "k"); got != again.ID {
		t.Errorf("got %q, want %q", got, again.ID)
	}
}

// Of uploads that begin at once with one key, one has it in the end, and the others know whose it is.
func testKeyAtOnce(t *testing.T, v chunkstore.View) {
	specs, errs := make([]*upload.Spec, 8), make([]error, 8)
	var wg sync.WaitGroup
	for i := range specs {
		specs[i] = viewSpec("anna", "k")
		wg.Go(func() { errs[i] = v.Begin(t.Context(), specs[i], ttl) })
	}
	wg.Wait()
	holder, err := v.ByKey(t.Context(), "anna", "k")
	ok(t, err)
	for i, err := range errs {
		if specs[i].ID == holder {
			ok(t, err)
			continue
		}
		want(t, err, upload.Conflict)
		if e, is := errors.AsType[*upload.Error](err); !is || e.ID != holder {
			t.Errorf("%v, but the key is %s's", err, holder)
		}
	}
	if ids := list(t, v, "anna", "", 10); len(ids) != 1 || ids[0] != holder {
		t.Errorf("known: %v, the key is %s's", ids, holder)
	}
}

// A key that was lost comes back with its upload, unless another upload took it meanwhile.
func testLostKey(t *testing.T, v chunkstore.View) {
	o := NewOwner(1)
	o.u.Key = "k"
	ok(t, v.Put(t.Context(), o.Spec().ID, o.Truth)) // nothing is known, as after a loss
	if got, err := v.ByKey(t.Context(), o.Spec().Owner, "k"); err != nil || got != o.Spec().ID {
		t.Errorf("the key is %q's: %v", got, err)
	}
	ok(t, v.Remove(t.Context(), o.Spec()))
	second := viewSpec(o.Spec().Owner, "k")
	ok(t, v.Begin(t.Context(), second, ttl))
	ok(t, v.Put(t.Context(), o.Spec().ID, o.Truth))
	if got, err := v.ByKey(t.Context(), o.Spec().Owner, "k"); err != nil || got != second.ID {
		t.Errorf("the key is %q's, not %q's: %v", got, second.ID, err)
	}
	shows(t, v, o)
}

func testChallenges(t *testing.T, v chunkstore.View) {
	now := time.Now().UTC().Round(0)
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
