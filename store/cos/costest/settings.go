package costest

import (
	"encoding/xml"
	"net/http"
	"slices"
	"strconv"
	"strings"
)

// setting answers with a setting as it was put: 8278 (GET Bucket lifecycle), 8274 (GET Bucket cors), 19888 (GET Bucket
// versioning).
func (c *call) setting(name string) error {
	document := c.bucket.Setting(name)
	if document == nil {
		switch name {
		case "lifecycle":
			return fail(http.StatusNotFound, "NoSuchLifecycleConfiguration", "The lifecycle configuration does not exist.")
		case "cors":
			return fail(http.StatusNotFound, "NoSuchCORSConfiguration", "The CORS configuration does not exist.")
		}
		document = []byte(`<VersioningConfiguration/>`)
	}
	c.w.Header().Set("Content-Type", "application/xml")
	_, _ = c.w.Write(document)
	return nil
}

func (c *call) deleteSetting(name string) error {
	c.bucket.Set(name, nil)
	c.w.WriteHeader(http.StatusNoContent)
	return nil
}

// put keeps a setting that is right. Its Content-MD5 has to be there.
func (c *call) put(name string, v any, right func() bool) error {
	if c.r.Header.Get("Content-Md5") == "" {
		return fail(http.StatusBadRequest, "InvalidRequest", "There is no Content-MD5.")
	}
	document, err := c.document(v)
	if err != nil {
		return err
	}
	if !right() {
		return fail(http.StatusBadRequest, "MalformedXML", "The XML you provided did not validate against our published schema.")
	}
	c.bucket.Set(name, document)
	return nil
}

// putLifecycle answers 8280 (PUT Bucket lifecycle).
func (c *call) putLifecycle() error {
	var config struct {
		XMLName xml.Name `xml:"LifecycleConfiguration"`
		Rule    []struct {
			ID, Status string
			Filter     *struct{}
			Abort      *struct{ DaysAfterInitiation int } `xml:"AbortIncompleteMultipartUpload"`
			Expiration *struct{}
			Transition []struct{}
		}
	}
	return c.put("lifecycle", &config, func() bool {
		for _, r := range config.Rule {
			if r.Status != "Enabled" && r.Status != "Disabled" || r.Filter == nil || r.Abort == nil && r.Expiration == nil && r.Transition == nil ||
				r.Abort != nil && r.Abort.DaysAfterInitiation < 1 {
				return false
			}
		}
		return len(config.Rule) > 0
	})
}

// corsRule is one of 8279 (PUT Bucket cors).
type corsRule struct {
	AllowedOrigin, AllowedMethod, AllowedHeader, ExposeHeader []string
	MaxAgeSeconds                                             int
}

type corsConfiguration struct {
	XMLName  xml.Name `xml:"CORSConfiguration"`
	CORSRule []corsRule
}

func (c *call) putCORS() error {
	var config corsConfiguration
	return c.put("cors", &config, func() bool {
		for _, r := range config.CORSRule {
			if len(r.AllowedOrigin) == 0 || len(r.AllowedMethod) == 0 {
				return false
			}
			for _, m := range r.AllowedMethod {
				if !slices.Contains([]string{"GET", "PUT", "HEAD", "POST", "DELETE"}, m) {
					return false
				}
			}
		}
		return len(config.CORSRule) > 0
	})
}

// putVersioning answers 19889 (PUT Bucket versioning). This server only remembers it.
func (c *call) putVersioning() error {
	var config struct {
		XMLName xml.Name `xml:"VersioningConfiguration"`
		Status  string
	}
	return c.put("versioning", &config, func() bool { return config.Status == "Enabled" || config.Status == "Suspended" })
}

// rule finds the first CORS rule that allows an origin to do something.
func (c *call) rule(origin, method string, headers []string) *corsRule {
	var config corsConfiguration
	if document := c.bucket.Setting("cors"); origin == "" || xml.Unmarshal(document, &config) != nil {
		return nil
	}
	fits := func(patterns []string, value string) bool {
		return slices.ContainsFunc(patterns, func(p string) bool {
			p, value := strings.ToLower(p), strings.ToLower(value)
			before, after, star := strings.Cut(p, "*") // there may be one
			return p == value || star && len(value) >= len(before)+len(after) && strings.HasPrefix(value, before) && strings.HasSuffix(value, after)
		})
	}
	for _, r := range config.CORSRule {
		if fits(r.AllowedOrigin, origin) && slices.Contains(r.AllowedMethod, method) &&
			!slices.ContainsFunc(headers, func(h string) bool { return !fits(r.AllowedHeader, h) }) {
			return &r
		}
	}
	return nil
}

// allow writes the headers that let a browser's page see an answer.
func (c *call) allow(r *corsRule) {
	h := c.w.Header()
	h.Set("Access-Control-Allow-Origin", c.r.Header.Get("Origin"))
	if slices.Contains(r.AllowedOrigin, "*") {
		h.Set("Access-Control-Allow-Origin", "*")
	}
	h.Set("Access-Control-Allow-Methods", strings.Join(r.AllowedMethod, ","))
	if len(r.ExposeHeader) > 0 {
		h.Set("Access-Control-Expose-Headers", strings.Join(r.ExposeHeader, ","))
	}
	if r.MaxAgeSeconds > 0 {
		h.Set("Access-Control-Max-Age", strconv.Itoa(r.MaxAgeSeconds))
	}
	h.Set("Vary", "Origin")
}

// preflight answers 8288 (OPTIONS Object), which is not signed.
func (c *call) preflight() error {
	var headers []string
	if list := c.r.Header.Get("Access-Control-Request-Headers"); list != "" {
		for name := range strings.SplitSeq(list, ",") {
			headers = append(headers, strings.TrimSpace(name))
		}
	}
	r := c.rule(c.r.Header.Get("Origin"), c.r.Header.Get("Access-Control-Request-Method"), headers)
	if r == nil {
		return fail(http.StatusForbidden, "AccessForbidden", "CORSResponse: This CORS request is not allowed.")
	}
	c.allow(r)
	if len(headers) > 0 {
		c.w.Header().Set("Access-Control-Allow-Headers", strings.Join(headers, ","))
	}
	return nil
}

// allowOrigin adds the headers to an answer to a page of another origin.
func (c *call) allowOrigin() {
	if r := c.rule(c.r.Header.Get("Origin"), c.r.Method, nil); r != nil {
		c.allow(r)
	}
}
