package client

import (
	"context"
	"encoding/base64"
	"encoding/binary"
	"fmt"
	"io"
	"iter"
	"maps"
	"net/http"
	"net/url"
	"strconv"

	"gantry/upload"
)

// Init begins an upload. With a key it may be repeated: the same upload is answered.
func (c *Client) Init(ctx context.Context, r InitRequest, key string) (Upload, error) {
	var u Upload
	err := c.call(ctx, request{method: http.MethodPost, path: "/v1/uploads", json: r, header: keyHeader(key)}, &u)
	return u, err
}

func keyHeader(key string) http.Header {
	if key == "" {
		return nil
	}
	return http.Header{"Idempotency-Key": {key}}
}

func uploadPath(id, rest string) string { return "/v1/uploads/" + url.PathEscape(id) + rest }

func filePath(id, rest string) string { return "/v1/files/" + url.PathEscape(id) + rest }

// PutChunk sends one chunk of length bytes. It may be repeated with the same bytes. crc32c is
// compared with what arrives.
func (c *Client) PutChunk(ctx context.Context, id string, index int, body io.Reader, length int64, crc32c uint32) error {
	return c.putChunk(ctx, id, index, func() io.ReadCloser { return io.NopCloser(body) }, length, crc32c)
}

func (c *Client) putChunk(ctx context.Context, id string, index int, body func() io.ReadCloser, length int64, crc32c uint32) error {
	header := http.Header{
		"Content-Type":   {"application/octet-stream"},
		"Content-Digest": {contentDigest(crc32c)},
	}
	resp, err := c.send(ctx, request{
		method: http.MethodPut, path: uploadPath(id, "/chunks/"+strconv.Itoa(index)), header: header, body: body, length: length,
	})
	if err != nil {
		return err
	}
	return decode(ctx, resp, nil)
}

// contentDigest is the field of RFC 9530 for a CRC-32C.
func contentDigest(crc32c uint32) string {
	sum := binary.BigEndian.AppendUint32(nil, crc32c)
	return "crc32c=:" + base64.StdEncoding.EncodeToString(sum) + ":"
}

// Status returns an upload as it stands; a complete one with its file. One that was cancelled, has
// expired or was rejected is an *Error for which IsGone is true.
func (c *Client) Status(ctx context.Context, id string) (Upload, error) {
	var u Upload
	err := c.call(ctx, request{method: http.MethodGet, path: uploadPath(id, "")}, &u)
	return u, err
}

// Uploads goes through the open uploads.
func (c *Client) Uploads(ctx context.Context) iter.Seq2[Upload, error] {
	return pages[Upload](ctx, c, "/v1/uploads", url.Values{})
}

// ChunkURLs answers where chunks of a direct upload go: count of them at the most, 100 being the most there are, from
// first on.
func (c *Client) ChunkURLs(ctx context.Context, id string, first, count int) (DirectURLs, error) {
	var urls DirectURLs
	query := url.Values{"first": {strconv.Itoa(first)}, "count": {strconv.Itoa(count)}}
	err := c.call(ctx, request{method: http.MethodGet, path: uploadPath(id, "/urls"), query: query}, &urls)
	return urls, err
}

// AskInstant tells the SHA-1 of the content; the answer is a challenge, whether the server knows the
// content or not.
func (c *Client) AskInstant(ctx context.Context, id string, sha1 upload.SHA1) (InstantAnswer, error) {
	return c.instant(ctx, id, sha1, nil)
}

// ProveInstant answers a challenge, which can be done once. Anything wrong with it, and an unknown
// content, is InstantContinue.
func (c *Client) ProveInstant(ctx context.Context, id string, sha1 upload.SHA1, proof upload.Proof) (InstantAnswer, error) {
	return c.instant(ctx, id, sha1, &proof)
}

func (c *Client) instant(ctx context.Context, id string, sha1 upload.SHA1, proof *upload.Proof) (InstantAnswer, error) {
	body := struct {
		SHA1  upload.SHA1   `json:"sha1"`
		Proof *upload.Proof `json:"proof,omitempty"`
	}{sha1, proof}
	var answer InstantAnswer
	err := c.call(ctx, request{method: http.MethodPost, path: uploadPath(id, "/instant"), json: body}, &answer)
	return answer, err
}

// Complete ends an upload; it may be repeated. sha1 and size are nil if they are not known or were
// given at init. When chunks are missing IsIncomplete tells which.
func (c *Client) Complete(ctx context.Context, id string, sha1 *upload.SHA1, size *int64) (File, error) {
	body := struct {
		SHA1 *upload.SHA1 `json:"sha1,omitempty"`
		Size *int64       `json:"size,omitempty"`
	}{sha1, size}
	var f File
	err := c.callWithin(ctx, completeTimeout, request{method: http.MethodPost, path: uploadPath(id, "/complete"), json: body}, &f)
	return f, err
}

// Cancel ends an upload and deletes what was sent. It may be repeated.
func (c *Client) Cancel(ctx context.Context, id string) error {
	return c.call(ctx, request{method: http.MethodDelete, path: uploadPath(id, "")}, nil)
}

// PutFile sends a file in one request. With a key it may be repeated.
func (c *Client) PutFile(ctx context.Context, r FileRequest, body io.Reader, length int64, crc32c uint32) (File, error) {
	return c.putFile(ctx, r, func() io.ReadCloser { return io.NopCloser(body) }, length, crc32c)
}

func (c *Client) putFile(ctx context.Context, r FileRequest, body func() io.ReadCloser, length int64, crc32c uint32) (File, error) {
	query := url.Values{"name": {r.Name}}
	if r.Path != "" {
		query.Set("path", r.Path)
	}
	if r.Replaces != "" {
		query.Set("replaces", r.Replaces)
	}
	if r.SHA1 != nil {
		query.Set("sha1", r.SHA1.String())
	}
	header := http.Header{"Content-Digest": {contentDigest(crc32c)}, "Content-Type": {"application/octet-stream"}}
	if r.ContentType != "" {
		header.Set("Content-Type", r.ContentType)
	}
	if r.Key != "" {
		header.Set("Idempotency-Key", r.Key)
	}
	var f File
	resp, err := c.send(ctx, request{
		method: http.MethodPost, path: "/v1/files", query: query, header: header, body: body, length: length,
	})
	if err != nil {
		return f, err
	}
	return f, decode(ctx, resp, &f)
}

// File returns one file.
func (c *Client) File(ctx context.Context, id string) (File, error) {
	var f File
	err := c.call(ctx, request{method: http.MethodGet, path: filePath(id, "")}, &f)
	return f, err
}

// Files goes through the files that q selects.
func (c *Client) Files(ctx context.Context, q FileQuery) iter.Seq2[File, error] {
	query := url.Values{}
	if q.Name != "" {
		query.Set("name", q.Name)
	}
	if q.Path != nil {
		query.Set("path", *q.Path)
	}
	if q.Sort != "" {
		query.Set("sort", q.Sort)
	}
	if q.Limit > 0 {
		query.Set("limit", strconv.Itoa(q.Limit))
	}
	return pages[File](ctx, c, "/v1/files", query)
}

// pages fetches page after page. An error is the last thing yielded.
func pages[T any](ctx context.Context, c *Client, path string, query url.Values) iter.Seq2[T, error] {
	return func(yield func(T, error) bool) {
		query := maps.Clone(query) // so that the sequence can be gone through again
		for {
			var p page[T]
			if err := c.call(ctx, request{method: http.MethodGet, path: path, query: query}, &p); err != nil {
				var none T
				yield(none, err)
				return
			}
			for _, item := range p.Items {
				if !yield(item, nil) {
					return
				}
			}
			if p.NextCursor == nil || *p.NextCursor == "" {
				return
			}
			query.Set("cursor", *p.NextCursor)
		}
	}
}

// Update renames or moves a file or replaces its metadata.
func (c *Client) Update(ctx context.Context, id string, change FileChange) (File, error) {
	var f File
	err := c.call(ctx, request{method: http.MethodPatch, path: filePath(id, ""), json: change}, &f)
	return f, err
}

// Delete drops a file.
func (c *Client) Delete(ctx context.Context, id string) error {
	return c.call(ctx, request{method: http.MethodDelete, path: filePath(id, "")}, nil)
}

// Transfer tells where the transfer of a file to the store stands.
func (c *Client) Transfer(ctx context.Context, fileID string) (Transfer, error) {
	var t Transfer
	err := c.call(ctx, request{method: http.MethodGet, path: filePath(fileID, "/transfer")}, &t)
	return t, err
}

// Content reads length bytes of a file from offset on; a length below 0 reads to the end. The
// caller closes. The bytes are not checked here: Download does.
func (c *Client) Content(ctx context.Context, id string, offset, length int64) (io.ReadCloser, error) {
	ranged := offset > 0 || length >= 0
	header := http.Header{}
	switch {
	case length == 0:
		return http.NoBody, nil
	case length > 0:
		header.Set("Range", fmt.Sprintf("bytes=%d-%d", offset, offset+length-1))
	case ranged:
		header.Set("Range", fmt.Sprintf("bytes=%d-", offset))
	}
	resp, err := c.send(ctx, request{method: http.MethodGet, path: filePath(id, "/content"), header: header})
	if err != nil {
		return nil, err
	}
	if ranged && resp.StatusCode != http.StatusPartialContent {
		drain(resp.Body)
		return nil, &Error{
			Op: "GET " + filePath(id, "/content"), Status: resp.StatusCode,
			Detail: "The server does not answer with the range that was asked for",
		}
	}
	return resp.Body, nil
}
