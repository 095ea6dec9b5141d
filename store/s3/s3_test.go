package s3

import (
	"bytes"
	"context"
	"io"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/minio/minio-go/v7"
	"golang.org/x/sync/errgroup"

	"gantry/internal/testenv"
	"gantry/store"
	"gantry/store/storetest"
	"gantry/upload"
)

// gateway is the options for a new bucket on Ceph's gateway, which has no checksums.
func gateway(t *testing.T) Options {
	t.Helper()
	return bucketAt(t, testenv.Address(t, testenv.Ceph))
}

// bucketAt is the options for a new bucket on a real server. It is deleted when the test ends.
func bucketAt(t *testing.T, address string) Options {
	t.Helper()
	opt := newBucket(t, address)
	s := open(t, opt)
	t.Cleanup(func() {
		ctx := context.WithoutCancel(t.Context())
		for u, err := range (server{s}).Uploads(ctx) {
			if err == nil {
				_ = server{s}.Abort(ctx, u.Key, u.ID)
			}
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

func newBucket(t testing.TB, address string) Options {
	t.Helper()
	u, err := url.Parse(address)
	if err != nil {
		t.Fatal(err)
	}
	secret, _ := u.User.Password()
	opt := Options{
		Endpoint: u.Scheme + "://" + u.Host, Bucket: "test-" + upload.NewNodeID(), AccessKey: u.User.Username(), SecretKey: secret,
		PathStyle: true, PartSize: minPart, Prefix: "some/prefix/",
	}
	if err := open(t, opt).client.MakeBucket(t.Context(), opt.Bucket, minio.MakeBucketOptions{}); err != nil {
		t.Fatal(err)
	}
	return opt
}

func open(t testing.TB, opt Options) *Store {
	t.Helper()
	s, err := New(opt)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func TestStore(t *testing.T) {
	for name, test := range map[string]struct {
		server   testenv.Server
		disturbs bool
	}{
		"Ceph": {testenv.Ceph, true}, // RGW 16 deletes the parts that a reader is at, and its answer is an error
		"S3":   {testenv.S3, false},
	} {
		t.Run(name, func(t *testing.T) {
			address := testenv.Address(t, test.server)
			storetest.Run(t, func(t *testing.T) store.Store {
				opt := bucketAt(t, address)
				opt.Client = &wire{}
				return open(t, opt)
			}, storetest.Caps{
				Alter: alter, ReplaceDisturbs: test.disturbs, AnyKey: true, PartSize: minPart, Memory: 4 * minPart,
				Sent:    func(st store.Store) int64 { return st.(*Store).opt.Client.(*wire).sent.Load() },
				BadKeys: []string{"", "/a", "a//b", "../a", "a/../b", "a\x00b", strings.Repeat("a", 513)},
			})
		})
	}
}

// alter writes other bytes with another client.
func alter(t *testing.T, st store.Store, key string, change func([]byte) []byte) {
	s := st.(*Store)
	data, err := storetest.Read(t.Context(), s, key, 0, -1)
	if err != nil {
		t.Fatal(err)
	}
	data = change(data)
	if _, err := s.client.Client.PutObject(t.Context(), s.opt.Bucket, s.opt.Prefix+key, bytes.NewReader(data), int64(len(data)), minio.PutObjectOptions{DisableContentSha256: true}); err != nil {
		t.Fatal(err)
	}
}

// Clean aborts what is abandoned, whatever its key, and nothing that is young, nor what others have in the bucket.
func TestClean(t *testing.T) {
	for _, at := range []testenv.Server{testenv.Ceph, testenv.S3} {
		t.Run(string(at), func(t *testing.T) {
			opt := bucketAt(t, testenv.Address(t, at))
			s := server{open(t, opt)}
			opt.Prefix = "others/"
			others := server{open(t, opt)}
			if _, err := others.Create(t.Context(), "00/a"); err != nil {
				t.Fatal(err)
			}
			keys := []string{"00/a", "00/a", "a b", "ü", "100%25", "a+b", "a&b<c>"}
			for _, key := range keys {
				if _, err := s.Create(t.Context(), key); err != nil {
					t.Fatal(err)
				}
			}
			if err := s.Clean(t.Context()); err != nil {
				t.Fatal(err)
			}
			found := map[string]int{}
			for u, err := range s.Uploads(t.Context()) {
				if err != nil {
					t.Fatal(err)
				}
				found[u.Key]++
			}
			for _, key := range keys {
				if found[key] == 0 {
					t.Errorf("%q is not among %v", key, found)
				}
			}
			if err := s.putter.Clean(t.Context(), -time.Hour); err != nil {
				t.Fatal(err)
			}
			noUploads(t, s.Store)
			for u, err := range others.Uploads(t.Context()) {
				if err != nil || u.Key != "00/a" {
					t.Errorf("%v, %v", u, err)
				}
				return
			}
			t.Error("an upload of others was aborted")
		})
	}
}

// Lists that have several pages come whole. versitygw does not go on with a list of uploads.
func TestPages(t *testing.T) {
	const n = 1005
	opt := bucketAt(t, testenv.Address(t, testenv.S3))
	w := &wire{}
	opt.Client = w
	s := server{open(t, opt)}
	id, err := s.Create(t.Context(), "many parts")
	if err != nil {
		t.Fatal(err)
	}
	var all errgroup.Group
	all.SetLimit(16)
	for i := range n {
		all.Go(func() error {
			_, err := s.PutPart(t.Context(), "many parts", id, i+1, []byte("x"))
			return err
		})
	}
	if err := all.Wait(); err != nil {
		t.Fatal(err)
	}
	next := 1
	for part, err := range s.Parts(t.Context(), "many parts", id) {
		if err != nil || part.Number != next {
			t.Fatalf("part %d: %+v, %v", next, part, err)
		}
		next++
	}
	if next != n+1 {
		t.Errorf("%d parts, want %d", next-1, n)
	}

	w.meddle = func(what string, r *http.Request) (*http.Response, error) {
		query := r.URL.Query()
		if what != http.MethodGet || !query.Has("uploads") {
			return pass(r)
		}
		body := `<ListMultipartUploadsResult><IsTruncated>true</IsTruncated><NextKeyMarker>k1</NextKeyMarker><NextUploadIdMarker>i1</NextUploadIdMarker>
			<Upload><Key>some/prefix/k1</Key><UploadId>i1</UploadId></Upload></ListMultipartUploadsResult>`
		if query.Get("key-marker") == "k1" && query.Get("upload-id-marker") == "i1" {
			body = `<ListMultipartUploadsResult><Upload><Key>some/prefix/k2</Key><UploadId>i2</UploadId></Upload></ListMultipartUploadsResult>`
		}
		resp, err := answer(r, http.StatusOK, "")
		resp.Body = io.NopCloser(strings.NewReader(body))
		return resp, err
	}
	var keys []string
	for u, err := range s.Uploads(t.Context()) {
		if keys = append(keys, u.Key+" "+u.ID); err != nil || len(keys) > 2 {
			break
		}
	}
	w.meddle = nil
	if !slices.Equal(keys, []string{"k1 i1", "k2 i2"}) {
		t.Errorf("listed %q", keys)
	}
}
