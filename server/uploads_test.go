package server

import (
	"bytes"
	"encoding/base64"
	"net/http"
	"slices"
	"strings"
	"testing"
	"time"

	"gantry/upload"
)

func TestUploadInChunks(t *testing.T) {
	n := newNode(t, Options{})
	data := random(2*mib + 100)
	o := n.init(object{
		"name": "bild ü.jpg", "path": "a/b", "size": len(data), "chunk_size": mib, "content_type": "image/jpeg",
		"metadata": object{"k": "v"}, "sha1": sha1Hex(data),
	})
	if o.ChunkSize != mib || o.State != "open" || o.Challenge == nil {
		t.Errorf("opened: %+v", o)
	}
	crc := "crc32c=:" + base64.StdEncoding.EncodeToString([]byte{0, 0, 0, 0}) + ":"
	n.put(o.ID, 2, data[2*mib:]).want(t, 204, "")
	n.put(o.ID, 0, data[:mib], "Content-Digest: "+crc).want(t, 422, "digest_mismatch")
	n.put(o.ID, 0, data[:mib]).want(t, 204, "")
	status := decodeJSON[uploadJSON](t, n.do("GET", "/v1/uploads/"+o.ID, nil).want(t, 200, "").body)
	if want := []upload.Range{{First: 1, Last: 1}}; !slices.Equal(status.Missing, want) || status.ReceivedChunks != 2 || status.ReceivedBytes != mib+100 {
		t.Errorf("status: %+v", status)
	}
	a := n.do("POST", "/v1/uploads/"+o.ID+"/complete", nil).want(t, 409, "incomplete")
	if !strings.Contains(a.body, `"missing":[[1,1]]`) {
		t.Errorf("missing: %s", a.body)
	}
	n.do("PUT", "/v1/uploads/"+o.ID+"/chunks", bytes.NewReader(data[mib:2*mib]), "Chunk-Index: 1").want(t, 204, "")
	n.put(o.ID, 1, data[mib:2*mib]).want(t, 204, "") // repeated
	a = n.do("POST", "/v1/uploads/"+o.ID+"/complete", nil).want(t, 201, "")
	file := decodeJSON[fileJSON](t, a.body)
	if a.header.Get("Location") != "/v1/files/"+file.ID || file.SHA1.String() != sha1Hex(data) || file.Name != "bild ü.jpg" || file.Path != "a/b" ||
		file.Metadata["k"] != "v" || file.Location != "staging" || file.Transfer == nil || file.Transfer.State != upload.TransferQueued {
		t.Errorf("file: %s", a.body)
	}
	if again := n.json("POST", "/v1/uploads/"+o.ID+"/complete", `{}`).want(t, 201, ""); again.body != a.body {
		t.Errorf("complete again gave\n%s, not\n%s", again.body, a.body)
	}
	if s := n.do("GET", "/v1/uploads/"+o.ID, nil).want(t, 200, ""); !strings.Contains(s.body, `"state":"complete","instant":false,"file":{`) {
		t.Errorf("status of a complete upload: %s", s.body)
	}
	got := n.do("GET", "/v1/files/"+file.ID+"/content", nil).want(t, 200, "")
	if got.body != string(data) {
		t.Error("the content differs")
	}
	n.put(o.ID, 0, data[:mib]).want(t, 409, "not_open")
	n.do("DELETE", "/v1/uploads/"+o.ID, nil).want(t, 409, "not_open")
	n.do("GET", "/v1/uploads/"+o.ID+"/content", nil).want(t, 410, "gone")
	n.do("HEAD", "/v1/uploads/"+o.ID+"/content", nil).want(t, 410, "")
}

func TestUploadOfUnknownSize(t *testing.T) {
	n := newNode(t, Options{})
	data := random(mib + 5)
	o := n.init(object{"name": "stdin", "chunk_size": mib})
	status := n.do("GET", "/v1/uploads/"+o.ID, nil).want(t, 200, "")
	if !strings.Contains(status.body, `"size":null`) || !strings.Contains(status.body, `"chunk_count":null`) {
		t.Errorf("status: %s", status.body)
	}
	n.send(o, data)
	n.json("POST", "/v1/uploads/"+o.ID+"/complete", `{"size":7}`).want(t, 400, "invalid_size")
	a := n.json("POST", "/v1/uploads/"+o.ID+"/complete", `{"size":1048581,"sha1":"`+sha1Hex(data)+`"}`).want(t, 201, "")
	if got := decodeJSON[fileJSON](t, a.body); got.Size != int64(len(data)) {
		t.Errorf("size %d", got.Size)
	}
	// The limit holds for sizes that come late, too.
	o = n.init(object{"name": "long", "chunk_size": 64 << 20})
	big := make([]byte, 64<<20)
	n.put(o.ID, 0, big).want(t, 204, "")
	n.put(o.ID, 1, big[:1]).want(t, 413, "too_large")
	n.do("PUT", "/v1/uploads/"+o.ID+"/chunks", bytes.NewReader(big[:1]), "Chunk-Index: 1").want(t, 413, "too_large")
}

func TestEmptyFile(t *testing.T) {
	n := newNode(t, Options{})
	o := n.open(0)
	a := n.do("POST", "/v1/uploads/"+o.ID+"/complete", nil).want(t, 201, "")
	file := decodeJSON[fileJSON](t, a.body)
	got := n.do("GET", "/v1/files/"+file.ID+"/content", nil, "Range: bytes=0-").want(t, 200, "")
	if got.body != "" || got.header.Get("Content-Length") != "0" {
		t.Errorf("%q, %v", got.body, got.header)
	}
	n.storeFile("b", nil)
}

func TestCancelAndExpiry(t *testing.T) {
	n := newNode(t, Options{})
	o := n.open(10)
	for range 2 {
		n.do("DELETE", "/v1/uploads/"+o.ID, nil).want(t, 204, "")
	}
	a := n.do("GET", "/v1/uploads/"+o.ID, nil).want(t, 410, "gone")
	if !strings.Contains(a.body, `"state":"cancelled"`) {
		t.Errorf("status: %s", a.body)
	}
	n.put(o.ID, 0, []byte("0123456789")).want(t, 409, "not_open")
	n.do("POST", "/v1/uploads/"+o.ID+"/complete", nil).want(t, 410, "gone")
	n.json("POST", "/v1/uploads/"+o.ID+"/instant", `{"sha1":"`+sha1Hex(nil)+`"}`).want(t, 409, "not_open")

	o = n.open(10)
	n.clock.advance(8 * 24 * time.Hour)
	if err := n.service.Clean(t.Context()); err != nil {
		t.Fatal(err)
	}
	if a := n.do("GET", "/v1/uploads/"+o.ID, nil).want(t, 410, "gone"); !strings.Contains(a.body, `"state":"expired"`) {
		t.Errorf("status: %s", a.body)
	}
}

func TestRejectedUpload(t *testing.T) {
	n := newNode(t, Options{})
	data := random(100)
	o := n.init(object{"name": "a", "size": 100, "sha1": sha1Hex(nil)})
	n.send(o, data)
	for range 2 {
		a := n.do("POST", "/v1/uploads/"+o.ID+"/complete", nil).want(t, 422, "digest_mismatch")
		if !strings.Contains(a.body, `"expected":"`+sha1Hex(nil)+`","actual":"`+sha1Hex(data)+`"`) {
			t.Errorf("digests: %s", a.body)
		}
	}
	if a := n.do("GET", "/v1/uploads/"+o.ID, nil).want(t, 410, "gone"); !strings.Contains(a.body, `"state":"rejected"`) || !strings.Contains(a.body, `"actual":"`+sha1Hex(data)) {
		t.Errorf("status: %s", a.body)
	}
	if got := n.things(); got.Files != 0 || len(got.Staging) != 0 {
		t.Errorf("the bytes are still there: %+v", got)
	}
}

func TestIdempotentInit(t *testing.T) {
	n := newNode(t, Options{})
	request := object{"name": "a", "size": 10}
	o := n.init(request, "Idempotency-Key: k1")
	if again := n.init(request, "Idempotency-Key: k1"); again.ID != o.ID {
		t.Errorf("%s again is %s", o.ID, again.ID)
	}
	n.json("POST", "/v1/uploads", `{"name":"b","size":10}`, "Idempotency-Key: k1").want(t, 422, "idempotency_key_reused")
	n.json("POST", "/v1/uploads", `{"name":"a","size":10}`, "Idempotency-Key: a b").want(t, 400, "invalid_request")
	n.send(o, []byte("0123456789"))
	n.do("POST", "/v1/uploads/"+o.ID+"/complete", nil).want(t, 201, "")
	if again := n.init(request, "Idempotency-Key: k1"); again.ID != o.ID || again.State != "complete" {
		t.Errorf("%s again is %+v", o.ID, again)
	}
	o = n.init(request, "Idempotency-Key: k2")
	n.do("DELETE", "/v1/uploads/"+o.ID, nil).want(t, 204, "")
	n.json("POST", "/v1/uploads", toJSON(request), "Idempotency-Key: k2").want(t, 410, "gone")
}

func TestListUploads(t *testing.T) {
	n := newNode(t, Options{})
	var want []string
	for range 5 {
		want = append(want, n.open(10).ID)
	}
	slices.Sort(want)
	var got []string
	cursor := ""
	for {
		page := decodeJSON[listJSON[uploadJSON]](t, n.do("GET", "/v1/uploads?limit=2"+cursor, nil).want(t, 200, "").body)
		for _, u := range page.Items {
			got = append(got, u.ID)
		}
		if page.NextCursor == nil {
			break
		}
		cursor = "&cursor=" + *page.NextCursor
	}
	if !slices.Equal(got, want) {
		t.Errorf("got %v, want %v", got, want)
	}
	for _, query := range []string{"limit=0", "limit=1001", "limit=-1", "limit=x", "limit=1e2", "cursor=x", "cursor=../../etc"} {
		n.do("GET", "/v1/uploads?"+query, nil).want(t, 400, "invalid_request")
		n.do("GET", "/v1/files?"+query, nil).want(t, 400, "invalid_request")
	}
}

// prove answers a challenge about data.
func prove(t testing.TB, o opened, data []byte) string {
	t.Helper()
	tree := upload.NewTreeHasher()
	_, _ = tree.Write(data)
	sum := tree.Sum()
	proof := upload.Proof{Challenge: o.Challenge.ID}
	for _, index := range o.Challenge.Leaves {
		leaf, err := sum.Prove(bytes.NewReader(data), index)
		if err != nil {
			t.Fatal(err)
		}
		proof.Leaves = append(proof.Leaves, leaf)
	}
	return toJSON(object{"sha1": sha1Hex(data), "proof": proof})
}

func TestInstantUpload(t *testing.T) {
	n := newNode(t, Options{})
	data := random(2*mib + 1)
	n.storeFile("first", data)
	n.transfer()
	sum := sha1Hex(data)
	hint := sha1Hex(data[:upload.HintLength])
	if o := n.init(object{"name": "a", "size": len(data), "hint": hint}); o.Known != "maybe" {
		t.Errorf("known: %q", o.Known)
	}
	if o := n.init(object{"name": "a", "size": len(data), "hint": sha1Hex(nil)}); o.Known != "no" {
		t.Errorf("known: %q", o.Known)
	}
	o := n.init(object{"name": "second", "size": len(data), "sha1": sum})
	request := prove(t, o, data)
	a := n.json("POST", "/v1/uploads/"+o.ID+"/instant", request).want(t, 200, "")
	if !strings.Contains(a.body, `"status":"complete","instant":true,"file":{`) || !strings.Contains(a.body, `"name":"second"`) {
		t.Errorf("instant: %s", a.body)
	}
	if again := n.json("POST", "/v1/uploads/"+o.ID+"/instant", request).want(t, 200, ""); again.body != a.body {
		t.Errorf("again: %s", again.body)
	}

	// Late: the challenge comes by the call itself.
	o = n.open(len(data))
	a = n.json("POST", "/v1/uploads/"+o.ID+"/instant", `{"sha1":"`+sum+`"}`).want(t, 200, "")
	late := decodeJSON[opened](t, a.body)
	a = n.json("POST", "/v1/uploads/"+o.ID+"/instant", prove(t, late, data)).want(t, 200, "")
	if !strings.Contains(a.body, `"status":"complete"`) {
		t.Errorf("instant: %s", a.body)
	}

	// Small files are always to be sent.
	o = n.open(10)
	if a := n.json("POST", "/v1/uploads/"+o.ID+"/instant", `{"sha1":"`+sum+`"}`).want(t, 200, ""); a.body != `{"status":"continue"}`+"\n" {
		t.Errorf("instant: %s", a.body)
	}
}

func TestPrefix(t *testing.T) {
	n := newNode(t, Options{})
	data := random(2*mib + 100)
	o := n.open(len(data))
	path := "/v1/uploads/" + o.ID + "/content"
	a := n.do("GET", path, nil).want(t, 416, "range_not_satisfiable")
	if got := a.header.Get("Content-Range"); got != "bytes */2097252" {
		t.Errorf("Content-Range: %q", got)
	}
	n.do("HEAD", path, nil).want(t, 416, "")
	n.put(o.ID, 0, data[:mib]).want(t, 204, "")
	n.put(o.ID, 2, data[2*mib:]).want(t, 204, "")
	n.waitHashed(o.ID, mib)
	a = n.do("GET", path, nil).want(t, 206, "")
	if a.body != string(data[:mib]) || a.header.Get("Content-Range") != "bytes 0-1048575/2097252" {
		t.Errorf("%d bytes, %v", len(a.body), a.header)
	}
	if a := n.do("HEAD", path, nil, "Range: bytes=1-2").want(t, 206, ""); a.header.Get("Content-Length") != "1048576" {
		t.Errorf("HEAD: %v", a.header)
	}
	if a := n.do("GET", path, nil, "Range: bytes=1000000-9999999").want(t, 206, ""); a.body != string(data[1000000:mib]) {
		t.Errorf("%d bytes", len(a.body))
	}
	for _, r := range []string{"bytes=1048576-", "bytes=-5", "bytes=0-1,3-4", "bytes=x", "bytes=5-2"} {
		n.do("GET", path, nil, "Range: "+r).want(t, 416, "range_not_satisfiable")
	}
	o = n.init(object{"name": "a", "chunk_size": mib})
	n.put(o.ID, 0, data[:mib]).want(t, 204, "")
	n.waitHashed(o.ID, mib)
	if a := n.do("GET", "/v1/uploads/"+o.ID+"/content", nil).want(t, 206, ""); a.header.Get("Content-Range") != "bytes 0-1048575/*" {
		t.Errorf("unknown size: %v", a.header)
	}
}

// waitHashed waits until the prefix of an upload is hashed this far.
func (n *node) waitHashed(id string, want int64) {
	n.t.Helper()
	for deadline := time.Now().Add(testWait); ; time.Sleep(time.Millisecond) {
		u, err := n.staging.Get(id)
		if err != nil {
			n.t.Fatal(err)
		}
		if u.HashedBytes >= want {
			return
		}
		if time.Now().After(deadline) {
			n.t.Fatalf("%d of %d bytes are hashed", u.HashedBytes, want)
		}
	}
}

func TestUnknownIDs(t *testing.T) {
	n := newNode(t, Options{})
	other := upload.NewUploadID("n2")
	for _, id := range []string{other, "x", "..", "%2e%2e%2f%2e%2e%2fetc%2fpasswd", "n1-", strings.Repeat("a", 5000), "n1-%00", "ü"} {
		for _, x := range everyCall() {
			path, after, found := strings.Cut(strings.TrimPrefix(x.path, "/v1/"), "/")
			if !found {
				continue // no id in the path
			}
			_, rest, _ := strings.Cut(after, "/")
			x.path = strings.TrimSuffix("/v1/"+path+"/"+id+"/"+rest, "/")
			n.call(x).want(t, http.StatusNotFound, codeOf(x.method, upload.NotFound))
		}
	}
}
