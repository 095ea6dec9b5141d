package oss

import (
	"bytes"
	"crypto/md5"
	"encoding/hex"
	"errors"
	"io"
	"net/http"
	"strings"
	"testing"
	"time"

	"gantry/store"
	"gantry/store/oss/osstest"
	"gantry/store/storetest"
	"gantry/upload"
)

func md5Of(body []byte) string {
	sum := md5.Sum(body)
	return `"` + strings.ToUpper(hex.EncodeToString(sum[:])) + `"`
}

// fetch is what a client does that knows nothing of OSS.
func fetch(t *testing.T, method, url string, body []byte, headers ...string) (status int, header http.Header, answer []byte) {
	t.Helper()
	r, err := http.NewRequestWithContext(t.Context(), method, url, bytes.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	for i := 0; i < len(headers); i += 2 {
		r.Header.Set(headers[i], headers[i+1])
	}
	resp, err := (&http.Client{Transport: http.DefaultTransport}).Do(r)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	answer, err = io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	return resp.StatusCode, resp.Header, answer
}

// A presigned URL serves the object with the name and type that it says, for as long as it says, and no other object.
func TestPresign(t *testing.T) {
	for _, signature := range signatures {
		now := time.Now()
		opt := serveAs(t, signature, osstest.Options{AccessKey: "k", SecretKey: "s", Now: func() time.Time { return now }})
		s := open(t, opt)
		data := storetest.Bytes(1, 2<<20+1)
		key := storetest.Key(data, "a")
		if err := s.Put(t.Context(), key, bytes.NewReader(data), store.PutOptions{}); err != nil {
			t.Fatal(err)
		}
		disposition := `attachment; filename="a b.txt"; filename*=UTF-8''%E6%96%87%20%2B.txt`
		u, err := s.Presign(t.Context(), key, store.PresignOptions{Expires: time.Minute, ContentType: "text/x-test; charset=utf-8", Disposition: disposition})
		if err != nil {
			t.Fatal(err)
		}
		status, header, body := fetch(t, http.MethodGet, u.String(), nil)
		if status != http.StatusOK || !bytes.Equal(body, data) {
			t.Errorf("%s: %d, %d bytes", signature, status, len(body))
		}
		if got := header.Get("Content-Type"); got != "text/x-test; charset=utf-8" {
			t.Errorf("the type is %q", got)
		}
		if got := header.Get("Content-Disposition"); got != disposition {
			t.Errorf("the disposition is %q", got)
		}
		status, header, body = fetch(t, http.MethodGet, u.String(), nil, "Range", "bytes=100-199")
		if status != http.StatusPartialContent || !bytes.Equal(body, data[100:200]) || header.Get("Content-Range") != "bytes 100-199/2097153" {
			t.Errorf("a range: %d, %d bytes, %s", status, len(body), header.Get("Content-Range"))
		}
		for name, other := range map[string]string{
			"object": strings.Replace(u.String(), "-a?", "-b?", 1),
			"type":   strings.Replace(u.String(), "x-test", "html", 1),
			"name":   strings.Replace(u.String(), "a%20b", "evil", 1),
		} {
			if other == u.String() {
				t.Fatalf("%s: nothing was changed in %s", name, other)
			}
			if status, _, _ := fetch(t, http.MethodGet, other, nil); status != http.StatusForbidden {
				t.Errorf("%s: with another %s: %d", signature, name, status)
			}
		}
		if status, _, _ := fetch(t, http.MethodDelete, u.String(), nil); status != http.StatusForbidden {
			t.Errorf("%s: with another method: %d", signature, status)
		}
		now = now.Add(62 * time.Second)
		if status, _, body := fetch(t, http.MethodGet, u.String(), nil); status != http.StatusForbidden || !bytes.Contains(body, []byte("expired")) {
			t.Errorf("%s: after its time: %d %s", signature, status, body)
		}
		for _, expires := range []time.Duration{0, time.Second - 1, -time.Hour, longest + time.Second} {
			if u, err := s.Presign(t.Context(), key, store.PresignOptions{Expires: expires}); !errors.Is(err, upload.Invalid) {
				t.Errorf("good for %v: %v, %v", expires, u, err)
			}
		}
		if _, err := s.Presign(t.Context(), "../a", store.PresignOptions{Expires: time.Minute}); !errors.Is(err, upload.Invalid) {
			t.Errorf("a bad key: %v", err)
		}
	}
}

// A client sends the parts by itself.
func TestDirect(t *testing.T) {
	for _, signature := range signatures {
		s := open(t, serve(t, signature))
		direct, ctx := s.Direct(), t.Context()
		least, largest, most := direct.PartLimits()
		if least != 100<<10 || largest != 5<<30 || most != 10_000 {
			t.Errorf("limits %d, %d, %d", least, largest, most)
		}
		data := storetest.Bytes(2, int(least)*2+5)
		key := storetest.Key(data, "a")
		id, err := direct.Create(ctx, key)
		if err != nil {
			t.Fatal(err)
		}
		bodies := [][]byte{data[:least], data[least : 2*least], data[2*least:]}
		for i, body := range bodies {
			u, err := direct.PresignPart(ctx, key, id, i+1, time.Minute)
			if err != nil {
				t.Fatal(err)
			}
			if status, header, answer := fetch(t, http.MethodPut, u.String(), body); status != http.StatusOK || header.Get("ETag") != md5Of(body) {
				t.Fatalf("%s: part %d: %d %s %v", signature, i+1, status, answer, header)
			}
			if status, _, _ := fetch(t, http.MethodPut, strings.Replace(u.String(), "partNumber=", "partNumber=1", 1), body); status != http.StatusForbidden {
				t.Errorf("%s: as another part: %d", signature, status)
			}
			if status, _, _ := fetch(t, http.MethodPut, u.String(), body, "Content-Type", "text/plain"); status != http.StatusForbidden {
				t.Errorf("%s: with a type that was not signed: %d", signature, status)
			}
		}
		var parts []store.Part
		for p, err := range direct.Parts(ctx, key, id) {
			if err != nil {
				t.Fatal(err)
			}
			if p.Size != int64(len(bodies[p.Number-1])) || p.ETag != md5Of(bodies[p.Number-1]) || !(server{s}).Same(p, bodies[p.Number-1]) {
				t.Errorf("part %+v", p)
			}
			parts = append(parts, p)
		}
		if err := direct.Complete(ctx, key, id, parts); err != nil {
			t.Fatal(err)
		}
		expect(t, s, key, data)
		if err := direct.Complete(ctx, key, id, parts); !errors.Is(err, upload.NotFound) {
			t.Errorf("complete again: %v", err)
		}
		for _, err := range direct.Parts(ctx, key, id) {
			if !errors.Is(err, upload.NotFound) {
				t.Errorf("parts of an upload that has ended: %v", err)
			}
		}
		if id, err = direct.Create(ctx, key); err != nil {
			t.Fatal(err)
		}
		for range 2 {
			if err := direct.Abort(ctx, key, id); err != nil {
				t.Error(err)
			}
		}
		if _, err := direct.Create(ctx, "a//b"); !errors.Is(err, upload.Invalid) {
			t.Errorf("a bad key: %v", err)
		}
	}
}

// Listings go on over pages.
func TestPages(t *testing.T) {
	opt := serve(t, "v4")
	opt.Client = &wire{}
	s := open(t, opt)
	direct, ctx := s.Direct(), t.Context()
	id, err := direct.Create(ctx, "00/many")
	if err != nil {
		t.Fatal(err)
	}
	const n = 1003
	for i := range n {
		if _, err := (server{s}).PutPart(ctx, "00/many", id, i+1, []byte{1}); err != nil {
			t.Fatal(err)
		}
		if err := (server{s}).PutObject(ctx, "00/"+storetest.Key([]byte{byte(i), byte(i >> 8)}, "x"), []byte{2}); err != nil {
			t.Fatal(err)
		}
		if i > 0 {
			if _, err := direct.Create(ctx, "00/other"); err != nil {
				t.Fatal(err)
			}
		}
	}
	parts, objects, uploads := map[int]bool{}, map[string]bool{}, map[string]bool{}
	for p, err := range direct.Parts(ctx, "00/many", id) {
		if err != nil {
			t.Fatal(err)
		}
		parts[p.Number] = true
	}
	for o, err := range s.List(ctx) {
		if err != nil {
			t.Fatal(err)
		}
		objects[o.Key] = true
	}
	for u, err := range (server{s}).Uploads(ctx) {
		if err != nil {
			t.Fatal(err)
		}
		uploads[u.ID] = true
	}
	if len(parts) != n || len(objects) != n || len(uploads) != n {
		t.Errorf("%d parts, %d objects, %d uploads; want %d of each", len(parts), len(objects), len(uploads), n)
	}
}
