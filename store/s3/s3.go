// Package s3 keeps objects in a bucket of any server that speaks S3: AWS, Ceph's RGW, MinIO, R2 and others.
package s3

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"iter"
	"math"
	"net/http"
	"net/url"
	"strings"
	"time"

	"github.com/minio/minio-go/v7"
	"github.com/minio/minio-go/v7/pkg/credentials"

	"gantry/store"
	"gantry/store/multipart"
	"gantry/upload"
)

// Options are the settings of a Store. What is zero gets its default.
type Options struct {
	Endpoint  string // an http or https URL; needed
	Public    string // the same for the URLs that clients get; Endpoint
	Bucket    string // it must be there; needed
	Region    string // "us-east-1"
	AccessKey string // needed
	SecretKey string // needed
	Prefix    string // before every key; with a slash at its end, if any
	PathStyle bool   // the bucket in the path and not in the host's name: for servers of one's own

	PartSize int64             // of multipart uploads, bytes; 16 MiB. Larger for objects that would have too many
	Parts    int               // sent at a time; 4
	Client   http.RoundTripper // minio's default
}

// What S3 allows: parts of 5 MiB to 5 GiB, the last one also smaller, and 10,000 of them.
// https://docs.aws.amazon.com/AmazonS3/latest/userguide/qfacts.html
const (
	minPart  = 5 << 20
	maxPart  = 5 << 30
	maxParts = 10_000
)

// Store is a bucket, or what is under a prefix in one. It is made by New and safe for concurrent use.
type Store struct {
	opt    Options
	client *minio.Core
	public *minio.Core // the same, as clients reach it: only signs
	putter *multipart.Putter

	objects, parts checksums // of whole objects, and of parts: a server may have the one and not the other
}

var _ store.Store = (*Store)(nil)

// New returns the store. It connects when it has something to do; Check says whether it could.
func New(opt Options) (*Store, error) {
	const op = "s3.New"
	opt.Region = cmp.Or(opt.Region, "us-east-1")
	if opt.Bucket == "" || opt.AccessKey == "" || opt.SecretKey == "" {
		return nil, upload.Errorf(upload.Invalid, op, "", "An S3 store needs a bucket, an access key and a secret key.")
	}
	client, err := opt.connect(opt.Endpoint)
	if err != nil {
		return nil, err
	}
	public, err := opt.connect(cmp.Or(opt.Public, opt.Endpoint))
	if err != nil {
		return nil, err
	}
	s := &Store{opt: opt, client: client, public: public, parts: checksums{late: true}}
	s.putter = multipart.New(server{s}, multipart.Options{PartSize: opt.PartSize, Parts: opt.Parts, MinPart: minPart, MaxParts: maxParts})
	return s, nil
}

// connect returns a client for an endpoint. It does not speak to it.
func (o *Options) connect(endpoint string) (*minio.Core, error) {
	const op = "s3.New"
	u, err := url.Parse(endpoint)
	if err != nil || u.Scheme != "http" && u.Scheme != "https" || u.Host == "" || u.User != nil || strings.Trim(u.Path, "/") != "" {
		return nil, upload.Errorf(upload.Invalid, op, "", "The endpoint of an S3 store is a URL like https://s3.example.com.")
	}
	lookup := minio.BucketLookupDNS
	if o.PathStyle {
		lookup = minio.BucketLookupPath
	}
	client, err := minio.NewCore(u.Host, &minio.Options{
		Creds: credentials.NewStaticV4(o.AccessKey, o.SecretKey, ""), Secure: u.Scheme == "https",
		Region: o.Region, BucketLookup: lookup, Transport: o.Client, MaxRetries: 1, // multipart and the worker try again
	})
	return client, upload.Wrap(upload.Invalid, op, "", err)
}

// Size returns an object's length.
func (s *Store) Size(ctx context.Context, key string) (int64, error) {
	info, err := s.stat(ctx, "s3.Size", key)
	return info.Size, err
}

func (s *Store) stat(ctx context.Context, op, key string) (minio.ObjectInfo, error) {
	if err := store.CheckKey("s3", key); err != nil {
		return minio.ObjectInfo{}, err
	}
	info, err := s.client.StatObject(ctx, s.opt.Bucket, s.opt.Prefix+key, minio.StatObjectOptions{Checksum: true})
	return info, s.missing(ctx, op, key, err)
}

// missing tells an object that is not there from a bucket that is not: an answer to HEAD has no body that says it.
func (s *Store) missing(ctx context.Context, op, key string, err error) error {
	err = classify(op, key, err)
	if errors.Is(err, upload.NotFound) {
		if bucket := s.Check(ctx); bucket != nil {
			return bucket
		}
	}
	return err
}

// Open reads a part of an object.
func (s *Store) Open(ctx context.Context, key string, offset, length int64) (io.ReadCloser, error) {
	const op = "s3.Open"
	if err := store.CheckKey("s3", key); err != nil {
		return nil, err
	}
	if offset < 0 || length < -1 {
		return nil, upload.Errorf(upload.BadRange, op, key, "A range begins at 0 or later.")
	}
	opt := minio.GetObjectOptions{}
	switch {
	case length == 0: // cannot be asked for
		return store.AtEnd(ctx, s, op, key, offset, length)
	case length > 0:
		opt.Set("Range", fmt.Sprintf("bytes=%d-%d", offset, offset+min(length, math.MaxInt64-offset)-1))
	case offset > 0:
		opt.Set("Range", fmt.Sprintf("bytes=%d-", offset))
	}
	body, info, header, err := s.client.GetObject(ctx, s.opt.Bucket, s.opt.Prefix+key, opt)
	if err = classify(op, key, err); errors.Is(err, upload.BadRange) {
		return store.AtEnd(ctx, s, op, key, offset, length)
	}
	if err != nil {
		return nil, err
	}
	left := info.Size
	if ranged := opt.Header().Get("Range") != ""; ranged || left < 0 {
		var first, last, size int64
		_, err := fmt.Sscanf(header.Get("Content-Range"), "bytes %d-%d/%d", &first, &last, &size)
		if err != nil || !ranged || first != offset || last != size-1 && last != offset+length-1 {
			return nil, errors.Join(upload.Errorf(upload.Unavailable, op, key, "The store answers with another range than was asked for."), body.Close())
		}
		left = last - first + 1
	}
	return store.Exact("s3.Read", key, body, left, classify), nil
}

// Put sends the content in one request, or in parts; see package multipart.
func (s *Store) Put(ctx context.Context, key string, content store.Content, opt store.PutOptions) error {
	if err := store.CheckKey("s3", key); err != nil {
		return err
	}
	return s.putter.Put(ctx, key, content, opt)
}

// Verify compares the checksum of the whole object if the server has one, and reads the object back if not.
func (s *Store) Verify(ctx context.Context, key string, want store.Digests) error {
	const op = "s3.Verify"
	info, err := s.stat(ctx, op, key)
	switch {
	case err != nil:
		return err
	case info.Size != want.Size:
		return store.Mismatch(op, key, fmt.Sprintf("%d bytes", want.Size), fmt.Sprintf("%d bytes", info.Size))
	case info.ChecksumMode != wholeObject || info.ChecksumCRC32C == "":
		return store.ReadBack(ctx, s, key, want)
	case info.ChecksumCRC32C != written(want.CRC32C):
		return store.Mismatch(op, key, "crc32c "+written(want.CRC32C), "crc32c "+info.ChecksumCRC32C)
	}
	return nil
}

// abandoned is after how long a multipart upload will not be gone on with.
const abandoned = 7 * 24 * time.Hour

// Clean aborts multipart uploads that nobody goes on with.
func (s *Store) Clean(ctx context.Context) error { return s.putter.Clean(ctx, abandoned) }

// Delete removes an object.
func (s *Store) Delete(ctx context.Context, key string) error {
	if err := store.CheckKey("s3", key); err != nil {
		return err
	}
	err := classify("s3.Delete", key, s.client.RemoveObject(ctx, s.opt.Bucket, s.opt.Prefix+key, minio.RemoveObjectOptions{}))
	if errors.Is(err, upload.NotFound) {
		return nil
	}
	return err
}

// List goes through the objects in the order of keys.
func (s *Store) List(ctx context.Context) iter.Seq2[store.Object, error] {
	return func(yield func(store.Object, error) bool) {
		ctx, cancel := context.WithCancel(ctx)
		defer cancel()
		for o := range s.client.ListObjectsIter(ctx, s.opt.Bucket, minio.ListObjectsOptions{Prefix: s.opt.Prefix, Recursive: true}) {
			if o.Err != nil {
				yield(store.Object{}, classify("s3.List", "", o.Err))
				return
			}
			if !yield(store.Object{Key: strings.TrimPrefix(o.Key, s.opt.Prefix), Size: o.Size, Unix: o.LastModified.Unix()}, nil) {
				return
			}
		}
		if err := ctx.Err(); err != nil {
			yield(store.Object{}, classify("s3.List", "", err))
		}
	}
}

// meaning is what an error code of S3 means to us, and to the user.
type meaning struct {
	kind   upload.Kind
	detail string
}

var (
	noKey     = meaning{upload.NotFound, "There is no such object."}
	noUpload  = meaning{upload.NotFound, "There is no such multipart upload (any more)."}
	noBucket  = meaning{upload.Invalid, "There is no such bucket. Make it, or correct the store's settings."}
	denied    = meaning{upload.Invalid, "The access key may not do that. Allow it what docs/stores/s3.md says."}
	wrongKey  = meaning{upload.Invalid, "The store does not accept the access key and its secret. Correct the store's settings."}
	elsewhere = meaning{upload.Invalid, "The bucket is in another region. Correct the store's region and endpoint."}
	noObject  = meaning{upload.Invalid, "The store does not take such an object."}
	full      = meaning{upload.NoRoom, "The store is full, or its quota is used up."}
	damaged   = meaning{upload.DigestMismatch, "Bytes were damaged on their way to the store."}
)

// meanings of error codes. What is not here may work later.
var meanings = map[string]meaning{
	"NoSuchKey": noKey, "NotFound": noKey, "NoSuchUpload": noUpload, "NoSuchBucket": noBucket, "InvalidBucketName": noBucket,
	"AccessDenied": denied, "AllAccessDisabled": denied, "AccountProblem": denied, "MethodNotAllowed": denied,
	"InvalidAccessKeyId": wrongKey, "SignatureDoesNotMatch": wrongKey,
	"PermanentRedirect": elsewhere, "AuthorizationHeaderMalformed": elsewhere, "EntityTooLarge": noObject, "KeyTooLongError": noObject,
	"QuotaExceeded": full, "InsufficientCapacity": full, "XMinioStorageFull": full,
	"BadDigest": damaged, "InvalidDigest": damaged, "XAmzContentChecksumMismatch": damaged,
	"InvalidRange":         {upload.BadRange, "The object has not so many bytes."},
	"SlowDown":             {upload.Unavailable, "The store is busy."},
	"RequestTimeTooSkewed": {upload.Unavailable, "The clocks of this node and the store differ. Set them by NTP."},
	// A part that Complete names is not there. The next Put will find out which.
	"InvalidPart": {upload.Conflict, "The multipart upload has other parts than were sent."},
}

func classify(op, key string, err error) error {
	switch {
	case err == nil:
		return nil
	case upload.KindOf(err) != upload.Internal:
		return upload.Wrap(upload.Unavailable, op, key, err)
	case errors.Is(err, context.Canceled):
		return upload.Wrap(upload.Canceled, op, key, err)
	}
	if answer, ok := errors.AsType[minio.ErrorResponse](err); ok {
		m, known := meanings[answer.Code]
		if !known && answer.StatusCode == http.StatusNotFound {
			m, known = noKey, true
		}
		if known {
			return &upload.Error{Op: op, Kind: m.kind, ID: key, Detail: m.detail, Err: err}
		}
	}
	return upload.Wrap(upload.Unavailable, op, key, err)
}
