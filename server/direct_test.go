package server

import (
	"bytes"
	"fmt"
	"net/http"
	"strings"
	"testing"
	"time"

	chunks "gantry/chunkstore/memory"
	"gantry/server/ingest"
	"gantry/store"
	"gantry/store/memory"
	"gantry/store/storetest"
	"gantry/upload"
)

// newDirectNode is a node whose store takes chunks from clients.
func newDirectNode(t *testing.T) (*node, *storetest.Direct) {
	t.Helper()
	n, st := newNode(t, Options{}), storetest.NewDirect(t, memory.New())
	n.service = ingest.New(ingest.Options{Node: "n1", MaxSize: testMaxSize, Route: toLocal, Direct: true}, ingest.Deps{
		Staging: n.staging, View: chunks.New(), DB: n.db, Stores: map[string]store.Store{"local": store.NewGuard(st, store.GuardOptions{})},
		Wake: func() {}, Now: n.clock.Now,
	})
	n.server = New(n.service, Options{})
	n.testClient = serveHandler(t, n.server.Handler())
	return n, st
}

// openDirect opens a direct upload of data.
func (n *node) openDirect(data []byte) opened {
	n.t.Helper()
	o := n.init(object{"name": "a.bin", "size": len(data), "chunk_size": mib, "direct": true})
	if o.Direct == nil || len(o.Direct.URLs) == 0 || o.Direct.ExpiresAt.IsZero() {
		n.t.Fatalf("not a direct upload: %+v", o)
	}
	return o
}

// sendDirect PUTs chunks to the store.
func (n *node) sendDirect(o opened, urls []urlJSON, data []byte) {
	n.t.Helper()
	for _, u := range urls {
		part := data[u.Index*int(o.ChunkSize) : min(len(data), (u.Index+1)*int(o.ChunkSize))]
		r, err := http.NewRequestWithContext(n.t.Context(), http.MethodPut, u.URL, bytes.NewReader(part))
		if err != nil {
			n.t.Fatal(err)
		}
		resp, err := http.DefaultClient.Do(r)
		if err != nil {
			n.t.Fatal(err)
		}
		_ = resp.Body.Close()
		if resp.StatusCode != http.StatusOK {
			n.t.Fatalf("the store answers %s", resp.Status)
		}
	}
}

func TestDirectUpload(t *testing.T) {
	n, _ := newDirectNode(t)
	data := random(3*mib + 5)
	o := n.openDirect(data)
	path := "/v1/uploads/" + o.ID
	n.sendDirect(o, o.Direct.URLs[1:2], data)
	status := decodeJSON[map[string]any](t, n.do("GET", path, nil).want(t, 200, "").body)
	if got := toJSON(status["missing"]); got != "[[0,0],[2,3]]" || toJSON(status["direct"]) != "{}" || status["received_bytes"] != float64(mib) {
		t.Errorf("status: %v", status)
	}
	list := n.do("GET", "/v1/uploads", nil).want(t, 200, "").body
	if !strings.Contains(list, o.ID) || !strings.Contains(list, `"direct":{}`) {
		t.Errorf("listed: %s", list)
	}
	n.put(o.ID, 0, data[:mib]).want(t, 409, "direct_upload")
	n.do("PUT", path+"/chunks", bytes.NewReader(data[:mib]), "Chunk-Index: 0").want(t, 409, "direct_upload")
	n.do("GET", path+"/content", nil).want(t, 416, "range_not_satisfiable")
	n.do("POST", path+"/complete", nil).want(t, 409, "incomplete")

	urls := decodeJSON[urlsJSON](t, n.do("GET", path+"/urls?first=2&count=9", nil).want(t, 200, "").body)
	if len(urls.URLs) != 2 || urls.URLs[0].Index != 2 || time.Until(urls.ExpiresAt) > time.Hour {
		t.Errorf("%+v", urls)
	}
	n.do("GET", path+"/urls?first=4", nil).want(t, 400, "invalid_chunk_index")
	n.do("GET", path+"/urls?first=x", nil).want(t, 400, "invalid_chunk_index")
	for _, count := range []string{"0", "101", "-1", "x"} {
		n.do("GET", path+"/urls?count="+count, nil).want(t, 400, "invalid_request")
	}
	ordinary := n.open(len(data))
	n.do("GET", "/v1/uploads/"+ordinary.ID+"/urls", nil).want(t, 409, "conflict")
	n.do("GET", "/v1/uploads/"+upload.NewUploadID("n1")+"/urls", nil).want(t, 404, "not_found")

	n.sendDirect(o, append(o.Direct.URLs[:1], urls.URLs...), data)
	a := n.do("POST", path+"/complete", nil).want(t, 201, "")
	file := decodeJSON[fileJSON](t, a.body)
	if !strings.Contains(a.body, `"sha1":null`) || file.Location != "store" || file.Transfer.State != upload.TransferQueued {
		t.Errorf("before it was read: %s", a.body)
	}
	n.do("GET", path+"/urls", nil).want(t, 409, "not_open")
	got := n.do("GET", "/v1/files/"+file.ID+"/content", nil).want(t, 200, "")
	if got.body != string(data) || got.header.Get("Repr-Digest") != "" {
		t.Errorf("%d bytes, Repr-Digest %q", len(got.body), got.header.Get("Repr-Digest"))
	}
	n.digest(file.Transfer.ID, data)
	got = n.do("GET", "/v1/files/"+file.ID+"/content", nil).want(t, 200, "")
	if want := fmt.Sprintf(`"sha1":%q`, upload.SumSHA1(data)); got.header.Get("Repr-Digest") == "" || !strings.Contains(n.do("GET", "/v1/files/"+file.ID, nil).body, want) {
		t.Error("after it was read its digest is not told")
	}
}

// digest does what the worker does for a direct upload.
func (n *node) digest(transfer string, data []byte) {
	n.t.Helper()
	ctx, now, d := n.t.Context(), n.clock.Now(), storetest.DigestsOf(data)
	job, err := n.db.Lease(ctx, transfer, "test", now, now.Add(time.Minute))
	if err != nil {
		n.t.Fatal(err)
	}
	sealed := upload.Sealed{Size: d.Size, SHA1: upload.SumSHA1(data), Hint: upload.SumSHA1(data[:upload.HintLength]), CRC32C: d.CRC32C}
	if err := n.db.SetDigests(ctx, transfer, job.Transfer.Lease.Epoch, sealed, now); err != nil {
		n.t.Fatal(err)
	}
	if _, err := n.db.SetRoot(ctx, transfer, job.Transfer.Lease.Epoch, d.Root, now); err != nil {
		n.t.Fatal(err)
	}
	if err := n.db.Stored(ctx, transfer, job.Transfer.Lease.Epoch, job.Blob.Store, job.Blob.ObjectKey, now); err != nil {
		n.t.Fatal(err)
	}
}

// What is announced twice and differently cannot be; what is read to be another is lost, and says why.
func TestDirectUploadThatIsAnother(t *testing.T) {
	n, _ := newDirectNode(t)
	data := random(2 * mib)
	o := n.openDirect(data)
	n.sendDirect(o, o.Direct.URLs, data)
	wrong := strings.Repeat("ab", 20)
	file := decodeJSON[fileJSON](t, n.json("POST", "/v1/uploads/"+o.ID+"/complete", `{"sha1":"`+wrong+`"}`).want(t, 201, "").body)
	if file.SHA1 == nil || file.SHA1.String() != wrong {
		t.Errorf("announced: %+v", file)
	}
	ctx, now := t.Context(), n.clock.Now()
	job, err := n.db.Lease(ctx, file.Transfer.ID, "test", now, now.Add(time.Minute))
	if err != nil {
		t.Fatal(err)
	}
	if err := n.db.Dead(ctx, file.Transfer.ID, job.Transfer.Lease.Epoch, "The content is not what was announced.", true, now); err != nil {
		t.Fatal(err)
	}
	if a := n.do("GET", "/v1/files/"+file.ID+"/content", nil).want(t, 410, "gone"); !strings.Contains(a.body, "not what was announced. Upload it again.") {
		t.Error(a.body)
	}
	if f := decodeJSON[fileJSON](t, n.do("GET", "/v1/files/"+file.ID, nil).want(t, 200, "").body); f.Location != "lost" {
		t.Errorf("%+v", f)
	}

	o = n.init(object{"name": "a", "size": len(data), "direct": true, "sha1": wrong})
	n.json("POST", "/v1/uploads/"+o.ID+"/complete", `{"sha1":"`+strings.Repeat("cd", 20)+`"}`).want(t, 422, "digest_mismatch")
}

// A server that cannot answers as it always did.
func TestDirectUploadThatCannotBe(t *testing.T) {
	n := newNode(t, Options{})
	o := n.init(object{"name": "a", "size": mib, "direct": true})
	if o.Direct != nil {
		t.Errorf("%+v", o)
	}
	n.put(o.ID, 0, random(mib)).want(t, 204, "")
}
