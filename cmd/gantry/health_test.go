package main

import (
	"bytes"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
)

// Whatever a server answers, health is 0 or 1 and a line.
func TestHealth(t *testing.T) {
	for _, test := range []struct {
		name, body string
		status     int
		code       int
		want       string
	}{
		{"ready", `{"ready":true,"checks":[{"name":"redis","ok":false,"reason":"away"}]}`, 200, exitOK, "ok"},
		{
			"not ready", `{"ready":false,"checks":[{"name":"serving","ok":true},{"name":"database","ok":false,"reason":"refused\nand again"},{"name":"redis","ok":false,"reason":"away"}]}`,
			503, exitSome, "database: refused and again; redis: away",
		},
		{"nothing said", `{"checks":[{"name":"serving","ok":true}]}`, 503, exitSome, "it answered 503 Service Unavailable"},
		{"not gantry", "<html>", 502, exitSome, "it answered 502 Bad Gateway"},
	} {
		t.Run(test.name, func(t *testing.T) {
			server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				if r.URL.Path != "/readyz" {
					t.Errorf("asked %s", r.URL.Path)
				}
				w.WriteHeader(test.status)
				_, _ = io.WriteString(w, test.body)
			}))
			defer server.Close()
			// As settings have it: without a scheme.
			args := []string{"health", "--management", strings.TrimPrefix(server.URL, "http://")}
			var out bytes.Buffer
			if code := run(t.Context(), args, nil, nil, &out, &out); code != test.code {
				t.Errorf("exit code %d, want %d", code, test.code)
			}
			if text := out.String(); !strings.HasSuffix(text, test.want+"\n") || strings.Count(text, "\n") != 1 {
				t.Errorf("said %q, want one line that ends with %q", text, test.want)
			}
		})
	}
}
