package server

import (
	"bytes"
	"crypto/sha256"
	"encoding/base64"
	"errors"
	"fmt"
	"io"
	"mime"
	"mime/multipart"
	"net/textproto"
	"strings"
	"testing"

	"gantry/chunkstore"
	"gantry/server/ingest"
	"gantry/upload"
)

func TestPostFile(t *testing.T) {
	n := newNode(t, Options{})
	data := random(100_000)
	sum := sha256.Sum256(data)
	digest := "Content-Digest: sha-256=:" + base64.StdEncoding.EncodeToString(sum[:]) + ":"
	a := n.do("POST", "/v1/files?name=b%C3%BC.pdf&path=x/y&sha1="+sha1Hex(data), bytes.NewReader(data), "Content-Type: application/pdf", digest).want(t, 201, "")
	file := decodeJSON[fileJSON](t, a.body)
	if file.Name != "bü.pdf" || file.Path != "x/y" || file.ContentType != "application/pdf" || file.Size != 100_000 || a.header.Get("Location") != "/v1/files/"+file.ID {
		t.Errorf("file: %s", a.body)
	}
	if got := decodeJSON[fileJSON](t, n.do("GET", "/v1/files/"+file.ID, nil).want(t, 200, "").body); toJSON(got) != toJSON(file) {
		t.Errorf("file again: %+v", got)
	}
	n.do("GET", "/v1/files/"+file.ID+"/transfer", nil).want(t, 200, "")

	before := n.things()
	n.do("POST", "/v1/files?name=a", bytes.NewReader(data[1:]), digest).want(t, 422, "digest_mismatch")
	n.do("POST", "/v1/files?name=a&sha1="+sha1Hex(nil), bytes.NewReader(data)).want(t, 422, "digest_mismatch")
	n.do("POST", "/v1/files?name=a&sha1=xyz", bytes.NewReader(data)).want(t, 400, "invalid_request")
	n.do("POST", "/v1/files", bytes.NewReader(data)).want(t, 400, "invalid_name")
	n.do("POST", "/v1/files?name=a&replaces=nothing", bytes.NewReader(data)).want(t, 404, "not_found")
	n.unchanged(before, "failed requests")

	key := "Idempotency-Key: k1"
	one := n.do("POST", "/v1/files?name=k", bytes.NewReader(data), key).want(t, 201, "")
	if again := n.do("POST", "/v1/files?name=k", bytes.NewReader(data), key).want(t, 201, ""); decodeJSON[fileJSON](t, again.body).ID != decodeJSON[fileJSON](t, one.body).ID {
		t.Errorf("repeated: %s, first %s", again.body, one.body)
	}
	n.do("POST", "/v1/files?name=other", bytes.NewReader(data), key).want(t, 422, "idempotency_key_reused")

	a = n.do("POST", "/v1/files?name=new&replaces="+file.ID, strings.NewReader("new")).want(t, 201, "")
	if got := decodeJSON[fileJSON](t, a.body); got.ID != file.ID {
		t.Errorf("replaced: %s", a.body)
	}
	if got := n.do("GET", "/v1/files/"+file.ID+"/content", nil); got.body != "new" {
		t.Errorf("the new content is %q", got.body)
	}
}

// form builds multipart/form-data from "filename" → content, in order.
func form(parts ...[2]string) (body, contentType string) {
	var buf bytes.Buffer
	w := multipart.NewWriter(&buf)
	for i, p := range parts {
		h := textproto.MIMEHeader{}
		h.Set("Content-Disposition", mime.FormatMediaType("form-data", map[string]string{"name": fmt.Sprintf("f%d", i), "filename": p[0]}))
		h.Set("Content-Type", "text/plain")
		part, _ := w.CreatePart(h)
		_, _ = io.WriteString(part, p[1])
	}
	_ = w.Close()
	return buf.String(), w.FormDataContentType()
}

func TestPostForm(t *testing.T) {
	n := newNode(t, Options{MaxParts: 3})
	body, kind := form([2]string{"a.txt", "first"}, [2]string{"dir/b.txt", "second"})
	a := n.do("POST", "/v1/files?path=p", strings.NewReader(body), "Content-Type: "+kind).want(t, 201, "")
	files := decodeJSON[[]fileJSON](t, a.body)
	if len(files) != 2 || files[0].Name != "a.txt" || files[1].Name != "b.txt" || files[1].Path != "p" || files[1].ContentType != "text/plain" || files[1].Size != 6 {
		t.Fatalf("files: %s", a.body)
	}
	if got := n.do("GET", "/v1/files/"+files[1].ID+"/content", nil); got.body != "second" {
		t.Errorf("content: %q", got.body)
	}

	// Transfer-Encoding: chunked is fine here: each file is bounded by itself.
	a = n.do("POST", "/v1/files", io.MultiReader(strings.NewReader(body)), "Content-Type: "+kind, "Idempotency-Key: form-1").want(t, 201, "")
	again := n.do("POST", "/v1/files", strings.NewReader(body), "Content-Type: "+kind, "Idempotency-Key: form-1").want(t, 201, "")
	if decodeJSON[[]fileJSON](t, a.body)[1].ID != decodeJSON[[]fileJSON](t, again.body)[1].ID {
		t.Errorf("repeated form: %s, first %s", again.body, a.body)
	}

	// What a browser sends for a form with a field and an input left empty.
	text := "--b\r\nContent-Disposition: form-data; name=\"note\"\r\n\r\nhello\r\n" +
		"--b\r\nContent-Disposition: form-data; name=\"f\"; filename=\"\"\r\nContent-Type: application/octet-stream\r\n\r\n\r\n" +
		"--b\r\nContent-Disposition: form-data; name=\"f\"; filename=\"x.html\"\r\nContent-Type: text/html\r\nContent-Transfer-Encoding: binary\r\n\r\n<b>\r\n--b--\r\n"
	a = n.do("POST", "/v1/files", strings.NewReader(text), "Content-Type: multipart/form-data; boundary=b").want(t, 201, "")
	if files := decodeJSON[[]fileJSON](t, a.body); len(files) != 1 || files[0].Name != "x.html" || files[0].Size != 3 {
		t.Errorf("files: %s", a.body)
	}

	before := n.things()
	part := func(head, content string) string {
		return "--b\r\nContent-Disposition: form-data; name=\"f\"; filename=\"x\"\r\n" + head + "\r\n" + content + "\r\n--b--\r\n"
	}
	for _, c := range []struct {
		name, body, query, header string
		status                    int
		code                      string
	}{
		{"no file", "--b\r\nContent-Disposition: form-data; name=\"x\"\r\n\r\n1\r\n--b--\r\n", "", "", 400, "invalid_request"},
		{"empty body", "", "", "", 400, "invalid_request"},
		{"no last boundary", "--b\r\nContent-Disposition: form-data; name=\"f\"; filename=\"x\"\r\n\r\nabc", "", "", 400, "short_body"},
		{"no boundary in it", strings.Repeat("x", 1000), "", "", 400, "invalid_request"},
		{"endless headers", "--b\r\n" + strings.Repeat("X: y\r\n", 50_000), "", "", 400, "invalid_request"},
		{"one long header", "--b\r\nX: " + strings.Repeat("y", 1<<20), "", "", 400, "invalid_request"},
		{"a long field", "--b\r\nContent-Disposition: form-data; name=\"x\"\r\n\r\n" + strings.Repeat("y", 1<<20) + "\r\n--b--\r\n", "", "", 400, "invalid_request"},
		{"a name for all", part("", "x"), "?name=a", "", 400, "invalid_request"},
		{"a digest for all", part("", "x"), "", "Content-Digest: crc32c=:AAAAAA==:", 400, "invalid_request"},
		{"a part's digest is checked", part("Content-Digest: crc32c=:AAAAAA==:\r\n", "x"), "", "", 422, "digest_mismatch"},
		{"a part's digest is malformed", part("Content-Digest: nonsense\r\n", "x"), "", "", 400, "invalid_request"},
		{"an encoded part", part("Content-Encoding: gzip\r\n", "x"), "", "", 415, "unsupported_encoding"},
		{"a base64 part", part("Content-Transfer-Encoding: base64\r\n", "eA=="), "", "", 415, "unsupported_encoding"},
		{"an encoded form", part("", "x"), "", "Content-Encoding: gzip", 415, "unsupported_encoding"},
		{"a file over the limit", part("", strings.Repeat("x", testMaxSize+1)), "", "", 413, "too_large"},
	} {
		headers := []string{"Content-Type: multipart/form-data; boundary=b"}
		if c.header != "" {
			headers = append(headers, c.header)
		}
		n.do("POST", "/v1/files"+c.query, strings.NewReader(c.body), headers...).want(t, c.status, c.code)
		n.unchanged(before, c.name)
	}
	for kind, code := range map[string]string{
		"multipart/mixed; boundary=b": "unsupported_media_type", "multipart/form-data": "invalid_request", "multipart/form-data; boundary=": "invalid_request",
		"multipart/form-data; boundary=" + strings.Repeat("b", 71): "invalid_request", "Multipart/Form-Data; x": "invalid_request",
	} {
		status := 400
		if code == "unsupported_media_type" {
			status = 415
		}
		n.do("POST", "/v1/files", strings.NewReader(part("", "x")), "Content-Type: "+kind).want(t, status, code)
		n.unchanged(before, kind)
	}

	// The first failure ends the request; what was stored by then is named and stays.
	body, kind = form([2]string{"ok1", "1"}, [2]string{"ok2", "2"}, [2]string{"bad\x01", "3"}, [2]string{"never", "4"})
	a = n.do("POST", "/v1/files", strings.NewReader(body), "Content-Type: "+kind).want(t, 400, "invalid_name")
	stored := decodeJSON[problem](t, a.body).Files
	if len(stored) != 2 || stored[0].Name != "ok1" || stored[1].Name != "ok2" {
		t.Errorf("stored: %s", a.body)
	}
	for _, f := range stored {
		n.do("GET", "/v1/files/"+f.ID+"/content", nil).want(t, 200, "")
	}
	body, kind = form([2]string{"1", ""}, [2]string{"2", ""}, [2]string{"3", ""}, [2]string{"4", ""})
	a = n.do("POST", "/v1/files", strings.NewReader(body), "Content-Type: "+kind).want(t, 400, "invalid_request")
	if got := len(decodeJSON[problem](t, a.body).Files); got != 3 {
		t.Errorf("%d files of a form with too many", got)
	}
}

func FuzzFormName(f *testing.F) {
	for _, s := range []string{"a.txt", "../../etc/passwd", "a\x00b", `C:\x`, "a\"; filename=\"b", "", "..", "a/", strings.Repeat("n", 3000)} {
		f.Add(s, "text/plain", []byte("content\r\n--b"))
	}
	st := &stub{putFile: func(r ingest.FileRequest, body chunkstore.Body) (upload.File, error) {
		if _, err := io.Copy(io.Discard, body); err != nil {
			return upload.File{}, err
		}
		if strings.ContainsRune(r.Name, '/') {
			f.Errorf("the name %q has a slash", r.Name)
		}
		return upload.File{Name: r.Name}, errors.Join(upload.CheckName(r.Name), upload.CheckContentType(r.ContentType))
	}}
	client := serveHandler(f, New(st, Options{}).Handler())
	f.Fuzz(func(t *testing.T, name, kind string, content []byte) {
		body := "--b\r\nContent-Disposition: form-data; name=\"f\"; filename=\"" + name + "\"\r\nContent-Type: " + kind + "\r\n\r\n" + string(content) + "\r\n--b--\r\n"
		a := client.with(t).do("POST", "/v1/files", strings.NewReader(body), "Content-Type: multipart/form-data; boundary=b")
		if a.status != 201 && a.status != 400 && a.status != 415 {
			t.Errorf("answered %d %s", a.status, a.body)
		}
	})
}

func TestListFiles(t *testing.T) {
	n := newNode(t, Options{})
	for i, name := range []string{"c.txt", "a.txt", "B.TXT", "d.pdf", "e%20%25_.txt"} {
		n.do("POST", fmt.Sprintf("/v1/files?name=%s&path=%s", name, []string{"", "x"}[i%2]), strings.NewReader(strings.Repeat("x", i))).want(t, 201, "")
		n.clock.advance(1e9)
	}
	list := func(query string) string {
		var names []string
		cursor := ""
		for {
			page := decodeJSON[listJSON[fileJSON]](t, n.do("GET", "/v1/files?limit=2&"+query+cursor, nil).want(t, 200, "").body)
			for _, f := range page.Items {
				names = append(names, f.Name)
			}
			if page.NextCursor == nil {
				return strings.Join(names, " ")
			}
			cursor = "&cursor=" + *page.NextCursor
		}
	}
	for query, want := range map[string]string{
		"":                          "e %_.txt d.pdf B.TXT a.txt c.txt",
		"sort=created_at":           "c.txt a.txt B.TXT d.pdf e %_.txt",
		"sort=-size":                "e %_.txt d.pdf B.TXT a.txt c.txt",
		"sort=size&name=txt":        "c.txt a.txt B.TXT e %_.txt",
		"path=x":                    "d.pdf a.txt",
		"path=":                     "e %_.txt B.TXT c.txt",
		"name=%25":                  "e %_.txt",
		"name=nothing":              "",
		"name='%20OR%201%3D1%20--":  "",
		"sort=name&path=x":          "a.txt d.pdf",
		"sort=-name&path=x&name=.p": "d.pdf",
	} {
		if got := list(query); got != want {
			t.Errorf("%s: %s, want %s", query, got, want)
		}
	}
	for _, sort := range []string{"x", "-", "--name", "sha1", "name;drop"} {
		n.do("GET", "/v1/files?sort="+sort, nil).want(t, 400, "invalid_request")
	}
	for _, long := range []string{"name=" + strings.Repeat("_", 1025), "name=" + strings.Repeat("_", 30_000), "path=" + strings.Repeat("x", 4097)} {
		n.do("GET", "/v1/files?"+long, nil).want(t, 400, "invalid_request")
	}
	n.do("GET", "/v1/files?name="+strings.Repeat("_", 1024)+"&path="+strings.Repeat("x", 4096), nil).want(t, 200, "")
	n.do("GET", "/v1/files?sort=size&cursor=eyJzIjoibmFtZSIsImkiOiJ4In0", nil).want(t, 400, "invalid_request")
}

func TestUpdateAndDeleteFile(t *testing.T) {
	n := newNode(t, Options{})
	file := n.storeFile("a.txt", []byte("abc"))
	path := "/v1/files/" + file.ID
	a := n.json("PATCH", path, `{"name":"b.txt","path":"x/y","metadata":{"k":"v"}}`).want(t, 200, "")
	got := decodeJSON[fileJSON](t, a.body)
	if got.Name != "b.txt" || got.Path != "x/y" || got.Metadata["k"] != "v" || got.ID != file.ID {
		t.Errorf("changed: %s", a.body)
	}
	if a := n.json("PATCH", path, `{"path":""}`).want(t, 200, ""); !strings.Contains(a.body, `"name":"b.txt","path":""`) {
		t.Errorf("changed: %s", a.body)
	}
	n.json("PATCH", path, `{"name":"a/b"}`).want(t, 400, "invalid_name")
	n.json("PATCH", path, `{"size":1}`).want(t, 400, "invalid_request")
	if a := n.do("GET", path+"/content", nil); !strings.Contains(a.header.Get("Content-Disposition"), `"b.txt"`) {
		t.Errorf("Content-Disposition: %v", a.header)
	}
	n.do("DELETE", path, nil).want(t, 204, "")
	for _, x := range []call{
		{"GET", path, "", ""},
		{"DELETE", path, "", ""},
		{"GET", path + "/content", "", ""},
		{"HEAD", path + "/content", "", ""},
		{"GET", path + "/transfer", "", ""},
		{"PATCH", path, "{}", "application/json"},
	} {
		n.call(x).want(t, 404, codeOf(x.method, upload.NotFound))
	}
}

func TestDownload(t *testing.T) {
	n := newNode(t, Options{})
	data := random(300_000)
	file := n.storeFile("bericht.pdf", data)
	path := "/v1/files/" + file.ID + "/content"
	check := func(where string) {
		a := n.do("GET", path, nil).want(t, 200, "")
		if a.body != string(data) {
			t.Errorf("%s: the content differs", where)
		}
		etag := a.header.Get("ETag")
		for name, want := range map[string]string{
			"Content-Disposition": `attachment; filename="bericht.pdf"`, "Content-Length": "300000", "Content-Type": "text/plain", "Accept-Ranges": "bytes",
			"Cache-Control": "private, no-cache", "Content-Security-Policy": "sandbox; default-src 'none'; frame-ancestors 'none'",
		} {
			if got := a.header.Get(name); got != want {
				t.Errorf("%s: %s is %q, want %q", where, name, got, want)
			}
		}
		head := n.do("HEAD", path, nil, "Range: bytes=0-1").want(t, 200, "")
		for _, name := range []string{"ETag", "Content-Length", "Content-Type", "Content-Disposition", "Last-Modified", "Repr-Digest", "Accept-Ranges"} {
			if head.header.Get(name) != a.header.Get(name) {
				t.Errorf("%s: HEAD has %s: %q, GET %q", where, name, head.header.Get(name), a.header.Get(name))
			}
		}
		n.do("GET", path, nil, "If-None-Match: "+etag).want(t, 304, "")
		n.do("HEAD", path, nil, "If-None-Match: "+etag).want(t, 304, "")
		n.do("GET", path, nil, `If-Match: "x"`).want(t, 412, "precondition_failed")
		n.do("HEAD", path, nil, `If-Match: "x"`).want(t, 412, "")
		one := n.do("GET", path, nil, "Range: bytes=200000-200009", "If-Range: "+etag).want(t, 206, "")
		if one.body != string(data[200000:200010]) || one.header.Get("Content-Range") != "bytes 200000-200009/300000" {
			t.Errorf("%s: range: %d bytes, %v", where, len(one.body), one.header)
		}
		n.do("GET", path, nil, "Range: bytes=0-1", `If-Range: "x"`).want(t, 200, "")
		bad := n.do("GET", path, nil, "Range: bytes=300000-").want(t, 416, "range_not_satisfiable")
		if bad.header.Get("Content-Range") != "bytes */300000" {
			t.Errorf("%s: 416: %v", where, bad.header)
		}
		several := n.do("GET", path, nil, "Range: bytes=0-9,150000-299999,-5").want(t, 206, "")
		_, params, err := mime.ParseMediaType(several.header.Get("Content-Type"))
		if err != nil {
			t.Fatal(err)
		}
		if several.header.Get("Content-Length") != fmt.Sprint(len(several.body)) {
			t.Errorf("%s: Content-Length %s, %d bytes", where, several.header.Get("Content-Length"), len(several.body))
		}
		parts := multipart.NewReader(strings.NewReader(several.body), params["boundary"])
		for _, want := range []span{{0, 10}, {150_000, 150_000}, {299_995, 5}} {
			part, err := parts.NextPart()
			if err != nil {
				t.Fatal(err)
			}
			got, _ := io.ReadAll(part)
			if !bytes.Equal(got, data[want.offset:want.offset+want.length]) || part.Header.Get("Content-Range") != want.contentRange(300_000) || part.Header.Get("Content-Type") != "text/plain" {
				t.Errorf("%s: part %v: %d bytes, %v", where, want, len(got), part.Header)
			}
		}
		if _, err := parts.NextPart(); !errors.Is(err, io.EOF) {
			t.Errorf("%s: after the last part: %v", where, err)
		}
	}
	check("from staging")
	n.transfer()
	blobs, err := n.db.Blobs(t.Context(), "", 10)
	if err != nil || len(blobs) != 1 {
		t.Fatal(blobs, err)
	}
	if err := errors.Join(n.db.StagingDropped(t.Context(), blobs[0].ID), n.staging.Discard(t.Context(), blobs[0].Staging)); err != nil {
		t.Fatal(err)
	}
	if got := decodeJSON[fileJSON](t, n.do("GET", "/v1/files/"+file.ID, nil).body); got.Location != "store" {
		t.Errorf("location: %s", got.Location)
	}
	check("from the store")

	if err := n.db.MarkLost(t.Context(), blobs[0].ID, "a test", n.clock.Now()); err != nil {
		t.Fatal(err)
	}
	n.do("GET", path, nil).want(t, 410, "gone")
	n.do("HEAD", path, nil).want(t, 410, "")
	if got := decodeJSON[fileJSON](t, n.do("GET", "/v1/files/"+file.ID, nil).want(t, 200, "").body); got.Location != "lost" {
		t.Errorf("location: %s", got.Location)
	}
}

func TestTwinsHaveTheirOwnETags(t *testing.T) {
	// An ETag made of the SHA-1 would be the same for the two files of a SHA-1 collision.
	n := newNode(t, Options{})
	seen := map[string]bool{}
	for range 2 {
		file := n.storeFile("a", []byte("one SHA-1, two blobs"))
		etag := n.do("HEAD", "/v1/files/"+file.ID+"/content", nil).want(t, 200, "").header.Get("ETag")
		if seen[etag] {
			t.Errorf("two blobs have the ETag %s", etag)
		}
		seen[etag] = true
	}
}
