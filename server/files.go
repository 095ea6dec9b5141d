package server

import (
	"encoding/base64"
	"encoding/json"
	"net/http"
	"strings"
	"time"

	"github.com/labstack/echo/v4"

	"gantry/meta"
	"gantry/server/ingest"
	"gantry/upload"
)

// postFiles takes whole files in: one as the raw body, or several as multipart/form-data.
func (s *Server) postFiles(c echo.Context) error {
	r := c.Request()
	key, err := idempotencyKey(r)
	if err != nil {
		return err
	}
	if kind := mainType(r.Header.Get("Content-Type")); kind == "multipart" {
		return s.postForm(c, key)
	}
	body, err := rawBody(c)
	if err != nil {
		return err
	}
	q, err := query(c)
	if err != nil {
		return err
	}
	request := ingest.FileRequest{
		Name: q.Get("name"), Path: q.Get("path"), Replaces: q.Get("replaces"), ContentType: r.Header.Get("Content-Type"), Key: key,
	}
	if text := q.Get("sha1"); text != "" {
		sum, err := upload.ParseSHA1(text)
		if err != nil {
			return err
		}
		request.SHA1 = &sum
	}
	file, err := s.uploads.PutFile(r.Context(), s.owner(c), request, body)
	if err != nil {
		return err
	}
	if err := bodyOf(c).rest(); err != nil {
		return err
	}
	c.Response().Header().Set("Location", "/v1/files/"+file.ID)
	return writeJSON(c, http.StatusCreated, viewFile(&file))
}

// mainType is what stands before the slash of a media type, in lower case.
func mainType(contentType string) string {
	kind, _, _ := strings.Cut(contentType, "/")
	return strings.ToLower(strings.TrimSpace(kind))
}

func (s *Server) getFile(c echo.Context) error {
	file, err := s.uploads.File(c.Request().Context(), s.owner(c), c.Param("id"))
	if err != nil {
		return err
	}
	return writeJSON(c, http.StatusOK, viewFile(&file))
}

func (s *Server) fileTransfer(c echo.Context) error {
	file, err := s.uploads.File(c.Request().Context(), s.owner(c), c.Param("id"))
	if err != nil {
		return err
	}
	if file.Transfer.ID == "" {
		return upload.Errorf(upload.NotFound, "server.fileTransfer", file.ID, "The content of this file has no transfer of its own. Look at its location for where it is.")
	}
	return writeJSON(c, http.StatusOK, viewTransfer(&file.Transfer))
}

// changeJSON is the request of PATCH /v1/files/{id}.
type changeJSON struct {
	Name     *string            `json:"name"`
	Path     *string            `json:"path"`
	Metadata *map[string]string `json:"metadata"`
}

func (s *Server) updateFile(c echo.Context) error {
	var r changeJSON
	if err := decode(c, &r, s.opt.MaxJSON, false); err != nil {
		return err
	}
	file, err := s.uploads.UpdateFile(c.Request().Context(), s.owner(c), c.Param("id"), meta.FileChange{Name: r.Name, Path: r.Path, Metadata: r.Metadata})
	if err != nil {
		return err
	}
	return writeJSON(c, http.StatusOK, viewFile(&file))
}

func (s *Server) deleteFile(c echo.Context) error {
	if err := s.uploads.DeleteFile(c.Request().Context(), s.owner(c), c.Param("id")); err != nil {
		return err
	}
	return c.NoContent(http.StatusNoContent)
}

func (s *Server) listFiles(c echo.Context) error {
	q, err := s.fileQuery(c)
	if err != nil {
		return err
	}
	page, err := s.uploads.Files(c.Request().Context(), q)
	if err != nil {
		return err
	}
	list := listJSON[fileJSON]{Items: make([]fileJSON, len(page.Items))}
	for i := range page.Items {
		list.Items[i] = viewFile(&page.Items[i])
	}
	if page.More && len(page.Items) > 0 {
		next := cursorAfter(&q, &page.Items[len(page.Items)-1])
		list.NextCursor = &next
	}
	return writeJSON(c, http.StatusOK, list)
}

func (s *Server) fileQuery(c echo.Context) (meta.FileQuery, error) {
	params, err := query(c)
	if err != nil {
		return meta.FileQuery{}, err
	}
	limit, err := pageLimit(params)
	if err != nil {
		return meta.FileQuery{}, err
	}
	q := meta.FileQuery{Owner: s.owner(c), Name: params.Get("name"), Sort: meta.ByCreated, Desc: true, Limit: limit}
	if len(q.Name) > upload.MaxNameBytes {
		return meta.FileQuery{}, upload.Errorf(upload.Invalid, "", "", "\"name\" has at most %d bytes, as names have. Take a shorter one.", upload.MaxNameBytes)
	}
	if params.Has("path") {
		path := params.Get("path")
		if len(path) > upload.MaxPathBytes {
			return meta.FileQuery{}, upload.Errorf(upload.Invalid, "", "", "\"path\" has at most %d bytes, as paths have. Take a shorter one.", upload.MaxPathBytes)
		}
		q.Path = &path
	}
	if sort := params.Get("sort"); sort != "" {
		name, desc := strings.CutPrefix(sort, "-")
		q.Sort, q.Desc = meta.Sort(name), desc
		if q.Sort != meta.ByCreated && q.Sort != meta.ByName && q.Sort != meta.BySize {
			return meta.FileQuery{}, upload.Errorf(upload.Invalid, "", "", "\"sort\" is created_at, name or size, with a \"-\" before it for descending. Choose one of these.")
		}
	}
	if text := params.Get("cursor"); text != "" {
		if q.After, err = parseCursor(text, &q); err != nil {
			return meta.FileQuery{}, err
		}
	}
	return q, nil
}

// cursor is the place in an ordered list of files after which the next page begins. It holds what
// the order compares, so that it stays right when files come and go.
type cursor struct {
	Sort      meta.Sort `json:"s"`
	Desc      bool      `json:"d,omitempty"`
	ID        string    `json:"i"`
	Name      string    `json:"n,omitempty"`
	Size      int64     `json:"z,omitempty"`
	CreatedAt time.Time `json:"t,omitzero"`
}

func cursorAfter(q *meta.FileQuery, last *upload.File) string {
	cur := cursor{Sort: q.Sort, Desc: q.Desc, ID: last.ID}
	switch q.Sort {
	case meta.ByName:
		cur.Name = last.Name
	case meta.BySize:
		cur.Size = last.Size
	case meta.ByCreated:
		cur.CreatedAt = last.CreatedAt.UTC()
	}
	text, _ := json.Marshal(cur) // strings, numbers and a time of this era: never fails
	return base64.RawURLEncoding.EncodeToString(text)
}

func parseCursor(text string, q *meta.FileQuery) (*upload.File, error) {
	raw, err := base64.RawURLEncoding.DecodeString(text)
	if err != nil {
		return nil, badCursor()
	}
	var cur cursor
	if err := json.Unmarshal(raw, &cur); err != nil || cur.ID == "" {
		return nil, badCursor()
	}
	if cur.Sort != q.Sort || cur.Desc != q.Desc {
		return nil, upload.Errorf(upload.Invalid, "", "", "The cursor belongs to another \"sort\". Begin again without it.")
	}
	return &upload.File{ID: cur.ID, Name: cur.Name, Size: cur.Size, CreatedAt: cur.CreatedAt}, nil
}
