package ingest_test

import (
	"bytes"
	"context"
	"errors"
	"net/http"
	"slices"
	"strings"
	"testing"
	"time"

	"gantry/chunkstore/memory"
	"gantry/meta"
	"gantry/server/ingest"
	objects "gantry/store/memory"
	"gantry/store/storetest"
	"gantry/upload"
)

// newDirectEngine is a node whose store takes chunks from clients.
func newDirectEngine(t *testing.T) *engine {
	t.Helper()
	e := newEngine(t)
	e.direct = storetest.NewDirect(t, objects.New())
	e.restart()
	return e
}

// ask is what a client asks for that could send the chunks by itself.
func ask(data []byte) ingest.InitRequest {
	size, chunk := int64(len(data)), upload.MinChunkSize
	return ingest.InitRequest{Name: "a", Size: &size, ChunkSize: &chunk, Direct: true}
}

func (e *engine) mustInit(r ingest.InitRequest) ingest.Opened {
	e.t.Helper()
	opened, _, err := e.Init(e.t.Context(), owner, r)
	if err != nil {
		e.t.Fatal(err)
	}
	return opened
}

// mustBeginDirect opens a direct upload of data.
func (e *engine) mustBeginDirect(data []byte) ingest.Opened {
	e.t.Helper()
	opened := e.mustInit(ask(data))
	if opened.URLs == nil || !opened.Direct {
		e.t.Fatal("the upload is not a direct one")
	}
	return opened
}

// sendTo PUTs what a client would, and returns the status.
func sendTo(t tb, address string, body []byte) int {
	t.Helper()
	r, err := http.NewRequestWithContext(t.Context(), http.MethodPut, address, bytes.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	resp, err := http.DefaultClient.Do(r)
	if err != nil {
		t.Fatal(err)
	}
	if err := resp.Body.Close(); err != nil {
		t.Fatal(err)
	}
	return resp.StatusCode
}

// mustSend sends all chunks to the store.
func (e *engine) mustSend(opened *ingest.Opened, data []byte) {
	e.t.Helper()
	for _, part := range opened.URLs.Parts {
		if status := sendTo(e.t, part.URL, chunk(data, part.Index)); status != http.StatusOK {
			e.t.Fatalf("chunk %d: the store answers %d", part.Index, status)
		}
	}
}

func (e *engine) complete(id string, sum *upload.SHA1) (upload.File, error) {
	return e.Complete(e.t.Context(), owner, id, ingest.CompleteRequest{SHA1: sum})
}

// mustUploadDirect takes data in past the node, and returns the file before anybody has read it.
func (e *engine) mustUploadDirect(data []byte) upload.File {
	e.t.Helper()
	opened := e.mustBeginDirect(data)
	e.mustSend(&opened, data)
	f, err := e.complete(opened.ID, nil)
	if err != nil {
		e.t.Fatal(err)
	}
	return f
}

// objectKeys lists the objects of the store.
func (e *engine) objectKeys() (keys []string) {
	e.t.Helper()
	for object, err := range e.direct.List(e.t.Context()) {
		if err != nil {
			e.t.Fatal(err)
		}
		keys = append(keys, object.Key)
	}
	return keys
}

// nothingLeft fails unless the store has no object and no parts once the janitor has been there.
func (e *engine) nothingLeft() {
	e.t.Helper()
	if err := e.Clean(e.t.Context()); err != nil {
		e.t.Fatal(err)
	}
	if open, keys := e.direct.OpenUploads(), e.objectKeys(); len(open)+len(keys) > 0 {
		e.t.Errorf("left in the store: uploads %v, objects %v", open, keys)
	}
	if ended, err := e.db.EndedDirect(e.t.Context(), "", 10); err != nil || len(ended) > 0 {
		e.t.Errorf("not dropped: %+v %v", ended, err)
	}
	if n, err := e.db.CountDirect(e.t.Context()); err != nil || n > 0 {
		e.t.Errorf("%d direct uploads are open, %v", n, err)
	}
}

func TestDirectUpload(t *testing.T) {
	e := newDirectEngine(t)
	data := random(1, 3<<20+5)
	opened := e.mustBeginDirect(data)
	if n := len(opened.URLs.Parts); n != 4 || opened.Upload.ChunkSize != upload.MinChunkSize || opened.Known != ingest.KnownNo {
		t.Fatalf("%d URLs, %+v", n, opened)
	}
	if !opened.URLs.ExpiresAt.Equal(e.clock.now().Add(time.Hour)) {
		t.Errorf("the URLs expire at %v", opened.URLs.ExpiresAt)
	}
	for _, i := range []int{3, 1} {
		sendTo(t, opened.URLs.Parts[i].URL, chunk(data, i))
	}
	status, err := e.Status(t.Context(), owner, opened.ID)
	if err != nil {
		t.Fatal(err)
	}
	u := &status.Upload
	if want := []upload.Range{{First: 0, Last: 0}, {First: 2, Last: 2}}; !slices.Equal(u.Missing(), want) || u.ReceivedBytes != 1<<20+5 || !status.Direct {
		t.Errorf("missing %v, received %d bytes, %+v", u.Missing(), u.ReceivedBytes, status)
	}
	e.restart() // nothing of it is in this process
	e.mustSend(&opened, data)
	f, err := e.complete(opened.ID, nil)
	if err != nil {
		t.Fatal(err)
	}
	if !f.SHA1.IsZero() || !f.Stored || f.Size != int64(len(data)) {
		t.Errorf("before it was read: %+v", f)
	}
	e.mustRead(f.ID, data)
	var notes []ingest.Finding
	if err := e.Examine(t.Context(), ingest.ExamineOptions{Deep: true}, func(f ingest.Finding) { notes = append(notes, f) }); err != nil {
		t.Fatal(err)
	}
	if len(notes) != 1 || !notes[0].Note || notes[0].ID != f.BlobID {
		t.Errorf("the doctor: %+v", notes)
	}
	again, err := e.complete(opened.ID, nil)
	if err != nil || again.ID != f.ID {
		t.Errorf("completed again: %+v %v", again, err)
	}

	e.transfer()
	f, err = e.File(t.Context(), owner, f.ID)
	if err != nil || f.SHA1 != upload.SumSHA1(data) || f.Transfer.State != upload.TransferStored {
		t.Errorf("after it was read: %+v %v", f, err)
	}
	blob, err := e.db.Blob(t.Context(), f.BlobID)
	if err != nil || blob.Root != storetest.DigestsOf(data).Root || blob.CRC32C != storetest.DigestsOf(data).CRC32C || blob.Hint != upload.SumSHA1(data[:upload.HintLength]) {
		t.Errorf("blob %+v %v", blob, err)
	}
	e.mustRead(f.ID, data)
	e.examine()
	if ids, err := e.staging.Data(); err != nil || len(ids) > 0 || e.staging.Health().Open > 0 {
		t.Errorf("in staging: %v %v", ids, err)
	}

	// The same content by way of the node becomes the same blob.
	g := e.mustUpload(data)
	e.transfer()
	if g, err = e.File(t.Context(), owner, g.ID); err != nil || g.BlobID != f.BlobID {
		t.Errorf("the same content again: %+v %v", g, err)
	}
	for _, id := range []string{f.ID, g.ID} {
		if err := e.DeleteFile(t.Context(), owner, id); err != nil {
			t.Fatal(err)
		}
	}
	e.clock.advance(2 * time.Hour)
	e.nothingLeft()
}

// Where it cannot be, the upload is an ordinary one.
func TestDirectUploadThatCannotBe(t *testing.T) {
	e := newDirectEngine(t)
	data := random(2, 2<<20)
	size, none := int64(len(data)), int64(0)
	is := func(what string, want bool, r ingest.InitRequest) {
		t.Helper()
		opened, _, err := e.Init(t.Context(), owner, r)
		if err != nil || opened.Direct != want || (opened.URLs != nil) != want {
			t.Errorf("%s: direct %v, %v", what, opened.Direct, err)
		}
	}
	is("asked for", true, ask(data))
	is("not asked for", false, ingest.InitRequest{Name: "a", Size: &size})
	is("of unknown size", false, ingest.InitRequest{Name: "a", Direct: true})
	is("of nothing", false, ingest.InitRequest{Name: "a", Size: &none, Direct: true})
	e.direct.Hook(func(op string) error {
		if op == "Create" {
			return upload.Errorf(upload.Unavailable, op, "", "The store is away.")
		}
		return nil
	})
	is("with the store away", false, ask(data))
	e.direct.Hook(nil)
	e.Service = ingest.New(ingest.Options{Node: "n1", Route: toLocal, Direct: true}, e.Deps)
	is("in a store that cannot", false, ask(data))
	e.Service = ingest.New(ingest.Options{Node: "n1", Route: func(int64, string, string) string { return "bucket" }}, e.Deps)
	is("switched off", false, ask(data))
}

func TestPartSizes(t *testing.T) {
	e := newDirectEngine(t)
	for _, c := range []struct{ size, wish, least, want int64 }{
		{1, 0, 1 << 20, 8 << 20},
		{100 << 20, 1, 1 << 20, 1 << 20},
		{100 << 20, 1, 5 << 20, 8 << 20},
		{100 << 20, 100 << 20, 5 << 20, 64 << 20},
		{100_000 << 20, 0, 5 << 20, 16 << 20},
	} {
		e.direct.Least = c.least
		r := ingest.InitRequest{Name: "a", Size: &c.size, Direct: true}
		if c.wish > 0 {
			r.ChunkSize = &c.wish
		}
		opened := e.mustInit(r)
		if opened.Upload.ChunkSize != c.want || !opened.Direct || len(opened.URLs.Parts) != min(100, opened.Upload.Layout().Count()) {
			t.Errorf("%+v: parts of %d bytes, %d URLs", c, opened.Upload.ChunkSize, len(opened.URLs.Parts))
		}
	}
}

func TestURLs(t *testing.T) {
	e := newDirectEngine(t)
	ctx, data := t.Context(), random(3, 3<<20)
	opened := e.mustBeginDirect(data)
	for _, c := range []struct {
		first, count int
		want         []int
		kind         upload.Kind
	}{
		{0, 1, []int{0}, 0},
		{1, 100, []int{1, 2}, 0},
		{2, 1, []int{2}, 0},
		{3, 1, nil, upload.InvalidIndex},
		{-1, 1, nil, upload.InvalidIndex},
	} {
		urls, err := e.URLs(ctx, owner, opened.ID, c.first, c.count)
		var got []int
		for _, part := range urls.Parts {
			got = append(got, part.Index)
		}
		if !slices.Equal(got, c.want) || err != nil && upload.KindOf(err) != c.kind {
			t.Errorf("%+v: %v %v", c, got, err)
		}
	}
	// A URL is for one chunk of one upload.
	address := strings.Replace(opened.URLs.Parts[0].URL, "number=1", "number=2", 1)
	if status := sendTo(t, address, chunk(data, 1)); status != http.StatusForbidden {
		t.Errorf("a URL that was changed: %d", status)
	}
	ordinary := e.mustBegin(data)
	if _, err := e.URLs(ctx, owner, ordinary, 0, 1); !errors.Is(err, upload.Conflict) {
		t.Errorf("URLs of an ordinary upload: %v", err)
	}
	if err := e.PutChunk(ctx, owner, opened.ID, 0, body(chunk(data, 0))); !errors.Is(err, upload.DirectUpload) {
		t.Errorf("a chunk sent to the node: %v", err)
	}
	if p, err := e.Prefix(ctx, owner, opened.ID); err != nil || p.Content.Size() != 0 {
		t.Errorf("what is here of it: %+v %v", p, err)
	}
	if err := e.Cancel(ctx, owner, opened.ID); err != nil {
		t.Fatal(err)
	}
	if _, err := e.URLs(ctx, owner, opened.ID, 0, 1); !errors.Is(err, upload.NotOpen) {
		t.Errorf("URLs of a cancelled upload: %v", err)
	}
	if status := sendTo(t, opened.URLs.Parts[0].URL, chunk(data, 0)); status != http.StatusNotFound {
		t.Errorf("a chunk of a cancelled upload: %d", status)
	}
}

// Whoever else asks is told what they are of an id that was never given.
func TestOthersSeeNothingOfADirectUpload(t *testing.T) {
	e := newDirectEngine(t)
	ctx, data := t.Context(), random(4, 2<<20)
	opened := e.mustBeginDirect(data)
	e.mustSend(&opened, data)
	const mallory = "mallory"
	for call, do := range map[string]func() error{
		"urls":     func() error { _, err := e.URLs(ctx, mallory, opened.ID, 0, 1); return err },
		"chunk":    func() error { return e.PutChunk(ctx, mallory, opened.ID, 0, body(chunk(data, 0))) },
		"status":   func() error { _, err := e.Status(ctx, mallory, opened.ID); return err },
		"complete": func() error { _, err := e.Complete(ctx, mallory, opened.ID, ingest.CompleteRequest{}); return err },
		"cancel":   func() error { return e.Cancel(ctx, mallory, opened.ID) },
		"prefix":   func() error { _, err := e.Prefix(ctx, mallory, opened.ID); return err },
		"instant": func() error {
			_, err := e.Instant(ctx, mallory, opened.ID, ingest.InstantRequest{SHA1: upload.SumSHA1(data)})
			return err
		},
	} {
		if err := do(); !errors.Is(err, upload.NotFound) {
			t.Errorf("%s: %v", call, err)
		}
	}
	if page, err := e.Uploads(ctx, mallory, "", 10); err != nil || len(page.Items) > 0 {
		t.Errorf("listed: %+v %v", page, err)
	}
	r := ask(data)
	r.Key = "k"
	mine := e.mustInit(r)
	theirs, again, err := e.Init(ctx, mallory, r)
	if err != nil || again || theirs.ID == mine.ID {
		t.Errorf("the same key of another owner: %s %v %v", theirs.ID, again, err)
	}
}

func TestDirectUploadsAreListed(t *testing.T) {
	e := newDirectEngine(t)
	data := random(5, 1<<20)
	var want []string
	for i := range 8 {
		if i%2 == 0 {
			want = append(want, e.mustBegin(data))
		} else {
			want = append(want, e.mustBeginDirect(data).ID)
		}
	}
	slices.Sort(want)
	var got []string
	for after := ""; ; after = got[len(got)-1] {
		page, err := e.Uploads(t.Context(), owner, after, 3)
		if err != nil {
			t.Fatal(err)
		}
		for i := range page.Items {
			got = append(got, page.Items[i].ID)
		}
		if !page.More {
			break
		}
	}
	if !slices.Equal(got, want) {
		t.Errorf("listed %v\nwant   %v", got, want)
	}
}

func TestOpenDirectUploadsAreBounded(t *testing.T) {
	e := newDirectEngine(t)
	e.most = 2
	e.restart()
	data := random(6, 1<<20)
	first := e.mustBeginDirect(data)
	e.mustBeginDirect(data)
	if _, _, err := e.Init(t.Context(), owner, ask(data)); !errors.Is(err, upload.TooMany) {
		t.Errorf("a third: %v", err)
	}
	if err := e.Cancel(t.Context(), owner, first.ID); err != nil {
		t.Fatal(err)
	}
	e.mustBeginDirect(data)
}

func TestDirectUploadByKey(t *testing.T) {
	view := memory.New()
	e := newDirectEngine(t)
	e.view = view
	e.restart()
	other := sharing(t, "n2", view, e)
	other.direct = e.direct
	other.restart()
	data := random(7, 2<<20)
	r := ask(data)
	r.Key = "k"
	first := e.mustInit(r)
	for _, node := range []*engine{e, other} {
		again, repeated, err := node.Init(t.Context(), owner, r)
		if err != nil || !repeated || again.ID != first.ID || again.URLs == nil {
			t.Errorf("on node %s: %+v %v %v", node.node, again, repeated, err)
		}
	}
	if n := len(e.direct.OpenUploads()); n != 1 {
		t.Errorf("%d uploads in the store", n)
	}
	reused := func(when string) {
		t.Helper()
		named, ordinary := r, r
		named.Name, ordinary.Direct = "another", false
		for _, other := range []ingest.InitRequest{named, ordinary} {
			if _, _, err := e.Init(t.Context(), owner, other); !errors.Is(err, upload.KeyReused) {
				t.Errorf("the key with another request %s: %v", when, err)
			}
		}
		if _, err := e.PutFile(t.Context(), owner, ingest.FileRequest{Name: "a", Key: "k"}, body(data)); !errors.Is(err, upload.KeyReused) {
			t.Errorf("the key with a whole file %s: %v", when, err)
		}
	}
	reused("while it is open")
	// Any node knows it, and whichever completes it, there is one file.
	if _, err := other.Status(t.Context(), owner, first.ID); err != nil {
		t.Error(err)
	}
	e.mustSend(&first, data)
	f, err := e.complete(first.ID, nil)
	if err != nil {
		t.Fatal(err)
	}
	for _, node := range []*engine{e, other} {
		again, repeated, err := node.Init(t.Context(), owner, r)
		if err != nil || !repeated || again.State != upload.Complete || again.Answer.File.ID != f.ID {
			t.Errorf("completed, on node %s: %+v %v %v", node.node, again, repeated, err)
		}
	}
	reused("after complete")
}

// Two nodes that are asked at once with one key begin one upload.
func TestDirectUploadByKeyOnTwoNodesAtOnce(t *testing.T) {
	view := memory.New()
	e := newDirectEngine(t)
	e.view = view
	e.restart()
	other := sharing(t, "n2", view, e)
	other.direct = e.direct
	other.restart()
	data := random(11, 2<<20)
	r := ask(data)
	r.Key = "k"
	var first ingest.Opened
	e.direct.Hook(func(op string) (err error) {
		if op == "Create done" { // before its row is there
			e.direct.Hook(nil)
			first, _, err = other.Init(context.Background(), owner, r)
		}
		return err
	})
	second, repeated, err := e.Init(t.Context(), owner, r)
	if err != nil || !repeated || second.ID != first.ID || second.URLs == nil {
		t.Errorf("%+v %v %v, first was %s", second, repeated, err, first.ID)
	}
	if n := len(e.direct.OpenUploads()); n != 1 {
		t.Errorf("%d uploads in the store", n)
	}
	e.mustSend(&second, data)
	if _, err := e.complete(second.ID, nil); err != nil {
		t.Error(err)
	}
}

func TestDirectUploadIsInstant(t *testing.T) {
	e := newDirectEngine(t)
	ctx, data := t.Context(), random(8, 2<<20+1)
	f := e.mustUploadDirect(data)
	sum := upload.SumSHA1(data)
	r := ask(data)
	r.SHA1 = &sum
	opened := e.mustInit(r)
	if opened.Challenge == nil {
		t.Fatal("no challenge")
	}
	// Nobody has read the bytes: they are offered to nobody, not to their owner either.
	got, err := e.Instant(ctx, owner, opened.ID, ingest.InstantRequest{SHA1: sum, Proof: prove(t, opened.Challenge, data)})
	if err != nil || got.Answer != nil {
		t.Errorf("before it was read: %+v %v", got, err)
	}
	e.transfer()
	got, err = e.instant(ctx, owner, opened.ID, data)
	if err != nil || got.Answer == nil || got.Answer.File.BlobID != f.BlobID {
		t.Fatalf("after it was read: %+v %v", got, err)
	}
	if n := len(e.direct.OpenUploads()); n != 0 {
		t.Errorf("%d uploads left in the store", n)
	}
	if again, err := e.complete(opened.ID, nil); err != nil || again.ID != got.Answer.File.ID {
		t.Errorf("completed: %+v %v", again, err)
	}
	for _, id := range []string{f.ID, got.Answer.File.ID} {
		if err := e.DeleteFile(ctx, owner, id); err != nil {
			t.Fatal(err)
		}
	}
	e.clock.advance(2 * time.Hour)
	e.nothingLeft()
}

// What is not what its client has announced is told to be lost, and is never offered.
func TestDirectUploadIsNotWhatWasAnnounced(t *testing.T) {
	e := newDirectEngine(t)
	ctx, data := t.Context(), random(9, 2<<20)
	wrong, other := upload.SumSHA1([]byte("x")), upload.SumSHA1([]byte("y"))

	// Announced twice, and differently.
	r := ask(data)
	r.SHA1 = &wrong
	opened := e.mustInit(r)
	e.mustSend(&opened, data)
	for range 2 {
		_, err := e.complete(opened.ID, &other)
		if e, ok := errors.AsType[*upload.Error](err); !ok || e.Kind != upload.DigestMismatch || e.Want != wrong.String() || e.Got != other.String() {
			t.Errorf("announced differently: %v", err)
		}
	}
	e.nothingLeft()

	opened = e.mustBeginDirect(data)
	e.mustSend(&opened, data)
	f, err := e.complete(opened.ID, &wrong)
	if err != nil || f.SHA1 != wrong {
		t.Fatalf("%+v %v", f, err)
	}
	e.transfer()
	if f, err = e.File(ctx, owner, f.ID); err != nil || !f.Lost || f.Transfer.State != upload.TransferDead || !strings.Contains(f.Transfer.LastError, upload.SumSHA1(data).String()) {
		t.Errorf("%+v %v", f, err)
	}
	if _, err := e.Content(ctx, owner, f.ID); !errors.Is(err, upload.Gone) || !strings.Contains(err.Error(), "announced") {
		t.Errorf("its content: %v", err)
	}
	for _, sum := range []upload.SHA1{wrong, upload.SumSHA1(data)} {
		if _, err := e.db.FindContent(ctx, meta.ScopeGlobal, owner, sum, f.Size); !errors.Is(err, upload.NotFound) {
			t.Errorf("offered: %v", err)
		}
	}
	e.examine()
	if err := e.DeleteFile(ctx, owner, f.ID); err != nil {
		t.Fatal(err)
	}
	e.clock.advance(2 * time.Hour)
	e.nothingLeft()
}

func TestDirectCompleteSize(t *testing.T) {
	e := newDirectEngine(t)
	data := random(10, 2<<20)
	opened := e.mustBeginDirect(data)
	e.mustSend(&opened, data)
	complete := func(size int64) error {
		_, err := e.Complete(context.Background(), owner, opened.ID, ingest.CompleteRequest{Size: &size})
		return err
	}
	if err := complete(1); !errors.Is(err, upload.InvalidSize) {
		t.Errorf("another size than was announced: %v", err)
	}
	if err := complete(int64(len(data))); err != nil {
		t.Error(err)
	}
}
