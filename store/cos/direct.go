package cos

import (
	"context"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"time"

	sdk "github.com/tencentyun/cos-go-sdk-v5"

	"gantry/store"
	"gantry/upload"
)

var (
	_ store.Presigner = (*Store)(nil)
	_ store.Director  = (*Store)(nil)
	_ store.Direct    = direct{}
)

// Presign returns a URL from which anybody can download an object until it expires.
func (s *Store) Presign(ctx context.Context, key string, opt store.PresignOptions) (*url.URL, error) {
	query := url.Values{}
	if opt.ContentType != "" {
		query.Set("response-content-type", opt.ContentType)
	}
	if opt.Disposition != "" {
		query.Set("response-content-disposition", opt.Disposition)
	}
	return s.presign(ctx, "cos.Presign", http.MethodGet, key, query, opt.Expires)
}

// presign signs the method, the key, all of the query and the host.
func (s *Store) presign(ctx context.Context, op, method, key string, query url.Values, expires time.Duration) (*url.URL, error) {
	if err := s.checkKey(key); err != nil {
		return nil, err
	}
	if expires < time.Second {
		return nil, upload.Errorf(upload.Invalid, op, key, "A URL has to be good for a second at least.")
	}
	u, err := s.public.Object.GetPresignedURL3(ctx, method, s.opt.Prefix+key, expires, &sdk.PresignedURLOptions{Query: &query})
	if err != nil {
		return nil, upload.Wrap(upload.Internal, op, key, err)
	}
	// The SDK writes a space as a plus, which only forms read as a space.
	u.RawQuery = strings.ReplaceAll(u.RawQuery, "+", "%20")
	return u, nil
}

// direct is multipart uploads whose parts a client sends.
type direct struct{ server }

// Direct returns them.
func (s *Store) Direct() store.Direct { return direct{server{s}} }

// Create begins a multipart upload.
func (d direct) Create(ctx context.Context, key string) (string, error) {
	if err := d.checkKey(key); err != nil {
		return "", err
	}
	return d.server.Create(ctx, key)
}

// PresignPart returns the URL of one part. It says nothing of the part's length: who completes looks at that.
func (d direct) PresignPart(ctx context.Context, key, id string, number int, expires time.Duration) (*url.URL, error) {
	const op = "cos.PresignPart"
	if number < 1 || number > maxParts {
		return nil, upload.Errorf(upload.Invalid, op, key, "Parts have numbers from 1 to %d.", maxParts)
	}
	return d.presign(ctx, op, http.MethodPut, key, url.Values{"partNumber": {strconv.Itoa(number)}, "uploadId": {id}}, expires)
}

// PartLimits are those of COS.
func (d direct) PartLimits() (least, largest int64, most int) { return minPart, maxPart, maxParts }
