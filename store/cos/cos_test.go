package cos

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"gantry/store"
	"gantry/store/cos/costest"
	"gantry/store/multipart"
	"gantry/store/storetest"
	"gantry/upload"
)

const bucket = "test-1250000000"

// cloud is a server, and what befalls it.
type cloud struct {
	*httptest.Server
	now atomic.Int64 // seconds that its clock is ahead

	mu     sync.Mutex
	before func(w http.ResponseWriter, r *http.Request) bool // answers itself if it returns true
	seen   []string                                          // "PUT" and the like, with "?part" of a part
}

func newCloud(t *testing.T) *cloud {
	t.Helper()
	return newCloudWith(t, "")
}

// newCloudWith returns a server that knows temporary credentials.
func newCloudWith(t *testing.T, token string) *cloud {
	t.Helper()
	c := &cloud{}
	server := costest.New(costest.Options{
		Dir: t.TempDir(), Bucket: bucket, AccessKey: "AKIDtest", SecretKey: "secret", Token: token,
		Now: func() time.Time { return time.Now().Add(time.Duration(c.now.Load()) * time.Second) },
	})
	c.Server = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		kind := r.Method
		if r.URL.Query().Has("partNumber") {
			kind += "?part"
		}
		c.mu.Lock()
		c.seen = append(c.seen, kind)
		before := c.before
		c.mu.Unlock()
		if before == nil || !before(w, r) {
			server.ServeHTTP(w, r)
		}
	}))
	t.Cleanup(c.Close)
	return c
}

// intercept has f look at all requests from now on, and forgets those it has seen.
func (c *cloud) intercept(f func(w http.ResponseWriter, r *http.Request) bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.before, c.seen = f, nil
}

func (c *cloud) count(kind string) int {
	c.mu.Lock()
	defer c.mu.Unlock()
	n := 0
	for _, k := range c.seen {
		if k == kind {
			n++
		}
	}
	return n
}

func (c *cloud) options() Options {
	return Options{Endpoint: c.URL, Bucket: bucket, AccessKey: "AKIDtest", SecretKey: "secret", PartSize: minPart, Prefix: "some/präfix +/"}
}

func open(t *testing.T, opt Options) *Store {
	t.Helper()
	s, err := New(opt)
	if err != nil {
		t.Fatal(err)
	}
	// Not to wait in tests for what is tried again.
	s.putter = multipart.New(server{s}, multipart.Options{PartSize: opt.PartSize, Parts: opt.Parts, MinPart: minPart, MaxParts: maxParts, Delay: time.Millisecond})
	return s
}

// refusal answers as COS does.
func refusal(w http.ResponseWriter, status int, code string) {
	w.Header().Set("Content-Type", "application/xml")
	w.WriteHeader(status)
	fmt.Fprintf(w, "<?xml version='1.0' encoding='utf-8' ?><Error><Code>%s</Code><Message>told to</Message></Error>", code)
}

func digests(data []byte) store.Digests {
	d := store.NewDigester(true)
	_, _ = d.Write(data)
	return d.Sum()
}

func put(t *testing.T, s *Store, key string, data []byte) {
	t.Helper()
	if err := s.Put(t.Context(), key, bytes.NewReader(data), store.PutOptions{}); err != nil {
		t.Fatal(err)
	}
}

func alter(t *testing.T, st store.Store, key string, change func([]byte) []byte) {
	s := st.(*Store)
	data, err := storetest.Read(t.Context(), s, key, 0, -1)
	if err != nil {
		t.Fatal(err)
	}
	if err := (server{s}).PutObject(t.Context(), key, change(data)); err != nil {
		t.Fatal(err)
	}
}

var badKeys = []string{
	"", "/a", "a//b", "../a", "a/../b", "./a", "a/.", "a/", "a\x00b", "a\nb", "a\x7fb", `a\b`, "a\xffb", strings.Repeat("a", 513),
}

// counting counts the bytes of objects and parts that are sent.
type counting struct{ sent atomic.Int64 }

func (c *counting) RoundTrip(r *http.Request) (*http.Response, error) {
	if r.Method == http.MethodPut {
		c.sent.Add(r.ContentLength)
	}
	return http.DefaultTransport.RoundTrip(r)
}

func TestStore(t *testing.T) {
	storetest.Run(t, func(t *testing.T) store.Store {
		opt := newCloud(t).options()
		opt.Client = &counting{}
		return open(t, opt)
	}, storetest.Caps{
		Alter: alter, BadKeys: badKeys, AnyKey: true, PartSize: minPart, Memory: 4 * minPart,
		Sent: func(s store.Store) int64 { return s.(*Store).opt.Client.(*counting).sent.Load() },
	})
}

// Names that a URL, a signature or a listing could spoil.
func TestKeys(t *testing.T) {
	s := open(t, newCloud(t).options())
	keys := map[string]bool{}
	for _, key := range []string{
		"plain", "a b", "a+b", "a%2Fb", "a%b", "a?b&c=d#e", "文件/影片.mkv", "é", "e\u0301", "a'b\"c<d>&amp;", "a;b,c:d@e=f", "~a!*()",
		"...", "a/.../b", "a/..b", ".a", strings.Repeat("字", 170), strings.Repeat("a", 512),
	} {
		data := []byte("content of " + key)
		put(t, s, key, data)
		if got, err := storetest.Read(t.Context(), s, key, 0, -1); err != nil || !bytes.Equal(got, data) {
			t.Errorf("%q has %q, %v", key, got, err)
		}
		keys[key] = true
		key = strings.TrimSuffix(key, "a") + "2" // and in parts
		data = storetest.Bytes(1, 2*minPart+1)
		if len(key) <= 512 {
			put(t, s, key, data)
			keys[key] = true
		}
	}
	listed := map[string]bool{}
	for o, err := range s.List(t.Context()) {
		if err != nil {
			t.Fatal(err)
		}
		listed[o.Key] = true
	}
	for key := range keys {
		if !listed[key] {
			t.Errorf("%q is not listed", key)
		}
		if err := s.Delete(t.Context(), key); err != nil {
			t.Error(err)
		}
		if _, err := s.Size(t.Context(), key); !errors.Is(err, upload.NotFound) {
			t.Errorf("%q after Delete: %v", key, err)
		}
	}
}

// COS counts the prefix in.
func TestLongPrefix(t *testing.T) {
	c := newCloud(t)
	opt := c.options()
	opt.Prefix = strings.Repeat("p", 400) + "/"
	s := open(t, opt)
	put(t, s, strings.Repeat("k", 449), nil)
	c.intercept(nil)
	if err := s.Put(t.Context(), strings.Repeat("k", 450), bytes.NewReader(nil), store.PutOptions{}); !errors.Is(err, upload.Invalid) || len(c.seen) > 0 {
		t.Errorf("a key of 851 bytes with its prefix: %v, after %d requests", err, len(c.seen))
	}
}

// The SDK does not follow to where an answer points, and an operator is told.
func TestRedirected(t *testing.T) {
	c, other := newCloud(t), newCloud(t)
	c.intercept(func(w http.ResponseWriter, r *http.Request) bool {
		w.Header().Set("Location", other.URL+r.URL.Path)
		refusal(w, http.StatusMovedPermanently, "PermanentRedirect")
		return true
	})
	s := open(t, c.options())
	for what, err := range map[string]error{
		"put": s.Put(t.Context(), "a", bytes.NewReader(nil), store.PutOptions{}), "check": s.Check(t.Context()),
		"open": func() error { _, err := s.Open(t.Context(), "a", 0, -1); return err }(),
	} {
		if !errors.Is(err, upload.Invalid) {
			t.Errorf("%s: %v", what, err)
		}
	}
	if n := len(other.seen); n > 0 {
		t.Errorf("%d requests were followed", n)
	}
}

// Listings of more than a page.
func TestPages(t *testing.T) {
	s := open(t, newCloud(t).options())
	for i := range 1005 {
		put(t, s, fmt.Sprintf("a b/%d", i), nil)
		if _, err := (server{s}).Create(t.Context(), fmt.Sprintf("ü/%d", i%3)); err != nil {
			t.Fatal(err)
		}
	}
	id, err := (server{s}).Create(t.Context(), "parts")
	if err != nil {
		t.Fatal(err)
	}
	for i := range 1003 {
		if _, err := (server{s}).PutPart(t.Context(), "parts", id, i+1, []byte{1}); err != nil {
			t.Fatal(err)
		}
	}
	objects, uploads, parts := map[string]bool{}, map[string]bool{}, map[int]bool{}
	for o, err := range s.List(t.Context()) {
		if err != nil {
			t.Fatal(err)
		}
		objects[o.Key] = true
	}
	for u, err := range (server{s}).Uploads(t.Context()) {
		if err != nil {
			t.Fatal(err)
		}
		uploads[u.ID] = true
	}
	for p, err := range (server{s}).Parts(t.Context(), "parts", id) {
		if err != nil {
			t.Fatal(err)
		}
		parts[p.Number] = true
	}
	if len(objects) != 1005 || len(uploads) != 1006 || len(parts) != 1003 {
		t.Errorf("listed %d objects, %d uploads, %d parts", len(objects), len(uploads), len(parts))
	}
}

// memo is a checkpoint.
type memo struct{ state []byte }

func (m *memo) Load() []byte { return m.state }

func (m *memo) Save(_ context.Context, state []byte) error {
	m.state = state
	return nil
}

// A Put that was cut off in the middle goes on where it stood: what is there is not sent again.
func TestPutGoesOn(t *testing.T) {
	c := newCloud(t)
	opt := c.options()
	opt.Parts = 1
	s := open(t, opt)
	data := storetest.Bytes(1, 8*minPart+1234)
	m := &memo{}
	ctx, cancel := context.WithCancel(t.Context())
	c.intercept(func(_ http.ResponseWriter, r *http.Request) bool {
		if r.URL.Query().Get("partNumber") == "6" {
			cancel()
		}
		return false
	})
	if err := s.Put(ctx, "a", bytes.NewReader(data), store.PutOptions{Checkpoint: m}); !errors.Is(err, context.Canceled) {
		t.Fatalf("put that was cut off: %v", err)
	}
	if _, err := s.Size(t.Context(), "a"); !errors.Is(err, upload.NotFound) {
		t.Errorf("half an object is visible: %v", err)
	}
	if err := s.Clean(t.Context()); err != nil { // it is not old enough
		t.Fatal(err)
	}
	c.intercept(nil)
	var last int64
	if err := open(t, opt).Put(t.Context(), "a", bytes.NewReader(data), store.PutOptions{Checkpoint: m, Progress: func(sent int64) { last = sent }}); err != nil {
		t.Fatal(err)
	}
	if sent := c.count("PUT?part"); sent > 9-5 || sent < 9-6 {
		t.Errorf("%d of 9 parts were sent again, 5 were there", sent)
	}
	if last != int64(len(data)) {
		t.Errorf("progress ends at %d of %d", last, len(data))
	}
	if err := s.Verify(t.Context(), "a", digests(data)); err != nil {
		t.Error(err)
	}
	for u, err := range (server{s}).Uploads(t.Context()) {
		t.Errorf("a multipart upload is left: %v, %v", u, err)
	}
}

// Parts that are there with other bytes, of the right size or not, are sent again.
func TestForeignParts(t *testing.T) {
	c := newCloud(t)
	s := open(t, c.options())
	data := storetest.Bytes(2, 4*minPart+1)
	id, err := (server{s}).Create(t.Context(), "a")
	if err != nil {
		t.Fatal(err)
	}
	for number, body := range map[int][]byte{1: storetest.Bytes(3, minPart), 2: data[minPart : 2*minPart], 3: data[:minPart], 4: {1}} {
		if _, err := (server{s}).PutPart(t.Context(), "a", id, number, body); err != nil {
			t.Fatal(err)
		}
	}
	c.intercept(nil)
	m := &memo{fmt.Appendf(nil, `{"id":%q,"part":%d,"size":%d}`, id, minPart, len(data))}
	if err := s.Put(t.Context(), "a", bytes.NewReader(data), store.PutOptions{Checkpoint: m}); err != nil {
		t.Fatal(err)
	}
	if sent := c.count("PUT?part"); sent != 4 {
		t.Errorf("%d parts were sent, 1 of 5 was right", sent)
	}
	if err := s.Verify(t.Context(), "a", digests(data)); err != nil {
		t.Error(err)
	}
}

// Wrong settings are told from a store that is away: a worker gives up, and says why.
func TestWrongSettings(t *testing.T) {
	c := newCloud(t)
	address := strings.TrimPrefix(c.URL, "http://")
	toCloud := &http.Transport{DialContext: func(ctx context.Context, network, _ string) (net.Conn, error) {
		return (&net.Dialer{}).DialContext(ctx, network, address)
	}}
	for name, test := range map[string]struct {
		change func(o *Options)
		want   upload.Kind
	}{
		"secret": {func(o *Options) { o.SecretKey = "wrong" }, upload.Invalid},
		"key":    {func(o *Options) { o.AccessKey = "nobody" }, upload.Invalid},
		"token":  {func(o *Options) { o.Token = "wrong" }, upload.Invalid},
		"bucket": {func(o *Options) {
			o.Bucket, o.Endpoint, o.Client = "not-there-1250000000", "http://not-there-1250000000.cos.ap-guangzhou.myqcloud.com", toCloud
		}, upload.Invalid},
		"endpoint": {func(o *Options) { o.Endpoint = "http://127.0.0.1:1" }, upload.Unavailable},
	} {
		o := c.options()
		test.change(&o)
		s := open(t, o)
		var buf bytes.Buffer
		for what, err := range map[string]error{
			"put":    s.Put(t.Context(), "00/a", bytes.NewReader([]byte("x")), store.PutOptions{}),
			"large":  s.Put(t.Context(), "00/a", bytes.NewReader(storetest.Bytes(1, 2*minPart)), store.PutOptions{}),
			"check":  s.Check(t.Context()),
			"size":   func() error { _, err := s.Size(t.Context(), "00/a"); return err }(),
			"open":   func() error { _, err := s.Open(t.Context(), "00/a", 0, 1); return err }(),
			"delete": s.Delete(t.Context(), "00/a"),
			"clean":  s.Clean(t.Context()),
			"list":   func() error { _, err := collect(s.List(t.Context())); return err }(),
		} {
			if upload.KindOf(err) != test.want {
				t.Errorf("%s with a wrong %s: %v, want %v", what, name, err, test.want)
			}
			fmt.Fprint(&buf, err)
			if e, _ := errors.AsType[*upload.Error](err); test.want == upload.Invalid && (e == nil || e.Detail == "") {
				t.Errorf("%s with a wrong %s says nothing to the user: %v", what, name, err)
			}
		}
		if strings.Contains(buf.String(), o.SecretKey) && name != "secret" {
			t.Error("the secret is in an error")
		}
	}
	o := c.options() // the bucket's own name, as COS has it
	o.Endpoint, o.Client = "http://"+bucket+".cos.ap-guangzhou.myqcloud.com", toCloud
	if err := open(t, o).Check(t.Context()); err != nil {
		t.Errorf("the right bucket: %v", err)
	}
	c.now.Store(7200) // this machine's clock is two hours late
	if err := open(t, c.options()).Check(t.Context()); !errors.Is(err, upload.Invalid) {
		t.Errorf("HEAD with a wrong clock, which has no code: %v", err)
	}
	if err := open(t, c.options()).Delete(t.Context(), "a"); !errors.Is(err, upload.Unavailable) {
		t.Errorf("with a wrong clock: %v", err)
	}
}

func collect[T any](all func(func(T, error) bool)) (list []T, err error) {
	for v, e := range all {
		if e != nil {
			return list, e
		}
		list = append(list, v)
	}
	return list, nil
}

func TestNew(t *testing.T) {
	good := Options{Bucket: bucket, Region: "ap-guangzhou", AccessKey: "a", SecretKey: "b"}
	s, err := New(good)
	if err != nil {
		t.Fatal(err)
	}
	u, err := s.Presign(t.Context(), "a", store.PresignOptions{Expires: time.Hour})
	if err != nil || u.Scheme != "https" || u.Host != bucket+".cos.ap-guangzhou.myqcloud.com" || u.Path != "/a" {
		t.Errorf("%v, %v", u, err)
	}
	for name, change := range map[string]func(o *Options){
		"no bucket":       func(o *Options) { o.Bucket = "" },
		"no key":          func(o *Options) { o.AccessKey = "" },
		"no secret":       func(o *Options) { o.SecretKey = "" },
		"no region":       func(o *Options) { o.Region = "" },
		"a bad prefix":    func(o *Options) { o.Prefix = "a//" },
		"no prefix":       func(o *Options) { o.Prefix = "/" },
		"a bad public":    func(o *Options) { o.Public = "files.example.com" },
		"another scheme":  func(o *Options) { o.Endpoint = "ftp://x" },
		"a path":          func(o *Options) { o.Endpoint = "https://x/y" },
		"a user":          func(o *Options) { o.Endpoint = "https://u:p@x" },
		"another bucket":  func(o *Options) { o.Endpoint = "https://other-1250000000.cos.ap-guangzhou.myqcloud.com" },
		"bucket in front": func(o *Options) { o.Endpoint = "https://cos.ap-guangzhou.myqcloud.com" },
	} {
		o := good
		change(&o)
		if _, err := New(o); !errors.Is(err, upload.Invalid) {
			t.Errorf("%s: %v", name, err)
		}
	}
	for _, endpoint := range []string{
		"https://" + bucket + ".cos-internal.ap-guangzhou.tencentcos.cn", "https://" + bucket + ".cos.accelerate.myqcloud.com", "https://files.example.com",
	} {
		o := good
		o.Endpoint = endpoint
		s, err := New(o)
		if err != nil {
			t.Errorf("%s: %v", endpoint, err)
			continue
		}
		ctx, cancel := context.WithCancel(t.Context())
		cancel() // the SDK looks at the URL before it sends anything
		if err := s.Check(ctx); !errors.Is(err, context.Canceled) {
			t.Errorf("%s: %v", endpoint, err)
		}
	}
}

// A store that is busy for a while does not matter to a Put; one that stays so is unavailable.
func TestBusy(t *testing.T) {
	c := newCloud(t)
	s := open(t, c.options())
	var left atomic.Int32
	c.intercept(func(w http.ResponseWriter, _ *http.Request) bool {
		if left.Add(-1) < 0 {
			return false
		}
		refusal(w, http.StatusServiceUnavailable, "SlowDown")
		return true
	})
	for _, size := range []int{1000, 4*minPart + 1} {
		data := storetest.Bytes(7, size)
		left.Store(3)
		put(t, s, "a", data)
		if err := s.Verify(t.Context(), "a", digests(data)); err != nil {
			t.Error(err)
		}
		left.Store(1000)
		err := s.Put(t.Context(), "a", bytes.NewReader(data), store.PutOptions{})
		if upload.KindOf(err) != upload.TooMany {
			t.Errorf("put to a store that is always busy: %v", err)
		}
		left.Store(0)
	}
	left.Store(1000)
	if err := s.Check(t.Context()); !errors.Is(err, upload.Unavailable) || c.count("HEAD") != 3 { // one for each Verify
		t.Errorf("the SDK tries again by itself: %d times HEAD, %v", c.count("HEAD"), err)
	}
}
