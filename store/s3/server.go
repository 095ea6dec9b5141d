package s3

import (
	"bytes"
	"context"
	"crypto/md5" //nolint:gosec // S3's ETag, against faults; Verify proves the content
	"encoding/hex"
	"errors"
	"iter"
	"net/http"
	"net/url"
	"strings"

	"github.com/minio/minio-go/v7"

	"gantry/store"
	"gantry/store/multipart"
	"gantry/upload"
)

// server is the requests of which package multipart makes a Put.
type server struct{ *Store }

var _ multipart.Server = server{}

func (s server) PutObject(ctx context.Context, key string, body []byte) error {
	_, err := s.objects.send(body, func(md5, crc32c string) (string, error) {
		opt := minio.PutObjectOptions{DisableContentSha256: true}
		if crc32c != "" {
			opt.UserMetadata = map[string]string{checksumHeader: crc32c}
		}
		done, err := s.client.PutObject(ctx, s.opt.Bucket, s.opt.Prefix+key, bytes.NewReader(body), int64(len(body)), md5, "", opt)
		return done.ChecksumCRC32C, err
	})
	return classify("s3.PutObject", key, err)
}

func (s server) Create(ctx context.Context, key string) (string, error) {
	opt := minio.PutObjectOptions{}
	if !s.parts.refused() {
		opt.UserMetadata = map[string]string{"x-amz-checksum-algorithm": "CRC32C", "x-amz-checksum-type": wholeObject}
	}
	id, err := s.client.NewMultipartUpload(ctx, s.opt.Bucket, s.opt.Prefix+key, opt)
	if refusesChecksum(err) {
		if id, err = s.client.NewMultipartUpload(ctx, s.opt.Bucket, s.opt.Prefix+key, minio.PutObjectOptions{}); err == nil {
			s.parts.refuse()
		}
	}
	return id, classify("s3.Create", key, err)
}

func (s server) PutPart(ctx context.Context, key, id string, number int, body []byte) (store.Part, error) {
	var etag string
	checksum, err := s.parts.send(body, func(md5, crc32c string) (string, error) {
		opt := minio.PutObjectPartOptions{Md5Base64: md5, DisableContentSha256: true}
		if crc32c != "" {
			opt.CustomHeader = http.Header{http.CanonicalHeaderKey(checksumHeader): {crc32c}}
		}
		part, err := s.client.PutObjectPart(ctx, s.opt.Bucket, s.opt.Prefix+key, id, number, bytes.NewReader(body), int64(len(body)), opt)
		etag = part.ETag
		return part.ChecksumCRC32C, err
	})
	return store.Part{ETag: etag, Checksum: checksum}, classify("s3.PutPart", key, err)
}

func (s server) Parts(ctx context.Context, key, id string) iter.Seq2[store.Part, error] {
	return func(yield func(store.Part, error) bool) {
		for marker := 0; ; {
			page, err := s.client.ListObjectParts(ctx, s.opt.Bucket, s.opt.Prefix+key, id, marker, 1000)
			if err != nil {
				yield(store.Part{}, classify("s3.Parts", key, err))
				return
			}
			for _, part := range page.ObjectParts {
				if !yield(store.Part{Number: part.PartNumber, Size: part.Size, ETag: part.ETag, Checksum: part.ChecksumCRC32C}, nil) {
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

// Same compares the checksum, or else the ETag, which is the MD5 unless the bucket is encrypted with keys of its
// own, or the server makes ETags in its own way: then the part is sent again.
func (s server) Same(part store.Part, body []byte) bool {
	if part.Checksum != "" {
		return part.Checksum == crc32cOf(body)
	}
	digest := md5.Sum(body)
	return strings.Trim(part.ETag, `"`) == hex.EncodeToString(digest[:])
}

// Complete names the parts with their checksums. It does not give that of the whole: it could only be reckoned
// from those, which is what the server does; Verify compares it with what the content has.
func (s server) Complete(ctx context.Context, key, id string, parts []store.Part) error {
	all := make([]minio.CompletePart, len(parts))
	for i, part := range parts {
		all[i] = minio.CompletePart{PartNumber: part.Number, ETag: part.ETag, ChecksumCRC32C: part.Checksum}
	}
	_, err := s.client.CompleteMultipartUpload(ctx, s.opt.Bucket, s.opt.Prefix+key, id, all, minio.PutObjectOptions{})
	return classify("s3.Complete", key, err)
}

func (s server) Abort(ctx context.Context, key, id string) error {
	err := classify("s3.Abort", key, s.client.AbortMultipartUpload(ctx, s.opt.Bucket, s.opt.Prefix+key, id))
	if errors.Is(err, upload.NotFound) {
		return nil
	}
	return err
}

func (s server) Uploads(ctx context.Context) iter.Seq2[multipart.Upload, error] {
	return func(yield func(multipart.Upload, error) bool) {
		for keyMarker, idMarker := "", ""; ; {
			page, err := s.client.ListMultipartUploads(ctx, s.opt.Bucket, s.opt.Prefix, keyMarker, idMarker, "", 1000)
			if err != nil {
				yield(multipart.Upload{}, classify("s3.Uploads", "", err))
				return
			}
			for _, u := range page.Uploads {
				if !yield(multipart.Upload{Key: strings.TrimPrefix(u.Key, s.opt.Prefix), ID: u.UploadID, Began: u.Initiated}, nil) {
					return
				}
				// RGW 16 writes keys as in a URL, and does not say so; other servers do not. One of the two is it.
				key, err := url.PathUnescape(u.Key)
				if err != nil || key == u.Key || page.EncodingType != "" {
					continue
				}
				if !yield(multipart.Upload{Key: strings.TrimPrefix(key, s.opt.Prefix), ID: u.UploadID, Began: u.Initiated}, nil) {
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
