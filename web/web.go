// Package web is the page that the server shows at its root, and the uploader for pages of other sites. web/build.sh makes
// dist of web/page and web/uploader.
package web

import (
	"bytes"
	"compress/gzip"
	"crypto/sha256"
	"embed"
	"encoding/hex"
	"html/template"
	"sync"
)

//go:embed dist icon.svg
var embedded embed.FS

// File is a file as it is served.
type File struct {
	Type  string // media type
	Plain []byte
	Gzip  []byte // the same, compressed
	ETag  string // strong, of Plain; see GzipETag
}

// GzipETag is the strong validator of Gzip: other bytes than Plain.
func (f *File) GzipETag() string { return f.ETag[:len(f.ETag)-1] + `-gzip"` }

// Files are the files that the page needs, by the path under which they are served.
var Files = sync.OnceValue(func() map[string]File {
	const script = "text/javascript; charset=utf-8"
	files := map[string]File{}
	for path, f := range map[string]struct{ name, kind string }{
		"/app.js":         {"dist/app.js", script},
		"/app.css":        {"dist/app.css", "text/css; charset=utf-8"},
		"/uploader.js":    {"dist/uploader.js", script},
		"/hash.worker.js": {"dist/hash.worker.js", script},
		"/icon.svg":       {"icon.svg", "image/svg+xml"},
	} {
		files[path] = NewFile(f.kind, read(f.name))
	}
	return files
})

// NewFile makes a file of its media type and text.
func NewFile(kind string, text []byte) File {
	var packed bytes.Buffer
	w, _ := gzip.NewWriterLevel(&packed, gzip.BestCompression) // the level is a valid one
	_, _ = w.Write(text)                                       // to memory
	_ = w.Close()
	sum := sha256.Sum256(text)
	return File{Type: kind, Plain: text, Gzip: packed.Bytes(), ETag: `"` + hex.EncodeToString(sum[:16]) + `"`}
}

func read(name string) []byte {
	text, err := embedded.ReadFile(name)
	if err != nil {
		panic(err) // cannot happen: the file is part of the program, and a test reads it
	}
	return text
}

var page = sync.OnceValue(func() *template.Template {
	return template.Must(template.New("page").Parse(string(read("dist/index.html"))))
})

// Page returns the page. With open nobody has to log in, so that it also has a form for browsers without scripts. Notices are
// sentences about how the server is.
func Page(open bool, notices []string) File {
	var out bytes.Buffer
	err := page().Execute(&out, struct {
		Open    bool
		Notices []string
	}{open, notices})
	if err != nil {
		panic(err) // cannot happen: the template is part of the program, and a test renders it
	}
	return NewFile("text/html; charset=utf-8", out.Bytes())
}
