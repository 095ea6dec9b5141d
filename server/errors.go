package server

import (
	"context"
	"errors"
	"log/slog"
	"net/http"
	"strconv"
	"time"

	"github.com/labstack/echo/v4"

	"gantry/upload"
)

// answer is how one kind of error is told to a client.
type answer struct {
	status int
	title  string
	detail string        // where the error itself has none
	retry  time.Duration // Retry-After; 0: none
}

// statusClientGone is what is logged and counted for a request whose client went away. It is not
// registered with IANA and nobody is there to read it.
const statusClientGone = 499

// answers is the only place where kinds of error become HTTP.
var answers = map[upload.Kind]answer{
	upload.Internal:            {status: 500, title: "Internal error", detail: "Something went wrong in the server. Report it with the request_id, under which the log says more."},
	upload.Invalid:             {status: 400, title: "Invalid request", detail: "The request is not as documented. Correct it; /docs has the documentation."},
	upload.InvalidName:         {status: 400, title: "Invalid name", detail: "The name, path, content type or metadata is not acceptable. Choose another."},
	upload.InvalidSize:         {status: 400, title: "Invalid size", detail: "The size is negative, too large for a number, or not what was announced. Send the file's length in bytes."},
	upload.InvalidIndex:        {status: 400, title: "Invalid chunk index", detail: "The upload has no such chunk. Look at its chunk_count."},
	upload.ShortBody:           {status: 400, title: "Body too short", detail: "Fewer bytes came than were announced. Send them again."},
	upload.LongBody:            {status: 413, title: "Body too long", detail: "The chunk is longer than the upload's chunk_size, or than its last chunk. Cut the file as the upload says."},
	upload.TooLarge:            {status: 413, title: "Too large", detail: "The request is larger than this server takes. Send less, or ask for a higher limit."},
	upload.LengthRequired:      {status: 411, title: "Length required", detail: "The request needs a Content-Length. Send it with one."},
	upload.UnsupportedEncoding: {status: 415, title: "Unsupported content encoding", detail: "Send the bytes as they are, without Content-Encoding."},
	upload.UnsupportedType:     {status: 415, title: "Unsupported media type", detail: "The request's Content-Type is not accepted here. Take the one that /docs names."},
	upload.Unauthenticated:     {status: 401, title: "Not authenticated", detail: "The request needs an Authorization header with a valid bearer token. Ask the server's operator for one."},
	upload.Forbidden:           {status: 403, title: "Forbidden", detail: "The request comes from a foreign origin, or for a foreign host. Use the server's own address."},
	upload.NotFound:            {status: 404, title: "Not found", detail: "There is no such thing, or it is not yours. Look at the listing for what there is."},
	upload.Gone:                {status: 410, title: "Gone", detail: "It is not there any more. Upload it again."},
	upload.NotOpen:             {status: 409, title: "Upload is not open", detail: "The upload takes no more chunks. Look at its state."},
	upload.ChunkConflict:       {status: 409, title: "Chunk has other bytes", detail: "The chunk is already there with other bytes. If the file changed, begin a new upload."},
	upload.Incomplete:          {status: 409, title: "Chunks are missing", detail: "Send the missing chunks, then complete again."},
	upload.DigestMismatch:      {status: 422, title: "Digest differs", detail: "The bytes are not those whose digest was announced. Send them again."},
	upload.KeyReused:           {status: 422, title: "Idempotency-Key was used before", detail: "The Idempotency-Key was used for another request. Take a new one."},
	upload.BadRange:            {status: 416, title: "Range not satisfiable", detail: "The requested range lies outside the content. Ask for one inside; Content-Range has the length."},
	upload.NoRoom:              {status: 507, title: "No room", detail: "The server's disk has no room for this. Try again later.", retry: time.Minute},
	upload.Unavailable:         {status: 503, title: "Temporarily unavailable", detail: "This is not possible at the moment. Try again.", retry: 5 * time.Second},
	upload.TooMany:             {status: 429, title: "Too many requests", detail: "Slow down and try again.", retry: 5 * time.Second},
	upload.Conflict:            {status: 409, title: "Conflict", detail: "It changed meanwhile. Look at it again."},
	upload.Canceled:            {status: statusClientGone, title: "Client went away", detail: "The connection was closed before the request was answered. Send it again."},
	upload.Timeout:             {status: 408, title: "Too slow", detail: "The request's body came too slowly. Try again."},
	upload.MethodNotAllowed:    {status: 405, title: "Method not allowed", detail: "The address does not take this method. Use one of those that Allow lists."},
	upload.PreconditionFailed:  {status: 412, title: "Precondition failed", detail: "The content is not the version that the request asks for. Ask without the condition to get what there is."},
	upload.DirectUpload:        {status: 409, title: "Chunks go to the store", detail: "The chunks of this upload go to the store. Send them to the upload's URLs."},
}

// problem is an error as a client sees it (RFC 9457).
type problem struct {
	Type      string         `json:"type"`
	Title     string         `json:"title"`
	Status    int            `json:"status"`
	Detail    string         `json:"detail"`
	Code      string         `json:"code"`
	RequestID string         `json:"request_id"`
	Missing   []upload.Range `json:"missing,omitempty"`
	Expected  string         `json:"expected,omitempty"`
	Actual    string         `json:"actual,omitempty"`
	State     upload.State   `json:"state,omitempty"`
	Files     []fileJSON     `json:"files,omitempty"`
}

// withState adds to an error how the upload ended.
type withState struct {
	error
	state upload.State
}

func (e withState) Unwrap() error { return e.error }

// withFiles adds to an error the files that the same request stored before it failed.
type withFiles struct {
	error
	files []fileJSON
}

func (e withFiles) Unwrap() error { return e.error }

// problemOf describes err to a client. Of errors without a kind it tells nothing.
func problemOf(err error) problem {
	kind := kindOf(err)
	a := answers[kind]
	p := problem{Type: "/problems/" + kind.Code(), Title: a.title, Status: a.status, Code: kind.Code()}
	if kind != upload.Internal {
		describe(err, kind, &p)
	}
	if p.Detail == "" {
		p.Detail = a.detail
	}
	if e, ok := errors.AsType[withState](err); ok {
		p.State = e.state
	}
	if e, ok := errors.AsType[withFiles](err); ok {
		p.Files = e.files
	}
	return p
}

// describe takes over what the errors of this kind in err's tree have for the client, outermost first.
func describe(err error, kind upload.Kind, p *problem) {
	if e, ok := err.(*upload.Error); ok && e.Kind == kind { //nolint:errorlint // one node of the tree at a time
		if p.Detail == "" {
			p.Detail = e.Detail
		}
		if p.Missing == nil {
			p.Missing = e.Ranges
		}
		if p.Expected == "" && p.Actual == "" {
			p.Expected, p.Actual = e.Want, e.Got
		}
	}
	switch e := err.(type) { //nolint:errorlint // see above
	case interface{ Unwrap() error }:
		describe(e.Unwrap(), kind, p)
	case interface{ Unwrap() []error }:
		for _, inner := range e.Unwrap() {
			describe(inner, kind, p)
		}
	}
}

// kindOf is upload.KindOf that also knows the errors of Echo and of contexts.
func kindOf(err error) upload.Kind {
	if kind := upload.KindOf(err); kind != upload.Internal {
		return kind
	}
	if e, ok := errors.AsType[*echo.HTTPError](err); ok {
		switch e.Code {
		case http.StatusNotFound:
			return upload.NotFound
		case http.StatusMethodNotAllowed:
			return upload.MethodNotAllowed
		}
	}
	if errors.Is(err, context.Canceled) {
		return upload.Canceled
	}
	return upload.Internal
}

// fail answers a request with an error and logs what an operator has to know. If an answer has
// begun it only logs, and reports that the connection must be cut so that the client does not take
// what it got for the whole.
func (f *front) fail(c echo.Context, err error) (cut bool) {
	w := c.Response()
	p := problemOf(err)
	p.RequestID = w.Header().Get(headerRequestID)
	f.logFailure(c, p.Status, p.RequestID, err)
	if w.Committed {
		return true
	}
	h := w.Header()
	if in := bodyOf(c); in != nil && p.Status != http.StatusUnauthorized && p.Status != http.StatusForbidden {
		in.drain()
	}
	for _, name := range []string{"Content-Length", "Content-Disposition", "ETag", "Last-Modified", "Repr-Digest", "Accept-Ranges"} {
		h.Del(name)
	}
	h.Set("Cache-Control", "no-store")
	if retry := answers[kindOf(err)].retry; retry > 0 {
		h.Set("Retry-After", strconv.Itoa(int(retry.Seconds())))
	}
	if p.Status == http.StatusUnauthorized {
		h.Set("WWW-Authenticate", `Bearer realm="gantry"`)
	}
	return writeJSONAs(c, p.Status, "application/problem+json", p) != nil && w.Committed
}

func (f *front) logFailure(c echo.Context, status int, requestID string, err error) {
	level := slog.LevelDebug
	switch status {
	case http.StatusInternalServerError:
		level = slog.LevelError
	case http.StatusServiceUnavailable, http.StatusInsufficientStorage:
		level = slog.LevelWarn
	}
	ctx := c.Request().Context()
	if !f.log.Enabled(ctx, level) {
		return
	}
	f.log.LogAttrs(ctx, level, "request failed",
		slog.String("method", c.Request().Method), slog.String("route", c.Path()),
		slog.Int("status", status), slog.String("client", clientOf(c)), slog.String("request_id", requestID), slog.Any("error", err))
}
