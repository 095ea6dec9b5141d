package client

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"syscall"
	"testing"
	"time"

	"gantry/upload"
)

func TestTokenIsRenewedOnce(t *testing.T) {
	t.Parallel()
	f := newFake(t)
	valid := "old"
	f.fault = func(w http.ResponseWriter, r *http.Request, kind string, n int) bool {
		f.mu.Lock()
		defer f.mu.Unlock()
		if kind == "chunk" && n == 2 {
			valid = "new" // the old one expires in the middle
		}
		if r.Header.Get("Authorization") != "Bearer "+valid {
			refuse(w, 401, upload.Unauthenticated, nil)
			return true
		}
		return false
	}
	path := filepath.Join(t.TempDir(), "token")
	if err := os.WriteFile(path, []byte("old\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	reads := 0
	source := func(ctx context.Context) (string, error) {
		reads++
		token, err := TokenFile(path)(ctx)
		if err == nil {
			err = os.WriteFile(path, []byte("new"), 0o600)
		}
		return token, err
	}
	var events record
	c := f.client(func(o *Options) { o.Token = source })
	if _, err := c.Upload(t.Context(), open(t, fileWith(t, content(3, 5*mib))), UploadOptions{Events: events.add}); err != nil {
		t.Fatal(err)
	}
	if reads != 2 {
		t.Errorf("the token was asked for %d times, want 2", reads)
	}
	if events.sum(Moved) != 5*mib {
		t.Errorf("moved %d in the end", events.sum(Moved))
	}
}

func TestRefusedTokenIsTold(t *testing.T) {
	t.Parallel()
	f := newFake(t)
	f.fault = func(w http.ResponseWriter, _ *http.Request, _ string, _ int) bool {
		refuse(w, 401, upload.Unauthenticated, nil)
		return true
	}
	for _, token := range []TokenSource{nil, StaticToken("wrong")} {
		before := f.count("file GET")
		_, err := f.client(func(o *Options) { o.Token = token }).File(t.Context(), "f1")
		if !IsUnauthenticated(err) || !errors.Is(err, upload.Unauthenticated) {
			t.Errorf("error %v", err)
		}
		if n := f.count("file GET") - before; n != 1 {
			t.Errorf("asked %d times with the same token", n)
		}
	}
	_, err := f.client(func(o *Options) { o.Token = TokenFile("/nonexistent") }).File(t.Context(), "f1")
	if _, ok := errors.AsType[*LocalError](err); !ok {
		t.Errorf("error %v", err)
	}
}

// A token must not go to a host that the server redirects to, nor a PUT become a GET.
func TestRedirects(t *testing.T) {
	t.Parallel()
	var leaked string
	other := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		leaked = r.Header.Get("Authorization")
		w.Header().Set("Content-Range", "bytes 1-2/3")
		w.WriteHeader(206)
		_, _ = w.Write([]byte("bc"))
	}))
	defer other.Close()
	_, port, _ := net.SplitHostPort(other.Listener.Addr().String())
	f := newFake(t)
	f.fault = func(w http.ResponseWriter, r *http.Request, _ string, _ int) bool {
		http.Redirect(w, r, "http://localhost:"+port+"/x", http.StatusMovedPermanently)
		return true
	}
	c := f.client(func(o *Options) { o.Token = StaticToken("secret") })
	body, err := c.Content(t.Context(), "f1", 1, 2)
	if err != nil {
		t.Fatal(err)
	}
	if b, err := io.ReadAll(body); string(b) != "bc" || err != nil || body.Close() != nil {
		t.Errorf("content %q, %v", b, err)
	}
	if leaked != "" {
		t.Errorf("another host got %q", leaked)
	}
	err = c.Cancel(t.Context(), "u")
	if e, ok := errors.AsType[*Error](err); !ok || e.Status != 301 || e.Location == "" {
		t.Errorf("error %v", err)
	}
}

func TestNewRefusesWhatIsNoAddress(t *testing.T) {
	t.Parallel()
	for _, address := range []string{"localhost:8080", "ftp://x", "http://", "://", "x"} {
		if _, err := New(Options{BaseURL: address}); upload.KindOf(err) != upload.Invalid {
			t.Errorf("%q: error %v", address, err)
		}
	}
	c, err := New(Options{BaseURL: "http://h/base/"})
	if err != nil || c.BaseURL() != "http://h/base" {
		t.Errorf("base %v, error %v", c.BaseURL(), err)
	}
}

func TestListsGoThroughAllPages(t *testing.T) {
	t.Parallel()
	var queries []string
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		queries = append(queries, r.URL.RawQuery)
		switch r.URL.Query().Get("cursor") {
		case "":
			_, _ = io.WriteString(w, `{"items":[{"id":"a"},{"id":"b"}],"next_cursor":"n1"}`)
		case "n1":
			_, _ = io.WriteString(w, `{"items":[{"id":"c"}],"next_cursor":null}`)
		}
	}))
	defer server.Close()
	c, err := New(Options{BaseURL: server.URL})
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	files := c.Files(t.Context(), FileQuery{Name: "x y", Path: new(""), Sort: "-size", Limit: 2})
	for range 2 { // the sequence can be gone through again
		ids := ""
		for f, err := range files {
			if err != nil {
				t.Fatal(err)
			}
			ids += f.ID
		}
		if ids != "abc" {
			t.Errorf("ids %s", ids)
		}
	}
	if queries[0] != "limit=2&name=x+y&path=&sort=-size" || queries[1] != "cursor=n1&"+queries[0] || queries[2] != queries[0] {
		t.Errorf("queries %q", queries)
	}
}

func TestParseError(t *testing.T) {
	t.Parallel()
	for name, test := range map[string]struct {
		contentType, body string
		want              string
	}{
		"problem": {"application/problem+json", `{"detail":"No.","code":"incomplete","missing":[[1,3]],"request_id":"q"}`, "No (409 incomplete, request q)"},
		"html":    {"text/html", "<h1>Bad</h1>", "Conflict (409)"},
		"text":    {"text/plain; charset=utf-8", "it broke\nmore", "it broke (409)"},
		"no json": {"application/json", "{", "Conflict (409)"},
		"empty":   {"", "", "Conflict (409)"},
	} {
		rec := httptest.NewRecorder()
		rec.Header().Set("Content-Type", test.contentType)
		rec.WriteHeader(409)
		_, _ = rec.WriteString(test.body)
		e := parseError("GET /", rec.Result())
		if e.Error() != test.want {
			t.Errorf("%s: %q, want %q", name, e.Error(), test.want)
		}
		if missing, ok := IsIncomplete(e); ok != (name == "problem") || ok && missing[0] != (upload.Range{First: 1, Last: 3}) {
			t.Errorf("%s: missing %v", name, missing)
		}
	}
}

func TestParseRetryAfter(t *testing.T) {
	t.Parallel()
	now := time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)
	for value, want := range map[string]time.Duration{
		"": 0, "7": 7 * time.Second, "-3": 0, "x": 0, "Fri, 02 Jan 2026 03:04:35 GMT": 30 * time.Second,
		"Fri, 02 Jan 2026 03:04:00 GMT": 0, "99999999999": 1 << 30 * time.Second,
	} {
		if got := parseRetryAfter(value, now); got != want {
			t.Errorf("%q: %v, want %v", value, got, want)
		}
	}
}

func TestClassify(t *testing.T) {
	t.Parallel()
	refused := &net.OpError{Op: "dial", Err: os.NewSyscallError("connect", syscall.ECONNREFUSED)}
	unknown := &net.DNSError{Name: "x", IsNotFound: true}
	for _, test := range []struct {
		err    error
		first  class // the server was never reached
		later  class
		reason string
	}{
		{refused, temporary, temporary, "connection refused"},
		{unknown, permanent, temporary, "cannot find x"},
		{io.ErrUnexpectedEOF, temporary, temporary, "connection closed"},
		{&net.OpError{Op: "write", Err: net.ErrClosed}, temporary, temporary, "connection broken"},
		{&os.PathError{Op: "write", Path: "/dev/stdout", Err: syscall.ENOSPC}, permanent, permanent, ""},
		{errStalled, temporary, temporary, "no data for too long"},
		{context.Canceled, permanent, permanent, "context canceled"},
		{&LocalError{Op: "read", Path: "p", Err: io.ErrUnexpectedEOF}, permanent, permanent, ""},
		{&Error{Status: 503, Detail: "Stopping."}, temporary, temporary, "Stopping"},
		{&Error{Status: 500}, doubtful, doubtful, ""},
		{&Error{Status: 507}, permanent, permanent, ""},
		{&Error{Status: 507, RetryAfter: time.Second}, temporary, temporary, ""},
		{&Error{Status: 404}, permanent, permanent, ""},
		{errors.New("a defect"), permanent, permanent, ""},
	} {
		err := fmt.Errorf("wrapped: %w", test.err)
		if got := classify(err, false); got != test.first {
			t.Errorf("%v: class %d at first, want %d", err, got, test.first)
		}
		if got := classify(err, true); got != test.later {
			t.Errorf("%v: class %d, want %d", err, got, test.later)
		}
		if got := Reason(test.err); test.reason != "" && got != test.reason {
			t.Errorf("%v: reason %q, want %q", test.err, got, test.reason)
		}
	}
}

func TestManagement(t *testing.T) {
	t.Parallel()
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		switch r.Method + " " + r.URL.String() {
		case "GET /transfers?limit=1000&state=dead%2Cretrying":
			_, _ = io.WriteString(w, `{"items":[{"id":"t1","state":"dead","blob_id":"b","attempts":3}]}`)
		case "POST /transfers/t1/retry":
			_, _ = io.WriteString(w, `{"id":"t1","state":"queued"}`)
		case "POST /transfers/t1/cancel":
			refuse(w, 409, upload.Conflict, nil)
		default:
			t.Errorf("unexpected %s %s", r.Method, r.URL)
		}
	}))
	defer server.Close()
	m, err := NewManagement(Options{BaseURL: server.URL})
	if err != nil {
		t.Fatal(err)
	}
	defer m.Close()
	list, err := m.Transfers(t.Context(), upload.TransferDead, upload.TransferRetrying)
	if err != nil || len(list) != 1 || list[0].ID != "t1" || list[0].BlobID != "b" || list[0].Attempts != 3 {
		t.Errorf("%+v, %v", list, err)
	}
	if transfer, err := m.RetryTransfer(t.Context(), "t1"); err != nil || transfer.State != upload.TransferQueued {
		t.Errorf("%+v, %v", transfer, err)
	}
	if _, err := m.CancelTransfer(t.Context(), "t1"); !errors.Is(err, upload.Conflict) {
		t.Errorf("error %v", err)
	}
}

// An answer that stops in its middle is a stall, and tried again.
func TestStalledAnswer(t *testing.T) {
	t.Parallel()
	f := newFake(t)
	f.fault = func(w http.ResponseWriter, r *http.Request, _ string, n int) bool {
		if n > 1 {
			return false
		}
		_, _ = io.Copy(io.Discard, r.Body)
		w.WriteHeader(201)
		_, _ = io.WriteString(w, `{"id":"`)
		_ = http.NewResponseController(w).Flush()
		<-r.Context().Done()
		return true
	}
	c := f.client(func(o *Options) { o.StallTimeout = 200 * time.Millisecond })
	if _, err := c.Upload(t.Context(), Bytes("x", bytes.NewReader([]byte("abc")), 3), UploadOptions{}); err != nil {
		t.Fatal(err)
	}
}

func TestPersist(t *testing.T) {
	t.Parallel()
	f := newFake(t)
	f.store("f", nil)
	f.fault = func(w http.ResponseWriter, _ *http.Request, _ string, n int) bool {
		if n <= 2 {
			refuse(w, 503, upload.Unavailable, nil)
		}
		return n <= 2
	}
	var events record
	var got File
	err := f.client(nil).Persist(t.Context(), "look", events.add, func(ctx context.Context) (err error) {
		got, err = f.client(nil).File(ctx, "f")
		return err
	})
	if err != nil || got.ID != "f" || len(events.has(Retrying)) != 2 {
		t.Errorf("got %+v, %v, events %+v", got, err, events.events)
	}
}
