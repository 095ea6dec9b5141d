package metatest

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"pgregory.net/rapid"

	"gantry/meta"
	"gantry/upload"
)

// The model is the world around the database: a staging directory, a store, and what each owner
// believes to have. Uploads, workers, the janitor and the doctor do to it what they do in the program,
// in any order, with crashes, clocks that jump and workers that wake up late. However that goes, every
// file is there with the bytes that were uploaded for it, and in the end no garbage is left.

const (
	stageGrace  = 10 * time.Minute
	deleteGrace = time.Hour
)

// owned is a file as its owner believes it to be.
type owned struct {
	id, owner string
	content   body
}

// held is a worker's job; its lease may be long over.
type held struct {
	job     meta.Job
	content body // as read from staging, or from the store, when the job began
	step    int

	digested bool
}

// sent is a direct upload with what its client sends; object: the store has made it.
type sent struct {
	meta.DirectUpload
	content body
	object  bool
}

// carried is a move that is being worked on, maybe by somebody who lost his lease.
type carried struct {
	move   meta.Move
	copied bool
}

// at is where an object is in the model.
func at(store, key string) string { return store + ":" + key }

type world struct {
	*harness
	staging map[string]body // by upload
	objects map[string]body // by place; see at
	moving  []*carried
	files   []owned // in the order in which they were made
	jobs    []held
	direct  []sent // direct uploads that were begun, ended or not
	rotted  bool   // bytes have been lost, so files may be
}

func testModel(t *testing.T, open Open) {
	rapid.Check(t, func(rt *rapid.T) {
		nodes, done := open(t)
		defer done()
		w := &world{harness: newHarness(t, nodes...), staging: map[string]body{}, objects: map[string]body{}}
		rt.Repeat(map[string]func(*rapid.T){
			"upload":    w.upload,
			"upload 2":  w.upload,
			"cancel":    w.cancel,
			"direct":    w.beginDirect,
			"direct 2":  w.goOnDirect,
			"direct 3":  w.goOnDirect,
			"instant":   w.instant,
			"instant 2": w.instant,
			"delete":    w.remove,
			"lease":     w.lease,
			"lease 2":   w.lease,
			"work":      w.work,
			"work 2":    w.work,
			"work 3":    w.work,
			"operator":  w.operator,
			"move":      w.move,
			"carry":     w.carry,
			"carry 2":   w.carry,
			"janitor":   w.janitor,
			"sweep":     w.sweep,
			"rot":       w.rot,
			"time":      w.time,
			"":          w.check,
		})
		w.end(rt)
	})
}

var contents = rapid.Custom(func(t *rapid.T) body {
	return body{rapid.SampledFrom([]string{"p", "q"}).Draw(t, "sum"), rapid.IntRange(0, 1).Draw(t, "variant")}
})

var anybody = rapid.SampledFrom(owners)

func ok(t *rapid.T, err error, kinds ...upload.Kind) bool {
	for _, kind := range kinds {
		if errors.Is(err, kind) {
			return false
		}
	}
	if err != nil {
		t.Fatal(err)
	}
	return true
}

// pick draws one of a list; false if it is empty.
func pick[T any](t *rapid.T, name string, list []T) (int, bool) {
	if len(list) == 0 {
		return 0, false
	}
	return rapid.IntRange(0, len(list)-1).Draw(t, name), true
}

// keys returns a map's keys in an order that does not change from run to run: that of arrival is not
// known, but ids are in the order of time.
func keys(m map[string]body) []string {
	var all []string
	for key := range m {
		all = append(all, key)
	}
	slices.SortFunc(all, func(a, b string) int {
		if c := m[a].variant - m[b].variant; c != 0 {
			return c
		}
		return len(m[a].sum) - len(m[b].sum)
	})
	return all
}

func (w *world) draw(t *rapid.T, owner string, b body) meta.Commit {
	w.pass(time.Millisecond)
	c := w.commitOf(owner, "name", b)
	c.Answer = rapid.Bool().Draw(t, "answer")
	if i, some := pick(t, "replaces", w.files); some && rapid.IntRange(0, 3).Draw(t, "replace") == 0 {
		c.Replaces = w.files[i].id
	}
	return c
}

// took records what a commit made.
func (w *world) took(owner string, b body, f *upload.File) {
	i := slices.IndexFunc(w.files, func(o owned) bool { return o.id == f.ID })
	if i < 0 {
		w.files = append(w.files, owned{f.ID, owner, b})
	} else {
		w.files[i].content = b
	}
}

func (w *world) upload(t *rapid.T) {
	owner, b := anybody.Draw(t, "owner"), contents.Draw(t, "content")
	c := w.draw(t, owner, b)
	w.staging[c.UploadID] = b
	if rapid.IntRange(0, 9).Draw(t, "crash") == 0 {
		return // before the commit
	}
	for range rapid.IntRange(1, 2).Draw(t, "times") {
		a, err := w.db.CommitUpload(w.Context(), c)
		ok(t, err)
		w.took(owner, b, a.File)
	}
}

func (w *world) cancel(t *rapid.T) {
	c := w.draw(t, anybody.Draw(t, "owner"), contents.Draw(t, "content"))
	c.Answer = true
	w.staging[c.UploadID] = body{}
	_, err := w.db.EndUpload(w.Context(), meta.Answer{UploadID: c.UploadID, Owner: c.File.Owner, State: upload.Cancelled, CreatedAt: w.now, ExpiresAt: forever})
	ok(t, err)
	a, err := w.db.CommitUpload(w.Context(), c)
	if ok(t, err); a.State != upload.Cancelled {
		t.Fatalf("cancelled, then %s", a.State)
	}
	delete(w.staging, c.UploadID)
}

func (w *world) beginDirect(t *rapid.T) {
	d := w.directOf(anybody.Draw(t, "owner"), "name")
	ok(t, w.db.BeginDirect(w.Context(), d))
	w.direct = append(w.direct, sent{DirectUpload: d, content: contents.Draw(t, "content")})
}

// goOnDirect takes one direct upload a step further: its object, its end, and what is to be done after that. Clients
// and nodes that were slow may do any of them late.
func (w *world) goOnDirect(t *rapid.T) {
	i, some := pick(t, "direct", w.direct)
	if !some {
		return
	}
	d := &w.direct[i]
	_, err := w.db.Answer(w.Context(), d.ID)
	ended := ok(t, err, upload.NotFound)
	switch rapid.IntRange(0, 4).Draw(t, "what") {
	case 0:
		if !ended { // the store makes no object of parts that are gone
			w.objects[at(d.Store, d.ObjectKey)], d.object = d.content, true
		}
	case 1, 2:
		if !d.object {
			return
		}
		c := w.commitDirectOf(&d.DirectUpload, rapid.SampledFrom([]upload.SHA1{{}, d.content.sha1()}).Draw(t, "announced"))
		a, err := w.db.CommitDirect(w.Context(), c)
		if !ended && ok(t, err) {
			w.took(d.Owner, d.content, a.File)
		}
	case 3:
		_, err := w.db.EndUpload(w.Context(), meta.Answer{UploadID: d.ID, Owner: d.Owner, State: upload.Cancelled, CreatedAt: w.now, ExpiresAt: forever})
		ok(t, err)
	default:
		w.cleanDirect(t)
	}
}

// cleanDirect is the janitor's work on direct uploads that have ended.
func (w *world) cleanDirect(t *rapid.T) {
	ended, err := w.db.EndedDirect(w.Context(), "", 1000)
	ok(t, err)
	for i := range ended {
		delete(w.objects, at(ended[i].Store, ended[i].ObjectKey))
		ok(t, w.db.DropDirect(w.Context(), ended[i].ID))
	}
}

func (w *world) instant(t *rapid.T) {
	owner, b := anybody.Draw(t, "owner"), contents.Draw(t, "content")
	scope := rapid.SampledFrom([]meta.Scope{meta.ScopeUser, meta.ScopeGlobal}).Draw(t, "scope")
	found, err := w.db.FindContent(w.Context(), scope, owner, b.sha1(), bodySize)
	if !ok(t, err, upload.NotFound) || found.Root != b.root() { // who has other bytes cannot prove these
		return
	}
	c := w.draw(t, owner, b)
	if rapid.IntRange(0, 3).Draw(t, "late") == 0 {
		w.janitor(t)
	}
	a, err := w.db.CommitInstant(w.Context(), c, found.ID)
	if ok(t, err, upload.NotFound) {
		w.took(owner, b, a.File)
	}
}

func (w *world) remove(t *rapid.T) {
	if i, some := pick(t, "file", w.files); some {
		ok(t, w.db.DeleteFile(w.Context(), w.files[i].owner, w.files[i].id, w.now))
		w.files = slices.Delete(w.files, i, i+1)
	}
}

func (w *world) lease(t *rapid.T) {
	ids, err := w.db.TakeDue(w.Context(), node, w.now, time.Minute, rapid.IntRange(1, 3).Draw(t, "limit"))
	ok(t, err)
	for _, id := range ids {
		job, err := w.db.Lease(w.Context(), id, "worker", w.now, w.now.Add(lease))
		if !ok(t, err, upload.Conflict) {
			continue
		}
		content, there := w.staging[job.Blob.Staging]
		if job.Blob.Undigested() {
			content, there = w.objects[at(job.Blob.Store, job.Blob.ObjectKey)]
		}
		if there {
			w.jobs = append(w.jobs, held{job: job, content: content})
		} else {
			ok(t, w.db.Dead(w.Context(), id, job.Transfer.Lease.Epoch, "not in staging", true, w.now))
		}
	}
}

func (w *world) work(t *rapid.T) {
	i, some := pick(t, "job", w.jobs)
	if !some {
		return
	}
	j := &w.jobs[i]
	id, epoch, key := j.job.Transfer.ID, j.job.Transfer.Lease.Epoch, upload.ObjectKeyFor(&j.job.Blob)
	direct := j.job.Blob.Undigested()
	if direct {
		key = j.job.Blob.ObjectKey
	}
	var err error
	done := false
	switch what := rapid.IntRange(0, 11).Draw(t, "what"); {
	case what == 0: // killed
		done = true
	case what == 1:
		err, done = w.db.Retry(w.Context(), id, epoch, w.now.Add(time.Minute), "why", w.now), true
	case what == 2:
		err, done = w.db.Dead(w.Context(), id, epoch, "why", false, w.now), true
	case what == 3:
		err = w.db.Renew(w.Context(), id, epoch, meta.Progress{State: upload.TransferRunning, Until: w.now.Add(lease), Now: w.now})
	case j.step == 0 && direct && !j.digested:
		err = w.db.SetDigests(w.Context(), id, epoch, j.content.sealed(), w.now)
		j.digested = true
	case j.step == 0:
		var result meta.RootResult
		result, err = w.db.SetRoot(w.Context(), id, epoch, j.content.root(), w.now)
		done = result.JoinedTo != ""
		j.step++
	case j.step == 1 && direct:
		j.step++
	case j.step == 1: // also when its lease is over, it does not know that yet
		w.objects[at(j.job.Transfer.Store, key)] = j.content
		j.step++
	default:
		err, done = w.db.Stored(w.Context(), id, epoch, j.job.Transfer.Store, key, w.now), true
	}
	if !ok(t, err, upload.Conflict) || done {
		w.jobs = slices.Delete(w.jobs, i, i+1)
	}
}

func (w *world) operator(t *rapid.T) {
	all, err := w.db.Transfers(w.Context(), nil, 100)
	ok(t, err)
	i, some := pick(t, "transfer", all)
	switch {
	case !some:
	case rapid.Bool().Draw(t, "cancel"):
		ok(t, w.db.CancelTransfer(w.Context(), all[i].ID, w.now), upload.Conflict)
	default:
		ok(t, w.db.RetryTransfer(w.Context(), all[i].ID, w.now), upload.Conflict)
	}
}

func (w *world) janitor(t *rapid.T) {
	blobs, err := w.db.Droppable(w.Context(), node, w.now.Add(-stageGrace), 10)
	ok(t, err)
	for i := range blobs {
		delete(w.staging, blobs[i].Staging)
		ok(t, w.db.StagingDropped(w.Context(), blobs[i].ID))
	}
	blobs, err = w.db.Collect(w.Context(), meta.CollectQuery{CondemnedBefore: w.now.Add(-deleteGrace), Now: w.now, Limit: 10})
	ok(t, err)
	for i := range blobs {
		b := &blobs[i]
		moves, err := w.db.Moves(w.Context(), meta.MoveQuery{BlobID: b.ID, Limit: 100})
		ok(t, err)
		for _, m := range moves {
			delete(w.objects, at(m.From.Store, m.From.Key))
			delete(w.objects, at(m.To.Store, m.To.Key))
		}
		delete(w.objects, at(b.Store, b.ObjectKey))
		delete(w.staging, b.Staging)
		if rapid.IntRange(0, 3).Draw(t, "crash") == 0 {
			return
		}
		ok(t, w.db.Deleted(w.Context(), b.ID))
	}
	moves, err := w.db.Leftovers(w.Context(), meta.Fence{}, w.now.Add(-deleteGrace), "", 10)
	ok(t, err)
	for i := range moves {
		garbage := moves[i].Garbage()
		delete(w.objects, at(garbage.Store, garbage.Key))
		if rapid.IntRange(0, 3).Draw(t, "crash") == 0 {
			return
		}
		ok(t, w.db.ForgetMove(w.Context(), moves[i].ID))
	}
}

// move begins to move a blob to the other store.
func (w *world) move(t *rapid.T) {
	blobs, err := w.db.Blobs(w.Context(), "", 100)
	ok(t, err)
	i, some := pick(t, "blob", blobs)
	if !some || blobs[i].Store == "" {
		return
	}
	w.pass(time.Millisecond)
	to := map[string]string{local: remote, remote: local}[blobs[i].Store]
	m, err := w.db.BeginMove(w.Context(), meta.Fence{}, &blobs[i], to, w.now)
	if ok(t, err, upload.Conflict) {
		w.moving = append(w.moving, &carried{move: m})
	}
}

// carry takes one step of a move: copying, the switch, or giving it up.
func (w *world) carry(t *rapid.T) {
	i, some := pick(t, "move", w.moving)
	if !some {
		return
	}
	c, done := w.moving[i], true
	content, there := w.objects[at(c.move.From.Store, c.move.From.Key)]
	switch what := rapid.IntRange(0, 7).Draw(t, "what"); {
	case what == 0: // killed
	case what == 1 || !there && !c.copied:
		if ok(t, w.db.Abandon(w.Context(), meta.Fence{}, c.move.ID), upload.Conflict) {
			delete(w.objects, at(c.move.To.Store, c.move.To.Key))
			ok(t, w.db.ForgetMove(w.Context(), c.move.ID))
		}
	case !c.copied:
		w.objects[at(c.move.To.Store, c.move.To.Key)] = content
		c.copied, done = true, false
	case what == 2:
		ok(t, w.db.SwitchBack(w.Context(), meta.Fence{}, c.move.ID, w.now), upload.Conflict)
		done = false
	default:
		if !ok(t, w.db.Switch(w.Context(), meta.Fence{}, c.move.ID, w.now), upload.Conflict) {
			ok(t, w.db.Abandon(w.Context(), meta.Fence{}, c.move.ID), upload.Conflict)
		}
	}
	if done {
		w.moving = slices.Delete(w.moving, i, i+1)
	}
}

// sweep deletes what no blob refers to.
func (w *world) sweep(t *rapid.T) {
	known, err := w.db.KnownStaging(w.Context(), keys(w.staging))
	ok(t, err)
	for id := range w.staging {
		if !known[id] {
			delete(w.staging, id)
		}
	}
	for _, store := range []string{local, remote} {
		var asked []string
		for _, place := range keys(w.objects) {
			if key, here := strings.CutPrefix(place, store+":"); here {
				asked = append(asked, key)
			}
		}
		known, err := w.db.KnownObjects(w.Context(), store, asked)
		ok(t, err)
		for _, key := range asked {
			if !known[key] {
				delete(w.objects, at(store, key))
			}
		}
	}
}

// rot destroys one copy of a blob, and the doctor finds it.
func (w *world) rot(t *rapid.T) {
	if rapid.IntRange(0, 2).Draw(t, "spare") > 0 {
		return
	}
	blobs, err := w.db.Blobs(w.Context(), "", 100)
	ok(t, err)
	i, some := pick(t, "blob", blobs)
	if !some {
		return
	}
	b := &blobs[i]
	w.rotted = true
	if b.Store == "" || rapid.Bool().Draw(t, "staging") {
		delete(w.staging, b.Staging)
	} else {
		delete(w.objects, at(b.Store, b.ObjectKey))
	}
	_, inStaging := w.staging[b.Staging]
	_, inStore := w.objects[at(b.Store, b.ObjectKey)]
	switch {
	case b.Store != "" && inStore:
	case b.Store != "" && inStaging:
		ok(t, w.db.Unstore(w.Context(), b.ID, "404", w.now), upload.Conflict)
	case !inStaging:
		ok(t, w.db.MarkLost(w.Context(), b.ID, "gone", w.now))
	}
}

func (w *world) time(t *rapid.T) {
	w.pass(rapid.SampledFrom([]time.Duration{time.Second, lease, time.Hour, 2 * time.Hour, -time.Hour}).Draw(t, "passes"))
}

// check compares the files with what their owners believe, byte for byte.
func (w *world) check(t *rapid.T) {
	w.db = w.next() // what one node has done, another one sees
	for _, problem := range problems(w.Context(), w.db, owners) {
		t.Error(problem)
	}
	count := 0
	for _, owner := range owners {
		count += len(w.list(owner))
	}
	if count != len(w.files) {
		t.Fatalf("%d files, want %d", count, len(w.files))
	}
	for _, o := range w.files {
		f, err := w.db.File(w.Context(), o.owner, o.id)
		ok(t, err)
		if f.Lost && w.rotted {
			continue
		}
		b, err := w.db.Blob(w.Context(), f.BlobID)
		ok(t, err)
		if got, where, there := w.read(&b); !there || got != o.content {
			t.Fatalf("file %s of %v: its blob is %+v, and %s has %v (%v)", o.id, o.content, b, where, got, there)
		}
	}
}

func (w *world) read(b *upload.Blob) (content body, where string, there bool) {
	if b.Store != "" {
		content, there = w.objects[at(b.Store, b.ObjectKey)]
		return content, "the store", there
	}
	content, there = w.staging[b.Staging]
	return content, "staging", there
}

// end deletes all files, and then nothing may be left anywhere.
func (w *world) end(t *rapid.T) {
	for len(w.files) > 0 {
		w.remove(t)
	}
	w.pass(1000 * time.Hour)
	idle, err := w.db.IdleDirect(w.Context(), w.now, 1000)
	ok(t, err)
	for i := range idle {
		_, err := w.db.EndUpload(w.Context(), meta.Answer{UploadID: idle[i].ID, Owner: idle[i].Owner, State: upload.Expired, CreatedAt: w.now, ExpiresAt: forever})
		ok(t, err)
	}
	w.cleanDirect(t)
	w.moving = nil
	for round := 0; ; round++ {
		w.janitor(t)
		w.sweep(t)
		blobs, err := w.db.Blobs(w.Context(), "", 100)
		ok(t, err)
		switch {
		case len(blobs)+len(w.staging)+len(w.objects) == 0:
			return
		case round == 100:
			t.Fatal(fmt.Sprintf("garbage is left: blobs %+v, staging %v, objects %v", blobs, w.staging, w.objects))
		}
	}
}
