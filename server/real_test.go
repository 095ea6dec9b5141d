package server

import (
	"bytes"
	"context"
	"crypto/sha1"
	"encoding/hex"
	"encoding/json"
	"io/fs"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"gantry/chunkstore/disk"
	"gantry/chunkstore/memory"
	"gantry/internal/vfs"
	"gantry/meta/sqldb"
	"gantry/server/ingest"
	"gantry/store"
	"gantry/store/local"
	"gantry/upload"
)

// node is a whole upload node but for its transfer worker, with a client.
type node struct {
	*testClient
	dir     string
	service *ingest.Service
	staging *disk.Staging
	db      *sqldb.DB
	store   *local.Store
	clock   *clock
	server  *Server
}

// clock is a time that tests move. Nothing happens twice at the same time.
type clock struct {
	mu  sync.Mutex
	now time.Time
}

func (c *clock) Now() time.Time {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.now = c.now.Add(time.Microsecond)
	return c.now
}

func (c *clock) advance(d time.Duration) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.now = c.now.Add(d)
}

const (
	testMaxSize = 64 << 20
	mib         = 1 << 20
)

// newNode starts a node in a directory of its own.
func newNode(t testing.TB, opt Options) *node {
	t.Helper()
	return newNodeOn(t, opt, func(fsys vfs.FS) vfs.FS { return fsys })
}

// newNodeOn is newNode with a disk for staging that is not quite the real one.
func newNodeOn(t testing.TB, opt Options, staging func(vfs.FS) vfs.FS) *node {
	t.Helper()
	n := &node{dir: t.TempDir(), clock: &clock{now: time.Now()}}
	must := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	tree := func(name string) vfs.FS {
		dir := filepath.Join(n.dir, name)
		must(os.Mkdir(dir, 0o700))
		fsys, err := vfs.OpenOS(dir)
		must(err)
		return fsys
	}
	var err error
	n.db, err = sqldb.OpenSQLite(t.Context(), filepath.Join(n.dir, "gantry.db"), sqldb.Options{Now: n.clock.Now})
	must(err)
	n.staging, err = disk.Open(staging(tree("staging")), disk.Options{Now: n.clock.Now, BootID: "test", StallAfter: 100 * time.Millisecond})
	must(err)
	n.store, err = local.Open(tree("store"), "n1")
	must(err)
	n.service = ingest.New(ingest.Options{Node: "n1", MaxSize: testMaxSize, Route: toLocal, FollowPause: time.Microsecond, MaxFollowers: 3}, ingest.Deps{
		Staging: n.staging, View: memory.New(), DB: n.db, Stores: map[string]store.Store{"local": n.store},
		Wake: func() {}, Now: n.clock.Now,
	})
	n.server = New(n.service, opt)
	n.testClient = serveHandler(t, n.server.Handler())
	t.Cleanup(func() {
		if err := n.staging.Close(); err != nil {
			t.Error(err)
		}
		if err := n.db.Close(); err != nil {
			t.Error(err)
		}
	})
	return n
}

// opened is what init answers with, as far as tests look at it.
type opened struct {
	ID        string `json:"id"`
	State     string `json:"state"`
	ChunkSize int64  `json:"chunk_size"`
	Known     string `json:"known"`
	Challenge *struct {
		ID     string  `json:"id"`
		Leaves []int64 `json:"leaves"`
	} `json:"challenge"`
	Direct *urlsJSON `json:"direct"`
}

func decodeJSON[T any](t testing.TB, text string) (v T) {
	t.Helper()
	if err := json.Unmarshal([]byte(text), &v); err != nil {
		t.Fatalf("%s: %v", text, err)
	}
	return v
}

func toJSON(v any) string {
	text, err := json.Marshal(v)
	if err != nil {
		panic(err)
	}
	return string(text)
}

type object = map[string]any

// init opens an upload.
func (n *node) init(request object, headers ...string) opened {
	n.t.Helper()
	a := n.json("POST", "/v1/uploads", toJSON(request), headers...).want(n.t, 201, "")
	o := decodeJSON[opened](n.t, a.body)
	if a.header.Get("Location") != "/v1/uploads/"+o.ID {
		n.t.Errorf("Location is %q", a.header.Get("Location"))
	}
	return o
}

// open is init for content of this size.
func (n *node) open(size int) opened {
	n.t.Helper()
	return n.init(object{"name": "a.bin", "size": size, "chunk_size": mib})
}

func (n *node) put(id string, index int, data []byte, headers ...string) answered {
	n.t.Helper()
	return n.do("PUT", "/v1/uploads/"+id+"/chunks/"+toJSON(index), bytes.NewReader(data), headers...)
}

// send uploads all chunks of data.
func (n *node) send(o opened, data []byte) {
	n.t.Helper()
	for i := 0; i*int(o.ChunkSize) < len(data); i++ {
		n.put(o.ID, i, data[i*int(o.ChunkSize):min(len(data), (i+1)*int(o.ChunkSize))]).want(n.t, 204, "")
	}
}

// store uploads data as a file in one request.
func (n *node) storeFile(name string, data []byte) fileJSON {
	n.t.Helper()
	a := n.do("POST", "/v1/files?name="+name, bytes.NewReader(data), "Content-Type: text/plain").want(n.t, 201, "")
	return decodeJSON[fileJSON](n.t, a.body)
}

// transfer does what the worker does for all files that wait: proves, stores, verifies.
func (n *node) transfer() {
	n.t.Helper()
	ctx := n.t.Context()
	ids, err := n.db.TakeDue(ctx, "n1", n.clock.Now(), time.Minute, 100)
	if err != nil {
		n.t.Fatal(err)
	}
	for _, id := range ids {
		job, err := n.db.Lease(ctx, id, "test", n.clock.Now(), n.clock.Now().Add(time.Minute))
		if err != nil {
			n.t.Fatal(err)
		}
		content, err := n.staging.Open(ctx, job.Blob.Staging)
		if err != nil {
			n.t.Fatal(err)
		}
		var tree upload.TreeHasher
		buf := make([]byte, content.Size())
		if _, err := content.ReadAt(buf, 0); err != nil && len(buf) > 0 {
			n.t.Fatal(err)
		}
		_, _ = tree.Write(buf)
		if _, err := n.db.SetRoot(ctx, id, job.Transfer.Lease.Epoch, tree.Root(), n.clock.Now()); err != nil {
			n.t.Fatal(err)
		}
		key := upload.ObjectKeyFor(&job.Blob)
		if err := n.store.Put(ctx, key, content, store.PutOptions{Progress: func(int64) {}}); err != nil {
			n.t.Fatal(err)
		}
		if err := n.db.Stored(ctx, id, job.Transfer.Lease.Epoch, "local", key, n.clock.Now()); err != nil {
			n.t.Fatal(err)
		}
		if err := content.Close(); err != nil {
			n.t.Fatal(err)
		}
	}
}

// things is what a node has: attacks must not change it.
type things struct {
	Files, Blobs, Transfers int
	Uploads                 []string
	Staging                 map[string]int64
}

func (n *node) things() things {
	n.t.Helper()
	ctx := context.Background()
	var got things
	files := decodeJSON[listJSON[fileJSON]](n.t, n.do("GET", "/v1/files?limit=1000", nil).body)
	got.Files = len(files.Items)
	blobs, err := n.db.Blobs(ctx, "", 1000)
	if err != nil {
		n.t.Fatal(err)
	}
	got.Blobs = len(blobs)
	transfers, err := n.db.Transfers(ctx, nil, 1000)
	if err != nil {
		n.t.Fatal(err)
	}
	got.Transfers = len(transfers)
	isOpen := map[string]bool{}
	for u := range n.staging.All() {
		isOpen[u.ID] = true
		got.Uploads = append(got.Uploads, u.ID+" "+toJSON(u.ReceivedBytes))
	}
	slices.Sort(got.Uploads)
	got.Staging = map[string]int64{}
	err = filepath.WalkDir(filepath.Join(n.dir, "staging"), func(path string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		// Bytes that were not acknowledged may be in a .data file; they count where no upload is open.
		info, err := d.Info()
		if err != nil {
			return err
		}
		name := filepath.Base(path)
		id, kind, _ := strings.Cut(name, ".")
		if _, open := upload.ParseUploadID(id); open && info.Size() > 0 && (kind != "data" || !isOpen[id]) {
			got.Staging[name] = info.Size()
		}
		return nil
	})
	if err != nil {
		n.t.Fatal(err)
	}
	return got
}

// unchanged fails the test if the node has other things than before.
func (n *node) unchanged(before things, what string) {
	n.t.Helper()
	if now := n.things(); toJSON(now) != toJSON(before) {
		n.t.Errorf("%s changed something:\nbefore %s\n   now %s", what, toJSON(before), toJSON(now))
	}
}

// random returns content that no other test has.
func random(size int) []byte {
	data := make([]byte, size)
	r := rand.NewChaCha8([32]byte{byte(rand.Uint32()), byte(rand.Uint32()), byte(rand.Uint32()), byte(rand.Uint32())})
	_, _ = r.Read(data)
	return data
}

func sha1Hex(data []byte) string {
	sum := sha1.Sum(data)
	return hex.EncodeToString(sum[:])
}

// toLocal sends all files to the one store there is.
func toLocal(int64, string, string) string { return "local" }
