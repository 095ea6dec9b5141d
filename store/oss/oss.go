// Package oss keeps objects in a bucket of Aliyun's Object Storage Service.
package oss

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"iter"
	"math"
	"net"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"time"

	sdk "github.com/aliyun/aliyun-oss-go-sdk/oss"

	"gantry/store"
	"gantry/store/multipart"
	"gantry/upload"
)

// Options are the settings of a Store. What is zero gets its default.
type Options struct {
	Endpoint  string // an http or https URL without the bucket, or of a domain that is bound to it; needed
	Public    string // the same for the URLs that clients get; Endpoint
	Bucket    string // it must be there; needed
	Region    string // such as "cn-hangzhou"; the one in Endpoint's name
	AccessKey string // needed
	SecretKey string // needed
	Token     string // that comes with temporary keys
	Prefix    string // before every key; with a slash at its end, if any
	Signature string // "v4" or "v1"; "v4"
	PathStyle bool   // the bucket in the path and not in the host's name, which Aliyun itself does not take

	PartSize int64             // of multipart uploads, bytes; 16 MiB. Larger for objects that would have too many
	Parts    int               // sent at a time; 4
	Client   http.RoundTripper // one that gives up a connection over which nothing has come for a minute
}

// What OSS allows: parts of 100 KiB to 5 GiB, the last one also smaller, and 10,000 of them.
// https://www.alibabacloud.com/help/en/oss/developer-reference/uploadpart
const (
	minPart  = 100 << 10
	maxPart  = 5 << 30
	maxParts = 10_000
)

// Store is a bucket, or what is under a prefix in one. It is made by New and safe for concurrent use.
type Store struct {
	opt    Options
	bucket *sdk.Bucket
	public *sdk.Bucket // the same, as clients reach it
	putter *multipart.Putter
}

var (
	_ store.Store         = (*Store)(nil)
	_ store.Checker       = (*Store)(nil)
	_ store.CRC64Verifier = (*Store)(nil)
)

// New returns the store. It connects when it has something to do; Check says whether it could.
func New(opt Options) (*Store, error) {
	const op = "oss.New"
	opt.Public, opt.Signature = cmp.Or(opt.Public, opt.Endpoint), cmp.Or(opt.Signature, "v4")
	host, err := hostOf(opt.Endpoint)
	if err != nil {
		return nil, err
	}
	if opt.Bucket == "" || opt.AccessKey == "" || opt.SecretKey == "" {
		return nil, upload.Errorf(upload.Invalid, op, "", "An OSS store needs a bucket, an access key and a secret key.")
	}
	opt.Region = strings.TrimPrefix(cmp.Or(opt.Region, regionOf(host)), "oss-") // as signatures have it
	switch {
	case opt.Signature != "v1" && opt.Signature != "v4":
		return nil, upload.Errorf(upload.Invalid, op, "", "The signature of an OSS store is v4 or v1.")
	case opt.Signature == "v4" && opt.Region == "":
		return nil, upload.Errorf(upload.Invalid, op, "", "An OSS store needs its region, such as cn-hangzhou, unless the endpoint's name has it.")
	}
	s := &Store{opt: opt}
	if s.bucket, err = opt.client(opt.Endpoint); err != nil {
		return nil, upload.Wrap(upload.Invalid, op, "", err)
	}
	if s.public, err = opt.client(opt.Public); err != nil {
		return nil, upload.Wrap(upload.Invalid, op, "", err)
	}
	s.putter = multipart.New(server{s}, multipart.Options{PartSize: opt.PartSize, Parts: opt.Parts, MinPart: minPart, MaxParts: maxParts})
	return s, nil
}

const aliyun = ".aliyuncs.com"

func hostOf(endpoint string) (string, error) {
	u, err := url.Parse(endpoint)
	if err != nil || u.Scheme != "http" && u.Scheme != "https" || u.Host == "" || u.User != nil || strings.Trim(u.Path, "/") != "" {
		return "", upload.Errorf(upload.Invalid, "oss.New", "", "The endpoint of an OSS store is a URL like https://oss-cn-hangzhou.aliyuncs.com.")
	}
	return u.Hostname(), nil
}

// regionOf is the region in the name of one of Aliyun's endpoints: oss-cn-hangzhou-internal.aliyuncs.com is in cn-hangzhou,
// oss-accelerate.aliyuncs.com anywhere.
func regionOf(host string) string {
	name, ofAliyun := strings.CutSuffix(host, aliyun)
	name, ofRegion := strings.CutPrefix(name, "oss-")
	if !ofAliyun || !ofRegion || strings.HasPrefix(name, "accelerate") {
		return ""
	}
	return strings.TrimSuffix(name, "-internal")
}

// bound reports whether a host is a domain of one's own that is bound to one bucket, whose name is not put before it. OSS's
// own names begin with oss-, also in private clouds.
func bound(host string) bool {
	return !strings.HasPrefix(host, "oss-") && !strings.HasSuffix(host, aliyun) && net.ParseIP(host) == nil
}

// client returns the bucket as it is reached by an endpoint. The SDK sends each request once: to try again is for package
// multipart and the worker. It computes the CRC-64 of what it sends, and compares it with that in OSS's answer.
func (opt Options) client(endpoint string) (*sdk.Bucket, error) {
	host, err := hostOf(endpoint)
	if err != nil {
		return nil, err
	}
	options := []sdk.ClientOption{
		sdk.Region(opt.Region), sdk.AuthVersion(sdk.AuthV4), sdk.SecurityToken(opt.Token), sdk.UseCname(bound(host) && !opt.PathStyle), sdk.ForcePathStyle(opt.PathStyle),
		sdk.EnableCRC(true), sdk.EnableMD5(false), sdk.RedirectEnabled(false), sdk.Timeout(10, 60),
	}
	if opt.Signature == "v1" {
		options = append(options, sdk.AuthVersion(sdk.AuthV1))
	}
	if opt.Client != nil {
		options = append(options, sdk.HTTPClient(&http.Client{
			Transport:     opt.Client,
			CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
		}))
	}
	client, err := sdk.New(strings.TrimSuffix(endpoint, "/"), opt.AccessKey, opt.SecretKey, options...)
	if err != nil {
		return nil, err
	}
	return client.Bucket(opt.Bucket)
}

// Check reports whether the bucket is there and may be used.
func (s *Store) Check(ctx context.Context) error {
	_, err := s.bucket.ListObjectsV2(sdk.Prefix(s.opt.Prefix), sdk.MaxKeys(1), sdk.WithContext(ctx))
	return classify("oss.Check", "", err)
}

// head returns what OSS says of an object, its length among it.
func (s *Store) head(ctx context.Context, op, key string) (header http.Header, size int64, err error) {
	if err := store.CheckKey("oss", key); err != nil {
		return nil, 0, err
	}
	header, err = s.bucket.GetObjectDetailedMeta(s.opt.Prefix+key, sdk.WithContext(ctx))
	if err != nil {
		// An answer to HEAD has no body that would say what is missing, the object or the bucket, or what is wrong.
		if answer, ok := errors.AsType[sdk.ServiceError](err); ok && answer.Code == "" {
			if err := s.Check(ctx); err != nil {
				return nil, 0, err
			}
		}
		return nil, 0, classify(op, key, err)
	}
	size, err = strconv.ParseInt(header.Get("Content-Length"), 10, 64)
	return header, size, upload.Wrap(upload.Unavailable, op, key, err)
}

// Size returns an object's length.
func (s *Store) Size(ctx context.Context, key string) (int64, error) {
	_, size, err := s.head(ctx, "oss.Size", key)
	return size, err
}

// VerifiesCRC64 says that OSS computes the CRC-64 of what it has.
func (s *Store) VerifiesCRC64() {}

// Verify compares the CRC-64 that OSS has computed of the object, where there is one to compare it with, and reads the
// object back where there is not. Objects that were copied into the bucket may have none:
// https://www.alibabacloud.com/help/en/oss/user-guide/check-data-transmission-integrity-by-using-crc-64
func (s *Store) Verify(ctx context.Context, key string, want store.Digests) error {
	const op = "oss.Verify"
	header, size, err := s.head(ctx, op, key)
	if err != nil {
		return err
	}
	if size != want.Size {
		return store.Mismatch(op, key, fmt.Sprintf("%d bytes", want.Size), fmt.Sprintf("%d bytes", size))
	}
	sum, err := strconv.ParseUint(header.Get(sdk.HTTPHeaderOssCRC64), 10, 64)
	if err != nil || want.CRC64 == nil {
		return store.ReadBack(ctx, s, key, want)
	}
	if sum != *want.CRC64 {
		return store.Mismatch(op, key, fmt.Sprintf("crc64 %016x", *want.CRC64), fmt.Sprintf("crc64 %016x", sum))
	}
	return nil
}

// Open reads a part of an object.
func (s *Store) Open(ctx context.Context, key string, offset, length int64) (io.ReadCloser, error) {
	const op = "oss.Open"
	if err := store.CheckKey("oss", key); err != nil {
		return nil, err
	}
	if offset < 0 || length < -1 {
		return nil, upload.Errorf(upload.BadRange, op, key, "A range begins at 0 or later.")
	}
	if length == 0 { // cannot be asked for
		return store.AtEnd(ctx, s, op, key, offset, length)
	}
	until := ""
	if length > 0 {
		until = strconv.FormatInt(offset+min(length, math.MaxInt64-offset)-1, 10)
	}
	// Without the standard's behavior OSS answers with the whole object where a range goes beyond its end.
	got, err := s.bucket.DoGetObject(&sdk.GetObjectRequest{ObjectKey: s.opt.Prefix + key}, []sdk.Option{
		sdk.NormalizedRange(fmt.Sprintf("%d-%s", offset, until)), sdk.RangeBehavior("standard"), sdk.WithContext(ctx),
	})
	if err = classify(op, key, err); errors.Is(err, upload.BadRange) {
		return store.AtEnd(ctx, s, op, key, offset, length)
	}
	if err != nil {
		return nil, err
	}
	var first, last, size int64
	_, err = fmt.Sscanf(got.Response.Headers.Get("Content-Range"), "bytes %d-%d/%d", &first, &last, &size)
	if err != nil || first != offset || last != size-1 && last != offset+length-1 {
		return nil, errors.Join(upload.Errorf(upload.Unavailable, op, key, "The store answers with another range than was asked for."), got.Response.Close())
	}
	return store.Exact("oss.Read", key, got.Response, last-first+1, classify), nil
}

// Put sends the content in one request, or in parts; see package multipart.
func (s *Store) Put(ctx context.Context, key string, content store.Content, opt store.PutOptions) error {
	if err := store.CheckKey("oss", key); err != nil {
		return err
	}
	return s.putter.Put(ctx, key, content, opt)
}

// abandoned is after how long a multipart upload will not be gone on with.
const abandoned = 7 * 24 * time.Hour

// Clean aborts multipart uploads that nobody goes on with.
func (s *Store) Clean(ctx context.Context) error { return s.putter.Clean(ctx, abandoned) }

// Delete removes an object.
func (s *Store) Delete(ctx context.Context, key string) error {
	if err := store.CheckKey("oss", key); err != nil {
		return err
	}
	err := classify("oss.Delete", key, s.bucket.DeleteObject(s.opt.Prefix+key, sdk.WithContext(ctx)))
	if errors.Is(err, upload.NotFound) {
		return nil
	}
	return err
}

// List goes through the objects in the order of keys.
func (s *Store) List(ctx context.Context) iter.Seq2[store.Object, error] {
	return func(yield func(store.Object, error) bool) {
		for token := ""; ; {
			options := []sdk.Option{sdk.Prefix(s.opt.Prefix), sdk.MaxKeys(1000), sdk.WithContext(ctx)}
			if token != "" {
				options = append(options, sdk.ContinuationToken(token))
			}
			page, err := s.bucket.ListObjectsV2(options...)
			if err != nil {
				yield(store.Object{}, classify("oss.List", "", err))
				return
			}
			for _, o := range page.Objects {
				if !yield(store.Object{Key: strings.TrimPrefix(o.Key, s.opt.Prefix), Size: o.Size, Unix: o.LastModified.Unix()}, nil) {
					return
				}
			}
			if !page.IsTruncated {
				return
			}
			token = page.NextContinuationToken
		}
	}
}
