package server

import (
	"net/http"
	"slices"
	"strings"

	"github.com/labstack/echo/v4"
)

// Header values for pages of other sites that the operator has allowed (the Fetch standard's CORS protocol). Credentials are
// never allowed: there are no cookies, and a page sends its token by itself.
var (
	valueMethods = []string{"GET, HEAD, POST, PUT, PATCH, DELETE"}
	// The headers of requests that the API knows and that a page may not send without asking.
	valueAllowed = []string{"Authorization, Content-Type, Chunk-Index, Content-Digest, Idempotency-Key, If-Match, If-None-Match, " +
		"If-Modified-Since, If-Unmodified-Since, If-Range, Range, X-Request-Id"}
	// The headers of answers that a page may read beyond those that any may.
	valueExposed = []string{"Accept-Ranges, Content-Disposition, Content-Length, Content-Range, ETag, Location, Repr-Digest, " +
		"Retry-After, WWW-Authenticate, X-Request-Id"}
	valueMaxAge = []string{"7200"} // seconds; no browser keeps it longer
)

// scripts are what pages of other sites may take beside the API.
var scripts = []string{"/uploader.js", "/hash.worker.js"}

// crossSite lets the page of an allowed origin read the answer, and answers the question (preflight) whether it may ask.
// Where no origin is allowed it does nothing, and what comes from other sites is refused or cannot be read, as ever.
func (f *front) crossSite(c echo.Context) (answered bool) {
	r, h := c.Request(), c.Response().Header()
	if len(f.origins) == 0 || !strings.HasPrefix(r.URL.Path, "/v1/") && !slices.Contains(scripts, r.URL.Path) {
		return false
	}
	h.Add("Vary", "Origin")
	origin := r.Header["Origin"]
	if len(origin) != 1 || !slices.Contains(f.origins, origin[0]) {
		return false
	}
	h["Access-Control-Allow-Origin"] = origin
	if r.Method != http.MethodOptions || r.Header.Get("Access-Control-Request-Method") == "" {
		h["Access-Control-Expose-Headers"] = valueExposed
		return false
	}
	h["Access-Control-Allow-Methods"] = valueMethods
	h["Access-Control-Allow-Headers"] = valueAllowed
	h["Access-Control-Max-Age"] = valueMaxAge
	c.Response().WriteHeader(http.StatusNoContent)
	return true
}

// isCrossSite reports whether a header of an answer is crossSite's.
func isCrossSite(name string) bool {
	return name == "Vary" || strings.HasPrefix(name, "Access-Control-")
}
