package s3

import (
	"bytes"
	"errors"
	"io"
	"net/http"
	"testing"

	"github.com/minio/minio-go/v7"

	"gantry/internal/testenv"
	"gantry/store"
	"gantry/store/storetest"
	"gantry/upload"
)

// digests says with which digests requests were sent: M for Content-MD5, C for CRC32C.
func digests(headers []http.Header) string {
	var all string
	for _, h := range headers {
		if h.Get("Content-Md5") != "" {
			all += "M"
		}
		if h.Get(checksumHeader) != "" {
			all += "C"
		}
		all += " "
	}
	return all
}

// Where the server has checksums they go along instead of Content-MD5, and Verify reads nothing back.
func TestChecksums(t *testing.T) {
	w := &wire{}
	opt := bucketAt(t, testenv.Address(t, testenv.S3))
	opt.Client, opt.Parts = w, 1
	s := open(t, opt)
	large, small := storetest.Bytes(1, 2*minPart+7), storetest.Bytes(2, 1000)
	key := putAndCheck(t, s, large)
	putAndCheck(t, s, small)
	putAndCheck(t, s, large)
	putAndCheck(t, s, small)
	if got := digests(w.all("part")); got != "MC C C C C C " {
		t.Errorf("parts were sent with %s", got)
	}
	if got := digests(w.all("put")); got != "MC C " {
		t.Errorf("objects were sent with %s", got)
	}
	if n := len(w.all("get")); n > 0 {
		t.Errorf("Verify read %d times", n)
	}
	want := storetest.DigestsOf(large)
	want.CRC32C++
	if err := s.Verify(t.Context(), key, want); !errors.Is(err, upload.DigestMismatch) {
		t.Errorf("another checksum: %v", err)
	}
}

// Ceph's gateway ignores them. Objects that are sent at once go with Content-MD5; parts go without, since Verify reads
// the whole back.
func TestNoChecksums(t *testing.T) {
	w := &wire{}
	opt := gateway(t)
	opt.Client, opt.Parts = w, 1
	s := open(t, opt)
	putAndCheck(t, s, storetest.Bytes(1, 2*minPart+7))
	putAndCheck(t, s, storetest.Bytes(2, 1000))
	putAndCheck(t, s, storetest.Bytes(3, 1000))
	if got := digests(w.all("part")) + digests(w.all("put")); got != "MC   MC M " {
		t.Errorf("sent with %s", got)
	}
	if n := len(w.all("get")); n == 0 {
		t.Error("Verify read nothing")
	}
}

// A checksum of the parts' checksums says nothing of the whole: Verify reads back.
func TestChecksumOfParts(t *testing.T) {
	w := &wire{}
	opt := bucketAt(t, testenv.Address(t, testenv.S3))
	opt.Client = w
	s, data := open(t, opt), storetest.Bytes(1, minPart+1)
	key := storetest.Key(data, "a")
	id, err := s.client.NewMultipartUpload(t.Context(), opt.Bucket, opt.Prefix+key, minio.PutObjectOptions{UserMetadata: map[string]string{
		"x-amz-checksum-algorithm": "CRC32C", "x-amz-checksum-type": "COMPOSITE",
	}})
	if err != nil {
		t.Fatal(err)
	}
	var parts []store.Part
	for i, body := range [][]byte{data[:minPart], data[minPart:]} {
		part, err := server{s}.PutPart(t.Context(), key, id, i+1, body)
		if err != nil {
			t.Fatal(err)
		}
		part.Number = i + 1
		parts = append(parts, part)
	}
	if err := (server{s}).Complete(t.Context(), key, id, parts); err != nil {
		t.Fatal(err)
	}
	if err := s.Verify(t.Context(), key, storetest.DigestsOf(data)); err != nil {
		t.Error(err)
	}
	if len(w.all("get")) == 0 {
		t.Error("Verify read nothing")
	}
}

// Servers that refuse what they do not know are sent what they do know.
func TestRefusedChecksums(t *testing.T) {
	for name, test := range map[string]struct {
		header     string // that is refused
		code       string
		parts, put string // sent with
	}{
		"none at all":                      {"x-amz-checksum-", "NotImplemented", "M M M M ", "MC M M "},   // R2 until 2025
		"none of a whole of several parts": {"x-amz-checksum-type", "InvalidRequest", "M M M M ", "MC C "}, // R2 since
	} {
		t.Run(name, func(t *testing.T) {
			w := &wire{}
			w.meddle = func(_ string, r *http.Request) (*http.Response, error) {
				for header := range r.Header {
					if r.Method != http.MethodHead && len(header) >= len(test.header) && http.CanonicalHeaderKey(test.header) == header[:len(test.header)] {
						return answer(r, http.StatusNotImplemented, test.code)
					}
				}
				return pass(r)
			}
			opt := bucketAt(t, testenv.Address(t, testenv.S3))
			opt.Client, opt.Parts = w, 1
			s := open(t, opt)
			putAndCheck(t, s, storetest.Bytes(1, minPart+1))
			putAndCheck(t, s, storetest.Bytes(2, 1000))
			putAndCheck(t, s, storetest.Bytes(3, minPart+1))
			putAndCheck(t, s, storetest.Bytes(4, 1000))
			if got := digests(w.all("part")); got != test.parts {
				t.Errorf("parts were sent with %s", got)
			}
			if got := digests(w.all("put")); got != test.put {
				t.Errorf("objects were sent with %s", got)
			}
			if n := len(w.all("create")); n != 3 {
				t.Errorf("%d multipart uploads were asked for, want one that was refused and two", n)
			}
		})
	}
}

// What is damaged on its way is refused, whatever digest tells, and sent again. Parts that go without one are found to be
// wrong when the whole is read back, and the next Put sends them all.
func TestDamagedOnTheWay(t *testing.T) {
	for _, server := range []testenv.Server{testenv.Ceph, testenv.S3} {
		for name, size := range map[string]int{"put": 1000, "part": 2*minPart + 1} {
			t.Run(string(server)+" "+name, func(t *testing.T) {
				w := &wire{}
				opt := bucketAt(t, testenv.Address(t, server))
				opt.Client, opt.Parts = w, 1
				s := open(t, opt)
				putAndCheck(t, s, storetest.Bytes(1, size)) // so that it is known what the server has
				w.forget()
				damage := first(2)
				w.meddle = func(what string, r *http.Request) (*http.Response, error) {
					if what != name || !damage() {
						return pass(r)
					}
					body, err := io.ReadAll(r.Body)
					if err != nil {
						return nil, err
					}
					body[len(body)/2] ^= 1
					r.Body = io.NopCloser(bytes.NewReader(body))
					return pass(r)
				}
				if server == testenv.Ceph && name == "part" {
					data := storetest.Bytes(2, size)
					key := storetest.Key(data, "a")
					if err := s.Put(t.Context(), key, bytes.NewReader(data), store.PutOptions{}); err != nil {
						t.Fatal(err)
					}
					if err := s.Verify(t.Context(), key, storetest.DigestsOf(data)); !errors.Is(err, upload.DigestMismatch) {
						t.Errorf("a damaged part was verified: %v", err)
					}
					putAndCheck(t, s, data)
					return
				}
				putAndCheck(t, s, storetest.Bytes(2, size))
				if got, want := len(w.all(name)), max((size+minPart-1)/minPart, 1)+2; got != want {
					t.Errorf("%d requests, want %d", got, want)
				}
			})
		}
	}
}
