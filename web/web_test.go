package web

import (
	"bytes"
	"testing"
)

func TestPage(t *testing.T) {
	for _, open := range []bool{true, false} {
		page := Page(open, []string{"It <rains>."})
		if got := bytes.Contains(page, []byte("<form")); got != open {
			t.Errorf("open %v: form %v", open, got)
		}
		if got := bytes.Contains(page, []byte("Bearer")); got == open {
			t.Errorf("open %v: token %v", open, got)
		}
		if !bytes.Contains(page, []byte("gantry put --server http")) { // an address alone would be a file to upload
			t.Error("the command line is not one that works")
		}
		if !bytes.Contains(page, []byte(`role="status">It &lt;rains&gt;.</p>`)) || bytes.Contains(Page(open, nil), []byte("notice")) {
			t.Error("the notice is not there, or one that nobody gave")
		}
		if !bytes.Contains(page, []byte(`href="/docs"`)) {
			t.Error("no link to the API reference")
		}
	}
}
