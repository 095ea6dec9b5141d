package s3

import (
	"bytes"
	"context"
	"errors"
	"io"
	"net/http"
	"net/url"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/minio/minio-go/v7"

	"gantry/internal/testenv"
	"gantry/store"
	"gantry/store/storetest"
	"gantry/upload"
)

// gateway is the options for a new bucket on a real gateway.
func gateway(t *testing.T) Options {
	t.Helper()
	u, err := url.Parse(testenv.Address(t, testenv.Ceph))
	if err != nil {
		t.Fatal(err)
	}
	secret, _ := u.User.Password()
	opt := Options{
		Endpoint: u.Scheme + "://" + u.Host, Bucket: "test-" + upload.NewNodeID(), AccessKey: u.User.Username(), SecretKey: secret,
		PathStyle: true, PartSize: minPart, Prefix: "some/prefix/",
	}
	s, err := New(opt)
	if err != nil {
		t.Fatal(err)
	}
	if err := s.client.MakeBucket(t.Context(), opt.Bucket, minio.MakeBucketOptions{}); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		ctx := context.WithoutCancel(t.Context())
		uploads, _ := s.uploads(ctx, "")
		for _, u := range uploads {
			_ = s.abort(ctx, u)
		}
		for o := range s.client.ListObjectsIter(ctx, opt.Bucket, minio.ListObjectsOptions{Recursive: true}) {
			_ = s.client.RemoveObject(ctx, opt.Bucket, o.Key, minio.RemoveObjectOptions{})
		}
		if err := s.client.RemoveBucket(ctx, opt.Bucket); err != nil {
			t.Error(err)
		}
	})
	return opt
}

func open(t *testing.T, opt Options) *Store {
	t.Helper()
	s, err := New(opt)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func TestStore(t *testing.T) {
	storetest.Run(t, func(t *testing.T) store.Store { return open(t, gateway(t)) }, storetest.Caps{
		Alter: func(t *testing.T, st store.Store, key string, change func([]byte) []byte) {
			s := st.(*Store)
			data, err := storetest.Read(t.Context(), s, key, 0, -1)
			if err != nil {
				t.Fatal(err)
			}
			data = change(data)
			if _, err := s.client.Client.PutObject(t.Context(), s.opt.Bucket, s.opt.Prefix+key, bytes.NewReader(data), int64(len(data)), minio.PutObjectOptions{DisableContentSha256: true}); err != nil {
				t.Fatal(err)
			}
		},
		BadKeys: []string{"", "/a", "a//b", "../a", "a/../b", "a\x00b", strings.Repeat("a", 513)},
	})
}

// counted counts the requests that send bytes, and fails those that it is told to.
type counted struct {
	puts atomic.Int64
	fail func(r *http.Request) bool
}

func (c *counted) RoundTrip(r *http.Request) (*http.Response, error) {
	if c.fail != nil && c.fail(r) {
		return nil, errors.New("the network is down")
	}
	if r.Method == http.MethodPut {
		c.puts.Add(1)
	}
	return http.DefaultTransport.RoundTrip(r)
}

// A Put that was cut off in the middle goes on where it stood: what is there is not sent again.
func TestPutGoesOn(t *testing.T) {
	opt := gateway(t)
	data := storetest.Bytes(1, 8*minPart+1234)
	key := storetest.Key(data, "a")
	wire := &counted{}
	opt.Client = wire
	wire.fail = func(*http.Request) bool { return wire.puts.Load() >= 5 }
	s := open(t, opt)
	if err := s.Put(t.Context(), key, bytes.NewReader(data), nil); !errors.Is(err, upload.Unavailable) {
		t.Fatalf("put over a network that fails: %v", err)
	}
	if _, err := s.Size(t.Context(), key); err == nil {
		t.Error("half an object is visible")
	}
	wire.fail = nil
	before := wire.puts.Load()
	if err := s.Clean(t.Context()); err != nil {
		t.Fatal(err)
	}
	var last int64
	if err := open(t, opt).Put(t.Context(), key, bytes.NewReader(data), func(sent int64) { last = sent }); err != nil {
		t.Fatal(err)
	}
	if sent := wire.puts.Load() - before; sent > 9-5+1 {
		t.Errorf("%d of 9 parts were sent again, 5 were there", sent)
	}
	if last != int64(len(data)) {
		t.Errorf("progress ends at %d of %d", last, len(data))
	}
	if err := s.Verify(t.Context(), key, storetest.DigestsOf(data)); err != nil {
		t.Error(err)
	}
	if uploads, err := s.uploads(t.Context(), ""); err != nil || len(uploads) != 0 {
		t.Errorf("multipart uploads are left: %v, %v", uploads, err)
	}
}

// A part that is there with other bytes is sent again.
func TestPutDoesNotBelieveForeignParts(t *testing.T) {
	opt := gateway(t)
	s := open(t, opt)
	data := storetest.Bytes(2, 2*minPart+1)
	key := storetest.Key(data, "a")
	id, err := s.client.NewMultipartUpload(t.Context(), opt.Bucket, opt.Prefix+key, minio.PutObjectOptions{})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := s.client.PutObjectPart(t.Context(), opt.Bucket, opt.Prefix+key, id, 1, bytes.NewReader(storetest.Bytes(3, minPart)), minPart, minio.PutObjectPartOptions{}); err != nil {
		t.Fatal(err)
	}
	if err := s.Put(t.Context(), key, bytes.NewReader(data), nil); err != nil {
		t.Fatal(err)
	}
	if err := s.Verify(t.Context(), key, storetest.DigestsOf(data)); err != nil {
		t.Error(err)
	}
}

// The answer to Complete is lost though it was done: that is not known to have failed, and is no failure.
func TestLostAnswerToComplete(t *testing.T) {
	opt := gateway(t)
	wire := &lossy{}
	opt.Client = wire
	s := open(t, opt)
	data := storetest.Bytes(4, 2*minPart+1)
	key := storetest.Key(data, "a")
	if err := s.Put(t.Context(), key, bytes.NewReader(data), nil); err != nil {
		t.Fatal(err)
	}
	if !wire.lost.Load() {
		t.Fatal("no answer was lost: the test does not test anything")
	}
	if err := s.Verify(t.Context(), key, storetest.DigestsOf(data)); err != nil {
		t.Error(err)
	}
}

// lossy loses the first answer to a Complete.
type lossy struct{ lost atomic.Bool }

func (l *lossy) RoundTrip(r *http.Request) (*http.Response, error) {
	resp, err := http.DefaultTransport.RoundTrip(r)
	if err == nil && r.Method == http.MethodPost && r.URL.Query().Has("uploadId") && l.lost.CompareAndSwap(false, true) {
		_, _ = io.Copy(io.Discard, resp.Body)
		resp.Body.Close()
		return nil, errors.New("the answer is lost")
	}
	return resp, err
}

// Wrong settings are told from a store that is away: a worker gives up, and says why.
func TestWrongSettings(t *testing.T) {
	opt := gateway(t)
	data := storetest.Bytes(5, 10)
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
		s := open(t, o)
		for what, err := range map[string]error{
			"put":   s.Put(t.Context(), "00/a", bytes.NewReader(data), nil),
			"check": s.Check(t.Context()),
			"size":  func() error { _, err := s.Size(t.Context(), "00/a"); return err }(),
		} {
			if upload.KindOf(err) != test.want {
				t.Errorf("%s with a wrong %s: %v, want %v", what, name, err, test.want)
			}
		}
	}
}
