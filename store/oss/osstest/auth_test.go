package osstest

import (
	"errors"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"
)

// vector is a request whose signature Aliyun has published.
type vector struct {
	opt     Options
	now     time.Time
	method  string
	url     string
	headers []string
	free    []string // headers that the signature does not cover
}

const v4Host = "http://bucket.oss-cn-hangzhou.aliyuncs.com"

// Of version 1 they are in the documentation:
// https://www.alibabacloud.com/help/en/oss/developer-reference/signature-in-authorization-header
// https://www.alibabacloud.com/help/en/oss/developer-reference/ddd-signatures-to-urls
// Of version 4 in the tests of all of Aliyun's SDKs, for Go in
// https://github.com/aliyun/alibabacloud-oss-go-sdk-v2/blob/master/oss/signer/v4_test.go
var vectors = map[string]vector{
	"v1 header": {
		opt:    Options{AccessKey: "44CF9590006BF252F707", SecretKey: "OtxrzxIsfpFjA7SwPzILwy8Bw21TLhquhboDYROV"},
		now:    time.Date(2005, time.November, 17, 18, 49, 58, 0, time.UTC),
		method: http.MethodPut, url: "http://oss-example.oss-cn-hangzhou.aliyuncs.com/nelson",
		headers: []string{
			"Authorization", "OSS 44CF9590006BF252F707:26NBxoKdsyly4EDv6inkoDft/yA=", "Date", "Thu, 17 Nov 2005 18:49:58 GMT",
			"Content-Md5", "ODBGOERFMDMzQTczRUY3NUE3NzA5QzdFNUYzMDQxNEM=", "Content-Type", "text/html",
			"X-Oss-Meta-Author", "foo@bar.com", "X-Oss-Magic", "abracadabra",
		},
	},
	"v1 url": {
		opt:    Options{AccessKey: "44CF9590006BF252F707", SecretKey: "OtxrzxIsfpFjA7SwPzILwy8Bw21TLhquhboDYROV"},
		now:    time.Unix(1141889060, 0),
		method: http.MethodGet,
		url:    "http://oss-example.oss-cn-hangzhou.aliyuncs.com/oss-api.pdf?OSSAccessKeyId=44CF9590006BF252F707&Expires=1141889120&Signature=EwaNTn1erJGkimiJ9WmXgwnANLc%3D",
	},
	"v4 header": {
		opt: Options{AccessKey: "ak", SecretKey: "sk"}, now: time.Unix(1702743657, 0),
		method: http.MethodPut, url: v4Host + "/1234%2B-/123/1.txt?%2Bparam1=value3&%2Bparam2=&param1=value1&param2=&%7Cparam1=value4&%7Cparam2=",
		headers: []string{
			"Authorization", "OSS4-HMAC-SHA256 Credential=ak/20231216/cn-hangzhou/oss/aliyun_v4_request,Signature=e21d18daa82167720f9b1047ae7e7f1ce7cb77a31e8203a7d5f4624fa0284afe",
			"X-Oss-Head1", "value", "Abc", "value", "Zabc", "value", "Xyz", "value", "Content-Type", "text/plain",
			"X-Oss-Content-Sha256", "UNSIGNED-PAYLOAD", "X-Oss-Date", "20231216T162057Z", "Date", "Sat, 16 Dec 2023 16:20:57 GMT",
		},
		free: []string{"Abc", "Zabc", "Xyz", "Date"},
	},
	"v4 header with a token": {
		opt: Options{AccessKey: "ak", SecretKey: "sk", Token: "token"}, now: time.Unix(1702784856, 0),
		method: http.MethodPut, url: v4Host + "/1234%2B-/123/1.txt?%2Bparam1=value3&%2Bparam2=&param1=value1&param2=&%7Cparam1=value4&%7Cparam2=",
		headers: []string{
			"Authorization", "OSS4-HMAC-SHA256 Credential=ak/20231217/cn-hangzhou/oss/aliyun_v4_request,Signature=b94a3f999cf85bcdc00d332fbd3734ba03e48382c36fa4d5af5df817395bd9ea",
			"X-Oss-Head1", "value", "Abc", "value", "Content-Type", "text/plain",
			"X-Oss-Content-Sha256", "UNSIGNED-PAYLOAD", "X-Oss-Date", "20231217T034736Z", "X-Oss-Security-Token", "token",
		},
		free: []string{"Abc"},
	},
	"v4 header with additional ones": {
		opt: Options{AccessKey: "ak", SecretKey: "sk"}, now: time.Unix(1702747512, 0),
		method: http.MethodPut, url: v4Host + "/1234%2B-/123/1.txt?%2Bparam1=value3&%2Bparam2=&param1=value1&param2=&%7Cparam1=value4&%7Cparam2=",
		headers: []string{
			"Authorization", "OSS4-HMAC-SHA256 Credential=ak/20231216/cn-hangzhou/oss/aliyun_v4_request,AdditionalHeaders=abc;zabc,Signature=4a4183c187c07c8947db7620deb0a6b38d9fbdd34187b6dbaccb316fa251212f",
			"X-Oss-Head1", "value", "Abc", "value", "Zabc", "value", "Xyz", "value", "Content-Type", "text/plain",
			"X-Oss-Content-Sha256", "UNSIGNED-PAYLOAD", "X-Oss-Date", "20231216T172512Z",
		},
		free: []string{"Xyz"},
	},
	"v4 url": {
		opt: Options{AccessKey: "ak", SecretKey: "sk"}, now: time.Unix(1702781677, 0),
		method: http.MethodPut, url: v4Host + "/1234%2B-%2F123%2F1.txt?%2Bparam1=value3&%2Bparam2&param1=value1&param2&x-oss-credential=ak%2F20231217%2Fcn-hangzhou%2Foss%2Faliyun_v4_request&x-oss-date=20231217T025437Z&x-oss-expires=599&x-oss-signature=a39966c61718be0d5b14e668088b3fa07601033f6518ac7b523100014269c0fe&x-oss-signature-version=OSS4-HMAC-SHA256&%7Cparam1=value4&%7Cparam2",
		headers: []string{"X-Oss-Head1", "value", "Abc", "value", "Content-Type", "application/octet-stream"},
		free:    []string{"Abc"},
	},
	"v4 url with a token": {
		opt: Options{AccessKey: "ak", SecretKey: "sk", Token: "token"}, now: time.Unix(1702785388, 0),
		method: http.MethodPut, url: v4Host + "/1234%2B-%2F123%2F1.txt?%2Bparam1=value3&%2Bparam2&param1=value1&param2&x-oss-credential=ak%2F20231217%2Fcn-hangzhou%2Foss%2Faliyun_v4_request&x-oss-date=20231217T035628Z&x-oss-expires=599&x-oss-security-token=token&x-oss-signature=3817ac9d206cd6dfc90f1c09c00be45005602e55898f26f5ddb06d7892e1f8b5&x-oss-signature-version=OSS4-HMAC-SHA256&%7Cparam1=value4&%7Cparam2",
		headers: []string{"X-Oss-Head1", "value", "Content-Type", "application/octet-stream"},
	},
	"v4 url with additional headers": {
		opt: Options{AccessKey: "ak", SecretKey: "sk"}, now: time.Unix(1702783809, 0),
		method: http.MethodPut, url: v4Host + "/1234%2B-%2F123%2F1.txt?%2Bparam1=value3&%2Bparam2&param1=value1&param2&x-oss-additional-headers=abc%3Bzabc&x-oss-credential=ak%2F20231217%2Fcn-hangzhou%2Foss%2Faliyun_v4_request&x-oss-date=20231217T033009Z&x-oss-expires=599&x-oss-signature=6bd984bfe531afb6db1f7550983a741b103a8c58e5e14f83ea474c2322dfa2b7&x-oss-signature-version=OSS4-HMAC-SHA256&%7Cparam1=value4&%7Cparam2",
		headers: []string{"X-Oss-Head1", "value", "Abc", "value", "Zabc", "value", "Xyz", "value", "Content-Type", "application/octet-stream"},
		free:    []string{"Xyz"},
	},
}

// request makes the request of a vector.
func (v vector) request() *http.Request {
	r := httptest.NewRequest(v.method, v.url, http.NoBody)
	for i := 0; i < len(v.headers); i += 2 {
		r.Header.Set(v.headers[i], v.headers[i+1])
	}
	return r
}

// verdict is the error code with which a request is refused; "" if its signature is right.
func (v vector) verdict(t *testing.T, r *http.Request) string {
	t.Helper()
	v.opt.Now = func() time.Time { return v.now }
	s := New(v.opt)
	q := &request{Request: r, query: r.URL.Query()}
	q.name, q.key = where(r)
	err := s.authorize(q)
	if err == nil {
		return ""
	}
	f, ok := errors.AsType[*fault](err)
	if !ok || f.status != http.StatusForbidden && f.status != http.StatusBadRequest {
		t.Fatalf("refused with %v", err)
	}
	return f.Code
}

func TestPublishedSignatures(t *testing.T) {
	for name, v := range vectors {
		if code := v.verdict(t, v.request()); code != "" {
			t.Errorf("%s is refused: %s", name, code)
		}
	}
}

// Whatever of a signed request is changed, it is refused.
func TestWrongSignatures(t *testing.T) {
	for name, v := range vectors {
		refused := func(what string, change func(v *vector, r *http.Request)) {
			t.Helper()
			changed := v
			r := v.request()
			change(&changed, r)
			if changed.verdict(t, r) == "" {
				t.Errorf("%s is accepted with %s", name, what)
			}
		}
		refused("another method", func(_ *vector, r *http.Request) { r.Method = http.MethodDelete })
		refused("another bucket", func(_ *vector, r *http.Request) { r.Host = "other.oss-cn-hangzhou.aliyuncs.com" })
		refused("another key", func(_ *vector, r *http.Request) { r.URL.Path += "x" })
		refused("the bucket as a key", func(_ *vector, r *http.Request) { r.URL.Path = "/" })
		refused("another secret", func(v *vector, _ *http.Request) { v.opt.SecretKey += "x" })
		refused("an unknown access key", func(v *vector, _ *http.Request) { v.opt.AccessKey += "x" })
		refused("another token", func(v *vector, _ *http.Request) { v.opt.Token += "x" })
		refused("one more signed header", func(_ *vector, r *http.Request) { r.Header.Set("X-Oss-Forbid-Overwrite", "true") })
		refused("a Content-MD5", func(_ *vector, r *http.Request) { r.Header.Set("Content-Md5", "1B2M2Y8AsgTpgAmY7PhCfg==") })
		refused("another Content-Type", func(_ *vector, r *http.Request) { r.Header.Set("Content-Type", "image/png") })
		refused("one more subresource", func(_ *vector, r *http.Request) { r.URL.RawQuery += "&acl" })
		refused("an override", func(_ *vector, r *http.Request) { r.URL.RawQuery += "&response-content-type=text/html" })
		refused("another uploadId", func(_ *vector, r *http.Request) { r.URL.RawQuery += "&uploadId=1" })
		refused("two ways to authenticate", func(_ *vector, r *http.Request) {
			if r.Header.Get("Authorization") == "" {
				r.Header.Set("Authorization", "OSS ak:c2lnbmF0dXJl")
			}
			r.URL.RawQuery += "&OSSAccessKeyId=ak&Expires=99999999999&Signature=c2lnbmF0dXJl"
		})
		refused("a signed header that is there twice", func(_ *vector, r *http.Request) { r.Header["X-Oss-Meta-A"] = []string{"a", "b"} })
		for h := range v.request().Header {
			free := false
			for _, f := range v.free {
				free = free || f == h
			}
			for what, change := range map[string]func(r *http.Request){
				"changed":    func(r *http.Request) { r.Header.Set(h, r.Header.Get(h)+"x") },
				"taken away": func(r *http.Request) { r.Header.Del(h) },
			} {
				r := v.request()
				change(r)
				if code := v.verdict(t, r); (code == "") != free {
					t.Errorf("%s with header %s %s: %q", name, h, what, code)
				}
			}
		}
		for parameter := range v.request().URL.Query() {
			for what, change := range map[string]func(v []string) []string{
				"changed":    func(v []string) []string { return []string{v[0] + "1"} },
				"taken away": func([]string) []string { return nil },
			} {
				r := v.request()
				query := r.URL.Query()
				if query[parameter] = change(query[parameter]); query[parameter] == nil {
					delete(query, parameter)
				}
				r.URL.RawQuery = query.Encode()
				if v.verdict(t, r) == "" {
					t.Errorf("%s is accepted with parameter %s %s", name, parameter, what)
				}
			}
		}
	}
}

// Neither an old request nor one of the future is taken.
func TestClocks(t *testing.T) {
	for name, v := range vectors {
		inURL := strings.Contains(v.url, "ignature")
		life := 599 * time.Second // of the URLs
		if name == "v1 url" {
			life = 60 * time.Second
		}
		for late, want := range map[time.Duration]bool{
			0: true, -14 * time.Minute: true, 14 * time.Minute: !inURL, -16 * time.Minute: name == "v1 url", 16 * time.Minute: false,
			life: true, life + time.Second: !inURL,
		} {
			moved := v
			moved.now = v.now.Add(late)
			code := moved.verdict(t, v.request())
			if (code == "") != want {
				t.Errorf("%s, %v late: %q", name, late, code)
			}
			if code != "" && !inURL && code != "RequestTimeTooSkewed" || code != "" && inURL && code != "AccessDenied" {
				t.Errorf("%s, %v late, is called %s", name, late, code)
			}
		}
	}
}

// Credentials say more than the key.
func TestCredentials(t *testing.T) {
	for _, name := range []string{"v4 header", "v4 url"} {
		v := vectors[name]
		for from, to := range map[string]string{
			"20231216": "20231215", "20231217/": "20231216/", "cn-hangzhou/": "oss-cn-hangzhou/", "/oss/": "/s3/", "aliyun_v4_request": "aws4_request",
			"Credential=ak/": "Credential=/ak/", "OSS4-HMAC-SHA256": "OSS4-HMAC-SHA1", ",Signature=": ",Signature=0,Signature=", "Credential=": "Other=",
		} {
			r := v.request()
			r.Header.Set("Authorization", strings.Replace(r.Header.Get("Authorization"), from, to, 1))
			if r.Header.Get("Authorization") == "" {
				r.Header.Del("Authorization")
			}
			query := r.URL.Query()
			for key := range query {
				if strings.HasPrefix(key, "x-oss-") && key != "x-oss-date" {
					query.Set(key, strings.Replace(query.Get(key), from, to, 1))
				}
			}
			before := r.URL.RawQuery
			r.URL.RawQuery = query.Encode()
			if r.Header.Get("Authorization") == v.request().Header.Get("Authorization") && equalQuery(before, r.URL.RawQuery) {
				continue // it has no such part
			}
			if code := v.verdict(t, r); code != "InvalidArgument" {
				t.Errorf("%s with %s for %s: %q", name, to, from, code)
			}
		}
	}
	for _, expires := range []string{"0", "-1", "604801", "abc"} { // also where the signature would be right it is refused
		v := vectors["v4 url"]
		v.url = strings.Replace(v.url, "x-oss-expires=599", "x-oss-expires="+expires, 1)
		if code := v.verdict(t, v.request()); code != "InvalidArgument" {
			t.Errorf("expires %s: %q", expires, code)
		}
	}
	v := vectors["v4 header"]
	for what, change := range map[string]func(h http.Header){
		"no x-oss-content-sha256":        func(h http.Header) { h.Del("X-Oss-Content-Sha256") },
		"the digest of a body":           func(h http.Header) { h.Set("X-Oss-Content-Sha256", strings.Repeat("0", 64)) },
		"a signed header twice":          func(h http.Header) { h.Add("X-Oss-Head1", "value") },
		"two ways to say who it is from": func(h http.Header) { h.Add("Authorization", h.Get("Authorization")) },
	} {
		r := v.request()
		change(r.Header)
		if code := v.verdict(t, r); code != "InvalidArgument" {
			t.Errorf("%s: %q", what, code)
		}
	}
	v.headers = nil
	if code := v.verdict(t, v.request()); code != "AccessDenied" {
		t.Errorf("a request that is not signed: %q", code)
	}
	v = vectors["v4 header"]
	v.opt.Region = "cn-shanghai"
	if code := v.verdict(t, v.request()); code != "InvalidArgument" {
		t.Errorf("another region: %q", code)
	}
}

func equalQuery(a, b string) bool {
	one, two := httptest.NewRequest(http.MethodGet, "/?"+a, http.NoBody).URL.Query(), httptest.NewRequest(http.MethodGet, "/?"+b, http.NoBody).URL.Query()
	return one.Encode() == two.Encode()
}
