package main

import (
	"bytes"
	"context"
	"errors"
	"io"
	"mime"
	"net/http"
	"path"
	"path/filepath"
	"strings"

	"golang.org/x/text/unicode/norm"

	"gantry/client"
)

// withName lists the files with exactly this path and name, newest first. The server keeps names in
// Unicode's composed form, whatever form they arrive in.
func withName(ctx context.Context, c *client.Client, full string) ([]client.File, error) {
	folder, name := path.Split(norm.NFC.String(full))
	folder = strings.TrimSuffix(folder, "/")
	var found []client.File
	for f, err := range c.Files(ctx, client.FileQuery{Name: name, Path: &folder}) {
		if err != nil {
			return nil, err
		}
		if f.Name == name && f.Path == folder {
			found = append(found, f)
		}
	}
	return found, nil
}

// contentType guesses a file's media type from its name, or else from its first bytes.
func contentType(name string, src *client.Source) string {
	if t := mime.TypeByExtension(filepath.Ext(name)); t != "" {
		return t
	}
	if src.Size() <= 0 {
		return "application/octet-stream"
	}
	head := make([]byte, min(512, src.Size()))
	n, err := src.ReadAt(head, 0)
	if err != nil && !errors.Is(err, io.EOF) {
		return "application/octet-stream" // the upload will say what is wrong with the file
	}
	return http.DetectContentType(bytes.Clone(head[:n]))
}

// localName is the name under which a file is saved here. What a server calls a file decides nothing
// beyond its last part.
func localName(f *client.File) (string, bool) {
	name := f.Name
	ok := name != "" && name == filepath.Base(name) && filepath.IsLocal(name) && name != "." && oneLine(name) == name
	return name, ok
}
