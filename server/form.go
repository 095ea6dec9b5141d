package server

import (
	"errors"
	"io"
	"mime"
	"mime/multipart"
	"net/http"
	"strconv"
	"strings"

	"github.com/labstack/echo/v4"

	"gantry/server/ingest"
	"gantry/upload"
)

// maxPartHead bounds what stands between the contents of two parts of a form: the boundary, the
// headers, and fields that are no files.
const maxPartHead = 64 << 10

// formReader bounds what is read while no file is being read.
type formReader struct {
	src    io.Reader
	inFile bool
	left   int
}

var errPartHead = errors.New("the headers of a part are too long")

func (r *formReader) Read(p []byte) (int, error) {
	if r.inFile {
		return r.src.Read(p)
	}
	if r.left <= 0 {
		return 0, errPartHead
	}
	n, err := r.src.Read(p[:min(len(p), r.left)])
	r.left -= n
	return n, err
}

// postForm takes the files of a multipart/form-data request in as they come: nothing is kept in
// memory or in temporary files. Each file stands by itself; the first failure ends the request, and
// its problem document lists the files that are stored by then.
func (s *Server) postForm(c echo.Context, key string) error {
	r := c.Request()
	if err := checkEncoding(r); err != nil {
		return err
	}
	media, params, err := mime.ParseMediaType(r.Header.Get("Content-Type"))
	switch {
	case err == nil && media != "multipart/form-data":
		return upload.Errorf(upload.UnsupportedType, "", "", "Of multipart types only multipart/form-data is accepted. Send that, or the file as the body.")
	case err != nil || params["boundary"] == "" || len(params["boundary"]) > 70:
		return upload.Errorf(upload.Invalid, "", "", "The Content-Type has no valid boundary. Set one of 1 to 70 characters.")
	case len(r.Header["Content-Digest"]) > 0:
		return upload.Errorf(upload.Invalid, "", "", "In a form Content-Digest belongs into the headers of each part. Put it there.")
	}
	q, err := query(c)
	if err != nil {
		return err
	}
	for _, name := range []string{"name", "sha1", "replaces"} {
		if q.Has(name) {
			return upload.Errorf(upload.Invalid, "", "", "%q is for one file as the raw body, not for a form. Leave it out.", name)
		}
	}
	stored := []fileJSON{}
	if err := s.storeParts(c, params["boundary"], q.Get("path"), key, &stored); err != nil {
		return withFiles{err, stored}
	}
	if len(stored) == 0 {
		return upload.Errorf(upload.Invalid, "", "", "The form has no file. Send at least one part with a filename.")
	}
	return writeJSON(c, http.StatusCreated, stored)
}

func (s *Server) storeParts(c echo.Context, boundary, path, key string, stored *[]fileJSON) error {
	src := &formReader{src: readerOf(c), left: maxPartHead}
	form := multipart.NewReader(src, boundary)
	for {
		part, err := form.NextRawPart()
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return malformedForm(err)
		}
		if part.FileName() == "" {
			continue // a field, or a file input left empty; NextRawPart skips its content
		}
		if len(*stored) == s.opt.MaxParts {
			return upload.Errorf(upload.Invalid, "", "", "A form has at most %d files. Send the rest in another one.", s.opt.MaxParts)
		}
		src.inFile = true
		content := &partReader{part: part}
		file, err := s.storePart(c, part, content, path, partKey(key, len(*stored)))
		if err != nil {
			return err
		}
		if key != "" {
			if err := content.skip(file.Size); err != nil {
				return err
			}
		}
		// What is left of the part, if anything, is read within the bounds of a head.
		src.inFile, src.left = false, maxPartHead
		*stored = append(*stored, viewFile(&file))
	}
}

func (s *Server) storePart(c echo.Context, part *multipart.Part, content *partReader, path, key string) (upload.File, error) {
	if isEncoded(part) {
		return upload.File{}, upload.Errorf(upload.UnsupportedEncoding, "", "", "Parts of a form come as they are, without an encoding. Send the bytes of the files.")
	}
	d, err := parseContentDigest(part.Header["Content-Digest"])
	if err != nil {
		return upload.File{}, err
	}
	request := ingest.FileRequest{
		// FileName is the last element of what the client calls the file, and data only.
		Name: part.FileName(), Path: path, ContentType: part.Header.Get("Content-Type"), Key: key,
	}
	return s.uploads.PutFile(c.Request().Context(), s.owner(c), request, d.body(c, content, -1))
}

// partKey is the Idempotency-Key of one file of a form: a repeated form has the same files in the same
// order. Names do not tell them apart, since two files of a form may have the same. The space is
// there because no client's own key has one.
func partKey(key string, index int) string {
	if key == "" {
		return ""
	}
	return key + " " + strconv.Itoa(index)
}

// partReader reads the content of a part, counts it, and gives the errors of one that breaks off a kind.
type partReader struct {
	part *multipart.Part
	n    int64
}

func (p *partReader) Read(b []byte) (int, error) {
	n, err := p.part.Read(b)
	p.n += int64(n)
	if err != nil && !errors.Is(err, io.EOF) {
		err = malformedForm(err)
	}
	return n, err
}

// skip reads over content that nobody read, because the file of size bytes is there from an earlier
// request with the same key. Content of another length is another request.
func (p *partReader) skip(size int64) error {
	if _, err := io.CopyN(io.Discard, p, size+1-p.n); err != nil && !errors.Is(err, io.EOF) {
		return err
	}
	if p.n != size {
		return upload.Errorf(upload.KeyReused, "", "", "The Idempotency-Key was used for a form whose files had other lengths. Take a new key for a new request.")
	}
	return nil
}

func malformedForm(err error) error {
	if upload.KindOf(err) != upload.Internal {
		return err // of the connection
	}
	if errors.Is(err, io.ErrUnexpectedEOF) {
		return &upload.Error{Kind: upload.ShortBody, Detail: "The form ends before its last boundary. Send it again, whole.", Err: err}
	}
	return &upload.Error{Kind: upload.Invalid, Detail: "The form is not valid multipart/form-data. Correct it, and put files before long fields.", Err: err}
}

// isEncoded reports whether the bytes of a part are not the file's own.
func isEncoded(part *multipart.Part) bool {
	for _, transfer := range part.Header["Content-Transfer-Encoding"] {
		switch strings.ToLower(transfer) {
		case "", "binary", "8bit", "7bit":
		default:
			return true
		}
	}
	return strings.Join(part.Header["Content-Encoding"], "") != ""
}
