package server

import (
	"context"
	"crypto/rand"
	"encoding/base64"
	"errors"
	"fmt"
	"io"
	"mime"
	"net/http"
	"os"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/labstack/echo/v4"

	"gantry/chunkstore"
	"gantry/server/ingest"
	"gantry/store"
	"gantry/upload"
)

// sendBuffer is how much of an answer is read and written at a time. With Stall it makes the least
// speed of a receiver: 128 KiB in two minutes.
const sendBuffer = 128 << 10

var sendBuffers = sync.Pool{New: func() any { return new([sendBuffer]byte) }}

// opener opens length bytes of some content from offset on.
type opener func(ctx context.Context, offset, length int64) (io.ReadCloser, error)

// fileContent sends a file: whole, one range, or a few (multipart/byteranges).
func (s *Server) fileContent(c echo.Context) (err error) {
	r, h := c.Request(), c.Response().Header()
	content, err := s.uploads.Content(r.Context(), s.owner(c), c.Param("id"))
	if e, ok := errors.AsType[*ingest.ElsewhereError](err); ok && s.isElsewhere(c, e.Node) {
		return s.pass(c, e.Node)
	}
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, content.Close()) }()
	f := &content.File
	// The blob's id and not the SHA-1: two files with one SHA-1 can differ.
	etag := `"` + f.BlobID + `"`
	h.Set("ETag", etag)
	h.Set("Last-Modified", f.UpdatedAt.UTC().Format(http.TimeFormat))
	h.Set("Cache-Control", "private, no-cache")
	h.Set("Content-Security-Policy", "sandbox; default-src 'none'; frame-ancestors 'none'")
	notModified, ranged, err := preconditions(r, etag, f.UpdatedAt)
	if err != nil {
		return err
	}
	if notModified {
		c.Response().WriteHeader(http.StatusNotModified)
		return nil
	}
	h.Set("Accept-Ranges", "bytes")
	h.Set("Content-Disposition", contentDisposition(f.Name))
	if !f.SHA1.IsZero() {
		h.Set("Repr-Digest", "sha=:"+base64.StdEncoding.EncodeToString(f.SHA1[:])+":")
	}
	h.Set("Content-Type", servedType(f.ContentType))
	var spans []span
	if ranged {
		if spans, err = parseRange(r.Header.Get("Range"), f.Size); err != nil {
			h.Set("Content-Range", "bytes */"+strconv.FormatInt(f.Size, 10))
			return err
		}
	}
	mayRedirect, err := redirects(c)
	if err != nil {
		return err
	}
	if mayRedirect && content.URL != nil && len(spans) < 2 && r.Method == http.MethodGet {
		if address := presign(r.Context(), &content); address != "" {
			return redirect(c, address)
		}
	}
	d := newDownload(c, content.Open)
	defer d.free()
	switch len(spans) {
	case 0:
		return d.send(http.StatusOK, span{0, f.Size})
	case 1:
		h.Set("Content-Range", spans[0].contentRange(f.Size))
		return d.send(http.StatusPartialContent, spans[0])
	}
	return d.sendParts(spans, f.Size)
}

// presignedFor is for how long the URL of a redirect is good. It is looked at when a request begins: a download may
// last longer.
const presignedFor = time.Hour

// redirects reports whether the client may be sent elsewhere for the content.
func redirects(c echo.Context) (bool, error) {
	q, err := query(c)
	if err != nil {
		return false, err
	}
	switch q.Get("redirect") {
	case "", "true":
		return true, nil
	case "false":
		return false, nil
	}
	return false, upload.Errorf(upload.Invalid, "", "", "redirect is true or false. Leave it away if it does not matter.")
}

// presign returns where the client can fetch the content by itself, "" if that cannot be said now.
func presign(ctx context.Context, content *ingest.FileContent) string {
	u, err := content.URL(ctx, store.PresignOptions{
		Expires: presignedFor, ContentType: servedType(content.File.ContentType), Disposition: contentDisposition(content.File.Name),
	})
	if err != nil {
		return "" // the node tries to send it
	}
	return u.String()
}

// redirect sends the client to where the content is.
func redirect(c echo.Context, address string) error {
	h := c.Response().Header()
	for _, name := range []string{"Content-Type", "Content-Disposition", "Content-Range", "Repr-Digest", "Accept-Ranges"} {
		h.Del(name) // they are the content's, and this is none
	}
	h.Set("Cache-Control", "private, no-store")
	return c.Redirect(http.StatusFound, address)
}

// uploadContent sends the part of an open upload that is contiguous and hashed: always 206.
func (s *Server) uploadContent(c echo.Context) (err error) {
	r, h := c.Request(), c.Response().Header()
	prefix, err := s.uploads.Prefix(r.Context(), s.owner(c), c.Param("id"))
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, prefix.Content.Close()) }()
	here, whole := prefix.Content.Size(), "*"
	if prefix.Upload.Size >= 0 {
		whole = strconv.FormatInt(prefix.Upload.Size, 10)
	}
	part, err := prefixSpan(r, here)
	if err != nil {
		h.Set("Content-Range", "bytes */"+whole)
		return err
	}
	h.Set("Content-Security-Policy", "sandbox; default-src 'none'; frame-ancestors 'none'")
	h.Set("Accept-Ranges", "bytes")
	h.Set("Content-Disposition", contentDisposition(prefix.Upload.Name))
	h.Set("Content-Type", servedType(prefix.Upload.ContentType))
	h.Set("Content-Range", fmt.Sprintf("bytes %d-%d/%s", part.offset, part.offset+part.length-1, whole))
	d := newDownload(c, openSection(prefix.Content))
	defer d.free()
	return d.send(http.StatusPartialContent, part)
}

// prefixSpan is what of a prefix of so many bytes a request asks for. The end of the content is not
// there, so "the last n bytes" cannot be; nor can several ranges.
func prefixSpan(r *http.Request, here int64) (span, error) {
	header := r.Header.Get("Range")
	if here == 0 {
		return span{}, upload.Errorf(upload.BadRange, "", "", "Nothing of the upload can be read yet. Try again when hashed_bytes is not 0.")
	}
	if header == "" || r.Method == http.MethodHead {
		return span{0, here}, nil
	}
	if _, list, _ := strings.Cut(header, "="); strings.HasPrefix(strings.TrimSpace(list), "-") || strings.Contains(list, ",") {
		return span{}, upload.Errorf(upload.BadRange, "", "", "Of an open upload one range can be read, counted from its beginning. Ask for such a one.")
	}
	spans, err := parseRange(header, here)
	if err != nil {
		return span{}, err
	}
	if len(spans) == 0 {
		return span{0, here}, nil
	}
	return spans[0], nil
}

func openSection(content chunkstore.Content) opener {
	return func(_ context.Context, offset, length int64) (io.ReadCloser, error) {
		return io.NopCloser(io.NewSectionReader(content, offset, length)), nil
	}
}

// download is one answer whose body is content.
type download struct {
	c    echo.Context
	open opener
	buf  *[sendBuffer]byte
}

func newDownload(c echo.Context, open opener) *download {
	return &download{c: c, open: open, buf: sendBuffers.Get().(*[sendBuffer]byte)}
}

func (d *download) free() { sendBuffers.Put(d.buf) }

// send answers with one part of the content.
func (d *download) send(status int, part span) error {
	w := d.c.Response()
	w.Header().Set("Content-Length", strconv.FormatInt(part.length, 10))
	if d.c.Request().Method == http.MethodHead || part.length == 0 {
		w.WriteHeader(status)
		return nil
	}
	return d.copy(part, func() error { w.WriteHeader(status); return nil })
}

// sendParts answers with several parts as multipart/byteranges (RFC 9110, section 14.6).
func (d *download) sendParts(parts []span, size int64) error {
	w := d.c.Response()
	boundary := rand.Text()
	heads := make([]string, len(parts))
	tail := "\r\n--" + boundary + "--\r\n"
	length := int64(len(tail))
	for i, part := range parts {
		heads[i] = "\r\n--" + boundary + "\r\nContent-Type: " + w.Header().Get("Content-Type") + "\r\nContent-Range: " + part.contentRange(size) + "\r\n\r\n"
		length += int64(len(heads[i])) + part.length
	}
	w.Header().Set("Content-Type", "multipart/byteranges; boundary="+boundary)
	w.Header().Set("Content-Length", strconv.FormatInt(length, 10))
	for i, part := range parts {
		err := d.copy(part, func() error {
			if i == 0 {
				w.WriteHeader(http.StatusPartialContent)
			}
			return d.write([]byte(heads[i]))
		})
		if err != nil {
			return err
		}
	}
	return d.write([]byte(tail))
}

// copy opens a part, calls begin, and writes the part. What goes wrong before begin can still be
// answered with a problem document.
func (d *download) copy(part span, begin func() error) (err error) {
	const op = "server.download"
	src, err := d.open(d.c.Request().Context(), part.offset, part.length)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, src.Close()) }()
	n, err := io.ReadFull(src, d.buf[:min(part.length, sendBuffer)])
	if err != nil {
		return upload.Wrap(upload.Internal, op, "", err)
	}
	if err := begin(); err != nil {
		return err
	}
	for left := part.length; ; {
		if err := d.write(d.buf[:n]); err != nil {
			return err
		}
		if left -= int64(n); left == 0 {
			return nil
		}
		if n, err = io.ReadFull(src, d.buf[:min(left, sendBuffer)]); err != nil {
			return upload.Wrap(upload.Internal, op, "", err)
		}
	}
}

func (d *download) write(p []byte) error {
	if _, err := d.c.Response().Write(p); err != nil {
		kind := upload.Canceled
		if errors.Is(err, os.ErrDeadlineExceeded) {
			kind = upload.Timeout
		}
		return upload.Wrap(kind, "server.download", "", err)
	}
	return nil
}

// servedType is the media type to serve stored content under: the stored one if it is one.
func servedType(stored string) string {
	if media, _, err := mime.ParseMediaType(stored); err == nil && strings.Contains(media, "/") && isASCII(stored) {
		return stored
	}
	return "application/octet-stream"
}

func isASCII(s string) bool {
	for i := range len(s) {
		if s[i] < ' ' || s[i] > '~' {
			return false
		}
	}
	return true
}

// contentDisposition makes a browser save the content under name (RFC 6266). Where the name is more
// than plain ASCII, filename has a likeness of it for old programs, and filename* the name (RFC 8187).
func contentDisposition(name string) string {
	var plain, encoded strings.Builder
	for _, r := range name {
		if r < ' ' || r > '~' || r == '"' || r == '\\' || r == '%' || r == '/' {
			r = '_'
		}
		plain.WriteRune(r)
	}
	value := `attachment; filename="` + plain.String() + `"`
	if plain.String() == name {
		return value
	}
	for i := range len(name) {
		c := name[i]
		if 'a' <= c && c <= 'z' || 'A' <= c && c <= 'Z' || '0' <= c && c <= '9' || strings.IndexByte("!#$&+-.^_`|~", c) >= 0 {
			encoded.WriteByte(c)
		} else {
			fmt.Fprintf(&encoded, "%%%02X", c)
		}
	}
	return value + "; filename*=UTF-8''" + encoded.String()
}
