package cos

import (
	"bytes"
	"errors"
	"fmt"
	"hash/crc64"
	"io"
	"maps"
	"math"
	"net/http"
	"net/url"
	"sync/atomic"
	"testing"

	"gantry/store"
	"gantry/store/storetest"
	"gantry/upload"
)

// answerLost does what was asked, and ends the connection.
func answerLost(t *testing.T, w http.ResponseWriter) {
	t.Helper()
	conn, _, err := http.NewResponseController(w).Hijack()
	if err != nil {
		t.Error(err)
		return
	}
	conn.Close()
}

// Complete that fails in its own ways: the answer is lost though it was done, and a 200 with an error in its body.
func TestComplete(t *testing.T) {
	data := storetest.Bytes(4, 2*minPart+1)
	complete := func(r *http.Request) bool { return r.Method == http.MethodPost && r.URL.Query().Has("uploadId") }
	t.Run("lost", func(t *testing.T) {
		c := newCloud(t)
		var lost atomic.Int32
		target, _ := url.Parse(c.URL)
		c.intercept(func(w http.ResponseWriter, r *http.Request) bool {
			if !complete(r) || r.Header.Get("X-Again") != "" || !lost.CompareAndSwap(0, 1) {
				return false
			}
			again := r.Clone(r.Context())
			again.URL.Scheme, again.URL.Host, again.RequestURI = target.Scheme, target.Host, ""
			again.Header.Set("X-Again", "1")
			resp, err := http.DefaultTransport.RoundTrip(again)
			if err != nil || resp.StatusCode != http.StatusOK {
				t.Errorf("complete: %v, %v", resp, err)
			}
			answerLost(t, w)
			return true
		})
		s := open(t, c.options())
		put(t, s, "a", data)
		if lost.Load() == 0 {
			t.Fatal("no answer was lost: the test does not test anything")
		}
		if err := s.Verify(t.Context(), "a", digests(data)); err != nil {
			t.Error(err)
		}
	})
	for code, want := range map[string]upload.Kind{"InternalError": upload.Unavailable, "AccessDenied": upload.Invalid, "NoSuchUpload": upload.NotFound} {
		t.Run("200 and "+code, func(t *testing.T) {
			c := newCloud(t)
			c.intercept(func(w http.ResponseWriter, r *http.Request) bool {
				if !complete(r) {
					return false
				}
				w.WriteHeader(http.StatusOK)
				_, _ = io.WriteString(w, "   ")
				_ = http.NewResponseController(w).Flush()
				fmt.Fprintf(w, "<?xml version='1.0' encoding='utf-8' ?>\n<Error><Code>%s</Code></Error>", code)
				return true
			})
			s := open(t, c.options())
			if err := s.Put(t.Context(), "a", bytes.NewReader(data), store.PutOptions{}); upload.KindOf(err) != want {
				t.Errorf("put: %v, want %v", err, want)
			}
		})
	}
	t.Run("empty", func(t *testing.T) {
		c := newCloud(t)
		c.intercept(func(_ http.ResponseWriter, r *http.Request) bool { return complete(r) })
		s := open(t, c.options())
		if err := s.Put(t.Context(), "a", bytes.NewReader(data), store.PutOptions{}); !errors.Is(err, upload.Unavailable) {
			t.Errorf("put: %v", err)
		}
	})
}

// An answer that names no upload is none: the id would be that of all uploads.
func TestCreateWithoutID(t *testing.T) {
	c := newCloud(t)
	c.intercept(func(w http.ResponseWriter, _ *http.Request) bool {
		_, _ = io.WriteString(w, "<InitiateMultipartUploadResult><Key>a</Key></InitiateMultipartUploadResult>")
		return true
	})
	if id, err := (server{open(t, c.options())}).Create(t.Context(), "a"); !errors.Is(err, upload.Unavailable) {
		t.Errorf("created %q, %v", id, err)
	}
}

// damaging flips a bit in the bodies that it is told to.
type damaging struct {
	request func(r *http.Request) bool
	answer  func(r *http.Request) bool
	header  http.Header // of all answers to HEAD
}

type flipped struct {
	io.ReadCloser
	done bool
}

func (f *flipped) Read(p []byte) (int, error) {
	n, err := f.ReadCloser.Read(p)
	if n > 0 && !f.done {
		p[0] ^= 1
		f.done = true
	}
	return n, err
}

func (d *damaging) RoundTrip(r *http.Request) (*http.Response, error) {
	if r.Body != nil && d.request != nil && d.request(r) {
		r = r.Clone(r.Context())
		r.Body = &flipped{ReadCloser: r.Body}
	}
	resp, err := http.DefaultTransport.RoundTrip(r)
	if err == nil && d.answer != nil && d.answer(r) {
		resp.Body = &flipped{ReadCloser: resp.Body}
	}
	if err == nil && r.Method == http.MethodHead {
		maps.Copy(resp.Header, d.header)
	}
	return resp, err
}

// What is damaged on the way is found out, and sent again; what is damaged every time is an error.
func TestDamagedOnTheWay(t *testing.T) {
	for name, size := range map[string]int{"object": 1000, "part": 2*minPart + 1} {
		t.Run(name, func(t *testing.T) {
			var times, damaged atomic.Int32
			wire := &damaging{request: func(r *http.Request) bool { return r.Method == http.MethodPut && damaged.Add(1) <= times.Load() }}
			opt := newCloud(t).options()
			opt.Client = wire
			s := open(t, opt)
			data := storetest.Bytes(5, size)
			times.Store(2)
			put(t, s, "a", data)
			if got, err := storetest.Read(t.Context(), s, "a", 0, -1); err != nil || !bytes.Equal(got, data) {
				t.Errorf("the object has %d other bytes, %v", len(got), err)
			}
			times.Store(1000)
			if err := s.Put(t.Context(), "b", bytes.NewReader(data), store.PutOptions{}); !errors.Is(err, upload.DigestMismatch) {
				t.Errorf("put over a network that damages everything: %v", err)
			}
			if _, err := s.Size(t.Context(), "b"); !errors.Is(err, upload.NotFound) {
				t.Errorf("a damaged object is visible: %v", err)
			}
		})
	}
}

// Verify: one request if the CRC-64 is known, all bytes if it is not, or COS has none.
func TestVerify(t *testing.T) {
	c := newCloud(t)
	opt := c.options()
	wire := &damaging{}
	opt.Client = wire
	s := open(t, opt)
	data := storetest.Bytes(6, 3*minPart+5)
	put(t, s, "a", data)
	want, without := digests(data), digests(data)
	without.CRC64 = nil

	c.intercept(nil)
	if err := s.Verify(t.Context(), "a", want); err != nil || c.count("GET") != 0 {
		t.Errorf("verify with a CRC-64: %v, after %d times GET", err, c.count("GET"))
	}
	if err := s.Verify(t.Context(), "a", without); err != nil || c.count("GET") == 0 {
		t.Errorf("verify without: %v, after %d times GET", err, c.count("GET"))
	}
	for name, change := range map[string]func(){
		"size":    func() { want.Size++ },
		"crc":     func() { *want.CRC64++ },
		"at COS":  func() { wire.header = http.Header{"X-Cos-Hash-Crc64ecma": {"1"}} },
		"no crc":  func() { wire.header, wire.answer = http.Header{"X-Cos-Hash-Crc64ecma": nil}, isGet },
		"damaged": func() { want.CRC64, wire.answer = nil, isGet },
	} {
		want = digests(data)
		wire.header, wire.answer = nil, nil
		change()
		if err := s.Verify(t.Context(), "a", want); !errors.Is(err, upload.DigestMismatch) {
			t.Errorf("%s: %v", name, err)
		}
	}
	wire.header, wire.answer = http.Header{"X-Cos-Hash-Crc64ecma": nil}, nil
	if err := s.Verify(t.Context(), "a", digests(data)); err != nil {
		t.Errorf("verify of an object without a CRC-64: %v", err)
	}
	alter(t, s, "a", func(b []byte) []byte { b[0] ^= 1; return b })
	if err := s.Verify(t.Context(), "a", digests(data)); !errors.Is(err, upload.DigestMismatch) {
		t.Errorf("verify of an object that was replaced: %v", err)
	}
	if crc64.Checksum(data, ecma) != *digests(data).CRC64 {
		t.Error("store.Digester has another CRC-64 than COS")
	}
}

// short ends the bodies of answers to GET after a byte, as if that were all.
type short struct{}

func (short) RoundTrip(r *http.Request) (*http.Response, error) {
	resp, err := http.DefaultTransport.RoundTrip(r)
	if err == nil && isGet(r) {
		resp.Body = struct {
			io.Reader
			io.Closer
		}{io.LimitReader(resp.Body, 1), resp.Body}
	}
	return resp, err
}

// Answers with another range than was asked for, or that end early, are none.
func TestWrongRanges(t *testing.T) {
	c := newCloud(t)
	opt := c.options()
	s := open(t, opt)
	put(t, s, "a", []byte("0123456789"))
	for name, answer := range map[string]func(w http.ResponseWriter){
		"the range is ignored": func(w http.ResponseWriter) { _, _ = io.WriteString(w, "01234") },
		"no range is told": func(w http.ResponseWriter) {
			w.WriteHeader(http.StatusPartialContent)
			_, _ = io.WriteString(w, "56789")
		},
		"a longer range": func(w http.ResponseWriter) {
			w.Header().Set("Content-Range", "bytes 5-12/20")
			w.WriteHeader(http.StatusPartialContent)
			_, _ = io.WriteString(w, "56789012")
		},
		"an earlier range": func(w http.ResponseWriter) {
			w.Header().Set("Content-Range", "bytes 4-9/10")
			w.WriteHeader(http.StatusPartialContent)
			_, _ = io.WriteString(w, "456789")
		},
		"the range is refused": func(w http.ResponseWriter) { refusal(w, http.StatusRequestedRangeNotSatisfiable, "InvalidRange") },
	} {
		c.intercept(func(w http.ResponseWriter, r *http.Request) bool {
			if isGet(r) {
				answer(w)
			}
			return isGet(r)
		})
		if got, err := storetest.Read(t.Context(), s, "a", 5, 5); !errors.Is(err, upload.Unavailable) {
			t.Errorf("%s: %q, %v", name, got, err)
		}
	}
	c.intercept(nil)
	for _, r := range [][2]int64{{-1, 1}, {0, -2}, {11, 1}, {11, 0}, {11, -1}} {
		if got, err := storetest.Read(t.Context(), s, "a", r[0], r[1]); !errors.Is(err, upload.BadRange) {
			t.Errorf("range %v: %q, %v", r, got, err)
		}
	}
	for _, r := range [][2]int64{{5, 100}, {5, math.MaxInt64}, {5, -1}} {
		if got, err := storetest.Read(t.Context(), s, "a", r[0], r[1]); err != nil || string(got) != "56789" {
			t.Errorf("range %v: %q, %v", r, got, err)
		}
	}
	if heads := c.count("HEAD"); heads != 3 {
		t.Errorf("%d times HEAD for ranges that are there", heads-3)
	}
	opt.Client = short{}
	if got, err := storetest.Read(t.Context(), open(t, opt), "a", 5, 5); !errors.Is(err, upload.Unavailable) {
		t.Errorf("an answer that ends early: %q, %v", got, err)
	}
}

func isGet(r *http.Request) bool { return r.Method == http.MethodGet }
