package server

import (
	"context"
	"errors"
	"net/url"
	"strings"
	"testing"

	"gantry/chunkstore/memory"
	"gantry/server/ingest"
	"gantry/store"
	"gantry/upload"
)

// signing is a store that serves its objects itself, at an address that carries what it was asked for.
type signing struct {
	store.Store
	err error
}

func (s signing) Presign(_ context.Context, key string, opt store.PresignOptions) (*url.URL, error) {
	query := url.Values{"type": {opt.ContentType}, "disposition": {opt.Disposition}, "for": {opt.Expires.String()}}
	return &url.URL{Scheme: "https", Host: "store.example", Path: "/bucket/" + key, RawQuery: query.Encode()}, s.err
}

func TestDownloadIsRedirected(t *testing.T) {
	n := newNode(t, Options{})
	data := random(300_000)
	file := n.storeFile("gr%C3%B6%C3%9Fe+1.pdf", data)
	path := "/v1/files/" + file.ID + "/content"
	with := func(st store.Store, cdn string) {
		base, err := url.Parse(cdn)
		if err != nil {
			t.Fatal(err)
		}
		if cdn == "" {
			base = nil
		}
		n.service = ingest.New(ingest.Options{Node: "n1", Route: toLocal, Redirect: map[string]*url.URL{"local": base}}, ingest.Deps{
			Staging: n.staging, View: memory.New(), DB: n.db, Stores: map[string]store.Store{"local": store.NewGuard(st, store.GuardOptions{})},
			Wake: func() {}, Now: n.clock.Now,
		})
		n.server = New(n.service, Options{})
		n.testClient = serveHandler(t, n.server.Handler())
	}
	with(signing{Store: n.store}, "")
	if a := n.do("GET", path, nil).want(t, 200, ""); a.body != string(data) {
		t.Error("from staging: the content differs")
	}
	n.transfer()
	blobs, err := n.db.Blobs(t.Context(), "", 10)
	if err != nil || len(blobs) != 1 {
		t.Fatal(blobs, err)
	}
	if err := errors.Join(n.db.StagingDropped(t.Context(), blobs[0].ID), n.staging.Discard(t.Context(), blobs[0].Staging)); err != nil {
		t.Fatal(err)
	}

	for _, headers := range [][]string{nil, {"Range: bytes=5-9"}, {"Range: bytes=5-9", `If-Range: "other"`}} {
		a := n.do("GET", path, nil, headers...).want(t, 302, "")
		u, err := url.Parse(a.header.Get("Location"))
		if err != nil {
			t.Fatal(err)
		}
		if u.Host != "store.example" || u.Path != "/bucket/"+blobs[0].ObjectKey || u.Query().Get("type") != "text/plain" || u.Query().Get("for") != "1h0m0s" {
			t.Errorf("redirected to %s", u)
		}
		if got, want := u.Query().Get("disposition"), `attachment; filename="gr__e 1.pdf"; filename*=UTF-8''gr%C3%B6%C3%9Fe%201.pdf`; got != want {
			t.Errorf("disposition %q, want %q", got, want)
		}
		// Nobody may keep an address that ends, nor take the redirect for the content.
		if got := a.header.Get("Cache-Control"); got != "private, no-store" {
			t.Errorf("Cache-Control: %s", got)
		}
		for _, name := range []string{"Repr-Digest", "Content-Range", "Content-Disposition"} {
			if got := a.header.Get(name); got != "" {
				t.Errorf("the redirect has %s: %s", name, got)
			}
		}
	}
	etag := n.do("HEAD", path, nil).want(t, 200, "").header.Get("ETag")
	n.do("GET", path, nil, "If-None-Match: "+etag).want(t, 304, "")
	n.do("GET", path, nil, `If-Match: "x"`).want(t, 412, "precondition_failed")
	n.do("GET", path, nil, "Range: bytes=300000-").want(t, 416, "range_not_satisfiable")
	if a := n.do("GET", path+"?redirect=false", nil).want(t, 200, ""); a.body != string(data) {
		t.Error("streamed: the content differs")
	}
	if a := n.do("GET", path, nil, "Range: bytes=0-1,8-9").want(t, 206, ""); !strings.HasPrefix(a.header.Get("Content-Type"), "multipart/byteranges") {
		t.Errorf("several ranges, which stores do not give: %v", a.header)
	}

	with(signing{Store: n.store}, "https://cdn.example/files/")
	a := n.do("GET", path, nil).want(t, 302, "")
	if want := "https://cdn.example/files/bucket/" + blobs[0].ObjectKey + "?"; !strings.HasPrefix(a.header.Get("Location"), want) {
		t.Errorf("redirected to %s, want %s", a.header.Get("Location"), want)
	}
	with(signing{n.store, upload.Errorf(upload.Unavailable, "", "", "No.")}, "")
	n.do("GET", path, nil).want(t, 200, "")
	with(n.store, "") // cannot sign
	n.do("GET", path, nil).want(t, 200, "")
}
