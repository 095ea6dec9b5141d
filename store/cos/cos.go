// Package cos keeps objects in a bucket of Tencent Cloud's COS.
package cos

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"iter"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"time"
	"unicode"
	"unicode/utf8"

	sdk "github.com/tencentyun/cos-go-sdk-v5"

	"gantry/store"
	"gantry/store/multipart"
	"gantry/upload"
)

// Options are the settings of a Store. What is zero gets its default.
type Options struct {
	Endpoint  string // the bucket's http or https URL; "https://BUCKET.cos.REGION.myqcloud.com"
	Public    string // the same for the URLs that clients get; Endpoint
	Bucket    string // with the APPID at its end, as in "media-1250000000"; it must be there; needed
	Region    string // as in "ap-guangzhou"; needed if there is no Endpoint
	AccessKey string // the SecretId; needed
	SecretKey string // needed
	Token     string // of temporary credentials; "": they are permanent
	Prefix    string // before every key; with a slash at its end, if any

	PartSize int64             // of multipart uploads, bytes; 16 MiB. Larger for objects that would have too many
	Parts    int               // sent at a time; 4
	Patience time.Duration     // for how long nothing may move in either direction before a request is given up; 1 min
	Client   http.RoundTripper // net/http's, with as many idle connections as there are parts
}

// What COS allows: parts of 1 MiB to 5 GiB, the last may be smaller, and 10,000 of them; keys of 850 bytes.
// https://www.tencentcloud.com/document/product/436/14518 (Specifications and Limits)
const (
	minPart  = 1 << 20
	maxPart  = 5 << 30
	maxParts = 10_000
	maxKey   = 850
)

// Store is a bucket, or what is under a prefix in one. It is made by New and safe for concurrent use.
type Store struct {
	opt    Options
	client *sdk.Client
	public *sdk.Client // signs the URLs that clients get, and sends nothing
	putter *multipart.Putter
}

var (
	_ store.Store         = (*Store)(nil)
	_ store.Checker       = (*Store)(nil)
	_ store.CRC64Verifier = (*Store)(nil)
)

// New returns the store. It connects when it has something to do; Check says whether it could.
func New(opt Options) (*Store, error) {
	const op = "cos.New"
	if opt.Bucket == "" || opt.AccessKey == "" || opt.SecretKey == "" {
		return nil, upload.Errorf(upload.Invalid, op, "", "A COS store needs a bucket (with the APPID at its end), a SecretId and a SecretKey.")
	}
	if opt.Prefix != "" && !valid(strings.TrimSuffix(opt.Prefix, "/")) {
		return nil, upload.Errorf(upload.Invalid, op, "", "The prefix of a COS store is like a/b/.")
	}
	if opt.Endpoint == "" {
		u, err := sdk.NewBucketURL(opt.Bucket, opt.Region, true)
		if err != nil {
			return nil, upload.Errorf(upload.Invalid, op, "", "A COS store needs a bucket like media-1250000000 and a region like ap-guangzhou, or an endpoint.")
		}
		opt.Endpoint = u.String()
	}
	client, err := opt.client(opt.Endpoint)
	if err != nil {
		return nil, err
	}
	public, err := opt.client(cmp.Or(opt.Public, opt.Endpoint))
	if err != nil {
		return nil, err
	}
	s := &Store{opt: opt, client: client, public: public}
	s.putter = multipart.New(server{s}, multipart.Options{PartSize: opt.PartSize, Parts: opt.Parts, MinPart: minPart, MaxParts: maxParts})
	return s, nil
}

// client returns what asks the bucket at an endpoint, or signs URLs of it.
func (opt *Options) client(endpoint string) (*sdk.Client, error) {
	const op = "cos.New"
	u, err := url.Parse(endpoint)
	if err != nil || u.Scheme != "http" && u.Scheme != "https" || u.Host == "" || u.User != nil || strings.Trim(u.Path, "/") != "" || u.RawQuery != "" {
		return nil, upload.Errorf(upload.Invalid, op, "", "The endpoint of a COS store is the bucket's URL, like https://media-1250000000.cos.ap-guangzhou.myqcloud.com.")
	}
	base := &sdk.BaseURL{BucketURL: &url.URL{Scheme: u.Scheme, Host: u.Host}}
	tencent := strings.HasSuffix(u.Hostname(), ".myqcloud.com") || strings.HasSuffix(u.Hostname(), ".tencentcos.cn")
	if !base.Check() || tencent && !strings.HasPrefix(u.Host, opt.Bucket+".") {
		return nil, upload.Errorf(upload.Invalid, op, "", "The endpoint of a COS store begins with its bucket: https://%s.cos….", opt.Bucket)
	}
	client := sdk.NewClient(base, &http.Client{Transport: &sdk.AuthorizationTransport{
		SecretID: opt.AccessKey, SecretKey: opt.SecretKey, SessionToken: opt.Token, Transport: newWire(opt),
	}})
	client.Conf.RetryOpt.Count = 1 // package multipart and the worker try again, and stop when they are told to
	client.Conf.EnableCRC = false  // server computes it, and says what kind of error it is
	return client, nil
}

// Check reports whether the bucket is there and may be used.
func (s *Store) Check(ctx context.Context) error {
	const op = "cos.Check"
	_, err := s.client.Bucket.Head(ctx)
	if err = classify(op, "", err); errors.Is(err, upload.NotFound) {
		return upload.Errorf(upload.Invalid, op, "", "There is no bucket %q. Make it, or correct the store's settings.", s.opt.Bucket)
	}
	return err
}

// checkKey refuses keys that could be mistaken for others, that COS does not take, or that are none.
func (s *Store) checkKey(key string) error {
	if !valid(key) || len(s.opt.Prefix)+len(key) > maxKey {
		return upload.Errorf(upload.Invalid, "cos", key, "That is no key of an object.")
	}
	return nil
}

func valid(key string) bool {
	bad := func(r rune) bool { return unicode.IsControl(r) || r == '\\' }
	if len(key) > 512 || !utf8.ValidString(key) || strings.ContainsFunc(key, bad) {
		return false
	}
	for part := range strings.SplitSeq(key, "/") {
		if part == "." || part == ".." || part == "" {
			return false
		}
	}
	return true
}

// crcHeader is the CRC-64 of what was stored, as a decimal number: of a part in the answer to it, of an object
// in that to HEAD. https://www.tencentcloud.com/document/product/436/43320 (CRC64 Check)
const crcHeader = "x-cos-hash-crc64ecma"

// head returns an object's length and its CRC-64 as COS writes it, "" if COS has none.
func (s *Store) head(ctx context.Context, op, key string) (size int64, crc string, err error) {
	if err := s.checkKey(key); err != nil {
		return 0, "", err
	}
	resp, err := s.client.Object.Head(ctx, s.opt.Prefix+key, nil)
	if err != nil {
		return 0, "", s.missing(ctx, op, key, err)
	}
	if resp.ContentLength < 0 {
		return 0, "", upload.Errorf(upload.Unavailable, op, key, "The store does not tell how long the object is.")
	}
	return resp.ContentLength, resp.Header.Get(crcHeader), nil
}

// Size returns an object's length.
func (s *Store) Size(ctx context.Context, key string) (int64, error) {
	size, _, err := s.head(ctx, "cos.Size", key)
	return size, err
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

// Open reads a part of an object, in one request unless it is empty.
func (s *Store) Open(ctx context.Context, key string, offset, length int64) (io.ReadCloser, error) {
	const op = "cos.Open"
	if err := s.checkKey(key); err != nil {
		return nil, err
	}
	if offset < 0 || length < -1 {
		return nil, upload.Errorf(upload.BadRange, op, key, "A range begins at 0 or later.")
	}
	if length == 0 {
		return store.AtEnd(ctx, s, op, key, offset, length)
	}
	wanted := fmt.Sprintf("bytes=%d-", offset)
	if length > 0 && length < maxPart*maxParts { // no object has more
		wanted = fmt.Sprintf("bytes=%d-%d", offset, offset+length-1)
	}
	resp, err := s.client.Object.Get(ctx, s.opt.Prefix+key, &sdk.ObjectGetOptions{Range: wanted})
	if err = classify(op, key, err); errors.Is(err, upload.BadRange) {
		return store.AtEnd(ctx, s, op, key, offset, length)
	}
	if err != nil {
		return nil, err
	}
	var first, last, size int64
	_, err = fmt.Sscanf(resp.Header.Get("Content-Range"), "bytes %d-%d/%d", &first, &last, &size)
	if err != nil || resp.StatusCode != http.StatusPartialContent || first != offset || last != size-1 && last != offset+length-1 || resp.ContentLength != last-first+1 {
		resp.Body.Close()
		return nil, upload.Errorf(upload.Unavailable, op, key, "The store answers with another range than was asked for.")
	}
	return store.Exact("cos.Read", key, resp.Body, resp.ContentLength, classify), nil
}

// Put sends the content in one request, or in parts; see package multipart.
func (s *Store) Put(ctx context.Context, key string, content store.Content, opt store.PutOptions) error {
	if err := s.checkKey(key); err != nil {
		return err
	}
	return s.putter.Put(ctx, key, content, opt)
}

// VerifiesCRC64 says that Verify costs one request where the CRC-64 is known.
func (s *Store) VerifiesCRC64() {}

// Verify compares the CRC-64 that COS computed of what it received. Without one to compare it reads the object back:
// objects from before 2019 have none, nor does a caller that did not compute it.
func (s *Store) Verify(ctx context.Context, key string, want store.Digests) error {
	const op = "cos.Verify"
	size, crc, err := s.head(ctx, op, key)
	switch {
	case err != nil:
		return err
	case size != want.Size:
		return store.Mismatch(op, key, fmt.Sprintf("%d bytes", want.Size), fmt.Sprintf("%d bytes", size))
	case crc == "" || want.CRC64 == nil:
		return store.ReadBack(ctx, s, key, want)
	case crc != strconv.FormatUint(*want.CRC64, 10):
		return store.Mismatch(op, key, "crc64 "+strconv.FormatUint(*want.CRC64, 10), "crc64 "+crc)
	}
	return nil
}

// abandoned is after how long a multipart upload will not be gone on with.
const abandoned = 7 * 24 * time.Hour

// Clean aborts multipart uploads that nobody goes on with.
func (s *Store) Clean(ctx context.Context) error { return s.putter.Clean(ctx, abandoned) }

// Delete removes an object.
func (s *Store) Delete(ctx context.Context, key string) error {
	if err := s.checkKey(key); err != nil {
		return err
	}
	_, err := s.client.Object.Delete(ctx, s.opt.Prefix+key)
	if err = classify("cos.Delete", key, err); errors.Is(err, upload.NotFound) {
		return nil
	}
	return err
}

// List goes through the objects in the order of keys.
func (s *Store) List(ctx context.Context) iter.Seq2[store.Object, error] {
	const op = "cos.List"
	return func(yield func(store.Object, error) bool) {
		for marker, more := "", true; more; {
			page, _, err := s.client.Bucket.Get(ctx, &sdk.BucketGetOptions{Prefix: s.opt.Prefix, Marker: marker, MaxKeys: 1000, EncodingType: "url"})
			if err != nil {
				yield(store.Object{}, classify(op, "", err))
				return
			}
			for _, o := range page.Contents {
				key, err := sdk.DecodeURIComponent(o.Key)
				written, timeErr := time.Parse(time.RFC3339, o.LastModified)
				if err = errors.Join(err, timeErr); err != nil {
					yield(store.Object{}, upload.Wrap(upload.Unavailable, op, "", err))
					return
				}
				if !yield(store.Object{Key: strings.TrimPrefix(key, s.opt.Prefix), Size: o.Size, Unix: written.Unix()}, nil) {
					return
				}
				marker = key
			}
			more = page.IsTruncated && len(page.Contents) > 0
		}
	}
}
