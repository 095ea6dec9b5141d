package oss

import (
	"errors"
	"net/http"
	"strings"
	"testing"

	"gantry/upload"
)

// set changes one of the bucket's settings, as an operator does.
func set(t *testing.T, s *Store, name, document string) {
	t.Helper()
	resp, err := s.bucket.Do(http.MethodPut, "", map[string]any{name: nil}, nil, strings.NewReader(document), nil)
	if err != nil {
		t.Fatal(err)
	}
	resp.Close()
}

// problems are what Advise says of the settings whose names begin so, "" for each that is good.
func problems(t *testing.T, s *Store, setting string) []string {
	t.Helper()
	all, err := s.Advise(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	var found []string
	for _, a := range all {
		if (a.Problem == "") != (a.Mend == "") || a.Setting == "" {
			t.Errorf("advice %+v", a)
		}
		if strings.HasPrefix(a.Setting, setting) {
			found = append(found, a.Problem)
		}
	}
	return found
}

func expectProblems(t *testing.T, s *Store, setting string, want ...string) {
	t.Helper()
	got := problems(t, s, setting)
	if len(got) != len(want) {
		t.Errorf("%s: %q, want %q", setting, got, want)
		return
	}
	for i := range got {
		if (want[i] == "") != (got[i] == "") || !strings.Contains(got[i], want[i]) {
			t.Errorf("%s: %q, want %q", setting, got[i], want[i])
		}
	}
}

func rule(prefix, status, what string) string {
	return "<Rule><ID>r</ID><Prefix>" + prefix + "</Prefix><Status>" + status + "</Status>" + what + "</Rule>"
}

func TestAdvise(t *testing.T) {
	for _, signature := range signatures {
		s := open(t, serve(t, signature))
		const (
			lifecycle = "lifecycle rules"
			abort     = "<AbortMultipartUpload><Days>7</Days></AbortMultipartUpload>"
		)
		expectProblems(t, s, "", "", "", "No rule aborts", "", "", "", "No rule lets a browser") // a new bucket

		for _, test := range []struct {
			rules string
			want  []string
		}{
			{rule("", "Enabled", abort), []string{""}},
			{rule("some/", "Enabled", abort), []string{""}},
			{rule("some/prefix/", "Enabled", abort), []string{""}},
			{rule("some/prefix/00/", "Enabled", abort), []string{"No rule"}},
			{rule("other/", "Enabled", abort), []string{"No rule"}},
			{rule("", "Disabled", abort), []string{"No rule"}},
			{rule("", "Enabled", "<AbortMultipartUpload><Days>1</Days></AbortMultipartUpload>"), []string{"after 1 days"}},
			{rule("", "Enabled", abort) + rule("some/", "Enabled", "<AbortMultipartUpload><Days>2</Days></AbortMultipartUpload>"), []string{"after 2 days"}},
			{rule("some/", "Enabled", "<AbortMultipartUpload><Days>2</Days></AbortMultipartUpload>") + rule("", "Enabled", abort), []string{"after 2 days"}},
			{rule("", "Enabled", abort+"<Expiration><Days>30</Days></Expiration>"), []string{"deletes objects", ""}},
			{rule("", "Enabled", abort+"<Expiration><ExpiredObjectDeleteMarker>true</ExpiredObjectDeleteMarker></Expiration>"), []string{""}},
			{rule("", "Enabled", abort+"<Transition><Days>30</Days><StorageClass>ColdArchive</StorageClass></Transition>"), []string{"archive", ""}},
			{rule("", "Enabled", abort+"<Transition><Days>30</Days><StorageClass>IA</StorageClass></Transition>"), []string{""}},
			{rule("other/", "Enabled", "<Expiration><Days>30</Days></Expiration>") + rule("", "Enabled", abort), []string{""}},
		} {
			set(t, s, "lifecycle", "<LifecycleConfiguration>"+test.rules+"</LifecycleConfiguration>")
			expectProblems(t, s, lifecycle, test.want...)
		}

		set(t, s, "versioning", "<VersioningConfiguration><Status>Enabled</Status></VersioningConfiguration>")
		expectProblems(t, s, "versioning", "It is on")
		set(t, s, "versioning", "<VersioningConfiguration><Status>Suspended</Status></VersioningConfiguration>")
		expectProblems(t, s, "versioning", "")

		const origin, put, headers, etag = "<AllowedOrigin>https://example.com</AllowedOrigin>", "<AllowedMethod>PUT</AllowedMethod>",
			"<AllowedHeader>*</AllowedHeader>", "<ExposeHeader>ETag</ExposeHeader>"
		for rules, want := range map[string]string{
			origin + put + headers + etag:                                          "",
			origin + put + headers:                                                 "No rule",
			origin + "<AllowedMethod>GET</AllowedMethod>" + headers + etag:         "No rule",
			origin + put + etag:                                                    "No rule",
			origin + put + "</CORSRule><CORSRule>" + origin + put + headers + etag: "",
		} {
			set(t, s, "cors", "<CORSConfiguration><CORSRule>"+rules+"</CORSRule></CORSConfiguration>")
			expectProblems(t, s, "CORS rules", want)
		}
	}
}

// What a bucket can be made wrong in that the test server has not.
func TestAdviseOfABucketsNature(t *testing.T) {
	opt := serve(t, "v4")
	grant, class := "private", "Standard"
	opt.Client = &wire{harm: func(r *http.Request) (*http.Response, error) {
		if !r.URL.Query().Has("bucketInfo") {
			return nil, nil
		}
		return document(r, "<BucketInfo><Bucket><AccessControlList><Grant>"+grant+"</Grant></AccessControlList><StorageClass>"+class+"</StorageClass></Bucket></BucketInfo>"), nil
	}}
	s := open(t, opt)
	expectProblems(t, s, "access", "")
	expectProblems(t, s, "class", "")
	grant, class = "public-read", "ColdArchive"
	expectProblems(t, s, "access", "public-read")
	expectProblems(t, s, "class", "ColdArchive")
}

// A key that may not read the settings is told so, setting by setting; a store that is away is an error.
func TestAdviseWithoutPermission(t *testing.T) {
	opt := serve(t, "v4")
	code := "AccessDenied"
	opt.Client = &wire{harm: func(r *http.Request) (*http.Response, error) {
		if q := r.URL.Query(); q.Has("lifecycle") || q.Has("cors") || q.Has("bucketInfo") {
			return answer(r, http.StatusForbidden, code), nil
		}
		return nil, nil
	}}
	s := open(t, opt)
	expectProblems(t, s, "", "", "", "the access key may not", "the access key may not", "the access key may not")
	code = "InternalError"
	if _, err := s.Advise(t.Context()); !errors.Is(err, upload.Unavailable) {
		t.Errorf("a store that fails: %v", err)
	}
	opt.Bucket = "not-there"
	if _, err := open(t, opt).Advise(t.Context()); !errors.Is(err, upload.Invalid) {
		t.Errorf("no bucket: %v", err)
	}
}

// Clients do not reach what nodes do.
func TestAdviseOfEndpoints(t *testing.T) {
	opt := serve(t, "v4")
	opt.Client = hosts(t, opt.Endpoint)
	const inside, outside = "http://oss-cn-hangzhou-internal.aliyuncs.com", "https://oss-cn-hangzhou.aliyuncs.com"
	for _, test := range []struct{ endpoint, public, problem, publicProblem string }{
		{inside, "", "", "internal endpoint"},
		{inside, outside, "", ""},
		{inside, "https://files.example.com", "", ""},
		{"http://oss-cn-hangzhou.aliyuncs.com", "", "not https", ""},
	} {
		opt.Endpoint, opt.Public = test.endpoint, test.public
		s := open(t, opt)
		expectProblems(t, s, "endpoint", test.problem)
		expectProblems(t, s, "public endpoint", test.publicProblem)
	}
}
