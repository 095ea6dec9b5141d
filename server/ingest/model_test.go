package ingest_test

import (
	"errors"
	"fmt"
	"maps"
	"os"
	"slices"
	"testing"
	"time"

	"pgregory.net/rapid"

	"gantry/internal/vfs/faultfs"
	"gantry/meta"
	"gantry/server/ingest"
	"gantry/upload"
)

// TestEngineAgainstModel runs random operations, failing disks, kills and power cuts against the whole
// node and a model that only remembers what was acknowledged:
//   - a file, once acknowledged, comes back byte for byte until it is deleted (I1, I2, I5);
//   - a chunk, once acknowledged, is in every status until a power cut, which may take back chunks
//     but never show wrong ones (I1, I7);
//   - a cancelled upload stays cancelled, a repeated complete gives the same file (I6);
//   - references are right, and after the janitor nothing lies around (I3, I10).
func TestEngineAgainstModel(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		dir, err := os.MkdirTemp(t.TempDir(), "")
		if err != nil {
			rt.Fatal(err)
		}
		m := &model{rt: rt, e: newEngineIn(rt, dir), uploads: map[string]*modelUpload{}, files: map[string]*modelFile{}}
		defer func() {
			m.e.close()
			_ = os.RemoveAll(dir)
		}()
		rt.Repeat(map[string]func(*rapid.T){
			"init":      m.init,
			"chunk":     m.chunk,
			"chunks":    m.chunks,
			"complete":  m.complete,
			"cancel":    m.cancel,
			"instant":   m.instant,
			"whole":     m.whole,
			"delete":    m.delete,
			"transfer":  m.transfer,
			"janitor":   m.janitor,
			"restart":   func(*rapid.T) { m.e.restart() },
			"kill":      func(*rapid.T) { m.e.kill() },
			"power cut": m.powerCut,
			"disk":      m.failDisk,
			"":          m.check,
		})
		m.finish()
	})
}

// contents are the few different contents of the model, so that equal ones meet often.
const contents = 6

func content(n uint64) []byte {
	sizes := [contents]int{0, 70_000, 1 << 20, 1<<20 + 1, 2<<20 + 4096, 3<<20 - 1}
	return random(n, sizes[n%contents])
}

type modelUpload struct {
	content uint64
	nth     int
	acked   map[int]bool
	fileID  string // once complete
	ended   bool   // cancelled
}

type modelFile struct {
	content uint64
	nth     int
}

func (u *modelUpload) order() int { return u.nth }
func (f *modelFile) order() int   { return f.nth }

type model struct {
	rt      *rapid.T
	e       *engine
	uploads map[string]*modelUpload
	files   map[string]*modelFile
	made    int  // numbers what is made, so that a run can be repeated though ids are random
	failing bool // the disk fails at some operation to come: any call may say Unavailable
}

// try fails the run unless err is one of the kinds that this call may give, or the disk is failing.
func (m *model) try(err error, allowed ...upload.Kind) bool {
	if err == nil {
		return true
	}
	kind := upload.KindOf(err)
	if slices.Contains(allowed, kind) {
		return false
	}
	if m.failing && (kind == upload.Unavailable || kind == upload.NoRoom || kind == upload.Internal) {
		return false
	}
	m.rt.Fatalf("unexpected error: %v (%s)", err, kind.Code())
	return false
}

// inOrder returns ids in the order in which they were made.
func inOrder[V interface{ order() int }](m map[string]V) []string {
	return slices.SortedFunc(maps.Keys(m), func(a, b string) int { return m[a].order() - m[b].order() })
}

func pick[V interface{ order() int }](t *rapid.T, m map[string]V) string {
	if len(m) == 0 {
		t.Skip("none there")
	}
	return inOrder(m)[rapid.IntRange(0, len(m)-1).Draw(t, "which")]
}

func (m *model) addFile(id string, content uint64) {
	m.made++
	m.files[id] = &modelFile{content, m.made}
}

func (m *model) init(t *rapid.T) {
	n := rapid.Uint64Range(0, contents-1).Draw(t, "content")
	opened, err := m.e.begin(content(n))
	if m.try(err) {
		m.made++
		m.uploads[opened.ID] = &modelUpload{content: n, nth: m.made, acked: map[int]bool{}}
	}
}

func (m *model) chunk(t *rapid.T) {
	id := pick(t, m.uploads)
	u := m.uploads[id]
	data := content(u.content)
	count := upload.Layout{Size: int64(len(data)), ChunkSize: upload.MinChunkSize}.Count()
	if count == 0 {
		t.Skip("an empty file")
	}
	i := rapid.IntRange(0, count-1).Draw(t, "index")
	bytes := slices.Clone(chunk(data, i))
	wrong := u.acked[i] && rapid.Bool().Draw(t, "wrong")
	if wrong {
		bytes[len(bytes)/2] ^= 1
	}
	err := m.e.PutChunk(t.Context(), owner, id, i, body(bytes))
	switch {
	case u.fileID != "" || u.ended:
		if m.try(err, upload.NotOpen) {
			t.Fatalf("chunk %d accepted by an upload that has ended", i)
		}
	case wrong:
		if m.try(err, upload.ChunkConflict, upload.NotOpen) {
			t.Fatalf("other bytes accepted for chunk %d", i)
		}
	case m.try(err, upload.NotOpen): // NotOpen: sealed by a complete whose commit failed
		u.acked[i] = true
	}
}

// chunks sends all that is missing.
func (m *model) chunks(t *rapid.T) {
	id := pick(t, m.uploads)
	u := m.uploads[id]
	if u.fileID != "" || u.ended {
		t.Skip("not open")
	}
	data := content(u.content)
	status, err := m.e.Status(t.Context(), owner, id)
	if !m.try(err) {
		return
	}
	for _, r := range status.Upload.Missing() {
		for i := r.First; i <= r.Last; i++ {
			if m.try(m.e.PutChunk(t.Context(), owner, id, i, body(chunk(data, i))), upload.NotOpen) {
				u.acked[i] = true
			}
		}
	}
}

func (m *model) complete(t *rapid.T) {
	id := pick(t, m.uploads)
	u := m.uploads[id]
	sha1 := upload.SumSHA1(content(u.content))
	f, err := m.e.Complete(t.Context(), owner, id, ingest.CompleteRequest{SHA1: &sha1})
	if !m.try(err, upload.Incomplete, upload.Gone) {
		if errors.Is(err, upload.Gone) && !u.ended {
			t.Fatalf("complete says gone for an open upload: %v", err)
		}
		return
	}
	if u.ended {
		t.Fatalf("a cancelled upload was completed")
	}
	if u.fileID != "" && u.fileID != f.ID {
		t.Fatalf("complete gave file %s, before %s", f.ID, u.fileID)
	}
	if u.fileID == "" {
		u.fileID = f.ID
		m.addFile(f.ID, u.content)
	}
}

func (m *model) cancel(t *rapid.T) {
	id := pick(t, m.uploads)
	u := m.uploads[id]
	err := m.e.Cancel(t.Context(), owner, id)
	if !m.try(err, upload.NotOpen) {
		if errors.Is(err, upload.NotOpen) {
			m.foundComplete(t, id)
		}
		return
	}
	if u.fileID != "" {
		t.Fatalf("a complete upload was cancelled")
	}
	u.ended = true
}

// foundComplete is called when an upload turns out to be complete, though no call that completed it
// came back without an error.
func (m *model) foundComplete(t *rapid.T, id string) {
	u := m.uploads[id]
	if u.fileID != "" {
		return
	}
	status, err := m.e.Status(t.Context(), owner, id)
	if !m.try(err) {
		return
	}
	if status.State != upload.Complete || !m.failing {
		t.Fatalf("upload %s is %s", id, status.State)
	}
	u.fileID = status.Answer.File.ID
	m.addFile(u.fileID, u.content)
}

func (m *model) instant(t *rapid.T) {
	id := pick(t, m.uploads)
	u := m.uploads[id]
	if u.fileID != "" || u.ended {
		t.Skip("not open")
	}
	result, err := m.e.instant(t.Context(), owner, id, content(u.content))
	if !m.try(err, upload.NotOpen) || result.Answer == nil {
		return
	}
	u.fileID = result.Answer.File.ID
	m.addFile(u.fileID, u.content)
}

func (m *model) whole(t *rapid.T) {
	n := rapid.Uint64Range(0, contents-1).Draw(t, "content")
	f, err := m.e.PutFile(t.Context(), owner, ingest.FileRequest{Name: "w"}, body(content(n)))
	if m.try(err) {
		m.addFile(f.ID, n)
	}
}

func (m *model) delete(t *rapid.T) {
	id := pick(t, m.files)
	if m.try(m.e.DeleteFile(t.Context(), owner, id)) {
		delete(m.files, id)
		for _, u := range m.uploads {
			if u.fileID == id {
				u.ended = true // complete still answers, with a file that is deleted by now
				delete(m.uploads, m.idOf(u))
			}
		}
	}
}

func (m *model) idOf(u *modelUpload) string {
	for id, other := range m.uploads {
		if other == u {
			return id
		}
	}
	return ""
}

func (m *model) transfer(*rapid.T) { m.e.transfer() }

func (m *model) janitor(t *rapid.T) {
	m.e.clock.advance(time.Duration(rapid.IntRange(0, 180).Draw(t, "minutes")) * time.Minute)
	m.try(m.e.Clean(t.Context()))
}

func (m *model) powerCut(t *rapid.T) {
	m.e.powerCut(rapid.Uint64().Draw(t, "seed"))
	m.failing = false
	for id, u := range m.uploads {
		if u.fileID != "" || u.ended {
			continue
		}
		// What is still reported must be right; what is not may be sent again.
		status, err := m.e.Status(t.Context(), owner, id)
		if err != nil {
			t.Fatalf("an open upload is gone after a power cut: %v", err)
		}
		if status.State == upload.Complete {
			m.failing = true // an earlier failing disk hid the answer
			m.foundComplete(t, id)
			m.failing = false
			continue
		}
		for i := range u.acked {
			if !status.Upload.Received.Has(i) {
				delete(u.acked, i)
			}
		}
	}
}

// failDisk makes one operation to come fail, in staging or in the store; then the node is restarted,
// as an operator would after the disk was replaced under it.
func (m *model) failDisk(t *rapid.T) {
	fs := rapid.SampledFrom([]*faultfs.FS{m.e.stagingFault, m.e.storeFault}).Draw(t, "fs")
	n := rapid.IntRange(1, 12).Draw(t, "n")
	m.failing = true
	fs.SetHook(faultfs.FailNth(n, fmt.Errorf("injected: %w", errIO), func(op faultfs.Op) bool { return true }))
	for range rapid.IntRange(1, 4).Draw(t, "operations") {
		rapid.SampledFrom([]func(*rapid.T){m.initIfFew, m.whole, m.anyChunk, m.anyComplete, m.transfer}).Draw(t, "op")(t)
	}
	fs.SetHook(nil)
	m.e.kill()
	// Failed fsyncs may have taken back chunks that were acknowledged before.
	for id, u := range m.uploads {
		if u.fileID != "" || u.ended {
			continue
		}
		status, err := m.e.Status(t.Context(), owner, id)
		if err != nil {
			t.Fatalf("an open upload is gone after a failed disk: %v", err)
		}
		if status.State == upload.Complete {
			m.foundComplete(t, id)
			continue
		}
		for i := range u.acked {
			if !status.Upload.Received.Has(i) {
				delete(u.acked, i)
			}
		}
	}
	m.failing = false
}

var errIO = errors.New("input/output error")

func (m *model) initIfFew(t *rapid.T) {
	if len(m.uploads) < 5 {
		m.init(t)
	}
}

func (m *model) anyChunk(t *rapid.T) {
	if id := m.openOne(); id != "" {
		data := content(m.uploads[id].content)
		if len(data) > 0 && m.try(m.e.PutChunk(t.Context(), owner, id, 0, body(chunk(data, 0))), upload.NotOpen) {
			m.uploads[id].acked[0] = true
		}
	}
}

func (m *model) anyComplete(t *rapid.T) {
	id := m.openOne()
	if id == "" {
		return
	}
	f, err := m.e.Complete(t.Context(), owner, id, ingest.CompleteRequest{})
	if m.try(err, upload.Incomplete) {
		m.uploads[id].fileID = f.ID
		m.addFile(f.ID, m.uploads[id].content)
	}
}

func (m *model) openOne() string {
	for _, id := range inOrder(m.uploads) {
		if u := m.uploads[id]; u.fileID == "" && !u.ended {
			return id
		}
	}
	return ""
}

// check compares the node with the model after every operation.
func (m *model) check(t *rapid.T) {
	for id, u := range m.uploads {
		if u.fileID != "" || u.ended {
			continue
		}
		status, err := m.e.Status(t.Context(), owner, id)
		if err != nil {
			t.Fatalf("status of %s: %v", id, err)
		}
		for i := range u.acked {
			if !status.Upload.Received.Has(i) && status.State == upload.Open {
				t.Fatalf("upload %s: chunk %d was acknowledged and is not in the status", id, i)
			}
		}
	}
	for id, f := range m.files {
		n := f.content
		got, err := m.e.read(id)
		if err != nil {
			t.Fatalf("file %s: %v", id, err)
		}
		if string(got) != string(content(n)) {
			t.Fatalf("file %s has other bytes (%d, want %d)", id, len(got), len(content(n)))
		}
	}
	wrong, err := m.e.db.WrongRefs(t.Context())
	if err != nil || len(wrong) > 0 {
		t.Fatalf("wrong references: %v %v", wrong, err)
	}
}

// finish ends everything and checks that nothing is left.
func (m *model) finish() {
	ctx := m.rt.Context()
	m.e.transfer()
	for id := range m.files {
		if err := m.e.DeleteFile(ctx, owner, id); err != nil {
			m.rt.Fatal(err)
		}
	}
	m.e.clock.advance(15 * 24 * time.Hour)
	for range 3 { // expire, collect
		m.e.transfer()
		if err := m.e.Clean(ctx); err != nil {
			m.rt.Fatal(err)
		}
		m.e.clock.advance(24 * time.Hour)
	}
	m.e.restart()
	if err := m.e.Sweep(ctx); err != nil {
		m.rt.Fatal(err)
	}
	if files, err := m.e.Files(ctx, meta.FileQuery{Owner: owner, Limit: 1}); err != nil || len(files.Items) > 0 {
		m.rt.Fatalf("files left: %v %v", files, err)
	}
	if blobs, err := m.e.db.Blobs(ctx, "", 10); err != nil || len(blobs) > 0 {
		m.rt.Fatalf("blobs left: %+v %v", blobs, err)
	}
	if ids, err := m.e.staging.Data(); err != nil || len(ids) > 0 {
		m.rt.Fatalf("staging data left: %v %v", ids, err)
	}
	for u := range m.e.staging.All() {
		m.rt.Fatalf("upload left: %s", u.ID)
	}
	for object, err := range m.e.local.List(ctx) {
		m.rt.Fatalf("object left: %+v %v", object, err)
	}
}
