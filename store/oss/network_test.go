package oss

import (
	"bytes"
	"context"
	"errors"
	"io"
	"iter"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"gantry/internal/testenv"
	"gantry/store"
	"gantry/store/storetest"
	"gantry/upload"
)

// wire is the network: it counts requests, and does to them what a test wants.
type wire struct {
	puts, gets, heads atomic.Int64
	sent              atomic.Int64                                  // bytes of parts and objects
	harm              func(r *http.Request) (*http.Response, error) // nil, nil: nothing
	after             func(r *http.Request, resp *http.Response) error
}

func (w *wire) RoundTrip(r *http.Request) (*http.Response, error) {
	if w.harm != nil {
		if resp, err := w.harm(r); resp != nil || err != nil {
			return resp, err
		}
	}
	switch r.Method {
	case http.MethodPut:
		w.puts.Add(1)
		w.sent.Add(r.ContentLength)
	case http.MethodGet:
		w.gets.Add(1)
	case http.MethodHead:
		w.heads.Add(1)
	}
	resp, err := http.DefaultTransport.RoundTrip(r)
	if err == nil && w.after != nil {
		if err := w.after(r, resp); err != nil {
			resp.Body.Close()
			return nil, err
		}
	}
	return resp, err
}

// answer is one that the network gives in place of the store.
func answer(r *http.Request, status int, code string) *http.Response {
	resp := document(r, "<Error><Code>"+code+"</Code><Message>A test.</Message></Error>")
	resp.StatusCode, resp.Status = status, http.StatusText(status)
	return resp
}

func document(r *http.Request, body string) *http.Response {
	return &http.Response{
		StatusCode: http.StatusOK, Status: "OK", Proto: "HTTP/1.1", ProtoMajor: 1, ProtoMinor: 1, Header: http.Header{},
		Body: io.NopCloser(strings.NewReader(body)), ContentLength: int64(len(body)), Request: r,
	}
}

// The answer to Complete is lost though it was done: that is not known to have failed, and is no failure.
func TestLostAnswerToComplete(t *testing.T) {
	opt := serve(t, "v4")
	var lost atomic.Bool
	opt.Client = &wire{after: func(r *http.Request, _ *http.Response) error {
		if r.Method == http.MethodPost && r.URL.Query().Has("uploadId") && lost.CompareAndSwap(false, true) {
			return errors.New("the answer is lost")
		}
		return nil
	}}
	s := open(t, opt)
	data := storetest.Bytes(4, 2<<20+1)
	key := storetest.Key(data, "a")
	if err := s.Put(t.Context(), key, bytes.NewReader(data), store.PutOptions{}); err != nil {
		t.Fatal(err)
	}
	if !lost.Load() {
		t.Fatal("no answer was lost: the test does not test anything")
	}
	expect(t, s, key, data)
}

// damage changes a bit of a request's body after it was signed.
type damage struct{ io.ReadCloser }

func (d damage) Read(p []byte) (int, error) {
	n, err := d.ReadCloser.Read(p)
	if n > 0 {
		p[0] ^= 1
	}
	return n, err
}

// What is damaged on its way is told by the CRC-64 in the answer, and sent again.
func TestDamagedOnTheWay(t *testing.T) {
	for _, size := range []int{1000, 3<<20 + 1} {
		opt := serve(t, "v4")
		var left atomic.Int64
		left.Store(2)
		opt.Client = &wire{harm: func(r *http.Request) (*http.Response, error) {
			if r.Method == http.MethodPut && left.Add(-1) >= 0 {
				r.Body = damage{r.Body}
			}
			return nil, nil
		}}
		s := open(t, opt)
		data := storetest.Bytes(5, size)
		key := storetest.Key(data, "a")
		if err := s.Put(t.Context(), key, bytes.NewReader(data), store.PutOptions{}); err != nil {
			t.Fatal(err)
		}
		if left.Load() >= 0 {
			t.Error("nothing was damaged")
		}
		expect(t, s, key, data)

		left.Store(1000)
		if err := s.Put(t.Context(), key, bytes.NewReader(data), store.PutOptions{}); !errors.Is(err, upload.DigestMismatch) {
			t.Errorf("put over a network that damages everything: %v", err)
		}
	}
}

// A store that is busy for a while is asked again.
func TestBurstOf503(t *testing.T) {
	opt := serve(t, "v4")
	var left atomic.Int64
	opt.Client = &wire{harm: func(r *http.Request) (*http.Response, error) {
		if left.Add(-1) >= 0 {
			return answer(r, http.StatusServiceUnavailable, "ServiceUnavailable"), nil
		}
		return nil, nil
	}}
	s := open(t, opt)
	data := storetest.Bytes(8, 3<<20+1)
	key := storetest.Key(data, "a")
	left.Store(3)
	if err := s.Put(t.Context(), key, bytes.NewReader(data), store.PutOptions{}); err != nil {
		t.Fatal(err)
	}
	expect(t, s, key, data)
	left.Store(1 << 40)
	if err := s.Put(t.Context(), key, bytes.NewReader(data), store.PutOptions{}); !errors.Is(err, upload.Unavailable) {
		t.Errorf("a store that is always busy: %v", err)
	}
}

// What OSS says is told in kinds that a worker can act upon.
func TestErrors(t *testing.T) {
	opt := serve(t, "v4")
	status, code := 0, ""
	opt.Client = &wire{harm: func(r *http.Request) (*http.Response, error) { return answer(r, status, code), nil }}
	s := open(t, opt)
	for c, want := range map[string]upload.Kind{
		"NoSuchBucket": upload.Invalid, "AccessDenied": upload.Invalid, "InvalidAccessKeyId": upload.Invalid, "SignatureDoesNotMatch": upload.Invalid,
		"SecurityTokenExpired": upload.Invalid, "NoSuchKey": upload.NotFound, "NoSuchUpload": upload.NotFound, "RequestTimeTooSkewed": upload.Unavailable,
		"InternalError": upload.Unavailable, "QpsLimitExceeded": upload.Unavailable, "FileImmutable": upload.Invalid, "InvalidPart": upload.Conflict,
		"InvalidObjectState": upload.Invalid, "InvalidDigest": upload.DigestMismatch,
	} {
		status, code = http.StatusForbidden, c
		if err := s.Check(t.Context()); upload.KindOf(err) != want {
			t.Errorf("%s: %v, want %v", c, err, want)
		}
	}
}

// A range that the store ignores or cuts is an error, not other bytes.
func TestWrongRange(t *testing.T) {
	opt := serve(t, "v4")
	net := &wire{}
	opt.Client = net
	s := open(t, opt)
	data := storetest.Bytes(9, 5000)
	key := storetest.Key(data, "a")
	if err := s.Put(t.Context(), key, bytes.NewReader(data), store.PutOptions{}); err != nil {
		t.Fatal(err)
	}
	for name, change := range map[string]func(r *http.Request){
		"ignored": func(r *http.Request) { r.Header.Del("Range") },
		"earlier": func(r *http.Request) { r.Header.Set("Range", "bytes=0-99") },
		"later":   func(r *http.Request) { r.Header.Set("Range", "bytes=150-199") },
		"shorter": func(r *http.Request) { r.Header.Set("Range", "bytes=100-150") },
	} {
		net.harm = func(r *http.Request) (*http.Response, error) { change(r); return nil, nil }
		if got, err := storetest.Read(t.Context(), s, key, 100, 100); !errors.Is(err, upload.Unavailable) {
			t.Errorf("a range that is %s: %d bytes, %v", name, len(got), err)
		}
	}
	net.harm = nil
	net.after = func(r *http.Request, resp *http.Response) error {
		if r.Method == http.MethodGet {
			resp.Body = struct {
				io.Reader
				io.Closer
			}{io.LimitReader(resp.Body, 99), resp.Body}
		}
		return nil
	}
	if got, err := storetest.Read(t.Context(), s, key, 100, 100); !errors.Is(err, upload.Unavailable) {
		t.Errorf("an answer that ends early: %d bytes, %v", len(got), err)
	}
	net.after = nil
	if _, err := s.Open(t.Context(), key, 5001, 1); !errors.Is(err, upload.BadRange) {
		t.Errorf("a range behind the end: %v", err)
	}
	if got, err := storetest.Read(t.Context(), s, key, 4990, 1000); err != nil || !bytes.Equal(got, data[4990:]) {
		t.Errorf("a range beyond the end: %d bytes, %v", len(got), err)
	}
}

// through puts a network of its own between a store and its server.
func through(t *testing.T, opt Options) (*Store, *testenv.Proxy) {
	t.Helper()
	proxy := testenv.NewProxy(t, strings.TrimPrefix(opt.Endpoint, "http://"))
	opt.Endpoint = "http://" + proxy.Address()
	return open(t, opt), proxy
}

// A network that is cut, or slow, costs time but no bytes.
func TestBadNetwork(t *testing.T) {
	opt := serve(t, "v4")
	direct := open(t, opt)
	data, check := storetest.Bytes(11, 6<<20+1), &kept{}
	key := storetest.Key(data, "a")

	s, proxy := through(t, opt)
	cut := false
	err := s.Put(t.Context(), key, bytes.NewReader(data), store.PutOptions{Checkpoint: check, Progress: func(sent int64) {
		if sent >= 2<<20 && !cut {
			cut = true
			proxy.Refuse()
		}
	}})
	if !errors.Is(err, upload.Unavailable) {
		t.Fatalf("put over a network that was cut: %v", err)
	}
	slow, network := through(t, opt)
	network.Slow(20 * time.Millisecond)
	if err := slow.Put(t.Context(), key, bytes.NewReader(data), store.PutOptions{Checkpoint: check}); err != nil {
		t.Fatal(err)
	}
	expect(t, direct, key, data)

	s, proxy = through(t, opt)
	body, err := s.Open(t.Context(), key, 0, -1)
	if err != nil {
		t.Fatal(err)
	}
	defer body.Close()
	if _, err := io.ReadFull(body, make([]byte, 1000)); err != nil {
		t.Fatal(err)
	}
	proxy.Refuse()
	if n, err := io.Copy(io.Discard, body); !errors.Is(err, upload.Unavailable) {
		t.Errorf("reading over a network that was cut: %d bytes, %v", n, err)
	}
}

// A Put over a network that says nothing can be given up.
func TestSilentNetwork(t *testing.T) {
	s, proxy := through(t, serve(t, "v4"))
	proxy.Hold()
	ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	if err := s.Put(ctx, "00/a", bytes.NewReader([]byte("x")), store.PutOptions{}); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("put that was given up: %v", err)
	}
}

// Every request ends when its context does.
func TestCanceled(t *testing.T) {
	opt := serve(t, "v4")
	plain := open(t, opt)
	if err := plain.Put(t.Context(), "00/a", bytes.NewReader([]byte("x")), store.PutOptions{}); err != nil {
		t.Fatal(err)
	}
	id, err := server{plain}.Create(t.Context(), "00/a")
	if err != nil {
		t.Fatal(err)
	}
	cancel := func() {}
	opt.Client = &wire{harm: func(*http.Request) (*http.Response, error) { cancel(); return nil, nil }}
	s := server{open(t, opt)}
	for name, call := range map[string]func(ctx context.Context) error{
		"put":      func(ctx context.Context) error { return s.PutObject(ctx, "00/a", []byte("x")) },
		"create":   func(ctx context.Context) error { _, err := s.Create(ctx, "00/a"); return err },
		"part":     func(ctx context.Context) error { _, err := s.PutPart(ctx, "00/a", id, 1, []byte("x")); return err },
		"parts":    func(ctx context.Context) error { return last(s.Parts(ctx, "00/a", id)) },
		"uploads":  func(ctx context.Context) error { return last(s.Uploads(ctx)) },
		"complete": func(ctx context.Context) error { return s.Complete(ctx, "00/a", id, nil) },
		"abort":    func(ctx context.Context) error { return s.Abort(ctx, "00/a", id) },
		"check":    s.Check,
		"size":     func(ctx context.Context) error { _, err := s.Size(ctx, "00/a"); return err },
		"open":     func(ctx context.Context) error { _, err := s.Open(ctx, "00/a", 0, -1); return err },
		"list":     func(ctx context.Context) error { return last(s.List(ctx)) },
		"delete":   func(ctx context.Context) error { return s.Delete(ctx, "00/a") },
		"advise":   func(ctx context.Context) error { _, err := s.Advise(ctx); return err },
	} {
		ctx, stop := context.WithCancel(t.Context())
		cancel = stop
		if err := call(ctx); !errors.Is(err, context.Canceled) || upload.KindOf(err) != upload.Canceled {
			t.Errorf("%s that was canceled: %v", name, err)
		}
		stop()
	}
}

// last is the error with which a listing ends.
func last[T any](all iter.Seq2[T, error]) (err error) {
	for _, err = range all {
	}
	return err
}

// Bytes go to the store that was named, and nowhere that it or someone between points to.
func TestRedirects(t *testing.T) {
	var followed atomic.Int64
	elsewhere := httptest.NewServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) { followed.Add(1) }))
	defer elsewhere.Close()
	web := httptest.NewServer(http.RedirectHandler(elsewhere.URL, http.StatusTemporaryRedirect))
	defer web.Close()
	for _, client := range []http.RoundTripper{nil, http.DefaultTransport} {
		s := open(t, Options{Endpoint: web.URL, Bucket: "uploads", Region: "cn-hangzhou", AccessKey: "a", SecretKey: "s", Client: client})
		if err := (server{s}).PutObject(t.Context(), "00/a", []byte("x")); !errors.Is(err, upload.Unavailable) {
			t.Errorf("a redirection: %v", err)
		}
		if err := s.Check(t.Context()); !errors.Is(err, upload.Unavailable) {
			t.Errorf("a redirection: %v", err)
		}
	}
	if followed.Load() > 0 {
		t.Error("it was followed")
	}
}

// hosts is the network of a test in which all names are those of one server.
func hosts(t *testing.T, server string) *http.Transport {
	t.Helper()
	transport := &http.Transport{DialContext: func(ctx context.Context, network, _ string) (net.Conn, error) {
		return (&net.Dialer{}).DialContext(ctx, network, strings.TrimPrefix(server, "http://"))
	}}
	t.Cleanup(transport.CloseIdleConnections)
	return transport
}

// Aliyun takes the bucket in the host's name only, and a domain of one's own has none. All of it is signed.
func TestHosts(t *testing.T) {
	for _, signature := range signatures {
		for name, endpoint := range map[string]string{"internal": "http://oss-cn-hangzhou-internal.aliyuncs.com", "bound": "http://uploads.example.com"} {
			opt := serve(t, signature)
			transport := hosts(t, opt.Endpoint)
			opt.Client, opt.Endpoint, opt.Public = transport, endpoint, "http://uploads.example.org"
			s := open(t, opt)
			data := storetest.Bytes(12, 2<<20+3)
			if err := s.Put(t.Context(), "00/ä b", bytes.NewReader(data), store.PutOptions{}); err != nil {
				t.Fatalf("%s, %s: %v", signature, name, err)
			}
			expect(t, s, "00/ä b", data)
			if _, err := s.Advise(t.Context()); err != nil {
				t.Errorf("%s, %s: %v", signature, name, err)
			}
			u, err := s.Presign(t.Context(), "00/ä b", store.PresignOptions{Expires: time.Minute})
			if err != nil {
				t.Fatal(err)
			}
			if u.Host != "uploads.example.org" {
				t.Errorf("clients are sent to %s", u.Host)
			}
			resp, err := (&http.Client{Transport: transport}).Get(u.String())
			if err != nil {
				t.Fatal(err)
			}
			got, err := io.ReadAll(resp.Body)
			resp.Body.Close()
			if err != nil || !bytes.Equal(got, data) {
				t.Errorf("%s, %s: %d, %d bytes, %v", signature, name, resp.StatusCode, len(got), err)
			}
		}
	}
}
