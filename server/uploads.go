package server

import (
	"errors"
	"net/http"
	"net/url"
	"strconv"
	"time"

	"github.com/labstack/echo/v4"

	"gantry/chunkstore"
	"gantry/server/ingest"
	"gantry/upload"
)

// initJSON is the request of POST /v1/uploads.
type initJSON struct {
	Name        string            `json:"name"`
	Path        string            `json:"path"`
	Size        *int64            `json:"size"`
	SHA1        *upload.SHA1      `json:"sha1"`
	Hint        *upload.SHA1      `json:"hint"`
	ChunkSize   *int64            `json:"chunk_size"`
	ContentType string            `json:"content_type"`
	Metadata    map[string]string `json:"metadata"`
	Replaces    string            `json:"replaces"`
	Direct      bool              `json:"direct,omitempty"`
}

func (s *Server) initUpload(c echo.Context) error {
	key, err := idempotencyKey(c.Request())
	if err != nil {
		return err
	}
	var r initJSON
	if err := decode(c, &r, s.opt.MaxJSON, false); err != nil {
		return err
	}
	opened, _, err := s.uploads.Init(c.Request().Context(), s.owner(c), ingest.InitRequest{
		Name: r.Name, Path: r.Path, Size: r.Size, SHA1: r.SHA1, Hint: r.Hint, ChunkSize: r.ChunkSize,
		ContentType: r.ContentType, Metadata: r.Metadata, Replaces: r.Replaces, Direct: r.Direct, Key: key,
	})
	if e, ok := errors.AsType[*ingest.ElsewhereError](err); ok && s.isElsewhere(c, e.Node) {
		return s.passJSON(c, e.Node, r) // it was begun there
	}
	if err != nil {
		return err
	}
	view, err := viewStatus(&opened.Status)
	if err != nil {
		return err
	}
	if open, ok := view.(uploadJSON); ok {
		open.Known, open.Challenge = opened.Known, opened.Challenge
		if opened.URLs != nil {
			urls := viewURLs(opened.URLs)
			open.Direct = &urls
		}
		view = open
	}
	c.Response().Header().Set("Location", "/v1/uploads/"+opened.ID)
	return writeJSON(c, http.StatusCreated, view)
}

// uploadStatus answers on any node: what the nodes share tells of all open uploads, and the database of those
// that have ended. Only where neither does the upload's own node is asked.
func (s *Server) uploadStatus(c echo.Context) error {
	id := c.Param("id")
	status, err := s.uploads.Status(c.Request().Context(), s.owner(c), id)
	if errors.Is(err, upload.NotFound) || errors.Is(err, upload.Unavailable) {
		if node, ok := upload.ParseUploadID(id); ok && s.isElsewhere(c, node) {
			return s.pass(c, node)
		}
	}
	if err != nil {
		return err
	}
	view, err := viewStatus(&status)
	if err != nil {
		return err
	}
	return writeJSON(c, http.StatusOK, view)
}

func (s *Server) listUploads(c echo.Context) error {
	q, err := query(c)
	if err != nil {
		return err
	}
	limit, err := pageLimit(q)
	if err != nil {
		return err
	}
	after := q.Get("cursor")
	if _, ok := upload.ParseUploadID(after); after != "" && !ok {
		return badCursor()
	}
	page, err := s.uploads.Uploads(c.Request().Context(), s.owner(c), after, limit)
	if err != nil {
		return err
	}
	list := listJSON[uploadJSON]{Items: make([]uploadJSON, len(page.Items))}
	for i := range page.Items {
		list.Items[i] = viewUpload(&page.Items[i])
	}
	if page.More && len(page.Items) > 0 {
		list.NextCursor = &page.Items[len(page.Items)-1].ID
	}
	return writeJSON(c, http.StatusOK, list)
}

// putChunk is the hot path: it looks at headers only and hands the body on as it comes.
func (s *Server) putChunk(c echo.Context) error {
	r := c.Request()
	index, err := chunkIndex(c)
	if err != nil {
		return err
	}
	body, err := rawBody(c)
	if err != nil {
		return err
	}
	s.metrics.chunks.Inc()
	start := time.Now()
	err = s.uploads.PutChunk(r.Context(), s.owner(c), c.Param("id"), index, body)
	s.metrics.chunks.Dec()
	if err != nil {
		return err
	}
	s.metrics.chunk.Observe(time.Since(start).Seconds())
	c.Response().WriteHeader(http.StatusNoContent)
	return nil
}

// chunkIndex reads the index from the path or from Chunk-Index. Indexes that no upload can have are
// refused here, so that whatever a client writes fits an int.
func chunkIndex(c echo.Context) (int, error) {
	text, given := c.Param("index"), c.Request().Header["Chunk-Index"]
	if text == "" && len(given) == 1 { // of two, a proxy in between may have meant the other
		text = given[0]
	}
	index, ok := parseIndex(text)
	if !ok {
		return 0, upload.Errorf(upload.InvalidIndex, "", "", "A chunk's index is a number from 0 to %d, in the path or in the header Chunk-Index. Send one.", upload.MaxChunks-1)
	}
	return index, nil
}

// parseIndex reads a decimal number below MaxChunks, digits only.
func parseIndex(text string) (int, bool) {
	if text == "" || len(text) > 5 {
		return 0, false
	}
	index := 0
	for i := range len(text) {
		if text[i] < '0' || text[i] > '9' {
			return 0, false
		}
		index = index*10 + int(text[i]-'0')
	}
	return index, index < upload.MaxChunks
}

// rawBody is a request's body whose bytes are content: with Content-Length, not encoded.
func rawBody(c echo.Context) (chunkstore.Body, error) {
	r := c.Request()
	if r.ContentLength < 0 {
		return chunkstore.Body{}, upload.Errorf(upload.LengthRequired, "", "", "The request needs a Content-Length; Transfer-Encoding is not accepted here. Send it with one, or use a form.")
	}
	if err := checkEncoding(r); err != nil {
		return chunkstore.Body{}, err
	}
	d, err := parseContentDigest(r.Header["Content-Digest"])
	if err != nil {
		return chunkstore.Body{}, err
	}
	return d.body(c, readerOf(c), r.ContentLength), nil
}

// chunkURLs answers where the chunks of a direct upload go.
func (s *Server) chunkURLs(c echo.Context) error {
	q, err := query(c)
	if err != nil {
		return err
	}
	first, count := 0, maxURLs
	if text := q.Get("first"); text != "" {
		var ok bool
		if first, ok = parseIndex(text); !ok {
			return upload.Errorf(upload.InvalidIndex, "", "", "\"first\" is the index of a chunk, from 0 to %d. Send one.", upload.MaxChunks-1)
		}
	}
	if text := q.Get("count"); text != "" {
		if count, err = strconv.Atoi(text); err != nil || count < 1 || count > maxURLs {
			return upload.Errorf(upload.Invalid, "", "", "\"count\" is a number from 1 to %d. Choose one, or leave it out.", maxURLs)
		}
	}
	urls, err := s.uploads.URLs(c.Request().Context(), s.owner(c), c.Param("id"), first, count)
	if err != nil {
		return err
	}
	return writeJSON(c, http.StatusOK, viewURLs(&urls))
}

// maxURLs is how many URLs one answer has at the most.
const maxURLs = 100

// instantRequestJSON is the request of POST /v1/uploads/{id}/instant.
type instantRequestJSON struct {
	SHA1  *upload.SHA1  `json:"sha1"`
	Proof *upload.Proof `json:"proof"`
}

func (s *Server) instantUpload(c echo.Context) error {
	var r instantRequestJSON
	if err := decode(c, &r, max(maxProofJSON, s.opt.MaxJSON), false); err != nil {
		return err
	}
	if r.SHA1 == nil {
		return upload.Errorf(upload.Invalid, "", "", "The request needs \"sha1\". Send the SHA-1 of the whole file.")
	}
	if r.Proof != nil && len(r.Proof.Leaves) > upload.ChallengeLeaves {
		return upload.Errorf(upload.Invalid, "", "", "A proof has at most %d leaves. Send those of the challenge.", upload.ChallengeLeaves)
	}
	result, err := s.uploads.Instant(c.Request().Context(), s.owner(c), c.Param("id"), ingest.InstantRequest{SHA1: *r.SHA1, Proof: r.Proof})
	if err != nil {
		return err
	}
	switch {
	case result.Challenge != nil:
		return writeJSON(c, http.StatusOK, instantJSON{Status: "challenge", Challenge: result.Challenge})
	case result.Answer != nil && result.Answer.File != nil:
		file := viewFile(result.Answer.File)
		return writeJSON(c, http.StatusOK, instantJSON{Status: "complete", Instant: &result.Answer.Instant, File: &file})
	}
	return writeJSON(c, http.StatusOK, instantJSON{Status: "continue"})
}

// completeJSONRequest is the request of POST /v1/uploads/{id}/complete.
type completeJSONRequest struct {
	SHA1 *upload.SHA1 `json:"sha1"`
	Size *int64       `json:"size"`
}

func (s *Server) completeUpload(c echo.Context) error {
	var r completeJSONRequest
	if err := decode(c, &r, s.opt.MaxJSON, true); err != nil {
		return err
	}
	start := time.Now()
	file, err := s.uploads.Complete(c.Request().Context(), s.owner(c), c.Param("id"), ingest.CompleteRequest{SHA1: r.SHA1, Size: r.Size})
	if err != nil {
		return err
	}
	s.metrics.finish.Observe(time.Since(start).Seconds())
	c.Response().Header().Set("Location", "/v1/files/"+file.ID)
	return writeJSON(c, http.StatusCreated, viewFile(&file))
}

func (s *Server) cancelUpload(c echo.Context) error {
	if err := s.uploads.Cancel(c.Request().Context(), s.owner(c), c.Param("id")); err != nil {
		return err
	}
	return c.NoContent(http.StatusNoContent)
}

// idempotencyKey returns the request's key, "" for none.
func idempotencyKey(r *http.Request) (string, error) {
	values := r.Header["Idempotency-Key"]
	if len(values) == 0 {
		return "", nil
	}
	key := values[0]
	valid := len(values) == 1 && key != "" && len(key) <= 255
	for i := range len(key) {
		valid = valid && '!' <= key[i] && key[i] <= '~'
	}
	if !valid {
		return "", upload.Errorf(upload.Invalid, "", "", "An Idempotency-Key has 1 to 255 visible ASCII characters. Choose another.")
	}
	return key, nil
}

// query is the request's query parameters.
func query(c echo.Context) (url.Values, error) {
	q, err := url.ParseQuery(c.Request().URL.RawQuery)
	if err != nil {
		return nil, &upload.Error{Kind: upload.Invalid, Detail: "The query in the address is malformed. Correct its encoding.", Err: err}
	}
	return q, nil
}

// pageLimit is how many items a page is to have.
func pageLimit(q url.Values) (int, error) {
	text := q.Get("limit")
	if text == "" {
		return 100, nil
	}
	limit, err := strconv.Atoi(text)
	if err != nil || limit < 1 || limit > 1000 {
		return 0, upload.Errorf(upload.Invalid, "", "", "\"limit\" is a number from 1 to 1000. Choose one, or leave it out.")
	}
	return limit, nil
}

func badCursor() error {
	return upload.Errorf(upload.Invalid, "", "", "\"cursor\" is not one that this listing gave. Begin again without it.")
}
