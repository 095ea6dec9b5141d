package server

import (
	"bytes"
	"net/http"
	"runtime"
	"strings"
	"sync"
	"testing"

	"gantry/internal/vfs"
	"gantry/upload"
)

// Attacks by those who may not pass, on a node that has something to lose: the answer, and that nothing
// was written, changed or deleted.

// victims are an open upload with a chunk and a file of a node, and every call made for them.
func (n *node) victims() (o opened, file fileJSON, calls []call) {
	n.t.Helper()
	data := random(2 * mib)
	file = n.storeFile("mine", data)
	o = n.open(len(data))
	n.put(o.ID, 0, data[:mib]).want(n.t, 204, "")
	for _, x := range everyCall() {
		parts := strings.Split(x.path, "/") // "", "v1", kind, id, …
		if len(parts) > 3 {
			parts[3] = map[string]string{"uploads": o.ID, "files": file.ID}[parts[2]]
		}
		x.path = strings.Join(parts, "/")
		if strings.HasSuffix(x.path, "/chunks/0") || strings.HasSuffix(x.path, "/chunks") {
			x.path, x.body = strings.Replace(x.path, "/chunks/0", "/chunks/1", 1), string(data[mib:])
		}
		calls = append(calls, x)
	}
	return o, file, calls
}

// attack sends a call of victims.
func (c *testClient) attack(x call, headers ...string) answered {
	c.t.Helper()
	headers = append(headers, "Chunk-Index: 1")
	if x.contentType != "" {
		headers = append(headers, "Content-Type: "+x.contentType)
	}
	return c.do(x.method, x.path, strings.NewReader(x.body), headers...)
}

func TestNoTokenChangesNothing(t *testing.T) {
	const token = "a-long-secret-token"
	n := newNode(t, Options{})
	_, _, calls := n.victims()
	guarded := serveHandler(t, New(n.service, Options{Token: token}).Handler())
	before := n.things()
	for _, x := range calls {
		for _, header := range []string{"X: y", "Authorization: Bearer wrong", "Authorization: Basic " + token, "Authorization: Bearer eyJhbGciOiJub25lIn0.e30."} {
			a := guarded.attack(x, header).want(t, 401, codeOf(x.method, upload.Unauthenticated))
			if strings.Contains(a.body, "mine") {
				t.Errorf("%s %s tells something: %s", x.method, x.path, a.body)
			}
			n.unchanged(before, x.method+" "+x.path)
		}
	}
	// The right one works, so the calls are such as would have done something.
	guarded.attack(call{"DELETE", calls[3].path, "", ""}, "Authorization: Bearer "+token).want(t, 204, "")
}

func TestForeignPagesChangeNothing(t *testing.T) {
	n := newNode(t, Options{})
	_, _, calls := n.victims()
	before := n.things()
	for _, x := range calls {
		headers := []string{"Host: evil.example", "Host: 127.0.0.1.evil.example:8080"}
		if x.method != http.MethodGet && x.method != http.MethodHead {
			headers = append(headers, "Origin: http://evil.example", "Origin: null", "Sec-Fetch-Site: cross-site", "Sec-Fetch-Site: same-site")
		}
		for _, header := range headers {
			a := n.attack(x, header).want(t, 403, codeOf(x.method, upload.Forbidden))
			for name := range a.header {
				if strings.HasPrefix(name, "Access-Control-") {
					t.Errorf("%s %s: %s", x.method, x.path, name)
				}
			}
			n.unchanged(before, x.method+" "+x.path+" with "+header)
		}
	}
	// A form, which a page may send without being asked (a "simple" request).
	body, kind := form([2]string{"a", "x"})
	n.do("POST", "/v1/files", strings.NewReader(body), "Content-Type: "+kind, "Origin: http://evil.example").want(t, 403, "forbidden")
	n.do("POST", "/v1/uploads", strings.NewReader(`{"name":"a"}`), "Content-Type: text/plain").want(t, 415, "unsupported_media_type")
	n.unchanged(before, "a form")
}

// Another owner's ids answer as unknown ones do, to the letter.
func TestAnotherOwnerSeesNothing(t *testing.T) {
	n := newNode(t, Options{})
	_, file, calls := n.victims()
	mallory := serveHandler(t, New(n.service, Options{Owner: "mallory"}).Handler())
	before := n.things()
	unknown := upload.NewUploadID("n1")
	for _, x := range calls {
		parts := strings.Split(x.path, "/")
		if len(parts) < 4 {
			continue
		}
		a := mallory.attack(x, "X-Request-Id: same").want(t, 404, codeOf(x.method, upload.NotFound))
		parts[3] = unknown
		x.path = strings.Join(parts, "/")
		b := mallory.attack(x, "X-Request-Id: same").want(t, 404, codeOf(x.method, upload.NotFound))
		if a.body != b.body {
			t.Errorf("%s %s: another's is %s, an unknown one %s", x.method, x.path, a.body, b.body)
		}
		n.unchanged(before, x.method+" "+x.path)
	}
	for _, path := range []string{"/v1/files", "/v1/uploads"} {
		if a := mallory.do("GET", path, nil).want(t, 200, ""); a.body != `{"items":[],"next_cursor":null}`+"\n" {
			t.Errorf("%s lists %s", path, a.body)
		}
	}
	mallory.json("POST", "/v1/uploads", `{"name":"a","replaces":"`+file.ID+`"}`).want(t, 404, "not_found")
	mallory.do("POST", "/v1/files?name=a&replaces="+file.ID, strings.NewReader("x")).want(t, 404, "not_found")
	n.unchanged(before, "replacing another's file")
}

func TestChunksAfterTheEndChangeNothing(t *testing.T) {
	n := newNode(t, Options{})
	data := random(mib + 10)
	complete, cancelled := n.open(len(data)), n.open(len(data))
	n.send(complete, data)
	n.do("POST", "/v1/uploads/"+complete.ID+"/complete", nil).want(t, 201, "")
	n.send(cancelled, data)
	n.do("DELETE", "/v1/uploads/"+cancelled.ID, nil).want(t, 204, "")
	before := n.things()
	for _, o := range []opened{complete, cancelled} {
		for _, body := range [][]byte{data[:mib], make([]byte, mib)} { // the same bytes, and others
			n.put(o.ID, 0, body).want(t, 409, "not_open")
			n.do("PUT", "/v1/uploads/"+o.ID+"/chunks", bytes.NewReader(body), "Chunk-Index: 0").want(t, 409, "not_open")
			n.unchanged(before, "a chunk after the end")
		}
	}
}

func TestActiveContentIsOnlyData(t *testing.T) {
	n := newNode(t, Options{})
	for _, kind := range []string{"text/html", "image/svg+xml", "application/xhtml+xml", "text/xml", "application/javascript", "text/html; charset=utf-7", "not a type", "TEXT/HTML"} {
		file := decodeJSON[fileJSON](t, n.do("POST", "/v1/files?name=a.svg", strings.NewReader("<svg onload=alert(1)>"), "Content-Type: "+kind).want(t, 201, "").body)
		for _, header := range []string{"X: y", "Range: bytes=0-3", "Range: bytes=0-0,2-3"} {
			a := n.do("GET", "/v1/files/"+file.ID+"/content", nil, header)
			if !strings.HasPrefix(a.header.Get("Content-Disposition"), "attachment;") || a.header.Get("X-Content-Type-Options") != "nosniff" ||
				!strings.HasPrefix(a.header.Get("Content-Security-Policy"), "sandbox;") || a.header.Get("X-Frame-Options") != "DENY" || a.header.Get("Cross-Origin-Resource-Policy") != "same-origin" {
				t.Errorf("%s, %s: %v", kind, header, a.header)
			}
		}
	}
}

// What a client says of a size or a number of chunks makes the server keep next to nothing.
func TestNumbersAllocateNothing(t *testing.T) {
	n := newNode(t, Options{})
	o := n.open(64 * mib)
	requests := []func(){
		func() { n.init(object{"name": "a", "size": testMaxSize}) },
		func() {
			n.json("POST", "/v1/uploads", `{"name":"a","size":1125899906842624}`).want(t, 413, "too_large")
		},
		func() { n.put(o.ID, 9999, []byte("x")).want(t, 400, "invalid_chunk_index") },
		func() { n.do("GET", "/v1/files?limit=1000", nil).want(t, 200, "") },
		func() {
			n.json("POST", "/v1/uploads/"+o.ID+"/complete", `{"size":9223372036854775807}`).want(t, 400, "invalid_size")
		},
	}
	n.http.Transport = http.DefaultTransport.(*http.Transport).Clone() // to measure the server and not the check of its answers
	defer n.http.CloseIdleConnections()
	for i, request := range requests {
		request() // pools and connections are there then
		var before, after runtime.MemStats
		runtime.ReadMemStats(&before)
		for range 10 {
			request()
		}
		runtime.ReadMemStats(&after)
		if each := (after.TotalAlloc - before.TotalAlloc) / 10; each > 256<<10 {
			t.Errorf("request %d allocates %d bytes", i, each)
		}
	}
}

// Bodies on their way cost buffers, not chunks.
func TestStalledChunksCostBuffers(t *testing.T) {
	n := newNode(t, Options{})
	heap := func() uint64 {
		var m runtime.MemStats
		runtime.GC()
		runtime.ReadMemStats(&m)
		return m.HeapAlloc
	}
	const size = 16 * mib
	data := random(size)
	o := n.init(object{"name": "a", "size": 4 * size, "chunk_size": size})
	before := heap()
	for i := range 4 {
		conn := dial(t, n.addr)
		conn.send("PUT /v1/uploads/%s/chunks/%d HTTP/1.1\r\nHost: localhost\r\nContent-Length: %d\r\n\r\n", o.ID, i, size)
		if _, err := conn.Write(data[:size-1]); err != nil { // all but the last byte
			t.Fatal(err)
		}
	}
	if grown := int64(heap()) - int64(before); grown > 4*2*mib {
		t.Errorf("4 stalled chunks of 16 MiB keep %d bytes", grown)
	}
	if u, err := n.staging.Get(o.ID); err != nil || u.Received.Len() != 0 {
		t.Errorf("acknowledged: %d, %v", u.Received.Len(), err)
	}
}

// limited is a disk with so much room.
type limited struct {
	vfs.FS
	free int64
}

func (l limited) Space() (total, free int64, err error) { return 1 << 40, l.free, nil }

// Many at once cannot have more than there is.
func TestManyInitsRaceForTheRoom(t *testing.T) {
	n := newNodeOn(t, Options{}, func(fsys vfs.FS) vfs.FS { return limited{fsys, 10 * mib} })
	const clients = 50
	answers := make(chan int, clients)
	var wg sync.WaitGroup
	open := func() {
		req, err := http.NewRequestWithContext(t.Context(), http.MethodPost, n.url+"/v1/uploads", strings.NewReader(`{"name":"a","size":1048576}`))
		if err != nil {
			t.Error(err)
			return
		}
		req.Header.Set("Content-Type", "application/json")
		resp, err := n.http.Do(req)
		if err != nil {
			t.Error(err)
			return
		}
		_ = resp.Body.Close()
		answers <- resp.StatusCode
	}
	for range clients {
		wg.Go(open)
	}
	wg.Wait()
	close(answers)
	got := map[int]int{}
	for status := range answers {
		got[status]++
	}
	if got[201] != 10 || got[507] != 40 {
		t.Errorf("answers: %v", got)
	}
	before := n.things()
	if len(before.Uploads) != 10 {
		t.Errorf("%d uploads are open", len(before.Uploads))
	}
	n.json("POST", "/v1/uploads", `{"name":"a","size":1}`).want(t, 507, "insufficient_storage")
	n.do("POST", "/v1/files?name=a", strings.NewReader("x")).want(t, 507, "insufficient_storage")
	body, kind := form([2]string{"a", "x"})
	n.do("POST", "/v1/files", strings.NewReader(body), "Content-Type: "+kind).want(t, 507, "insufficient_storage")
	n.unchanged(before, "what has no room")
	// Those that are open have theirs.
	data := random(mib)
	id, _, _ := strings.Cut(before.Uploads[0], " ")
	n.put(id, 0, data).want(t, 204, "")
	n.do("POST", "/v1/uploads/"+id+"/complete", nil).want(t, 201, "")
}
