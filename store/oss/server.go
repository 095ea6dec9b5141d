package oss

import (
	"bytes"
	"context"
	"crypto/md5" //nolint:gosec // OSS's ETag, against faults; Verify proves the content
	"encoding/hex"
	"encoding/xml"
	"errors"
	"hash/crc64"
	"iter"
	"net/http"
	"strconv"
	"strings"

	sdk "github.com/aliyun/aliyun-oss-go-sdk/oss"

	"gantry/store"
	"gantry/store/multipart"
	"gantry/upload"
)

// server is the requests of which package multipart makes a Put. What is sent is checked by OSS's CRC-64, which costs
// a third of an MD5, and of which the SDK has not taken the store's word before it has compared it.
type server struct{ *Store }

var _ multipart.Server = server{}

func (s server) PutObject(ctx context.Context, key string, body []byte) error {
	return classify("oss.PutObject", key, s.bucket.PutObject(s.opt.Prefix+key, bytes.NewReader(body), sdk.WithContext(ctx)))
}

func (s server) Create(ctx context.Context, key string) (string, error) {
	created, err := s.bucket.InitiateMultipartUpload(s.opt.Prefix+key, sdk.WithContext(ctx))
	return created.UploadID, classify("oss.Create", key, err)
}

// of is a multipart upload as the SDK wants it.
func (s server) of(key, id string) sdk.InitiateMultipartUploadResult {
	return sdk.InitiateMultipartUploadResult{Bucket: s.opt.Bucket, Key: s.opt.Prefix + key, UploadID: id}
}

func (s server) PutPart(ctx context.Context, key, id string, number int, body []byte) (store.Part, error) {
	part, err := s.bucket.UploadPart(s.of(key, id), bytes.NewReader(body), int64(len(body)), number, sdk.WithContext(ctx))
	return store.Part{ETag: part.ETag}, classify("oss.PutPart", key, err)
}

// parts is an answer to ListParts. The SDK's has no CRC-64.
type parts struct {
	IsTruncated          bool
	NextPartNumberMarker string
	Part                 []struct {
		PartNumber    int
		Size          int64
		ETag          string
		HashCrc64ecma string
	}
}

func (s server) Parts(ctx context.Context, key, id string) iter.Seq2[store.Part, error] {
	return func(yield func(store.Part, error) bool) {
		for marker := ""; ; {
			var page parts
			query := map[string]any{"uploadId": id, "max-parts": "1000", "encoding-type": "url"}
			if marker != "" {
				query["part-number-marker"] = marker
			}
			if err := s.read(ctx, s.opt.Prefix+key, query, &page); err != nil {
				yield(store.Part{}, classify("oss.Parts", key, err))
				return
			}
			for _, p := range page.Part {
				if !yield(store.Part{Number: p.PartNumber, Size: p.Size, ETag: p.ETag, Checksum: p.HashCrc64ecma}, nil) {
					return
				}
			}
			if !page.IsTruncated {
				return
			}
			marker = page.NextPartNumberMarker
		}
	}
}

// read gets an XML document about an object, or about the bucket if key is "".
func (s *Store) read(ctx context.Context, key string, query map[string]any, document any) error {
	answer, err := s.bucket.Do(http.MethodGet, key, query, []sdk.Option{sdk.WithContext(ctx)}, nil, nil)
	if err != nil {
		return err
	}
	return errors.Join(xml.NewDecoder(answer).Decode(document), answer.Close())
}

var ecma = crc64.MakeTable(crc64.ECMA)

// Same compares the CRC-64, or else the ETag, which is the MD5.
func (s server) Same(part store.Part, body []byte) bool {
	if part.Checksum != "" {
		return part.Checksum == strconv.FormatUint(crc64.Checksum(body, ecma), 10)
	}
	digest := md5.Sum(body)
	return strings.EqualFold(strings.Trim(part.ETag, `"`), hex.EncodeToString(digest[:]))
}

func (s server) Complete(ctx context.Context, key, id string, parts []store.Part) error {
	all := make([]sdk.UploadPart, len(parts))
	for i, part := range parts {
		all[i] = sdk.UploadPart{PartNumber: part.Number, ETag: part.ETag}
	}
	_, err := s.bucket.CompleteMultipartUpload(s.of(key, id), all, sdk.WithContext(ctx))
	return classify("oss.Complete", key, err)
}

func (s server) Abort(ctx context.Context, key, id string) error {
	err := classify("oss.Abort", key, s.bucket.AbortMultipartUpload(s.of(key, id), sdk.WithContext(ctx)))
	if errors.Is(err, upload.NotFound) {
		return nil
	}
	return err
}

func (s server) Uploads(ctx context.Context) iter.Seq2[multipart.Upload, error] {
	return func(yield func(multipart.Upload, error) bool) {
		for keyMarker, idMarker := "", ""; ; {
			page, err := s.bucket.ListMultipartUploads(sdk.Prefix(s.opt.Prefix), sdk.KeyMarker(keyMarker), sdk.UploadIDMarker(idMarker),
				sdk.MaxUploads(1000), sdk.WithContext(ctx))
			if err != nil {
				yield(multipart.Upload{}, classify("oss.Uploads", "", err))
				return
			}
			for _, u := range page.Uploads {
				if !yield(multipart.Upload{Key: strings.TrimPrefix(u.Key, s.opt.Prefix), ID: u.UploadID, Began: u.Initiated}, nil) {
					return
				}
			}
			if !page.IsTruncated {
				return
			}
			keyMarker, idMarker = page.NextKeyMarker, page.NextUploadIDMarker
		}
	}
}
