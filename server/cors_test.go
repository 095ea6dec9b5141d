package server

import (
	"strings"
	"testing"

	"gantry/upload"
)

// allowedOrigin is the one other site whose pages may use a server of the tests, if any may.
const allowedOrigin = "https://allowed.example"

func TestAllowedOrigins(t *testing.T) {
	st := &stub{err: upload.Unavailable}
	for name, opt := range map[string]Options{"open": {}, "with a token": {Token: "a-long-secret-token"}} {
		opt.Origins = []string{allowedOrigin, "http://localhost:5173"}
		client := serveHandler(t, New(st, opt).Handler())
		login := "Authorization: Bearer " + opt.Token
		for _, x := range everyCall() {
			path, _, _ := strings.Cut(x.path, "?")
			asked := client.do("OPTIONS", path, nil, "Origin: "+allowedOrigin, "Access-Control-Request-Method: "+x.method, "Access-Control-Request-Headers: authorization,chunk-index").want(t, 204, "")
			for header, want := range map[string]string{
				"Access-Control-Allow-Origin": allowedOrigin, "Access-Control-Max-Age": "7200", "Access-Control-Allow-Credentials": "", "Vary": "Origin",
			} {
				if got := asked.header.Get(header); got != want {
					t.Errorf("%s: OPTIONS %s: %s is %q, want %q", name, path, header, got, want)
				}
			}
			if !strings.Contains(asked.header.Get("Access-Control-Allow-Methods"), x.method) || !strings.Contains(asked.header.Get("Access-Control-Allow-Headers"), "Chunk-Index") {
				t.Errorf("%s: OPTIONS %s does not allow %s: %v", name, path, x.method, asked.header)
			}
			a := client.call(x, login, "Origin: "+allowedOrigin, "Sec-Fetch-Site: cross-site").want(t, 503, codeOf(x.method, upload.Unavailable))
			if a.header.Get("Access-Control-Allow-Origin") != allowedOrigin || !strings.Contains(a.header.Get("Access-Control-Expose-Headers"), "Retry-After") {
				t.Errorf("%s: a page of an allowed site cannot read the answer to %s %s: %v", name, x.method, x.path, a.header)
			}
			if opt.Token != "" { // also that it has to log in
				if a := client.call(x, "Origin: "+allowedOrigin).want(t, 401, ""); a.header.Get("Access-Control-Allow-Origin") != allowedOrigin {
					t.Errorf("%s %s: a 401 cannot be read", x.method, x.path)
				}
			}
		}
		for _, path := range scripts {
			if a := client.do("GET", path, nil, "Origin: "+allowedOrigin).want(t, 200, ""); a.header.Get("Access-Control-Allow-Origin") != allowedOrigin || strings.Join(a.header["Vary"], ",") != "Origin,Accept-Encoding" {
				t.Errorf("%s: a page of an allowed site cannot take it: %v", path, a.header)
			}
		}
		if a := client.do("GET", "/", nil, "Origin: "+allowedOrigin); a.header.Get("Access-Control-Allow-Origin") != "" {
			t.Error("a page of an allowed site can read the server's page")
		}
	}
}

// Whoever is not named is refused as if nobody were.
func TestOtherOriginsAreRefused(t *testing.T) {
	st := &stub{err: upload.Unavailable}
	client := serveHandler(t, New(st, Options{Origins: []string{allowedOrigin}}).Handler())
	for _, origin := range []string{
		"http://allowed.example", "https://allowed.example:444", "https://allowed.example.evil.example", "https://evil-allowed.example", "https://ALLOWED.example",
		"https://allowed.example/", "https://sub.allowed.example", "null", "*", "", "https://allowed.example, https://evil.example",
	} {
		for _, x := range everyCall() {
			a := client.call(x, "Origin: "+origin, "Sec-Fetch-Site: cross-site")
			if a.status != 403 && x.method != "GET" && x.method != "HEAD" {
				t.Errorf("%q: %s %s: answered %d", origin, x.method, x.path, a.status)
			}
			path, _, _ := strings.Cut(x.path, "?")
			asked := client.do("OPTIONS", path, nil, "Origin: "+origin, "Access-Control-Request-Method: "+x.method)
			for name := range a.header {
				if strings.HasPrefix(name, "Access-Control-") {
					t.Errorf("%q: %s %s: %s", origin, x.method, x.path, name)
				}
			}
			for name := range asked.header {
				if strings.HasPrefix(name, "Access-Control-") {
					t.Errorf("%q: OPTIONS %s: %s", origin, path, name)
				}
			}
		}
	}
	// Two Origins: somebody in between may have meant the other.
	if a := client.do("GET", "/v1/files", nil, "Origin: "+allowedOrigin, "Origin: https://evil.example"); a.header.Get("Access-Control-Allow-Origin") != "" {
		t.Error("a request with two origins was allowed")
	}
	// An allowed page still has to call the server by its name.
	client.do("GET", "/v1/files", nil, "Origin: "+allowedOrigin, "Host: evil.example").want(t, 403, "forbidden")
}

// An answer that another node gives can be read as well.
func TestAllowedOriginsAcrossNodes(t *testing.T) {
	nodes, _ := newCluster(t, 2, nil)
	data := random(10)
	o := nodes[1].open(len(data))
	opt := nodes[0].server.opt
	opt.Origins = []string{allowedOrigin}
	client := serveHandler(t, New(nodes[0].service, opt).Handler())
	for range 2 { // a success and its repetition
		a := client.do("PUT", "/v1/uploads/"+o.ID+"/chunks", strings.NewReader(string(data)), "Chunk-Index: 0", "Origin: "+allowedOrigin, "Sec-Fetch-Site: cross-site").want(t, 204, "")
		if got := a.header["Access-Control-Allow-Origin"]; len(got) != 1 || got[0] != allowedOrigin {
			t.Errorf("Access-Control-Allow-Origin is %q", got)
		}
	}
	a := client.do("PUT", "/v1/uploads/"+o.ID+"/chunks", strings.NewReader("x"), "Chunk-Index: 7", "Origin: "+allowedOrigin).want(t, 400, "invalid_chunk_index")
	if a.header.Get("Access-Control-Allow-Origin") != allowedOrigin {
		t.Error("an error of another node cannot be read")
	}
}
