package server

import (
	"bytes"
	"context"
	"encoding/json"
	"flag"
	"fmt"
	"io"
	"maps"
	"net/http"
	"os"
	"regexp"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/getkin/kin-openapi/openapi3"
	"github.com/getkin/kin-openapi/openapi3filter"
	"github.com/getkin/kin-openapi/routers"
	"github.com/labstack/echo/v4"

	"gantry/docs/api"
	"gantry/upload"
)

// contract compares what the server answers in all tests with the OpenAPI document, and notes which
// of the documented answers were seen.
var contract = sync.OnceValue(func() *contractChecker {
	doc, err := openapi3.NewLoader().LoadFromData(api.Document)
	if err != nil {
		panic(err)
	}
	return &contractChecker{doc: doc, seen: map[string]bool{}}
})

type contractChecker struct {
	doc  *openapi3.T
	mu   sync.Mutex
	seen map[string]bool // "METHOD path status code"
}

// operation finds the documented operation for an address; nil if there is none.
func (k *contractChecker) operation(method, address string) (string, *routers.Route) {
	segments := strings.Split(address, "/")
	best := ""
	for path := range k.doc.Paths.Map() {
		template := strings.Split(path, "/")
		if !slices.EqualFunc(template, segments, func(a, b string) bool { return strings.HasPrefix(a, "{") || a == b }) {
			continue
		}
		if k.doc.Paths.Value(path).GetOperation(method) != nil {
			best = path
		}
	}
	if best == "" {
		return "", nil
	}
	item := k.doc.Paths.Value(best)
	return best, &routers.Route{Spec: k.doc, Path: best, PathItem: item, Method: method, Operation: item.GetOperation(method)}
}

// advice is what the last part of a detail begins with: every problem says what to do next.
var advice = regexp.MustCompile(`\b(Ask|Begin|Choose|Complete|Correct|Cut|Delete|Leave|Look|Put|Report|Send|Set|Slow|Take|Try|Upload|Use)\b[^.]*`)

// check validates one answer. body is all of it.
func (k *contractChecker) check(r *http.Request, sent []byte, status int, header http.Header, body []byte) error {
	if header.Get(headerRequestID) == "" {
		return fmt.Errorf("no %s", headerRequestID)
	}
	if got := header.Get("X-Content-Type-Options"); got != "nosniff" {
		return fmt.Errorf("X-Content-Type-Options is %q", got)
	}
	if header.Get("Content-Security-Policy") == "" || header.Get("Cache-Control") == "" {
		return fmt.Errorf("no Content-Security-Policy or Cache-Control")
	}
	if allowed := header.Get("Access-Control-Allow-Origin"); allowed != "" && allowed != allowedOrigin || header.Get("Access-Control-Allow-Credentials") != "" {
		return fmt.Errorf("a CORS header")
	}
	var p problem
	if status >= 400 && r.Method != http.MethodHead && header.Get("Content-Type") == "application/problem+json" {
		if err := json.Unmarshal(body, &p); err != nil {
			return err
		}
		if p.Status != status || p.RequestID != header.Get(headerRequestID) || p.Type != "/problems/"+p.Code {
			return fmt.Errorf("status, request_id or type do not agree: %+v", p)
		}
		if !advice.MatchString(p.Detail) {
			return fmt.Errorf("the detail does not say what to do: %s", p.Detail)
		}
	}
	path, route := k.operation(r.Method, r.URL.EscapedPath())
	if route == nil || p.Code == upload.MethodNotAllowed.Code() {
		return nil
	}
	if status == http.StatusNotFound && p.Detail == answers[upload.NotFound].detail && !strings.HasPrefix(path, "/v1/") {
		return nil
	}
	k.mu.Lock()
	k.seen[fmt.Sprintf("%s %s %d %s", r.Method, path, status, p.Code)] = true
	k.mu.Unlock()
	if status == statusClientGone {
		return nil
	}
	isJSON := strings.HasSuffix(header.Get("Content-Type"), "json")
	if documented := route.Operation.Responses.Status(status); documented != nil && len(body) > 0 && documented.Value.Content.Get(header.Get("Content-Type")) == nil {
		return fmt.Errorf("%s is not among the documented types", header.Get("Content-Type"))
	}
	err := openapi3filter.ValidateResponse(context.Background(), &openapi3filter.ResponseValidationInput{
		RequestValidationInput: &openapi3filter.RequestValidationInput{Request: r, Route: route},
		Status:                 status, Header: header, Body: io.NopCloser(bytes.NewReader(body)),
		Options: &openapi3filter.Options{IncludeResponseStatus: true, ExcludeResponseBody: !isJSON},
	})
	if err != nil || status >= 300 || len(sent) == 0 {
		return err
	}
	return k.checkRequest(route, r, sent)
}

// checkRequest validates the JSON of a request that was accepted.
func (k *contractChecker) checkRequest(route *routers.Route, r *http.Request, sent []byte) error {
	if r.Header.Get("Content-Type") != "application/json" || route.Operation.RequestBody == nil {
		return nil
	}
	media := route.Operation.RequestBody.Value.Content["application/json"]
	if media == nil {
		return nil // JSON as a file's content
	}
	var value any
	if err := json.Unmarshal(sent, &value); err != nil {
		return err
	}
	return media.Schema.Value.VisitJSON(value, openapi3.EnableJSONSchema2020())
}

// transport passes requests on and checks the answers.
type transport struct {
	t    testing.TB
	base http.RoundTripper
}

func (x *transport) RoundTrip(r *http.Request) (*http.Response, error) {
	var sent []byte
	if r.GetBody != nil && r.Header.Get("Content-Type") == "application/json" {
		if body, err := r.GetBody(); err == nil {
			sent, _ = io.ReadAll(body)
		}
	}
	resp, err := x.base.RoundTrip(r)
	if err != nil {
		return nil, err
	}
	if resp.Header.Get("Content-Type") == "text/event-stream" {
		if err := contract().check(r, nil, resp.StatusCode, resp.Header, nil); err != nil {
			x.t.Errorf("%s %s: is not as documented: %v", r.Method, r.URL, err)
		}
		return resp, nil // whoever reads it checks the events: see stream
	}
	body, err := io.ReadAll(resp.Body)
	_ = resp.Body.Close()
	resp.Body = io.NopCloser(bytes.NewReader(body))
	if err == nil {
		if err := contract().check(r, sent, resp.StatusCode, resp.Header, body); err != nil {
			x.t.Errorf("%s %s: %d %.300s\nis not as documented: %v", r.Method, r.URL, resp.StatusCode, body, err)
		}
	}
	return resp, err
}

func TestMain(m *testing.M) {
	flag.Parse()
	code := m.Run()
	if whole := flag.Lookup("test.run").Value.String() == "" && flag.Lookup("test.skip").Value.String() == "" &&
		flag.Lookup("test.bench").Value.String() == "" && flag.Lookup("test.fuzz").Value.String() == "" &&
		flag.Lookup("test.list").Value.String() == "" && !testing.Short(); code == 0 && whole {
		code = reportUnseen()
	}
	os.Exit(code)
}

// reportUnseen fails the whole run if a documented answer was never given.
func reportUnseen() int {
	missing := slices.Sorted(maps.Keys(documented()))
	missing = slices.DeleteFunc(missing, func(a string) bool { return contract().seen[a] })
	for _, a := range missing {
		fmt.Println("documented, but no test made the server answer it:", a)
	}
	return min(1, len(missing))
}

// documented lists all answers in the document: "METHOD path status code".
func documented() map[string]bool {
	all := map[string]bool{}
	for path, item := range contract().doc.Paths.Map() {
		for method, op := range item.Operations() {
			for status, response := range op.Responses.Map() {
				media := response.Value.Content["application/problem+json"]
				if media == nil || method == http.MethodHead {
					all[method+" "+path+" "+status+" "] = true
					continue
				}
				for _, code := range problemCodes(media.Schema) {
					all[method+" "+path+" "+status+" "+code] = true
				}
			}
		}
	}
	return all
}

// problemCodes are the codes that stand beside a reference to Problem.
func problemCodes(s *openapi3.SchemaRef) []string {
	var codes []string
	for _, part := range append([]*openapi3.SchemaRef{s}, s.Value.AllOf...) {
		if code := part.Value.Properties["code"]; code != nil && code.Ref == "" {
			for _, v := range code.Value.Enum {
				codes = append(codes, v.(string))
			}
		}
	}
	return codes
}

func TestDocumentIsValid(t *testing.T) {
	if err := contract().doc.Validate(t.Context(), openapi3.EnableExamplesValidation()); err != nil {
		t.Fatal(err)
	}
	for answer := range documented() {
		fields := strings.Fields(answer)
		if status := fields[2]; status >= "400" && len(fields) < 4 && fields[0] != "HEAD" && fields[1] != "/readyz" {
			t.Errorf("%s: no code is documented", answer)
		}
	}
	codes := contract().doc.Components.Schemas["ErrorCode"].Value
	var kinds []any
	for _, kind := range upload.Kinds() {
		kinds = append(kinds, kind.Code())
		if meanings, _ := codes.Extensions["x-meanings"].(map[string]any); meanings[kind.Code()] == nil {
			t.Errorf("ErrorCode does not say what %s means", kind.Code())
		}
	}
	if !slices.Equal(codes.Enum, kinds) {
		t.Errorf("ErrorCode has %v, upload has %v", codes.Enum, kinds)
	}
}

// Routes that are for browsers, or for profiling tools, and not part of the contract.
var undocumentedRoutes = []string{"/", "/app.js", "/app.css", "/uploader.js", "/hash.worker.js", "/icon.svg", "/docs", "/docs/style.css", "/openapi.yaml", "/problems/{code}"}

func TestRoutesAreThoseDocumented(t *testing.T) {
	s := New(&stub{}, Options{})
	served := map[string]bool{}
	add := func(e *echo.Echo) {
		for _, route := range e.Routes() {
			var path strings.Builder
			for i, segment := range strings.Split(route.Path, "/") {
				if i > 0 {
					path.WriteByte('/')
				}
				if name, ok := strings.CutPrefix(segment, ":"); ok {
					segment = "{" + name + "}"
				}
				path.WriteString(segment)
			}
			if !slices.Contains(undocumentedRoutes, path.String()) && !strings.HasPrefix(path.String(), "/debug/pprof/") {
				served[route.Method+" "+path.String()] = true
			}
		}
	}
	add(s.api)
	add(newManagement(t, s, nil).(*echo.Echo))
	for path, item := range contract().doc.Paths.Map() {
		for method := range item.Operations() {
			if !served[method+" "+path] {
				t.Errorf("documented, but not served: %s %s", method, path)
			}
			delete(served, method+" "+path)
		}
	}
	for route := range served {
		t.Errorf("served, but not documented: %s", route)
	}
}
