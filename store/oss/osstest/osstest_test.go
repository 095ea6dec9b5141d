package osstest

import (
	"bytes"
	"crypto/md5"
	"encoding/base64"
	"errors"
	"fmt"
	"hash/crc64"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"slices"
	"strconv"
	"strings"
	"testing"

	sdk "github.com/aliyun/aliyun-oss-go-sdk/oss"
)

// start returns a bucket of a new server, by way of Aliyun's SDK, and the server's address.
func start(t *testing.T, options ...sdk.ClientOption) (bucket *sdk.Bucket, address string) {
	t.Helper()
	server := New(Options{AccessKey: "k", SecretKey: "s", Dir: t.TempDir()})
	server.MakeBucket("uploads")
	web := httptest.NewServer(server)
	t.Cleanup(web.Close)
	client, err := sdk.New(web.URL, "k", "s", append(options, sdk.AuthVersion(sdk.AuthV4), sdk.Region("cn-hangzhou"))...)
	if err != nil {
		t.Fatal(err)
	}
	bucket, err = client.Bucket("uploads")
	if err != nil {
		t.Fatal(err)
	}
	return bucket, web.URL
}

// expectCode checks that a request was refused, in OSS's words.
func expectCode(t *testing.T, what string, err error, status int, code string) {
	t.Helper()
	answer, ok := errors.AsType[sdk.ServiceError](err)
	if !ok || answer.StatusCode != status || answer.Code != code || answer.RequestID == "" {
		t.Errorf("%s: %v; want %d %s", what, err, status, code)
	}
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func body(n int) []byte { return bytes.Repeat([]byte("0123456789abcdef"), n/16+1)[:n] }

var ecma = crc64.MakeTable(crc64.ECMA)

func TestObjects(t *testing.T) {
	b, _ := start(t)
	data := body(1000)
	sum := md5.Sum(data)
	var header http.Header
	must(t, b.PutObject("a/ключ +&=%", bytes.NewReader(data), sdk.ContentMD5(base64.StdEncoding.EncodeToString(sum[:])), sdk.ContentType("text/x"), sdk.GetResponseHeader(&header)))
	etag, crc := fmt.Sprintf(`"%X"`, sum), strconv.FormatUint(crc64.Checksum(data, ecma), 10)
	if header.Get("ETag") != etag || header.Get("X-Oss-Hash-Crc64ecma") != crc {
		t.Errorf("put answers %v", header)
	}
	head, err := b.GetObjectDetailedMeta("a/ключ +&=%")
	must(t, err)
	for name, want := range map[string]string{
		"ETag": etag, "X-Oss-Hash-Crc64ecma": crc, "Content-Length": "1000", "Content-Type": "text/x", "X-Oss-Object-Type": "Normal", "Accept-Ranges": "bytes",
	} {
		if head.Get(name) != want {
			t.Errorf("%s is %q, want %q", name, head.Get(name), want)
		}
	}
	for range 2 {
		must(t, b.DeleteObject("a/ключ +&=%"))
	}
	_, err = b.GetObject("a/ключ +&=%")
	expectCode(t, "get of nothing", err, http.StatusNotFound, "NoSuchKey")
	_, err = b.GetObjectDetailedMeta("a/ключ +&=%")
	expectCode(t, "head of nothing", err, http.StatusNotFound, "")

	expectCode(t, "a wrong MD5", b.PutObject("x", bytes.NewReader(data), sdk.ContentMD5("1B2M2Y8AsgTpgAmY7PhCfg==")), http.StatusBadRequest, "InvalidDigest")
	must(t, b.PutObject("x", bytes.NewReader(data), sdk.ForbidOverWrite(true)))
	expectCode(t, "overwriting", b.PutObject("x", bytes.NewReader(data), sdk.ForbidOverWrite(true)), http.StatusConflict, "FileAlreadyExists")
	expectCode(t, "a word", b.PutObject("x", bytes.NewReader(data), sdk.SetHeader("x-oss-forbid-overwrite", "yes")), http.StatusBadRequest, "InvalidArgument")
	must(t, b.PutObject("x", bytes.NewReader(data), sdk.ForbidOverWrite(false)))
	expectCode(t, "a long key", b.PutObject(strings.Repeat("k", 1024), bytes.NewReader(data)), http.StatusBadRequest, "InvalidObjectName")
	expectCode(t, "a key that begins with a slash", b.PutObject("/k", bytes.NewReader(data)), http.StatusBadRequest, "InvalidObjectName")
	expectCode(t, "a key that is not UTF-8", b.PutObject("\xff", bytes.NewReader(data)), http.StatusBadRequest, "InvalidObjectName")
	_, err = b.GetObject("x", sdk.AddParam("acl", ""))
	expectCode(t, "what the server has not", err, http.StatusBadRequest, "InvalidArgument")
	_, err = b.GetObject("x", sdk.IfNoneMatch("*"))
	expectCode(t, "a conditional get", err, http.StatusNotImplemented, "NotImplemented")

	other, err := b.Client.Bucket("not-there")
	must(t, err)
	_, err = other.GetObject("x")
	expectCode(t, "no bucket", err, http.StatusNotFound, "NoSuchBucket")
	must(t, b.Client.CreateBucket("not-there"))
	must(t, other.PutObject("x", bytes.NewReader(data)))
}

// OSS sends everything where a range is not all within the object, unless it is told to keep to the standard.
func TestRanges(t *testing.T) {
	b, _ := start(t)
	data := body(1000)
	must(t, b.PutObject("k", bytes.NewReader(data)))
	must(t, b.PutObject("empty", bytes.NewReader(nil)))
	const refused = 416
	for _, test := range []struct {
		key, value    string
		status, first int
		last          int
		standard      int // the status with x-oss-range-behavior: standard
		standardLast  int
	}{
		{"k", "0-0", 206, 0, 0, 206, 0},
		{"k", "100-199", 206, 100, 199, 206, 199},
		{"k", "900-", 206, 900, 999, 206, 999},
		{"k", "-100", 206, 900, 999, 206, 999},
		{"k", "500-2000", 200, 0, 0, 206, 999},
		{"k", "1000-2000", 200, 0, 0, refused, 0},
		{"k", "1000-", 200, 0, 0, refused, 0},
		{"k", "-2000", 200, 0, 0, 206, 999},
		{"k", "200-100", 200, 0, 0, 200, 0},
		{"k", "a-b", 200, 0, 0, 200, 0},
		{"k", "0-1,5-6", refused, 0, 0, refused, 0},
		{"empty", "0-0", 200, 0, 0, refused, 0},
	} {
		for _, standard := range []bool{false, true} {
			options, status, first, last := []sdk.Option{sdk.NormalizedRange(test.value)}, test.status, test.first, test.last
			if standard {
				options, status, last = append(options, sdk.RangeBehavior("standard")), test.standard, test.standardLast
				if first, _ = strconv.Atoi(strings.Split(test.value, "-")[0]); test.value == "-100" {
					first = 900
				}
			}
			got, err := b.DoGetObject(&sdk.GetObjectRequest{ObjectKey: test.key}, options)
			if status == refused {
				expectCode(t, test.value, err, refused, "InvalidRange")
				continue
			}
			must(t, err)
			bytesRead, err := io.ReadAll(got.Response)
			must(t, err)
			want, contentRange := data, ""
			if test.key == "empty" {
				want = nil
			}
			if status == 206 {
				want, contentRange = data[first:last+1], fmt.Sprintf("bytes %d-%d/1000", first, last)
			}
			if got.Response.StatusCode != status || !bytes.Equal(bytesRead, want) || got.Response.Headers.Get("Content-Range") != contentRange {
				t.Errorf("range %s, standard %v: %d, %d bytes, %q; want %d, %d bytes, %q", test.value, standard,
					got.Response.StatusCode, len(bytesRead), got.Response.Headers.Get("Content-Range"), status, len(want), contentRange)
			}
			if crc := got.Response.Headers.Get("X-Oss-Hash-Crc64ecma"); test.key == "k" && crc != strconv.FormatUint(crc64.Checksum(data, ecma), 10) {
				t.Errorf("range %s: the CRC-64 %s is not that of the whole object", test.value, crc)
			}
		}
	}
}

func TestMultipart(t *testing.T) {
	b, _ := start(t)
	const least = 100 << 10
	up, err := b.InitiateMultipartUpload("k", sdk.ContentType("video/x"))
	must(t, err)
	send := func(number, size int) sdk.UploadPart {
		t.Helper()
		p, err := b.UploadPart(up, bytes.NewReader(body(size)), int64(size), number)
		must(t, err)
		return p
	}
	complete := func(parts ...sdk.UploadPart) error { // the SDK would sort them
		var doc strings.Builder
		for _, p := range parts {
			fmt.Fprintf(&doc, "<Part><PartNumber>%d</PartNumber><ETag>%s</ETag></Part>", p.PartNumber, p.ETag)
		}
		resp, err := b.Do(http.MethodPost, "k", map[string]any{"uploadId": up.UploadID}, nil, strings.NewReader("<CompleteMultipartUpload>"+doc.String()+"</CompleteMultipartUpload>"), nil)
		if err == nil {
			resp.Close()
		}
		return err
	}
	p1, p3, p4, p10000 := send(1, least), send(3, least-1), send(4, least+1), send(10_000, 5)
	for _, number := range []string{"0", "10001", "x", ""} {
		_, err := b.Do(http.MethodPut, "k", map[string]any{"uploadId": up.UploadID, "partNumber": number}, nil, strings.NewReader("x"), nil)
		expectCode(t, "part "+number, err, http.StatusBadRequest, "InvalidArgument")
	}
	wrong := p1
	wrong.ETag = p4.ETag
	expectCode(t, "another order", complete(p4, p1), http.StatusBadRequest, "InvalidPartOrder")
	expectCode(t, "twice", complete(p1, p1), http.StatusBadRequest, "InvalidPartOrder")
	expectCode(t, "another ETag", complete(wrong, p4), http.StatusBadRequest, "InvalidPart")
	expectCode(t, "not there", complete(p1, sdk.UploadPart{PartNumber: 2, ETag: p1.ETag}), http.StatusBadRequest, "InvalidPart")
	expectCode(t, "none", complete(), http.StatusBadRequest, "InvalidPart")
	expectCode(t, "too small", complete(p1, p3, p4), http.StatusBadRequest, "EntityTooSmall")
	_, err = b.Do(http.MethodPost, "k", map[string]any{"uploadId": up.UploadID}, nil, strings.NewReader("<Other/>"), nil)
	expectCode(t, "no XML", err, http.StatusBadRequest, "MalformedXML")
	_, err = b.UploadPart(up, strings.NewReader("x"), 1, 9, sdk.ContentMD5("1B2M2Y8AsgTpgAmY7PhCfg=="))
	expectCode(t, "a wrong MD5", err, http.StatusBadRequest, "InvalidDigest")

	var numbers []int
	for marker, more := 0, true; more; {
		page, err := b.ListUploadedParts(up, sdk.MaxParts(3), sdk.PartNumberMarker(marker))
		must(t, err)
		for _, p := range page.UploadedParts {
			numbers = append(numbers, p.PartNumber)
		}
		more = page.IsTruncated
		marker, _ = strconv.Atoi(page.NextPartNumberMarker)
	}
	if !slices.Equal(numbers, []int{1, 3, 4, 10_000}) {
		t.Errorf("parts %v", numbers)
	}
	if _, err := b.GetObject("k"); err == nil {
		t.Error("there is an object before it is complete")
	}
	must(t, complete(p1, p4, p10000))
	whole := slices.Concat(body(least), body(least+1), body(5))
	head, err := b.GetObjectDetailedMeta("k")
	must(t, err)
	if head.Get("X-Oss-Hash-Crc64ecma") != strconv.FormatUint(crc64.Checksum(whole, ecma), 10) || head.Get("X-Oss-Object-Type") != "Multipart" ||
		!strings.HasSuffix(head.Get("ETag"), `-3"`) || head.Get("Content-Type") != "video/x" {
		t.Errorf("the object is %v", head)
	}
	got, err := b.GetObject("k")
	must(t, err)
	if data, err := io.ReadAll(got); err != nil || !bytes.Equal(data, whole) {
		t.Errorf("the object has %d bytes, %v", len(data), err)
	}
	for what, err := range map[string]error{
		"complete": complete(p1, p4, p10000),
		"abort":    b.AbortMultipartUpload(up),
		"part":     func() error { _, err := b.UploadPart(up, strings.NewReader("x"), 1, 1); return err }(),
		"parts":    func() error { _, err := b.ListUploadedParts(up); return err }(),
	} {
		expectCode(t, what+" after complete", err, http.StatusNotFound, "NoSuchUpload")
	}
	_, err = b.InitiateMultipartUpload("k", sdk.ForbidOverWrite(true))
	expectCode(t, "overwriting", err, http.StatusConflict, "FileAlreadyExists")
	up, err = b.InitiateMultipartUpload("k")
	must(t, err)
	p, err := b.UploadPart(up, strings.NewReader("x"), 1, 1)
	must(t, err)
	_, err = b.CompleteMultipartUpload(up, []sdk.UploadPart{p}, sdk.ForbidOverWrite(true))
	expectCode(t, "overwriting at the end", err, http.StatusConflict, "FileAlreadyExists")
	must(t, b.AbortMultipartUpload(up))
	expectCode(t, "abort again", b.AbortMultipartUpload(up), http.StatusNotFound, "NoSuchUpload")
}

// A part of more than 5 GiB is refused before it is read, and so is a body of unknown length.
func TestLengths(t *testing.T) {
	b, address := start(t)
	u, err := b.SignURL("k", sdk.HTTPPut, 60)
	must(t, err)
	server := strings.TrimPrefix(address, "http://")
	for header, want := range map[string]string{
		fmt.Sprintf("Content-Length: %d\r\n", 5<<30+1): "EntityTooLarge",
		"": "MissingContentLength",
	} {
		request := "PUT " + strings.TrimPrefix(u, address) + " HTTP/1.1\r\nHost: " + server + "\r\n" + header + "\r\n"
		if answer := raw(t, server, request); !strings.Contains(answer, "<Code>"+want+"</Code>") {
			t.Errorf("%q: %s", header, answer)
		}
	}
	// A body that ends early is no object.
	raw(t, server, "PUT "+strings.TrimPrefix(u, address)+" HTTP/1.1\r\nHost: "+server+"\r\nContent-Length: 100\r\n\r\nshort")
	if _, err := b.GetObject("k"); err == nil {
		t.Error("a body that ended early is an object")
	}
}

// raw sends bytes and returns the answer to them.
func raw(t *testing.T, server, request string) string {
	t.Helper()
	conn, err := net.Dial("tcp", server)
	must(t, err)
	defer conn.Close()
	_, err = io.WriteString(conn, request)
	must(t, err)
	must(t, conn.(*net.TCPConn).CloseWrite())
	answer, err := io.ReadAll(conn)
	must(t, err)
	return string(answer)
}

func TestListings(t *testing.T) {
	b, _ := start(t)
	for i := range 25 {
		must(t, b.PutObject(fmt.Sprintf("a/%02d é", i), strings.NewReader("x")))
		_, err := b.InitiateMultipartUpload(fmt.Sprintf("a/%02d", i/3))
		must(t, err)
	}
	must(t, b.PutObject("b", strings.NewReader("x")))
	var keys, ids []string
	token := ""
	for more := true; more; {
		options := []sdk.Option{sdk.Prefix("a/"), sdk.MaxKeys(10)}
		if token != "" {
			options = append(options, sdk.ContinuationToken(token))
		}
		page, err := b.ListObjectsV2(options...)
		must(t, err)
		for _, o := range page.Objects {
			keys = append(keys, o.Key)
		}
		more, token = page.IsTruncated, page.NextContinuationToken
	}
	if len(keys) != 25 || !slices.IsSorted(keys) || keys[3] != "a/03 é" {
		t.Errorf("keys %q", keys)
	}
	key, id := "", ""
	for more := true; more; {
		page, err := b.ListMultipartUploads(sdk.MaxUploads(7), sdk.KeyMarker(key), sdk.UploadIDMarker(id))
		must(t, err)
		for _, u := range page.Uploads {
			ids = append(ids, u.UploadID)
		}
		more, key, id = page.IsTruncated, page.NextKeyMarker, page.NextUploadIDMarker
	}
	if slices.Sort(ids); len(slices.Compact(ids)) != 25 {
		t.Errorf("%d uploads", len(ids))
	}
	for _, option := range []sdk.Option{sdk.MaxKeys(0), sdk.MaxKeys(1001), sdk.Delimiter("/"), sdk.ContinuationToken("!")} {
		_, err := b.ListObjectsV2(option)
		expectCode(t, "a listing", err, http.StatusBadRequest, "InvalidArgument")
	}
}

// Settings are kept as they are, if they are well-formed.
func TestSettings(t *testing.T) {
	b, _ := start(t)
	_, err := b.Client.GetBucketLifecycle("uploads")
	expectCode(t, "no lifecycle", err, http.StatusNotFound, "NoSuchLifecycle")
	_, err = b.Client.GetBucketCORS("uploads")
	expectCode(t, "no CORS", err, http.StatusNotFound, "NoSuchCORSConfiguration")
	for name, document := range map[string]string{
		"lifecycle":  "<LifecycleConfiguration><Rule><Status>Enabled</Status><AbortMultipartUpload></AbortMultipartUpload></Rule></LifecycleConfiguration>",
		"cors":       "<CORSConfiguration><CORSRule><AllowedMethod>PUT</AllowedMethod></CORSRule></CORSConfiguration>",
		"versioning": "<VersioningConfiguration><Status>On</Status></VersioningConfiguration>",
	} {
		_, err := b.Do(http.MethodPut, "", map[string]any{name: nil}, nil, strings.NewReader(document), nil)
		expectCode(t, name, err, http.StatusBadRequest, "MalformedXML")
	}
	must(t, b.Client.SetBucketLifecycle("uploads", []sdk.LifecycleRule{{ID: "r", Status: "Enabled", AbortMultipartUpload: &sdk.LifecycleAbortMultipartUpload{Days: 7}}}))
	rules, err := b.Client.GetBucketLifecycle("uploads")
	must(t, err)
	if len(rules.Rules) != 1 || rules.Rules[0].AbortMultipartUpload.Days != 7 {
		t.Errorf("rules %+v", rules)
	}
	must(t, b.Client.SetBucketVersioning("uploads", sdk.VersioningConfig{Status: "Enabled"}))
	info, err := b.Client.GetBucketInfo("uploads")
	must(t, err)
	if info.BucketInfo.Versioning != "Enabled" || info.BucketInfo.Location != "oss-cn-hangzhou" || info.BucketInfo.ACL != "private" {
		t.Errorf("info %+v", info)
	}
}

// A browser asks first, and is told what it may see.
func TestCORS(t *testing.T) {
	b, address := start(t)
	preflight := func(origin, method, headers string) *http.Response {
		t.Helper()
		r, err := http.NewRequestWithContext(t.Context(), http.MethodOptions, address+"/uploads/k?uploadId=1&partNumber=2", http.NoBody)
		must(t, err)
		r.Header.Set("Origin", origin)
		r.Header.Set("Access-Control-Request-Method", method)
		r.Header.Set("Access-Control-Request-Headers", headers)
		resp, err := http.DefaultTransport.RoundTrip(r)
		must(t, err)
		resp.Body.Close()
		return resp
	}
	const page = "https://up.example.com"
	if resp := preflight(page, "PUT", ""); resp.StatusCode != http.StatusForbidden {
		t.Errorf("without rules: %d", resp.StatusCode)
	}
	must(t, b.Client.SetBucketCORS("uploads", []sdk.CORSRule{{
		AllowedOrigin: []string{"https://*.example.com"}, AllowedMethod: []string{"PUT"}, AllowedHeader: []string{"content-*"}, ExposeHeader: []string{"ETag"}, MaxAgeSeconds: 60,
	}}))
	resp := preflight(page, "PUT", "Content-Type, content-md5")
	if resp.StatusCode != http.StatusOK || resp.Header.Get("Access-Control-Allow-Origin") != page || resp.Header.Get("Access-Control-Allow-Methods") != "PUT" ||
		resp.Header.Get("Access-Control-Allow-Headers") != "Content-Type, content-md5" || resp.Header.Get("Access-Control-Expose-Headers") != "ETag" || resp.Header.Get("Access-Control-Max-Age") != "60" {
		t.Errorf("%d %v", resp.StatusCode, resp.Header)
	}
	for _, test := range [][3]string{{"https://example.org", "PUT", ""}, {page, "DELETE", ""}, {page, "PUT", "x-other"}, {"http://up.example.com", "PUT", ""}} {
		if resp := preflight(test[0], test[1], test[2]); resp.StatusCode != http.StatusForbidden || resp.Header.Get("Access-Control-Allow-Origin") != "" {
			t.Errorf("%v: %d %v", test, resp.StatusCode, resp.Header)
		}
	}
	if resp := preflight("", "PUT", ""); resp.StatusCode != http.StatusBadRequest {
		t.Errorf("without an origin: %d", resp.StatusCode)
	}
	for origin, want := range map[string]string{page: "ETag", "https://example.org": ""} {
		u, err := b.SignURL("k", sdk.HTTPPut, 60)
		must(t, err)
		r, err := http.NewRequestWithContext(t.Context(), http.MethodPut, u, strings.NewReader("x"))
		must(t, err)
		r.Header.Set("Origin", origin)
		resp, err := http.DefaultTransport.RoundTrip(r)
		must(t, err)
		resp.Body.Close()
		if resp.StatusCode != http.StatusOK || resp.Header.Get("Access-Control-Expose-Headers") != want {
			t.Errorf("put from %s: %d %v", origin, resp.StatusCode, resp.Header)
		}
	}
}
