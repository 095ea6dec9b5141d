// Package web is the page that the server shows at its root.
package web

import (
	"bytes"
	_ "embed" // for the files beside this one
	"html/template"
)

// Style is the page's style sheet, to be served as /style.css.
//
//go:embed style.css
var Style []byte

// Icon is the page's icon, to be served as /icon.svg.
//
//go:embed icon.svg
var Icon []byte

//go:embed page.html
var pageHTML string

var page = template.Must(template.New("page").Parse(pageHTML))

// Page returns the page. A browser can upload from it only where no login is needed: with open it has
// a form for that, otherwise it shows how to upload with a token. Notices are sentences about how the server is.
func Page(open bool, notices []string) []byte {
	var out bytes.Buffer
	err := page.Execute(&out, struct {
		Open    bool
		Notices []string
	}{open, notices})
	if err != nil {
		panic(err) // cannot happen: the template is part of the program, and a test renders it
	}
	return out.Bytes()
}
