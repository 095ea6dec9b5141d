package server

import (
	"bytes"
	"compress/gzip"
	"html"
	"io"
	"regexp"
	"strconv"
	"strings"
	"testing"

	"gantry/docs/api"
	"gantry/upload"
)

func TestPages(t *testing.T) {
	client := serveHandler(t, New(&stub{}, Options{}).Handler())
	foreign := regexp.MustCompile(`(?i)(src|href|action)="?(https?:)?//|@import|url\(|<script>|<script [^>]*>[^<]|<style|\son[a-z]+=|style="`)
	const html, css, script = "text/html; charset=utf-8", "text/css; charset=utf-8", "text/javascript; charset=utf-8"
	for path, kind := range map[string]string{
		"/": html, "/docs": html, "/app.css": css, "/docs/style.css": css, "/icon.svg": "image/svg+xml", "/openapi.yaml": "application/yaml",
		"/app.js": script, "/uploader.js": script, "/hash.worker.js": script,
	} {
		a := client.do("GET", path, nil).want(t, 200, "")
		if a.header.Get("Content-Type") != kind || a.header.Get("Cache-Control") != "no-cache" {
			t.Errorf("%s: %v", path, a.header)
		}
		csp := a.header.Get("Content-Security-Policy")
		if !strings.HasPrefix(csp, "default-src 'none'; ") || strings.Contains(csp, "unsafe") != (path == "/hash.worker.js") || strings.Contains(csp, "http") {
			t.Errorf("%s: Content-Security-Policy: %s", path, csp)
		}
		if at := foreign.FindString(a.body); at != "" && (kind == html || kind == css) {
			t.Errorf("%s has %q: nothing inline, nothing from elsewhere", path, at)
		}
		if head := client.do("HEAD", path, nil).want(t, 200, ""); head.body != "" || head.header.Get("ETag") == "" {
			t.Errorf("HEAD %s has a body, or no ETag", path)
		}
		// All that a page links to is there.
		for _, link := range regexp.MustCompile(`(?:href|src|action)="(/[^"#]*)`).FindAllStringSubmatch(a.body, -1) {
			if got := client.do("GET", link[1], nil).status; got == 404 {
				t.Errorf("%s links to %s, which is not there", path, link[1])
			}
		}
	}
	if csp := client.do("GET", "/", nil).header.Get("Content-Security-Policy"); !strings.Contains(csp, "require-trusted-types-for 'script'") || !strings.Contains(csp, "script-src 'self';") {
		t.Errorf("the page's policy is %s", csp)
	}
	if open := client.do("GET", "/", nil).body; !regexp.MustCompile(`(?s)<noscript>.*action="/v1/files" method="post" enctype="multipart/form-data".*</noscript>`).MatchString(open) {
		t.Error("without scripts and without a login the page has no form")
	}
	locked := serveHandler(t, New(&stub{}, Options{Token: "x"}).Handler())
	if page := locked.do("GET", "/", nil).want(t, 200, "").body; strings.Contains(page, "<form") {
		t.Error("with a login the page has a form that cannot work")
	}
}

func TestPagesAreKeptAndCompressed(t *testing.T) {
	client := serveHandler(t, New(&stub{}, Options{}).Handler())
	for _, path := range []string{"/", "/app.js", "/docs"} {
		plain := client.do("GET", path, nil, "Accept-Encoding: identity").want(t, 200, "")
		packed := client.do("GET", path, nil, "Accept-Encoding: br, gzip;q=0.5").want(t, 200, "")
		r, err := gzip.NewReader(strings.NewReader(packed.body))
		if err != nil {
			t.Fatal(err)
		}
		if text, err := io.ReadAll(r); err != nil || string(text) != plain.body || packed.header.Get("Content-Encoding") != "gzip" {
			t.Errorf("%s: compressed it is something else: %v", path, err)
		}
		for _, a := range []answered{plain, packed} {
			if a.header.Get("Vary") != "Accept-Encoding" || a.header.Get("ETag") == "" || a.header.Get("Content-Length") != strconv.Itoa(len(a.body)) {
				t.Errorf("%s: %v", path, a.header)
			}
		}
		if plain.header.Get("ETag") == packed.header.Get("ETag") {
			t.Errorf("%s: different bytes have the same strong ETag", path)
		}
		for _, c := range []struct {
			accept, match string
			status        int
		}{
			{"gzip", packed.header.Get("ETag"), 304},
			{"gzip", "W/" + packed.header.Get("ETag"), 304},
			{"identity", plain.header.Get("ETag"), 304},
			{"gzip", `"other"`, 200},
			{"gzip;q=0", plain.header.Get("ETag"), 304},
		} {
			if a := client.do("GET", path, nil, "Accept-Encoding: "+c.accept, "If-None-Match: "+c.match); a.status != c.status || c.status == 304 && a.body != "" {
				t.Errorf("%s with %+v: answered %d", path, c, a.status)
			}
		}
	}
}

func TestAPIReference(t *testing.T) {
	page := string(api.Page())
	for _, kind := range upload.Kinds() {
		if !strings.Contains(page, `id="problem-`+kind.Code()+`"`) {
			t.Errorf("no anchor for %s, to which /problems/%s leads", kind.Code(), kind.Code())
		}
	}
	for path, item := range contract().doc.Paths.Map() {
		for _, op := range item.Operations() {
			if !strings.Contains(page, `id="op-`+op.OperationID+`"`) || !strings.Contains(page, html.EscapeString(op.Summary)) {
				t.Errorf("%s (%s) is not on the page", op.OperationID, path)
			}
			if op.Extensions["x-codeSamples"] == nil {
				t.Errorf("%s has no example", op.OperationID)
			}
		}
	}
	for name := range contract().doc.Components.Schemas {
		if !strings.Contains(page, `id="schema-`+name+`"`) {
			t.Errorf("schema %s is not on the page", name)
		}
	}
	ids := map[string]bool{}
	for _, m := range regexp.MustCompile(` id="([^"]+)"`).FindAllStringSubmatch(page, -1) {
		if ids[m[1]] {
			t.Errorf("two elements have the id %s", m[1])
		}
		ids[m[1]] = true
	}
	for _, m := range regexp.MustCompile(`href="#([^"]+)"`).FindAllStringSubmatch(page, -1) {
		if !ids[strings.ReplaceAll(m[1], "%20", " ")] {
			t.Errorf("a link to #%s, which is not there", m[1])
		}
	}
	if bytes.Contains(api.Page(), []byte("<no value>")) {
		t.Error("the page has <no value>")
	}
}
