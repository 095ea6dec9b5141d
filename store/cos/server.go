package cos

import (
	"bytes"
	"context"
	"crypto/md5" //nolint:gosec // COS's ETag and Content-MD5, against faults on the way; Verify proves the content
	"encoding/base64"
	"encoding/hex"
	"errors"
	"hash/crc64"
	"iter"
	"net/url"
	"strconv"
	"strings"
	"time"

	sdk "github.com/tencentyun/cos-go-sdk-v5"

	"gantry/store"
	"gantry/store/multipart"
	"gantry/upload"
)

// server is the requests of which package multipart makes a Put. The SDK puts ids of uploads into URLs as they are,
// so they are escaped here.
type server struct{ *Store }

var _ multipart.Server = server{}

var ecma = crc64.MakeTable(crc64.ECMA)

// PutObject has the store check an MD5: it costs three times as much as the CRC-64, but what was damaged on the way is
// refused and never visible, as it would be if the CRC-64 in the answer told.
func (s server) PutObject(ctx context.Context, key string, body []byte) error {
	digest := md5.Sum(body)
	_, err := s.client.Object.Put(ctx, s.opt.Prefix+key, bytes.NewReader(body), &sdk.ObjectPutOptions{
		ObjectPutHeaderOptions: &sdk.ObjectPutHeaderOptions{ContentMD5: base64.StdEncoding.EncodeToString(digest[:])},
	})
	return classify("cos.PutObject", key, err)
}

func (s server) Create(ctx context.Context, key string) (string, error) {
	const op = "cos.Create"
	created, _, err := s.client.Object.InitiateMultipartUpload(ctx, s.opt.Prefix+key, nil)
	if err != nil {
		return "", classify(op, key, err)
	}
	if created.UploadID == "" {
		return "", upload.Errorf(upload.Unavailable, op, key, "The store's answer names no upload.")
	}
	return created.UploadID, nil
}

// PutPart compares the CRC-64 in the answer. A part that was damaged is nowhere visible until the next try replaces it.
func (s server) PutPart(ctx context.Context, key, id string, number int, body []byte) (store.Part, error) {
	const op = "cos.PutPart"
	resp, err := s.client.Object.UploadPart(ctx, s.opt.Prefix+key, url.QueryEscape(id), number, bytes.NewReader(body), nil)
	if err != nil {
		return store.Part{}, classify(op, key, err)
	}
	want, got := strconv.FormatUint(crc64.Checksum(body, ecma), 10), resp.Header.Get(crcHeader)
	if want != got {
		return store.Part{}, store.Mismatch(op, key, "crc64 "+want, "crc64 "+got)
	}
	return store.Part{ETag: resp.Header.Get("ETag"), Checksum: got}, nil
}

func (s server) Parts(ctx context.Context, key, id string) iter.Seq2[store.Part, error] {
	return func(yield func(store.Part, error) bool) {
		for marker, more := "", true; more; {
			page, _, err := s.client.Object.ListParts(ctx, s.opt.Prefix+key, url.QueryEscape(id),
				&sdk.ObjectListPartsOptions{MaxParts: "1000", PartNumberMarker: marker, EncodingType: "url"})
			if err != nil {
				yield(store.Part{}, classify("cos.Parts", key, err))
				return
			}
			for _, part := range page.Parts {
				if !yield(store.Part{Number: part.PartNumber, Size: part.Size, ETag: part.ETag}, nil) {
					return
				}
			}
			marker, more = page.NextPartNumberMarker, page.IsTruncated
		}
	}
}

// Same compares the ETag, which is the MD5 unless the bucket is encrypted with keys of its own: then the part
// is sent again. COS lists no CRC-64 of parts.
func (s server) Same(part store.Part, body []byte) bool {
	digest := md5.Sum(body)
	return strings.Trim(part.ETag, `"`) == hex.EncodeToString(digest[:])
}

func (s server) Complete(ctx context.Context, key, id string, parts []store.Part) error {
	all := &sdk.CompleteMultipartUploadOptions{Parts: make([]sdk.Object, len(parts))}
	for i, part := range parts {
		all.Parts[i] = sdk.Object{PartNumber: part.Number, ETag: part.ETag}
	}
	_, _, err := s.client.Object.CompleteMultipartUpload(ctx, s.opt.Prefix+key, url.QueryEscape(id), all)
	return classify("cos.Complete", key, err)
}

func (s server) Abort(ctx context.Context, key, id string) error {
	_, err := s.client.Object.AbortMultipartUpload(ctx, s.opt.Prefix+key, url.QueryEscape(id))
	if err = classify("cos.Abort", key, err); errors.Is(err, upload.NotFound) {
		return nil
	}
	return err
}

func (s server) Uploads(ctx context.Context) iter.Seq2[multipart.Upload, error] {
	const op = "cos.Uploads"
	return func(yield func(multipart.Upload, error) bool) {
		for keyMarker, idMarker, more := "", "", true; more; {
			page, _, err := s.client.Bucket.ListMultipartUploads(ctx, &sdk.ListMultipartUploadsOptions{
				Prefix: s.opt.Prefix, KeyMarker: keyMarker, UploadIDMarker: idMarker, MaxUploads: 1000, EncodingType: "url",
			})
			if err != nil {
				yield(multipart.Upload{}, classify(op, "", err))
				return
			}
			for _, u := range page.Uploads {
				key, err := sdk.DecodeURIComponent(u.Key)
				began, timeErr := time.Parse(time.RFC3339, u.Initiated)
				if err = errors.Join(err, timeErr); err != nil {
					yield(multipart.Upload{}, upload.Wrap(upload.Unavailable, op, "", err))
					return
				}
				if !yield(multipart.Upload{Key: strings.TrimPrefix(key, s.opt.Prefix), ID: u.UploadID, Began: began}, nil) {
					return
				}
				keyMarker, idMarker = key, u.UploadID
			}
			more = page.IsTruncated && len(page.Uploads) > 0
		}
	}
}
