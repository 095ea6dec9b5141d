// Package metatest is the contract of meta.DB as tests. Every driver passes it.
package metatest

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"slices"
	"sync/atomic"
	"testing"
	"time"

	"gantry/meta"
	"gantry/upload"
)

// Open returns an empty database as several nodes have opened it. Each test has one; none is used when
// done was called.
type Open func(t *testing.T) (nodes []meta.DB, done func())

// Run tests a driver.
func Run(t *testing.T, open Open) {
	for _, group := range []struct {
		name  string
		tests map[string]func(h *harness)
	}{
		{"commit", commitTests},
		{"direct", directTests},
		{"files", fileTests},
		{"changes", changeTests},
		{"content", contentTests},
		{"outbox", outboxTests},
		{"root", rootTests},
		{"collector", collectorTests},
		{"moves", moveTests},
		{"nodes", nodeTests},
		{"leases", leaseTests},
		{"races", raceTests},
	} {
		t.Run(group.name, func(t *testing.T) {
			for name, test := range group.tests {
				t.Run(name, func(t *testing.T) {
					nodes, done := open(t)
					defer done()
					h := newHarness(t, nodes...)
					test(h)
					Check(t, h.db, owners...)
				})
			}
		})
	}
	t.Run("model", func(t *testing.T) { testModel(t, open) })
}

const (
	alice = "alice"
	bob   = "bob"
	node  = "node1"
	local = "local"
	lease = time.Minute
)

var owners = []string{alice, bob}

// noon is when the tests begin; not on a whole second, so that one sees what is cut off.
var noon = time.Date(2026, 3, 4, 12, 0, 0, 123_456_000, time.UTC)

// forever is when answers expire: the database compares it with its own clock.
var forever = time.Date(2200, 1, 1, 0, 0, 0, 0, time.UTC)

// harness is a database with short ways to do the usual things. What fails ends the test.
type harness struct {
	testing.TB
	db  meta.DB
	all []meta.DB // the same database, as all nodes have it
	now time.Time

	turn atomic.Int64
}

func newHarness(t testing.TB, all ...meta.DB) *harness {
	return &harness{TB: t, db: all[0], all: all, now: noon}
}

// next is the database as one node after the other has it: so races are between nodes.
func (h *harness) next() meta.DB { return h.all[int(h.turn.Add(1))%len(h.all)] }

// pass lets time go by.
func (h *harness) pass(d time.Duration) { h.now = h.now.Add(d) }

func (h *harness) must(err error) {
	h.Helper()
	if err != nil {
		h.Fatal(err)
	}
}

// want fails unless err is of the kind.
func (h *harness) want(kind upload.Kind, err error) {
	h.Helper()
	if !errors.Is(err, kind) {
		h.Fatalf("got %v, want kind %q", err, kind.Code())
	}
	if _, ok := errors.AsType[*upload.Error](err); !ok {
		h.Fatalf("%v is a %T, not an *upload.Error", err, err)
	}
}

// body is content: two of the same sum are the same SHA-1 and size, and differ in their roots if
// their variants differ.
type body struct {
	sum     string
	variant int
}

const bodySize = 5 << 20

func (b body) sha1() upload.SHA1 { return upload.SumSHA1([]byte(b.sum)) }
func (b body) hint() upload.SHA1 { return upload.SumSHA1([]byte("beginning of " + b.sum)) }
func (b body) root() upload.Root { return sha256.Sum256(fmt.Append(nil, b.sum, b.variant)) }
func (b body) sealed() upload.Sealed {
	return upload.Sealed{Size: bodySize, SHA1: b.sha1(), Hint: b.hint(), CRC32C: 0xfedc0000 + uint32(b.variant)}
}

// commitOf is a commit with an answer.
func (h *harness) commitOf(owner, name string, b body) meta.Commit {
	return meta.Commit{
		UploadID: upload.NewUploadID(node), Answer: true,
		File: upload.File{
			ID: upload.NewID(h.now), Owner: owner, Name: name, Path: "some/folder", ContentType: "text/plain",
			Metadata: map[string]string{"k": "v"}, CreatedAt: h.now,
		},
		Sealed: b.sealed(), Node: node, Store: local, AnswerUntil: forever,
	}
}

// add commits an upload and returns its file.
func (h *harness) add(owner, name string, b body) upload.File {
	h.Helper()
	h.pass(time.Millisecond) // ids are in order
	a, err := h.db.CommitUpload(h.Context(), h.commitOf(owner, name, b))
	h.must(err)
	return *a.File
}

func (h *harness) file(owner, id string) upload.File {
	h.Helper()
	f, err := h.db.File(h.Context(), owner, id)
	h.must(err)
	return f
}

func (h *harness) blob(id string) upload.Blob {
	h.Helper()
	b, err := h.db.Blob(h.Context(), id)
	h.must(err)
	return b
}

func (h *harness) transfer(id string) upload.Transfer {
	h.Helper()
	t, err := h.db.Transfer(h.Context(), id)
	h.must(err)
	return t
}

func (h *harness) lease(id string) meta.Job {
	h.Helper()
	job, err := h.db.Lease(h.Context(), id, "worker", h.now, h.now.Add(lease))
	h.must(err)
	return job
}

// rooted leases the file's transfer and sets the root.
func (h *harness) rooted(f *upload.File, b body) (meta.Job, meta.RootResult) {
	h.Helper()
	job := h.lease(f.Transfer.ID)
	result, err := h.db.SetRoot(h.Context(), job.Transfer.ID, job.Transfer.Lease.Epoch, b.root(), h.now)
	h.must(err)
	return job, result
}

// store takes the file's transfer to its end.
func (h *harness) store(f *upload.File, b body) upload.Blob {
	h.Helper()
	job, result := h.rooted(f, b)
	if result.JoinedTo != "" {
		h.Fatalf("joined to %s", result.JoinedTo)
	}
	h.stored(job)
	return h.blob(job.Blob.ID)
}

func (h *harness) stored(job meta.Job) {
	h.Helper()
	h.must(h.db.Stored(h.Context(), job.Transfer.ID, job.Transfer.Lease.Epoch, local, upload.ObjectKeyFor(&job.Blob), h.now))
}

// addStored is add and store.
func (h *harness) addStored(owner, name string, b body) upload.File {
	h.Helper()
	f := h.add(owner, name, b)
	h.store(&f, b)
	return h.file(owner, f.ID)
}

func (h *harness) remove(owner, id string) {
	h.Helper()
	h.must(h.db.DeleteFile(h.Context(), owner, id, h.now))
}

// collect collects all that is condemned and returns the ids of what is being deleted.
func (h *harness) collect() []string {
	h.Helper()
	blobs, err := h.db.Collect(h.Context(), meta.CollectQuery{CondemnedBefore: h.now.Add(time.Microsecond), Now: h.now, Limit: 1000})
	h.must(err)
	ids := make([]string, 0, len(blobs))
	for i := range blobs {
		ids = append(ids, blobs[i].ID)
	}
	slices.Sort(ids)
	return ids
}

func equal[T comparable](h *harness, what string, got, want T) {
	h.Helper()
	if got != want {
		h.Errorf("%s: got %v, want %v", what, got, want)
	}
}

// names lists the files' names in order.
func names(files []upload.File) []string {
	out := make([]string, 0, len(files))
	for i := range files {
		out = append(out, files[i].Name)
	}
	return out
}

// Check fails the test unless the database is consistent. owners are those whose files it may hold.
func Check(t testing.TB, db meta.DB, owners ...string) {
	t.Helper()
	for _, problem := range problems(t.Context(), db, owners) {
		t.Error(problem)
	}
}

// identity is what two blobs that can be found may not share.
type identity struct {
	sha1 upload.SHA1
	size int64
	root upload.Root
}

func problems(ctx context.Context, db meta.DB, owners []string) []error {
	var all []error
	bad := func(format string, args ...any) { all = append(all, fmt.Errorf(format, args...)) }
	blobs := map[string]upload.Blob{}
	identities, staging := map[identity]string{}, map[string]string{}
	for after := ""; ; {
		page, err := db.Blobs(ctx, after, 100)
		if err != nil {
			return append(all, err)
		}
		if len(page) == 0 {
			break
		}
		for _, b := range page {
			if b.ID <= after {
				bad("blob %s comes after %s", b.ID, after)
			}
			after, blobs[b.ID] = b.ID, b
			if first := staging[b.Staging]; b.Staging != "" && first != "" {
				bad("blobs %s and %s are the same staging data", first, b.ID)
			}
			staging[b.Staging] = b.ID
			if err := checkBlob(&b); err != nil {
				bad("blob %s: %w", b.ID, err)
			}
			if b.Root.IsZero() {
				continue
			}
			key := identity{b.SHA1, b.Size, b.Root}
			if first, taken := identities[key]; taken {
				bad("blobs %s and %s are the same content", first, b.ID)
			}
			identities[key] = b.ID
		}
	}
	refs := map[string]int64{}
	for _, owner := range owners {
		files, err := db.Files(ctx, meta.FileQuery{Owner: owner, Sort: meta.ByCreated, Limit: 1 << 20})
		if err != nil {
			return append(all, err)
		}
		for i := range files {
			f := &files[i]
			refs[f.BlobID]++
			b, ok := blobs[f.BlobID]
			switch {
			case !ok:
				bad("file %s has no blob", f.ID)
			case b.State != upload.BlobLive && b.State != upload.BlobLost && b.State != upload.BlobStranded:
				bad("file %s has a blob that is %s", f.ID, b.State)
			case f.SHA1 != b.SHA1 || f.Size != b.Size || f.Owner != owner:
				bad("file %s is not what its blob is", f.ID)
			case f.Transfer.BlobID != b.ID:
				bad("file %s has the transfer of blob %s", f.ID, f.Transfer.BlobID)
			case f.Stored != (b.Store != "") || f.Lost != (b.State == upload.BlobLost):
				bad("file %s: stored %v, lost %v, its blob is %s in %q", f.ID, f.Stored, f.Lost, b.State, b.Store)
			}
		}
	}
	for id, b := range blobs {
		if b.Refs != refs[id] {
			bad("blob %s has %d refs and %d files", id, b.Refs, refs[id])
		}
	}
	wrong, err := db.WrongRefs(ctx)
	if err != nil {
		return append(all, err)
	}
	for id, n := range wrong {
		bad("WrongRefs: blob %s has %d files", id, n)
	}
	transfers, err := db.Transfers(ctx, nil, 1<<20)
	if err != nil {
		return append(all, err)
	}
	for i := range transfers {
		if err := checkTransfer(&transfers[i], blobs); err != nil {
			bad("transfer %s: %w", transfers[i].ID, err)
		}
	}
	if len(transfers) != len(blobs) {
		bad("%d transfers of %d blobs", len(transfers), len(blobs))
	}
	moves, err := db.Moves(ctx, meta.MoveQuery{Limit: 1 << 20})
	if err != nil {
		return append(all, err)
	}
	copying := map[string]bool{}
	for i := range moves {
		m := &moves[i]
		if err := checkMove(m, blobs); err != nil {
			bad("move %s: %w", m.ID, err)
		}
		if m.State == meta.MoveCopying && copying[m.BlobID] {
			bad("blob %s is moved twice at a time", m.BlobID)
		}
		copying[m.BlobID] = copying[m.BlobID] || m.State == meta.MoveCopying
	}
	return all
}

func checkMove(m *meta.Move, blobs map[string]upload.Blob) error {
	b, ok := blobs[m.BlobID]
	switch place := (meta.Place{Store: b.Store, Key: b.ObjectKey}); {
	case !ok:
		return errors.New("it has no blob")
	case (m.State == meta.MoveSwitched) == m.SwitchedAt.IsZero() && m.State != meta.MoveDeleting:
		return fmt.Errorf("it is %s, switched at %v", m.State, m.SwitchedAt)
	case m.State == meta.MoveDeleting && m.Garbage() == place:
		return errors.New("it would delete the blob's object")
	case m.State != meta.MoveDeleting && m.To.Store == m.From.Store:
		return errors.New("it goes nowhere")
	case m.State == meta.MoveSwitched && m.From == place:
		return errors.New("it was switched, and the blob is at the old place")
	}
	return nil
}

func checkBlob(b *upload.Blob) error {
	switch {
	case b.State == upload.BlobLive && b.Refs == 0:
		return errors.New("live without references")
	case b.State == upload.BlobCondemned && (b.Refs != 0 || b.CondemnedAt.IsZero()):
		return fmt.Errorf("condemned at %v with %d references", b.CondemnedAt, b.Refs)
	case b.State == upload.BlobDeleting && (b.Refs != 0 || !b.Root.IsZero()):
		return errors.New("being deleted, and could still be found")
	case b.State == upload.BlobLive && !b.CondemnedAt.IsZero():
		return errors.New("live and condemned")
	case (b.Store == "") != (b.ObjectKey == "") || b.Store == "" && !b.VerifiedAt.IsZero() || b.Undigested() && b.Staging != "":
		return fmt.Errorf("in store %q under %q, verified at %v", b.Store, b.ObjectKey, b.VerifiedAt)
	case b.State == upload.BlobLive && b.Store == "" && b.Staging == "":
		return errors.New("live, and its bytes are nowhere")
	}
	return nil
}

func checkTransfer(t *upload.Transfer, blobs map[string]upload.Blob) error {
	b, ok := blobs[t.BlobID]
	switch {
	case !ok:
		return errors.New("it has no blob")
	case (t.State == upload.TransferStored) != (b.Store != "" && !b.Undigested()) && b.State == upload.BlobLive:
		return fmt.Errorf("it is %s, its blob in store %q", t.State, b.Store)
	case (t.State == upload.TransferRunning || t.State == upload.TransferVerifying) == t.Lease.Until.IsZero():
		return fmt.Errorf("it is %s, its lease ends %v", t.State, t.Lease.Until)
	case b.State == upload.BlobDeleting && !t.State.Final():
		return fmt.Errorf("it is %s, its blob is being deleted", t.State)
	}
	return nil
}
