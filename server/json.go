package server

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"mime"
	"net/http"
	"strings"
	"sync"

	jsonv2 "github.com/go-json-experiment/json"
	"github.com/go-json-experiment/json/jsontext"
	"github.com/labstack/echo/v4"

	"gantry/upload"
)

// checkEncoding refuses compressed bodies: nothing is ever decompressed.
func checkEncoding(r *http.Request) error {
	for _, e := range r.Header["Content-Encoding"] { // each line of a repeated header counts
		if e != "" && !strings.EqualFold(e, "identity") {
			return upload.Errorf(upload.UnsupportedEncoding, "", "", "Content-Encoding is not accepted. Send the bytes as they are.")
		}
	}
	return nil
}

// decode reads a JSON request of at most limit bytes into the struct that into points to. It refuses
// unknown fields and anything after the value. With optional an empty body leaves into as it is.
func decode(c echo.Context, into any, limit int64, optional bool) error {
	r := c.Request()
	if optional && r.ContentLength == 0 {
		return nil
	}
	if err := checkEncoding(r); err != nil {
		return err
	}
	if t := r.Header.Get("Content-Type"); t != "application/json" {
		if media, _, err := mime.ParseMediaType(t); err != nil || media != "application/json" {
			return upload.Errorf(upload.UnsupportedType, "", "", "The request needs Content-Type: application/json. Set it.")
		}
	}
	tooLarge := upload.Errorf(upload.TooLarge, "", "", "A request of this kind has at most %d bytes. Send less.", limit)
	if r.ContentLength > limit {
		return tooLarge
	}
	text := texts.Get().(*bytes.Buffer)
	defer texts.Put(text)
	text.Reset()
	if _, err := text.ReadFrom(io.LimitReader(readerOf(c), limit+1)); err != nil {
		return upload.Wrap(upload.Invalid, "server.decode", "", err)
	}
	if int64(text.Len()) > limit {
		return tooLarge
	}
	if optional && text.Len() == 0 {
		return nil
	}
	return unmarshal(text.Bytes(), into)
}

// texts are buffers for requests. Proofs are long, and come often.
var texts = sync.Pool{New: func() any { return new(bytes.Buffer) }}

// unmarshal reads one JSON value strictly: known fields only, each once, in the case in which they are
// written.
func unmarshal(text []byte, into any) error {
	err := jsonv2.Unmarshal(text, into, jsonv2.RejectUnknownMembers(true))
	if err == nil {
		return nil
	}
	return invalidJSON(err)
}

func invalidJSON(err error) error {
	if known, ok := errors.AsType[*upload.Error](err); ok {
		return known // from one of upload's own types
	}
	e, ok := errors.AsType[*jsonv2.SemanticError](err)
	switch {
	case ok && errors.Is(err, jsonv2.ErrUnknownName):
		return upload.Errorf(upload.Invalid, "", "", "The request has a field that is not known here. Leave it out: %.80q", e.JSONPointer.LastToken())
	case ok:
		field := strings.TrimPrefix(string(e.JSONPointer), "/")
		kind := upload.Invalid
		if field == "size" || field == "chunk_size" {
			kind = upload.InvalidSize
		}
		return &upload.Error{Kind: kind, Detail: fmt.Sprintf("The JSON field %.80q cannot be this %s. Correct it.", field, e.JSONKind), Err: err}
	case errors.Is(err, jsontext.ErrDuplicateName):
		return &upload.Error{Kind: upload.Invalid, Detail: "The request has a field twice. Send it once.", Err: err}
	}
	return &upload.Error{Kind: upload.Invalid, Detail: "The request is not valid JSON, or there is something after it. Send one JSON object.", Err: err}
}

func writeJSON(c echo.Context, status int, value any) error {
	return writeJSONAs(c, status, "application/json", value)
}

func writeJSONAs(c echo.Context, status int, contentType string, value any) error {
	text, err := json.Marshal(value)
	if err != nil {
		return upload.Wrap(upload.Internal, "server.writeJSON", "", err)
	}
	w := c.Response()
	w.Header().Set("Content-Type", contentType)
	w.WriteHeader(status)
	if c.Request().Method == http.MethodHead {
		return nil
	}
	if _, err := w.Write(append(text, '\n')); err != nil {
		return upload.Wrap(upload.Canceled, "server.writeJSON", "", err)
	}
	return nil
}
