package osstest

import (
	"encoding/base64"
	"encoding/xml"
	"io"
	"net/http"
	"slices"
	"strconv"
	"strings"
)

// ofBucket answers requests about a bucket.
func (s *Server) ofBucket(q *request) error {
	get, put := q.Method == http.MethodGet, q.Method == http.MethodPut
	switch {
	case get && q.query.Has("bucketInfo"):
		return s.info(q)
	case get && q.query.Get("list-type") == "2":
		return listObjects(q)
	case get && q.query.Has("uploads"):
		return listUploads(q)
	}
	for name, missing := range settings {
		if !q.query.Has(name) || !get && !put {
			continue
		}
		if err := q.only(name); err != nil {
			return err
		}
		if put {
			return set(q, name)
		}
		document := q.bucket.Setting(name)
		if document == nil {
			return missing()
		}
		q.w.Header().Set("Content-Type", "application/xml")
		_, _ = q.w.Write(document)
		return nil
	}
	return refuse(http.StatusNotImplemented, "NotImplemented", "This server does not do that with buckets.")
}

// settings are the documents that a bucket has, and what is said where one was never set:
// doc:developer-reference/getbucketlifecycle, doc:developer-reference/getbucketcors
var settings = map[string]func() error{
	"lifecycle": func() error {
		return refuse(http.StatusNotFound, "NoSuchLifecycle", "No Row found in Lifecycle Table.")
	},
	"cors": func() error {
		return refuse(http.StatusNotFound, "NoSuchCORSConfiguration", "The CORS Configuration does not exist.")
	},
	"versioning": func() error { return refuse(http.StatusNotImplemented, "NotImplemented", "Ask for bucketInfo.") },
}

// What of the documents is checked, and used.
type (
	lifecycle struct {
		XMLName xml.Name `xml:"LifecycleConfiguration"`
		Rules   []struct {
			ID, Prefix, Status   string
			AbortMultipartUpload *struct {
				Days              int
				CreatedBeforeDate string
			}
		} `xml:"Rule"`
	}
	corsRules struct {
		XMLName xml.Name   `xml:"CORSConfiguration"`
		Rules   []corsRule `xml:"CORSRule"`
	}
	corsRule struct {
		AllowedOrigin, AllowedMethod, AllowedHeader, ExposeHeader []string
		MaxAgeSeconds                                             int
	}
	versioning struct {
		XMLName xml.Name `xml:"VersioningConfiguration"`
		Status  string
	}
)

// set keeps a document.
func set(q *request, name string) error {
	malformed := refuse(http.StatusBadRequest, "MalformedXML", "The XML you provided was not well-formed or did not validate against our published schema.")
	body, err := io.ReadAll(io.LimitReader(q.Body, 1<<20))
	if err != nil {
		return malformed
	}
	switch name {
	case "lifecycle": // doc:developer-reference/putbucketlifecycle, doc:user-guide/0014-00000073
		var l lifecycle
		if xml.Unmarshal(body, &l) != nil || len(l.Rules) == 0 {
			return malformed
		}
		for _, rule := range l.Rules {
			abort := rule.AbortMultipartUpload
			if rule.Status != "Enabled" && rule.Status != "Disabled" || abort != nil && (abort.Days > 0) == (abort.CreatedBeforeDate != "") {
				return malformed
			}
		}
	case "cors": // doc:developer-reference/putbucketcors
		var c corsRules
		if xml.Unmarshal(body, &c) != nil || len(c.Rules) == 0 || slices.ContainsFunc(c.Rules, func(r corsRule) bool {
			return len(r.AllowedOrigin) == 0 || len(r.AllowedMethod) == 0 || slices.Contains(r.ExposeHeader, "*")
		}) {
			return malformed
		}
	case "versioning": // doc:developer-reference/putbucketversioning
		var v versioning
		if xml.Unmarshal(body, &v) != nil || v.Status != "Enabled" && v.Status != "Suspended" {
			return malformed
		}
	}
	q.bucket.Set(name, body)
	return nil
}

// info answers GetBucketInfo: doc:developer-reference/getbucketinfo
func (s *Server) info(q *request) error {
	if err := q.only("bucketInfo"); err != nil {
		return err
	}
	type bucket struct {
		Name, CreationDate, Location, ExtranetEndpoint, IntranetEndpoint, StorageClass, DataRedundancyType string

		Versioning string `xml:",omitempty"`
		Grant      string `xml:"AccessControlList>Grant"`
	}
	var v versioning
	if document := q.bucket.Setting("versioning"); document != nil {
		if err := xml.Unmarshal(document, &v); err != nil {
			return err
		}
	}
	endpoint := "oss-" + s.opt.Region
	return q.answer(struct {
		XMLName xml.Name `xml:"BucketInfo"`
		Bucket  bucket
	}{Bucket: bucket{
		Name: q.name, CreationDate: stamp(q.bucket.Made()), Location: endpoint, ExtranetEndpoint: endpoint + ".aliyuncs.com",
		IntranetEndpoint: endpoint + "-internal.aliyuncs.com", StorageClass: "Standard", DataRedundancyType: "LRS", Versioning: v.Status, Grant: "private",
	}})
}

// listObjects answers ListObjectsV2, without delimiters: doc:developer-reference/listobjectsv2
func listObjects(q *request) error {
	if err := q.only("list-type", "prefix", "max-keys", "continuation-token", "start-after", "encoding-type"); err != nil {
		return err
	}
	most, err := q.most("max-keys", 100)
	if err != nil {
		return err
	}
	encode, err := q.encode()
	if err != nil {
		return err
	}
	after := q.query.Get("start-after")
	if token := q.query.Get("continuation-token"); token != "" {
		last, err := base64.StdEncoding.DecodeString(token)
		if err != nil {
			return invalid("The continuation token provided is incorrect.")
		}
		after = string(last)
	}
	type contents struct {
		Key, LastModified, ETag, Type string
		Size                          int64
		StorageClass                  string
	}
	objects, more := q.bucket.Objects(q.query.Get("prefix"), after, most)
	result := struct {
		XMLName                         xml.Name `xml:"ListBucketResult"`
		Name, Prefix, StartAfter        string
		MaxKeys, KeyCount               int
		EncodingType, ContinuationToken string `xml:",omitempty"`
		IsTruncated                     bool
		NextContinuationToken           string `xml:",omitempty"`
		Contents                        []contents
	}{
		Name: q.name, Prefix: encode(q.query.Get("prefix")), StartAfter: encode(q.query.Get("start-after")), MaxKeys: most, KeyCount: len(objects),
		EncodingType: q.query.Get("encoding-type"), ContinuationToken: q.query.Get("continuation-token"), IsTruncated: more,
	}
	for _, o := range objects {
		kind := "Normal"
		if strings.Contains(o.ETag, "-") {
			kind = "Multipart"
		}
		result.Contents = append(result.Contents, contents{encode(o.Key), stamp(o.Modified), etag(o.ETag), kind, o.Size, "Standard"})
		if more {
			result.NextContinuationToken = base64.StdEncoding.EncodeToString([]byte(o.Key))
		}
	}
	return q.answer(result)
}

// listUploads answers ListMultipartUploads, without delimiters: doc:developer-reference/listmultipartuploads
func listUploads(q *request) error {
	if err := q.only("uploads", "prefix", "max-uploads", "key-marker", "upload-id-marker", "encoding-type"); err != nil {
		return err
	}
	most, err := q.most("max-uploads", 1000)
	if err != nil {
		return err
	}
	encode, err := q.encode()
	if err != nil {
		return err
	}
	type upload struct {
		Key       string
		UploadID  string `xml:"UploadId"`
		Initiated string
	}
	uploads, more := q.bucket.Uploads(q.query.Get("prefix"), q.query.Get("key-marker"), q.query.Get("upload-id-marker"), most)
	result := struct {
		XMLName            xml.Name `xml:"ListMultipartUploadsResult"`
		Bucket, KeyMarker  string
		UploadIDMarker     string `xml:"UploadIdMarker"`
		NextKeyMarker      string `xml:",omitempty"`
		NextUploadIDMarker string `xml:"NextUploadIdMarker,omitempty"`
		Prefix             string
		MaxUploads         int
		IsTruncated        bool
		EncodingType       string   `xml:",omitempty"`
		Uploads            []upload `xml:"Upload"`
	}{
		Bucket: q.name, KeyMarker: encode(q.query.Get("key-marker")), UploadIDMarker: q.query.Get("upload-id-marker"),
		Prefix: encode(q.query.Get("prefix")), MaxUploads: most, IsTruncated: more, EncodingType: q.query.Get("encoding-type"),
	}
	for _, u := range uploads {
		result.Uploads = append(result.Uploads, upload{encode(u.Key), u.ID, stamp(u.Began)})
		if more {
			result.NextKeyMarker, result.NextUploadIDMarker = encode(u.Key), u.ID
		}
	}
	return q.answer(result)
}

// allowing returns the first rule of a bucket that allows a method from an origin: doc:developer-reference/putbucketcors
func (q *request) allowing(origin, method string, headers []string) *corsRule {
	var c corsRules
	if document := q.bucket.Setting("cors"); document == nil || xml.Unmarshal(document, &c) != nil {
		return nil
	}
	for _, rule := range c.Rules {
		if slices.ContainsFunc(rule.AllowedOrigin, like(origin)) && slices.Contains(rule.AllowedMethod, method) &&
			!slices.ContainsFunc(headers, func(h string) bool { return !slices.ContainsFunc(rule.AllowedHeader, like(h)) }) {
			return &rule
		}
	}
	return nil
}

// like returns a test for patterns with at most one asterisk, upper and lower case alike.
func like(value string) func(pattern string) bool {
	value = strings.ToLower(value)
	return func(pattern string) bool {
		before, after, wild := strings.Cut(strings.ToLower(pattern), "*")
		if !wild {
			return value == before
		}
		return len(value) >= len(before)+len(after) && strings.HasPrefix(value, before) && strings.HasSuffix(value, after)
	}
}

// preflight answers a browser that asks whether it may send a request. It is not signed: doc:developer-reference/options
func (s *Server) preflight(q *request) error {
	origin, method := q.Header.Get("Origin"), q.Header.Get("Access-Control-Request-Method")
	if origin == "" || method == "" {
		return invalid("A preflight request has an Origin and an Access-Control-Request-Method.")
	}
	if q.bucket = s.storage.Bucket(q.name); q.bucket == nil {
		return refuse(http.StatusNotFound, "NoSuchBucket", "The specified bucket does not exist.")
	}
	var headers []string
	for h := range strings.SplitSeq(q.Header.Get("Access-Control-Request-Headers"), ",") {
		if h = strings.TrimSpace(h); h != "" {
			headers = append(headers, h)
		}
	}
	rule := q.allowing(origin, method, headers)
	if rule == nil {
		return refuse(http.StatusForbidden, "AccessForbidden", "CORSResponse: This CORS request is not allowed. This is usually because the evalution of Origin, request method / Access-Control-Request-Method or Access-Control-Requet-Headers are not whitelisted by the resource's CORS spec.")
	}
	h := q.w.Header()
	h.Set("Access-Control-Allow-Origin", origin)
	h.Set("Access-Control-Allow-Methods", strings.Join(rule.AllowedMethod, ", "))
	if len(headers) > 0 {
		h.Set("Access-Control-Allow-Headers", strings.Join(headers, ", "))
	}
	h.Set("Access-Control-Expose-Headers", strings.Join(rule.ExposeHeader, ", "))
	h.Set("Access-Control-Max-Age", strconv.Itoa(rule.MaxAgeSeconds))
	return nil
}

// crossOrigin lets a browser see the answer to a request, if a rule does.
func (q *request) crossOrigin() {
	origin := q.Header.Get("Origin")
	if origin == "" {
		return
	}
	if rule := q.allowing(origin, q.Method, nil); rule != nil {
		q.w.Header().Set("Access-Control-Allow-Origin", origin)
		q.w.Header().Set("Access-Control-Expose-Headers", strings.Join(rule.ExposeHeader, ", "))
	}
}
