package s3

import (
	"context"
	"net/http"
	"net/url"
	"strconv"
	"time"

	"github.com/minio/minio-go/v7"

	"gantry/store"
	"gantry/upload"
)

var (
	_ store.Presigner = (*Store)(nil)
	_ store.Director  = (*Store)(nil)
)

// Presign returns a URL from which a client downloads an object. It is good for a second to seven days, which is
// what signature V4 allows.
func (s *Store) Presign(ctx context.Context, key string, opt store.PresignOptions) (*url.URL, error) {
	const op = "s3.Presign"
	if err := store.CheckKey("s3", key); err != nil {
		return nil, err
	}
	query := url.Values{}
	if opt.ContentType != "" {
		query.Set("response-content-type", opt.ContentType)
	}
	if opt.Disposition != "" {
		query.Set("response-content-disposition", opt.Disposition)
	}
	u, err := s.public.PresignedGetObject(ctx, s.opt.Bucket, s.opt.Prefix+key, opt.Expires, query)
	return u, upload.Wrap(upload.Invalid, op, key, err)
}

// Direct returns multipart uploads whose parts a client sends.
func (s *Store) Direct() store.Direct { return direct{server{s}} }

// direct is server, for parts that somebody else sends.
type direct struct{ server }

func (d direct) Create(ctx context.Context, key string) (string, error) {
	if err := store.CheckKey("s3", key); err != nil {
		return "", err
	}
	id, err := d.client.NewMultipartUpload(ctx, d.opt.Bucket, d.opt.Prefix+key, minio.PutObjectOptions{})
	return id, classify("s3.Create", key, err)
}

func (d direct) PresignPart(ctx context.Context, key, id string, number int, expires time.Duration) (*url.URL, error) {
	query := url.Values{"uploadId": {id}, "partNumber": {strconv.Itoa(number)}}
	u, err := d.public.Presign(ctx, http.MethodPut, d.opt.Bucket, d.opt.Prefix+key, expires, query)
	return u, upload.Wrap(upload.Invalid, "s3.PresignPart", key, err)
}

func (d direct) PartLimits() (least, largest int64, most int) { return minPart, maxPart, maxParts }
