package server

import (
	"bytes"
	"context"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"testing"
	"time"

	"gantry/upload"
)

// Attacks on uploads: the answer, and that nothing else happens.

func TestAttacksOnInit(t *testing.T) {
	n := newNode(t, Options{})
	sum := strings.Repeat("ab", 20)
	before := n.things()
	for _, c := range []struct {
		name, body string
		status     int
		code       string
	}{
		{"negative size", `{"name":"a","size":-1}`, 400, "invalid_size"},
		{"least size", `{"name":"a","size":-9223372036854775808}`, 400, "invalid_size"},
		{"overflowing size", `{"name":"a","size":9223372036854775808}`, 400, "invalid_size"},
		{"huge size", `{"name":"a","size":99999999999999999999999999}`, 400, "invalid_size"},
		{"fractional size", `{"name":"a","size":1.5}`, 400, "invalid_size"},
		{"size with an exponent", `{"name":"a","size":1e3}`, 400, "invalid_size"},
		{"size as text", `{"name":"a","size":"1"}`, 400, "invalid_size"},
		{"over the limit", `{"name":"a","size":67108865}`, 413, "too_large"},
		{"one petabyte", `{"name":"a","size":1125899906842624}`, 413, "too_large"},
		{"the greatest size", `{"name":"a","size":9223372036854775807}`, 413, "too_large"},
		{"a field twice", `{"name":"a","size":1,"size":2}`, 400, "invalid_request"},
		{"a field in another case", `{"Name":"a","size":1}`, 400, "invalid_request"},
		{"two objects", `{"name":"a","size":1} {}`, 400, "invalid_request"},
		{"chunk size 0", `{"name":"a","size":1,"chunk_size":0}`, 400, "invalid_size"},
		{"negative chunk size", `{"name":"a","size":1,"chunk_size":-1}`, 400, "invalid_size"},
		{"overflowing chunk size", `{"name":"a","size":1,"chunk_size":9223372036854775808}`, 400, "invalid_size"},
		{"no name", `{"size":1}`, 400, "invalid_name"},
		{"empty name", `{"name":"","size":1}`, 400, "invalid_name"},
		{"name with ..", `{"name":"..","size":1}`, 400, "invalid_name"},
		{"name with ../", `{"name":"../../etc/passwd","size":1}`, 400, "invalid_name"},
		{"absolute name", `{"name":"/etc/passwd","size":1}`, 400, "invalid_name"},
		{"name with NUL", `{"name":"a\u0000b","size":1}`, 400, "invalid_name"},
		{"name with CRLF", `{"name":"a\r\nSet-Cookie: x","size":1}`, 400, "invalid_name"},
		{"name with DEL", `{"name":"a\u007f","size":1}`, 400, "invalid_name"},
		{"long name", `{"name":"` + strings.Repeat("a", 10<<10) + `","size":1}`, 400, "invalid_name"},
		{"path with ..", `{"name":"a","size":1,"path":"../x"}`, 400, "invalid_name"},
		{"absolute path", `{"name":"a","size":1,"path":"/x"}`, 400, "invalid_name"},
		{"path with an empty segment", `{"name":"a","size":1,"path":"a//b"}`, 400, "invalid_name"},
		{"long path", `{"name":"a","size":1,"path":"` + strings.Repeat("a/", 4<<10) + `a"}`, 400, "invalid_name"},
		{"content type with CRLF", `{"name":"a","size":1,"content_type":"text/html\r\nX: y"}`, 400, "invalid_name"},
		{"long content type", `{"name":"a","size":1,"content_type":"` + strings.Repeat("a", 256) + `"}`, 400, "invalid_name"},
		{"much metadata", `{"name":"a","size":1,"metadata":{"k":"` + strings.Repeat("v", 20<<10) + `"}}`, 400, "invalid_name"},
		{"metadata that is no text", `{"name":"a","size":1,"metadata":{"k":1}}`, 400, "invalid_request"},
		{"sha1 too short", `{"name":"a","size":1,"sha1":"ab"}`, 400, "invalid_request"},
		{"sha1 that is no hex", `{"name":"a","size":1,"sha1":"` + strings.Repeat("xy", 20) + `"}`, 400, "invalid_request"},
		{"unknown field", `{"name":"a","size":1,"owner":"admin"}`, 400, "invalid_request"},
		{"prototype field", `{"name":"a","size":1,"__proto__":{}}`, 400, "invalid_request"},
		{"not an object", `["name"]`, 400, "invalid_request"},
		{"two objects", `{"name":"a","size":1}{"name":"b","size":1}`, 400, "invalid_request"},
		{"rest after the object", `{"name":"a","size":1} x`, 400, "invalid_request"},
		{"broken JSON", `{"name":"a"`, 400, "invalid_request"},
		{"nothing", ``, 400, "invalid_request"},
		{"deep JSON", `{"metadata":` + strings.Repeat("[", 20_000), 400, "invalid_request"},
		{"deep JSON that ends", `{"name":"a","metadata":` + strings.Repeat("[", 20_000) + strings.Repeat("]", 20_000) + `}`, 400, "invalid_request"},
		{"large JSON", `{"name":"a","size":1,"metadata":{"k":"` + strings.Repeat("v", 64<<10) + `"}}`, 413, "too_large"},
		{"a file to replace that is not there", `{"name":"a","size":1,"replaces":"` + sum + `"}`, 404, "not_found"},
	} {
		n.json("POST", "/v1/uploads", c.body).want(t, c.status, c.code)
		n.unchanged(before, c.name)
	}
	const fine = `{"name":"a","size":1}`
	for _, c := range []struct {
		name   string
		header []string
		status int
		code   string
	}{
		{"no type", nil, 415, "unsupported_media_type"},
		{"form type", []string{"Content-Type: application/x-www-form-urlencoded"}, 415, "unsupported_media_type"},
		{"text type", []string{"Content-Type: text/plain"}, 415, "unsupported_media_type"},
		{"malformed type", []string{"Content-Type: application/json;;x"}, 415, "unsupported_media_type"},
		{"compressed", []string{"Content-Type: application/json", "Content-Encoding: gzip"}, 415, "unsupported_encoding"},
		{"long key", []string{"Content-Type: application/json", "Idempotency-Key: " + strings.Repeat("k", 256)}, 400, "invalid_request"},
	} {
		n.do("POST", "/v1/uploads", strings.NewReader(fine), c.header...).want(t, c.status, c.code)
		n.unchanged(before, c.name)
	}
	// A body that grows beyond the limit without saying so first.
	n.do("POST", "/v1/uploads", struct{ *bytes.Reader }{bytes.NewReader(bytes.Repeat([]byte(" "), 1<<20))}, "Content-Type: application/json").want(t, 413, "too_large")

	// A million chunks of one byte cannot be had: the server decides.
	o := n.init(object{"name": "a", "size": 1_000_000, "chunk_size": 1})
	if o.ChunkSize != upload.MinChunkSize {
		t.Errorf("chunks of %d bytes", o.ChunkSize)
	}
	// Names are data: these are odd, and fine.
	for _, name := range []string{`a\..\b`, "a\u202egpj.exe", "<img src=x onerror=alert(1)>", "CON", "a:b", "-rf", "$(reboot)", "%00", "..."} {
		n.init(object{"name": name, "size": 1})
	}
}

func TestAttacksOnJSONEverywhere(t *testing.T) {
	n := newNode(t, Options{})
	o := n.open(mib)
	file := n.storeFile("a", []byte("x"))
	before := n.things()
	large := `{"sha1":"` + strings.Repeat("a", maxProofJSON) + `"}`
	for _, path := range []string{"/v1/uploads/" + o.ID + "/complete", "/v1/uploads/" + o.ID + "/instant", "/v1/files/" + file.ID} {
		method := "POST"
		if strings.HasPrefix(path, "/v1/files") {
			method = "PATCH"
		}
		n.json(method, path, large).want(t, 413, "too_large")
		n.json(method, path, `{"x":1}`).want(t, 400, "invalid_request")
		n.json(method, path, `{`).want(t, 400, "invalid_request")
		n.json(method, path, `{} {}`).want(t, 400, "invalid_request")
		n.json(method, path, `[]`).want(t, 400, "invalid_request")
		n.json(method, path, strings.Repeat("[", 30_000)).want(t, 400, "invalid_request")
		n.json(method, path, `{}`, "Content-Encoding: br").want(t, 415, "unsupported_encoding")
		n.do(method, path, strings.NewReader(`{}`), "Content-Type: text/json").want(t, 415, "unsupported_media_type")
		n.unchanged(before, method+" "+path)
	}
	n.json("POST", "/v1/uploads/"+o.ID+"/complete", `{"size":-1}`).want(t, 400, "invalid_size")
	n.json("POST", "/v1/uploads/"+o.ID+"/complete", `{"size":9999999999999999999999}`).want(t, 400, "invalid_size")
	n.json("POST", "/v1/uploads/"+o.ID+"/complete", `{"sha1":"x"}`).want(t, 400, "invalid_request")
	n.unchanged(before, "complete")
}

func TestAttacksOnChunks(t *testing.T) {
	n := newNode(t, Options{})
	data := random(2*mib + 10)
	o := n.open(len(data))
	before := n.things()
	for _, index := range []string{"3", "-1", "10000", "99999999999999999999", "2147483648", "4294967296", "1.0", "0x0", "1e0", "+1", "%201", "a", "%00"} {
		n.do("PUT", "/v1/uploads/"+o.ID+"/chunks/"+index, bytes.NewReader(data[:mib])).want(t, 400, "invalid_chunk_index")
		n.unchanged(before, "index "+index)
		if !strings.Contains(index, "%") {
			n.do("PUT", "/v1/uploads/"+o.ID+"/chunks", bytes.NewReader(data[:mib]), "Chunk-Index: "+index).want(t, 400, "invalid_chunk_index")
		}
	}
	n.do("PUT", "/v1/uploads/"+o.ID+"/chunks", bytes.NewReader(data[:mib])).want(t, 400, "invalid_chunk_index")
	n.do("PUT", "/v1/uploads/"+o.ID+"/chunks", bytes.NewReader(data[:mib]), "Chunk-Index: 0", "Chunk-Index: 1").want(t, 400, "invalid_chunk_index")
	n.put(o.ID, 0, data[:mib], "Content-Encoding: identity", "Content-Encoding: gzip").want(t, 415, "unsupported_encoding")
	n.unchanged(before, "headers that are there twice")
	for _, c := range []struct {
		name   string
		index  int
		body   []byte
		header string
		status int
		code   string
	}{
		{"short", 0, data[:mib-1], "X: y", 400, "short_body"},
		{"empty", 0, nil, "X: y", 400, "short_body"},
		{"long", 0, data[:mib+1], "X: y", 413, "long_body"},
		{"last one long", 2, data[:11], "X: y", 413, "long_body"},
		{"last one short", 2, data[:9], "X: y", 400, "short_body"},
		{"wrong sha-256", 0, data[:mib], "Content-Digest: sha-256=:RK/0qy18MlBSVnWgjwz6lZEWjP/lF5HF9bvEF8FabDg=:", 422, "digest_mismatch"},
		{"wrong crc32c", 0, data[:mib], "Content-Digest: crc32c=:AAAAAA==:", 422, "digest_mismatch"},
		{"malformed digest", 0, data[:mib], "Content-Digest: sha-256=RK", 400, "invalid_request"},
		{"gzip", 0, data[:mib], "Content-Encoding: gzip", 415, "unsupported_encoding"},
		{"gzip twice", 0, data[:mib], "Content-Encoding: identity, gzip", 415, "unsupported_encoding"},
	} {
		for _, call := range []func() answered{
			func() answered { return n.put(o.ID, c.index, c.body, c.header) },
			func() answered {
				return n.do("PUT", "/v1/uploads/"+o.ID+"/chunks", bytes.NewReader(c.body), c.header, "Chunk-Index: "+fmt.Sprint(c.index))
			},
		} {
			call().want(t, c.status, c.code)
			n.unchanged(before, c.name)
		}
	}
	for _, path := range []string{"/chunks/0", "/chunks"} {
		// Transfer-Encoding: chunked, to dodge a limit.
		a := n.do("PUT", "/v1/uploads/"+o.ID+path, struct{ *bytes.Reader }{bytes.NewReader(data[:mib])}, "Chunk-Index: 0").want(t, 411, "length_required")
		if !a.last {
			t.Error("the connection is kept after Transfer-Encoding")
		}
		n.unchanged(before, "no length")
	}
	a := n.do("POST", "/v1/files?name=a", struct{ *bytes.Reader }{bytes.NewReader(data)}).want(t, 411, "length_required")
	if !a.last {
		t.Error("the connection is kept after Transfer-Encoding")
	}
	n.do("POST", "/v1/files?name=a", bytes.NewReader(data), "Content-Encoding: gzip").want(t, 415, "unsupported_encoding")
	conn := dial(t, n.addr)
	conn.send("%s", call{method: "POST", path: "/v1/files?name=a"}.head(testMaxSize+1, "Expect: 100-continue"))
	conn.answer("POST", "/v1/files").want(t, 413, "too_large") // at once: no byte is wanted
	n.unchanged(before, "whole files")

	n.put(o.ID, 0, data[:mib]).want(t, 204, "")
	before = n.things()
	n.put(o.ID, 0, data[1:mib+1]).want(t, 409, "chunk_conflict")
	n.do("PUT", "/v1/uploads/"+o.ID+"/chunks", bytes.NewReader(data[1:mib+1]), "Chunk-Index: 0").want(t, 409, "chunk_conflict")
	n.unchanged(before, "other bytes")
	n.do("DELETE", "/v1/uploads/"+o.ID, nil).want(t, 204, "")
	n.put(o.ID, 1, data[mib:2*mib]).want(t, 409, "not_open")
	n.do("PUT", "/v1/uploads/"+o.ID+"/chunks", bytes.NewReader(data[mib:2*mib]), "Chunk-Index: 1").want(t, 409, "not_open")
	if got := n.things(); len(got.Staging) > 0 || len(got.Uploads) > 0 {
		t.Errorf("after cancel there is %+v", got)
	}
}

func TestAttacksOnInstantUpload(t *testing.T) {
	n := newNode(t, Options{})
	data := random(2 * mib)
	n.storeFile("secret", data)
	n.transfer()
	sum := sha1Hex(data)
	const carryOn = `{"status":"continue"}` + "\n"

	// Probing: a challenge for content that is here looks like one for content that is not.
	here, elsewhere := n.open(len(data)), n.open(len(data))
	a := n.json("POST", "/v1/uploads/"+here.ID+"/instant", `{"sha1":"`+sum+`"}`).want(t, 200, "")
	b := n.json("POST", "/v1/uploads/"+elsewhere.ID+"/instant", `{"sha1":"`+sha1Hex(nil)+`"}`).want(t, 200, "")
	real, decoy := decodeJSON[opened](t, a.body), decodeJSON[opened](t, b.body)
	if len(real.Challenge.Leaves) != len(decoy.Challenge.Leaves) || len(real.Challenge.ID) != len(decoy.Challenge.ID) {
		t.Errorf("a decoy looks different: %s and %s", a.body, b.body)
	}
	before := n.things()
	right := prove(t, real, data)
	other := random(2 * mib)
	for name, body := range map[string]string{
		"a proof from other bytes": strings.Replace(prove(t, real, other), sha1Hex(other), sum, 1),
		"no leaves":                `{"sha1":"` + sum + `","proof":{"challenge":"` + decoy.Challenge.ID + `","leaves":[]}}`,
		"unknown challenge":        `{"sha1":"` + sum + `","proof":{"challenge":"x","leaves":[]}}`,
	} {
		if a := n.json("POST", "/v1/uploads/"+here.ID+"/instant", body).want(t, 200, ""); a.body != carryOn {
			t.Errorf("%s: %s", name, a.body)
		}
		n.unchanged(before, name)
	}
	if a := n.json("POST", "/v1/uploads/"+here.ID+"/instant", right).want(t, 200, ""); a.body != carryOn {
		t.Errorf("a challenge was answered twice: %s", a.body)
	}
	// A challenge belongs to one upload.
	c := decodeJSON[opened](t, n.json("POST", "/v1/uploads/"+here.ID+"/instant", `{"sha1":"`+sum+`"}`).body)
	if a := n.json("POST", "/v1/uploads/"+elsewhere.ID+"/instant", prove(t, c, data)).want(t, 200, ""); a.body != carryOn {
		t.Errorf("a challenge of another upload was taken: %s", a.body)
	}
	n.unchanged(before, "a borrowed challenge")
	for name, body := range map[string]string{
		"too many leaves":      `{"sha1":"` + sum + `","proof":{"challenge":"x","leaves":[` + strings.TrimSuffix(strings.Repeat(`{"index":0,"data":"","path":""},`, 33), ",") + `]}}`,
		"a path of 31 bytes":   `{"sha1":"` + sum + `","proof":{"challenge":"x","leaves":[{"index":0,"data":"","path":"` + strings.Repeat("A", 40) + `"}]}}`,
		"data that is no text": `{"sha1":"` + sum + `","proof":{"challenge":"x","leaves":[{"index":0,"data":1}]}}`,
		"index too large":      `{"sha1":"` + sum + `","proof":{"challenge":"x","leaves":[{"index":99999999999999999999}]}}`,
		"proof that is text":   `{"sha1":"` + sum + `","proof":"x"}`,
		"an unknown field":     `{"sha1":"` + sum + `","proof":{"challenge":"x","leaves":[],"root":"x"}}`,
		"no sha1":              `{"proof":{"challenge":"x","leaves":[]}}`,
	} {
		n.json("POST", "/v1/uploads/"+here.ID+"/instant", body).want(t, 400, "invalid_request")
		n.unchanged(before, name)
	}
}

func TestAttacksOnDownloads(t *testing.T) {
	n := newNode(t, Options{})
	html := "<script>alert(document.domain)</script>"
	file := decodeJSON[fileJSON](t, n.do("POST", "/v1/files?name=x%22%3B%20filename%3Devil.html", strings.NewReader(html), "Content-Type: text/html").body)
	a := n.do("GET", "/v1/files/"+file.ID+"/content", nil).want(t, 200, "")
	if got := a.header.Get("Content-Disposition"); !strings.HasPrefix(got, `attachment; filename="x_; filename=evil.html"; filename*=`) {
		t.Errorf("Content-Disposition: %s", got)
	}
	if csp := a.header.Get("Content-Security-Policy"); !strings.Contains(csp, "sandbox") || !strings.Contains(csp, "default-src 'none'") {
		t.Errorf("Content-Security-Policy: %s", csp)
	}
	path := "/v1/files/" + n.storeFile("b", random(100)).ID + "/content"
	for _, r := range []string{
		"bytes=" + strings.TrimSuffix(strings.Repeat("0-0,", 9), ","), "bytes=" + strings.Repeat("0-,", 5000) + "0-",
		"bytes=-", "bytes=a-", "bytes=9-1", "bytes=100-", "bytes=-0", "bytes=99999999999999999999-",
	} {
		n.do("GET", path, nil, "Range: "+r).want(t, 416, "range_not_satisfiable")
	}
	if a := n.do("GET", path, nil, "Range: bytes=0-,0-,0-").want(t, 200, ""); len(a.body) != 100 {
		t.Errorf("overlapping ranges gave %d bytes", len(a.body))
	}
}

// Nobody gets at files beside those that the server made, or has the janitor follow a link.
func TestAttacksOnTheDataDirectory(t *testing.T) {
	n := newNode(t, Options{})
	outside := filepath.Join(t.TempDir(), "precious")
	if err := os.WriteFile(outside, []byte("precious"), 0o600); err != nil {
		t.Fatal(err)
	}
	o := n.open(10)
	for _, name := range []string{o.ID + ".evil", "n1-" + strings.Repeat("0", 26) + ".data", "link"} {
		if err := os.Symlink(outside, filepath.Join(n.dir, "staging", name)); err != nil {
			t.Fatal(err)
		}
	}
	n.do("DELETE", "/v1/uploads/"+o.ID, nil).want(t, 204, "")
	n.clock.advance(30 * 24 * time.Hour)
	for name, clean := range map[string]func(context.Context) error{"clean": n.service.Clean, "sweep": n.service.Sweep, "recover": n.service.Recover} {
		if err := clean(t.Context()); err != nil {
			t.Logf("%s: %v", name, err)
		}
	}
	if text, err := os.ReadFile(outside); err != nil || string(text) != "precious" {
		t.Errorf("the file outside: %q, %v", text, err)
	}
}

// Memory for many slow uploads is buffers, not chunks.
func TestManyStalledChunksCostLittle(t *testing.T) {
	n := newNode(t, Options{})
	data := random(64 << 20)[:mib-1]
	o := n.init(object{"name": "a", "size": 60 * mib, "chunk_size": mib})
	before := runtime.NumGoroutine()
	var conns []*rawConn
	for i := range 60 {
		conn := dial(t, n.addr)
		conn.send("PUT /v1/uploads/%s/chunks/%d HTTP/1.1\r\nHost: localhost\r\nContent-Length: %d\r\n\r\n", o.ID, i, mib)
		if _, err := conn.Write(data); err != nil { // all but the last byte
			t.Fatal(err)
		}
		conns = append(conns, conn)
	}
	perUpload := (runtime.NumGoroutine() - before) / len(conns)
	if perUpload > 4 {
		t.Errorf("%d goroutines for each stalled chunk", perUpload)
	}
	for _, conn := range conns {
		_ = conn.Close()
	}
	for deadline := time.Now().Add(testWait); runtime.NumGoroutine() > before+5; time.Sleep(time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("%d goroutines, %d before", runtime.NumGoroutine(), before)
		}
	}
	if u, err := n.staging.Get(o.ID); err != nil || u.Received.Len() != 0 {
		t.Errorf("acknowledged: %d, %v", u.Received.Len(), err)
	}
}

func TestSlowHeadersAndBodiesAgainstTheRealNode(t *testing.T) {
	n := newNode(t, Options{Window: testWindow})
	o := n.open(10)
	before := n.things()
	for _, path := range []string{"/v1/uploads/" + o.ID + "/chunks/0", "/v1/files?name=a"} {
		method := "PUT"
		if strings.HasPrefix(path, "/v1/files") {
			method = "POST"
		}
		conn := dial(t, n.addr)
		conn.send("%s %s HTTP/1.1\r\nHost: localhost\r\nContent-Length: 10\r\n\r\n012", method, path)
		address, _, _ := strings.Cut(path, "?")
		conn.answer(method, address).want(t, http.StatusRequestTimeout, "timeout")
		conn.closed()
		n.unchanged(before, "a slow body")
	}
	n.put(o.ID, 0, []byte("0123456789")).want(t, 204, "")
}
