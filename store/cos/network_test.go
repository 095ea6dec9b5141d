package cos

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"testing"
	"time"

	sdk "github.com/tencentyun/cos-go-sdk-v5"

	"gantry/internal/testenv"
	"gantry/store"
	"gantry/store/storetest"
	"gantry/upload"
)

// through returns a network that can be harmed, and how the cloud is reached behind it.
func through(t *testing.T, c *cloud) (*testenv.Proxy, Options) {
	t.Helper()
	network := testenv.NewProxy(t, strings.TrimPrefix(c.URL, "http://"))
	opt := c.options()
	opt.Endpoint = "http://" + network.Address()
	return network, opt
}

// half answers GET with the first minPart bytes of more, and no end, until the client goes.
func half(w http.ResponseWriter, r *http.Request) bool {
	from, to, ok := strings.Cut(strings.TrimPrefix(r.Header.Get("Range"), "bytes="), "-")
	if !ok || r.Method != http.MethodGet {
		return false
	}
	if from != "0" || to != "" {
		return false
	}
	w.Header().Set("Content-Length", strconv.Itoa(2*minPart))
	w.Header().Set("Content-Range", fmt.Sprintf("bytes 0-%d/%d", 2*minPart-1, 2*minPart))
	w.WriteHeader(http.StatusPartialContent)
	_, _ = w.Write(make([]byte, minPart))
	_ = http.NewResponseController(w).Flush()
	<-r.Context().Done()
	return true
}

// A network that is slow is no error, and one that breaks is one that passes.
func TestNetwork(t *testing.T) {
	c := newCloud(t)
	network, opt := through(t, c)
	s := open(t, opt)
	data := storetest.Bytes(8, 4*minPart+9)
	network.Slow(20 * time.Millisecond)
	put(t, s, "slow", data)
	if err := s.Verify(t.Context(), "slow", storetest.DigestsOf(data)); err != nil {
		t.Error(err)
	}
	network.Heal()

	m := &memo{}
	c.intercept(func(_ http.ResponseWriter, r *http.Request) bool {
		if r.URL.Query().Get("partNumber") == "3" {
			network.Refuse()
		}
		return false
	})
	if err := s.Put(t.Context(), "cut", bytes.NewReader(data), store.PutOptions{Checkpoint: m}); !errors.Is(err, upload.Unavailable) {
		t.Errorf("put over a network that breaks: %v", err)
	}
	for what, err := range map[string]error{
		"size": func() error { _, err := s.Size(t.Context(), "slow"); return err }(), "check": s.Check(t.Context()),
		"list": func() error { _, err := collect(s.List(t.Context())); return err }(),
	} {
		if !errors.Is(err, upload.Unavailable) {
			t.Errorf("%s without a network: %v", what, err)
		}
	}
	network.Heal()
	c.intercept(nil)
	if err := s.Put(t.Context(), "cut", bytes.NewReader(data), store.PutOptions{Checkpoint: m}); err != nil {
		t.Fatal(err)
	}
	if err := s.Verify(t.Context(), "cut", storetest.DigestsOf(data)); err != nil {
		t.Error(err)
	}

	c.intercept(half)
	body, err := s.Open(t.Context(), "cut", 0, -1)
	if err != nil {
		t.Fatal(err)
	}
	defer body.Close()
	if _, err := io.ReadFull(body, make([]byte, minPart)); err != nil {
		t.Fatal(err)
	}
	network.Refuse()
	if n, err := io.Copy(io.Discard, body); !errors.Is(err, upload.Unavailable) {
		t.Errorf("an answer that was cut short after %d bytes: %v", n, err)
	}
}

// A connection on which nothing moves any more is given up, and a context that ends ends everything at once.
func TestStalls(t *testing.T) {
	c := newCloud(t)
	network, opt := through(t, c)
	patient := open(t, opt)
	opt.Patience = time.Second
	s := open(t, opt)
	data := storetest.Bytes(9, 16*minPart)
	put(t, patient, "there", data)
	c.intercept(half)
	body, err := s.Open(t.Context(), "there", 0, -1)
	if err != nil {
		t.Fatal(err)
	}
	defer body.Close()
	if _, err := io.Copy(io.Discard, body); upload.KindOf(err) != upload.Timeout {
		t.Errorf("reading an answer that stops in the middle: %v", err)
	}
	c.intercept(nil)
	network.Hold()
	for what, err := range map[string]error{
		"put":  s.Put(t.Context(), "a", bytes.NewReader(data), store.PutOptions{}),
		"size": func() error { _, err := s.Size(t.Context(), "there"); return err }(),
	} {
		if upload.KindOf(err) != upload.Timeout {
			t.Errorf("%s over a network that holds everything: %v", what, err)
		}
	}
	ctx, cancel := context.WithCancel(t.Context())
	time.AfterFunc(50*time.Millisecond, cancel)
	for what, err := range map[string]error{
		"put":   patient.Put(ctx, "a", bytes.NewReader(data), store.PutOptions{}),
		"size":  func() error { _, err := patient.Size(ctx, "there"); return err }(),
		"list":  func() error { _, err := collect(patient.List(ctx)); return err }(),
		"clean": patient.Clean(ctx),
	} {
		if !errors.Is(err, context.Canceled) {
			t.Errorf("%s with a context that ends: %v", what, err)
		}
	}
}

// A reader that is slow is not taken for a network that is.
func TestSlowReader(t *testing.T) {
	opt := newCloud(t).options()
	data := storetest.Bytes(10, 8*minPart)
	put(t, open(t, opt), "a", data)
	opt.Patience = time.Second
	s := open(t, opt)
	body, err := s.Open(t.Context(), "a", 0, -1)
	if err != nil {
		t.Fatal(err)
	}
	defer body.Close()
	wait := func() { // what is shown is that nothing happens
		select {
		case <-t.Context().Done():
		case <-time.After(2 * time.Second):
		}
	}
	wait()
	if _, err := io.ReadFull(body, make([]byte, 10)); err != nil {
		t.Fatal(err)
	}
	wait()
	if n, err := io.Copy(io.Discard, body); err != nil || n != int64(len(data))-10 {
		t.Errorf("read %d bytes, %v", n, err)
	}
}

func get(t *testing.T, method string, u *url.URL, body []byte) (*http.Response, []byte) {
	t.Helper()
	r, err := http.NewRequestWithContext(t.Context(), method, u.String(), bytes.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	resp, err := http.DefaultClient.Do(r)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	got, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	return resp, got
}

// Anybody can download with a URL, under a name and a type, until it expires; and nothing else.
func TestPresign(t *testing.T) {
	for _, token := range []string{"", "a token+/="} {
		c := newCloudWith(t, token)
		opt := c.options()
		opt.Token = token
		s := open(t, opt)
		data := []byte("hello")
		const disposition = `attachment; filename="a+b c.txt"; filename*=UTF-8''%E6%96%87%E4%BB%B6.txt`
		for _, key := range []string{"a", "a b+c/文件%2F.txt"} {
			put(t, s, key, data)
			u, err := s.Presign(t.Context(), key, store.PresignOptions{Expires: time.Minute, ContentType: "text/plain; charset=utf-8", Disposition: disposition})
			if err != nil {
				t.Fatal(err)
			}
			if strings.Contains(u.String(), "+") || strings.Contains(u.String(), " ") {
				t.Errorf("a plus or a space in %s", u)
			}
			resp, got := get(t, http.MethodGet, u, nil)
			if resp.StatusCode != http.StatusOK || !bytes.Equal(got, data) || resp.Header.Get("Content-Disposition") != disposition || resp.Header.Get("Content-Type") != "text/plain; charset=utf-8" {
				t.Errorf("%s: %s, %q, %v", key, resp.Status, got, resp.Header)
			}
			for what, change := range map[string]func(u *url.URL) string{
				"method": func(*url.URL) string { return http.MethodPut },
				"key":    func(u *url.URL) string { u.Path, u.RawPath = "/other", ""; return http.MethodGet },
				"type": func(u *url.URL) string {
					u.RawQuery = strings.Replace(u.RawQuery, "plain", "html", 1)
					return http.MethodGet
				},
			} {
				changed := *u
				if resp, _ := get(t, change(&changed), &changed, nil); resp.StatusCode != http.StatusForbidden {
					t.Errorf("with another %s: %s", what, resp.Status)
				}
			}
			c.now.Store(61)
			if resp, _ := get(t, http.MethodGet, u, nil); resp.StatusCode != http.StatusForbidden {
				t.Errorf("after it expired: %s", resp.Status)
			}
			c.now.Store(0)
		}
	}
	opt := newCloud(t).options()
	opt.Public = "https://files.example.com"
	s := open(t, opt)
	if u, err := s.Presign(t.Context(), "a", store.PresignOptions{Expires: time.Minute}); err != nil || u.Host != "files.example.com" || u.Scheme != "https" {
		t.Errorf("a client is sent to %v, %v", u, err)
	}
	if u, err := s.Direct().PresignPart(t.Context(), "a", "id", 1, time.Minute); err != nil || u.Host != "files.example.com" {
		t.Errorf("a part is sent to %v, %v", u, err)
	}
	if _, err := s.Presign(t.Context(), "a", store.PresignOptions{}); !errors.Is(err, upload.Invalid) {
		t.Errorf("without an expiry: %v", err)
	}
	if _, err := s.Presign(t.Context(), "../a", store.PresignOptions{Expires: time.Minute}); !errors.Is(err, upload.Invalid) {
		t.Errorf("with a bad key: %v", err)
	}
}

// A client sends the parts by itself.
func TestDirect(t *testing.T) {
	s := open(t, newCloud(t).options())
	d := s.Direct()
	least, largest, most := d.PartLimits()
	if least != 1<<20 || largest != 5<<30 || most != 10_000 {
		t.Errorf("limits %d, %d, %d", least, largest, most)
	}
	data := storetest.Bytes(11, 2*minPart+77)
	id, err := d.Create(t.Context(), "文 件")
	if err != nil {
		t.Fatal(err)
	}
	for i := range 3 {
		u, err := d.PresignPart(t.Context(), "文 件", id, i+1, time.Minute)
		if err != nil {
			t.Fatal(err)
		}
		resp, body := get(t, http.MethodPut, u, data[i*minPart:min(len(data), (i+1)*minPart)])
		if resp.StatusCode != http.StatusOK || resp.Header.Get("ETag") == "" {
			t.Fatalf("part %d: %s %s", i+1, resp.Status, body)
		}
		other := *u
		other.RawQuery = strings.Replace(other.RawQuery, "partNumber="+strconv.Itoa(i+1), "partNumber=9", 1)
		if resp, _ := get(t, http.MethodPut, &other, []byte("x")); resp.StatusCode != http.StatusForbidden {
			t.Errorf("another part with the URL of part %d: %s", i+1, resp.Status)
		}
	}
	parts, err := collect(d.Parts(t.Context(), "文 件", id))
	if err != nil || len(parts) != 3 || parts[2].Size != 77 {
		t.Fatalf("parts %v, %v", parts, err)
	}
	if err := d.Complete(t.Context(), "文 件", id, parts); err != nil {
		t.Fatal(err)
	}
	if err := s.Verify(t.Context(), "文 件", digests(data)); err != nil {
		t.Error(err)
	}
	if err := d.Complete(t.Context(), "文 件", id, parts); !errors.Is(err, upload.NotFound) {
		t.Errorf("complete again: %v", err)
	}
	if _, err := collect(d.Parts(t.Context(), "文 件", id)); !errors.Is(err, upload.NotFound) {
		t.Errorf("parts of what is complete: %v", err)
	}
	small, err := d.Create(t.Context(), "small")
	if err != nil {
		t.Fatal(err)
	}
	for number := range 2 {
		u, _ := d.PresignPart(t.Context(), "small", small, number+1, time.Minute)
		get(t, http.MethodPut, u, []byte("x"))
	}
	parts, err = collect(d.Parts(t.Context(), "small", small))
	if err != nil {
		t.Fatal(err)
	}
	if err := d.Complete(t.Context(), "small", small, parts); !errors.Is(err, upload.Invalid) {
		t.Errorf("complete with parts that are too small: %v", err)
	}
	for range 2 {
		if err := d.Abort(t.Context(), "small", small); err != nil {
			t.Errorf("abort: %v", err)
		}
	}
	if _, err := d.Create(t.Context(), "../a"); !errors.Is(err, upload.Invalid) {
		t.Errorf("create with a bad key: %v", err)
	}
	for _, number := range []int{0, 10_001} {
		if _, err := d.PresignPart(t.Context(), "a", "id", number, time.Minute); !errors.Is(err, upload.Invalid) {
			t.Errorf("part %d: %v", number, err)
		}
	}
}

func problems(t *testing.T, s *Store) map[string]string {
	t.Helper()
	all, err := s.Advise(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	found := map[string]string{}
	for _, a := range all {
		if (a.Problem == "") != (a.Mend == "") {
			t.Errorf("half an advice: %+v", a)
		}
		found[a.Setting] = a.Problem
	}
	return found
}

// Advise before and after its advice is followed.
func TestAdvise(t *testing.T) {
	c := newCloud(t)
	s := open(t, c.options())
	const parts, objects, cors, versions = "lifecycle: abandoned multipart uploads", "lifecycle: objects", "CORS: direct upload from browsers", "versioning"
	expect := func(what string, bad ...string) {
		t.Helper()
		got := problems(t, s)
		for _, setting := range []string{parts, objects, cors, versions} {
			problem, there := got[setting]
			want := false
			for _, b := range bad {
				want = want || b == setting
			}
			if !there || (problem != "") != want {
				t.Errorf("%s: %s: %q", what, setting, problem)
			}
		}
	}
	expect("a new bucket", parts, cors)
	rule := sdk.BucketLifecycleRule{
		ID: "parts", Status: "Enabled", Filter: &sdk.BucketLifecycleFilter{Prefix: "some/"},
		AbortIncompleteMultipartUpload: &sdk.BucketLifecycleAbortIncompleteMultipartUpload{DaysAfterInitiation: 7},
	}
	lifecycle := func(rules ...sdk.BucketLifecycleRule) {
		t.Helper()
		if _, err := s.client.Bucket.PutLifecycle(t.Context(), &sdk.BucketPutLifecycleOptions{Rules: rules}); err != nil {
			t.Fatal(err)
		}
	}
	lifecycle(rule)
	browsers := sdk.BucketCORSRule{
		AllowedOrigins: []string{"https://files.example.com"}, AllowedMethods: []string{"PUT", "GET"}, AllowedHeaders: []string{"*"}, ExposeHeaders: []string{"ETag"},
	}
	putCORS := func(rule sdk.BucketCORSRule) {
		t.Helper()
		if _, err := s.client.Bucket.PutCORS(t.Context(), &sdk.BucketPutCORSOptions{Rules: []sdk.BucketCORSRule{rule}}); err != nil {
			t.Fatal(err)
		}
	}
	for what, change := range map[string]func(r *sdk.BucketCORSRule){
		"no ETag":    func(r *sdk.BucketCORSRule) { r.ExposeHeaders = []string{"Content-Length"} },
		"no PUT":     func(r *sdk.BucketCORSRule) { r.AllowedMethods = []string{"GET"} },
		"no headers": func(r *sdk.BucketCORSRule) { r.AllowedHeaders = nil },
	} {
		changed := browsers
		change(&changed)
		putCORS(changed)
		expect(what, cors)
	}
	putCORS(browsers)
	expect("after the advice")
	for what, change := range map[string]func(r *sdk.BucketLifecycleRule){
		"disabled":       func(r *sdk.BucketLifecycleRule) { r.Status = "Disabled" },
		"another prefix": func(r *sdk.BucketLifecycleRule) { r.Filter = &sdk.BucketLifecycleFilter{Prefix: "other/"} },
		"deeper prefix":  func(r *sdk.BucketLifecycleRule) { r.Filter = &sdk.BucketLifecycleFilter{Prefix: "some/präfix +/00/"} },
		"with a tag": func(r *sdk.BucketLifecycleRule) {
			r.Filter = &sdk.BucketLifecycleFilter{Tag: &sdk.BucketTaggingTag{Key: "a", Value: "b"}}
		},
		"no parts": func(r *sdk.BucketLifecycleRule) {
			r.AbortIncompleteMultipartUpload = nil
			r.Transition = []sdk.BucketLifecycleTransition{{Days: 30, StorageClass: "STANDARD_IA"}}
		},
	} {
		changed := rule
		change(&changed)
		lifecycle(changed)
		expect(what, parts)
	}
	deletes := sdk.BucketLifecycleRule{ID: "old", Status: "Enabled", Filter: &sdk.BucketLifecycleFilter{Prefix: "some/präfix +/00/"}, Expiration: &sdk.BucketLifecycleExpiration{Days: 30}}
	lifecycle(rule, deletes)
	expect("objects are deleted", objects)
	deletes.Filter.Prefix = "other/"
	lifecycle(rule, deletes)
	expect("others are deleted")
	lifecycle(rule, sdk.BucketLifecycleRule{
		ID: "cold", Status: "Enabled", Filter: &sdk.BucketLifecycleFilter{}, Transition: []sdk.BucketLifecycleTransition{{Days: 30, StorageClass: "ARCHIVE"}},
	})
	expect("objects are archived", objects)
	lifecycle(rule)
	if _, err := s.client.Bucket.PutVersioning(t.Context(), &sdk.BucketPutVersionOptions{Status: "Enabled"}); err != nil {
		t.Fatal(err)
	}
	expect("versions", versions)
	c.intercept(func(w http.ResponseWriter, _ *http.Request) bool {
		refusal(w, http.StatusForbidden, "AccessDenied")
		return true
	})
	for setting, problem := range problems(t, s) {
		if problem == "" {
			t.Errorf("%s may not be looked at and is fine", setting)
		}
	}
	c.intercept(func(w http.ResponseWriter, _ *http.Request) bool {
		refusal(w, http.StatusForbidden, "SignatureDoesNotMatch")
		return true
	})
	if _, err := s.Advise(t.Context()); !errors.Is(err, upload.Invalid) {
		t.Errorf("with wrong credentials: %v", err)
	}
}
