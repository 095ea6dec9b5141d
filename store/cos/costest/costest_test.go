package costest

import (
	"bytes"
	"crypto/md5"
	"crypto/sha1"
	"encoding/base64"
	"encoding/xml"
	"fmt"
	"hash/crc64"
	"maps"
	"net/http"
	"net/http/httptest"
	"net/url"
	"slices"
	"strings"
	"testing"
	"time"
)

// Those of Tencent's own examples of signatures.
const (
	bucket    = "examplebucket-1250000000"
	host      = bucket + ".cos.ap-beijing.myqcloud.com"
	accessKey = "AKIDQjz3ltompVjBni5LitkWHFlFpwkn9U5q"
	secretKey = "BQYIM75p8x0iWVFSIgqEKwFprpRSVHlz"
)

// exampleTime lies in both of their spans.
var exampleTime = time.Unix(1557989800, 0)

func newServer(t *testing.T) *Server {
	t.Helper()
	return New(Options{Dir: t.TempDir(), Bucket: bucket, AccessKey: accessKey, SecretKey: secretKey, Now: func() time.Time { return exampleTime }})
}

func serve(s *Server, r *http.Request) *httptest.ResponseRecorder {
	w := httptest.NewRecorder()
	s.ServeHTTP(w, r)
	return w
}

// code is the error code of an answer.
func code(t *testing.T, w *httptest.ResponseRecorder) string {
	t.Helper()
	var e struct {
		XMLName   xml.Name `xml:"Error"`
		Code      string
		RequestID string `xml:"RequestId"`
	}
	if err := xml.Unmarshal(w.Body.Bytes(), &e); err != nil {
		t.Fatalf("%d without a code: %q, %v", w.Code, w.Body, err)
	}
	if e.RequestID == "" || e.RequestID != w.Header().Get("x-cos-request-id") {
		t.Errorf("the request's id is %q", e.RequestID)
	}
	return e.Code
}

// request makes one with a body and headers, not signed.
func request(method, path string, body []byte, headers map[string]string) *http.Request {
	r := httptest.NewRequest(method, "http://"+host+path, bytes.NewReader(body))
	for name, value := range headers {
		r.Header.Set(name, value)
	}
	return r
}

// sign makes the signature of a request, over all of its headers, parameters and the host.
func sign(r *http.Request, keyTime string) signature {
	headers, params := []string{"host"}, []string{}
	for name := range r.Header {
		headers = append(headers, strings.ToLower(name))
	}
	for name := range r.URL.Query() {
		params = append(params, strings.ToLower(encode(name)))
	}
	slices.Sort(headers)
	slices.Sort(params)
	return signLists(r, keyTime, headers, params)
}

// signLists makes the signature over what it is told to, right or not.
func signLists(r *http.Request, keyTime string, headers, params []string) signature {
	var headerPairs, paramPairs []string
	for _, name := range headers {
		value := r.Header.Get(name)
		if strings.EqualFold(name, "host") {
			value = r.Host
		}
		headerPairs = append(headerPairs, name+"="+encode(value))
	}
	for _, name := range params {
		for real, values := range r.URL.Query() {
			if strings.ToLower(encode(real)) == name {
				paramPairs = append(paramPairs, name+"="+encode(values[0]))
			}
		}
	}
	text := strings.ToLower(r.Method) + "\n" + r.URL.Path + "\n" + strings.Join(paramPairs, "&") + "\n" + strings.Join(headerPairs, "&") + "\n"
	return signature{
		"q-sign-algorithm": "sha1", "q-ak": accessKey, "q-sign-time": keyTime, "q-key-time": keyTime, "q-header-list": strings.Join(headers, ";"),
		"q-url-param-list": strings.Join(params, ";"), "q-signature": mac(mac(secretKey, keyTime), fmt.Sprintf("sha1\n%s\n%x\n", keyTime, sha1.Sum([]byte(text)))),
	}
}

// authorize puts a signature into the header.
func authorize(r *http.Request, s signature) *http.Request {
	var pairs []string
	for _, name := range elements {
		if value, there := s[name]; there {
			pairs = append(pairs, name+"="+value)
		}
	}
	r.Header.Set("Authorization", strings.Join(pairs, "&"))
	return r
}

const good = "1557989700;1557996953"

// do sends a request that is signed as it should be.
func do(s *Server, method, path string, body []byte, headers map[string]string) *httptest.ResponseRecorder {
	r := request(method, path, body, headers)
	return serve(s, authorize(r, sign(r, good)))
}

// The examples of https://www.tencentcloud.com/document/product/436/7778 (Request Signature).
func TestDocumentedSignatures(t *testing.T) {
	s := newServer(t)
	const key = "/exampleobject(%E8%85%BE%E8%AE%AF%E4%BA%91)"
	put := request(http.MethodPut, key, []byte("ObjectContent"), map[string]string{
		"Date": "Thu, 16 May 2019 06:45:51 GMT", "Content-Type": "text/plain", "Content-MD5": "mQ/fVh815F3k6TAUm8m0eg==",
		"x-cos-acl": "private", "x-cos-grant-read": `uin="100000000011"`,
		"Authorization": "q-sign-algorithm=sha1&q-ak=" + accessKey + "&q-sign-time=1557989151;1557996351&q-key-time=1557989151;1557996351" +
			"&q-header-list=content-length;content-md5;content-type;date;host;x-cos-acl;x-cos-grant-read&q-url-param-list=&q-signature=3b8851a11a569213c17ba8fa7dcf2abec6935172",
	})
	if w := serve(s, put); w.Code != http.StatusOK {
		t.Errorf("PUT: %d, %s", w.Code, w.Body)
	}
	get := request(http.MethodGet, key+"?response-content-type=application%2Foctet-stream&response-cache-control=max-age%3D600", nil, map[string]string{
		"Date": "Thu, 16 May 2019 06:55:53 GMT",
		"Authorization": "q-sign-algorithm=sha1&q-ak=" + accessKey + "&q-sign-time=1557989753;1557996953&q-key-time=1557989753;1557996953" +
			"&q-header-list=date;host&q-url-param-list=response-cache-control;response-content-type&q-signature=01681b8c9d798a678e43b685a9f1bba0f6c0e012",
	})
	if w := serve(s, get); w.Code != http.StatusOK || w.Body.String() != "ObjectContent" || w.Header().Get("Cache-Control") != "max-age=600" {
		t.Errorf("GET: %d, %s, %v", w.Code, w.Body, w.Header())
	}
}

// Whatever of a signed request is changed: it is refused, in the header and in a URL.
func TestWrongSignatures(t *testing.T) {
	s := newServer(t)
	if w := do(s, http.MethodPut, "/a", []byte("x"), nil); w.Code != http.StatusOK {
		t.Fatalf("PUT: %d, %s", w.Code, w.Body)
	}
	const path = "/a?response-content-type=text%2Fplain"
	fresh := func() *http.Request {
		return request(http.MethodGet, path, nil, map[string]string{"x-cos-acl": "private", "Range": "bytes=0-0"})
	}
	const mismatch = "SignatureDoesNotMatch"
	all := []string{"response-content-type"}
	for name, test := range map[string]struct {
		change func(r *http.Request, s signature)
		want   string // "": it is right
	}{
		"nothing":            {func(*http.Request, signature) {}, ""},
		"algorithm":          {func(_ *http.Request, s signature) { s["q-sign-algorithm"] = "sha256" }, "AccessDenied"},
		"key":                {func(_ *http.Request, s signature) { s["q-ak"] += "x" }, "InvalidAccessKeyId"},
		"sign time":          {func(_ *http.Request, s signature) { s["q-sign-time"] = "1557989701;1557996953" }, mismatch},
		"key time":           {func(_ *http.Request, s signature) { s["q-key-time"] = "1557989701;1557996953" }, mismatch},
		"both times":         {func(_ *http.Request, s signature) { s["q-key-time"], s["q-sign-time"] = "1;1557996954", "1;1557996954" }, mismatch},
		"no times":           {func(_ *http.Request, s signature) { s["q-key-time"], s["q-sign-time"] = "", "" }, mismatch},
		"times turned round": {func(r *http.Request, s signature) { maps.Copy(s, sign(r, "1557996953;1557989700")) }, mismatch},
		"expired":            {func(r *http.Request, s signature) { maps.Copy(s, sign(r, "1557989700;1557989800")) }, "AccessDenied"},
		"too early":          {func(r *http.Request, s signature) { maps.Copy(s, sign(r, "1557989801;1557996953")) }, "RequestTimeTooSkewed"},
		"signature":          {func(_ *http.Request, s signature) { s["q-signature"] = strings.Repeat("0", 40) }, mismatch},
		"signature in upper": {func(_ *http.Request, s signature) { s["q-signature"] = strings.ToUpper(s["q-signature"]) }, mismatch},
		"no signature":       {func(_ *http.Request, s signature) { delete(s, "q-signature") }, "AccessDenied"},
		"no lists":           {func(_ *http.Request, s signature) { s["q-header-list"], s["q-url-param-list"] = "", "" }, mismatch},
		"header list":        {func(_ *http.Request, s signature) { s["q-header-list"] = "host" }, mismatch},
		"header order":       {func(_ *http.Request, s signature) { s["q-header-list"] = "x-cos-acl;range;host" }, mismatch},
		"header twice":       {func(_ *http.Request, s signature) { s["q-header-list"] = "host;host;range;x-cos-acl" }, mismatch},
		"header in upper":    {func(_ *http.Request, s signature) { s["q-header-list"] = "Host;range;x-cos-acl" }, mismatch},
		"header not there":   {func(_ *http.Request, s signature) { s["q-header-list"] = "etag;host;range;x-cos-acl" }, mismatch},
		"param list":         {func(_ *http.Request, s signature) { s["q-url-param-list"] = "" }, mismatch},
		"host not signed": {func(r *http.Request, s signature) {
			maps.Copy(s, signLists(r, good, []string{"range", "x-cos-acl"}, all))
		}, mismatch},
		"other order signed": {func(r *http.Request, s signature) {
			maps.Copy(s, signLists(r, good, []string{"host", "x-cos-acl", "range"}, all))
		}, mismatch},
		"upper case signed": {func(r *http.Request, s signature) {
			maps.Copy(s, signLists(r, good, []string{"Range", "host", "x-cos-acl"}, all))
		}, mismatch},
		"method":         {func(r *http.Request, _ signature) { r.Method = http.MethodHead }, "HEAD"},
		"path":           {func(r *http.Request, _ signature) { r.URL.Path = "/b" }, mismatch},
		"host":           {func(r *http.Request, _ signature) { r.Host = "files.example.com" }, mismatch},
		"signed header":  {func(r *http.Request, _ signature) { r.Header.Set("Range", "bytes=0-1") }, mismatch},
		"header of COS":  {func(r *http.Request, _ signature) { r.Header.Set("x-cos-other", "1") }, mismatch},
		"header doubled": {func(r *http.Request, _ signature) { r.Header.Add("Range", "bytes=0-0") }, mismatch},
		"parameter": {func(r *http.Request, _ signature) {
			r.URL.RawQuery = strings.Replace(r.URL.RawQuery, "plain", "html", 1)
		}, mismatch},
		"parameter more": {func(r *http.Request, _ signature) { r.URL.RawQuery += "&response-expires=1" }, mismatch},
		"token":          {func(r *http.Request, s signature) { r.Header.Set(tokenName, "x"); maps.Copy(s, sign(r, good)) }, "InvalidAccessKeyId"},
	} {
		for _, where := range []string{"header", "URL"} {
			r := fresh()
			sig := sign(r, good)
			test.change(r, sig)
			if where == "header" {
				authorize(r, sig)
			} else {
				for name, value := range sig {
					r.URL.RawQuery += "&" + name + "=" + url.QueryEscape(value)
				}
			}
			w := serve(s, r)
			switch {
			case test.want == "" && w.Code != http.StatusPartialContent:
				t.Errorf("a right signature in the %s: %d, %s", where, w.Code, w.Body)
			case test.want == "HEAD" && w.Code != http.StatusForbidden:
				t.Errorf("another method in the %s: %d", where, w.Code)
			case test.want != "" && test.want != "HEAD" && (w.Code != http.StatusForbidden || code(t, w) != test.want):
				t.Errorf("%s in the %s: %d, %s", name, where, w.Code, w.Body)
			}
		}
	}
	for name, change := range map[string]func(r *http.Request){
		"none":  func(r *http.Request) { r.Header.Del("Authorization") },
		"other": func(r *http.Request) { r.Header.Set("Authorization", "AWS4-HMAC-SHA256 Credential=x") },
		"more":  func(r *http.Request) { r.Header.Set("Authorization", r.Header.Get("Authorization")+"&q-x=1") },
		"twice": func(r *http.Request) { r.Header.Set("Authorization", r.Header.Get("Authorization")+"&q-ak="+accessKey) },
		"both":  func(r *http.Request) { r.URL.RawQuery += "&q-ak=" + accessKey },
	} {
		r := fresh()
		authorize(r, sign(r, good))
		change(r)
		if w := serve(s, r); w.Code != http.StatusForbidden {
			t.Errorf("authorization %s: %d, %s", name, w.Code, w.Body)
		}
	}
}

// Temporary credentials are those only with their token.
func TestToken(t *testing.T) {
	s := New(Options{Dir: t.TempDir(), Bucket: bucket, AccessKey: accessKey, SecretKey: secretKey, Token: "token", Now: func() time.Time { return exampleTime }})
	for token, want := range map[string]int{"token": http.StatusOK, "": http.StatusForbidden, "other": http.StatusForbidden} {
		headers := map[string]string{}
		if token != "" {
			headers[tokenName] = token
		}
		if w := do(s, http.MethodGet, "/", nil, headers); w.Code != want {
			t.Errorf("token %q: %d, %s", token, w.Code, w.Body)
		}
	}
}

func contentMD5(body []byte) string {
	sum := md5.Sum(body)
	return base64.StdEncoding.EncodeToString(sum[:])
}

func TestObjects(t *testing.T) {
	s := newServer(t)
	body := []byte("0123456789")
	for name, test := range map[string]struct {
		headers map[string]string
		want    string
	}{
		"right":  {map[string]string{"Content-MD5": contentMD5(body)}, ""},
		"none":   {nil, ""},
		"other":  {map[string]string{"Content-MD5": contentMD5([]byte("x"))}, "BadDigest"},
		"no MD5": {map[string]string{"Content-MD5": "x"}, "InvalidDigest"},
		"empty":  {map[string]string{"Content-MD5": ""}, "InvalidDigest"},
		"short":  {map[string]string{"Content-MD5": base64.StdEncoding.EncodeToString(body)}, "InvalidDigest"},
	} {
		w := do(s, http.MethodPut, "/"+url.PathEscape(name), body, test.headers)
		if (w.Code == http.StatusOK) != (test.want == "") || test.want != "" && code(t, w) != test.want {
			t.Errorf("PUT with an MD5 %s: %d, %s", name, w.Code, w.Body)
		}
		if w := do(s, http.MethodHead, "/"+url.PathEscape(name), nil, nil); (w.Code == http.StatusOK) != (test.want == "") || w.Body.Len() > 0 {
			t.Errorf("HEAD after a PUT with an MD5 %s: %d, %q", name, w.Code, w.Body)
		}
	}
	crc := fmt.Sprint(crc64.Checksum(body, crc64.MakeTable(crc64.ECMA)))
	for spec, want := range map[string]string{
		"": "0123456789", "bytes=0-": "0123456789", "bytes=2-4": "234", "bytes=8-100": "89", "bytes=-3": "789", "bytes=-30": "0123456789",
		"bytes=10-": "InvalidRange", "bytes=5-4": "InvalidRange", "bytes=-0": "InvalidRange", "bytes=x": "InvalidRange", "bytes=0-1,3-4": "InvalidRange", "0-1": "InvalidRange",
	} {
		headers := map[string]string{}
		if spec != "" {
			headers["Range"] = spec
		}
		w := do(s, http.MethodGet, "/none", nil, headers)
		switch {
		case want == "InvalidRange":
			if w.Code != http.StatusRequestedRangeNotSatisfiable || code(t, w) != want {
				t.Errorf("range %q: %d, %s", spec, w.Code, w.Body)
			}
		case w.Body.String() != want || (w.Code == http.StatusPartialContent) != (spec != "") || w.Header().Get(crcName) != crc:
			t.Errorf("range %q: %d, %s, %v", spec, w.Code, w.Body, w.Header())
		}
	}
	for range 2 {
		if w := do(s, http.MethodDelete, "/none", nil, nil); w.Code != http.StatusNoContent {
			t.Errorf("DELETE: %d", w.Code)
		}
	}
	for path, want := range map[string]string{"/none": "NoSuchKey", "/" + strings.Repeat("a", 851): "KeyTooLong", "/a%ff": "InvalidURI", "/right?acl": "NotImplemented"} {
		if w := do(s, http.MethodGet, path, nil, nil); code(t, w) != want {
			t.Errorf("GET %.20s: %d, %s", path, w.Code, w.Body)
		}
	}
	for _, name := range []string{"x-cos-copy-source", "x-cos-forbid-overwrite", "If-Match"} {
		if w := do(s, http.MethodPut, "/right", body, map[string]string{name: "x"}); w.Code != http.StatusNotImplemented {
			t.Errorf("PUT with %s: %d", name, w.Code)
		}
	}
	chunked := request(http.MethodPut, "/chunked", body, nil)
	chunked.ContentLength = -1
	if w := serve(s, authorize(chunked, sign(chunked, good))); w.Code != http.StatusLengthRequired || code(t, w) != "MissingContentLength" {
		t.Errorf("PUT without a length: %d, %s", w.Code, w.Body)
	}
	large := request(http.MethodPut, "/large", nil, nil)
	large.ContentLength = 5<<30 + 1
	if w := serve(s, authorize(large, sign(large, good))); code(t, w) != "EntityTooLarge" {
		t.Errorf("PUT of more than 5 GiB: %d, %s", w.Code, w.Body)
	}
	other := request(http.MethodGet, "/right", nil, nil)
	other.Host = "other-1250000000.cos.ap-beijing.myqcloud.com"
	if w := serve(s, authorize(other, sign(other, good))); w.Code != http.StatusNotFound || code(t, w) != "NoSuchBucket" {
		t.Errorf("another bucket: %d, %s", w.Code, w.Body)
	}
	if w := do(s, http.MethodPatch, "/right", nil, nil); code(t, w) != "MethodNotAllowed" {
		t.Errorf("PATCH: %d", w.Code)
	}
}

func TestMultipart(t *testing.T) {
	s := newServer(t)
	var created struct {
		UploadID string `xml:"UploadId"`
	}
	if err := xml.Unmarshal(do(s, http.MethodPost, "/m?uploads", nil, nil).Body.Bytes(), &created); err != nil || created.UploadID == "" {
		t.Fatal(created, err)
	}
	in := "/m?uploadId=" + created.UploadID
	part := func(number int, body []byte) string {
		t.Helper()
		w := do(s, http.MethodPut, fmt.Sprintf("/m?partNumber=%d&uploadId=%s", number, created.UploadID), body, nil)
		if w.Code != http.StatusOK || w.Header().Get(crcName) != fmt.Sprint(crc64.Checksum(body, crc64.MakeTable(crc64.ECMA))) {
			t.Fatalf("part %d: %d, %s", number, w.Code, w.Body)
		}
		return w.Header().Get("ETag")
	}
	large, small := bytes.Repeat([]byte("a"), 1<<20), []byte("b")
	one, two, three, five := part(1, large), part(2, large), part(3, small), part(5, large)
	part(4, small)
	complete := func(path string, parts ...any) *httptest.ResponseRecorder {
		var b strings.Builder
		b.WriteString("<CompleteMultipartUpload>")
		for i := 0; i < len(parts); i += 2 {
			fmt.Fprintf(&b, "<Part><PartNumber>%d</PartNumber><ETag>%s</ETag></Part>", parts[i], parts[i+1])
		}
		b.WriteString("</CompleteMultipartUpload>")
		return do(s, http.MethodPost, path, []byte(b.String()), nil)
	}
	for want, parts := range map[string][]any{
		"MalformedXML": {}, "InvalidPartOrder": {2, two, 1, one}, "InvalidPart": {1, one, 3, three}, "EntityTooSmall": {1, one, 2, two, 3, three, 4, three},
	} {
		if w := complete(in, parts...); w.Code != http.StatusBadRequest || code(t, w) != want {
			t.Errorf("complete, want %s: %d, %s", want, w.Code, w.Body)
		}
	}
	for name, parts := range map[string][]any{"an ETag": {1, three}, "no such part": {1, one, 2, two, 3, three, 4, three, 5, five, 6, one}, "from two on": {2, two}, "twice": {1, one, 1, one}} {
		if w := complete(in, parts...); w.Code != http.StatusBadRequest {
			t.Errorf("complete with %s: %d", name, w.Code)
		}
	}
	for path, want := range map[string]string{"/m?partNumber=0&uploadId=": "InvalidArgument", "/m?partNumber=10001&uploadId=": "InvalidArgument", "/m?partNumber=x&uploadId=": "InvalidArgument", "/other?partNumber=1&uploadId=": "NoSuchUpload"} {
		if w := do(s, http.MethodPut, path+created.UploadID, small, nil); code(t, w) != want {
			t.Errorf("PUT %s: %d, %s", path, w.Code, w.Body)
		}
	}
	w := complete(in, 1, one, 2, two, 3, three)
	whole := slices.Concat(large, large, small)
	if w.Code != http.StatusOK || !strings.HasPrefix(w.Body.String(), " ") || !strings.Contains(w.Body.String(), "-3&#34;</ETag>") {
		t.Errorf("complete: %d, %q", w.Code, w.Body)
	}
	if w := do(s, http.MethodHead, "/m", nil, nil); w.Header().Get(crcName) != fmt.Sprint(crc64.Checksum(whole, crc64.MakeTable(crc64.ECMA))) || w.Header().Get("Content-Length") != fmt.Sprint(len(whole)) {
		t.Errorf("HEAD: %v", w.Header())
	}
	for what, w := range map[string]*httptest.ResponseRecorder{
		"complete": complete(in, 1, one), "list": do(s, http.MethodGet, in, nil, nil), "abort": do(s, http.MethodDelete, in, nil, nil),
		"part": do(s, http.MethodPut, "/m?partNumber=1&uploadId="+created.UploadID, small, nil),
	} {
		if w.Code != http.StatusNotFound || code(t, w) != "NoSuchUpload" {
			t.Errorf("%s after complete: %d, %s", what, w.Code, w.Body)
		}
	}
}

func TestListings(t *testing.T) {
	s := newServer(t)
	for i := range 5 {
		do(s, http.MethodPut, fmt.Sprintf("/p%%20/%d", i), nil, nil)
	}
	type listing struct {
		IsTruncated bool
		NextMarker  string
		Contents    []struct{ Key string }
	}
	var first, second, raw listing
	_ = xml.Unmarshal(do(s, http.MethodGet, "/?prefix=p%20&max-keys=3&encoding-type=url", nil, nil).Body.Bytes(), &first)
	if !first.IsTruncated || first.NextMarker != "p%20%2F2" || len(first.Contents) != 3 || first.Contents[0].Key != "p%20%2F0" {
		t.Errorf("the first page is %+v", first)
	}
	_ = xml.Unmarshal(do(s, http.MethodGet, "/?prefix=p%20&max-keys=3&encoding-type=url&marker="+first.NextMarker, nil, nil).Body.Bytes(), &second)
	if second.IsTruncated || second.NextMarker != "" || len(second.Contents) != 2 || second.Contents[1].Key != "p%20%2F4" {
		t.Errorf("the second page is %+v", second)
	}
	_ = xml.Unmarshal(do(s, http.MethodGet, "/", nil, nil).Body.Bytes(), &raw)
	if len(raw.Contents) != 5 || raw.Contents[4].Key != "p /4" {
		t.Errorf("the listing without encoding is %+v", raw)
	}
	for _, path := range []string{"/?max-keys=0", "/?max-keys=1001", "/?max-keys=x", "/?encoding-type=x", "/?uploads&max-uploads=0"} {
		if w := do(s, http.MethodGet, path, nil, nil); w.Code != http.StatusBadRequest || code(t, w) != "InvalidArgument" {
			t.Errorf("GET %s: %d, %s", path, w.Code, w.Body)
		}
	}
}

func TestSettings(t *testing.T) {
	s := newServer(t)
	for name, want := range map[string]string{"lifecycle": "NoSuchLifecycleConfiguration", "cors": "NoSuchCORSConfiguration"} {
		if w := do(s, http.MethodGet, "/?"+name, nil, nil); w.Code != http.StatusNotFound || code(t, w) != want {
			t.Errorf("GET %s: %d, %s", name, w.Code, w.Body)
		}
	}
	rules := map[string][]byte{
		"lifecycle":  []byte("<LifecycleConfiguration><Rule><ID>a</ID><Status>Enabled</Status><Filter/><AbortIncompleteMultipartUpload><DaysAfterInitiation>7</DaysAfterInitiation></AbortIncompleteMultipartUpload></Rule></LifecycleConfiguration>"),
		"cors":       []byte("<CORSConfiguration><CORSRule><AllowedOrigin>https://*.example.com</AllowedOrigin><AllowedMethod>PUT</AllowedMethod><AllowedHeader>content-*</AllowedHeader><ExposeHeader>ETag</ExposeHeader><MaxAgeSeconds>600</MaxAgeSeconds></CORSRule></CORSConfiguration>"),
		"versioning": []byte("<VersioningConfiguration><Status>Enabled</Status></VersioningConfiguration>"),
	}
	for name, document := range rules {
		if w := do(s, http.MethodPut, "/?"+name, document, nil); code(t, w) != "InvalidRequest" {
			t.Errorf("PUT %s without an MD5: %d", name, w.Code)
		}
		wrong := []byte(strings.NewReplacer("Enabled", "On", "PUT", "PATCH").Replace(string(document)))
		if w := do(s, http.MethodPut, "/?"+name, wrong, map[string]string{"Content-MD5": contentMD5(wrong)}); code(t, w) != "MalformedXML" {
			t.Errorf("PUT of a wrong %s: %d", name, w.Code)
		}
		if w := do(s, http.MethodPut, "/?"+name, document, map[string]string{"Content-MD5": contentMD5(document)}); w.Code != http.StatusOK {
			t.Errorf("PUT %s: %d, %s", name, w.Code, w.Body)
		}
		if w := do(s, http.MethodGet, "/?"+name, nil, nil); w.Code != http.StatusOK || !bytes.Equal(w.Body.Bytes(), document) {
			t.Errorf("GET %s: %d, %s", name, w.Code, w.Body)
		}
	}
	for what, test := range map[string]struct {
		origin, method, headers string
		ok                      bool
	}{
		"allowed":        {"https://files.example.com", "PUT", "Content-Type, content-md5", true},
		"no headers":     {"https://files.example.com", "PUT", "", true},
		"another origin": {"https://example.org", "PUT", "", false},
		"another method": {"https://files.example.com", "GET", "", false},
		"another header": {"https://files.example.com", "PUT", "x-other", false},
	} {
		w := serve(s, request(http.MethodOptions, "/a", nil, map[string]string{"Origin": test.origin, "Access-Control-Request-Method": test.method, "Access-Control-Request-Headers": test.headers}))
		if test.ok != (w.Code == http.StatusOK) || !test.ok && code(t, w) != "AccessForbidden" || test.ok && w.Header().Get("Access-Control-Allow-Origin") != test.origin {
			t.Errorf("preflight, %s: %d, %v", what, w.Code, w.Header())
		}
	}
	w := do(s, http.MethodPut, "/a", nil, map[string]string{"Origin": "https://files.example.com"})
	if w.Header().Get("Access-Control-Expose-Headers") != "ETag" || w.Header().Get("Access-Control-Allow-Origin") != "https://files.example.com" {
		t.Errorf("PUT from a page: %v", w.Header())
	}
	if w := do(s, http.MethodGet, "/a", nil, map[string]string{"Origin": "https://files.example.com"}); w.Header().Get("Access-Control-Allow-Origin") != "" {
		t.Errorf("GET from a page: %v", w.Header())
	}
	if w := do(s, http.MethodDelete, "/?lifecycle", nil, nil); w.Code != http.StatusNoContent {
		t.Errorf("DELETE lifecycle: %d", w.Code)
	}
	if w := do(s, http.MethodGet, "/?lifecycle", nil, nil); w.Code != http.StatusNotFound {
		t.Errorf("GET lifecycle after DELETE: %d", w.Code)
	}
}
