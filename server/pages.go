package server

import (
	"net/http"

	"github.com/labstack/echo/v4"

	"gantry/docs/api"
	"gantry/upload"
	"gantry/web"
)

// pagePolicy lets a page use its own style sheet and forms, and nothing else.
const pagePolicy = "default-src 'none'; style-src 'self'; img-src 'self'; form-action 'self'; base-uri 'none'; frame-ancestors 'none'"

// pages adds what people look at in a browser.
func (s *Server) pages(e *echo.Echo) {
	serve := func(path, contentType string, text func() []byte) {
		handler := func(c echo.Context) error {
			h := c.Response().Header()
			h.Set("Content-Security-Policy", pagePolicy)
			h.Set("Cache-Control", "no-cache")
			return c.Blob(http.StatusOK, contentType, text())
		}
		e.GET(path, handler)
		e.HEAD(path, handler)
	}
	add := func(path, contentType string, text []byte) { serve(path, contentType, func() []byte { return text }) }
	const html, css, svg = "text/html; charset=utf-8", "text/css; charset=utf-8", "image/svg+xml"
	serve("/", html, func() []byte { return web.Page(s.opt.Token == "", s.opt.Notices()) })
	add("/style.css", css, web.Style)
	add("/icon.svg", svg, web.Icon)
	add("/docs", html, api.Page())
	add("/docs/style.css", css, api.Style)
	add("/openapi.yaml", "application/yaml", api.Document)
	e.GET("/problems/:code", problemPage)
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
