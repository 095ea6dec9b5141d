package server

import (
	"bytes"
	"html"
	"regexp"
	"strings"
	"testing"

	"gantry/docs/api"
	"gantry/upload"
)

func TestPages(t *testing.T) {
	client := serveHandler(t, New(&stub{}, Options{}).Handler())
	foreign := regexp.MustCompile(`(?i)(src|href|action)="?(https?:)?//|@import|url\(|<script|\son[a-z]+=|style="`)
	for path, kind := range map[string]string{
		"/": "text/html; charset=utf-8", "/docs": "text/html; charset=utf-8", "/style.css": "text/css; charset=utf-8", "/docs/style.css": "text/css; charset=utf-8",
		"/icon.svg": "image/svg+xml", "/openapi.yaml": "application/yaml",
	} {
		a := client.do("GET", path, nil).want(t, 200, "")
		if a.header.Get("Content-Type") != kind {
			t.Errorf("%s: %s", path, a.header.Get("Content-Type"))
		}
		csp := a.header.Get("Content-Security-Policy")
		if !strings.HasPrefix(csp, "default-src 'none'; ") || strings.Contains(csp, "unsafe") || strings.Contains(csp, "http") {
			t.Errorf("%s: Content-Security-Policy: %s", path, csp)
		}
		if at := foreign.FindString(a.body); at != "" && kind != "application/yaml" && kind != "image/svg+xml" {
			t.Errorf("%s has %q: nothing inline, nothing from elsewhere", path, at)
		}
		if head := client.do("HEAD", path, nil).want(t, 200, ""); head.body != "" {
			t.Errorf("HEAD %s has a body", path)
		}
		// All that a page links to is there.
		for _, link := range regexp.MustCompile(`(?:href|src|action)="(/[^"#]*)`).FindAllStringSubmatch(a.body, -1) {
			if got := client.do("GET", link[1], nil).status; got == 404 {
				t.Errorf("%s links to %s, which is not there", path, link[1])
			}
		}
	}
	if open := client.do("GET", "/", nil).body; !strings.Contains(open, `action="/v1/files" method="post" enctype="multipart/form-data"`) {
		t.Error("without a login the page has no form")
	}
	locked := serveHandler(t, New(&stub{}, Options{Token: "x"}).Handler())
	if page := locked.do("GET", "/", nil).want(t, 200, "").body; strings.Contains(page, "<form") || !strings.Contains(page, "Authorization: Bearer") {
		t.Error("with a login the page has a form that cannot work, or does not say how to upload")
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
