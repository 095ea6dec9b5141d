// Package api is the contract of the HTTP API: its OpenAPI document, and a page made from it for
// people to read.
package api

import (
	"bytes"
	_ "embed" // for the files beside this one
	"html/template"
	"slices"
	"strings"
	"sync"
)

// Document is the OpenAPI 3.1 document, in YAML.
//
//go:embed openapi.yaml
var Document []byte

// Style is the style sheet of Page, to be served as /docs/style.css.
//
//go:embed style.css
var Style []byte

//go:embed page.html
var pageHTML string

// Page returns the API reference as HTML. It needs nothing but Style and asks no other site for
// anything.
var Page = sync.OnceValue(func() []byte {
	page, err := render(Document)
	if err != nil {
		panic(err) // cannot happen: both files are part of the program, and a test renders them
	}
	return page
})

func render(document []byte) ([]byte, error) {
	d, err := parse(document)
	if err != nil {
		return nil, err
	}
	t, err := template.New("page").Funcs(template.FuncMap{
		"text": formatText, "type": d.typeName, "lower": strings.ToLower, "anchor": anchor, "join": strings.Join, "describe": d.describe,
	}).Parse(pageHTML)
	if err != nil {
		return nil, err
	}
	var out bytes.Buffer
	err = t.Execute(&out, d.page())
	return out.Bytes(), err
}

// page is what page.html shows.
type page struct {
	Info     info
	Groups   []group
	Schemas  []ordEntry[*schema]
	Problems []problemRow
}

type group struct {
	Tag        tag
	Operations []operationView
}

type operationView struct {
	Method, Path string
	*operation
	Parameters []*parameter
	Body       *requestBody
	Server     string // where it is not the usual one
	Answers    []answerView
}

type answerView struct {
	Status      string
	Description string
	Headers     []ordEntry[*header]
	Media       []ordEntry[*media]
	Codes       []string
}

type problemRow struct {
	Code, Meaning string
	Statuses      []string
}

// page arranges the document: operations by tag, problems by code.
func (d *document) page() page {
	p := page{Info: d.Info, Schemas: d.Components.Schemas}
	statuses := map[string][]string{}
	for _, t := range d.Tags {
		g := group{Tag: t}
		for _, path := range d.Paths {
			for _, m := range path.Value.operations() {
				if slices.Contains(m.Value.Tags, t.Name) {
					g.Operations = append(g.Operations, d.view(m.Key, path.Key, path.Value, m.Value))
				}
			}
		}
		for _, op := range g.Operations {
			for _, a := range op.Answers {
				for _, code := range a.Codes {
					if !slices.Contains(statuses[code], a.Status) {
						statuses[code] = append(statuses[code], a.Status)
					}
				}
			}
		}
		p.Groups = append(p.Groups, g)
	}
	for _, m := range d.Components.Schemas.get("ErrorCode").Meanings {
		p.Problems = append(p.Problems, problemRow{m.Key, m.Value, statuses[m.Key]})
	}
	return p
}

func (d *document) view(method, path string, item *pathItem, op *operation) operationView {
	v := operationView{Method: method, Path: path, operation: op, Body: op.RequestBody}
	if len(item.Servers) > 0 {
		v.Server = item.Servers[0].URL
	}
	for _, p := range slices.Concat(item.Parameters, op.Parameters) {
		if p.Ref != "" {
			p = d.Components.Parameters.get(refName(p.Ref))
		}
		v.Parameters = append(v.Parameters, p)
	}
	if v.Body != nil && v.Body.Ref != "" {
		v.Body = d.Components.RequestBodies.get(refName(v.Body.Ref))
	}
	for _, r := range op.Responses {
		response := r.Value
		if response.Ref != "" {
			response = d.Components.Responses.get(refName(response.Ref))
		}
		a := answerView{Status: r.Key, Description: response.Description, Media: response.Content}
		for _, h := range response.Headers {
			if h.Value.Ref != "" {
				h.Value = d.Components.Headers.get(refName(h.Value.Ref))
			}
			a.Headers = append(a.Headers, h)
		}
		for _, m := range response.Content {
			if code := m.Value.Schema.Properties.get("code"); m.Key == "application/problem+json" && code != nil {
				for _, value := range code.Enum {
					a.Codes = append(a.Codes, value.(string))
				}
			}
		}
		v.Answers = append(v.Answers, a)
	}
	return v
}

func refName(ref string) string { return ref[strings.LastIndexByte(ref, '/')+1:] }

// anchor names an operation in the page's address.
func anchor(op operationView) string { return "op-" + op.OperationID }

// formatText turns the little Markdown that descriptions use into HTML: paragraphs, `code`, **strong**.
func formatText(text string) template.HTML {
	var out strings.Builder
	for paragraph := range strings.SplitSeq(strings.TrimSpace(text), "\n\n") {
		out.WriteString("<p>")
		for i, piece := range strings.Split(paragraph, "`") {
			if i%2 == 1 {
				out.WriteString("<code>" + template.HTMLEscapeString(piece) + "</code>")
				continue
			}
			for j, plain := range strings.Split(piece, "**") {
				if j%2 == 1 {
					out.WriteString("<strong>" + template.HTMLEscapeString(plain) + "</strong>")
				} else {
					out.WriteString(template.HTMLEscapeString(plain))
				}
			}
		}
		out.WriteString("</p>\n")
	}
	return template.HTML(out.String()) //nolint:gosec // built from escaped pieces of a file of this program
}
