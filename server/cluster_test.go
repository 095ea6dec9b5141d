package server

import (
	"bytes"
	"context"
	"encoding/base64"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"gantry/chunkstore"
	"gantry/chunkstore/disk"
	"gantry/chunkstore/memory"
	"gantry/internal/vfs"
	"gantry/meta/sqldb"
	"gantry/server/forward"
	"gantry/server/ingest"
	"gantry/store"
	"gantry/store/local"
	objects "gantry/store/memory"
	"gantry/store/storetest"
	"gantry/upload"
)

// addresses is where nodes are, as a registry would say.
type addresses struct {
	mu    sync.Mutex
	of    map[string]string
	given map[string]bool // up
}

func (a *addresses) Address(_ context.Context, node string) (*url.URL, error) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.given[node] {
		return nil, upload.Errorf(upload.Gone, "", node, "The node was given up. Upload the file again.")
	}
	address, ok := a.of[node]
	if !ok {
		return nil, upload.Errorf(upload.NotFound, "", node, "There is no such upload. Begin a new one.")
	}
	return url.Parse(address)
}

func (a *addresses) set(node, address string) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.of[node] = address
}

// crcDigest is a chunk's Content-Digest.
func crcDigest(data []byte) string {
	sum := binary.BigEndian.AppendUint32(nil, crc32.Checksum(data, upload.Castagnoli))
	return "Content-Digest: crc32c=:" + base64.StdEncoding.EncodeToString(sum) + ":"
}

const testSecret = "a secret that all nodes of the test share"

// newCluster starts nodes "n0", "n1" … on one database and one store, each with its own staging.
func newCluster(t testing.TB, n int, change func(node string, o *forward.Options)) ([]*node, *addresses) {
	t.Helper()
	dir := t.TempDir()
	must := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	tree := func(name string) vfs.FS {
		must(os.MkdirAll(filepath.Join(dir, name), 0o700))
		fsys, err := vfs.OpenOS(filepath.Join(dir, name))
		must(err)
		return fsys
	}
	peers := &addresses{of: map[string]string{}, given: map[string]bool{}}
	view := memory.New()
	stored, err := local.Open(tree("store"), "n1")
	must(err)
	bucket := storetest.NewDirect(t, objects.New())
	nodes := make([]*node, n)
	for i := range nodes {
		id := fmt.Sprintf("n%d", i)
		n := &node{dir: dir, clock: &clock{now: time.Now()}, store: stored}
		n.db, err = sqldb.OpenSQLite(t.Context(), filepath.Join(dir, "gantry.db"), sqldb.Options{Now: n.clock.Now})
		must(err)
		n.staging, err = disk.Open(tree(id), disk.Options{Now: n.clock.Now, BootID: "test"})
		must(err)
		toDirect := func(_ int64, contentType, _ string) string {
			return map[bool]string{true: "bucket", false: "local"}[contentType == "direct/test"]
		}
		n.service = ingest.New(ingest.Options{Node: id, MaxSize: testMaxSize, Route: toDirect, Direct: true, FollowPause: time.Microsecond}, ingest.Deps{
			Staging: n.staging, View: view, DB: n.db, Stores: map[string]store.Store{"local": stored, "bucket": bucket},
			Wake: func() {}, Now: n.clock.Now,
		})
		opt := forward.Options{Node: id, Secret: []byte(testSecret), Now: n.clock.Now}
		if change != nil {
			change(id, &opt)
		}
		f := forward.New(opt, peers)
		n.server = New(n.service, Options{Node: id, Forward: f})
		n.testClient = serveHandler(t, n.server.Handler())
		peers.set(id, n.url)
		nodes[i] = n
		t.Cleanup(func() {
			f.Close()
			if err := errors.Join(n.staging.Close(), n.db.Close()); err != nil {
				t.Error(err)
			}
		})
	}
	return nodes, peers
}

// Any node takes any request: chunks of one upload go to all nodes at random, status is the same
// everywhere, and so is the file.
func TestAnyChunkToAnyNode(t *testing.T) {
	t.Parallel()
	nodes, _ := newCluster(t, 3, nil)
	data := random(5*mib + 17)
	o := nodes[0].init(object{"name": "a", "size": len(data), "chunk_size": mib})
	chunks := (len(data) + mib - 1) / mib
	for i := range chunks {
		part := data[i*mib : min((i+1)*mib, len(data))]
		n := nodes[i%3]
		n.do("PUT", fmt.Sprintf("/v1/uploads/%s/chunks/%d", o.ID, i), bytes.NewReader(part), crcDigest(part)).want(t, 204, "")
		n.do("PUT", fmt.Sprintf("/v1/uploads/%s/chunks/%d", o.ID, i), bytes.NewReader(part)).want(t, 204, "") // again
		for _, other := range nodes {
			a := other.do("GET", "/v1/uploads/"+o.ID, nil).want(t, 200, "")
			if !strings.Contains(a.body, fmt.Sprintf(`"received_chunks":%d,`, i+1)) {
				t.Errorf("after chunk %d: %s", i, a.body)
			}
		}
	}
	nodes[1].do("PUT", fmt.Sprintf("/v1/uploads/%s/chunks/0", o.ID), bytes.NewReader(random(mib))).want(t, 409, "chunk_conflict")
	first := nodes[2].json("POST", "/v1/uploads/"+o.ID+"/complete", `{"sha1":"`+sha1Hex(data)+`"}`).want(t, 201, "")
	for _, n := range nodes {
		if again := n.json("POST", "/v1/uploads/"+o.ID+"/complete", `{}`).want(t, 201, ""); again.body != first.body {
			t.Errorf("complete again:\n%s\nbefore\n%s", again.body, first.body)
		}
	}
	f := decodeJSON[fileJSON](t, first.body)
	for _, n := range nodes {
		if a := n.do("GET", "/v1/files/"+f.ID+"/content", nil).want(t, 200, ""); a.body != string(data) {
			t.Error("other bytes came back")
		} else if got := a.header["Cache-Control"]; len(got) != 1 || got[0] != "private, no-cache" {
			t.Errorf("Cache-Control %q", got)
		}
		if a := n.do("GET", "/v1/files/"+f.ID+"/content", nil, "Range: bytes=1048570-1048580").want(t, 206, ""); a.body != string(data[1048570:1048581]) {
			t.Error("other bytes came back for a range")
		}
		n.do("HEAD", "/v1/files/"+f.ID+"/content", nil).want(t, 200, "")
	}
	second := nodes[0].init(object{"name": "b", "size": mib})
	nodes[1].do("DELETE", "/v1/uploads/"+second.ID, nil).want(t, 204, "")
	nodes[2].do("GET", "/v1/uploads/"+second.ID, nil).want(t, 410, "gone")
}

// A direct upload can be gone on with through any node.
func TestDirectUploadOnAnyNode(t *testing.T) {
	t.Parallel()
	nodes, _ := newCluster(t, 3, nil)
	data := random(3*mib + 1)
	request := object{"name": "a", "size": len(data), "chunk_size": mib, "direct": true, "content_type": "direct/test"}
	o := nodes[0].init(request, "Idempotency-Key: k")
	if again := nodes[1].init(request, "Idempotency-Key: k"); again.ID != o.ID || again.Direct == nil {
		t.Errorf("begun again on another node: %+v", again)
	}
	path := "/v1/uploads/" + o.ID
	for i, n := range nodes {
		urls := decodeJSON[urlsJSON](t, n.do("GET", fmt.Sprintf("%s/urls?first=%d&count=1", path, i), nil).want(t, 200, "").body)
		n.sendDirect(o, urls.URLs, data)
		if a := n.do("GET", path, nil).want(t, 200, ""); !strings.Contains(a.body, fmt.Sprintf(`"received_chunks":%d,`, i+1)) {
			t.Errorf("after chunk %d: %s", i, a.body)
		}
		n.put(o.ID, i, data[:mib]).want(t, 409, "direct_upload")
	}
	nodes[1].do("POST", path+"/complete", nil).want(t, 409, "incomplete")
	nodes[2].sendDirect(o, o.Direct.URLs[3:], data)
	first := nodes[2].do("POST", path+"/complete", nil).want(t, 201, "")
	f := decodeJSON[fileJSON](t, first.body)
	for _, n := range nodes {
		if again := n.do("POST", path+"/complete", nil).want(t, 201, ""); again.body != first.body {
			t.Errorf("complete again:\n%s\nbefore\n%s", again.body, first.body)
		}
		if a := n.do("GET", "/v1/files/"+f.ID+"/content", nil).want(t, 200, ""); a.body != string(data) {
			t.Error("other bytes came back")
		}
	}
	second := nodes[0].init(request)
	nodes[1].do("DELETE", "/v1/uploads/"+second.ID, nil).want(t, 204, "")
	nodes[2].do("GET", "/v1/uploads/"+second.ID+"/urls", nil).want(t, 409, "not_open")
}

// What is wrong with a request is said by the node that answers it, and reaches the client as it is.
func TestPassedOnProblems(t *testing.T) {
	t.Parallel()
	nodes, peers := newCluster(t, 2, nil)
	o := nodes[0].init(object{"name": "a", "size": 2 * mib, "chunk_size": mib})
	path, data := "/v1/uploads/"+o.ID, random(mib)
	via := nodes[1]
	via.do("PUT", path+"/chunks/0", bytes.NewReader(data), crcDigest(data[1:])).want(t, 422, "digest_mismatch")
	via.do("PUT", path+"/chunks/7", bytes.NewReader(data)).want(t, 400, "invalid_chunk_index")
	via.do("PUT", path+"/chunks/0", bytes.NewReader(data[1:])).want(t, 400, "short_body")
	via.do("PUT", path+"/chunks/0", bytes.NewReader(random(mib+1))).want(t, 413, "long_body")
	via.do("PUT", path+"/chunks/0", bytes.NewReader(data), "Content-Encoding: gzip").want(t, 415, "unsupported_encoding")
	via.json("POST", path+"/complete", `{}`).want(t, 409, "incomplete")
	if u, err := nodes[0].staging.Get(o.ID); err != nil || u.Received.Len() != 0 {
		t.Errorf("refused chunks are there: %v, %v", u.Received, err)
	}
	unknown := upload.NewUploadID("n7")
	via.do("GET", "/v1/uploads/"+unknown, nil).want(t, 404, "not_found")
	peers.given["n7"] = true
	via.do("GET", "/v1/uploads/"+unknown, nil).want(t, 410, "gone")
	delete(peers.given, "n7")

	peers.set("n0", "http://127.0.0.1:1") // nobody listens
	a := via.do("PUT", path+"/chunks/0", bytes.NewReader(data)).want(t, 503, "unavailable")
	if a.header.Get("Retry-After") == "" || len(a.header["X-Content-Type-Options"]) != 1 {
		t.Errorf("headers %v", a.header)
	}
	// An address that leads back here: no loop, the request says for whom it is.
	peers.set("n0", via.url)
	via.do("DELETE", path, nil).want(t, 503, "unavailable")
	via.do("GET", path, nil).want(t, 200, "") // what all nodes know needs nobody
}

// Only nodes with the secret are believed, in both directions.
func TestNodesProveThemselves(t *testing.T) {
	t.Parallel()
	nodes, peers := newCluster(t, 2, func(node string, o *forward.Options) {
		if node == "n1" {
			o.Secret = []byte("another secret than the others have")
		}
	})
	o := nodes[0].init(object{"name": "a", "size": mib})
	path, data := "/v1/uploads/"+o.ID, random(mib)
	nodes[1].do("PUT", path+"/chunks/0", bytes.NewReader(data)).want(t, 503, "unavailable")
	nodes[0].do("GET", path, nil, "Gantry-Signature: 00", "Gantry-From: n1", "Gantry-To: n0", "Gantry-Owner: somebody").want(t, 401, "unauthenticated")
	if u, err := nodes[0].staging.Get(o.ID); err != nil || u.Received.Len() != 0 {
		t.Errorf("a chunk from a node without the secret is there: %v", err)
	}
	// A machine that has got the node's address acknowledges everything, and is not believed.
	impostor := http.Server{Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		_, _ = io.Copy(io.Discard, r.Body)
		w.WriteHeader(204)
	}), ReadHeaderTimeout: time.Minute}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	var serving sync.WaitGroup
	serving.Go(func() { _ = impostor.Serve(l) })
	defer serving.Wait()
	defer impostor.Close()
	peers.set("n0", "http://"+l.Addr().String())
	nodes[1].do("PUT", path+"/chunks/0", bytes.NewReader(data)).want(t, 503, "unavailable")
}

// A signature is good for one request, one receiver and a short time.
func TestSignatureIsNotReusable(t *testing.T) {
	t.Parallel()
	nodes, peers := newCluster(t, 3, nil)
	seen := make(chan *http.Request, 1)
	tap := http.Server{Handler: http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) { seen <- r.Clone(context.Background()) }), ReadHeaderTimeout: time.Minute}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	var serving sync.WaitGroup
	serving.Go(func() { _ = tap.Serve(l) })
	defer serving.Wait()
	defer tap.Close()
	o := nodes[0].init(object{"name": "a", "size": mib})
	path := "/v1/uploads/" + o.ID + "/content"
	peers.set("n0", "http://"+l.Addr().String())
	nodes[1].do("GET", path, nil).want(t, 503, "unavailable")
	signed := func(r *http.Request) (all []string) {
		for name, values := range r.Header {
			if strings.HasPrefix(name, "Gantry-") {
				all = append(all, name+": "+values[0])
			}
		}
		return all
	}
	headers := signed(<-seen)
	nodes[0].do("GET", path, nil, headers...).want(t, 416, "range_not_satisfiable")
	nodes[0].do("DELETE", "/v1/uploads/"+o.ID, nil, headers...).want(t, 401, "unauthenticated")
	nodes[0].do("GET", "/v1/files", nil, headers...).want(t, 401, "unauthenticated")
	nodes[2].do("GET", path, nil, headers...).want(t, 503, "unavailable")
	nodes[0].clock.advance(2 * time.Minute)
	nodes[0].do("GET", path, nil, headers...).want(t, 401, "unauthenticated")
}

// Fault 24: the clock of one node jumps an hour, either way. What it passes on is refused and can be tried again; what it
// has itself goes on, and all is well when its clock is.
func TestFault24ClockOfANode(t *testing.T) {
	t.Parallel()
	for _, jump := range []time.Duration{time.Hour, -time.Hour} {
		t.Run(jump.String(), func(t *testing.T) {
			t.Parallel()
			nodes, _ := newCluster(t, 3, nil)
			data := random(2*mib + 5)
			put := func(n *node, id string, i int) answered {
				part := data[i*mib : min((i+1)*mib, len(data))]
				return n.do("PUT", fmt.Sprintf("/v1/uploads/%s/chunks/%d", id, i), bytes.NewReader(part), crcDigest(part))
			}
			complete := func(n *node, id string) answered {
				return n.json("POST", "/v1/uploads/"+id+"/complete", `{"sha1":"`+sha1Hex(data)+`"}`)
			}
			right, wrong := nodes[0], nodes[1]
			a := right.init(object{"name": "a", "size": len(data), "chunk_size": mib})
			put(wrong, a.ID, 0).want(t, 204, "")
			wrong.clock.advance(jump)
			b := wrong.init(object{"name": "b", "size": len(data), "chunk_size": mib})
			put(wrong, a.ID, 1).want(t, 503, "unavailable") // through the node
			complete(wrong, a.ID).want(t, 503, "unavailable")
			put(right, b.ID, 0).want(t, 503, "unavailable") // to it
			for _, n := range nodes {
				if s := n.do("GET", "/v1/uploads/"+a.ID, nil).want(t, 200, ""); !strings.Contains(s.body, `"received_chunks":1,`) {
					t.Errorf("status: %s", s.body)
				}
				if err := errors.Join(n.service.Clean(t.Context()), n.service.Sweep(t.Context())); err != nil {
					t.Error(err)
				}
			}
			for i := range 3 {
				put(wrong, b.ID, i).want(t, 204, "")
				put(nodes[2], a.ID, i).want(t, 204, "")
			}
			ofB := complete(wrong, b.ID).want(t, 201, "")
			wrong.clock.advance(-jump)
			ofA := complete(wrong, a.ID).want(t, 201, "")
			if again := complete(right, b.ID).want(t, 201, ""); again.body != ofB.body {
				t.Errorf("complete again:\n%s\nbefore\n%s", again.body, ofB.body)
			}
			for _, made := range []answered{ofA, ofB} {
				f := decodeJSON[fileJSON](t, made.body)
				for _, n := range nodes {
					if got := n.do("GET", "/v1/files/"+f.ID+"/content", nil).want(t, 200, ""); got.body != string(data) {
						t.Error("other bytes came back")
					}
				}
			}
		})
	}
}

// Bodies are passed on as they come, and a client that goes away in the middle leaves nothing.
func TestBodiesStreamThrough(t *testing.T) {
	t.Parallel()
	nodes, _ := newCluster(t, 2, nil)
	o := nodes[0].init(object{"name": "a", "size": 4 * mib, "chunk_size": 4 * mib})
	path, data := "/v1/uploads/"+o.ID+"/chunks/0", random(4*mib)
	ctx, cancel := context.WithCancel(t.Context())
	body, feed := io.Pipe()
	r, err := http.NewRequestWithContext(ctx, http.MethodPut, nodes[1].url+path, body)
	if err != nil {
		t.Fatal(err)
	}
	r.ContentLength = int64(len(data))
	var sending sync.WaitGroup
	sending.Go(func() {
		if resp, err := nodes[1].http.Transport.(*transport).base.RoundTrip(r); err == nil {
			resp.Body.Close()
			t.Errorf("half a chunk was answered %d", resp.StatusCode)
		}
	})
	if _, err := feed.Write(data[:2*mib]); err != nil {
		t.Fatal(err)
	}
	written := func() int64 {
		info, err := os.Stat(filepath.Join(nodes[0].dir, "n0", o.ID+".data"))
		if err != nil {
			return 0
		}
		return info.Size()
	}
	for deadline := time.Now().Add(testWait); written() < mib; time.Sleep(time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("%d bytes of the first half reached the node", written())
		}
	}
	cancel()
	_ = feed.Close()
	sending.Wait()
	nodes[1].do("PUT", path, bytes.NewReader(data)).want(t, 204, "") // takes over
	nodes[1].json("POST", "/v1/uploads/"+o.ID+"/complete", `{"sha1":"`+sha1Hex(data)+`"}`).want(t, 201, "")
}

// records keeps what is logged.
type records struct {
	mu   sync.Mutex
	text bytes.Buffer
}

func (r *records) Write(p []byte) (int, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.text.Write(p)
}

func (r *records) String() string {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.text.String()
}

// The node that answers a request that was passed on logs the client's address, and not the other node's.
func TestClientIsKnownBehindAnotherNode(t *testing.T) {
	t.Parallel()
	nodes, peers := newCluster(t, 2, nil)
	var log records
	behind := New(nodes[0].service, Options{
		Node: "n0", Forward: nodes[0].server.opt.Forward, Log: slog.New(slog.NewTextHandler(&log, &slog.HandlerOptions{Level: slog.LevelDebug})),
	})
	peers.set("n0", serveHandler(t, behind.Handler()).url)
	o := nodes[0].init(object{"name": "a", "size": mib})
	client := &http.Client{Transport: &http.Transport{
		DialContext: (&net.Dialer{LocalAddr: &net.TCPAddr{IP: net.IPv4(127, 0, 0, 9)}}).DialContext, DisableKeepAlives: true,
	}}
	r, err := http.NewRequestWithContext(t.Context(), http.MethodPut, nodes[1].url+"/v1/uploads/"+o.ID+"/chunks/0", bytes.NewReader(random(mib)))
	if err != nil {
		t.Fatal(err)
	}
	resp, err := client.Do(r)
	if err != nil {
		t.Fatal(err)
	}
	resp.Body.Close()
	for deadline := time.Now().Add(testWait); !strings.Contains(log.String(), "status=204 client=127.0.0.9:"); time.Sleep(time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("answered %d, logged %s", resp.StatusCode, log.String())
		}
	}
}

// blindView is a node's view that no longer knows uploads, only their keys.
type blindView struct{ chunkstore.View }

func (blindView) Get(context.Context, string) (upload.Upload, error) {
	return upload.Upload{}, upload.Errorf(upload.NotFound, "", "", "not surely known")
}

// An init that is repeated at another node is answered by the one that has the upload, where only that can tell.
func TestKeyOfAnotherNode(t *testing.T) {
	t.Parallel()
	nodes, peers := newCluster(t, 2, nil)
	nodes[1].service.View = blindView{nodes[1].service.View}
	begin := func(n *node, name string) answered {
		return n.do("POST", "/v1/uploads", strings.NewReader(`{"name":"`+name+`","size":2097152,"metadata":{"k":"v"}}`),
			"Content-Type: application/json", "Idempotency-Key: k")
	}
	first := begin(nodes[0], "a").want(t, 201, "")
	second := begin(nodes[1], "a").want(t, 201, "")
	if id := decodeJSON[uploadJSON](t, first.body).ID; decodeJSON[uploadJSON](t, second.body).ID != id || second.header.Get("Location") != "/v1/uploads/"+id {
		t.Errorf("begun again: %s %s, first %s", second.body, second.header.Get("Location"), first.body)
	}
	begin(nodes[1], "b").want(t, 422, "idempotency_key_reused")
	peers.set("n0", "http://127.0.0.1:1")
	begin(nodes[1], "a").want(t, 503, "unavailable")
}
