package api

import (
	"bytes"
	"encoding/json"
	"fmt"
	"html/template"
	"slices"
	"strings"

	"go.yaml.in/yaml/v3"
)

// document is as much of OpenAPI 3.1 as the page shows.
type document struct {
	Info       info                `yaml:"info"`
	Tags       []tag               `yaml:"tags"`
	Paths      ordered[*pathItem]  `yaml:"paths"`
	Components componentCollection `yaml:"components"`
}

type info struct {
	Title       string `yaml:"title"`
	Version     string `yaml:"version"`
	Summary     string `yaml:"summary"`
	Description string `yaml:"description"`
}

type tag struct {
	Name        string `yaml:"name"`
	Description string `yaml:"description"`
}

type pathItem struct {
	Servers []struct {
		URL string `yaml:"url"`
	} `yaml:"servers"`
	Parameters []*parameter `yaml:"parameters"`
	Get        *operation   `yaml:"get"`
	Head       *operation   `yaml:"head"`
	Post       *operation   `yaml:"post"`
	Put        *operation   `yaml:"put"`
	Patch      *operation   `yaml:"patch"`
	Delete     *operation   `yaml:"delete"`
}

func (p *pathItem) operations() ordered[*operation] {
	var all ordered[*operation]
	for _, m := range []ordEntry[*operation]{{"POST", p.Post}, {"PUT", p.Put}, {"GET", p.Get}, {"HEAD", p.Head}, {"PATCH", p.Patch}, {"DELETE", p.Delete}} {
		if m.Value != nil {
			all = append(all, m)
		}
	}
	return all
}

type operation struct {
	Tags        []string           `yaml:"tags"`
	OperationID string             `yaml:"operationId"`
	Summary     string             `yaml:"summary"`
	Description string             `yaml:"description"`
	Parameters  []*parameter       `yaml:"parameters"`
	RequestBody *requestBody       `yaml:"requestBody"`
	Responses   ordered[*response] `yaml:"responses"`
	Samples     []struct {
		Source string `yaml:"source"`
	} `yaml:"x-codeSamples"`
}

type parameter struct {
	Ref         string  `yaml:"$ref"`
	Name        string  `yaml:"name"`
	In          string  `yaml:"in"`
	Description string  `yaml:"description"`
	Required    bool    `yaml:"required"`
	Schema      *schema `yaml:"schema"`
}

type requestBody struct {
	Ref         string          `yaml:"$ref"`
	Description string          `yaml:"description"`
	Required    bool            `yaml:"required"`
	Content     ordered[*media] `yaml:"content"`
}

type response struct {
	Ref         string           `yaml:"$ref"`
	Description string           `yaml:"description"`
	Headers     ordered[*header] `yaml:"headers"`
	Content     ordered[*media]  `yaml:"content"`
}

type header struct {
	Ref         string  `yaml:"$ref"`
	Description string  `yaml:"description"`
	Schema      *schema `yaml:"schema"`
}

type media struct {
	Schema   *schema   `yaml:"schema"`
	Example  yaml.Node `yaml:"example"`
	Examples ordered[struct {
		Value yaml.Node `yaml:"value"`
	}] `yaml:"examples"`
}

// Samples are the media type's examples as indented JSON, by name.
func (m *media) Samples() ([]ordEntry[string], error) {
	var all []ordEntry[string]
	add := func(name string, node *yaml.Node) error {
		var text bytes.Buffer
		if err := writeJSON(&text, node, ""); err != nil {
			return err
		}
		all = append(all, ordEntry[string]{name, text.String()})
		return nil
	}
	if !m.Example.IsZero() {
		if err := add("", &m.Example); err != nil {
			return nil, err
		}
	}
	for i := range m.Examples {
		if err := add(m.Examples[i].Key, &m.Examples[i].Value.Value); err != nil {
			return nil, err
		}
	}
	return all, nil
}

type schema struct {
	Ref             string           `yaml:"$ref"`
	Type            typeList         `yaml:"type"`
	Description     string           `yaml:"description"`
	Enum            []any            `yaml:"enum"`
	Const           any              `yaml:"const"`
	Default         any              `yaml:"default"`
	Properties      ordered[*schema] `yaml:"properties"`
	Required        []string         `yaml:"required"`
	Items           *schema          `yaml:"items"`
	OneOf           []*schema        `yaml:"oneOf"`
	ContentEncoding string           `yaml:"contentEncoding"`
	Format          string           `yaml:"format"`
	Meanings        ordered[string]  `yaml:"x-meanings"`
}

// IsRequired reports whether an object needs the property.
func (s *schema) IsRequired(property string) bool {
	return slices.Contains(s.Required, property)
}

// describe is what a value is, in its own words or in those of the schema it refers to.
func (d *document) describe(s *schema) string {
	if s.Description == "" && s.Ref != "" {
		return d.Components.Schemas.get(refName(s.Ref)).Description
	}
	return s.Description
}

// typeName writes the type of a value, with links to the schemas it refers to.
func (d *document) typeName(s *schema) template.HTML {
	text := func(v string) template.HTML { return template.HTML(template.HTMLEscapeString(v)) } //nolint:gosec // escaped
	switch {
	case s == nil:
		return "bytes"
	case s.Ref != "":
		name := template.HTMLEscapeString(refName(s.Ref))
		return template.HTML(`<a href="#schema-` + name + `">` + name + `</a>`) //nolint:gosec // escaped
	case len(s.OneOf) > 0:
		var all []string
		for _, one := range s.OneOf {
			all = append(all, string(d.typeName(one)))
		}
		return template.HTML(strings.Join(all, " or ")) //nolint:gosec // each is escaped
	case s.Const != nil:
		return text(literal(s.Const))
	case len(s.Enum) > 0:
		var all []string
		for _, v := range s.Enum {
			all = append(all, literal(v))
		}
		return text(strings.Join(all, " | "))
	case s.Items != nil:
		return "array of " + d.typeName(s.Items)
	case s.ContentEncoding != "":
		return text(s.ContentEncoding)
	case len(s.Type) > 0:
		return text(strings.Join(s.Type, " or "))
	}
	return "bytes"
}

// literal writes a value as it stands in JSON.
func literal(v any) string {
	text, err := json.Marshal(v)
	if err != nil {
		return fmt.Sprint(v)
	}
	return string(text)
}

type componentCollection struct {
	Parameters    ordered[*parameter]   `yaml:"parameters"`
	RequestBodies ordered[*requestBody] `yaml:"requestBodies"`
	Headers       ordered[*header]      `yaml:"headers"`
	Responses     ordered[*response]    `yaml:"responses"`
	Schemas       ordered[*schema]      `yaml:"schemas"`
}

func parse(text []byte) (*document, error) {
	var d document
	if err := yaml.Unmarshal(text, &d); err != nil {
		return nil, err
	}
	return &d, nil
}

// ordered is a mapping in the order of the document.
type ordered[T any] []ordEntry[T]

type ordEntry[T any] struct {
	Key   string
	Value T
}

// UnmarshalYAML reads a mapping.
func (o *ordered[T]) UnmarshalYAML(node *yaml.Node) error {
	if node.Kind != yaml.MappingNode {
		return fmt.Errorf("line %d: not a mapping", node.Line)
	}
	for i := 0; i+1 < len(node.Content); i += 2 {
		var value T
		if err := node.Content[i+1].Decode(&value); err != nil {
			return err
		}
		*o = append(*o, ordEntry[T]{node.Content[i].Value, value})
	}
	return nil
}

// get returns the value of a key, the zero value if there is none.
func (o ordered[T]) get(key string) (value T) {
	for _, e := range o {
		if e.Key == key {
			return e.Value
		}
	}
	return value
}

// typeList is a schema's type: one name or several.
type typeList []string

// UnmarshalYAML reads "a" or [a, b].
func (t *typeList) UnmarshalYAML(node *yaml.Node) error {
	if node.Kind == yaml.ScalarNode {
		*t = typeList{node.Value}
		return nil
	}
	return node.Decode((*[]string)(t))
}

// writeJSON writes a YAML value as JSON in the order of the document, short arrays on one line.
func writeJSON(out *bytes.Buffer, node *yaml.Node, indent string) error {
	switch node.Kind {
	case yaml.AliasNode:
		return writeJSON(out, node.Alias, indent)
	case yaml.MappingNode:
		out.WriteString("{")
		for i := 0; i+1 < len(node.Content); i += 2 {
			if i > 0 {
				out.WriteString(",")
			}
			fmt.Fprintf(out, "\n%s  %q: ", indent, node.Content[i].Value)
			if err := writeJSON(out, node.Content[i+1], indent+"  "); err != nil {
				return err
			}
		}
		out.WriteString("\n" + indent + "}")
		return nil
	default: // a scalar, or an array: short enough for one line
	}
	var value any
	if err := node.Decode(&value); err != nil {
		return err
	}
	text, err := json.Marshal(value)
	out.Write(text)
	return err
}
