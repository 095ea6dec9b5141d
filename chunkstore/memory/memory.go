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

// entry is an upload as it was when it was put, and whom to ask how it stands.
type entry struct {
	upload upload.Upload
	truth  chunkstore.Truth // nil: nothing has come in yet
}

// now is the upload as it stands; as it was if it has just ended.
func (e entry) now() (upload.Upload, error) {
	if e.truth == nil {
		return e.upload, nil
	}
	u, _, err := e.truth(e.upload.ID)
	if err != nil {
		return e.upload, err
	}
	return u, nil
}

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

// Begin is part of chunkstore.View. Nothing expires here: the janitor removes what has.
func (v *View) Begin(_ context.Context, spec *upload.Spec, _ time.Duration) error {
	v.mu.Lock()
	defer v.mu.Unlock()
	if holder := v.keys[ownerKey{spec.Owner, spec.Key}]; holder != "" && holder != spec.ID {
		return upload.Errorf(upload.Conflict, "chunkstore.Begin", holder, "The Idempotency-Key stands for another upload.")
	}
	v.put(entry{upload: upload.Upload{Spec: *spec, Size: spec.Size, UpdatedAt: spec.CreatedAt}})
	return nil
}

// Put is part of chunkstore.View.
func (v *View) Put(_ context.Context, id string, truth chunkstore.Truth) error {
	v.mu.Lock()
	defer v.mu.Unlock()
	u, _, err := truth(id)
	if err != nil {
		return err
	}
	u.Received = upload.ChunkSet{} // asked for when it is wanted
	v.put(entry{u, truth})
	return nil
}

// Mark is part of chunkstore.View. Nothing is noted: the upload's node is this one and can be asked.
func (v *View) Mark(ctx context.Context, id string, _ int, truth chunkstore.Truth) error {
	v.mu.Lock()
	known := v.uploads[id].truth != nil
	v.mu.Unlock()
	if known {
		return nil
	}
	return v.Put(ctx, id, truth)
}

func (v *View) put(e entry) {
	u := &e.upload
	_, known := v.uploads[u.ID]
	v.uploads[u.ID] = e
	if known {
		return
	}
	list := v.owners[u.Owner]
	if list == nil {
		list = &listing{}
		v.owners[u.Owner] = list
	}
	list.count++
	list.fresh = append(list.fresh, u.ID)
	if key := (ownerKey{u.Owner, u.Key}); u.Key != "" && v.keys[key] == "" {
		v.keys[key] = u.ID
	}
}

// Remove is part of chunkstore.View.
func (v *View) Remove(_ context.Context, spec *upload.Spec) error {
	v.mu.Lock()
	defer v.mu.Unlock()
	if _, ok := v.uploads[spec.ID]; !ok {
		return nil
	}
	delete(v.uploads, spec.ID)
	if key := (ownerKey{spec.Owner, spec.Key}); v.keys[key] == spec.ID {
		delete(v.keys, key)
	}
	list := v.owners[spec.Owner]
	if list.count--; list.count == 0 {
		delete(v.owners, spec.Owner)
		return nil
	}
	// Ids that are gone are left in the lists until they are the greater part.
	if len(list.sorted)+len(list.fresh) > 2*list.count+64 {
		list.tidy(v.alive(spec.Owner))
	}
	return nil
}

// Get is part of chunkstore.View.
func (v *View) Get(_ context.Context, id string) (upload.Upload, error) {
	v.mu.Lock()
	e, ok := v.uploads[id]
	v.mu.Unlock()
	if !ok {
		return upload.Upload{}, upload.Errorf(upload.NotFound, "chunkstore.Get", id, "There is no such upload.")
	}
	return e.now()
}

// alive reports whether an id in owner's listing is still an upload of his.
func (v *View) alive(owner string) func(id string) bool {
	return func(id string) bool { e, ok := v.uploads[id]; return ok && e.upload.Owner == owner }
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
func (v *View) List(_ context.Context, owner, after string, limit int) ([]upload.Upload, error) {
	entries := v.list(owner, after, limit)
	found := make([]upload.Upload, len(entries))
	for i, e := range entries {
		found[i], _ = e.now()
	}
	return found, nil
}

func (v *View) list(owner, after string, limit int) (found []entry) {
	v.mu.Lock()
	defer v.mu.Unlock()
	list := v.owners[owner]
	if list == nil || limit <= 0 {
		return nil
	}
	alive := v.alive(owner)
	if len(list.fresh) > 0 {
		list.tidy(alive)
	}
	from, there := slices.BinarySearch(list.sorted, after)
	if there {
		from++
	}
	for _, id := range list.sorted[from:] {
		if alive(id) {
			if found = append(found, v.uploads[id]); len(found) == limit {
				break
			}
		}
	}
	return found
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
	if len(asked) > chunkstore.MaxChallenges {
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
	if len(times) > chunkstore.MaxFailures {
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

// Watch is part of chunkstore.View. What is in memory is not lost while the process lives.
func (v *View) Watch(ctx context.Context, _ func(ctx context.Context) error) { <-ctx.Done() }
