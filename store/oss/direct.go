package oss

import (
	"context"
	"net/http"
	"net/url"
	"strconv"
	"time"

	sdk "github.com/aliyun/aliyun-oss-go-sdk/oss"

	"gantry/store"
	"gantry/upload"
)

var (
	_ store.Presigner = (*Store)(nil)
	_ store.Director  = (*Store)(nil)
)

// longest is for how long a V4 signature may be good:
// https://www.alibabacloud.com/help/en/oss/developer-reference/add-signatures-to-urls
const longest = 7 * 24 * time.Hour

// Presign returns a URL from which a client downloads an object. It is good for a second to seven days.
func (s *Store) Presign(_ context.Context, key string, opt store.PresignOptions) (*url.URL, error) {
	var options []sdk.Option
	if opt.ContentType != "" {
		options = append(options, sdk.ResponseContentType(opt.ContentType))
	}
	if opt.Disposition != "" {
		options = append(options, sdk.ResponseContentDisposition(opt.Disposition))
	}
	return s.sign("oss.Presign", key, sdk.HTTPGet, opt.Expires, options...)
}

func (s *Store) sign(op, key string, method sdk.HTTPMethod, expires time.Duration, options ...sdk.Option) (*url.URL, error) {
	if err := store.CheckKey("oss", key); err != nil {
		return nil, err
	}
	if expires < time.Second || expires > longest {
		return nil, upload.Errorf(upload.Invalid, op, key, "A presigned URL is good for a second to seven days.")
	}
	signed, err := s.public.SignURL(s.opt.Prefix+key, method, int64(expires/time.Second), options...)
	if err != nil {
		return nil, upload.Wrap(upload.Invalid, op, key, err)
	}
	u, err := url.Parse(signed)
	return u, upload.Wrap(upload.Invalid, op, key, err)
}

// Direct returns multipart uploads whose parts a client sends.
func (s *Store) Direct() store.Direct { return direct{server{s}} }

// direct is server, for parts that somebody else sends.
type direct struct{ server }

func (d direct) Create(ctx context.Context, key string) (string, error) {
	if err := store.CheckKey("oss", key); err != nil {
		return "", err
	}
	return d.server.Create(ctx, key)
}

// PresignPart returns a URL that takes a part without a Content-Type: OSS signs that header too.
func (d direct) PresignPart(_ context.Context, key, id string, number int, expires time.Duration) (*url.URL, error) {
	return d.sign("oss.PresignPart", key, http.MethodPut, expires, sdk.AddParam("uploadId", id), sdk.AddParam("partNumber", strconv.Itoa(number)))
}

func (d direct) PartLimits() (least, largest int64, most int) { return minPart, maxPart, maxParts }
