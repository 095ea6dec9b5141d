package oss

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"hash/crc64"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
	"time"

	sdk "github.com/aliyun/aliyun-oss-go-sdk/oss"

	"gantry/store"
	"gantry/store/oss/osstest"
	"gantry/store/storetest"
	"gantry/upload"
)

// serve is the options for a new bucket on a server of its own.
func serve(t *testing.T, signature string) Options {
	t.Helper()
	return serveAs(t, signature, osstest.Options{AccessKey: "LTAItest", SecretKey: "a secret"})
}

func serveAs(t *testing.T, signature string, as osstest.Options) Options {
	t.Helper()
	as.Dir = t.TempDir()
	server := osstest.New(as)
	server.MakeBucket("uploads")
	web := httptest.NewServer(server)
	t.Cleanup(web.Close)
	return Options{
		Endpoint: web.URL, Bucket: "uploads", Region: "cn-hangzhou", AccessKey: as.AccessKey, SecretKey: as.SecretKey, Token: as.Token,
		Signature: signature, Prefix: "some/prefix/", PartSize: 1 << 20,
	}
}

func open(t *testing.T, opt Options) *Store {
	t.Helper()
	s, err := New(opt)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

var signatures = []string{"v1", "v4"}

func TestStore(t *testing.T) {
	for _, signature := range signatures {
		t.Run(signature, func(t *testing.T) {
			storetest.Run(t, func(t *testing.T) store.Store {
				opt := serve(t, signature)
				opt.Client = &wire{}
				return open(t, opt)
			}, storetest.Caps{
				AnyKey: true, PartSize: 1 << 20, Memory: 4 << 20,
				Sent: func(st store.Store) int64 { return st.(*Store).opt.Client.(*wire).sent.Load() },
				Alter: func(t *testing.T, st store.Store, key string, change func([]byte) []byte) {
					s := st.(*Store)
					data, err := storetest.Read(t.Context(), s, key, 0, -1)
					if err != nil {
						t.Fatal(err)
					}
					if err := s.bucket.PutObject(s.opt.Prefix+key, bytes.NewReader(change(data))); err != nil {
						t.Fatal(err)
					}
				},
				BadKeys: []string{"", "/a", "a//b", "../a", "a/../b", "a\x00b", strings.Repeat("a", 513)},
			})
		})
	}
}

// digests are those of data, with the CRC-64.
func digests(data []byte) store.Digests {
	d := storetest.DigestsOf(data)
	sum := crc64.Checksum(data, ecma)
	d.CRC64 = &sum
	return d
}

// kept is a checkpoint in memory.
type kept struct {
	mu    sync.Mutex
	state []byte
}

func (k *kept) Load() []byte {
	k.mu.Lock()
	defer k.mu.Unlock()
	return k.state
}

func (k *kept) Save(_ context.Context, state []byte) error {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.state = bytes.Clone(state)
	return nil
}

// A Put that was cut off in the middle goes on where it stood: what is there is not sent again.
func TestPutGoesOn(t *testing.T) {
	for _, signature := range signatures {
		opt := serve(t, signature)
		net := &wire{}
		opt.Client = net
		net.harm = func(*http.Request) (*http.Response, error) {
			if net.puts.Load() >= 5 {
				return nil, errors.New("the network is down")
			}
			return nil, nil
		}
		s := open(t, opt)
		data, check := storetest.Bytes(1, 8<<20+1234), &kept{}
		key := storetest.Key(data, "a")
		if err := s.Put(t.Context(), key, bytes.NewReader(data), store.PutOptions{Checkpoint: check}); !errors.Is(err, upload.Unavailable) {
			t.Fatalf("put over a network that fails: %v", err)
		}
		net.harm = nil
		if _, err := s.Size(t.Context(), key); !errors.Is(err, upload.NotFound) {
			t.Errorf("half an object: %v", err)
		}
		if err := s.Clean(t.Context()); err != nil {
			t.Fatal(err)
		}
		before, last := net.puts.Load(), int64(0)
		err := open(t, opt).Put(t.Context(), key, bytes.NewReader(data), store.PutOptions{Checkpoint: check, Progress: func(sent int64) { last = sent }})
		if err != nil {
			t.Fatal(err)
		}
		if sent := net.puts.Load() - before; sent > 9-5 {
			t.Errorf("%d of 9 parts were sent again, 5 were there", sent)
		}
		if last != int64(len(data)) {
			t.Errorf("progress ends at %d of %d", last, len(data))
		}
		expect(t, s, key, data)
	}
}

// expect checks that the store has these bytes, by its checksum and by reading them, and no multipart upload.
func expect(t *testing.T, s *Store, key string, data []byte) {
	t.Helper()
	if err := errors.Join(s.Verify(t.Context(), key, digests(data)), s.Verify(t.Context(), key, storetest.DigestsOf(data))); err != nil {
		t.Error(err)
	}
	for u, err := range (server{s}).Uploads(t.Context()) {
		t.Errorf("a multipart upload is left: %v, %v", u, err)
	}
}

// A part that is there with other bytes is sent again, and one that is there is not.
func TestPutDoesNotBelieveForeignParts(t *testing.T) {
	opt := serve(t, "v4")
	net := &wire{}
	opt.Client = net
	s := open(t, opt)
	data := storetest.Bytes(2, 3<<20+1)
	key := storetest.Key(data, "a")
	id, err := server{s}.Create(t.Context(), key)
	if err != nil {
		t.Fatal(err)
	}
	for i, body := range [][]byte{storetest.Bytes(3, 1<<20), data[1<<20 : 2<<20], data[:1000]} { // foreign, right, short
		if _, err := (server{s}).PutPart(t.Context(), key, id, i+1, body); err != nil {
			t.Fatal(err)
		}
	}
	before := net.puts.Load()
	check := &kept{state: fmt.Appendf(nil, `{"id":%q,"part":%d,"size":%d}`, id, 1<<20, len(data))}
	if err := s.Put(t.Context(), key, bytes.NewReader(data), store.PutOptions{Checkpoint: check}); err != nil {
		t.Fatal(err)
	}
	if sent := net.puts.Load() - before; sent != 3 {
		t.Errorf("%d parts were sent, want 3 of 4", sent)
	}
	expect(t, s, key, data)
}

// Where OSS lists no CRC-64 of a part, its MD5 does.
func TestSame(t *testing.T) {
	body := []byte("some bytes")
	etag := `"` + strings.ToUpper("DE56BE5CE3D5A85F2F7E2A5A4DB0F1F3") + `"`
	s := server{}
	for name, test := range map[string]struct {
		part store.Part
		want bool
	}{
		"crc":       {store.Part{Checksum: fmt.Sprint(crc64.Checksum(body, ecma)), ETag: etag}, true},
		"wrong crc": {store.Part{Checksum: "1", ETag: md5Of(body)}, false},
		"md5":       {store.Part{ETag: md5Of(body)}, true},
		"wrong md5": {store.Part{ETag: etag}, false},
		"nothing":   {store.Part{}, false},
	} {
		if got := s.Same(test.part, body); got != test.want {
			t.Errorf("%s: %v", name, got)
		}
	}
}

// Verify costs one request where the CRC-64 is known, and tells other bytes of the same length.
func TestVerifyAsksOnce(t *testing.T) {
	opt := serve(t, "v4")
	net := &wire{}
	opt.Client = net
	s := open(t, opt)
	data := storetest.Bytes(6, 2<<20+1)
	key := storetest.Key(data, "a")
	if err := s.Put(t.Context(), key, bytes.NewReader(data), store.PutOptions{}); err != nil {
		t.Fatal(err)
	}
	gets, heads := net.gets.Load(), net.heads.Load()
	if err := s.Verify(t.Context(), key, digests(data)); err != nil {
		t.Error(err)
	}
	if net.gets.Load() != gets || net.heads.Load() != heads+1 {
		t.Errorf("%d GET and %d HEAD, want one HEAD", net.gets.Load()-gets, net.heads.Load()-heads)
	}
	longer := digests(data)
	longer.Size++
	if err := s.Verify(t.Context(), key, longer); !errors.Is(err, upload.DigestMismatch) {
		t.Errorf("another length: %v", err)
	}
	// An object that was copied may have no CRC-64: it is read.
	withoutCRC := func(_ *http.Request, resp *http.Response) error {
		resp.Header.Del(sdk.HTTPHeaderOssCRC64)
		return nil
	}
	net.after = withoutCRC
	if err := s.Verify(t.Context(), key, digests(data)); err != nil {
		t.Errorf("an object without CRC-64: %v", err)
	}
	net.after = nil
	data[len(data)/2] ^= 4
	if err := s.bucket.PutObject(s.opt.Prefix+key, bytes.NewReader(data)); err != nil {
		t.Fatal(err)
	}
	data[len(data)/2] ^= 4
	if err := s.Verify(t.Context(), key, digests(data)); !errors.Is(err, upload.DigestMismatch) {
		t.Errorf("an object with another bit: %v", err)
	}
	net.after = withoutCRC
	if err := s.Verify(t.Context(), key, digests(data)); !errors.Is(err, upload.DigestMismatch) {
		t.Errorf("an object with another bit and without CRC-64: %v", err)
	}
}

// Wrong settings are told from a store that is away: a worker gives up, and says why.
func TestWrongSettings(t *testing.T) {
	for _, signature := range signatures {
		opt := serve(t, signature)
		for name, test := range map[string]struct {
			change func(o *Options)
			want   upload.Kind
		}{
			"secret":   {func(o *Options) { o.SecretKey = "wrong" }, upload.Invalid},
			"key":      {func(o *Options) { o.AccessKey = "nobody" }, upload.Invalid},
			"token":    {func(o *Options) { o.Token = "unknown" }, upload.Invalid},
			"bucket":   {func(o *Options) { o.Bucket = "not-there" }, upload.Invalid},
			"endpoint": {func(o *Options) { o.Endpoint = "http://127.0.0.1:1" }, upload.Unavailable},
			"nothing":  {func(*Options) {}, upload.NotFound},
		} {
			o := opt
			test.change(&o)
			s := open(t, o)
			for what, err := range map[string]error{
				"put":    s.Put(t.Context(), "00/a", bytes.NewReader([]byte("x")), store.PutOptions{}),
				"check":  s.Check(t.Context()),
				"size":   func() error { _, err := s.Size(t.Context(), "00/b"); return err }(),
				"open":   func() error { _, err := s.Open(t.Context(), "00/b", 0, -1); return err }(),
				"verify": s.Verify(t.Context(), "00/b", store.Digests{}),
			} {
				if name == "nothing" && (what == "put" || what == "check") {
					if err != nil {
						t.Errorf("%s: %v", what, err)
					}
				} else if upload.KindOf(err) != test.want {
					t.Errorf("%s: %s with a wrong %s: %v, want %v", signature, what, name, err, test.want)
				}
			}
		}
	}
	opt := serve(t, "v4")
	opt.Region = "cn-shanghai"
	if err := open(t, opt).Check(t.Context()); !errors.Is(err, upload.Invalid) {
		t.Errorf("a wrong region: %v", err)
	}
}

// Settings that cannot work are refused at once.
func TestNew(t *testing.T) {
	good := Options{Endpoint: "https://oss-cn-hangzhou-internal.aliyuncs.com", Bucket: "uploads", AccessKey: "a", SecretKey: "s"}
	s := open(t, good)
	if s.opt.Region != "cn-hangzhou" {
		t.Errorf("the region is %q", s.opt.Region)
	}
	for name, change := range map[string]func(o *Options){
		"no endpoint":      func(o *Options) { o.Endpoint = "" },
		"no scheme":        func(o *Options) { o.Endpoint = "oss-cn-hangzhou.aliyuncs.com" },
		"a path":           func(o *Options) { o.Endpoint += "/uploads" },
		"a public path":    func(o *Options) { o.Public = "https://files.example.com/x" },
		"no bucket":        func(o *Options) { o.Bucket = "" },
		"no bucket's name": func(o *Options) { o.Bucket = "U" },
		"no key":           func(o *Options) { o.AccessKey = "" },
		"no secret":        func(o *Options) { o.SecretKey = "" },
		"no region":        func(o *Options) { o.Endpoint = "https://oss.example.com" },
		"any region":       func(o *Options) { o.Endpoint = "https://oss-accelerate.aliyuncs.com" },
		"signature":        func(o *Options) { o.Signature = "v3" },
	} {
		o := good
		change(&o)
		if _, err := New(o); !errors.Is(err, upload.Invalid) {
			t.Errorf("%s: %v", name, err)
		}
	}
	for name, test := range map[string]struct {
		change func(o *Options)
		want   string
	}{
		"same":          {func(*Options) {}, "https://uploads.oss-cn-hangzhou-internal.aliyuncs.com/00%2Fa?"},
		"public":        {func(o *Options) { o.Public = "https://oss-cn-hangzhou.aliyuncs.com/" }, "https://uploads.oss-cn-hangzhou.aliyuncs.com/00%2Fa?"},
		"bound for all": {func(o *Options) { o.Endpoint, o.Region = "https://files.example.com", "cn-hangzhou" }, "https://files.example.com/00%2Fa?"},
		"private cloud": {func(o *Options) { o.Endpoint, o.Region = "https://oss-cn-x.cloud.example.com", "cn-x" }, "https://uploads.oss-cn-x.cloud.example.com/00%2Fa?"},
		"path style":    {func(o *Options) { o.Public, o.PathStyle = "https://files.example.com", true }, "https://files.example.com/uploads/00%2Fa?"},
		"bound":         {func(o *Options) { o.Public = "https://files.example.com" }, "https://files.example.com/00%2Fa?"},
	} {
		o := good
		test.change(&o)
		u, err := open(t, o).Presign(t.Context(), "00/a", store.PresignOptions{Expires: time.Minute})
		if err != nil || !strings.HasPrefix(u.String(), test.want) {
			t.Errorf("%s: %v, %v", name, u, err)
		}
	}
}

// Temporary keys come with a token.
func TestTemporaryKeys(t *testing.T) {
	for _, signature := range signatures {
		opt := serveAs(t, signature, osstest.Options{AccessKey: "STS.test", SecretKey: "secret", Token: "a/token+with=signs"})
		s := open(t, opt)
		data := storetest.Bytes(7, 1<<20+1)
		key := storetest.Key(data, "a")
		if err := s.Put(t.Context(), key, bytes.NewReader(data), store.PutOptions{}); err != nil {
			t.Fatal(err)
		}
		expect(t, s, key, data)
		u, err := s.Presign(t.Context(), key, store.PresignOptions{Expires: time.Minute})
		if err != nil {
			t.Fatal(err)
		}
		if status, _, body := fetch(t, http.MethodGet, u.String(), nil); status != http.StatusOK || !bytes.Equal(body, data) {
			t.Errorf("%s: a presigned URL of temporary keys: %d", signature, status)
		}
		opt.Token = ""
		if err := open(t, opt).Check(t.Context()); !errors.Is(err, upload.Invalid) {
			t.Errorf("without the token: %v", err)
		}
	}
}

// Keys may have any letters, and be as long as they may be.
func TestKeys(t *testing.T) {
	for _, signature := range signatures {
		s := open(t, serve(t, signature))
		data := storetest.Bytes(10, 2<<20+3)
		for _, key := range []string{
			"00/файл на русском.bin", "上传/文件 (1).mp4", "a b+c%20d&e=f?g#h", "~!*'();:@$,[]", "ends with space ", "e\u0301\U0001F600", strings.Repeat("長", 170),
		} {
			if err := s.Put(t.Context(), key, bytes.NewReader(data), store.PutOptions{}); err != nil {
				t.Errorf("%s: %q: %v", signature, key, err)
				continue
			}
			expect(t, s, key, data)
			u, err := s.Presign(t.Context(), key, store.PresignOptions{Expires: time.Minute})
			if err != nil {
				t.Fatal(err)
			}
			if status, _, body := fetch(t, http.MethodGet, u.String(), nil); status != http.StatusOK || !bytes.Equal(body, data) {
				t.Errorf("%s: presigned %q: %d %s", signature, key, status, body[:min(len(body), 300)])
			}
			found := false
			for o, err := range s.List(t.Context()) {
				if err != nil {
					t.Fatal(err)
				}
				found = found || o.Key == key
			}
			if !found {
				t.Errorf("%q is not listed", key)
			}
			if err := s.Delete(t.Context(), key); err != nil {
				t.Error(err)
			}
		}
	}
}
