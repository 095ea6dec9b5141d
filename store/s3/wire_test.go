package s3

import (
	"bytes"
	"fmt"
	"io"
	"net/http"
	"sync"
	"sync/atomic"
	"testing"

	"gantry/store"
	"gantry/store/storetest"
)

// wire is the way to a server. A test sees all that goes over it, and may meddle.
type wire struct {
	meddle func(what string, r *http.Request) (*http.Response, error) // nil: pass is called

	sent atomic.Int64 // bytes of parts and objects

	mu   sync.Mutex
	seen []sight
}

// sight is a request as it was made: what for, and its headers.
type sight struct {
	what   string // see whatFor
	header http.Header
}

func (w *wire) RoundTrip(r *http.Request) (*http.Response, error) {
	what := whatFor(r)
	w.mu.Lock()
	w.seen = append(w.seen, sight{what, r.Header.Clone()})
	w.mu.Unlock()
	if what == "part" || what == "put" {
		w.sent.Add(r.ContentLength)
	}
	if w.meddle == nil {
		return pass(r)
	}
	return w.meddle(what, r)
}

func pass(r *http.Request) (*http.Response, error) { return http.DefaultTransport.RoundTrip(r) }

// whatFor names the requests that matter: put, create, part, complete, abort, get, head, and the method for others.
func whatFor(r *http.Request) string {
	switch query := r.URL.Query(); {
	case r.Method == http.MethodPost && query.Has("uploads"):
		return "create"
	case r.Method == http.MethodPut && query.Has("partNumber"):
		return "part"
	case r.Method == http.MethodPost && query.Has("uploadId"):
		return "complete"
	case r.Method == http.MethodDelete && query.Has("uploadId"):
		return "abort"
	case r.URL.RawQuery == "":
		return map[string]string{http.MethodPut: "put", http.MethodGet: "get", http.MethodHead: "head"}[r.Method]
	}
	return r.Method
}

// all returns the headers of the requests of a kind.
func (w *wire) all(what string) []http.Header {
	w.mu.Lock()
	defer w.mu.Unlock()
	var all []http.Header
	for _, s := range w.seen {
		if s.what == what {
			all = append(all, s.header)
		}
	}
	return all
}

// forget begins to count anew.
func (w *wire) forget() {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.seen = nil
}

// answer is what a server might have said.
func answer(r *http.Request, status int, code string) (*http.Response, error) {
	if r.Body != nil {
		_, _ = io.Copy(io.Discard, r.Body)
		_ = r.Body.Close()
	}
	body := "<Error><Code>" + code + "</Code></Error>"
	return &http.Response{
		Status: fmt.Sprint(status), StatusCode: status, Proto: "HTTP/1.1", ProtoMajor: 1, ProtoMinor: 1, Header: http.Header{},
		Body: io.NopCloser(bytes.NewBufferString(body)), ContentLength: int64(len(body)), Request: r,
	}, nil
}

// first is true for the first n calls.
func first(n int) func() bool {
	var mu sync.Mutex
	return func() bool {
		mu.Lock()
		defer mu.Unlock()
		n--
		return n >= 0
	}
}

// putAndCheck puts and verifies.
func putAndCheck(t *testing.T, s *Store, data []byte) (key string) {
	t.Helper()
	key = storetest.Key(data, "a")
	if err := s.Put(t.Context(), key, bytes.NewReader(data), store.PutOptions{}); err != nil {
		t.Fatal(err)
	}
	if err := s.Verify(t.Context(), key, storetest.DigestsOf(data)); err != nil {
		t.Error(err)
	}
	return key
}
