package server

import (
	"bytes"
	"encoding/json"
	"errors"
	"io"
	"mime"
	"net/http"
	"strings"

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
	data, err := io.ReadAll(io.LimitReader(readerOf(c), limit+1))
	if err != nil {
		return upload.Wrap(upload.Invalid, "server.decode", "", err)
	}
	if int64(len(data)) > limit {
		return tooLarge
	}
	if optional && len(data) == 0 {
		return nil
	}
	d := json.NewDecoder(bytes.NewReader(data))
	d.DisallowUnknownFields()
	if err := d.Decode(into); err != nil {
		return invalidJSON(err)
	}
	if _, err := d.Token(); !errors.Is(err, io.EOF) {
		return upload.Errorf(upload.Invalid, "", "", "There is something after the JSON object. Send one object only.")
	}
	return nil
}

func invalidJSON(err error) error {
	if upload.KindOf(err) != upload.Internal {
		return err // from one of upload's own types
	}
	if e, ok := errors.AsType[*json.UnmarshalTypeError](err); ok {
		kind := upload.Invalid
		if e.Field == "size" || e.Field == "chunk_size" {
			kind = upload.InvalidSize
		}
		return &upload.Error{Kind: kind, Detail: "The JSON field \"" + e.Field + "\" cannot be a " + e.Value + ". Correct it.", Err: err}
	}
	if field, ok := strings.CutPrefix(err.Error(), "json: unknown field "); ok {
		return upload.Errorf(upload.Invalid, "", "", "The request has a field that is not known here. Leave it out: %.80s", field)
	}
	return &upload.Error{Kind: upload.Invalid, Detail: "The request is not valid JSON. Correct it.", Err: err}
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
