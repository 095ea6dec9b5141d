package s3

import (
	"bytes"
	"context"
	"errors"
	"io"
	"net/http"
	"net/url"
	"sync"
	"testing"
	"time"

	"gantry/internal/testenv"
	"gantry/store"
	"gantry/store/storetest"
	"gantry/upload"
)

// none fails the test if multipart uploads or an object are left.
func none(t *testing.T, s *Store, key string) {
	t.Helper()
	if size, err := s.Size(t.Context(), key); !errors.Is(err, upload.NotFound) {
		t.Errorf("there is an object: %d bytes, %v", size, err)
	}
	if body, err := s.Open(t.Context(), key, 0, -1); !errors.Is(err, upload.NotFound) {
		t.Errorf("there is an object: %v, %v", body, err)
	}
}

func noUploads(t *testing.T, s *Store) {
	t.Helper()
	for u, err := range (server{s}).Uploads(t.Context()) {
		t.Errorf("a multipart upload is left: %v, %v", u, err)
	}
}

// A Put that was cut off in the middle goes on where it stood: what is there is not sent again.
func TestPutGoesOn(t *testing.T) {
	w := &wire{}
	opt := gateway(t)
	opt.Client = w
	good := first(5)
	w.meddle = func(what string, r *http.Request) (*http.Response, error) {
		if what == "part" && !good() {
			return nil, errors.New("the network is down")
		}
		return pass(r)
	}
	s, checkpoint, data := open(t, opt), &storetest.Checkpoint{}, storetest.Bytes(1, 8*minPart+1234)
	key := storetest.Key(data, "a")
	if err := s.Put(t.Context(), key, bytes.NewReader(data), store.PutOptions{Checkpoint: checkpoint}); !errors.Is(err, upload.Unavailable) {
		t.Fatalf("put over a network that fails: %v", err)
	}
	none(t, s, key)
	if err := s.Clean(t.Context()); err != nil {
		t.Fatal(err)
	}
	w.meddle = nil
	w.forget()
	var told []int64
	err := open(t, opt).Put(t.Context(), key, bytes.NewReader(data), store.PutOptions{Checkpoint: checkpoint, Progress: func(sent int64) { told = append(told, sent) }})
	if err != nil {
		t.Fatal(err)
	}
	if sent := len(w.all("part")); sent != 9-5 {
		t.Errorf("%d of 9 parts were sent again, 5 were there", sent)
	}
	if len(told) != 9 || told[8] != int64(len(data)) {
		t.Errorf("progress: %d", told)
	}
	if err := s.Verify(t.Context(), key, storetest.DigestsOf(data)); err != nil {
		t.Error(err)
	}
	noUploads(t, s)
}

// A part that is there with other bytes is sent again.
func TestPutDoesNotBelieveForeignParts(t *testing.T) {
	for _, at := range []testenv.Server{testenv.Ceph, testenv.S3} {
		s, data := open(t, bucketAt(t, testenv.Address(t, at))), storetest.Bytes(2, 2*minPart+1)
		key, checkpoint := storetest.Key(data, "a"), &storetest.Checkpoint{}
		ctx, cancel := context.WithCancel(t.Context())
		err := s.Put(ctx, key, bytes.NewReader(data), store.PutOptions{Checkpoint: checkpoint, Progress: func(int64) { cancel() }})
		if !errors.Is(err, context.Canceled) {
			t.Fatal(err)
		}
		for u, err := range (server{s}).Uploads(t.Context()) {
			if err == nil {
				_, err = server{s}.PutPart(t.Context(), u.Key, u.ID, 1, storetest.Bytes(3, minPart))
			}
			if err != nil {
				t.Fatal(err)
			}
		}
		if err := s.Put(t.Context(), key, bytes.NewReader(data), store.PutOptions{Checkpoint: checkpoint}); err != nil {
			t.Fatal(err)
		}
		if err := s.Verify(t.Context(), key, storetest.DigestsOf(data)); err != nil {
			t.Error(err)
		}
	}
}

// The answer to Complete is lost, whether it was done or not: that is found out, and is no failure. Ceph does a
// second Complete again; other servers know of no such upload then.
func TestLostAnswerToComplete(t *testing.T) {
	for _, at := range []testenv.Server{testenv.Ceph, testenv.S3} {
		for name, fault := range map[string]func(r *http.Request) (*http.Response, error){
			"done": func(r *http.Request) (*http.Response, error) {
				resp, err := pass(r)
				if err != nil {
					return nil, err
				}
				_, _ = io.Copy(io.Discard, resp.Body)
				_ = resp.Body.Close()
				return nil, errors.New("the answer is lost")
			},
			"not done":         func(*http.Request) (*http.Response, error) { return nil, errors.New("the request is lost") },
			"error in the 200": func(r *http.Request) (*http.Response, error) { return answer(r, http.StatusOK, "InternalError") },
		} {
			t.Run(string(at)+" "+name, func(t *testing.T) {
				for _, times := range []int{1, 4} { // 4: all tries of one Put
					w := &wire{}
					opt := bucketAt(t, testenv.Address(t, at))
					opt.Client = w
					lose := first(times)
					w.meddle = func(what string, r *http.Request) (*http.Response, error) {
						if what == "complete" && lose() {
							return fault(r)
						}
						return pass(r)
					}
					s, data, checkpoint := open(t, opt), storetest.Bytes(4, 2*minPart+1), &storetest.Checkpoint{}
					key := storetest.Key(data, "a")
					err := s.Put(t.Context(), key, bytes.NewReader(data), store.PutOptions{Checkpoint: checkpoint})
					if (err != nil) != (times == 4 && name != "done") {
						t.Errorf("%d lost: %v", times, err)
					}
					if err != nil {
						err = s.Put(t.Context(), key, bytes.NewReader(data), store.PutOptions{Checkpoint: checkpoint})
						if parts := len(w.all("part")); parts != 3 {
							t.Errorf("%d parts were sent, want 3 and none again", parts)
						}
					}
					if err == nil {
						err = s.Verify(t.Context(), key, storetest.DigestsOf(data))
					}
					if err != nil {
						t.Error(err)
					}
					noUploads(t, s)
				}
			})
		}
	}
}

// A store that is busy for a moment is asked again; one that stays so is not available.
func TestBurst(t *testing.T) {
	w := &wire{}
	opt := gateway(t)
	opt.Client = w
	s, data := open(t, opt), storetest.Bytes(5, 2*minPart+1)
	for _, status := range []int{http.StatusInternalServerError, http.StatusServiceUnavailable} {
		for _, what := range []string{"create", "part", "complete", "put"} {
			size := len(data)
			if what == "put" {
				size = 1000
			}
			busy := first(2)
			w.meddle = func(now string, r *http.Request) (*http.Response, error) {
				if now == what && busy() {
					return answer(r, status, map[int]string{500: "InternalError", 503: "SlowDown"}[status])
				}
				return pass(r)
			}
			putAndCheck(t, s, data[:size])
		}
	}
	w.meddle = func(_ string, r *http.Request) (*http.Response, error) {
		return answer(r, http.StatusServiceUnavailable, "SlowDown")
	}
	if err := s.Put(t.Context(), "00/b", bytes.NewReader(data), store.PutOptions{}); !errors.Is(err, upload.Unavailable) {
		t.Errorf("a store that is busy: %v", err)
	}
	w.meddle = nil
	none(t, s, "00/b")
}

// An answer that ends early is an error, and never a shorter object.
func TestCutObject(t *testing.T) {
	w := &wire{}
	opt := gateway(t)
	opt.Client = w
	s, data := open(t, opt), storetest.Bytes(6, 1<<20)
	key := putAndCheck(t, s, data)
	for name, answer := range map[string]func(resp *http.Response){
		"cut off": func(resp *http.Response) { resp.Body = io.NopCloser(io.LimitReader(resp.Body, 1000)) },
		"shorter, as it says": func(resp *http.Response) {
			resp.Body, resp.ContentLength = io.NopCloser(io.LimitReader(resp.Body, 1000)), 1000
			resp.Header.Set("Content-Length", "1000")
		},
		"from elsewhere on": func(resp *http.Response) {
			resp.Header.Set("Content-Range", "bytes 1-1048575/1048576")
			resp.Body = io.NopCloser(bytes.NewReader(data[1:]))
		},
		"to elsewhere": func(resp *http.Response) { resp.Header.Set("Content-Range", "bytes 5-1000/1048576") },
		"all there is": func(resp *http.Response) {
			resp.Header.Del("Content-Range")
			resp.Body = io.NopCloser(bytes.NewReader(data))
		},
		"not a range": func(resp *http.Response) { resp.Header.Set("Content-Range", "bytes */*") },
	} {
		w.meddle = func(what string, r *http.Request) (*http.Response, error) {
			resp, err := pass(r)
			if err == nil && what == "get" {
				answer(resp)
			}
			return resp, err
		}
		got, err := storetest.Read(t.Context(), s, key, 5, -1)
		if !errors.Is(err, upload.Unavailable) || !bytes.HasPrefix(data[5:], got) {
			t.Errorf("an answer that is %s: %d bytes, %v", name, len(got), err)
		}
		if err := s.Verify(t.Context(), key, storetest.DigestsOf(data)); err == nil && name == "cut off" {
			t.Errorf("an object whose answers are %s was verified", name)
		}
	}
}

// An object that HEAD finds and GET does not (a store whose index is right and whose data is gone) is not verified.
func TestHeadWithoutObject(t *testing.T) {
	w := &wire{}
	opt := gateway(t)
	opt.Client = w
	s, data := open(t, opt), storetest.Bytes(7, 1000)
	key := putAndCheck(t, s, data)
	w.meddle = func(what string, r *http.Request) (*http.Response, error) {
		if what == "get" {
			return answer(r, http.StatusNotFound, "NoSuchKey")
		}
		return pass(r)
	}
	if _, err := s.Open(t.Context(), key, 0, -1); !errors.Is(err, upload.NotFound) {
		t.Errorf("opened: %v", err)
	}
	if err := s.Verify(t.Context(), key, storetest.DigestsOf(data)); !errors.Is(err, upload.NotFound) {
		t.Errorf("verified: %v", err)
	}
}

// proxied puts a network before the gateway.
func proxied(t *testing.T) (*testenv.Proxy, Options) {
	t.Helper()
	opt := gateway(t)
	u, err := url.Parse(opt.Endpoint)
	if err != nil {
		t.Fatal(err)
	}
	proxy := testenv.NewProxy(t, u.Host)
	opt.Endpoint = "http://" + proxy.Address()
	opt.Client = &http.Transport{MaxIdleConnsPerHost: 4}
	return proxy, opt
}

// at does something once, in the middle of the content.
func at(data []byte, do func()) store.Content {
	return &content{bytes.NewReader(data), sync.OnceFunc(do)}
}

type content struct {
	*bytes.Reader
	do func()
}

func (c *content) ReadAt(p []byte, off int64) (int, error) {
	if off >= c.Size()/2 {
		c.do()
	}
	return c.Reader.ReadAt(p, off)
}

// The network breaks in the middle of parts, and is back at once.
func TestConnectionReset(t *testing.T) {
	proxy, opt := proxied(t)
	transport, resets := opt.Client, first(3)
	w := &wire{meddle: func(what string, r *http.Request) (*http.Response, error) {
		if what == "part" && resets() {
			r.Body = &breaking{ReadCloser: r.Body, do: func() { proxy.Refuse(); proxy.Heal() }}
		}
		return transport.RoundTrip(r)
	}}
	opt.Client = w
	s, data := open(t, opt), storetest.Bytes(8, 4*minPart)
	putAndCheck(t, s, data)
	if parts := len(w.all("part")); parts <= 4 {
		t.Errorf("%d parts were sent: none was cut off", parts)
	}
	noUploads(t, s)

	// and in the middle of reading
	body, err := s.Open(t.Context(), storetest.Key(data, "a"), 0, -1)
	if err != nil {
		t.Fatal(err)
	}
	got := make([]byte, 1000)
	if _, err := io.ReadFull(body, got); err != nil {
		t.Fatal(err)
	}
	proxy.Refuse()
	rest, err := io.ReadAll(body)
	if !errors.Is(err, upload.Unavailable) || !bytes.HasPrefix(data[1000:], rest) {
		t.Errorf("read %d bytes more, %v", len(rest), err)
	}
	_ = body.Close()
	if _, err := s.Size(t.Context(), storetest.Key(data, "a")); !errors.Is(err, upload.Unavailable) {
		t.Errorf("a store that cannot be reached: %v", err)
	}
	proxy.Heal()
}

// breaking does something when a megabyte of a body was read.
type breaking struct {
	io.ReadCloser
	read int
	do   func()
}

func (b *breaking) Read(p []byte) (int, error) {
	n, err := b.ReadCloser.Read(p)
	if b.read < 1<<20 && b.read+n >= 1<<20 {
		b.do()
	}
	b.read += n
	return n, err
}

func TestSlowConnection(t *testing.T) {
	proxy, opt := proxied(t)
	proxy.Slow(50 * time.Millisecond)
	putAndCheck(t, open(t, opt), storetest.Bytes(9, 2*minPart+1))
}

// A Put that is cancelled while the network is silent returns, and nothing is to be seen.
func TestCanceledInSilence(t *testing.T) {
	proxy, opt := proxied(t)
	s, data := open(t, opt), storetest.Bytes(10, 4*minPart)
	ctx, cancel := context.WithCancel(t.Context())
	err := s.Put(ctx, "00/a", at(data, func() { proxy.Hold(); cancel() }), store.PutOptions{})
	if !errors.Is(err, context.Canceled) || !errors.Is(err, upload.Canceled) {
		t.Errorf("cancelled: %v", err)
	}
	proxy.Heal()
	none(t, s, "00/a")
}

// The gateway is killed in the middle of a Put, and comes back.
func TestKilledGateway(t *testing.T) {
	servers := testenv.Private(t, "ceph")
	opt := newBucket(t, servers.Address(testenv.Ceph))
	s, data := open(t, opt), storetest.Bytes(11, 8*minPart+1)
	key, checkpoint := storetest.Key(data, "a"), &storetest.Checkpoint{}
	restart := func() {
		servers.Do("kill", "ceph-3")
		servers.Do("start", "ceph-3")
	}
	// The parts that are under way fail, and so may the Put if the gateway takes its time.
	err := s.Put(t.Context(), key, at(data, restart), store.PutOptions{Checkpoint: checkpoint})
	for tries := 0; errors.Is(err, upload.Unavailable) && tries < 10; tries++ {
		err = s.Put(t.Context(), key, bytes.NewReader(data), store.PutOptions{Checkpoint: checkpoint})
	}
	if err == nil {
		err = s.Verify(t.Context(), key, storetest.DigestsOf(data))
	}
	if err != nil {
		t.Error(err)
	}
	noUploads(t, s)
}

// Wrong settings are told from a store that is away: a worker gives up, and says why.
func TestWrongSettings(t *testing.T) {
	opt := gateway(t)
	for name, test := range map[string]struct {
		change func(o *Options)
		want   upload.Kind
	}{
		"secret":   {func(o *Options) { o.SecretKey = "wrong" }, upload.Invalid},
		"key":      {func(o *Options) { o.AccessKey = "nobody" }, upload.Invalid},
		"bucket":   {func(o *Options) { o.Bucket = "not-there" }, upload.Invalid},
		"endpoint": {func(o *Options) { o.Endpoint = "http://127.0.0.1:1" }, upload.Unavailable},
	} {
		o := opt
		test.change(&o)
		s, ctx := open(t, o), t.Context()
		for what, call := range map[string]func() error{
			"put":    func() error { return s.Put(ctx, "00/a", bytes.NewReader([]byte("x")), store.PutOptions{}) },
			"large":  func() error { return s.Put(ctx, "00/a", bytes.NewReader(make([]byte, minPart+1)), store.PutOptions{}) },
			"check":  func() error { return s.Check(ctx) },
			"size":   func() error { _, err := s.Size(ctx, "00/a"); return err },
			"open":   func() error { _, err := s.Open(ctx, "00/a", 0, -1); return err },
			"delete": func() error { return s.Delete(ctx, "00/a") },
			"clean":  func() error { return s.Clean(ctx) },
			"list": func() error {
				for _, err := range s.List(ctx) {
					return err
				}
				return nil
			},
		} {
			err := call()
			if upload.KindOf(err) != test.want {
				t.Errorf("%s with a wrong %s: %v, want %v", what, name, err, test.want)
			}
			if e, ok := errors.AsType[*upload.Error](err); ok && test.want == upload.Invalid && e.Detail == "" {
				t.Errorf("%s with a wrong %s does not say what to mend: %v", what, name, err)
			}
		}
	}
}

// New refuses what cannot be right.
func TestOptions(t *testing.T) {
	good := Options{Endpoint: "https://s3.example.com", Bucket: "b", AccessKey: "a", SecretKey: "s"}
	if _, err := New(good); err != nil {
		t.Error(err)
	}
	for name, change := range map[string]func(o *Options){
		"no scheme": func(o *Options) { o.Endpoint = "s3.example.com" }, "a path": func(o *Options) { o.Endpoint += "/x" },
		"a user": func(o *Options) { o.Endpoint = "https://u@s3.example.com" }, "no bucket": func(o *Options) { o.Bucket = "" },
		"no key": func(o *Options) { o.AccessKey = "" }, "no secret": func(o *Options) { o.SecretKey = "" },
	} {
		o := good
		change(&o)
		if _, err := New(o); !errors.Is(err, upload.Invalid) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// A server that says that a range is not there, though the object has it, must not make a file end early.
func TestNoSuchRange(t *testing.T) {
	opt := gateway(t)
	w := &wire{}
	opt.Client = w
	s := open(t, opt)
	key := putAndCheck(t, s, storetest.Bytes(1, 1000))
	w.meddle = func(what string, r *http.Request) (*http.Response, error) {
		if what == "get" {
			return answer(r, http.StatusRequestedRangeNotSatisfiable, "InvalidRange")
		}
		return pass(r)
	}
	if got, err := storetest.Read(t.Context(), s, key, 500, 100); !errors.Is(err, upload.Unavailable) {
		t.Errorf("a range that is there: %d bytes, %v", len(got), err)
	}
	if got, err := storetest.Read(t.Context(), s, key, 1000, -1); err != nil || len(got) != 0 {
		t.Errorf("nothing, at the end: %d bytes, %v", len(got), err)
	}
}
