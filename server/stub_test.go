package server

import (
	"context"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"gantry/chunkstore"
	"gantry/meta"
	"gantry/server/ingest"
	"gantry/upload"
)

// stub is use cases that fail as a test wants it; where the test wants nothing else, with err.
type stub struct {
	err      error
	putChunk func(ctx context.Context, id string, index int, body chunkstore.Body) error
	putFile  func(r ingest.FileRequest, body chunkstore.Body) (upload.File, error)
	content  func() (ingest.FileContent, error)
	files    func(q meta.FileQuery) (ingest.Page[upload.File], error)
	status   func() (ingest.Status, error)
}

func (s *stub) Init(context.Context, string, ingest.InitRequest) (ingest.Opened, bool, error) {
	return ingest.Opened{}, false, s.err
}

func (s *stub) PutChunk(ctx context.Context, _, id string, index int, body chunkstore.Body) error {
	if s.putChunk != nil {
		return s.putChunk(ctx, id, index, body)
	}
	return s.err
}

func (s *stub) Status(context.Context, string, string) (ingest.Status, error) {
	if s.status != nil {
		return s.status()
	}
	return ingest.Status{}, s.err
}

func (s *stub) Uploads(context.Context, string, string, int) (ingest.Page[ingest.Status], error) {
	return ingest.Page[ingest.Status]{}, s.err
}

func (s *stub) URLs(context.Context, string, string, int, int) (ingest.URLs, error) {
	return ingest.URLs{}, s.err
}

func (s *stub) Instant(context.Context, string, string, ingest.InstantRequest) (ingest.InstantResult, error) {
	return ingest.InstantResult{}, s.err
}

func (s *stub) Complete(context.Context, string, string, ingest.CompleteRequest) (upload.File, error) {
	return upload.File{}, s.err
}
func (s *stub) Cancel(context.Context, string, string) error { return s.err }
func (s *stub) Prefix(context.Context, string, string) (ingest.Prefix, error) {
	return ingest.Prefix{}, s.err
}

func (s *stub) PutFile(_ context.Context, _ string, r ingest.FileRequest, body chunkstore.Body) (upload.File, error) {
	if s.putFile != nil {
		return s.putFile(r, body)
	}
	return upload.File{}, s.err
}

func (s *stub) File(context.Context, string, string) (upload.File, error) {
	return upload.File{}, s.err
}

func (s *stub) Files(_ context.Context, q meta.FileQuery) (ingest.Page[upload.File], error) {
	if s.files != nil {
		return s.files(q)
	}
	return ingest.Page[upload.File]{}, s.err
}

func (s *stub) UpdateFile(context.Context, string, string, meta.FileChange) (upload.File, error) {
	return upload.File{}, s.err
}
func (s *stub) DeleteFile(context.Context, string, string) error { return s.err }
func (s *stub) Content(context.Context, string, string) (ingest.FileContent, error) {
	if s.content != nil {
		return s.content()
	}
	return ingest.FileContent{}, s.err
}

func (s *stub) Follow(string) (*ingest.Follower, error) { return nil, s.err }

// stubTransfers is an outbox that fails.
type stubTransfers struct{ err error }

func (s stubTransfers) Transfer(context.Context, string) (upload.Transfer, error) {
	return upload.Transfer{}, s.err
}

func (s stubTransfers) Transfers(context.Context, []upload.TransferState, int) ([]upload.Transfer, error) {
	return nil, s.err
}
func (s stubTransfers) RetryTransfer(context.Context, string, time.Time) error  { return s.err }
func (s stubTransfers) CancelTransfer(context.Context, string, time.Time) error { return s.err }
func (s stubTransfers) Backlog(context.Context, time.Time) (meta.Backlog, error) {
	return meta.Backlog{}, s.err
}

// stubNodes is a registry that fails.
type stubNodes struct{ err error }

func (s stubNodes) Nodes(context.Context) ([]meta.Node, error) { return nil, s.err }
func (s stubNodes) Forget(context.Context, string, time.Time) (int64, error) {
	return 0, s.err
}

func newManagement(_ testing.TB, s *Server, transfers Transfers) http.Handler {
	if transfers == nil {
		transfers = stubTransfers{}
	}
	nodes := stubNodes{}
	if failing, ok := transfers.(stubTransfers); ok {
		nodes.err = failing.err
	}
	return s.Management(ManagementDeps{Transfers: transfers, Nodes: nodes, Registry: prometheus.NewRegistry(), Version: "test"})
}

// serveHandler runs a handler on a loopback port and returns a client for it whose answers are checked
// against the document.
func serveHandler(t testing.TB, h http.Handler) *testClient {
	t.Helper()
	srv := httptest.NewServer(h)
	t.Cleanup(srv.Close)
	return &testClient{t: t, url: srv.URL, addr: srv.Listener.Addr().String(), http: http.Client{
		Transport:     &transport{t, srv.Client().Transport},
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}}
}

// testClient calls a server.
type testClient struct {
	t    testing.TB
	url  string
	addr string // host:port
	http http.Client
}

// with returns the client for another test.
func (c *testClient) with(t testing.TB) *testClient {
	other := *c
	other.t = t
	return &other
}

// answered is an answer that was read.
type answered struct {
	status int
	header http.Header
	body   string
	last   bool // the connection is closed after it
}

// do sends a request. headers are "Name: value".
func (c *testClient) do(method, path string, body io.Reader, headers ...string) answered {
	c.t.Helper()
	r, err := http.NewRequestWithContext(c.t.Context(), method, c.url+path, body)
	if err != nil {
		c.t.Fatal(err)
	}
	for _, h := range headers {
		name, value, _ := strings.Cut(h, ": ")
		switch name {
		case "Host":
			r.Host = value
		default:
			r.Header.Add(name, value)
		}
	}
	resp, err := c.http.Do(r)
	if err != nil {
		c.t.Fatalf("%s %s: %v", method, path, err)
	}
	defer func() { _ = resp.Body.Close() }()
	text, err := io.ReadAll(resp.Body)
	if err != nil {
		c.t.Fatalf("%s %s: %v", method, path, err)
	}
	return answered{resp.StatusCode, resp.Header, string(text), resp.Close}
}

// json sends a JSON request.
func (c *testClient) json(method, path, body string, headers ...string) answered {
	c.t.Helper()
	return c.do(method, path, strings.NewReader(body), append(headers, "Content-Type: application/json")...)
}

// want fails the test unless the answer has this status and, for errors, this code.
func (a answered) want(t testing.TB, status int, code string) answered {
	t.Helper()
	if a.status != status || code != "" && !strings.Contains(a.body, `"code":"`+code+`"`) {
		t.Errorf("answered %d %.300s, want %d %s", a.status, a.body, status, code)
	}
	return a
}
