package server

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"go.uber.org/goleak"

	"gantry/chunkstore"
	"gantry/server/ingest"
	"gantry/upload"
)

// Times of these tests: a body that stalls is cut after testWindow; testWait is "never".
const (
	testWindow = 300 * time.Millisecond
	testWait   = 20 * time.Second
)

// rawConn speaks HTTP by hand.
type rawConn struct {
	net.Conn
	t  testing.TB
	in *bufio.Reader
}

func dial(t testing.TB, addr string) *rawConn {
	t.Helper()
	conn, err := net.Dial("tcp", addr)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = conn.Close() })
	_ = conn.SetDeadline(time.Now().Add(testWait))
	return &rawConn{conn, t, bufio.NewReader(conn)}
}

func (c *rawConn) send(format string, args ...any) {
	c.t.Helper()
	if _, err := fmt.Fprintf(c, format, args...); err != nil {
		c.t.Fatal(err)
	}
}

// answer reads one answer and checks it against the document.
func (c *rawConn) answer(method, path string) answered {
	c.t.Helper()
	r, err := http.NewRequest(method, "http://localhost"+path, nil)
	if err != nil {
		c.t.Fatal(err)
	}
	resp, err := http.ReadResponse(c.in, r)
	if err != nil {
		c.t.Fatalf("%s %s: no answer: %v", method, path, err)
	}
	body, err := io.ReadAll(resp.Body)
	if err != nil {
		c.t.Fatal(err)
	}
	if resp.StatusCode >= 200 && resp.Header.Get(headerRequestID) != "" { // not one of net/http's own
		if err := contract().check(r, nil, resp.StatusCode, resp.Header, body); err != nil {
			c.t.Errorf("%s %s: %d %s: %v", method, path, resp.StatusCode, body, err)
		}
	}
	return answered{resp.StatusCode, resp.Header, string(body), resp.Close}
}

// closed waits until the server has closed the connection.
func (c *rawConn) closed() {
	c.t.Helper()
	if _, err := io.Copy(io.Discard, c.in); err != nil && errors.Is(err, context.DeadlineExceeded) {
		c.t.Errorf("the connection is not closed: %v", err)
	}
}

// reader returns a stub that reads bodies to their end and reports how that ended.
func reader(ended chan<- error) *stub {
	read := func(body io.Reader) error {
		_, err := io.Copy(io.Discard, body)
		if ended != nil {
			ended <- err
		}
		return err
	}
	return &stub{
		putChunk: func(_ context.Context, _ string, _ int, body chunkstore.Body) error { return read(body) },
		putFile: func(_ ingest.FileRequest, body chunkstore.Body) (upload.File, error) {
			return upload.File{}, read(body)
		},
	}
}

// bodyCalls are the operations that take a body.
func bodyCalls() []call {
	var calls []call
	for _, x := range everyCall() {
		if x.body != "" || strings.HasSuffix(x.path, "/complete") {
			calls = append(calls, x)
		}
	}
	return calls
}

// head is a request's head for a body of n bytes.
func (x call) head(n int, more ...string) string {
	lines := []string{x.method + " " + x.path + " HTTP/1.1", "Host: localhost", "Chunk-Index: 0", fmt.Sprintf("Content-Length: %d", n)}
	if x.contentType != "" || strings.HasSuffix(x.path, "/complete") {
		lines = append(lines, "Content-Type: application/json")
	}
	return strings.Join(append(lines, more...), "\r\n") + "\r\n\r\n"
}

func pathOf(x call) string {
	path, _, _ := strings.Cut(x.path, "?")
	return path
}

func TestStalledBodiesAreCut(t *testing.T) {
	client := serveHandler(t, New(reader(nil), Options{Window: testWindow}).Handler())
	for _, x := range bodyCalls() {
		conn := dial(t, client.addr)
		conn.send("%s{", x.head(1000))
		conn.answer(x.method, pathOf(x)).want(t, 408, "timeout")
		conn.closed()
	}
}

func TestSlowBodiesAreCut(t *testing.T) {
	// One byte every now and then is below the least rate, though no single read waits for long.
	ended := make(chan error, 1)
	client := serveHandler(t, New(reader(ended), Options{Window: testWindow, MinRate: 1000}).Handler())
	x := call{method: "PUT", path: "/v1/uploads/x/chunks/0"}
	conn := dial(t, client.addr)
	conn.send("%s", x.head(1000))
	var wg sync.WaitGroup
	defer wg.Wait()
	wg.Go(func() {
		for range 100 {
			if _, err := conn.Write([]byte("x")); err != nil {
				return
			}
			time.Sleep(testWindow / 10)
		}
	})
	conn.answer(x.method, x.path).want(t, 408, "timeout")
	if err := <-ended; !errors.Is(err, upload.Timeout) {
		t.Errorf("the use case saw %v", err)
	}
}

func TestSteadyBodiesMayTakeLong(t *testing.T) {
	client := serveHandler(t, New(reader(nil), Options{Window: testWindow, MinRate: 1000}).Handler())
	x := call{method: "PUT", path: "/v1/uploads/x/chunks/0"}
	conn := dial(t, client.addr)
	const pieces, piece = 20, 400 // each in a third of a window, at four times the rate; six windows in all
	conn.send("%s", x.head(pieces*piece))
	for range pieces {
		conn.send("%s", strings.Repeat("x", piece))
		time.Sleep(testWindow / 3)
	}
	conn.answer(x.method, x.path).want(t, 204, "")
}

func TestWorkAfterTheBodyIsNotCut(t *testing.T) {
	// The deadline of the body must not cancel a request whose body is all there.
	var canceled atomic.Bool
	st := &stub{putChunk: func(ctx context.Context, _ string, _ int, body chunkstore.Body) error {
		if _, err := io.Copy(io.Discard, body); err != nil {
			return err
		}
		select {
		case <-ctx.Done():
			canceled.Store(true)
		case <-time.After(3 * testWindow):
		}
		return nil
	}}
	client := serveHandler(t, New(st, Options{Window: testWindow}).Handler())
	client.do("PUT", "/v1/uploads/x/chunks/0", strings.NewReader("abc")).want(t, 204, "")
	if canceled.Load() {
		t.Error("the request was canceled while it was being worked on")
	}
}

func TestAnswersMayTakeLong(t *testing.T) {
	// The deadline that Serve gives to bodies must not cancel a request without one.
	st := endless(10, func(ctx context.Context, _, _ int64) (io.ReadCloser, error) {
		select {
		case <-ctx.Done():
			return nil, ctx.Err()
		case <-time.After(3 * testWindow):
			return io.NopCloser(zeros{}), nil
		}
	})
	l := listen(t)
	serveUntil(t, l, New(st, Options{}).Handler(), Options{Window: testWindow})
	conn := dial(t, l.Addr().String())
	conn.send("GET /v1/files/f/content HTTP/1.1\r\nHost: localhost\r\n\r\n")
	conn.answer("GET", "/v1/files/f/content").want(t, 200, "")
}

func TestAbort(t *testing.T) {
	bodies := make(chan chunkstore.Body, 1)
	st := &stub{putChunk: func(_ context.Context, _ string, _ int, body chunkstore.Body) error {
		bodies <- body
		_, err := io.Copy(io.Discard, body)
		return err
	}}
	client := serveHandler(t, New(st, Options{}).Handler())
	x := call{method: "PUT", path: "/v1/uploads/x/chunks/0"}
	conn := dial(t, client.addr)
	conn.send("%sabc", x.head(1000))
	body := <-bodies
	body.Abort()
	conn.answer(x.method, x.path).want(t, 408, "timeout")
	conn.closed()

	// After the request abort does nothing: the connection may carry another one by then.
	conn = dial(t, client.addr)
	conn.send("%sabc", x.head(3))
	conn.answer(x.method, x.path).want(t, 204, "")
	old := <-bodies
	conn.send("%sa", x.head(3))
	<-bodies
	old.Abort()
	time.Sleep(testWindow / 3)
	conn.send("bc")
	conn.answer(x.method, x.path).want(t, 204, "")
}

func TestBodiesThatEndEarly(t *testing.T) {
	client := serveHandler(t, New(reader(nil), Options{}).Handler())
	for _, x := range bodyCalls() {
		conn := dial(t, client.addr)
		conn.send("%s{", x.head(1000))
		if err := conn.Conn.(*net.TCPConn).CloseWrite(); err != nil {
			t.Fatal(err)
		}
		conn.answer(x.method, pathOf(x)).want(t, 400, "short_body")
	}
}

func TestExpectContinue(t *testing.T) {
	st := reader(nil)
	client := serveHandler(t, New(st, Options{}).Handler())
	x := call{method: "PUT", path: "/v1/uploads/x/chunks/0"}
	conn := dial(t, client.addr)
	conn.send("%s", x.head(3, "Expect: 100-continue"))
	if line, err := conn.in.ReadString('\n'); err != nil || !strings.HasPrefix(line, "HTTP/1.1 100 ") {
		t.Fatalf("%q, %v", line, err)
	}
	_, _ = conn.in.ReadString('\n')
	conn.send("abc")
	conn.answer(x.method, x.path).want(t, 204, "")

	// Errors that the headers show come without asking for the body.
	for _, c := range []struct {
		head   string
		err    error
		status int
		code   string
	}{
		{x.head(3, "Expect: 100-continue"), upload.NotFound, 404, "not_found"},
		{x.head(3, "Expect: 100-continue"), upload.NotOpen, 409, "not_open"},
		{x.head(3, "Expect: 100-continue"), upload.LongBody, 413, "long_body"},
		{x.head(3, "Expect: 100-continue"), upload.NoRoom, 507, "insufficient_storage"},
		{x.head(3, "Expect: 100-continue", "Content-Encoding: gzip"), nil, 415, "unsupported_encoding"},
		{x.head(3, "Expect: 100-continue", "Content-Digest: x"), nil, 400, "invalid_request"},
	} {
		failing := &stub{putChunk: func(context.Context, string, int, chunkstore.Body) error { return c.err }}
		client := serveHandler(t, New(failing, Options{}).Handler())
		conn := dial(t, client.addr)
		conn.send("%s", c.head)
		conn.answer(x.method, x.path).want(t, c.status, c.code) // the first line is the answer, not "100 Continue"
		conn.closed()
	}
}

func TestClientsThatSendFirstSeeTheAnswer(t *testing.T) {
	st := &stub{putChunk: func(context.Context, string, int, chunkstore.Body) error { return upload.NotOpen }}
	client := serveHandler(t, New(st, Options{}).Handler())
	x := call{method: "PUT", path: "/v1/uploads/x/chunks/0"}
	conn := dial(t, client.addr)
	const n = 8 << 20
	conn.send("%s%s", x.head(n), strings.Repeat("x", n)) // all of it, before reading anything
	conn.answer(x.method, x.path).want(t, 409, "not_open")
	conn.send("%sx", x.head(1)) // and the connection still serves
	conn.answer(x.method, x.path).want(t, 409, "not_open")

	// Gigabytes are not waited for.
	conn = dial(t, client.addr)
	conn.send("%s", x.head(1<<30))
	start := time.Now()
	if a := conn.answer(x.method, x.path).want(t, 409, "not_open"); !a.last {
		t.Error("the connection is to be kept, with a gigabyte still to come")
	}
	if took := time.Since(start); took > drainTime/2 {
		t.Errorf("the answer took %v", took)
	}
}

func TestMalformedHTTP(t *testing.T) {
	l := listen(t)
	serveUntil(t, l, New(reader(nil), Options{}).Handler(), Options{HeaderTimeout: testWindow, Window: testWindow})
	put := "PUT /v1/uploads/x/chunks/0 HTTP/1.1\r\nHost: localhost\r\n"
	for _, c := range []struct {
		name, request string
		status        int // 0: closed without an answer
	}{
		{"chunked instead of a length", put + "Transfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n", 411},
		{"length and transfer coding", put + "Content-Length: 3\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\nGET /evil HTTP/1.1\r\nHost: localhost\r\n\r\n", 411},
		{"unknown transfer coding", put + "Transfer-Encoding: gzip, chunked\r\n\r\n", 501},
		{"two lengths", put + "Content-Length: 3\r\nContent-Length: 4\r\n\r\nabcd", 400},
		{"a negative length", put + "Content-Length: -1\r\n\r\n", 400},
		{"a length that does not fit", put + "Content-Length: 99999999999999999999\r\n\r\n", 400},
		{"a signed length", put + "Content-Length: +3\r\n\r\nabc", 400},
		{"space before the colon", put + "Content-Length : 3\r\n\r\nabc", 400},
		{"NUL in a header", put + "X: a\x00b\r\n\r\n", 400},
		{"large headers", put + "X: " + strings.Repeat("a", 64<<10) + "\r\n\r\n", 431},
		{"no Host", "GET /v1/files HTTP/1.1\r\n\r\n", 400},
		{"two Hosts", "GET /v1/files HTTP/1.1\r\nHost: localhost\r\nHost: evil\r\n\r\n", 400},
		{"OPTIONS for all, for a foreign host", "OPTIONS * HTTP/1.1\r\nHost: evil.example\r\nConnection: close\r\n\r\n", 403},
		{"an absolute address elsewhere", "GET http://evil.example/v1/files HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n", 403},
		{"HTTP/1.0 without a Host", "GET /v1/files HTTP/1.0\r\n\r\n", 403},
		{"HTTP/2 with prior knowledge", "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", 403},
		{"a tunnel", "CONNECT evil.example:80 HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n", 403},
		{"an unknown expectation", put + "Content-Length: 3\r\nExpect: more\r\n\r\n", 417},
		{"headers that never end", put + "X: a\r\n", 0},
	} {
		t.Run(c.name, func(t *testing.T) {
			conn := dial(t, l.Addr().String())
			_, _ = conn.Write([]byte(c.request))
			resp, err := http.ReadResponse(conn.in, nil)
			switch {
			case c.status == 0 && err == nil && resp.StatusCode != 400 && resp.StatusCode != 408 && resp.StatusCode != 411:
				t.Errorf("answered %d", resp.StatusCode)
			case c.status == 0:
			case err != nil:
				t.Errorf("no answer: %v", err)
			case resp.StatusCode != c.status || !resp.Close:
				t.Errorf("answered %d, close %v; want %d and a closed connection", resp.StatusCode, resp.Close, c.status)
			}
			if err == nil {
				_, _ = io.Copy(io.Discard, resp.Body)
			}
			if rest, _ := io.ReadAll(conn.in); len(rest) > 0 {
				t.Errorf("more was answered on the connection: %q", rest)
			}
		})
	}
	// Malformed chunked coding where chunked coding is accepted.
	for _, body := range []string{"zz\r\n{}\r\n0\r\n\r\n", "2\r\n{}xx0\r\n\r\n", "-1\r\n", "ffffffffffffffffffff\r\n"} {
		conn := dial(t, l.Addr().String())
		conn.send("POST /v1/uploads HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\nTransfer-Encoding: chunked\r\n\r\n%s", body)
		conn.answer("POST", "/v1/uploads").want(t, 400, "")
		conn.closed()
	}
}

func listen(t testing.TB) net.Listener {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	return l
}

// serveUntil runs Serve until the test ends, or stop is called; stop returns what Serve returned.
func serveUntil(t testing.TB, l net.Listener, h http.Handler, opt Options) (stop func() error) {
	t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	result := make(chan error, 1)
	var wg sync.WaitGroup
	wg.Go(func() { result <- Serve(ctx, l, h, opt) })
	stop = sync.OnceValue(func() error { cancel(); wg.Wait(); return <-result })
	t.Cleanup(func() { _ = stop() })
	return stop
}

func TestServeLetsRequestsFinish(t *testing.T) {
	defer goleak.VerifyNone(t, goleak.IgnoreCurrent())
	entered, leave := make(chan bool), make(chan bool)
	st := &stub{putChunk: func(_ context.Context, _ string, _ int, body chunkstore.Body) error {
		entered <- true
		<-leave
		_, err := io.Copy(io.Discard, body)
		return err
	}}
	l := listen(t)
	stop := serveUntil(t, l, New(st, Options{}).Handler(), Options{})
	x := call{method: "PUT", path: "/v1/uploads/x/chunks/0"}
	conn := dial(t, l.Addr().String())
	conn.send("%sabc", x.head(3))
	<-entered
	var wg sync.WaitGroup
	var err error
	wg.Go(func() { err = stop() })
	for { // until no new connection is taken
		c, dialErr := net.Dial("tcp", l.Addr().String())
		if dialErr != nil {
			break
		}
		_ = c.Close()
		time.Sleep(time.Millisecond)
	}
	leave <- true
	conn.answer(x.method, x.path).want(t, 204, "")
	if wg.Wait(); err != nil {
		t.Errorf("Serve: %v", err)
	}
}

func TestServeCutsWhatDoesNotFinish(t *testing.T) {
	defer goleak.VerifyNone(t, goleak.IgnoreCurrent())
	entered, ended := make(chan bool, 1), make(chan error, 1)
	st := &stub{putChunk: func(_ context.Context, _ string, _ int, body chunkstore.Body) error {
		entered <- true
		_, err := io.Copy(io.Discard, body)
		ended <- err
		return err
	}}
	l := listen(t)
	stop := serveUntil(t, l, New(st, Options{}).Handler(), Options{DrainTimeout: testWindow})
	x := call{method: "PUT", path: "/v1/uploads/x/chunks/0"}
	conn := dial(t, l.Addr().String())
	conn.send("%sabc", x.head(1000)) // and never the rest
	<-entered
	if err := stop(); err != nil {
		t.Errorf("Serve: %v", err)
	}
	select {
	case err := <-ended:
		if !errors.Is(err, upload.Canceled) {
			t.Errorf("the use case saw %v", err)
		}
	default:
		t.Error("Serve returned while a handler was running")
	}
}

func TestServeSaysWhyItCannot(t *testing.T) {
	l := listen(t)
	_ = l.Close()
	if err := Serve(t.Context(), l, http.NotFoundHandler(), Options{}); err == nil {
		t.Error("no error from a closed listener")
	}
}

func TestPanics(t *testing.T) {
	var log syncBuffer
	st := &stub{putChunk: func(context.Context, string, int, chunkstore.Body) error { panic("out of cheese") }}
	client := serveHandler(t, New(st, Options{Log: slog.New(slog.NewTextHandler(&log, nil))}).Handler())
	a := client.do("PUT", "/v1/uploads/x/chunks/0", strings.NewReader("x")).want(t, 500, "internal")
	if strings.Contains(a.body, "cheese") {
		t.Errorf("the client sees the panic: %s", a.body)
	}
	if !strings.Contains(log.String(), "out of cheese") || !strings.Contains(log.String(), "wire_test.go") {
		t.Errorf("the log has not panic and place: %s", log.String())
	}
	client.do("GET", "/docs", nil).want(t, 200, "") // and it goes on
}

// syncBuffer is a bytes.Buffer for several goroutines.
type syncBuffer struct {
	mu  sync.Mutex
	buf bytes.Buffer
}

func (b *syncBuffer) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.buf.Write(p)
}

func (b *syncBuffer) String() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.buf.String()
}

// endless is a file of the given size whose content fails or never ends.
func endless(size int64, open opener) *stub {
	return &stub{content: func() (ingest.FileContent, error) {
		return ingest.FileContent{
			File: upload.File{ID: "f", BlobID: "b", Name: "a", Size: size, UpdatedAt: time.Unix(1e9, 0)},
			Open: open, Close: func() error { return nil },
		}, nil
	}}
}

// zeros reads as zeros.
type zeros struct{}

func (zeros) Read(p []byte) (int, error) { clear(p); return len(p), nil }

func TestDownloadsThatNobodyTakesAreCut(t *testing.T) {
	closed := make(chan bool, 1)
	st := endless(1<<40, func(_ context.Context, _, length int64) (io.ReadCloser, error) {
		return closer{io.LimitReader(zeros{}, length), func() { closed <- true }}, nil
	})
	client := serveHandler(t, New(st, Options{Stall: testWindow}).Handler())
	conn := dial(t, client.addr)
	conn.send("GET /v1/files/f/content HTTP/1.1\r\nHost: localhost\r\n\r\n")
	select {
	case <-closed: // without a byte having been read
	case <-time.After(testWait):
		t.Error("the download is still going on")
	}
}

type closer struct {
	io.Reader
	close func()
}

func (c closer) Close() error { c.close(); return nil }

func TestDownloadThatBreaksIsSeenByTheClient(t *testing.T) {
	const size = 1 << 20
	var log syncBuffer
	st := endless(size, func(_ context.Context, _, length int64) (io.ReadCloser, error) {
		return io.NopCloser(io.LimitReader(zeros{}, length/2)), nil // half of it is missing
	})
	client := serveHandler(t, New(st, Options{Log: slog.New(slog.NewTextHandler(&log, nil))}).Handler())
	for _, header := range []string{"X: y", "Range: bytes=0-999999", "Range: bytes=0-299999,400000-999999"} {
		conn := dial(t, client.addr)
		conn.send("GET /v1/files/f/content HTTP/1.1\r\nHost: localhost\r\n%s\r\n\r\n", header)
		resp, err := http.ReadResponse(conn.in, nil)
		if err != nil {
			t.Fatal(err)
		}
		if n, err := io.Copy(io.Discard, resp.Body); err == nil {
			t.Errorf("%s: a broken download of %d bytes looks whole", header, n)
		}
	}
	if !strings.Contains(log.String(), "level=ERROR") {
		t.Errorf("a broken download is not logged: %s", log.String())
	}
	// What fails before the first byte is a problem document.
	st = endless(size, func(context.Context, int64, int64) (io.ReadCloser, error) { return nil, upload.Unavailable })
	client = serveHandler(t, New(st, Options{}).Handler())
	a := client.do("GET", "/v1/files/f/content", nil).want(t, 503, "unavailable")
	for _, name := range []string{"Content-Disposition", "ETag", "Repr-Digest", "Last-Modified", "Content-Range"} {
		if a.header.Get(name) != "" {
			t.Errorf("the problem document has %s", name)
		}
	}
}

func TestManyBodiesLeaveNoGoroutines(t *testing.T) {
	defer goleak.VerifyNone(t, goleak.IgnoreCurrent())
	l := listen(t)
	stop := serveUntil(t, l, New(reader(nil), Options{Window: testWindow}).Handler(), Options{HeaderTimeout: testWindow, DrainTimeout: testWindow})
	x := call{method: "PUT", path: "/v1/uploads/x/chunks/0"}
	var conns []*rawConn
	for i := range 50 {
		conn := dial(t, l.Addr().String())
		switch i % 3 {
		case 0:
			conn.send("%sab", x.head(1000)) // stalls
		case 1:
			conn.send("PUT /v1/uploads HT") // a head that never ends
		case 2:
			conn.send("%sab", x.head(1000))
			_ = conn.Close() // goes away
		}
		conns = append(conns, conn)
	}
	for i, conn := range conns {
		if i%3 != 2 {
			conn.closed()
		}
	}
	if err := stop(); err != nil {
		t.Error(err)
	}
}
