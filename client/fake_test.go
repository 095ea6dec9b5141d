package client

import (
	"bytes"
	"encoding/base64"
	"encoding/binary"
	"encoding/json"
	"fmt"
	"hash/crc32"
	"io"
	"maps"
	"net/http"
	"net/http/httptest"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"go.uber.org/goleak"

	"gantry/upload"
)

// database/sql ends this goroutine some time after Close.
func TestMain(m *testing.M) {
	goleak.VerifyTestMain(m, goleak.IgnoreTopFunction("database/sql.(*DB).connectionOpener"))
}

// fake is a server that keeps everything in memory, and does what a test tells it to do wrong. The
// end-to-end tests of cmd/gantry use the real one.
type fake struct {
	*httptest.Server
	t *testing.T

	mu      sync.Mutex
	uploads map[string]*fakeUpload
	keys    map[string]string // Idempotency-Key → upload id
	files   map[string]*fakeFile
	known   map[upload.SHA1]*upload.Tree // content that instant upload finds
	maybe   bool                         // init answers "maybe"
	chunk   int64
	next    int
	calls   map[string]int // by "METHOD kind"

	// fault is asked before each request; when it returns true it has answered.
	fault func(w http.ResponseWriter, r *http.Request, kind string, n int) bool
}

type fakeUpload struct {
	id, name, path string
	size           int64
	chunks         map[int][]byte
	state          upload.State
	file           *fakeFile
	challenge      *upload.Challenge
}

type fakeFile struct {
	File
	content []byte
}

func newFake(t *testing.T) *fake {
	t.Helper()
	f := &fake{
		t: t, uploads: map[string]*fakeUpload{}, keys: map[string]string{}, files: map[string]*fakeFile{},
		known: map[upload.SHA1]*upload.Tree{}, chunk: upload.MinChunkSize, calls: map[string]int{},
	}
	f.Server = httptest.NewServer(f)
	t.Cleanup(f.Close)
	return f
}

// client returns a client whose delays are short.
func (f *fake) client(change func(*Options)) *Client {
	f.t.Helper()
	opt := Options{BaseURL: f.URL, RetryFor: time.Minute, StallTimeout: 10 * time.Second}
	if change != nil {
		change(&opt)
	}
	c, err := New(opt)
	if err != nil {
		f.t.Fatal(err)
	}
	c.minDelay, c.maxDelay = 2*time.Millisecond, 20*time.Millisecond
	f.t.Cleanup(c.Close)
	return c
}

// heal ends the faults, also while a request is still under way.
func (f *fake) heal() {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.fault = nil
}

// kept counts the files and uploads that the fake has.
func (f *fake) kept() (files, uploads int) {
	f.mu.Lock()
	defer f.mu.Unlock()
	return len(f.files), len(f.uploads)
}

func (f *fake) count(kind string) int {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.calls[kind]
}

func refuse(w http.ResponseWriter, status int, kind upload.Kind, extra map[string]any) {
	doc := map[string]any{"title": "T", "detail": "The detail.", "code": kind.Code(), "status": status, "request_id": "r1"}
	maps.Copy(doc, extra)
	w.Header().Set("Content-Type", "application/problem+json")
	w.WriteHeader(status)
	_ = json.NewEncoder(w).Encode(doc)
}

func answer(w http.ResponseWriter, status int, v any) {
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(status)
	_ = json.NewEncoder(w).Encode(v)
}

func kindOfCall(r *http.Request) string {
	parts := strings.Split(strings.Trim(r.URL.Path, "/"), "/")
	switch {
	case len(parts) == 5 && parts[3] == "chunks":
		return "chunk"
	case len(parts) == 4:
		return parts[3]
	case len(parts) == 3:
		return strings.TrimSuffix(parts[1], "s") + " " + r.Method
	}
	return parts[len(parts)-1] + " " + r.Method
}

func (f *fake) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	kind := kindOfCall(r)
	f.mu.Lock()
	f.calls[kind]++
	n, fault := f.calls[kind], f.fault
	f.mu.Unlock()
	if fault != nil && fault(w, r, kind, n) {
		return
	}
	f.serve(w, r, kind)
}

func (f *fake) serve(w http.ResponseWriter, r *http.Request, kind string) {
	body, err := io.ReadAll(r.Body)
	if err != nil {
		return // the client went away
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	id := ""
	if parts := strings.Split(r.URL.Path, "/"); len(parts) > 3 {
		id = parts[3]
	}
	switch kind {
	case "uploads POST":
		f.init(w, r, body)
	case "files POST":
		f.whole(w, r, body)
	case "file GET", "content":
		f.read(w, r, kind, id)
	default:
		u := f.uploads[id]
		if u == nil {
			refuse(w, 404, upload.NotFound, nil)
			return
		}
		f.onUpload(w, r, kind, u, body)
	}
}

func (f *fake) init(w http.ResponseWriter, r *http.Request, body []byte) {
	key := r.Header.Get("Idempotency-Key")
	var in InitRequest
	if err := json.Unmarshal(body, &in); err != nil {
		refuse(w, 400, upload.Invalid, nil)
		return
	}
	u := f.uploads[f.keys[key]]
	if u == nil || key == "" {
		f.next++
		u = &fakeUpload{id: fmt.Sprintf("n-%d", f.next), name: in.Name, path: in.Path, size: -1, chunks: map[int][]byte{}, state: upload.Open}
		if in.Size != nil {
			u.size = *in.Size
		}
		f.uploads[u.id] = u
		f.keys[key] = u.id
	}
	view := f.view(u)
	view.Known = KnownNo
	if f.maybe && in.Hint != nil {
		view.Known = KnownMaybe
	}
	answer(w, 201, view)
}

func (f *fake) view(u *fakeUpload) Upload {
	v := Upload{ID: u.id, State: u.state, Name: u.name, ChunkSize: f.chunk}
	if u.file != nil {
		v.File = &u.file.File
		return v
	}
	set := upload.ChunkSet{}
	for i, b := range u.chunks {
		set.Add(i)
		v.ReceivedBytes += int64(len(b))
	}
	if u.size >= 0 {
		v.Size = &u.size
		v.Missing = set.Missing(upload.Layout{Size: u.size, ChunkSize: f.chunk}.Count())
	}
	return v
}

func digestOf(b []byte) string {
	return "crc32c=:" + base64.StdEncoding.EncodeToString(binary.BigEndian.AppendUint32(nil, crc32.Checksum(b, upload.Castagnoli))) + ":"
}

func (f *fake) onUpload(w http.ResponseWriter, r *http.Request, kind string, u *fakeUpload, body []byte) {
	switch u.state {
	case upload.Complete, upload.Open:
	default:
		refuse(w, 410, upload.Gone, map[string]any{"state": u.state})
		return
	}
	switch kind {
	case "upload GET":
		answer(w, 200, f.view(u))
	case "upload DELETE":
		u.state = upload.Cancelled
		w.WriteHeader(204)
	case "chunk":
		if r.Header.Get("Content-Digest") != digestOf(body) {
			refuse(w, 422, upload.DigestMismatch, nil)
			return
		}
		i, _ := strconv.Atoi(r.URL.Path[strings.LastIndex(r.URL.Path, "/")+1:])
		if old, ok := u.chunks[i]; ok && !bytes.Equal(old, body) {
			refuse(w, 409, upload.ChunkConflict, nil)
			return
		}
		u.chunks[i] = body
		w.WriteHeader(204)
	case "instant":
		f.instant(w, u, body)
	case "complete":
		f.complete(w, u, body)
	}
}

func (f *fake) instant(w http.ResponseWriter, u *fakeUpload, body []byte) {
	var in struct {
		SHA1  upload.SHA1   `json:"sha1"`
		Proof *upload.Proof `json:"proof"`
	}
	if err := json.Unmarshal(body, &in); err != nil {
		refuse(w, 400, upload.Invalid, nil)
		return
	}
	if in.Proof == nil {
		c := upload.NewChallenge(u.size, [32]byte{}, time.Now())
		if tree := f.known[in.SHA1]; tree != nil {
			c.BlobID, c.Root = "blob", tree.Root
		}
		u.challenge = &c
		answer(w, 200, map[string]any{"status": "challenge", "challenge": c})
		return
	}
	if u.challenge == nil || !in.Proof.Satisfies(u.challenge) {
		answer(w, 200, map[string]any{"status": "continue"})
		return
	}
	f.finish(u, nil, in.SHA1)
	answer(w, 200, map[string]any{"status": "complete", "instant": true, "file": u.file.File})
}

func (f *fake) finish(u *fakeUpload, content []byte, sum upload.SHA1) {
	f.next++
	u.file = &fakeFile{File{ID: fmt.Sprintf("f%d", f.next), Name: u.name, Path: u.path, Size: u.size, SHA1: sum}, content}
	u.state = upload.Complete
	f.files[u.file.ID] = u.file
}

func (f *fake) complete(w http.ResponseWriter, u *fakeUpload, body []byte) {
	if u.file != nil {
		answer(w, 201, u.file.File)
		return
	}
	var in struct {
		SHA1 *upload.SHA1 `json:"sha1"`
		Size *int64       `json:"size"`
	}
	if err := json.Unmarshal(body, &in); err != nil {
		refuse(w, 400, upload.Invalid, nil)
		return
	}
	if in.Size != nil {
		u.size = *in.Size
	}
	if missing := f.view(u).Missing; len(missing) > 0 {
		refuse(w, 409, upload.Incomplete, map[string]any{"missing": missing})
		return
	}
	var content []byte
	for i := range len(u.chunks) {
		content = append(content, u.chunks[i]...)
	}
	sum := upload.SumSHA1(content)
	if in.SHA1 != nil && *in.SHA1 != sum {
		u.state = upload.Rejected
		refuse(w, 422, upload.DigestMismatch, map[string]any{"expected": in.SHA1, "actual": sum})
		return
	}
	f.finish(u, content, sum)
	answer(w, 201, u.file.File)
}

func (f *fake) whole(w http.ResponseWriter, r *http.Request, body []byte) {
	sum := upload.SumSHA1(body)
	if r.Header.Get("Content-Digest") != digestOf(body) || r.URL.Query().Get("sha1") != sum.String() || r.ContentLength != int64(len(body)) {
		refuse(w, 422, upload.DigestMismatch, nil)
		return
	}
	key := r.Header.Get("Idempotency-Key")
	u := f.uploads[f.keys[key]]
	if u == nil || key == "" {
		f.next++
		u = &fakeUpload{id: fmt.Sprintf("n-%d", f.next), name: r.URL.Query().Get("name"), path: r.URL.Query().Get("path"), size: int64(len(body))}
		f.uploads[u.id], f.keys[key] = u, u.id
		f.finish(u, body, sum)
	}
	answer(w, 201, u.file.File)
}

func (f *fake) read(w http.ResponseWriter, r *http.Request, kind, id string) {
	file := f.files[id]
	if file == nil {
		refuse(w, 404, upload.NotFound, nil)
		return
	}
	if kind == "file GET" {
		answer(w, 200, file.File)
		return
	}
	http.ServeContent(w, r, "", time.Time{}, bytes.NewReader(file.content))
}

// only returns the one file that the fake has, with its content.
func (f *fake) only() *fakeFile {
	f.t.Helper()
	f.mu.Lock()
	defer f.mu.Unlock()
	if len(f.files) != 1 {
		f.t.Fatalf("%d files, want 1", len(f.files))
	}
	for _, file := range f.files {
		return file
	}
	return nil
}
