// Package memory is the view of open uploads for one node: in its memory, rebuilt at each start.
package memory

import (
	"context"
	"slices"
	"sync"
	"time"

	"gantry/chunkstore"
	"gantry/upload"
)

// Bounds on what one owner can make this package keep.
const (
	maxChallenges = 1000 // open ones; the oldest goes first
	maxFailures   = 100  // more are counted as so many
)

// View is a chunkstore.View in memory. It is made by New and safe for concurrent use.
type View struct {
	mu         sync.Mutex
	uploads    map[string]entry // by id
	owners     map[string]*listing
	keys       map[ownerKey]string // id by Idempotency-Key
	challenges map[string]upload.Challenge
	asked      map[string][]string // ids of challenges by owner, oldest first; some may be gone
	failures   map[string][]time.Time
	swept      time.Time
}

var _ chunkstore.View = (*View)(nil)

type entry struct{ owner, key string }

type ownerKey struct{ owner, key string }

// listing is an owner's ids. Sorting is left to the one who lists.
type listing struct {
	count  int
	sorted []string // some may be gone
	fresh  []string // not sorted yet
}

// New returns an empty view.
func New() *View {
	return &View{
		uploads: map[string]entry{}, owners: map[string]*listing{}, keys: map[ownerKey]string{},
		challenges: map[string]upload.Challenge{}, asked: map[string][]string{}, failures: map[string][]time.Time{},
	}
}

// Put is part of chunkstore.View.
func (v *View) Put(_ context.Context, spec upload.Spec) error {
	v.mu.Lock()
	defer v.mu.Unlock()
	v.remove(spec.ID)
	v.uploads[spec.ID] = entry{spec.Owner, spec.Key}
	list := v.owners[spec.Owner]
	if list == nil {
		list = &listing{}
		v.owners[spec.Owner] = list
	}
	list.count++
	list.fresh = append(list.fresh, spec.ID)
	if spec.Key != "" {
		v.keys[ownerKey{spec.Owner, spec.Key}] = spec.ID
	}
	return nil
}

// Remove is part of chunkstore.View.
func (v *View) Remove(_ context.Context, id string) error {
	v.mu.Lock()
	defer v.mu.Unlock()
	v.remove(id)
	return nil
}

func (v *View) remove(id string) {
	e, ok := v.uploads[id]
	if !ok {
		return
	}
	delete(v.uploads, id)
	if key := ownerKey(e); v.keys[key] == id {
		delete(v.keys, key)
	}
	list := v.owners[e.owner]
	if list.count--; list.count == 0 {
		delete(v.owners, e.owner)
		return
	}
	// Ids that are gone are left in the lists until they are the greater part.
	if len(list.sorted)+len(list.fresh) > 2*list.count+64 {
		list.tidy(v.alive(e.owner))
	}
}

// alive reports whether an id in owner's listing is still an upload of his.
func (v *View) alive(owner string) func(id string) bool {
	return func(id string) bool { e, ok := v.uploads[id]; return ok && e.owner == owner }
}

// tidy brings the listing in order.
func (l *listing) tidy(alive func(id string) bool) {
	slices.Sort(l.fresh)
	merged := make([]string, 0, l.count)
	sorted, fresh := l.sorted, l.fresh
	for len(sorted)+len(fresh) > 0 {
		from := &fresh
		if len(fresh) == 0 || len(sorted) > 0 && sorted[0] <= fresh[0] {
			from = &sorted
		}
		id := (*from)[0]
		*from = (*from)[1:]
		if alive(id) && (len(merged) == 0 || merged[len(merged)-1] != id) {
			merged = append(merged, id)
		}
	}
	l.sorted, l.fresh = merged, nil
}

// List is part of chunkstore.View.
func (v *View) List(_ context.Context, owner, after string, limit int) ([]string, error) {
	v.mu.Lock()
	defer v.mu.Unlock()
	list := v.owners[owner]
	if list == nil || limit <= 0 {
		return nil, nil
	}
	alive := v.alive(owner)
	if len(list.fresh) > 0 {
		list.tidy(alive)
	}
	from, found := slices.BinarySearch(list.sorted, after)
	if found {
		from++
	}
	var ids []string
	for _, id := range list.sorted[from:] {
		if alive(id) {
			if ids = append(ids, id); len(ids) == limit {
				break
			}
		}
	}
	return ids, nil
}

// ByKey is part of chunkstore.View.
func (v *View) ByKey(_ context.Context, owner, key string) (string, error) {
	v.mu.Lock()
	defer v.mu.Unlock()
	if key == "" {
		return "", nil
	}
	return v.keys[ownerKey{owner, key}], nil
}

// PutChallenge is part of chunkstore.View.
func (v *View) PutChallenge(_ context.Context, c upload.Challenge) error {
	v.mu.Lock()
	defer v.mu.Unlock()
	v.sweep(c.ExpiresAt.Add(-upload.ChallengeTTL))
	v.challenges[c.ID] = c
	asked := append(v.asked[c.Owner], c.ID)
	if len(asked) > maxChallenges {
		delete(v.challenges, asked[0])
		asked = asked[1:]
	}
	v.asked[c.Owner] = asked
	return nil
}

// TakeChallenge is part of chunkstore.View.
func (v *View) TakeChallenge(_ context.Context, id string, now time.Time) (upload.Challenge, error) {
	v.mu.Lock()
	defer v.mu.Unlock()
	c, ok := v.challenges[id]
	delete(v.challenges, id)
	if !ok || !now.Before(c.ExpiresAt) {
		return upload.Challenge{}, upload.Errorf(upload.NotFound, "chunkstore.TakeChallenge", id, "There is no such challenge.")
	}
	return c, nil
}

// CountFailure is part of chunkstore.View.
func (v *View) CountFailure(_ context.Context, who string, now time.Time) (int, error) {
	v.mu.Lock()
	defer v.mu.Unlock()
	v.sweep(now)
	times := append(recent(v.failures[who], now), now)
	if len(times) > maxFailures {
		times = times[1:]
	}
	v.failures[who] = times
	return len(times), nil
}

// Failures is part of chunkstore.View.
func (v *View) Failures(_ context.Context, who string, now time.Time) (int, error) {
	v.mu.Lock()
	defer v.mu.Unlock()
	return len(recent(v.failures[who], now)), nil
}

// recent returns the times in the window that ends now. A clock that was set back makes none of them
// count for longer than a window.
func recent(times []time.Time, now time.Time) []time.Time {
	var in []time.Time
	for _, t := range times {
		if age := now.Sub(t); age < chunkstore.FailureWindow && age > -chunkstore.FailureWindow {
			in = append(in, t)
		}
	}
	return in
}

// sweep forgets, about once a minute, what has expired.
func (v *View) sweep(now time.Time) {
	if age := now.Sub(v.swept); age >= 0 && age < time.Minute {
		return
	}
	v.swept = now
	for id := range v.challenges {
		if !now.Before(v.challenges[id].ExpiresAt) {
			delete(v.challenges, id)
		}
	}
	for owner, asked := range v.asked {
		asked = slices.DeleteFunc(asked, func(id string) bool { _, ok := v.challenges[id]; return !ok })
		if v.asked[owner] = asked; len(asked) == 0 {
			delete(v.asked, owner)
		}
	}
	for who, times := range v.failures {
		if len(recent(times, now)) == 0 {
			delete(v.failures, who)
		}
	}
}
