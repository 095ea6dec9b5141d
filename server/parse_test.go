package server

import (
	"encoding/base64"
	"errors"
	"fmt"
	"mime"
	"net/http"
	"strings"
	"testing"
	"time"

	"gantry/meta"
	"gantry/upload"
)

func TestParseContentDigest(t *testing.T) {
	b64 := func(n int) string { return base64.StdEncoding.EncodeToString(make([]byte, n)) }
	for _, c := range []struct {
		field string
		valid bool
		crc   bool
		n     int
	}{
		{"sha-256=:" + b64(32) + ":", true, false, 1},
		{"crc32c=:AAAAAQ==:", true, true, 0},
		{"sha-256=:" + b64(32) + ":, sha-512=:" + b64(64) + ":,crc32c=:AAAAAQ==:", true, true, 2},
		{"md5=:" + b64(16) + ":, unixsum=:" + b64(2) + ":", true, false, 0},
		{"sha-256=:" + b64(32) + ":, sha-256=:" + b64(32) + ":", true, false, 1},
		{"", false, false, 0},
		{",", false, false, 0},
		{"sha-256", false, false, 0},
		{"sha-256=", false, false, 0},
		{"sha-256=" + b64(32), false, false, 0},
		{"sha-256=:" + b64(31) + ":", false, false, 0},
		{"crc32c=:" + b64(5) + ":", false, false, 0},
		{"sha-256=:****:", false, false, 0},
		{"SHA-256=:" + b64(32) + ":", false, false, 0},
		{"sha-256=:" + b64(32) + ":,", false, false, 0},
		{"sha-256=:" + b64(32) + ":\x00", false, false, 0},
		{"x=:" + strings.Repeat("A", maxDigestField) + ":", false, false, 0},
	} {
		d, err := parseContentDigest([]string{c.field})
		if (err == nil) != c.valid || err != nil && !errors.Is(err, upload.Invalid) {
			t.Errorf("%.80q: %v", c.field, err)
		}
		if (d.crc32c != nil) != c.crc || len(d.checks) != c.n {
			t.Errorf("%.80q: crc %v, %d checks", c.field, d.crc32c, len(d.checks))
		}
	}
	if d, err := parseContentDigest([]string{"crc32c=:AAAAAQ==:", "sha-256=:" + b64(32) + ":"}); err != nil || *d.crc32c != 1 || len(d.checks) != 1 {
		t.Errorf("two header lines: %+v, %v", d, err)
	}
}

func FuzzContentDigest(f *testing.F) {
	f.Add("sha-256=:AAAA:, crc32c=:AAAAAQ==:")
	f.Add("a*=::")
	f.Fuzz(func(t *testing.T, field string) {
		d, err := parseContentDigest([]string{field})
		if err != nil && upload.KindOf(err) != upload.Invalid {
			t.Errorf("%v is not Invalid", err)
		}
		for _, c := range d.checks {
			if len(c.Want) != c.Hash.Size() {
				t.Errorf("a digest of %d bytes", len(c.Want))
			}
		}
	})
}

func TestParseRange(t *testing.T) {
	const size = 100
	for header, want := range map[string]string{
		"": "[]", "items=0-1": "[]", "bytes=0-0": "[{0 1}]", "bytes=0-99": "[{0 100}]", "bytes=0-1000": "[{0 100}]", "bytes=90-": "[{90 10}]",
		"bytes=-10": "[{90 10}]", "bytes=-1000": "[{0 100}]", "BYTES=5-6": "[{5 2}]", "bytes=0-9, 20-29": "[{0 10} {20 10}]",
		"bytes=0-9,200-300": "[{0 10}]", "bytes=0-99999999999999999999": "[{0 100}]", "bytes=-99999999999999999999": "[{0 100}]",
		"bytes=0-99,0-99": "[]", // more than the whole
		"bytes=100-":      "416",
		"bytes=100-200":   "416",
		"bytes=-0":        "416",
		"bytes=":          "416",
		"bytes":           "416",
		"bytes=a-b":       "416",
		"bytes=1":         "416",
		"bytes=-":         "416",
		"bytes=5-4":       "416",
		"bytes=--5":       "416",
		"bytes=0-1,,":     "416",
		"bytes=+1-2":      "416",
		"bytes=0x1-2":     "416",
		"bytes=1 - 2":     "416",
		"bytes=9223372036854775807-9223372036854775807":               "416",
		"bytes=" + strings.Repeat("0-0,", 8) + "0-0":                  "416",
		"bytes=" + strings.Repeat("0-,", 100_000) + "0-":              "416",
		"bytes=" + strings.TrimSuffix(strings.Repeat("1-1,", 8), ","): "[{1 1} {1 1} {1 1} {1 1} {1 1} {1 1} {1 1} {1 1}]",
	} {
		spans, err := parseRange(header, size)
		got := fmt.Sprint(spans)
		if err != nil {
			if got = "416"; !errors.Is(err, upload.BadRange) {
				t.Errorf("%.60q: %v is not BadRange", header, err)
			}
		}
		if got != want {
			t.Errorf("%.60q: %s, want %s", header, got, want)
		}
	}
	if spans, err := parseRange("bytes=0-", 0); spans != nil || err != nil {
		t.Errorf("empty content: %v, %v", spans, err)
	}
}

func FuzzRange(f *testing.F) {
	for _, s := range []string{"bytes=0-1", "bytes=-5,7-", "bytes=1-2,3-4,5-", "bytes=99999999999999999999-"} {
		f.Add(s, int64(100))
	}
	f.Fuzz(func(t *testing.T, header string, size int64) {
		if size < 0 {
			return
		}
		spans, err := parseRange(header, size)
		if err != nil && upload.KindOf(err) != upload.BadRange {
			t.Errorf("%v is not BadRange", err)
		}
		var total int64
		for _, s := range spans {
			if s.offset < 0 || s.length <= 0 || s.offset+s.length > size {
				t.Errorf("%+v lies outside of %d bytes", s, size)
			}
			total += s.length
		}
		if len(spans) > maxRanges || total > size {
			t.Errorf("%d ranges, %d of %d bytes", len(spans), total, size)
		}
	})
}

func TestPreconditions(t *testing.T) {
	const etag = `"abc"`
	modified := time.Date(2026, 11, 20, 9, 0, 0, 123, time.UTC)
	at := modified.Format(http.TimeFormat)
	before, after := modified.Add(-time.Second).Format(http.TimeFormat), modified.Add(time.Second).Format(http.TimeFormat)
	for _, c := range []struct {
		headers string // "Name: value|Name: value"
		want    string
	}{
		{"", "whole"},
		{"Range: bytes=0-1", "ranged"},
		{`If-None-Match: "abc"`, "304"},
		{`If-None-Match: W/"abc"`, "304"},
		{`If-None-Match: *`, "304"},
		{`If-None-Match: "x", "abc"`, "304"},
		{`If-None-Match: "x"`, "whole"},
		{`If-None-Match: "x|If-Modified-Since: ` + after, "whole"},
		{`If-None-Match: abc`, "whole"},
		{"If-Modified-Since: " + at, "304"},
		{"If-Modified-Since: " + after, "304"},
		{"If-Modified-Since: " + before, "whole"},
		{"If-Modified-Since: yesterday", "whole"},
		{`If-Match: "abc"`, "whole"},
		{`If-Match: *`, "whole"},
		{`If-Match: "x"`, "412"},
		{`If-Match: W/"abc"`, "412"},
		{"If-Unmodified-Since: " + before, "412"},
		{"If-Unmodified-Since: " + at, "whole"},
		{`If-Match: "abc"|If-Unmodified-Since: ` + before, "whole"}, // If-Match decides
		{`Range: bytes=0-1|If-Range: "abc"`, "ranged"},
		{`Range: bytes=0-1|If-Range: "x"`, "whole"},
		{`Range: bytes=0-1|If-Range: W/"abc"`, "whole"},
		{`Range: bytes=0-1|If-Range: ` + at, "whole"}, // a date is no strong validator
		{`Range: bytes=0-1|If-Range: ` + after, "whole"},
		{`Range: bytes=0-1|If-Range: ` + before, "whole"},
		{`Range: bytes=0-1|If-None-Match: "abc"`, "304"},
		{`If-None-Match: "x"|If-None-Match: "abc"`, "304"},
		{`If-Match: "x"|If-Match: "abc"`, "whole"}, // a list on several lines
	} {
		r := &http.Request{Method: http.MethodGet, Header: http.Header{}}
		for h := range strings.SplitSeq(c.headers, "|") {
			name, value, _ := strings.Cut(h, ": ")
			r.Header.Add(name, value)
		}
		notModified, ranged, err := preconditions(r, etag, modified)
		got := "whole"
		switch {
		case errors.Is(err, upload.PreconditionFailed):
			got = "412"
		case err != nil:
			t.Errorf("%s: %v", c.headers, err)
		case notModified:
			got = "304"
		case ranged:
			got = "ranged"
		}
		if got != c.want {
			t.Errorf("%s: %s, want %s", c.headers, got, c.want)
		}
		if r.Method = http.MethodHead; ranged {
			if _, ranged, _ := preconditions(r, etag, modified); ranged {
				t.Error("a HEAD has a range")
			}
		}
	}
}

func TestContentDisposition(t *testing.T) {
	for name, want := range map[string]string{
		"a.txt":                 `attachment; filename="a.txt"`,
		"a b.txt":               `attachment; filename="a b.txt"`,
		`a".txt`:                `attachment; filename="a_.txt"; filename*=UTF-8''a%22.txt`,
		`a\b`:                   `attachment; filename="a_b"; filename*=UTF-8''a%5Cb`,
		"a\r\nSet-Cookie: x":    `attachment; filename="a__Set-Cookie: x"; filename*=UTF-8''a%0D%0ASet-Cookie%3A%20x`,
		"naïve.txt":             `attachment; filename="na_ve.txt"; filename*=UTF-8''na%C3%AFve.txt`,
		"秒传.mp4":                `attachment; filename="__.mp4"; filename*=UTF-8''%E7%A7%92%E4%BC%A0.mp4`,
		"100%.txt":              `attachment; filename="100_.txt"; filename*=UTF-8''100%25.txt`,
		`x"; filename=evil.exe`: `attachment; filename="x_; filename=evil.exe"; filename*=UTF-8''x%22%3B%20filename%3Devil.exe`,
		"a\u202egpj.exe":        `attachment; filename="a_gpj.exe"; filename*=UTF-8''a%E2%80%AEgpj.exe`,
	} {
		got := contentDisposition(name)
		if got != want {
			t.Errorf("%q:\n got %s\nwant %s", name, got, want)
		}
	}
}

func FuzzContentDisposition(f *testing.F) {
	f.Add("a.txt")
	f.Add("a\"\\%\r\n秒.txt")
	f.Fuzz(func(t *testing.T, name string) {
		value := contentDisposition(name)
		for i := range len(value) {
			if value[i] < ' ' || value[i] > '~' {
				t.Fatalf("%q has byte %#x", value, value[i])
			}
		}
		kind, params, err := mime.ParseMediaType(value)
		if err != nil || kind != "attachment" || len(params) != 1 {
			t.Fatalf("%q: %s %v %v", value, kind, params, err)
		}
		if upload.CheckName(name) == nil && params["filename"] != name {
			t.Errorf("%q becomes %q", name, params["filename"])
		}
	})
}

func TestServedType(t *testing.T) {
	for stored, want := range map[string]string{
		"": "application/octet-stream", "text/html": "text/html", "text/html; charset=utf-8": "text/html; charset=utf-8", "text": "application/octet-stream",
		"text/ht ml": "application/octet-stream", "text/html; charset=ü": "application/octet-stream", ";": "application/octet-stream",
	} {
		if got := servedType(stored); got != want {
			t.Errorf("%q: %q, want %q", stored, got, want)
		}
	}
}

func FuzzChunkIndex(f *testing.F) {
	for _, s := range []string{"0", "9999", "10000", "-1", "+1", "00001", "99999999999999999999", "1e3", "٣", " 1"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, text string) {
		index, ok := parseIndex(text)
		if ok && (index < 0 || index >= upload.MaxChunks || strings.Trim(text, "0123456789") != "") {
			t.Errorf("%q is taken for %d", text, index)
		}
		if n := 0; !ok && len(text) < 5 {
			if _, err := fmt.Sscanf(text, "%d", &n); err == nil && fmt.Sprint(n) == text && n >= 0 {
				t.Errorf("%q is refused", text)
			}
		}
	})
}

func FuzzProofJSON(f *testing.F) {
	f.Add([]byte(`{"sha1":"` + strings.Repeat("ab", 20) + `","proof":{"challenge":"x","leaves":[{"index":1,"data":"AAAA","path":""}]}}`))
	f.Add([]byte(`{"proof":{"leaves":[{"path":"` + base64.StdEncoding.EncodeToString(make([]byte, 64)) + `"}]}}`))
	f.Fuzz(func(t *testing.T, text []byte) {
		var r instantRequestJSON
		if err := unmarshal(text, &r); err != nil {
			if problemOf(err).Status != http.StatusBadRequest {
				t.Errorf("%v is answered %d", err, problemOf(err).Status)
			}
			return
		}
		if r.Proof == nil {
			return
		}
		c := upload.NewChallenge(upload.MinInstantSize, [32]byte{}, time.Now())
		c.ID, c.BlobID = r.Proof.Challenge, "b"
		if r.Proof.Satisfies(&c) {
			t.Error("a made-up proof satisfies a challenge")
		}
	})
}

func TestFileCursor(t *testing.T) {
	at := time.Date(2026, 11, 20, 9, 0, 0, 123456789, time.UTC)
	last := upload.File{ID: "i", Name: "ü/\x7f", Size: 42, CreatedAt: at}
	for _, q := range []meta.FileQuery{{Sort: meta.ByCreated, Desc: true}, {Sort: meta.ByName}, {Sort: meta.BySize, Desc: true}} {
		got, err := parseCursor(cursorAfter(&q, &last), &q)
		if err != nil {
			t.Fatal(err)
		}
		same := got.ID == last.ID
		switch q.Sort {
		case meta.ByName:
			same = same && got.Name == last.Name
		case meta.BySize:
			same = same && got.Size == last.Size
		case meta.ByCreated:
			same = same && got.CreatedAt.Equal(last.CreatedAt)
		}
		if !same {
			t.Errorf("%s: %+v", q.Sort, got)
		}
		other := meta.FileQuery{Sort: q.Sort, Desc: !q.Desc}
		if _, err := parseCursor(cursorAfter(&q, &last), &other); !errors.Is(err, upload.Invalid) {
			t.Errorf("a cursor of another order: %v", err)
		}
	}
	for _, text := range []string{"x", "e30", "!!!!", base64.RawURLEncoding.EncodeToString([]byte(`{"s":"name"}`))} {
		if _, err := parseCursor(text, &meta.FileQuery{Sort: meta.ByName}); !errors.Is(err, upload.Invalid) {
			t.Errorf("%q: %v", text, err)
		}
	}
}

func TestIdempotencyKey(t *testing.T) {
	for key, valid := range map[string]bool{
		"a": true, "3f1c-!~": true, strings.Repeat("k", 255): true, "": false, strings.Repeat("k", 256): false, "a b": false, "ä": false, "a\x7f": false,
	} {
		got, err := idempotencyKey(&http.Request{Header: http.Header{"Idempotency-Key": {key}}})
		if (err == nil) != valid || valid && got != key {
			t.Errorf("%.20q: %q, %v", key, got, err)
		}
	}
	if _, err := idempotencyKey(&http.Request{Header: http.Header{"Idempotency-Key": {"a", "b"}}}); err == nil {
		t.Error("two keys are accepted")
	}
}
