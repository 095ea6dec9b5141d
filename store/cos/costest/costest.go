// Package costest is a server that stands in for Tencent Cloud's COS in tests: one bucket, requests signed as documented, and
// the rules of COS for parts, digests and settings. Where the documentation leaves room it is the stricter one. It shares
// no code with the SDK.
//
// The pages that rules refer to are Tencent's, https://www.tencentcloud.com/document/product/436/ and their number.
package costest

import (
	"crypto/rand"
	"encoding/xml"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"regexp"
	"slices"
	"strings"
	"time"
	"unicode/utf8"

	"gantry/internal/objectserver"
)

// Options say what the server has. What is zero gets its default.
type Options struct {
	Dir       string // where large bodies are kept; the system's for temporary files
	Bucket    string // with an APPID; needed
	AccessKey string // the only SecretId there is; needed
	SecretKey string // needed
	Token     string // that goes with them; "": they are permanent
	Now       func() time.Time
}

// limits are those of 14518 (Specifications and Limits) and 7750 (Upload Part).
var limits = objectserver.Limits{MinPart: 1 << 20, MaxPart: 5 << 30, MaxParts: 10_000}

const maxKey = 850 // bytes, 14518

// Server is the server. It is made by New.
type Server struct {
	opt     Options
	storage *objectserver.Storage
	bucket  *objectserver.Bucket
}

// New returns a server with an empty bucket.
func New(opt Options) *Server {
	if opt.Now == nil {
		opt.Now = time.Now
	}
	storage := objectserver.New(opt.Dir, limits)
	return &Server{opt: opt, storage: storage, bucket: storage.MakeBucket(opt.Bucket)}
}

// failure is an answer that says what went wrong, 7730 (Error Codes).
type failure struct {
	status        int
	code, message string
}

func (f *failure) Error() string { return f.code }

func fail(status int, code, format string, args ...any) error {
	return &failure{status, code, fmt.Sprintf(format, args...)}
}

// failureOf gives what the storage refuses COS's names, 7742 (Complete Multipart Upload) and 7750.
func failureOf(err error) *failure {
	if f, ok := errors.AsType[*failure](err); ok {
		return f
	}
	for _, known := range []struct {
		err    error
		status int
		code   string
	}{
		{objectserver.ErrNoUpload, http.StatusNotFound, "NoSuchUpload"},
		{objectserver.ErrPartNumber, http.StatusBadRequest, "InvalidArgument"},
		{objectserver.ErrPart, http.StatusBadRequest, "InvalidPart"},
		{objectserver.ErrPartOrder, http.StatusBadRequest, "InvalidPartOrder"},
		{objectserver.ErrPartTooSmall, http.StatusBadRequest, "EntityTooSmall"},
		{objectserver.ErrTooLarge, http.StatusBadRequest, "EntityTooLarge"},
		{io.ErrUnexpectedEOF, http.StatusBadRequest, "IncompleteBody"},
	} {
		if errors.Is(err, known.err) {
			return &failure{known.status, known.code, err.Error()}
		}
	}
	return &failure{http.StatusInternalServerError, "InternalError", err.Error()}
}

// call is one request.
type call struct {
	*Server
	w     http.ResponseWriter
	r     *http.Request
	query url.Values
	key   string // "": the bucket
}

// ServeHTTP answers one request.
func (s *Server) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	id := rand.Text()
	w.Header().Set("x-cos-request-id", id)
	w.Header().Set("Server", "tencent-cos")
	query, err := url.ParseQuery(r.URL.RawQuery)
	c := &call{s, w, r, query, strings.TrimPrefix(r.URL.Path, "/")}
	if err != nil {
		err = fail(http.StatusBadRequest, "InvalidURI", "The query cannot be read.")
	} else {
		err = c.serve()
	}
	if err == nil {
		return
	}
	f := failureOf(err)
	_, _ = io.Copy(io.Discard, r.Body) // a client that still sends would not see the answer
	w.Header().Set("Content-Type", "application/xml")
	w.Header().Set("x-cos-trace-id", id)
	w.WriteHeader(f.status)
	if r.Method != http.MethodHead { // 7745 (HEAD Object): no body
		writeXML(w, struct {
			XMLName                 xml.Name `xml:"Error"`
			Code, Message, Resource string
			RequestID               string `xml:"RequestId"`
			TraceID                 string `xml:"TraceId"`
		}{Code: f.code, Message: f.message, Resource: r.Host + r.URL.Path, RequestID: id, TraceID: id})
	}
}

func writeXML(w io.Writer, v any) {
	body, err := xml.MarshalIndent(v, "", "  ")
	if err != nil {
		body = []byte(err.Error())
	}
	_, _ = w.Write(append([]byte(xml.Header), body...))
}

// domain is that of a bucket, 6224 (Regions and Access Endpoints).
var domain = regexp.MustCompile(`^([a-z0-9-]+)\.cos(-internal)?\.[a-z0-9-]+\.(myqcloud\.com|tencentcos\.cn)(:[0-9]+)?$`)

// serve answers, or returns what went wrong. Any name that is not of COS is a domain of the bucket's own.
func (c *call) serve() error {
	if m := domain.FindStringSubmatch(c.r.Host); m != nil && m[1] != c.bucket.Name() {
		return fail(http.StatusNotFound, "NoSuchBucket", "The specified bucket does not exist.")
	}
	if c.r.Method == http.MethodOptions {
		return c.preflight()
	}
	if err := c.authenticate(); err != nil {
		return err
	}
	c.allowOrigin()
	if len(c.key) > maxKey {
		return fail(http.StatusBadRequest, "KeyTooLong", "The key has %d bytes, %d are allowed.", len(c.key), maxKey)
	}
	if !utf8.ValidString(c.key) {
		return fail(http.StatusBadRequest, "InvalidURI", "The key is not UTF-8.")
	}
	for _, route := range routes {
		if route.method == c.r.Method && route.object == (c.key != "") && c.has(route.needs) {
			if err := c.only(route); err != nil {
				return err
			}
			return route.do(c)
		}
	}
	return fail(http.StatusMethodNotAllowed, "MethodNotAllowed", "The specified method is not allowed against this resource.")
}

// route is a request that the server knows: by its method, whether it is about an object, and the parameters that it
// has. The first that fits is taken.
type route struct {
	method string
	object bool
	needs  []string // parameters
	may    []string // further ones
	do     func(*call) error
}

var overrides = []string{
	"response-content-type", "response-content-language", "response-expires", "response-cache-control",
	"response-content-disposition", "response-content-encoding",
}

var routes = []route{
	{http.MethodHead, false, nil, nil, func(*call) error { return nil }},
	{http.MethodGet, false, []string{"uploads"}, []string{"prefix", "max-uploads", "key-marker", "upload-id-marker", "encoding-type"}, (*call).listUploads},
	{http.MethodGet, false, []string{"lifecycle"}, nil, func(c *call) error { return c.setting("lifecycle") }},
	{http.MethodGet, false, []string{"cors"}, nil, func(c *call) error { return c.setting("cors") }},
	{http.MethodGet, false, []string{"versioning"}, nil, func(c *call) error { return c.setting("versioning") }},
	{http.MethodGet, false, nil, []string{"prefix", "max-keys", "marker", "encoding-type"}, (*call).listObjects},
	{http.MethodPut, false, []string{"lifecycle"}, nil, (*call).putLifecycle},
	{http.MethodPut, false, []string{"cors"}, nil, (*call).putCORS},
	{http.MethodPut, false, []string{"versioning"}, nil, (*call).putVersioning},
	{http.MethodDelete, false, []string{"lifecycle"}, nil, func(c *call) error { return c.deleteSetting("lifecycle") }},
	{http.MethodDelete, false, []string{"cors"}, nil, func(c *call) error { return c.deleteSetting("cors") }},

	{http.MethodPost, true, []string{"uploads"}, nil, (*call).create},
	{http.MethodPost, true, []string{"uploadId"}, nil, (*call).complete},
	{http.MethodPut, true, []string{"partNumber", "uploadId"}, nil, (*call).putPart},
	{http.MethodPut, true, nil, nil, (*call).putObject},
	{http.MethodGet, true, []string{"uploadId"}, []string{"max-parts", "part-number-marker", "encoding-type"}, (*call).listParts},
	{http.MethodGet, true, nil, overrides, (*call).getObject},
	{http.MethodHead, true, nil, nil, (*call).getObject},
	{http.MethodDelete, true, []string{"uploadId"}, nil, (*call).abort},
	{http.MethodDelete, true, nil, nil, (*call).deleteObject},
}

func (c *call) has(params []string) bool {
	for _, name := range params {
		if !c.query.Has(name) {
			return false
		}
	}
	return true
}

// only refuses parameters and headers that this server does not know: what is not checked must not seem to work.
func (c *call) only(r route) error {
	for name := range c.r.Header {
		name = strings.ToLower(name)
		cos := strings.HasPrefix(name, "x-cos-") && name != tokenName && name != "x-cos-acl" && name != "x-cos-grant-read" // nobody else is granted anything here
		if cos || strings.HasPrefix(name, "if-") {
			return fail(http.StatusNotImplemented, "NotImplemented", "The header %q is not known here.", name)
		}
	}
	for name, values := range c.query {
		known := slices.Contains(r.needs, name) || slices.Contains(r.may, name) || name == tokenName || strings.HasPrefix(name, "q-")
		if !known || len(values) > 1 {
			return fail(http.StatusNotImplemented, "NotImplemented", "The parameter %q is not known here.", name)
		}
	}
	return nil
}
