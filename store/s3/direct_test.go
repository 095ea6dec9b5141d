package s3

import (
	"bytes"
	"context"
	"errors"
	"io"
	"net/http"
	"testing"
	"time"

	"github.com/minio/minio-go/v7"
	"github.com/minio/minio-go/v7/pkg/cors"
	"github.com/minio/minio-go/v7/pkg/lifecycle"

	"gantry/internal/testenv"
	"gantry/store"
	"gantry/store/storetest"
	"gantry/upload"
)

// send does what a client does with a presigned URL.
func send(t *testing.T, method, url string, body []byte) (*http.Response, []byte) {
	t.Helper()
	r, err := http.NewRequestWithContext(t.Context(), method, url, bytes.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	resp, err := http.DefaultClient.Do(r)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	data, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	return resp, data
}

func TestPresign(t *testing.T) {
	for _, at := range []testenv.Server{testenv.Ceph, testenv.S3} {
		t.Run(string(at), func(t *testing.T) { presign(t, open(t, bucketAt(t, testenv.Address(t, at)))) })
	}
}

func presign(t *testing.T, s *Store) {
	data := storetest.Bytes(1, 1000)
	key := "00/a name+of 100%/ü"
	if err := s.Put(t.Context(), key, bytes.NewReader(data), store.PutOptions{}); err != nil {
		t.Fatal(err)
	}
	const disposition = `attachment; filename="a b.txt"; filename*=UTF-8''%C3%BC%20b.txt`
	u, err := s.Presign(t.Context(), key, store.PresignOptions{Expires: time.Minute, ContentType: "text/x-test; charset=utf-8", Disposition: disposition})
	if err != nil {
		t.Fatal(err)
	}
	resp, got := send(t, http.MethodGet, u.String(), nil)
	if resp.StatusCode != http.StatusOK || !bytes.Equal(got, data) || resp.Header.Get("Content-Type") != "text/x-test; charset=utf-8" || resp.Header.Get("Content-Disposition") != disposition {
		t.Errorf("%s, %d bytes, %v", resp.Status, len(got), resp.Header)
	}
	query := u.Query()
	query.Set("response-content-type", "text/html")
	u.RawQuery = query.Encode()
	if resp, _ := send(t, http.MethodGet, u.String(), nil); resp.StatusCode != http.StatusForbidden {
		t.Errorf("a URL that was changed: %s", resp.Status)
	}
	for _, expires := range []time.Duration{0, 8 * 24 * time.Hour} {
		if u, err := s.Presign(t.Context(), key, store.PresignOptions{Expires: expires}); !errors.Is(err, upload.Invalid) {
			t.Errorf("a URL good for %v: %v, %v", expires, u, err)
		}
	}
}

func TestDirect(t *testing.T) {
	for _, at := range []testenv.Server{testenv.Ceph, testenv.S3} {
		t.Run(string(at), func(t *testing.T) { sendDirectly(t, open(t, bucketAt(t, testenv.Address(t, at)))) })
	}
}

func sendDirectly(t *testing.T, s *Store) {
	data := storetest.Bytes(2, 2*minPart+5)
	direct, key := s.Direct(), storetest.Key(data, "a")
	ctx := t.Context()
	id, err := direct.Create(ctx, key)
	if err != nil {
		t.Fatal(err)
	}
	for i := range 3 {
		u, err := direct.PresignPart(ctx, key, id, i+1, time.Minute)
		if err != nil {
			t.Fatal(err)
		}
		if resp, body := send(t, http.MethodPut, u.String(), data[i*minPart:min((i+1)*minPart, len(data))]); resp.StatusCode != http.StatusOK {
			t.Fatalf("part %d: %s %s", i+1, resp.Status, body)
		}
	}
	var parts []store.Part
	for part, err := range direct.Parts(ctx, key, id) {
		if err != nil {
			t.Fatal(err)
		}
		parts = append(parts, part)
	}
	if len(parts) != 3 || parts[0].Number != 1 || parts[0].Size != minPart || parts[2].Size != 5 {
		t.Fatalf("parts: %+v", parts)
	}
	if err := direct.Complete(ctx, key, id, parts); err != nil {
		t.Fatal(err)
	}
	if err := direct.Complete(ctx, key, id, parts); err != nil && !errors.Is(err, upload.NotFound) {
		t.Errorf("completed again: %v", err)
	}
	if err := s.Verify(ctx, key, storetest.DigestsOf(data)); err != nil {
		t.Error(err)
	}
	for _, err := range direct.Parts(ctx, key, id) {
		if !errors.Is(err, upload.NotFound) {
			t.Errorf("parts of an upload that has ended: %v", err)
		}
	}
	for range 2 {
		if err := direct.Abort(ctx, key, id); err != nil {
			t.Errorf("ended: %v", err)
		}
	}
	if _, err := direct.Create(ctx, "../a"); !errors.Is(err, upload.Invalid) {
		t.Errorf("a bad key: %v", err)
	}
}

func TestAdvise(t *testing.T) {
	opt := gateway(t)
	s := open(t, opt)
	problems := func() map[string]string {
		t.Helper()
		all, err := s.Advise(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		got := map[string]string{}
		for _, advice := range all {
			if got[advice.Setting] = advice.Problem; (advice.Problem == "") != (advice.Mend == "") {
				t.Errorf("a problem without a way to mend it, or the other way round: %+v", advice)
			}
		}
		return got
	}
	const abandoned, objects, direct = "lifecycle rules: abandoned multipart uploads", "lifecycle rules: objects", "CORS rules: direct upload"
	if got := problems(); got[abandoned] == "" || got[direct] == "" || got["versioning"] != "" || got[objects] != "" {
		t.Errorf("a new bucket: %q", got)
	}

	rules := func(rules ...lifecycle.Rule) {
		t.Helper()
		if err := s.client.SetBucketLifecycle(t.Context(), opt.Bucket, &lifecycle.Configuration{Rules: rules}); err != nil {
			t.Fatal(err)
		}
	}
	abort := lifecycle.Rule{ID: "abort", Status: "Enabled"}
	abort.AbortIncompleteMultipartUpload.DaysAfterInitiation = 7
	rules(abort)
	if err := s.client.SetBucketCors(t.Context(), opt.Bucket, cors.NewConfig([]cors.Rule{{
		AllowedMethod: []string{"PUT"}, AllowedOrigin: []string{"https://example.com"}, AllowedHeader: []string{"*"}, ExposeHeader: []string{"ETag"},
	}})); err != nil {
		t.Fatal(err)
	}
	for setting, problem := range problems() {
		if problem != "" {
			t.Errorf("a bucket in order: %s: %s", setting, problem)
		}
	}

	elsewhere := abort
	elsewhere.RuleFilter.Prefix = "other/"
	early := abort
	early.AbortIncompleteMultipartUpload.DaysAfterInitiation = 1
	expire := lifecycle.Rule{ID: "expire", Status: "Enabled", Expiration: lifecycle.Expiration{Days: 30}}
	off := abort
	off.Status = "Disabled"
	below := abort
	below.RuleFilter.Prefix = opt.Prefix + "00/"
	expireBelow := expire
	expireBelow.RuleFilter.Prefix = below.RuleFilter.Prefix
	for name, test := range map[string]struct {
		rule    lifecycle.Rule
		problem string
	}{"for another prefix": {elsewhere, abandoned}, "too early": {early, abandoned}, "switched off": {off, abandoned}, "for a part of the prefix": {below, abandoned}, "deletes some objects": {expireBelow, objects}, "deletes objects": {expire, objects}} {
		rules(test.rule)
		if problems()[test.problem] == "" {
			t.Errorf("a rule that is %s is not seen", name)
		}
	}

	expire.RuleFilter.Prefix = elsewhere.RuleFilter.Prefix
	rules(expire)
	if got := problems(); got[objects] != "" {
		t.Errorf("a rule that is none of ours: %q", got)
	}

	if err := s.client.SetBucketVersioning(t.Context(), opt.Bucket, minio.BucketVersioningConfiguration{Status: "Enabled"}); err != nil {
		t.Fatal(err)
	}
	if problems()["versioning"] == "" {
		t.Error("versioning is not seen")
	}
}

// refusing answers what a server does that has no bucket settings, or does not tell them.
type refusing struct {
	status int
	code   string
}

func (f refusing) RoundTrip(r *http.Request) (*http.Response, error) {
	if query := r.URL.Query(); !query.Has("lifecycle") && !query.Has("cors") && !query.Has("versioning") {
		return http.DefaultTransport.RoundTrip(r)
	}
	body := io.NopCloser(bytes.NewBufferString("<Error><Code>" + f.code + "</Code></Error>"))
	return &http.Response{StatusCode: f.status, Body: body, Header: http.Header{}, Request: r}, nil
}

func TestAdviseWhereSettingsAreNotTold(t *testing.T) {
	opt := gateway(t)
	for _, answer := range []refusing{{http.StatusForbidden, "AccessDenied"}, {http.StatusNotImplemented, "NotImplemented"}} {
		opt.Client = answer
		all, err := open(t, opt).Advise(t.Context())
		if err != nil || len(all) != 3 || all[0].Problem == "" || all[1].Problem == "" || all[2].Problem == "" {
			t.Errorf("%s: %+v, %v", answer.code, all, err)
		}
	}
	opt.Client = refusing{http.StatusServiceUnavailable, "SlowDown"}
	if all, err := open(t, opt).Advise(t.Context()); !errors.Is(err, upload.Unavailable) {
		t.Errorf("a server that is busy: %+v, %v", all, err)
	}
	opt.Client, opt.Bucket = nil, "not-there"
	if all, err := open(t, opt).Advise(context.Background()); !errors.Is(err, upload.Invalid) {
		t.Errorf("no bucket: %+v, %v", all, err)
	}
}
