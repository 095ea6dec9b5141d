// Package s3 keeps objects in a bucket of any server that speaks S3: AWS, Ceph's RGW, MinIO, R2 and others.
package s3

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"iter"
	"net/http"
	"net/url"
	"strings"

	"github.com/minio/minio-go/v7"
	"github.com/minio/minio-go/v7/pkg/credentials"

	"gantry/store"
	"gantry/upload"
)

// Options are the settings of a Store. What is zero gets its default.
type Options struct {
	Endpoint  string // an http or https URL; needed
	Bucket    string // it must be there; needed
	Region    string // "us-east-1"
	AccessKey string // needed
	SecretKey string // needed
	Prefix    string // before every key; with a slash at its end, if any
	PathStyle bool   // the bucket in the path and not in the host's name: for servers of one's own

	PartSize int64             // of multipart uploads, bytes; 16 MiB. Larger for objects that would have too many
	Parts    int               // sent at a time for one object; 4
	Client   http.RoundTripper // minio's default
}

// What S3 allows: parts of at least 5 MiB but for the last, and 10,000 of them.
const (
	minPart  = 5 << 20
	maxParts = 10_000
)

// Store is a bucket, or what is under a prefix in one. It is made by New and safe for concurrent use.
type Store struct {
	opt    Options
	client *minio.Core
}

var _ store.Store = (*Store)(nil)

// New returns the store. It connects when it has something to do; Check says whether it could.
func New(opt Options) (*Store, error) {
	const op = "s3.New"
	opt.Region = cmp.Or(opt.Region, "us-east-1")
	opt.PartSize = max(cmp.Or(opt.PartSize, 16<<20), minPart)
	opt.Parts = max(cmp.Or(opt.Parts, 4), 1)
	u, err := url.Parse(opt.Endpoint)
	if err != nil || u.Scheme != "http" && u.Scheme != "https" || u.Host == "" || u.User != nil || strings.Trim(u.Path, "/") != "" {
		return nil, upload.Errorf(upload.Invalid, op, "", "The endpoint of an S3 store is a URL like https://s3.example.com.")
	}
	if opt.Bucket == "" || opt.AccessKey == "" || opt.SecretKey == "" {
		return nil, upload.Errorf(upload.Invalid, op, "", "An S3 store needs a bucket, an access key and a secret key.")
	}
	lookup := minio.BucketLookupDNS
	if opt.PathStyle {
		lookup = minio.BucketLookupPath
	}
	client, err := minio.NewCore(u.Host, &minio.Options{
		Creds: credentials.NewStaticV4(opt.AccessKey, opt.SecretKey, ""), Secure: u.Scheme == "https",
		Region: opt.Region, BucketLookup: lookup, Transport: opt.Client, MaxRetries: 1, // the worker tries again
	})
	if err != nil {
		return nil, upload.Wrap(upload.Invalid, op, "", err)
	}
	return &Store{opt: opt, client: client}, nil
}

// Check reports whether the bucket is there and may be used.
func (s *Store) Check(ctx context.Context) error {
	const op = "s3.Check"
	there, err := s.client.BucketExists(ctx, s.opt.Bucket)
	if err != nil {
		return classify(op, "", err)
	}
	if !there {
		return upload.Errorf(upload.Invalid, op, "", "There is no bucket %q. Make it, or correct the store's settings.", s.opt.Bucket)
	}
	return nil
}

// checkKey refuses keys that could be mistaken for others, or are none.
func (s *Store) checkKey(key string) error {
	if key == "" || len(key) > 512 || strings.HasPrefix(key, "/") || strings.Contains(key, "//") || strings.ContainsAny(key, "\x00\\") {
		return upload.Errorf(upload.Invalid, "s3", key, "That is no key of an object.")
	}
	for part := range strings.SplitSeq(key, "/") {
		if part == "." || part == ".." || part == "" {
			return upload.Errorf(upload.Invalid, "s3", key, "That is no key of an object.")
		}
	}
	return nil
}

// Size returns an object's length.
func (s *Store) Size(ctx context.Context, key string) (int64, error) {
	const op = "s3.Size"
	if err := s.checkKey(key); err != nil {
		return 0, err
	}
	info, err := s.client.StatObject(ctx, s.opt.Bucket, s.opt.Prefix+key, minio.StatObjectOptions{})
	if err != nil {
		return 0, s.missing(ctx, op, key, err)
	}
	return info.Size, nil
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
	size, err := s.Size(ctx, key)
	if err != nil {
		return nil, err
	}
	rest := size - offset
	if offset < 0 || rest < 0 || length < -1 {
		return nil, upload.Errorf(upload.BadRange, op, key, "The object has %d bytes.", size)
	}
	if length == -1 || length > rest {
		length = rest
	}
	if length == 0 {
		return http.NoBody, nil // a range of nothing cannot be asked for
	}
	opt := minio.GetObjectOptions{}
	if err := opt.SetRange(offset, offset+length-1); err != nil {
		return nil, upload.Wrap(upload.Invalid, op, key, err)
	}
	body, _, _, err := s.client.GetObject(ctx, s.opt.Bucket, s.opt.Prefix+key, opt)
	if err != nil {
		return nil, classify(op, key, err)
	}
	return &object{body: body, left: length, key: key}, nil
}

// object is the body of an answer: one that ends early is an error.
type object struct {
	body io.ReadCloser
	left int64
	key  string
}

func (o *object) Read(p []byte) (int, error) {
	n, err := o.body.Read(p)
	o.left -= int64(n)
	switch {
	case errors.Is(err, io.EOF) && o.left > 0:
		err = upload.Errorf(upload.Unavailable, "s3.Read", o.key, "The store ended %d bytes early.", o.left)
	case err != nil && !errors.Is(err, io.EOF):
		err = classify("s3.Read", o.key, err)
	}
	return n, err
}

func (o *object) Close() error { return o.body.Close() }

// Verify reads the object back.
func (s *Store) Verify(ctx context.Context, key string, want store.Digests) error {
	const op = "s3.Verify"
	size, err := s.Size(ctx, key)
	if err != nil {
		return err
	}
	if size != want.Size {
		return mismatch(op, key, fmt.Sprintf("%d bytes", want.Size), fmt.Sprintf("%d bytes", size))
	}
	body, err := s.Open(ctx, key, 0, -1)
	if err != nil {
		return err
	}
	var tree upload.TreeHasher
	crc := crc32.New(upload.Castagnoli)
	_, err = io.CopyBuffer(io.MultiWriter(crc, &tree), body, make([]byte, 1<<20))
	if err = errors.Join(err, body.Close()); err != nil {
		return upload.Wrap(upload.Unavailable, op, key, err)
	}
	if got := crc.Sum32(); got != want.CRC32C {
		return mismatch(op, key, fmt.Sprintf("crc32c %08x", want.CRC32C), fmt.Sprintf("crc32c %08x", got))
	}
	if root := tree.Root(); root != want.Root {
		return mismatch(op, key, "root "+want.Root.String(), "root "+root.String())
	}
	return nil
}

func mismatch(op, key, want, got string) error {
	return &upload.Error{
		Op: op, Kind: upload.DigestMismatch, ID: key, Want: want, Got: got,
		Detail: fmt.Sprintf("The object in the store has %s, not %s.", got, want),
	}
}

// Delete removes an object.
func (s *Store) Delete(ctx context.Context, key string) error {
	if err := s.checkKey(key); err != nil {
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

// kinds are what S3's error codes mean to us. What is not here may work later.
var kinds = map[string]upload.Kind{
	"NoSuchKey": upload.NotFound, "NotFound": upload.NotFound, "NoSuchUpload": upload.NotFound,
	"NoSuchBucket": upload.Invalid, "AccessDenied": upload.Invalid, "InvalidAccessKeyId": upload.Invalid, "SignatureDoesNotMatch": upload.Invalid,
	"AllAccessDisabled": upload.Invalid, "AccountProblem": upload.Invalid, "InvalidBucketName": upload.Invalid, "PermanentRedirect": upload.Invalid,
	"AuthorizationHeaderMalformed": upload.Invalid, "MethodNotAllowed": upload.Invalid, "EntityTooLarge": upload.Invalid, "KeyTooLongError": upload.Invalid,
	"QuotaExceeded": upload.NoRoom, "InsufficientCapacity": upload.NoRoom, "XMinioStorageFull": upload.NoRoom, "InvalidRange": upload.BadRange,
	"RequestTimeTooSkewed": upload.Unavailable,
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
		if kind, known := kinds[answer.Code]; known {
			return upload.Wrap(kind, op, key, err)
		}
		if answer.StatusCode == http.StatusNotFound {
			return upload.Wrap(upload.NotFound, op, key, err)
		}
	}
	return upload.Wrap(upload.Unavailable, op, key, err)
}
