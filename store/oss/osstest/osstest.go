// Package osstest is a server that stands in for Aliyun OSS in tests. It is strict: what Aliyun documents to be refused
// is refused here, and what is not needed is not there at all. Its signatures are written from the documentation, not
// from the SDK. Beside each rule stands the page that it is from; pages whose address begins with doc: are below
// https://www.alibabacloud.com/help/en/oss/.
package osstest

import (
	"cmp"
	"encoding/base64"
	"encoding/xml"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"sync/atomic"
	"time"

	"gantry/internal/objectserver"
)

// Options are the settings of a Server.
type Options struct {
	AccessKey, SecretKey string
	Token                string           // that comes with temporary keys; "": the keys are not temporary
	Region               string           // "cn-hangzhou"
	Dir                  string           // for large bodies; the system's directory for temporary files
	Now                  func() time.Time // time.Now
}

// Server is an http.Handler with buckets, made by New.
type Server struct {
	opt     Options
	storage *objectserver.Storage
	served  atomic.Int64
}

// Limits of multipart uploads: doc:user-guide/multipart-upload, doc:developer-reference/uploadpart
var limits = objectserver.Limits{MinPart: 100 << 10, MaxPart: 5 << 30, MaxParts: 10_000}

// New returns a server without buckets.
func New(opt Options) *Server {
	opt.Region = cmp.Or(opt.Region, "cn-hangzhou")
	if opt.Now == nil {
		opt.Now = time.Now
	}
	return &Server{opt: opt, storage: objectserver.New(opt.Dir, limits)}
}

// MakeBucket makes a bucket, unless it is there.
func (s *Server) MakeBucket(name string) { s.storage.MakeBucket(name) }

// fault is an error as OSS tells it: doc:developer-reference/error-responses
type fault struct {
	XMLName   xml.Name `xml:"Error"`
	Code      string
	Message   string
	RequestID string `xml:"RequestId"`
	HostID    string `xml:"HostId"`

	StringToSign     string `xml:",omitempty"`
	CanonicalRequest string `xml:",omitempty"`

	status int
}

func (f *fault) Error() string { return f.Code + ": " + f.Message }

func refuse(status int, code, message string) *fault {
	return &fault{status: status, Code: code, Message: message}
}

func invalid(format string, args ...any) *fault {
	return refuse(http.StatusBadRequest, "InvalidArgument", fmt.Sprintf(format, args...))
}

// request is one request.
type request struct {
	*http.Request
	w      http.ResponseWriter
	name   string // of the bucket
	key    string
	query  url.Values
	bucket *objectserver.Bucket
}

// ServeHTTP answers one request.
func (s *Server) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	id := fmt.Sprintf("%024X", s.served.Add(1))
	w.Header().Set("Server", "AliyunOSS")
	w.Header().Set("X-Oss-Request-Id", id)
	err := s.serve(w, r)
	if err == nil {
		return
	}
	f, ok := errors.AsType[*fault](err)
	if !ok {
		f = refuse(http.StatusInternalServerError, "InternalError", err.Error())
	}
	f.RequestID, f.HostID = id, r.Host
	body, err := xml.Marshal(f)
	if err != nil {
		panic(err)
	}
	if r.Method == http.MethodHead {
		body = nil // a client sees nothing but the status, and with some SDKs a header that this server spares them
	}
	w.Header().Set("Content-Type", "application/xml")
	w.WriteHeader(f.status)
	_, _ = w.Write(body)
}

func (s *Server) serve(w http.ResponseWriter, r *http.Request) error {
	q := &request{Request: r, w: w}
	var err error
	if q.query, err = url.ParseQuery(r.URL.RawQuery); err != nil {
		return invalid("The query string is not well-formed: %v", err)
	}
	for name, values := range q.query {
		if len(values) > 1 {
			return invalid("The parameter %s is there twice.", name)
		}
	}
	q.name, q.key = where(r)
	if r.Method == http.MethodOptions {
		return s.preflight(q)
	}
	if err := s.authorize(q); err != nil {
		return err
	}
	if q.name == "" {
		return refuse(http.StatusNotImplemented, "NotImplemented", "This server does not list buckets.")
	}
	q.bucket = s.storage.Bucket(q.name)
	if q.key == "" && r.Method == http.MethodPut && len(q.query) == 0 {
		s.MakeBucket(q.name)
		return nil
	}
	if q.bucket == nil {
		return refuse(http.StatusNotFound, "NoSuchBucket", "The specified bucket does not exist.")
	}
	q.crossOrigin()
	if q.key == "" {
		return s.ofBucket(q)
	}
	// Object names are UTF-8, of 1 to 1023 bytes, and do not begin with a slash: doc:user-guide/object-naming-conventions
	if len(q.key) > 1023 || strings.HasPrefix(q.key, "/") || strings.HasPrefix(q.key, `\`) || !validUTF8(q.key) {
		return refuse(http.StatusBadRequest, "InvalidObjectName", "The specified object is not valid.")
	}
	return s.ofObject(q)
}

// where is the bucket, which is in the host's name unless that is an address, and the key.
func where(r *http.Request) (bucket, key string) {
	host, _, err := net.SplitHostPort(r.Host)
	if err != nil {
		host = r.Host
	}
	path := strings.TrimPrefix(r.URL.Path, "/")
	if net.ParseIP(strings.Trim(host, "[]")) != nil {
		bucket, key, _ = strings.Cut(path, "/")
		return bucket, key
	}
	bucket, _, _ = strings.Cut(host, ".")
	return bucket, path
}

func (s *Server) ofObject(q *request) error {
	multipart := q.query.Has("uploadId")
	switch {
	case q.Method == http.MethodPut && (multipart || q.query.Has("partNumber")):
		return s.putPart(q)
	case q.Method == http.MethodPut:
		return s.put(q)
	case q.Method == http.MethodPost && q.query.Has("uploads"):
		return create(q)
	case q.Method == http.MethodPost && multipart:
		return complete(q)
	case q.Method == http.MethodGet && multipart:
		return listParts(q)
	case q.Method == http.MethodDelete && multipart:
		return abort(q)
	case q.Method == http.MethodGet, q.Method == http.MethodHead:
		return s.get(q)
	case q.Method == http.MethodDelete:
		// Deleting what is not there is no error: doc:developer-reference/deleteobject
		if err := q.only(); err != nil {
			return err
		}
		q.bucket.Delete(q.key)
		q.w.WriteHeader(http.StatusNoContent)
		return nil
	}
	return refuse(http.StatusMethodNotAllowed, "MethodNotAllowed", "The specified method is not allowed against this resource.")
}

// only refuses parameters that the operation does not know.
func (q *request) only(names ...string) error {
	for name := range q.query {
		if !slices.Contains(names, name) && !slices.Contains(signing, name) {
			return invalid("Unexpected query string parameter %s", name)
		}
	}
	return nil
}

// answer writes an XML document.
func (q *request) answer(document any) error {
	body, err := xml.Marshal(document)
	if err != nil {
		return err
	}
	q.w.Header().Set("Content-Type", "application/xml")
	_, _ = q.w.Write(append([]byte(xml.Header), body...))
	return nil
}

// receive reads the body and compares it with its Content-MD5, if it came with one.
func (s *Server) receive(q *request) (*objectserver.Blob, error) {
	switch {
	case q.ContentLength > limits.MaxPart:
		return nil, tooLarge()
	case q.ContentLength == 0 && q.Header.Get("Content-Length") == "":
		return nil, refuse(http.StatusLengthRequired, "MissingContentLength", "You must provide the Content-Length HTTP header.")
	}
	blob, err := s.storage.Receive(q.Body)
	if errors.Is(err, objectserver.ErrTooLarge) {
		return nil, tooLarge()
	}
	if err != nil {
		return nil, refuse(http.StatusBadRequest, "RequestTimeout", "Your socket connection to the server was not read from or written to within the timeout period.")
	}
	// doc:developer-reference/putobject, doc:developer-reference/common-http-headers
	if sum := q.Header.Get("Content-Md5"); sum != "" && sum != base64.StdEncoding.EncodeToString(blob.MD5[:]) {
		return nil, refuse(http.StatusBadRequest, "InvalidDigest", "The Content-MD5 you specified was invalid.")
	}
	return blob, nil
}

func tooLarge() *fault {
	return refuse(http.StatusBadRequest, "EntityTooLarge", "Your proposed upload exceeds the maximum allowed size.")
}
