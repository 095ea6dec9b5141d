package server

import (
	"bytes"
	"maps"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"reflect"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/getkin/kin-openapi/openapi3"

	"gantry/upload"
)

// TestContractCheckNotices: the check that all tests rely on refuses what is not documented.
func TestContractCheckNotices(t *testing.T) {
	const file = `{"id":"1","name":"a","path":"","size":1,"sha1":"2fd4e1c67a2d28fced849ee1bb76e7391b93eb12","content_type":"","metadata":{},` +
		`"created_at":"2026-11-20T09:00:00Z","updated_at":"2026-11-20T09:00:00Z","location":"store","transfer":null}`
	problemWith := func(status, code, more string) string {
		return `{"type":"/problems/` + code + `","title":"x","status":` + status + `,"detail":"Try again.","code":"` + code + `","request_id":"r"` + more + `}`
	}
	for _, c := range []struct {
		name, method, path string
		status             int
		header, body       string
		fine               bool
	}{
		{"a file", "GET", "/v1/files/1", 200, "", file, true},
		{"a status that is not documented", "GET", "/v1/files/1", 202, "", file, false},
		{"a field too many", "GET", "/v1/files/1", 200, "", strings.Replace(file, `"id"`, `"owner":"me","id"`, 1), false},
		{"a field too few", "GET", "/v1/files/1", 200, "", strings.Replace(file, `"path":"",`, "", 1), false},
		{"a field of another type", "GET", "/v1/files/1", 200, "", strings.Replace(file, `"size":1`, `"size":"1"`, 1), false},
		{"a value that is not documented", "GET", "/v1/files/1", 200, "", strings.Replace(file, `"store"`, `"tape"`, 1), false},
		{"another media type", "GET", "/v1/files/1", 200, "Content-Type: text/html", file, false},
		{"a problem", "GET", "/v1/files/1", 404, "", problemWith("404", "not_found", ""), true},
		{"a code that is not documented here", "GET", "/v1/files/1", 404, "", problemWith("404", "gone", ""), false},
		{"a code that is not documented anywhere", "GET", "/v1/files/1", 404, "", problemWith("404", "teapot", ""), false},
		{"a problem with another status", "GET", "/v1/files/1", 404, "", problemWith("410", "not_found", ""), false},
		{"a problem with a field too many", "GET", "/v1/files/1", 404, "", problemWith("404", "not_found", `,"cause":"open /var/x"`), false},
		{"a problem without detail", "GET", "/v1/files/1", 404, "", strings.Replace(problemWith("404", "not_found", ""), `"detail":"Try again.",`, "", 1), false},
		{"a problem that does not say what to do", "GET", "/v1/files/1", 404, "", strings.Replace(problemWith("404", "not_found", ""), "Try again.", "It is not there.", 1), false},
		{"missing chunks", "POST", "/v1/uploads/1/complete", 409, "", problemWith("409", "incomplete", `,"missing":[[0,1]]`), true},
		{"missing chunks that are not listed", "POST", "/v1/uploads/1/complete", 409, "", problemWith("409", "incomplete", ""), false},
		{"no Retry-After", "GET", "/v1/files/1", 503, "", problemWith("503", "unavailable", ""), false},
		{"no WWW-Authenticate", "GET", "/v1/files/1", 401, "", problemWith("401", "unauthenticated", ""), false},
		{"no Location", "POST", "/v1/uploads/1/complete", 201, "", file, false},
		{"a CORS header", "GET", "/v1/files/1", 200, "Access-Control-Allow-Origin: *", file, false},
	} {
		r := httptest.NewRequest(c.method, c.path, http.NoBody)
		header := http.Header{"X-Request-Id": {"r"}, "X-Content-Type-Options": {"nosniff"}, "Content-Security-Policy": {"x"}, "Cache-Control": {"x"}}
		header.Set("Content-Type", "application/json")
		if c.status >= 400 {
			header.Set("Content-Type", "application/problem+json")
		}
		if name, value, found := strings.Cut(c.header, ": "); found {
			header.Set(name, value)
		}
		checker := &contractChecker{doc: contract().doc, seen: map[string]bool{}} // these do not count as seen
		if err := checker.check(r, nil, c.status, header, []byte(c.body)); (err == nil) != c.fine {
			t.Errorf("%s: %v", c.name, err)
		}
	}
}

// TestFieldsAreThoseDocumented: what the server reads and writes as JSON, and what the document says.
func TestFieldsAreThoseDocumented(t *testing.T) {
	for schema, value := range map[string]any{
		"NewUpload": initJSON{}, "DirectURLs": urlsJSON{}, "CompleteRequest": completeJSONRequest{}, "InstantRequest": instantRequestJSON{}, "FileChange": changeJSON{},
		"Proof": upload.Proof{}, "Leaf": upload.Leaf{}, "OpenedUpload": uploadJSON{}, "CompleteUpload": completeJSON{}, "File": fileJSON{},
		"Transfer": transferJSON{}, "DeletedFile": deletedJSON{}, "EndedUpload": endedJSON{}, "AdminTransfer": adminTransferJSON{}, "Readiness": readyJSON{}, "Problem": problem{},
	} {
		documented := slices.Sorted(maps.Keys(contract().doc.Components.Schemas[schema].Value.Properties))
		fields := jsonFields(reflect.TypeOf(value))
		slices.Sort(fields)
		if !slices.Equal(documented, fields) {
			t.Errorf("%s: documented are %v, there are %v", schema, documented, fields)
		}
	}
}

func jsonFields(t reflect.Type) (names []string) {
	for field := range t.Fields() {
		if field.Anonymous {
			names = append(names, jsonFields(field.Type)...)
			continue
		}
		name, _, _ := strings.Cut(field.Tag.Get("json"), ",")
		names = append(names, name)
	}
	return names
}

// parameterCases has for every documented parameter of an operation a request in which it counts: with
// good the answer has goodStatus, with bad it has badStatus. {upload}, {file} and {etag} stand for what
// exists.
var parameterCases = map[string]struct {
	good, bad             string
	goodStatus, badStatus int
}{
	"POST /v1/uploads header Idempotency-Key":                {"key-1", "two words", 201, 400},
	"GET /v1/uploads query cursor":                           {"{upload}", "nonsense", 200, 400},
	"GET /v1/uploads query limit":                            {"1000", "1001", 200, 400},
	"PUT /v1/uploads/{id}/chunks/{index} path index":         {"0", "10000", 204, 400},
	"PUT /v1/uploads/{id}/chunks header Chunk-Index":         {"0", "10000", 204, 400},
	"PUT /v1/uploads/{id}/chunks/{index} header " + digest:   {"crc32c=:KAwGng==:", "crc32c=:AAAAAA==:", 204, 422},
	"PUT /v1/uploads/{id}/chunks header " + digest:           {"crc32c=:KAwGng==:", "crc32c=:AAAAAA==:", 204, 422},
	"PUT /v1/uploads/{id}/chunks/{index} header " + length:   {"10", "", 204, 411},
	"PUT /v1/uploads/{id}/chunks header " + length:           {"10", "", 204, 411},
	"GET /v1/uploads/{id}/urls query first":                  {"0", "10000", 200, 400},
	"GET /v1/uploads/{id}/urls query count":                  {"100", "101", 200, 400},
	"GET /v1/uploads/{id}/content header Range":              {"bytes=0-1", "bytes=999-", 206, 416},
	"POST /v1/files query name":                              {"a", "a/b", 201, 400},
	"POST /v1/files query path":                              {"a/b", "../b", 201, 400},
	"POST /v1/files query sha1":                              {"87acec17cd9dcd20a716cc2cf67417b71c8a7016", strings.Repeat("0", 40), 201, 422},
	"POST /v1/files query replaces":                          {"{file}", "nothing", 201, 404},
	"POST /v1/files header Idempotency-Key":                  {"key-2", "two words", 201, 400},
	"POST /v1/files header " + digest:                        {"crc32c=:KAwGng==:", "crc32c=:AAAAAA==:", 201, 422},
	"GET /v1/files query cursor":                             {"eyJzIjoiY3JlYXRlZF9hdCIsImQiOnRydWUsImkiOiJ4In0", "nonsense", 200, 400},
	"GET /v1/files query limit":                              {"1", "0", 200, 400},
	"GET /v1/files query name":                               {strings.Repeat("a", upload.MaxNameBytes), strings.Repeat("a", upload.MaxNameBytes+1), 200, 400},
	"GET /v1/files query path":                               {strings.Repeat("a", upload.MaxPathBytes), strings.Repeat("a", upload.MaxPathBytes+1), 200, 400},
	"GET /v1/files query sort":                               {"-size", "sha1", 200, 400},
	"GET /v1/files/{id}/content header Range":                {"bytes=0-1", "bytes=999-", 206, 416},
	"GET /v1/files/{id}/content header If-Range":             {"{etag}", `"x"`, 206, 200},
	"GET /v1/files/{id}/content header If-None-Match":        {`"x"`, "{etag}", 200, 304},
	"GET /v1/files/{id}/content header If-Modified-Since":    {"Mon, 01 Jan 2001 00:00:00 GMT", "Fri, 01 Jan 2100 00:00:00 GMT", 200, 304},
	"GET /v1/files/{id}/content header If-Match":             {"{etag}", `"x"`, 200, 412},
	"GET /v1/files/{id}/content header If-Unmodified-Since":  {"Fri, 01 Jan 2100 00:00:00 GMT", "Mon, 01 Jan 2001 00:00:00 GMT", 200, 412},
	"GET /v1/files/{id}/content query redirect":              {"false", "maybe", 200, 400},
	"HEAD /v1/files/{id}/content header If-None-Match":       {`"x"`, "{etag}", 200, 304},
	"HEAD /v1/files/{id}/content header If-Modified-Since":   {"Mon, 01 Jan 2001 00:00:00 GMT", "Fri, 01 Jan 2100 00:00:00 GMT", 200, 304},
	"HEAD /v1/files/{id}/content header If-Match":            {"{etag}", `"x"`, 200, 412},
	"HEAD /v1/files/{id}/content header If-Unmodified-Since": {"Fri, 01 Jan 2100 00:00:00 GMT", "Mon, 01 Jan 2001 00:00:00 GMT", 200, 412},
	"GET /transfers query state":                             {"dead,queued", "lost", 200, 400},
	"GET /transfers query limit":                             {"1", "0", 200, 400},
}

const (
	digest = "Content-Digest"
	length = "Content-Length"
	ten    = "0123456789" // its SHA-1 and CRC-32C are above
)

// TestParametersAreThoseDocumented: each documented parameter counts, and is refused where it cannot be.
func TestParametersAreThoseDocumented(t *testing.T) {
	n, _ := newDirectNode(t)
	management := serveHandler(t, newManagement(t, n.server, nil))
	tested := map[string]bool{}
	for path, item := range contract().doc.Paths.Map() {
		for method, op := range item.Operations() {
			for _, ref := range slices.Concat(item.Parameters, op.Parameters) {
				p := ref.Value
				if p.In == "path" && p.Name == "id" {
					continue // TestUnknownIDs
				}
				key := method + " " + path + " " + p.In + " " + p.Name
				c, ok := parameterCases[key]
				if !ok {
					t.Errorf("documented, but not tested: %s", key)
					continue
				}
				tested[key] = true
				client := n.testClient
				if !strings.HasPrefix(path, "/v1/") {
					client = management
				}
				for value, status := range map[string]int{c.good: c.goodStatus, c.bad: c.badStatus} {
					if got := n.withParameter(client, method, path, p, value); got.status != status {
						t.Errorf("%s: %.60s: answered %d %.200s, want %d", key, value, got.status, got.body, status)
					}
				}
			}
		}
	}
	for key := range parameterCases {
		if !tested[key] {
			t.Errorf("tested, but not documented: %s", key)
		}
	}
}

// Headers of HTTP itself that the server reads; the description of the API, or of the parts of forms,
// has them.
var plainHeaders = []string{
	"Accept-Encoding", "Access-Control-Request-Method", "Authorization", "Content-Encoding", "Content-Transfer-Encoding", "Content-Type", "Expect", "Content-Digest", "Origin", "X-Request-Id",
}

// TestParametersReadAreDocumented: no source of this package reads a query parameter or a header of
// a request that the document does not have.
func TestParametersReadAreDocumented(t *testing.T) {
	known := map[string]bool{"query boundary": true} // a parameter of a media type
	for key := range parameterCases {
		fields := strings.Fields(key)
		known[fields[2]+" "+fields[3]] = true
	}
	for _, name := range plainHeaders {
		known["header "+name] = true
	}
	patterns := map[string]*regexp.Regexp{
		"query":  regexp.MustCompile(`\b(?:q|params|[qQ]uery\(\))(?:\.Get\(|\.Has\(|\[)"([^"]+)"|QueryParam\("([^"]+)"|FormValue\("([^"]+)"`),
		"header": regexp.MustCompile(`(?:\bHeader|\bh)(?:\.Get\(|\.Values\(|\[)"([^"]+)"[)\]](?: *=[^=])?`),
	}
	files, err := filepath.Glob("*.go")
	if err != nil {
		t.Fatal(err)
	}
	found := 0
	for _, name := range files {
		if strings.HasSuffix(name, "_test.go") {
			continue
		}
		text, err := os.ReadFile(name)
		if err != nil {
			t.Fatal(err)
		}
		for in, pattern := range patterns {
			for _, match := range pattern.FindAllSubmatch(text, -1) {
				if bytes.HasSuffix(bytes.TrimRight(match[0], " ="), []byte("]")) && bytes.ContainsRune(match[0], '=') {
					continue // a header of the answer is set
				}
				found++
				if read := in + " " + string(bytes.Join(match[1:], nil)); !known[read] {
					t.Errorf("%s reads an undocumented %s", name, read)
				}
			}
		}
	}
	if found < 20 {
		t.Errorf("only %d places found where something is read", found)
	}
}

// withParameter calls an operation, otherwise fine, with one parameter set.
func (n *node) withParameter(client *testClient, method, path string, p *openapi3.Parameter, value string) answered {
	n.t.Helper()
	file := n.storeFile("a", []byte(ten))
	o := n.open(len(ten))
	if strings.HasSuffix(path, "/urls") {
		o = n.init(object{"name": "a.bin", "size": len(ten), "direct": true})
	}
	if strings.HasSuffix(path, "/content") && strings.Contains(path, "/uploads/") {
		n.put(o.ID, 0, []byte(ten)).want(n.t, 204, "")
		n.waitHashed(o.ID, int64(len(ten)))
	}
	etag := n.do("HEAD", "/v1/files/"+file.ID+"/content", nil).header.Get("ETag")
	value = strings.NewReplacer("{upload}", o.ID, "{file}", file.ID, "{etag}", etag).Replace(value)
	id := file.ID
	if strings.Contains(path, "/uploads/") {
		id = o.ID
	}
	path = strings.Replace(path, "{id}", id, 1)
	var headers, query []string
	switch {
	case p.In == "path":
		path = strings.Replace(path, "{"+p.Name+"}", value, 1)
	case p.In == "query":
		query = append(query, p.Name+"="+value)
	case p.Name != length:
		headers = append(headers, p.Name+": "+value)
	}
	body := ""
	switch {
	case method == http.MethodPut:
		body = ten
	case path == "/v1/uploads" && method == http.MethodPost:
		body = `{"name":"a"}`
		headers = append(headers, "Content-Type: application/json")
	case path == "/v1/files" && method == http.MethodPost:
		body = ten
		if p.Name != "name" {
			query = append(query, "name=a")
		}
	}
	if p.Name == "If-Range" {
		headers = append(headers, "Range: bytes=0-1")
	}
	if p.Name != "Chunk-Index" {
		headers = append(headers, "Chunk-Index: 0")
	}
	path = strings.Replace(path, "{index}", "0", 1) + "?" + strings.Join(query, "&")
	if p.Name == length && value == "" {
		return client.do(method, path, struct{ *strings.Reader }{strings.NewReader(body)}, headers...)
	}
	return client.do(method, path, strings.NewReader(body), headers...)
}
