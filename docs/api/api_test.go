package api

import (
	"strings"
	"testing"
)

func TestFormatText(t *testing.T) {
	for text, want := range map[string]string{
		"one\n\ntwo":       "<p>one</p>\n<p>two</p>\n",
		"a `b<c` **d** e":  "<p>a <code>b&lt;c</code> <strong>d</strong> e</p>\n",
		"`**not strong**`": "<p><code>**not strong**</code></p>\n",
		"<script>":         "<p>&lt;script&gt;</p>\n",
	} {
		if got := string(formatText(text)); got != want {
			t.Errorf("%q: %q, want %q", text, got, want)
		}
	}
}

func TestRender(t *testing.T) {
	const document = `
info: {title: "T <b>", version: "1"}
tags: [{name: Things}]
paths:
  /x/{id}:
    parameters: [{$ref: '#/components/parameters/P'}]
    get:
      tags: [Things]
      operationId: getX
      summary: Get <i>x</i>
      responses:
        '404': {$ref: '#/components/responses/R'}
components:
  parameters:
    P: {name: id, in: path, required: true, schema: {type: [string, 'null']}}
  responses:
    R:
      description: Nothing.
      content:
        application/problem+json: {schema: {$ref: '#/components/schemas/Z', properties: {code: {enum: [not_there]}}}}
  schemas:
    Z: {type: object, required: [a], properties: {a: {type: array, items: {$ref: '#/components/schemas/Z'}}, b: {const: v}}}
    ErrorCode: {type: string, x-meanings: {not_there: It is not there.}}
`
	page, err := render([]byte(document))
	if err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{
		"T &lt;b&gt;", "Get &lt;i&gt;x&lt;/i&gt;", `id="op-getX"`, "<code>/x/{id}</code>", "string or null", `href="#problem-not_there"`,
		`id="problem-not_there"><td><code>not_there</code></td><td>404</td><td>It is not there.`, `array of <a href="#schema-Z">Z</a>`, "&#34;v&#34;",
	} {
		if !strings.Contains(string(page), want) {
			t.Errorf("the page has not %q", want)
		}
	}
	for _, broken := range []string{"paths: [", "paths: [1]", "components: {schemas: {X: {type: {}}}}"} {
		if _, err := render([]byte(broken)); err == nil {
			t.Errorf("%q is rendered", broken)
		}
	}
}
