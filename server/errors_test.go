package server

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"slices"
	"strings"
	"testing"

	"gantry/upload"
)

func TestEveryKindHasAnAnswer(t *testing.T) {
	want := map[upload.Kind]int{
		upload.Internal: 500, upload.Invalid: 400, upload.InvalidName: 400, upload.InvalidSize: 400, upload.InvalidIndex: 400,
		upload.ShortBody: 400, upload.LongBody: 413, upload.TooLarge: 413, upload.LengthRequired: 411,
		upload.UnsupportedEncoding: 415, upload.UnsupportedType: 415, upload.Unauthenticated: 401, upload.Forbidden: 403,
		upload.NotFound: 404, upload.Gone: 410, upload.NotOpen: 409, upload.ChunkConflict: 409, upload.Incomplete: 409,
		upload.DigestMismatch: 422, upload.KeyReused: 422, upload.BadRange: 416, upload.NoRoom: 507, upload.Unavailable: 503,
		upload.TooMany: 429, upload.Conflict: 409, upload.Canceled: 499, upload.Timeout: 408, upload.MethodNotAllowed: 405,
		upload.PreconditionFailed: 412, upload.DirectUpload: 409,
	}
	for _, kind := range upload.Kinds() {
		p := problemOf(upload.Wrap(kind, "x", "", kind))
		if p.Status != want[kind] || p.Code != kind.Code() || p.Type != "/problems/"+kind.Code() || p.Title == "" || p.Detail == "" {
			t.Errorf("%s: %+v, want status %d", kind.Code(), p, want[kind])
		}
	}
}

func TestProblemOf(t *testing.T) {
	inner := &upload.Error{Kind: upload.Incomplete, Detail: "inner", Ranges: []upload.Range{{First: 1, Last: 2}}, Err: errors.New("secret cause")}
	for _, c := range []struct {
		name   string
		err    error
		status int
		detail string
		want   func(p problem) bool
	}{
		{
			"detail and ranges of a wrapped error", upload.Wrap(upload.Internal, "a", "", upload.Wrap(upload.Internal, "b", "", inner)), 409, "inner",
			func(p problem) bool { return len(p.Missing) == 1 },
		},
		{
			"the outer detail wins", &upload.Error{Kind: upload.Incomplete, Detail: "outer", Err: inner}, 409, "outer",
			func(p problem) bool { return len(p.Missing) == 1 },
		},
		{"joined", errors.Join(errors.New("x"), inner), 409, "inner", nil},
		{
			"a detail of another kind is not told", &upload.Error{Kind: upload.Unavailable, Err: inner}, 503, answers[upload.Unavailable].detail,
			func(p problem) bool { return p.Missing == nil },
		},
		{"unknown errors tell nothing", fmt.Errorf("open /var/lib/secret: %w", io.ErrClosedPipe), 500, answers[upload.Internal].detail, nil},
		{"internal errors tell nothing", &upload.Error{Kind: upload.Internal, Detail: "/var/lib/secret"}, 500, answers[upload.Internal].detail, nil},
		{
			"digests", &upload.Error{Kind: upload.DigestMismatch, Want: "aa", Got: "bb"}, 422, answers[upload.DigestMismatch].detail,
			func(p problem) bool { return p.Expected == "aa" && p.Actual == "bb" },
		},
		{"state", withState{upload.Gone, upload.Expired}, 410, answers[upload.Gone].detail, func(p problem) bool { return p.State == upload.Expired }},
		{"a context that was canceled", fmt.Errorf("x: %w", context.Canceled), 499, answers[upload.Canceled].detail, nil},
	} {
		p := problemOf(c.err)
		if p.Status != c.status || p.Detail != c.detail || c.want != nil && !c.want(p) {
			t.Errorf("%s: %+v", c.name, p)
		}
	}
}

// call is a valid request for an operation of the document.
type call struct{ method, path, body, contentType string }

// everyCall is one call of every operation of the API.
func everyCall() []call {
	const js = "application/json"
	id := upload.NewUploadID("n")
	sum := strings.Repeat("ab", 20)
	return []call{
		{"POST", "/v1/uploads", `{"name":"a"}`, js},
		{"GET", "/v1/uploads", "", ""},
		{"GET", "/v1/uploads/" + id, "", ""},
		{"DELETE", "/v1/uploads/" + id, "", ""},
		{"PUT", "/v1/uploads/" + id + "/chunks/0", "x", ""},
		{"PUT", "/v1/uploads/" + id + "/chunks", "x", ""},
		{"POST", "/v1/uploads/" + id + "/complete", "", ""},
		{"POST", "/v1/uploads/" + id + "/instant", `{"sha1":"` + sum + `"}`, js},
		{"GET", "/v1/uploads/" + id + "/urls", "", ""},
		{"GET", "/v1/uploads/" + id + "/content", "", ""},
		{"HEAD", "/v1/uploads/" + id + "/content", "", ""},
		{"POST", "/v1/files?name=a", "x", ""},
		{"GET", "/v1/files", "", ""},
		{"GET", "/v1/files/1", "", ""},
		{"PATCH", "/v1/files/1", `{}`, js},
		{"DELETE", "/v1/files/1", "", ""},
		{"GET", "/v1/files/1/content", "", ""},
		{"HEAD", "/v1/files/1/content", "", ""},
		{"GET", "/v1/files/1/transfer", "", ""},
		{"GET", "/v1/events", "", ""},
	}
}

func (c *testClient) call(x call, headers ...string) answered {
	c.t.Helper()
	headers = append(headers, "Chunk-Index: 0")
	if x.contentType != "" {
		headers = append(headers, "Content-Type: "+x.contentType)
	}
	return c.do(x.method, x.path, strings.NewReader(x.body), headers...)
}

// codeOf is the code that an answer of this method can have in its body.
func codeOf(method string, kind upload.Kind) string {
	if method == http.MethodHead {
		return ""
	}
	return kind.Code()
}

func TestEveryOperationTellsFailures(t *testing.T) {
	calls := everyCall()
	operations := map[string]bool{}
	for _, x := range calls {
		path, _, _ := strings.Cut(x.path, "?")
		template, route := contract().operation(x.method, path)
		if route == nil {
			t.Fatalf("%s %s is not documented", x.method, x.path)
		}
		operations[x.method+" "+template] = true
	}
	for path, item := range contract().doc.Paths.Map() {
		for method := range item.Operations() {
			if strings.HasPrefix(path, "/v1/") && !operations[method+" "+path] {
				t.Errorf("everyCall lacks %s %s", method, path)
			}
		}
	}
	var log bytes.Buffer
	st := &stub{}
	client := serveHandler(t, New(st, Options{Log: slog.New(slog.NewTextHandler(&log, nil))}).Handler())
	for _, x := range calls {
		st.err = errors.New("open /secret/place: broken")
		log.Reset()
		a := client.call(x).want(t, 500, codeOf(x.method, upload.Internal))
		if strings.Contains(a.body, "secret") {
			t.Errorf("%s %s: the cause is shown to the client: %s", x.method, x.path, a.body)
		}
		if !strings.Contains(log.String(), "/secret/place") || !strings.Contains(log.String(), "request_id="+a.header.Get(headerRequestID)) {
			t.Errorf("%s %s: cause or request id are not in the log: %s", x.method, x.path, log.String())
		}
		st.err = upload.Wrap(upload.Unavailable, "x", "", io.ErrClosedPipe)
		if got := client.call(x).want(t, 503, codeOf(x.method, upload.Unavailable)).header.Get("Retry-After"); got != "5" {
			t.Errorf("%s %s: Retry-After is %q", x.method, x.path, got)
		}
		st.err = upload.Canceled
		log.Reset()
		if client.call(x).want(t, 499, codeOf(x.method, upload.Canceled)); log.Len() > 0 {
			t.Errorf("a client that went away is logged as an error: %s", log.String())
		}
	}
	st.err = upload.NoRoom
	for _, x := range calls {
		if x.method == http.MethodPost && (x.path == "/v1/uploads" || strings.HasPrefix(x.path, "/v1/files")) || x.method == http.MethodPut {
			if got := client.call(x).want(t, 507, "insufficient_storage").header.Get("Retry-After"); got != "60" {
				t.Errorf("%s %s: Retry-After is %q", x.method, x.path, got)
			}
		}
	}
	st.err = upload.TooMany
	if got := client.do("GET", "/v1/events", nil).want(t, 429, "too_many_requests").header.Get("Retry-After"); got != "5" {
		t.Errorf("Retry-After of a 429 is %q", got)
	}
	if got := client.do("GET", "/problems", nil).want(t, 404, "not_found").header.Get("Retry-After"); got != "" {
		t.Errorf("Retry-After of a 404 is %q", got)
	}
}

func TestNoTokenNoAnswer(t *testing.T) {
	const token = "a-long-secret-token"
	st := &stub{err: upload.Unavailable}
	client := serveHandler(t, New(st, Options{Token: token}).Handler())
	for _, x := range everyCall() {
		for _, header := range []string{
			"X-Nothing: 1", "Authorization: ", "Authorization: Bearer", "Authorization: Bearer ", "Authorization: Bearer wrong",
			"Authorization: Bearer " + token + "x", "Authorization: Bearer " + token[:8], "Authorization: Basic " + token,
			"Authorization: " + token, "Authorization: Bearer eyJhbGciOiJub25lIn0.e30.",
		} {
			a := client.call(x, header).want(t, 401, codeOf(x.method, upload.Unauthenticated))
			if a.header.Get("WWW-Authenticate") == "" {
				t.Errorf("%s %s: no WWW-Authenticate", x.method, x.path)
			}
		}
		client.call(x, "Authorization: Bearer "+token, "Host: upload.example.com").want(t, 503, codeOf(x.method, upload.Unavailable))
		client.call(x, "Authorization: bearer "+token).want(t, 503, codeOf(x.method, upload.Unavailable))
	}
	// Pages need no token; unknown addresses tell nothing either way.
	client.do("GET", "/docs", nil).want(t, 200, "")
	client.do("GET", "/v1/nothing", nil).want(t, 404, "not_found")
	// The path that the router sees decides, however it is written.
	for _, path := range []string{"/%761/files", "/v1%2Ffiles", "//v1/files", "/./v1/files", "/v1/./files"} {
		if a := client.do("GET", path, nil); a.status != 404 && a.status != 401 {
			t.Errorf("%s: answered %d", path, a.status)
		}
	}
}

func TestForeignHostsAndOrigins(t *testing.T) {
	st := &stub{err: upload.Unavailable}
	s := New(st, Options{})
	client := serveHandler(t, s.Handler())
	hosts := map[string]bool{
		"localhost": true, "localhost:8080": true, "LOCALHOST": true, "127.0.0.1": true, "127.0.0.1:80": true, "127.9.9.9": true,
		"[::1]": true, "[::1]:8080": true, "[::ffff:127.0.0.1]:80": true,
		"evil.example": false, "evil.example:8080": false, "localhost.evil.example": false, "127.0.0.1.evil.example": false,
		"0.0.0.0": false, "10.0.0.1": false, "[::]": false, "localhost.": false, "2130706433": false, "0x7f.1": false,
	}
	for _, x := range everyCall() {
		for host, allowed := range hosts {
			want, kind := 503, upload.Unavailable
			if !allowed {
				want, kind = 403, upload.Forbidden
			}
			client.call(x, "Host: "+host).want(t, want, codeOf(x.method, kind))
		}
	}
	management := serveHandler(t, newManagement(t, s, stubTransfers{upload.Unavailable}))
	for _, x := range managementCalls() {
		management.call(x, "Host: evil.example").want(t, 403, "forbidden")
	}
	for _, x := range everyCall() {
		safe := slices.Contains([]string{"GET", "HEAD"}, x.method)
		for header, same := range map[string]bool{
			"Origin: http://evil.example": false, "Sec-Fetch-Site: cross-site": false, "Sec-Fetch-Site: same-site": false, "Origin: null": false,
			"Sec-Fetch-Site: same-origin": true, "Sec-Fetch-Site: none": true, "Origin: " + client.url: true,
		} {
			want, kind := 503, upload.Unavailable
			if !same && !safe {
				want, kind = 403, upload.Forbidden
			}
			client.call(x, header).want(t, want, codeOf(x.method, kind))
		}
	}
	management.do("POST", "/transfers/1/cancel", nil, "Origin: http://evil.example").want(t, 403, "forbidden")
}

func managementCalls() []call {
	return []call{
		{"GET", "/healthz", "", ""},
		{"GET", "/readyz", "", ""},
		{"GET", "/metrics", "", ""},
		{"GET", "/transfers", "", ""},
		{"POST", "/transfers/1/retry", "", ""},
		{"POST", "/transfers/1/cancel", "", ""},
		{"GET", "/nodes", "", ""},
		{"POST", "/nodes/1/forget", "", ""},
	}
}

func TestUnknownAddresses(t *testing.T) {
	client := serveHandler(t, New(&stub{}, Options{}).Handler())
	for _, path := range []string{"/nothing", "/v1", "/v1/", "/v2/files", "/v1/files/", "/v1/files/1/", "/metrics", "/healthz", "/readyz", "/debug/pprof/", "/transfers", "/..%2f..%2fetc/passwd"} {
		a := client.do("GET", path, nil).want(t, 404, "not_found")
		if a.header.Get("Content-Type") != "application/problem+json" {
			t.Errorf("%s: %s", path, a.header.Get("Content-Type"))
		}
	}
	for path, allow := range map[string]string{
		"/v1/files": "GET, POST", "/v1/uploads/x/chunks/1": "PUT", "/v1/files/x/content": "GET, HEAD", "/v1/files/x": "DELETE, GET, PATCH",
	} {
		a := client.do("TRACE", path, nil).want(t, 405, "method_not_allowed")
		got := strings.Split(a.header.Get("Allow"), ", ")
		got = slices.DeleteFunc(got, func(m string) bool { return m == "OPTIONS" })
		slices.Sort(got)
		if strings.Join(got, ", ") != allow {
			t.Errorf("%s: Allow is %q, want %q", path, a.header.Get("Allow"), allow)
		}
	}
	a := client.do("OPTIONS", "/v1/files", nil, "Origin: http://evil.example", "Access-Control-Request-Method: POST")
	if a.status == 200 || a.header.Get("Access-Control-Allow-Methods") != "" {
		t.Errorf("a preflight was answered: %d %v", a.status, a.header)
	}
	client.do("GET", "/problems/gone", nil).want(t, 302, "")
	client.do("GET", "/problems/nonsense", nil).want(t, 404, "not_found")
}

func TestRequestIDs(t *testing.T) {
	client := serveHandler(t, New(&stub{err: upload.NotFound}, Options{}).Handler())
	if got := client.do("GET", "/v1/files/1", nil, "X-Request-Id: abc-123_x.Y").header.Get(headerRequestID); got != "abc-123_x.Y" {
		t.Errorf("a sane id is not taken over: %q", got)
	}
	seen := map[string]bool{}
	for _, given := range []string{"", strings.Repeat("a", 65), "a b", `a"b`, "a<script>", "ä"} {
		got := client.do("GET", "/v1/files/1", nil, "X-Request-Id: "+given).header.Get(headerRequestID)
		if got == given || got == "" || seen[got] {
			t.Errorf("id %q for %q", got, given)
		}
		seen[got] = true
	}
}
