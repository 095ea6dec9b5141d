package costest

import (
	"crypto/hmac"
	"crypto/sha1"
	"encoding/hex"
	"fmt"
	"net/http"
	"slices"
	"strconv"
	"strings"
)

// tokenName is the header, or in a presigned URL the parameter, with the token of temporary credentials.
const tokenName = "x-cos-security-token"

// signature is what a request says of its signature, 7778 (Request Signature).
type signature map[string]string

var elements = []string{"q-sign-algorithm", "q-ak", "q-sign-time", "q-key-time", "q-header-list", "q-url-param-list", "q-signature"}

// signature finds it in the Authorization header or, of a presigned URL, in the query. All elements have to be
// there, once, and nothing else.
func (c *call) signature() (signature, error) {
	s := signature{}
	header := c.r.Header.Get("Authorization")
	if header != "" {
		for pair := range strings.SplitSeq(header, "&") {
			name, value, _ := strings.Cut(pair, "=")
			if _, twice := s[name]; twice {
				return nil, fail(http.StatusForbidden, "SignatureDoesNotMatch", "%q is there twice.", name)
			}
			s[name] = value
		}
	}
	for name, values := range c.query {
		if !strings.HasPrefix(name, "q-") {
			continue
		}
		if header != "" || len(values) > 1 {
			return nil, fail(http.StatusForbidden, "AccessDenied", "There is more than one signature.")
		}
		s[name] = values[0]
	}
	if len(s) == 0 { // 40105 (403 Error for COS Access): not signed, and the bucket is private
		return nil, fail(http.StatusForbidden, "AccessDenied", "Access Denied.")
	}
	for _, name := range elements {
		if _, ok := s[name]; !ok {
			return nil, fail(http.StatusForbidden, "AccessDenied", "The signature has no %s.", name)
		}
	}
	if len(s) != len(elements) {
		return nil, fail(http.StatusForbidden, "AccessDenied", "The signature has elements that are not known.")
	}
	return s, nil
}

// authenticate checks the signature. The names of errors are those of 40105 (403 Error for COS Access).
func (c *call) authenticate() error {
	s, err := c.signature()
	if err != nil {
		return err
	}
	if s["q-sign-algorithm"] != "sha1" {
		return fail(http.StatusForbidden, "AccessDenied", "The only algorithm is sha1.")
	}
	if s["q-ak"] != c.opt.AccessKey {
		return fail(http.StatusForbidden, "InvalidAccessKeyId", "The access key Id you provided does not exist in our records.")
	}
	if token := c.r.Header.Get(tokenName) + c.query.Get(tokenName); token != c.opt.Token {
		return fail(http.StatusForbidden, "InvalidAccessKeyId", "The token does not belong to these credentials.")
	}
	if err := c.inTime(s); err != nil {
		return err
	}
	want, err := c.sign(s)
	if err != nil {
		return err
	}
	if !hmac.Equal([]byte(want), []byte(s["q-signature"])) {
		return fail(http.StatusForbidden, "SignatureDoesNotMatch", "The Signature you specified is invalid.")
	}
	return nil
}

// inTime checks that the signature is good now. Both times are the same KeyTime, 7778 step 7.
func (c *call) inTime(s signature) error {
	if s["q-sign-time"] != s["q-key-time"] {
		return fail(http.StatusForbidden, "SignatureDoesNotMatch", "q-sign-time and q-key-time are not the same.")
	}
	from, until, _ := strings.Cut(s["q-key-time"], ";")
	start, err1 := strconv.ParseInt(from, 10, 64)
	end, err2 := strconv.ParseInt(until, 10, 64)
	if err1 != nil || err2 != nil || start > end {
		return fail(http.StatusForbidden, "SignatureDoesNotMatch", "The time is not START;END, both Unix.")
	}
	switch now := c.opt.Now().Unix(); {
	case now < start:
		return fail(http.StatusForbidden, "RequestTimeTooSkewed", "The difference between the request time and the current time is too large.")
	case now >= end:
		return fail(http.StatusForbidden, "AccessDenied", "Request has expired.")
	}
	return nil
}

// sign computes the signature that a request with these lists and times has to have, 7778 steps 2 to 6.
func (c *call) sign(s signature) (string, error) {
	params, err := c.listed(s["q-url-param-list"], func(name string) []string {
		for real, values := range c.query {
			if strings.ToLower(encode(real)) == name {
				return values
			}
		}
		return nil
	})
	if err != nil {
		return "", err
	}
	headers, err := c.listed(s["q-header-list"], c.header)
	if err != nil {
		return "", err
	}
	// COS lets a client leave out what it likes, and warns that this is dangerous. Here the host, all parameters, and all
	// headers of COS have to be signed.
	signed := strings.Split(s["q-header-list"], ";")
	if !slices.Contains(signed, "host") {
		return "", fail(http.StatusForbidden, "SignatureDoesNotMatch", "The host is not signed.")
	}
	for name := range c.r.Header {
		if name = strings.ToLower(name); strings.HasPrefix(name, "x-cos-") && !slices.Contains(signed, name) {
			return "", fail(http.StatusForbidden, "SignatureDoesNotMatch", "The header %s is not signed.", name)
		}
	}
	signed = strings.Split(s["q-url-param-list"], ";")
	for name := range c.query {
		if !strings.HasPrefix(name, "q-") && !slices.Contains(signed, strings.ToLower(encode(name))) {
			return "", fail(http.StatusForbidden, "SignatureDoesNotMatch", "The parameter %s is not signed.", name)
		}
	}

	signKey := mac(c.opt.SecretKey, s["q-key-time"])
	httpString := strings.ToLower(c.r.Method) + "\n" + c.r.URL.Path + "\n" + params + "\n" + headers + "\n"
	digest := sha1.Sum([]byte(httpString))
	return mac(signKey, fmt.Sprintf("sha1\n%s\n%x\n", s["q-key-time"], digest)), nil
}

// listed makes HttpParameters or HttpHeaders of a list: names in lower case, in order, once, with values encoded.
func (c *call) listed(list string, values func(name string) []string) (string, error) {
	if list == "" {
		return "", nil
	}
	names := strings.Split(list, ";")
	pairs := make([]string, len(names))
	for i, name := range names {
		if name != strings.ToLower(name) || i > 0 && name <= names[i-1] {
			return "", fail(http.StatusForbidden, "SignatureDoesNotMatch", "The list %q is not in order and in lower case.", list)
		}
		v := values(name)
		if len(v) != 1 {
			return "", fail(http.StatusForbidden, "SignatureDoesNotMatch", "%q is there %d times.", name, len(v))
		}
		pairs[i] = name + "=" + encode(v[0])
	}
	return strings.Join(pairs, "&"), nil
}

// header returns a header's values, also those that net/http takes out.
func (c *call) header(name string) []string {
	switch {
	case name == "host":
		return []string{c.r.Host}
	case name == "content-length" && c.r.ContentLength >= 0:
		return []string{strconv.FormatInt(c.r.ContentLength, 10)}
	}
	return c.r.Header.Values(name)
}

// encode is UrlEncode of 7778: all bytes but letters, digits and -_.~ as %XX.
func encode(s string) string {
	var b strings.Builder
	for _, c := range []byte(s) {
		if 'a' <= c && c <= 'z' || 'A' <= c && c <= 'Z' || '0' <= c && c <= '9' || strings.IndexByte("-_.~", c) >= 0 {
			b.WriteByte(c)
		} else {
			fmt.Fprintf(&b, "%%%02X", c)
		}
	}
	return b.String()
}

// mac is HMAC-SHA1 in hexadecimal.
func mac(key, message string) string {
	h := hmac.New(sha1.New, []byte(key))
	_, _ = h.Write([]byte(message))
	return hex.EncodeToString(h.Sum(nil))
}
