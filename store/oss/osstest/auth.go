package osstest

import (
	"crypto/hmac"
	"crypto/sha1" // the V1 signature is HMAC-SHA1
	"crypto/sha256"
	"encoding/base64"
	"encoding/hex"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"time"
)

// signing are the parameters that carry a signature.
var signing = []string{
	"OSSAccessKeyId", "Expires", "Signature", "security-token",
	"x-oss-signature-version", "x-oss-credential", "x-oss-date", "x-oss-expires", "x-oss-signature", "x-oss-additional-headers", "x-oss-security-token",
}

// skew is by how much the clocks of client and server may differ: doc:user-guide/0002-00000504,
// doc:developer-reference/signature-in-authorization-header
const skew = 15 * time.Minute

const (
	basic = "20060102T150405Z"
	day   = "20060102"
)

// denied is the answer to a request that is not, or no more, allowed.
func denied(message string) *fault { return refuse(http.StatusForbidden, "AccessDenied", message) }

// authorize checks the signature, which is in a header or in the URL, version 1 or 4.
func (s *Server) authorize(q *request) error {
	for name, values := range q.Header {
		if len(values) > 1 && (name == "Authorization" || signed(strings.ToLower(name)) || name == "Date") {
			return invalid("The header %s is there twice.", name)
		}
	}
	header := q.Header.Get("Authorization")
	v4 := q.query.Has("x-oss-signature-version") || q.query.Has("x-oss-signature")
	v1 := q.query.Has("Signature") || q.query.Has("OSSAccessKeyId")
	switch {
	case header != "" && (v1 || v4), v1 && v4: // doc:developer-reference/ddd-signatures-to-urls
		return invalid("Only one way of authentication is allowed.")
	case strings.HasPrefix(header, "OSS4-HMAC-SHA256 "):
		return s.headerV4(q, strings.TrimPrefix(header, "OSS4-HMAC-SHA256 "))
	case strings.HasPrefix(header, "OSS "):
		return s.headerV1(q, strings.TrimPrefix(header, "OSS "))
	case header != "":
		return invalid("Authorization header is invalid.")
	case v4:
		return s.urlV4(q)
	case v1:
		return s.urlV1(q)
	}
	return denied("Anonymous access is forbidden for this operation.")
}

// known checks the access key, and the token that comes with temporary ones: doc:user-guide/0002-00000902
func (s *Server) known(key, token string) error {
	if key != s.opt.AccessKey || s.opt.Token != "" && token == "" {
		return refuse(http.StatusForbidden, "InvalidAccessKeyId", "The OSS Access Key Id you provided does not exist in our records.")
	}
	if token != s.opt.Token {
		return refuse(http.StatusForbidden, "InvalidSecurityToken", "The security token you provided is invalid.")
	}
	return nil
}

// fresh checks when a request was signed.
func (s *Server) fresh(at time.Time) error {
	if s.opt.Now().Sub(at).Abs() > skew {
		return refuse(http.StatusForbidden, "RequestTimeTooSkewed", "The difference between the request time and the current time is too large.")
	}
	return nil
}

// mismatch is the answer to a wrong signature; it says what was to be signed: doc:user-guide/0002-00000040
func mismatch(toSign, canonical string) *fault {
	f := refuse(http.StatusForbidden, "SignatureDoesNotMatch", "The request signature we calculated does not match the signature you provided. Check your key and signing method.")
	f.StringToSign, f.CanonicalRequest = toSign, canonical
	return f
}

// Version 1, in a header: "OSS " AccessKeyId ":" Signature: doc:developer-reference/signature-in-authorization-header
func (s *Server) headerV1(q *request, credentials string) error {
	key, signature, ok := strings.Cut(credentials, ":")
	if !ok || key == "" || signature == "" {
		return invalid("Authorization header is invalid.")
	}
	if err := s.known(key, q.Header.Get("X-Oss-Security-Token")); err != nil {
		return err
	}
	at, err := time.Parse(http.TimeFormat, q.Header.Get("Date"))
	if err != nil {
		return denied("OSS authentication requires a valid Date.")
	}
	if err := s.fresh(at); err != nil {
		return err
	}
	return s.compareV1(q, q.Header.Get("Date"), signature)
}

// Version 1, in the URL, with the second at which it expires: doc:developer-reference/ddd-signatures-to-urls,
// doc:user-guide/0002-00000069
func (s *Server) urlV1(q *request) error {
	for _, name := range []string{"OSSAccessKeyId", "Expires", "Signature"} {
		if q.query.Get(name) == "" {
			return denied("Query-string authentication requires the Signature, Expires and OSSAccessKeyId parameters")
		}
	}
	if err := s.known(q.query.Get("OSSAccessKeyId"), q.query.Get("security-token")); err != nil {
		return err
	}
	expires, err := strconv.ParseInt(q.query.Get("Expires"), 10, 64)
	if err != nil {
		return denied("Invalid date (should be seconds since epoch): " + q.query.Get("Expires"))
	}
	if s.opt.Now().Unix() > expires {
		return denied("Request has expired.")
	}
	return s.compareV1(q, q.query.Get("Expires"), q.query.Get("Signature"))
}

// subresources are the parameters that a V1 signature covers, as far as this server knows them. Others, such as prefix,
// it does not: doc:developer-reference/signature-in-authorization-header
var subresources = []string{
	"acl", "uploads", "location", "cors", "logging", "website", "referer", "lifecycle", "delete", "append", "tagging", "objectMeta",
	"uploadId", "partNumber", "security-token", "position", "bucketInfo", "stat", "encryption", "versions", "versioning", "versionId", "symlink", "restore",
	"continuation-token", "policy", "x-oss-process", "x-oss-traffic-limit",
	"response-content-type", "response-content-language", "response-expires", "response-cache-control", "response-content-disposition",
	"response-content-encoding",
}

// compareV1 computes a V1 signature: the base64 of HMAC-SHA1 over method, Content-MD5, Content-Type, date, x-oss- headers
// and the resource.
func (s *Server) compareV1(q *request, date, signature string) error {
	var b strings.Builder
	for _, line := range []string{q.Method, q.Header.Get("Content-Md5"), q.Header.Get("Content-Type"), date} {
		b.WriteString(line + "\n")
	}
	for _, name := range headerNames(q.Request, func(name string) bool { return strings.HasPrefix(name, "x-oss-") }) {
		b.WriteString(name + ":" + q.Header.Get(name) + "\n")
	}
	b.WriteString("/" + q.name + "/" + q.key)
	separator := "?"
	for _, name := range slices.Sorted(slices.Values(subresources)) {
		if !q.query.Has(name) {
			continue
		}
		b.WriteString(separator + name)
		if value := q.query.Get(name); value != "" {
			b.WriteString("=" + value)
		}
		separator = "&"
	}
	mac := hmac.New(sha1.New, []byte(s.opt.SecretKey))
	_, _ = mac.Write([]byte(b.String()))
	if !hmac.Equal([]byte(base64.StdEncoding.EncodeToString(mac.Sum(nil))), []byte(signature)) {
		return mismatch(b.String(), "")
	}
	return nil
}

// Version 4, in a header: "OSS4-HMAC-SHA256 Credential=" AccessKeyId "/" day "/" region "/oss/aliyun_v4_request"
// [",AdditionalHeaders=" names] ",Signature=" hex: doc:developer-reference/recommend-to-use-signature-version-4
func (s *Server) headerV4(q *request, authorization string) error {
	fields := map[string]string{}
	for field := range strings.SplitSeq(authorization, ",") {
		name, value, ok := strings.Cut(strings.TrimSpace(field), "=")
		if _, twice := fields[name]; !ok || twice || value == "" || !slices.Contains([]string{"Credential", "AdditionalHeaders", "Signature"}, name) {
			return invalid("The Authorization header's field %q is invalid.", field)
		}
		fields[name] = value
	}
	// The header must be there, and may have no other value: doc:user-guide/0002-00000214
	if q.Header.Get("X-Oss-Content-Sha256") != "UNSIGNED-PAYLOAD" {
		return invalid("Invalid x-oss-content-sha256.")
	}
	// A request is dated by x-oss-date, or else by Date: doc:developer-reference/recommend-to-use-signature-version-4
	date, layout := q.Header.Get("X-Oss-Date"), basic
	if date == "" {
		date, layout = q.Header.Get("Date"), http.TimeFormat
	}
	at, err := time.Parse(layout, date)
	if err != nil {
		return denied("OSS authentication requires a valid Date or x-oss-date.")
	}
	return s.compareV4(q, v4{
		credential: fields["Credential"], additional: fields["AdditionalHeaders"], signature: fields["Signature"],
		token: q.Header.Get("X-Oss-Security-Token"), date: date, at: at, valid: s.fresh,
	})
}

// Version 4, in the URL, with the seconds for which it is good, 7 days at most: doc:developer-reference/add-signatures-to-urls
func (s *Server) urlV4(q *request) error {
	if q.query.Get("x-oss-signature-version") != "OSS4-HMAC-SHA256" { // doc:user-guide/0002-00000066
		return invalid("Invalid x-oss-signature-version.")
	}
	for _, name := range []string{"x-oss-credential", "x-oss-date", "x-oss-expires", "x-oss-signature"} { // doc:user-guide/0002-00000215
		if q.query.Get(name) == "" {
			return denied("Query-string authentication requires " + name + ".")
		}
	}
	at, err := time.Parse(basic, q.query.Get("x-oss-date"))
	if err != nil {
		return invalid("Invalid x-oss-date.")
	}
	seconds, err := strconv.ParseInt(q.query.Get("x-oss-expires"), 10, 64)
	if err != nil || seconds < 1 || seconds > 604800 { // doc:user-guide/0002-00000232
		return invalid("Invalid x-oss-expires.")
	}
	return s.compareV4(q, v4{
		credential: q.query.Get("x-oss-credential"), additional: q.query.Get("x-oss-additional-headers"), signature: q.query.Get("x-oss-signature"),
		token: q.query.Get("x-oss-security-token"), date: q.query.Get("x-oss-date"), at: at,
		valid: func(at time.Time) error {
			switch now := s.opt.Now(); {
			case now.After(at.Add(time.Duration(seconds) * time.Second)):
				return denied("Request has expired.")
			case at.Sub(now) > skew: // doc:user-guide/0002-00000235
				return denied("Request is not valid yet.")
			}
			return nil
		},
	})
}

// v4 is a V4 signature and what it is about.
type v4 struct {
	credential, additional, signature, token string

	date  string    // as it is signed
	at    time.Time // the same
	valid func(at time.Time) error
}

func (s *Server) compareV4(q *request, v v4) error {
	scope := strings.Split(v.credential, "/")
	if len(scope) != 5 || scope[3] != "oss" || scope[4] != "aliyun_v4_request" { // doc:user-guide/0002-00000213
		return invalid("The credential is invalid.")
	}
	if err := s.known(scope[0], v.token); err != nil {
		return err
	}
	if scope[1] != v.at.UTC().Format(day) { // doc:user-guide/0002-00000212
		return invalid("The credential's date is not that of the request.")
	}
	if scope[2] != s.opt.Region { // doc:user-guide/0002-00000228
		return invalid("Invalid signing region in Authorization header: the bucket is in %s.", s.opt.Region)
	}
	if err := v.valid(v.at); err != nil {
		return err
	}
	var additional []string
	if v.additional != "" {
		additional = strings.Split(v.additional, ";")
	}
	for i, name := range additional {
		there := name == "host" || len(q.Header.Values(name)) == 1
		if name != strings.ToLower(name) || i > 0 && additional[i-1] >= name || !there {
			return invalid("The additional headers are invalid.")
		}
	}
	canonical := canonicalV4(q, additional)
	digest := sha256.Sum256([]byte(canonical))
	toSign := strings.Join([]string{"OSS4-HMAC-SHA256", v.date, strings.Join(scope[1:], "/"), hex.EncodeToString(digest[:])}, "\n")
	key := []byte("aliyun_v4" + s.opt.SecretKey)
	for _, step := range append(scope[1:], toSign) {
		mac := hmac.New(sha256.New, key)
		_, _ = mac.Write([]byte(step))
		key = mac.Sum(nil)
	}
	if !hmac.Equal([]byte(hex.EncodeToString(key)), []byte(v.signature)) {
		return mismatch(toSign, canonical)
	}
	return nil
}

// canonicalV4 is the canonical request: method, path with the bucket in it, parameters, headers, names of the additional
// headers, and the payload, which is not signed.
func canonicalV4(q *request, additional []string) string {
	path := "/"
	if q.name != "" {
		path = "/" + q.name + "/" + strings.ReplaceAll(escape(q.key), "%2F", "/")
	}
	var parameters []string
	for name := range q.query {
		if name == "x-oss-signature" {
			continue
		}
		parameter := escape(name)
		if value := q.query.Get(name); value != "" {
			parameter += "=" + escape(value)
		}
		parameters = append(parameters, parameter)
	}
	slices.SortFunc(parameters, func(a, b string) int { // by name, not by name, equals sign and value
		nameA, _, _ := strings.Cut(a, "=")
		nameB, _, _ := strings.Cut(b, "=")
		return strings.Compare(nameA, nameB)
	})
	var headers strings.Builder
	names := headerNames(q.Request, func(name string) bool { return signed(name) || slices.Contains(additional, name) })
	if slices.Contains(additional, "host") {
		names = append(names, "host")
		slices.Sort(names)
	}
	for _, name := range names {
		value := q.Header.Get(name)
		if name == "host" {
			value = q.Host
		}
		headers.WriteString(name + ":" + strings.TrimSpace(value) + "\n")
	}
	return strings.Join([]string{
		q.Method, path, strings.Join(parameters, "&"), headers.String(), strings.Join(additional, ";"), "UNSIGNED-PAYLOAD",
	}, "\n")
}

// signed reports whether a header is signed wherever it is sent.
func signed(name string) bool {
	return name == "content-type" || name == "content-md5" || strings.HasPrefix(name, "x-oss-")
}

// headerNames lists a request's headers that are wanted, in lower case and in order.
func headerNames(r *http.Request, want func(name string) bool) []string {
	var names []string
	for name := range r.Header {
		if name = strings.ToLower(name); want(name) {
			names = append(names, name)
		}
	}
	slices.Sort(names)
	return names
}

// escape encodes all but letters, digits, "-", ".", "_" and "~".
func escape(s string) string { return strings.ReplaceAll(url.QueryEscape(s), "+", "%20") }
