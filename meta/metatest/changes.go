package metatest

import (
	"fmt"
	"slices"
	"time"

	"gantry/meta"
	"gantry/upload"
)

var changeTests = map[string]func(h *harness){
	"what happens to files":   testChanges,
	"the newest of many":      testNewestChanges,
	"deleted files forgotten": testForgetDeleted,
}

// changed fails the test unless these are the files to which something has happened just now.
func (h *harness) changed(owner, what string, want ...meta.Change) {
	h.Helper()
	got, err := h.next().Changes(h.Context(), owner, h.now, 10)
	h.must(err)
	seen := map[meta.Change]bool{}
	for _, c := range got {
		seen[c] = true
	}
	for i := range want {
		want[i].At = h.now
		if !seen[want[i]] {
			h.Errorf("%s: %v is not among %v", what, want[i], got)
		}
		delete(seen, want[i])
	}
	if len(seen) > 0 {
		h.Errorf("%s: there is also %v", what, seen)
	}
}

func testChanges(h *harness) {
	f := h.add(alice, "a", body{"x", 0})
	of := meta.Change{FileID: f.ID}
	h.changed(alice, "made", of)
	h.changed(bob, "made")
	h.pass(time.Second)
	h.changed(alice, "nothing")

	name := "b"
	_, err := h.db.UpdateFile(h.Context(), alice, f.ID, meta.FileChange{Name: &name, Now: h.now})
	h.must(err)
	h.changed(alice, "renamed", of)

	h.pass(time.Second)
	job := h.lease(f.Transfer.ID)
	h.changed(alice, "leased", of)
	h.changed(bob, "leased")
	h.pass(time.Second)
	h.must(h.db.Renew(h.Context(), f.Transfer.ID, job.Transfer.Lease.Epoch, meta.Progress{State: upload.TransferRunning, Bytes: 1, Until: h.now.Add(lease), Now: h.now}))
	h.changed(alice, "sent", of)

	h.pass(time.Second)
	_, err = h.db.SetRoot(h.Context(), f.Transfer.ID, job.Transfer.Lease.Epoch, body{"x", 0}.root(), h.now)
	h.must(err)
	h.stored(job)
	h.pass(time.Second)
	twin := h.add(bob, "twin", body{"x", 0})
	h.pass(time.Second)
	h.rooted(&twin, body{"x", 0})
	h.changed(bob, "joined to another's content", meta.Change{FileID: twin.ID})

	h.pass(time.Second)
	h.must(h.db.MarkLost(h.Context(), f.BlobID, "gone", h.now))
	h.changed(alice, "lost", of)
	h.changed(bob, "lost", meta.Change{FileID: twin.ID})

	h.pass(time.Second)
	h.remove(alice, f.ID)
	h.changed(alice, "deleted", meta.Change{FileID: f.ID, Deleted: true})
	h.changed(bob, "deleted")
}

func testNewestChanges(h *harness) {
	var want []string
	for i := range 5 {
		h.pass(time.Second)
		f := h.add(alice, fmt.Sprint(i), body{fmt.Sprint(i), 0})
		if i > 2 {
			want = append(want, f.ID)
		}
	}
	got, err := h.db.Changes(h.Context(), alice, time.Time{}.Add(time.Hour), 2)
	h.must(err)
	var ids []string
	for _, c := range got {
		ids = append(ids, c.FileID)
	}
	slices.Sort(ids)
	if ids = slices.Compact(ids); !slices.Equal(ids, want) {
		h.Errorf("changed are %v, want %v", ids, want)
	}
}

func testForgetDeleted(h *harness) {
	first, second := h.add(alice, "a", body{"x", 0}), h.add(alice, "b", body{"y", 0})
	begin := h.now
	h.remove(alice, first.ID)
	h.pass(time.Second)
	h.remove(alice, second.ID)
	for range 2 {
		h.must(h.db.ForgetDeleted(h.Context(), h.now))
	}
	got, err := h.db.Changes(h.Context(), alice, begin, 10)
	h.must(err)
	if len(got) != 1 || got[0] != (meta.Change{FileID: second.ID, At: h.now, Deleted: true}) {
		h.Errorf("changed are %v, want that the second was deleted", got)
	}
}
