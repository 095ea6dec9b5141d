package server

import (
	"net/http"
	"strconv"
	"strings"

	"github.com/labstack/echo/v4"

	"gantry/docs/api"
	"gantry/upload"
	"gantry/web"
)

const (
	// pagePolicy lets the page use its own files, and nothing else: no inline script or style, no eval, nothing that makes
	// script of a string, nothing of other sites. Its form is for browsers without scripts.
	pagePolicy = "default-src 'none'; script-src 'self'; worker-src 'self'; connect-src 'self'; style-src 'self'; img-src 'self' blob:; " +
		"form-action 'self'; base-uri 'none'; frame-ancestors 'none'; require-trusted-types-for 'script'; trusted-types gantry-uploader"

	// workerPolicy is for the worker alone, since a worker goes by its own answer's policy: it may compile WebAssembly, and
	// the page that starts it may not.
	workerPolicy = "default-src 'none'; script-src 'self' 'wasm-unsafe-eval'; frame-ancestors 'none'"

	// docsPolicy is for pages that have no scripts.
	docsPolicy = "default-src 'none'; style-src 'self'; img-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)

// pages adds what people look at in a browser, and what other sites' pages take from here.
func (s *Server) pages(e *echo.Echo) {
	serve := func(path, policy string, file func() web.File) {
		handler := func(c echo.Context) error {
			c.Response().Header().Set("Content-Security-Policy", policy)
			f := file()
			return serveFile(c, &f)
		}
		e.GET(path, handler)
		e.HEAD(path, handler)
	}
	for path, f := range web.Files() {
		policy := valueNothing[0]
		if path == "/hash.worker.js" {
			policy = workerPolicy
		}
		serve(path, policy, func() web.File { return f })
	}
	serve("/", pagePolicy, func() web.File { return web.Page(s.opt.Token == "", s.opt.Notices()) })
	add := func(path, contentType string, text []byte) {
		f := web.NewFile(contentType, text)
		serve(path, docsPolicy, func() web.File { return f })
	}
	add("/docs", "text/html; charset=utf-8", api.Page())
	add("/docs/style.css", "text/css; charset=utf-8", api.Style)
	add("/openapi.yaml", "application/yaml", api.Document)
	e.GET("/problems/:code", problemPage)
}

// serveFile answers with a file, compressed if the client can take it so. Browsers ask each time whether what they keep is
// current (no-cache): names have no versions, so that after an update of the server a page gets one version of all files.
func serveFile(c echo.Context, f *web.File) error {
	r, w := c.Request(), c.Response()
	h := w.Header()
	text, etag := f.Plain, f.ETag
	h.Set("Cache-Control", "no-cache")
	h.Add("Vary", "Accept-Encoding")
	if acceptsGzip(r) {
		text, etag = f.Gzip, f.GzipETag()
	}
	h.Set("ETag", etag)
	if etagListed(strings.Join(r.Header["If-None-Match"], ","), etag, true) {
		w.WriteHeader(http.StatusNotModified)
		return nil
	}
	if etag != f.ETag {
		h.Set("Content-Encoding", "gzip")
	}
	h.Set("Content-Type", f.Type)
	h.Set("Content-Length", strconv.Itoa(len(text)))
	w.WriteHeader(http.StatusOK)
	if r.Method == http.MethodHead {
		return nil
	}
	if _, err := w.Write(text); err != nil {
		return upload.Wrap(upload.Canceled, "server.serveFile", "", err)
	}
	return nil
}

// acceptsGzip reports whether a request names gzip as an encoding that it takes, and does not refuse it by a weight of 0.
func acceptsGzip(r *http.Request) bool {
	for _, line := range r.Header["Accept-Encoding"] {
		for coding := range strings.SplitSeq(line, ",") {
			name, weight, _ := strings.Cut(coding, ";")
			if strings.EqualFold(strings.TrimSpace(name), "gzip") {
				q, err := strconv.ParseFloat(strings.TrimPrefix(strings.TrimSpace(weight), "q="), 64)
				return err != nil || q > 0
			}
		}
	}
	return false
}

// problemPage makes the "type" of a problem document a link to where it is explained.
func problemPage(c echo.Context) error {
	for _, kind := range upload.Kinds() {
		if kind.Code() == c.Param("code") {
			return c.Redirect(http.StatusFound, "/docs#problem-"+kind.Code())
		}
	}
	return upload.NotFound
}
