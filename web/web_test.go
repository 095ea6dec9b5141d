package web

import (
	"bytes"
	"compress/gzip"
	"io"
	"testing"
)

func TestPage(t *testing.T) {
	for _, open := range []bool{true, false} {
		page := Page(open, []string{"It <rains>."}).Plain
		if got := bytes.Contains(page, []byte(`<form`)); got != open {
			t.Errorf("open %v: form %v", open, got)
		}
		if !bytes.Contains(page, []byte(`It &lt;rains&gt;.`)) || bytes.Contains(Page(open, nil).Plain, []byte("rains")) {
			t.Error("the notice is not there, or one that nobody gave")
		}
		if !bytes.Contains(page, []byte(`href="/docs"`)) {
			t.Error("no link to the API reference")
		}
	}
}

func TestFiles(t *testing.T) {
	etags := map[string]string{}
	for path, f := range Files() {
		r, err := gzip.NewReader(bytes.NewReader(f.Gzip))
		if err != nil {
			t.Fatal(err)
		}
		if text, err := io.ReadAll(r); err != nil || !bytes.Equal(text, f.Plain) || len(text) == 0 {
			t.Errorf("%s: %d bytes, compressed %d others, %v", path, len(f.Plain), len(text), err)
		}
		for _, etag := range []string{f.ETag, f.GzipETag()} {
			if other := etags[etag]; other != "" {
				t.Errorf("%s and %s have the same ETag", path, other)
			}
			etags[etag] = path
		}
	}
	if Page(true, nil).ETag == Page(true, []string{"It rains."}).ETag {
		t.Error("two pages have the same ETag")
	}
}
